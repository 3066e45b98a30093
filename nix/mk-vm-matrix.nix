# mkVmMatrix: architectures × kernels × tests, as an attribute set of derivations that Nix runs in parallel, on as many
# builders as there are. Names are TEST-ARCH, and TEST-ARCH-KERNEL where kernels are given.
{
  lib,
  mkVmTest,
  arches,
}:
{
  # names of architectures
  archs ? lib.attrNames arches,
  # { NAME = kernel; }, each a kernel of mkVmTest or a function of the architecture that returns one; null is the pinned
  # one. A function may return `false`: no such kernel for this architecture
  kernels ? { },
  # { NAME = arguments of mkVmTest; }, or functions of { arch, kernel } that return them
  tests,
}:
let
  rows = if kernels == { } then { pinned = null; } else kernels;
  cell =
    test: arch: kernel:
    let
      image = if lib.isFunction rows.${kernel} then rows.${kernel} arch else rows.${kernel};
      name = "${test}-${arch}${lib.optionalString (kernels != { }) "-${kernel}"}";
      given = lib.toFunction tests.${test} { inherit arch kernel; };
    in
    lib.optional (image != false) (
      lib.nameValuePair name (
        mkVmTest (
          {
            inherit name arch;
          }
          // lib.optionalAttrs (image != null) { kernel = image; }
          // given
        )
      )
    );
in
lib.listToAttrs (
  lib.concatMap (
    test: lib.concatMap (arch: lib.concatMap (cell test arch) (lib.attrNames rows)) archs
  ) (lib.attrNames tests)
)
