//! The nasty inputs, with ELF files of a few hundred bytes.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::*;
use crate::arch::Arch;
use crate::formats::elf::Priority;
use crate::formats::elf::build::ElfBuilder;

const TUPLE: &str = "usr/lib/x86_64-linux-gnu";
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// A sysroot like Debian's, with merged /usr, and a host directory beside it.
struct World(tempfile::TempDir);

impl World {
    fn new() -> World {
        let world = World(tempfile::tempdir().unwrap());
        for dir in [TUPLE, "usr/lib64", "usr/bin", "etc"] {
            std::fs::create_dir_all(world.sysroot().join(dir)).unwrap();
        }
        world
            .link("lib", "usr/lib")
            .link("lib64", "usr/lib64")
            .link("bin", "usr/bin")
            .link("usr/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")
            .elf(&lib("ld-linux-x86-64.so.2"), so("ld-linux-x86-64.so.2"))
            .elf(&lib("libc.so.6"), so("libc.so.6").needs(&["ld-linux-x86-64.so.2"]))
    }

    fn sysroot(&self) -> PathBuf {
        self.0.path().join("sysroot")
    }

    fn host(&self, path: &str) -> PathBuf {
        self.0.path().join("host").join(path)
    }

    fn write(self, path: &Path, bytes: &[u8]) -> World {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
        self
    }

    fn file(self, path: &str, bytes: impl AsRef<[u8]>) -> World {
        let path = self.sysroot().join(path);
        self.write(&path, bytes.as_ref())
    }

    fn elf(self, path: &str, elf: ElfBuilder) -> World {
        self.file(path, elf.build())
    }

    fn host_elf(self, path: &str, elf: ElfBuilder) -> World {
        let path = self.host(path);
        self.write(&path, &elf.build())
    }

    fn link(self, path: &str, text: &str) -> World {
        let path = self.sysroot().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(text, path).unwrap();
        self
    }

    fn resolver(&self) -> Resolver {
        Resolver::new(Arch::Amd64, &self.sysroot())
    }

    /// The closure of a program of the sysroot at its own place.
    fn at(&self, path: &str) -> Result<Closure, Problems> {
        self.resolver().program(&self.sysroot().join(path), path.as_bytes(), &|_| false)
    }

    /// The closure of a host program placed at `dest`.
    fn moved(&self, path: &str, dest: &str) -> Result<Closure, Problems> {
        self.resolver().program(&self.host(path), dest.as_bytes(), &|_| false)
    }
}

fn lib(name: &str) -> String {
    format!("{TUPLE}/{name}")
}

fn so(soname: &str) -> ElfBuilder {
    ElfBuilder::new().soname(soname)
}

fn program(needs: &[&str]) -> ElfBuilder {
    ElfBuilder::new().interp(LOADER).needs(needs)
}

/// `DEST`, `DEST -> TEXT` or `DEST/`, sorted.
fn listing(closure: &Closure) -> Vec<String> {
    let mut lines: Vec<String> = closure.items.iter().map(Item::to_string).collect();
    lines.sort();
    lines
}

fn has(closure: &Closure, line: &str) -> bool {
    listing(closure).iter().any(|known| known == line)
}

fn only(result: Result<Closure, Problems>) -> Problem {
    let mut problems: Vec<Problem> = result.unwrap_err().into_iter().collect();
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.remove(0)
}

