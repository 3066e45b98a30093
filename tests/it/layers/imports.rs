//! Which file imports which: read from the sources, without a compiler.
//!
//! A path is followed to the file that defines its item, through `pub use`: what a folder's `mod.rs`
//! passes on belongs to the file behind it, and `mod` and `pub use` tie nothing by themselves. What
//! this cannot see are methods (`image.write_to(…)` ties nobody) and what macros put together. Unit
//! tests are no part of it, they may use anything.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A crate's module files and what each imports of the others.
#[derive(Debug, Default)]
pub(crate) struct Crate {
    modules: BTreeMap<Vec<String>, Module>,
    /// Files that only tests have.
    tests: Vec<PathBuf>,
}

#[derive(Debug, Default)]
pub(crate) struct Module {
    file: PathBuf,
    tokens: Vec<String>,
    children: BTreeSet<String>,
    test_children: Vec<String>,
    /// Names that `use` brings in, with what they stand for.
    uses: BTreeMap<String, Use>,
}

#[derive(Clone, Debug)]
struct Use {
    path: Vec<String>,
    /// `pub use`, or `pub(…) use`: passed on to others, no use of its own.
    passed_on: bool,
    /// `pub use`: for everybody.
    public: bool,
}

/// What a `pub use` stands for.
pub(crate) enum Import {
    /// An item, by the module that defines it.
    Item((Vec<String>, String)),
    /// A module.
    Module(Vec<String>),
    /// Something of another crate.
    Foreign,
}

impl Crate {
    /// Reads a crate from its root file on, along its `mod` items; those of tests are left out.
    pub(crate) fn read(root: &Path) -> Crate {
        let mut krate = Crate::default();
        let dir = root.parent().unwrap().to_owned();
        krate.add(Vec::new(), root.to_owned(), &dir);
        krate
    }

