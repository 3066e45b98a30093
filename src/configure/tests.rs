use std::path::Path;
use std::sync::Mutex;

use super::*;
use crate::options::ParseQemuCommandError;
use crate::plan::TagError;
use crate::qemu::Firmware;
use crate::vm::{CancelToken, Task};

fn applied(arch: Arch, configurator: impl Configure) -> Config {
    let mut config = Config::new(arch);
    config.apply(configurator).unwrap();
    config
}

fn refused(configurator: impl Configure) -> ConfigError {
    Config::new(Arch::Amd64).apply(configurator).unwrap_err()
}

#[test]
fn combinators_choose_by_architecture() {
    let configurator = || {
        (
            all(["a", "b"].map(|text| with_append_kernel([text]))),
            by_arch([
                (Arch::Arm, with_append_kernel(["arm"])),
                (Arch::Arm64, with_append_kernel(["arm64"])),
            ]),
            if_arch(Arch::Arm, with_append_kernel(["only-arm"])),
            if_not_arch(Arch::Arm, with_append_kernel(["not-arm"])),
            vec![with_append_kernel(["listed"]).boxed(), with_vmtest_ident().boxed()],
            None::<Boxed>,
        )
    };
    let args = |arch| applied(arch, configurator()).options.kernel_args;
    let last = ["listed", "VMTEST_IN_GUEST=1"];
    assert_eq!(args(Arch::Arm), [&["a", "b", "arm", "only-arm"][..], &last].concat());
    assert_eq!(args(Arch::Amd64), [&["a", "b", "not-arm"][..], &last].concat());
}

#[test]
fn an_error_ends_the_rest() {
    let mut config = Config::new(Arch::Amd64);
    let failing = |_: &mut Config| Err(ConfigError::Other("no".into()));
    let error = config
        .apply((with_append_kernel(["before"]), failing, with_append_kernel(["after"])))
        .unwrap_err();
    assert_eq!(error.to_string(), "no");
    assert_eq!(config.options.kernel_args, ["before"]);
}

#[test]
fn setters_set() {
    let dir = tempfile::tempdir().unwrap();
    let config = applied(
        Arch::Amd64,
        (
            (with_kernel("/k"), with_initramfs("/i"), with_qemu_command("'my qemu' -m 1G")),
            (with_qemu_args(["-foo", "b,ar"]), with_append_kernel(["x=1", "y"])),
            (halt_on_kernel_panic(false), ide_block_device("/disk"), virtio_random()),
            (p9_directory(dir.path(), "tag"), read_only_directory(dir.path())),
            p9_boot_directory(dir.path()),
            (with_serial_output(Vec::new()), log_serial_by_line(|_: &str| ())),
            with_task(|| Task::cleanup("tidy", || Ok::<(), BoxError>(()))),
            (with_vm_timeout(Duration::from_secs(1)), with_cancel(CancelToken::new())),
            (event_channel("a"), event_callback("b", |_: u8| Ok::<(), BoxError>(()))),
            with_image(|builder| {
                builder.dir("/x", 0o755);
            }),
            (with_default_ovmf(), with_ovmf("/code", "/vars")),
        ),
    );
    assert_eq!(config.kernel, Kernel::File("/k".into()));
    assert_eq!(config.initramfs.as_deref(), Some(Path::new("/i")));
    let qemu = config.options.qemu.clone().unwrap();
    assert_eq!((qemu.program, qemu.args), ("my qemu".into(), vec!["-m".into(), "1G".into()]));
    assert_eq!(config.options.qemu_args, ["-foo", "b,ar"]);
    assert_eq!(config.options.kernel_args, ["x=1", "y"]);
    assert!(!config.options.halt_on_kernel_panic);
    assert_eq!(config.options.devices.len(), 7);
    assert_eq!(config.options.timeout, Some(Duration::from_secs(1)));
    let resources = config.make_resources();
    assert_eq!((resources.console_sinks.len(), resources.tasks.len()), (2, 1));
    assert!(resources.cancel.is_some() && resources.event_consumers.len() == 1);
    assert_eq!(config.image.len(), 1);
    let firmware = Firmware { code: "/code".into(), vars: "/vars".into() };
    assert!(config.default_firmware && config.options.firmware == Some(firmware));
}

