//! QEMU as a child process: started with its inherited descriptors, never left behind.
//!
//! * It has a process group of its own, so that Ctrl-C at the terminal reaches only us.
//! * The kernel kills it when we die, also of SIGKILL. Linux ties that to the *thread* that forked,
//!   so all children are forked by one thread that never ends.
//! * Dropping a [`Process`] kills and reaps.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::sys;

/// How much of QEMU's output is kept, in bytes; the last of it.
const OUTPUT_KEPT_BYTES: usize = 64 << 10;

/// How long a killed child is waited for.
const KILL_LIMIT: Duration = Duration::from_secs(2);

/// A running child.
#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    exit: watch::Receiver<Option<ExitStatus>>,
    output: Output,
}

/// What the child wrote to its stdout and stderr: the last [`OUTPUT_KEPT_BYTES`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Output(Arc<Mutex<Vec<u8>>>);

impl Output {
    /// The text, as well as it can be read.
    pub(crate) fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).trim_end().to_owned()
    }

    fn push(&self, more: &[u8]) {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.extend_from_slice(more);
        let excess = bytes.len().saturating_sub(OUTPUT_KEPT_BYTES);
        bytes.drain(..excess);
    }
}

impl Process {
    /// Starts `command`. `fds` are its descriptors from `first_fd` on.
    pub(crate) fn spawn(
        mut command: Command,
        first_fd: i32,
        fds: Vec<OwnedFd>,
    ) -> io::Result<Process> {
        let mappings = fds
            .into_iter()
            .zip(first_fd..)
            .map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd })
            .collect();
        command.fd_mappings(mappings).map_err(io::Error::other)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0);
        sys::child::die_with_parent(&mut command);

        let mut child = spawn_from_lasting_thread(command)?;
        let pid = child
            .id()
            .and_then(|id| Pid::from_raw(id as i32))
            .ok_or_else(|| io::Error::other("the child has no process id"))?;
        let output = Output::default();
        let readers = [
            tokio::spawn(keep(child.stdout.take(), output.clone())),
            tokio::spawn(keep(child.stderr.take(), output.clone())),
        ];
        let (sender, exit) = watch::channel(None);
        tokio::spawn(async move {
            let status = child.wait().await.unwrap_or_else(|_| ExitStatus::from_raw(0x7f00));
            // What it said last matters most. A grandchild may hold the pipes open: not for long.
            for reader in readers {
                let _ = tokio::time::timeout(Duration::from_millis(200), reader).await;
            }
            sender.send_replace(Some(status));
        });
        Ok(Process { pid, exit, output })
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    pub(crate) fn output(&self) -> &Output {
        &self.output
    }

    /// The status, if the child has ended.
    pub(crate) fn try_exit(&self) -> Option<ExitStatus> {
        *self.exit.borrow()
    }

    /// A handle for waiting from elsewhere.
    pub(crate) fn exit_watch(&self) -> watch::Receiver<Option<ExitStatus>> {
        self.exit.clone()
    }

    /// Sends a signal to the child. An ended child is no error.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        if self.try_exit().is_some() {
            return Ok(());
        }
        match kill_process(self.pid, signal) {
            Err(rustix::io::Errno::SRCH) => Ok(()),
            other => other.map_err(Into::into),
        }
    }

    /// Kills the child and whatever it started, at once.
    pub(crate) fn kill(&self) {
        self.killer().kill();
    }

    /// Kills the child from elsewhere.
    pub(crate) fn killer(&self) -> Killer {
        Killer { pid: self.pid, exit: self.exit.clone() }
    }
}

/// Can end a child and wait for its end, nothing else.
#[derive(Clone, Debug)]
pub(crate) struct Killer {
    pid: Pid,
    exit: watch::Receiver<Option<ExitStatus>>,
}

