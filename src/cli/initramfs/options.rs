//! What an image shall contain, as options.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use clap::Args;
use vmtest::arch::Arch;
use vmtest::initramfs::manifest::Manifest;
use vmtest::initramfs::mkuimage::{self, Config, Templates};
use vmtest::initramfs::modules::Request;
use vmtest::initramfs::values::{Dir, Link, Multicall, NodeAt, Placed};
use vmtest::initramfs::{Attributes, ImageSpec, ModulesRequest, Role};
use vmtest::options::Environment;

use crate::cli::error::Failure;
use crate::cli::ui;
use crate::cli::value::value;
use vmtest::named_file;

/// The options that tell what is in an image.
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
    #[arg(long, value_parser = value(Placed::parse), value_name = "FILE[:DEST]")]
    bin: Vec<Placed>,
    /// File or directory as it is; repeats
    #[arg(long, visible_alias = "files", value_parser = value(Placed::parse), value_name = "SRC[:DEST]")]
    file: Vec<Placed>,
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

    /// Archive as the lower layer of the image, instead of the default one: any number of segments,
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
    #[arg(long, value_parser = value(Multicall::parse), value_name = "FILE:NAME,NAME…", help_heading = "Commands")]
    multicall: Vec<Multicall>,

    /// Symbolic link; repeats
    #[arg(long, value_parser = value(Link::parse), value_name = "DEST:TARGET", help_heading = "Entries")]
    symlink: Vec<Link>,
    /// Directory with a mode, 0755 unless given; repeats
    #[arg(long, value_parser = value(Dir::parse), value_name = "DEST[:MODE]", help_heading = "Entries")]
    dir: Vec<Dir>,
    /// Device node, without privileges: DEST:c:MAJOR:MINOR[:MODE], b for block, DEST:p for a named
    /// pipe; repeats
    #[arg(long, value_parser = value(NodeAt::parse), value_name = "DEST:TYPE…", help_heading = "Entries")]
    node: Vec<NodeAt>,

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

impl ContentArgs {
    /// Puts manifest, template and options together, each later one in front of those before.
    pub(super) fn spec(&self, environment: &Environment) -> Result<ImageSpec, Failure> {
        let manifest = self.manifest.as_ref().map(|path| read_manifest(path)).transpose()?;
        let template = self.template()?;
        let named = manifest.as_ref().and_then(|(_, manifest)| manifest.arch().map(str::to_owned));
        let named = named.or_else(|| template.as_ref().and_then(|config| config.goarch.clone()));
        let named = named
            .map(|name| name.parse::<Arch>())
            .transpose()
            .map_err(|err| Failure::usage(&err, Some(err.hint())))?;
        let arch =
            self.arch.or(named).or(environment.arch).or_else(Arch::host).ok_or_else(|| {
                Failure::wrong("this machine's architecture is none of the five", "give `--arch`")
            })?;
        let mut spec = ImageSpec::new(arch);
        spec.mtime(epoch()?);
        if let (Some(path), Some((text, manifest))) = (&self.manifest, &manifest) {
            manifest.fill(path, text, &mut spec);
        }
        if let Some(config) = &template {
            self.fill_from_template(config, &mut spec)?;
        }
        self.fill(&mut spec)?;
        spec.default_base_if_none();
        if spec.keeps_no_init() {
            let manifest = self.manifest.as_deref().unwrap_or(Path::new(""));
            return Err(Failure::wrong(
                "there is no base whose init could be kept",
                format!(
                    "leave `no-base` or `use-init` out, on the command line or in `{}`",
                    manifest.display()
                ),
            ));
        }
        Ok(spec)
    }

    fn fill(&self, spec: &mut ImageSpec) -> Result<(), Failure> {
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
            no_base,
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
            microcode,
            allow_missing,
            take_later,
            preserve_modes,
            preserve_owner,
        } = self;
        if let Some(sysroot) = sysroot {
            spec.sysroot(sysroot);
        }
        spec.library_dirs(lib_dir.iter().cloned());
        spec.allow_missing(allow_missing.iter().map(String::as_str));
        if *take_later {
            spec.take_later(true);
        }
        if *use_init {
            spec.use_init(true);
        }
        if *preserve_modes || *preserve_owner {
            spec.attributes(Attributes {
                preserve_modes: *preserve_modes,
                preserve_owner: *preserve_owner,
            });
        }
        if *no_base {
            spec.no_base();
        }
        for path in base {
            spec.by(format!("--base {}", path.display())).base(path);
        }
        for value in file {
            spec.by(label("--file", &value.given));
            spec.file_os(&value.src, value.dest.as_deref(), false);
        }
        for value in bin {
            spec.by(label("--bin", &value.given));
            if *skip_ldd {
                spec.file_os(&value.src, value.dest.as_deref(), true);
            } else {
                spec.binary_os(&value.src, value.dest.as_deref());
            }
        }
        for value in multicall {
            spec.by(label("--multicall", &value.given)).multicall(&value.src, &value.names);
        }
        for value in symlink {
            spec.by(label("--symlink", &value.given)).symlink(&value.dest, &value.target);
        }
        for value in dir {
            spec.by(label("--dir", &value.given)).dir(&value.dest, value.mode);
        }
        for value in node {
            spec.by(label("--node", &value.given));
            spec.node(&value.dest, value.mode, value.kind, value.rdev);
        }
        if let Some(dir) = modules {
            spec.by(format!("--modules {}", dir.display())).modules(ModulesRequest {
                dir: dir.clone(),
                modules: module.iter().map(|name| Request::parse(name)).collect(),
                firmware: firmware.clone(),
            });
        }
        spec.microcode(microcode.iter().cloned());
        for (role, command) in [(Role::Init, init), (Role::Shell, default_sh), (Role::Uinit, uinit)]
        {
            if let Some(command) = command {
                spec.by(format!("{} {command}", role.option())).command(role, command);
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
    fn fill_from_template(&self, config: &Config, spec: &mut ImageSpec) -> Result<(), Failure> {
        let name = self.config.as_deref().unwrap_or_default();
        for value in &config.files {
            let Placed { src, dest, .. } = Placed::parse(OsStr::new(value))
                .map_err(|error| Failure::usage(&error, Some(error.hint())))?;
            spec.by(format!("config {name}, file {value}"));
            if self.skip_ldd {
                spec.file_os(&src, dest.as_deref(), false);
            } else {
                spec.file_with_libraries(&src, dest.as_deref());
            }
        }
        for (role, command) in
            [(Role::Init, &config.init), (Role::Shell, &config.shell), (Role::Uinit, &config.uinit)]
        {
            if let Some(command) = command {
                spec.by(format!("config {name}")).command(role, command);
            }
        }
        Ok(())
    }
}

fn label(option: &str, value: &OsStr) -> String {
    format!("{option} {}", value.display())
}

fn read_manifest(path: &Path) -> Result<(String, Manifest), Failure> {
    let text = named_file::read_to_string(path).map_err(|err| {
        Failure::missing(
            format!("cannot read the manifest `{}`: {err}", path.display()),
            "`vmtest initramfs build --print-schema` shows what it can say",
        )
    })?;
    let manifest = Manifest::parse(path, &text).map_err(|err| Failure::unavailable(&err, None))?;
    Ok((text, manifest))
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
