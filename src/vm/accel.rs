//! Finds out whether KVM is worth using, by running guest code.
//!
//! What is measured is kept in a file for as long as the host runs, since it does not change;
//! whether the device exists and may be opened is looked at each time, since a user mends that and
//! tries again. The decision and its wording are in [`crate::accel`].
//!
//! The file, `kvm-speed.json` in the cache directory, is only a shortcut: whatever is wrong with it,
//! the probe runs.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::accel::{
    AccelChoice, AccelOption, KvmUnusable, Obstacle, Permission, Reason, Speed, choose,
};
use crate::arch::Arch;
use crate::sys::kvm;

/// Where KVM is looked for, and where answers are kept.
#[derive(Clone, Debug)]
pub struct KvmProbe {
    /// The device.
    pub device: PathBuf,
    /// Directory of the file with earlier measurements, created when needed; `None` measures each
    /// time.
    pub cache_dir: Option<PathBuf>,
}

/// What keeps the measurements of one cache file apart: they count only for this kernel, since it
/// was booted, and for this device node.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Key {
    boot_id: String,
    kernel: String,
    device: PathBuf,
    /// File system, inode, device number, mode, owner and group of the node.
    node: [u64; 6],
    /// Iterations of a measurement: another number is another version of the probe.
    wanted: u64,
}

/// What the cache file holds.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    key: Key,
    done: u64,
    elapsed_ns: u64,
    best_per_second: u64,
}

const CACHE_FILE: &str = "kvm-speed.json";

impl KvmProbe {
    /// The probe of `/dev/kvm`.
    pub fn new(cache_dir: Option<PathBuf>) -> KvmProbe {
        KvmProbe { device: "/dev/kvm".into(), cache_dir }
    }

    /// Decides which accelerator runs a guest of architecture `guest` on this host.
    ///
    /// Takes some 25 ms where guest code has to be run, and well under one when that was done
    /// before.
    ///
    /// # Errors
    /// [`KvmUnusable`] when KVM was asked for and cannot be had.
    pub fn choose(&self, option: AccelOption, guest: Arch) -> Result<AccelChoice, KvmUnusable> {
        choose(option, guest, Arch::host(), || self.speed())
    }

    /// How fast KVM is, where that is fast enough.
    fn speed(&self) -> Result<Speed, Reason> {
        let node = self.open()?;
        let key = Key::of(&self.device, &node);
        let file = self.cache_dir.as_ref().map(|dir| dir.join(CACHE_FILE));
        let known = key.as_ref().and_then(|key| read_cache(file.as_ref()?, key));
        let speed = match known {
            Some(speed) => speed,
            None => {
                let speed = kvm::measure(&self.device).map_err(|refused| Reason::Kvm {
                    device: self.device.clone(),
                    step: refused.step,
                    problem: refused.problem,
                })?;
                // Nothing done says more about how busy the host is than about KVM.
                if let (Some(key), Some(file), true) = (key, file, speed.done > 0) {
                    // Without the file, the next run measures again: no reason to trouble anybody.
                    let _ = write_cache(&file, key, &speed);
                }
                speed
            }
        };
        if speed.is_hardware() {
            Ok(speed)
        } else {
            Err(Reason::TooSlow { device: self.device.clone(), speed })
        }
    }

