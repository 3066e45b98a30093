# vmtest with the assets of all architectures in its closure: for machines and containers without Nix.
{
  lib,
  runCommand,
  jq,
  runtimeShell,
  unwrapped,
  assets,
}:
runCommand "vmtest-full-${unwrapped.version}"
  {
    pname = "vmtest-full";
    inherit (unwrapped) version;
    nativeBuildInputs = [ jq ];
    meta = unwrapped.meta // {
      mainProgram = "vmtest";
    };
  }
  ''
    mkdir -p $out/bin $out/share/vmtest
    jq -s '.[0] * { guests: (map(.guests) | add) }' ${
      lib.concatMapStringsSep " " (set: "${set}/assets.json") (lib.attrValues assets)
    } >$out/share/vmtest/assets.json
    printf '#!%s\nexport VMTEST_ASSETS=''${VMTEST_ASSETS-%s}\nexec %s "$@"\n' ${runtimeShell} \
      $out/share/vmtest/assets.json ${lib.getExe unwrapped} >$out/bin/vmtest
    chmod +x $out/bin/vmtest
    ln -s ${unwrapped}/share/{bash-completion,fish,man,zsh} $out/share/
  ''
