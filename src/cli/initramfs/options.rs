//! What an image shall contain, as options.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::Args;
use vmtest::arch::Arch;
use vmtest::initramfs::manifest::{Manifest, module_request};
use vmtest::initramfs::mkuimage::{self, Config, Templates};
use vmtest::initramfs::{Attributes, Builder, ModulesRequest, Role, microcode};
use vmtest::options::Environment;

use crate::cli::error::Failure;
use crate::cli::ui;
use crate::cli::words;

/// The options that tell what is in an image. In values with a colon, `\:` is a colon that belongs
/// to a name and `\\` a backslash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub(super) struct ContentArgs {
    /// Guest architecture: amd64, i386, arm64, arm, riscv64. Default: the manifest's, VMTEST_ARCH,
    /// the host's
    #[arg(long, value_name = "ARCH", value_parser = |text: &str| text.parse::<Arch>())]
    pub(super) arch: Option<Arch>,
    /// Where libraries and interpreters are looked for. Default: /
    #[arg(long, value_name = "DIR")]
    sysroot: Option<PathBuf>,
    /// Further directory with libraries; repeats
    #[arg(long, value_name = "DIR")]
    lib_dir: Vec<PathBuf>,
    /// Program, script or library with everything it needs; repeats
    #[arg(long, value_name = "FILE[:DEST]")]
    bin: Vec<OsString>,
    /// File or directory as it is; repeats
    #[arg(long, visible_alias = "files", value_name = "SRC[:DEST]")]
    file: Vec<OsString>,
    /// Take --bin as --file: without interpreter and libraries
    #[arg(long)]
    skip_ldd: bool,
    /// What the image shall contain, as TOML; options add to it
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Config of the .mkuimage.yaml here or in a directory above
    #[arg(long, value_name = "NAME")]
    config: Option<String>,
    /// The .mkuimage.yaml to take it from
    #[arg(long, value_name = "FILE", requires = "config")]
    config_file: Option<PathBuf>,
    /// Leave the Go commands of --config out
    #[arg(long, requires = "config")]
    nocmd: bool,

    /// Archive as the ground of the image, instead of the default one: any number of segments,
    /// compressed or not; repeats
    #[arg(long, value_name = "FILE", help_heading = "Base")]
    base: Vec<PathBuf>,
    /// No base at all, not even the default one
    #[arg(long, conflicts_with = "base", help_heading = "Base")]
    no_base: bool,
    /// Keep the base's init; another one becomes inito
    #[arg(long, visible_alias = "useinit", conflicts_with = "no_base", help_heading = "Base")]
    use_init: bool,

    /// What /init leads to: a path in the image, or the name of a program in it; empty for none
    #[arg(long, visible_alias = "initcmd", value_name = "CMD", help_heading = "Commands")]
    init: Option<String>,
    /// What /bin/uinit leads to, with arguments (/etc/uinit.flags); empty for none
    #[arg(long, visible_alias = "uinitcmd", value_name = "CMD [ARGS]", help_heading = "Commands")]
    uinit: Option<String>,
    /// What /bin/sh and /bin/defaultsh lead to; empty for none
    #[arg(long, visible_alias = "defaultsh", value_name = "CMD", help_heading = "Commands")]
    default_sh: Option<String>,
    /// One program under many names: /bbin/bb, and a link for each name; repeats
    #[arg(long, value_name = "FILE:NAME,NAME…", help_heading = "Commands")]
    multicall: Vec<OsString>,

    /// Symbolic link; repeats
    #[arg(long, value_name = "DEST:TARGET", help_heading = "Entries")]
    symlink: Vec<OsString>,
    /// Directory with a mode, 0755 unless given; repeats
    #[arg(long, value_name = "DEST[:MODE]", help_heading = "Entries")]
    dir: Vec<OsString>,
    /// Device node, without privileges: DEST:c:MAJOR:MINOR[:MODE], b for block, DEST:p for a named
    /// pipe; repeats
    #[arg(long, value_name = "DEST:TYPE…", help_heading = "Entries")]
    node: Vec<OsString>,

    /// Kernel modules, …/lib/modules/RELEASE
    #[arg(long, value_name = "DIR", help_heading = "Kernel")]
    modules: Option<PathBuf>,
    /// Module of --modules with all it depends on, by name or alias, parameters after a blank;
    /// repeats
    #[arg(long, value_name = "NAME", requires = "modules", help_heading = "Kernel")]
    module: Vec<String>,
    /// Where firmware for the modules is, …/lib/firmware
    #[arg(long, value_name = "DIR", requires = "modules", help_heading = "Kernel")]
    firmware: Option<PathBuf>,
    /// Microcode for an early segment: AuthenticAMD.bin, GenuineIntel.bin, or a directory with
    /// amd-ucode or intel-ucode; repeats
    #[arg(long, value_name = "PATH", help_heading = "Kernel")]
    microcode: Vec<PathBuf>,

    /// Library that may be missing; repeats
    #[arg(long, value_name = "LIB", help_heading = "Rules")]
    allow_missing: Vec<String>,
    /// Where two requests give one path different content, take the later one
    #[arg(long = "override", help_heading = "Rules")]
    take_later: bool,
    /// Keep modes of the host's files; otherwise they are 0755 and 0644
    #[arg(long, help_heading = "Rules")]
    preserve_modes: bool,
    /// Keep owner and group of the host's files; otherwise everything is root's
    #[arg(long, help_heading = "Rules")]
    preserve_owner: bool,
}

