# shellcheck shell=bash
# The distribution's kernel for each arch, unpacked: image, config, modules. Not the cloud kernels,
# which have no 9p.

kernel_recipe=1
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
  local release real image
  read -r suite package <<<"$(kernel_source "$arch")"
  apt_release "$suite" "$arch"
  real=$(apt-cache "${apt_opts[@]}" depends "$package" | awk '/Depends: linux-image-/ { print $2; exit }')
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
  kernel_bootable "$new/vmlinuz"
  json_entry path "kernel/$arch/vmlinuz" version "$release" sha256 "$(sha256 "$new/vmlinuz")" \
    config "kernel/$arch/config" modules "kernel/$arch/lib/modules/$release" >"$new/entry.json"
  install_component "$new" "kernel/$arch" "$kernel_recipe $(kernel_source "$arch")"
  say "kernel $release ($arch): $(size_mb "$debs"/*.deb), $(seconds_since "$start")"
}

# depmod makes the index of the modules; where the machine has none, the one of its own release is
# used from the unpacked package.
kernel_depmod() { # ARCH NEW RELEASE
  local libs='' depmod
  [ ! -e "$2/lib/modules/$3/modules.dep" ] || return 0
  if ! depmod=$(PATH=$PATH:/sbin:/usr/sbin command -v depmod); then
    local apt_opts debs=$work/debs-kmod-$1 root=$work/root-kmod-$1
    apt_own_release
    apt_download "$debs" kmod libkmod2
    unpack "$root" "$debs"/*.deb
    mkdir "$root/depmod" && depmod=$root/depmod/depmod
    ln -s "$(find "$root" -name kmod -path '*/bin/*')" "$depmod"
    libs=$(dirname "$(find "$root" -name 'libkmod.so.2')")
  fi
  LD_LIBRARY_PATH=$libs "$depmod" -b "$2" "$3"
}
kernel_bootable() { :; }
