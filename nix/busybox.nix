# The guest's shell and its usual programs: a static busybox of one architecture.
{
  stdenv,
  sources,
  cc,
  archName,
  arch,
}:
stdenv.mkDerivation {
  pname = "busybox-${archName}";
  inherit (sources.busybox) version src;
  nativeBuildInputs = [ cc ];
  enableParallelBuilding = true;
  makeFlags = [
    "CROSS_COMPILE=${arch.target}-"
    "CC=${arch.target}-cc"
    "HOSTCC=cc"
    "SKIP_STRIP=y"
  ];
  # Everything but what does not compile: tc needs headers that Linux 6.8 dropped, the hash functions in assembly are
  # for another assembler, and PAM and SELinux are not there.
  postPatch = "patchShebangs .";
  configurePhase = ''
    runHook preConfigure
    make $makeFlags SHELL=$SHELL defconfig >/dev/null
    sed -i -E 's/^CONFIG_(TC|FEATURE_TC_INGRESS|SHA1_HWACCEL|SHA256_HWACCEL|FEATURE_CHECK_NAMES|FEATURE_UTMP|FEATURE_WTMP)=y/# CONFIG_\1 is not set/' .config
    sed -i 's/^# CONFIG_STATIC is not set/CONFIG_STATIC=y/' .config
    { yes "" || true; } | make $makeFlags SHELL=$SHELL oldconfig >/dev/null
    grep -qx CONFIG_STATIC=y .config
    runHook postConfigure
  '';
  buildPhase = ''
    runHook preBuild
    make -j$NIX_BUILD_CORES $makeFlags SHELL=$SHELL busybox_unstripped
    runHook postBuild
  '';
  installPhase = ''
    runHook preInstall
    ${arch.target}-strip -s -o busybox busybox_unstripped
    install -D busybox -t $out/bin
    runHook postInstall
  '';
  dontStrip = true;
  dontPatchELF = true;
  allowedReferences = [ ];
  meta = {
    description = "Static busybox of ${archName} guests";
    mainProgram = "busybox";
  };
}
