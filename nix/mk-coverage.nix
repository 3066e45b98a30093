# mkCoverage: what several VM tests with `coverage = true` counted, joined: coverage.info (lcov), coverage.json and pages
# in html/.
{
  lib,
  runCommand,
  llvmPackages,
  unwrapped,
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
    vmtest coverage report ${lib.concatMapStringsSep " " (test: "${test}/coverage") tests} \
      ${lib.concatMapStringsSep " " (root: "--source-root ${lib.escapeShellArg "${root}"}") sources} \
      ${lib.escapeShellArgs (map toString extraArgs)} \
      --lcov $out/coverage.info --json $out/coverage.json --html $out/html | tee $out/summary.txt
  ''
