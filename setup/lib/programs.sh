# shellcheck shell=bash
# Debian's own dynamically linked programs with their libraries, unpacked into a directory for
# --sysroot: real input for the tests. Only when asked for.

programs_recipe=1
programs_packages() { # ARCH: what the tests run
  case $1 in
  amd64) echo bash coreutils sqlite3 python3-minimal libpython3-stdlib ;;
  arm64 | riscv64) echo bash coreutils openssl ;;
  esac
}
programs_current() {
  local packages
  packages=$(programs_packages "$1")
  [ -z "$packages" ] || current "sysroot/$1" "$programs_recipe $packages"
}
programs_fetch() {
  local arch=$1 start=$EPOCHREALTIME packages list new=$work/sysroot-$1 debs=$work/debs-programs-$1
  packages=$(programs_packages "$arch")
  apt_release trixie "$arch"
  # shellcheck disable=SC2086 # words
  list=$(apt_install_list $packages)
  [ -n "$list" ] || fail 69 "the mirror cannot serve \`$packages\` of $arch" "see $cache/log/programs-$arch.log"
  # Nothing is configured or logged in to: what only package management needs stays away.
  list=$(grep -vE '^(perl-base|debconf|dpkg|tzdata|libpam.*|passwd|adduser|login.*)=' <<<"$list")
  # shellcheck disable=SC2086
  apt_download "$debs" $list
  unpack "$new" "$debs"/*.deb
  rm -rf "$new"/usr/share/{doc,man,locale,info,bash-completion,perl5} "${new:?}/var"
  install_component "$new" "sysroot/$arch" "$programs_recipe $packages"
  say "Debian's $packages ($arch): $(size_mb "$debs"/*.deb), $(seconds_since "$start")"
}
