//! What goes wrong around saved guests: no place for them, files that go away, networks of the run's own.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::*;

#[test]
fn without_a_place_for_templates_a_guest_boots_and_says_why() {
    assets(Arch::Amd64);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let artifacts = dir.path().join("artifacts");
    let done = vmtest(["--arch=amd64", "--warm=auto"])
        .env("VMTEST_CACHE", dir.path().join("file/below"))
        .arg(format!("--artifacts={}", artifacts.display()))
        .args(["--", "echo", "works"])
        .run();
    done.code(0).stdout("works\n");
    let text = std::fs::read_to_string(artifacts.join("run.json")).unwrap();
    let record: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(record["warm"]["state"], "cold", "{record}");
    let reason = record["warm"]["reason"].as_str().unwrap();
    assert!(reason.contains("file/below") && reason.contains("Not a directory"), "{reason}");
}

/// A file system that has no room for a guest's memory.
#[test]
fn a_full_cache_is_no_reason_to_fail() {
    assets(Arch::Amd64);
    let cache = cache();
    let limit = FullDisk::at(cache.path());
    for _ in 0..2 {
        sh(run(cache.path(), Arch::Amd64), "echo works").code(0).stdout("works\n");
        let record = record(cache.path());
        assert_eq!(record["warm"]["state"], "cold", "{record}");
        let reason = record["warm"]["reason"].as_str().unwrap();
        assert!(reason.contains("could not be saved") && reason.contains("No space"), "{reason}");
        let templates = std::fs::read_dir(cache.path().join("templates")).unwrap();
        assert_eq!(templates.count(), 0, "half a template is left");
    }
    drop(limit);
}

/// A small file system; unmounted when it is dropped.
struct FullDisk(std::path::PathBuf);

impl FullDisk {
    fn at(path: &Path) -> FullDisk {
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4m", "none"])
            .arg(path)
            .status()
            .expect("mount(8) is there");
        assert!(mounted.success(), "this test mounts a tmpfs: run it as root");
        FullDisk(path.to_owned())
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_guest_goes_on_when_its_template_is_removed() {
    let cache = saved(Arch::Amd64);
    let running = run(cache.path(), Arch::Amd64)
        .args(["--", "sh", "-c", "sleep 2; md5sum /.vmtest/bin/* | sort -u; echo through"])
        .start();
    running.wait_for_qemu();
    std::thread::sleep(Duration::from_secs(1));
    std::fs::remove_dir_all(cache.path().join("templates")).unwrap();
    let done = running.wait();
    done.code(0);
    let text = String::from_utf8(done.stdout.clone()).unwrap();
    assert!(text.ends_with("through\n"), "{text}");
    assert_eq!(state(cache.path()), "warm");
}

/// A guest's memory decides what runs in it: a template that somebody else could have made is none.
#[test]
fn a_strangers_template_is_not_used() {
    let cache = saved(Arch::Amd64);
    let templates = cache.path().join("templates");
    let boots = |expected: &str| {
        sh(run(cache.path(), Arch::Amd64), "echo works").code(0).stdout("works\n");
        let record = record(cache.path());
        assert_eq!(record["warm"]["state"], "cold", "{record}");
        let reason = record["warm"]["reason"].as_str().unwrap();
        assert!(reason.contains(expected), "{reason}");
        assert_eq!(std::fs::read_dir(&templates).unwrap().count(), 1);
    };
    std::fs::set_permissions(&templates, PermissionsExt::from_mode(0o770)).unwrap();
    boots("others may write to");
    std::fs::set_permissions(&templates, PermissionsExt::from_mode(0o700)).unwrap();
    let nobody = Some(65534);
    std::os::unix::fs::chown(&templates, nobody, nobody).expect("this test runs as root");
    boots("belongs to another user");
    std::os::unix::fs::chown(&templates, Some(0), Some(0)).unwrap();
    sh(run(cache.path(), Arch::Amd64), "echo works").code(0).stdout("works\n");
    assert_eq!(state(cache.path()), "warm");
}

/// Runs by the dozen, 16 at a time on however few processors there are: each is its own, and nothing is left
/// of any. `VMTEST_CLONES=200` runs more than the default of 32.
#[test]
fn bursts_of_sixteen_runs_all_pass() {
    let runs = std::env::var("VMTEST_CLONES").map_or(32, |n| n.parse().expect("a number"));
    let cache = saved(Arch::Amd64);
    for burst in 0..usize::div_ceil(runs, 16) {
        std::thread::scope(|scope| {
            for n in 0..16 {
                let said = format!("{burst}/{n}");
                let cache = cache.path();
                scope.spawn(move || {
                    let done = vmtest(["--arch=amd64", "--warm=on", "--", "echo", &said])
                        .env("VMTEST_CACHE", cache)
                        .run();
                    done.code(0).stdout(&format!("{said}\n"));
                });
            }
        });
    }
    let left = std::fs::read_dir(cache.path().join("templates")).unwrap();
    assert_eq!(left.count(), 1);
}

/// The host's ports and networks are the run's own: what is behind them may change from run to run.
fn networks(arch: Arch) {
    assets(arch);
    let cache = cache();
    for expected in ["saved", "warm", "warm"] {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let answer = format!("told at {expected} by {port}\n");
        let text = answer.clone();
        let serving = std::thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).unwrap();
            let head = "HTTP/1.0 200 OK\r\n\r\n";
            stream.write_all(format!("{head}{text}").as_bytes()).unwrap();
        });
        let script = format!("wget -q -O - http://10.0.2.2:{port}/");
        sh(run(cache.path(), arch).args(["--net", "user"]), &script).code(0).stdout(&answer);
        serving.join().unwrap();
        assert_eq!(state(cache.path()), expected);
    }
}

#[test]
fn a_resumed_guest_has_its_network_amd64() {
    networks(Arch::Amd64);
}

#[test]
fn a_resumed_guest_has_its_network_i386() {
    networks(Arch::I386);
}

#[test]
fn a_resumed_guest_has_its_network_arm64() {
    networks(Arch::Arm64);
}

#[test]
fn a_resumed_guest_has_its_network_arm() {
    networks(Arch::Arm);
}

#[test]
fn a_resumed_guest_has_its_network_riscv64() {
    networks(Arch::Riscv64);
}
