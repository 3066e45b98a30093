# One row for each guest architecture, under vmtest's name for it. What a builder needs to know stands here and
# nowhere else.
#   qemu     QEMU's name of the machine: qemu-system-…, …-softmmu
#   host     the system whose programs it runs without emulation
#   target   clang's target of a static C program, `flags` what else the compiler must be told
#   rust     Rust's target of a static program
#   linux    the kernel's name (make ARCH=…)
#   aliases  other names that --arch takes (src/arch.rs)
#   firmware UEFI, as QEMU names its files
{
  amd64 = {
    qemu = "x86_64";
    host = "x86_64-linux";
    target = "x86_64-linux-musl";
    flags = [ ];
    rust = "x86_64-unknown-linux-musl";
    linux = "x86_64";
    aliases = [
      "x86_64"
      "x86-64"
      "x64"
    ];
    firmware = {
      code = "edk2-x86_64-code.fd";
      vars = "edk2-i386-vars.fd";
    };
  };
  i386 = {
    qemu = "i386";
    host = "i686-linux";
    target = "i686-linux-musl";
    flags = [ "-march=i686" ];
    rust = "i686-unknown-linux-musl";
    linux = "i386";
    aliases = [
      "386"
      "i486"
      "i586"
      "i686"
      "x86"
    ];
  };
  arm64 = {
    qemu = "aarch64";
    host = "aarch64-linux";
    target = "aarch64-linux-musl";
    flags = [ "-mno-outline-atomics" ];
    rust = "aarch64-unknown-linux-musl";
    linux = "arm64";
    aliases = [
      "aarch64"
      "armv8"
    ];
    firmware = {
      code = "edk2-aarch64-code.fd";
      vars = "edk2-arm-vars.fd";
    };
  };
  arm = {
    qemu = "arm";
    host = "armv7l-linux";
    target = "armv7-linux-musleabihf";
    flags = [
      "-march=armv7-a"
      "-mfpu=vfpv3-d16"
    ];
    rust = "armv7-unknown-linux-musleabihf";
    linux = "arm";
    aliases = [
      "armhf"
      "armv7"
      "armv7l"
      "armv7hl"
    ];
  };
  riscv64 = {
    qemu = "riscv64";
    host = "riscv64-linux";
    target = "riscv64-linux-musl";
    flags = [
      "-march=rv64gc"
      "-mabi=lp64d"
    ];
    rust = "riscv64gc-unknown-linux-musl";
    linux = "riscv";
    aliases = [ "riscv64gc" ];
  };
}
