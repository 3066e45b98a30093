# shellcheck shell=bash
# The guest program, static, built from guest/ for each arch. Three ways, the first that is possible:
#
# 1. rustup's target for musl: everything that a static program needs comes with it, rust-lld links
#    it. Nothing else is fetched.
# 2. rustup's target for glibc, where its mirror has no musl one: libc.a and the start files come
#    from Debian's packages of that arch, rust-lld links it.
# 3. Debian's own Rust (rust.sh) with its standard library of that arch, and as in 2.
#
# No C compiler for a foreign arch is needed in any of them.

guest_recipe=3
guest_key=''
guest_prepare() {
  guest_key=none
  [ -e "$repo/guest/src/main.rs" ] || return 0
  guest_key=$guest_recipe-$(cd "$repo" && find guest Cargo.toml Cargo.lock -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -c 1-16)
}
guest_current() { [ "$guest_key" = none ] || current "guest/$1" "$guest_key"; }

guest_fetch() { # ARCH,ARCH…: one job, since cargo builds several targets best in one go
  local start=$EPOCHREALTIME arch triple libdir arches=() debian=() targets=() flags rust_reason=''
  local -A triple_of=()
  IFS=, read -ra arches <<<"$1"
  build_needs
  export CARGO_TERM_COLOR=never
  unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTFLAGS CARGO_BUILD_TARGET CARGO_TARGET_DIR
  cd "$repo" || return

  if rust_on_path; then
    for arch in "${arches[@]}"; do
      triple=$(guest_triple "$arch") || { rust_reason="rustup has no target for $arch" && debian+=("$arch") && continue; }
      triple_of[$arch]=$triple targets+=(--target "$triple")
      case $triple in
      *musl*) guest_linker "$triple" rust-lld "-Clinker-flavor=ld.lld -Clink-self-contained=yes" ;;
      *) guest_libc "$arch" "$triple" ;;
      esac
    done
    VMTEST_LLD=$(rustc --print target-libdir)/../bin/rust-lld
    export VMTEST_LLD
    [ ${#targets[@]} = 0 ] || guest_cargo cargo "$cache/build/guest" "${targets[@]}"
  else
    rust_reason="PATH has no cargo and rustc of at least $(rust_minimum)"
    debian=("${arches[@]}")
  fi

  if [ ${#debian[@]} -gt 0 ]; then
    rust_ensure "${debian[@]}"
    targets=()
    for arch in "${debian[@]}"; do
      triple=$(rust_triple "$arch")
      triple_of[$arch]=$triple targets+=(--target "$triple")
      guest_libc "$arch" "$triple"
    done
    export VMTEST_LLD=$cache/rust/bin/lld
    guest_cargo "$cache/rust/bin/cargo" "$cache/build/guest-debian" "${targets[@]}"
  fi

  local version new dir
  version=$(sed -n 's/^version *= *"\(.*\)"/\1/p' Cargo.toml | head -n 1)
  for arch in "${arches[@]}"; do
    dir=$cache/build/guest
    case " ${debian[*]-} " in *" $arch "*) dir=$cache/build/guest-debian ;; esac
    new=$work/guest-$arch
    mkdir -p "$new"
    cp "$dir/${triple_of[$arch]}/guest/vmtest-guest" "$new/"
    json_entry path "guest/$arch/vmtest-guest" version "$version" sha256 "$(sha256 "$new/vmtest-guest")" >"$new/entry.json"
    install_component "$new" "guest/$arch" "$guest_key"
  done
  say "guest program $version (${arches[*]}): built in $(seconds_since "$start")"
}
guest_cargo() { # CARGO TARGET-DIR --target T…
  local program=$1 dir=$2
  shift 2
  "$program" build --locked --profile guest --package vmtest-guest --bin vmtest-guest --target-dir "$dir" "$@"
}

# The target to build ARCH with by the rustc on PATH: one whose standard library is there, or comes.
guest_triple() {
  local triple
  for triple in "$(rust_musl_triple "$1")" "$(rust_triple "$1")"; do
    [ ! -d "$(rustc --print target-libdir --target "$triple" 2>/dev/null)" ] || { echo "$triple" && return 0; }
  done
  for triple in "$(rust_musl_triple "$1")" "$(rust_triple "$1")"; do
    if command -v rustup >/dev/null && RUST_BACKTRACE=0 rustup target add "$triple" >&2; then
      say "rustup added the target $triple"
      echo "$triple"
      return 0
    fi
  done
  return 1
}

guest_linker() { # TRIPLE LINKER FLAGS: cargo is told by its variables for that target
  export "CARGO_TARGET_$(env_name "$1")_LINKER=$2" "CARGO_TARGET_$(env_name "$1")_RUSTFLAGS=-Ctarget-feature=+crt-static $3"
}

# libc.a, the start files and libgcc of ARCH, for static programs. Kept: it is a few megabytes.
guest_libc_recipe=3
guest_libc() { # ARCH TRIPLE
  # The machine's own triple is also that of the build scripts, which its C compiler has to link; it
  # brings a libc.a too.
  if [ "$(debian_arch "$1")" = "$(dpkg --print-architecture)" ]; then
    export "CARGO_TARGET_$(env_name "$2")_RUSTFLAGS=-Ctarget-feature=+crt-static"
    return 0
  fi
  guest_linker "$2" "$cache/build/libc/$1/ld" "-Clinker-flavor=ld -Crelocation-model=static -Lnative=$cache/build/libc/$1"
  ! current "build/libc/$1" $guest_libc_recipe || return 0
  local apt_opts new=$work/libc-$1 root=$work/root-libc-$1 debs=$work/debs-libc-$1
  apt_release trixie "$1"
  apt_download "$debs" libc6-dev libgcc-14-dev
  unpack "$root" "$debs"/*.deb
  mkdir -p "$new"
  # gcc's first: where both have a file (riscv64's crti.o), the C library's is the one that counts.
  cp "$root"/usr/lib/gcc/*/*/{crtbeginT.o,crtend.o,libgcc.a,libgcc_eh.a} "$new/"
  cp "$root"/usr/lib/*-linux-*/{crt*.o,lib*.a} "$new/"
  # A libm.a that is a linker script names its parts in /usr/lib; here they are beside it.
  if [ "$(head -c 2 "$new/libm.a")" = '/*' ]; then sed -i 's,/usr/lib/[^ ]*/,,g' "$new/libm.a"; fi
  # What a C compiler does for its linker: start files before everything else, the rest behind.
  cat >"$new/ld" <<'LD'
#!/bin/sh
lib=${0%/*}
exec "$VMTEST_LLD" -flavor gnu -static --eh-frame-hdr "$lib/crt1.o" "$lib/crti.o" "$lib/crtbeginT.o" \
  "$@" --start-group -lc -lgcc -lgcc_eh --end-group "$lib/crtend.o" "$lib/crtn.o"
LD
  chmod +x "$new/ld"
  install_component "$new" "build/libc/$1" $guest_libc_recipe
}
