# mkVmTest: a derivation that boots a guest in the build sandbox, without network, and runs a test in it. In $out:
# run.json, console.log, stdout, stderr, what the test wrote to /mount/9p/artifacts, coverage. When the test fails, so
# does the build, with the console's last lines in its log.
{
  lib,
  runCommand,
  writeText,
  unwrapped,
  hostArch,
  arches,
  archName,
  # of each architecture, and with a kernel that counts lines
  assets,
  coverageAssets,
}:
{
  name,
  arch ? hostArch,
  # What runs: a list of words, of which the first may be a store path (it comes into the image with its libraries) …
  command ? null,
  # … or a shell script, text or a file, for the guest's own sh. Neither: the guest boots and says what it found.
  script ? null,
  # into the image: { "/bin/app" = "${app}/bin/app"; }, with libraries; { "/data" = ./data; }, as they are
  programs ? { },
  files ? { },
  # directories over 9p at /mount/9p/TAG, read-only: { TAG = ./directory; }
  shares ? { },
  env ? { },
  # MiB with a suffix, as "512M"
  memory ? null,
  cpus ? 1,
  # "90s", "5m". Emulated guests of a busy builder are slow: these are limits, not expectations
  timeout ? "15m",
  bootTimeout ? "5m",
  # another kernel: a file, a derivation of mkKernel, one of nixpkgs' kernels, whose modules come with it, or "@gcov", ours
  # that counts lines; else its modules, …/lib/modules/RELEASE
  kernel ? null,
  modules ? null,
  initramfs ? null,
  # of the kernel's command line
  append ? [ ],
  # event channels: their events are in $out/events/NAME.json
  events ? [ ],
  # what must come out: the command's status, and extended regular expressions that a line must match
  expect ? { },
  # require KVM of the builder, and use it. Only the host's own architecture can
  kvm ? false,
  # bring home what programs counted, in $out/coverage, and with `kernel = "@gcov"` what the kernel did
  coverage ? false,
  # whatever else `vmtest run --help` lists
  extraArgs ? [ ],
  meta ? { },
}:
assert lib.assertMsg (
  !(command != null && script != null)
) "mkVmTest ${name}: either command or script";
assert lib.assertMsg (
  !kvm || archName "mkVmTest ${name}" arch == hostArch
) "mkVmTest ${name}: KVM runs guests of the host's architecture only, ${hostArch}";
let
  guestArch = archName "mkVmTest ${name}" arch;
  inherit (import ./words.nix { inherit lib; }) colon pairs word;
  each =
    option:
    lib.concatMap (value: [
      option
      "${value}"
    ]);
  maybe = option: value: each option (lib.optional (value != null) value);
  ofNixpkgs = lib.isDerivation kernel && kernel ? modDirVersion;
  # before nixpkgs 26.11 said it itself
  nixpkgsImage = arches.${guestArch}.linux_image;
  unexpected = {
    status = 0;
    stdout = [ ];
    stderr = [ ];
    console = [ ];
  };
  strange = lib.attrNames (removeAttrs expect (lib.attrNames unexpected));
  expected =
    lib.throwIfNot (strange == [ ])
      "mkVmTest ${name}: expect has no ${lib.concatStringsSep ", " strange}; there are ${lib.concatStringsSep ", " (lib.attrNames unexpected)}"
      (unexpected // expect);
  scriptFile = if builtins.isString script then writeText "test.sh" script else script;
  arguments = [
    "run"
    "--arch"
    guestArch
    "--accel"
    (if kvm then "kvm" else "tcg")
    "--cpus"
    (toString cpus)
    "--timeout"
    timeout
    "--boot-timeout"
    bootTimeout
  ]
  ++ maybe "--memory" memory
  ++ maybe "--kernel" (
    if ofNixpkgs then
      "${kernel}/${kernel.target or nixpkgsImage}"
    else if lib.isDerivation kernel then
      "${kernel}/vmlinuz"
    else
      kernel
  )
  ++ maybe "--modules" (
    if modules == null && ofNixpkgs then
      "${kernel.modules or kernel}/lib/modules/${kernel.modDirVersion}"
    else
      modules
  )
  ++ maybe "--initramfs" initramfs
  ++ pairs "--bin" programs
  ++ pairs "--file" (files // lib.optionalAttrs (script != null) { "/test.sh" = scriptFile; })
  ++ lib.concatLists (
    lib.mapAttrsToList (tag: directory: [
      "--share"
      "${colon "${directory}"}:${tag}:ro"
    ]) shares
  )
  ++ lib.concatLists (
    lib.mapAttrsToList (key: value: [
      "--env"
      "${key}=${word value}"
    ]) env
  )
  ++ each "--append" append
  ++ map word extraArgs;
  words =
    if script != null then
      [
        "sh"
        "/test.sh"
      ]
    else
      command;
  matches =
    what:
    lib.concatMapStrings (pattern: ''
      grep -Eq -e ${lib.escapeShellArg pattern} $out/${what} || fail ${lib.escapeShellArg "no line of ${what} matches `${pattern}`"}
    '');
in
runCommand "vm-test-${name}"
  {
    nativeBuildInputs = [ unwrapped ];
    requiredSystemFeatures = [ "nixos-test" ] ++ lib.optional kvm "kvm";
    passthru = {
      inherit arguments;
      arch = guestArch;
      # whether what was counted is of our kernel
      countsKernel = coverage && kernel == "@gcov";
    };
    VMTEST_ASSETS = "${
      (if kernel == "@gcov" then coverageAssets else assets).${guestArch}
    }/assets.json";
    meta = {
      timeout = 60 * 60;
    }
    // meta;
  }
  ''
    export HOME=$NIX_BUILD_TOP
    fail() {
      echo "vm-test ${name}: $*" >&2
      if [ -s $out/console.log ]; then
        echo "the console's last lines:" >&2
        tail -n 30 $out/console.log | sed 's/^/  | /' >&2
      fi
      exit 1
    }
    mkdir -p $out/artifacts ${lib.optionalString (events != [ ]) "$out/events"}
    status=0
    vmtest ${lib.escapeShellArgs arguments} --artifacts $out --share $out/artifacts:artifacts \
      ${lib.concatMapStringsSep " " (event: "--event ${event}=$out/events/${event}.json") events} \
      ${lib.optionalString coverage "--coverage $out/coverage"} \
      ${lib.optionalString (words != null) "-- ${lib.escapeShellArgs (map word words)}"} || status=$?
    # Its own statuses for wrong usage and missing files could be those of a command.
    [ -e $out/run.json ] || fail "no guest was started"
    [ "$status" = ${toString expected.status} ] || fail "ended with status $status, expected was ${toString expected.status}"
    ${matches "stdout" (lib.toList expected.stdout)}
    ${matches "stderr" (lib.toList expected.stderr)}
    ${matches "console.log" (lib.toList expected.console)}
  ''
