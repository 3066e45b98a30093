//! What an image shall contain, and nothing looked at yet.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::role::Role;
use crate::arch::Arch;
use crate::initramfs::entry::{Body, Kind, Node, Request};
use crate::initramfs::modules::ModulesRequest;

/// What an image shall contain.
///
/// Options, manifests and templates fill it, one after the other; what was asked for later takes the
/// place of what was asked for before where there can be only one. Adding touches nothing;
/// [`ImageSpec::finish`] looks at every file and says everything that is wrong
/// at once. Paths in the image may begin with a slash or not. Parents are added where they are
/// missing.
///
/// ```no_run
/// # use vmtest::{arch::Arch, initramfs::ImageSpec};
/// let mut spec = ImageSpec::new(Arch::Riscv64);
/// spec.by("--file hello:/init").file("hello", Some("/init"));
/// spec.dir("/tmp", 0o1777);
/// let image = spec.finish()?;
/// let summary = image.write_to(&mut std::io::stdout())?;
/// eprintln!("{} entries, {} bytes, {}", summary.entries, summary.bytes, summary.blake3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct ImageSpec {
    pub(in crate::initramfs) arch: Arch,
    label: Option<Request>,
    pub(in crate::initramfs) requests: Vec<(Request, What)>,
    pub(in crate::initramfs) attributes: Attributes,
    pub(in crate::initramfs) file_modes: bool,
    pub(in crate::initramfs) take_later: bool,
    pub(in crate::initramfs) mtime: u32,
    pub(in crate::initramfs) aligned: bool,
    pub(in crate::initramfs) sysroot: PathBuf,
    pub(in crate::initramfs) library_dirs: Vec<PathBuf>,
    pub(in crate::initramfs) allow_missing: Vec<Vec<u8>>,
    pub(in crate::initramfs) provided: Vec<Vec<u8>>,
    pub(in crate::initramfs) left_out: Vec<PathBuf>,
    pub(in crate::initramfs) use_init: bool,
    pub(in crate::initramfs) bases: Vec<(Request, BaseFrom)>,
    no_base: bool,
    pub(in crate::initramfs) microcode: Vec<PathBuf>,
    compress: Option<String>,
    pub(in crate::initramfs) commands: BTreeMap<Role, (Request, String)>,
}

/// What was asked for. Destinations are as given.
#[derive(Clone, Debug)]
pub(in crate::initramfs) enum What {
    File {
        src: PathBuf,
        dest: Option<OsString>,
        how: How,
    },
    Tree {
        src: PathBuf,
        dest: Option<OsString>,
    },
    Binary {
        src: PathBuf,
        dest: Option<OsString>,
    },
    /// What a program needs that is not in the image itself.
    NeedsOf {
        src: PathBuf,
        dest: OsString,
    },
    Modules(ModulesRequest),
    Multicall {
        src: PathBuf,
        names: Vec<String>,
    },
    Made {
        dest: OsString,
        mode: u32,
        owner: (u32, u32),
        kind: Kind,
    },
}

/// How a file of the host is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::initramfs) enum How {
    /// As it is.
    Plain,
    /// A symbolic link is replaced by what it leads to.
    Followed,
    /// As it is, with the libraries of every ELF file in it.
    WithLibraries,
}

#[derive(Clone, Debug)]
pub(in crate::initramfs) enum BaseFrom {
    Default,
    Path(PathBuf),
    Bytes(Arc<[u8]>),
}

impl ImageSpec {
    /// An empty image for a guest of this architecture.
    pub fn new(arch: Arch) -> ImageSpec {
        ImageSpec {
            arch,
            label: None,
            requests: Vec::new(),
            attributes: Attributes::default(),
            file_modes: false,
            take_later: false,
            mtime: 0,
            aligned: true,
            sysroot: PathBuf::from("/"),
            library_dirs: Vec::new(),
            allow_missing: Vec::new(),
            provided: Vec::new(),
            left_out: Vec::new(),
            use_init: false,
            bases: Vec::new(),
            no_base: false,
            microcode: Vec::new(),
            compress: None,
            commands: BTreeMap::new(),
        }
    }

    /// The guest's architecture.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// Says who makes the requests that follow, as a person would: `--file a:b`. Without it they
    /// are described by what they ask for.
    pub fn by(&mut self, label: impl AsRef<str>) -> &mut ImageSpec {
        self.label = Some(label.as_ref().into());
        self
    }

