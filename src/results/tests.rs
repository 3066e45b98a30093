//! What each reader makes of its format, of other formats, of noise, and of what is cut off.

use proptest::prelude::*;

use super::*;

fn read(format: Format, text: &str, end: &End) -> Vec<Case> {
    let mut reader = Reader::new(format);
    reader.feed(text.as_bytes());
    reader.finish(end)
}

/// One line a case: `group/name status reason`.
#[track_caller]
fn check(format: Format, text: &str, end: &End, expected: &[&str]) -> Vec<Case> {
    let cases = read(format, text, end);
    let told: Vec<String> = cases
        .iter()
        .map(|case| {
            let reason = case.reason.as_deref().map(|text| format!(" ({text})"));
            let group = if case.group.is_empty() { "" } else { &format!("{}/", case.group) };
            format!("{group}{} {}{}", case.name, case.status, reason.unwrap_or_default())
        })
        .collect();
    assert_eq!(told, expected, "{text}");
    cases
}

const OK: End = End::Exited(0);

#[test]
fn the_exit_status_is_a_result() {
    check(Format::Exit, "x", &OK, &[" passed"]);
    check(Format::Exit, "x", &End::Exited(77), &[" failed (exit status 77)"]);
    check(Format::Automake, "x", &End::Exited(77), &[" skipped (exit status 77)"]);
    check(Format::Automake, "", &End::Exited(99), &[" failed (a hard error: exit status 99)"]);
    check(Format::Exit, "", &End::Signal(11), &[" crashed (killed by signal 11)"]);
    let late = End::TimedOut(std::time::Duration::from_secs(3));
    check(Format::Exit, "", &late, &[" timed out (timed out after 3s)"]);
    check(
        Format::Exit,
        "",
        &End::Lost("the guest panicked".into()),
        &[" crashed (the guest panicked)"],
    );
    check(Format::Exit, "", &End::Interrupted, &[" not run (interrupted)"]);
    check(Format::Ktap, "", &End::Exited(4), &[" skipped (exit status 4)"]);
    assert_eq!(read(Format::Exit, "a\nb", &OK)[0].output, "a\nb\n");
}

const LIST: &str = "a: test\nb::c: test\nd: test\ne: test\nf: test\n\n5 tests, 0 benchmarks\n";

#[test]
fn libtest_gives_every_test_a_result() {
    let output = "\nrunning 5 tests\ntest a ... ok\ntest b::c ... FAILED\n\
        test d - should panic ... ok\ntest e ... ignored, not today\ntest f ... noise\nok\n\
        \nfailures:\n\n---- b::c stdout ----\nthread 'b::c' panicked at x.rs:1:1:\nno\n\n\n\
        failures:\n    b::c\n\ntest result: FAILED. 3 passed; 1 failed\n";
    let expected = ["a passed", "b::c failed", "d passed", "e skipped (not today)", "f passed"];
    let end = End::Exited(101);
    let cases = check(Format::Libtest, &format!("{LIST}{output}"), &end, &expected);
    assert_eq!(cases[1].output, "thread 'b::c' panicked at x.rs:1:1:\nno");
    let cases = check(Format::Libtest, output, &end, &expected);
    assert_eq!(cases[1].output, "thread 'b::c' panicked at x.rs:1:1:\nno");
}

#[test]
fn a_libtest_program_that_dies_leaves_every_test_with_a_result() {
    let died = End::Signal(6);
    let cases = read(
        Format::Libtest,
        &format!("{LIST}running 5 tests\ntest a ... ok\ntest b::c ... "),
        &died,
    );
    let statuses: Vec<Status> = cases.iter().map(|case| case.status).collect();
    let rest = [Status::NotRun; 3];
    assert_eq!(statuses, [&[Status::Passed, Status::Crashed][..], &rest].concat());
    for text in ["ok\n", "noise\nok\n", "ok", "FAILED\n", "\n\ntest a ... ok\n"] {
        let text = format!("a: test\nb: test\nrunning 2 tests\ntest a ... {text}");
        assert_eq!(read(Format::Libtest, &text, &died)[0].status, Status::Crashed, "{text:?}");
    }
}

