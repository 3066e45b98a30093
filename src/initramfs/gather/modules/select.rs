//! The order in which to load modules: that of modprobe.
//!
//! For each module: what it depends on, `pre:` soft dependencies, itself, `post:` soft ones, weak
//! ones. A soft dependency that itself needs a module still under way comes at the end.

use std::collections::HashMap;

use super::{
    Compression, Entry, Index, ModuleNote, ModuleProblem, ModuleProblems, ModuleReason, Modules,
    Request, SelectOptions, SelectedModule, Selection, read_module,
};
use crate::formats::kmod::{self, SoftDep, normal_name};

/// Real chains have about ten.
const MAX_DEPTH: usize = 256;

fn select(
    modules: &Modules,
    wanted: &[Request],
    options: &SelectOptions,
) -> Result<Selection, Vec<ModuleProblem>> {
    let on_disk = |why: String| match Selector::new(modules, modules.on_disk(), options).run(wanted)
    {
        Ok(mut selection) => {
            selection.notes.insert(0, ModuleNote::Rebuilt { why });
            Ok(selection)
        }
        Err(Stop::Problems(problems)) => Err(problems),
        // Cannot be: what is on disk is not compared with itself.
        Err(Stop::Stale(why)) => {
            let source = std::io::Error::other(why);
            Err(vec![ModuleProblem::Read { path: modules.dir.clone(), source }])
        }
    };
    let Some(dep) = &modules.dep else {
        return on_disk("there is no modules.dep".to_owned());
    };
    match Selector::new(modules, dep, options).run(wanted) {
        Ok(selection) => Ok(selection),
        Err(Stop::Problems(problems)) => Err(problems),
        Err(Stop::Stale(why)) => on_disk(why),
    }
}

impl Modules {
    /// `wanted` with all they depend on, in the order in which to load them.
    ///
    /// No module file is read unless `modules.dep` is missing or does not match the files.
    /// Dependencies come first, then `pre:` soft ones, the module, `post:` soft ones, weak ones: the
    /// order of modprobe.
    ///
    /// # Errors
    /// All problems that were found, not only the first.
    pub fn select(
        &self,
        wanted: &[Request],
        options: &SelectOptions,
    ) -> Result<Selection, ModuleProblems> {
        select(self, wanted, options).map_err(ModuleProblems)
    }
}

/// Why a selection came to no end.
enum Stop {
    Problems(Vec<ModuleProblem>),
    /// `modules.dep` does not match the files.
    Stale(String),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    UnderWay,
    Done,
}

struct Selector<'a> {
    modules: &'a Modules,
    index: &'a Index,
    options: &'a SelectOptions,
    soft: HashMap<String, SoftDep>,
    weak: HashMap<String, Vec<String>>,
    state: HashMap<String, State>,
    /// Where a selected module is in `selected`.
    place: HashMap<String, usize>,
    selected: Vec<SelectedModule>,
    /// Modules under way by hard dependencies, outermost first.
    stack: Vec<String>,
    /// How deep `visit` is in itself.
    depth: usize,
    later: Vec<(String, ModuleReason, bool)>,
    notes: Vec<ModuleNote>,
    missing_optional: Vec<String>,
    missing_soft: Vec<(String, String)>,
    problems: Vec<ModuleProblem>,
    stale: Option<String>,
    /// Direct dependencies read from modules.
    read: HashMap<String, Vec<String>>,
}

/// What a name stands for.
enum Found {
    Modules(Vec<String>),
    Builtin,
    Nothing,
}

