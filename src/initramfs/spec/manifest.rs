//! The manifest: what an image shall contain, as a TOML file. `docs/images.md` is its reference,
//! `docs/manifest.schema.json` its schema.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;
use vmtest_guest::proto::Bytes;

use super::image::{Attributes, ImageSpec};
use super::role::Role;
use crate::initramfs::entry::Node;
use crate::initramfs::gather::modules::{self, ModulesRequest};

/// A manifest as it is written. Relative paths of the host are relative to the manifest's
/// directory.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Manifest {
    /// The guest's architecture: amd64, i386, arm64, arm, riscv64. Default: the host's.
    arch: Option<String>,
    /// Where libraries and interpreters are looked for. Default: /
    sysroot: Option<PathBuf>,
    /// Further directories with libraries.
    lib_dirs: Vec<PathBuf>,
    /// Libraries that may be missing.
    allow_missing: Vec<String>,
    /// Where two requests give one path different content, take the later one.
    #[serde(rename = "override")]
    take_later: bool,
    /// Base archives, of any number of segments, compressed or not. They replace the default one.
    base: Vec<PathBuf>,
    /// Leave the default base archive out.
    no_base: bool,
    /// Keep the init of the base archive; another one becomes `inito`.
    use_init: bool,
    /// The command that /init leads to: a path in the image, or the name of a program in it.
    init: Option<String>,
    /// The command that /bin/sh and /bin/defaultsh lead to.
    default_sh: Option<String>,
    /// The command that u-root's init runs, with arguments, quoted as in a shell.
    uinit: Option<String>,
    /// Keep the modes of the host's files instead of normalising them.
    preserve_modes: bool,
    /// Keep owner and group of the host's files instead of making everything root's.
    preserve_owner: bool,
    /// Compression: none, gzip, zstd, lz4 or xz, with `:LEVEL`; or auto. Default: none.
    compress: Option<String>,
    /// Microcode for an early segment: files or directories.
    microcode: Vec<PathBuf>,
    /// Time of all entries, in seconds since 1970. Default: SOURCE_DATE_EPOCH, else 0.
    mtime: Option<u32>,
    /// Files and directories of the host, as they are.
    #[schemars(with = "Vec<FileEntry>")]
    file: Vec<Spanned<FileEntry>>,
    /// Programs with everything they need.
    #[schemars(with = "Vec<BinEntry>")]
    bin: Vec<Spanned<BinEntry>>,
    /// Files with content that stands in the manifest.
    #[schemars(with = "Vec<TextEntry>")]
    text: Vec<Spanned<TextEntry>>,
    /// Directories.
    #[schemars(with = "Vec<DirEntry>")]
    dir: Vec<Spanned<DirEntry>>,
    /// Symbolic links.
    #[schemars(with = "Vec<SymlinkEntry>")]
    symlink: Vec<Spanned<SymlinkEntry>>,
    /// Device nodes and named pipes.
    #[schemars(with = "Vec<NodeEntry>")]
    node: Vec<Spanned<NodeEntry>>,
    /// One program under many names.
    #[schemars(with = "Vec<MulticallEntry>")]
    multicall: Vec<Spanned<MulticallEntry>>,
    /// Kernel modules with all they depend on.
    #[schemars(with = "Vec<ModulesEntry>")]
    modules: Vec<Spanned<ModulesEntry>>,
}

/// `[[file]]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct FileEntry {
    /// Path of the host.
    src: PathText,
    /// Path in the image. Default: that of the host.
    dest: Option<PathText>,
    /// Take what a symbolic link leads to instead of the link.
    #[serde(default)]
    follow: bool,
}

/// `[[bin]]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct BinEntry {
    /// Path of the host.
    src: PathText,
    /// Path in the image. Default: that of the host.
    dest: Option<PathText>,
}

/// `[[text]]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct TextEntry {
    /// Path in the image.
    dest: PathText,
    /// The file's content.
    content: String,
    /// Permissions, octal. Default: 0644.
    mode: Option<Octal>,
    /// Owner.
    #[serde(default)]
    uid: u32,
    /// Group.
    #[serde(default)]
    gid: u32,
}

/// `[[dir]]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct DirEntry {
    /// Path in the image.
    dest: PathText,
    /// Permissions, octal. Default: 0755.
    mode: Option<Octal>,
    /// Owner.
    #[serde(default)]
    uid: u32,
    /// Group.
    #[serde(default)]
    gid: u32,
}

/// `[[symlink]]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct SymlinkEntry {
    /// Path in the image.
    dest: PathText,
    /// The link's text.
    target: PathText,
}

/// `[[node]]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct NodeEntry {
    /// Path in the image.
    dest: PathText,
    /// What it is.
    #[serde(rename = "type")]
    kind: NodeKind,
    /// Major number of a device.
    #[serde(default)]
    major: u32,
    /// Minor number of a device.
    #[serde(default)]
    minor: u32,
    /// Permissions, octal. Default: 0600.
    mode: Option<Octal>,
    /// Owner.
    #[serde(default)]
    uid: u32,
    /// Group.
    #[serde(default)]
    gid: u32,
}

