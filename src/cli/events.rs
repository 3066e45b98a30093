//! `--event NAME=FILE`: the events of a channel, one JSON object a line.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinHandle;
use vmtest::vm::{EventChannel, EventError, Vm};

/// How long events may still come in when QEMU has ended.
const GRACE: Duration = Duration::from_secs(5);

/// The tasks that write events.
pub(crate) struct Collectors(Vec<(String, JoinHandle<Result<(), String>>)>);

/// Starts to write each channel's events to its file.
pub(crate) fn collect(vm: &mut Vm, files: Vec<(String, File)>) -> Collectors {
    let tasks = files.into_iter().map(|(name, file)| {
        let channel =
            vm.take_channel(&name).ok_or_else(|| "there is no such channel".to_owned()).and_then(
                |stream| EventChannel::<Value>::new(&name, stream).map_err(|e| e.to_string()),
            );
        (name, tokio::spawn(async move { write(channel?, file).await }))
    });
    Collectors(tasks.collect())
}

async fn write(mut channel: EventChannel<Value>, file: File) -> Result<(), String> {
    let mut file = BufWriter::new(file);
    let mut problem = None;
    while let Some(event) = channel.next().await {
        match event {
            Ok(event) => {
                writeln!(file, "{event}")
                    .map_err(|error| format!("cannot write events: {error}"))?;
            }
            Err(EventError::MissingDone { unused: true, .. }) => {}
            Err(error) => problem = Some(super::error::chain(&error)),
        }
    }
    file.flush().map_err(|error| format!("cannot write events: {error}"))?;
    problem.map_or(Ok(()), Err)
}

impl Collectors {
    /// Waits until all events are written; returns what went wrong.
    pub(crate) async fn finish(self) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, task) in self.0 {
            match tokio::time::timeout(GRACE, task).await {
                Ok(Ok(Ok(()))) => {}
                Ok(Ok(Err(problem))) => problems.push(problem),
                Ok(Err(panic)) => problems.push(format!("event channel `{name}`: {panic}")),
                Err(_) => problems.push(format!("event channel `{name}` did not end in time")),
            }
        }
        problems
    }
}
