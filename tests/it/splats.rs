//! Reports in kernels' logs: what was found against what others expect, and the command line.

use std::collections::BTreeMap;
use std::path::PathBuf;

use vmtest::diagnosis::{Kind, Reader, Splat};

use crate::support::vmtest;

/// Logs with what their maintainers expect; `VMTEST_SPLAT_CORPUS` names another place.
fn corpus() -> Option<PathBuf> {
    let given = std::env::var_os("VMTEST_SPLAT_CORPUS").map(PathBuf::from);
    let dir = given.clone().unwrap_or_else(|| {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/splat-corpus")
    });
    if dir.is_dir() {
        return Some(dir);
    }
    let text = format!("skipped: splats::the_corpus_agrees: there is no `{}`", dir.display());
    let required = std::env::var_os("VMTEST_REQUIRE").is_some_and(|value| value == "1");
    assert!(given.is_none() && !required, "{text}");
    eprintln!(
        "{text}; VMTEST_SPLAT_CORPUS names another place, VMTEST_REQUIRE=1 makes this a failure"
    );
    None
}

/// A log and what is expected of it.
struct Case {
    name: String,
    title: Option<String>,
    others: Vec<String>,
    kind: String,
    frame: Option<String>,
    corrupted: bool,
    log: Vec<u8>,
}

fn read(path: &std::path::Path) -> Case {
    let bytes = std::fs::read(path).unwrap();
    let mut case = Case {
        name: path.file_name().unwrap().to_string_lossy().into_owned(),
        title: None,
        others: Vec::new(),
        kind: String::new(),
        frame: None,
        corrupted: false,
        log: Vec::new(),
    };
    let mut rest = bytes.as_slice();
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = String::from_utf8_lossy(&rest[..end]).into_owned();
        rest = &rest[end + 1..];
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.trim().to_owned();
        match name {
            "TITLE" if !value.is_empty() => case.title = Some(value),
            "ALT" => case.others.push(value),
            "TYPE" => case.kind = value,
            "FRAME" => case.frame = Some(value),
            "CORRUPTED" => case.corrupted = value == "Y",
            _ => {}
        }
    }
    let report = rest.windows(9).position(|window| window == b"\nREPORT:\n");
    case.log = rest[..report.map_or(rest.len(), |at| at + 1)].to_vec();
    case
}

fn found(log: &[u8]) -> Vec<Splat> {
    let mut reader = Reader::default();
    let mut splats = reader.feed(log);
    splats.extend(reader.finish());
    // The log's first report, whichever ended first.
    splats.sort_by_key(|splat| splat.begin.byte);
    splats
}

/// The functions that a title names: behind its last ` in `, both of two.
fn functions(title: &str) -> Vec<String> {
    let Some((_, place)) = title.rsplit_once(" in ") else { return Vec::new() };
    let place = place.split(" at addr ").next().unwrap();
    place.split([' ', '/']).filter(|word| !word.is_empty()).map(bare).collect()
}

/// System calls' wrappers have different names on different architectures and kernels.
fn bare(function: &str) -> String {
    let function = function.split(".part").next().unwrap();
    let wrappers = ["sys_", "do_sys_", "__do_sys_", "ksys_", "SyS_", "__x64_sys_", "__se_sys_"];
    let call = wrappers.iter().find_map(|wrapper| function.strip_prefix(wrapper));
    call.unwrap_or(function).to_owned()
}

