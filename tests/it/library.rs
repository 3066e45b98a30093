//! The library against real guests and against a QEMU that is none.

use std::sync::mpsc::channel;
use std::time::Duration;

use vmtest::arch::Arch;
use vmtest::blocking;
use vmtest::configure::{
    Config, event_callback, p9_boot_directory, p9_directory, with_initramfs, with_kernel,
    with_qemu_args, with_qemu_command, with_serial_output, with_task, with_vm_timeout,
    with_vmtest_ident,
};
use vmtest::options::Environment;
use vmtest::results::Status;
use vmtest::session::{self, Command, Init};
use vmtest::testing::{self, go, libtest, script, start_for_test};
use vmtest::vm::{BoxError, End, MachineError, Task, Verdict};
use vmtest_guest::proto::ExitStatus;

use crate::support::assets;

/// A QEMU that sleeps: what is around a machine can be tested without one.
const NO_QEMU: &str = "sh -c 'sleep 100' sh";

#[path = "../../examples/custom_device.rs"]
mod custom_device;
#[path = "../../examples/events_and_console.rs"]
mod events_and_console;
#[path = "../../examples/first_boot.rs"]
mod first_boot;

/// `VMTEST_ARCH`, else the host's architecture: `VMTEST_ARCH=arm cargo test --test it library::` runs
/// all that can be on another.
fn guest() -> Arch {
    let environment = Environment::read().expect("the environment is usable");
    let arch = session::guest_arch(None, &environment).expect("a host that vmtest knows");
    assets(arch);
    arch
}

/// For what needs programs of the host in the guest.
fn host() -> Arch {
    let arch = Arch::host().expect("a host that vmtest knows");
    assets(arch);
    arch
}

/// A report of the kernel's that counts fails a run, and the record has it whole.
#[test]
fn a_kernels_fault_fails_a_run_where_that_is_asked_for() {
    use vmtest::configure::with_splats;
    use vmtest::diagnosis::{Gate, Kind, Mode};
    let victim = "(echo 1000 >/proc/self/oom_score_adj; exec sleep 1000)";
    let script = format!("{victim} & sleep 0.1; echo f >/proc/sysrq-trigger; wait; exit 0");
    let command = Command::new("sh").args(["-c", &script]);
    let gate = Gate::new(Mode::Fail).allow(&["WARNING in".to_owned()]).unwrap();
    let run = blocking::run(Arch::Amd64, with_splats(gate), command).unwrap();
    let splats = &run.record.splats;
    assert_eq!((splats.count(), splats.reports[0].splat.kind), (1, Kind::OutOfMemory));
    let verdict = run.record.outcome.verdict;
    assert_eq!(verdict, Verdict::KernelFault { title: "out of memory".into(), count: 1 });
}

#[test]
fn example_custom_device() {
    guest();
    custom_device::main().unwrap();
}

#[test]
fn example_first_boot() {
    host();
    first_boot::main().unwrap();
}

#[test]
fn example_events_and_console() {
    guest();
    events_and_console::main().unwrap();
}

