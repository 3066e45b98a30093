//! Counts that cannot be read, line numbers without measure, names that are no text, and directories
//! that may not be entered: nothing of it makes what is covered look like more, or loses the rest.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::*;

/// A report of one lcov file.
fn report_of(text: &str, args: &[&str]) -> Done {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.info");
    fs::write(&path, text).unwrap();
    vmtest(["coverage", "report"]).arg(path).args(args).run().aside("sources are not on this host")
}

#[test]
fn a_line_whose_count_is_negative_does_not_make_it_100_percent() {
    for (count, wrong) in [("-1", "is negative"), ("x", "is no number"), ("", "is no number")] {
        let text = format!("SF:a.c\nDA:1,{count}\nDA:2,5\nend_of_record\n");
        report_of(&text, &["--fail-under", "100"])
            .code(1)
            .says(&format!("line 2: a line's count {wrong}; it counts as not run"))
            .says("1 of 2 lines are covered");
    }
}

#[test]
fn a_branch_or_function_whose_count_is_negative_counts_as_not_run() {
    let text = "SF:a.c\nFN:1,f\nFNDA:-4,f\nFNL:0,2\nFNA:0,-4,g\nBRDA:1,0,0,-4\nDA:1,1\n\
                end_of_record\n";
    let dir = tempfile::tempdir().unwrap();
    let (path, out) = (dir.path().join("x.info"), dir.path().join("out.info"));
    fs::write(&path, text).unwrap();
    let done = vmtest(["coverage", "report"])
        .arg(path)
        .arg("--lcov")
        .arg(&out)
        .run()
        .aside("sources are not on this host");
    done.code(0).says("line 3: a function's count is negative").says("(and 2 more)");
    let lcov = fs::read_to_string(out).unwrap();
    for line in ["FNDA:0,f", "FNDA:0,g", "FNF:2", "BRDA:1,0,0,0", "BRF:1"] {
        assert!(lcov.lines().any(|own| own == line), "{line} in {lcov}");
    }
}

#[test]
fn a_line_number_that_is_none_is_called_that() {
    for (line, said) in [
        ("DA:x,1", "a line's number `x` is not from 1 to 4294967295"),
        ("DA:0,1", "a line's number `0` is not from 1 to 4294967295"),
        ("DA:4294967296,1", "a line's number `4294967296` is not from"),
        ("BRDA:x,0,0,1", "a branch's line `x` is not from"),
        ("FN:x,f", "a function's line `x` is not from"),
    ] {
        report_of(&format!("SF:a.c\nDA:1,1\n{line}\nend_of_record\n"), &["--strict"])
            .code(65)
            .says(&format!("line 3: {said}"));
    }
}

#[test]
fn the_largest_line_number_costs_no_time() {
    let dir = tempfile::tempdir().unwrap();
    let text = "SF:a.c\nDA:4294967295,1\nDA:2147483647,1\nend_of_record\n";
    let done = report_of(text, &["--html", dir.path().join("html").to_str().unwrap()]);
    done.code(0);
    assert!(done.elapsed < Duration::from_secs(5), "{:?}", done.elapsed);
}

#[test]
fn two_functions_of_one_name_are_each_at_its_line() {
    let place = Place::new();
    let text = "SF:a.c\nFNL:0,3,7\nFNA:0,5,f\nFNL:1,9,12\nFNA:1,0,f\nDA:3,5\nend_of_record\n\
                SF:b.c\nFN:3,f\nFN:9,f\nFNDA:5,f\nFNDA:0,f\nDA:3,5\nend_of_record\n";
    place.write("suite/x.info", text);
    let out = place.at("out.info");
    vmtest(["coverage", "merge"])
        .arg(place.at("suite/x.info"))
        .arg("-o")
        .arg(&out)
        .run()
        .aside("sources are not on this host")
        .code(0);
    let lcov = fs::read_to_string(out).unwrap();
    for source in ["a.c", "b.c"] {
        assert_eq!(fields(&lcov, source, "FN:"), ["FN:3,f", "FN:9,f@9"], "{lcov}");
        assert_eq!(fields(&lcov, source, "FNDA:"), ["FNDA:5,f", "FNDA:0,f@9"], "{lcov}");
    }
}