#[test]
fn every_link_on_the_way_is_kept_and_files_are_in_their_real_place() {
    let world = World::new()
        .elf("usr/bin/tool", program(&["libx.so.1", "libc.so.6"]))
        .elf(&lib("libx.so.1.2.3"), so("libx.so.1").needs(&["libc.so.6"]))
        .link(&lib("libx.so.1"), "libx.so.1.2.3");
    let closure = world.at("usr/bin/tool").unwrap();
    assert_eq!(
        listing(&closure),
        [
            "lib -> usr/lib",
            "lib64 -> usr/lib64",
            "usr/bin/tool",
            "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
            "usr/lib/x86_64-linux-gnu/libc.so.6",
            "usr/lib/x86_64-linux-gnu/libx.so.1 -> libx.so.1.2.3",
            "usr/lib/x86_64-linux-gnu/libx.so.1.2.3",
            "usr/lib64/ld-linux-x86-64.so.2 -> /lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
        ]
    );
    let why: Vec<_> =
        closure.why(lib("libx.so.1").as_bytes()).iter().map(|i| i.reason.to_string()).collect();
    assert_eq!(
        why,
        [
            "link on the way to usr/lib/x86_64-linux-gnu/libx.so.1.2.3",
            "libx.so.1 needed by usr/bin/tool, found by default directory",
            "requested"
        ]
    );
    // The same program under its linked directory.
    assert!(has(&world.at("bin/tool").unwrap(), "bin -> usr/bin"));
}

#[test]
fn a_static_program_is_its_own_closure_and_a_library_can_be_asked_for() {
    let world = World::new()
        .elf("usr/bin/static", ElfBuilder { kind: 2, ..ElfBuilder::new() })
        .elf(&lib("libx.so"), so("libx.so").needs(&["libc.so.6"]));
    assert_eq!(listing(&world.at("usr/bin/static").unwrap()), ["usr/bin/static"]);
    assert!(has(&world.at(&lib("libx.so")).unwrap(), &lib("libc.so.6")));
}

#[test]
fn row_1_damaged_files_are_errors_with_an_offset() {
    let whole = program(&[]).build();
    let world = World::new()
        .file("usr/bin/cut", &whole[..100])
        .file("usr/bin/short", &whole[..whole.len() - 1])
        .file("usr/bin/text", "hello")
        .file("usr/bin/empty", "")
        .elf("usr/bin/object", ElfBuilder { kind: 1, ..ElfBuilder::new() });
    for name in ["cut", "short"] {
        let problem = only(world.at(&format!("usr/bin/{name}")));
        assert!(problem.to_string().ends_with("is a damaged ELF file"));
        let source = std::error::Error::source(&problem).unwrap().to_string();
        assert!(source.contains("offset 0x"), "{source}");
    }
    let problem = only(world.at("usr/bin/text"));
    assert!(problem.to_string().contains("neither an ELF program nor a script"), "{problem}");
    assert!(problem.hint().unwrap().contains("#!/bin/sh"));
    assert_eq!(only(world.at("usr/bin/empty")).hint().unwrap(), "it is empty");
    assert!(
        only(world.at("usr/bin/object")).to_string().ends_with("not a program but an object file")
    );
    assert!(only(world.at("usr/bin/none")).to_string().starts_with("cannot read"));
    assert!(only(world.at("usr/bin")).to_string().starts_with("cannot read"));
}

#[test]
fn row_3_missing_libraries_are_all_told_with_chain_and_places() {
    let world = World::new()
        .elf("usr/bin/tool", program(&["liba.so", "libgone.so.1"]).runpath("/opt/x:$ORIGIN/../y"))
        .elf(&lib("liba.so"), so("liba.so").needs(&["libdeep.so"]));
    let problems = world.at("usr/bin/tool").unwrap_err();
    let missing: Vec<_> = problems.missing_libraries().collect();
    assert_eq!(missing.len(), 2);
    assert_eq!(missing[0].sonames, [b"libgone.so.1"]);
    let tried: Vec<_> = missing[0].tried.iter().map(ToString::to_string).collect();
    assert_eq!(
        tried,
        [
            "/opt/x (RUNPATH of usr/bin/tool): no such directory",
            "/usr/bin/../y (RUNPATH of usr/bin/tool): no such directory",
            "/lib/x86_64-linux-gnu (default directory): not there",
            "/usr/lib/x86_64-linux-gnu (default directory): not there",
            "/lib64 (default directory): not there",
            "/usr/lib64 (default directory): not there",
            "/lib (default directory): not there",
            "/usr/lib (default directory): not there",
        ]
    );
    assert_eq!(
        missing[1].to_string(),
        "library `libdeep.so` needed by `usr/lib/x86_64-linux-gnu/liba.so` not found \
         (usr/bin/tool -> usr/lib/x86_64-linux-gnu/liba.so)"
    );
    let names = ["libgone.so.1", "libdeep.so"].map(|name| name.as_bytes().to_vec());
    let mut lenient = world.resolver().allow_missing(names);
    let closure = lenient
        .program(&world.sysroot().join("usr/bin/tool"), b"usr/bin/tool", &|_| false)
        .unwrap();
    assert!(has(&closure, &lib("liba.so")));
    assert_eq!(closure.notes.len(), 2);
}

