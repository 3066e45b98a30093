//! Go: text profiles, and counters that Go's own tool converts.

use super::*;

#[test]
fn go_profiles_have_their_sources() {
    let place = Place::new();
    place.write("build/go.mod", "module example.com/m\n\ngo 1.22\n");
    place.write("build/lib/lib.go", "package lib\n");
    let profile = "mode: set\nexample.com/m/lib/lib.go:4.21,5.11 1 1\n\
                   example.com/m/lib/lib.go:7.2,7.10 1 0\n";
    place.write("suite/run/go/a.coverprofile", profile);
    place.write("suite/run/go/b.coverprofile", "rubbish\n");
    place.record(
        "run",
        "run",
        "amd64",
        &json!({"objects": [{"host": place.at("build/lib.test")}]}),
    );
    let (done, lcov) = place.lcov(&[]);
    done.code(0).says("b.coverprofile: line 1");
    assert!(lcov.contains(&format!("SF:{}\n", place.at("build/lib/lib.go").display())), "{lcov}");
    assert_eq!(fields(&lcov, "lib.go", "DA:"), ["DA:4,1", "DA:5,1", "DA:7,0"]);
    // Counters need Go's own tool.
    place.write("suite/run/go/covmeta.0123", "x");
    place.write("suite/run/go/covcounters.0123.1.2", "x");
    let empty = place.at("empty");
    fs::create_dir(&empty).unwrap();
    let done = vmtest(["coverage", "report"])
        .arg(place.at("suite"))
        .env("PATH", &empty)
        .run()
        .aside("sources are not on this host");
    done.code(0)
        .says("b.coverprofile: line 1")
        .says("there is no `go` to convert it")
        .says("install Go 1.20 or newer");
}

#[test]
fn one_bad_counter_file_of_go_does_not_spoil_the_others() {
    let place = Place::new();
    place.write("build/go.mod", "module example.com/m\n\ngo 1.20\n");
    place.write("build/main.go", "package main\n\nfunc main() {\n\tprintln()\n}\n");
    let go = concat!(env!("CARGO_MANIFEST_DIR"), "/setup/go");
    let build = |args: &[&str]| {
        tool(go).args(args).env("CGO_ENABLED", "0").current_dir(place.at("build")).well()
    };
    build(&["build", "-cover", "-covermode=atomic", "-o", "prog", "."]);
    let counters = place.at("suite/run/go");
    fs::create_dir_all(&counters).unwrap();
    for _ in 0..3 {
        Command::new(place.at("build/prog")).env("GOCOVERDIR", &counters).well();
    }
    place.record("run", "run", "amd64", &json!({"objects": [{"host": place.at("build/prog")}]}));
    let files = |prefix: &str| -> Vec<PathBuf> {
        let mut found = walk(&counters);
        found.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with(prefix));
        found
    };
    let first = files("covcounters.")[0].clone();
    let bytes = fs::read(&first).unwrap();
    fs::write(&first, &bytes[..50]).unwrap();
    let orphan = place.write("suite/run/go/covcounters.0123.1.2", bytes);
    let (done, lcov) = place.lcov(&["--go", go]);
    done.code(0).says(&format!("{}: ", first.display()));
    done.says(&format!("{}: covmeta.0123, which describes", orphan.display()));
    assert_eq!(fields(&lcov, "main.go", "DA:4"), ["DA:4,2"], "{lcov}");
    place.lcov(&["--go", go, "--strict"]).0.seen().code(65);
    // Counters alone are a run, and what is missing is said.
    fs::remove_file(&files("covmeta.")[0]).unwrap();
    fs::remove_file(place.at("suite/run/coverage.json")).unwrap();
    place
        .lcov(&["--go", go])
        .0
        .seen()
        .code(69)
        .says("which describes its program, is not beside it");
}

#[test]
fn programs_that_count_in_different_ways_are_added_up() {
    let place = Place::new();
    place.write("build/go.mod", "module example.com/m\n\ngo 1.20\n");
    place.write("build/main.go", "package main\n\nfunc main() {\n\tprintln()\n}\n");
    let go = concat!(env!("CARGO_MANIFEST_DIR"), "/setup/go");
    let counters = place.at("suite/run/go");
    fs::create_dir_all(&counters).unwrap();
    let mut objects = Vec::new();
    for mode in ["set", "count", "atomic"] {
        let program = place.at("build").join(mode);
        tool(go)
            .args(["build", "-cover", &format!("-covermode={mode}"), "-o", mode, "."])
            .env("CGO_ENABLED", "0")
            .current_dir(place.at("build"))
            .well();
        Command::new(&program).env("GOCOVERDIR", &counters).well();
        objects.push(json!({"host": program}));
    }
    place.record("run", "run", "amd64", &json!({"objects": objects}));
    let (done, lcov) = place.lcov(&["--go", go, "--strict"]);
    done.code(0);
    assert_eq!(fields(&lcov, "main.go", "DA:4"), ["DA:4,3"], "{lcov}");
}

#[test]
fn a_block_whose_count_is_negative_does_not_make_it_100_percent() {
    let place = Place::new();
    let profile = "mode: count\na.go:1.1,2.9 1 -1\na.go:4.1,4.9 1 3\n";
    place.write("suite/run/go/a.coverprofile", profile);
    place.record("run", "run", "amd64", &json!({}));
    let (done, lcov) = place.lcov(&["--fail-under", "100"]);
    done.code(1).says("line 2: a block's count is negative; it counts as not run");
    assert_eq!(fields(&lcov, "a.go", "DA:"), ["DA:1,0", "DA:2,0", "DA:4,3"]);
}

#[test]
fn thousands_of_huge_blocks_cost_no_time() {
    let place = Place::new();
    let mut profile = "mode: set\n".to_owned();
    for number in 1..3000 {
        profile.push_str(&format!("a.go:{number}.1,1048576.9 1 {}\n", number % 2));
    }
    place.write("suite/run/go/a.coverprofile", profile);
    place.record("run", "run", "amd64", &json!({}));
    let (done, lcov) = place.lcov(&[]);
    done.code(0);
    assert!(done.elapsed < Duration::from_secs(30), "{:?}", done.elapsed);
    assert_eq!(fields(&lcov, "a.go", "LF:"), ["LF:1048576"]);
}
