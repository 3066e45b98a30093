# Everything for one package set: the place where nix/*.nix are put together.
{
  pkgs,
  # which QEMU the guests run in; nixpkgs' own is in the public cache
  qemu ? pkgs.qemu,
  # Linux for the guests: { version, src }
  linuxSource ? pkgs.callPackage ./linux-source.nix { },
}:
let
  inherit (pkgs) lib;
  # nixpkgs' callPackage also fills arguments that have a default, with whatever package has that name; one of
  # nixpkgs is called `fragments`. So what it calls here has no defaults.
  callPackage =
    file: arguments:
    let
      defaulted = lib.attrNames (
        lib.filterAttrs (_: hasDefault: hasDefault) (lib.functionArgs (import file))
      );
    in
    lib.throwIfNot (defaulted == [ ]) "${toString file}: ${toString defaulted} must have no default" (
      pkgs.callPackage file arguments
    );
  arches = import ./arches.nix;
  archName = import ./arch-name.nix { inherit lib arches; };
  sources = callPackage ./sources.nix { };
  linuxHeaders = callPackage ./linux-headers.nix { inherit arches linuxSource; };
  unwrapped = callPackage ./package.nix { };
  inherit (pkgs.stdenv.hostPlatform) system;
  hostArch = lib.findFirst (name: arches.${name}.host == system) (throw "no guests of ${system}") (
    lib.attrNames arches
  );

  # of each architecture
  parts = lib.mapAttrs (
    archName: arch:
    let
      row = { inherit archName arch; };
    in
    rec {
      musl = callPackage ./libc.nix (row // { inherit sources; });
      rustStd = callPackage ./rust-std.nix (row // { inherit musl; });
      guest = callPackage ./guest.nix (row // { inherit rustStd; });
      cc = callPackage ./cc.nix (row // { inherit musl rustStd linuxHeaders; });
      busybox = callPackage ./busybox.nix (row // { inherit sources cc; });
      kernel = callPackage ./kernel.nix {
        inherit archName linuxSource;
        gcov = false;
        fragments = [ ];
        source = linuxSource;
      };
      gcovKernel = kernel.override { gcov = true; };
      assets = callPackage ./assets.nix (
        row
        // {
          inherit
            qemu
            kernel
            guest
            busybox
            ;
          gcovKernel = null;
        }
      );
      coverageAssets = assets.override { inherit gcovKernel; };
    }
  ) arches;
  column = name: lib.mapAttrs (_: part: part.${name}) parts;
  assets = column "assets";

  mkInitramfs = callPackage ./mk-initramfs.nix { inherit unwrapped hostArch archName; };
  mkVmTest = callPackage ./mk-vm-test.nix {
    inherit
      unwrapped
      hostArch
      arches
      archName
      assets
      ;
    coverageAssets = column "coverageAssets";
  };
  mkVmMatrix = callPackage ./mk-vm-matrix.nix { inherit mkVmTest arches; };
  mkCoverage = callPackage ./mk-coverage.nix {
    inherit unwrapped;
    linuxTree = callPackage ./linux-tree.nix { inherit linuxSource; };
  };
in
{
  inherit
    arches
    hostArch
    unwrapped
    assets
    qemu
    mkInitramfs
    mkVmTest
    mkVmMatrix
    mkCoverage
    ;
  vmtest = callPackage ./vmtest.nix { inherit unwrapped arches assets; };
  vmtestFull = callPackage ./vmtest-full.nix { inherit unwrapped assets; };
  kernels = column "kernel";
  gcovKernels = column "gcovKernel";
  guests = column "guest";
  busyboxes = column "busybox";
  # { riscv64 = compiler; }: static C programs for guests, without a cross gcc
  cc = column "cc";
  # mkKernel { arch, fragments ? [ ./x.config ], gcov ? false, source ? { version, src } }
  mkKernel =
    {
      arch ? hostArch,
      ...
    }@args:
    parts.${archName "mkKernel" arch}.kernel.override (removeAttrs args [ "arch" ]);
  # a guest's own programs: our init, a shell
  initramfs = lib.mapAttrs (
    arch: part:
    mkInitramfs {
      name = "vmtest-initramfs-${arch}";
      inherit arch;
      programs = {
        "/init" = "${part.guest}/bin/vmtest-guest";
        "/bin/busybox" = "${part.busybox}/bin/busybox";
      };
      symlinks."/bin/sh" = "busybox";
    }
  ) parts;
}
