use super::*;

fn environment(pairs: &[(&str, &str)]) -> Result<Environment, EnvironmentError> {
    Environment::from_lookup(|name| {
        pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
    })
}

#[test]
fn a_relative_home_or_xdg_directory_decides_nothing() {
    let cache = |pairs: &[(&str, &str)]| environment(pairs).unwrap().cache_dir;
    for (pairs, expected) in [
        (&[("HOME", "/h")][..], Some("/h/.cache/vmtest")),
        (&[("HOME", ".")], None),
        (&[("HOME", "")], None),
        (&[("XDG_CACHE_HOME", "x"), ("HOME", "/h")], Some("/h/.cache/vmtest")),
        (&[("XDG_CACHE_HOME", "/x"), ("HOME", "/h")], Some("/x/vmtest")),
        (&[("VMTEST_CACHE", "c"), ("HOME", "/h")], Some("c")),
        (&[], None),
    ] {
        assert_eq!(cache(pairs), expected.map(PathBuf::from), "{pairs:?}");
    }
}

#[test]
fn a_limit_of_zero_is_no_limit_that_anybody_wants() {
    assert!(environment(&[("VMTEST_TIMEOUT", "0")]).is_err());
    assert!(environment(&[("VMTEST_TIMEOUT", "0s")]).is_err());
}

/// The values of an option in QEMU's argv.
fn values(options: &Options, name: &str) -> Vec<String> {
    let args = options.plan().unwrap().args(crate::plan::Spelling::Executed);
    let mut args = args.into_iter().map(|arg| arg.to_string_lossy().into_owned());
    let mut found = Vec::new();
    while let Some(arg) = args.next() {
        if arg == name {
            found.extend(args.next());
        }
    }
    found
}

#[test]
fn what_vmtest_qemu_says_of_the_machine_goes_before_our_defaults() {
    let env = environment(&[("VMTEST_QEMU", "qemu -m 1G -smp 2 -cpu qemu64")]).unwrap();
    let mut options = Options::new(Arch::Amd64).with_environment(&env);
    for (name, value) in [("-m", "1G"), ("-smp", "2"), ("-cpu", "qemu64")] {
        assert_eq!(values(&options, name), [value]);
    }
    // What was set goes before both: the last one counts.
    options.memory_mib = 2048;
    options.cpus = 4;
    assert_eq!(values(&options, "-m"), ["1G", "2048M"]);
    assert_eq!(values(&options, "-smp"), ["2", "4"]);
}

#[test]
fn an_accelerator_among_qemus_arguments_is_the_chosen_one_or_refused_with_a_way_out() {
    let with = |text: &str| {
        let mut options = Options::new(Arch::Amd64);
        options.qemu_args = quote::split(OsStr::new(text)).unwrap();
        options
    };
    for text in ["-enable-kvm", "-accel kvm", "-machine q35,accel=kvm:tcg", "-M accel=kvm"] {
        let error = with(text).plan().unwrap_err();
        assert!(matches!(error, PlanError::OtherAccelerator { .. }), "{text}: {error}");
        assert!(error.hint().unwrap().contains("`--accel kvm`"), "{text}");
        let mut kvm = with(text);
        kvm.accel = Accel::Kvm;
        assert!(kvm.plan().is_ok(), "{text}");
    }
    assert_eq!(values(&with("-accel tcg,thread=single"), "-accel"), ["tcg,thread=single"]);
}

#[test]
fn the_environment_fills_what_is_unset_and_adds_what_is_additive() {
    let env = environment(&[
        ("VMTEST_QEMU", "'/opt/my qemu/qemu' -L ."),
        ("VMTEST_KERNEL", "/k"),
        ("VMTEST_INITRAMFS", "/i"),
        ("VMTEST_KERNEL_APPEND", "quiet dyndbg=\"file a.c +p\""),
        ("VMTEST_QEMU_APPEND", "-m 1G"),
        ("VMTEST_TIMEOUT", "1m20s"),
    ])
    .unwrap();
    let unset = Options::new(Arch::Amd64).with_environment(&env);
    let qemu = unset.qemu.unwrap();
    assert_eq!(qemu.program, "/opt/my qemu/qemu");
    assert_eq!(qemu.args, ["-L", "."]);
    assert_eq!(
        unset.boot,
        Boot::Kernel { image: "/k".into(), initramfs: Initramfs::Path("/i".into()) }
    );
    assert_eq!(unset.timeout, Some(Duration::from_secs(80)));
    assert_eq!(unset.env_kernel_args, ["quiet dyndbg=\"file a.c +p\""]);
    assert_eq!(unset.env_qemu_args, ["-m", "1G"]);

    let mut set = Options::new(Arch::Amd64);
    set.qemu = Some(QemuCommand::new("q"));
    set.boot = Boot::Kernel { image: "/mine".into(), initramfs: Initramfs::Built };
    set.timeout = Some(Duration::from_secs(1));
    let set = set.with_environment(&env);
    assert_eq!(set.qemu.unwrap().program, "q");
    assert_eq!(set.boot, Boot::Kernel { image: "/mine".into(), initramfs: Initramfs::Built });
    assert_eq!(set.timeout, Some(Duration::from_secs(1)));
    assert_eq!(set.env_qemu_args, ["-m", "1G"]);
}

#[test]
fn values_that_cannot_be_used_are_errors_that_name_the_variable() {
    for (name, value) in
        [("VMTEST_ARCH", "amd46"), ("VMTEST_TIMEOUT", "900"), ("VMTEST_QEMU", "qemu 'x")]
    {
        let error = environment(&[(name, value)]).unwrap_err();
        assert!(error.to_string().starts_with(name), "{error}");
        assert!(!error.hint().is_empty());
    }
}

#[test]
fn empty_variables_count_as_unset() {
    let names = ["VMTEST_ARCH", "VMTEST_QEMU", "VMTEST_KERNEL", "VMTEST_TIMEOUT"];
    let env = environment(&names.map(|name| (name, ""))).unwrap();
    assert_eq!(env, Environment::default());
}

#[test]
fn extra_files_get_the_descriptors_that_the_child_will_see() {
    let mut options = Options::new(Arch::Arm);
    let null = || std::fs::File::open("/dev/null").unwrap();
    assert_eq!(options.add_file(null()), 3);
    assert_eq!(options.add_file(null()), 4);
}
