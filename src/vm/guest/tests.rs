//! The dialogue against a fake agent: whatever order things happen in, every command gets its own bytes,
//! all of them, and its own end.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use vmtest_guest::proto::frame::{self, Decoder, Frame, Kind, MAX_DATA_BYTES, WINDOW_BYTES};
use vmtest_guest::proto::{self, Bytes, Exec, ExitStatus, Hello, Message, Request};

use super::link::Link;
use super::{GuestError, Running, Streams};

const LONG: Duration = Duration::from_secs(60);

/// What a command of the fake agent's does, as its argv says.
#[derive(Clone, Debug)]
struct Script {
    stdout_bytes: usize,
    stderr_bytes: usize,
    /// Writes what it reads to stdout, behind the rest.
    echoes: bool,
    status: u8,
}

impl Script {
    fn exec(&self) -> Exec {
        let Script { stdout_bytes, stderr_bytes, echoes, status } = self;
        let words = format!("{stdout_bytes} {stderr_bytes} {} {status}", u8::from(*echoes));
        Exec { argv: words.split(' ').map(Bytes::from).collect(), ..Exec::default() }
    }

    fn of(exec: &Exec) -> Script {
        let numbers: Vec<usize> = exec
            .argv
            .iter()
            .map(|word| std::str::from_utf8(&word.0).unwrap().parse().unwrap())
            .collect();
        let [stdout_bytes, stderr_bytes, echoes, status] = numbers[..] else {
            panic!("{numbers:?}")
        };
        Script { stdout_bytes, stderr_bytes, echoes: echoes == 1, status: status as u8 }
    }
}

/// Bytes that tell streams and places apart.
fn bytes(id: u32, stream: Kind, count: usize) -> impl Iterator<Item = u8> {
    (0..count).map(move |n| (n as u32).wrapping_mul(31).wrapping_add(7 * id + stream as u32) as u8)
}

/// A command under way in the fake agent.
struct Job {
    script: Script,
    out: [VecDeque<u8>; 2],
    window: [u64; 2],
    sent: [u64; 2],
    stdin_open: bool,
}

/// Signals that came, by command.
type Signals = Arc<Mutex<Vec<(u64, i32)>>>;

/// An agent that does one step of a random command at a time.
struct FakeAgent {
    stream: UnixStream,
    decoder: Decoder,
    jobs: BTreeMap<u32, Job>,
    random: u32,
    signals: Signals,
}

