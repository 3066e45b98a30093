//! The protocol between host and guest.
//!
//! One virtio-serial port, [`CONTROL_PORT`], carries [frames](frame) both ways: messages (JSON), and
//! the streams of the commands that run. Everything is in one order, so what was sent before a message
//! has arrived when the message does: a command's output is complete when [`Message::Exited`] is there.
//!
//! ```text
//!   guest                                   host
//!     | -- Hello ----------------------------> |   (the guest is ready)
//!     | <--------------------------- Resumed --|   (only to a guest that was saved and lives again)
//!     | <------------- Mount id, Network id -- |   (any number)
//!     | -- Done id, Done id -----------------> |
//!     | <-------------- Files id, its archive -|
//!     | -- Done id --------------------------> |
//!     | <---------------------------- Exec id -|
//!     | -- Done id (pid) --------------------> |   (it runs)
//!     | <- Signal id, Resize id, stdin of id -- |   (or another Exec: several run beside each other)
//!     | -- stdout, stderr of id -------------> |
//!     | -- Exited id ------------------------> |   (or an Exec after it)
//!     | <---------------------------- Shutdown |
//!     | -- Bye ------------------------------> |   (all is on disk; the host may stop QEMU)
//! ```
//!
//! Every request with an `id` is answered by exactly one [`Message::Done`] or [`Message::Failed`] with
//! that id. Ids are the host's, from 1 on, each used once. The streams of a command carry the id of
//! its Exec.
//!
//! Whoever sends on a stream may have [`frame::WINDOW_BYTES`] on their way: the receiver gives room
//! back ([`frame::Kind::Credit`]) as it passes bytes on. So neither side ever has to stop reading the
//! port, and one command whose output nobody reads stops only itself. The host sends the end of stdin
//! ([`frame::Kind::End`]) once; a guest drops what comes for a command that has ended.
//!
//! Event channels are ports of their own, from the guest only, with JSON lines ([`event`]); so is
//! [`COVERAGE_PORT`].
//!
//! A frame that is malformed or too long is an error of whoever sent it and ends the conversation.

pub mod frame;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::net::IpAddr;

/// Version of the protocol. The host refuses a guest that says another one.
pub const VERSION: u32 = 2;

/// The longest message, in bytes of JSON. Argument lists are the largest thing sent: Linux allows 2 MiB
/// of them by default, and an argument that is no UTF-8 takes up to four bytes of JSON for each of its
/// own.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// Control port's name.
pub const CONTROL_PORT: &str = "vmtest.control";
/// File in the image that lists the kernel modules to load at start, one a line, in this order:
/// the absolute path, then optionally a blank and the module's parameters. Lines that start with
/// `#` are comments.
pub const MODULES_FILE: &str = "/.vmtest/modules";

/// Raw port for the kernel's gcov counters, a tar archive; only there when coverage is wanted.
pub const COVERAGE_PORT: &str = "vmtest.coverage";

/// Where programs in the guest leave their coverage: a share of the host's, with a directory for each
/// kind ([`COVERAGE_KINDS`]) that everybody may write to.
pub const COVERAGE_DIR: &str = "/.vmtest/coverage";

/// The directories below [`COVERAGE_DIR`]: LLVM's profiles, Go's counters, gcc's counters.
pub const COVERAGE_KINDS: [&str; 3] = ["llvm", "go", "gcc"];

/// Where the guest program lies in images that vmtest makes; also the kernel's `rdinit=`. Everything
/// of ours is below this directory, so that it meets nothing of the user's: an image of their own may
/// have an `/init`, and `/bin` may be a directory or a link.
pub const GUEST_PROGRAM: &str = "/.vmtest/guest";

/// Directory of the static shell and the links to its applets; the last one in `PATH`. Where the
/// image has no `/bin/sh` or `/usr/bin/env`, the guest program links them to this shell at start.
pub const SHELL_DIR: &str = "/.vmtest/bin";

