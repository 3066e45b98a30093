# The kernel's source that everything is made of: our kernels and the headers for C programs.
{ linuxKernel }:
{
  inherit (linuxKernel.kernels.linux_6_12) version src;
}