impl FakeAgent {
    fn start(seed: u32) -> (UnixStream, Signals) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let signals = Arc::new(Mutex::new(Vec::new()));
        let agent = FakeAgent {
            stream: theirs,
            decoder: Decoder::new(),
            jobs: BTreeMap::new(),
            random: seed | 1,
            signals: signals.clone(),
        };
        thread::spawn(move || agent.run());
        (ours, signals)
    }

    fn draw(&mut self, below: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        self.random as usize % below.max(1)
    }

    fn say(&mut self, message: &Message) {
        let text = serde_json::to_vec(message).unwrap();
        self.send(&frame::encode(Kind::Message, 0, &text));
    }

    fn send(&mut self, frame: &[u8]) {
        let _ = self.stream.write_all(frame);
    }

    fn run(mut self) {
        self.say(&Message::Hello(hello(proto::VERSION)));
        self.stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let mut buffer = [0; 10_000];
        loop {
            let most = 1 + self.draw(buffer.len() - 1);
            match self.stream.read(&mut buffer[..most]) {
                Ok(0) => return,
                Ok(count) => self.hear(&buffer[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock) => {}
                Err(_) => return,
            }
            for _ in 0..self.draw(4) {
                self.step();
            }
        }
    }

    fn hear(&mut self, bytes: &[u8]) {
        let mut decoder = std::mem::take(&mut self.decoder);
        decoder.push(bytes);
        while let Some(Frame { kind, id, payload }) = decoder.next().unwrap() {
            match kind {
                Kind::Message => self.serve(serde_json::from_slice(payload).unwrap()),
                Kind::Stdin => {
                    if let Some(job) = self.jobs.get_mut(&id) {
                        job.out[0].extend(payload);
                        self.send(&frame::credit(Kind::Stdin, id, payload.len() as u32));
                    }
                }
                Kind::End => {
                    if let Some(job) = self.jobs.get_mut(&id) {
                        job.stdin_open = false;
                    }
                }
                Kind::Credit => {
                    let (stream, count) =
                        Frame { kind, id, payload }.as_credit().expect("a credit");
                    if let Some(job) = self.jobs.get_mut(&id) {
                        job.window[usize::from(stream == Kind::Stderr)] += u64::from(count);
                    }
                }
                Kind::Stdout | Kind::Stderr => panic!("output for a guest"),
            }
        }
        self.decoder = decoder;
    }

    fn serve(&mut self, request: Request) {
        match request {
            Request::Exec { id, exec } if exec.argv.is_empty() => {
                self.say(&Message::Failed { id, error: "no program".into(), errno: Some(2) });
            }
            Request::Exec { id, exec } => {
                let script = Script::of(&exec);
                let id32 = id as u32;
                let out = [
                    bytes(id32, Kind::Stdout, script.stdout_bytes).collect(),
                    bytes(id32, Kind::Stderr, script.stderr_bytes).collect(),
                ];
                let stdin_open = exec.stdin && script.echoes;
                let job = Job { script, out, window: [WINDOW_BYTES; 2], sent: [0; 2], stdin_open };
                self.jobs.insert(id32, job);
                self.say(&Message::Done { id, pid: Some(100 + id32) });
            }
            Request::Signal { id, signal } => self.signals.lock().unwrap().push((id, signal)),
            Request::Shutdown => self.say(&Message::Bye),
            Request::Sysrq { id, .. } | Request::Mount { id, .. } => {
                self.say(&Message::Notice { text: format!("a remark on {id}") });
                self.say(&Message::Done { id, pid: None });
            }
            other => panic!("{other:?}"),
        }
    }

    /// One frame of a random command, or its end.
    fn step(&mut self) {
        let ids: Vec<u32> = self.jobs.keys().copied().collect();
        if ids.is_empty() {
            return;
        }
        let id = ids[self.draw(ids.len())];
        let (stream, most) = (self.draw(2), 1 + self.draw(MAX_DATA_BYTES));
        let job = self.jobs.get_mut(&id).unwrap();
        let count = most.min(job.out[stream].len()).min(job.window[stream] as usize);
        if count > 0 {
            let kind = [Kind::Stdout, Kind::Stderr][stream];
            let payload: Vec<u8> = job.out[stream].drain(..count).collect();
            job.window[stream] -= count as u64;
            job.sent[stream] += count as u64;
            self.send(&frame::encode(kind, id, &payload));
        } else if job.out.iter().all(VecDeque::is_empty) && !job.stdin_open {
            let job = self.jobs.remove(&id).unwrap();
            self.say(&Message::Exited {
                id: id.into(),
                status: ExitStatus::Code(job.script.status),
                stdout_bytes: job.sent[0],
                stderr_bytes: job.sent[1],
            });
        }
    }
}

fn hello(protocol: u32) -> Hello {
    Hello {
        protocol,
        guest_version: "0".into(),
        kernel_release: "6".into(),
        machine: "none".into(),
        cpus: 1,
        memory_bytes: 1,
        init_secs: 0.0,
        ready_secs: 0.0,
        ports: Vec::new(),
        modules: Vec::new(),
        no_clock: false,
    }
}

