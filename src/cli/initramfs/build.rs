//! `vmtest initramfs build`.

use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use clap::Args;
use vmtest::arch::Arch;
use vmtest::assets::{self, Assets};
use vmtest::configure::Kernel;
use vmtest::initramfs::extract::{ExtractOptions, write_dir};
use vmtest::initramfs::manifest::Manifest;
use vmtest::initramfs::report::{Archive, Report};
use vmtest::initramfs::{
    Build, BuildError, Cache, Codec, Compression, CompressionError, Image, Pending, Problem,
    Problems, Summary, kconfig,
};
use vmtest::options::Environment;
use vmtest::size::Bytes;

use super::common::{self, guarded};
use super::options::ContentArgs;
use crate::cli::error::Failure;
use crate::cli::ui;

/// Options of `build`.
#[derive(Clone, Debug, Args)]
pub(super) struct BuildArgs {
    /// Where the image goes; - is stdout. In a tree that is packed it is left out
    #[arg(short, long, value_name = "FILE", required_unless_present = "print_schema")]
    output: Option<PathBuf>,
    #[command(flatten)]
    content: ContentArgs,
    /// none, gzip, zstd, lz4 or xz, with a level if wanted (zstd:19); auto takes the best that the
    /// kernel of --kernel or --kernel-config unpacks
    #[arg(long, value_name = "TYPE[:LEVEL]", help_heading = "Output")]
    compress: Option<String>,
    /// Kernel that will boot the image, or @gcov, @distribution or @default: for --compress auto.
    /// Default: VMTEST_KERNEL
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    kernel: Option<PathBuf>,
    /// Its .config, where the kernel does not carry it
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    kernel_config: Option<PathBuf>,
    /// An archive, or a directory with the same content
    #[arg(long, value_name = "cpio|dir", default_value = "cpio", help_heading = "Output")]
    format: Format,
    /// With --format dir: leave device nodes out that need privileges
    #[arg(long, help_heading = "Output")]
    skip_nodes: bool,
    /// Memory of the guest: tells when the image is too large for it
    #[arg(long, value_name = "SIZE", value_parser = |text: &str| text.parse::<Bytes>(), help_heading = "Output")]
    memory: Option<Bytes>,
    /// Fail where there would only be a note; nothing is then written
    #[arg(long, help_heading = "Rules")]
    strict: bool,
    /// Neither take the image from the cache nor put it there
    #[arg(long, help_heading = "Output")]
    no_cache: bool,
    /// Write everything about the image there, as JSON: entries with their reasons, sizes, hash; -
    /// is stdout
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    report: Option<PathBuf>,
    /// Print who asked for how much
    #[arg(long, help_heading = "Output")]
    sizes: bool,
    /// Print the JSON schema of manifests and do nothing else
    #[arg(long)]
    print_schema: bool,
}

/// Forms of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Archive.
    Cpio,
    /// Directory.
    Dir,
}

/// Makes an image.
pub(super) fn build(args: BuildArgs, environment: &Environment) -> Result<u8, Failure> {
    if args.print_schema {
        return super::look::print(Manifest::schema().as_bytes()).map(|()| 0);
    }
    let Some(output) = &args.output else {
        return Err(Failure::wrong("there is no output", "give `-o FILE`"));
    };
    consistent(&args, output)?;
    let mut spec = args.content.spec(environment)?;
    let arch = spec.arch();
    spec.leave_out([output].into_iter().chain(&args.report).filter(|path| !is_stdout(path)));
    let build = Build::gather(&spec).map_err(|problems| common::problems(&problems))?;
    let image = build.image();
    for path in image.left_out() {
        ui::status(&format!("`{}` is left out: it is written by this build", path.display()));
    }
    for notice in image.notices() {
        ui::note(notice);
    }
    strict(&args, image.notices().len())?;
    let compression = compression(&args, spec.compression(), arch, environment)?;
    let (build, archive) = match args.format {
        Format::Dir => {
            directory(image, output, args.skip_nodes)?;
            (build, None)
        }
        Format::Cpio => {
            let cache = match args.no_cache {
                true => None,
                false => environment.cache_dir.as_deref().map(Cache::new),
            };
            let build = build.compression(compression).cache(cache);
            let archive = make(&build, compression, output, &args)?;
            (build, Some(archive))
        }
    };
    let image = build.image();
    let report =
        (args.report.is_some() || args.sizes).then(|| Report::new(arch, image, archive.clone()));
    if let (Some(path), Some(report)) = (&args.report, &report) {
        write_report(path, report)?;
    }
    if let (true, Some(report)) = (args.sizes, &report) {
        report.sizes().lines().for_each(ui::line);
    }
    if let Some(archive) = &archive {
        say(output, image, archive);
    }
    // The process ends: taking a million entries apart would only take time.
    std::mem::forget((build, spec));
    Ok(0)
}

fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}

/// Refuses what contradicts itself, or would do nothing.
fn consistent(args: &BuildArgs, output: &Path) -> Result<(), Failure> {
    let directory = args.format == Format::Dir;
    let without = [
        ("--compress", args.compress.is_some()),
        ("--kernel", args.kernel.is_some()),
        ("--kernel-config", args.kernel_config.is_some()),
        ("--memory", args.memory.is_some()),
    ];
    if directory && is_stdout(output) {
        return Err(Failure::wrong(
            "a directory cannot go to stdout",
            "give a name, `-o ./-` if need be, or leave `--format dir` out",
        ));
    }
    if let Some((option, _)) = without.iter().find(|(_, given)| directory && *given) {
        return Err(Failure::wrong(
            format!("`{option}` is about archives, and `--format dir` writes none"),
            "leave one of them out",
        ));
    }
    if args.skip_nodes && !directory {
        return Err(Failure::wrong(
            "`--skip-nodes` is for `--format dir`: archives hold nodes without privileges",
            "leave it out",
        ));
    }
    match &args.report {
        Some(report) if same_file(report, output) => Err(Failure::wrong(
            format!("image and report would both go to `{}`", output.display()),
            "give `--report` another file",
        )),
        _ => Ok(()),
    }
}

/// Whether two paths are one file, which need not exist.
fn same_file(a: &Path, b: &Path) -> bool {
    let whole = |path: &Path| {
        let name = path.file_name()?;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let dir = dir.unwrap_or(Path::new(".")).canonicalize().ok()?;
        let path = dir.join(name);
        Some(path.canonicalize().unwrap_or(path))
    };
    a == b || whole(a).is_some_and(|a| whole(b) == Some(a))
}

/// Fails if there are notes and there may be none.
fn strict(args: &BuildArgs, notes: usize) -> Result<(), Failure> {
    if !args.strict || notes == 0 {
        return Ok(());
    }
    let notes = if notes == 1 { "a note".to_owned() } else { format!("{notes} notes") };
    Err(Failure::missing(
        format!("there is {notes}, and `--strict` was given"),
        match args.output.as_deref().is_some_and(is_stdout) {
            true => "see above; what went to stdout is of no use",
            false => "see above; nothing was written, and what was there stays",
        },
    ))
}

fn say(output: &Path, image: &Image, archive: &Archive) {
    let Archive { bytes, stored_bytes, blake3, compression, cached } = archive;
    let size = match stored_bytes == bytes {
        true => format!("{bytes} bytes ({})", iec(*bytes)),
        false => format!(
            "{stored_bytes} bytes ({}), {compression}, {bytes} unpacked ({})",
            iec(*stored_bytes),
            iec(*bytes)
        ),
    };
    let cached = if *cached { ", from the cache" } else { "" };
    let entries = image.entries().len();
    let output = output.display();
    ui::status(&format!("{output}: {entries} entries, {size}, blake3 {blake3}{cached}"));
}