#[test]
fn row_4_libraries_of_other_machines_are_passed_over() {
    let world = World::new()
        .elf("usr/bin/tool", program(&["libx.so", "liby.so"]))
        .elf(&lib("libx.so"), so("libx.so").arch(Arch::I386))
        .elf("usr/lib64/libx.so", so("libx.so"))
        .elf(&lib("liby.so"), ElfBuilder { little_endian: false, ..so("liby.so") });
    let problems = world.at("usr/bin/tool").unwrap_err();
    assert_eq!(problems.missing_libraries().count(), 1);
    let hint = problems.missing_libraries().next().unwrap().hint();
    assert!(
        hint.starts_with("/lib/x86_64-linux-gnu/liby.so is for machine 62 (64-bit, big"),
        "{hint}"
    );
    let world = world.elf("usr/lib/liby.so", so("liby.so"));
    let closure = world.at("usr/bin/tool").unwrap();
    assert!(has(&closure, "usr/lib64/libx.so") && has(&closure, "usr/lib/liby.so"));
    let notes: Vec<_> = closure.notes.iter().map(ToString::to_string).collect();
    let first =
        "passed over for `libx.so`: /lib/x86_64-linux-gnu/libx.so (default directory): is for i386";
    assert!(notes.contains(&first.to_owned()), "{notes:?}");
}

#[test]
fn row_5_runpath_lists_and_tokens_are_expanded_for_each_object() {
    let world = World::new()
        .elf(
            "opt/app/bin/tool",
            program(&["liba.so", "libb.so", "libc.so.6"]).runpath(":rel:$ORIGIN/../lib:/opt/$LIB"),
        )
        .elf("opt/app/lib/liba.so", so("liba.so").needs(&["libinner.so"]).runpath("${ORIGIN}/sub"))
        .elf("opt/app/lib/sub/libinner.so", so("libinner.so"))
        .elf("opt/lib/x86_64-linux-gnu/libb.so", so("libb.so"));
    let closure = world.at("opt/app/bin/tool").unwrap();
    for dest in
        ["opt/app/lib/liba.so", "opt/app/lib/sub/libinner.so", "opt/lib/x86_64-linux-gnu/libb.so"]
    {
        assert!(has(&closure, dest), "{dest}");
    }
    let notes: Vec<_> = closure.notes.iter().map(ToString::to_string).collect();
    assert!(notes[0].contains("empty element") && notes[1].contains("relative"), "{notes:?}");
}

#[test]
fn a_name_with_a_slash_is_a_path() {
    let world = World::new()
        .elf("usr/bin/abs", program(&["/opt/libx.so", "$ORIGIN/../../opt/liby.so"]))
        .elf("usr/bin/rel", program(&["sub/libx.so"]))
        .elf("opt/libx.so", so("libx.so"))
        .elf("opt/liby.so", so("liby.so"));
    let closure = world.at("usr/bin/abs").unwrap();
    assert!(has(&closure, "opt/libx.so") && has(&closure, "opt/liby.so"));
    let problem = only(world.at("usr/bin/rel"));
    assert!(problem.hint().unwrap().contains("soname"), "{problem}");
}

