//! What a runner hook wants: `cargo test`, `go test -exec`, CTest and others hand a program to `vmtest
//! runner`, which has to do with it what they would have done themselves, in a guest.
//!
//! [`decide`] says where the program runs, and what it sees there. It looks at files and changes nothing;
//! environment and working directory are given.
//!
//! | question | answered by |
//! |---|---|
//! | is it for a guest, and of which architecture? | its ELF header ([`program`]), and for which architectures the tool has a hook ([`hook`]) |
//! | which directories does it see? | the tool's project ([`project`]), where the tool puts results ([`places`]) |
//! | which variables does it get? | [`variables`] |

mod error;
mod hook;
mod places;
mod program;
mod project;
mod request;
pub mod variables;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::arch::Arch;
use crate::qemu::Mirror;
use program::Program;

pub use error::Error;
pub use request::Request;

/// Where a program runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// On the host, as if there were no hook.
    Host {
        /// Why, as the end of "it runs on the host: ".
        why: String,
    },
    /// In a guest.
    Guest(Box<Job>),
}

/// A program for a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The guest's architecture.
    pub arch: Arch,
    /// What is run there.
    pub argv: Vec<OsString>,
    /// Where.
    pub cwd: PathBuf,
    /// Its environment.
    pub env: Vec<(OsString, OsString)>,
    /// What it sees of the host, at the same paths.
    pub mirrors: Vec<Mirror>,
    /// Whether the program itself is in one of them.
    pub program_shared: bool,
    /// Further programs in them, whose libraries it needs.
    pub programs: Vec<PathBuf>,
    /// Where libraries are besides the system's.
    pub library_dirs: Vec<PathBuf>,
    /// Where the system's libraries of a foreign architecture are, where the distribution has them.
    pub sysroot: Option<PathBuf>,
}

/// Decides where a program runs, and what it sees there.
///
/// # Errors
/// [`Error`] for one that can run nowhere.
pub fn decide(request: &Request<'_>) -> Result<Decision, Error> {
    let name = request.argv.first().map_or(OsStr::new(""), OsString::as_os_str);
    let look = Program::look(request.cwd, name)?;
    let arch = match where_it_runs(request, name, &look)? {
        Where::Host(why) => return Ok(Decision::Host { why }),
        Where::Guest(arch) => arch,
    };
    let mut argv = request.argv.to_vec();
    if look == Program::OwnScript {
        argv.insert(0, "sh".into());
    }
    let tool = project::find(request.cwd, request.env, request.projects);
    let file = look.file(request.cwd, name);
    let places = places::of(request, &tool, file.as_deref())?;
    let rule = variables::Rule::new(request.pass);
    let mut env: Vec<(OsString, OsString)> =
        request.env.iter().filter(|(name, value)| rule.passes(name, value)).cloned().collect();
    let library_dirs = variables::library_dirs(request.env);
    let seen: Vec<&PathBuf> = library_dirs.iter().filter(|dir| places.show(dir)).collect();
    if let (false, Ok(path)) = (seen.is_empty(), std::env::join_paths(&seen)) {
        env.push(("LD_LIBRARY_PATH".into(), path));
    }
    let sysroot = (Some(arch) != request.host).then(|| cross_libraries(arch)).flatten();
    Ok(Decision::Guest(Box::new(Job {
        arch,
        cwd: request.cwd.to_owned(),
        env,
        program_shared: file.as_deref().is_some_and(|file| places.show(file)),
        programs: variables::programs(request.env).filter(|program| places.show(program)).collect(),
        mirrors: places.mirrors(),
        library_dirs,
        sysroot,
        argv,
    })))
}

enum Where {
    Host(String),
    Guest(Arch),
}

fn where_it_runs(request: &Request<'_>, name: &OsStr, look: &Program) -> Result<Where, Error> {
    let Program::Elf(found) = *look else {
        let arch = request.arch.or(request.default_arch).or(request.host);
        return arch.map(Where::Guest).ok_or_else(|| Error::NoArch { program: name.to_owned() });
    };
    let on_host = Some(found) == request.host;
    if on_host && is_list(request.argv) {
        return Ok(Where::Host("it only lists its tests, which needs no guest".into()));
    }
    match request.arch {
        Some(wanted) if wanted == found => Ok(Where::Guest(found)),
        Some(wanted) if on_host => {
            Ok(Where::Host(format!("it is {found}, and this runner is for {wanted}")))
        }
        Some(wanted) => Err(Error::OtherArch { path: name.into(), found, wanted }),
        None if on_host => {
            let hooks = hook::architectures(request.env, request.cwd, request.default_arch);
            Ok(match hooks.without(found) {
                Some(others) => {
                    Where::Host(format!("it is {found}, and the runner's hooks are for {others}"))
                }
                None => Where::Guest(found),
            })
        }
        None => Ok(Where::Guest(found)),
    }
}

/// Whether a test program is asked for its tests alone, as cargo-nextest asks.
fn is_list(argv: &[OsString]) -> bool {
    let has = |word: &str| argv.iter().skip(1).any(|arg| arg == word);
    let terse = argv.windows(2).any(|pair| pair[0] == "--format" && pair[1] == "terse");
    has("--list") && (terse || has("--format=terse"))
}

/// Where Debian's packages for cross compilers put the libraries of an architecture.
fn cross_libraries(arch: Arch) -> Option<PathBuf> {
    let tuple = match arch {
        Arch::I386 => "i686-linux-gnu",
        arch => arch.multiarch(),
    };
    Some(Path::new("/usr").join(tuple)).filter(|dir| dir.join("lib").is_dir())
}

#[cfg(test)]
mod tests;
