//! The library's public items are a golden file, so that nobody adds or takes one away unseen.
//! `UPDATE_GOLDEN=1` writes it anew.
//!
//! The list is read from the sources, without a compiler: modules, types, functions, constants and traits
//! that a path of `pub` leads to, with their public methods, fields and variants, all features on. It has
//! names and no types: a signature that changes is not seen here. What macros and derives make is not in
//! it, nor are implementations of traits.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::layers::imports::{Crate, Import, Module};

/// The kinds of items, as they are called.
const KINDS: [&str; 7] = ["fn", "struct", "enum", "trait", "const", "static", "type"];

/// Where an item is, and what it is called there.
type Place = (Vec<String>, String);

/// A module's public items, by name, and the public parts of each.
type Items = BTreeMap<String, (String, BTreeSet<String>)>;

fn word(tokens: &[String], at: usize) -> &str {
    tokens.get(at).map_or("", String::as_str)
}

/// The place behind the block that opens at or after `at`; a semicolon ends an item too.
fn behind(tokens: &[String], mut at: usize) -> usize {
    let mut depth = 0;
    while at < tokens.len() {
        match word(tokens, at) {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => {
                depth -= 1;
                if depth == 0 && word(tokens, at) == "}" {
                    return at + 1;
                }
            }
            ";" if depth == 0 => return at + 1,
            _ => {}
        }
        at += 1;
    }
    at
}

/// The item of a `pub` at this place: its kind and where its name is.
fn item(tokens: &[String], at: usize) -> Option<(&str, usize)> {
    if word(tokens, at) != "pub" {
        return None;
    }
    let mut next = at + 1;
    while matches!(word(tokens, next), "async" | "unsafe" | "extern")
        || (word(tokens, next) == "const" && word(tokens, next + 1) == "fn")
    {
        next += 1;
    }
    KINDS.contains(&word(tokens, next)).then(|| (word(tokens, next), next + 1))
}

/// The public fields of a struct, or the variants of an enum, whose item begins at `at`.
fn parts(tokens: &[String], kind: &str, at: usize) -> BTreeSet<String> {
    let end = behind(tokens, at);
    let mut parts = BTreeSet::new();
    let Some(open) = (at..end).find(|i| word(tokens, *i) == "{") else { return parts };
    let (mut depth, mut first) = (0, false);
    for i in open..end {
        match word(tokens, i) {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth -= 1,
            _ => {}
        }
        let token = word(tokens, i);
        if kind == "struct" && depth == 1 && token == "pub" && word(tokens, i + 2) == ":" {
            parts.insert(word(tokens, i + 1).to_owned());
        }
        if kind == "enum" && depth == 1 {
            let name = token.starts_with(char::is_uppercase);
            if name && first {
                parts.insert(token.to_owned());
            }
            // An attribute stands before its variant.
            first = matches!(token, "{" | "," | "]") || (first && token == "#");
        }
        if kind == "trait" && depth == 1 && token == "fn" {
            parts.insert(word(tokens, i + 1).to_owned());
        }
    }
    parts
}

/// The type of an `impl` without a trait, and where its block opens.
fn inherent(tokens: &[String], at: usize) -> Option<(String, usize)> {
    if word(tokens, at) != "impl"
        || !matches!(word(tokens, at.wrapping_sub(1)), "" | "}" | ";" | "]")
    {
        return None;
    }
    let open = (at..tokens.len()).find(|i| word(tokens, *i) == "{")?;
    let head = &tokens[at + 1..open];
    if head.iter().any(|token| token == "for") {
        return None;
    }
    // Behind the parameters, if it has any.
    let mut depth = 0;
    let name = head.iter().find(|token| {
        depth += i32::from(*token == "<") - i32::from(*token == ">");
        depth == 0 && token.starts_with(char::is_uppercase)
    })?;
    Some((name.clone(), open))
}

/// What a module's file has, by name; methods of types that are elsewhere come back by themselves.
fn items(module: &Module) -> (Items, Vec<(String, String)>) {
    let tokens = module.tokens();
    let mut items = Items::new();
    let mut methods = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if let Some((name, open)) = inherent(tokens, at) {
            let end = behind(tokens, open);
            let mut i = open + 1;
            while i < end {
                if let Some((_, method)) = item(tokens, i) {
                    methods.push((name.clone(), word(tokens, method).to_owned()));
                    i = behind(tokens, method);
                } else if matches!(word(tokens, i), "{" | "(" | "[") {
                    i = behind_any(tokens, i);
                } else {
                    i += 1;
                }
            }
            at = end;
        } else if let Some((kind, name)) = item(tokens, at) {
            let found = (kind.to_owned(), parts(tokens, kind, name));
            items.insert(word(tokens, name).to_owned(), found);
            at = behind(tokens, name);
        } else if matches!(word(tokens, at), "{" | "(" | "[") {
            at = behind_any(tokens, at);
        } else {
            at += 1;
        }
    }
    (items, methods)
}

