//! Event files: the events of a channel, one JSON object a line.
//!
//! A thread for each channel reads it to its end, whatever is wrong with it: a guest must not block
//! because a line is broken or a disk is full. The first fault is reported when it happens, and fails a
//! run that would have passed.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc::UnboundedSender;
use vmtest_guest::proto::event::{Action, Line};

use super::Error;
use crate::configure::EventFile;
use crate::named_file;
use crate::vm::{MAX_EVENT_BYTES, Vm, excerpt};

/// How long events may still come in when QEMU has ended.
const GRACE: Duration = Duration::from_secs(5);

/// Where the events of channels go.
pub(super) struct EventFiles(Vec<(String, File)>);

/// The threads that write them.
pub(super) struct Collectors(Vec<(String, JoinHandle<Ending>)>);

/// How a channel ended.
#[derive(Debug, PartialEq, Eq)]
enum Ending {
    /// With its `done`, or nobody has ever used it.
    Complete,
    /// Something was sent, and no `done` at the end.
    NoDone,
    /// Something was wrong, and has been reported.
    Faulty,
}

impl EventFiles {
    /// Opens the files before anything is started.
    pub(super) fn create(files: &[EventFile]) -> Result<EventFiles, Error> {
        let opened =
            files.iter().map(|EventFile { channel, file: path }| match named_file::create(path) {
                Ok(file) => Ok((channel.clone(), file)),
                Err(source) => Err(Error::Write {
                    what: format!("write the events of `{channel}` to"),
                    path: path.clone(),
                    source,
                }),
            });
        Ok(EventFiles(opened.collect::<Result<_, _>>()?))
    }

    /// Starts to write each channel's events to its file. Faults go to `faults`.
    pub(super) fn collect(self, vm: &mut Vm, faults: &UnboundedSender<String>) -> Collectors {
        let mut threads = Vec::new();
        for (name, file) in self.0 {
            let Some(stream) = vm.take_channel(&name) else {
                let _ = faults.send(format!("there is no event channel `{name}`, or it is taken"));
                continue;
            };
            let (channel, faults) = (name.clone(), faults.clone());
            let report = move |text: String| drop(faults.send(text));
            let started = std::thread::Builder::new()
                .name(format!("vmtest-events-{name}"))
                .spawn(move || write(&channel, stream, file, report));
            if let Ok(thread) = started {
                threads.push((name, thread));
            }
        }
        Collectors(threads)
    }
}

/// Writes a channel's events to its file, and reads on where that fails.
fn write(name: &str, stream: UnixStream, file: File, report: impl Fn(String)) -> Ending {
    let mut reader = BufReader::with_capacity(64 << 10, stream);
    let mut file = BufWriter::new(file);
    let mut faulty = false;
    let mut fault = |text: String| {
        if !std::mem::replace(&mut faulty, true) {
            report(format!("event channel `{name}`: {text}"));
        }
    };
    let (mut used, mut done) = (false, false);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(MAX_EVENT_BYTES as u64 + 1).read_until(b'\n', &mut line) {
            Ok(0) => break,
            Ok(_) if line.len() > MAX_EVENT_BYTES => {
                fault(format!("a line of more than {MAX_EVENT_BYTES} bytes"));
                let _ = io::copy(&mut reader, &mut io::sink());
                break;
            }
            Ok(_) => {}
            Err(error) => {
                fault(format!("cannot be read: {error}"));
                break;
            }
        }
        used = true;
        if done {
            fault(format!("something comes after its `done`: `{}`", excerpt(&line)));
            continue;
        }
        match serde_json::from_slice::<Line<Value>>(&line) {
            Ok(Line { action: Action::Done, .. }) => done = true,
            Ok(Line { action: Action::GuestEvent, actual: Some(event) }) => {
                if let Err(error) = writeln!(file, "{event}") {
                    fault(format!("cannot write its events: {error}"));
                }
            }
            Ok(_) => fault(format!("an event without content: `{}`", excerpt(&line))),
            Err(error) => fault(format!("broken line `{}`: {error}", excerpt(&line))),
        }
    }
    if let Err(error) = file.flush() {
        fault(format!("cannot write its events: {error}"));
    }
    match (faulty, used && !done) {
        (true, _) => Ending::Faulty,
        (_, true) => Ending::NoDone,
        _ => Ending::Complete,
    }
}

