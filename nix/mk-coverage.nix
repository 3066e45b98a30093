# mkCoverage: what several VM tests with `coverage = true` counted, joined: coverage.info (lcov), coverage.json and pages
# in html/.
{
  lib,
  runCommand,
  llvmPackages,
  unwrapped,
  linuxTree,
}:
{
  name ? "coverage",
  # derivations of mkVmTest
  tests,
  # where sources lie, for the pages: [ ./. "/build/source=${src}" ]
  sources ? [ ],
  # whatever else `vmtest coverage report --help` lists
  extraArgs ? [ ],
}:
runCommand name
  {
    nativeBuildInputs = [
      unwrapped
      llvmPackages.llvm
    ];
  }
  ''
    mkdir -p $out
    roots=()
    ${lib.optionalString (lib.any (test: test.countsKernel or false) tests) ''
      # where our kernels' source was when they were built
      for source in $(cat ${
        lib.concatMapStringsSep " " (test: "${test}/coverage/*/coverage.json") tests
      } | sed -n 's/^ *"source": "\(.*\)".*/\1/p' | sort -u); do
        roots+=(--source-root "$source=${linuxTree}")
      done
    ''}
    vmtest coverage report "''${roots[@]}" ${
      lib.concatMapStringsSep " " (test: "${test}/coverage") tests
    } \
      ${lib.concatMapStringsSep " " (root: "--source-root ${lib.escapeShellArg "${root}"}") sources} \
      ${lib.escapeShellArgs (map toString extraArgs)} \
      --lcov $out/coverage.info --json $out/coverage.json --html $out/html | tee $out/summary.txt
  ''
