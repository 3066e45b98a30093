//! What a user's own arguments for QEMU say of the machine.
//!
//! `VMTEST_QEMU="qemu -m 1G"` sets the memory: QEMU would take ours, which come later.

use std::ffi::OsString;

/// What the user's own arguments for QEMU say, so that ours do not.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Arguments {
    /// `-m`.
    pub(crate) memory: bool,
    /// `-smp`.
    pub(crate) cpus: bool,
    /// `-cpu`.
    pub(crate) cpu: bool,
    /// `-accel`, `-enable-kvm`, `-machine accel=`: the one that was chosen.
    pub(crate) accel: bool,
}

use crate::accel::Accel;
use crate::plan::PlanError;

fn is(argument: &OsString, option: &str) -> bool {
    let text = argument.to_str().and_then(|text| text.strip_prefix('-')).unwrap_or_default();
    text.strip_prefix('-').unwrap_or(text) == option
}

/// Whether an option is among them.
pub(crate) fn says(arguments: &[OsString], option: &str) -> bool {
    arguments.iter().any(|argument| is(argument, option))
}

/// Whether they name the accelerator, which then has to be the one that was chosen: processor,
/// board and limits depend on it.
pub(crate) fn accelerator<'a>(
    arguments: impl Iterator<Item = &'a OsString>,
    chosen: Accel,
) -> Result<bool, PlanError> {
    let mut said = false;
    let mut arguments = arguments.peekable();
    while let Some(argument) = arguments.next() {
        let value = arguments.peek().map(|value| value.to_string_lossy().into_owned());
        let value = value.unwrap_or_default();
        let words = || value.split(',');
        let named = if is(argument, "enable-kvm") {
            Some("kvm".to_owned())
        } else if is(argument, "accel") {
            words().next().map(|word| word.strip_prefix("accel=").unwrap_or(word).to_owned())
        } else if is(argument, "machine") || is(argument, "M") {
            words().find_map(|word| word.strip_prefix("accel=")).map(str::to_owned)
        } else {
            None
        };
        // Of several, QEMU takes the first that works.
        let Some(named) = named.and_then(|named| named.split(':').next().map(str::to_owned)) else {
            continue;
        };
        said = true;
        if named != chosen.to_string() {
            return Err(PlanError::OtherAccelerator {
                argument: argument.to_string_lossy().into_owned(),
                named,
                chosen,
            });
        }
    }
    Ok(said)
}
