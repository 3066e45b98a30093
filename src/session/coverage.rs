//! What a run's coverage needs: before it starts a place and the means, after its end a record.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use vmtest_guest::proto::{Bytes, COVERAGE_DIR, Exec};

use super::Error;
use super::kernel::FoundKernel;
use crate::arch::Arch;
use crate::coverage::Collected;
use crate::coverage::record::{self, Object};
use crate::coverage::run_dir::{Facts, RunDir};
use crate::initramfs::entry::{Body, Kind as EntryKind};
use crate::initramfs::{Image, kconfig};
use crate::options::Environment;
use crate::qemu::CoverageShare;
use crate::vm::{KernelCounters, Outcome, Resources, Verdict};

/// The option that makes a kernel count.
const GCOV_OPTION: &str = "CONFIG_GCOV_KERNEL";

/// The coverage of a run that is prepared or under way.
#[derive(Debug)]
pub struct Collecting {
    dir: RunDir,
    arch: Arch,
    kernel: record::Kernel,
    /// Why the kernel's counters cannot be had, known before the start.
    no_kernel: Option<String>,
    objects: Vec<Object>,
    also: Also,
}

/// Where the variables of the Go package `hugelgupf/vmtest` want things besides.
#[derive(Debug)]
struct Also {
    kernel: Option<PathBuf>,
    go: Option<PathBuf>,
}

impl Collecting {
    /// Makes the run's directory (`wanted`: where, and its name if it was given), and finds out whether the
    /// kernel counts.
    pub(super) fn prepare(
        wanted: (&Path, Option<&str>),
        arch: Arch,
        kernel: Option<&FoundKernel>,
        program: Option<&OsStr>,
        environment: &Environment,
    ) -> Result<Collecting, Error> {
        let program =
            program.map(Path::new).and_then(Path::file_name).unwrap_or(OsStr::new("boot"));
        let otherwise = format!("{}-{arch}", program.to_string_lossy());
        let dir = RunDir::create(wanted.0, wanted.1, &otherwise)?;
        let no_kernel = match kernel {
            None => Some("the kernel comes from a drive: it is not known whether it counts".into()),
            Some(kernel) if kernel.gcov.is_none() && counts(kernel) == Some(false) => {
                Some(format!(
                    "the kernel `{}` was built without {GCOV_OPTION}; `--kernel @gcov` boots one that \
                     has it, where `make kernels GCOV=1` has built it",
                    kernel.path.display()
                ))
            }
            Some(_) => None,
        };
        let gcov = kernel.and_then(|kernel| kernel.gcov.clone());
        let kernel = record::Kernel {
            path: kernel.map(|kernel| kernel.path.clone()),
            version: None,
            gcov: gcov.map(|gcov| record::KernelGcov {
                notes: gcov.notes,
                build_dir: gcov.build_dir,
                source: Some(gcov.source),
                format: gcov.format,
            }),
        };
        let also = Also {
            kernel: environment.kernel_coverage_dir.clone(),
            go: environment.gocoverdir.clone(),
        };
        Ok(Collecting { dir, arch, kernel, no_kernel, objects: Vec::new(), also })
    }

    /// The run's directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Why the kernel's counters will not come home, if that is known.
    pub fn no_kernel(&self) -> Option<&str> {
        self.no_kernel.as_deref()
    }

    /// The device that brings it home, and who takes the kernel's counters.
    pub(super) fn device(&self, resources: &mut Resources) -> Result<CoverageShare, Error> {
        let kernel = self.no_kernel.is_none();
        if kernel {
            resources.kernel_coverage = Some(Box::new(self.dir.kernel_tar()?));
        }
        Ok(CoverageShare { dir: self.dir().to_owned(), kernel })
    }

    /// Notes which files of an image were made to count.
    pub(super) fn note_objects(&mut self, image: &Image) {
        for entry in image.entries() {
            if let EntryKind::File { body: Body::Host(file), .. } = entry.kind()
                && crate::coverage::is_instrumented(&file.path())
            {
                let host = file.path();
                let host = std::path::absolute(&host).unwrap_or(host);
                let guest = Path::new("/").join(OsStr::from_bytes(entry.path()));
                self.objects.push(Object { host, guest: Some(guest) });
            }
        }
    }

