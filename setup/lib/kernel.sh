# shellcheck shell=bash
# The distribution's kernel for each arch, unpacked: image, config, modules. Not the cloud kernels,
# which have no 9p.

kernel_recipe=3
kernel_source() { # ARCH: suite and package. Trixie has no 32-bit x86 kernel any more.
  case $1 in
  amd64 | arm64 | riscv64) echo trixie "linux-image-$1" ;;
  arm) echo trixie linux-image-armmp ;;
  i386) echo bookworm linux-image-686-pae ;;
  esac
}
kernel_current() { current "kernel/$1" "$kernel_recipe $(kernel_source "$1")"; }

kernel_fetch() {
  local arch=$1 start=$EPOCHREALTIME suite package new=$work/kernel-$1 debs=$work/debs-kernel-$1 root=$work/root-kernel-$1
  local release real image direct
  read -r suite package <<<"$(kernel_source "$arch")"
  apt_release "$suite" "$arch"
  real=$(apt-cache "${apt_opts[@]}" depends "$package" | awk '/Depends: linux-image-/ { print $2; exit }') || :
  [ -n "$real" ] || fail 69 "the mirror has no package \`$package\` in $suite" "see $cache/log/kernel-$arch.log"
  apt_download "$debs" "$real"
  unpack "$root" "$debs"/*.deb
  image=$(find "$root/boot" -name 'vmlinu[xz]-*' | head -n 1)
  release=${image##*/vmlinu[xz]-}
  mkdir -p "$new/lib/modules"
  mv "$image" "$new/vmlinuz"
  mv "$root/boot/config-$release" "$new/config"
  mv "$(find "$root" -type d -path "*/lib/modules/$release" | head -n 1)" "$new/lib/modules/$release"
  rm -f "$new/lib/modules/$release"/{build,source}
  kernel_depmod "$arch" "$new" "$release"
  kernel_direct "$arch" "$new"
  {
    json_entry path "kernel/$arch/vmlinuz" version "$release" sha256 "$(sha256 "$new/vmlinuz")" \
      config "kernel/$arch/config" modules "kernel/$arch/lib/modules/$release" | sed 's/}$//'
    [ -z "$direct" ] || {
      printf ', "direct": '
      json_entry path "kernel/$arch/$direct" version "$release" sha256 "$(sha256 "$new/$direct")"
    }
    echo '}'
  } | tr -d '\n' >"$new/entry.json"
  install_component "$new" "kernel/$arch" "$kernel_recipe $(kernel_source "$arch")"
  say "kernel $release ($arch): $(size_mb "$debs"/*.deb), $(seconds_since "$start")"
}

# depmod makes the index of the modules, where the package does not bring one.
kernel_depmod() { # ARCH NEW RELEASE
  local tool_path tool_libs
  [ ! -e "$2/lib/modules/$3/modules.dep" ] || return 0
  own_tool depmod kmod libkmod2 || fail 69 "there is no \`depmod\`" "sudo apt-get install kmod"
  LD_LIBRARY_PATH=$tool_libs "$tool_path" -b "$2" "$3"
}

# The same kernel unpacked, in a form that QEMU's -kernel loads as it is: under emulation the guest
# takes 1 to 3 s to decompress itself. x86: the ELF file, started through PVH. Arm: a raw image needs
# a load address, which a uImage has; 0x208000 into the RAM of QEMU's `virt`, since the first page
# tables and QEMU's own boot code are below. The images of arm64 and riscv64 are no compressed ones.
kernel_direct() { # ARCH NEW: sets direct to the file's name, or to nothing
  local image=$2/vmlinuz offset length
  direct=''
  case $1 in
  amd64 | i386)
    # Documentation/arch/x86/boot.rst: setup_sects, payload_offset, payload_length; the last four
    # bytes of the payload are its size.
    offset=$((($(bytes_at "$image" 0x1f1 1) + 1) * 512 + $(bytes_at "$image" 0x248 4)))
    length=$(($(bytes_at "$image" 0x24c 4) - 4))
    decompress "$image" "$offset" "$length" >"$2/vmlinux" || return 0
    [ "$(head -c 4 "$2/vmlinux")" = $'\x7fELF' ] || return 0
    direct=vmlinux
    ;;
  arm)
    # Where the payload starts is not in the header; its magic number is also in the decompressor.
    while read -r offset; do
      if decompress "$image" "$offset" '' >"$2/Image"; then direct=uImage && break; fi
    done < <(LC_ALL=C grep -abo -P '\xFD7zXZ\x00' "$image" | cut -d: -f1)
    if [ -n "$direct" ]; then
      length=$(printf '%08x' "$(stat -c %s "$2/Image")")
      {
        # magic, no checksums (QEMU looks at none), size, load address, entry, Linux on Arm, a kernel, as is
        printf '\x27\x05\x19\x56\0\0\0\0\0\0\0\0'
        printf '%b' "\\x${length:0:2}\\x${length:2:2}\\x${length:4:2}\\x${length:6:2}"
        printf '\x40\x20\x80\x00\x40\x20\x80\x00\0\0\0\0\x05\x02\x02\x00%s' Linux
        head -c 27 /dev/zero
        cat "$2/Image"
      } >"$2/uImage"
    fi
    rm -f "$2/Image"
    ;;
  esac
}
bytes_at() { od -An -v -tu"$3" -j"$(($2))" -N"$3" "$1" | tr -d ' '; } # FILE OFFSET 1|4, little endian like us
decompress() ( # FILE OFFSET LENGTH
  local tool_path tool_libs
  case $(od -An -v -tx1 -j"$2" -N4 "$1" | tr -d ' ') in
  28b52ffd) own_tool zstd zstd libzstd1 liblz4-1 && set -- "$@" -dcq ;;
  fd377a58) own_tool xz xz-utils liblzma5 && set -- "$@" -dcq --single-stream ;;
  1f8b08*) own_tool gzip gzip && set -- "$@" -dcq ;;
  *) false ;;
  esac || return
  set +o pipefail # what feeds the program is cut off where its part ends
  tail -c "+$(($2 + 1))" "$1" | if [ -n "$3" ]; then head -c "$3"; else cat; fi |
    LD_LIBRARY_PATH=$tool_libs "$tool_path" "${@:4}"
)

# A program of the machine, or from its release's packages where it is not installed: sets tool_path
# and tool_libs.
own_tool() { # PROGRAM PACKAGE...
  local apt_opts name=$1 arch root=$work/tool-$1-$BASHPID debs=$work/debs-tool-$1-$BASHPID
  tool_libs=''
  ! tool_path=$(PATH=$PATH:/sbin:/usr/sbin command -v "$name") || return 0
  [ "$os_id" = debian ] || return 1
  shift
  arch=$(dpkg --print-architecture)
  apt_state "$os_codename-$arch" "$arch" /dev/null "$(apt_mirror) $os_codename"
  { apt_download "$debs" "$@" && unpack "$root" "$debs"/*.deb; } >&2 || return
  mkdir "$root/tool"
  tool_path=$root/tool/$name
  # depmod is a link to kmod, with a path of the machine
  if [ "$name" = depmod ]; then name=kmod; fi
  ln -s "$(find "$root" -name "$name" -path '*bin/*' -type f | head -n 1)" "$tool_path"
  tool_libs=$(find "$root" -name 'lib*.so.*' -printf '%h\n' | sort -u | paste -sd:)
}
