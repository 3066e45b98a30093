//! What `#[vmtest::test]` makes of a test: on the host it starts a guest, which runs the same test program with
//! that one test; there the test does what its body says.
//!
//! The guest sees what `vmtest runner` shows a program ([`crate::runner`]): the project at its own path, its
//! writes on a layer of the guest's, the variables that tests read.

use std::ffi::OsString;
use std::time::Duration;

use super::explained;
use crate::arch::Arch;
use crate::blocking;
use crate::configure::{
    all, device, with_append_kernel, with_cpus, with_kernel, with_library_dir, with_memory,
    with_network, with_sysroot, with_vm_timeout,
};
use crate::duration;
use crate::options::Environment;
use crate::qemu::UserNet;
use crate::runner::{self, Decision, Job, Request};
use crate::session::{Command, Finished};
use crate::size::{Bytes, Mib};
use crate::vm::Verdict;

/// The agent sets it for every command.
const IN_GUEST: &str = "VMTEST_IN_GUEST";

/// How a test's guest is made. `#[vmtest::test]` writes the calls.
#[derive(Clone, Debug)]
#[must_use = "nothing runs without `run`"]
pub struct Settings {
    name: &'static str,
    should_panic: bool,
    arch: Option<&'static str>,
    kernel: Option<&'static str>,
    memory: Option<&'static str>,
    cpus: Option<u32>,
    timeout: Option<&'static str>,
    cmdline: Option<&'static str>,
    net: Option<&'static str>,
}

/// What a test may return: `()`, or a `Result` of it.
pub trait Passed {
    /// What it returns when it has passed.
    fn passed() -> Self;
}

impl Passed for () {
    fn passed() {}
}

impl<E> Passed for Result<(), E> {
    fn passed() -> Self {
        Ok(())
    }
}

impl Settings {
    /// A guest with the defaults of `vmtest run`, for the test of this path.
    pub fn new(name: &'static str) -> Settings {
        Settings {
            name,
            should_panic: false,
            arch: None,
            kernel: None,
            memory: None,
            cpus: None,
            timeout: None,
            cmdline: None,
            net: None,
        }
    }

    /// The test passes if it panics, as `#[should_panic]` says too.
    pub fn should_panic(self) -> Settings {
        Settings { should_panic: true, ..self }
    }

    /// The architecture that the test program has to be of.
    pub fn arch(self, name: &'static str) -> Settings {
        Settings { arch: Some(name), ..self }
    }

    /// As `--kernel`.
    pub fn kernel(self, file: &'static str) -> Settings {
        Settings { kernel: Some(file), ..self }
    }

    /// As `--memory`.
    pub fn memory(self, size: &'static str) -> Settings {
        Settings { memory: Some(size), ..self }
    }

    /// As `--cpus`.
    pub fn cpus(self, count: u32) -> Settings {
        Settings { cpus: Some(count), ..self }
    }

    /// As `--timeout`.
    pub fn timeout(self, limit: &'static str) -> Settings {
        Settings { timeout: Some(limit), ..self }
    }

    /// As `--append`.
    pub fn cmdline(self, parameters: &'static str) -> Settings {
        Settings { cmdline: Some(parameters), ..self }
    }

    /// As `--net`.
    pub fn net(self, network: &'static str) -> Settings {
        Settings { net: Some(network), ..self }
    }

    /// Runs the body: here, if this is a guest; else in one.
    ///
    /// # Panics
    /// When the test has not passed in the guest, with what it panicked with; when there can be no guest, with the
    /// reason and how to mend it.
    #[track_caller]
    pub fn run<T: Passed>(self, body: fn() -> T) -> T {
        if std::env::var_os(IN_GUEST).is_some_and(|value| value == "1") {
            return body();
        }
        let finished = match self.run_in_guest() {
            Ok(finished) => finished,
            Err(why) => panic!("`{}` cannot run in a guest: {why}", self.libtest_name()),
        };
        let (stdout, stderr) = (finished.stdout_text(), finished.stderr_text());
        // The test's own output, which libtest keeps.
        print!("{}", without_frame(&stdout));
        eprint!("{stderr}");
        match self.failure(&finished.record.outcome.verdict, &stdout, &stderr) {
            Some(text) => panic!("{text}"),
            None if self.should_panic => panic!("{stderr}"),
            None => T::passed(),
        }
    }

