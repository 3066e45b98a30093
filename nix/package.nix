# The vmtest program alone: no QEMU, no kernels. Everything else is built from this one build of it.
{
  lib,
  rustPlatform,
  installShellFiles,
}:
rustPlatform.buildRustPackage {
  pname = "vmtest";
  inherit ((lib.importTOML ../Cargo.toml).workspace.package) version;
  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../Cargo.toml
      ../Cargo.lock
      ../src
      ../guest
      ../macros
      ../benches
      # a part of the library's documentation
      ../docs/life-cycle.txt
    ];
  };
  cargoLock.lockFile = ../Cargo.lock;
  buildFeatures = [ "cli" ];
  cargoBuildFlags = [
    "--package=vmtest"
    "--bin=vmtest"
  ];
  nativeBuildInputs = [ installShellFiles ];
  # Panics name source files: not those of the store, which would bring all crates' sources into the closure.
  preBuild = ''
    export RUSTFLAGS="''${RUSTFLAGS-} --remap-path-prefix=$cargoDeps=/crates"
  '';
  postInstall = ''
    $out/bin/vmtest man >vmtest.1
    installManPage vmtest.1
    for shell in bash zsh fish; do
      $out/bin/vmtest completions $shell >completion.$shell
      installShellCompletion --cmd vmtest --$shell completion.$shell
    done
  '';
  # Its tests are checks.unit: a change in them builds no program anew.
  doCheck = false;
  meta = {
    description = "Boots a Linux guest for a test, runs a program in it and tells exactly what happened";
    license = lib.licenses.bsd3;
    mainProgram = "vmtest";
    platforms = lib.platforms.linux;
  };
}