    fn add(&mut self, path: Vec<String>, file: PathBuf, dir: &Path) {
        let text = std::fs::read_to_string(&file)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display()));
        let module = Module::parse(file, &text);
        for child in &module.test_children {
            self.tests.push(file_of_child(dir, child));
        }
        for child in &module.children {
            let (file, below) = (file_of_child(dir, child), dir.join(child));
            let mut path = path.clone();
            path.push(child.clone());
            self.add(path, file, &below);
        }
        self.modules.insert(path, module);
    }

    /// The files, each with the code that is no test.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&Path, &[String])> {
        self.modules.values().map(|module| (module.file.as_path(), module.tokens.as_slice()))
    }

    /// The same, and those of tests.
    pub(crate) fn all_files(&self) -> impl Iterator<Item = &Path> {
        self.files().map(|(file, _)| file).chain(self.tests.iter().map(PathBuf::as_path))
    }

    /// Each file with those it imports something of.
    pub(crate) fn graph(&self) -> BTreeMap<&Path, BTreeSet<&Path>> {
        let mut graph = BTreeMap::new();
        for (path, module) in &self.modules {
            let mut imported = BTreeSet::new();
            let own = module.uses.values().filter(|import| !import.passed_on);
            let named = own.map(|import| import.path.clone());
            for target in named.chain(module.inline_paths()) {
                imported.extend(self.file_of(path, &target, 0));
            }
            imported.remove(module.file.as_path());
            graph.insert(module.file.as_path(), imported);
        }
        graph
    }

    /// All modules, by path.
    pub(crate) fn modules(&self) -> impl Iterator<Item = (&Vec<String>, &Module)> {
        self.modules.iter()
    }

    /// The modules in a module that are public.
    pub(crate) fn public_children(&self, module: &[String]) -> Vec<String> {
        let tokens = &self.modules[module].tokens;
        let items = tokens.windows(4).filter(|it| it[0] == "pub" && it[1] == "mod" && it[3] == ";");
        items.map(|item| item[2].clone()).collect()
    }

    /// What a module passes on to everybody, by name.
    pub(crate) fn public_imports(&self, module: &[String]) -> Vec<(String, Import)> {
        let uses = self.modules[module].uses.iter().filter(|(_, import)| import.public);
        let named = uses.map(|(name, import)| {
            let import = match self.target(module, &import.path, 0) {
                Some((path, Some(item))) => Import::Item((path, item)),
                Some((path, None)) => Import::Module(path),
                None => Import::Foreign,
            };
            (name.clone(), import)
        });
        named.collect()
    }

    /// Where the item that has this name in a module is defined.
    pub(crate) fn place_of(&self, module: &[String], name: &str) -> Option<(Vec<String>, String)> {
        let (path, item) = self.walk(module, &[name.to_owned()], 0)?;
        Some((path, item?))
    }

    /// The file that defines what a path means in a module; nothing for a path that names only a
    /// module, or leads out of the crate.
    fn file_of(&self, module: &[String], path: &[String], depth: usize) -> Option<&Path> {
        let (path, item) = self.target(module, path, depth)?;
        item.map(|_| self.modules[&path].file.as_path())
    }

    /// The module that a path leads to, and the item there; nothing for a path out of the crate.
    fn target(&self, module: &[String], path: &[String], depth: usize) -> Option<Target> {
        assert!(depth < 50, "`{}` leads in a circle of `use`", path.join("::"));
        let (first, rest) = path.split_first()?;
        let here = self.modules.get(module)?;
        let up = |from: &[String]| from[..from.len().saturating_sub(1)].to_vec();
        let start = match first.as_str() {
            "crate" => Some(Vec::new()),
            "self" => Some(module.to_vec()),
            "super" => Some(up(module)),
            _ => None,
        };
        if let Some(mut start) = start {
            let mut rest = rest;
            while let Some(("super", more)) = rest.split_first().map(|(a, b)| (a.as_str(), b)) {
                (start, rest) = (up(&start), more);
            }
            return self.walk(&start, rest, depth);
        }
        if !here.children.contains(first) && !here.uses.contains_key(first) {
            return None;
        }
        self.walk(module, path, depth)
    }

    /// Follows a path's parts from a module on.
    fn walk(&self, module: &[String], path: &[String], depth: usize) -> Option<Target> {
        let here = self.modules.get(module)?;
        let Some((first, rest)) = path.split_first() else { return Some((module.to_vec(), None)) };
        if here.children.contains(first) {
            let mut child = module.to_vec();
            child.push(first.clone());
            return self.walk(&child, rest, depth);
        }
        if let Some(import) = here.uses.get(first) {
            let mut path = import.path.clone();
            path.extend(rest.iter().cloned());
            // `use x::x;` and `use x;` name another thing than themselves.
            if import.path[0] == *first && !here.children.contains(first) {
                return None;
            }
            return self.target(module, &path, depth + 1);
        }
        Some((module.to_vec(), Some(first.clone())))
    }
}

/// A module, and the name of an item in it; without one the module itself.
type Target = (Vec<String>, Option<String>);

impl Module {
    /// The code that is no test, without what `use` says.
    pub(crate) fn tokens(&self) -> &[String] {
        &self.tokens
    }

    fn parse(file: PathBuf, text: &str) -> Module {
        let (tokens, tests) = without_tests(tokens(text));
        let test_children = tests.windows(3).filter(|item| item[0] == "mod" && item[2] == ";");
        let mut module = Module {
            file,
            test_children: test_children.map(|item| item[1].clone()).collect(),
            ..Module::default()
        };
        let mut at = 0;
        while at < tokens.len() {
            let next = tokens.get(at + 1).map(String::as_str);
            if tokens[at] == "mod" && tokens.get(at + 2).is_some_and(|token| token == ";") {
                module.children.extend(next.map(str::to_owned));
            }
            if tokens[at] == "use" {
                let end = at + tokens[at..].iter().position(|token| token == ";").unwrap();
                let before = if at > 0 { tokens[at - 1].as_str() } else { "" };
                let kind = (before == "pub" || before == ")", before == "pub");
                module.add_uses(&tokens[at + 1..end], &[], kind);
                module.tokens.push(";".into());
                at = end;
            }
            module.tokens.push(tokens[at].clone());
            at += 1;
        }
        module
    }

