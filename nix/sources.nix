# Sources of what is compiled for the guests, pinned here rather than taken from nixpkgs: the same release on every
# channel, and also where a package set does not have them. `nix/fetch-sources` gets them for a machine without network.
{ fetchurl }:
{
  musl = rec {
    version = "1.2.5";
    src = fetchurl {
      url = "https://musl.libc.org/releases/musl-${version}.tar.gz";
      hash = "sha256-qaEYu+hNh2TaDqDSizqz+uhHf8fkCF2QECuFlvx8deQ=";
    };
  };
  busybox = rec {
    version = "1.37.0";
    src = fetchurl {
      url = "https://busybox.net/downloads/busybox-${version}.tar.bz2";
      hash = "sha256-MxHf8y50ZJn03w1d8E1+s5Y4LX4Qi7klDntRm4NwQ6Q=";
    };
  };
}