    fn asker(&self, default_label: impl FnOnce() -> String) -> Request {
        self.label.clone().unwrap_or_else(|| default_label().into())
    }

    fn push(&mut self, default_label: impl FnOnce() -> String, what: What) -> &mut ImageSpec {
        let by = self.asker(default_label);
        self.requests.push((by, what));
        self
    }

    /// A file of the host as it is, or a directory with everything in it: a symbolic link stays
    /// one, a device node becomes a node. Without `dest` it gets the path that it has on the host.
    pub fn file(&mut self, src: impl AsRef<Path>, dest: Option<&str>) -> &mut ImageSpec {
        self.file_os(src.as_ref(), dest.map(OsStr::new), false)
    }

    /// Like [`ImageSpec::file`], but a symbolic link is replaced by what it leads to.
    pub fn file_followed(&mut self, src: impl AsRef<Path>, dest: Option<&str>) -> &mut ImageSpec {
        self.file_os(src.as_ref(), dest.map(OsStr::new), true)
    }

    /// Takes the modes of what [`ImageSpec::file`] and [`ImageSpec::tree`] ask for as they are: a file
    /// that nobody else may read stays one. Programs with what they need get those of [`normal_mode`].
    ///
    /// [`normal_mode`]: crate::initramfs::entry::normal_mode
    pub fn keep_modes_of_files(&mut self) -> &mut ImageSpec {
        self.file_modes = true;
        self
    }

    /// [`ImageSpec::file`] for a destination of any bytes.
    pub fn file_os(&mut self, src: &Path, dest: Option<&OsStr>, follow: bool) -> &mut ImageSpec {
        let how = if follow { How::Followed } else { How::Plain };
        self.push(
            || format!("file `{}`", src.display()),
            What::File { src: src.to_owned(), dest: dest.map(OsStr::to_owned), how },
        )
    }

    /// [`ImageSpec::file_os`], with what the ELF files in it need: mkuimage's `-files`.
    pub fn file_with_libraries(&mut self, src: &Path, dest: Option<&OsStr>) -> &mut ImageSpec {
        self.push(
            || format!("file `{}`", src.display()),
            What::File {
                src: src.to_owned(),
                dest: dest.map(OsStr::to_owned),
                how: How::WithLibraries,
            },
        )
    }

    /// A program, script or shared object of the host with everything it needs: interpreter,
    /// libraries, `#!` interpreters ([`crate::initramfs::closure`]). Nothing is run to find out.
    pub fn binary(&mut self, src: impl AsRef<Path>, dest: Option<&str>) -> &mut ImageSpec {
        self.binary_os(src.as_ref(), dest.map(OsStr::new))
    }

    /// [`ImageSpec::binary`] for a destination of any bytes.
    pub fn binary_os(&mut self, src: &Path, dest: Option<&OsStr>) -> &mut ImageSpec {
        self.push(
            || format!("program `{}`", src.display()),
            What::Binary { src: src.to_owned(), dest: dest.map(OsStr::to_owned) },
        )
    }

    /// What [`ImageSpec::binary`] adds without the program itself, which the guest gets otherwise, at
    /// `dest`.
    pub fn needs_of(&mut self, src: &Path, dest: &OsStr) -> &mut ImageSpec {
        self.push(
            || format!("what `{}` needs", src.display()),
            What::NeedsOf { src: src.to_owned(), dest: dest.to_owned() },
        )
    }

    /// Kernel modules with all they depend on, decompressed, and the list
    /// ([`vmtest_guest::proto::MODULES_FILE`]) in the order in which the guest loads them.
    pub fn modules(&mut self, request: ModulesRequest) -> &mut ImageSpec {
        self.push(
            || format!("modules of `{}`", request.dir.display()),
            What::Modules(request.clone()),
        )
    }

    /// An archive as the lower layer of the image: any number of segments, compressed or not. What is
    /// asked for otherwise takes the place of what it has; later base archives lie over earlier.
    pub fn base(&mut self, path: impl Into<PathBuf>) -> &mut ImageSpec {
        let path = path.into();
        let by = self.asker(|| format!("base `{}`", path.display()));
        self.bases.push((by, BaseFrom::Path(path)));
        self
    }