/// A size with a binary prefix.
pub(super) fn iec(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

/// Warns when the guest cannot hold the image: the loaded archive and the unpacked files are in
/// memory at the same time, and a tmpfs as root takes half of the memory at most.
fn too_large(args: &BuildArgs, image: &Image, stored: u64) -> Option<String> {
    let memory = args.memory?.0;
    let unpacked = image.unpacked_bytes();
    (stored + unpacked > memory || unpacked > memory / 2).then(|| {
        format!(
            "the guest has {} of memory; the archive takes {} of it and its files another {} when \
             they are unpacked (a root of tmpfs holds half of the memory)",
            iec(memory),
            iec(stored),
            iec(unpacked)
        )
    })
}

fn write_report(path: &Path, report: &Report) -> Result<(), Failure> {
    if is_stdout(path) {
        let mut text = serde_json::to_vec_pretty(report).unwrap_or_default();
        text.push(b'\n');
        return super::look::print(&text);
    }
    let write = || -> io::Result<()> {
        let pending = Pending::new(path)?;
        let mut out = BufWriter::new(pending.file());
        serde_json::to_writer_pretty(&mut out, report)?;
        out.write_all(b"\n")?;
        out.flush()?;
        drop(out);
        pending.publish(0o666)
    };
    write().map_err(|err| {
        let text = format!("cannot write the report `{}`: {err}", path.display());
        Failure::missing(text, where_to(&err))
    })
}

/// What helps where something could not be written.
fn where_to(err: &io::Error) -> &'static str {
    match err.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room, or give a path where there is more"
        }
        _ => "give a path in a directory that exists and can be written to",
    }
}

fn not_written(output: &Path, err: &io::Error) -> Failure {
    let output =
        if is_stdout(output) { "stdout".into() } else { format!("`{}`", output.display()) };
    Failure::missing(format!("cannot write {output}: {err}"), where_to(err))
}

/// Problems of writing an image: those of the output name it.
fn not_made(output: &Path, problems: &Problems) -> Failure {
    let written = problems.iter().find_map(|problem| match problem {
        Problem::Write { source } => Some(source),
        _ => None,
    });
    let Some(source) = written else { return common::problems(problems) };
    let others = problems.iter().filter(|problem| !matches!(problem, Problem::Write { .. }));
    others.for_each(|problem| ui::error(&crate::cli::error::chain(problem)));
    not_written(output, source)
}

/// The compression that was asked for; `auto` asks the kernel.
fn compression(
    args: &BuildArgs,
    manifest: Option<&str>,
    arch: Arch,
    environment: &Environment,
) -> Result<Compression, Failure> {
    let text = args.compress.as_deref().or(manifest).unwrap_or("none");
    let parse = |text: &str| {
        text.parse::<Compression>().map_err(|err| {
            let hint = match err {
                CompressionError::Level { .. } => err.hint(),
                _ => format!("{}, or auto", err.hint()),
            };
            Failure::usage(&err, Some(hint))
        })
    };
    let Some(level) = text.strip_prefix("auto") else { return parse(text) };
    let path = match (&args.kernel_config, args.kernel.as_ref().or(environment.kernel.as_ref())) {
        (Some(config), _) => config.clone(),
        (None, Some(word)) => match Kernel::from_word(word) {
            Kernel::Named(name) => config_of(arch, &name, environment)?,
            _ => word.clone(),
        },
        (None, None) => {
            return Err(Failure::wrong(
                "`--compress auto` needs to know the kernel",
                "give `--kernel FILE` or `--kernel-config FILE`",
            ));
        }
    };
    let path = &path;
    let fail = |err: kconfig::KernelConfigError| Failure::unavailable(&err, err.hint());
    let config = kconfig::read(path).map_err(fail)?;
    let supported = kconfig::supported(&config)
        .ok_or_else(|| fail(kconfig::KernelConfigError::NoInitrd { path: path.clone() }))?;
    let codec = supported[0];
    let chosen = match codec {
        // Without levels of its own the wish for one means nothing.
        Codec::None | Codec::Lz4 => Compression::new(codec, None),
        _ => format!("{codec}{level}").parse(),
    };
    let chosen = chosen.map_err(|err| Failure::usage(&err, Some(err.hint())))?;
    let names: Vec<_> = supported.iter().map(|codec| codec.name()).collect();
    ui::status(&format!(
        "compression: {chosen}, from what `{}` unpacks ({})",
        path.display(),
        names.join(", ")
    ));
    Ok(chosen)
}

/// The configuration of a kernel of the asset manifest, or the kernel, which may carry it.
fn config_of(arch: Arch, name: &str, environment: &Environment) -> Result<PathBuf, Failure> {
    let fail = |error: assets::Error| Failure::unavailable(&error, Some(error.hint()));
    let guest = Assets::find(environment).map_err(fail)?.guest(arch);
    let kernel = guest.named_kernel(arch, name).map_err(fail)?;
    Ok(kernel.config.clone().unwrap_or_else(|| kernel.image.path.clone()))
}

