//! The kernel's counters. These need kernels that take minutes to build; `make kernels-test` builds
//! them and runs the tests.

use super::*;

/// A little of everything that `fs/open.c` and `fs/read_write.c` do.
const SCRIPT: &str = "echo text > /tmp/file && cat /tmp/file && dd if=/tmp/file of=/tmp/copy \
    bs=1 skip=1 2>/dev/null && chmod 600 /tmp/copy && truncate -s 100 /tmp/copy && syscalls";

/// 500 times what the script does not do.
const SYSCALLS: &str = r#"
int open(const char *, int, ...), close(int), ftruncate(int, long), fchmod(int, unsigned);
long pread(int, void *, unsigned long, long), pwrite(int, const void *, unsigned long, long);
int unlink(const char *);
int main(void) {
    char text[8];
    for (int i = 0; i < 500; i++) {
        int fd = open("/tmp/calls", 0102, 0600);
        if (fd < 0 || pwrite(fd, "sevench", 8, i) != 8 || pread(fd, text, 8, i) != 8)
            return 1;
        if (ftruncate(fd, 3) || fchmod(fd, 0640) || close(fd) || unlink("/tmp/calls"))
            return 2;
    }
    return 0;
}
"#;

fn run_gcov(place: &Place, arch: Arch, name: &str) -> Run {
    run(place, arch, name).args(["--kernel", "@gcov"])
}

fn counted(arch: Arch) {
    let place = Place::new();
    let program = match arch {
        Arch::Riscv64 => clang_for_riscv64(&place, "calls.c", SYSCALLS, &[]),
        _ => place.compile("gcc", "calls.c", SYSCALLS, &["-static"]),
    };
    let done = run_gcov(&place, arch, "files")
        .arg(format!("--bin={}:/bin/syscalls", program.display()))
        .args(["--", "sh", "-ec", SCRIPT])
        .run();
    done.code(0);
    let record = place.record("files");
    assert_eq!(kinds(&record), [Kind::Kernel], "{}", done.stderr);
    assert!(record.missing.is_empty(), "{record:?}");
    let files = record.collected[0].files;
    assert!(files > 500, "only {files} files of counters");

    let info = place.at("kernel.info");
    let done = vmtest(["coverage", "report", "--lcov"]).arg(&info).arg(place.cov()).run();
    done.code(0);
    let text = fs::read_to_string(&info).unwrap();
    for file in ["fs/open.c", "fs/read_write.c"] {
        let (path, hit) = lines_hit(&text, file);
        assert!(hit > 50, "{hit} lines of {file} were executed");
        assert!(Path::new(&path).is_file(), "{path} is not on this host");
    }
    for function in ["ksys_pread64", "ksys_pwrite64", "chmod_common"] {
        let calls = text.lines().find_map(|line| {
            let (calls, name) = line.strip_prefix("FNDA:")?.split_once(',')?;
            (name == function).then(|| calls.parse::<u64>().unwrap())
        });
        assert!(calls.is_some_and(|calls| calls >= 500), "{function}: {calls:?}");
    }
    // Built in, and nothing has such a device.
    let (_, hit) = lines_hit(&text, "drivers/net/ethernet/intel/e1000/e1000_ethtool.c");
    assert_eq!(hit, 0);
    let genhtml = Command::new("genhtml")
        .args(["--quiet", "--output-directory"])
        .arg(place.at("html"))
        .arg(&info)
        .output()
        .expect("genhtml is needed: `setup/test-tools`");
    assert!(genhtml.status.success(), "{}", String::from_utf8_lossy(&genhtml.stderr));
}

/// The path of a source file in an lcov file, and how many of its lines were executed.
fn lines_hit(lcov: &str, file: &str) -> (String, usize) {
    let records = lcov.split("end_of_record");
    let mut found = records.filter_map(|record| {
        let path = record.lines().find_map(|line| line.strip_prefix("SF:"))?;
        path.ends_with(&format!("/{file}")).then_some((path, record))
    });
    let (path, record) = found.next().unwrap_or_else(|| panic!("no {file} in the report"));
    let lines = record.lines().filter_map(|line| line.strip_prefix("DA:"));
    (path.to_owned(), lines.filter(|line| !line.ends_with(",0")).count())
}

