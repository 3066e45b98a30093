//! Tells a guest that hangs from one that is slow.
//!
//! A guest hangs when nothing has come from it for a time and there is proof that nothing will:
//!
//! | proof | where |
//! |---|---|
//! | QEMU's process is stopped, or its monitor does not answer | always |
//! | the kernel says so: a stall, a lockup, a task that waits too long | always |
//! | the agent does not answer | once it has said hello |
//! | no processor of the guest does anything | before hello; later only for who has set the time |
//!
//! A guest that computes while its kernel does not complain is slow, whatever it computes: that is what
//! limits are for. So is a command that waits for something of its own, unless somebody has said how long
//! that may take. A host that has no processor for QEMU proves nothing.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::host_load::HostLoad;
use super::scene::{Marks, Scene, Stage};
use crate::accel::Accel;

/// How long the agent may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// How long QEMU's monitor may take to answer.
const MONITOR: Duration = Duration::from_secs(5);

/// A guest whose QEMU runs for less than this part of the time does nothing: what is left are timers.
const IDLE_PERCENT: u32 = 15;

/// When a silent guest is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HangAfter {
    /// Never.
    Off,
    /// After this time; then one that does nothing hangs, too.
    Time(Duration),
}

impl HangAfter {
    /// Understands `off` and what [`crate::duration::parse_limit`] does.
    ///
    /// # Errors
    /// The duration's.
    pub fn parse(text: &str) -> Result<HangAfter, crate::duration::Error> {
        match text {
            "off" => Ok(HangAfter::Off),
            text => crate::duration::parse_limit(text).map(HangAfter::Time),
        }
    }
}

/// What a run does about a silent guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HangLimit {
    /// The guest is looked at when it has been silent for so long.
    pub after: Duration,
    /// Doing nothing is hanging.
    pub idle_hangs: bool,
}

impl HangLimit {
    /// The given one, else 1 min with KVM and 3 min emulated. `None` when nobody shall look.
    pub fn of(given: Option<HangAfter>, accel: Accel) -> Option<HangLimit> {
        match (given, accel) {
            (Some(HangAfter::Off), _) => None,
            (Some(HangAfter::Time(after)), _) => Some(HangLimit { after, idle_hangs: true }),
            (None, Accel::Kvm) => {
                Some(HangLimit { after: Duration::from_secs(60), idle_hangs: false })
            }
            (None, Accel::Tcg) => {
                Some(HangLimit { after: Duration::from_secs(180), idle_hangs: false })
            }
        }
    }
}

/// A guest that hangs: why, and for how long nothing has come from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hung {
    pub(super) why: String,
    pub(super) silent: Duration,
}

/// Completes when the guest hangs.
pub(super) async fn watch(scene: &Scene, limit: Option<HangLimit>) -> Hung {
    let Some(limit) = limit else { return std::future::pending().await };
    let period = (limit.after / 20).clamp(Duration::from_millis(50), Duration::from_secs(1));
    let mut silence = Silence::begin(scene);
    let mut seen = silence.complaints;
    loop {
        tokio::time::sleep(period).await;
        let before = std::mem::replace(&mut seen, scene.console.hang_reports());
        if scene.stage() == Stage::Ending || silence.is_broken(scene) {
            // What the kernel said since the last look may be the last that it says.
            silence = Silence { complaints: before, ..Silence::begin(scene) };
            continue;
        }
        if silence.since.elapsed() < limit.after {
            continue;
        }
        let load = between(&silence.load, &scene.host.so_far());
        if let Some(why) = silence.proof(scene, &limit, &load).await {
            return Hung { why, silent: silence.since.elapsed() };
        }
        silence = Silence::begin(scene);
    }
}

/// A time in which nothing has come.
struct Silence {
    since: Instant,
    marks: Marks,
    load: HostLoad,
    /// The kernel's complaints before it.
    complaints: usize,
}

impl Silence {
    fn begin(scene: &Scene) -> Silence {
        Silence {
            since: Instant::now(),
            marks: scene.marks(),
            load: scene.host.so_far(),
            complaints: scene.console.hang_reports(),
        }
    }

    /// Whether something has come. A kernel that complains is not heard as one that works.
    fn is_broken(&mut self, scene: &Scene) -> bool {
        let mut now = scene.marks();
        if scene.console.hang_reports() > self.complaints {
            now.console = self.marks.console;
        }
        now != self.marks
    }

    /// Why nothing will come any more.
    async fn proof(&self, scene: &Scene, limit: &HangLimit, load: &HostLoad) -> Option<String> {
        if scene.is_stopped() {
            return Some("QEMU's process is stopped, by a signal or a debugger".into());
        }
        if 2 * load.waited > load.of {
            return None;
        }
        let status = scene.monitor.execute_within(MONITOR, "query-status", Value::Null).await;
        if status.is_err_and(|error| error.kind() == std::io::ErrorKind::TimedOut) {
            return Some("QEMU's monitor does not answer".into());
        }
        if scene.console.hang_reports() > self.complaints && !load.is_starved() {
            // It hangs: nothing that comes now is another report.
            let (splats, _) = scene.console.all_splats();
            if let Some(splat) = splats.iter().rfind(|splat| splat.kind.is_hang()) {
                return Some(format!("its kernel reported {}", splat.title));
            }
        }
        let booting = scene.stage() == Stage::Booting;
        if let Some(probe) = scene.probe()
            && !probe.answers(ANSWER.min(limit.after)).await
        {
            return Some("its agent does not answer".into());
        }
        let idle = load.ran * 100 < load.of * IDLE_PERCENT && !load.of.is_zero();
        (idle && (booting || limit.idle_hangs)).then(|| "it does nothing".to_owned())
    }
}

/// What happened from one look to another.
fn between(before: &HostLoad, after: &HostLoad) -> HostLoad {
    HostLoad {
        ran: after.ran.saturating_sub(before.ran),
        waited: after.waited.saturating_sub(before.waited),
        of: after.of.saturating_sub(before.of),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_scaled() {
        let after = |given, accel| HangLimit::of(given, accel).map(|limit| limit.after.as_secs());
        assert_eq!((after(None, Accel::Kvm), after(None, Accel::Tcg)), (Some(60), Some(180)));
        let given = HangAfter::parse("90s").unwrap();
        assert_eq!(after(Some(given), Accel::Tcg), Some(90));
        assert!(HangLimit::of(Some(given), Accel::Tcg).unwrap().idle_hangs);
        assert_eq!(after(Some(HangAfter::parse("off").unwrap()), Accel::Kvm), None);
        assert!(HangAfter::parse("soon").is_err());
    }
}
