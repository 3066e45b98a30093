# Everything that is built, for one package set: scope of nix/*.nix.
{ }:
pkgs:
let
  inherit (pkgs) lib callPackage;
  arches = import ./arches.nix;
  sources = callPackage ./sources.nix { };
  linuxSource = callPackage ./linux-source.nix { };
  linuxHeaders = callPackage ./linux-headers.nix { inherit arches linuxSource; };
  guests = lib.mapAttrs (
    archName: arch:
    let
      common = { inherit archName arch; };
    in
    rec {
      musl = callPackage ./libc.nix (common // { inherit sources; });
      rustStd = callPackage ./rust-std.nix (common // { inherit musl; });
      guest = callPackage ./guest.nix (common // { inherit rustStd; });
      cc = callPackage ./cc.nix (common // { inherit musl rustStd linuxHeaders; });
      busybox = callPackage ./busybox.nix (common // { inherit sources cc; });
    }
  ) arches;
in
{
  packages = lib.concatMapAttrs (
    name: g: lib.mapAttrs' (n: lib.nameValuePair "${n}-${name}") g
  ) guests;
}