/// Kinds of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum NodeKind {
    /// Character device.
    Char,
    /// Block device.
    Block,
    /// Named pipe.
    Fifo,
}

/// `[[multicall]]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct MulticallEntry {
    /// Path of the host: becomes `bbin/bb`.
    binary: PathText,
    /// Names: `bbin/NAME` leads to it.
    names: Vec<String>,
}

/// `[[modules]]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct ModulesEntry {
    /// `…/lib/modules/RELEASE`
    dir: PathBuf,
    /// Names or aliases, with parameters after a blank: `virtio_net napi_tx=1`.
    names: Vec<String>,
    /// `…/lib/firmware`
    firmware: Option<PathBuf>,
}

/// A path: a string, or an array of numbers for bytes that are no UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
struct PathText(Bytes);

impl PathText {
    fn os(&self) -> &OsStr {
        self.0.as_os_str()
    }
}

impl JsonSchema for PathText {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PathText".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A string, or an array of numbers for bytes that are no UTF-8.",
            "oneOf": [
                { "type": "string", "minLength": 1 },
                {
                    "type": "array",
                    "minItems": 1,
                    "items": { "type": "integer", "minimum": 0, "maximum": 255 }
                }
            ]
        })
    }
}

/// Permissions as people write them: a string of octal digits. A bare number would be decimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Octal(u32);

impl TryFrom<String> for Octal {
    type Error = String;

    fn try_from(text: String) -> Result<Octal, String> {
        match u32::from_str_radix(&text, 8) {
            Ok(mode) if mode <= 0o7777 && !text.starts_with('+') => Ok(Octal(mode)),
            _ => Err(format!("`{text}` is no mode: write octal digits, \"0755\"")),
        }
    }
}

impl JsonSchema for Octal {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Octal".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "Permissions: octal digits.",
            "type": "string",
            "pattern": "^[0-7]{1,5}$"
        })
    }
}

/// A manifest that cannot be used. The text shows the line.
#[derive(Debug, thiserror::Error)]
#[error("manifest `{}` cannot be used: {text}", path.display())]
pub struct ManifestError {
    /// The file.
    pub path: PathBuf,
    /// Line, its text, and what is wrong with it.
    pub text: String,
}

impl Manifest {
    /// Parses a manifest; `path` is for messages.
    ///
    /// # Errors
    /// Everything that TOML or the manifest's form forbids, unknown keys among it, and keys that
    /// contradict each other.
    pub fn parse(path: &Path, text: &str) -> Result<Manifest, ManifestError> {
        let fail = |text: String| ManifestError { path: path.to_owned(), text };
        let manifest: Manifest =
            toml::from_str(text).map_err(|err| fail(err.to_string().trim_end().to_owned()))?;
        let contradiction = match &manifest {
            Manifest { no_base: true, base, .. } if !base.is_empty() => "`base`",
            Manifest { no_base: true, use_init: true, .. } => "`use-init = true`",
            _ => return Ok(manifest),
        };
        Err(fail(format!("{contradiction} means nothing beside `no-base = true`: leave one out")))
    }

    /// The guest's architecture, as the manifest names it.
    pub fn arch(&self) -> Option<&str> {
        self.arch.as_deref()
    }

