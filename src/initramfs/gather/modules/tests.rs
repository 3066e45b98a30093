use super::*;
use crate::formats::kmod::{build_module, build_versioned_module};

const RELEASE: &str = "6.1.0-test";

/// A module tree in a temporary directory.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Tree {
        let tree = Tree(tempfile::tempdir().unwrap());
        std::fs::create_dir_all(tree.dir()).unwrap();
        tree
    }

    fn dir(&self) -> PathBuf {
        self.0.path().join("lib/modules").join(RELEASE)
    }

    fn file(self, path: &str, bytes: impl AsRef<[u8]>) -> Tree {
        let path = self.dir().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
        self
    }

    /// Modules as `NAME: DEP DEP`, with `modules.dep`.
    fn modules(self, lines: &[&str]) -> Tree {
        let mut dep = String::new();
        let mut tree = self;
        for line in lines {
            let (name, deps) = line.split_once(':').unwrap();
            let path = |name: &str| format!("kernel/{name}.ko");
            let paths: Vec<_> = deps.split_whitespace().map(path).collect();
            dep += &format!("{}: {}\n", path(name), paths.join(" "));
            tree = tree.ko(name, &deps.split_whitespace().collect::<Vec<_>>().join(","), &[]);
        }
        tree.file("modules.dep", dep)
    }

    fn ko(self, name: &str, depends: &str, more: &[&str]) -> Tree {
        let depends = format!("depends={depends}");
        let vermagic = format!("vermagic={RELEASE} SMP mod_unload");
        let entries = [&[depends.as_str(), vermagic.as_str()], more].concat();
        let bytes = build_module(Arch::Amd64, &entries);
        self.file(&format!("kernel/{name}.ko"), bytes)
    }

    fn select(&self, names: &[&str]) -> Result<Selection, ModuleProblems> {
        let requests: Vec<_> = names.iter().map(|name| Request::new(*name)).collect();
        Modules::open(&self.dir()).unwrap().select(&requests, &SelectOptions::default())
    }

    fn order(&self, names: &[&str]) -> Vec<String> {
        let selection = self.select(names).unwrap();
        selection.modules.into_iter().map(|module| module.name).collect()
    }

    fn problem(&self, names: &[&str]) -> String {
        self.select(names).unwrap_err().to_string()
    }
}

#[test]
fn dependencies_come_first_and_once() {
    let tree = Tree::new().modules(&["a: b c d", "b: c d", "c: d", "d:", "e: d"]);
    assert_eq!(tree.order(&["a", "e"]), ["d", "c", "b", "a", "e"]);
    let selection = tree.select(&["e"]).unwrap();
    assert_eq!(selection.modules[0].reason, ModuleReason::Hard { of: "e".into() });
    assert_eq!(selection.modules[1].dest, format!("lib/modules/{RELEASE}/kernel/e.ko").as_bytes());
}

#[test]
fn dash_underscore_path_and_alias_name_the_same_module() {
    let tree = Tree::new()
        .modules(&["snd-hda:"])
        .file("modules.alias", "alias pci:v00008086d*sv* snd_hda\nalias fs-hda snd_hda\n");
    for name in
        ["snd-hda", "snd_hda", "kernel/snd-hda.ko", "fs-hda", "fs_hda", "pci:v00008086d0sv1"]
    {
        assert_eq!(tree.order(&[name]), ["snd_hda"], "{name}");
    }
    let selection = tree.select(&["fs-hda"]).unwrap();
    let reason = ModuleReason::Requested { alias: Some("fs-hda".into()) };
    assert_eq!(selection.modules[0].reason, reason);
}