#[test]
fn only_the_last_word_of_a_libtest_test_is_its_result() {
    let end = "test b ... ok\n\ntest result: x\n";
    for (text, expected) in [
        ("ok\nFAILED\n", Status::Failed),
        ("FAILED\nok\n", Status::Passed),
        ("no newline before itok\n", Status::Passed),
        ("no newline before itFAILED\n", Status::Failed),
        ("ok <0.001s>\n", Status::Passed),
        ("FAILED (time limit exceeded)\n", Status::TimedOut),
        ("bench:          12 ns/iter (+/- 1)\n", Status::Passed),
        ("\nfailures:\n\n---- a stdout ----\nok\n", Status::Passed),
        ("test result: no\nok\n", Status::Passed),
    ] {
        let text = format!("a: test\nb: test\nrunning 2 tests\ntest a ... {text}{end}");
        let cases = read(Format::Libtest, &text, &OK);
        assert_eq!(cases[0].status, expected, "{text:?}");
        assert_eq!(cases[1].status, Status::Passed, "{text:?}");
    }
}

#[test]
fn several_libtest_programs_may_have_tests_of_one_name() {
    let program = "running 1 test\ntest x ... ok\n\ntest result: ok.\n\n";
    check(Format::Libtest, &format!("{program}{program}"), &OK, &["x passed", "x #2 passed"]);
    let status = End::Exited(101);
    let expected = ["x passed", " failed (exit status 101, though none of its tests failed)"];
    check(Format::Libtest, program, &status, &expected);
}

#[test]
fn go_events_become_results() {
    let text = r#"
{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:7: no\n"}
{"Action":"fail","Package":"p","Test":"TestA","Elapsed":0.1}
no json
{"Action":"run","Package":"p","Test":"TestA/sub"}
{"Action":"skip","Package":"p","Test":"TestA/sub"}
{"Action":"pass","Package":"q","Test":"TestA"}
{"Action":"run","Package":"q","Test":"TestB"}
{"Action":"fail","Package":"p"}"#;
    let expected = [
        "p/TestA failed",
        "p/TestA/sub skipped",
        "q/TestA passed",
        "q/TestB crashed (the program ended in it: exit status 1)",
    ];
    let cases = check(Format::Go, text, &End::Exited(1), &expected);
    assert_eq!(cases[0].output, "    a_test.go:7: no");
    assert_eq!(cases[0].duration, Some(std::time::Duration::from_millis(100)));
}

#[test]
fn a_go_test_past_its_time_is_timed_out_and_those_after_it_have_not_run() {
    let text = r#"
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"--- FAIL: TestA (0.00s)\n"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"run","Package":"p","Test":"TestSleep"}
{"Action":"output","Package":"p","Test":"TestSleep","Output":"panic: test timed out after 1s\n"}
{"Action":"fail","Package":"p","Test":"TestSleep"}
{"Action":"fail","Package":"p"}
{"Action":"listed","Package":"p","Test":"TestSleep"}
{"Action":"listed","Package":"p","Test":"TestZ"}"#;
    let statuses: Vec<Status> =
        read(Format::Go, text, &End::Exited(1)).into_iter().map(|case| case.status).collect();
    assert_eq!(statuses, [Status::Failed, Status::TimedOut, Status::NotRun]);
}

