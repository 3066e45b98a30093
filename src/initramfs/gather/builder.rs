//! What an image shall contain, gathered request by request, and checked as a whole.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::bases::Bases;
use super::closure::{self, Resolver};
use super::merge::{dangling, merge};
use super::modules::ModulesRequest;
use super::needs::Needs;
use super::scan::{Attributes, Program, Scan};
use super::tree::{absolute, default_dest, real};
use super::uroot::{self, Role, multicall_links};
use crate::arch::Arch;
use crate::initramfs::entry::{Body, Entry, Kind, Node, Reason, Request, normalize};
use crate::initramfs::links::follow;
use crate::initramfs::problem::{Problem, Problems};
use crate::initramfs::read::archive::Source;
use crate::initramfs::write::image::Image;

/// Gathers what an image shall contain.
///
/// Adding touches nothing; [`Builder::finish`] looks at every file and says everything that is wrong
/// at once. Paths in the image may begin with a slash or not. Parents are added where they are
/// missing.
///
/// ```no_run
/// # use vmtest::{arch::Arch, initramfs::Builder};
/// let mut builder = Builder::new(Arch::Riscv64);
/// builder.by("--file hello:/init").file("hello", Some("/init"));
/// builder.dir("/tmp", 0o1777);
/// let image = builder.finish()?;
/// let summary = image.write_to(&mut std::io::stdout())?;
/// eprintln!("{} entries, {} bytes, {}", summary.entries, summary.bytes, summary.blake3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    arch: Arch,
    label: Option<Request>,
    requests: Vec<(Request, What)>,
    attributes: Attributes,
    take_later: bool,
    mtime: u32,
    aligned: bool,
    sysroot: PathBuf,
    library_dirs: Vec<PathBuf>,
    allow_missing: Vec<Vec<u8>>,
    provided: Vec<Vec<u8>>,
    left_out: Vec<PathBuf>,
    use_init: bool,
}

/// What was asked for. Destinations are as given.
#[derive(Clone, Debug)]
enum What {
    File { src: PathBuf, dest: Option<OsString>, how: How },
    Tree { src: PathBuf, dest: Option<OsString> },
    Binary { src: PathBuf, dest: Option<OsString> },
    Modules(ModulesRequest),
    Base(BaseFrom),
    Command { role: Role, command: String },
    Multicall { src: PathBuf, names: Vec<String> },
    Made { dest: OsString, mode: u32, owner: (u32, u32), kind: Kind },
}

/// How a file of the host is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// As it is.
    Plain,
    /// A symbolic link is replaced by what it leads to.
    Followed,
    /// As it is, with the libraries of every ELF file in it.
    WithLibraries,
}

#[derive(Clone, Debug)]
enum BaseFrom {
    Default,
    Path(PathBuf),
    Bytes(Arc<[u8]>),
}

impl Builder {
    /// An empty image for a guest of this architecture.
    pub fn new(arch: Arch) -> Builder {
        Builder {
            arch,
            label: None,
            requests: Vec::new(),
            attributes: Attributes::default(),
            take_later: false,
            mtime: 0,
            aligned: true,
            sysroot: PathBuf::from("/"),
            library_dirs: Vec::new(),
            allow_missing: Vec::new(),
            provided: Vec::new(),
            left_out: Vec::new(),
            use_init: false,
        }
    }

    /// The guest's architecture.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// Says who makes the requests that follow, as a person would: `--file a:b`. Without it they
    /// are described by what they ask for.
    pub fn by(&mut self, label: impl AsRef<str>) -> &mut Builder {
        self.label = Some(label.as_ref().into());
        self
    }

    fn push(&mut self, default_label: impl FnOnce() -> String, what: What) -> &mut Builder {
        let by = self.label.clone().unwrap_or_else(|| default_label().into());
        self.requests.push((by, what));
        self
    }

    /// A file of the host as it is, or a directory with everything in it: a symbolic link stays
    /// one, a device node becomes a node. Without `dest` it gets the path that it has on the host.
    pub fn file(&mut self, src: impl AsRef<Path>, dest: Option<&str>) -> &mut Builder {
        self.file_os(src.as_ref(), dest.map(OsStr::new), false)
    }

