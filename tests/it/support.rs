//! Runs the `vmtest` program as a user would, and looks at what it leaves behind.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use vmtest::arch::Arch;
use vmtest::assets::{Assets, GuestAssets};
use vmtest::options::Environment;

/// No test waits longer for a program. Boots under emulation share two processors here.
pub(crate) const DEADLINE: Duration = Duration::from_secs(240);

/// What there is to boot. Fails where something is missing: a skipped test proves nothing.
pub(crate) fn assets(arch: Arch) -> GuestAssets {
    let environment = Environment::read().expect("the environment is usable");
    let assets = Assets::find(&environment).unwrap_or_else(|error| {
        panic!("{error}; these tests boot real guests: run `make assets` first")
    });
    let guest = assets.guest(arch);
    for (what, missing) in [
        ("kernel", guest.kernel.is_none()),
        ("QEMU", guest.qemu.is_none()),
        ("guest program", guest.guest.is_none()),
        ("shell", guest.shell.is_none()),
    ] {
        assert!(!missing, "no {what} for {arch}; run `make assets` first");
    }
    guest
}

/// A run of the program.
#[must_use]
pub(crate) struct Run {
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    stdin: Vec<u8>,
    cwd: PathBuf,
    /// Empty at the end, or something was left behind.
    tmp: tempfile::TempDir,
    mark: String,
    plain: bool,
}

/// A run that has not ended.
pub(crate) struct Running {
    child: Child,
    tmp: tempfile::TempDir,
    mark: String,
    started: Instant,
}

/// What a run did.
#[derive(Debug)]
pub(crate) struct Done {
    /// The exit code; 128+n for a signal.
    pub(crate) code: i32,
    /// Its stdout.
    pub(crate) stdout: Vec<u8>,
    /// Its stderr.
    pub(crate) stderr: String,
    /// How long it took.
    pub(crate) elapsed: Duration,
}

/// `vmtest` with these arguments.
pub(crate) fn vmtest<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Run {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    Run {
        args: args.into_iter().map(|arg| arg.as_ref().to_owned()).collect(),
        env: Vec::new(),
        stdin: Vec::new(),
        cwd: PathBuf::from("."),
        tmp: tempfile::tempdir().expect("a temporary directory"),
        mark: format!("{}.{number}", std::process::id()),
        plain: false,
    }
}

impl Run {
    /// Adds an argument.
    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Run {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub(crate) fn args<S: AsRef<OsStr>>(self, args: impl IntoIterator<Item = S>) -> Run {
        args.into_iter().fold(self, |run, arg| run.arg(arg))
    }

    /// Sets a variable.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Run {
        self.env.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Runs it in a directory.
    pub(crate) fn cwd(mut self, dir: impl Into<PathBuf>) -> Run {
        self.cwd = dir.into();
        self
    }

    /// Gives it something to read.
    pub(crate) fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Run {
        self.stdin = bytes.into();
        self
    }

    /// Modes of files count, also where the tests run as root.
    pub(crate) fn bound_by_modes(mut self) -> Run {
        self.plain = true;
        self
    }

    /// Starts it.
    pub(crate) fn start(self) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmtest"));
        if self.plain && rustix::process::geteuid().is_root() {
            command = Command::new("setpriv");
            command
                .args(["--bounding-set", "-dac_override,-dac_read_search"])
                .arg(env!("CARGO_BIN_EXE_vmtest"));
        }
        command
            .args(&self.args)
            .current_dir(&self.cwd)
            .env("TMPDIR", self.tmp.path())
            .env("VMTEST_TEST_MARK", &self.mark)
            .env_remove("VMTEST_ARCH")
            .env_remove("VMTEST_TIMEOUT")
            .envs(self.env)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let mut stdin = child.stdin.take().expect("piped");
        let bytes = self.stdin;
        std::thread::spawn(move || {
            // A program that does not read is free not to.
            let _ = stdin.write_all(&bytes);
        });
        Running { child, tmp: self.tmp, mark: self.mark, started: Instant::now() }
    }

    /// Runs it to its end.
    pub(crate) fn run(self) -> Done {
        self.start().wait()
    }
}

impl Running {
    /// Its process id.
    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// The processes that it has started and that still live.
    pub(crate) fn survivor_pids(&self) -> Vec<rustix::process::Pid> {
        survivors(&self.mark).into_iter().map(|(pid, _)| pid).collect()
    }