#[test]
fn gos_text_becomes_results() {
    let text = "TestA\nTestB\nTestLate\nTestNever\n=== RUN   TestA\n=== RUN   TestA/sub\n    a_test.go:7: no\n\
        --- FAIL: TestA (0.25s)\n    --- FAIL: TestA/sub (0.00s)\n=== RUN   TestB\n=== PAUSE TestB\n\
        === CONT  TestB\nopen line\u{16}--- SKIP: TestB (0.00s)\n=== RUN   TestLate\n\
        panic: test timed out after 1s\nrunning tests:\n\tTestLate (1s)\n";
    let expected = [
        "TestA failed",
        "TestB skipped",
        "TestLate timed out",
        "TestNever not run (the program ended before it: exit status 2)",
        "TestA/sub failed",
    ];
    let cases = check(Format::Go, text, &End::Exited(2), &expected);
    assert_eq!(cases[4].output, "    a_test.go:7: no");
    assert_eq!(cases[1].output, "open line");
    assert!(cases[2].output.starts_with("panic: test timed out"));
    let quiet = "--- FAIL: TestX (0.00s)\n    x_test.go:3: bad\nFAIL\n";
    let cases = check(Format::Go, quiet, &End::Exited(1), &["TestX failed"]);
    assert_eq!(cases[0].output, "    x_test.go:3: bad");
}

#[test]
fn tap_has_directives_subtests_and_blocks() {
    let text = "TAP version 14\n1..6\nok 1 - a\nnot ok 2 - b \\# c\n  ---\n  duration_ms: 12\n  message: x\n  ...\n\
        # at line 7\nok 3 - d # SKIP no disk\nnot ok 4 e # TODO later\n    # Subtest: inner\n    1..2\n    ok 1 - i\n\
        \x20   not ok 2 - j\nnot ok 5 - inner\nok 6\n";
    let expected = [
        "a passed",
        "b # c failed",
        "d skipped (no disk)",
        "e skipped (todo: later)",
        "inner/i passed",
        "inner/j failed",
        "test 6 passed",
    ];
    let cases = check(Format::Tap, text, &End::Exited(1), &expected);
    assert!(cases[1].output.contains("message: x") && cases[1].output.contains("# at line 7"));
    assert_eq!(cases[1].duration, Some(std::time::Duration::from_millis(12)));
    check(Format::Tap, "1..0 # SKIP no network\n", &OK, &[" skipped (no network)"]);
    let expected = ["a passed", "test 2 not run (the program bailed out: no disk)"];
    let bailed = "1..2\nok 1 a\nBail out! no disk\n";
    check(Format::Tap, bailed, &End::Exited(1), &expected);
    let expected = ["a passed", "bail out failed (the program bailed out: no disk)"];
    check(Format::Tap, "ok 1 a\nBail out! no disk\n", &OK, &expected);
    // A plan may come last.
    check(Format::Tap, "ok 1 - issue #12\n1..1\n", &OK, &["issue #12 passed"]);
}

#[test]
fn what_a_plan_has_and_no_line_names_has_a_result() {
    let text = "1..4\nok 1 - a\nok 2 - b\nnot ok 3 - c";
    let lost = End::Lost("the guest panicked".into());
    let expected = [
        "a passed",
        "b passed",
        "test 3 crashed (the program ended in it: the guest panicked)",
        "test 4 not run (the program ended before it: the guest panicked)",
    ];
    check(Format::Tap, text, &lost, &expected);
    let expected = ["a passed", "test 2 not run (the program ended before it: exit status 0)"];
    check(Format::Tap, "1..2\nok 1 a\n", &OK, &expected);
    let cases = read(Format::Tap, "1..4000000000\n", &OK);
    assert_eq!(cases.len(), 1000);
    assert_eq!(cases[999].name, "3999999001 more tests");
}

#[test]
fn ktap_nests_and_mixes_with_a_kernels_log() {
    let text = "KTAP version 1\n1..3\n  KTAP version 1\n  # Subtest: suite\n  1..2\n[ 1.0] eth0: up\n\
        \x20 # one: EXPECTATION FAILED at x.c:3\n  not ok 1 one\n  ok 2 two # SKIP not here\nnot ok 2 suite\n\
        ok 2 flat # XFAIL known\nnot ok 3 slow # TIMEOUT 45 seconds\n";
    let expected = [
        "suite/one failed",
        "suite/two skipped (not here)",
        "flat passed (known)",
        "slow timed out (timed out: 45 seconds)",
    ];
    let cases = check(Format::Ktap, text, &End::Exited(1), &expected);
    assert!(cases[0].output.contains("EXPECTATION FAILED"), "{:?}", cases[0]);
    // Its parts pass, and it fails all the same: its clean-up did.
    let text = "KTAP version 1\n1..1\n  1..1\n  ok 1 a\nnot ok 1 suite\n";
    check(Format::Ktap, text, &End::Exited(1), &["suite/a passed", "suite failed"]);
}

