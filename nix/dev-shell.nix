# What working on vmtest takes. The assets are not in it: `make assets` brings them, or `nix build .#vmtest-full`, whose
# share/vmtest/assets.json VMTEST_ASSETS can name.
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
  dosfstools,
  mtools,
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
    dosfstools
    mtools
    jq
  ];
}
