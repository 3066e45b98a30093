# The guest program of one architecture: static, and in every image. Linked by lld; see libc.nix and rust-std.nix for
# why no C compiler for the architecture is needed.
{
  lib,
  llvmPackages,
  rustPlatform,
  rustStd,
  archName,
  arch,
}:
let
  root = ../.;
  variable = lib.toUpper (builtins.replaceStrings [ "-" ] [ "_" ] arch.rust);
in
rustPlatform.buildRustPackage {
  pname = "vmtest-guest-${archName}";
  inherit ((lib.importTOML ../Cargo.toml).workspace.package) version;
  src = lib.fileset.toSource {
    inherit root;
    fileset = lib.fileset.unions [
      ../Cargo.toml
      ../Cargo.lock
      ../guest
      ../macros
    ];
  };
  cargoLock.lockFile = ../Cargo.lock;
  # It is in every image: no list of its crates in it.
  auditable = false;
  nativeBuildInputs = [ llvmPackages.lld ];
  # The host's crate is of the same workspace. Without its files a change in them builds no guest anew.
  postPatch = ''
    mkdir -p src benches
    touch src/lib.rs src/main.rs
    for bench in $(sed -n '/^\[\[bench\]\]/ { n; s/name = "\(.*\)"/\1/p }' Cargo.toml); do touch benches/$bench.rs; done
  '';
  env."CARGO_TARGET_${variable}_LINKER" = "ld.lld";
  buildPhase = ''
    runHook preBuild
    printf '#!%s\nexec %s --sysroot ${rustStd} "$@"\n' "$SHELL" "$(type -P rustc)" >$NIX_BUILD_TOP/rustc
    chmod +x $NIX_BUILD_TOP/rustc
    # Panics name source files: not those of the store.
    export CARGO_TARGET_${variable}_RUSTFLAGS="-Clinker-flavor=ld.lld -Clink-self-contained=yes \
      -Ctarget-feature=+crt-static --remap-path-prefix=$cargoDeps=/crates --remap-path-prefix=$NIX_BUILD_TOP=/build"
    RUSTC=$NIX_BUILD_TOP/rustc cargo build --offline --locked -j $NIX_BUILD_CORES --profile guest \
      --package vmtest-guest --bin vmtest-guest --target ${arch.rust}
    runHook postBuild
  '';
  installPhase = ''
    runHook preInstall
    install -D target/${arch.rust}/guest/vmtest-guest -t $out/bin
    runHook postInstall
  '';
  # Its tests run on the host, in checks.unit.
  doCheck = false;
  dontStrip = true;
  dontPatchELF = true;
  # Static, and of nothing in the store: this is what makes it fit for an image.
  allowedReferences = [ ];
  meta = {
    description = "/init and agent of vmtest's guests, ${archName}";
    mainProgram = "vmtest-guest";
    license = lib.licenses.bsd3;
  };
}