#[test]
fn what_cannot_be_shared_is_refused_by_name() {
    assert!(matches!(refused(p9_directory("", "tag")), ConfigError::NoDirectory));
    assert!(matches!(refused(read_only_directory("")), ConfigError::NoDirectory));
    let file = tempfile::NamedTempFile::new().unwrap();
    for error in [
        refused(p9_directory(file.path(), "tag")),
        refused(p9_boot_directory(file.path())),
        refused(read_only_directory(file.path())),
    ] {
        assert!(matches!(&error, ConfigError::NotADirectory { path } if path == file.path()));
        assert!(error.hint().is_some());
    }
    let dir = tempfile::tempdir().unwrap();
    let error = refused(p9_directory(dir.path(), ""));
    assert!(matches!(error, ConfigError::Tag(TagError::Empty)));
}

#[test]
fn a_qemu_command_needs_a_program_and_closed_quotes() {
    assert!(matches!(
        refused(with_qemu_command(" ")),
        ConfigError::Qemu(ParseQemuCommandError::Empty)
    ));
    let error = refused(with_qemu_command("qemu 'x"));
    assert!(
        matches!(error, ConfigError::Qemu(ParseQemuCommandError::Quotes(_)))
            && error.hint().is_some()
    );
}

#[test]
fn idle_options_cost_arguments_only() {
    let config = applied(
        Arch::Amd64,
        all((0..100).map(|n| with_qemu_args(["-name".to_owned(), format!("n{n}")]))),
    );
    let plan = config.options.plan().unwrap();
    assert!(plan.args(crate::plan::Spelling::Executed).len() > 200);
}

#[test]
fn what_has_a_flag_can_be_configured() {
    let mut config = Config::new(Arch::Arm);
    config
        .apply((
            (with_memory(1024), with_cpus(2), with_accel(AccelOption::Tcg)),
            (with_boot_timeout(Duration::from_secs(3)), with_modules("/m"), with_sysroot("/s")),
            (
                with_warm(WarmMode::Off),
                with_artifacts("/a"),
                with_event_file(EventFile { channel: "e".into(), file: "/f".into() }),
            ),
        ))
        .unwrap();
    assert_eq!((config.options.memory_mib, config.options.cpus), (1024, 2));
    assert_eq!((config.accel, config.warm), (AccelOption::Tcg, Some(WarmMode::Off)));
    assert_eq!(config.boot_timeout, Some(Duration::from_secs(3)));
    assert_eq!(config.modules, Some("/m".into()));
    assert_eq!(config.sysroot, Some("/s".into()));
    assert_eq!(config.artifacts, Some("/a".into()));
    assert_eq!(config.event_files[0].file, Path::new("/f"));
}

#[test]
fn a_clone_makes_another_machine_of_the_same_kind() {
    let said = Arc::new(Mutex::new(0));
    let count = said.clone();
    let make = move || {
        *count.lock().unwrap() += 1;
        Task::cleanup("tidy", || Ok::<(), BoxError>(()))
    };
    let first = applied(Arch::Amd64, (with_task(make), with_cpus(2), with_image(|_| ())));
    let mut second = first.clone();
    second.apply(with_cpus(1)).unwrap();
    assert_eq!((first.options.cpus, second.options.cpus), (2, 1));
    for config in [&first, &second] {
        assert_eq!(config.make_resources().tasks.len(), 1);
        assert_eq!(config.image.len(), 1);
    }
    assert_eq!(*said.lock().unwrap(), 2, "each machine has its own task");
}
