# The asset manifest of one guest architecture (docs/assets.md): what vmtest boots, each file with its version and hash.
{
  lib,
  runCommand,
  qemu,
  kernel,
  guest,
  busybox,
  archName,
  arch,
  # a kernel that counts executed lines, for tests with coverage; or null
  gcovKernel,
}:
runCommand "vmtest-assets-${archName}"
  {
    meta.description = "Asset manifest of ${archName} guests: QEMU, kernel, guest program and shell";
    passthru = {
      inherit
        archName
        qemu
        kernel
        guest
        busybox
        ;
    };
  }
  ''
    asset() { # PATH VERSION
      local sum
      sum=$(sha256sum <"$1")
      printf '"path": "%s", "version": "%s", "sha256": "%s"' "$1" "$2" "''${sum%% *}"
    }
    kernel() { # DIRECTORY DEV
      local release
      release=$(cat $1/release)
      printf '{%s, "config": "%s/config"' "$(asset $1/vmlinuz $release)" $1
      if [ -e $1/direct ]; then printf ', "direct": {%s}' "$(asset $1/direct $release)"; fi
      if [ -e $1/gcov.json ]; then
        printf ', "gcov": {"notes": "%s/notes", %s' $1 "$(sed 's/^{//' $1/gcov.json)"
      fi
      if [ -e $1/lib/modules ]; then printf ', "modules": "%s"' $1/lib/modules/$release; fi
      printf '}'
    }
    # QEMU brings UEFI firmware for some machines.
    firmware() { # CODE VARS
      if [ -e "$1" ] && [ -e "$2" ]; then
        printf '  "firmware": {"code": {%s}, "vars": {%s}},\n' "$(asset "$1" ${lib.getVersion qemu})" \
          "$(asset "$2" ${lib.getVersion qemu})"
      fi
    }
    mkdir -p $out
    {
      printf '{ "schema": 1, "generator": "nix", "guests": { "${archName}": {\n'
      printf '  "qemu": {%s},\n' "$(asset ${qemu}/bin/qemu-system-${arch.qemu} ${lib.getVersion qemu})"
      printf '  "kernel": %s,\n' "$(kernel ${kernel})"
      ${lib.optionalString (gcovKernel != null) ''
        printf '  "gcov_kernel": %s,\n' "$(kernel ${gcovKernel})"
      ''}
      printf '  "guest": {%s},\n' "$(asset ${guest}/bin/vmtest-guest ${lib.getVersion guest})"
      ${lib.optionalString (
        arch ? firmware
      ) "firmware ${qemu}/share/qemu/${arch.firmware.code} ${qemu}/share/qemu/${arch.firmware.vars}"}
      printf '  "shell": {%s}\n' "$(asset ${busybox}/bin/busybox ${lib.getVersion busybox})"
      printf '} } }\n'
    } >$out/assets.json
  ''
