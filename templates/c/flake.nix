{
  description = "A C program, tested in guests of five architectures";

  # Wherever you have vmtest from.
  inputs.vmtest.url = "github:vmtest/vmtest";
  inputs.nixpkgs.follows = "vmtest/nixpkgs";

  outputs =
    { vmtest, nixpkgs, ... }:
    let
      eachSystem =
        f:
        nixpkgs.lib.genAttrs [
          "x86_64-linux"
          "aarch64-linux"
        ] (system: f nixpkgs.legacyPackages.${system});
      # clang and musl: no gcc is built for any architecture
      program =
        pkgs: arch:
        let
          cc = (vmtest.lib.for pkgs).cc.${arch};
        in
        pkgs.runCommand "byteorder-${arch}" { nativeBuildInputs = [ cc ]; } ''
          ${nixpkgs.lib.getExe cc} -O2 -Wall -Werror -o $out ${./byteorder.c}
        '';
    in
    {
      packages = eachSystem (pkgs: builtins.mapAttrs (arch: _: program pkgs arch) vmtest.lib.arches);

      # nix flake check -L
      checks = eachSystem (
        pkgs:
        vmtest.lib.mkVmMatrix pkgs {
          tests.byteorder =
            { arch, ... }:
            {
              command = [ (program pkgs arch) ];
              expect.stdout = "^little, ";
            };
        }
      );
    };
}
