//! The user's terminal: raw while a guest's program has it, restored whatever happens.

use std::io::{self, Read, stdin, stdout};

use rustix::process::getpgrp;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use vmtest::vm::CommandHandle;
use vmtest_guest::proto::WindowSize;

/// Prefix of commands to vmtest itself, as in QEMU and minicom.
const ESCAPE: u8 = 0x01; // Ctrl-A

/// While it lives, the terminal passes every key on. Its drop restores the terminal, also when a panic
/// unwinds.
pub(crate) struct Raw(Option<Termios>);

impl Raw {
    /// Switches to raw mode if `wanted` and stdin is a terminal.
    pub(crate) fn new(wanted: bool) -> Raw {
        let saved = wanted.then(|| tcgetattr(stdin()).ok()).flatten();
        if let Some(saved) = &saved {
            let mut raw = saved.clone();
            raw.make_raw();
            let _ = tcsetattr(stdin(), OptionalActions::Drain, &raw);
        }
        Raw(saved)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // From the background the kernel would stop us; the user's shell has its own settings by then.
        if let Some(saved) = self.0.as_ref().filter(|_| in_foreground()) {
            let _ = tcsetattr(stdin(), OptionalActions::Drain, saved);
        }
    }
}

/// Whether the terminal, if stdin is one, is ours to use: a program in the background is stopped by the
/// kernel when it changes it. One that is not ours to control has no foreground.
pub(crate) fn in_foreground() -> bool {
    tcgetpgrp(stdin()).map_or(true, |group| group == getpgrp())
}

/// The terminal's size; 80 by 24 where it does not say.
pub(crate) fn size() -> WindowSize {
    match tcgetwinsize(stdout()).or_else(|_| tcgetwinsize(stdin())) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => {
            WindowSize { rows: size.ws_row, cols: size.ws_col }
        }
        _ => WindowSize { rows: 24, cols: 80 },
    }
}

/// Tells the command's terminal of each new size.
pub(crate) fn follow_size(command: CommandHandle) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
    tokio::spawn(async move {
        while changes.recv().await.is_some() {
            command.resize(size());
        }
    });
}

/// Keys for the guest, except `Ctrl-A x`, which asks us to end: the way out of a guest that hangs.
/// `Ctrl-A a` types a Ctrl-A.
pub(crate) struct Keys {
    escaped: bool,
    quit: mpsc::UnboundedSender<()>,
}

impl Keys {
    pub(crate) fn new(quit: mpsc::UnboundedSender<()>) -> Keys {
        Keys { escaped: false, quit }
    }

    /// Takes the commands out. False when the user wants to end.
    fn filter(&mut self, typed: &[u8], passed: &mut Vec<u8>) -> bool {
        for &key in typed {
            match (self.escaped, key) {
                (false, ESCAPE) => self.escaped = true,
                (true, b'x' | b'X') => return false,
                (true, b'a') => {
                    self.escaped = false;
                    passed.push(ESCAPE);
                }
                (true, other) => {
                    self.escaped = false;
                    passed.extend([ESCAPE, other]);
                }
                (false, other) => passed.push(other),
            }
        }
        true
    }
}

impl Read for Keys {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut passed = Vec::new();
        // One key can become two bytes.
        let mut typed = vec![0; (buffer.len() / 2).max(1)];
        while passed.is_empty() {
            let n = stdin().read(&mut typed)?;
            if n == 0 {
                return Ok(0);
            }
            if !self.filter(&typed[..n], &mut passed) {
                let _ = self.quit.send(());
                return Ok(0);
            }
        }
        buffer[..passed.len()].copy_from_slice(&passed);
        Ok(passed.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_taken_out_of_the_keys() {
        let (quit, _) = mpsc::unbounded_channel();
        let mut keys = Keys::new(quit);
        let mut passed = Vec::new();
        assert!(keys.filter(b"a\x01", &mut passed) && keys.filter(b"ab\x01c", &mut passed));
        assert_eq!(passed, b"a\x01b\x01c");
        assert!(!keys.filter(b"\x01x", &mut passed));
    }
}