impl Killer {
    /// Kills the child and whatever it started, at once, unless it has ended.
    pub(crate) fn kill(&self) {
        if self.exit.borrow().is_none() {
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
    }

    /// Completes when the child has ended.
    pub(crate) async fn ended(&self) {
        let _ = self.exit.clone().wait_for(Option::is_some).await;
    }

    /// Whether the child ends within `limit`.
    pub(crate) async fn ended_within(&self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.ended()).await.is_ok()
    }

    /// Ends the child: SIGTERM, `grace`, SIGKILL. Waits for its end, but not for one that not even
    /// SIGKILL ends (stuck in the kernel).
    pub(crate) async fn terminate(&self, grace: Duration) {
        if self.exit.borrow().is_none() {
            let _ = kill_process(self.pid, Signal::TERM);
        }
        if !self.ended_within(grace).await {
            self.kill();
            self.ended_within(KILL_LIMIT).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Reaped by the waiting task, or by init if this process ends before.
        self.kill();
    }
}

async fn keep(stream: Option<impl tokio::io::AsyncRead + Unpin>, output: Output) {
    let Some(mut stream) = stream else { return };
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
        output.push(&buffer[..n]);
    }
}

/// Forks from a thread that lives as long as the process, see [`sys::child::die_with_parent`].
fn spawn_from_lasting_thread(command: Command) -> io::Result<Child> {
    type Job = (Command, tokio::runtime::Handle, Sender<io::Result<Child>>);
    static FORKER: OnceLock<Mutex<Sender<Job>>> = OnceLock::new();

    let forker = FORKER.get_or_init(|| {
        let (sender, jobs) = channel::<Job>();
        let run = move || {
            for (mut command, runtime, reply) in jobs {
                let _guard = runtime.enter();
                let _ = reply.send(command.spawn());
            }
        };
        std::thread::Builder::new()
            .name("vmtest-forker".into())
            .spawn(run)
            .expect("a process that cannot start one thread cannot start QEMU either");
        Mutex::new(sender)
    });
    let (reply, answer) = channel();
    let gone = |_| io::Error::other("the forking thread has ended");
    forker
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, tokio::runtime::Handle::current(), reply))
        .map_err(|_| io::Error::other("the forking thread has ended"))?;
    answer.recv().map_err(gone)?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    async fn ended(process: &Process) -> ExitStatus {
        let mut exit = process.exit_watch();
        let wait = exit.wait_for(Option::is_some);
        let status = tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap().unwrap();
        status.unwrap()
    }

    #[tokio::test]
    async fn status_and_output_come_back_also_from_a_thread_that_is_gone() {
        let runtime = tokio::runtime::Handle::current();
        let spawned = std::thread::spawn(move || {
            let _guard = runtime.enter();
            Process::spawn(sh("sleep 0.2; echo out; echo err >&2; exit 7"), 3, Vec::new())
        });
        let process = spawned.join().unwrap().unwrap();
        assert_eq!(ended(&process).await.code(), Some(7));
        let mut lines: Vec<String> = process.output().text().lines().map(str::to_owned).collect();
        lines.sort();
        assert_eq!(lines, ["err", "out"]);
    }

    #[tokio::test]
    async fn descriptors_arrive_where_they_should() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let process = Process::spawn(sh("echo hello >&5"), 5, vec![theirs.into()]).unwrap();
        assert!(ended(&process).await.success());
        let mut text = String::new();
        std::io::Read::read_to_string(&mut &ours, &mut text).unwrap();
        assert_eq!(text, "hello\n");
    }

    #[tokio::test]
    async fn one_that_ignores_sigterm_is_killed() {
        let process =
            Process::spawn(sh("trap '' TERM; echo on; while :; do sleep 0.1; done"), 3, Vec::new())
                .unwrap();
        while process.output().text().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        process.killer().terminate(Duration::from_millis(100)).await;
        let status = process.try_exit().unwrap();
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()));
    }

    #[tokio::test]
    async fn a_missing_program_is_an_error() {
        let error = Process::spawn(Command::new("/no/such/qemu"), 3, Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
