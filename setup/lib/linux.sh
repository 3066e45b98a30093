# shellcheck shell=bash
# Our own guest kernels: Linux' source from the distribution's package, the tools to build it, and
# nix/kernel/build for each of them. docs/kernels.md.

linux_suite=trixie linux_series=6.12 linux_recipe=1

## The tools

# What a build needs besides a C compiler: a program and the package that brings it.
linux_tools=(make:make flex:flex bison:bison bc:bc perl:perl gzip:gzip xz:xz-utils)
llvm_minimum=15

# linux_llvm: sets llvm to what `make LLVM=` wants: 1 for `clang` itself, -19 for `clang-19`.
linux_llvm() {
  local suffix version
  for suffix in '' $(compgen -c clang- | sed -n 's/^clang\(-[0-9]*\)$/\1/p' | sort -rV | uniq); do
    if ! command -v "ld.lld$suffix" || ! command -v "llvm-objcopy$suffix"; then continue; fi >/dev/null
    version=$(clang_version "clang$suffix")
    [ "${version%%.*}" -ge "$llvm_minimum" ] 2>/dev/null || continue
    llvm=${suffix:-1}
    return 0
  done
  return 1
}
clang_version() { # PROGRAM: 19.1.7
  "$1" --version 2>/dev/null | sed -n 's/^.*clang version \([0-9.]*\).*/\1/p' | head -n 1
}
linux_clang() { if [ "$llvm" = 1 ]; then echo clang; else echo "clang$llvm"; fi; }

# Installs as root what a build needs and is not there; else prints the command that does.
linux_needs() {
  local tool packages=()
  for tool in "${linux_tools[@]}"; do
    command -v "${tool%%:*}" >/dev/null || packages+=("${tool##*:}")
  done
  # objtool of x86 reads and writes ELF files
  echo '#include <gelf.h>' | cc -E - >/dev/null 2>&1 || packages+=(libelf-dev)
  if ! linux_llvm; then
    # Debian 12's own clang is 14; it has 19 too, which is what Debian 13 calls `clang`.
    if [ "$os_codename" = bookworm ]; then packages+=(clang-19 lld-19 llvm-19); else packages+=(clang lld llvm); fi
  fi
  [ ${#packages[@]} = 0 ] || install_packages 'building kernels' "${packages[@]}"
  linux_llvm || fail 69 "there is no clang $llvm_minimum or newer with its lld and llvm" "install clang, lld and llvm of one version"
}

## The source

linux_source_dir() { # of the newest source that is there
  local dir newest=''
  for dir in "$cache/source/linux-$linux_series".*; do
    [ -e "$dir/stamp" ] && newest=$(printf '%s\n' "$newest" "$dir" | sort -V | tail -n 1)
  done
  [ -z "$newest" ] || echo "$newest"
}

# The package's tarball is unpacked without what no virtual machine has: a third of the size (what KUnit's parser
# is tested with stays). The source
# stays: reports of coverage show its lines.
linux_fetch() {
  local start=$EPOCHREALTIME new=$work/linux debs=$work/debs-linux version
  say "fetching Linux' source"
  apt_release "$linux_suite" "$(dpkg --print-architecture)"
  apt_download "$debs" "linux-source-$linux_series"
  version=$(deb_version "linux-source-$linux_series" "$debs")
  mkdir -p "$new"
  dpkg-deb --fsys-tarfile "$debs"/*.deb | tar -xO "./usr/src/linux-source-$linux_series.tar.xz" |
    tar -xJ -C "$new" --strip-components=1 --no-same-owner --wildcards \
      --exclude='*/Documentation/*/*' --exclude='*/tools/testing/[!k]*' --exclude='*/tools/testing/k[!u]*' --exclude='*/tools/perf/*' --exclude='*/arch/*/boot/dts/*/*' \
      --exclude='*/drivers/gpu/*.[ch]' --exclude='*/drivers/media/*.[ch]' --exclude='*/drivers/staging/*.[ch]' \
      --exclude='*/drivers/infiniband/*.[ch]' --exclude='*/drivers/net/wireless/*.[ch]' --exclude='*/sound/*.[ch]'
  install_component "$new" "source/linux-$version" "$linux_recipe"
  say "Linux $version, source: $(size_mb "$debs"/*.deb), $(seconds_since "$start")"
}

## The kernels

linux_key() { # KIND SOURCE: what a kernel is made of; KIND is ARCH or ARCH-gcov
  local arch=${1%-gcov} file files=("$repo/nix/kernel/build" "$repo/nix/kernel/common.config" "$repo/nix/kernel/${1%-gcov}.config")
  [ "$arch" = "$1" ] || files+=("$repo/nix/kernel/gcov.config")
  {
    echo "$linux_recipe $1 ${2##*/} $("$(linux_clang)" --version | head -n 1)"
    # A gcov kernel holds the paths of its source and objects.
    [ "$arch" = "$1" ] || echo "$2 $cache"
    for file in "${files[@]}"; do sha256 "$file"; done
  } | sha256sum | cut -c1-32
}
linux_dir() { case $1 in *-gcov) echo "kernel/$1" ;; *) echo "kernel/$1-built" ;; esac; } # KIND

# linux_build KIND SOURCE KEY; with $spare it does not become the default of its architecture
linux_build() {
  local kind=$1 source=$2 arch=${1%-gcov} start=$EPOCHREALTIME objects=$cache/build/kernel/$1 out=$cache/build/kernel/$1.out flags=()
  [ "$arch" = "$kind" ] || flags+=(--gcov)
  rm -rf "$out"
  LLVM=$llvm nice "$repo/nix/kernel/build" --arch "$arch" --source "$source" --work "$objects" --out "$out" ${flags[@]+"${flags[@]}"}
  linux_install "$kind" "$out" "$3"
  rm -rf "$objects"
  say "kernel $(cat "$cache/$(linux_dir "$kind")/release") ($kind): built in $(seconds_since "$start")"
}
linux_install() { # KIND OUT KEY
  local out=$2 dir release
  dir=$(linux_dir "$1")
  release=$(cat "$out/release")
  {
    json_entry path "$dir/vmlinuz" version "$release" sha256 "$(sha256 "$out/vmlinuz")" \
      config "$dir/config" vmlinux "$dir/vmlinux" | sed 's/}$//'
    [ ! -e "$out/direct" ] || {
      printf ', "direct": '
      json_entry path "$dir/direct" version "$release" sha256 "$(sha256 "$out/direct")"
    }
    [ ! -e "$out/gcov.json" ] || printf ', "gcov": {"notes": %s, %s' "$(json_string "$dir/notes")" "$(sed 's/^{//' "$out/gcov.json")"
    echo '}'
  } | tr -d '\n' >"$out/entry.json"
  [ -z "$spare" ] || : >"$out/spare"
  take_cache
  install_component "$out" "$dir" "$3"
  leave_cache
}