#[test]
fn a_hundred_thousand_events_a_share_and_tasks_in_one_boot() {
    let arch = guest();
    let share = tempfile::tempdir().unwrap();
    let (sender, numbers) = channel();
    let (told, heard) = channel();
    let script = r#"
        for port in /sys/class/virtio-ports/*; do
            if [ "$(cat $port/name)" = numbers ]; then device=/dev/${port##*/}; fi
        done
        # The console and the events at once: neither waits for the other.
        yes flood | head -n 3000 > /dev/console &
        seq 0 99999 | sed 's/.*/{"hugelgupf_vmtest_guest_action":"guestevent","Actual":&}/' > $device
        echo '{"hugelgupf_vmtest_guest_action":"done"}' > $device
        wait
        test "$VMTEST_IN_GUEST" = 1
        tr ' ' '\n' < /proc/cmdline | grep VMTEST_MOUNT9P_
        echo written > /mount/9p/out/file
    "#;
    let task = move || {
        let told = told.clone();
        Task::new("listener", |vm: vmtest::vm::Notifications| async move {
            told.send(vm.vm_started().await)?;
            vm.vm_exited().await;
            told.send(true)?;
            Ok::<(), BoxError>(())
        })
    };
    let configuration = (
        event_callback("numbers", move |number: u32| sender.send(number)),
        p9_directory(share.path(), "out"),
        with_vmtest_ident(),
        with_task(task),
    );
    let finished = script::run(arch, configuration, script).unwrap();
    assert_eq!(finished.stdout_text(), "VMTEST_MOUNT9P_fsdev0=out\n");
    assert!(numbers.into_iter().eq(0..100_000), "events are missing or out of order");
    let console = String::from_utf8_lossy(&finished.console);
    assert_eq!(console.matches("flood\r\n").count(), 3000, "the console is incomplete");
    assert_eq!(heard.into_iter().collect::<Vec<bool>>(), [true, true]);
    assert_eq!(std::fs::read_to_string(share.path().join("file")).unwrap(), "written\n");
}

#[test]
fn a_script_that_fails_names_its_line() {
    let arch = guest();
    let script = "echo one\nif false; then echo no; fi\nsh -c 'echo why >&2; exit 3'\necho never\n";
    let error = script::run(arch, (), script).unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 3 of the script failed with status 3: sh -c 'echo why >&2; exit 3'\n  why"
    );
    let script::Error::Failed { finished, status, .. } = error else { unreachable!() };
    assert_eq!((finished.stdout_text().as_str(), status), ("one\n", ExitStatus::Code(3)));
}

#[test]
fn a_rust_test_program_gives_a_result_for_each_test() {
    let arch = host();
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("guest_tests.rs");
    let text = r#"
        #[test] fn a_passes() { assert_eq!(std::process::id() > 1, true); }
        #[test] fn b_fails() { println!("in a guest"); panic!("on purpose"); }
        #[test] #[ignore] fn c_is_ignored() {}
        #[test] fn d_dies() {
            // Past libtest's capture: it looks like a result.
            std::io::Write::write_all(&mut std::io::stdout(), b"noise\nok\n").unwrap();
            std::process::abort();
        }
        #[test] fn e_comes_too_late() {}
    "#;
    std::fs::write(&source, text).unwrap();
    let program = dir.path().join("guest_tests");
    let rustc = std::env::var_os("RUSTC").unwrap_or("rustc".into());
    let status = std::process::Command::new(rustc)
        .args(["--test", "--edition", "2021", "-o"])
        .args([&program, &source])
        .status()
        .expect("cargo's rustc can be run");
    assert!(status.success());

    let report = libtest::run(arch, (), [&program], [""; 0]).unwrap();
    assert!(!report.passed(), "{report}");
    for (name, status) in [
        ("a_passes", Status::Passed),
        ("b_fails", Status::Failed),
        ("c_is_ignored", Status::Skipped),
        ("d_dies", Status::Crashed),
        ("e_comes_too_late", Status::NotRun),
    ] {
        assert_eq!(report.status(name), Some(status), "{name}: {report}");
    }
}

#[test]
fn go_test_programs_give_a_result_for_each_test() {
    let arch = guest();
    let dir = tempfile::tempdir().unwrap();
    // What a program of `go test -c` prints with -test.v; Go itself is not needed for that.
    for (name, text) in [
        ("good", "echo '=== RUN   TestA'\necho '--- PASS: TestA (0.00s)'\necho PASS\n"),
        (
            "bad",
            "echo '=== RUN   TestB'\necho '    b_test.go:7: no'\necho '--- FAIL: TestB (0.01s)'\n\
             echo '=== RUN   TestC'\nexit 2\n",
        ),
    ] {
        let path = dir.path().join(name).with_extension("test");
        std::fs::write(&path, format!("#!/bin/sh\n{text}")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, mode).unwrap();
    }
    let programs = ["good", "bad"].map(|name| dir.path().join(name).with_extension("test"));
    let report = go::run(arch, (), programs, Duration::from_secs(60)).unwrap();
    assert!(!report.passed(), "{report}");
    assert_eq!(report.status("TestA"), Some(Status::Passed), "{report}");
    assert_eq!(report.status("TestB"), Some(Status::Failed), "{report}");
    assert!(report.test("TestB").unwrap().output.contains("b_test.go:7: no"), "{report}");
    assert_ne!(report.status("TestC"), Some(Status::Passed), "{report}");
}

