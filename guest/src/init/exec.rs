//! Starts the command that the host asks for.

use super::diagnose;
use super::failure::Failure;
use super::job::{Inlet, Job, Outlet, Sink};
use crate::commands::power_off_after::UNDER_HOST;
use crate::sys::{self, Controlling, in_own_session};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use vmtest_guest::proto::frame::Kind;
use vmtest_guest::proto::{self, WindowSize};

/// A larger pipe than the default 64 KiB saves switches between command and relay.
const PIPE_BYTES: usize = 1 << 20;

/// What every command finds in its environment unless the host, or the kernel's command line, says
/// otherwise.
const DEFAULT_ENV: &[(&str, &str)] = &[
    (
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/bbin:/ubin:/.vmtest/bin",
    ),
    ("TERM", "linux"),
    ("USER", "root"),
    ("LOGNAME", "root"),
    ("SHELL", "/bin/sh"),
    ("VMTEST_IN_GUEST", "1"),
];

/// The kernel sets this one to `/` for init, so that it cannot be told from a user's wish.
const HOME: (&str, &str) = ("HOME", "/root");

/// Starts `exec` as the command number `id`.
pub(crate) fn start(id: u32, exec: &proto::Exec) -> Result<Job, Failure> {
    let mut command = prepare(exec)?;
    let name = exec.argv[0].as_os_str();
    let program = PathBuf::from(command.get_program());
    let no_streams = |error| Failure::of("cannot make the command's streams", &error);
    let (ends, pid) = match exec.tty {
        Some(size) => {
            let ends = on_terminal(&mut command, name, size).map_err(no_streams)?;
            (ends, command.spawn().map(|child| Pid::from_child(&child)))
        }
        None => {
            let (ends, [stdin, stdout, stderr]) = on_pipes(exec.stdin).map_err(no_streams)?;
            let streams = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
            (ends, sys::spawn(&command, name, streams))
        }
    };
    let pid = pid.map_err(|error| {
        let cwd = command.get_current_dir().unwrap_or(Path::new("/"));
        Failure { text: diagnose::exec_error(&program, cwd, &error), errno: error.raw_os_error() }
    })?;
    // The command has its own copies; ours would keep the streams open forever.
    drop(command);
    let Ends { terminal, stdout, stderr, sink } = ends;
    Ok(Job {
        id,
        pid,
        status: None,
        outlets: [
            Outlet::new(Kind::Stdout, Some(stdout), terminal.is_some()),
            Outlet::new(Kind::Stderr, stderr, false),
        ],
        inlet: Inlet::new(sink.filter(|_| exec.stdin)),
        terminal,
    })
}

/// Our ends of a command's streams.
struct Ends {
    terminal: Option<Arc<File>>,
    stdout: File,
    /// A terminal has but one output.
    stderr: Option<File>,
    sink: Option<Sink>,
}

fn on_terminal(command: &mut Command, name: &OsStr, size: WindowSize) -> io::Result<Ends> {
    let (master, slave) = open_terminal(size)?;
    let master = Arc::new(master);
    command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
    in_own_session(command, name, Controlling::Stdin)?;
    Ok(Ends {
        stdout: master.try_clone()?,
        stderr: None,
        sink: Some(Sink::Terminal(Arc::clone(&master))),
        terminal: Some(master),
    })
}

/// Our ends, and those of the command: stdin, stdout, stderr.
fn on_pipes(stdin: bool) -> io::Result<(Ends, [OwnedFd; 3])> {
    let (stdout, to_stdout) = one_way()?;
    let (stderr, to_stderr) = one_way()?;
    set_nonblocking(&stdout)?;
    set_nonblocking(&stderr)?;
    let (from_stdin, sink) = if stdin {
        let (read, write) = one_way()?;
        set_nonblocking(&write)?;
        (read, Some(Sink::Pipe(File::from(write))))
    } else {
        (File::open("/dev/null")?.into(), None)
    };
    let (stdout, stderr) = (File::from(stdout), Some(File::from(stderr)));
    Ok((Ends { terminal: None, stdout, stderr, sink }, [from_stdin, to_stdout, to_stderr]))
}

/// The environment of a command: what the kernel gave us from its command line (`VMTEST_…`, and
/// what the user appended), our defaults, and what the host says.
pub(crate) fn environment<'a>(
    asked: impl IntoIterator<Item = (&'a OsStr, &'a OsStr)>,
) -> BTreeMap<OsString, OsString> {
    let mut env: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
    env.insert(HOME.0.into(), HOME.1.into());
    for (name, value) in DEFAULT_ENV {
        env.entry(name.into()).or_insert_with(|| value.into());
    }
    env.extend(asked.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
    env
}

fn prepare(exec: &proto::Exec) -> Result<Command, Failure> {
    use rustix::io::Errno;
    let Some(name) = exec.argv.first().map(proto::Bytes::as_os_str) else {
        return Err(Failure::new("the command is empty", Errno::INVAL));
    };
    let words = exec.argv.iter().chain(exec.env.iter().flat_map(|(name, value)| [name, value]));
    if words.chain(&exec.cwd).any(|word| word.0.contains(&0)) {
        let text = "a NUL byte in the command, its environment or its working directory";
        return Err(Failure::new(text, Errno::INVAL));
    }
    let bad_name = |name: &proto::Bytes| name.0.is_empty() || name.0.contains(&b'=');
    if let Some((name, _)) = exec.env.iter().find(|(name, _)| bad_name(name)) {
        let text = format!("`{}` is no name for a variable", name.as_os_str().display());
        return Err(Failure::new(text, Errno::INVAL));
    }
    let cwd = Path::new(exec.cwd.as_ref().map_or(OsStr::new("/"), proto::Bytes::as_os_str));
    match fs::metadata(cwd) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => {
            let text = format!("working directory `{}` is no directory", cwd.display());
            return Err(Failure::new(text, Errno::NOTDIR));
        }
        Err(error) => {
            return Err(Failure::of(&format!("working directory `{}`", cwd.display()), &error));
        }
    }
    let mut env = environment(exec.env.iter().map(|(n, v)| (n.as_os_str(), v.as_os_str())));
    env.insert(UNDER_HOST.into(), "1".into());
    let search = env.get(OsStr::new("PATH")).cloned().unwrap_or_default();
    let program = look_up(name, &search, cwd)?;
    let mut command = Command::new(program);
    command
        .args(exec.argv[1..].iter().map(proto::Bytes::as_os_str))
        .env_clear()
        .envs(env)
        .current_dir(cwd);
    Ok(command)
}