#[test]
fn builtin_modules_are_a_note() {
    let tree = Tree::new()
        .modules(&["a: b", "c:"])
        .file("modules.dep", "kernel/a.ko: kernel/b.ko\n")
        .file("modules.builtin", "kernel/b.ko\nkernel/fs/ext4.ko\n")
        .file("modules.builtin.modinfo", b"ext4.alias=fs-ext4\0core.alias=crypto-x\0");
    assert_eq!(tree.order(&["a"]), ["a"]);
    for (name, noted) in [("ext4", "ext4"), ("fs-ext4", "fs_ext4"), ("crypto-x", "crypto_x")] {
        let selection = tree.select(&[name]).unwrap();
        assert!(selection.modules.is_empty());
        assert_eq!(selection.notes, [ModuleNote::Builtin { name: noted.into() }]);
    }
}

#[test]
fn soft_dependencies_go_around_the_module_and_may_be_absent() {
    let tree = Tree::new()
        .modules(&["a: h", "h:", "pre: p", "p:", "post:", "weak: w", "w:"])
        .file("modules.softdep", "softdep a pre: pre no-such post: post gone\n")
        .file("modules.weakdep", "weakdep a weak nope\n");
    assert_eq!(tree.order(&["a"]), ["h", "p", "pre", "a", "post", "w", "weak"]);
    let selection = tree.select(&["a"]).unwrap();
    let load: Vec<_> = selection.modules.iter().map(|module| module.load).collect();
    assert_eq!(load, [true, true, true, true, true, false, false]);
    let note = selection.notes[0].to_string();
    let text = "soft dependencies that do not exist: no_such (for a), gone (for a), nope (for a)";
    assert_eq!((selection.notes.len(), note.as_str()), (1, text));
    let later = tree.select(&["a", "weak"]).unwrap();
    assert!(later.modules.iter().all(|module| module.load));
    let options = SelectOptions { softdeps: false, weakdeps: false };
    let plain = Modules::open(&tree.dir()).unwrap().select(&[Request::new("a")], &options).unwrap();
    assert_eq!(plain.modules.len(), 2);
}

#[test]
fn a_soft_dependency_that_needs_the_module_comes_after_it() {
    let tree = Tree::new()
        .modules(&["a:", "b: a", "c:", "d:"])
        .file("modules.softdep", "softdep a pre: b\nsoftdep c pre: d\nsoftdep d pre: c\n");
    assert_eq!(tree.order(&["a"]), ["a", "b"]);
    assert_eq!(tree.order(&["c"]), ["d", "c"]);
}

#[test]
fn cycles_missing_modules_and_unknown_names_are_all_told_at_once() {
    let tree = Tree::new().modules(&["a: b", "b: c", "c: a", "x: y", "y:"]);
    let tree = tree
        .file("modules.dep", "kernel/a.ko: kernel/b.ko\nkernel/b.ko: kernel/c.ko\nkernel/c.ko: kernel/a.ko\nkernel/x.ko: kernel/y.ko\nkernel/y.ko: kernel/z.ko\n");
    let text = tree.problem(&["a", "x", "nope"]);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "modules need each other: a -> b -> c -> a");
    assert_eq!(lines[1], "module `z` not found, needed by y <- x");
    assert_eq!(lines[2], "kernel 6.1.0-test has no module `nope`");
    assert_eq!(lines.len(), 3);
}

#[test]
fn endless_chains_are_an_error_and_no_stack_overflow() {
    let mut dep = String::new();
    let mut soft = String::new();
    for i in 0..20_000 {
        dep += &format!("kernel/h{i}.ko: kernel/h{}.ko\nkernel/s{i}.ko:\n", i + 1);
        soft += &format!("softdep s{i} post: s{}\n", i + 1);
    }
    let tree = Tree::new().file("modules.dep", dep).file("modules.softdep", soft);
    assert!(tree.problem(&["h0"]).contains("kernel 6.1.0-test has no module"), "nothing on disk");
    let index = Modules::open(&tree.dir()).unwrap();
    let found = index.select(&[Request::new("s0")], &SelectOptions::default());
    assert!(found.is_err());
}