    /// [`ImageSpec::base`] from memory.
    pub fn base_bytes(&mut self, bytes: impl Into<Arc<[u8]>>) -> &mut ImageSpec {
        let by = self.asker(|| "the base archive".into());
        self.bases.push((by, BaseFrom::Bytes(bytes.into())));
        self
    }

    /// u-root's base archive, with what programs expect besides (`docs/images.md`).
    pub fn default_base(&mut self) -> &mut ImageSpec {
        let by = self.asker(|| "the default base archive".into());
        self.bases.push((by, BaseFrom::Default));
        self
    }

    /// No base archive: forgets those before, and [`ImageSpec::default_base_if_none`] adds none.
    pub fn no_base(&mut self) -> &mut ImageSpec {
        self.bases.clear();
        self.no_base = true;
        self
    }

    /// [`ImageSpec::default_base`], unless another one was asked for, or none.
    pub fn default_base_if_none(&mut self) -> &mut ImageSpec {
        if self.bases.is_empty() && !self.no_base {
            self.by("the default base archive").default_base();
        }
        self
    }

    /// Whether an init is to be kept and there is no base archive that could have one.
    pub fn keeps_no_init(&self) -> bool {
        self.use_init && self.bases.is_empty()
    }

    /// A command of the image in a role, in place of the one before: its path, or the name of a
    /// program that is put there; empty for none. For [`Role::Uinit`] arguments may follow, quoted as
    /// in a shell.
    pub fn command(&mut self, role: Role, command: impl Into<String>) -> &mut ImageSpec {
        let (by, command) = (self.asker(|| role.option().to_owned()), command.into());
        if command.is_empty() {
            self.commands.remove(&role);
        } else {
            self.commands.insert(role, (by, command));
        }
        self
    }

    /// Microcode for an early segment ([`ImageSpec::early`]): files, or directories with them.
    pub fn microcode(&mut self, paths: impl IntoIterator<Item = PathBuf>) -> &mut ImageSpec {
        self.microcode.extend(paths);
        self
    }

    /// How the image shall be compressed, as a person writes it: `zstd:19`, or `auto`.
    pub fn compress(&mut self, text: impl Into<String>) -> &mut ImageSpec {
        self.compress = Some(text.into());
        self
    }

    /// What [`ImageSpec::compress`] was told.
    pub fn compression(&self) -> Option<&str> {
        self.compress.as_deref()
    }

    /// One program under many names: `bbin/bb` with what it needs, and a link for each name.
    pub fn multicall(
        &mut self,
        src: impl Into<PathBuf>,
        names: impl IntoIterator<Item = impl Into<String>>,
    ) -> &mut ImageSpec {
        let src = src.into();
        let names = names.into_iter().map(Into::into).collect();
        self.push(
            || format!("multicall `{}`", src.display()),
            What::Multicall { src: src.clone(), names },
        )
    }

    /// Keep the `init` of the base archive where another one is asked for: that becomes `inito`.
    /// Otherwise the base's becomes `inito`.
    pub fn use_init(&mut self, yes: bool) -> &mut ImageSpec {
        self.use_init = yes;
        self
    }

    /// Where libraries and interpreters are looked for ([`ImageSpec::sysroot`]).
    pub fn root(&self) -> &Path {
        &self.sysroot
    }

    /// Where libraries and interpreters are looked for; default `/`.
    pub fn sysroot(&mut self, dir: impl Into<PathBuf>) -> &mut ImageSpec {
        self.sysroot = dir.into();
        self
    }

    /// Further directories of the host with libraries ([`crate::initramfs::closure::Resolver::library_dirs`]).
    pub fn library_dirs(&mut self, dirs: impl IntoIterator<Item = PathBuf>) -> &mut ImageSpec {
        self.library_dirs.extend(dirs);
        self
    }

    /// Libraries whose absence is a notice and no problem.
    pub fn allow_missing(
        &mut self,
        sonames: impl IntoIterator<Item = impl Into<Vec<u8>>>,
    ) -> &mut ImageSpec {
        self.allow_missing.extend(sonames.into_iter().map(Into::into));
        self
    }

    /// Paths that exist in the guest although this image does not bring them: interpreters of
    /// scripts are then not looked for.
    pub fn provided(
        &mut self,
        paths: impl IntoIterator<Item = impl AsRef<[u8]>>,
    ) -> &mut ImageSpec {
        let normal = |path: &[u8]| path.strip_prefix(b"/").unwrap_or(path).to_vec();
        self.provided.extend(paths.into_iter().map(|path| normal(path.as_ref())));
        self
    }