    /// Opens the device the way QEMU will, and tells what kept it from that.
    fn open(&self) -> Result<Metadata, Reason> {
        let device = &self.device;
        let kvm = |step, err: io::Error| Reason::Kvm {
            device: device.clone(),
            step,
            problem: err.to_string(),
        };
        let node = match fs::metadata(device) {
            Ok(node) => node,
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                return Err(Reason::Missing { device: device.clone() });
            }
            Err(err) => return Err(kvm("stat", err)),
        };
        match File::options().read(true).write(true).open(device) {
            Ok(_) => Ok(node),
            Err(err) if err.kind() == io::ErrorKind::PermissionDenied => {
                Err(Reason::NoPermission(self.why_denied(&node)))
            }
            Err(err) => Err(kvm("open", err)),
        }
    }

    fn why_denied(&self, node: &Metadata) -> Permission {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let groups = Groups { group: &read("/etc/group"), passwd: &read("/etc/passwd") };
        let uid = rustix::process::geteuid().as_raw();
        let mut active: Vec<u32> =
            rustix::process::getgroups().unwrap_or_default().iter().map(|g| g.as_raw()).collect();
        active.push(rustix::process::getegid().as_raw());
        let (mode, gid) = (node.mode() & 0o7777, node.gid());
        Permission {
            device: self.device.clone(),
            mode,
            group: groups.name(gid).map_or_else(|| gid.to_string(), str::to_owned),
            obstacle: obstacle(mode, gid, node.uid() == uid, &active, groups.lists(gid, uid)),
        }
    }
}

/// What keeps a user from a device node that did not open.
fn obstacle(mode: u32, gid: u32, owner: bool, active: &[u32], listed: bool) -> Obstacle {
    const GROUP_READ_WRITE: u32 = 0o060;
    const OTHERS_READ_WRITE: u32 = 0o006;
    let by_group = mode & GROUP_READ_WRITE == GROUP_READ_WRITE;
    let member = active.contains(&gid);
    // The first class that fits decides, even if a later one would allow more.
    let allowed = match (owner, member) {
        (true, _) => mode & 0o600 == 0o600,
        (false, true) => by_group,
        (false, false) => mode & OTHERS_READ_WRITE == OTHERS_READ_WRITE,
    };
    match () {
        () if allowed => Obstacle::Denied,
        // Nobody should be told to join root's group.
        () if !by_group || gid == 0 || owner || member => Obstacle::Closed,
        () if listed => Obstacle::GroupNotActive,
        () => Obstacle::NotInGroup,
    }
}

/// The texts of `/etc/group` and `/etc/passwd`. Users and groups that come from elsewhere (LDAP)
/// are not found; the hint then shows a number.
struct Groups<'a> {
    group: &'a str,
    passwd: &'a str,
}

impl<'a> Groups<'a> {
    /// Name and members of a group (group(5): `name:password:gid:member,member`).
    fn entry(&self, gid: u32) -> Option<(&'a str, &'a str)> {
        self.group.lines().find_map(|line| {
            let mut fields = line.split(':');
            let (name, number, members) = (fields.next()?, fields.nth(1)?, fields.next()?);
            (number.parse() == Ok(gid)).then_some((name, members))
        })
    }

    fn name(&self, gid: u32) -> Option<&'a str> {
        self.entry(gid).map(|(name, _)| name)
    }

    /// Whether the group lists the user of this number (passwd(5): `name:password:uid:…`).
    fn lists(&self, gid: u32, uid: u32) -> bool {
        let user = self.passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let (name, number) = (fields.next()?, fields.nth(1)?);
            (number.parse() == Ok(uid)).then_some(name)
        });
        let members = self.entry(gid).map_or("", |(_, members)| members);
        user.is_some_and(|user| members.split(',').any(|member| member == user))
    }
}

impl Key {
    /// `None` where the host does not say when it was booted.
    fn of(device: &Path, node: &Metadata) -> Option<Key> {
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(Key {
            boot_id: boot_id.trim().to_owned(),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            device: device.to_owned(),
            node: [
                node.dev(),
                node.ino(),
                node.rdev(),
                node.mode().into(),
                node.uid().into(),
                node.gid().into(),
            ],
            wanted: kvm::WANTED,
        })
    }
}

fn read_cache(file: &Path, key: &Key) -> Option<Speed> {
    let entry: Entry = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    (entry.key == *key && entry.done > 0).then(|| Speed {
        done: entry.done,
        wanted: entry.key.wanted,
        elapsed: Duration::from_nanos(entry.elapsed_ns),
        best_per_second: entry.best_per_second,
    })
}

