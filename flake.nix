{
  description = "vmtest: boots a Linux guest for a test, runs a program in it and tells exactly what happened";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      eachSystem = f: lib.genAttrs systems (system: f nixpkgs.legacyPackages.${system});
      project = import ./nix { };
    in
    {
      packages = eachSystem (pkgs: (project pkgs).packages);
    };
}
