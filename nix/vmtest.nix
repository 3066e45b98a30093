# The vmtest program with its pins. In the closure are the assets of the host's architecture; those of other guests are
# named by their store paths only, and vmtest.sh gets them when --arch asks. A name without Nix' string context is no
# reference, so they cost nothing until then.
{
  lib,
  stdenvNoCC,
  runtimeShell,
  runCommand,
  unwrapped,
  arches,
  # of each architecture
  assets,
}:
let
  inherit (stdenvNoCC.hostPlatform) system;
  isHost = name: arches.${name}.host == system;
  host = lib.findFirst isHost (throw "vmtest has no guests of ${system}") (lib.attrNames arches);
  bare = builtins.unsafeDiscardStringContext;
  cases = lib.concatStringsSep "\n  " (
    map (
      name:
      "${
        lib.concatStringsSep " | " ([ name ] ++ arches.${name}.aliases)
      }) echo ${name} ${bare assets.${name}.outPath} ${bare assets.${name}.drvPath} ;;"
    ) (lib.filter (name: !isHost name) (lib.attrNames arches))
  );
in
runCommand "vmtest-${unwrapped.version}"
  {
    pname = "vmtest";
    inherit (unwrapped) version;
    passthru = { inherit unwrapped assets; };
    meta = unwrapped.meta // {
      mainProgram = "vmtest";
    };
  }
  ''
    mkdir -p $out/bin
    { echo '#!${runtimeShell}' && cat ${./vmtest.sh}; } >$out/bin/vmtest
    substituteInPlace $out/bin/vmtest --replace-fail '# @cases@' ${lib.escapeShellArg cases} \
      --replace-fail @host@ ${assets.${host}} --replace-fail @program@ ${lib.getExe unwrapped}
    chmod +x $out/bin/vmtest
    ln -s ${unwrapped}/share $out/share
  ''
