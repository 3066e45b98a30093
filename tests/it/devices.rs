//! Devices in guests that really boot.

use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vmtest::accel::AccelOption;
use vmtest::arch::Arch;
use vmtest::configure::Config;
use vmtest::options::{Environment, Options};
use vmtest::qemu::{
    Drive, DriveFormat, DriveInterface, Nic, Ownership, P9Share, ReadOnlyDir, UserNet,
};
use vmtest::session::{self, Command, Conduct, Init};
use vmtest::vm::{InterVm, Outcome, ServeHttp, Streams, Verdict};

use crate::support::{DEADLINE, assets, vmtest};

/// What a guest did.
#[derive(Debug)]
struct Ran {
    outcome: Outcome,
    stdout: String,
    stderr: String,
}

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

/// Runs a shell script in a guest with these devices.
async fn run(arch: Arch, fill: impl FnOnce(&mut Options), script: &str) -> Ran {
    assets(arch);
    let mut config = Config::new(arch);
    config.accel = AccelOption::Tcg;
    config.options.timeout = Some(DEADLINE);
    fill(&mut config.options);
    let command = Command::new("sh").args(["-ec", script]);
    let environment = Environment::read().unwrap();
    let machine = session::prepare(config, &environment, Init::Agent(Some(command))).unwrap();
    let (stdout, stderr) = (Buffer::default(), Buffer::default());
    let streams =
        Streams { stdin: None, stdout: Box::new(stdout.clone()), stderr: Box::new(stderr.clone()) };
    let conduct = Conduct::new(streams);
    let record = machine.conduct(conduct, std::future::pending(), |_| {}).await.unwrap();
    let outcome = record.outcome;
    if !outcome.verdict.passed() {
        for line in record.console_tail {
            eprintln!("console: {line}");
        }
    }
    Ran { outcome, stdout: stdout.text(), stderr: stderr.text() }
}

impl Ran {
    #[track_caller]
    fn passed(self) -> Ran {
        assert!(self.outcome.verdict.passed(), "{self:?}");
        self
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let limit = DEADLINE + Duration::from_secs(30);
    runtime.block_on(async { tokio::time::timeout(limit, future).await.expect("it ends in time") })
}

/// A qcow2 image (version 2) of a disk of zeros: QEMU's `docs/interop/qcow2.rst`. No tool is needed.
pub(crate) fn empty_qcow2(disk_bytes: u64) -> Vec<u8> {
    const CLUSTER: usize = 1 << 16;
    // Clusters: header, refcount table, refcount block, first-level table.
    let mut image = vec![0; 4 * CLUSTER];
    let mut header = Vec::new();
    header.extend_from_slice(b"QFI\xfb");
    header.extend_from_slice(&2u32.to_be_bytes()); // version
    header.extend_from_slice(&[0; 12]); // no backing file
    header.extend_from_slice(&16u32.to_be_bytes()); // cluster bits
    header.extend_from_slice(&disk_bytes.to_be_bytes());
    header.extend_from_slice(&0u32.to_be_bytes()); // no encryption
    header.extend_from_slice(&1u32.to_be_bytes()); // first-level entries: one covers 512 MiB
    header.extend_from_slice(&(3 * CLUSTER as u64).to_be_bytes());
    header.extend_from_slice(&(CLUSTER as u64).to_be_bytes());
    header.extend_from_slice(&1u32.to_be_bytes()); // clusters of the refcount table
    header.extend_from_slice(&[0; 12]); // no snapshots
    image[..header.len()].copy_from_slice(&header);
    image[CLUSTER..CLUSTER + 8].copy_from_slice(&(2 * CLUSTER as u64).to_be_bytes());
    for cluster in 0..4 {
        let at = 2 * CLUSTER + 2 * cluster;
        image[at..at + 2].copy_from_slice(&1u16.to_be_bytes());
    }
    image
}

/// Every file below a directory with its content.
fn snapshot(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = walkdir::WalkDir::new(dir)
        .into_iter()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let is_file = entry.file_type().is_file();
            let content = if is_file { fs::read(entry.path()).unwrap() } else { Vec::new() };
            (entry.into_path(), content)
        })
        .collect();
    files.sort();
    files
}

