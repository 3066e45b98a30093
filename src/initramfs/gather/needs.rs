//! What programs and kernel modules need, as entries of the image.

use std::collections::HashSet;
use std::sync::Arc;

use vmtest_guest::proto::MODULES_FILE;

use super::closure::{self, Item, Resolver, Source};
use super::modules::{self, ModuleNote, ModuleReason, Modules, ModulesRequest, SelectOptions};
use super::scan::{Program, Scan};
use crate::arch::Arch;
use crate::initramfs::entry::{Body, Entry, Kind, Reason, Request};
use crate::initramfs::problem::Problem;
use crate::initramfs::spec::Attributes;

/// Gathers what belongs to several requests.
#[derive(Debug, Default)]
pub(crate) struct Needs {
    /// Lines of the list of modules.
    module_list: Vec<String>,
    listed_by: Option<Request>,
}

fn generated(path: Vec<u8>, bytes: Vec<u8>, reason: Reason) -> Entry {
    let kind = Kind::File { body: Body::Bytes(bytes.into()), link: None };
    Entry { path, kind, mode: 0o644, uid: 0, gid: 0, reason }
}

impl Needs {
    /// Adds programs with their closures.
    pub(crate) fn programs(
        &mut self,
        mut resolver: Resolver,
        programs: &[Program],
        provided: &[Vec<u8>],
        attributes: Attributes,
        scan: &mut Scan,
    ) {
        if programs.is_empty() {
            return;
        }
        let mut present: HashSet<Vec<u8>> = provided.iter().cloned().collect();
        present.extend(scan.entries.iter().map(|entry| entry.path.clone()));
        let brought = programs.iter().filter(|program| !program.absent);
        present.extend(brought.map(|program| program.dest.clone()));
        let mut seen: HashSet<Vec<u8>> = HashSet::new();
        for Program { src, dest, by, absent } in programs {
            match resolver.program(src, dest, &|path| present.contains(path)) {
                Ok(closure) => {
                    scan.notes.extend(closure.notes.iter().cloned());
                    scan.notices.extend(closure.notes.iter().map(|note| format!("{by}: {note}")));
                    let own = |item: &Item| matches!(item.reason, closure::Reason::Requested);
                    for item in closure.items.into_iter().filter(|item| !(*absent && own(item))) {
                        // Libraries that several programs need are looked at once.
                        if own(&item) || seen.insert(item.dest.clone()) {
                            add(item, by, attributes, scan);
                        }
                    }
                }
                Err(problems) => scan.problems.extend(
                    problems
                        .into_iter()
                        .map(|problem| Problem::Closure { by: by.clone(), problem }),
                ),
            }
        }
        if let Some(item) = resolver.loader_cache() {
            add(item, &programs[0].by, attributes, scan);
        }
    }

