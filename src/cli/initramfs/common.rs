//! What makes and looks has in common: how problems are shown, and cleaning up after a signal.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vmtest::initramfs::Problems;

use crate::cli::error::{Failure, UNAVAILABLE, chain};
use crate::cli::{interrupt, ui};

/// Shows all problems but the last, which is left to the caller, with all hints.
pub(super) fn problems(problems: &Problems) -> Failure {
    let mut texts: Vec<String> = problems.iter().map(|p| chain(p)).collect();
    let last = texts.pop().unwrap_or_default();
    texts.iter().for_each(|text| ui::error(text));
    let hints = problems.hints();
    let hint = (!hints.is_empty()).then(|| hints.join("\nhint: "));
    Failure { code: UNAVAILABLE, text: last, hint }
}

/// Does `work`, whose argument is set when a signal wants it to clean up and fail.
pub(super) fn guarded<T>(
    work: impl FnOnce(&AtomicBool) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let cancel = Arc::new(AtomicBool::new(false));
    let ask = {
        let cancel = cancel.clone();
        move || cancel.store(true, Ordering::SeqCst)
    };
    interrupt::guarded(ask, || work(&cancel))
}
