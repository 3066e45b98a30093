# shellcheck shell=bash
# QEMU 10 or newer: the machine's own where it is new enough, else the distribution's packages
# unpacked into the cache. One component per package: x86 serves amd64 and i386, arm both Arms.

qemu_recipe=2
qemu_family() { echo "${arch_qemu_family[$1]}"; }
qemu_program() { echo "qemu-system-${arch_qemu[$1]}"; }
qemu_arches() { # of a family
  local arch
  for arch in "${all_arches[@]}"; do
    if [ "${arch_qemu_family[$arch]}" = "$1" ]; then echo "$arch"; fi
  done | paste -sd' '
}

# The machine's own libraries serve an unpacked QEMU, and its own QEMU may come and go with its
# packages: when dpkg's status has changed, each program is started once to see that it still does.
qemu_current() {
  local dir=qemu/$1 arch status
  current "$dir" "$qemu_recipe $os_codename" || return 1
  status=$(stat -c %Y.%s /var/lib/dpkg/status 2>/dev/null || :)
  [ "$status" != "$(cat "$cache/$dir/checked" 2>/dev/null)" ] || return 0
  for arch in $(qemu_arches "$1"); do
    "$(cat "$cache/$dir/$arch.path")" --version >/dev/null 2>&1 || return 1
  done
  echo "$status" >"$cache/$dir/checked" 2>/dev/null || :
}

qemu_version() { # PROGRAM: 10.0.2
  "$1" --version 2>/dev/null | sed -n 's/^QEMU emulator version \([0-9.]*\).*/\1/p'
}

