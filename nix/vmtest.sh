# vmtest with the pins of this flake. The assets of the host's own architecture came with the program; those of another
# are fetched or built when a command line asks for them, and kept from the garbage collector.
# shellcheck shell=bash
set -euo pipefail

arch=${VMTEST_ARCH-} value=''
for argument; do
  if [ -n "$value" ]; then
    arch=$argument value=''
    continue
  fi
  case $argument in
  --) break ;;
  --arch) value=1 ;;
  --arch=*) arch=${argument#--arch=} ;;
  esac
done

# name, output and recipe of the assets for what --arch said; `host` for everything that is not another architecture:
# vmtest itself says what is wrong with it.
assets_of() {
  case $1 in
  # @cases@
  *) echo host @host@ @host@ ;;
  esac
}

if [ -z "${VMTEST_ASSETS-}" ]; then
  read -r name out recipe <<<"$(assets_of "$arch")"
  if [ ! -e "$out/assets.json" ]; then
    command -v nix-store >/dev/null || {
      echo "error: the assets of $name guests are not in the store, and there is no nix-store to get them with" >&2
      echo "hint: the package vmtest-full has those of all architectures" >&2
      exit 69
    }
    # With its recipe a store path is built where no cache has it; without, it can only come from a cache.
    [ -e "$recipe" ] || recipe=$out
    root=${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/vmtest/nix
    keep=()
    if mkdir -p "$root" 2>/dev/null; then keep=(--add-root "$root/$name"); fi
    echo "vmtest: getting the assets of $name guests" >&2
    nix-store --realise "$recipe" "${keep[@]}" >/dev/null || {
      echo "error: the assets of $name guests ($out) can neither be fetched nor built" >&2
      echo "hint: nix build FLAKE#assets-$name, with the flake that vmtest came from" >&2
      exit 69
    }
  fi
  export VMTEST_ASSETS=$out/assets.json
fi
exec @program@ "$@"
