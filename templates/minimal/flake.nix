{
  description = "A shell script, tested in a guest";

  # Wherever you have vmtest from.
  inputs.vmtest.url = "github:vmtest/vmtest";
  inputs.nixpkgs.follows = "vmtest/nixpkgs";

  outputs =
    { vmtest, nixpkgs, ... }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      eachSystem = f: nixpkgs.lib.genAttrs systems (system: f nixpkgs.legacyPackages.${system});
    in
    {
      # nix flake check -L
      checks = eachSystem (pkgs: {
        tmpfs = vmtest.lib.mkVmTest pkgs {
          name = "tmpfs";
          script = builtins.readFile ./test.sh;
          expect.stdout = "^full as expected$";
        };
      });
    };
}