qemu_fetch() {
  local family=$1 start=$EPOCHREALTIME new=$work/qemu-$1 arch program path version from
  mkdir -p "$new"
  if qemu_from_system "$family" "$new"; then
    from="the machine's own"
  else
    qemu_from_packages "$family" "$new"
    from="$(size_mb "$work/debs-qemu-$family"/*.deb) of packages"
  fi
  for arch in $(qemu_arches "$family"); do
    path=$(cat "$new/$arch.path") program=$path
    [ "${path#"$cache/"}" = "$path" ] || program=$new/${path#"$cache/qemu/$family/"}
    version=$(qemu_version "$program")
    [ -n "$version" ] || { "$program" --version || :; fail 69 "the fetched \`$(qemu_program "$arch")\` does not run" "see $cache/log/qemu-$family.log"; }
    json_entry path "$(relative "$path")" version "$version" sha256 "$(sha256 "$program")" >"$new/$arch.json"
  done
  stat -c %Y.%s /var/lib/dpkg/status >"$new/checked" 2>/dev/null || :
  install_component "$new" "qemu/$family" "$qemu_recipe $os_codename"
  say "QEMU $version ($(qemu_arches "$family")): $from, $(seconds_since "$start")"
}

qemu_from_system() { # FAMILY NEW
  local arch path version
  for arch in $(qemu_arches "$1"); do
    path=$(command -v "$(qemu_program "$arch")") || return 1
    version=$(qemu_version "$path")
    [ "${version%%.*}" -ge 10 ] 2>/dev/null || return 1
    echo "$path" >"$2/$arch.path"
  done
}

# Two ways. Where the release or its backports have a new QEMU, only what the machine lacks is
# fetched, and QEMU runs with the machine's libraries plus those. Else QEMU comes from a newer
# release with everything down to its own C library, and is started through its own ld.so.
qemu_from_packages() { # FAMILY NEW
  local family=$1 new=$2 debs=$work/debs-qemu-$1 host list suite
  host=$(dpkg --print-architecture)
  for suite in $(qemu_suites); do
    case $suite in
    "$os_codename"*)
      apt_state "$suite" "$host" /var/lib/dpkg/status "$(apt_sources && { [ "$suite" = "$os_codename" ] || echo "$(apt_mirror) $suite"; })"
      list=$(apt_install_list -t "$suite" "qemu-system-$family") || continue
      ;;
    *)
      apt_state "$suite-$host" "$host" /dev/null "$(apt_mirror) $suite"
      list=$(apt_install_list "qemu-system-$family") || continue
      ;;
    esac
    qemu_new_enough "$family" "$list" || continue
    # Boot ROMs for the network are no part of a test guest, accounts and the like none of QEMU.
    list=$(grep -vE '^(ipxe-qemu|debconf|adduser|passwd|login.*|libpam.*|libsemanage.*|mount|util-linux)=' <<<"$list")
    # shellcheck disable=SC2086
    apt_download "$debs" $list
    unpack "$new/root" "$debs"/*.deb
    case $suite in
    "$os_codename"*) qemu_wrap "$family" "$new" '' ;;
    *) qemu_wrap "$family" "$new" own ;;
    esac
    return 0
  done
  fail 69 "no QEMU 10 or newer in $(qemu_suites | tr '\n' ' ')of $os_name" "install one yourself, so that $(qemu_program "$(qemu_arches "$family" | cut -d' ' -f1)") is on PATH, or use Nix"
}
qemu_suites() { # to try, in this order; another release's is Debian's
  case $os_id-$os_codename in
  debian-bookworm) printf '%s\n' bookworm-backports trixie ;;
  debian-trixie) echo trixie ;;
  *) printf '%s\n' "$os_codename" trixie ;; # Ubuntu: untested; 24.04 has 8.2, 25.10 has 10.1
  esac
}
qemu_new_enough() { # FAMILY LIST
  local version
  version=$(sed -n "s/^qemu-system-$1=//p" <<<"$2")
  version=${version#*:}
  [ "${version%%.*}" -ge 10 ] 2>/dev/null
}

# A small program per arch that starts the real one with the unpacked libraries, modules and data.
# The real program's hash is in it, so that its own hash, which the manifest holds, stands for both.
# shellcheck disable=SC2016 # the variables are the wrapper's
qemu_wrap() { # FAMILY NEW OWN
  local arch name dir real libs='' data=''
  mkdir -p "$2/bin"
  while read -r dir; do libs+=${libs:+:}\$root${dir#"$2/root"}; done < <(
    find "$2/root" -regex '.*/lib/[^/]*-linux-gnu[^/]*/lib[^/]*\.so\..*' -printf '%h\n' | sort -u)
  for dir in qemu seabios; do
    [ ! -d "$2/root/usr/share/$dir" ] || data+="-L \"\$root/usr/share/$dir\" "
  done
  dir=$(find "$2/root/usr/lib" -path '*-linux-gnu*/qemu' -type d -printf 'usr/lib/%P\n' | head -n 1)
  [ -z "$3" ] || cp "$(find "$2/root" -name 'ld-linux*.so.*' -path '*-linux-gnu*' | head -n 1)" "$2/root/usr/bin/ld.so"
  for arch in $(qemu_arches "$1"); do
    name=$(qemu_program "$arch") real=$2/root/usr/bin/$(qemu_program "$arch")
    {
      echo '#!/bin/sh'
      echo "# The real program's SHA-256: $(sha256 "$real")"
      echo 'self=$0; [ ! -L "$0" ] || self=$(readlink -f "$0")'
      echo 'root=${self%/*}/../root'
      echo "export QEMU_MODULE_DIR=\"\$root/$dir\""
      if [ -n "$3" ]; then
        echo "exec \"\$root/usr/bin/ld.so\" --library-path \"$libs\" --argv0 \"\$0\" \"\$root/usr/bin/$name\" $data\"\$@\""
      else
        echo "export LD_LIBRARY_PATH=\"$libs\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}\""
        echo "exec \"\$root/usr/bin/$name\" $data\"\$@\""
      fi
    } >"$2/bin/$name"
    chmod +x "$2/bin/$name"
    echo "$cache/qemu/$1/bin/$name" >"$2/$arch.path"
  done
}
