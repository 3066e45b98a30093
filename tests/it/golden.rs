//! QEMU's command line for each family of devices on each architecture, compared with files; and
//! QEMU itself takes each of them.
//!
//! `UPDATE_GOLDEN=1 cargo test golden` writes the files anew.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use vmtest::accel::Accel;
use vmtest::arch::Arch;
use vmtest::options::{Boot, Initramfs, Options, QemuCommand};
use vmtest::plan::Spelling;
use vmtest::qemu::{
    AgentPort, Drive, DriveFormat, DriveInterface, Entropy, EventPort, Firmware, KernelLog, Mirror,
    MirrorWrites, Nic, Ownership, P9Root, P9Share, ReadOnlyDir, UserNet,
};
use vmtest::vm::{InterVm, Resources, Vm};

use crate::support::assets;

/// The files that cases name: made-up ones for golden files, real ones for QEMU.
struct Places {
    kernel: PathBuf,
    dir: PathBuf,
    raw: PathBuf,
    qcow2: PathBuf,
    pcap: PathBuf,
    code: PathBuf,
    vars: PathBuf,
}

impl Places {
    fn made_up() -> Places {
        Places {
            kernel: "/boot/vmlinuz".into(),
            dir: "/srv/a,b c".into(),
            raw: "/srv/disk,1.img".into(),
            qcow2: "/srv/disk.qcow2".into(),
            pcap: "/srv/a,b.pcap".into(),
            code: "/srv/CODE,4M.fd".into(),
            vars: "/srv/VARS.fd".into(),
        }
    }

    fn real(root: &Path, kernel: PathBuf, arch: Arch) -> Places {
        let file = |name: &str, bytes: u64| {
            let path = root.join(name);
            File::create(&path).unwrap().set_len(bytes).unwrap();
            path
        };
        // Flash memory has the size that the board says.
        let (code, vars) = match arch {
            Arch::Amd64 | Arch::I386 => (1 << 20, 1 << 17),
            Arch::Arm64 | Arch::Arm => (64 << 20, 64 << 20),
            Arch::Riscv64 => (32 << 20, 32 << 20),
            other => panic!("how large is the flash memory of {other}?"),
        };
        let dir = root.join("a,b c");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("file"), "x").unwrap();
        let qcow2 = root.join("disk.qcow2");
        fs::write(&qcow2, crate::devices::empty_qcow2(1 << 20)).unwrap();
        Places {
            kernel,
            dir,
            raw: file("disk,1.img", 1 << 20),
            qcow2,
            pcap: root.join("a,b.pcap"),
            code: file("CODE,4M.fd", code),
            vars: file("VARS.fd", vars),
        }
    }
}

struct Case {
    name: &'static str,
    add: fn(&mut Options, &Places),
    /// All of these together make a machine that QEMU is asked to take.
    together: bool,
}

