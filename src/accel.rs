//! Which accelerator runs a guest, and why, in words.
//!
//! The decision is a function of what is asked for, the two architectures and what a probe of
//! `/dev/kvm` found; the probe itself is in [`crate::vm::accel`]. It must prove speed, not function:
//! there are hosts whose KVM executes everything correctly, one instruction at a time, at a
//! thousandth of the processor's speed.
//!
//! | asked for | KVM usable | KVM not usable |
//! |---|---|---|
//! | `auto` | kvm | tcg, with the reason |
//! | `kvm` | kvm | [`KvmUnusable`] |
//! | `tcg` | tcg, without looking | tcg, without looking |

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::arch::Arch;
use crate::duration;

/// What executes guest code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Accel {
    /// The host's processor, through Linux' KVM.
    Kvm,
    /// QEMU's translator: any guest on any host, some ten times slower.
    Tcg,
}

/// What the user asks for (`--accel`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AccelOption {
    /// KVM where it is proven to work, else TCG.
    #[default]
    Auto,
    /// KVM, or an error.
    Kvm,
    /// TCG.
    Tcg,
}

/// The accelerator taken, with the reason. [`fmt::Display`] is one line: `tcg: /dev/kvm does not
/// exist`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccelChoice {
    /// The accelerator.
    pub accel: Accel,
    /// Why this one.
    pub reason: Reason,
}

/// Why an accelerator is or is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// It was asked for by option.
    Requested,
    /// Guest code ran at the speed of hardware.
    Proven(Speed),
    /// The device does not exist.
    Missing {
        /// `/dev/kvm`.
        device: PathBuf,
    },
    /// The device exists and may not be opened.
    NoPermission(Permission),
    /// The host's processor cannot execute the guest's instructions.
    ForeignArch {
        /// The guest's architecture.
        guest: Arch,
        /// The host's, where it is one vmtest knows.
        host: Option<Arch>,
    },
    /// A 32-bit ARM guest on a 64-bit ARM host. Many such processors cannot run 32-bit kernels at
    /// all (EL1 in AArch32 state is optional in ARMv8 and gone in ARMv9), and those that can need
    /// another QEMU program and processor model than the emulated guest.
    Arm32OnArm64,
    /// vmtest has no probe for this host's architecture, so nothing is proven.
    NoProbe {
        /// The host's architecture.
        host: Arch,
    },
    /// Guest code runs, far slower than hardware would.
    TooSlow {
        /// `/dev/kvm`.
        device: PathBuf,
        /// What was measured.
        speed: Speed,
    },
    /// KVM refused something.
    Kvm {
        /// `/dev/kvm`.
        device: PathBuf,
        /// What was tried, `KVM_CREATE_VM` for instance.
        step: &'static str,
        /// What came of it.
        problem: String,
    },
}

/// A loop of guest instructions, and how long it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speed {
    /// Iterations done.
    pub done: u64,
    /// Iterations that were to be done.
    pub wanted: u64,
    /// Time from the first to the last.
    pub elapsed: Duration,
    /// The greatest number of iterations per second over any stretch of the run: what the machine
    /// can do when nothing else disturbs it.
    pub best_per_second: u64,
}

impl Speed {
    /// Iterations per second that no interpreter and every processor reaches. The loop is one
    /// decrement and one branch: hardware needs one or two cycles for both, the slowest 64-bit
    /// processors with KVM do 500 million a second; interpreters need at least ten cycles for an
    /// instruction and stay well below 100 million.
    pub const HARDWARE_PER_SECOND: u64 = 100_000_000;

    /// Whether this is the speed of hardware. A busy host that interrupted the run does not change
    /// the answer, since the best stretch counts.
    pub fn is_hardware(&self) -> bool {
        self.best_per_second >= Speed::HARDWARE_PER_SECOND
    }
}

/// Who may open the device, and what the user can do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    /// `/dev/kvm`.
    pub device: PathBuf,
    /// Its permission bits.
    pub mode: u32,
    /// Its group: the name, or the number where it has none.
    pub group: String,
    /// What keeps the user out.
    pub obstacle: Obstacle,
}

/// What keeps a user from a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Members of the device's group may use it, and the user is none.
    NotInGroup,
    /// The user was put into the device's group after logging in.
    GroupNotActive,
    /// The permission bits let no group in.
    Closed,
    /// The permission bits would let the user in: a container or security module does not.
    Denied,
}

/// KVM was asked for and cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot use KVM for this guest: {reason}")]
pub struct KvmUnusable {
    /// Why not.
    pub reason: Reason,
}