/// A writer that keeps what it gets, and may take its time.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>, Duration);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        thread::sleep(self.1);
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn scripts() -> impl Strategy<Value = Vec<(Script, Option<usize>)>> {
    let size =
        || prop_oneof![3 => 0..100usize, 2 => 0..200_000usize, 1 => 1_000_000..1_500_000usize];
    let script = (size(), size(), any::<bool>(), any::<u8>(), proptest::option::of(size()))
        .prop_map(|(stdout_bytes, stderr_bytes, echoes, status, stdin)| {
            (Script { stdout_bytes, stderr_bytes, echoes, status }, stdin)
        });
    proptest::collection::vec(script, 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Several commands beside each other, with stdin, large and small, one with a slow reader: each gets
    /// all of its own bytes in order, and its own status.
    #[test]
    fn commands_beside_each_other_keep_their_streams_apart(
        scripts in scripts(),
        seed in any::<u32>(),
    ) {
        runtime().block_on(async {
            let (stream, _) = FakeAgent::start(seed);
            let link = Link::new(stream).unwrap();
            prop_assert_eq!(link.hello().await.unwrap().machine, "none");
            let mut started = Vec::new();
            for (n, (script, stdin)) in scripts.iter().enumerate() {
                let pause = if n == 0 { Duration::from_micros(200) } else { Duration::ZERO };
                let (stdout, stderr) = (Kept(Arc::default(), pause), Kept::default());
                let typed: Vec<u8> = bytes(99, Kind::Stdin, stdin.unwrap_or(0)).collect();
                let streams = Streams {
                    stdin: stdin.map(|_| Box::new(io::Cursor::new(typed.clone())) as _),
                    stdout: Box::new(stdout.clone()),
                    stderr: Box::new(stderr.clone()),
                };
                let running = Running::start(&link, script.exec(), streams).await.unwrap();
                started.push((running, stdout, stderr, typed));
            }
            for ((script, stdin), (mut running, stdout, stderr, typed)) in
                scripts.iter().zip(started)
            {
                let id = running.pid() - 100;
                let exited = tokio::time::timeout(LONG, running.wait()).await.unwrap().unwrap();
                prop_assert_eq!(exited.status, ExitStatus::Code(script.status));
                prop_assert!(exited.incomplete.is_empty());
                let stdout = std::mem::take(&mut *stdout.0.lock().unwrap());
                let stderr = std::mem::take(&mut *stderr.0.lock().unwrap());
                prop_assert_eq!(exited.output_bytes, (stdout.len() as u64, stderr.len() as u64));
                prop_assert!(stderr.into_iter().eq(bytes(id, Kind::Stderr, script.stderr_bytes)));
                let echoed = if script.echoes && stdin.is_some() { typed } else { Vec::new() };
                if script.echoes || stdin.is_none() {
                    let own = bytes(id, Kind::Stdout, script.stdout_bytes);
                    prop_assert!(stdout.into_iter().eq(own.chain(echoed)));
                }
            }
            Ok(())
        })?;
    }

    /// Whatever the guest's bytes are, the conversation ends with a reason, and nobody waits forever.
    #[test]
    fn any_bytes_of_a_guest_end_in_a_reason(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        runtime().block_on(async {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let link = Link::new(ours).unwrap();
            theirs.write_all(&bytes).unwrap();
            drop(theirs);
            let hello = tokio::time::timeout(LONG, link.hello()).await.unwrap();
            prop_assert!(matches!(hello, Err(GuestError::Gone | GuestError::Protocol(_))), "{hello:?}");
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn one_after_the_other_and_a_missing_program_between() {
    let (stream, _) = FakeAgent::start(5);
    let link = Link::new(stream).unwrap();
    link.hello().await.unwrap();
    for status in 0..20 {
        let script = Script { stdout_bytes: 3, stderr_bytes: 0, echoes: false, status };
        let mut running = Running::start(&link, script.exec(), Streams::none()).await.unwrap();
        let exited = tokio::time::timeout(LONG, running.wait()).await.unwrap().unwrap();
        assert_eq!((exited.status, exited.output_bytes), (ExitStatus::Code(status), (3, 0)));
        let refused = Running::start(&link, Exec::default(), Streams::none()).await.unwrap_err();
        assert!(matches!(refused, GuestError::Refused { errno: Some(2), .. }), "{refused}");
    }
    link.call(|id| Request::Sysrq { id, keys: String::new() }).await.unwrap();
    assert_eq!(link.take_notices(), ["a remark on 41"]);
    link.bye().await.unwrap();
}

#[tokio::test]
async fn a_reader_that_leaves_is_a_signal_and_the_others_go_on() {
    struct Broken;
    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (stream, signals) = FakeAgent::start(9);
    let link = Link::new(stream).unwrap();
    link.hello().await.unwrap();
    let script = Script { stdout_bytes: 2_000_000, stderr_bytes: 10, echoes: false, status: 0 };
    let kept = Kept::default();
    let streams = Streams { stdin: None, stdout: Box::new(Broken), stderr: Box::new(kept.clone()) };
    let mut running = Running::start(&link, script.exec(), streams).await.unwrap();
    let exited = tokio::time::timeout(LONG, running.wait()).await.unwrap().unwrap();
    assert_eq!(exited.output_bytes, (2_000_000, 10));
    assert!(exited.incomplete[0].reader_left && exited.incomplete[0].stream == "stdout");
    assert_eq!(*signals.lock().unwrap(), [(1, 13)]);
    assert_eq!(kept.0.lock().unwrap().len(), 10);
}

#[tokio::test]
async fn a_guest_of_another_version_and_one_that_talks_nonsense_are_told_by_name() {
    let version = serde_json::to_vec(&Message::Hello(hello(1))).unwrap();
    for (bytes, shown) in [
        (frame::encode(Kind::Message, 0, &version), "it speaks version 1"),
        (frame::encode(Kind::Message, 0, b"what?"), "what?"),
        (frame::encode(Kind::Message, 0, b"{\"type\":\"bye\"}"), "Bye instead of its hello"),
        (frame::encode(Kind::Stdout, 3, b"x"), "output of 3, which does not run"),
        (b"{\"type\":\"hello\",\"protocol\":1}\n".to_vec(), "older than this vmtest"),
    ] {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let link = Link::new(ours).unwrap();
        theirs.write_all(&bytes).unwrap();
        let error =
            tokio::time::timeout(LONG, link.hello()).await.unwrap().unwrap_err().to_string();
        assert!(error.contains(shown), "{error}");
    }
}

/// The guest is gone in the middle: what had arrived is delivered, and is all there is.
#[tokio::test]
async fn what_had_left_the_guest_is_delivered_although_it_is_gone() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let link = Link::new(ours).unwrap();
    let message =
        |message: &Message| frame::encode(Kind::Message, 0, &serde_json::to_vec(message).unwrap());
    theirs.write_all(&message(&Message::Hello(hello(proto::VERSION)))).unwrap();
    link.hello().await.unwrap();
    let kept = Kept(Arc::default(), Duration::from_millis(50));
    let streams = Streams { stdout: Box::new(kept.clone()), ..Streams::none() };
    let answer = tokio::spawn({
        let link = link.clone();
        async move { Running::start(&link, Exec::default(), streams).await }
    });
    tokio::task::yield_now().await;
    assert!(theirs.read(&mut [0; 1000]).unwrap() > 0, "the Exec has to come");
    theirs.write_all(&message(&Message::Done { id: 1, pid: None })).unwrap();
    let mut running = tokio::time::timeout(LONG, answer).await.unwrap().unwrap().unwrap();
    for _ in 0..10 {
        theirs.write_all(&frame::encode(Kind::Stdout, 1, &[7; 10_000])).unwrap();
    }
    drop(theirs);
    assert_eq!(running.wait().await.unwrap_err(), GuestError::Gone);
    let (bytes, incomplete) = running.drain().await;
    assert_eq!((bytes, incomplete), ((100_000, 0), vec![]));
    assert_eq!(kept.0.lock().unwrap().len(), 100_000);
}
