use std::os::unix::fs::{FileExt, PermissionsExt};
use std::time::Duration;

use super::*;

fn about(name: &str) -> About {
    let hello = serde_json::from_value(serde_json::json!({
        "protocol": 2, "guest_version": "0", "kernel_release": "6", "machine": "none", "cpus": 1,
        "memory_bytes": 1, "init_secs": 0.0, "ready_secs": 0.0, "ports": [], "modules": [],
    }));
    About {
        arch: name.into(),
        qemu_version: "10".into(),
        hello: hello.unwrap(),
        made_of: vec![name.into()],
    }
}

fn key(name: &str) -> Key {
    let mut builder = KeyBuilder::new();
    builder.text(name);
    builder.key()
}

fn save(store: &Store, name: &str, bytes: usize) {
    let pending = store.begin(&key(name)).unwrap();
    pending.memory.set_len(1 << 20).unwrap();
    pending.memory.write_all_at(&vec![7; bytes], 0).unwrap();
    (&pending.state).write_all(b"state").unwrap();
    pending.publish(about(name)).unwrap();
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(dir.path());
    (dir, store)
}

#[test]
fn what_was_saved_is_found_and_only_its_owner_may_look() {
    let (dir, store) = store();
    assert!(matches!(store.open(&key("a")), Err(Error::Missing)));
    save(&store, "a", 5000);
    let template = store.open(&key("a")).unwrap();
    assert_eq!(template.about.arch, "a");
    assert!(matches!(store.open(&key("b")), Err(Error::Missing)));
    for path in ["templates", &format!("templates/{}", key("a"))] {
        let mode = dir.path().join(path).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{path}");
    }
    for name in [MEMORY, STATE, RECORD] {
        let path = store.dir().join(key("a").name()).join(name);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
}

#[test]
fn one_that_was_touched_is_discarded() {
    type Damage = fn(&Path);
    let cases: [(&str, Damage); 6] = [
        ("memory", |dir| {
            let file = OpenOptions::new().write(true).open(dir.join(MEMORY)).unwrap();
            file.write_all_at(&[8], 100).unwrap();
        }),
        ("memory", |dir| {
            let file = OpenOptions::new().write(true).open(dir.join(MEMORY)).unwrap();
            file.set_len(4096).unwrap();
        }),
        ("memory", |dir| fs::remove_file(dir.join(MEMORY)).unwrap()),
        ("state", |dir| fs::write(dir.join(STATE), b"statf").unwrap()),
        ("state", |dir| fs::write(dir.join(STATE), b"").unwrap()),
        ("record", |dir| fs::write(dir.join(RECORD), b"{\"about\":").unwrap()),
    ];
    for (what, damage) in cases {
        let (_dir, store) = store();
        save(&store, "a", 5000);
        // A file system's clock may tick slowly.
        std::thread::sleep(Duration::from_millis(20));
        damage(&store.dir().join(key("a").name()));
        let error = store.open(&key("a")).unwrap_err();
        assert!(matches!(&error, Error::Damaged { what: w } if w.contains(what)), "{error}");
        assert!(matches!(store.open(&key("a")), Err(Error::Missing)), "it was not discarded");
        save(&store, "a", 5000);
        store.open(&key("a")).unwrap();
    }
}

#[test]
fn only_one_saves_and_who_is_killed_leaves_nothing_in_the_way() {
    let (_dir, store) = store();
    let pending = store.begin(&key("a")).unwrap();
    assert!(matches!(store.begin(&key("a")), Err(Error::Busy)));
    let other = store.begin(&key("b")).unwrap();
    drop(other);
    // As after SIGKILL: the directory stays, its lock is gone.
    let dir = pending.dir.clone();
    let copy = dir.with_extension("away");
    fs::rename(&dir, &copy).unwrap();
    drop(pending);
    fs::rename(&copy, &dir).unwrap();
    fs::write(dir.join(MEMORY), b"half").unwrap();
    save(&store, "a", 100);
    assert_eq!(store.list().unwrap().len(), 1);
    assert!(!dir.exists());
}

#[test]
fn those_not_used_for_the_longest_time_go_first() {
    let (_dir, store) = store();
    for name in ["a", "b", "c"] {
        save(&store, name, 100_000);
        std::thread::sleep(Duration::from_millis(20));
    }
    store.open(&key("a")).unwrap();
    let names = |store: &Store| -> Vec<String> {
        store.list().unwrap().into_iter().map(|listed| listed.about.arch).collect()
    };
    assert_eq!(names(&store), ["a", "c", "b"]);
    let each = store.list().unwrap()[0].stored_bytes;
    assert!((100_000..200_000).contains(&each), "{each}: holes count");
    assert_eq!(store.prune(2 * each).unwrap(), (1, each));
    assert_eq!(names(&store), ["a", "c"]);
    assert_eq!(store.prune(0).unwrap().0, 2);
    assert!(names(&store).is_empty());
}

#[test]
fn a_template_stays_usable_for_who_has_it_open() {
    let (_dir, store) = store();
    save(&store, "a", 5000);
    let template = store.open(&key("a")).unwrap();
    store.discard(&key("a"));
    let mut bytes = [0; 3];
    template.memory.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, [7; 3]);
}

#[test]
fn keys_differ_by_each_line_and_by_a_files_identity() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kernel");
    fs::write(&path, b"one").unwrap();
    let of = |lines: &[&str]| {
        let mut builder = KeyBuilder::new();
        lines.iter().for_each(|line| builder.text(line));
        builder.file("kernel", &path).unwrap();
        builder.key()
    };
    assert_eq!(of(&["a", "b"]), of(&["a\nb"]));
    assert_ne!(of(&["a"]), of(&["b"]));
    let before = of(&["a"]);
    std::thread::sleep(Duration::from_millis(20));
    fs::write(&path, b"two").unwrap();
    assert_ne!(of(&["a"]), before);
    assert_eq!(Key::from_name(before.name()), Some(before));
    assert_eq!(Key::from_name("../etc"), None);
}