#[test]
fn a_directory_that_is_only_crossed_exists_in_the_image() {
    let world = World::new()
        .elf("usr/bin/tool", program(&["liba.so"]).runpath("/opt/only/../lib"))
        .elf("opt/lib/liba.so", so("liba.so"))
        .file("opt/only/x", "");
    let closure = world.at("usr/bin/tool").unwrap();
    assert!(has(&closure, "opt/only/") && has(&closure, "opt/lib/liba.so"));
}

#[test]
fn row_6_rpath_is_inherited_unless_there_is_a_runpath() {
    let build = |middle: ElfBuilder| {
        World::new()
            .elf("usr/bin/tool", program(&["liba.so"]).rpath("/opt/r"))
            .elf("opt/r/liba.so", middle.needs(&["libb.so"]))
            .elf("opt/r/libb.so", so("libb.so"))
    };
    let closure = build(so("liba.so")).at("usr/bin/tool").unwrap();
    let item = closure.why(b"opt/r/libb.so")[0];
    assert!(item.reason.to_string().ends_with("found by RPATH of usr/bin/tool"), "{}", item.reason);
    let problems = build(so("liba.so").runpath("/elsewhere")).at("usr/bin/tool").unwrap_err();
    assert_eq!(problems.missing_libraries().next().unwrap().sonames, [b"libb.so"]);
    // RUNPATH is for the object alone.
    let world = World::new()
        .elf("usr/bin/tool", program(&["liba.so"]).runpath("/opt/r"))
        .elf("opt/r/liba.so", so("liba.so").needs(&["libb.so"]))
        .elf("opt/r/libb.so", so("libb.so"));
    assert!(world.at("usr/bin/tool").is_err());
}

#[test]
fn row_7_the_loader_is_looked_for_inside_of_the_sysroot_only() {
    let world = World::new()
        .elf("usr/bin/none", ElfBuilder::new().interp("/lib/ld-none.so"))
        .elf("usr/bin/out", ElfBuilder::new().interp("/lib/ld-out.so"))
        .elf("usr/bin/rel", ElfBuilder::new().interp("lib/ld.so"))
        .elf("usr/bin/arm", ElfBuilder::new().interp("/lib/ld-arm.so"))
        .elf("usr/lib/ld-arm.so", so("ld-arm.so").arch(Arch::Arm));
    let host = world.0.path().join("ld-host.so");
    std::fs::write(&host, so("ld-host.so").build()).unwrap();
    let world = world.link("usr/lib/ld-out.so", host.to_str().unwrap());
    let problem = only(world.at("usr/bin/none"));
    assert_eq!(problem.to_string(), "interpreter `/lib/ld-none.so` of `usr/bin/none` not found");
    assert!(problem.hint().unwrap().contains("--sysroot"));
    match only(world.at("usr/bin/out")) {
        Problem::MissingInterpreter { tried, .. } => {
            assert!(host.ends_with("ld-host.so") && tried.len() == 1)
        }
        other => panic!("{other}"),
    }
    assert!(only(world.at("usr/bin/rel")).hint().unwrap().contains("absolute"));
    assert!(only(world.at("usr/bin/arm")).to_string().ends_with("is for arm, the guest is amd64"));
}

#[test]
fn debug_information_is_not_called_a_program_without_an_interpreter() {
    let world = World::new().elf("usr/bin/tool.debug", ElfBuilder::new().interp(""));
    let problem = only(world.at("usr/bin/tool.debug"));
    let text = "tool.debug` is not a program but the debug information of one";
    assert!(problem.to_string().ends_with(text), "{problem}");
    assert!(problem.hint().unwrap().starts_with("give the program itself"));
}

#[test]
fn a_program_of_the_sysroot_goes_before_the_hosts_own() {
    let world = World::new().elf("usr/bin/env", program(&["libc.so.6"]));
    let world = world.link("usr/bin/linked", "/bin/env");
    let elsewhere = world.host("tool");
    let world = world.host_elf("tool", program(&[]));
    // The host has another `/usr/bin/env`, and nothing at `/bin/linked`.
    let cases = [
        (Path::new("/usr/bin/env"), program(&["libc.so.6"])),
        (Path::new("/bin/linked"), program(&["libc.so.6"])),
        (&elsewhere, program(&[])),
    ];
    for (path, wanted) in cases {
        let mut spec = crate::initramfs::ImageSpec::new(Arch::Amd64);
        spec.sysroot(world.sysroot()).binary(path, None);
        let mut bytes = Vec::new();
        crate::initramfs::Build::gather(&spec).unwrap().to_stream(&mut bytes).unwrap();
        let wanted = wanted.build();
        assert!(bytes.windows(wanted.len()).any(|part| part == wanted), "{}", path.display());
    }
}