    /// The machine is about to start: from now on the directory stays.
    pub fn started(&mut self) {
        self.dir.keep();
    }

    /// Writes down what came home.
    ///
    /// # Errors
    /// The record cannot be written; what was collected stays.
    pub fn finish(mut self, outcome: &Outcome) -> Result<Collected, record::Error> {
        self.kernel.version = outcome.hello.as_ref().map(|hello| hello.kernel_release.clone());
        let counters = match (&outcome.kernel_counters, self.no_kernel.take()) {
            (_, Some(why)) => Err(why),
            (Some(KernelCounters::Complete { files, .. }), None) => Ok(*files),
            (Some(KernelCounters::Missing { why }), None) => Err(why.clone()),
            (None, None) => Err(unasked(&outcome.verdict).into()),
        };
        let programs = match &outcome.verdict {
            Verdict::Exited(_) | Verdict::Ready => None,
            verdict => Some(format!(
                "programs write what they have counted when they end; those that ran until the end of \
                 the run have not ({})",
                verdict.name()
            )),
        };
        let dir = self.dir.path().to_owned();
        let also = self.also;
        let name = self.dir.name().to_owned();
        let record = self.dir.finish(Facts {
            arch: self.arch,
            verdict: outcome.verdict.name(),
            kernel: Some(self.kernel),
            objects: self.objects,
            counters: Some(counters),
            programs,
        })?;
        let notices = also.put(&name, &dir);
        Ok(Collected { dir, record, notices })
    }
}

impl Also {
    /// Puts copies of what is in the run's directory where they are wanted too. Says what did not work.
    fn put(&self, name: &str, run: &Path) -> Vec<String> {
        let mut notices = Vec::new();
        let mut copy = |variable: &str, from: &Path, to: &Path| {
            let made = to.parent().map_or(Ok(()), std::fs::create_dir_all);
            // A link costs nothing; another file system needs a copy.
            let put = made.and_then(|()| {
                std::fs::hard_link(from, to).or_else(|_| std::fs::copy(from, to).map(drop))
            });
            if let Err(error) = put {
                notices.push(format!("{variable}: cannot write {}: {error}", to.display()));
            }
        };
        let tar = run.join(record::KERNEL_TAR);
        if let Some(dir) = self.kernel.as_ref().filter(|_| tar.exists()) {
            let to = dir.join(name).join("0").join(record::KERNEL_TAR);
            copy("VMTEST_KERNEL_COVERAGE_DIR", &tar, &to);
        }
        if let Some(dir) = &self.go {
            for entry in std::fs::read_dir(run.join(record::GO_DIR)).into_iter().flatten().flatten()
            {
                copy("VMTEST_GOCOVERDIR", &entry.path(), &dir.join(entry.file_name()));
            }
        }
        notices
    }
}

/// Why a guest was not asked for its counters.
fn unasked(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Panicked { .. } => "the kernel panicked before it could be asked",
        Verdict::TimedOut { .. } => "the guest did not get ready to be asked",
        Verdict::Interrupted { .. } => "the run was interrupted",
        _ => "the guest was gone before it could be asked",
    }
}

/// Tells the programs of a command where to leave what they count. What the user says goes before.
pub(super) fn tell(exec: &mut Exec) {
    let variables = [
        // One file for each process and program: none is written to twice.
        ("LLVM_PROFILE_FILE", format!("{COVERAGE_DIR}/llvm/%p-%m.profraw")),
        ("GOCOVERDIR", format!("{COVERAGE_DIR}/go")),
        ("GCOV_PREFIX", format!("{COVERAGE_DIR}/gcc")),
    ];
    let bytes = |text: &str| Bytes::from(OsString::from(text).as_os_str());
    let variables = variables.map(|(name, value)| (bytes(name), bytes(&value)));
    exec.env.splice(0..0, variables);
}

/// Whether a kernel counts; `None` when its configuration is not known.
fn counts(kernel: &FoundKernel) -> Option<bool> {
    let config = kconfig::read(kernel.config.as_ref().unwrap_or(&kernel.path)).ok()?;
    Some(config.lines().any(|line| line == format!("{GCOV_OPTION}=y")))
}