/// From the host to the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Request {
    /// Mount a file system. The target directory is made where it is missing.
    Mount {
        /// Number of the request.
        id: u64,
        /// What to mount.
        #[serde(flatten)]
        mount: Mount,
    },
    /// Give a network interface its addresses.
    Network {
        /// Number of the request.
        id: u64,
        /// What to set up.
        #[serde(flatten)]
        network: Network,
    },
    /// Start a command. Any number may run at a time.
    Exec {
        /// Number of the request.
        id: u64,
        /// What to run.
        #[serde(flatten)]
        exec: Box<Exec>,
    },
    /// Send a signal to a command's process group (with a terminal: to its foreground group).
    Signal {
        /// The command: the number of its Exec.
        id: u64,
        /// Linux's signal number.
        signal: i32,
    },
    /// A command's terminal has a new size.
    Resize {
        /// The command: the number of its Exec.
        id: u64,
        /// The new size.
        #[serde(flatten)]
        size: WindowSize,
    },
    /// Put files into the root file system. Their archive (cpio, "newc") follows as
    /// [`frame::Kind::Stdin`] of this id, up to its [`frame::Kind::End`].
    Files {
        /// Number of the request.
        id: u64,
    },
    /// Have the kernel print something to its log: letters of `/proc/sysrq-trigger`, `t` for the stacks
    /// of all tasks, `l` for those of all processors.
    Sysrq {
        /// Number of the request.
        id: u64,
        /// Letters, in order.
        keys: String,
    },
    /// The guest was saved when it had said hello, and lives again, perhaps not alone. Nothing else may
    /// be sent before.
    Resumed {
        /// Number of the request.
        id: u64,
        /// What makes it its own.
        #[serde(flatten)]
        fresh: Fresh,
    },
    /// Set the clock: the kernel found none in the machine ([`Hello::no_clock`]).
    Clock {
        /// Number of the request.
        id: u64,
        /// The host's clock, in nanoseconds since 1970.
        realtime_ns: u64,
    },
    /// Send the kernel's gcov counters as a tar archive on [`COVERAGE_PORT`]. May be asked for while a
    /// command runs. Answered by [`Message::KernelCoverage`] or [`Message::Failed`].
    KernelCoverage {
        /// Number of the request.
        id: u64,
    },
    /// Kill what still runs, sync, unmount, say [`Message::Bye`] and power off.
    Shutdown,
}

/// From the guest to the host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Message {
    /// The first message: the guest is ready.
    Hello(Hello),
    /// The request was carried out.
    Done {
        /// Number of the request.
        id: u64,
        /// Process id, for [`Request::Exec`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pid: Option<u32>,
    },
    /// The request could not be carried out.
    Failed {
        /// Number of the request.
        id: u64,
        /// What failed, on which object, why.
        error: String,
        /// The operating system's error number, where there is one (`ENOENT` of an exec is a
        /// missing program: status 127; `EACCES` is 126).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        errno: Option<i32>,
    },
    /// A command ended, and all its output was sent before this.
    Exited {
        /// The command: the number of its Exec.
        id: u64,
        /// How it ended.
        status: ExitStatus,
        /// Bytes of stdout sent in all.
        stdout_bytes: u64,
        /// Bytes of stderr sent in all.
        stderr_bytes: u64,
    },
    /// The kernel's counters are sent: complete when this many bytes have arrived.
    KernelCoverage {
        /// Number of the request.
        id: u64,
        /// Files in the archive.
        files: u64,
        /// Bytes written to [`COVERAGE_PORT`] since the request.
        bytes: u64,
    },
    /// Something worth telling the user that is no answer: a module that did not load, an orphan
    /// that had to be killed.
    Notice {
        /// One line.
        text: String,
    },
    /// Everything is synced and unmounted; power is about to go.
    Bye,
}

/// What the guest found when it started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The guest's [`VERSION`].
    pub protocol: u32,
    /// Version of the guest program.
    pub guest_version: String,
    /// `uname -r`.
    pub kernel_release: String,
    /// `uname -m`.
    pub machine: String,
    /// Online processors.
    pub cpus: u32,
    /// Memory the kernel can use, in bytes (`MemTotal`).
    pub memory_bytes: u64,
    /// Seconds from the kernel's start to the first instruction of `/init` (`/proc/uptime`).
    pub init_secs: f64,
    /// Seconds from the kernel's start to this message.
    pub ready_secs: f64,
    /// Names of the virtio-serial ports found.
    pub ports: Vec<String>,
    /// Kernel modules that were loaded.
    pub modules: Vec<String>,
    /// It is still the first day of 1970: the kernel has no driver for the machine's clock.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_clock: bool,
}