#[test]
#[ignore = "needs `make kernels GCOV=1`"]
fn amd64_kernel_counts() {
    counted(Arch::Amd64);
}

#[test]
#[ignore = "needs `make kernels GCOV=1`"]
fn riscv64_kernel_counts() {
    counted(Arch::Riscv64);
}

#[test]
#[ignore = "needs `make kernels GCOV=1`"]
fn amd64_command_that_hangs_does_not_keep_the_kernels_counters() {
    let place = Place::new();
    let done = run_gcov(&place, Arch::Amd64, "hang")
        .args(["--timeout", "20s", "--", "sleep", "1000"])
        .run();
    done.code(124);
    assert_eq!(kinds(&place.record("hang")), [Kind::Kernel], "{}", done.stderr);
}

#[test]
#[ignore = "needs `make kernels GCOV=1`"]
fn amd64_guest_that_never_gets_ready_is_not_waited_for_longer_than_the_limit() {
    let place = Place::new();
    let start = std::time::Instant::now();
    let done = run_gcov(&place, Arch::Amd64, "stuck")
        .args(["--append", "rdinit=/.vmtest/bin/busybox", "--append", "-- sleep 1000"])
        .args(["--timeout", "8s", "--", "true"])
        .run();
    done.code(124).says("--timeout").says("coverage of the kernel is missing");
    assert!(start.elapsed().as_secs() < 30, "it took {:?}", start.elapsed());
    assert!(missing(&place.record("stuck"), Kind::Kernel).contains("ready"));
}

#[test]
#[ignore = "needs `make kernels GCOV=1`"]
fn amd64_panic_takes_the_counters_with_it_and_that_is_said() {
    let place = Place::new();
    let done = run_gcov(&place, Arch::Amd64, "panic")
        .args(["--", "sh", "-c", "echo c > /proc/sysrq-trigger; sleep 100"])
        .run();
    done.code(70).says("coverage of the kernel is missing: the kernel panicked");
    let record = place.record("panic");
    assert!(kinds(&record).is_empty(), "{record:?}");
    assert!(missing(&record, Kind::Kernel).contains("panicked"), "{record:?}");
}

#[test]
#[ignore = "needs `make kernels GCOV=1`"]
fn amd64_full_disk_keeps_the_good_part() {
    let place = Place::new();
    // As good as a full disk: a limit on the size of files, 4 MiB.
    let script = format!(
        "trap '' XFSZ; ulimit -f 8192; exec {} --arch amd64 --kernel @gcov --coverage-name full --coverage '{}' \
         -- true",
        env!("CARGO_BIN_EXE_vmtest"),
        place.cov().display(),
    );
    assets(Arch::Amd64);
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    let record = place.record("full");
    assert_eq!(kinds(&record), [Kind::Kernel], "{text}");
    assert!(missing(&record, Kind::Kernel).contains("cannot be written"), "{record:?}");
    assert!(text.contains("coverage of the kernel is missing"), "{text}");
}

#[test]
#[ignore = "needs `make kernels GCOV=1`"]
fn amd64_variables_of_the_reference_get_theirs() {
    let place = Place::new();
    let done = run_gcov(&place, Arch::Amd64, "vars")
        .env("VMTEST_GOCOVERDIR", place.at("go dir"))
        .env("VMTEST_KERNEL_COVERAGE_DIR", place.at("kernel dir"))
        .args(["--", "sh", "-c", "echo data > $GOCOVERDIR/covmeta.x"])
        .run();
    done.code(0);
    assert_eq!(fs::read(place.at("go dir/covmeta.x")).unwrap(), b"data\n");
    let tar = fs::metadata(place.at("kernel dir/vars/0/kernel_coverage.tar")).unwrap();
    let kernel = place.record("vars").collected[0];
    assert_eq!((kernel.kind, kernel.bytes), (Kind::Kernel, tar.len()));
}
