//! The `vmtest` program. See `docs/architecture.md` for the map and [`cli`] for the front.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