/// What makes a guest that lives again its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fresh {
    /// Random bytes of the host's, in hexadecimal digits: the guest's random numbers depend on them from
    /// then on.
    pub entropy: String,
    /// The host's clock, in nanoseconds since 1970.
    pub realtime_ns: u64,
}

/// A file system to mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Device, 9p mount tag, or `scsi:TARGET:PARTITION` for a partition of the disk with that
    /// target number on virtio-scsi: letters of disks depend on which answers first. The guest waits
    /// ten seconds for a device to appear.
    pub source: String,
    /// Directory.
    pub target: String,
    /// Name of the file system: `9p`, `vfat`, `overlay`, … The directories that an overlay's `upperdir=`
    /// and `workdir=` name are made where they are missing.
    pub fstype: String,
    /// Options of the file system, separated by commas; may be empty.
    #[serde(default)]
    pub data: String,
    /// Mount read-only.
    #[serde(default)]
    pub read_only: bool,
}

impl Mount {
    /// The directories of an overlay's own layer: what is written, and what it needs for that. Commas in
    /// their names are not understood.
    pub fn layer_dirs(&self) -> impl Iterator<Item = &str> {
        let options = if self.fstype == "overlay" { self.data.as_str() } else { "" };
        options.split(',').filter_map(|option| {
            option.strip_prefix("upperdir=").or_else(|| option.strip_prefix("workdir="))
        })
    }
}

/// How a network interface is set up. All of it may be empty: then the interface is only switched
/// on, which is enough for IPv6 where a router announces itself (QEMU's user network does).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Name of the interface, or the address of its card (`52:54:00:12:34:56`); default: the first
    /// Ethernet interface there is. The guest waits two seconds for it to appear.
    #[serde(default)]
    pub interface: Option<String>,
    /// Addresses, of IPv4 and IPv6.
    #[serde(default)]
    pub addresses: Vec<InterfaceAddress>,
    /// Default routes, at most one for each version of IP.
    #[serde(default)]
    pub gateways: Vec<IpAddr>,
    /// Name servers; when there are any, `/etc/resolv.conf` is written anew.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
}

/// An address with the size of its network, such as 10.0.2.15/24.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceAddress {
    /// The address.
    pub address: IpAddr,
    /// Bits of the address that name the network: at most 32 for IPv4, 128 for IPv6.
    pub prefix_bits: u8,
}

/// A command to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// Program and arguments. A program without a slash is looked up in `PATH` of [`Exec::env`].
    pub argv: Vec<Bytes>,
    /// Added to the guest's own defaults (`PATH`, `HOME`, `TERM`, …), later ones win.
    #[serde(default)]
    pub env: Vec<(Bytes, Bytes)>,
    /// Working directory; default `/`.
    #[serde(default)]
    pub cwd: Option<Bytes>,
    /// Connect stdin; otherwise it is `/dev/null`. With a terminal: whether the host types.
    #[serde(default)]
    pub stdin: bool,
    /// Run on a terminal of this size: what is typed comes as stdin, what it shows goes to stdout.
    #[serde(default)]
    pub tty: Option<WindowSize>,
}

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExitStatus {
    /// It exited with this status, 0 to 255.
    Code(u8),
    /// A signal of this number killed it.
    Signal(u8),
}

impl ExitStatus {
    /// The status as a shell reports it: 128+n for signal n.
    pub fn shell_code(self) -> u8 {
        match self {
            ExitStatus::Code(code) => code,
            ExitStatus::Signal(signal) => 128u8.saturating_add(signal),
        }
    }
}

/// A byte string: arguments and paths need not be UTF-8. In JSON a string where it is UTF-8, else
/// an array of numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub Vec<u8>);

impl From<&str> for Bytes {
    fn from(text: &str) -> Bytes {
        Bytes(text.as_bytes().to_vec())
    }
}

impl From<&std::ffi::OsStr> for Bytes {
    fn from(text: &std::ffi::OsStr) -> Bytes {
        use std::os::unix::ffi::OsStrExt;
        Bytes(text.as_bytes().to_vec())
    }
}

