# The flake's checks of one system. VM tests need `nixos-test` of a builder and nothing else: guests are emulated, so
# any machine can run those of all architectures.
{
  lib,
  runCommand,
  closureInfo,
  testers,
  cargo,
  clippy,
  rustfmt,
  nixfmt,
  deadnix,
  shellcheck,
  dosfstools,
  mtools,
  project,
  headless,
  root,
}:
let
  inherit (project) unwrapped vmtest;
  inherit (headless) mkVmTest arches;
  sources =
    paths:
    lib.fileset.toSource {
      inherit root;
      fileset = lib.fileset.unions paths;
    };
  workspace = sources [
    (root + "/Cargo.toml")
    (root + "/Cargo.lock")
    (root + "/rustfmt.toml")
    (root + "/src")
    (root + "/guest")
    (root + "/macros")
    (root + "/benches")
    (root + "/examples")
    (root + "/tests")
    (root + "/docs")
    (root + "/README.md")
    (root + "/CONTRIBUTING.md")
    (root + "/arches.json")
    (root + "/setup")
    (root + "/nix/kernel")
  ];
  # cargo on the whole workspace, with the program's own vendored crates
  cargoCheck =
    name: extra: command:
    unwrapped.overrideAttrs (old: {
      pname = "vmtest-${name}";
      src = workspace;
      nativeBuildInputs = old.nativeBuildInputs ++ extra;
      buildPhase = "runHook preBuild; export HOME=$NIX_BUILD_TOP; ${command}; runHook postBuild";
      installPhase = "touch $out";
      postInstall = "";
    });
  boot =
    arch:
    mkVmTest {
      name = "boot-${arch}";
      inherit arch;
      files."/greeting" = builtins.toFile "greeting" "hello\n";
      script = ''
        set -e
        uname -m
        test "$(cat /greeting)" = hello
        uname -r >/mount/9p/artifacts/release
        if test -e /dev/root-of-the-host; then exit 1; fi
        echo fine >&2
      '';
      expect = {
        stdout = "^${arches.${arch}.uname}$";
        stderr = "^fine$";
        console = "Linux version";
      };
    };
in
# Nobody waits forever for a check.
lib.mapAttrs (_: lib.addMetaAttrs { timeout = 2 * 60 * 60; }) {
  # The tests of tests/it boot guests with the assets of `make assets` and compare with programs of the host; `make
  # test` runs them. Here: everything in the crates themselves.
  unit = cargoCheck "unit" [
    dosfstools
    mtools
  ] "cargo test --offline --locked --workspace --lib --bins";
  clippy = cargoCheck "clippy" [
    clippy
  ] "cargo clippy --offline --locked --workspace --all-targets -- -D warnings";
  format =
    runCommand "vmtest-format"
      {
        nativeBuildInputs = [
          cargo
          rustfmt
          nixfmt
          deadnix
          shellcheck
        ];
        src = sources [
          (root + "/flake.nix")
          (root + "/nix")
          (root + "/templates")
          (root + "/setup")
          (root + "/.shellcheckrc")
        ];
        inherit workspace;
      }
      ''
        cd $src
        find . -name '*.nix' -print0 | xargs -0 nixfmt --check
        find . -name '*.nix' -print0 | xargs -0 deadnix --fail
        grep -rlE '^#!.*(bash|sh)$' --exclude='*.nix' --exclude='*.md' . | xargs shellcheck
        shellcheck --shell=bash nix/vmtest.sh
        cp -r --no-preserve=mode $workspace $NIX_BUILD_TOP/workspace && cd $NIX_BUILD_TOP/workspace
        HOME=$NIX_BUILD_TOP cargo fmt --all --check
        touch $out
      '';

  # A test that must fail, fails, and its log says why: the test's own words and the console's last ones.
  failing =
    runCommand "vmtest-failing"
      {
        failed = testers.testBuildFailure (mkVmTest {
          name = "failing";
          script = ''
            echo "it is broken" >&2
            echo "last words of the console" >/dev/kmsg
            exit 3
          '';
        });
      }
      ''
        grep -F "it is broken" $failed/testBuildFailure.log
        grep -F "failed with status 3" $failed/testBuildFailure.log
        grep -F "  | " $failed/testBuildFailure.log | grep -F "last words of the console"
        [ "$(cat $failed/testBuildFailure.exit)" = 1 ]
        grep -q '"verdict"' $failed/run.json || grep -q '"verdict"' $failed/result/run.json
        touch $out
      '';

  # What comes along with the program: no compiler, little else, and of the foreign guests nothing.
  closure =
    runCommand "vmtest-closure"
      {
        all = closureInfo { rootPaths = [ vmtest ]; };
        qemu = closureInfo { rootPaths = [ project.qemu ]; };
        full = closureInfo { rootPaths = [ project.vmtestFull ]; };
      }
      ''
        for set in all full; do
          comm -23 <(sort ''${!set}/store-paths) <(sort $qemu/store-paths) >paths
          if grep -E -- '-(gcc|clang|llvm|lld|rustc|cargo|go|binutils|gnumake|perl)(-wrapper)?-[0-9][^/]*$' paths |
            grep -vE -- '-(lib|libgcc)$'; then
            echo "a compiler is in the closure" >&2
            exit 1
          fi
        done
        foreign=$(grep -cE -- '-vmtest-(guest|kernel|assets)-' $all/store-paths)
        [ "$foreign" = 3 ] || { echo "assets of more than one architecture are in the closure" >&2; exit 1; }
        for set in all full; do
          comm -23 <(sort ''${!set}/store-paths) <(sort $qemu/store-paths) | xargs du -scm | tee $set
          echo "$set: $(tail -n 1 $set | cut -f 1) MB beside QEMU"
        done
        [ "$(tail -n 1 all | cut -f 1)" -le 60 ]
        [ "$(tail -n 1 full | cut -f 1)" -le 150 ]
        touch $out
      '';

  # The same inputs give the same image, in Nix and by hand, from wherever they lie.
  image =
    let
      image = project.initramfs.riscv64;
    in
    runCommand "vmtest-image" { nativeBuildInputs = [ unwrapped ]; } ''
      cp ${project.guests.riscv64}/bin/vmtest-guest ${project.busyboxes.riscv64}/bin/busybox .
      export HOME=$NIX_BUILD_TOP
      # stdenv sets it to 1980
      unset SOURCE_DATE_EPOCH
      vmtest initramfs build --arch riscv64 --no-cache --compress none --bin vmtest-guest:/init --bin busybox:/bin/busybox \
        --symlink /bin/sh:busybox -o by-hand.img
      sha256sum by-hand.img ${image}/initramfs.img
      cmp by-hand.img ${image}/initramfs.img
      bash -c "vmtest $(cat ${image}/command) -o again.img"
      cmp again.img ${image}/initramfs.img
      touch $out
    '';
}
// lib.mapAttrs' (arch: _: lib.nameValuePair "boot-${arch}" (boot arch)) arches
