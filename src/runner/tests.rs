//! Decisions as a whole.

use super::request::variable;
use super::*;
use crate::qemu::MirrorWrites::{Host, Private};

fn elf(machine: u8) -> Vec<u8> {
    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1];
    bytes.resize(18, 0);
    bytes.extend([machine, 0]);
    bytes.resize(64, 0);
    bytes
}

const AMD64: u8 = 62;
const RISCV64: u8 = 243;

/// A package of cargo's whose target directory is elsewhere.
struct Fixture {
    dir: tempfile::TempDir,
    env: Vec<(OsString, OsString)>,
}

impl Fixture {
    fn new() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for made in ["ws/p", "target/debug/deps", "target/debug/build/p-1/out", "target/tmp"] {
            std::fs::create_dir_all(root.join(made)).unwrap();
        }
        std::fs::write(root.join("ws/Cargo.toml"), "[workspace]\n").unwrap();
        std::fs::write(root.join("target/CACHEDIR.TAG"), "created by cargo").unwrap();
        std::fs::write(root.join("target/debug/deps/t-1"), elf(AMD64)).unwrap();
        std::fs::write(root.join("target/debug/deps/foreign"), elf(RISCV64)).unwrap();
        std::fs::write(root.join("target/debug/bin"), elf(AMD64)).unwrap();
        let value = |name: &str| root.join(name).into_os_string();
        let libraries = [root.join("target/debug/deps"), "/usr/lib".into()];
        let env = vec![
            ("CARGO".into(), "/bin/cargo".into()),
            ("CARGO_HOME".into(), "/nowhere".into()),
            ("CARGO_MANIFEST_DIR".into(), value("ws/p")),
            ("OUT_DIR".into(), value("target/debug/build/p-1/out")),
            ("CARGO_BIN_EXE_bin".into(), value("target/debug/bin")),
            ("LD_LIBRARY_PATH".into(), std::env::join_paths(libraries).unwrap()),
            ("SECRET".into(), "x".into()),
        ];
        Fixture { dir, env }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn decide(&self, program: &str, args: &[&str], arch: Option<Arch>) -> Result<Decision, Error> {
        let mut argv = vec![self.path(program).into_os_string()];
        argv.extend(args.iter().map(OsString::from));
        decide(&Request {
            argv: &argv,
            arch,
            default_arch: None,
            host: Some(Arch::Amd64),
            cwd: &self.path("ws/p"),
            env: &self.env,
            projects: &[],
            write: &[],
            pass: &[],
        })
    }
}

#[test]
fn a_test_of_cargos_sees_its_workspace_and_its_target_directory() {
    let fixture = Fixture::new();
    let Decision::Guest(job) = fixture.decide("target/debug/deps/t-1", &[], None).unwrap() else {
        panic!("it runs in a guest")
    };
    let mirror = |dir: &str, writes| Mirror { dir: fixture.path(dir), writes };
    assert_eq!(
        job.mirrors,
        [
            mirror("target", Private),
            mirror("target/debug/build/p-1/out", Host),
            mirror("target/tmp", Host),
            mirror("ws", Private),
        ]
    );
    assert_eq!((job.arch, job.program_shared), (Arch::Amd64, true));
    assert_eq!(job.programs, [fixture.path("target/debug/bin")]);
    assert_eq!(job.cwd, fixture.path("ws/p"));
    let library_path = variable(&job.env, "LD_LIBRARY_PATH").unwrap();
    assert_eq!(library_path, fixture.path("target/debug/deps").as_os_str());
    assert_eq!(variable(&job.env, "SECRET"), None);
}

#[test]
fn a_program_of_the_hosts_under_a_foreign_hook_runs_on_the_host() {
    let mut fixture = Fixture::new();
    let hosts = |decision| matches!(decision, Ok(Decision::Host { .. }));
    let t = "target/debug/deps/t-1";
    assert!(hosts(fixture.decide(t, &[], Some(Arch::Riscv64))));
    assert!(!hosts(fixture.decide(t, &[], Some(Arch::Amd64))));
    let foreign = fixture.decide("target/debug/deps/foreign", &[], Some(Arch::Arm));
    let error = foreign.unwrap_err();
    assert!(matches!(&error, Error::OtherArch { found: Arch::Riscv64, wanted: Arch::Arm, .. }));
    assert!(error.hint().is_some());
    let runner = "CARGO_TARGET_RISCV64GC_UNKNOWN_LINUX_GNU_RUNNER";
    fixture.env.push((runner.into(), "vmtest runner --".into()));
    assert!(hosts(fixture.decide(t, &[], None)));
    assert!(!hosts(fixture.decide("target/debug/deps/foreign", &[], None)));
    let runner = "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER";
    fixture.env.push((runner.into(), "vmtest runner --".into()));
    assert!(!hosts(fixture.decide(t, &[], None)));
}

#[test]
fn a_list_costs_no_guest_where_the_program_can_run() {
    let fixture = Fixture::new();
    let hosts = |program: &str, args: &[&str]| {
        matches!(fixture.decide(program, args, None), Ok(Decision::Host { .. }))
    };
    let t = "target/debug/deps/t-1";
    assert!(hosts(t, &["--list", "--format", "terse"]));
    assert!(hosts(t, &["--list", "--format", "terse", "--ignored"]));
    assert!(!hosts(t, &["--list"]) && !hosts(t, &["--format", "terse"]) && !hosts(t, &[]));
    assert!(!hosts("target/debug/deps/foreign", &["--list", "--format", "terse"]));
}

#[test]
fn a_directory_that_cannot_be_there_is_an_error_only_if_it_was_named() {
    let argv = ["sh".into()];
    let request = |projects: &'static [&'static str]| {
        let projects: Vec<PathBuf> = projects.iter().map(PathBuf::from).collect();
        decide(&Request {
            argv: &argv,
            arch: Some(Arch::Arm),
            default_arch: None,
            host: None,
            cwd: Path::new("/"),
            env: &[],
            projects: &projects,
            write: &[],
            pass: &[],
        })
    };
    let Decision::Guest(job) = request(&[]).unwrap() else { panic!("it runs in a guest") };
    assert_eq!(job.mirrors, []);
    for named in [&["/usr"][..], &["/no/such/directory"]] {
        let projects: &'static [&'static str] =
            if named[0] == "/usr" { &["/usr"] } else { &["/no/such/directory"] };
        assert!(request(projects).is_err());
    }
}
