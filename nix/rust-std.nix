# Rust's standard library for one guest architecture, as a sysroot: `rustc --sysroot` with it makes static programs.
# nixpkgs' rustc has the host's only, and its cross sets would build a gcc and a libc first. std is built from the
# compiler's own source; panics abort.
{
  lib,
  stdenv,
  cargo,
  rustc,
  rustPlatform,
  musl,
  archName,
  arch,
}:
let
  # nixpkgs keeps the crates that std needs apart from its source; where they lie with it, there.
  vendor = rustPlatform.rustVendorSrc or "${rustPlatform.rustLibSrc}/vendor";
in
stdenv.mkDerivation {
  pname = "rust-std-${archName}";
  inherit (rustc) version;
  dontUnpack = true;
  strictDeps = true;
  nativeBuildInputs = [
    cargo
    rustc
  ];
  env = {
    # build-std is for nightly compilers only; this is the compiler's own switch for distributions.
    RUSTC_BOOTSTRAP = 1;
    # Later flags win: cargo leaves the bitcode out, which link-time optimisation needs.
    RUSTFLAGS = "-Cembed-bitcode=yes";
    CARGO_PROFILE_RELEASE_OPT_LEVEL = "s";
    CARGO_PROFILE_RELEASE_PANIC = "abort";
    CARGO_PROFILE_RELEASE_DEBUG = "0";
  };
  buildPhase = ''
    runHook preBuild
    host=$(rustc --print sysroot)/lib/rustlib
    mkdir -p source/lib/rustlib/src/rust $out/lib/rustlib crate/src home
    for part in "$host"/*; do
      [ "''${part##*/}" = src ] || ln -s "$part" source/lib/rustlib/
    done
    cp -d source/lib/rustlib/*-* $out/lib/rustlib/
    ln -s ${rustPlatform.rustLibSrc} source/lib/rustlib/src/rust/library
    printf '#!%s\nexec %s --sysroot %s "$@"\n' "$SHELL" "$(type -P rustc)" "$PWD/source" >rustc
    chmod +x rustc
    printf '[source.crates-io]\nreplace-with = "std"\n[source.std]\ndirectory = "%s"\n' ${vendor} >home/config.toml
    printf '[package]\nname = "empty"\nversion = "0.0.0"\nedition = "2021"\n' >crate/Cargo.toml
    echo '#![no_std]' >crate/src/lib.rs
    RUSTC=$PWD/rustc CARGO_HOME=$PWD/home cargo build --offline --release -j $NIX_BUILD_CORES \
      --manifest-path crate/Cargo.toml --target-dir target --target ${arch.rust} \
      -Zbuild-std=std,panic_abort -Zbuild-std-features=optimize_for_size
    runHook postBuild
  '';
  installPhase = ''
    runHook preInstall
    into=$out/lib/rustlib/${arch.rust}/lib
    mkdir -p $into
    rm target/${arch.rust}/release/deps/libempty-*
    cp target/${arch.rust}/release/deps/*.rlib $into/
    ln -s ${musl}/lib $into/self-contained
    runHook postInstall
  '';
  dontStrip = true;
  dontPatchELF = true;
  meta = {
    description = "Rust's standard library for static programs of ${archName} guests";
    platforms = lib.platforms.linux;
  };
}