#[test]
fn row_8_link_loops_are_errors_with_the_cycle() {
    let world = World::new()
        .elf("usr/bin/tool", program(&["libx.so"]))
        .link(&lib("libx.so"), "libx.so.1")
        .link(&lib("libx.so.1"), "libx.so")
        .link("usr/bin/dangling", "nowhere");
    let problems = world.at("usr/bin/tool").unwrap_err();
    let text = problems.to_string();
    let dir = "usr/lib/x86_64-linux-gnu";
    let cycle = format!("{dir}/libx.so -> {dir}/libx.so.1 -> {dir}/libx.so");
    assert!(text.contains(&format!("symbolic links form a loop: {cycle}")), "{text}");
    assert!(only(world.at("usr/bin/dangling")).to_string().starts_with("cannot read"));
}

#[test]
fn a_program_for_another_machine_names_both() {
    let world = World::new().host_elf("hello", program(&[]).arch(Arch::Riscv64));
    let problem = only(world.moved("hello", "bin/hello"));
    assert!(problem.to_string().ends_with("hello` is a program for riscv64, the guest is amd64"));
    assert!(problem.hint().unwrap().contains("--arch riscv64"));
}

#[test]
fn libraries_beside_a_moved_program_keep_their_distance() {
    let world = World::new()
        .host_elf("app/bin/tool", program(&["liba.so.1", "libc.so.6"]).runpath("$ORIGIN/../lib"))
        .host_elf("app/lib/liba.so.1.5", so("liba.so.1").needs(&["libb.so"]).runpath("$ORIGIN"))
        .host_elf("app/real/libb.so", so("libb.so"));
    symlink("liba.so.1.5", world.host("app/lib/liba.so.1")).unwrap();
    symlink("../real/libb.so", world.host("app/lib/libb.so")).unwrap();
    let closure = world.moved("app/bin/tool", "opt/t/bin/tool").unwrap();
    for line in [
        "opt/t/bin/tool",
        "opt/t/lib/liba.so.1 -> liba.so.1.5",
        "opt/t/lib/liba.so.1.5",
        "opt/t/lib/libb.so",
        "usr/lib/x86_64-linux-gnu/libc.so.6",
    ] {
        assert!(has(&closure, line), "{line}: {:?}", listing(&closure));
    }
    assert_eq!(
        closure.items[0].source,
        Source::File(world.host("app/bin/tool").canonicalize().unwrap())
    );
}

#[test]
fn given_directories_come_before_the_systems_and_the_cache_names_them() {
    let world = World::new()
        .elf("usr/bin/tool", program(&["libx.so.1", "libc.so.6", "liby.so"]))
        .elf(&lib("libx.so.1"), so("libx.so.1"))
        .elf("opt/conf/liby.so", so("liby.so"))
        .file("etc/ld.so.conf", "include ld.so.conf.d/*.conf")
        .file("etc/ld.so.conf.d/y.conf", "/opt/conf\n")
        .host_elf("libs/libx.so.1", so("libx.so.1"));
    let tool = world.sysroot().join("usr/bin/tool");
    let mut resolver = world.resolver().library_dirs([world.host("libs")]);
    let closure = resolver.program(&tool, b"usr/bin/tool", &|_| false).unwrap();
    assert!(has(&closure, "usr/local/lib/libx.so.1") && !has(&closure, &lib("libx.so.1")));
    let cache = resolver.loader_cache().unwrap();
    let Source::Bytes(bytes) = &cache.source else { panic!("{cache:?}") };
    for path in ["/usr/local/lib/libx.so.1\0", "/opt/conf/liby.so\0"] {
        assert!(bytes.windows(path.len()).any(|window| window == path.as_bytes()), "{path}");
    }
    // Nothing unusual: no cache.
    let world = World::new().elf("usr/bin/tool", program(&["libc.so.6"]));
    let mut resolver = world.resolver();
    resolver.program(&world.sysroot().join("usr/bin/tool"), b"usr/bin/tool", &|_| false).unwrap();
    assert_eq!(resolver.loader_cache(), None);
}

