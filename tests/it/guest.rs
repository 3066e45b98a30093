//! A guest as a value: many commands in one boot, on all five architectures.

use std::io::Cursor;
use std::time::Duration;

use vmtest::arch::Arch;
use vmtest::blocking::{self, Guest};
use vmtest::configure::Config;
use vmtest::proto::{Bytes, Exec, ExitStatus};
use vmtest::session::Command;
use vmtest::vm::{GuestError, Streams};

use crate::support::assets;

fn sh(script: &str) -> Exec {
    let argv = ["sh", "-c", script].map(Bytes::from).to_vec();
    Exec { argv, ..Exec::default() }
}

fn boot(arch: Arch) -> Guest {
    assets(arch);
    blocking::boot(arch, ()).unwrap()
}

/// One after the other, each with its own status and output; a missing one between them.
fn twenty_commands(guest: &Guest) {
    for n in 0..20u8 {
        let script = format!("echo out {n}; echo err {n} >&2; exit {n}");
        let output = guest.output(sh(&script)).unwrap();
        assert_eq!(output.status, ExitStatus::Code(n));
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("out {n}\n"));
        assert_eq!(String::from_utf8_lossy(&output.stderr), format!("err {n}\n"));
    }
    let missing = Exec { argv: vec![Bytes::from("no-such-program")], ..Exec::default() };
    let error = guest.output(missing).unwrap_err();
    assert!(matches!(error, GuestError::Refused { errno: Some(2), .. }), "{error}");
    assert_eq!(guest.output(sh("kill -9 $$")).unwrap().status, ExitStatus::Signal(9));
}

/// Beside each other, with stdin: each gets its own bytes back, and one that waits stops nobody.
fn commands_beside_each_other(guest: &Guest) {
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| guest.output(sh("sleep 3; echo slow")).unwrap());
        let echoes: Vec<_> = (0..4u8)
            .map(|n| {
                scope.spawn(move || {
                    let typed = vec![n; 200_000];
                    let (sender, received) = std::sync::mpsc::channel();
                    let streams = Streams {
                        stdin: Some(Box::new(Cursor::new(typed.clone()))),
                        stdout: Box::new(Sender(sender)),
                        stderr: Box::new(std::io::sink()),
                    };
                    let exited = guest.exec(sh("cat; exit 5"), streams).unwrap();
                    assert_eq!(exited.status, ExitStatus::Code(5));
                    assert_eq!(exited.output_bytes, (200_000, 0));
                    let got: Vec<u8> = received.into_iter().flatten().collect();
                    assert!(got == typed, "the bytes of another command");
                })
            })
            .collect();
        echoes.into_iter().for_each(|echo| echo.join().unwrap());
        assert!(!slow.is_finished(), "all commands waited for the slow one");
        assert_eq!(slow.join().unwrap().stdout, b"slow\n");
    });
}

struct Sender(std::sync::mpsc::Sender<Vec<u8>>);

impl std::io::Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _ = self.0.send(bytes.to_vec());
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn many_commands_in_one_boot(arch: Arch) {
    let guest = boot(arch);
    assert_eq!(guest.hello().protocol, vmtest::proto::VERSION);
    twenty_commands(&guest);
    commands_beside_each_other(&guest);
    let stacks = guest.stacks(Duration::from_secs(60)).unwrap();
    let stacks = String::from_utf8_lossy(&stacks);
    assert!(stacks.contains("sysrq: Show State") || stacks.contains("task:"), "{stacks}");
    assert_eq!(guest.output(sh("echo still here")).unwrap().stdout, b"still here\n");
    assert_eq!(guest.shutdown(), Vec::<String>::new());
}

macro_rules! on_each_arch {
    ($($module:ident: $arch:expr;)*) => {$(
        #[test]
        fn $module() {
            many_commands_in_one_boot($arch);
        }
    )*};
}

on_each_arch! {
    many_commands_in_one_boot_amd64: Arch::Amd64;
    many_commands_in_one_boot_i386: Arch::I386;
    many_commands_in_one_boot_arm64: Arch::Arm64;
    many_commands_in_one_boot_arm: Arch::Arm;
    many_commands_in_one_boot_riscv64: Arch::Riscv64;
}

#[test]
fn files_are_put_into_a_guest_that_runs() {
    let guest = boot(Arch::Amd64);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("data"), "from the host\n").unwrap();
    let mut spec = vmtest::initramfs::ImageSpec::new(Arch::Amd64);
    spec.tree(dir.path(), Some("/opt/here"));
    let mut archive = Vec::new();
    spec.finish().unwrap().write_to(&mut archive).unwrap();
    guest.put_files(Cursor::new(archive)).unwrap();
    assert_eq!(guest.output(sh("cat /opt/here/data")).unwrap().stdout, b"from the host\n");
    let error = guest.put_files(Cursor::new(b"no archive".repeat(30))).unwrap_err();
    assert!(error.to_string().contains("newc"), "{error}");
    assert_eq!(guest.output(sh("echo works")).unwrap().stdout, b"works\n");
}

#[test]
fn a_guest_that_is_gone_is_an_error_for_whoever_waits() {
    let guest = boot(Arch::Amd64);
    let error = guest.output(sh("echo o >/proc/sysrq-trigger; sleep 100")).unwrap_err();
    assert_eq!(error, GuestError::Gone);
    assert_eq!(guest.output(sh("true")).unwrap_err(), GuestError::Gone);
}

#[test]
fn stdin_that_nobody_gives_is_at_its_end() {
    assets(Arch::Amd64);
    let command = Command::new("cat").stdin(true);
    let configure = |config: &mut Config| {
        config.options.timeout = Some(Duration::from_secs(120));
        Ok(())
    };
    let finished = blocking::run(Arch::Amd64, configure, command).unwrap();
    finished.passed().unwrap();
}
