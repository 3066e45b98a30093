# What working on vmtest takes. The assets are not in it: `make assets` or `nix build .#assets` brings them.
{
  mkShell,
  cargo,
  rustc,
  clippy,
  rustfmt,
  shellcheck,
  nixfmt,
  deadnix,
  qemu,
  cpio,
  jq,
}:
mkShell {
  packages = [
    cargo
    rustc
    clippy
    rustfmt
    shellcheck
    nixfmt
    deadnix
    qemu
    cpio
    jq
  ];
}
