# shellcheck shell=bash
# A static busybox for each arch: the guest's shell.

shell_recipe=2
shell_current() { current "shell/$1" "$shell_recipe"; }
shell_fetch() {
  local arch=$1 start=$EPOCHREALTIME new=$work/shell-$1 debs=$work/debs-shell-$1 version
  mkdir -p "$new"
  apt_release trixie "$arch"
  apt_download "$debs" busybox-static
  version=$(deb_version busybox-static "$debs")
  unpack "$work/root-shell-$arch" "$debs"/*.deb
  mv "$(find "$work/root-shell-$arch" -name busybox -path '*/bin/*' | head -n 1)" "$new/busybox"
  json_entry path "shell/$arch/busybox" version "$version" sha256 "$(sha256 "$new/busybox")" >"$new/entry.json"
  install_component "$new" "shell/$arch" "$shell_recipe"
  say "busybox $version ($arch): $(size_mb "$debs"/*.deb), $(seconds_since "$start")"
}