#[test]
fn kselftests_output_is_read_with_what_its_programs_say() {
    let text = "TAP version 13\n1..4\n# timeout set to 45\n# selftests: futex: run.sh\n# TAP version 13\n# 1..2\n\
        # ok 1 wait\n# not ok 2 wake\nnot ok 1 selftests: futex: run.sh # exit=1\n# selftests: timers: posix\n\
        # noise\nok 2 selftests: timers: posix # SKIP\n# selftests: timers: slow\n\
        not ok 3 selftests: timers: slow # TIMEOUT 45 seconds\n# selftests: timers: last\n# wor";
    let expected = [
        "futex: run.sh/wait passed",
        "futex: run.sh/wake failed",
        "timers: posix skipped",
        "timers: slow timed out (timed out: 45 seconds)",
        "timers: last crashed (the program ended in it: the guest panicked)",
    ];
    check(Format::Kselftest, text, &End::Lost("the guest panicked".into()), &expected);
}

#[test]
fn gtest_is_read_as_text_and_as_xml() {
    let text = "Math.\n  Adds\n  Divides\nIo.  # TypeParam = int\n  Reads/0  # GetParam() = 1\n\
        [==========] Running 3 tests from 2 test suites.\n[----------] 2 tests from Math\n[ RUN      ] Math.Adds\n\
        [       OK ] Math.Adds (3 ms)\n[ RUN      ] Math.Divides\nx.cc:7: Failure\nopen[  FAILED  ] Math.Divides (0 ms)\n\
        [ RUN      ] Io.Reads/0\n";
    let expected = [
        "Math/Adds passed",
        "Math/Divides failed",
        "Io/Reads/0 crashed (the program ended in it: killed by signal 6)",
    ];
    let cases = check(Format::Gtest, text, &End::Signal(6), &expected);
    assert_eq!(cases[1].output, "x.cc:7: Failure\nopen");
    assert_eq!(cases[0].duration, Some(std::time::Duration::from_millis(3)));
    let xml = "<?xml version=\"1.0\"?>\n<testsuites name=\"AllTests\"><testsuite name=\"Math\">\n\
        <testcase name=\"Adds\" status=\"run\" result=\"completed\" time=\"0.25\" classname=\"Math\" />\n\
        <testcase name=\"Divides\" status=\"run\" time=\"0\" classname=\"Math\">\n\
        <failure message=\"x.cc:7&#x0A;a &lt; b\" type=\"\"><![CDATA[x.cc:7\na < b]]></failure></testcase>\n\
        <testcase name=\"Off\" status=\"notrun\" classname=\"Math\"/>\n<testcase name=\"Cut\" status=\"run\" classname=\"Ma";
    let expected = ["Math/Adds passed", "Math/Divides failed (x.cc:7)", "Math/Off skipped"];
    let cases = check(Format::Gtest, xml, &End::Exited(1), &expected);
    assert_eq!(cases[1].output, "x.cc:7\na < b");
}

#[test]
fn a_gigabyte_and_many_tests_stay_within_bounds() {
    let mut reader = Reader::new(Format::Tap);
    let line = vec![b'x'; 1 << 20];
    for _ in 0..256 {
        reader.feed(&line);
    }
    reader.feed(b"\nnot ok 1 - big\n");
    let cases = reader.finish(&End::Exited(1));
    assert_eq!(cases.len(), 1);
    assert!(cases[0].output.len() < 64 << 10 && cases[0].output.contains("bytes left out"));

    let mut reader = Reader::new(Format::Tap);
    for number in 0..MAX_CASES + 500 {
        reader.feed(
            format!("{}ok {number} same\n", if number == MAX_CASES + 7 { "not " } else { "" })
                .as_bytes(),
        );
    }
    let cases = reader.finish(&OK);
    assert_eq!(cases.len(), MAX_CASES + 1);
    let last = cases.last().unwrap();
    assert_eq!((last.status, &*cases[1].name), (Status::Failed, "same #2"));
    assert!(last.name.ends_with("more tests"), "{last:?}");
}

