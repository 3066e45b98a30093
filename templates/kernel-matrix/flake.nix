{
  description = "One program, several kernels, five architectures";

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
      program =
        pkgs: arch:
        let
          cc = (vmtest.lib.for pkgs).cc.${arch};
        in
        pkgs.runCommand "probe-${arch}" { nativeBuildInputs = [ cc ]; } ''
          ${nixpkgs.lib.getExe cc} -O2 -Wall -Werror -o $out ${./probe.c}
        '';
    in
    {
      # nix flake check -L, or one of them: nix build -L .#checks.x86_64-linux.probe-riscv64-pinned
      checks = eachSystem (
        pkgs:
        vmtest.lib.mkVmMatrix pkgs {
          kernels = {
            # the one that comes with vmtest
            pinned = null;
            # nixpkgs' own, with its modules: its cache has that of the host's architecture
            nixpkgs = arch: if arch == (vmtest.lib.for pkgs).hostArch then pkgs.linux else false;
            # The pinned one with a fragment of yours, which takes minutes to build. Another Linux: `source = { version
            # = "…"; src = …; };`
            # mine = arch: vmtest.lib.mkKernel pkgs { inherit arch; fragments = [ ./mine.config ]; };
          };
          tests.probe =
            { arch, kernel }:
            {
              command = [
                (program pkgs arch)
                (if kernel == "nixpkgs" then "module" else "built-in")
              ];
            };
        }
      );
    };
}