    /// The name by which libtest knows it: without the crate's.
    fn libtest_name(&self) -> &'static str {
        self.name.split_once("::").map_or(self.name, |(_, name)| name)
    }

    /// Why it has not passed, if it has not.
    fn failure(&self, verdict: &Verdict, stdout: &str, stderr: &str) -> Option<String> {
        let name = self.libtest_name();
        let count = |word: &str| {
            let summary = stdout.lines().rev().find(|line| line.starts_with("test result: "))?;
            let parts = summary.split([';', '.']).map(str::trim);
            parts.into_iter().find_map(|part| part.strip_suffix(word)?.trim().parse::<u32>().ok())
        };
        match (verdict, count("passed")) {
            (verdict, Some(1)) if verdict.passed() => None,
            (verdict, Some(0)) if verdict.passed() => {
                Some(format!("the test program in the guest has no test `{name}`"))
            }
            (verdict, None) if verdict.passed() => {
                Some(format!("the test program in the guest says nothing of `{name}`"))
            }
            (Verdict::Exited(_), _) => {
                let said = panic_text(stderr).or_else(|| error_text(stdout, stderr));
                let said = said.unwrap_or_else(|| verdict.to_string());
                Some(format!("`{name}` failed in the guest: {said}"))
            }
            (verdict, _) => Some(format!("`{name}`: {verdict}")),
        }
    }

    fn run_in_guest(&self) -> Result<Finished, String> {
        let environment =
            Environment::read().map_err(|error| format!("{error}\nhint: {}", error.hint()))?;
        let job = self.job(&environment)?;
        let Job {
            arch,
            argv,
            cwd,
            env,
            mirrors,
            program_shared,
            programs: _,
            library_dirs,
            sysroot,
        } = job;
        let mut command =
            Command::from_argv(argv).ok_or("it has no program")?.cwd(cwd).in_place(program_shared);
        for (name, value) in env {
            command = command.env(name, value);
        }
        let memory = self.memory.map(|text| parsed("memory", text, mib)).transpose()?;
        let timeout = self.timeout.map(|text| parsed("timeout", text, limit)).transpose()?;
        let net = self
            .net
            .map(|text| parsed("net", text, |text| UserNet::parse(text.as_ref())))
            .transpose()?;
        let configuration = (
            (self.kernel.map(with_kernel), memory.map(with_memory), self.cpus.map(with_cpus)),
            (timeout.map(with_vm_timeout), with_append_kernel(self.cmdline), net.map(with_network)),
            all(mirrors.into_iter().map(device)),
            all(library_dirs.into_iter().map(with_library_dir)),
            sysroot.map(with_sysroot),
        );
        blocking::run(arch, configuration, command).map_err(|error| explained(&error))
    }

    /// The test program with this test alone, as a hook would give it to a runner.
    fn job(&self, environment: &Environment) -> Result<Job, String> {
        let io = |error: std::io::Error| error.to_string();
        let arch =
            self.arch.map(|name| parsed("arch", name, |text| text.parse::<Arch>())).transpose()?;
        let program = std::env::current_exe().map_err(io)?;
        let args = [
            "--exact",
            self.libtest_name(),
            "--include-ignored",
            "--nocapture",
            "--test-threads=1",
        ];
        let argv: Vec<OsString> =
            std::iter::once(program.into()).chain(args.map(OsString::from)).collect();
        let env: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        let decided = runner::decide(&Request {
            argv: &argv,
            // Where nothing is said, the program is for its own architecture.
            arch: arch.or(Arch::host()),
            default_arch: environment.arch,
            host: Arch::host(),
            cwd: &std::env::current_dir().map_err(io)?,
            env: &env,
            projects: &[],
            write: &[],
            pass: &[],
        });
        match decided {
            Ok(Decision::Guest(job)) => Ok(*job),
            Ok(Decision::Host { why }) => Err(format!(
                "{why}\nhint: build the tests for it and have them run by `vmtest runner`: \
                 CARGO_TARGET_<TRIPLE>_RUNNER=\"vmtest runner --\" cargo test --target <TRIPLE> (docs/testing.md); \
                 there the body of this test runs in the runner's guest"
            )),
            Err(error) => {
                let hint = error.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
                Err(format!("{}{hint}", crate::causes::chain(&error)))
            }
        }
    }
}

