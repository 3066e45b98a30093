# NixOS: a machine that runs VM tests, its own or those of others (nixosModules.builder).
#
#   { imports = [ vmtest.nixosModules.builder ]; vmtest.builder = { enable = true; keys = [ "ssh-ed25519 …" ]; }; }
{
  config,
  lib,
  ...
}:
let
  cfg = config.vmtest.builder;
in
{
  options.vmtest.builder = {
    enable = lib.mkEnableOption "running VM tests in Nix builds";
    kvm = lib.mkOption {
      type = lib.types.bool;
      default = true;
      description = ''
        Offer the feature `kvm` to builds that require it. Switch it off on machines whose /dev/kvm exists and runs no
        guest, nested ones for example: Nix itself only looks whether the file is there.
      '';
    };
    emulate = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      example = [ "aarch64-linux" ];
      description = ''
        Systems whose builds run here too, their programs under emulation (binfmt). Guests do not need it: a test of
        any architecture is a build of the host's own system.
      '';
    };
    jobs = lib.mkOption {
      type = lib.types.either lib.types.ints.positive (lib.types.enum [ "auto" ]);
      default = "auto";
      description = "How many builds, and thus guests, run at once. An emulated guest keeps one processor busy.";
    };
    keys = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      description = "Public SSH keys of the machines whose tests run here. Without one nobody may.";
    };
    user = lib.mkOption {
      type = lib.types.str;
      default = "vmtest-builder";
      description = "The user as whom other machines come.";
    };
  };

  config = lib.mkIf cfg.enable (
    lib.mkMerge [
      {
        nix.settings = {
          # Emulation needs no device: any machine can offer it.
          system-features = [
            "benchmark"
            "big-parallel"
            "nixos-test"
          ]
          ++ lib.optional cfg.kvm "kvm";
          max-jobs = cfg.jobs;
          experimental-features = [
            "nix-command"
            "flakes"
          ];
        };
      }
      (lib.mkIf (cfg.emulate != [ ]) { boot.binfmt.emulatedSystems = cfg.emulate; })
      (lib.mkIf cfg.kvm {
        boot.kernelModules = [
          "kvm-amd"
          "kvm-intel"
        ];
        # The users of the sandbox are nobody's: the device is for all.
        services.udev.extraRules = ''KERNEL=="kvm", GROUP="kvm", MODE="0666"'';
      })
      (lib.mkIf (cfg.keys != [ ]) {
        services.openssh.enable = true;
        users.groups.${cfg.user} = { };
        users.users.${cfg.user} = {
          isNormalUser = true;
          group = cfg.user;
          openssh.authorizedKeys.keys = cfg.keys;
        };
        nix.settings.trusted-users = [ cfg.user ];
      })
    ]
  );
}