    /// Waits until QEMU runs.
    pub(crate) fn wait_for_qemu(&self) {
        let deadline = Instant::now() + DEADLINE;
        while !survivors(&self.mark).iter().any(|(_, line)| line.contains("qemu-system")) {
            assert!(Instant::now() < deadline, "QEMU was not started");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until it writes to a file without a name.
    pub(crate) fn wait_for_temporary_file(&self) {
        let deadline = Instant::now() + DEADLINE;
        let fds = format!("/proc/{}/fd", self.child.id());
        let begun = || {
            std::fs::read_dir(&fds).is_ok_and(|fds| {
                fds.flatten().any(|fd| {
                    std::fs::read_link(fd.path()).is_ok_and(|file| {
                        file.starts_with(self.tmp.path())
                            && std::fs::metadata(fd.path()).is_ok_and(|file| file.len() > 0)
                    })
                })
            })
        };
        while !begun() {
            assert!(Instant::now() < deadline, "no temporary file was written");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for its end; it must have left nothing behind.
    pub(crate) fn wait(mut self) -> Done {
        let read = |stream: Option<Box<dyn Read + Send>>| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                if let Some(mut stream) = stream {
                    let _ = stream.read_to_end(&mut bytes);
                }
                bytes
            })
        };
        let stdout =
            read(self.child.stdout.take().map(|out| Box::new(out) as Box<dyn Read + Send>));
        let stderr =
            read(self.child.stderr.take().map(|err| Box::new(err) as Box<dyn Read + Send>));
        let deadline = Instant::now() + DEADLINE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("the program can be waited for") {
                break status;
            }
            if Instant::now() > deadline {
                let _ = self.child.kill();
                panic!("vmtest did not end within {DEADLINE:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let elapsed = self.started.elapsed();
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
        // QEMU has been killed by the time vmtest ends, but the kernel may still be at it.
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let left = survivors(&self.mark);
            if left.is_empty() {
                break;
            }
            assert!(Instant::now() < deadline, "processes are left: {left:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        let left: Vec<PathBuf> = std::fs::read_dir(self.tmp.path())
            .expect("the temporary directory is still there")
            .map(|entry| entry.expect("readable").path())
            .collect();
        assert!(left.is_empty(), "temporary files are left: {left:?}");
        Done {
            code,
            stdout: stdout.join().expect("reads"),
            stderr: String::from_utf8_lossy(&stderr.join().expect("reads")).into_owned(),
            elapsed,
        }
    }
}

/// Command lines of living processes with our mark in their environment, ourselves excepted.
fn survivors(mark: &str) -> Vec<(rustix::process::Pid, String)> {
    let wanted = format!("VMTEST_TEST_MARK={mark}\0");
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc is mounted").flatten() {
        let dir = entry.path();
        let Ok(environ) = std::fs::read(dir.join("environ")) else { continue };
        let marked = environ.windows(wanted.len()).any(|window| window == wanted.as_bytes());
        if marked && let Ok(cmdline) = std::fs::read(dir.join("cmdline")) {
            let program = cmdline.split(|byte| *byte == 0).next().unwrap_or_default();
            let pid = dir.file_name().and_then(|name| name.to_str()?.parse().ok());
            if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw)
                && !program.is_empty()
                && !program.ends_with(b"/vmtest")
            {
                found.push((pid, String::from_utf8_lossy(&cmdline).replace('\0', " ")));
            }
        }
    }
    found
}

impl Done {
    /// Checks the exit code.
    #[track_caller]
    pub(crate) fn code(&self, code: i32) -> &Done {
        assert_eq!(self.code, code, "exit code; stderr:\n{}", self.stderr);
        self
    }

    /// Checks all of stdout.
    #[track_caller]
    pub(crate) fn stdout(&self, text: &str) -> &Done {
        assert_eq!(String::from_utf8_lossy(&self.stdout), text, "stderr:\n{}", self.stderr);
        self
    }

    /// Checks that stderr says something.
    #[track_caller]
    pub(crate) fn says(&self, text: &str) -> &Done {
        assert!(self.stderr.contains(text), "`{text}` is missing in:\n{}", self.stderr);
        self
    }
}