/// Our kinds that say the same as a title of theirs.
fn kinds(title: &str) -> &'static [Kind] {
    use Kind::*;
    const MAP: &[(&str, &[Kind])] = &[
        ("KASAN: ", &[Kasan]),
        ("KCSAN: ", &[Kcsan]),
        ("KMSAN: ", &[Kmsan]),
        ("KFENCE: ", &[Kfence]),
        ("UBSAN: ", &[Ubsan]),
        ("memory leak", &[Leak]),
        ("WARNING: refcount bug", &[Refcount]),
        ("BUG: corrupted list", &[ListCorruption]),
        ("WARNING: bad usercopy", &[Usercopy]),
        ("BUG: bad usercopy", &[Usercopy]),
        ("possible deadlock", &[Deadlock]),
        ("inconsistent lock state", &[Deadlock]),
        ("WARNING: possible circular", &[Deadlock]),
        ("WARNING: suspicious RCU", &[RcuUsage]),
        ("INFO: suspicious RCU", &[RcuUsage]),
        ("INFO: trying to register", &[Locking]),
        ("BUG: still has locks", &[Locking]),
        ("WARNING: still has locks", &[Locking]),
        ("BUG: bad unlock", &[Locking]),
        ("WARNING: bad unlock", &[Locking]),
        ("BUG: held lock", &[Locking]),
        ("WARNING: held lock", &[Locking]),
        ("BUG: lock held", &[Locking]),
        ("WARNING: lock held", &[Locking]),
        ("WARNING: nested lock", &[Locking]),
        ("BUG: spinlock", &[Locking]),
        ("BUG: rwlock", &[Locking]),
        ("BUG: using ", &[Locking]),
        ("BUG: workqueue leaked", &[Locking]),
        // A `WARN_ON` of lockdep's own; theirs tells it by the file.
        ("WARNING: locking bug", &[Warning]),
        ("BUG: sleeping", &[AtomicSleep]),
        ("BUG: scheduling", &[AtomicSleep]),
        ("BUG: soft lockup", &[SoftLockup]),
        ("INFO: rcu detected stall", &[RcuStall]),
        ("INFO: task hung", &[HungTask]),
        ("INFO: task can't die", &[HungTask]),
        ("BUG: workqueue lockup", &[WorkqueueStall]),
        ("BUG: Bad ", &[BadPage]),
        ("BUG: Object already free", &[SlabCorruption]),
        ("INFO: Freed", &[SlabCorruption]),
        ("INFO: Allocated", &[SlabCorruption]),
        ("BUG: Dentry still", &[StillInUse]),
        ("VFS: ", &[StillInUse]),
        ("unregister_netdevice", &[StillInUse]),
        ("BUG: unable to handle kernel NULL", &[NullPointer]),
        ("BUG: unable to handle kernel", &[PageFault, NullPointer]),
        ("BUG: stack guard", &[StackOverflow]),
        ("kernel stack overflow", &[StackOverflow]),
        ("general protection fault", &[ProtectionFault]),
        ("PANIC: double fault", &[DoubleFault]),
        ("divide error", &[Exception]),
        ("int3", &[Exception]),
        ("stack segment fault", &[Exception]),
        ("Unhandled fault", &[Exception]),
        ("Internal error", &[Exception]),
        ("Alignment trap", &[Exception]),
        ("kernel panic: bad mode", &[Exception]),
        ("kernel panic", &[Panic]),
        ("kernel BUG", &[Bug]),
        ("unexpected kernel reboot", &[Reboot]),
        ("attempt to subtract", &[RustPanic]),
        ("INFO: corrupted", &[OtherBug]),
        ("BUG: ", &[OtherBug]),
        ("WARNING", &[Warning]),
    ];
    MAP.iter().find(|(start, _)| title.starts_with(start)).map_or(&[], |(_, kinds)| kinds)
}

/// How many of how many agree.
#[derive(Debug, Default)]
struct Score {
    agree: usize,
    of: usize,
}

impl Score {
    fn count(&mut self, agrees: bool) -> bool {
        self.of += 1;
        self.agree += usize::from(agrees);
        agrees
    }

    fn percent(&self) -> f64 {
        100.0 * self.agree as f64 / self.of.max(1) as f64
    }
}

/// docs/splats.md says which classes of logs differ, and why.
#[test]
fn the_corpus_agrees() {
    let Some(dir) = corpus() else { return };
    let mut paths: Vec<_> =
        std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let (mut crash, mut function, mut kind) =
        (Score::default(), Score::default(), Score::default());
    let mut differ: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for case in paths.iter().map(|path| read(path)) {
        let splats = found(&case.log);
        let first = splats.first();
        let ours = first.map_or("nothing", |splat| splat.title.as_str());
        let theirs = case.title.as_deref().unwrap_or("nothing");
        let mut note = |what| {
            differ.entry(what).or_default().push(format!("{}: {theirs} | {ours}", case.name));
        };
        if !crash.count(first.is_some() == case.title.is_some()) {
            note("crash");
        }
        let (Some(splat), Some(title)) = (first, &case.title) else { continue };
        if !kind.count(kinds(title).contains(&splat.kind)) {
            note("kind");
        }
        let expected: Vec<_> = std::iter::once(title)
            .chain(&case.others)
            .flat_map(|title| functions(title))
            .chain(case.frame.as_deref().map(bare))
            .collect();
        let trusted = !case.corrupted && !functions(title).is_empty();
        let agrees = || splat.function.as_ref().is_some_and(|ours| expected.contains(&bare(ours)));
        if trusted && !function.count(agrees()) {
            note("function");
        }
    }
    for (what, logs) in &differ {
        println!("{what} differs:\n  {}", logs.join("\n  "));
    }
    println!(
        "crash {:.1} % of {}, function {:.1} % of {}, kind {:.1} % of {}",
        crash.percent(),
        crash.of,
        function.percent(),
        function.of,
        kind.percent(),
        kind.of
    );
    assert!(crash.of > 0, "`{}` is empty", dir.display());
    assert!(crash.percent() >= 97.0, "{crash:?}");
    assert!(function.percent() >= 85.0, "{function:?}");
    assert!(kind.percent() >= 90.0, "{kind:?}");
}

