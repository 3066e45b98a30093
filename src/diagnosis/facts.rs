//! Processor, task and build id, as lines of reports say them.

use super::splat::Task;

/// `CPU: 0 UID: 0 PID: 12 Comm: kworker/0:1 Not tainted …`.
pub(super) fn running(text: &str) -> Option<(Option<u32>, Task)> {
    let pid = number_after(text, "PID: ")?;
    let processor = number_after(text, "CPU: ");
    let name = text.split_once("Comm: ").map(|(_, rest)| {
        let ends = [" Tainted:", " Not tainted"];
        let end = ends.iter().filter_map(|end| rest.find(end)).min().unwrap_or(rest.len());
        rest[..end].trim().to_owned()
    });
    Some((processor, Task { name, pid: Some(pid) }))
}

/// The kernel's build id in such a line, in hex digits: 20 bytes, with `CONFIG_STACKTRACE_BUILD_ID`.
pub fn build_id(text: &str) -> Option<String> {
    if !text.contains("PID: ") {
        return None;
    }
    text.split_ascii_whitespace()
        .find(|word| word.len() == 40 && word.bytes().all(|b| b.is_ascii_hexdigit()))
        .map(str::to_ascii_lowercase)
}

/// `INFO: task NAME:PID blocked`, `stuck for 22s! [NAME:PID]`, `by task NAME/PID`.
pub(super) fn named_task(text: &str) -> Option<Task> {
    let word = if let Some((_, rest)) = text.split_once("INFO: task ") {
        let end = [" blocked", " can't die"].iter().filter_map(|end| rest.find(end)).min()?;
        &rest[..end]
    } else if let Some((_, rest)) = text.split_once("! [") {
        rest.split_once(']')?.0
    } else {
        let (_, rest) = text.split_once(" by task ")?;
        rest.split(' ').next()?
    };
    let (name, pid) = word.rsplit_once([':', '/'])?;
    let pid = pid.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().ok()?;
    Some(Task { name: Some(name.to_owned()), pid: Some(pid) })
}

/// The number behind a word.
pub(super) fn number_after(text: &str, word: &str) -> Option<u32> {
    let (_, rest) = text.split_once(word)?;
    let rest = rest.trim_start();
    let end = rest.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}
