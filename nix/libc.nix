# musl for one guest architecture, compiled by clang alone: libc.a, the start files and the headers. With them clang
# and lld make static programs for it, in C and in Rust, and no gcc has to be built for any architecture.
{
  stdenvNoCC,
  llvmPackages,
  sources,
  archName,
  arch,
}:
stdenvNoCC.mkDerivation {
  pname = "musl-${archName}";
  inherit (sources.musl) version src;
  nativeBuildInputs = with llvmPackages; [
    clang-unwrapped
    lld
    llvm
  ];
  enableParallelBuilding = true;
  configurePhase = ''
    runHook preConfigure
    CC="clang --target=${arch.target} ${toString arch.flags}" CFLAGS="-Os -pipe" AR=llvm-ar RANLIB=llvm-ranlib LIBCC=" " \
      bash ./configure --target=${arch.target} --prefix=$out --disable-shared --disable-gcc-wrapper
    runHook postConfigure
  '';
  # The start and end files that a compiler brings: what they did for C++ is now done by .init_array.
  # Unwinding is not to be had: programs of this libc panic by abort. An attempt stops.
  buildPhase = ''
    runHook preBuild
    make -s -j$NIX_BUILD_CORES SHELL=$SHELL lib/libc.a lib/{crt1,rcrt1,Scrt1,crti,crtn}.o
    echo '__attribute__((visibility("hidden"))) void *__dso_handle = 0;' >begin.c
    : >end.c
    for name in Backtrace DeleteException FindEnclosingFunction GetCFA GetDataRelBase GetGR GetIP GetIPInfo \
      GetLanguageSpecificData GetRegionStart GetTextRelBase RaiseException Resume SetGR SetIP VRS_Get VRS_Set; do
      echo "void _Unwind_$name(void) { __builtin_trap(); }"
    done >unwind.c
    for n in 0 1 2; do echo "void __aeabi_unwind_cpp_pr$n(void) { __builtin_trap(); }"; done >>unwind.c
    for file in begin end unwind; do
      clang --target=${arch.target} ${toString arch.flags} -Os -fPIC -c $file.c -o $file.o
    done
    llvm-ar rcs libunwind.a unwind.o
    runHook postBuild
  '';
  installPhase = ''
    runHook preInstall
    make SHELL=$SHELL install-headers >/dev/null
    mkdir -p $out/lib
    cp lib/libc.a lib/*crt?.o libunwind.a $out/lib/
    for suffix in "" S T; do cp begin.o $out/lib/crtbegin$suffix.o; done
    for suffix in "" S; do cp end.o $out/lib/crtend$suffix.o; done
    for empty in m rt pthread crypt util xnet resolv dl; do llvm-ar rcs $out/lib/lib$empty.a; done
    runHook postInstall
  '';
  # Nothing in it is for this machine.
  dontStrip = true;
  dontPatchELF = true;
  meta.description = "C library for static programs of ${archName} guests";
}