/// Shares of all kinds, many of them, one inside another, with names that need quoting; and
/// read-only directories that a guest attacks with all it has.
#[test]
fn shares_and_read_only_directories() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &[u8]| root.path().join(std::ffi::OsStr::from_bytes(name));
    let rw = path(b"a,b c\n\xff");
    let (ro, mapped, vfat) = (path(b"ro"), path(b"mapped"), path(b"vfat"));
    for dir in [&rw, &ro, &mapped, &vfat] {
        fs::create_dir(dir).unwrap();
        fs::write(dir.join("file"), "from the host\n").unwrap();
    }
    fs::create_dir(rw.join("inner")).unwrap();
    fs::write(vfat.join("Größe – 大きさ.txt"), "names\n").unwrap();
    // Beyond what QEMU's own fat driver can hold.
    let big = fs::File::create(vfat.join("big")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&big, b"the end", 600_000_000).unwrap();
    drop(big);
    let before = [snapshot(&ro), snapshot(&vfat)];
    let used = root.path().to_owned();

    let ran = block_on(run(
        Arch::Amd64,
        |options| {
            let mut share = |dir: &Path, tag: &str, read_only, ownership| {
                options.device(P9Share { dir: dir.into(), tag: tag.into(), read_only, ownership });
            };
            share(&rw, "rw", false, Ownership::Host);
            share(&rw.join("inner"), "inner", false, Ownership::Host);
            share(&ro, "ro", true, Ownership::Host);
            share(&mapped, "mapped", false, Ownership::MappedFile);
            for n in 0..25 {
                share(&rw, &format!("many{n}"), true, Ownership::Host);
            }
            options.device(ReadOnlyDir { dir: vfat.clone() });
        },
        "
        cd /mount/9p
        echo guest > rw/from-guest
        echo inner > inner/deep
        cat rw/inner/deep many24/from-guest many24/file ro/file
        for change in 'rm -rf ro/file' 'touch ro/new' 'mv ro/file ro/other' 'touch many3/new' \
            'mount -o remount,rw ro' ; do
            $change 2> /dev/null && touch ro/really 2> /dev/null && echo \"possible: $change\"
        done
        chown 12:34 mapped/file; chmod 4711 mapped/file; mknod mapped/pipe p
        stat -c '%u:%g %a %F' mapped/file mapped/pipe
        cd /mount/vfat/sda1
        cat Größe*; stat -c %s big; tail -c 7 big; echo
        umount /mount/vfat/sda1 2> /dev/null || cd / && umount /mount/vfat/sda1
        mount -t vfat -o rw /dev/sda1 /mount/vfat/sda1 2> /dev/null
        touch /mount/vfat/sda1/new 2> /dev/null && echo 'a file was made'
        rm /mount/vfat/sda1/big 2> /dev/null && echo 'a file was removed'
        umount /mount/vfat/sda1
        blockdev --setrw /dev/sda1 2> /dev/null || true
        blockdev --setrw /dev/sda 2> /dev/null || true
        for target in /dev/sda /dev/sda1; do
            dd if=/dev/urandom of=$target bs=4096 count=64 conv=fsync 2> /dev/null \
                && echo \"$target was written to\"
        done
        true
        ",
    ))
    .passed();
    assert_eq!(
        ran.stdout,
        "inner\nguest\nfrom the host\nfrom the host\n12:34 4711 regular file\n0:0 644 fifo\n\
         names\n600000007\nthe end\n"
    );
    assert_eq!(before, [snapshot(&ro), snapshot(&vfat)], "the host's directories are as before");
    assert_eq!(fs::read(rw.join("from-guest")).unwrap(), b"guest\n");
    // No root is needed for mapped owners: the file is still ours, the owner is beside it.
    use std::os::unix::fs::MetadataExt;
    let ours = used.metadata().unwrap().uid();
    assert_eq!(mapped.join("file").metadata().unwrap().uid(), ours);
    assert!(mapped.join(".virtfs_metadata").is_dir());
}

