# shellcheck shell=bash
# UEFI firmware from Debian's packages `ovmf` and `qemu-efi-aarch64`; only when asked for.

firmware_recipe=1
firmware_package() {
  case $1 in
  amd64) echo ovmf ;;
  arm64) echo qemu-efi-aarch64 ;;
  esac
}
firmware_current() {
  [ -n "$(firmware_package "$1")" ] || return 0 # none is packaged for the others
  current "firmware/$1" "$firmware_recipe"
}
firmware_fetch() {
  local arch=$1 start=$EPOCHREALTIME package new=$work/firmware-$1 debs=$work/debs-firmware-$1 root=$work/root-firmware-$1 version part file code vars
  package=$(firmware_package "$arch")
  apt_release trixie "$arch"
  apt_download "$debs" "$package"
  version=$(deb_version "$package" "$debs")
  unpack "$root" "$debs"/*.deb
  mkdir -p "$new"
  case $arch in
  amd64) code=OVMF/OVMF_CODE_4M.fd vars=OVMF/OVMF_VARS_4M.fd ;;
  arm64) code=AAVMF/AAVMF_CODE.no-secboot.fd vars=AAVMF/AAVMF_VARS.fd ;;
  esac
  cp -L --sparse=always "$root/usr/share/$code" "$new/code.fd"
  cp -L --sparse=always "$root/usr/share/$vars" "$new/vars.fd"
  {
    printf '{'
    for part in code vars; do
      file=firmware/$arch/$part.fd
      printf '"%s": %s' "$part" "$(json_entry path "$file" version "$version" sha256 "$(sha256 "$new/$part.fd")")"
      [ "$part" = vars ] || printf ', '
    done
    echo '}'
  } >"$new/entry.json"
  install_component "$new" "firmware/$arch" "$firmware_recipe"
  say "firmware $version ($arch): $(size_mb "$debs"/*.deb), $(seconds_since "$start")"
}