#[test]
fn a_go_test_past_its_time_is_timed_out_and_those_after_it_have_not_run() {
    let arch = guest();
    let dir = tempfile::tempdir().unwrap();
    let program = |name: &str, text: &str| {
        let path = dir.path().join(name).with_extension("test");
        let list = "case $1 in -test.list*) printf 'TestA\\nTestSleep\\nTestZ\\n'; exit;; esac";
        let begin = "echo '=== RUN   TestA'\necho '--- PASS: TestA (0.00s)'\n\
                     echo '=== RUN   TestSleep'\n";
        std::fs::write(&path, format!("#!/bin/sh\n{list}\n{begin}{text}")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, mode).unwrap();
        path
    };
    // As Go's runtime says it, on stderr; and one that cannot even do that.
    let programs = [
        program("late", "echo 'panic: test timed out after 1s' >&2\nexit 2\n"),
        program("stuck", "trap '' TERM\nsleep 1000\n"),
    ];
    let report = go::run(arch, (), programs, Duration::from_secs(1)).unwrap();
    let told: Vec<String> = report
        .tests
        .iter()
        .map(|test| {
            let output = &test.output;
            let status = match test.status {
                Status::TimedOut if output.contains("panic: test timed out") => "late",
                Status::TimedOut if output.contains("*** Test killed") => "killed",
                Status::Passed => "passed",
                Status::NotRun => "not run",
                _ => "wrong",
            };
            format!("{} {}: {status}", test.group, test.name)
        })
        .collect();
    let expected = ["late TestA: passed", "late TestSleep: late", "late TestZ: not run"];
    assert_eq!(told[..3], expected, "{report}");
    let expected = ["stuck TestA: passed", "stuck TestSleep: killed", "stuck TestZ: not run"];
    assert_eq!(told[3..], expected, "{report}");
}

#[test]
fn a_kernel_that_panics_fails_the_wait() {
    let arch = guest();
    // Without an initramfs and a disk there is no root file system.
    let vm = start_for_test("panics", arch, with_vm_timeout(Duration::from_secs(180)));
    let error = vm.wait().unwrap_err();
    let Some(MachineError::Panicked { text }) = &error.machine else { panic!("{error}") };
    assert!(text.contains("Unable to mount root fs"), "{error}");
    assert!(error.to_string().contains("the console's last lines"), "{error}");
}

#[test]
fn qemus_refusal_comes_out_of_wait() {
    let vm = start_for_test("refused", guest(), with_qemu_args(["-nonsense"]));
    let error = vm.wait().unwrap_err();
    let Some(MachineError::NeverRan { stderr }) = &error.machine else { panic!("{error}") };
    assert!(stderr.contains("-nonsense"), "{error}");
}

#[test]
fn a_machine_that_nobody_waited_for_fails_its_test() {
    let arch = guest();
    let pid = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let note = pid.clone();
    let test = std::panic::AssertUnwindSafe(move || {
        let vm = start_for_test("forgotten", arch, with_qemu_command(NO_QEMU));
        note.store(vm.pid(), std::sync::atomic::Ordering::SeqCst);
    });
    let panic = std::panic::catch_unwind(test).unwrap_err();
    let text = panic.downcast_ref::<String>().unwrap();
    assert!(text.starts_with("`forgotten` was not waited for"), "{text}");
    let pid = pid.load(std::sync::atomic::Ordering::SeqCst);
    let stays = std::path::Path::new("/proc").join(pid.to_string());
    assert!(pid > 0 && !stays.exists(), "QEMU was left behind");
}