#[test]
fn a_branch_with_an_expression_is_another_one_than_a_numbered_one() {
    let place = Place::new();
    let ways = "BRDA:14,(a && b),-\n".replace("14,", "14,0,");
    for (ways, expected) in [
        (format!("BRDA:14,e0,0,1\n{ways}"), 2),
        (format!("{ways}BRDA:14,0,0,1\n"), 2),
        ("BRDA:14,0,0,1\nBRDA:14,e0,0,0\n".to_owned(), 2),
        ("BRDA:14,70000,0,1\nBRDA:14,80000,0,-\n".to_owned(), 2),
        ("BRDA:14,0,70000,1\nBRDA:14,0,80000,-\n".to_owned(), 2),
        (ways.repeat(2), 1),
    ] {
        let file = place.write("x.info", format!("SF:a.c\n{ways}DA:14,1\nend_of_record\n"));
        let out = place.at("out.info");
        vmtest(["coverage", "merge"])
            .arg(file)
            .arg("-o")
            .arg(&out)
            .run()
            .aside("sources are not on this host")
            .code(0);
        let lcov = fs::read_to_string(out).unwrap();
        assert_eq!(fields(&lcov, "a.c", "BRF:"), [format!("BRF:{expected}")], "{ways}{lcov}");
    }
}

#[test]
fn a_run_that_may_not_be_entered_is_named() {
    let place = Place::new();
    for run in ["open", "closed", "sealed"] {
        let profile = format!("mode: set\n{run}.go:1.1,1.9 1 1\n");
        place.write(&format!("suite/{run}/go/a.coverprofile"), profile);
        place.record(run, run, "amd64", &json!({}));
    }
    let mode = |path: &str, mode| {
        fs::set_permissions(place.at(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("suite/closed", 0);
    // It can be listed, and nothing in it looked at.
    mode("suite/sealed", 0o444);
    let report = |args: &[&str]| {
        let run = vmtest(["coverage", "report"]).arg(place.at("suite")).args(args);
        run.bound_by_modes().run().aside("sources are not on this host")
    };
    let done = report(&[]);
    done.code(0)
        .says(&format!("{}: cannot be entered", place.at("suite/closed").display()))
        .says(&format!("{}: cannot be entered", place.at("suite/sealed").display()))
        .says("sealed/go: cannot be entered")
        .says("who may read it?");
    report(&["--strict"]).seen().code(65);
    fs::rename(place.at("suite/open"), place.at("elsewhere")).unwrap();
    report(&[]).code(69).says("cannot be entered");
    mode("suite", 0);
    report(&[]).code(69).says("suite: cannot be entered").says("who may read it?");
    for (path, open) in [("suite", 0o755), ("suite/closed", 0o755), ("suite/sealed", 0o755)] {
        mode(path, open);
    }
}

#[test]
fn one_source_whose_name_is_no_utf8_costs_the_others_nothing() {
    for compiler in ["gcc", "clang"] {
        let place = Place::new();
        place.gcov_program(compiler, "run", "plain");
        let odd = OsStr::from_bytes(b"odd\xff.c");
        let build = place.at("build");
        fs::write(build.join(odd), PROGRAM).unwrap();
        tool(compiler)
            .args(["--coverage", "-c", "-o", "odd.o"])
            .arg(odd)
            .current_dir(&build)
            .well();
        tool(compiler).args(["--coverage", "odd.o", "-o", "odd"]).current_dir(&build).well();
        let tree = place.at("suite/run/gcc");
        Command::new(build.join("odd")).env("GCOV_PREFIX", &tree).well();
        place.record("run", "run", "amd64", &json!({}));
        let (done, lcov) = place.lcov(&["--strict"]);
        done.code(0);
        assert!(fields(&lcov, "/build/plain.c", "DA:").contains(&"DA:3,10".to_owned()), "{lcov}");
        let odd = fields(&lcov, r"/build/odd\xff.c", "DA:");
        assert!(odd.contains(&"DA:3,10".to_owned()), "{compiler}: {lcov}");
    }
}