    /// Like [`Builder::file`], but a symbolic link is replaced by what it leads to.
    pub fn file_followed(&mut self, src: impl AsRef<Path>, dest: Option<&str>) -> &mut Builder {
        self.file_os(src.as_ref(), dest.map(OsStr::new), true)
    }

    /// [`Builder::file`] for a destination of any bytes.
    pub fn file_os(&mut self, src: &Path, dest: Option<&OsStr>, follow: bool) -> &mut Builder {
        let how = if follow { How::Followed } else { How::Plain };
        self.push(
            || format!("file `{}`", src.display()),
            What::File { src: src.to_owned(), dest: dest.map(OsStr::to_owned), how },
        )
    }

    /// [`Builder::file_os`], with what the ELF files in it need: mkuimage's `-files`.
    pub fn file_with_libraries(&mut self, src: &Path, dest: Option<&OsStr>) -> &mut Builder {
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
    /// libraries, `#!` interpreters ([`super::closure`]). Nothing is run to find out.
    pub fn binary(&mut self, src: impl AsRef<Path>, dest: Option<&str>) -> &mut Builder {
        self.binary_os(src.as_ref(), dest.map(OsStr::new))
    }

    /// [`Builder::binary`] for a destination of any bytes.
    pub fn binary_os(&mut self, src: &Path, dest: Option<&OsStr>) -> &mut Builder {
        self.push(
            || format!("program `{}`", src.display()),
            What::Binary { src: src.to_owned(), dest: dest.map(OsStr::to_owned) },
        )
    }

    /// Kernel modules with all they depend on, decompressed, and the list
    /// ([`vmtest_guest::proto::MODULES_FILE`]) in the order in which the guest loads them.
    pub fn modules(&mut self, request: ModulesRequest) -> &mut Builder {
        self.push(
            || format!("modules of `{}`", request.dir.display()),
            What::Modules(request.clone()),
        )
    }

    /// An archive as the ground of the image: any number of segments, compressed or not. What is
    /// asked for otherwise takes the place of what it has; later base archives lie over earlier.
    pub fn base(&mut self, path: impl Into<PathBuf>) -> &mut Builder {
        let path = path.into();
        self.push(|| format!("base `{}`", path.display()), What::Base(BaseFrom::Path(path.clone())))
    }

    /// [`Builder::base`] from memory.
    pub fn base_bytes(&mut self, bytes: impl Into<Arc<[u8]>>) -> &mut Builder {
        self.push(|| "the base archive".into(), What::Base(BaseFrom::Bytes(bytes.into())))
    }

    /// u-root's base archive, with what programs expect besides (`docs/images.md`).
    pub fn default_base(&mut self) -> &mut Builder {
        self.push(|| "the default base archive".into(), What::Base(BaseFrom::Default))
    }

    /// A command of the image in a role: its path, or the name of a program that is put there. For
    /// [`Role::Uinit`] arguments may follow, quoted as in a shell.
    pub fn command(&mut self, role: Role, command: impl Into<String>) -> &mut Builder {
        self.push(|| role.option().to_owned(), What::Command { role, command: command.into() })
    }

    /// One program under many names: `bbin/bb` with what it needs, and a link for each name.
    pub fn multicall(
        &mut self,
        src: impl Into<PathBuf>,
        names: impl IntoIterator<Item = impl Into<String>>,
    ) -> &mut Builder {
        let src = src.into();
        let names = names.into_iter().map(Into::into).collect();
        self.push(
            || format!("multicall `{}`", src.display()),
            What::Multicall { src: src.clone(), names },
        )
    }

    /// Keep the `init` of the base archive where another one is asked for: that becomes `inito`.
    /// Otherwise the base's becomes `inito`.
    pub fn use_init(&mut self, yes: bool) -> &mut Builder {
        self.use_init = yes;
        self
    }

    /// Where libraries and interpreters are looked for; default `/`.
    pub fn sysroot(&mut self, dir: impl Into<PathBuf>) -> &mut Builder {
        self.sysroot = dir.into();
        self
    }

    /// Further directories of the host with libraries ([`Resolver::library_dirs`]).
    pub fn library_dirs(&mut self, dirs: impl IntoIterator<Item = PathBuf>) -> &mut Builder {
        self.library_dirs.extend(dirs);
        self
    }

    /// Libraries whose absence is a notice and no problem.
    pub fn allow_missing(
        &mut self,
        sonames: impl IntoIterator<Item = impl Into<Vec<u8>>>,
    ) -> &mut Builder {
        self.allow_missing.extend(sonames.into_iter().map(Into::into));
        self
    }

    /// Paths that exist in the guest although this image does not bring them: interpreters of
    /// scripts are then not looked for.
    pub fn provided(&mut self, paths: impl IntoIterator<Item = impl AsRef<[u8]>>) -> &mut Builder {
        let normal = |path: &[u8]| path.strip_prefix(b"/").unwrap_or(path).to_vec();
        self.provided.extend(paths.into_iter().map(|path| normal(path.as_ref())));
        self
    }

    /// Files and directories of the host that no tree brings in: where the image goes, so that it
    /// does not contain what an earlier build wrote. [`Image::left_out`] tells which were met.
    pub fn leave_out(&mut self, paths: impl IntoIterator<Item = impl AsRef<Path>>) -> &mut Builder {
        self.left_out.extend(paths.into_iter().map(|path| real(path.as_ref())));
        self
    }

    /// A directory of the host with everything in it; `dest` may be `/`.
    pub fn tree(&mut self, src: impl AsRef<Path>, dest: Option<impl AsRef<OsStr>>) -> &mut Builder {
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
    ) -> &mut Builder {
        let kind = Kind::File { body: Body::Bytes(bytes.into()), link: None };
        self.made(dest.as_ref(), mode, kind)
    }

    /// A symbolic link with this text, which is stored as it is.
    pub fn symlink(&mut self, dest: impl AsRef<OsStr>, target: impl AsRef<OsStr>) -> &mut Builder {
        let target = target.as_ref().as_bytes().to_vec();
        self.made(dest.as_ref(), 0o777, Kind::Symlink { target })
    }

    /// A directory.
    pub fn dir(&mut self, dest: impl AsRef<OsStr>, mode: u32) -> &mut Builder {
        self.made(dest.as_ref(), mode, Kind::Directory)
    }

    /// A device node or a named pipe (`rdev` is then ignored). Needs no privileges.
    pub fn node(
        &mut self,
        dest: impl AsRef<OsStr>,
        mode: u32,
        node: Node,
        rdev: (u32, u32),
    ) -> &mut Builder {
        let rdev = if matches!(node, Node::Char | Node::Block) { rdev } else { (0, 0) };
        self.made(dest.as_ref(), mode, Kind::Node { node, rdev })
    }

    fn made(&mut self, dest: &OsStr, mode: u32, kind: Kind) -> &mut Builder {
        self.push(
            || format!("entry `{}`", dest.display()),
            What::Made { dest: dest.to_owned(), mode: mode & 0o7777, owner: (0, 0), kind },
        )
    }

    /// Owner and group of the entry that was added last by [`Builder::bytes`], [`Builder::dir`],
    /// [`Builder::node`] or [`Builder::symlink`].
    pub fn owner(&mut self, uid: u32, gid: u32) -> &mut Builder {
        if let Some((_, What::Made { owner, .. })) = self.requests.last_mut() {
            *owner = (uid, gid);
        }
        self
    }

    /// How modes and owners of the host's files are taken over; by default modes are normalised
    /// ([`crate::initramfs::entry::normal_mode`]) and everything belongs to root.
    pub fn attributes(&mut self, attributes: Attributes) -> &mut Builder {
        self.attributes = attributes;
        self
    }

    /// Where two requests give one path different content, take the later one instead of failing.
    pub fn take_later(&mut self, yes: bool) -> &mut Builder {
        self.take_later = yes;
        self
    }

    /// Time of every entry, in seconds since 1970; default 0.
    pub fn mtime(&mut self, seconds: u32) -> &mut Builder {
        self.mtime = seconds;
        self
    }

    /// What the closures of the programs found worth telling, missing libraries that may be missing
    /// among it.
    pub fn notes(&self) -> Vec<closure::Note> {
        self.gather().notes
    }

    /// Let the data of large files begin at a page; default true. The early segment's parser in
    /// Linux warns of the padding that this takes.
    pub fn aligned(&mut self, yes: bool) -> &mut Builder {
        self.aligned = yes;
        self
    }

    /// Looks at everything that was asked for and lays the image out. Nothing is written.
    ///
    /// # Errors
    /// Everything that is wrong, not only the first problem.
    pub fn finish(&self) -> Result<Image, Problems> {
        let Scan { entries, mut problems, mut notices, named_links, left_out, .. } = self.gather();
        let entries = merge(entries, self.take_later, &mut problems, &mut notices);
        dangling(&entries, &named_links, &mut notices);
        match Problems::new(problems) {
            Some(problems) => Err(problems),
            None => {
                let image = Image::new(entries, notices, self.mtime, self.aligned);
                Ok(image.without(left_out))
            }
        }
    }

    /// Looks at everything that was asked for.
    fn gather(&self) -> Scan {
        let mut scan = Scan::new();
        scan.leave_out.clone_from(&self.left_out);
        let mut programs = Vec::new();
        let mut needs = Needs::default();
        let mut bases = Bases::default();
        for (by, what) in &self.requests {
            match what {
                What::Base(from) => base(&mut bases, from, by, &mut scan),
                What::Multicall { src, names } => {
                    let program =
                        Program { src: absolute(src), dest: b"bbin/bb".to_vec(), by: by.clone() };
                    programs.push(program);
                    match multicall_links(names, by) {
                        Ok(links) => scan.entries.extend(links),
                        Err(problem) => scan.problems.push(problem),
                    }
                }
                What::Command { .. } => {}
                What::Modules(request) => needs.modules(by, request, self.arch, &mut scan),
                _ => self.resolve(by, what, &mut scan, &mut programs),
            }
        }
        needs.finish_modules(&mut scan);
        self.commands(&bases, &programs, &mut scan);
        let own_init = programs.iter_mut().find(|program| program.dest == b"init");
        bases.finish(self.use_init, own_init, &mut scan);
        // Programs come last: what else is in the image can be the interpreter of a script.
        let resolver = Resolver::new(self.arch, &self.sysroot)
            .library_dirs(self.library_dirs.iter().cloned())
            .allow_missing(self.allow_missing.iter().cloned());
        needs.programs(resolver, &programs, &self.provided, self.attributes, &mut scan);
        scan.finish_notices();
        scan
    }

    /// Adds the links of commands: everything they can lead to is known by now.
    fn commands(&self, bases: &Bases, programs: &[Program], scan: &mut Scan) {
        let mut named: Vec<Vec<u8>> = programs.iter().map(|program| program.dest.clone()).collect();
        let link = |entry: &&Entry| entry.path.starts_with(b"bbin/");
        named.extend(scan.entries.iter().filter(link).map(|entry| entry.path.clone()));
        let commands = self.requests.iter().filter_map(|(by, what)| match what {
            What::Command { role, command } => Some((by, *role, command)),
            _ => None,
        });
        let mut made = Vec::new();
        // Each path that is known, and where it leads if it is a link. Later ones win.
        let mut known: HashMap<&[u8], Option<&Vec<u8>>> = HashMap::new();
        for (index, (by, role, command)) in commands.enumerate() {
            if index == 0 {
                for entry in bases.entries().chain(&scan.entries) {
                    let target = match &entry.kind {
                        Kind::Symlink { target } => Some(target),
                        _ => None,
                    };
                    known.insert(&entry.path, target);
                }
                known.extend(named.iter().map(|path| (path.as_slice(), None)));
            }
            let look = |path: &[u8]| known.get(path).map(|target| target.cloned());
            let present = |path: &[u8]| follow(path, &look).is_some();
            match uroot::entries(role, command, by, &named, &present) {
                Ok(entries) => made.extend(entries),
                Err(problem) => scan.problems.push(problem),
            }
        }
        scan.entries.extend(made);
    }

    fn resolve(&self, by: &Request, what: &What, scan: &mut Scan, programs: &mut Vec<Program>) {
        let dest = match what {
            What::Modules(_) | What::Base(_) | What::Command { .. } | What::Multicall { .. } => {
                return;
            }
            What::File { src, dest: None, .. }
            | What::Tree { src, dest: None }
            | What::Binary { src, dest: None } => {
                default_dest(src).map_err(|problem| (src.as_os_str(), problem))
            }
            What::File { dest: Some(dest), .. }
            | What::Tree { dest: Some(dest), .. }
            | What::Binary { dest: Some(dest), .. }
            | What::Made { dest, .. } => {
                normalize(dest.as_bytes()).map_err(|problem| (dest.as_os_str(), problem))
            }
        };
        let refuse = |dest: &OsStr, problem| Problem::Destination {
            dest: dest.as_bytes().to_vec(),
            by: by.clone(),
            problem,
        };
        let path = match dest {
            Ok(path) => path,
            Err((dest, problem)) => return scan.problems.push(refuse(dest, problem)),
        };
        let root_allowed = match what {
            What::Tree { .. } => true,
            What::File { src, how, .. } => is_dir(&absolute(src), *how),
            _ => false,
        };
        if path.is_empty() && !root_allowed {
            let given = match what {
                What::File { dest: Some(dest), .. }
                | What::Binary { dest: Some(dest), .. }
                | What::Made { dest, .. } => dest.as_os_str(),
                What::File { src, .. } | What::Tree { src, .. } | What::Binary { src, .. } => {
                    src.as_os_str()
                }
                What::Modules(_)
                | What::Base(_)
                | What::Command { .. }
                | What::Multicall { .. } => return,
            };
            return scan.problems.push(refuse(given, crate::initramfs::entry::PathProblem::Empty));
        }
        match what {
            What::File { src, how, .. } => {
                let src = absolute(src);
                let first = scan.entries.len();
                if is_dir(&src, *how) {
                    scan.tree(&src, &path, self.attributes, by);
                } else {
                    let reason = Reason::Asked(by.clone());
                    scan.file(&src, path, self.attributes, reason, *how == How::Followed);
                }
                if *how == How::WithLibraries {
                    programs.extend(scan.take_elf_files(first, by));
                }
            }
            What::Modules(_) | What::Base(_) | What::Command { .. } | What::Multicall { .. } => {}
            What::Binary { src, .. } => {
                programs.push(Program { src: absolute(src), dest: path, by: by.clone() });
            }
            What::Tree { src, .. } => scan.tree(&absolute(src), &path, self.attributes, by),
            What::Made { mode, owner, kind, .. } => {
                if let Kind::Symlink { target } = kind
                    && let Some(what) = bad_target(target)
                {
                    return scan.problems.push(Problem::Target { path, by: by.clone(), what });
                }
                scan.entries.push(Entry {
                    path,
                    kind: kind.clone(),
                    mode: *mode,
                    uid: owner.0,
                    gid: owner.1,
                    reason: Reason::Asked(by.clone()),
                });
            }
        }
    }
}

fn is_dir(src: &Path, how: How) -> bool {
    match how {
        How::Followed => src.is_dir(),
        _ => src.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()),
    }
}

fn base(bases: &mut Bases, from: &BaseFrom, by: &Request, scan: &mut Scan) {
    let source = match from {
        BaseFrom::Default => return bases.lay_default(scan),
        BaseFrom::Bytes(bytes) => Source::Bytes(bytes.clone()),
        BaseFrom::Path(path) => match Source::open(path) {
            Ok(source) => source,
            Err(source) => {
                let (path, by) = (path.clone(), by.clone());
                return scan.problems.push(Problem::Read { path, by, source });
            }
        },
    };
    bases.add(&source, by, scan);
}

/// What Linux would not take as a symbolic link's text.
fn bad_target(target: &[u8]) -> Option<&'static str> {
    if target.is_empty() {
        Some("an empty target")
    } else if target.contains(&0) {
        Some("a NUL byte in its target")
    } else if target.len() > crate::formats::cpio::NAME_MAX {
        Some("a target of more than 4095 bytes, which Linux skips")
    } else {
        None
    }
}