impl KvmUnusable {
    /// How to fix it.
    pub fn hint(&self) -> String {
        match self.reason.remedy() {
            Some(remedy) => format!("{remedy}, or take `--accel tcg`"),
            None => "take `--accel tcg`, or `auto` to let vmtest choose".to_owned(),
        }
    }
}

/// Decides. `probe` is called only where the answer depends on it; it says how fast KVM is, or why
/// it cannot be used at all.
///
/// # Errors
/// [`KvmUnusable`] when KVM was asked for.
pub fn choose(
    option: AccelOption,
    guest: Arch,
    host: Option<Arch>,
    probe: impl FnOnce() -> Result<Speed, Reason>,
) -> Result<AccelChoice, KvmUnusable> {
    if option == AccelOption::Tcg {
        return Ok(AccelChoice { accel: Accel::Tcg, reason: Reason::Requested });
    }
    match runs_natively(guest, host).and_then(|()| probe()) {
        Ok(speed) => Ok(AccelChoice { accel: Accel::Kvm, reason: Reason::Proven(speed) }),
        Err(reason) if option == AccelOption::Kvm => Err(KvmUnusable { reason }),
        Err(reason) => Ok(AccelChoice { accel: Accel::Tcg, reason }),
    }
}

/// Whether a host's processor can run a guest's kernel.
fn runs_natively(guest: Arch, host: Option<Arch>) -> Result<(), Reason> {
    match (host, guest) {
        // In 32-bit mode a 64-bit x86 processor is a 32-bit one.
        (Some(Arch::Amd64), Arch::Amd64 | Arch::I386) | (Some(Arch::Arm64), Arch::Arm64) => Ok(()),
        (Some(Arch::Arm64), Arch::Arm) => Err(Reason::Arm32OnArm64),
        (Some(host), guest) if host == guest => Err(Reason::NoProbe { host }),
        (host, guest) => Err(Reason::ForeignArch { guest, host }),
    }
}

impl Reason {
    /// A short name that does not change between versions, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Reason::Requested => "requested",
            Reason::Proven(_) => "proven",
            Reason::Missing { .. } => "missing",
            Reason::NoPermission(_) => "no-permission",
            Reason::ForeignArch { .. } => "foreign-arch",
            Reason::Arm32OnArm64 => "arm32-on-arm64",
            Reason::NoProbe { .. } => "no-probe",
            Reason::TooSlow { .. } => "too-slow",
            Reason::Kvm { .. } => "kvm-error",
        }
    }

    /// What would make KVM usable, where something would.
    pub fn remedy(&self) -> Option<String> {
        Some(match self {
            Reason::Missing { .. } => "load the module kvm_intel or kvm_amd (with virtualization \
                 switched on in the firmware); in a container, pass `--device /dev/kvm`"
                .to_owned(),
            Reason::NoPermission(permission) => permission.remedy(),
            Reason::TooSlow { .. } => "this host interprets guest code; use a host with \
                 virtualization in hardware (for a virtual machine: nested virtualization)"
                .to_owned(),
            Reason::Kvm { .. } => {
                "look for `kvm` in the host's kernel log (`dmesg`); another hypervisor may hold the processor"
                    .to_owned()
            }
            Reason::Requested
            | Reason::Proven(_)
            | Reason::ForeignArch { .. }
            | Reason::Arm32OnArm64
            | Reason::NoProbe { .. } => return None,
        })
    }
}

impl Permission {
    fn remedy(&self) -> String {
        let Permission { device, group, .. } = self;
        let device = device.display();
        match self.obstacle {
            Obstacle::NotInGroup => format!(
                "add yourself to group {group}: `sudo usermod -aG {group} $USER`, then log in again"
            ),
            Obstacle::GroupNotActive => format!(
                "your membership in group {group} is not active yet: log in again, or start from `newgrp {group}`"
            ),
            Obstacle::Closed => format!(
                "open it to a group: `sudo chgrp kvm {device} && sudo chmod 660 {device}`, and join: `sudo usermod -aG kvm $USER`"
            ),
            Obstacle::Denied => {
                format!("a container or security module forbids it: pass `--device {device}`")
            }
        }
    }
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Accel::Kvm => "kvm",
            Accel::Tcg => "tcg",
        })
    }
}

impl fmt::Display for AccelOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            AccelOption::Auto => "auto",
            AccelOption::Kvm => "kvm",
            AccelOption::Tcg => "tcg",
        })
    }
}

impl FromStr for AccelOption {
    type Err = UnknownAccel;

    fn from_str(text: &str) -> Result<AccelOption, UnknownAccel> {
        [AccelOption::Auto, AccelOption::Kvm, AccelOption::Tcg]
            .into_iter()
            .find(|option| option.to_string() == text)
            .ok_or_else(|| UnknownAccel { given: text.to_owned() })
    }
}