impl Bytes {
    /// As the operating system takes it.
    pub fn as_os_str(&self) -> &std::ffi::OsStr {
        use std::os::unix::ffi::OsStrExt;
        std::ffi::OsStr::from_bytes(&self.0)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => serializer.collect_seq(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Bytes;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string or an array of bytes")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes, E> {
                Ok(Bytes::from(text))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Bytes, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = seq.next_element()? {
                    bytes.push(byte);
                }
                Ok(Bytes(bytes))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// Event channels: the wire format of the Go package `hugelgupf/vmtest`, so that guests and hosts written for it work.
///
/// One JSON object a line, `{"hugelgupf_vmtest_guest_action":"guestevent","Actual":…}`, and a last
/// one, `{"hugelgupf_vmtest_guest_action":"done"}`.
pub mod event {
    use serde::{Deserialize, Serialize};

    /// One line of an event channel.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct Line<T> {
        /// What the line is.
        #[serde(rename = "hugelgupf_vmtest_guest_action")]
        pub action: Action,
        /// The event itself, in a [`Action::GuestEvent`].
        #[serde(rename = "Actual", default = "none", skip_serializing_if = "Option::is_none")]
        pub actual: Option<T>,
    }

    fn none<T>() -> Option<T> {
        None
    }

    /// What a line is.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum Action {
        /// An event.
        GuestEvent,
        /// The last line: the guest closed the channel in an orderly way.
        Done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_strings_where_they_can_be() {
        let text = Bytes::from("hä");
        let raw = Bytes(vec![b'a', 0xff]);
        assert_eq!(serde_json::to_string(&text).unwrap(), "\"hä\"");
        assert_eq!(serde_json::to_string(&raw).unwrap(), "[97,255]");
        for bytes in [text, raw] {
            let json = serde_json::to_string(&bytes).unwrap();
            assert_eq!(serde_json::from_str::<Bytes>(&json).unwrap(), bytes);
        }
    }

    #[test]
    fn messages_look_as_documented() {
        let exited = Message::Exited {
            id: 4,
            status: ExitStatus::Signal(9),
            stdout_bytes: 3,
            stderr_bytes: 0,
        };
        assert_eq!(
            serde_json::to_string(&exited).unwrap(),
            r#"{"type":"exited","id":4,"status":{"signal":9},"stdout_bytes":3,"stderr_bytes":0}"#
        );
        let exec: Request =
            serde_json::from_str(r#"{"type":"exec","id":1,"argv":["true"]}"#).unwrap();
        let Request::Exec { id: 1, exec } = exec else { panic!("not an exec") };
        assert_eq!(exec.argv, [Bytes::from("true")]);
        assert_eq!(serde_json::to_string(&Request::Shutdown).unwrap(), r#"{"type":"shutdown"}"#);
    }

    #[test]
    fn only_an_overlay_has_directories_of_its_own() {
        let mount = |fstype: &str| Mount {
            source: "overlay".into(),
            target: "/x".into(),
            fstype: fstype.into(),
            data: "lowerdir=/a,upperdir=/b/upper,workdir=/b/work,xino=off".into(),
            read_only: false,
        };
        let overlay = mount("overlay");
        assert_eq!(overlay.layer_dirs().collect::<Vec<_>>(), ["/b/upper", "/b/work"]);
        assert_eq!(mount("9p").layer_dirs().count(), 0);
    }

    #[test]
    fn a_network_looks_as_documented() {
        let json = r#"{"type":"network","id":2,"interface":null,"addresses":[{"address":"10.0.2.15","prefix_bits":24}],"gateways":["10.0.2.2"],"dns":["10.0.2.3"]}"#;
        let request: Request = serde_json::from_str(json).unwrap();
        let Request::Network { id: 2, network } = &request else { panic!("not a network") };
        assert_eq!(network.addresses[0].address, IpAddr::from([10, 0, 2, 15]));
        assert_eq!(serde_json::to_string(&request).unwrap(), json);
        let minimal: Request = serde_json::from_str(r#"{"type":"network","id":3}"#).unwrap();
        assert_eq!(minimal, Request::Network { id: 3, network: Network::default() });
    }

    #[test]
    fn events_have_the_wire_format_of_the_reference() {
        use event::{Action, Line};
        let line = Line { action: Action::GuestEvent, actual: Some(7) };
        assert_eq!(
            serde_json::to_string(&line).unwrap(),
            r#"{"hugelgupf_vmtest_guest_action":"guestevent","Actual":7}"#
        );
        let done: Line<u8> =
            serde_json::from_str(r#"{"hugelgupf_vmtest_guest_action":"done"}"#).unwrap();
        assert_eq!(done, Line { action: Action::Done, actual: None });
    }
}