#[test]
fn nodeflib_takes_the_default_directories_away() {
    let plain = program(&["libx.so"]);
    let world = World::new()
        .elf(&lib("libx.so"), so("libx.so"))
        .elf("usr/bin/plain", plain.clone())
        .elf("usr/bin/nodeflib", ElfBuilder { flags_1: 0x800, ..plain })
        .file("etc/ld.so.conf", "/usr/lib/x86_64-linux-gnu\n");
    assert!(world.at("usr/bin/plain").is_ok());
    assert!(matches!(only(world.at("usr/bin/nodeflib")), Problem::MissingLibrary(_)));
}

#[test]
fn hardware_variants_are_never_taken_silently() {
    let world = World::new()
        .elf("usr/bin/tool", program(&["libx.so"]))
        .elf(&lib("glibc-hwcaps/x86-64-v3/libx.so"), so("libx.so"));
    match only(world.at("usr/bin/tool")) {
        Problem::MissingLibrary(missing) => {
            assert!(missing.hint().contains("glibc-hwcaps/x86-64-v3/libx.so` exists"));
        }
        other => panic!("{other}"),
    }
}

#[test]
fn musl_has_its_own_rules() {
    let loader = "/lib/ld-musl-x86_64.so.1";
    let world = World::new()
        .elf("usr/lib/ld-musl-x86_64.so.1", so("libc.musl-x86_64.so.1"))
        .elf(
            "usr/bin/tool",
            ElfBuilder::new()
                .interp(loader)
                .needs(&["liba.so", "libc.so", "libm.so.6"])
                .runpath("/opt/r"),
        )
        .elf("opt/r/liba.so", so("liba.so").needs(&["libb.so", "libz.so"]))
        .elf("opt/r/libb.so", so("libb.so"))
        .elf("usr/local/lib/libz.so", so("libz.so"))
        .elf(&lib("libz.so"), so("libz.so"));
    // RUNPATH is inherited, multiarch directories are not searched, libc is the loader.
    let closure = world.at("usr/bin/tool").unwrap();
    assert!(has(&closure, "opt/r/libb.so") && has(&closure, "usr/local/lib/libz.so"));
    let world = world.file("etc/ld-musl-x86_64.path", "/usr/lib/x86_64-linux-gnu\n");
    let closure = world.at("usr/bin/tool").unwrap();
    assert!(has(&closure, &lib("libz.so")) && has(&closure, "etc/ld-musl-x86_64.path"));
}

#[test]
fn musl_finds_no_library_by_a_soname_that_nobody_asked_for() {
    let tool = |interp: &str| ElfBuilder::new().interp(interp).needs(&["libx.so", "libuser.so"]);
    let world = |interp: &str, loader: &str| {
        World::new()
            .elf(loader, so("libc.so"))
            .elf("usr/bin/tool", tool(interp))
            .elf("usr/lib/libx.so", so("libx.so.1"))
            .elf("usr/lib/libuser.so", so("libuser.so").needs(&["libx.so.1"]))
    };
    // glibc has it loaded under that name; musl looks for a file, and there is none.
    assert!(world(LOADER, "usr/lib/unused.so").at("usr/bin/tool").is_ok());
    let loader = "lib/ld-musl-x86_64.so.1";
    let musl = world("/lib/ld-musl-x86_64.so.1", &loader.replace("lib/", "usr/lib/"));
    let Problem::MissingLibrary(missing) = only(musl.at("usr/bin/tool")) else { panic!() };
    assert_eq!(missing.sonames, [b"libx.so.1"]);
    let musl = musl.link("usr/lib/libx.so.1", "libx.so");
    assert!(has(&musl.at("usr/bin/tool").unwrap(), "usr/lib/libx.so.1 -> libx.so"));
}