/// A word that names no accelerator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown accelerator `{given}`")]
pub struct UnknownAccel {
    /// The word that was given.
    pub given: String,
}

impl UnknownAccel {
    /// How to fix it.
    pub fn hint(&self) -> String {
        "take `auto`, `kvm` or `tcg`".to_owned()
    }
}

impl fmt::Display for AccelChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.accel, self.reason)?;
        match &self.reason {
            // The one reason the user can do something about without leaving the machine.
            Reason::NoPermission(permission) => write!(f, "; {}", permission.remedy()),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Requested => f.write_str("set by option"),
            Reason::Proven(speed) => write!(f, "guest code runs at hardware speed ({speed})"),
            Reason::Missing { device } => write!(f, "{} does not exist", device.display()),
            Reason::NoPermission(Permission { device, mode, group, .. }) => {
                let device = device.display();
                write!(f, "no permission to open {device} (group {group}, mode {mode:04o})")
            }
            Reason::ForeignArch { guest, host: Some(host) } => {
                write!(f, "the guest is {guest}, this host is {host}")
            }
            Reason::ForeignArch { guest, host: None } => {
                write!(f, "the guest is {guest}, this host is not")
            }
            Reason::Arm32OnArm64 => {
                f.write_str("many arm64 processors cannot run the kernel of an arm guest")
            }
            Reason::NoProbe { host } => {
                write!(f, "vmtest cannot prove that KVM works on {host} hosts")
            }
            Reason::TooSlow { device, speed } => {
                write!(f, "{} is too slow to be hardware ({speed})", device.display())
            }
            Reason::Kvm { device, step, problem } => {
                write!(f, "{} is unusable: {step}: {problem}", device.display())
            }
        }
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Speed { done, wanted, elapsed, .. } = self;
        let elapsed = duration::display(round(*elapsed));
        if done == wanted {
            write!(f, "{done} loop iterations in {elapsed}")
        } else {
            write!(f, "{done} of {wanted} loop iterations in {elapsed}")
        }
    }
}

