//! QEMU's monitor, as far as it is needed: the version, why the machine stopped, quitting.
//!
//! The protocol is JSON lines (QEMU documentation, "QEMU Machine Protocol Specification"). A
//! greeting, then answers and events in one stream.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{mpsc, oneshot, watch};

/// How long QEMU may take to answer a command.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Why the machine stopped, as QEMU says it in the event `SHUTDOWN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// The guest switched the power off.
    GuestShutdown,
    /// The guest asked for a reset, which `-no-reboot` turns into an end.
    GuestReset,
    /// The guest told of its panic (pvpanic).
    GuestPanic,
    /// The monitor's `quit`.
    HostQuit,
    /// Anything else, in QEMU's words.
    Other(String),
}

/// A client of the monitor. Clones share one conversation.
#[derive(Clone, Debug)]
pub(crate) struct Monitor {
    commands: mpsc::UnboundedSender<(Value, oneshot::Sender<Result<Value, String>>)>,
    version: watch::Receiver<Option<String>>,
    seen: Arc<Seen>,
}

/// What QEMU has said by itself.
#[derive(Debug, Default)]
struct Seen {
    stop: Mutex<Option<StopReason>>,
    /// Events `STOP` that nobody asked for.
    stops: watch::Sender<u32>,
    /// Somebody has asked for a stop.
    stop_asked: AtomicBool,
    /// The first command was answered: arguments are parsed, and the machine is made.
    made: AtomicBool,
}

impl Monitor {
    /// Starts to talk. Never waits: the greeting comes when QEMU is ready.
    pub(crate) fn new(stream: UnixStream) -> Monitor {
        let (commands, requests) = mpsc::unbounded_channel();
        let (version_sender, version) = watch::channel(None);
        let seen = Arc::new(Seen::default());
        tokio::spawn(converse(stream, requests, version_sender, Arc::clone(&seen)));
        Monitor { commands, version, seen }
    }

    /// QEMU's version, once it has said so.
    pub(crate) fn version(&self) -> Option<String> {
        self.version.borrow().clone()
    }

    /// Changes when QEMU greets: it has parsed its arguments and made the machine.
    pub(crate) fn version_watch(&self) -> watch::Receiver<Option<String>> {
        self.version.clone()
    }

    /// Why the machine stopped, if it did.
    pub(crate) fn stop_reason(&self) -> Option<StopReason> {
        self.seen.stop.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether QEMU has made the machine: it greets before that, and answers after it.
    pub(crate) fn made_machine(&self) -> bool {
        self.seen.made.load(Ordering::Acquire)
    }

    /// From now on a stop of the machine is ours, until [`Monitor::stops_are_unexpected`].
    pub(crate) fn stops_are_ours(&self) {
        self.seen.stop_asked.store(true, Ordering::Release);
    }

    /// From now on a stop of the machine is QEMU's own.
    pub(crate) fn stops_are_unexpected(&self) {
        self.seen.stop_asked.store(false, Ordering::Release);
    }

    /// Completes at the next stop of the machine that nobody asked for.
    pub(crate) async fn stop_event(&self) {
        let mut stops = self.seen.stops.subscribe();
        if *stops.borrow_and_update() == 0 && stops.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.seen.stops.send_modify(|stops| *stops = stops.saturating_sub(1));
    }

    /// Runs a command.
    pub(crate) async fn execute(&self, command: &str, arguments: Value) -> io::Result<Value> {
        self.execute_within(ANSWER_LIMIT, command, arguments).await
    }

    /// Runs a command that may take this long. QEMU may still carry it out later.
    pub(crate) async fn execute_within(
        &self,
        limit: Duration,
        command: &str,
        arguments: Value,
    ) -> io::Result<Value> {
        let (reply, answer) = oneshot::channel();
        let mut request = json!({ "execute": command });
        if !arguments.is_null() {
            request["arguments"] = arguments;
        }
        let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "QEMU's monitor is gone");
        self.commands.send((request, reply)).map_err(|_| gone())?;
        match tokio::time::timeout(limit, answer).await {
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("QEMU's monitor did not answer `{command}` in {limit:?}"),
            )),
            Ok(Err(_)) => Err(gone()),
            Ok(Ok(Err(text))) => {
                Err(io::Error::other(format!("QEMU's monitor refused `{command}`: {text}")))
            }
            Ok(Ok(Ok(value))) => Ok(value),
        }
    }

    /// Asks QEMU to quit, without waiting for it.
    pub(crate) fn quit(&self) {
        let (reply, _) = oneshot::channel();
        let _ = self.commands.send((json!({ "execute": "quit" }), reply));
    }
}