#[test]
fn kill_and_signal_and_dropping_end_a_machine() {
    let arch = guest();
    let start = || blocking::start(arch, with_qemu_command(NO_QEMU)).unwrap();
    let vm = start();
    vm.kill();
    assert_eq!(vm.wait().unwrap(), End::Killed);

    let vm = start();
    vm.signal(vmtest::vm::Signal::TERM).unwrap();
    let error = vm.wait().unwrap_err();
    assert!(matches!(error.machine, Some(MachineError::NeverRan { .. })), "{error}");

    let vm = start();
    let process = std::path::Path::new("/proc").join(vm.pid().to_string());
    assert!(process.exists());
    drop(vm);
    assert!(!process.exists(), "QEMU outlived its Vm");
}

#[test]
fn a_limit_ends_a_machine_and_the_last_partial_line_is_kept() {
    let arch = guest();
    let (sender, lines) = channel::<String>();
    let printer = vmtest::vm::lines::sink(move |line: &str| {
        let _ = sender.send(line.to_owned());
    });
    // The console is the channel after the inherited files; a shell can write to it as QEMU does.
    let config = (
        with_qemu_command("sh -c 'printf \"one\\ntwo\" >&3; sleep 100' sh"),
        with_serial_output(printer),
        with_vm_timeout(Duration::from_secs(1)),
    );
    let error = blocking::start(arch, config).unwrap().wait().unwrap_err();
    let limit = Duration::from_secs(1);
    assert_eq!(error.machine, Some(MachineError::TimedOut { limit }));
    assert_eq!(lines.into_iter().collect::<Vec<_>>(), ["one", "two"]);
}

#[test]
fn what_cannot_be_prepared_is_said_by_name() {
    let arch = guest();
    let prepared = |configurator: vmtest::configure::Boxed<'_>, init| {
        let error = session::prepare_with(arch, configurator, init).unwrap_err();
        assert!(error.hint().is_some(), "{error} has no hint");
        error
    };
    use vmtest::configure::Configure;
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = prepared(with_kernel("/no/kernel").boxed(), Init::Own);
    assert!(matches!(error, session::Error::Read { what: "kernel", .. }), "{error}");
    let error = prepared(with_kernel(file.path()).boxed(), Init::Own);
    assert!(matches!(error, session::Error::NotAKernel { .. }), "{error}");
    let other = assets(if arch == Arch::Riscv64 { Arch::Amd64 } else { Arch::Riscv64 });
    let error = prepared(with_kernel(other.kernel.unwrap().image.path).boxed(), Init::Own);
    assert!(matches!(error, session::Error::KernelOfOtherArch { .. }), "{error}");
    let error = prepared(with_initramfs("/no/initramfs").boxed(), Init::Own);
    assert!(matches!(error, session::Error::Read { what: "initramfs", .. }), "{error}");
    let sysroot = |config: &mut Config| {
        config.sysroot = Some("/no/sysroot".into());
        Ok(())
    };
    let error = prepared(sysroot.boxed(), Init::Agent(None));
    assert!(matches!(error, session::Error::Sysroot { .. }), "{error}");
    let two = (p9_directory("/tmp", "a"), p9_directory("/tmp", "a"));
    let error = prepared(two.boxed(), Init::Own);
    assert!(matches!(error, session::Error::Plan(_)), "{error}");
    let error = prepared(p9_directory("", "a").boxed(), Init::Own);
    assert!(matches!(error, session::Error::Config(_)), "{error}");
    let error = blocking::start(arch, with_qemu_command("/no/qemu")).unwrap_err();
    assert!(matches!(error, session::Error::Start(_)) && error.hint().is_some(), "{error}");
}