/// What the options come to.
pub(super) struct Content {
    pub(super) arch: Arch,
    /// The early segment.
    pub(super) early: Option<Builder>,
    pub(super) main: Builder,
    /// Compression that the manifest asks for.
    pub(super) compress: Option<String>,
}

impl ContentArgs {
    /// Puts manifest, template and options together.
    pub(super) fn content(&self, environment: &Environment) -> Result<Content, Failure> {
        let manifest = self.manifest.as_ref().map(|path| read_manifest(path)).transpose()?;
        let template = self.template()?;
        let named = manifest.as_ref().and_then(|(_, _, manifest)| manifest.arch.clone());
        let named = named.or_else(|| template.as_ref().and_then(|config| config.goarch.clone()));
        let named = named
            .map(|name| name.parse::<Arch>())
            .transpose()
            .map_err(|err| Failure::usage(&err, Some(err.hint())))?;
        let arch =
            self.arch.or(named).or(environment.arch).or_else(Arch::host).ok_or_else(|| {
                Failure::wrong("this machine's architecture is none of the five", "give `--arch`")
            })?;
        let mut builder = Builder::new(arch);
        let mut paths = self.microcode.clone();
        let mut compress = None;
        let mut no_base = self.no_base || !self.base.is_empty();
        builder.mtime(epoch()?);
        if let Some((path, _, manifest)) = &manifest {
            no_base |= manifest.no_base || !manifest.base.is_empty();
            let none = self.no_base || (manifest.no_base && self.base.is_empty());
            if none && (self.use_init || manifest.use_init) {
                return Err(Failure::wrong(
                    "there is no base whose init could be kept",
                    format!(
                        "leave `no-base` or `use-init` out, on the command line or in `{}`",
                        path.display()
                    ),
                ));
            }
            compress.clone_from(&manifest.compress);
            if let Some(mtime) = manifest.mtime {
                builder.mtime(mtime);
            }
            let home = path.parent().unwrap_or(Path::new(""));
            paths.extend(manifest.microcode.iter().map(|path| home.join(path)));
        }
        if !no_base {
            builder.by("the default base archive").default_base();
        }
        if let Some((path, text, manifest)) = &manifest {
            let mut manifest = manifest.clone();
            self.overrule(&mut manifest);
            manifest.apply(path, text, &mut builder);
        }
        if let Some(config) = &template {
            self.apply_template(config, &mut builder)?;
        }
        self.apply(&mut builder)?;
        let early = match paths.is_empty() {
            true => None,
            false => {
                Some(microcode::early(arch, &paths).map_err(|err| super::common::problems(&err))?)
            }
        };
        Ok(Content { arch, early, main: builder, compress })
    }

    /// Options take the place of what the manifest says where there can be only one.
    fn overrule(&self, manifest: &mut Manifest) {
        for (option, value) in [
            (&self.init, &mut manifest.init),
            (&self.uinit, &mut manifest.uinit),
            (&self.default_sh, &mut manifest.default_sh),
        ] {
            if option.is_some() {
                *value = None;
            }
        }
        if self.no_base {
            manifest.base.clear();
        }
    }

