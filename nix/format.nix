# The formatter: Nix files by nixfmt, Rust by cargo fmt. `nix fmt` changes files; checks.format
# looks at both.
{
  writeShellApplication,
  nixfmt,
  git,
  findutils,
  cargo,
  rustfmt,
}:
writeShellApplication {
  name = "format";
  runtimeInputs = [
    nixfmt
    git
    findutils
    cargo
    rustfmt
  ];
  text = ''
    cd "$(git rev-parse --show-toplevel)"
    git ls-files -z -- '*.nix' | xargs -0 nixfmt
    cargo fmt --all
  '';
}
