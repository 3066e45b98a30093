//! The one place that needs `unsafe`: what a child must do between `fork` and `exec`, and system calls
//! that no crate of ours wraps.
#![expect(
    unsafe_code,
    reason = "`setsid` and TIOCSCTTY only work in the child, std has no plain `execve` and no `posix_spawn`, \
              and rustix has no `signalfd`, no `RNDADDENTROPY`"
)]

use rustix::process::Pid;
use std::ffi::{CStr, CString, OsStr, c_char};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Whether the command's stdin becomes the terminal that controls its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Controlling {
    /// No terminal controls the session.
    None,
    /// Stdin does; it is an error when it cannot.
    Stdin,
    /// Stdin does where it can: a console need not be a terminal.
    StdinIfPossible,
}

/// Makes `command` run as leader of a session, and so of a process group, of its own: a signal to
/// the group reaches all of the command and nobody else.
///
/// And executes exactly the file it names: glibc's `execvp`, which `Command` uses, hands what the
/// kernel does not know to `/bin/sh`, so that a program of another architecture would end in a
/// shell's complaint about its syntax instead of an error. So everything that decides what is
/// executed (program, arguments, environment) must be set before this is called; `arg0` is the name
/// the program is told.
///
/// # Errors
/// `InvalidInput` for a NUL byte in any of them.
pub(crate) fn in_own_session(
    command: &mut Command,
    arg0: &OsStr,
    controlling: Controlling,
) -> io::Result<()> {
    let image = Image::of(command, arg0)?;
    let in_child = move || {
        no_signal_blocked()?;
        rustix::process::setsid()?;
        if controlling != Controlling::None {
            match rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()) {
                Err(_) if controlling == Controlling::StdinIfPossible => {}
                result => result?,
            }
        }
        Err(image.execute())
    };
    // SAFETY: the closure runs in the child of a fork in a process with several threads, where only
    // async-signal-safe things are allowed. It makes four system calls; it neither allocates nor
    // takes a lock, and its error is made from an errno, which does not allocate either.
    unsafe { command.pre_exec(in_child) };
    Ok(())
}

/// Unblocks all signals: std has a child inherit the mask of its parent, and this process waits for SIGCHLD
/// by a descriptor ([`child_signals`]), which blocks it. A shell would wait for its children forever.
fn no_signal_blocked() -> io::Result<()> {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initialises the set that the other call takes; both are async-signal-safe.
    let failed = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut())
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What execve(2) takes, ready to be used without allocating.
struct Image {
    program: CString,
    /// Pointers into `_words`, with a null at the end.
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    _words: Vec<CString>,
}

// SAFETY: the pointers lead to buffers that this value owns, that stay where they are when it moves,
// and that nobody changes.
unsafe impl Send for Image {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Image {}

impl Image {
    fn of(command: &Command, arg0: &OsStr) -> io::Result<Image> {
        let program = CString::new(command.get_program().as_bytes())?;
        let mut words = Vec::new();
        let mut pointer = |bytes: Vec<u8>| -> io::Result<*const c_char> {
            let word = CString::new(bytes)?;
            let pointer = word.as_ptr();
            words.push(word);
            Ok(pointer)
        };
        let arguments = std::iter::once(arg0).chain(command.get_args());
        let mut argv = arguments
            .map(|word| pointer(word.as_bytes().to_vec()))
            .collect::<Result<Vec<_>, _>>()?;
        let variables = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
        let mut envp = variables
            .map(|(name, value)| pointer([name.as_bytes(), b"=", value.as_bytes()].concat()))
            .collect::<Result<Vec<_>, _>>()?;
        argv.push(std::ptr::null());
        envp.push(std::ptr::null());
        Ok(Image { program, argv, envp, _words: words })
    }

    /// Returns only when it failed.
    fn execute(&self) -> io::Error {
        // SAFETY: all three are null-terminated, and what they point to lives as long as `self`.
        unsafe { libc::execve(self.program.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr()) };
        io::Error::last_os_error()
    }
}

/// Starts `command` as leader of a session of its own, without a terminal, as [`in_own_session`] would:
/// exactly the file it names, with no signal blocked. Its streams are these, and nobody else's stay open.
///
/// `posix_spawn` and not a fork: the child borrows the parent's memory until it executes, so that the
/// kernel copies no page tables, and no page is copied because both write to it. In an emulated guest
/// that was just resumed this is a tenth of what the first command costs.
///
/// # Errors
/// Why it cannot be executed; `InvalidInput` for a NUL byte in any of its words.
pub(crate) fn spawn(
    command: &Command,
    arg0: &OsStr,
    streams: [BorrowedFd<'_>; 3],
) -> io::Result<Pid> {
    let image = Image::of(command, arg0)?;
    let cwd = command.get_current_dir().map(|dir| CString::new(dir.as_os_str().as_bytes()));
    let cwd = cwd.transpose()?;
    let mut actions = Actions::new()?;
    for (fd, stream) in (0..).zip(streams) {
        // Ours are never among the first three: those are open all the time.
        actions.duplicate(stream, fd)?;
    }
    if let Some(cwd) = &cwd {
        actions.change_directory(cwd)?;
    }
    let attributes = Attributes::of_a_session()?;
    let mut pid = 0;
    // SAFETY: actions and attributes are initialised; the words are null-terminated, and all of them live
    // until the call returns, which is after the child has executed or failed.
    let failed = unsafe {
        libc::posix_spawn(
            &raw mut pid,
            image.program.as_ptr(),
            actions.0.as_ptr(),
            attributes.0.as_ptr(),
            image.argv.as_ptr().cast(),
            image.envp.as_ptr().cast(),
        )
    };
    succeeded(failed)?;
    Pid::from_raw(pid).ok_or_else(|| io::Error::from(io::ErrorKind::Other))
}

/// Functions of `posix_spawn` return their error.
fn succeeded(errno: libc::c_int) -> io::Result<()> {
    if errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(errno)) }
}