const LOG: &str = "\
[    1.000000] booted\n\
[    2.000000] BUG: sleeping function called from invalid context at lib/a.c:12\n\
[    2.000001] in_atomic(): 1, irqs_disabled(): 0, pid: 7, name: poller\n\
[    2.000002] CPU: 1 PID: 7 Comm: poller Not tainted 6.1.0 #1\n\
[    2.000003] Call Trace:\n\
[    2.000004]  dump_stack+0x1/0x2\n\
[    2.000005]  poll_all+0x12/0x40\n\
[   30.000000] WARNING: CPU: 0 PID: 9 at lib/b.c:3 late_free+0x4/0x20\n\
[   30.000001] Call Trace:\n\
[   30.000002]  late_exit+0x12/0x40\n";

fn written(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

#[test]
fn the_command_prints_a_table_and_exits_with_1() {
    let (_dir, path) = written("log", LOG.as_bytes());
    let done = vmtest(["splats"]).arg(&path).run();
    done.code(1);
    let text = String::from_utf8(done.stdout.clone()).unwrap();
    assert_eq!(done.stderr, "");
    assert!(text.starts_with(&format!("2 reports in {}\n", path.display())), "{text}");
    assert!(
        text.contains(
            "2-7   1    poller/7  sleeping function called from invalid context in poll_all"
        ),
        "{text}"
    );
    assert!(text.contains("8-10  0    9"), "{text}");
}

#[test]
fn logs_come_through_pipes_and_compressed() {
    use std::io::Write;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(LOG.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    for input in [LOG.as_bytes().to_vec(), gzip.clone()] {
        let done = vmtest(["splats", "-"]).stdin(input).run();
        done.code(1);
        assert!(String::from_utf8_lossy(&done.stdout).starts_with("2 reports in stdin\n"));
    }
    let (_dir, cut) = written("cut.gz", &gzip[..gzip.len() / 2]);
    vmtest(["splats"]).arg(cut).run().code(69).says("cannot read").says("hint:");
}

#[test]
fn lists_say_what_counts() {
    let (_dir, path) = written("log", LOG.as_bytes());
    let run = |args: &[&str]| {
        let done = vmtest(["splats"]).arg(&path).args(args).run();
        done.seen();
        (done.code, String::from_utf8_lossy(&done.stdout).into_owned(), done.stderr.clone())
    };
    let (code, text, _) = run(&["--allow-splat", "late_free", "--allow-splat=poll_"]);
    assert_eq!(code, 0);
    assert!(text.contains("2 allowed") && text.contains("allowed by `late_free`"), "{text}");
    let (_lists, allow) = written("allow", b"# all of them\n.\n");
    let deny = allow.with_file_name("deny");
    std::fs::write(&deny, "poll_all\n").unwrap();
    let (allow, deny) = (allow.to_str().unwrap(), deny.to_str().unwrap());
    assert_eq!(run(&["--allow-splat-file", allow]).0, 0);
    assert_eq!(run(&["--allow-file", allow, "--deny-file", deny]).0, 1);
    let (code, _, said) = run(&["--allow-splat", "("]);
    assert_eq!(code, 2);
    assert!(said.contains("`(` is no regular expression") && said.contains("hint:"), "{said}");
    assert_eq!(run(&["--allow-file", "/no/such/list"]).0, 69);
    assert_eq!(run(&["--message-format", "xml"]).0, 2);
}

#[test]
fn programs_read_one_object_a_report() {
    let (_dir, path) = written("log", LOG.as_bytes());
    let done = vmtest(["splats", "--message-format=json", "--allow-splat=late"]).arg(&path).run();
    done.code(1);
    let text = String::from_utf8(done.stdout.clone()).unwrap();
    let records: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len(), 2);
    assert_eq!(records[0]["counts"], true);
    assert_eq!(records[0]["kind"], "atomic-sleep");
    assert_eq!(records[1]["allowed_by"], "late");
    assert_eq!(records[1]["begin"]["line"], 8);
}

#[test]
fn a_log_without_reports_exits_with_0_and_a_missing_one_with_69() {
    let (_dir, path) = written("log", b"[    1.000000] all is well\n");
    let done = vmtest(["splats"]).arg(&path).run();
    done.code(0).stdout(&format!("no reports in {}\n", path.display()));
    vmtest(["splats", "/no/such/log"]).run().code(69).says("/no/such/log").says("hint:");
    vmtest(["splats"]).run().code(2).says("required arguments").says("LOG");
}

#[test]
fn nothing_of_the_guest_reaches_the_terminal_as_a_command() {
    let log = "[    1.000000] WARNING: CPU: 0 PID: 9 at a.c:3 \x1b[31mf+0x4/0x20\x07\n\
               [    1.000001] CPU: 0 PID: 9 Comm: \x1b]0;owned\x07evil\u{202e} Not tainted\n";
    for format in ["--message-format=text", "--message-format=json"] {
        let done = vmtest(["splats", "-", format]).stdin(log).run();
        done.code(1);
        let text = String::from_utf8(done.stdout.clone()).unwrap();
        assert!(!text.contains(['\x1b', '\x07', '\u{202e}']) && text.contains("evil"), "{text:?}");
    }
}
