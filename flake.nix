{
  description = "vmtest: boots a Linux guest for a test, runs a program in it and tells exactly what happened";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      eachSystem =
        f:
        lib.genAttrs [
          "x86_64-linux"
          "aarch64-linux"
        ] (system: f nixpkgs.legacyPackages.${system});
      projectOf = pkgs: import ./nix/project.nix { inherit pkgs; };
      # what checks run with
      headlessOf =
        pkgs:
        import ./nix/project.nix {
          inherit pkgs;
          qemu = pkgs.callPackage ./nix/qemu.nix { arches = import ./nix/arches.nix; };
        };
      both = pkgs: {
        project = projectOf pkgs;
        headless = headlessOf pkgs;
      };
      # The templates' own checks, with this flake as their input.
      templateChecks =
        system:
        lib.listToAttrs (
          lib.concatMap (
            name:
            let
              flake = import (./templates + "/${name}/flake.nix");
              outputs = flake.outputs {
                vmtest = self;
                inherit nixpkgs;
              };
            in
            lib.mapAttrsToList (check: lib.nameValuePair "template-${name}-${check}") outputs.checks.${system}
          ) (lib.attrNames (removeAttrs self.templates [ "default" ]))
        );
      template = name: description: {
        path = ./templates + "/${name}";
        inherit description;
        welcomeText = ''
          Set `inputs.vmtest.url` in flake.nix to where you have vmtest from, `git add` the files (Nix sees no others),
          and run the checks: `nix flake check -L`
        '';
      };
    in
    {
      packages = eachSystem (
        pkgs:
        removeAttrs (pkgs.callPackage ./nix/packages.nix (both pkgs)) [
          "override"
          "overrideDerivation"
        ]
      );

      apps = eachSystem (pkgs: rec {
        vmtest = {
          type = "app";
          program = lib.getExe self.packages.${pkgs.stdenv.hostPlatform.system}.vmtest;
          meta.description = "Boot a guest, run a program in it";
        };
        default = vmtest;
      });

      checks = eachSystem (
        pkgs:
        removeAttrs (pkgs.callPackage ./nix/checks.nix (both pkgs // { root = ./.; })) [
          "override"
          "overrideDerivation"
        ]
        // templateChecks pkgs.stdenv.hostPlatform.system
      );

      lib = {
        arches = import ./nix/arches.nix;
        # Everything for a package set of one's own: mkVmTest, mkVmMatrix, mkInitramfs, mkKernel, cc, vmtest, kernels …
        for = projectOf;
        # The same with another QEMU or another Linux: `with { pkgs; qemu; }`
        make = import ./nix/project.nix;
      }
      // lib.genAttrs [ "mkInitramfs" "mkVmTest" "mkVmMatrix" "mkCoverage" "mkKernel" ] (
        name: pkgs: (projectOf pkgs).${name}
      );

      overlays.default = final: _: {
        inherit (projectOf final) vmtest;
        vmtestLib = projectOf final;
      };

      nixosModules = rec {
        builder = ./nix/module.nix;
        default = builder;
      };

      devShells = eachSystem (pkgs: {
        default = pkgs.callPackage ./nix/dev-shell.nix { };
      });

      formatter = eachSystem (pkgs: pkgs.callPackage ./nix/format.nix { });

      hydraJobs = {
        inherit (self) checks;
        prebuilt = lib.mapAttrs (_: packages: {
          inherit (packages) prebuilt prebuilt-checks;
        }) self.packages;
      };

      # Without nixpkgs: `nix flake init` need not fetch it.
      templates = {
        default = self.templates.minimal;
      }
      // builtins.mapAttrs template {
        minimal = "A shell script, tested in a guest";
        rust = "A crate whose tests run in guests";
        go = "A Go program, tested in guests of five architectures";
        c = "A C program, tested in guests of five architectures";
        kernel-matrix = "One program, several kernels, five architectures";
        initramfs = "An image and nothing else";
      };
    };
}