#[test]
fn filters_are_taken_along_and_auxiliary_ones_where_they_are_there() {
    const FILTER: u64 = 0x7fff_ffff;
    const AUXILIARY: u64 = 0x7fff_fffd;
    let world = || {
        World::new()
            .elf("usr/bin/tool", program(&["liba.so", "libc.so.6"]))
            .elf(
                &lib("liba.so"),
                so("liba.so").filter(AUXILIARY, "libfast.so").filter(FILTER, "libreal.so"),
            )
            .elf(&lib("libreal.so"), so("libreal.so"))
    };
    let closure = world().at("usr/bin/tool").unwrap();
    assert!(has(&closure, &lib("libreal.so")) && !has(&closure, &lib("libfast.so")));
    let closure = world().elf(&lib("libfast.so"), so("libfast.so")).at("usr/bin/tool").unwrap();
    assert!(has(&closure, &lib("libfast.so")));
    let missing = World::new()
        .elf("usr/bin/tool", program(&["libb.so"]))
        .elf(&lib("libb.so"), so("libb.so").filter(FILTER, "libgone.so"));
    let Problem::MissingLibrary(missing) = only(missing.at("usr/bin/tool")) else { panic!() };
    assert_eq!(missing.sonames, [b"libgone.so"]);
}

#[test]
fn dlopen_notes_are_followed_by_priority() {
    let note = |name: &str, priority: &str| {
        format!(
            r#"[{{"soname":["{name}.so.2","{name}.so.1"],"priority":"{priority}","feature":"f"}}]"#
        )
    };
    let tool = program(&[])
        .dlopen(&note("librec", "recommended"))
        .dlopen(&note("libsug", "suggested"))
        .dlopen(&note("libno", "recommended"));
    let world = World::new()
        .elf("usr/bin/tool", tool.clone())
        .elf("usr/bin/must", tool.dlopen(&note("libmust", "required")))
        .elf(&lib("librec.so.1"), so("librec.so.1").needs(&["libdeep.so"]))
        .elf(&lib("libdeep.so"), so("libdeep.so"))
        .elf(&lib("libsug.so.2"), so("libsug.so.2"));
    let closure = world.at("usr/bin/tool").unwrap();
    assert!(has(&closure, &lib("librec.so.1")) && has(&closure, &lib("libdeep.so")));
    assert!(!has(&closure, &lib("libsug.so.2")));
    assert_eq!(closure.notes.len(), 1);
    let text = closure.notes[0].to_string();
    assert!(text.contains("`libno.so.2` or `libno.so.1`") && text.ends_with("no f"), "{text}");
    let tool = world.sysroot().join("usr/bin/tool");
    let mut all = world.resolver().dlopen(Some(Priority::Suggested));
    assert!(has(&all.program(&tool, b"usr/bin/tool", &|_| false).unwrap(), &lib("libsug.so.2")));
    let mut none = world.resolver().dlopen(None);
    assert!(!has(&none.program(&tool, b"usr/bin/tool", &|_| false).unwrap(), &lib("librec.so.1")));
    assert!(matches!(only(world.at("usr/bin/must")), Problem::MissingLibrary(_)));
}