/// Pieces of all formats, whole and broken.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => proptest::sample::select(PIECES).prop_map(|text| text.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..20),
        1 => Just(b"\n".to_vec()),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

const PIECES: &[&str] = &[
    "ok 1 a\n",
    "not ok 2 b # TIMEOUT 3\n",
    "  ok 1 c\n",
    "    not ok 9\n",
    "\tok 3 - d # SKIP x\n",
    "1..3\n",
    "  1..2\n",
    "# Subtest: s\n",
    "  # Subtest: t\n",
    "KTAP version 1\n",
    "  KTAP version 1\n",
    "Bail out! x\n",
    "  ---\n",
    "  ...\n",
    "# selftests: a: b\n",
    "# ok 1 c\n",
    "# # not ok 1 d\n",
    "[    1.0] ok 4 e\n",
    "test a ... ok\n",
    "test b ... ",
    "a: test\n",
    "b: test\n",
    "running 2 tests\n",
    "\nfailures:\n",
    "---- a stdout ----\n",
    "\ntest result: ok\n",
    "FAILED\n",
    "=== RUN   TestA\n",
    "--- FAIL: TestA (0.1s)\n",
    "{\"Action\":\"run\",\"Package\":\"p\",\"Test\":\"T\"}\n",
    "{\"Action\":\"fail\",\"Package\":\"p\",\"Test\":\"T\"}\n",
    "panic: test timed out after 1s\n",
    "[ RUN      ] A.B\n",
    "[       OK ] A.B (1 ms)\n",
    "[  FAILED  ] A.B\n",
    "A.\n",
    "  B\n",
    "<?xml version=\"1.0\"?>\n",
    "<testcase name=\"a\" classname=\"b\">",
    "<failure message=\"&lt;\">",
    "<![CDATA[",
    "]]>",
    "</testcase>",
    "<!--",
    "-->",
    "\u{16}",
    "é",
];

fn ends() -> impl Strategy<Value = End> {
    prop_oneof![
        any::<u8>().prop_map(End::Exited),
        Just(End::Signal(9)),
        Just(End::Lost("gone".into())),
        Just(End::TimedOut(std::time::Duration::from_secs(1))),
        Just(End::Interrupted),
    ]
}

proptest! {
    /// Chunks make no difference, names are told apart, and who did not end well is never all good.
    #[test]
    fn any_output_has_results(bytes in pieces(), end in ends(), chunk in 1usize..9) {
        for format in Format::ALL {
            let mut whole = Reader::new(format);
            whole.feed(&bytes);
            let cases = whole.finish(&end);
            let mut cut = Reader::new(format);
            bytes.chunks(chunk).for_each(|chunk| cut.feed(chunk));
            prop_assert_eq!(&cut.finish(&end), &cases);
            prop_assert!(!cases.is_empty());
            let names: std::collections::HashSet<_> =
                cases.iter().map(|case| (&case.group, &case.name)).collect();
            prop_assert_eq!(names.len(), cases.len());
            let ended_well = match &end {
                End::Exited(code) => *code == 0 || Some(*code) == format.skip_code(),
                _ => false,
            };
            if !ended_well {
                prop_assert!(cases.iter().any(|case| !case.status.good()), "{format}: {cases:?}");
            }
        }
    }

    /// What is cut off anywhere names no test that the whole does not, and turns no failure into a pass.
    #[test]
    fn what_is_cut_off_passes_nothing_that_failed(bytes in pieces(), at in any::<prop::sample::Index>()) {
        let at = at.index(bytes.len() + 1);
        for format in Format::ALL {
            let mut reader = Reader::new(format);
            reader.feed(&bytes[..at]);
            let cut = reader.finish(&End::Lost("gone".into()));
            prop_assert!(cut.iter().any(|case| !case.status.good()));
        }
    }
}

