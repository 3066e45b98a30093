//! Options that cannot be: every one is an error with a way out, and no input panics.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use proptest::prelude::*;
use vmtest::arch::Arch;
use vmtest::options::{Boot, Initramfs, Options};
use vmtest::plan::{Plan, PlanError, Spelling};
use vmtest::qemu::{
    AgentPort, Cidr, Drive, DriveInterface, EventPort, Mac, NetError, Nic, Ownership, P9Share,
    ReadOnlyDir, TagError, UserNet,
};
use vmtest::vm::InterVm;

fn options() -> Options {
    let mut options = Options::new(Arch::Amd64);
    options.boot = Boot::Kernel { image: "/k".into(), initramfs: Initramfs::None };
    options
}

fn share(tag: &str) -> P9Share {
    P9Share { dir: "/d".into(), tag: tag.into(), read_only: false, ownership: Ownership::Host }
}

#[track_caller]
fn error(fill: impl FnOnce(&mut Options)) -> PlanError {
    let mut options = options();
    fill(&mut options);
    let error = options.plan().unwrap_err();
    let text = error.to_string();
    assert!(!text.ends_with('.') && !text.is_empty(), "{text}");
    let hint = error.hint().expect("a way out");
    assert!(!hint.is_empty());
    error
}

#[test]
fn two_of_one_name() {
    let tags = error(|options| {
        options.device(share("t"));
        options.device(share("t"));
    });
    assert_eq!(tags.to_string(), "two 9p shares are called `t`");
    let channels = error(|options| {
        options.device(EventPort { name: "facts".into() });
        options.device(EventPort { name: "facts".into() });
    });
    assert_eq!(channels.to_string(), "two virtio ports are called `facts`");
    let reserved = error(|options| {
        options.device(AgentPort);
        options.device(EventPort { name: "vmtest.control".into() });
    });
    assert!(matches!(reserved, PlanError::NameTaken { .. }), "{reserved}");
    let mac: Mac = "52:54:00:00:00:01".parse().unwrap();
    let macs = error(|options| {
        options.device(UserNet::default().with_mac(mac));
        options.device(InterVm::new("a").join().with_mac(mac));
    });
    assert_eq!(macs, PlanError::Net(NetError::MacTaken { mac }));
}

#[test]
fn tags() {
    let tag = |tag: &str| error(|options| _ = options.device(share(tag)));
    assert_eq!(tag(""), PlanError::Tag(TagError::Empty));
    let long = "x".repeat(32);
    assert_eq!(tag(&long), PlanError::Tag(TagError::TooLong { tag: long.clone() }));
    assert!(options().device(share(&long[1..])).plan().is_ok());
    for bad in [".", "..", "a/b", "a\0b", "a\nb"] {
        assert_eq!(tag(bad), PlanError::Tag(TagError::NotAFileName { tag: bad.into() }));
    }
}

#[test]
fn networks() {
    let net = |net: UserNet| error(|options| _ = options.device(net));
    let cidr = Cidr { address: "10.0.0.0".parse().unwrap(), prefix: 30 };
    let too_small = net(UserNet { cidr4: Some(cidr), ..UserNet::default() });
    assert_eq!(too_small, PlanError::Net(NetError::Cidr { given: "10.0.0.0/30".into() }));
    let cidr = Cidr { address: "fd00::".parse().unwrap(), prefix: 200 };
    let impossible = net(UserNet { cidr6: Some(cidr), ..UserNet::default() });
    assert_eq!(impossible, PlanError::Net(NetError::Cidr { given: "fd00::/200".into() }));
    for key in ["", "a=b", "a,b", "ä"] {
        let wrong = PlanError::Net(NetError::NotAKey { given: key.into() });
        assert_eq!(net(UserNet::default().with_user_arg(key, "x")), wrong);
        assert_eq!(net(UserNet::default().with_device_arg(key, "x")), wrong);
        assert_eq!(
            error(|o| _ = o.device(InterVm::new("a").join().with_device_arg(key, ""))),
            wrong
        );
    }
}