#[test]
fn scripts_bring_their_interpreters() {
    let world = World::new()
        .elf("usr/bin/dash", program(&["libc.so.6"]))
        .link("usr/bin/sh", "dash")
        .elf("usr/bin/env", program(&["libc.so.6"]))
        .elf("usr/bin/python3", program(&["libpy.so"]))
        .elf(&lib("libpy.so"), so("libpy.so"))
        .file("usr/bin/one", "#!/bin/sh -e\n")
        .file("usr/bin/two", "#!/usr/bin/env -S python3 -u\n")
        .file("usr/bin/chain", "#! /usr/bin/one\n")
        .file("usr/bin/crlf", "#!/bin/sh\r\n")
        .file("usr/bin/gone", "#!/usr/bin/env ruby\n")
        .file("usr/bin/self", "#!/usr/bin/self\n");
    let closure = world.at("usr/bin/chain").unwrap();
    for line in
        ["usr/bin/one", "usr/bin/dash", "usr/bin/sh -> dash", "bin -> usr/bin", &lib("libc.so.6")]
    {
        assert!(has(&closure, line), "{line}");
    }
    assert_eq!(closure.why(b"usr/bin/dash")[0].reason.to_string(), "`#!/bin/sh -e` of usr/bin/one");
    let closure = world.at("usr/bin/two").unwrap();
    assert!(has(&closure, "usr/bin/env") && has(&closure, &lib("libpy.so")));

    let problem = only(world.at("usr/bin/crlf"));
    assert!(std::error::Error::source(&problem).unwrap().to_string().contains("CR LF"));
    match only(world.at("usr/bin/gone")) {
        Problem::MissingInterpreter { interpreter, tried, chain, .. } => {
            assert_eq!((&interpreter[..], tried.len()), (&b"ruby"[..], DEFAULT_PATH.len()));
            assert_eq!(chain, [b"usr/bin/gone"]);
        }
        other => panic!("{other}"),
    }
    assert!(matches!(only(world.at("usr/bin/self")), Problem::ScriptDepth { .. }));
}

#[test]
fn five_scripts_may_interpret_each_other_and_six_may_not() {
    let mut world = World::new().elf("s0", ElfBuilder::new());
    for i in 1..=6 {
        world = world.file(&format!("s{i}"), format!("#!/s{}\n", i - 1));
    }
    assert_eq!(world.at("s5").unwrap().items.len(), 6);
    assert!(matches!(only(world.at("s6")), Problem::ScriptDepth { limit: 5, .. }));
}

#[test]
fn interpreters_that_the_image_has_are_not_looked_for() {
    let world = World::new()
        .file("usr/bin/sh-script", "#!/bin/sh\n")
        .file("usr/bin/env-script", "#!/usr/bin/env lua\n");
    let provided = |path: &[u8]| matches!(path, b"bin/sh" | b"usr/bin/env" | b"usr/bin/lua");
    for name in ["usr/bin/sh-script", "usr/bin/env-script"] {
        let host = world.sysroot().join(name);
        let closure = world.resolver().program(&host, name.as_bytes(), &provided).unwrap();
        assert_eq!(listing(&closure), [name]);
        assert!(world.at(name).is_err());
    }
}

#[test]
fn destinations_that_no_archive_holds_are_refused() {
    let world = World::new().host_elf("x", ElfBuilder::new());
    for dest in ["", "/", ".", "../x", "a/../../x", "a\0b", "TRAILER!!!", &"x".repeat(256)] {
        assert!(matches!(only(world.moved("x", dest)), Problem::Dest { .. }), "{dest:?}");
    }
    assert_eq!(listing(&world.moved("x", "/a/.//b").unwrap()), ["a/b"]);
}

#[test]
fn two_files_for_one_place_are_a_conflict() {
    let world = World::new().host_elf("x", program(&["libc.so.6"]));
    let problem = only(world.moved("x", &lib("libc.so.6")));
    assert!(problem.to_string().contains("would be two things"), "{problem}");
}

#[test]
fn programs_are_found_by_name() {
    let world = World::new().elf("usr/bin/tool", program(&[])).link("usr/bin/t", "/usr/bin/tool");
    let (path, host) = world.resolver().find_program(b"t").unwrap();
    assert_eq!((&path[..], host), (&b"usr/bin/t"[..], world.sysroot().join("usr/bin/tool")));
    assert!(world.resolver().find_program(b"/bin/tool").is_some());
    assert!(world.resolver().find_program(b"none").is_none());
}
