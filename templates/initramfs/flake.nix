{
  description = "An image and nothing else";

  # Wherever you have vmtest from.
  inputs.vmtest.url = "github:vmtest/vmtest";
  inputs.nixpkgs.follows = "vmtest/nixpkgs";

  outputs =
    { vmtest, nixpkgs, ... }:
    let
      inherit (nixpkgs) lib;
      eachSystem =
        f:
        lib.genAttrs [
          "x86_64-linux"
          "aarch64-linux"
        ] (system: f nixpkgs.legacyPackages.${system});
      image =
        pkgs:
        vmtest.lib.mkInitramfs pkgs {
          name = "my-image";
          programs = {
            "/bin/jq" = lib.getExe pkgs.jq;
            "/bin/bash" = lib.getExe pkgs.bash;
          };
          files."/etc/greeting.json" = ./greeting.json;
          symlinks."/bin/sh" = "bash";
          compress = "zstd";
        };
    in
    {
      # nix build: result/initramfs.img, and result/report.json, which says why each file is in it
      packages = eachSystem (pkgs: {
        default = image pkgs;
      });

      # and a guest to see that it works
      checks = eachSystem (pkgs: {
        image = vmtest.lib.mkVmTest pkgs {
          name = "my-image";
          initramfs = "${image pkgs}/initramfs.img";
          command = [
            "jq"
            "-r"
            ".greeting"
            "/etc/greeting.json"
          ];
          expect.stdout = "^hello$";
        };
      });
    };
}