#[test]
fn values_out_of_range() {
    let range = |fill: fn(&mut Options)| match error(fill) {
        PlanError::OutOfRange { what, .. } => what,
        other => panic!("{other}"),
    };
    assert_eq!(range(|options| options.memory_mib = 0), "memory");
    assert_eq!(range(|options| options.memory_mib = u64::MAX), "memory");
    assert_eq!(range(|options| options.cpus = 0), "number of processors");
    assert_eq!(range(|options| options.cpus = u32::MAX), "number of processors");
    let port = |name: &str| match error(|o| _ = o.device(EventPort { name: name.into() })) {
        PlanError::OutOfRange { what, .. } => what,
        other => panic!("{other}"),
    };
    for name in ["", "a/b", "a\nb", "a\0b"] {
        assert_eq!(port(name), "event channel name");
    }
    let ahci = |count: usize| {
        let mut options = options();
        for _ in 0..count {
            let drive = Drive { interface: DriveInterface::Ahci, ..Drive::new("/d") };
            options.device(drive);
        }
        options.plan()
    };
    assert!(ahci(6).is_ok());
    assert!(matches!(ahci(7), Err(PlanError::OutOfRange { what: "number of AHCI drives", .. })));
}

/// A thousand of each: either there is room, or an error that says how much.
#[test]
fn huge_numbers_of_devices() {
    let many = |add: fn(&mut Options, usize)| {
        let mut options = options();
        for n in 0..1000 {
            add(&mut options, n);
        }
        options.plan().map_err(|error| match error {
            PlanError::OutOfRange { what, range, .. } => {
                assert!(range.contains(|c: char| c.is_ascii_digit()), "{range}");
                what
            }
            PlanError::Net(NetError::TooMany) => "networks",
            other => panic!("{other}"),
        })
    };
    let pci = Some("number of PCI devices");
    assert_eq!(many(|o, n| _ = o.device(share(&n.to_string()))).err(), pci);
    assert_eq!(many(|o, n| _ = o.device(Drive::new(n.to_string()))).err(), pci);
    assert_eq!(many(|o, _| _ = o.device(UserNet::default())).err(), pci);
    let scsi = many(|o, _| _ = o.device(ReadOnlyDir { dir: "/d".into() }));
    assert_eq!(scsi.err(), Some("number of SCSI disks"));
    // 34 controllers' worth of ports.
    assert!(many(|o, n| _ = o.device(EventPort { name: n.to_string() })).is_ok());
}

#[test]
fn what_contradicts_itself() {
    let mut disk = Options::new(Arch::Amd64);
    disk.kernel_args.push("quiet".into());
    let error_of = |options: &Options| options.plan().unwrap_err();
    let without_kernel = PlanError::KernelRequiredForArgs { argument: "quiet".into() };
    assert_eq!(error_of(&disk), without_kernel);
    assert!(without_kernel.hint().is_some());
    let cmdline = error(|options| options.kernel_args.push("a=\"b".into()));
    assert!(matches!(cmdline, PlanError::Cmdline(_)), "{cmdline}");
    let mut read_only_ahci = options();
    let interface = DriveInterface::Ahci;
    read_only_ahci.device(Drive { interface, read_only: true, ..Drive::new("/d") });
    let text = error_of(&read_only_ahci).to_string();
    assert!(text.contains("ahci") && text.contains("if=scsi"), "{text}");
}

/// The argument that contains the wanted bytes with each comma doubled.
fn survives(plan: &Plan, path: &[u8]) -> bool {
    let mut doubled = Vec::new();
    for &byte in path {
        doubled.extend(std::iter::repeat_n(byte, if byte == b',' { 2 } else { 1 }));
    }
    plan.args(Spelling::Executed).iter().any(|arg| {
        arg.as_bytes().windows(doubled.len().max(1)).any(|window| window == doubled.as_slice())
    })
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    let special = prop_oneof![
        Just(b','),
        Just(b'='),
        Just(b'\n'),
        Just(b'"'),
        Just(b'\''),
        Just(b'\\'),
        Just(b' '),
        Just(0xff_u8),
        any::<u8>(),
    ];
    proptest::collection::vec(special.prop_filter("no NUL in paths", |byte| *byte != 0), 1..40)
}