#[test]
fn without_modules_dep_the_modules_themselves_are_asked() {
    let tree = Tree::new()
        .ko("a", "b-x", &["softdep=pre: s post: t", "alias=fs-a"])
        .ko("b-x", "c", &[])
        .ko("c", "", &[])
        .ko("s", "", &[])
        .ko("t", "", &[]);
    assert_eq!(tree.order(&["a"]), ["c", "b_x", "s", "a", "t"]);
    let notes = tree.select(&["c"]).unwrap().notes;
    assert_eq!(notes, [ModuleNote::Rebuilt { why: "there is no modules.dep".into() }]);
}

#[test]
fn a_stale_modules_dep_is_not_believed() {
    // A module that is not listed, and a listed one that is compressed now.
    let tree = Tree::new().modules(&["a: b", "b:"]).ko("new", "a", &[]);
    assert_eq!(tree.order(&["new"]), ["b", "a", "new"]);
    std::fs::remove_file(tree.dir().join("kernel/b.ko")).unwrap();
    let packed = zstd::encode_all(&build_module(Arch::Amd64, &["depends="])[..], 1).unwrap();
    let tree = tree.file("kernel/b.ko.zst", packed);
    assert_eq!(tree.order(&["a"]), ["b", "a"]);
    let note = tree.select(&["a"]).unwrap().notes[0].to_string();
    assert!(note.contains("kernel/b.ko` does not exist"), "{note}");
    assert!(tree.select(&["nope"]).is_err());
}

#[test]
fn modules_are_decompressed_and_checked() {
    let ko = |arch, release: &str| {
        let vermagic = format!("vermagic={release} SMP");
        build_module(arch, &[&vermagic, "firmware=a/b.bin"])
    };
    let good = ko(Arch::Amd64, RELEASE);
    let mut gzip = flate2::read::GzEncoder::new(&good[..], flate2::Compression::fast());
    let mut gz = Vec::new();
    gzip.read_to_end(&mut gz).unwrap();
    let mut xz = Vec::new();
    liblzma::read::XzEncoder::new(&good[..], 1).read_to_end(&mut xz).unwrap();
    let tree = Tree::new()
        .file("kernel/p.ko", &good)
        .file("kernel/g.ko.gz", gz)
        .file("kernel/x.ko.xz", &xz)
        .file("kernel/z.ko.zst", zstd::encode_all(&good[..], 1).unwrap())
        .file("kernel/arm.ko", ko(Arch::Arm, RELEASE))
        .file("kernel/old.ko", ko(Arch::Amd64, "5.10"))
        .file("kernel/cut.ko.xz", &xz[..xz.len() / 2])
        .file("kernel/text.ko", "no module");
    let modules = Modules::open(&tree.dir()).unwrap();
    let load = |name: &str| {
        let mut found = modules.select(&[Request::new(name)], &SelectOptions::default());
        let module = match &mut found {
            Ok(selection) => selection.modules.remove(0),
            Err(problems) => return Err(problems.to_string()),
        };
        assert!(module.dest.ends_with(format!("/{name}.ko").as_bytes()));
        modules.load(&module, Arch::Amd64).map_err(|e| e.to_string())
    };
    for name in ["p", "g", "x", "z"] {
        let loaded = load(name).unwrap();
        assert_eq!((loaded.bytes, loaded.firmware), (good.clone(), vec!["a/b.bin".into()]));
    }
    assert!(load("arm").unwrap_err().ends_with("is a module for arm, the guest is amd64"));
    assert!(load("old").unwrap_err().ends_with("is a module of kernel 5.10, not of 6.1.0-test"));
    assert!(load("cut").unwrap_err().starts_with("cannot read"));
    assert!(load("text").unwrap_err().contains("is no kernel module"));
}

