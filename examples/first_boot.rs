//! A program of the host in a guest, with a shared directory, as a plain `#[test]` would do it.
//!
//! `cargo run --example first_boot`

use std::error::Error;

use vmtest::arch::Arch;
use vmtest::blocking;
use vmtest::configure::{options, p9_directory, with_vmtest_ident};
use vmtest::session::Command;

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    // A program of the host needs a guest of the host's architecture.
    let arch = Arch::host().ok_or("this host's architecture is not known to vmtest")?;
    let shared = tempfile::tempdir()?;
    std::fs::write(shared.path().join("question"), "6*7\n")?;

    // A program with a slash is the host's: it goes into the image with its libraries.
    let command = Command::new("/bin/sh")
        .args(["-c", "read question < question; echo $(($question)) > answer; uname -s"])
        .cwd("/mount/9p/work");

    let configuration = (
        p9_directory(shared.path(), "work"),
        options(|options| options.cpus = 2),
        with_vmtest_ident(),
    );
    let run = blocking::run(arch, configuration, command)?.passed()?;
    assert_eq!(run.stdout_text(), "Linux\n");
    assert_eq!(std::fs::read_to_string(shared.path().join("answer"))?, "42\n");
    println!("the guest's answer is 42, after {:?}", run.record.outcome.phases.total);
    Ok(())
}
