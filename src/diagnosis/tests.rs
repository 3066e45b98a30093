//! Whole logs, written for these tests.

use super::*;

/// The reports in a log, in the order in which they begin.
fn read(log: &str) -> Vec<Splat> {
    let mut reader = Reader::default();
    let mut splats = reader.feed(log.as_bytes());
    splats.extend(reader.finish());
    splats.sort_by_key(|splat| splat.begin.byte);
    splats
}

fn titles(log: &str) -> Vec<String> {
    read(log).into_iter().map(|splat| splat.title).collect()
}

/// Lines with times, a microsecond apart, as one writer prints them.
fn stamped(start: u64, caller: &str, text: &str) -> String {
    text.lines()
        .enumerate()
        .map(|(at, line)| {
            let time = start + at as u64;
            let (seconds, micros) = (time / 1_000_000, time % 1_000_000);
            format!("[{seconds:5}.{micros:06}]{caller} {line}\n")
        })
        .collect()
}

const OOPS: &str = "\
BUG: kernel NULL pointer dereference, address: 0000000000000010
#PF: supervisor read access in kernel mode
#PF: error_code(0x0000) - not-present page
PGD 0 P4D 0
Oops: 0000 [#1] PREEMPT SMP
CPU: 1 PID: 321 Comm: reader one Tainted: G        W  O       6.1.0-test #1 0123456789abcdef0123456789abcdef01234567
Hardware name: QEMU Standard PC
RIP: 0010:queue_take+0x14/0x60 [queue]
Code: 48 8b 47 10
RSP: 0018:ffffc900001a7e40 EFLAGS: 00010246
Call Trace:
 <TASK>
 queue_read+0x44/0x90 [queue]
 ? __pfx_queue_read+0x10/0x10
 vfs_read+0xa1/0x300
 do_syscall_64+0x3b/0x90
 </TASK>
Modules linked in: queue(O)
CR2: 0000000000000010
---[ end trace 0000000000000000 ]---
Kernel panic - not syncing: Fatal exception
Kernel Offset: disabled
";

const WARN: &str = "\
------------[ cut here ]------------
the timer is still armed
WARNING: CPU: 0 PID: 77 at drivers/a/b.c:120 stop_timer+0x3c/0x50 [b]
Modules linked in: b
CPU: 0 PID: 77 Comm: worker Not tainted 6.1.0 #1
RIP: 0010:stop_timer+0x3c/0x50 [b]
Call Trace:
 <TASK>
 close_device+0x10/0x20 [b]
 __fput+0x8c/0x250
 </TASK>
---[ end trace 0000000000000000 ]---
";

#[test]
fn an_oops_is_one_report_with_its_panic_and_all_its_facts() {
    let log = stamped(5_000_000, "", OOPS);
    let splats = read(&log);
    assert_eq!(splats.len(), 1, "{splats:#?}");
    let splat = &splats[0];
    assert_eq!(splat.title, "NULL pointer dereference in queue_take");
    assert_eq!(splat.kind, Kind::NullPointer);
    assert_eq!(splat.processor, Some(1));
    assert_eq!(splat.task, Some(Task { name: Some("reader one".into()), pid: Some(321) }));
    assert_eq!(splat.panic.as_deref(), Some("Fatal exception"));
    assert_eq!(splat.taint.letters(), "WO");
    assert_eq!(splat.build_id.as_deref(), Some("0123456789abcdef0123456789abcdef01234567"));
    assert_eq!(splat.time, Some(5_000_000));
    assert_eq!(splat.corrupted, None);
    assert_eq!((splat.begin.line, splat.begin.byte), (1, 0));
    assert_eq!(splat.end.line, OOPS.lines().count() as u64);
    let trace = splat.traces.iter().find(|trace| trace.title == "Call Trace").unwrap();
    let functions: Vec<_> = trace.frames.iter().map(|frame| frame.function.as_str()).collect();
    assert_eq!(functions, ["queue_read", "__pfx_queue_read", "vfs_read", "do_syscall_64"]);
    assert_eq!(trace.frames[0].module.as_deref(), Some("queue"));
}

#[test]
fn a_warning_begins_where_it_says_cut_here() {
    let log = stamped(1_000_000, "", &format!("noise\n{WARN}more noise\n"));
    let splats = read(&log);
    assert_eq!(splats.len(), 1);
    assert_eq!(splats[0].title, "WARNING in stop_timer");
    assert_eq!((splats[0].begin.line, splats[0].end.line), (2, 13));
    assert!(splats[0].lines[1].contains("still armed"));
}

#[test]
fn several_reports_are_told_apart() {
    let log = stamped(1_000_000, "", WARN) + &stamped(60_000_000, "", OOPS);
    assert_eq!(titles(&log), ["WARNING in stop_timer", "NULL pointer dereference in queue_take"]);
}

#[test]
fn processors_that_print_at_the_same_time_are_untangled() {
    let first = stamped(1_000_000, "[   T77]", WARN);
    let second = stamped(1_000_000, "[  T321]", OOPS);
    let mut log = String::new();
    let (mut a, mut b) = (first.lines(), second.lines());
    loop {
        let (one, other) = (a.next(), b.next());
        if one.is_none() && other.is_none() {
            break;
        }
        for line in one.into_iter().chain(other) {
            log.push_str(line);
            log.push('\n');
        }
    }
    let splats = read(&log);
    let titles: Vec<_> = splats.iter().map(|splat| splat.title.as_str()).collect();
    assert_eq!(titles, ["WARNING in stop_timer", "NULL pointer dereference in queue_take"]);
    assert!(splats.iter().all(|splat| splat.corrupted.is_none()));
    assert!(splats[0].lines.iter().all(|line| !line.contains("queue_")));
}

#[test]
fn the_same_bug_has_the_same_title_in_every_run() {
    let other = OOPS
        .replace("0000000000000010", "00000000000000f8")
        .replace("PID: 321", "PID: 9")
        .replace("+0x14/0x60", "+0x18/0x70")
        .replace("Comm: reader one", "Comm: x");
    let log = stamped(9_000_000, "[    C3]", &other);
    assert_eq!(titles(&log), titles(&stamped(5_000_000, "", OOPS)));
}

#[test]
fn a_log_printed_again_is_not_counted_twice() {
    let log = stamped(1_000_000, "", WARN) + &stamped(60_000_000, "", OOPS);
    assert_eq!(titles(&format!("{log}# dmesg\n{log}")).len(), 2);
    // A logger that echoes to the console.
    let echoed: String =
        log.lines().map(|line| format!("{line}\nSep 23 02:31:17 host kernel: {line}\n")).collect();
    assert_eq!(titles(&echoed).len(), 2);
}

#[test]
fn the_same_warning_twice_is_two_reports() {
    let log = stamped(1_000_000, "", WARN) + &stamped(2_000_000, "", WARN);
    assert_eq!(titles(&log).len(), 2);
}

#[test]
fn logs_without_times_are_read() {
    assert_eq!(titles(OOPS), ["NULL pointer dereference in queue_take"]);
    assert_eq!(titles(&WARN.replace('\n', "\r\n")), ["WARNING in stop_timer"]);
}

#[test]
fn a_program_s_words_are_no_report() {
    let log = stamped(1_000_000, "", "booted\n")
        + "WARNING: the database is old\nBUG: something in my program\n"
        + "Sep 23 02:31:17 host app[1]: WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2\n";
    assert_eq!(titles(&log), [] as [&str; 0]);
}

#[test]
fn programs_that_print_inside_do_not_end_a_report() {
    let mut log = String::new();
    for line in stamped(5_000_000, "", OOPS).lines() {
        log.push_str(line);
        log.push('\n');
        log.push_str(&"a program's line\n".repeat(30));
    }
    let splats = read(&log);
    assert_eq!(splats.len(), 1);
    assert_eq!(splats[0].panic.as_deref(), Some("Fatal exception"));
    assert!(splats[0].lines.iter().all(|line| !line.contains("program's")));
}

#[test]
fn a_panic_by_itself_is_a_report() {
    let log = "[    2.000000] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\n";
    let splats = read(log);
    assert_eq!(splats[0].title, "kernel panic: VFS: Unable to mount root fs");
    assert_eq!(splats[0].kind, Kind::Panic);
}

#[test]
fn what_is_cut_or_torn_is_marked() {
    let cut = read("[    1.000000] WARNING: CPU: 0 PID: 1 at a/b.c:1 f+0x1/0x2\n");
    assert_eq!(cut[0].corrupted, Some(Corruption::NoTrace));
    let torn = read("[    1.000000] BUG: unable to handle kernel [    1.000001] other text\n");
    assert_eq!(torn[0].corrupted, Some(Corruption::Torn));
    let dropped = stamped(1_000_000, "", WARN)
        .replace("[    1.000006]", "** 9 printk messages dropped ** [    1.000006]");
    assert_eq!(read(&dropped)[0].corrupted, Some(Corruption::Dropped));
}

#[test]
fn a_stall_takes_in_the_stack_of_the_other_processor() {
    let log = stamped(
        1_000_000,
        "[    C0]",
        "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:\n\
         rcu: \t1-....: (1 GPs behind) idle=7a2/1/0 softirq=3/3 fqs=20\n\
         \t(detected by 0, t=6002 jiffies, g=9981, q=283)\n\
         Sending NMI from CPU 0 to CPUs 1:\n",
    ) + &stamped(
        1_000_100,
        "[  T444]",
        "NMI backtrace for cpu 1\n\
         CPU: 1 PID: 444 Comm: spinner Not tainted 6.1.0 #1\n\
         RIP: 0010:deep_down+0x1/0x2\n\
         Call Trace:\n spin_write+0x1/0x2\n vfs_write+0x1/0x2\n do_syscall_64+0x1/0x2\n",
    );
    let splats = read(&log);
    assert_eq!(splats.len(), 1, "{splats:#?}");
    assert_eq!(splats[0].title, "RCU stall in spin_write");
    assert_eq!(splats[0].task.as_ref().unwrap().pid, Some(444));
}

#[test]
fn sanitizers_say_how_memory_was_accessed_and_by_whom() {
    let log = stamped(
        1_000_000,
        "",
        "==================================================================\n\
         BUG: KASAN: slab-use-after-free in memcpy+0x1/0x2\n\
         Read of size 8 at addr ffff888012345678 by task user/99\n\
         \n\
         CPU: 0 PID: 99 Comm: user Not tainted 6.1.0 #1\n\
         Call Trace:\n <TASK>\n dump_stack_lvl+0x1/0x2\n kasan_report+0x1/0x2\n memcpy+0x1/0x2\n mine+0x1/0x2\n\
         \n\
         Allocated by task 98:\n kmalloc+0x1/0x2\n theirs+0x1/0x2\n\
         \n\
         Freed by task 97:\n kfree+0x1/0x2\n others+0x1/0x2\n\
         ==================================================================\n",
    );
    let splats = read(&log);
    assert_eq!(splats.len(), 1);
    assert_eq!(splats[0].title, "KASAN: slab-use-after-free read in mine");
    let sections: Vec<_> = splats[0].traces.iter().map(|trace| trace.title.as_str()).collect();
    assert_eq!(sections, ["Call Trace", "Allocated by task 98", "Freed by task 97"]);
    assert_eq!((splats[0].begin.line, splats[0].end.line), (1, 20));
}

#[test]
fn another_boot_is_a_report() {
    let log = stamped(1_000_000, "", "running\n")
        + "Booting the kernel.\n"
        + &stamped(0, "", "Linux version\n");
    assert_eq!(read(&log)[0].kind, Kind::Reboot);
    assert_eq!(titles("Booting the kernel.\n[    0.000000] Linux version\n"), [] as [&str; 0]);
}

#[test]
fn memory_stays_bounded_whatever_comes() {
    let mut reader = Reader::default();
    let mut found = 0;
    // Reports that never end, from ever new writers.
    for at in 0..2_000u64 {
        let caller = format!("[{:>7}]", format!("T{at}"));
        let text = "BUG: KASAN: use-after-free in f+0x1/0x2\nCall Trace:\n g+0x1/0x2\n";
        found += reader.feed(stamped(1_000_000 + at, &caller, text).as_bytes()).len();
    }
    assert!(found >= 1_900, "{found}");
    // One report with a trace without end.
    let mut reader = Reader::default();
    reader.feed(stamped(1_000_000, "", "BUG: KASAN: use-after-free in f+0x1/0x2\n").as_bytes());
    for _ in 0..1_000 {
        reader.feed(stamped(1_000_001, "", &" g+0x1/0x2\n".repeat(100)).as_bytes());
    }
    let splats = reader.finish();
    assert!(splats[0].lines.len() <= MAX_LINES);
    assert!(splats[0].traces.iter().map(|trace| trace.frames.len()).sum::<usize>() <= 2_000);
}

#[test]
fn chunks_make_no_difference() {
    let log = stamped(1_000_000, "", WARN) + &stamped(60_000_000, "", OOPS);
    let mut reader = Reader::default();
    let mut splats = Vec::new();
    for byte in log.as_bytes() {
        splats.extend(reader.feed(&[*byte]));
    }
    splats.extend(reader.finish());
    assert_eq!(splats, read(&log));
}

#[test]
fn a_gate_says_what_counts() {
    let splats = read(&stamped(1_000_000, "", WARN));
    let all =
        |patterns: &[&str]| patterns.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let gate = Gate::new(Mode::Fail);
    assert_eq!(gate.rule(&splats[0]), Ruling::Counts);
    let gate = gate.allow(&all(&["^nothing$", "WARNING in stop_.*"])).unwrap();
    assert_eq!(gate.rule(&splats[0]), Ruling::Allowed("WARNING in stop_.*"));
    let gate = gate.deny(&all(&["still armed"])).unwrap();
    assert_eq!(gate.rule(&splats[0]), Ruling::Counts);
    let error = Gate::new(Mode::Fail).allow(&all(&["ok", "("])).unwrap_err();
    assert_eq!(error.to_string(), "`(` is no regular expression");
    let error = Gate::new(Mode::Fail).allow(&all(&[r"(\w{1000}){1000}"])).unwrap_err();
    assert!(error.hint().contains("10 MB"), "{error:?}");
}

#[test]
fn lists_of_patterns_have_comments() {
    assert_eq!(gate::patterns("# why\n a b \n\n^c$\r\n"), ["a b", "^c$"]);
}

#[test]
fn json_has_what_a_program_needs() {
    let splats = read(&stamped(5_000_000, "", OOPS));
    let json = serde_json::to_value(&splats[0]).unwrap();
    assert_eq!(json["kind"], "null-pointer");
    assert_eq!(json["taint"], "WO");
    assert_eq!(json["traces"][0]["frames"][0]["role"], "instruction");
    assert_eq!(json["begin"]["line"], 1);
}
