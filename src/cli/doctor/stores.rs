//! What lies on disk: assets, caches, places for temporary files.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::statvfs;
use vmtest::arch::Arch;
use vmtest::assets::{self, Assets};
use vmtest::options::Environment;
use walkdir::WalkDir;

use super::line::Line;

/// Hashes that are not there by then are not waited for.
const HASH_LIMIT: Duration = Duration::from_millis(1200);

/// A saved guest is as large as its memory.
const FREE_MIB: u64 = 2048;

/// Caches that are larger deserve a look.
const CACHE_MIB: u64 = 20 << 10;

/// Saved guests and images lie where they are resumed from.
const SHARED_MIB: u64 = 64;

const VERIFY: &str = "vmtest assets verify";

pub(super) fn assets(environment: &Environment) -> Vec<Line> {
    let assets = match Assets::find(environment) {
        Ok(assets) => assets,
        Err(error @ (assets::Error::NoManifest { .. } | assets::Error::NoPlace)) => {
            let text = vmtest::causes::chain(&error);
            return vec![Line::fail("assets", text, "make assets (in vmtest's source)")];
        }
        Err(error) => {
            return vec![Line::fail("assets", vmtest::causes::chain(&error), error.hint())];
        }
    };
    let files: Vec<(String, assets::Asset)> = assets
        .guests
        .iter()
        .flat_map(|(arch, guest)| {
            guest
                .files()
                .into_iter()
                .map(move |(name, asset)| (format!("{arch} {name}"), asset.clone()))
        })
        .collect();
    let (mut bad, unchecked) = verified(&files);
    bad.sort();
    let guests: Vec<&str> = assets.guests.keys().map(|arch| arch.name()).collect();
    let lacking: Vec<&str> = Arch::ALL
        .iter()
        .filter(|arch| {
            let guest = assets.guest(**arch);
            guest.kernel.is_none() || guest.guest.is_none() || guest.qemu.is_none()
        })
        .map(|arch| arch.name())
        .collect();
    let place = assets.manifest.display();
    let mut lines = bad
        .iter()
        .map(|text| Line::fail("assets", text, "make assets (in vmtest's source)"))
        .collect::<Vec<_>>();
    let text = format!("{} files for {} ({place})", files.len(), guests.join(", "));
    lines.push(match unchecked {
        0 if bad.is_empty() => Line::ok("assets", format!("{text}, all as the manifest says")),
        0 => Line::ok("assets", text),
        count => Line::warn("assets", format!("{text}; {count} were not hashed in time"), VERIFY),
    });
    if let [first, ..] = lacking[..] {
        let text = format!("no kernel, QEMU or guest program for {}", lacking.join(", "));
        lines.push(Line::warn("assets", text, format!("make assets ARCH={first}")));
    }
    lines
}

/// What is wrong, and how many files were not looked at in time.
fn verified(files: &[(String, assets::Asset)]) -> (Vec<String>, usize) {
    let begun = Instant::now();
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let bad = thread::scope(|scope| {
        let work = || {
            let mut bad = Vec::new();
            while begun.elapsed() < HASH_LIMIT {
                let Some((name, asset)) = files.get(next.fetch_add(1, Ordering::Relaxed)) else {
                    break;
                };
                if let Err(error) = asset.verify() {
                    bad.push(format!("{name}: {}", vmtest::causes::chain(&error)));
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
            bad
        };
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    });
    (bad, files.len() - done.into_inner())
}

pub(super) fn cache(environment: &Environment) -> Vec<Line> {
    let Some(dir) = &environment.cache_dir else {
        let text = "there is none: every guest boots";
        return vec![Line::warn("cache", text, "VMTEST_CACHE, XDG_CACHE_HOME or HOME names one")];
    };
    if !dir.is_dir() {
        return vec![Line::ok("cache", format!("{} is not there yet", dir.display()))];
    }
    let mib = |name: &str| size(&dir.join(name)) >> 20;
    let (templates, images) = (mib("templates"), mib("images"));
    let free = free_mib(dir);
    let text = format!(
        "{}: saved guests {templates} MiB, images {images} MiB, {} MiB free",
        dir.display(),
        free.map_or("unknown".to_owned(), |mib| mib.to_string())
    );
    vec![if free.is_some_and(|mib| mib < FREE_MIB) || templates + images > CACHE_MIB {
        Line::warn("cache", text, "vmtest template prune --keep 1G")
    } else {
        Line::ok("cache", text)
    }]
}

/// What the files take on disk: saved memory has holes.
fn size(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let files = WalkDir::new(dir).into_iter().flatten();
    files.filter_map(|entry| entry.metadata().ok()).map(|metadata| 512 * metadata.blocks()).sum()
}

fn free_mib(dir: &Path) -> Option<u64> {
    let info = statvfs(dir).ok()?;
    Some(info.f_bavail.saturating_mul(info.f_frsize) >> 20)
}

pub(super) fn temporary(_: &Environment) -> Vec<Line> {
    let dir = std::env::temp_dir();
    let made = tempfile::tempfile_in(&dir);
    let place = dir.display();
    vec![match (made, free_mib(&dir)) {
        (Err(error), _) => Line::fail(
            "temporary files",
            format!("none can be made in {place}: {error}"),
            "TMPDIR names another directory: `export TMPDIR=/var/tmp`",
        ),
        (Ok(_), Some(free)) if free < SHARED_MIB => Line::warn(
            "temporary files",
            format!("only {free} MiB are free in {place}"),
            "TMPDIR names another directory: `export TMPDIR=/var/tmp`",
        ),
        (Ok(_), free) => {
            let free = free.map_or("unknown".to_owned(), |mib| mib.to_string());
            Line::ok("temporary files", format!("{place}, {free} MiB free"))
        }
    }]
}

pub(super) fn shared_memory(_: &Environment) -> Vec<Line> {
    let dir = Path::new("/dev/shm");
    vec![match free_mib(dir) {
        None => Line::warn("/dev/shm", "it is not there", "mount -t tmpfs tmpfs /dev/shm"),
        Some(free) if free < SHARED_MIB => Line::warn(
            "/dev/shm",
            format!("only {free} MiB are free"),
            "mount -o remount,size=2G /dev/shm; of a container: --shm-size=2g",
        ),
        Some(free) => Line::ok("/dev/shm", format!("{free} MiB free")),
    }]
}
