{
  description = "A Go program, tested in guests of five architectures";

  # Wherever you have vmtest from.
  inputs.vmtest.url = "github:vmtest/vmtest";
  inputs.nixpkgs.follows = "vmtest/nixpkgs";

  outputs =
    { vmtest, nixpkgs, ... }:
    let
      inherit (nixpkgs) lib;
      eachSystem =
        f:
        lib.genAttrs [
          "x86_64-linux"
          "aarch64-linux"
        ] (system: f nixpkgs.legacyPackages.${system});
      goarch = {
        amd64 = "amd64";
        i386 = "386";
        arm64 = "arm64";
        arm = "arm";
        riscv64 = "riscv64";
      };
      # The package's tests as a static program of each architecture: Go needs no C compiler for that.
      tests =
        pkgs: arch:
        pkgs.runCommand "addresses-test-${arch}" { nativeBuildInputs = [ pkgs.go ]; } ''
          cp ${./go.mod} go.mod && cp ${./addresses.go} addresses.go && cp ${./addresses_test.go} addresses_test.go
          export HOME=$NIX_BUILD_TOP GOARCH=${goarch.${arch}} GOOS=linux CGO_ENABLED=0 GOFLAGS=-trimpath
          go test -c -o $out .
        '';
    in
    {
      # nix flake check -L. A package set without Go cannot build the tests, and says so.
      checks = eachSystem (
        pkgs:
        if pkgs ? go then
          vmtest.lib.mkVmMatrix pkgs {
            tests.addresses =
              { arch, ... }:
              {
                command = [
                  (tests pkgs arch)
                  "-test.v"
                ];
                expect.stdout = "^PASS$";
              };
          }
        else
          lib.warn "this package set has no Go: the tests are not built" { }
      );

      # nix run .#test: `go test` on this machine, with the pins in its environment. A project that uses the Go library
      # of the same name gets its QEMU and kernel that way.
      apps = eachSystem (pkgs: {
        test = {
          type = "app";
          program = "${pkgs.writeShellScript "test" ''
            ${lib.optionalString (pkgs ? go) "export PATH=${pkgs.go}/bin:$PATH"}
            exec ${lib.getExe (vmtest.lib.for pkgs).vmtest} env -- go test ./...
          ''}";
          meta.description = "go test with QEMU and kernel of vmtest";
        };
      });
    };
}