fn parsed<T, E: std::fmt::Display>(
    name: &str,
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, String> {
    parse(text).map_err(|error| format!("`{name} = {text:?}`: {error}"))
}

fn mib(text: &str) -> Result<u64, crate::size::Error> {
    Mib::try_from(text.parse::<Bytes>()?).map(Mib::get)
}

fn limit(text: &str) -> Result<Duration, duration::Error> {
    duration::parse_limit(text)
}

/// A test's output without what libtest puts around it.
fn without_frame(stdout: &str) -> String {
    let is_frame = |line: &str| {
        let words = ["running ", "test result: ", "failures:", "    "];
        words.iter().any(|word| line.starts_with(word)) || line.is_empty()
    };
    let ends = |line: &str| {
        line.starts_with("test ") && (line.ends_with(" ok") || line.ends_with(" FAILED"))
    };
    let lines: Vec<&str> = stdout.lines().filter(|line| !is_frame(line) && !ends(line)).collect();
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Where and why it panicked: the line that says so, without the thread's name, and those that follow it.
fn panic_text(stderr: &str) -> Option<String> {
    let (_, rest) = stderr.split_once(" panicked at ")?;
    let end =
        rest.find("\nnote: ").or_else(|| rest.find("\nstack backtrace:")).unwrap_or(rest.len());
    Some(format!("panicked at {}", rest[..end].trim_end()))
}

/// The error that it returned, as libtest says it.
fn error_text(stdout: &str, stderr: &str) -> Option<String> {
    let mut lines = stderr.lines().chain(stdout.lines());
    lines.find(|line| line.starts_with("Error: ")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use vmtest_guest::proto::ExitStatus;

    use super::*;

    const OK: &str = "\nrunning 1 test\nmine\ntest a::b ... ok\n\ntest result: ok. 1 passed; 0 failed; 0 ignored; \
        0 measured; 3 filtered out; finished in 0.00s\n\n";

    fn failure(code: u8, stdout: &str, stderr: &str) -> Option<String> {
        let verdict = Verdict::Exited(ExitStatus::Code(code));
        Settings::new("krate::a::b").failure(&verdict, stdout, stderr)
    }

    #[test]
    fn a_test_passes_only_if_the_guest_says_that_it_did() {
        assert_eq!(failure(0, OK, ""), None);
        let none = OK.replace("1 passed", "0 passed");
        assert!(failure(0, &none, "").unwrap().contains("has no test `a::b`"));
        assert!(failure(0, "", "").unwrap().contains("says nothing"));
        assert!(failure(3, "", "").unwrap().contains("failed with status 3"));
        let lost = Verdict::GuestLost { reason: "it was reset".into() };
        let text = Settings::new("krate::a::b").failure(&lost, OK, "").unwrap();
        assert_eq!(text, "`a::b`: lost the guest: it was reset");
    }

    #[test]
    fn what_it_panicked_with_is_its_own_message() {
        let stderr = "mine\nthread 'a::b' (12) panicked at src/x.rs:3:5:\nassertion failed\n  left: 1\nnote: run with \
            `RUST_BACKTRACE=1`\n";
        let text = failure(101, "", stderr).unwrap();
        assert_eq!(
            text,
            "`a::b` failed in the guest: panicked at src/x.rs:3:5:\nassertion failed\n  left: 1"
        );
        assert!(failure(101, "Error: \"broken\"\n", "").unwrap().ends_with("Error: \"broken\""));
        assert_eq!(without_frame(OK), "mine\n");
    }
}
