//! The kernel's reports of its faults, found in what the console says while it says it.
//!
//! Which of them count is nobody's business here: that is decided when the run is over
//! ([`crate::diagnosis::Gate`]).

use crate::diagnosis::{Reader, Splat};

/// So many reports are kept with all of their lines.
const MAX_WHOLE: usize = 100;

/// So many are kept at all, those after [`MAX_WHOLE`] with their first lines.
const MAX_KEPT: usize = 2000;

/// So many lines of a report are its first ones.
const FIRST_LINES: usize = 20;

/// The reports on one console. Its memory is bounded, however much the kernel complains.
#[derive(Debug, Default)]
pub(super) struct Faults {
    reader: Reader,
    kept: Vec<Splat>,
    more: u64,
    over: bool,
}

impl Faults {
    /// Takes what the console has said. Returns the number of reports that have become whole.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> usize {
        if self.over {
            return 0;
        }
        let splats = self.reader.feed(bytes);
        self.keep(splats)
    }

    /// What comes from now on is no report: we have asked for it, or it is the end.
    pub(super) fn finish(&mut self) {
        if !std::mem::replace(&mut self.over, true) {
            let splats = self.reader.finish();
            self.keep(splats);
        }
    }

    /// How many of the reports are of stalls and lockups, those included that are not whole yet.
    pub(super) fn hangs(&self) -> usize {
        let whole = self.kept.iter().map(|splat| splat.kind);
        whole.chain(self.reader.reading()).filter(|kind| kind.is_hang()).count()
    }

    /// Whether there is a report, or the beginning of one.
    pub(super) fn any(&self) -> bool {
        !self.kept.is_empty() || self.reader.is_reading()
    }

    /// The reports so far, and how many more there were.
    pub(super) fn so_far(&self) -> (&[Splat], u64) {
        (&self.kept, self.more)
    }

    fn keep(&mut self, splats: Vec<Splat>) -> usize {
        let count = splats.len();
        for mut splat in splats {
            if self.kept.len() >= MAX_KEPT {
                self.more += 1;
                continue;
            }
            if self.kept.len() >= MAX_WHOLE {
                splat.lines.truncate(FIRST_LINES);
                splat.traces.truncate(1);
            }
            self.kept.push(splat);
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(second: usize) -> String {
        let at = |micro: u32| format!("[{second:5}.{micro:06}]");
        format!(
            "{} BUG: scheduling while atomic: init/1/0x00000002\n{} Call Trace:\n{}  my_wait+0x12/0x40\n",
            at(1),
            at(2),
            at(3)
        )
    }

    #[test]
    fn a_kernel_that_never_stops_complaining_takes_no_more_memory() {
        let mut faults = Faults::default();
        for second in 1..=MAX_KEPT + 50 {
            faults.feed(report(second).as_bytes());
        }
        faults.finish();
        let (kept, more) = faults.so_far();
        assert_eq!((kept.len(), more), (MAX_KEPT, 50));
        assert_eq!(kept[0].title, "scheduling while atomic in my_wait");
    }

    #[test]
    fn what_is_said_after_the_end_is_no_report() {
        let mut faults = Faults::default();
        faults.feed(report(1).as_bytes());
        faults.finish();
        faults.feed(report(2).as_bytes());
        faults.finish();
        assert_eq!(faults.so_far().0.len(), 1);
    }
}