/// What the child does before it executes.
struct Actions(Box<MaybeUninit<libc::posix_spawn_file_actions_t>>);

impl Actions {
    fn new() -> io::Result<Actions> {
        let mut actions = Box::new(MaybeUninit::uninit());
        // SAFETY: it initialises what the pointer leads to.
        succeeded(unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) })?;
        Ok(Actions(actions))
    }

    fn duplicate(&mut self, from: BorrowedFd<'_>, to: i32) -> io::Result<()> {
        // SAFETY: initialised by `new`; a descriptor that is not open makes the spawn fail, no more.
        succeeded(unsafe {
            libc::posix_spawn_file_actions_adddup2(self.0.as_mut_ptr(), from.as_raw_fd(), to)
        })
    }

    fn change_directory(&mut self, dir: &CStr) -> io::Result<()> {
        // SAFETY: initialised by `new`; the path is copied.
        succeeded(unsafe {
            libc::posix_spawn_file_actions_addchdir_np(self.0.as_mut_ptr(), dir.as_ptr())
        })
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: initialised by `new`, and destroyed once.
        unsafe { libc::posix_spawn_file_actions_destroy(self.0.as_mut_ptr()) };
    }
}

/// What the child is.
struct Attributes(Box<MaybeUninit<libc::posix_spawnattr_t>>);

impl Attributes {
    /// The leader of a new session that has no signal blocked, and SIGPIPE, which this process ignores as
    /// all of Rust's do, as the kernel has it.
    fn of_a_session() -> io::Result<Attributes> {
        let mut attributes = Attributes(Box::new(MaybeUninit::uninit()));
        // SAFETY: it initialises what the pointer leads to. glibc and musl keep nothing in it that would have
        // to be given back.
        succeeded(unsafe { libc::posix_spawnattr_init(attributes.0.as_mut_ptr()) })?;
        let flags = i32::from(libc::POSIX_SPAWN_SETSID)
            | libc::POSIX_SPAWN_SETSIGMASK
            | libc::POSIX_SPAWN_SETSIGDEF;
        let (mut none, mut pipe) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: the attributes are initialised above; the sets are by the calls that come first.
        unsafe {
            libc::sigemptyset(none.as_mut_ptr());
            libc::sigemptyset(pipe.as_mut_ptr());
            libc::sigaddset(pipe.as_mut_ptr(), libc::SIGPIPE);
            let at = attributes.0.as_mut_ptr();
            succeeded(libc::posix_spawnattr_setsigmask(at, none.as_ptr()))?;
            succeeded(libc::posix_spawnattr_setsigdefault(at, pipe.as_ptr()))?;
            succeeded(libc::posix_spawnattr_setflags(at, flags as _))?;
        }
        Ok(attributes)
    }
}

/// A descriptor that can be read once a child has ended. SIGCHLD is blocked in this thread and those
/// that it starts from now on; [`in_own_session`] unblocks it again.
pub(crate) fn child_signals() -> io::Result<OwnedFd> {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initialises the set that the other calls take; none of them keeps it.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD);
        let failed = libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
        if failed != 0 {
            return Err(io::Error::from_raw_os_error(failed));
        }
    }
    // SAFETY: the set is initialised above; a new descriptor is nobody else's.
    let fd = unsafe { libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `struct rand_pool_info` of `linux/random.h`, with room for 64 bytes.
#[repr(C)]
struct RandPoolInfo {
    entropy_count: libc::c_int,
    buf_size: libc::c_int,
    buf: [u8; 64],
}

/// `_IOW('R', 0x03, int[2])`, the same on all architectures of ours.
const RNDADDENTROPY: u32 = 0x4008_5203;
/// `_IO('R', 0x07)`.
const RNDRESEEDCRNG: u32 = 0x5207;

/// Mixes `seed` into the kernel's random numbers, credits it in full, and has all that the kernel draws
/// from now on depend on it. `random` is `/dev/random` or `/dev/urandom`.
///
/// # Errors
/// The system's; `InvalidInput` for more than 64 bytes.
pub(crate) fn reseed(random: BorrowedFd<'_>, seed: &[u8]) -> io::Result<()> {
    let mut info = RandPoolInfo {
        entropy_count: 8 * seed.len() as i32,
        buf_size: seed.len() as i32,
        buf: [0; 64],
    };
    info.buf.get_mut(..seed.len()).ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(seed);
    // SAFETY: the structure is laid out as the kernel reads it, and lives as long as the call.
    let added = unsafe { libc::ioctl(random.as_raw_fd(), RNDADDENTROPY as _, &raw const info) };
    if added < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: takes no argument.
    if unsafe { libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG as _) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
