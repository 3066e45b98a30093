//! `shelluinit [SCRIPT]`: runs a shell script from a share and says how it went.
//!
//! The script is `/mount/9p/shelltest/test.sh` unless another is given. `TESTS PASSED MARKER` on
//! stderr is what hosts of `hugelgupf/vmtest` look for; the exit status is the script's.

use super::common::{fail, run};
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const SCRIPT: &str = "/mount/9p/shelltest/test.sh";
/// `hugelgupf/vmtest` runs u-root's `gosh`; any shell that can do `set -ex` will do.
const SHELLS: &[&str] = &["/bin/sh", "/bbin/gosh", "/bin/defaultsh", "/bin/bash", "/bbin/sh"];

pub(super) fn main(args: &[OsString]) -> ExitCode {
    let script = PathBuf::from(args.first().map_or(SCRIPT.as_ref(), OsString::as_os_str));
    let words = match words(&script) {
        Ok(words) => words,
        Err(why) => return fail("shelluinit", why),
    };
    let status = run("shelluinit", &words);
    if status == 0 {
        eprintln!("TESTS PASSED MARKER");
    } else {
        eprintln!("shelluinit: {} ended with status {status}", script.display());
    }
    ExitCode::from(status)
}

/// A script that names its interpreter is executed, any other given to the first shell there is.
fn words(script: &Path) -> Result<Vec<OsString>, String> {
    let mut start = Vec::new();
    File::open(script)
        .and_then(|file| file.take(2).read_to_end(&mut start))
        .map_err(|error| format!("cannot read the script {}: {error}", script.display()))?;
    if start == b"#!" {
        return Ok(vec![script.into()]);
    }
    let shell = SHELLS.iter().find(|shell| Path::new(shell).exists());
    let shell = shell.ok_or_else(|| format!("the guest has no shell: {}", SHELLS.join(", ")))?;
    Ok(vec![shell.into(), script.into()])
}