    fn apply(&self, builder: &mut Builder) -> Result<(), Failure> {
        // Destructured, so that no option can be forgotten.
        let ContentArgs {
            arch: _,
            sysroot,
            lib_dir,
            bin,
            file,
            skip_ldd,
            manifest: _,
            config: _,
            config_file: _,
            nocmd: _,
            base,
            no_base: _,
            use_init,
            init,
            uinit,
            default_sh,
            multicall,
            symlink,
            dir,
            node,
            modules,
            module,
            firmware,
            microcode: _,
            allow_missing,
            take_later,
            preserve_modes,
            preserve_owner,
        } = self;
        if let Some(sysroot) = sysroot {
            builder.sysroot(sysroot);
        }
        builder.library_dirs(lib_dir.iter().cloned());
        builder.allow_missing(allow_missing.iter().map(String::as_str));
        if *take_later {
            builder.take_later(true);
        }
        if *use_init {
            builder.use_init(true);
        }
        if *preserve_modes || *preserve_owner {
            builder.attributes(Attributes {
                preserve_modes: *preserve_modes,
                preserve_owner: *preserve_owner,
            });
        }
        for path in base {
            builder.by(format!("--base {}", path.display())).base(path);
        }
        for value in file {
            let (src, dest) = words::one_or_two("--file", value)?;
            builder.by(label("--file", value));
            builder.file_os(Path::new(&src), dest.as_deref(), false);
        }
        for value in bin {
            let (src, dest) = words::one_or_two("--bin", value)?;
            builder.by(label("--bin", value));
            if *skip_ldd {
                builder.file_os(Path::new(&src), dest.as_deref(), true);
            } else {
                builder.binary_os(Path::new(&src), dest.as_deref());
            }
        }
        for value in multicall {
            let (src, names) = words::two("--multicall", value, "FILE:NAME,NAME…")?;
            let names = names.to_string_lossy().into_owned();
            builder.by(label("--multicall", value)).multicall(src, names.split(','));
        }
        for value in symlink {
            let (dest, target) = words::two("--symlink", value, "DEST:TARGET")?;
            builder.by(label("--symlink", value)).symlink(dest, target);
        }
        for value in dir {
            let (dest, mode) = words::one_or_two("--dir", value)?;
            let text = mode.unwrap_or_else(|| "0755".into());
            let mode = words::mode(&text).ok_or_else(|| {
                Failure::wrong(
                    format!("`--dir {}` has the mode `{}`", value.display(), text.display()),
                    "a mode is octal, from 0 to 7777: `--dir DEST:1777`",
                )
            })?;
            builder.by(label("--dir", value)).dir(dest, mode);
        }
        for value in node {
            let (dest, mode, kind, rdev) = words::node(value)?;
            builder.by(label("--node", value)).node(dest, mode, kind, rdev);
        }
        if let Some(dir) = modules {
            builder.by(format!("--modules {}", dir.display())).modules(ModulesRequest {
                dir: dir.clone(),
                modules: module.iter().map(|name| module_request(name)).collect(),
                firmware: firmware.clone(),
            });
        }
        for (role, command) in [(Role::Init, init), (Role::Shell, default_sh), (Role::Uinit, uinit)]
        {
            if let Some(command) = command.as_ref().filter(|command| !command.is_empty()) {
                builder.by(format!("{} {command}", role.option())).command(role, command);
            }
        }
        Ok(())
    }

    fn template(&self) -> Result<Option<Config>, Failure> {
        let Some(name) = &self.config else { return Ok(None) };
        let fail = |err: mkuimage::TemplateError| Failure::unavailable(&err, err.hint());
        let here = std::env::current_dir().unwrap_or_default();
        let path = match &self.config_file {
            Some(path) => path.clone(),
            None => mkuimage::find(&here)
                .ok_or_else(|| fail(mkuimage::TemplateError::NoFile { from: here }))?,
        };
        let templates = Templates::read(&path).map_err(fail)?;
        let config = templates.config(&path, name, self.nocmd).map_err(fail)?;
        if self.nocmd && !config.commands.is_empty() {
            ui::note(&format!("the Go commands of config `{name}` are left out"));
        }
        Ok(Some(config.clone()))
    }

    /// mkuimage's files: with the libraries of every ELF file in them.
    fn apply_template(&self, config: &Config, builder: &mut Builder) -> Result<(), Failure> {
        let name = self.config.as_deref().unwrap_or_default();
        for value in &config.files {
            let value = OsStr::new(value);
            let (src, dest) = words::one_or_two("files", value)?;
            builder.by(format!("config {name}, file {}", value.display()));
            if self.skip_ldd {
                builder.file_os(Path::new(&src), dest.as_deref(), false);
            } else {
                builder.file_with_libraries(Path::new(&src), dest.as_deref());
            }
        }
        for (role, command, option) in [
            (Role::Init, &config.init, &self.init),
            (Role::Shell, &config.shell, &self.default_sh),
            (Role::Uinit, &config.uinit, &self.uinit),
        ] {
            if let Some(command) = command.as_ref().filter(|command| !command.is_empty())
                && option.is_none()
            {
                builder.by(format!("config {name}")).command(role, command);
            }
        }
        Ok(())
    }
}

fn label(option: &str, value: &OsStr) -> String {
    format!("{option} {}", value.display())
}

fn read_manifest(path: &Path) -> Result<(PathBuf, String, Manifest), Failure> {
    let text = std::fs::read_to_string(path).map_err(|err| {
        Failure::missing(
            format!("cannot read the manifest `{}`: {err}", path.display()),
            "`vmtest initramfs build --print-schema` shows what it can say",
        )
    })?;
    let manifest = Manifest::parse(path, &text).map_err(|err| Failure::unavailable(&err, None))?;
    Ok((path.to_owned(), text, manifest))
}

/// `SOURCE_DATE_EPOCH` (<https://reproducible-builds.org/specs/source-date-epoch/>), cut to what a
/// header holds; else 0.
fn epoch() -> Result<u32, Failure> {
    let Some(text) = std::env::var_os("SOURCE_DATE_EPOCH").filter(|text| !text.is_empty()) else {
        return Ok(0);
    };
    let seconds: i128 = text.to_str().and_then(|text| text.parse().ok()).ok_or_else(|| {
        Failure::wrong(
            format!("SOURCE_DATE_EPOCH is `{}`", text.display()),
            "it must be a number of seconds since 1970",
        )
    })?;
    let held = seconds.clamp(0, i128::from(u32::MAX));
    if held != seconds {
        ui::note(&format!("SOURCE_DATE_EPOCH is cut to {held}: headers have 32 bits for times"));
    }
    Ok(held as u32)
}
