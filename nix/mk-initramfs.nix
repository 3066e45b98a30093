# mkInitramfs: an image, by `vmtest initramfs build`. In $out: initramfs.img; report.json, every entry with its reason;
# `command`, the arguments, with which the same vmtest makes the same bytes without Nix.
{
  lib,
  runCommand,
  unwrapped,
  hostArch,
  archName,
}:
{
  name ? "initramfs",
  # whose programs are in it
  arch ? hostArch,
  # with everything they need: { "/bin/app" = "${app}/bin/app"; }
  programs ? { },
  # as they are, files and directories: { "/etc/motd" = ./motd; }
  files ? { },
  # { "/bin/sh" = "busybox"; }
  symlinks ? { },
  # what /init, /bin/uinit and /bin/sh lead to
  init ? null,
  uinit ? null,
  defaultSh ? null,
  # none, gzip, zstd, lz4 or xz, with a level if wanted (zstd:19)
  compress ? "none",
  # where libraries of a foreign architecture are
  sysroot ? null,
  # whatever else `vmtest initramfs build --help` lists
  extraArgs ? [ ],
  meta ? { },
}:
let
  inherit (import ./words.nix { inherit lib; }) colon pairs word;
  maybe =
    option: value:
    lib.optionals (value != null) [
      option
      "${value}"
    ];
  arguments = [
    "initramfs"
    "build"
    "--arch"
    (archName "mkInitramfs ${name}" arch)
    "--no-cache"
    "--compress"
    compress
  ]
  ++ pairs "--bin" programs
  ++ pairs "--file" files
  ++ lib.concatLists (
    lib.mapAttrsToList (dest: target: [
      "--symlink"
      "${colon dest}:${colon target}"
    ]) symlinks
  )
  ++ maybe "--init" init
  ++ maybe "--uinit" uinit
  ++ maybe "--default-sh" defaultSh
  ++ maybe "--sysroot" sysroot
  ++ map word extraArgs;
in
runCommand name
  {
    nativeBuildInputs = [ unwrapped ];
    passthru = { inherit arch arguments; };
    # Times in the image are 0, as they are outside of Nix.
    SOURCE_DATE_EPOCH = 0;
    inherit meta;
  }
  ''
    mkdir -p $out
    vmtest ${lib.escapeShellArgs arguments} -o $out/initramfs.img --report $out/report.json
    printf '%s\n' ${lib.escapeShellArg (lib.escapeShellArgs arguments)} >$out/command
  ''