/// To what a person wants to read: tenths of a millisecond.
fn round(elapsed: Duration) -> Duration {
    Duration::from_micros(elapsed.as_micros().div_ceil(100) as u64 * 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Speed = Speed {
        done: 4_000_000,
        wanted: 4_000_000,
        elapsed: Duration::from_micros(1_830),
        best_per_second: 2_400_000_000,
    };
    const SLOW: Speed = Speed {
        done: 15_000,
        wanted: 4_000_000,
        elapsed: Duration::from_millis(18),
        best_per_second: 880_000,
    };

    fn slow() -> Reason {
        Reason::TooSlow { device: "/dev/kvm".into(), speed: SLOW }
    }

    fn permission(obstacle: Obstacle) -> Permission {
        Permission { device: "/dev/kvm".into(), mode: 0o660, group: "kvm".into(), obstacle }
    }

    #[test]
    fn the_decision_table() {
        use AccelOption::*;
        let [amd64, i386, arm64, arm, riscv64] = Arch::ALL;
        let proven = Ok(("kvm", "proven"));
        for (option, guest, host, probed, expected) in [
            (Auto, amd64, Some(amd64), Ok(FAST), proven),
            (Auto, i386, Some(amd64), Ok(FAST), proven),
            (Auto, arm64, Some(arm64), Ok(FAST), proven),
            (Kvm, amd64, Some(amd64), Ok(FAST), proven),
            (Auto, amd64, Some(amd64), Err(slow()), Ok(("tcg", "too-slow"))),
            (Kvm, amd64, Some(amd64), Err(slow()), Err("too-slow")),
            (Tcg, amd64, Some(amd64), Ok(FAST), Ok(("tcg", "requested"))),
            (Tcg, riscv64, None, Ok(FAST), Ok(("tcg", "requested"))),
            (Auto, riscv64, Some(amd64), Ok(FAST), Ok(("tcg", "foreign-arch"))),
            (Kvm, riscv64, Some(amd64), Ok(FAST), Err("foreign-arch")),
            (Auto, amd64, Some(i386), Ok(FAST), Ok(("tcg", "foreign-arch"))),
            (Auto, arm64, Some(arm), Ok(FAST), Ok(("tcg", "foreign-arch"))),
            (Auto, amd64, None, Ok(FAST), Ok(("tcg", "foreign-arch"))),
            (Auto, arm, Some(arm64), Ok(FAST), Ok(("tcg", "arm32-on-arm64"))),
            (Kvm, arm, Some(arm64), Ok(FAST), Err("arm32-on-arm64")),
            (Auto, riscv64, Some(riscv64), Ok(FAST), Ok(("tcg", "no-probe"))),
            (Auto, i386, Some(i386), Ok(FAST), Ok(("tcg", "no-probe"))),
        ] {
            let choice = choose(option, guest, host, || probed.clone());
            let found = match &choice {
                Ok(choice) => Ok((choice.accel.to_string(), choice.reason.code())),
                Err(unusable) => Err(unusable.reason.code()),
            };
            let expected = expected.map(|(accel, code)| (accel.to_owned(), code));
            assert_eq!(found, expected, "{option} {guest} on {host:?}");
        }
    }

    #[test]
    fn nothing_is_probed_where_the_answer_is_clear() {
        for (option, guest) in [(AccelOption::Tcg, Arch::Amd64), (AccelOption::Auto, Arch::Riscv64)]
        {
            choose(option, guest, Some(Arch::Amd64), || panic!("probed")).unwrap();
        }
    }

    #[test]
    fn every_reason_is_one_line_that_names_its_object() {
        let kvm = |reason| AccelChoice { accel: Accel::Kvm, reason }.to_string();
        let tcg = |reason| AccelChoice { accel: Accel::Tcg, reason }.to_string();
        assert_eq!(
            kvm(Reason::Proven(FAST)),
            "kvm: guest code runs at hardware speed (4000000 loop iterations in 1.9ms)"
        );
        assert_eq!(tcg(Reason::Requested), "tcg: set by option");
        assert_eq!(
            tcg(Reason::Missing { device: "/dev/kvm".into() }),
            "tcg: /dev/kvm does not exist"
        );
        assert_eq!(
            tcg(slow()),
            "tcg: /dev/kvm is too slow to be hardware (15000 of 4000000 loop iterations in 18ms)"
        );
        assert_eq!(
            tcg(Reason::ForeignArch { guest: Arch::Riscv64, host: Some(Arch::Amd64) }),
            "tcg: the guest is riscv64, this host is amd64"
        );
        assert_eq!(
            tcg(Reason::Kvm {
                device: "/dev/kvm".into(),
                step: "KVM_CREATE_VM",
                problem: "Device or resource busy (os error 16)".into()
            }),
            "tcg: /dev/kvm is unusable: KVM_CREATE_VM: Device or resource busy (os error 16)"
        );
        for (obstacle, text) in [
            (
                Obstacle::NotInGroup,
                "add yourself to group kvm: `sudo usermod -aG kvm $USER`, then log in again",
            ),
            (Obstacle::GroupNotActive, "your membership in group kvm is not active yet"),
            (Obstacle::Closed, "`sudo chgrp kvm /dev/kvm && sudo chmod 660 /dev/kvm`"),
            (Obstacle::Denied, "pass `--device /dev/kvm`"),
        ] {
            let line = tcg(Reason::NoPermission(permission(obstacle)));
            let start = "tcg: no permission to open /dev/kvm (group kvm, mode 0660); ";
            assert!(line.starts_with(start), "{line}");
            assert!(line.contains(text), "{line}");
            assert!(!line.contains('\n'));
        }
    }

    #[test]
    fn kvm_that_was_asked_for_and_cannot_be_had_is_an_error_with_a_way_out() {
        let unusable = KvmUnusable { reason: slow() };
        assert!(
            unusable.to_string().starts_with("cannot use KVM for this guest: /dev/kvm is too slow")
        );
        assert!(unusable.hint().ends_with("or take `--accel tcg`"));
        let unusable =
            KvmUnusable { reason: Reason::NoPermission(permission(Obstacle::NotInGroup)) };
        assert!(!unusable.to_string().contains("usermod"), "that is for the hint");
        assert!(unusable.hint().contains("`sudo usermod -aG kvm $USER`"));
        let unusable = KvmUnusable { reason: Reason::Arm32OnArm64 };
        assert!(unusable.hint().contains("--accel tcg"));
    }

    #[test]
    fn only_the_best_stretch_counts() {
        assert!(FAST.is_hardware());
        assert!(!SLOW.is_hardware());
        let interrupted = Speed { elapsed: Duration::from_secs(1), ..FAST };
        assert!(interrupted.is_hardware());
    }

    #[test]
    fn options_round_trip() {
        for text in ["auto", "kvm", "tcg"] {
            assert_eq!(text.parse::<AccelOption>().unwrap().to_string(), text);
        }
        let err = "hvf".parse::<AccelOption>().unwrap_err();
        assert_eq!(err.to_string(), "unknown accelerator `hvf`");
        assert!(err.hint().contains("`kvm`"));
    }
}