/// The cases. Tags and names do not repeat, so that they can be put together.
const CASES: [Case; 21] = [
    Case { name: "base-tcg", add: |_, _| {}, together: true },
    Case { name: "base-kvm", add: |options, _| options.accel = Accel::Kvm, together: false },
    Case {
        name: "base-sizes",
        add: |options, _| {
            options.memory_mib = 1024;
            options.cpus = 2;
            options.kernel_log = KernelLog::Quiet;
            options.halt_on_kernel_panic = false;
        },
        together: false,
    },
    Case {
        name: "agent",
        add: |options, _| {
            options.device(AgentPort);
        },
        together: true,
    },
    Case { name: "share", add: shares, together: true },
    Case { name: "mirror", add: mirrors, together: true },
    Case {
        name: "root-9p",
        add: |options, places| {
            options.device(P9Root {
                dir: places.dir.clone(),
                read_only: true,
                ownership: Ownership::Host,
            });
        },
        together: true,
    },
    Case {
        name: "ro-dir",
        add: |options, places| {
            options.device(ReadOnlyDir { dir: places.dir.clone() });
            options.device(ReadOnlyDir { dir: places.dir.clone() });
        },
        together: true,
    },
    Case {
        name: "drive-virtio",
        add: |options, places| drives(options, places, DriveInterface::Virtio),
        together: true,
    },
    Case {
        name: "drive-ahci",
        add: |options, places| drives(options, places, DriveInterface::Ahci),
        together: true,
    },
    Case {
        name: "drive-scsi",
        add: |options, places| drives(options, places, DriveInterface::Scsi),
        together: true,
    },
    Case {
        name: "net-user",
        add: |options, _| {
            options.device(UserNet::default());
        },
        together: true,
    },
    Case { name: "net-settings", add: net_with_all_settings, together: true },
    Case {
        name: "net-e1000",
        add: |options, _| {
            options.device(UserNet::default().with_nic(Nic::E1000));
            options.device(UserNet::default().with_nic(Nic::E1000));
        },
        together: true,
    },
    Case { name: "link", add: links, together: true },
    Case {
        name: "entropy",
        add: |options, _| {
            options.device(Entropy);
        },
        together: true,
    },
    Case {
        name: "events-40",
        add: |options, _| {
            for n in 0..40 {
                options.device(EventPort { name: format!("event,{n}") });
            }
        },
        together: true,
    },
    Case {
        name: "firmware",
        add: |options, places| {
            options.firmware =
                Some(Firmware { code: places.code.clone(), vars: places.vars.clone() });
        },
        together: true,
    },
    Case {
        name: "extra-files",
        add: |options, _| {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            options.add_file(ours);
            options.add_file(OwnedFd::from(theirs));
            options.device(AgentPort);
        },
        together: false,
    },
    Case {
        name: "kernel-args",
        add: |options, _| {
            options.kernel_args.push("quiet dyndbg=\"file a.c +p\" a,b".into());
            options.kernel_args.push("init=/bin/sh -- -c 'x'".into());
        },
        together: true,
    },
    Case {
        name: "many-devices",
        add: |options, places| {
            for _ in 0..30 {
                options.device(Drive { read_only: true, ..Drive::new(&places.raw) });
            }
        },
        together: true,
    },
];

fn shares(options: &mut Options, places: &Places) {
    let share = |tag: &str, read_only, ownership| P9Share {
        dir: places.dir.clone(),
        tag: tag.into(),
        read_only,
        ownership,
    };
    options.device(share("rw", false, Ownership::Host));
    options.device(share("ro,tag", true, Ownership::Host));
    options.device(share("mapped", false, Ownership::MappedFile));
}

fn mirrors(options: &mut Options, places: &Places) {
    let mirror = |dir: PathBuf, writes| Mirror { dir, writes };
    let above = places.dir.parent().expect("it is below another one");
    options.device(mirror(above.to_owned(), MirrorWrites::Private));
    options.device(mirror(places.dir.clone(), MirrorWrites::Host));
}

fn drives(options: &mut Options, places: &Places, interface: DriveInterface) {
    let drive = |read_only, snapshot, format| Drive {
        file: match format {
            DriveFormat::Raw => places.raw.clone(),
            DriveFormat::Qcow2 => places.qcow2.clone(),
            other => panic!("no image of {other:?}"),
        },
        format,
        interface,
        read_only,
        snapshot,
    };
    // AHCI has no read-only disks; what is thrown away needs no lock for itself.
    let read_only = interface != DriveInterface::Ahci;
    options.device(drive(read_only, !read_only, DriveFormat::Raw));
    options.device(drive(false, true, DriveFormat::Raw));
    options.device(drive(read_only, !read_only, DriveFormat::Qcow2));
    options.device(drive(false, true, DriveFormat::Qcow2));
}

fn net_with_all_settings(options: &mut Options, places: &Places) {
    options.device(
        UserNet::default()
            .with_cidr("192.168.7.77/28")
            .unwrap()
            .with_cidr("fd00:7::7/64")
            .unwrap()
            .with_forward("tcp::0-:80".parse().unwrap())
            .with_forward("udp:127.0.0.1:0-192.168.7.4:53".parse().unwrap())
            .with_user_arg("hostname", "a,b")
            .with_user_arg("restrict", "on")
            .with_mac("52:54:00:00:00:07".parse().unwrap())
            .with_device_arg("mrg_rxbuf", "off")
            .with_pcap(&places.pcap),
    );
}

fn links(options: &mut Options, _: &Places) {
    let (a, b) = (InterVm::new("a"), InterVm::new("b"));
    options.device(a.join());
    let second = a.join();
    options.device(second.with_nic(Nic::E1000));
    options.device(b.join().with_mac("52:54:00:00:00:08".parse().unwrap()));
}

fn machine(arch: Arch, places: &Places) -> Options {
    let mut options = Options::new(arch);
    options.boot = Boot::Kernel { image: places.kernel.clone(), initramfs: Initramfs::Built };
    options
}

fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden")
}

/// Compares with the file, or writes it.
fn check(name: &str, found: OsString, wrong: &mut Vec<String>) {
    let path = golden_dir().join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, found.as_bytes()).unwrap();
        return;
    }
    let expected = fs::read(&path).unwrap_or_default();
    if expected != found.as_bytes() {
        let (expected, found) = (String::from_utf8_lossy(&expected), found.to_string_lossy());
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
        let (before, now) = (lines(&expected), lines(&found));
        let gone = before.difference(&now).map(|line| format!("- {line}"));
        let new = now.difference(&before).map(|line| format!("+ {line}"));
        let differences: Vec<String> = gone.chain(new).collect();
        wrong.push(format!("{name}:\n{}", differences.join("\n")));
    }
}

#[test]
fn every_family_of_devices_on_every_architecture() {
    let places = Places::made_up();
    let (mut wrong, mut names) = (Vec::new(), BTreeSet::new());
    for arch in Arch::ALL {
        for case in &CASES {
            let mut options = machine(arch, &places);
            (case.add)(&mut options, &places);
            let name = format!("{}-{arch}.argv", case.name);
            check(&name, options.plan().unwrap().listing(), &mut wrong);
            names.insert(name);
        }
        // What --dry-run prints: for people, quoted for a shell.
        let mut options = machine(arch, &places);
        options.device(AgentPort);
        shares(&mut options, &places);
        options.device(ReadOnlyDir { dir: places.dir.clone() });
        options.device(EventPort { name: "facts".into() });
        let mut typed = options.plan().unwrap().quoted(Spelling::Typed).into_vec();
        typed.push(b'\n');
        let name = format!("dry-run-{arch}.argv");
        check(&name, OsString::from_vec(typed), &mut wrong);
        names.insert(name);
    }
    for entry in fs::read_dir(golden_dir()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !names.contains(&name) {
            wrong.push(format!("{name} belongs to no case"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{}\nIf that is meant: `UPDATE_GOLDEN=1 cargo test golden`, and look at the difference",
        wrong.join("\n\n")
    );
}

#[test]
fn what_is_the_same_gives_the_same() {
    let places = Places::made_up();
    for arch in Arch::ALL {
        let listing = || {
            let mut options = machine(arch, &places);
            for case in CASES.iter().filter(|case| case.together) {
                (case.add)(&mut options, &places);
            }
            options.plan().unwrap().listing()
        };
        assert_eq!(listing(), listing());
    }
}

/// Has QEMU make the machine of all cases at once, stopped before its first instruction.
fn taken_by_qemu(arch: Arch) {
    let guest = assets(arch);
    let root = tempfile::tempdir().unwrap();
    let places = Places::real(root.path(), guest.kernel.unwrap().image.path, arch);
    let mut options = machine(arch, &places);
    for case in CASES.iter().filter(|case| case.together) {
        (case.add)(&mut options, &places);
    }
    options.qemu = Some(QemuCommand::new(guest.qemu.unwrap().path));
    options.qemu_args.push("-S".into());
    let plan = options.plan().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let initramfs = Some(tempfile::tempfile().unwrap());
        let mut vm = Vm::start(plan, Resources { initramfs, ..Resources::default() }).unwrap();
        // Answered only once the machine is made.
        let forwards = tokio::select! {
            forwards = vm.port_forwards() => forwards,
            () = tokio::time::sleep(Duration::from_secs(120)) => panic!("QEMU does not answer"),
        };
        match forwards {
            Ok(forwards) => {
                assert!(forwards.len() == 2 && forwards.iter().all(|f| f.host_port != 0));
            }
            Err(error) => panic!("{error}: {:?}", vm.ended().await),
        }
        vm.terminate().await;
    });
}

#[test]
fn taken_by_qemu_amd64() {
    taken_by_qemu(Arch::Amd64);
}

#[test]
fn taken_by_qemu_i386() {
    taken_by_qemu(Arch::I386);
}

#[test]
fn taken_by_qemu_arm64() {
    taken_by_qemu(Arch::Arm64);
}

#[test]
fn taken_by_qemu_arm() {
    taken_by_qemu(Arch::Arm);
}

#[test]
fn taken_by_qemu_riscv64() {
    taken_by_qemu(Arch::Riscv64);
}
