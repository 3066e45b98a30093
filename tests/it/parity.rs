//! `docs/parity.md` names everything that the reference has, and tests that exist.

use std::collections::BTreeSet;
use std::path::Path;

/// Everything that the reference exports, as it is called in the table.
const REFERENCE: &str = "
VMTEST_ARCH VMTEST_QEMU VMTEST_QEMU_APPEND VMTEST_KERNEL VMTEST_INITRAMFS VMTEST_KERNEL_APPEND
VMTEST_TIMEOUT VMTEST_INITRAMFS_OVERRIDE VMTEST_OVMF_CODE VMTEST_OVMF_VARS VMTEST_GOCOVERDIR
VMTEST_KERNEL_COVERAGE_DIR VMTEST_GO_PROFILE
ErrInvalidDir ErrInvalidTag ErrIsNotDir ErrInvalidTimeout ErrKernelRequiredForArgs ErrUnsupportedArch
Arch ArchUseEnvv SupportedArches Arch.Valid GuestArch SkipIfNotArch SkipWithoutQEMU
Fn All ByArch IfArch IfNotArch ArbitraryArgs WithQEMUArgs WithQEMUCommand WithKernel WithInitramfs
WithAppendKernel HaltOnKernelPanic IDEBlockDevice LogSerialByLine LinePrinter DefaultPrint Prefix
PrintLine RelativeTS TS P9Directory P9BootDirectory ReadOnlyDirectory VirtioRandom WithSerialOutput
WithTask WithVMTimeout WithVmtestIdent IDAllocator NewIDAllocator IDAllocator.ID
Notifications Notifications.VMStarted Notifications.VMExited Task Cleanup WaitVMStarted
Options OptionsFor Options.QEMUCommand Options.Kernel Options.Initramfs Options.KernelArgs
Options.SerialOutput Options.Tasks Options.QEMUArgs Options.VMTimeout Options.ExtraFiles
Options.AddFile Options.AppendKernel Options.AppendQEMU Options.Arch Options.Cmdline Options.Start
Start StartContext StartT VM VM.Console VM.Options VM.Cmdline VM.CmdlineQuoted VM.Kill VM.Signal
VM.Wait VM.Waited Console.ExpectString Console.Expect Console.ExpectEOF Console.Send Console.SendLine
qevent.EventChannel qevent.EventChannelCallback qevent.ReadFile qevent.ErrEventChannelMissingDoneEvent
guest.EventChannel guest.SerialEventChannel guest.VirtioSerialDevice guest.Emitter.Emit
guest.Emitter.Write guest.Emitter.Close guest.Mount9PDir guest.CollectKernelCoverage
guest.SkipIfNotInVM guest.SkipIfInVM
qnetwork.New qnetwork.NIC qnetwork.WithNIC qnetwork.WithMAC qnetwork.WithDevice qnetwork.HostNetwork
qnetwork.WithUserCIDR qnetwork.WithUserArg qnetwork.InterVM qnetwork.NewInterVM qnetwork.NewVM
qnetwork.SocketBackend qnetwork.WithPCAP qnetwork.ServeHTTP
qfirmware.WithDefaultOVMF qfirmware.WithOVMF qcoverage.ShareGOCOVERDIR qcoverage.CollectKernelCoverage
quimage.WithUimage quimage.WithUimageT vmmount shutdownafter gouinit shelluinit scriptvm.Run
scriptvm.Start govmtest.Run runvmtest
";

/// Marks a row that is not filled yet.
const OPEN: &str = "**open**";

struct Row {
    reference: String,
    here: String,
    proof: String,
}

/// The rows of a Markdown file's tables, headings left out.
fn rows(text: &str) -> Vec<Row> {
    let cells = text.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').collect();
        let [reference, here, proof] = cells[..] else { panic!("not three cells: {line}") };
        let [reference, here, proof] = [reference, here, proof].map(|cell| cell.trim().to_owned());
        (reference != "reference" && !reference.starts_with("---")).then_some(Row {
            reference,
            here,
            proof,
        })
    });
    cells.collect()
}

/// What stands in backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// The names of all test functions below a directory.
fn tests_in(dir: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests_in(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            // Behind the attribute may be others, then `fn name(` or `async fn name(`.
            for attribute in ["#[test]", "#[tokio::test]"] {
                for rest in text.split(attribute).skip(1) {
                    let name = rest.split_once("fn ").and_then(|(_, rest)| rest.split('(').next());
                    names.extend(name.map(|name| name.trim().to_owned()));
                }
            }
        }
    }
}

/// What is wrong with a table, and its open rows.
fn check(text: &str, tests: &BTreeSet<String>) -> (Vec<String>, Vec<String>) {
    let (mut problems, mut open) = (Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    for row in rows(text) {
        seen.extend(quoted(&row.reference).map(str::to_owned));
        let Row { reference, here, proof } = row;
        if proof.starts_with(OPEN) {
            open.push(format!("{reference}: {proof}"));
            continue;
        }
        if here.is_empty() {
            problems.push(format!("{reference}: it has no name here"));
        }
        let named: Vec<&str> = quoted(&proof).collect();
        if named.is_empty() {
            problems.push(format!("{reference}: no test is named"));
        }
        for test in named.into_iter().filter(|test| !tests.contains(*test)) {
            problems.push(format!("{reference}: there is no test `{test}`"));
        }
    }
    for name in REFERENCE.split_whitespace().filter(|name| !seen.contains(*name)) {
        problems.push(format!("`{name}` of the reference has no row"));
    }
    (problems, open)
}

#[test]
fn every_name_of_the_reference_has_a_row_and_every_row_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = BTreeSet::new();
    for dir in ["src", "guest/src", "tests"] {
        tests_in(&root.join(dir), &mut tests);
    }
    assert!(tests.len() > 100, "the tests were not found");
    let text = std::fs::read_to_string(root.join("docs/parity.md")).unwrap();
    let (problems, open) = check(&text, &tests);
    println!("{} rows are open:\n  {}", open.len(), open.join("\n  "));
    assert!(problems.is_empty(), "docs/parity.md:\n  {}", problems.join("\n  "));
}

#[test]
fn the_check_of_the_table_can_fail() {
    let tests = BTreeSet::from(["exists".to_owned()]);
    let table = "| reference | here | proved by |\n|---|---|---|\n| `A` | `a` | `exists` |\n\
        | `B` | `b` | `gone` |\n| `C` | | `exists` |\n| `D` | | **open**: later |\n";
    let (problems, open) = check(table, &tests);
    assert_eq!(problems[..2], ["`B`: there is no test `gone`", "`C`: it has no name here"]);
    assert!(problems.contains(&"`VMTEST_ARCH` of the reference has no row".to_owned()));
    assert_eq!(open, ["`D`: **open**: later"]);
}