fn make(
    build: &Build,
    compression: Compression,
    output: &Path,
    args: &BuildArgs,
) -> Result<Archive, Failure> {
    // To be asked before the image gets its name.
    let check = |stored: u64| -> Result<(), Unmade> {
        let note = too_large(args, build.image(), stored);
        note.iter().for_each(|note| ui::note(note));
        strict(args, usize::from(note.is_some())).map_err(Unmade::Refused)
    };
    let unmade = |unmade| match unmade {
        Unmade::Refused(failure) => failure,
        Unmade::Build(BuildError::Image(problems)) => not_made(output, &problems),
        Unmade::Build(BuildError::Output(err)) => not_written(output, &err),
        Unmade::Build(other) => Failure::unavailable(&other, other.hint()),
    };
    let archive = |summary: &Summary, stored_bytes, cached| Archive {
        bytes: summary.bytes,
        stored_bytes,
        blake3: summary.blake3.to_string(),
        compression: compression.to_string(),
        cached,
    };
    if is_stdout(output) {
        let known = build.stored_bytes();
        known.map_or(Ok(()), check).map_err(unmade)?;
        let stdout = io::stdout().as_fd().try_clone_to_owned();
        let stdout = stdout.map_err(|err| not_written(output, &err))?;
        let mut out = BufWriter::with_capacity(256 << 10, std::fs::File::from(stdout));
        let written = build.to_stream(&mut out);
        let (summary, stored_bytes) = written.map_err(|err| not_made(output, &err))?;
        if known.is_none() {
            check(stored_bytes).map_err(unmade)?;
        }
        return Ok(archive(&summary, stored_bytes, false));
    }
    let built = build.to_file(output, check).map_err(unmade)?;
    if let Some(err) = &built.not_kept {
        ui::note(&format!("the image is not kept in the cache: {err}"));
    }
    Ok(archive(&built.summary, built.stored_bytes, built.cached))
}

/// Why there is no image.
enum Unmade {
    Build(BuildError),
    /// `--strict`.
    Refused(Failure),
}

impl From<BuildError> for Unmade {
    fn from(error: BuildError) -> Unmade {
        Unmade::Build(error)
    }
}

/// Writes the image as a directory, all of it or nothing.
fn directory(image: &Image, output: &Path, skip_nodes: bool) -> Result<(), Failure> {
    let fail = |err: io::Error| {
        let hint = match err.kind() {
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory => {
                "give a directory that does not exist yet, or an empty one"
            }
            _ => where_to(&err),
        };
        Failure::missing(format!("cannot write `{}`: {err}", output.display()), hint)
    };
    // What a link leads to is meant, as it is for archives.
    let place = match std::fs::symlink_metadata(output) {
        Ok(metadata) if metadata.is_symlink() => output.canonicalize().map_err(fail)?,
        _ => output.to_owned(),
    };
    match std::fs::read_dir(&place).map(|mut items| items.next().is_none()) {
        Ok(true) => {}
        Ok(false) => return Err(fail(io::ErrorKind::DirectoryNotEmpty.into())),
        Err(err) if err.kind() == io::ErrorKind::NotFound => {}
        Err(err) => return Err(fail(err)),
    }
    let parent = match place.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let made = guarded(|cancel| {
        let temporary =
            tempfile::Builder::new().prefix(".vmtest-").tempdir_in(parent).map_err(fail)?;
        let owner = rustix::process::geteuid().is_root();
        let options = ExtractOptions { owner, skip_nodes, cancel: Some(cancel) };
        let inside = temporary.path().join("image");
        let made = write_dir(image, &inside, options)
            .map_err(|err| Failure::unavailable(&err, err.hint()))?;
        std::fs::rename(&inside, &place).map_err(fail)?;
        Ok(made)
    })?;
    if !made.skipped.is_empty() {
        ui::note(&format!("{} device nodes are left out", made.skipped.len()));
    }
    ui::status(&format!("{}: {} entries", output.display(), made.entries));
    Ok(())
}