/// Disks on all three buses, raw and qcow2, writable, read-only and with writes that are thrown away.
#[test]
fn drives() {
    use DriveFormat::{Qcow2, Raw};
    use DriveInterface::{Ahci, Scsi, Virtio};
    let root = tempfile::tempdir().unwrap();
    // Interface, format, read-only, snapshot, name in the guest.
    let drives = [
        (Virtio, Raw, false, false, "vda"),
        (Virtio, Qcow2, false, false, "vdb"),
        (Virtio, Raw, true, false, "vdc"),
        (Virtio, Qcow2, false, true, "vdd"),
        (Ahci, Raw, false, false, "sdc"),
        (Ahci, Qcow2, false, true, "sdd"),
        (Scsi, Qcow2, false, false, "sda"),
        (Scsi, Raw, true, false, "sdb"),
    ];
    let disk_bytes: u64 = 1 << 20;
    let file = |name: &str| root.path().join(format!("{name},.img"));
    for (_, format, _, _, name) in drives {
        let content = match format {
            Raw => vec![0; disk_bytes as usize],
            Qcow2 => empty_qcow2(disk_bytes),
            other => panic!("no image of {other:?}"),
        };
        fs::write(file(name), content).unwrap();
    }
    let before: Vec<_> = drives.iter().map(|drive| fs::read(file(drive.4)).unwrap()).collect();

    let ran = block_on(run(
        Arch::Amd64,
        |options| {
            for (interface, format, read_only, snapshot, name) in drives {
                options.device(Drive { file: file(name), format, interface, read_only, snapshot });
            }
        },
        "
        for _ in $(seq 100); do [ -e /sys/block/sdd ] && break; sleep 0.1; done
        cd /sys/block
        for disk in [sv]d?; do
            case $(readlink $disk) in
                */ata*) bus=ahci ;; */target*) bus=scsi ;; *) bus=virtio ;;
            esac
            wrote=
            # Linux names disks of one bus in the order in which they answer; a port or target stays.
            me=$disk
            case $bus in
                ahci) me=$(readlink $disk | grep -o 'ata[0-9]*' | head -n 1) ;;
                scsi) me=target$(readlink $disk | grep -o 'target[0-9:]*' | sed 's/.*://') ;;
            esac
            echo \"I am $me\" | dd of=/dev/$disk bs=512 seek=100 conv=sync,fsync 2> /dev/null \
                && wrote=written
            echo $me $bus ro=$(cat $disk/ro) sectors=$(cat $disk/size) $wrote
        done | sort
        ",
    ))
    .passed();
    assert_eq!(
        ran.stdout,
        "ata1 ahci ro=0 sectors=2048 written\n\
         ata2 ahci ro=0 sectors=2048 written\n\
         target0 scsi ro=0 sectors=2048 written\n\
         target1 scsi ro=1 sectors=2048\n\
         vda virtio ro=0 sectors=2048 written\n\
         vdb virtio ro=0 sectors=2048 written\n\
         vdc virtio ro=1 sectors=2048\n\
         vdd virtio ro=0 sectors=2048 written\n"
    );
    let (mut ports, mut targets) = (1.., 0..);
    for ((interface, format, read_only, snapshot, name), before) in drives.into_iter().zip(before) {
        let me = match interface {
            Ahci => format!("ata{}", ports.next().unwrap_or(0)),
            Scsi => format!("target{}", targets.next().unwrap_or(0)),
            _ => name.to_owned(),
        };
        let after = fs::read(file(name)).unwrap();
        if read_only || snapshot {
            assert!(after == before, "{name} has changed");
            continue;
        }
        let wanted = format!("I am {me}\n");
        let found = match format {
            Raw => after[51200..].starts_with(wanted.as_bytes()),
            Qcow2 => after.windows(wanted.len()).any(|window| window == wanted.as_bytes()),
            other => panic!("where is the text in {other:?}?"),
        };
        assert!(found, "{name} was not written");
    }
}