    /// Takes the tree behind a `use` apart.
    fn add_uses(&mut self, tree: &[String], before: &[String], kind: (bool, bool)) {
        let mut path = before.to_vec();
        let mut name = None;
        let mut at = 0;
        while let Some(token) = tree.get(at) {
            match token.as_str() {
                "::" => {}
                "as" => {
                    name = tree.get(at + 1).cloned();
                    at += 1;
                }
                "{" => {
                    for branch in branches(&tree[at + 1..tree.len() - 1]) {
                        self.add_uses(branch, &path, kind);
                    }
                    return;
                }
                "*" => return,
                "self" if !path.is_empty() => {}
                part => path.push(part.to_owned()),
            }
            at += 1;
        }
        if let Some(name) = name.or_else(|| path.last().cloned()) {
            // `use x as _` twice must not hide one.
            let name = if name == "_" { format!("_{}", path.join("::")) } else { name };
            let (passed_on, public) = kind;
            self.uses.insert(name, Use { path, passed_on, public });
        }
    }

    /// All `a::b::c` outside of `use`.
    fn inline_paths(&self) -> Vec<Vec<String>> {
        let is_name = |token: &String| token.starts_with(|c: char| c.is_alphabetic() || c == '_');
        let mut paths = Vec::new();
        let mut at = 0;
        while at < self.tokens.len() {
            let start = at;
            while is_name(&self.tokens[at])
                && self.tokens.get(at + 1).is_some_and(|token| token == "::")
                && self.tokens.get(at + 2).is_some_and(is_name)
            {
                at += 2;
            }
            if at > start && (start == 0 || self.tokens[start - 1] != "::") {
                paths.push(self.tokens[start..=at].iter().step_by(2).cloned().collect());
            }
            at += 1;
        }
        paths
    }
}

