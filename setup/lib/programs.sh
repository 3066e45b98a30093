# shellcheck shell=bash
# Debian's own dynamically linked programs with their libraries, unpacked into a directory for
# --sysroot: real input for the tests. Only when asked for. For riscv64 also what clang links into a
# program that counts what it executes.

programs_recipe=1
programs_profile=libclang-rt-19-dev
programs_packages() { # ARCH: what the tests run
  case $1 in
  amd64) echo bash coreutils sqlite3 python3-minimal libpython3-stdlib ;;
  arm64) echo bash coreutils openssl ;;
  riscv64) echo bash coreutils openssl "$programs_profile" ;;
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
  list=$(apt_install_list ${packages%"$programs_profile"})
  [ -n "$list" ] || fail 69 "the mirror cannot serve \`$packages\` of $arch" "see $cache/log/programs-$arch.log"
  # Nothing is configured or logged in to: what only package management needs stays away.
  list=$(grep -vE '^(perl-base|debconf|dpkg|tzdata|libpam.*|passwd|adduser|login.*)=' <<<"$list")
  # Without what it depends on, a C compiler among it.
  if [[ $packages = *"$programs_profile" ]]; then list+=" $programs_profile"; fi
  # shellcheck disable=SC2086
  apt_download "$debs" $list
  unpack "$new" "$debs"/*.deb
  find "$new"/usr/lib/llvm-*/lib/clang -type f ! -name '*.profile-*' -delete 2>/dev/null || :
  rm -rf "$new"/usr/share/{doc,man,locale,info,bash-completion,perl5} "${new:?}/var"
  install_component "$new" "sysroot/$arch" "$programs_recipe $packages"
  say "Debian's $packages ($arch): $(size_mb "$debs"/*.deb), $(seconds_since "$start")"
}