/// The data that the kernel's own parser of KUnit is tested with, and what its tests expect of it
/// (`tools/testing/kunit/kunit_tool_test.py` of Linux 6.12).
#[test]
#[ignore = "needs Linux' source, which setup/kernels fetches"]
fn the_kernels_own_data_is_read_as_its_parser_does() {
    let dir = kunit_data();
    let count = |name: &str, end: &End| {
        let bytes = std::fs::read(dir.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut reader = Reader::new(Format::Kunit);
        reader.feed(&bytes);
        let cases = reader.finish(end);
        let of = |status| cases.iter().filter(|case| case.status == status).count();
        let bad = cases.iter().filter(|case| !case.status.good()).count();
        ((of(Status::Passed), of(Status::Skipped), bad), cases)
    };
    for (name, expected) in [
        ("test_is_test_passed-all_passed.log", (10, 0, 0)),
        ("test_is_test_passed-all_passed_nested.log", (7, 0, 0)),
        ("test_is_test_passed-missing_plan.log", (10, 0, 0)),
        ("test_skip_tests.log", (4, 1, 0)),
        ("test_skip_all_tests.log", (0, 5, 0)),
        ("test_strip_hyphen.log", (2, 0, 0)),
        ("test_config_printk_time.log", (10, 0, 0)),
        ("test_multiple_prefixes.log", (10, 0, 0)),
        ("test_interrupted_tap_output.log", (10, 0, 0)),
        ("test_pound_sign.log", (10, 0, 0)),
        ("test_pound_no_prefix.log", (10, 0, 0)),
        ("test_output_with_prefix_isolated_correctly.log", (10, 0, 0)),
        ("test_parse_ktap_output.log", (3, 0, 0)),
        ("test_parse_subtest_header.log", (1, 0, 0)),
        ("test_parse_attributes.log", (1, 0, 0)),
    ] {
        let (counts, cases) = count(name, &OK);
        assert_eq!(counts, expected, "{name}: {cases:#?}");
    }
    for name in [
        "test_insufficient_memory.log",
        "test_is_test_passed-failure.log",
        "test_is_test_passed-no_tests_run_no_header.log",
        "test_is_test_passed-no_tests_run_with_header.log",
    ] {
        let (counts, cases) = count(name, &OK);
        assert!(counts.2 > 0, "{name}: {cases:#?}");
    }
    let lost = End::Lost("the guest panicked".into());
    let (counts, cases) = count("test_kernel_panic_interrupt.log", &lost);
    assert_eq!((counts.0, cases.iter().any(|case| case.status == Status::Crashed)), (8, true));
    assert_eq!(cases[0].group, "kunit-resource-test");
}

/// Where it is: in the source that VMTEST_LINUX_SOURCE names, else in the newest that setup/kernels fetched.
fn kunit_data() -> std::path::PathBuf {
    let sources = match std::env::var_os("VMTEST_LINUX_SOURCE") {
        Some(dir) => vec![std::path::PathBuf::from(dir)],
        None => {
            let environment = crate::options::Environment::read().unwrap();
            let dir = environment.cache_dir.unwrap_or_default().join("source");
            std::fs::read_dir(dir)
                .into_iter()
                .flatten()
                .map(|entry| entry.unwrap().path())
                .collect()
        }
    };
    let data = sources.iter().map(|dir| dir.join("tools/testing/kunit/test_data"));
    data.filter(|dir| dir.is_dir()).max().unwrap_or_else(|| {
        panic!(
            "no tools/testing/kunit/test_data in {sources:?}: run `setup/kernels --update`, or name a \
             tree of Linux' source with VMTEST_LINUX_SOURCE"
        )
    })
}
