# One row for each guest architecture, under vmtest's name for it: the table that Rust and the shell scripts have too.
# Of its columns a builder here needs
#   qemu         QEMU's name of the machine: qemu-system-…, …-softmmu
#   host         the system whose programs it runs without emulation
#   target       clang's target of a static C program, `flags` what else the compiler must be told
#   rust         Rust's target of a static program
#   linux        the kernel's name (make ARCH=…), `linux_image` the target that nixpkgs builds
#   uname        what `uname -m` says in a guest, a regular expression
#   aliases      other names that --arch takes
#   firmware     UEFI, as QEMU names its files
builtins.fromJSON (builtins.readFile ../arches.json)