/// Writes a file of its own and renames it, so that a reader sees the old one or the new one.
fn write_cache(file: &Path, key: Key, speed: &Speed) -> io::Result<()> {
    let entry = Entry {
        key,
        done: speed.done,
        elapsed_ns: u64::try_from(speed.elapsed.as_nanos()).unwrap_or(u64::MAX),
        best_per_second: speed.best_per_second,
    };
    let dir = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    let mut new = tempfile::NamedTempFile::new_in(dir)?;
    serde_json::to_writer(&mut new, &entry)?;
    new.persist(file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accel::Accel;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::Instant;

    fn probe_of(device: &Path, cache_dir: Option<&Path>) -> KvmProbe {
        KvmProbe { device: device.to_owned(), cache_dir: cache_dir.map(Path::to_owned) }
    }

    fn native() -> Option<Arch> {
        Arch::host().filter(|host| matches!(host, Arch::Amd64 | Arch::Arm64))
    }

    /// Not which accelerator this machine has, but that the answer is definite, follows from what
    /// was measured, comes in time, and comes at once the second time.
    #[test]
    fn the_answer_about_this_host_is_definite_and_remembered() {
        let Some(guest) = native() else { return };
        let cache = tempfile::tempdir().unwrap();
        let probe = KvmProbe::new(Some(cache.path().join("not/there/yet")));
        let choice = probe.choose(AccelOption::Auto, guest).unwrap();
        println!("{choice}");
        match &choice.reason {
            Reason::Proven(speed) => {
                assert_eq!(choice.accel, Accel::Kvm);
                assert!(speed.is_hardware() && speed.done == speed.wanted);
            }
            Reason::TooSlow { speed, .. } => {
                assert_eq!(choice.accel, Accel::Tcg);
                assert!(!speed.is_hardware());
                // Twice the budget: other tests may take the processor meanwhile.
                assert!(speed.done > 0 && speed.done < speed.wanted, "{speed:?}");
                assert!(probe.choose(AccelOption::Kvm, guest).is_err());
            }
            // No device, or no permission.
            _ => {
                assert_eq!(choice.accel, Accel::Tcg);
                return;
            }
        }
        let start = Instant::now();
        assert_eq!(probe.choose(AccelOption::Auto, guest), Ok(choice));
        println!("again: {:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_millis(20), "{:?}", start.elapsed());
    }

    #[test]
    fn what_the_cache_holds_counts_only_for_the_same_boot_and_node() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(CACHE_FILE);
        let device = dir.path().join("device");
        File::create(&device).unwrap();
        let key = || Key::of(&device, &fs::metadata(&device).unwrap()).unwrap();
        let speed = Speed {
            done: 5,
            wanted: kvm::WANTED,
            elapsed: Duration::from_millis(7),
            best_per_second: 123,
        };

        assert_eq!(read_cache(&file, &key()), None);
        write_cache(&file, key(), &speed).unwrap();
        assert_eq!(read_cache(&file, &key()), Some(speed));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no temporary file is left");

        let other = Key { boot_id: "another boot".into(), ..key() };
        assert_eq!(read_cache(&file, &other), None);
        fs::set_permissions(&device, PermissionsExt::from_mode(0o640)).unwrap();
        assert_eq!(read_cache(&file, &key()), None);

        for garbage in [&b""[..], b"{", b"[]", b"\xff", b"{\"key\":null}"] {
            fs::write(&file, garbage).unwrap();
            assert_eq!(read_cache(&file, &key()), None);
        }
    }

    #[test]
    fn a_measurement_in_the_cache_is_believed() {
        let Some(guest) = native() else { return };
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("device");
        File::create(&device).unwrap();
        let probe = probe_of(&device, Some(dir.path()));
        let key = Key::of(&device, &fs::metadata(&device).unwrap()).unwrap();
        let speed = Speed {
            done: kvm::WANTED,
            wanted: kvm::WANTED,
            elapsed: Duration::from_millis(2),
            best_per_second: 2_000_000_000,
        };
        write_cache(&dir.path().join(CACHE_FILE), key, &speed).unwrap();
        let choice = probe.choose(AccelOption::Kvm, guest).unwrap();
        assert_eq!(choice.reason, Reason::Proven(speed));
    }

    #[test]
    fn a_missing_device_and_one_that_is_no_kvm_are_told_apart() {
        let Some(guest) = native() else { return };
        let dir = tempfile::tempdir().unwrap();
        let reason = |device: &Path| {
            probe_of(device, Some(dir.path())).choose(AccelOption::Auto, guest).unwrap().reason
        };
        let missing = dir.path().join("kvm");
        assert_eq!(reason(&missing), Reason::Missing { device: missing.clone() });
        symlink("nowhere", dir.path().join("dangling")).unwrap();
        assert_eq!(reason(&dir.path().join("dangling")).code(), "missing");

        let file = dir.path().join("file");
        File::create(&file).unwrap();
        match reason(&file) {
            Reason::Kvm { step: "KVM_GET_API_VERSION", .. } => {}
            other => panic!("{other:?}"),
        }
        match reason(dir.path()) {
            Reason::Kvm { step: "open", .. } => {}
            other => panic!("{other:?}"),
        }
        assert!(!dir.path().join(CACHE_FILE).exists(), "errors are not remembered");
    }

    #[test]
    fn a_device_that_may_not_be_opened_names_the_group_that_helps() {
        let Some(guest) = native() else { return };
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let device = dir.path().join("kvm");
        File::create(&device).unwrap();
        fs::set_permissions(&device, PermissionsExt::from_mode(0o000)).unwrap();

        // Root may open everything, so a thread of root's becomes somebody else; uids are per
        // thread for the kernel.
        let permission = std::thread::scope(|scope| {
            let nobody = || {
                if rustix::process::geteuid().is_root() {
                    let uid = rustix::process::Uid::from_raw(65534);
                    rustix::thread::set_thread_uid(uid).unwrap();
                }
                let choice = probe_of(&device, None).choose(AccelOption::Auto, guest).unwrap();
                match choice.reason {
                    Reason::NoPermission(permission) => permission,
                    other => panic!("{other:?}"),
                }
            };
            scope.spawn(nobody).join().unwrap()
        });
        assert_eq!(permission.obstacle, Obstacle::Closed);
        assert_eq!(permission.mode, 0);
        assert_eq!(permission.device, device);
    }

    #[test]
    fn what_keeps_a_user_out_follows_from_mode_and_membership() {
        const KVM: u32 = 108;
        for (mode, gid, owner, active, listed, expected) in [
            (0o660, KVM, false, &[1000][..], false, Obstacle::NotInGroup),
            (0o660, KVM, false, &[1000], true, Obstacle::GroupNotActive),
            (0o660, KVM, false, &[1000, KVM], true, Obstacle::Denied),
            (0o666, KVM, false, &[1000], false, Obstacle::Denied),
            (0o600, 0, false, &[1000], false, Obstacle::Closed),
            (0o660, 0, false, &[1000], false, Obstacle::Closed),
            (0o640, KVM, false, &[1000], false, Obstacle::Closed),
            (0o606, KVM, false, &[1000, KVM], true, Obstacle::Closed),
            (0o060, KVM, true, &[1000], false, Obstacle::Closed),
            (0o600, 0, true, &[0], false, Obstacle::Denied),
        ] {
            assert_eq!(obstacle(mode, gid, owner, active, listed), expected, "{mode:o} {active:?}");
        }
    }

    #[test]
    fn groups_and_users_are_read_from_the_system_files() {
        let groups = Groups {
            group: "root:x:0:\nkvm:x:108:alice,bob\nbroken\nempty:x:7:\n",
            passwd: "root:x:0:0:root:/root:/bin/sh\nbob:x:1001:1001::/:/bin/sh\ncarol:x:1002:1002::/:\n",
        };
        assert_eq!(groups.name(108), Some("kvm"));
        assert_eq!(groups.name(109), None);
        assert!(groups.lists(108, 1001));
        assert!(!groups.lists(108, 1002));
        assert!(!groups.lists(7, 1001));
        assert!(!groups.lists(108, 4711));
    }
}