proptest! {
    #[test]
    fn paths_survive_into_argv(bytes in path()) {
        let file = PathBuf::from(OsString::from_vec(bytes.clone()));
        let mut options = options();
        options.device(P9Share { dir: file.clone(), ..share("t") });
        prop_assert!(survives(&options.plan().unwrap(), &bytes));
        let mut with_drive = with_device(Drive::new(&file));
        prop_assert!(survives(&with_drive.plan().unwrap(), &bytes));
        with_drive.device(UserNet::default().with_pcap(&file));
        prop_assert!(survives(&with_drive.plan().unwrap(), &bytes));
        // What a person would type is a whole number of words of a shell.
        let typed = with_drive.plan().unwrap().quoted(Spelling::Typed);
        prop_assert!(vmtest::quote::split(&typed).is_ok());
    }

    #[test]
    fn no_word_panics(text in any::<String>(), bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let raw = OsStr::from_bytes(&bytes);
        let _ = (UserNet::parse(raw), Drive::parse(raw), UserNet::parse(OsStr::new(&text)));
        for prefix in ["cidr", "hostfwd", "mac", "pcap", "nic"] {
            let _ = UserNet::parse(OsStr::new(&format!("user,{prefix}={text}")));
        }
        let _ = (text.parse::<Mac>(), text.parse::<vmtest::qemu::HostForward>());
        for arch in Arch::ALL {
            let mut options = Options::new(arch);
            options.boot = Boot::Kernel { image: raw.into(), initramfs: Initramfs::Path(raw.into()) };
            options.device(EventPort { name: text.clone() });
            options.device(share(&text));
            options.device(UserNet::default().with_user_arg(&text, &text));
            options.device(InterVm::new(text.clone()).join().with_nic(Nic::E1000));
            options.kernel_args.push(text.clone());
            options.qemu_args.push(raw.to_owned());
            for at in 0..options.devices.len() {
                let mut one = options.clone();
                one.devices = vec![options.devices[at].clone()];
                if let Ok(plan) = one.plan() {
                    let _ = (plan.listing(), plan.quoted(Spelling::Typed));
                }
            }
        }
    }

    #[test]
    fn cidrs_are_taken_or_refused(address in any::<u32>(), address6 in any::<u128>(), prefix in any::<u8>()) {
        let v4 = format!("{}/{prefix}", std::net::Ipv4Addr::from(address));
        let v6 = format!("{}/{prefix}", std::net::Ipv6Addr::from(address6));
        prop_assert_eq!(UserNet::default().with_cidr(&v4).is_ok(), (1..=29).contains(&prefix));
        prop_assert_eq!(UserNet::default().with_cidr(&v6).is_ok(), (1..=124).contains(&prefix));
        let net = UserNet {
            cidr4: Some(Cidr { address: address.into(), prefix }),
            cidr6: Some(Cidr { address: address6.into(), prefix }),
            ..UserNet::default()
        };
        prop_assert_eq!(with_device(net).plan().is_ok(), (1..=29).contains(&prefix));
    }
}

fn with_device(device: impl vmtest::qemu::Device + 'static) -> Options {
    let mut options = options();
    options.device(device);
    options
}

/// A device from outside the crate, with the errors that are there for such ones.
#[derive(Debug)]
struct Picky(vmtest::plan::PlanError);

impl vmtest::qemu::Device for Picky {
    fn plan(&self, _: &mut vmtest::plan::Planner) -> Result<(), vmtest::plan::PlanError> {
        Err(self.0.clone())
    }
}

#[test]
fn errors_of_devices_from_outside_come_out_of_the_plan() {
    use vmtest::plan::PlanError;
    let arch = vmtest::arch::Arch::Arm;
    for (error, text) in [
        (
            PlanError::NotOnArch { what: "an ISA card".into(), arch },
            "an ISA card cannot be had on arm",
        ),
        (PlanError::Other("no more slots".into()), "no more slots"),
    ] {
        let mut options = vmtest::options::Options::new(arch);
        options.device(Picky(error.clone()));
        let given = options.plan().unwrap_err();
        assert_eq!((given.to_string(), &given), (text.to_owned(), &error));
    }
}
