{
  description = "A crate whose tests run in guests";

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
      # The test programs, as cargo builds them.
      tests =
        pkgs:
        pkgs.rustPlatform.buildRustPackage {
          pname = "mounts-tests";
          version = "0.1.0";
          src = nixpkgs.lib.cleanSource ./.;
          cargoLock.lockFile = ./Cargo.lock;
          buildPhase = "cargo test --offline --no-run";
          installPhase = ''
            mkdir -p $out/bin
            for program in $(find target -path '*/debug/deps/*' -type f -perm -0100 ! -name '*.so'); do
              name=''${program##*/}
              cp $program $out/bin/''${name%-*}
            done
          '';
          doCheck = false;
        };
    in
    {
      # nix flake check -L: the tests run as root in a machine of their own
      checks = eachSystem (pkgs: {
        mounts = vmtest.lib.mkVmTest pkgs {
          name = "mounts";
          command = [
            "${tests pkgs}/bin/mounts"
            "--include-ignored"
          ];
          expect.stdout = "^test result: ok. 2 passed";
        };
      });
    };
}
