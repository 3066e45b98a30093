# A C compiler for static programs of one guest architecture: clang with musl and the kernel's headers. It is a script
# around clang, so nothing is built for it but the small library that it links: no gcc for any architecture.
{
  lib,
  stdenvNoCC,
  runtimeShell,
  llvmPackages,
  musl,
  rustStd,
  linuxHeaders,
  archName,
  arch,
}:
let
  inherit (llvmPackages) clang-unwrapped lld llvm;
in
stdenvNoCC.mkDerivation {
  pname = "vmtest-cc-${archName}";
  inherit (llvmPackages.llvm) version;
  nativeBuildInputs = [ llvm ];
  # What the processor lacks (division, wide numbers): Rust has these functions too, so std's are taken.
  buildCommand = ''
    mkdir -p $out/bin $out/lib objects && cd objects
    llvm-ar x ${rustStd}/lib/rustlib/${arch.rust}/lib/libcompiler_builtins-*.rlib
    rm -f lib.rmeta
    llvm-ar rcs $out/lib/libbuiltins.a *.o
    cat >$out/bin/${arch.target}-cc <<'EOF'
    #!${runtimeShell}
    start=(--ld-path=${lib.getExe' lld "ld.lld"})
    end=(-Wno-unused-command-line-argument)
    link=1
    for argument; do
      case $argument in -c | -S | -E | -M | -MM | -r | -nostdlib | -v | --version | -dump* | -print-*) link= ;; esac
    done
    if [ -n "$link" ]; then
      start+=(-static -no-pie -nostdlib -L${musl}/lib ${musl}/lib/crt1.o ${musl}/lib/crti.o)
      end+=(-Wl,--start-group -lc @out@/lib/libbuiltins.a -lunwind -Wl,--end-group ${musl}/lib/crtn.o)
    fi
    exec ${lib.getExe' clang-unwrapped "clang"} --target=${arch.target} ${toString arch.flags} -nostdinc \
      -isystem ${musl}/include -isystem ${linuxHeaders}/include/${archName} "''${start[@]}" "$@" "''${end[@]}"
    EOF
    substituteInPlace $out/bin/${arch.target}-cc --replace-fail @out@ $out
    sed -i 's/^    //' $out/bin/${arch.target}-cc
    chmod +x $out/bin/${arch.target}-cc
    for tool in ar ranlib nm strip objcopy objdump readelf; do ln -s ${llvm}/bin/llvm-$tool $out/bin/${arch.target}-$tool; done
  '';
  meta = {
    description = "C compiler for static programs of ${archName} guests";
    mainProgram = "${arch.target}-cc";
  };
}
