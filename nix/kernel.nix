# A guest's kernel, by nix/kernel/build and one clang for all architectures. Its inputs are the fragments that it is
# made of and nothing else of this repository, so that it is built again only when one of them changes.
{
  lib,
  stdenv,
  buildPackages,
  llvmPackages,
  bc,
  cpio,
  bison,
  flex,
  perl,
  elfutils,
  openssl,
  linuxSource,
  archName,
  # counts which of its lines are executed
  gcov ? false,
  # further Kconfig fragments, files
  fragments ? [ ],
  # another Linux: { version, src }
  source ? linuxSource,
}:
stdenv.mkDerivation {
  pname = "vmtest-kernel-${archName}${lib.optionalString gcov "-gcov"}";
  inherit (source) version src;
  recipe = lib.fileset.toSource {
    root = ./kernel;
    fileset = lib.fileset.unions (
      [
        ./kernel/build
        ./kernel/common.config
        (./kernel + "/${archName}.config")
      ]
      ++ lib.optional gcov ./kernel/gcov.config
    );
  };
  outputs = [
    "out"
    # vmlinux and System.map: for debuggers, and far larger than the kernel
    "dev"
  ];
  depsBuildBuild = [ buildPackages.stdenv.cc ];
  nativeBuildInputs = [
    bc
    bison
    flex
    perl
    elfutils
    openssl
  ]
  # for the compiler's notes
  ++ lib.optional gcov cpio
  ++ (with llvmPackages; [
    clang-unwrapped
    lld
    llvm
  ]);
  postPatch = "patchShebangs scripts tools arch";
  dontConfigure = true;
  buildPhase = ''
    runHook preBuild
    HOSTCC=cc bash $recipe/build --arch ${archName} --source $PWD --out $NIX_BUILD_TOP/result --work $NIX_BUILD_TOP/objects \
      --jobs $NIX_BUILD_CORES ${lib.optionalString gcov "--gcov"} ${
        lib.concatMapStringsSep " " (file: "--fragment ${file}") fragments
      }
    runHook postBuild
  '';
  installPhase = ''
    runHook preInstall
    mkdir -p $dev
    mv $NIX_BUILD_TOP/result/{vmlinux,System.map} $dev/
    mv $NIX_BUILD_TOP/result $out
    runHook postInstall
  '';
  dontStrip = true;
  dontPatchELF = true;
  dontPatchShebangs = true;
  requiredSystemFeatures = [ "big-parallel" ];
  meta = {
    description = "Linux for ${archName} guests, with everything that vmtest uses built in";
    license = lib.licenses.gpl2Only;
    timeout = 4 * 60 * 60;
  };
}
