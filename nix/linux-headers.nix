# The kernel's headers for C programs, in a folder for each architecture: include/ARCH. One unpacking for all.
{
  lib,
  stdenv,
  rsync,
  arches,
  linuxSource,
}:
stdenv.mkDerivation {
  pname = "linux-headers-of-guests";
  inherit (linuxSource) version;
  nativeBuildInputs = [ rsync ];
  # Of a gigabyte and a half, what `make headers_install` reads.
  buildCommand = ''
    mkdir source && cd source
    tar -xf ${linuxSource.src} --strip-components=1 --wildcards \
      '*/Makefile' '*/Kbuild*' '*/include/uapi/*' '*/include/asm-generic/*' '*/scripts/*' '*/tools/include/*' \
      '*/arch/*/tools/*' '*/syscalls/*'
    patchShebangs scripts
  ''
  + lib.concatMapStrings (name: ''
    make -j$NIX_BUILD_CORES SHELL=$SHELL ARCH=${arches.${name}.linux} INSTALL_HDR_PATH=$PWD/out headers_install >log || { cat log; exit 1; }
    mkdir -p $out/include
    mv out/include $out/include/${name}
  '') (lib.attrNames arches);
  meta.description = "Headers of Linux for C programs of guests";
}
