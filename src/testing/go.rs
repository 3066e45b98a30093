//! Go test programs (`go test -c`) in a guest, one result for each test.
//!
//! The guest's `gouinit` runs them as that of the Go package `hugelgupf/vmtest` does and turns their output into the events of
//! `go test -json` (`go doc test2json`), which land on a share.

use std::path::PathBuf;
use std::time::Duration;

use crate::arch::Arch;
use crate::blocking;
use crate::configure::{Configure, p9_directory};
use crate::options::Environment;
use crate::results::{TestEvent, test2json};
use crate::session::{self, Command};
use crate::vm::read_event_file;

use super::{ProgramsError, Report};

/// The guest program's name with the command that runs Go tests.
const GOUINIT: [&str; 2] = [vmtest_guest::proto::GUEST_PROGRAM, "gouinit"];

/// Mount tag of the share with the programs and their results.
const SHARE: &str = "gotestdata";

/// The programs' coverage profile on the share.
const PROFILE: &str = "coverage.txt";

/// Runs statically linked Go test programs of the guest's architecture in one guest, one after the
/// other, each for `timeout` at most. A package is called as its program's file, without `.test`.
///
/// With `VMTEST_GO_PROFILE` in the environment their coverage profile is written to that file; the programs
/// have to be built with `-cover` then.
///
/// # Errors
/// [`ProgramsError`] when nothing could be run. Tests that fail are in the report.
pub fn run(
    arch: Arch,
    configurator: impl Configure,
    programs: impl IntoIterator<Item = impl Into<PathBuf>>,
    timeout: Duration,
) -> Result<Report, ProgramsError> {
    let share = tempfile::tempdir().map_err(session::Error::Temporary)?;
    for path in programs {
        let path = path.into();
        let failed = |source| ProgramsError::Program { path: path.clone(), source };
        let package = path.file_stem().unwrap_or(path.as_os_str());
        let dir = share.path().join("tests").join(package);
        std::fs::create_dir_all(&dir).map_err(failed)?;
        std::fs::copy(&path, dir.join(package).with_extension("test")).map_err(failed)?;
    }
    let mut command = Command::new(GOUINIT[0])
        .arg(GOUINIT[1])
        .arg(format!("-test_timeout={}ms", timeout.as_millis()))
        .arg("-list=true");
    let profile = Environment::read().map_err(session::Error::from)?.go_profile;
    if profile.is_some() {
        command = command.arg(format!("-coverprofile=/mount/9p/{SHARE}/{PROFILE}"));
    }
    let configurator = (configurator, p9_directory(share.path(), SHARE));
    let mut finished = blocking::run(arch, configurator, command)?;
    if let Some(to) = profile {
        // The tests' results are worth more than their profile.
        if let Err(error) = std::fs::copy(share.path().join(PROFILE), &to) {
            let text = format!("VMTEST_GO_PROFILE: no profile at {}: {error}", to.display());
            finished.record.outcome.notices.push(text);
        }
    }
    match read_event_file::<TestEvent>(share.path().join("results.json")) {
        Ok(events) => Ok(Report { tests: test2json(&events), finished }),
        Err(source) => {
            Err(ProgramsError::NoResults { finished: Box::new(finished), source: Some(source) })
        }
    }
}
