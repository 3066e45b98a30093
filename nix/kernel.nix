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
  gcov,
  # further Kconfig fragments, files
  fragments,
  # linuxSource, or another Linux: { version, src }
  source,
}:
let
  # Fragments are written for linuxSource, and an option that it does not have is a mistake in them. Another Linux
  # may lack some: those are left out, each with a line in the log. A fragment of the caller's is taken as it is.
  forAnother = ''
    cp -r --no-preserve=mode $recipe $NIX_BUILD_TOP/recipe
    recipe=$NIX_BUILD_TOP/recipe
    grep -rhoE --include='Kconfig*' '^[[:space:]]*(menu)?config [[:alnum:]_]+' . | sed 's/.* /CONFIG_/' | sort -u >$NIX_BUILD_TOP/known
    for fragment in $recipe/*.config; do
      awk 'NR == FNR { known[$1] = 1; next }
        match($0, /CONFIG_[A-Za-z0-9_]+/) && /^(CONFIG_|# CONFIG_[A-Za-z0-9_]+ is not set)/ {
          name = substr($0, RSTART, RLENGTH)
          if (!(name in known)) { print "kernel: Linux ${source.version} has no " name ": left out" >"/dev/stderr"; next }
        }
        { print }' $NIX_BUILD_TOP/known $fragment >$NIX_BUILD_TOP/filtered
      mv $NIX_BUILD_TOP/filtered $fragment
    done
  '';
in
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
    ${
      lib.optionalString (source != linuxSource) forAnother
    }HOSTCC=cc bash $recipe/build --arch ${archName} --source $PWD --out $NIX_BUILD_TOP/result --work $NIX_BUILD_TOP/objects \
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