#[test]
fn a_module_of_another_release_is_taken_where_it_has_versions_of_its_symbols() {
    let magic = ["vermagic=6.1.0-older SMP"];
    let tree = Tree::new()
        .file("kernel/weak.ko", build_versioned_module(Arch::Amd64, &magic))
        .file("kernel/strict.ko", build_module(Arch::Amd64, &magic))
        .file("kernel/own.ko", build_versioned_module(Arch::Amd64, &["vermagic=6.1.0-test SMP"]));
    let modules = Modules::open(&tree.dir()).unwrap();
    let load = |name: &str| {
        let found = modules.select(&[Request::new(name)], &SelectOptions::default()).unwrap();
        modules.load(&found.modules[0], Arch::Amd64)
    };
    assert_eq!(load("weak").unwrap().other_release.as_deref(), Some("6.1.0-older"));
    assert_eq!(load("own").unwrap().other_release, None);
    assert!(matches!(load("strict"), Err(ModuleProblem::WrongRelease { .. })));

    // Whoever builds an image hears of it, once.
    let mut spec = crate::initramfs::ImageSpec::new(Arch::Amd64);
    let modules = vec![Request::new("weak"), Request::new("own")];
    spec.modules(ModulesRequest { dir: tree.dir(), modules, firmware: None });
    let image = crate::initramfs::Build::gather(&spec).unwrap();
    let image = image.image();
    let notes: Vec<_> =
        image.notices().iter().filter(|note| note.contains("6.1.0-older")).collect();
    assert_eq!(notes.len(), 1, "{:?}", image.notices());
    assert!(notes[0].contains("weak (of 6.1.0-older)") && !notes[0].contains("own"), "{notes:?}");
}

#[test]
fn firmware_is_found_as_the_kernel_does() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["a/b.bin.zst", "updates/c.bin", "c.bin", "g/1.fw", "g/2.fw.xz", "secret"] {
        let path = dir.path().join("fw").join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    }
    let tree = Tree::new();
    let modules = Modules::open(&tree.dir()).unwrap();
    let names = ["a/b.bin", "c.bin", "g/*.fw", "none.bin", "../fw/secret", "c.bin", ""];
    let names: Vec<_> = names.map(String::from).to_vec();
    let found = modules.firmware(&names, &dir.path().join("fw"));
    let dests: Vec<_> = found.files.iter().map(|f| String::from_utf8_lossy(&f.dest)).collect();
    assert_eq!(
        dests,
        [
            "lib/firmware/a/b.bin",
            "lib/firmware/updates/c.bin",
            "lib/firmware/g/1.fw",
            "lib/firmware/g/2.fw"
        ]
    );
    assert_eq!(found.files[3].compression, Compression::Xz);
    assert_eq!(found.missing, ["none.bin", "../fw/secret", ""]);
}

#[test]
fn parameters_reach_the_requested_module() {
    let tree = Tree::new().modules(&["a: b", "b:"]);
    let with = |params: &str| Request { params: params.into(), ..Request::new("a") };
    let (request, again) = (with(" x=1 "), with("y=2"));
    let modules = Modules::open(&tree.dir()).unwrap();
    let found = modules.select(&[request, again], &SelectOptions::default()).unwrap();
    let params: Vec<_> = found.modules.iter().map(|module| module.params.as_str()).collect();
    assert_eq!(params, ["", "x=1 y=2"]);
}

#[test]
fn optional_modules_may_be_absent() {
    let tree = Tree::new().modules(&["a:"]);
    let requests = ["a", "b", "c"].map(Request::optional);
    let modules = Modules::open(&tree.dir()).unwrap();
    let found = modules.select(&requests, &SelectOptions::default()).unwrap();
    assert_eq!(found.modules.len(), 1);
    assert_eq!(found.notes[0].to_string(), "the kernel does not have b, c");
}

#[test]
fn a_directory_that_is_not_there_is_an_error() {
    let error = Modules::open(Path::new("/nonexistent/6.1")).unwrap_err();
    assert_eq!(error.to_string(), "cannot read `/nonexistent/6.1`");
}
