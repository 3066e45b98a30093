# The flake's packages of one system.
{
  lib,
  linkFarm,
  project,
  headless,
}:
let
  named = prefix: lib.mapAttrs' (name: lib.nameValuePair "${prefix}-${name}");
in
rec {
  inherit (project) vmtest unwrapped;
  default = vmtest;
  vmtest-full = project.vmtestFull;
  # without a screen: what checks run with
  qemu = headless.qemu;
  assets = linkFarm "vmtest-assets" project.assets;
  # what a boot makes the kernel execute, amd64 and riscv64
  coverage = headless.mkCoverage {
    tests =
      map
        (
          arch:
          headless.mkVmTest {
            name = "coverage-${arch}";
            inherit arch;
            coverage = true;
            kernel = "@gcov";
            script = "uname -a";
          }
        )
        [
          "amd64"
          "riscv64"
        ];
  };
  # what belongs into a project's cache: all that is not in the public one and that `lib` takes
  prebuilt = linkFarm "vmtest-prebuilt" (
    {
      inherit vmtest vmtest-full;
    }
    // named "assets" project.assets
    // named "kernel" project.kernels
    // named "cc" project.cc
    // named "initramfs" project.initramfs
  );
  # what this flake's own checks take besides: QEMU without a screen
  prebuilt-checks = linkFarm "vmtest-prebuilt-checks" (
    { inherit qemu; } // named "headless-assets" headless.assets
  );
}
// named "guest" project.guests
// named "shell" project.busyboxes
// named "kernel" project.kernels
// named "kernel-gcov" project.gcovKernels
// named "initramfs" project.initramfs
// named "assets" project.assets
// named "cc" project.cc