/// Finds a program as execvp(3) does: a name with a slash is a path already (from the working
/// directory), any other is looked up in `search`, whose empty parts mean the working directory.
pub(crate) fn look_up(name: &OsStr, search: &OsStr, cwd: &Path) -> Result<PathBuf, Failure> {
    use rustix::io::Errno;
    if name.is_empty() {
        return Err(Failure::new("the name of the program is empty", Errno::NOENT));
    }
    if name.as_bytes().contains(&b'/') {
        return Ok(PathBuf::from(name));
    }
    let mut not_executable = None;
    for dir in search.as_bytes().split(|byte| *byte == b':') {
        let dir = if dir.is_empty() { Path::new(".") } else { Path::new(OsStr::from_bytes(dir)) };
        let candidate = dir.join(name);
        match fs::metadata(cwd.join(&candidate)) {
            Ok(meta) if meta.is_file() && meta.permissions().mode() & 0o111 != 0 => {
                return Ok(candidate);
            }
            Ok(meta) if meta.is_file() => not_executable = not_executable.or(Some(candidate)),
            _ => {}
        }
    }
    Err(match not_executable {
        Some(found) => Failure::new(
            format!("`{}` is not executable (chmod +x)", found.display()),
            Errno::ACCESS,
        ),
        None => Failure::new(
            format!("no program `{}` in the guest's PATH ({})", name.display(), search.display()),
            Errno::NOENT,
        ),
    })
}

fn one_way() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    // Only a matter of speed.
    let _ = rustix::pipe::fcntl_setpipe_size(&write, PIPE_BYTES);
    Ok((read, write))
}

fn set_nonblocking(file: impl AsFd) -> io::Result<()> {
    Ok(rustix::io::ioctl_fionbio(file, true)?)
}

fn open_terminal(size: WindowSize) -> io::Result<(File, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags)?;
    rustix::pty::unlockpt(&master)?;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    set_size(&master, size)?;
    set_nonblocking(&master)?;
    Ok((File::from(master), slave))
}

pub(crate) fn set_size(terminal: impl AsFd, size: WindowSize) -> io::Result<()> {
    let WindowSize { rows, cols } = size;
    let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_up_in_path_order() {
        let dir = std::env::temp_dir().join(format!("vmtest-path-{}", std::process::id()));
        for (name, mode) in
            [("a/data", 0o644), ("b/data", 0o755), ("a/only", 0o644), ("a/d/x", 0o755)]
        {
            let path = dir.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let search = OsString::from(format!("{0}/none:{0}/a:{0}/b:", dir.display()));
        let find = |name: &str| look_up(OsStr::new(name), &search, &dir.join("a/d"));
        assert_eq!(find("data").unwrap(), dir.join("b/data"));
        assert_eq!(find("x").unwrap(), Path::new("./x"));
        assert_eq!(find("sub/data").unwrap(), Path::new("sub/data"));
        assert_eq!(find("only").unwrap_err().errno, Some(13));
        assert_eq!(find("d").unwrap_err().errno, Some(2));
        assert_eq!(find("").unwrap_err().errno, Some(2));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn what_cannot_be_said_to_the_kernel_is_refused_by_name() {
        let exec = |argv: &[&[u8]], env: &[(&[u8], &[u8])], cwd: Option<&str>| {
            let bytes = |bytes: &[u8]| proto::Bytes(bytes.to_vec());
            let exec = proto::Exec {
                argv: argv.iter().map(|word| bytes(word)).collect(),
                env: env.iter().map(|(name, value)| (bytes(name), bytes(value))).collect(),
                cwd: cwd.map(proto::Bytes::from),
                ..proto::Exec::default()
            };
            prepare(&exec).unwrap_err().text
        };
        assert_eq!(exec(&[], &[], None), "the command is empty");
        assert!(exec(&[b"/bin/true", b"a\0b"], &[], None).starts_with("a NUL byte"));
        assert_eq!(exec(&[b"x"], &[(b"A=B", b"")], None), "`A=B` is no name for a variable");
        assert!(exec(&[b"x"], &[], Some("/nonexistent")).starts_with("working directory `/nonex"));
        assert_eq!(
            exec(&[b"x"], &[(b"PATH", b"/nonexistent")], None),
            "no program `x` in the guest's PATH (/nonexistent)"
        );
    }

    #[test]
    fn the_hosts_environment_wins() {
        let asked =
            [(OsStr::new("SHELL"), OsStr::new("/x")), (OsStr::new("HOME"), OsStr::new("/h"))];
        let env = environment(asked);
        assert_eq!(env[OsStr::new("SHELL")], "/x");
        assert_eq!(env[OsStr::new("HOME")], "/h");
        assert_eq!(env[OsStr::new("VMTEST_IN_GUEST")], "1");
    }
}