/// Splits the inside of braces at the commas that are not in further braces.
fn branches(tokens: &[String]) -> Vec<&[String]> {
    let mut depth = 0;
    let mut parts = vec![];
    let mut start = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            "," if depth == 0 => {
                parts.push(&tokens[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&tokens[start..]);
    parts.retain(|part| !part.is_empty());
    parts
}

fn file_of_child(dir: &Path, child: &str) -> PathBuf {
    let plain = dir.join(format!("{child}.rs"));
    if plain.is_file() { plain } else { dir.join(child).join("mod.rs") }
}

/// Takes out every item behind `#[cfg(test)]`; those are the second part.
fn without_tests(tokens: Vec<String>) -> (Vec<String>, Vec<String>) {
    const TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::with_capacity(tokens.len());
    let mut tests = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if !tokens[at..].iter().map(String::as_str).take(TEST.len()).eq(TEST) {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        // The item ends with a semicolon, or with its block.
        let mut depth = 0;
        at += TEST.len();
        while at < tokens.len() {
            let token = tokens[at].as_str();
            depth += i32::from(matches!(token, "{" | "(" | "["));
            depth -= i32::from(matches!(token, "}" | ")" | "]"));
            tests.push(tokens[at].clone());
            at += 1;
            if depth == 0 && matches!(token, ";" | "}") {
                break;
            }
        }
    }
    (kept, tests)
}

/// Names, numbers and punctuation of a source; comments and what is in quotes are left out.
pub(crate) fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let mut tokens = Vec::new();
    let mut i = 0;
    while i < chars.len() {
        let c = chars[i];
        if c == '/' && at(i + 1) == '/' {
            while i < chars.len() && chars[i] != '\n' {
                i += 1;
            }
        } else if c == '/' && at(i + 1) == '*' {
            let mut depth = 1;
            i += 2;
            while i < chars.len() && depth > 0 {
                let pair = (at(i), at(i + 1));
                depth += i32::from(pair == ('/', '*')) - i32::from(pair == ('*', '/'));
                i += if matches!(pair, ('/', '*') | ('*', '/')) { 2 } else { 1 };
            }
        } else if c == '"' {
            i = end_of_quotes(&chars, i, '"');
        } else if c == '\'' && (at(i + 1) == '\\' || at(i + 2) == '\'') {
            i = end_of_quotes(&chars, i, '\'');
        } else if c.is_alphanumeric() || c == '_' {
            let start = i;
            while at(i).is_alphanumeric() || at(i) == '_' {
                i += 1;
            }
            let word: String = chars[start..i].iter().collect();
            let raw = matches!(word.as_str(), "r" | "br");
            if raw && matches!(at(i), '"' | '#') {
                i = end_of_raw(&chars, i);
            } else {
                tokens.push(word);
            }
        } else if c == ':' && at(i + 1) == ':' {
            tokens.push("::".into());
            i += 2;
        } else {
            if !c.is_whitespace() {
                tokens.push(c.to_string());
            }
            i += 1;
        }
    }
    tokens
}

/// The place behind the quotes that open at `i`.
fn end_of_quotes(chars: &[char], mut i: usize, quote: char) -> usize {
    i += 1;
    while i < chars.len() && chars[i] != quote {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

/// The place behind a raw string whose hashes and quotes open at `i`.
fn end_of_raw(chars: &[char], mut i: usize) -> usize {
    let hashes = chars[i..].iter().take_while(|c| **c == '#').count();
    i += hashes + 1;
    while i < chars.len() {
        let behind = &chars[i + 1..chars.len().min(i + 1 + hashes)];
        if chars[i] == '"' && behind.len() == hashes && behind.iter().all(|c| *c == '#') {
            return i + 1 + hashes;
        }
        i += 1;
    }
    i
}

/// The groups of files that import each other, directly or through others: Tarjan's strongly
/// connected components of more than one file.
pub(crate) fn circles<'a>(graph: &BTreeMap<&'a Path, BTreeSet<&'a Path>>) -> Vec<Vec<&'a Path>> {
    let mut search = Search { graph, index: BTreeMap::new(), stack: Vec::new(), found: Vec::new() };
    for node in graph.keys() {
        if !search.index.contains_key(node) {
            search.visit(node);
        }
    }
    search.found
}

struct Search<'g, 'a> {
    graph: &'g BTreeMap<&'a Path, BTreeSet<&'a Path>>,
    /// The order in which a node was met, and the lowest that can be reached from it.
    index: BTreeMap<&'a Path, (usize, usize)>,
    stack: Vec<&'a Path>,
    found: Vec<Vec<&'a Path>>,
}

impl<'a> Search<'_, 'a> {
    fn visit(&mut self, node: &'a Path) -> usize {
        let order = self.index.len();
        self.index.insert(node, (order, order));
        self.stack.push(node);
        let mut lowest = order;
        for next in self.graph.get(node).into_iter().flatten() {
            if !self.index.contains_key(next) {
                lowest = lowest.min(self.visit(next));
            } else if self.stack.contains(next) {
                lowest = lowest.min(self.index[next].0);
            }
        }
        self.index.insert(node, (order, lowest));
        if lowest == order {
            let start = self.stack.iter().position(|other| *other == node).unwrap();
            let mut group = self.stack.split_off(start);
            group.sort();
            if group.len() > 1 {
                self.found.push(group);
            }
        }
        lowest
    }
}

#[test]
fn imports_are_followed_to_the_file_that_defines_the_item() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("lib.rs", "mod a; mod b; /* mod c; */ #[cfg(test)] mod tests { use super::a; }");
    write("a.rs", "use crate::b::Inner; const C: char = '\"'; // use crate::b::Own");
    write("b/mod.rs", "mod inner; pub use inner::{Inner, other::Thing as _}; pub struct Own;");
    write("b/inner.rs", "const TEXT: &str = r#\"crate::a\"#; fn f() { super::super::a::x() }");
    let krate = Crate::read(&dir.path().join("lib.rs"));
    let graph = krate.graph();
    let of = |name: &str| -> Vec<String> {
        let files = graph[dir.path().join(name).as_path()].iter();
        files.map(|file| file.strip_prefix(dir.path()).unwrap().display().to_string()).collect()
    };
    assert_eq!(of("a.rs"), ["b/inner.rs"], "`pub use` passes on, comments say nothing");
    assert_eq!(of("b/inner.rs"), ["a.rs"]);
    assert_eq!(of("b/mod.rs"), [] as [&str; 0]);
    let circles = circles(&graph);
    assert_eq!(circles.len(), 1);
    assert_eq!(circles[0], [dir.path().join("a.rs"), dir.path().join("b/inner.rs")]);
}