    /// The JSON schema.
    pub fn schema() -> String {
        let schema = schemars::schema_for!(Manifest);
        let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Fills in what the manifest says, but for `arch`, which has to be known before. `path` and
    /// `text` are what it was parsed from.
    pub fn fill(&self, path: &Path, text: &str, spec: &mut ImageSpec) {
        let home = path.parent().unwrap_or(Path::new(""));
        let whole = format!("manifest {}", path.display());
        self.fill_settings(home, &whole, spec);
        self.fill_entries(home, path, text, spec);
        for (role, command) in
            [(Role::Init, &self.init), (Role::Shell, &self.default_sh), (Role::Uinit, &self.uinit)]
        {
            if let Some(command) = command {
                spec.by(&whole).command(role, command);
            }
        }
    }

    /// What there is one of.
    fn fill_settings(&self, home: &Path, whole: &str, spec: &mut ImageSpec) {
        // Destructured, so that nothing that is added above can be forgotten here.
        let Manifest {
            arch: _,
            sysroot,
            lib_dirs,
            allow_missing,
            take_later,
            base,
            no_base,
            use_init,
            init: _,
            default_sh: _,
            uinit: _,
            preserve_modes,
            preserve_owner,
            compress,
            microcode,
            mtime,
            file: _,
            bin: _,
            text: _,
            dir: _,
            symlink: _,
            node: _,
            multicall: _,
            modules: _,
        } = self;
        if let Some(sysroot) = sysroot {
            spec.sysroot(home.join(sysroot));
        }
        spec.library_dirs(lib_dirs.iter().map(|dir| home.join(dir)));
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
        for base in base {
            spec.by(whole).base(home.join(base));
        }
        if *no_base {
            spec.no_base();
        }
        if let Some(compress) = compress {
            spec.compress(compress);
        }
        spec.microcode(microcode.iter().map(|path| home.join(path)));
        if let Some(mtime) = mtime {
            spec.mtime(*mtime);
        }
    }

    /// What there can be many of, with the line of each.
    fn fill_entries(&self, home: &Path, path: &Path, text: &str, spec: &mut ImageSpec) {
        let Manifest { file, bin, text: texts, dir, symlink, node, multicall, modules, .. } = self;
        let line = |span: std::ops::Range<usize>| {
            let number = text[..span.start.min(text.len())].matches('\n').count() + 1;
            format!("manifest {}, line {number}", path.display())
        };
        for entry in file {
            let FileEntry { src, dest, follow } = entry.get_ref();
            spec.by(line(entry.span()));
            spec.file_os(&home.join(src.os()), Some(dest_of(src, dest)), *follow);
        }
        for entry in bin {
            let BinEntry { src, dest } = entry.get_ref();
            spec.by(line(entry.span()));
            spec.binary_os(&home.join(src.os()), Some(dest_of(src, dest)));
        }
        for entry in texts {
            let TextEntry { dest, content, mode, uid, gid } = entry.get_ref();
            let mode = mode.map_or(0o644, |mode| mode.0);
            spec.by(line(entry.span()));
            spec.bytes(dest.os(), mode, content.as_bytes()).owner(*uid, *gid);
        }
        for entry in dir {
            let DirEntry { dest, mode, uid, gid } = entry.get_ref();
            let mode = mode.map_or(0o755, |mode| mode.0);
            spec.by(line(entry.span())).dir(dest.os(), mode).owner(*uid, *gid);
        }
        for entry in symlink {
            let SymlinkEntry { dest, target } = entry.get_ref();
            spec.by(line(entry.span())).symlink(dest.os(), target.os());
        }
        for entry in node {
            let NodeEntry { dest, kind, major, minor, mode, uid, gid } = entry.get_ref();
            let kind = match kind {
                NodeKind::Char => Node::Char,
                NodeKind::Block => Node::Block,
                NodeKind::Fifo => Node::Fifo,
            };
            let mode = mode.map_or(0o600, |mode| mode.0);
            spec.by(line(entry.span()));
            spec.node(dest.os(), mode, kind, (*major, *minor)).owner(*uid, *gid);
        }
        for entry in multicall {
            let MulticallEntry { binary, names } = entry.get_ref();
            spec.by(line(entry.span())).multicall(home.join(binary.os()), names);
        }
        for entry in modules {
            let ModulesEntry { dir, names, firmware } = entry.get_ref();
            spec.by(line(entry.span())).modules(ModulesRequest {
                dir: home.join(dir),
                modules: names.iter().map(|name| modules::Request::parse(name)).collect(),
                firmware: firmware.as_ref().map(|dir| home.join(dir)),
            });
        }
    }
}

/// Without a destination the path as written, not the joined one, decides.
fn dest_of<'a>(src: &'a PathText, dest: &'a Option<PathText>) -> &'a OsStr {
    dest.as_ref().unwrap_or(src).os()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Manifest, ManifestError> {
        Manifest::parse(Path::new("vm.toml"), text)
    }

    #[test]
    fn errors_show_the_line_and_the_key() {
        for (text, line, word) in [
            ("arch = \"arm\"\nsysrot = \"/x\"\n", "line 2", "sysrot"),
            ("[[file]]\nsrc = \"a\"\nmode = \"0644\"\n", "line 3", "mode"),
            ("[[dir]]\ndest = \"a\"\nmode = \"0888\"\n", "line 3", "0888"),
            ("[[node]]\ndest = \"a\"\ntype = \"socket\"\n", "line 3", "socket"),
            ("[[symlink]]\ndest = \"a\"\n", "line 1", "target"),
        ] {
            let err = parse(text).unwrap_err().to_string();
            assert!(err.contains(line) && err.contains(word), "{err}");
        }
    }

    #[test]
    fn contradictions_are_errors() {
        for (text, word) in [
            ("base = [\"a\"]\nno-base = true\n", "`base`"),
            ("use-init = true\nno-base = true\n", "`use-init"),
        ] {
            let err = parse(text).unwrap_err().to_string();
            assert!(err.contains(word) && err.contains("no-base"), "{err}");
        }
        assert!(parse("base = [\"a\"]\nno-base = false\nuse-init = true\n").is_ok());
    }

    #[test]
    fn paths_may_be_any_bytes() {
        let manifest = parse("[[symlink]]\ndest = [97, 255]\ntarget = \"x\\ny\"\n").unwrap();
        let entry = manifest.symlink[0].get_ref();
        assert_eq!(entry.dest.0.0, [97, 255]);
        assert_eq!(entry.target.0.0, b"x\ny");
    }

    #[test]
    fn the_schema_knows_every_key() {
        let schema = Manifest::schema();
        for key in
            ["\"allow-missing\"", "\"override\"", "\"multicall\"", "\"additionalProperties\""]
        {
            assert!(schema.contains(key), "{key} is not in {schema}");
        }
    }
}