#[test]
fn without_assets_what_is_missing_is_said_by_name() {
    let arch = guest();
    let dir = tempfile::tempdir().unwrap();
    let environment = Environment { cache_dir: Some(dir.path().into()), ..Environment::default() };
    let error = session::prepare(Config::new(arch), &environment, Init::Own).unwrap_err();
    assert!(matches!(error, session::Error::NoKernel { .. }) && error.hint().is_some());
    let mut config = Config::new(arch);
    config.apply(with_kernel(assets(arch).kernel.unwrap().image.path)).unwrap();
    let error = session::prepare(config, &environment, Init::Agent(None)).unwrap_err();
    assert!(matches!(error, session::Error::NoGuestProgram { .. }) && error.hint().is_some());
    let environment = Environment { assets: Some("/no/manifest".into()), ..environment };
    let error = session::prepare(Config::new(arch), &environment, Init::Own).unwrap_err();
    assert!(matches!(error, session::Error::Assets(_)) && error.hint().is_some());
}

#[test]
fn a_program_that_is_no_test_gives_an_error() {
    let arch = host();
    let error = libtest::run(arch, (), ["/bin/false"], [""; 0]).unwrap_err();
    assert!(matches!(error, testing::ProgramsError::NoResults { .. }), "{error}");
    let error = go::run(arch, (), ["/no/such.test"], Duration::from_secs(1)).unwrap_err();
    assert!(matches!(error, testing::ProgramsError::Program { .. }), "{error}");
}

#[test]
fn a_skip_can_be_forbidden() {
    // Own processes: the environment belongs to all tests of this one.
    let exe = std::env::current_exe().unwrap();
    let run = |require: Option<&str>| {
        let mut command = std::process::Command::new(&exe);
        command.args(["library::skips_everywhere", "--exact", "--ignored", "--nocapture"]);
        command.env_remove("VMTEST_REQUIRE").env("VMTEST_ARCH", "riscv64");
        if let Some(require) = require {
            command.env("VMTEST_REQUIRE", require);
        }
        command.output().unwrap()
    };
    let skipped = run(None);
    let stderr = String::from_utf8_lossy(&skipped.stderr).into_owned();
    assert!(skipped.status.success(), "{stderr}");
    assert!(stderr.contains("skipped: the guest is riscv64, the test is for arm"), "{stderr}");
    let required = run(Some("1"));
    assert!(!required.status.success());
    let text = [required.stdout, required.stderr].concat();
    assert!(String::from_utf8_lossy(&text).contains("must not be skipped (VMTEST_REQUIRE)"));
}

#[test]
#[ignore = "run by a_skip_can_be_forbidden"]
fn skips_everywhere() {
    testing::skip_without_qemu!(Arch::Riscv64);
    testing::skip_if_not_arch!(Arch::Arm);
    panic!("it was not skipped");
}

#[test]
fn a_command_of_the_agent_and_no_command() {
    let arch = guest();
    let finished = blocking::run(arch, (), Command::new("false")).unwrap();
    let error = finished.passed().unwrap_err();
    assert_eq!(error.to_string(), "failed with status 1");
}

#[test]
fn kernel_parameters_need_a_kernel() {
    let arch = guest();
    let config = |config: &mut Config| {
        config.kernel = vmtest::configure::Kernel::None;
        config.options.kernel_args.push("quiet".into());
        Ok(())
    };
    let error = session::prepare_with(arch, config, Init::Own).unwrap_err();
    assert_eq!(error.to_string(), "kernel argument `quiet` without a kernel");
    assert!(error.hint().is_some());
}

#[test]
fn an_initramfs_can_be_given_instead_of_built() {
    let arch = guest();
    let dir = tempfile::tempdir().unwrap();
    let mut built = session::prepare_with(arch, (), Init::Agent(None)).unwrap();
    built.build_image().unwrap();
    let path = dir.path().join("image.cpio");
    let mut image = built.resources.initramfs.take().unwrap();
    std::io::copy(&mut image, &mut std::fs::File::create(&path).unwrap()).unwrap();

    let environment = Environment::read().unwrap();
    let environment = Environment { initramfs_override: Some(path.clone()), ..environment };
    let init = || Init::Agent(Some(Command::new("true")));
    let prepared = session::prepare(Config::new(arch), &environment, init()).unwrap();
    assert_eq!(prepared.initramfs.as_ref().unwrap().path, Some(path));
    let runtime = vmtest::vm::BlockingRuntime::new().unwrap();
    runtime.block_on(prepared.run()).unwrap().passed().unwrap();

    let environment = Environment { initramfs_override: Some("/no/image".into()), ..environment };
    let error = session::prepare(Config::new(arch), &environment, init()).unwrap_err();
    assert!(matches!(error, session::Error::Read { what: "initramfs", .. }), "{error}");
}

