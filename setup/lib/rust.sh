# shellcheck shell=bash
# Which cargo and rustc to use. The ones on PATH where they are new enough (rustup's, as a rule);
# else Debian's `rustc-web` and `cargo-web` with everything they need, unpacked into the cache and
# run through their own ld.so: no root, and the same compiler on every release. The linker for
# programs of this machine stays its own `cc`.

rust_suite=trixie # bookworm's has no riscv64
rust_recipe=1

rust_minimum() { sed -n 's/^rust-version *= *"\(.*\)"/\1/p' "$repo/Cargo.toml" | head -n 1; }
rust_on_path() { # succeeds if PATH has a cargo and a rustc that can build this repository
  local have want
  have=$(cd "$repo" && rustc --version 2>/dev/null | cut -d' ' -f2) && (cd "$repo" && cargo --version) >/dev/null 2>&1 || return 1
  want=$(rust_minimum)
  [ "$(printf '%s\n' "$want" "$have" | sort -V | head -n 1)" = "$want" ]
}
rust_triple() { echo "${arch_rust_gnu[$1]}"; } # ARCH: the target whose C library is glibc
rust_musl_triple() { echo "${arch_rust[$1]}"; }
# What a build needs of the machine itself: the C compiler, which links programs of this machine
# (build scripts among them), and the certificates that crates are downloaded with.
build_needs() {
  local packages=()
  command -v cc >/dev/null || packages+=(gcc libc6-dev)
  [ -e /etc/ssl/certs/ca-certificates.crt ] || [ -n "${SSL_CERT_FILE-}${CARGO_HTTP_CAINFO-}" ] || packages+=(ca-certificates)
  [ ${#packages[@]} -gt 0 ] || return 0
  install_packages 'a build' "${packages[@]}"
}
env_name() { tr 'a-z-' 'A-Z_' <<<"$1"; } # as cargo spells a target in a variable's name

# The stamp of $cache/rust is RECIPE:ARCH ARCH…
rust_arches() {
  local stamp=''
  [ ! -e "$cache/rust/stamp" ] || read -r stamp <"$cache/rust/stamp" || :
  [ "${stamp%%:*}" != "$rust_recipe" ] || echo "${stamp#*:}"
}
rust_is_there() { [ -n "$(rust_arches)" ]; }

# rust_ensure [ARCH...]: Debian's toolchain with the standard library of each ARCH is in $cache/rust.
# All of it is of one version, so a missing ARCH means fetching all again.
rust_ensure() {
  local start=$EPOCHREALTIME host arch have want list new=$work/rust debs=$work/debs-rust root apt_opts name loader libs
  host=$(dpkg --print-architecture)
  have=$(rust_arches)
  # shellcheck disable=SC2086 # words
  want=$(printf '%s\n' "$host" $have "$@" | sort -u | xargs)
  [ "$have" != "$want" ] || return 0
  say "fetching Debian's Rust, since ${rust_reason:-there is none here}"
  root=$new/root
  mkdir -p "$new/bin"
  apt_release "$rust_suite" "$host"
  list=$(apt_install_list cargo-web rustc-web lld-22 | grep -vE '^(gcc|g\+\+|cpp|binutils|libc6-dev|libc-dev|libcrypt-dev|linux-libc-dev|rpcsvc|perl|debconf|dpkg|libgcc-[0-9]|lib(asan|lsan|tsan|ubsan|hwasan|gomp|itm|quadmath|cc1|gprofng|isl|mpc|mpfr|ctf|binutils))')
  [ -n "$list" ] || fail 69 "the mirror has no \`rustc-web\` in $rust_suite" "install rustup (https://rustup.rs) and run this again"
  # shellcheck disable=SC2086
  apt_download "$debs" $list
  unpack "$root" "$debs"/*.deb
  for arch in $want; do
    apt_release "$rust_suite" "$arch"
    apt_download "$debs-$arch" libstd-rust-web-dev
    unpack "$root" "$debs-$arch"/*.deb
  done
  loader=$(find "$root" -name 'ld-linux*.so.*' -path '*-linux-gnu*' | head -n 1)
  libs=$(find "$root" -regex '.*/lib/[^/]*-linux-gnu[^/]*/lib[^/]*\.so\..*' -printf "\$root/%P\n" | sed 's,/[^/]*$,,' | sort -u | paste -sd:)
  libs+=":\$root/usr/lib/llvm-22/lib"
  cp "$loader" "$root/usr/bin/ld.so"
  for name in cargo rustc rustdoc lld; do
    {
      echo '#!/bin/sh'
      # shellcheck disable=SC2016
      echo 'root=$(dirname "$(readlink -f "$0")")/../root'
      case $name in
      cargo)
        # shellcheck disable=SC2016
        echo 'export RUSTC="$root/../bin/rustc" RUSTDOC="$root/../bin/rustdoc"'
        echo "exec \"\$root/usr/bin/ld.so\" --library-path \"$libs\" \"\$root/usr/bin/cargo\" \"\$@\""
        ;;
      rustc | rustdoc)
        echo "exec \"\$root/usr/bin/ld.so\" --library-path \"$libs\" \"\$root/usr/bin/$name\" --sysroot \"\$root/usr\" \"\$@\""
        ;;
      lld) echo "exec \"\$root/usr/bin/ld.so\" --library-path \"$libs\" --argv0 lld \"\$root/usr/lib/llvm-22/bin/lld\" \"\$@\"" ;;
      esac
    } >"$new/bin/$name"
    chmod +x "$new/bin/$name"
  done
  "$new/bin/rustc" --version && "$new/bin/cargo" --version && "$new/bin/lld" -flavor gnu --version
  install_component "$new" rust "$rust_recipe:$want"
  say "Rust $("$cache/rust/bin/rustc" --version | cut -d' ' -f2) from Debian ($want): $(size_mb "$debs"/*.deb "$debs"-*/*.deb), $(seconds_since "$start")"
}
