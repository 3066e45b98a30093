//! Runs the `vmtest` program as a user would, and looks at what it leaves behind.

use std::cell::RefCell;
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
    removed: Vec<OsString>,
    stdin: Vec<u8>,
    cwd: PathBuf,
    /// Empty at the end, or something was left behind.
    tmp: tempfile::TempDir,
    mark: String,
    plain: bool,
    asides: Vec<String>,
}

/// A run that has not ended.
pub(crate) struct Running {
    child: Child,
    tmp: tempfile::TempDir,
    mark: String,
    started: Instant,
    asides: Vec<String>,
}

/// What a run did.
///
/// Everything on stderr has to be stated: at the end of a `Done` each line of it must have been named by
/// [`Done::says`], or be of the lines that go with any run ([`is_usual`]); else the test fails.
#[derive(Debug)]
pub(crate) struct Done {
    /// The exit code; 128+n for a signal.
    pub(crate) code: i32,
    /// The signal that it ended by.
    pub(crate) signal: Option<i32>,
    /// Its stdout.
    pub(crate) stdout: Vec<u8>,
    /// Its stderr.
    pub(crate) stderr: String,
    /// How long it took.
    pub(crate) elapsed: Duration,
    /// What of stderr the test has named; all of it when there is an empty text.
    stated: RefCell<Vec<String>>,
}

/// Whether a line of stderr goes with any run and says nothing by itself:
///
/// * `vmtest: …`, progress and verdict;
/// * `hint: …` and, behind wrong usage, a tip and the usage: they follow an error, which has to be stated;
/// * `note: repeat it: …`, where the artifacts are, and the console's last lines, each behind `  | `;
/// * objects of `--message-format json`;
/// * empty lines.
fn is_usual(line: &str) -> bool {
    const STARTS: [&str; 13] = [
        "{\"",
        "vmtest: ",
        "hint: ",
        "note: repeat it: ",
        "note: artifacts: ",
        "note: the console",
        "note: what was found ",
        "note: the guest's console",
        "  | ",
        "  tip: ",
        "Usage: ",
        "       vmtest ",
        "For more information, try ",
    ];
    line.trim().is_empty() || STARTS.iter().any(|start| line.starts_with(start))
}

impl Drop for Done {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let stated = self.stated.borrow();
        let unstated = |line: &&str| {
            !is_usual(line) && !stated.iter().any(|text| line.contains(text.as_str()))
        };
        let left: Vec<&str> = self.stderr.lines().filter(unstated).collect();
        assert!(left.is_empty(), "nobody expected this on stderr:\n{}", left.join("\n"));
    }
}

/// `vmtest` with these arguments.
pub(crate) fn vmtest<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Run {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    Run {
        args: args.into_iter().map(|arg| arg.as_ref().to_owned()).collect(),
        env: Vec::new(),
        removed: Vec::new(),
        stdin: Vec::new(),
        cwd: PathBuf::from("."),
        tmp: tempfile::tempdir().expect("a temporary directory"),
        mark: format!("{}.{number}", std::process::id()),
        plain: false,
        asides: Vec::new(),
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

    /// Takes a variable of the tests' own away.
    pub(crate) fn env_remove(mut self, name: &str) -> Run {
        self.removed.push(name.into());
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

    /// As [`Done::aside`].
    pub(crate) fn aside(mut self, text: &str) -> Run {
        self.asides.push(text.to_owned());
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
            .env_remove("VMTEST_TIMEOUT");
        for name in &self.removed {
            command.env_remove(name);
        }
        command.envs(self.env).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let mut stdin = child.stdin.take().expect("piped");
        let bytes = self.stdin;
        std::thread::spawn(move || {
            // A program that does not read is free not to.
            let _ = stdin.write_all(&bytes);
        });
        Running {
            child,
            tmp: self.tmp,
            mark: self.mark,
            started: Instant::now(),
            asides: self.asides,
        }
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
            signal: status.signal(),
            stdout: stdout.join().expect("reads"),
            stderr: String::from_utf8_lossy(&stderr.join().expect("reads")).into_owned(),
            elapsed,
            stated: RefCell::new(self.asides),
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

    /// Checks that stderr says something. The lines that have it are stated thereby.
    #[track_caller]
    pub(crate) fn says(&self, text: &str) -> &Done {
        assert!(self.stderr.contains(text), "`{text}` is missing in:\n{}", self.stderr);
        self.stated
            .borrow_mut()
            .extend(text.lines().filter(|line| !line.is_empty()).map(str::to_owned));
        self
    }

    /// States that stderr may say something that is beside the point of the test.
    pub(crate) fn aside(self, text: &str) -> Done {
        self.stated.borrow_mut().push(text.to_owned());
        self
    }

    /// States that the test looks at all of stderr by itself, or has looked at it in a run like this one.
    pub(crate) fn seen(&self) -> &Done {
        self.stated.borrow_mut().push(String::new());
        self
    }
}