impl Collectors {
    /// Waits until all events are written. Returns the first reason why a run that has passed has not:
    /// `passed` says whether it would have. A command that fails has no time to say `done`.
    pub(super) async fn finish(
        self,
        passed: bool,
        faults: &UnboundedSender<String>,
    ) -> Option<String> {
        let deadline = tokio::time::Instant::now() + GRACE;
        let mut failed = None;
        for (name, thread) in self.0 {
            while !thread.is_finished() && tokio::time::Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            let text = if !thread.is_finished() {
                "did not end in time: its file is incomplete"
            } else {
                match thread.join() {
                    Ok(Ending::Complete) => continue,
                    Ok(Ending::Faulty) => "is incomplete",
                    Ok(Ending::NoDone) if !passed => continue,
                    Ok(Ending::NoDone) => "ended without `done`: events may be missing",
                    Err(_) => "could not be collected: its thread panicked",
                }
            };
            let text = format!("event channel `{name}` {text}");
            let _ = faults.send(text.clone());
            failed.get_or_insert(text);
        }
        failed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const EVENT: &str = "{\"hugelgupf_vmtest_guest_action\":\"guestevent\",\"Actual\":1}\n";
    const DONE: &str = "{\"hugelgupf_vmtest_guest_action\":\"done\"}\n";

    /// What is written for what a guest sends, how it ended, what was reported.
    fn collected(text: &str) -> (String, Ending, Vec<String>) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(text.as_bytes()).unwrap();
        drop(theirs);
        let file = tempfile::NamedTempFile::new().unwrap();
        let reports = Mutex::new(Vec::new());
        let ending = write("c", ours, file.reopen().unwrap(), |text| {
            reports.lock().unwrap().push(text);
        });
        (std::fs::read_to_string(file.path()).unwrap(), ending, reports.into_inner().unwrap())
    }

    #[test]
    fn a_channel_is_read_to_its_end_whatever_is_wrong_with_it() {
        let (text, ending, reports) = collected(&format!("{EVENT}{EVENT}{DONE}"));
        assert_eq!((text.as_str(), ending, reports), ("1\n1\n", Ending::Complete, vec![]));
        assert_eq!(collected("").1, Ending::Complete);
        assert_eq!(collected(EVENT).1, Ending::NoDone);
        for (bad, shown) in [
            (format!("{EVENT}{{\"id\":1}}\n{EVENT}{DONE}"), "broken line `{\"id\":1}"),
            (format!("{EVENT}{DONE}{EVENT}{EVENT}"), "after its `done`"),
            (format!("{}{EVENT}{DONE}", EVENT.replace(",\"Actual\":1", "")), "without content"),
        ] {
            let (text, ending, reports) = collected(&bad);
            assert_eq!(ending, Ending::Faulty);
            assert!(text.starts_with('1') && reports.len() == 1, "{text} {reports:?}");
            assert!(reports[0].contains(shown), "{}", reports[0]);
        }
    }

    #[test]
    fn a_full_disk_is_reported_and_the_guest_goes_on() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let guest = std::thread::spawn(move || {
            for _ in 0..10_000 {
                theirs.write_all(EVENT.as_bytes()).unwrap();
            }
            theirs.write_all(DONE.as_bytes()).unwrap();
        });
        let full = File::create("/dev/full").unwrap();
        let reports = Mutex::new(Vec::new());
        let ending = write("c", ours, full, |text| reports.lock().unwrap().push(text));
        guest.join().unwrap();
        assert_eq!(ending, Ending::Faulty);
        let reports = reports.into_inner().unwrap();
        assert!(reports[0].contains("cannot write its events"), "{reports:?}");
    }
}