/// The guest reaches the host's HTTP server, the host a server in the guest; several cards of both
/// models have their addresses; everything is in the pcap.
#[test]
fn user_networks() {
    let root = tempfile::tempdir().unwrap();
    let pcap = root.path().join("a,b.pcap");
    fs::write(root.path().join("page"), "from the host's server\n").unwrap();
    let http = ServeHttp::directory(root.path()).unwrap();
    let port = http.address().port();
    let address = http.address();
    let ran = block_on(run(
        Arch::Amd64,
        |options| {
            options.device(http);
            options.device(UserNet::default().with_nic(Nic::E1000));
            let second = UserNet::default().with_cidr("192.168.7.0/28").unwrap();
            let second = second.with_cidr("fd00:7::/64").unwrap();
            options.device(second.with_pcap(&pcap).with_mac("52:54:00:00:00:07".parse().unwrap()));
            options.device(UserNet::default());
        },
        &format!(
            "
            wget -q -O - http://10.0.2.2:{port}/page
            wget -q -O - http://192.168.7.2:{port}/page
            wget -q -O - http://10.0.4.2:{port}/page
            cat /etc/resolv.conf
            for card in /sys/class/net/eth*; do
                driver=$(basename $(readlink $card/device/driver))
                echo $(cat $card/address) $driver \
                    $(ip -4 -o addr show ${{card##*/}} | awk '{{print $4}}')
            done | sort
            ip -6 -o addr | awk '/fd00:/ {{print $4}}' | grep -x fd00:7::f/64
            "
        ),
    ))
    .passed();
    assert_eq!(
        ran.stdout,
        "from the host's server\nfrom the host's server\nfrom the host's server\n\
         nameserver 10.0.2.3\n\
         52:54:00:00:00:07 virtio_net 192.168.7.4/28\n\
         52:54:00:12:34:56 e1000 10.0.2.15/24\n\
         52:54:00:12:34:58 virtio_net 10.0.4.15/24\n\
         fd00:7::f/64\n"
    );
    assert!(captured(&pcap, format!("GET /page HTTP/1.1\r\nHost: 192.168.7.2:{port}").as_bytes()));
    // The server has ended with the machine.
    assert!(std::net::TcpStream::connect(address).is_err());
}

/// Whether one of the packets of a capture contains these bytes.
fn captured(pcap: &Path, wanted: &[u8]) -> bool {
    let mut reader = pcap_file::pcap::PcapReader::new(fs::File::open(pcap).unwrap()).unwrap();
    let mut found = false;
    while let Some(packet) = reader.next_packet() {
        let data = packet.expect("QEMU writes whole packets").data;
        found |= data.windows(wanted.len()).any(|window| window == wanted);
    }
    found
}

/// Three guests on one link, of both card models and two architectures: all reach each other.
#[test]
fn guests_talk_to_each_other() {
    let root = tempfile::tempdir().unwrap();
    let pcap = root.path().join("link.pcap");
    let link = InterVm::new("lan");
    let [server, client, other] = [(); 3].map(|()| link.join());
    // Each serves, and asks the others until they answer. Who is done says so in a directory of the
    // host's, and goes when all are: over the link nobody could know that.
    let shared = root.path().join("shared");
    fs::create_dir(&shared).unwrap();
    let share = || P9Share {
        dir: shared.clone(),
        tag: "done".into(),
        read_only: false,
        ownership: Ownership::Host,
    };
    let script = |n: u32, others: &str| {
        format!(
            "ip link set eth0 up; ip addr add 10.9.0.{n}/24 dev eth0
            cat /sys/class/net/eth0/address
            mkdir /www; echo 'I am {n}' > /www/page; httpd -h /www
            for other in {others}; do
                until wget -q -T 2 -O - http://10.9.0.$other/page; do sleep 0.5; done
            done 2> /dev/null
            cd /mount/9p/done; touch {n}
            until [ \"$(echo *)\" = '1 2 3' ]; do sleep 0.2; done"
        )
    };
    let (pcap_file, macs) = (pcap.clone(), [server.mac(), client.mac(), other.mac()]);
    let [a, b, c] = block_on(async {
        let (one, two, three) = (script(1, "2 3"), script(2, "1 3"), script(3, "1 2"));
        let (a, b, c) = tokio::join!(
            run(
                Arch::Amd64,
                |options| {
                    options.device(server.with_pcap(pcap_file)).device(share());
                },
                &one
            ),
            run(
                Arch::Amd64,
                |options| {
                    options.device(client.with_nic(Nic::E1000)).device(share());
                },
                &two
            ),
            run(
                Arch::Riscv64,
                |options| {
                    options.device(other).device(share());
                },
                &three
            ),
        );
        [a.passed(), b.passed(), c.passed()]
    });
    assert_eq!(a.stdout, format!("{}\nI am 2\nI am 3\n", macs[0]));
    assert_eq!(b.stdout, format!("{}\nI am 1\nI am 3\n", macs[1]));
    assert_eq!(c.stdout, format!("{}\nI am 1\nI am 2\n", macs[2]));
    // A hub: the first guest's card sees what the two others say to each other, too.
    for text in ["I am 1\n", "I am 2\n", "I am 3\n", "GET /page HTTP/1.1\r\nHost: 10.9.0.3"] {
        assert!(captured(&pcap, text.as_bytes()), "`{text}` is not in the capture");
    }
}

/// A port that QEMU chose is reported while the guest runs and afterwards.
#[test]
fn forwarded_ports_are_reported() {
    let root = tempfile::tempdir().unwrap();
    let artifacts = root.path().join("artifacts");
    assets(Arch::Amd64);
    let running = vmtest(["--net", "user,hostfwd=tcp::0-:7", "--message-format", "json"])
        .arg(format!("--artifacts={}", artifacts.display()))
        .args(["--", "sh", "-c", "mkdir /w; echo served > /w/f; httpd -f -p 7 -h /w & sleep 2; wget -q -O - http://10.0.2.15:7/f"])
        .run();
    running.code(0).stdout("served\n").says("\"type\":\"forward\"");
    let report = fs::read(artifacts.join("run.json")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    let forward = &report["port_forwards"][0];
    assert!(forward["host_port"].as_u64().unwrap() > 0, "{forward}");
    assert_eq!(forward["guest_port"], 7);
}

/// UEFI starts the kernel; the variable store that was given stays as it is.
fn firmware(arch: Arch) {
    let store = assets(arch).firmware.unwrap_or_else(|| {
        panic!("no firmware for {arch}; run `setup/assets {arch} firmware` first")
    });
    let before = fs::read(&store.vars.path).unwrap();
    let done = vmtest(["--arch", arch.name(), "--firmware", "default", "--", "sh", "-c"])
        .arg("test -d /sys/firmware/efi && echo by UEFI")
        .run();
    done.code(0).stdout("by UEFI\n");
    assert!(fs::read(&store.vars.path).unwrap() == before, "the variable store has changed");
}

#[test]
fn firmware_amd64() {
    firmware(Arch::Amd64);
}

#[test]
fn firmware_arm64() {
    firmware(Arch::Arm64);
}

/// What is not there is said before QEMU is asked.
#[test]
fn what_is_not_there_is_said_by_name() {
    use vmtest::options::{Boot, Initramfs};
    use vmtest::qemu::Firmware;
    use vmtest::vm::{Resources, Vm};

    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    fs::write(&file, "x").unwrap();
    let start = |fill: &dyn Fn(&mut Options)| {
        let mut options = Options::new(Arch::Amd64);
        options.boot = Boot::Kernel { image: "/k".into(), initramfs: Initramfs::None };
        fill(&mut options);
        let plan = options.plan().unwrap();
        block_on(async { Vm::start(plan, Resources::default()).unwrap_err() })
    };
    let share = |dir: &Path| P9Share {
        dir: dir.into(),
        tag: "t".into(),
        read_only: false,
        ownership: Ownership::Host,
    };
    let error = start(&|options| {
        options.device(share(&file));
    });
    assert_eq!(error.to_string(), format!("cannot open the share `{}`", file.display()));
    assert_eq!(error.hint().as_deref(), Some("only directories can be shared"));
    let missing = root.path().join("missing");
    for (fill, what) in [
        (
            &(|options: &mut Options| _ = options.device(share(&missing))) as &dyn Fn(&mut Options),
            "share",
        ),
        (&|options| _ = options.device(Drive::new(&missing)), "drive"),
        (&|options| _ = options.device(Drive::new(root.path())), "drive"),
        (
            &|options| {
                options.firmware = Some(Firmware { code: missing.clone(), vars: file.clone() });
            },
            "firmware",
        ),
    ] {
        let error = start(fill);
        assert!(error.to_string().starts_with(&format!("cannot open the {what} `")), "{error}");
    }
    let error = start(&|options| {
        options.firmware = Some(Firmware { code: file.clone(), vars: missing.clone() });
    });
    assert!(error.to_string().starts_with("cannot open the firmware `"), "{error}");
    let error = start(&|options| {
        options.device(ReadOnlyDir { dir: file.clone() });
    });
    assert!(error.to_string().contains("file"), "{error}");
}

/// A file that somebody closed behind its owner's back is an error, and no other file goes instead.
#[test]
fn an_extra_file_that_was_closed() {
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    use vmtest::vm::{Resources, Vm};

    // A descriptor of such a number is surely closed; the value below is never dropped.
    let null = fs::File::open("/dev/null").unwrap();
    let far = rustix::io::fcntl_dupfd_cloexec(&null, 900).unwrap();
    let number = far.as_raw_fd();
    drop(far);
    let mut options = Options::new(Arch::Amd64);
    #[expect(unsafe_code, reason = "that is the mistake under test")]
    // SAFETY: Nothing else in this test has this descriptor, and forgetting the options below means
    // that nothing closes it.
    options.add_file(unsafe { OwnedFd::from_raw_fd(number) });
    let plan = options.plan().unwrap();
    let error = block_on(async { Vm::start(plan.clone(), Resources::default()).unwrap_err() });
    assert_eq!(error.to_string(), "cannot hand over extra file 0");
    std::mem::forget((options, plan));
}

/// A guest that cannot be set up says which share it was.
#[test]
fn verdicts_of_guests_without_commands() {
    let ran = block_on(run(Arch::Amd64, |_| {}, "exit 3"));
    assert!(matches!(ran.outcome.verdict, Verdict::Exited(_)), "{ran:?}");
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
}

/// A tree of busybox and nothing else, the smallest that can be a root.
fn busybox_tree(arch: Arch) -> tempfile::TempDir {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let root = tempfile::tempdir().unwrap();
    let bin = root.path().join("bin");
    fs::create_dir(&bin).unwrap();
    fs::copy(assets(arch).shell.unwrap().path, bin.join("busybox")).unwrap();
    fs::set_permissions(bin.join("busybox"), fs::Permissions::from_mode(0o755)).unwrap();
    for applet in ["sh", "cat", "stat", "poweroff", "mount", "touch", "sync", "grep"] {
        symlink("busybox", bin.join(applet)).unwrap();
    }
    for dir in ["proc", "sys", "dev", "run", "tmp"] {
        fs::create_dir(root.path().join(dir)).unwrap();
    }
    fs::write(root.path().join("who"), "the host's tree\n").unwrap();
    root
}

/// A directory as the root: the command runs in it; read-only it cannot be changed.
#[test]
fn root_over_9p_with_the_agent() {
    let root = busybox_tree(Arch::Amd64);
    let script = "cat /who; grep -c ' / 9p ro' /proc/mounts; touch /new; echo end";
    let done = vmtest(["--arch", "amd64"])
        .arg(format!("--root={}:ro", root.path().display()))
        .args(["--", "sh", "-c", script])
        .run();
    done.code(0).stdout("the host's tree\n1\nend\n").says("Read-only file system");
    assert!(!root.path().join("new").exists());
}

/// The tree's own init runs, with a kernel whose 9p is a module: an image of ours switches to it.
#[test]
fn root_over_9p_with_its_own_init() {
    use std::os::unix::fs::PermissionsExt;
    let root = busybox_tree(Arch::Riscv64);
    let init = root.path().join("my init");
    let script = "#!/bin/sh\ncat /who > /seen\necho $$ >> /seen\nsync\npoweroff -f\n";
    fs::write(&init, script).unwrap();
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).unwrap();
    let done = vmtest(["--arch", "riscv64", "--append", "init=\"/my init\""])
        .arg(format!("--root={}", root.path().display()))
        .run();
    // The console of an own init goes to stderr.
    done.seen().code(0).says("switched itself off");
    assert_eq!(fs::read_to_string(root.path().join("seen")).unwrap(), "the host's tree\n1\n");
}
