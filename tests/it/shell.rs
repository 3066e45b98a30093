//! `vmtest shell` on a pseudo-terminal, as a person has it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use vmtest::arch::Arch;

use crate::support::{DEADLINE, assets, vmtest};

/// A terminal, its user's side.
struct Terminal {
    keyboard: File,
    screen: mpsc::Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    fn new() -> (Terminal, File) {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = std::ffi::OsString::from_vec(ptsname(&master, Vec::new()).unwrap().into_bytes());
        let slave = OpenOptions::new().read(true).write(true).open(path).unwrap();
        tcsetwinsize(&slave, Winsize { ws_row: 33, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 })
            .unwrap();
        let keyboard = File::from(master);
        let mut screen = keyboard.try_clone().unwrap();
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = screen.read(&mut buffer) {
                if sender.send(buffer[..n].to_vec()).is_err() {
                    break;
                }
            }
        });
        (Terminal { keyboard, screen: receiver, seen: String::new() }, slave)
    }

    fn types(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    #[track_caller]
    fn sees(&mut self, text: &str) {
        let deadline = Instant::now() + DEADLINE;
        while !self.seen.contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => panic!("`{text}` did not appear in:\n{}", self.seen),
            }
        }
        let end = self.seen.find(text).unwrap() + text.len();
        self.seen.drain(..end);
    }
}

#[test]
fn a_shell_has_a_terminal_and_gives_ours_back() {
    assets(Arch::Riscv64);
    let (mut terminal, slave) = Terminal::new();
    let before = tcgetattr(&slave).unwrap();
    assert!(before.local_modes.contains(LocalModes::ECHO));
    let mut child = Command::new(env!("CARGO_BIN_EXE_vmtest"))
        .args(["shell", "--arch=riscv64"])
        .stdin(slave.try_clone().unwrap())
        .stdout(slave.try_clone().unwrap())
        .stderr(slave.try_clone().unwrap())
        .spawn()
        .unwrap();
    terminal.sees("/ # ");
    assert!(
        !tcgetattr(&slave).unwrap().local_modes.contains(LocalModes::ECHO),
        "raw while it runs"
    );
    // What is typed is echoed too, so the answers are spelled differently.
    terminal.types("stty size; tty\r");
    terminal.sees("33 77");
    terminal.sees("/dev/pts/0");
    terminal.types("sleep 1000; echo no\"t\" reached\r");
    std::thread::sleep(Duration::from_millis(500));
    terminal.types("\x03"); // Ctrl-C goes to the guest
    terminal.types("echo sti\"ll\" here\r");
    terminal.sees("still here");
    terminal.types("exit 3\r");
    let deadline = Instant::now() + DEADLINE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "`exit` did not end the shell");
        std::thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(status.code(), Some(3));
    let after = tcgetattr(&slave).unwrap();
    assert_eq!(after.local_modes, before.local_modes, "the terminal is as it was");
    assert_eq!(after.input_modes, before.input_modes);
}

#[test]
fn ctrl_a_x_ends_a_guest_that_hangs() {
    assets(Arch::Riscv64);
    let (mut terminal, slave) = Terminal::new();
    let before = tcgetattr(&slave).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_vmtest"))
        .args([
            "shell",
            "--arch=riscv64",
            "--",
            "sh",
            "-c",
            "trap '' INT; echo hang\"s\"; sleep 1000",
        ])
        .stdin(slave.try_clone().unwrap())
        .stdout(slave.try_clone().unwrap())
        .stderr(slave.try_clone().unwrap())
        .spawn()
        .unwrap();
    terminal.sees("hangs");
    terminal.types("\x01x");
    terminal.sees("interrupted by Ctrl-A x");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(tcgetattr(&slave).unwrap().local_modes, before.local_modes);
}

/// Without a terminal here there is none in the guest, and the end of stdin is the end.
#[test]
fn a_shell_that_reads_from_a_pipe_ends_with_it() {
    assets(Arch::Amd64);
    vmtest(["shell", "--arch=amd64"]).run().code(0).stdout("");
    let done =
        vmtest(["shell", "--arch=amd64"]).stdin("echo hi; tty; echo err >&2; exit 4\n").run();
    done.code(4).stdout("hi\nnot a tty\n").says("err\n");
}

/// In the background a terminal cannot be had, and the kernel stops whoever tries.
#[test]
fn a_shell_in_the_background_is_refused_before_the_boot() {
    assets(Arch::Amd64);
    let (mut terminal, slave) = Terminal::new();
    let script =
        format!("set -m; {} shell & wait $!; echo co\"d\"e $?\n", env!("CARGO_BIN_EXE_vmtest"));
    let mut child = Command::new("setsid")
        .args(["--ctty", "bash", "-c", &script])
        .stdin(slave.try_clone().unwrap())
        .stdout(slave.try_clone().unwrap())
        .stderr(slave)
        .spawn()
        .unwrap();
    terminal.sees("vmtest runs in the background");
    terminal.sees("code 69");
    assert!(child.wait().unwrap().success());
}