async fn converse(
    stream: UnixStream,
    mut requests: mpsc::UnboundedReceiver<(Value, oneshot::Sender<Result<Value, String>>)>,
    version: watch::Sender<Option<String>>,
    seen: Arc<Seen>,
) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    // The first command has to be this one; what is sent before the greeting is read after it.
    if send(&mut write, &json!({ "execute": "qmp_capabilities" })).await.is_err() {
        return;
    }
    let mut waiting = Some(oneshot::channel().0);
    loop {
        tokio::select! {
            line = lines.next_line() => {
                let Ok(Some(line)) = line else { return };
                let Ok(mut message) = serde_json::from_str::<Value>(&line) else { continue };
                if let Some(greeting) = message.get("QMP") {
                    version.send_replace(Some(version_text(greeting)));
                } else if let Some(event) = message.get("event").and_then(Value::as_str) {
                    if let Some(reason) = stop_reason(event, &message) {
                        let mut stop = seen.stop.lock().unwrap_or_else(PoisonError::into_inner);
                        // A panic is followed by a shutdown; the first reason is the cause.
                        stop.get_or_insert(reason);
                    } else if event == "STOP" && !seen.stop_asked.load(Ordering::Acquire) {
                        seen.stops.send_modify(|stops| *stops += 1);
                    }
                } else if let Some(reply) = waiting.take() {
                    seen.made.store(true, Ordering::Release);
                    let _ = reply.send(match message.get("error") {
                        Some(error) => Err(error["desc"].as_str().unwrap_or("?").to_owned()),
                        None => Ok(message["return"].take()),
                    });
                }
            }
            // One at a time: QEMU 10.0 was seen to leave a second command unread forever.
            request = requests.recv(), if waiting.is_none() => {
                let Some((request, reply)) = request else { return };
                waiting = Some(reply);
                if send(&mut write, &request).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn send(write: &mut OwnedWriteHalf, message: &Value) -> io::Result<()> {
    write.write_all(format!("{message}\n").as_bytes()).await
}

fn version_text(greeting: &Value) -> String {
    let number = &greeting["version"]["qemu"];
    let part = |name: &str| number[name].as_u64().unwrap_or_default();
    format!("{}.{}.{}", part("major"), part("minor"), part("micro"))
}

fn stop_reason(event: &str, message: &Value) -> Option<StopReason> {
    match event {
        "GUEST_PANICKED" => Some(StopReason::GuestPanic),
        "SHUTDOWN" => Some(match message["data"]["reason"].as_str().unwrap_or("unknown") {
            "guest-shutdown" => StopReason::GuestShutdown,
            "guest-reset" => StopReason::GuestReset,
            "guest-panic" => StopReason::GuestPanic,
            "host-qmp-quit" => StopReason::HostQuit,
            other => StopReason::Other(other.to_owned()),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn greeting_answers_and_events() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let monitor = Monitor::new(ours);
        let (read, mut write) = theirs.into_split();
        let mut lines = BufReader::new(read).lines();
        let greeting = json!({"QMP": {"version": {"qemu": {"major": 10, "minor": 0, "micro": 2}}}});
        send(&mut write, &greeting).await.unwrap();
        monitor.version_watch().wait_for(Option::is_some).await.unwrap();
        assert_eq!(monitor.version().as_deref(), Some("10.0.2"));

        let answers = tokio::spawn(async move {
            assert!(lines.next_line().await.unwrap().unwrap().contains("qmp_capabilities"));
            send(&mut write, &json!({"return": {}})).await.unwrap();
            assert!(lines.next_line().await.unwrap().unwrap().contains("query-a"));
            send(&mut write, &json!({"event": "GUEST_PANICKED", "data": {}})).await.unwrap();
            send(&mut write, &json!({"event": "SHUTDOWN", "data": {"reason": "guest-reset"}}))
                .await
                .unwrap();
            send(&mut write, &json!({"return": 3})).await.unwrap();
            assert!(lines.next_line().await.unwrap().unwrap().contains("query-b"));
            send(&mut write, &json!({"error": {"desc": "no"}})).await.unwrap();
        });
        assert_eq!(monitor.execute("query-a", Value::Null).await.unwrap(), json!(3));
        assert_eq!(monitor.stop_reason(), Some(StopReason::GuestPanic));
        let error = monitor.execute("query-b", json!({"x": 1})).await.unwrap_err();
        assert_eq!(error.to_string(), "QEMU's monitor refused `query-b`: no");
        answers.await.unwrap();
        assert!(monitor.execute("query-c", Value::Null).await.is_err(), "the other end is gone");
    }
}
