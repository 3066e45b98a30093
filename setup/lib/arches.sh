# shellcheck shell=bash disable=SC2034
# Made of arches.json by a test (tests/it/arches.rs), which says so when it is out of date.
all_arches=(amd64 i386 arm64 arm riscv64)
declare -A arch_aliases=(
  [amd64]='x86_64 x86-64 x64'
  [i386]='386 i486 i586 i686 x86'
  [arm64]='aarch64 armv8'
  [arm]='armhf armv7 armv7l armv7a armv7hl'
  [riscv64]='riscv64gc'
)
declare -A arch_debian=(
  [amd64]='amd64'
  [i386]='i386'
  [arm64]='arm64'
  [arm]='armhf'
  [riscv64]='riscv64'
)
declare -A arch_qemu=(
  [amd64]='x86_64'
  [i386]='i386'
  [arm64]='aarch64'
  [arm]='arm'
  [riscv64]='riscv64'
)
declare -A arch_qemu_family=(
  [amd64]='x86'
  [i386]='x86'
  [arm64]='arm'
  [arm]='arm'
  [riscv64]='riscv'
)
declare -A arch_rust=(
  [amd64]='x86_64-unknown-linux-musl'
  [i386]='i686-unknown-linux-musl'
  [arm64]='aarch64-unknown-linux-musl'
  [arm]='armv7-unknown-linux-musleabihf'
  [riscv64]='riscv64gc-unknown-linux-musl'
)
declare -A arch_rust_gnu=(
  [amd64]='x86_64-unknown-linux-gnu'
  [i386]='i686-unknown-linux-gnu'
  [arm64]='aarch64-unknown-linux-gnu'
  [arm]='armv7-unknown-linux-gnueabihf'
  [riscv64]='riscv64gc-unknown-linux-gnu'
)