/// Distributions have 9p as a module, so an initramfs loads it and changes over to the share, as their
/// own do.
#[test]
fn a_directory_of_the_host_is_the_root_file_system() {
    let arch = guest();
    let given = assets(arch);
    let root = tempfile::tempdir().unwrap();
    let shell = root.path().join("busybox");
    std::fs::copy(given.shell.unwrap().path, &shell).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&shell, mode).unwrap();
    let script = "#!/busybox sh\necho \"on the share: $(/busybox cat /from-host)\"\n\
        echo guest > /from-guest\n/busybox poweroff -f\n";
    let init = root.path().join("init");
    std::fs::write(&init, script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&init, mode).unwrap();
    std::fs::write(root.path().join("from-host"), "hello").unwrap();

    let mut image = vmtest::initramfs::ImageSpec::new(arch);
    image.file_followed(&shell, Some("/busybox"));
    image.dir("/root", 0o755);
    let mut script = String::from("#!/busybox sh\n");
    if let Some(dir) = given.kernel.unwrap().modules {
        let modules = vmtest::initramfs::modules::Modules::open(&dir).unwrap();
        let wanted =
            ["virtio_pci", "9pnet_virtio", "9p"].map(vmtest::initramfs::modules::Request::optional);
        for module in modules.select(&wanted, &Default::default()).unwrap().modules {
            let path = format!("/{}.ko", module.name);
            image.bytes(&path, 0o644, modules.load(&module, arch).unwrap().bytes);
            script.push_str(&format!("/busybox insmod {path}\n"));
        }
    }
    script.push_str("/busybox mount -t 9p -o trans=virtio,version=9p2000.L /dev/root /root\n");
    script.push_str("exec /busybox switch_root /root /init\n");
    image.bytes("/init", 0o755, script.into_bytes());
    let mut initramfs = tempfile::NamedTempFile::new().unwrap();
    image.finish().unwrap().write_to(initramfs.as_file_mut()).unwrap();

    let config = (with_initramfs(initramfs.path()), p9_boot_directory(root.path()));
    let vm = start_for_test("9p-root", arch, config);
    vm.console().expect("on the share: hello", Duration::from_secs(180)).unwrap();
    assert_eq!(vm.wait().unwrap(), End::PoweredOff);
    assert_eq!(std::fs::read_to_string(root.path().join("from-guest")).unwrap(), "guest\n");
}

#[test]
fn the_environments_firmware_is_the_default() {
    let arch = Arch::Amd64;
    assets(arch);
    let config = || {
        let mut config = Config::new(arch);
        config.apply(vmtest::configure::with_default_ovmf()).unwrap();
        config
    };
    let dir = tempfile::tempdir().unwrap();
    let [code, vars] = ["code", "vars"].map(|name| dir.path().join(name));
    for file in [&code, &vars] {
        std::fs::write(file, "firmware").unwrap();
    }
    let environment = Environment {
        ovmf_code: Some(code.clone()),
        ovmf_vars: Some(vars),
        ..Environment::read().unwrap()
    };
    let prepared = session::prepare(config(), &environment, Init::Own).unwrap();
    let argv = prepared.plan.quoted(vmtest::plan::Spelling::Typed);
    let file = format!("file={}", code.display());
    assert!(argv.to_string_lossy().contains(&file), "{}", argv.display());

    let bare = Environment { cache_dir: Some(dir.path().into()), ..Environment::default() };
    let mut config = config();
    config.apply(with_kernel(assets(arch).kernel.unwrap().image.path)).unwrap();
    let error = session::prepare(config, &bare, Init::Own).unwrap_err();
    assert!(matches!(error, session::Error::NoFirmware { .. }) && error.hint().is_some());
}