impl<'a> Selector<'a> {
    fn new(modules: &'a Modules, index: &'a Index, options: &'a SelectOptions) -> Selector<'a> {
        let mut soft: HashMap<String, SoftDep> = HashMap::new();
        for line in kmod::softdeps(&modules.softdep) {
            add_soft(&mut soft, line);
        }
        let mut weak: HashMap<String, Vec<String>> = HashMap::new();
        for (name, others) in kmod::weakdeps(&modules.weakdep) {
            weak.entry(name).or_default().extend(others);
        }
        Selector {
            modules,
            index,
            options,
            soft,
            weak,
            state: HashMap::new(),
            place: HashMap::new(),
            selected: Vec::new(),
            stack: Vec::new(),
            depth: 0,
            later: Vec::new(),
            notes: Vec::new(),
            missing_optional: Vec::new(),
            missing_soft: Vec::new(),
            problems: Vec::new(),
            stale: None,
            read: HashMap::new(),
        }
    }

    fn run(mut self, wanted: &[Request]) -> Result<Selection, Stop> {
        for request in wanted {
            self.request(request);
        }
        while let Some((name, reason, load)) = self.later.pop() {
            self.visit(&name, reason, load);
        }
        if let Some(why) = self.stale {
            return Err(Stop::Stale(why));
        }
        if !self.problems.is_empty() {
            return Err(Stop::Problems(self.problems));
        }
        if !self.missing_optional.is_empty() {
            self.notes.push(ModuleNote::MissingOptional { names: self.missing_optional });
        }
        if !self.missing_soft.is_empty() {
            self.notes.push(ModuleNote::MissingSoft { missing: self.missing_soft });
        }
        Ok(Selection { modules: self.selected, notes: self.notes })
    }

    fn request(&mut self, request: &Request) {
        let given = request.name.trim();
        // A path names the module of that file.
        let name = kmod::module_name(given).unwrap_or_else(|| normal_name(given));
        match self.find(&name, given) {
            Found::Modules(names) => {
                for found in names {
                    let alias = (found != name).then(|| given.to_owned());
                    self.visit(&found, ModuleReason::Requested { alias }, true);
                    if let Some(&place) = self.place.get(&found)
                        && !request.params.trim().is_empty()
                    {
                        let params = &mut self.selected[place].params;
                        if !params.is_empty() {
                            params.push(' ');
                        }
                        params.push_str(request.params.trim());
                    }
                }
            }
            Found::Builtin => self.builtin(&name),
            Found::Nothing => {
                // Looking at thousands of files is for those who must have it.
                if !request.optional {
                    self.suspect(&name, "does not have");
                }
                let (name, release) = (given.to_owned(), self.modules.release.clone());
                if request.optional {
                    self.missing_optional.push(name);
                } else {
                    self.problems.push(ModuleProblem::Unknown { name, release });
                }
            }
        }
    }

    /// Notes that `modules.dep` is stale if `name`, which it does not know, is on disk.
    fn suspect(&mut self, name: &str, what: &str) {
        let on_disk = self.modules.on_disk();
        if on_disk.files.contains_key(name) && !std::ptr::eq(self.index, on_disk) {
            self.stale.get_or_insert(format!("modules.dep {what} `{name}`"));
        }
    }

    fn builtin(&mut self, name: &str) {
        let note = ModuleNote::Builtin { name: name.to_owned() };
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Looks up a normalised name, then as an alias, in the order of kmod.
    fn find(&self, name: &str, alias: &str) -> Found {
        if self.index.files.contains_key(name) {
            return Found::Modules(vec![name.to_owned()]);
        }
        if self.modules.builtin.contains(name) {
            return Found::Builtin;
        }
        let names = self.modules.by_alias(alias);
        let files: Vec<String> =
            names.iter().filter(|name| self.index.files.contains_key(*name)).cloned().collect();
        if !files.is_empty() {
            Found::Modules(files)
        } else if names.iter().any(|name| self.modules.builtin.contains(name))
            || self.has_builtin_info(&names)
        {
            Found::Builtin
        } else {
            Found::Nothing
        }
    }

    /// Built-in modules that `modules.builtin` does not list: they only have a `modinfo` entry.
    fn has_builtin_info(&self, names: &[String]) -> bool {
        let builtin = self.modules.builtin_aliases();
        names.iter().any(|name| builtin.iter().any(|(_, known)| known == name))
    }

    /// Selects `name`, which the index has, after what it needs.
    fn visit(&mut self, name: &str, reason: ModuleReason, load: bool) {
        match self.state.get(name) {
            Some(State::Done) => {
                self.load_too(name, load);
                return;
            }
            Some(State::UnderWay) => {
                if let (ModuleReason::Hard { .. }, Some(first)) =
                    (&reason, self.stack.iter().position(|n| n == name))
                {
                    let mut cycle = self.stack[first..].to_vec();
                    cycle.push(name.to_owned());
                    self.problems.push(ModuleProblem::Cycle { cycle });
                }
                return;
            }
            None => {}
        }
        if self.depth >= MAX_DEPTH {
            let name = self.stack.first().map_or(name, String::as_str).to_owned();
            let deep = |p: &ModuleProblem| matches!(p, ModuleProblem::TooDeep { .. });
            if !self.problems.iter().any(deep) {
                self.problems.push(ModuleProblem::TooDeep { name, limit: MAX_DEPTH });
            }
            return;
        }
        let index = self.index;
        let Some(entry) = index.files.get(name) else { return };
        let host_path = self.modules.dir.join(&entry.path);
        if !host_path.is_file() {
            if std::ptr::eq(index, self.modules.on_disk()) {
                let source = rustix::io::Errno::NOENT.into();
                self.problems.push(ModuleProblem::Read { path: host_path.clone(), source });
            } else {
                self.stale.get_or_insert(format!("`{}` does not exist", host_path.display()));
            }
        }
        self.state.insert(name.to_owned(), State::UnderWay);
        self.stack.push(name.to_owned());
        self.depth += 1;

        for dep in self.depends(name, entry) {
            self.hard(name, &dep, load);
        }
        let soft = self.soft.get(name).cloned().unwrap_or_default();
        if self.options.softdeps {
            self.related(name, &soft.pre, load, &|of| ModuleReason::Soft { of });
        }
        self.place.insert(name.to_owned(), self.selected.len());
        self.selected.push(self.module(name, entry, reason, load));
        self.stack.pop();
        self.state.insert(name.to_owned(), State::Done);
        if self.options.softdeps {
            self.related(name, &soft.post, load, &|of| ModuleReason::Soft { of });
        }
        if self.options.weakdeps {
            let weak = self.weak.get(name).cloned().unwrap_or_default();
            self.related(name, &weak, false, &|of| ModuleReason::Weak { of });
        }
        self.depth -= 1;
    }

    /// A module that only a weak dependency wanted is loaded after all, with what it needs.
    fn load_too(&mut self, name: &str, load: bool) {
        let Some(&place) = self.place.get(name) else { return };
        if !load || self.selected[place].load {
            return;
        }
        self.selected[place].load = true;
        let index = self.index;
        if let Some(entry) = index.files.get(name) {
            for dep in self.depends(name, entry) {
                self.load_too(&dep, true);
            }
        }
    }

    fn hard(&mut self, of: &str, dep: &str, load: bool) {
        if self.index.files.contains_key(dep) {
            self.visit(dep, ModuleReason::Hard { of: of.to_owned() }, load);
        } else if !self.modules.builtin.contains(dep) {
            self.suspect(dep, "has no line for");
            let chain = self.stack.iter().rev().cloned().collect();
            self.problems.push(ModuleProblem::MissingDependency { name: dep.to_owned(), chain });
        }
    }

    /// Soft and weak dependencies: none of them is an error.
    fn related(
        &mut self,
        of: &str,
        names: &[String],
        load: bool,
        reason: &dyn Fn(String) -> ModuleReason,
    ) {
        for name in names {
            match self.find(name, name) {
                Found::Builtin => {}
                Found::Nothing => {
                    let pair = (of.to_owned(), name.clone());
                    if !self.missing_soft.contains(&pair) {
                        self.missing_soft.push(pair);
                    }
                }
                Found::Modules(found) => {
                    for module in found {
                        if self.needs_one_under_way(&module) {
                            self.later.push((module, reason(of.to_owned()), load));
                        } else {
                            self.visit(&module, reason(of.to_owned()), load);
                        }
                    }
                }
            }
        }
    }

    /// Whether `name` cannot be loaded before a module that is waiting for it.
    fn needs_one_under_way(&mut self, name: &str) -> bool {
        let mut todo = vec![name.to_owned()];
        let mut seen = std::collections::HashSet::new();
        let index = self.index;
        while let Some(next) = todo.pop() {
            if !seen.insert(next.clone()) {
                continue;
            }
            if next != name && self.state.get(&next) == Some(&State::UnderWay) {
                return true;
            }
            if let Some(entry) = index.files.get(&next) {
                todo.extend(self.depends(&next, entry));
            }
        }
        false
    }

    /// What a module depends on, in the order in which to load it.
    fn depends(&mut self, name: &str, entry: &Entry) -> Vec<String> {
        if let Some(range) = &entry.deps {
            let paths = self.index.text[range.clone()].split_ascii_whitespace();
            // depmod lists them so that the last one is loaded first.
            return paths.rev().filter_map(kmod::module_name).collect();
        }
        if let Some(known) = self.read.get(name) {
            return known.clone();
        }
        let depends = match read_module(&self.modules.dir.join(&entry.path)) {
            Ok((_, info)) => {
                for value in info.values("softdep") {
                    add_soft(&mut self.soft, kmod::softdep_value(name, value));
                }
                info.depends()
            }
            Err(problem) => {
                self.problems.push(problem);
                Vec::new()
            }
        };
        self.read.insert(name.to_owned(), depends.clone());
        depends
    }

    fn module(
        &self,
        name: &str,
        entry: &Entry,
        reason: ModuleReason,
        load: bool,
    ) -> SelectedModule {
        let host_path = self.modules.dir.join(&entry.path);
        let end = entry.path.rfind(".ko").map_or(entry.path.len(), |at| at + 3);
        let Modules { release, prefix, .. } = self.modules;
        let dest = format!("lib/modules/{release}/{prefix}{}", &entry.path[..end]);
        SelectedModule {
            name: name.to_owned(),
            compression: Compression::of(&host_path),
            host_path,
            dest: dest.into_bytes(),
            params: String::new(),
            load,
            reason,
        }
    }
}

/// Adds what is new: a module's own lines repeat those of the index.
fn add_soft(soft: &mut HashMap<String, SoftDep>, line: SoftDep) {
    let known = soft.entry(line.name).or_default();
    for (to, from) in [(&mut known.pre, line.pre), (&mut known.post, line.post)] {
        for name in from {
            if !to.contains(&name) {
                to.push(name);
            }
        }
    }
}