    /// Files and directories of the host that no tree brings in: where the image goes, so that it
    /// does not contain what an earlier build wrote. [`crate::initramfs::Image::left_out`] tells which were met.
    pub fn leave_out(
        &mut self,
        paths: impl IntoIterator<Item = impl AsRef<Path>>,
    ) -> &mut ImageSpec {
        self.left_out.extend(paths.into_iter().map(|path| path.as_ref().to_owned()));
        self
    }

    /// A directory of the host with everything in it; `dest` may be `/`.
    pub fn tree(
        &mut self,
        src: impl AsRef<Path>,
        dest: Option<impl AsRef<OsStr>>,
    ) -> &mut ImageSpec {
        let src = src.as_ref();
        self.push(
            || format!("tree `{}`", src.display()),
            What::Tree { src: src.to_owned(), dest: dest.map(|dest| dest.as_ref().to_owned()) },
        )
    }

    /// A file made of these bytes.
    pub fn bytes(
        &mut self,
        dest: impl AsRef<OsStr>,
        mode: u32,
        bytes: impl Into<Arc<[u8]>>,
    ) -> &mut ImageSpec {
        let kind = Kind::File { body: Body::Bytes(bytes.into()), link: None };
        self.made(dest.as_ref(), mode, kind)
    }

    /// A symbolic link with this text, which is stored as it is.
    pub fn symlink(
        &mut self,
        dest: impl AsRef<OsStr>,
        target: impl AsRef<OsStr>,
    ) -> &mut ImageSpec {
        let target = target.as_ref().as_bytes().to_vec();
        self.made(dest.as_ref(), 0o777, Kind::Symlink { target })
    }

    /// A directory.
    pub fn dir(&mut self, dest: impl AsRef<OsStr>, mode: u32) -> &mut ImageSpec {
        self.made(dest.as_ref(), mode, Kind::Directory)
    }

    /// A device node or a named pipe (`rdev` is then ignored). Needs no privileges.
    pub fn node(
        &mut self,
        dest: impl AsRef<OsStr>,
        mode: u32,
        node: Node,
        rdev: (u32, u32),
    ) -> &mut ImageSpec {
        let rdev = if matches!(node, Node::Char | Node::Block) { rdev } else { (0, 0) };
        self.made(dest.as_ref(), mode, Kind::Node { node, rdev })
    }

    fn made(&mut self, dest: &OsStr, mode: u32, kind: Kind) -> &mut ImageSpec {
        self.push(
            || format!("entry `{}`", dest.display()),
            What::Made { dest: dest.to_owned(), mode: mode & 0o7777, owner: (0, 0), kind },
        )
    }

    /// Owner and group of the entry that was added last by [`ImageSpec::bytes`], [`ImageSpec::dir`],
    /// [`ImageSpec::node`] or [`ImageSpec::symlink`].
    pub fn owner(&mut self, uid: u32, gid: u32) -> &mut ImageSpec {
        if let Some((_, What::Made { owner, .. })) = self.requests.last_mut() {
            *owner = (uid, gid);
        }
        self
    }

    /// How modes and owners of the host's files are taken over; by default modes are normalised
    /// ([`crate::initramfs::entry::normal_mode`]) and everything belongs to root.
    pub fn attributes(&mut self, attributes: Attributes) -> &mut ImageSpec {
        self.attributes = attributes;
        self
    }

    /// Where two requests give one path different content, take the later one instead of failing.
    pub fn take_later(&mut self, yes: bool) -> &mut ImageSpec {
        self.take_later = yes;
        self
    }

    /// Time of every entry, in seconds since 1970; default 0.
    pub fn mtime(&mut self, seconds: u32) -> &mut ImageSpec {
        self.mtime = seconds;
        self
    }

    /// Let the data of large files begin at a page; default true. The early segment's parser in
    /// Linux warns of the padding that this takes.
    pub fn aligned(&mut self, yes: bool) -> &mut ImageSpec {
        self.aligned = yes;
        self
    }
}

/// How modes and owners of the host's files become those of entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Take the mode as it is instead of [`normal_mode`].
    pub preserve_modes: bool,
    /// Take owner and group as they are instead of root's.
    pub preserve_owner: bool,
}
