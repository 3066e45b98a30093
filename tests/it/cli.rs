//! The command line without a boot: usage, hints, exit codes, `--dry-run`.

use crate::support::vmtest;

#[test]
fn help_and_version_go_to_stdout() {
    let done = vmtest(["--help"]).run();
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    done.code(0);
    for word in
        ["--arch", "--share", "--ro-dir", "--timeout", "124    timed out", "assets", "shell"]
    {
        assert!(text.contains(word), "`{word}` is missing in:\n{text}");
    }
    vmtest(["--version"]).run().code(0).stdout(concat!("vmtest ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn wrong_usage_exits_with_2_and_names_the_value() {
    for (args, shown) in [
        (&["--arch", "vax"][..], "unknown architecture `vax`"),
        (&["--timeout", "900"], "900"),
        (&["--memory", "lots"], "lots"),
        (&["--accel", "xen"], "unknown accelerator `xen`"),
        (&["--net", "tap"], "unknown kind of network `tap`"),
        (&["--drive", "x,rw"], "unknown setting `rw`"),
        (&["--no-such-option"], "--no-such-option"),
        (&["--event", "noise"], "it has no name or no file"),
        (&["--env", "=x"], "it has no name or no value"),
        (&["--qemu", "'x"], "quote"),
        (&["assets", "path", "vax"], "vax"),
    ] {
        let done = vmtest(args).run();
        done.code(2).says(shown);
        assert!(done.stdout.is_empty(), "{args:?} wrote to stdout");
    }
}

#[test]
fn wrong_values_of_the_environment_are_named() {
    for (name, value) in [("VMTEST_ARCH", "vax"), ("VMTEST_TIMEOUT", "900"), ("VMTEST_QEMU", "'x")]
    {
        vmtest(["--dry-run"]).env(name, value).run().code(2).says(name).says("hint:");
    }
}

#[test]
fn options_that_cannot_be_are_told_before_anything_is_started() {
    let dir = tempfile::tempdir().unwrap();
    let share = |tag: &str| format!("--share={}:{tag}", dir.path().display());
    for (args, shown) in [
        (vec!["--memory=0".to_owned()], "is not within 1M to 4T"),
        (vec!["--memory=900T".to_owned()], "is not within 1M to 4T"),
        (vec!["--memory=8G".to_owned(), "--arch=arm".to_owned()], "a guest of arm can have"),
        (vec!["--cpus=0".to_owned()], "number of processors of 0 is out of range"),
        (vec!["--cpus=5000".to_owned()], "out of range"),
        (vec![share("a"), share("a")], "two 9p shares are called `a`"),
        (vec![share(&"t".repeat(32))], "is 32 bytes long, virtio-9p allows 31"),
        (vec!["--append=a=\"b".to_owned()], "quote"),
        (vec![format!("--append=x={}", "y".repeat(5000))], "2047"),
        (
            vec!["--event=a=/dev/null".to_owned(), "--event=a=/dev/null".to_owned()],
            "two virtio ports are called `a`",
        ),
    ] {
        let done = vmtest(["--dry-run"]);
        let done = args.iter().fold(done, |run, arg| run.arg(arg)).run();
        // The error stands in a line of its own, and some have their number in the hint only.
        done.code(2).says(shown).says("error: ").says("hint:");
    }
}

#[test]
fn dry_run_prints_a_line_that_a_shell_splits_into_the_same_arguments() {
    let dir = tempfile::tempdir().unwrap();
    let odd = dir.path().join("a, 'b\"\n\u{e4}");
    std::fs::create_dir(&odd).unwrap();
    let done =
        vmtest(["--arch=riscv64", "--dry-run"]).arg(format!("--share={}:odd", odd.display())).run();
    done.code(0);
    let line = done.stdout.clone();
    let words = vmtest::quote::split(std::os::unix::ffi::OsStrExt::from_bytes(&line[..])).unwrap();
    let fsdev = words.iter().position(|word| word == "-fsdev").expect("there is a share");
    let value = words[fsdev + 1].to_str().unwrap();
    let path = odd.display().to_string().replace(',', ",,");
    assert!(value.contains(&format!("path={path},")), "{value}");
    assert!(words.iter().any(|word| word.to_str().unwrap().contains("rdinit=/.vmtest/guest")));
}

#[test]
fn completions_and_manual_page_are_generated() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let done = vmtest(["completions", shell]).run();
        done.code(0);
        assert!(String::from_utf8_lossy(&done.stdout).contains("ro-dir"), "{shell}");
    }
    let done = vmtest(["man"]).run();
    done.code(0);
    assert!(String::from_utf8_lossy(&done.stdout).contains(".TH vmtest"));
}

#[test]
fn assets_are_listed_verified_and_located() {
    crate::support::assets(vmtest::arch::Arch::Riscv64);
    let done = vmtest(["assets", "list"]).run();
    done.code(0);
    assert!(String::from_utf8_lossy(&done.stdout).contains("riscv64  kernel"));
    let done = vmtest(["assets", "list", "--json"]).run();
    let list: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    let kernel = list["guests"]["riscv64"]["kernel"]["path"].as_str().unwrap().to_owned();
    vmtest(["assets", "path", "riscv64", "kernel"]).run().code(0).stdout(&format!("{kernel}\n"));
    vmtest(["assets", "path", "riscv64", "nothing"]).run().code(69).says("names no `nothing`");
    vmtest(["assets", "verify"]).run().code(0);
}

#[test]
fn a_broken_manifest_is_an_error_and_so_is_a_changed_asset() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = dir.path().join("assets.json");
    let run = || vmtest(["assets", "verify"]).env("VMTEST_ASSETS", &manifest);
    run().run().code(69).says("there is no asset manifest").says("hint:");
    std::fs::write(&manifest, "{").unwrap();
    run().run().code(69).says("is broken");
    std::fs::write(dir.path().join("k"), "kernel").unwrap();
    std::fs::write(
        &manifest,
        r#"{"schema":1,"guests":{"arm":{"kernel":{"path":"k","version":"1","sha256":"00"}}}}"#,
    )
    .unwrap();
    run().run().code(69).says("arm kernel").says("has changed");
}

#[test]
fn env_gives_the_pins_to_a_program() {
    let guest = crate::support::assets(vmtest::arch::Arch::Arm64);
    let done = vmtest([
        "env",
        "--arch",
        "arm64",
        "--",
        "sh",
        "-c",
        "echo $VMTEST_ARCH; echo $VMTEST_KERNEL",
    ])
    .run();
    let kernel = guest.kernel.unwrap().image.path;
    done.code(0).stdout(&format!("arm64\n{}\n", kernel.display()));
    vmtest(["env", "--", "/no/such/program"]).run().code(69).says("cannot run");
    vmtest(["env", "--", "sh", "-c", "exit 9"]).run().code(9);
}

#[test]
fn the_readme_shows_an_example_that_runs() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let example = std::fs::read_to_string(root.join("examples/first_boot.rs")).unwrap();
    let shown = readme.split("```rust\n").nth(1).unwrap().split("```").next().unwrap();
    let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(squeeze(&example).contains(&squeeze(shown)), "README.md is not examples/first_boot.rs");
    for link in readme.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        let file = link.split('#').next().unwrap();
        assert!(link.starts_with("http") || root.join(file).exists(), "README.md links to {link}");
    }
}
