# QEMU with the five machines and without a screen: what checks run with. nixpkgs' own `qemu` is the default for
# everything else, since the public cache has it; this one has to be built, once, and is far smaller.
{
  lib,
  qemu,
  arches,
}:
qemu.override {
  hostCpuTargets = map (arch: "${arch.qemu}-softmmu") (lib.attrValues arches);
  guestAgentSupport = false;
  alsaSupport = false;
  pulseSupport = false;
  pipewireSupport = false;
  jackSupport = false;
  sdlSupport = false;
  gtkSupport = false;
  vncSupport = false;
  spiceSupport = false;
  smartcardSupport = false;
  ncursesSupport = false;
  cephSupport = false;
  libiscsiSupport = false;
  canokeySupport = false;
  enableDocs = false;
}