    /// Adds kernel modules with what they depend on, and firmware.
    pub(crate) fn modules(
        &mut self,
        by: &Request,
        request: &ModulesRequest,
        arch: Arch,
        scan: &mut Scan,
    ) {
        let problem = |problem| Problem::Module { by: by.clone(), problem };
        let modules = match Modules::open(&request.dir) {
            Ok(modules) => modules,
            Err(err) => return scan.problems.push(problem(err)),
        };
        let selection = match modules.select(&request.modules, &SelectOptions::default()) {
            Ok(selection) => selection,
            Err(problems) => {
                return scan.problems.push(Problem::Modules { by: by.clone(), problems });
            }
        };
        // That something is built in is as good as loading it.
        let notes = selection.notes.iter().filter(|n| !matches!(n, ModuleNote::Builtin { .. }));
        scan.notices.extend(notes.map(|note| format!("{by}: {note}")));
        let dest_of = |name: &str| {
            let found = selection.modules.iter().find(|module| module.name == name);
            found.map_or_else(|| name.as_bytes().to_vec(), |module| module.dest.clone())
        };
        let mut firmware: Vec<(String, Vec<u8>)> = Vec::new();
        let mut others: Vec<(String, String)> = Vec::new();
        for module in &selection.modules {
            let loaded = match modules.load(module, arch) {
                Ok(loaded) => loaded,
                Err(err) => {
                    scan.problems.push(problem(err));
                    continue;
                }
            };
            let reason = match &module.reason {
                ModuleReason::Requested { .. } => Reason::Asked(by.clone()),
                ModuleReason::Hard { of }
                | ModuleReason::Soft { of }
                | ModuleReason::Weak { of } => {
                    needed(by, closure::Reason::ModuleDep { of: dest_of(of) })
                }
            };
            others.extend(loaded.other_release.map(|release| (module.name.clone(), release)));
            firmware.extend(loaded.firmware.into_iter().map(|name| (name, module.dest.clone())));
            scan.entries.push(generated(module.dest.clone(), loaded.bytes, reason));
            if module.load {
                let mut line = format!("/{}", String::from_utf8_lossy(&module.dest));
                if !module.params.is_empty() {
                    line.push(' ');
                    line.push_str(&module.params);
                }
                if !self.module_list.contains(&line) {
                    self.module_list.push(line);
                }
            }
        }
        if !others.is_empty() {
            let wanted = modules.release().to_owned();
            let note = ModuleNote::OtherRelease { modules: others, wanted };
            scan.notices.push(format!("{by}: {note}"));
        }
        self.listed_by.get_or_insert_with(|| by.clone());
        if let Some(dir) = &request.firmware {
            self.firmware(by, &modules, dir, &firmware, scan);
        }
    }

    fn firmware(
        &self,
        by: &Request,
        modules: &Modules,
        dir: &std::path::Path,
        wanted: &[(String, Vec<u8>)],
        scan: &mut Scan,
    ) {
        let names: Vec<String> = wanted.iter().map(|(name, _)| name.clone()).collect();
        let found = modules.firmware(&names, dir);
        for file in found.files {
            let of = wanted
                .iter()
                .find(|(name, _)| file.dest.ends_with(name.as_bytes()))
                .map(|(_, module)| module.clone())
                .unwrap_or_default();
            match modules::read_compressed(&file.host_path, file.compression) {
                Ok(bytes) => {
                    let reason = needed(by, closure::Reason::Firmware { of });
                    scan.entries.push(generated(file.dest, bytes, reason));
                }
                Err(source) => scan.problems.push(Problem::Read {
                    path: file.host_path,
                    by: by.clone(),
                    source,
                }),
            }
        }
        if !found.missing.is_empty() {
            scan.notices.push(format!(
                "{by}: firmware not found in `{}`: {}",
                dir.display(),
                found.missing.join(" ")
            ));
        }
    }

    /// Adds the list of modules to load, where there are any.
    pub(crate) fn finish_modules(&mut self, scan: &mut Scan) {
        let Some(by) = self.listed_by.take() else { return };
        if self.module_list.is_empty() {
            return;
        }
        let mut text = self.module_list.join("\n");
        text.push('\n');
        let path = MODULES_FILE.trim_start_matches('/').as_bytes().to_vec();
        scan.entries.push(generated(path, text.into_bytes(), Reason::ModuleList(by)));
    }
}

fn needed(by: &Request, why: closure::Reason) -> Reason {
    Reason::Needed { by: by.clone(), why: Arc::new(why) }
}

fn add(item: Item, by: &Request, attributes: Attributes, scan: &mut Scan) {
    let Item { dest, source, reason } = item;
    let reason = match reason {
        closure::Reason::Requested => Reason::Asked(by.clone()),
        why => needed(by, why),
    };
    match source {
        Source::File(path) => scan.file(&path, dest, attributes, reason, true),
        Source::Bytes(bytes) => scan.entries.push(generated(dest, bytes, reason)),
        Source::Dir => scan.entries.push(Entry {
            path: dest,
            kind: Kind::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
            reason,
        }),
        Source::Symlink(target) => scan.entries.push(Entry {
            path: dest,
            kind: Kind::Symlink { target },
            mode: 0o777,
            uid: 0,
            gid: 0,
            reason,
        }),
    }
}