/// The place behind a bracket of any kind that opens at `at`.
fn behind_any(tokens: &[String], mut at: usize) -> usize {
    let mut depth = 0;
    while at < tokens.len() {
        match word(tokens, at) {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            break;
        }
    }
    at
}

/// The public list of a crate.
fn list(krate: &Crate) -> Vec<String> {
    let mut defined: BTreeMap<Place, (String, BTreeSet<String>)> = BTreeMap::new();
    let mut methods: Vec<(Vec<String>, String, String)> = Vec::new();
    for (path, module) in krate.modules() {
        let (items, of_types) = items(module);
        for (name, found) in items {
            defined.insert((path.clone(), name), found);
        }
        methods.extend(of_types.into_iter().map(|(name, method)| (path.clone(), name, method)));
    }
    // A method belongs to where its type is defined, which may be another file.
    for (path, name, method) in methods {
        let place = krate.place_of(&path, &name).unwrap_or((path, name));
        if let Some((_, parts)) = defined.get_mut(&place) {
            parts.insert(method);
        }
    }
    let mut lines = BTreeSet::new();
    let mut todo = vec![(Vec::new(), Vec::new())];
    while let Some((module, public)) = todo.pop() {
        let path = |name: &str| -> String {
            public.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join("::")
        };
        let mut add = |place: &Place, name: &str| {
            let Some((kind, parts)) = defined.get(place) else { return };
            lines.insert(format!("{} {kind}", path(name)));
            for part in parts {
                lines.insert(format!("{}::{part}", path(name)));
            }
        };
        for (place, _) in defined.iter().filter(|((of, _), _)| *of == module) {
            add(place, &place.1);
        }
        let mut foreign = Vec::new();
        for (name, import) in krate.public_imports(&module) {
            match import {
                Import::Item(place) => add(&place, &name),
                Import::Module(path) => todo.push((path, [public.clone(), vec![name]].concat())),
                Import::Foreign => foreign.push(format!("{} of another crate", path(&name))),
            }
        }
        lines.extend(foreign);
        for child in krate.public_children(&module) {
            let [inner, outer] =
                [&module, &public].map(|path| [path.clone(), vec![child.clone()]].concat());
            lines.insert(format!("{} mod", outer.join("::")));
            todo.push((inner, outer));
        }
    }
    lines.into_iter().collect()
}

#[test]
fn public_items_are_those_of_the_golden_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let list = list(&Crate::read(&root.join("src/lib.rs")));
    assert!(list.len() > 500, "the items were not found");
    let text = list.join("\n") + "\n";
    let path = root.join("tests/it/public.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    let (known, now): (BTreeSet<&str>, BTreeSet<&str>) =
        (known.lines().collect(), text.lines().collect());
    let lines = |sign, set: Vec<&&str>| -> String {
        set.iter().map(|line| format!("  {sign} {line}\n")).collect()
    };
    let changes = lines('+', now.difference(&known).collect())
        + &lines('-', known.difference(&now).collect());
    assert!(
        changes.is_empty(),
        "public items have changed; if that is meant, UPDATE_GOLDEN=1 writes {}:\n{changes}",
        path.display()
    );
}

#[test]
fn what_is_public_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write(
        "lib.rs",
        "pub mod a; mod hidden; pub use hidden::{Shown as Renamed, helper}; pub use serde; \
         pub(crate) use hidden::Secret;",
    );
    write(
        "a.rs",
        "pub enum E { #[doc = \"x\"] One, Two { field: u8 }, Three(u8) } pub(crate) struct No; \
         pub struct S { pub field: u8, private: u8 } struct P; \
         impl<T: Fn()> S { pub fn made() -> S { fn inner() {} } fn private() {} } \
         impl Clone for S { fn clone(&self) -> S {} } pub const fn c() {} pub trait T { fn method(); }",
    );
    write(
        "hidden.rs",
        "pub struct Shown; impl Shown { pub fn f() {} } pub fn helper() {} pub struct Secret;",
    );
    let found = list(&Crate::read(&dir.path().join("lib.rs")));
    assert_eq!(
        found,
        [
            "Renamed struct",
            "Renamed::f",
            "a mod",
            "a::E enum",
            "a::E::One",
            "a::E::Three",
            "a::E::Two",
            "a::S struct",
            "a::S::field",
            "a::S::made",
            "a::T trait",
            "a::T::method",
            "a::c fn",
            "helper fn",
            "serde of another crate",
        ]
    );
}
