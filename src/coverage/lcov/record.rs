//! One record of an lcov file, from `SF` to `end_of_record`, while it is read.
//!
//! lcov 1 tells functions apart by name only, and so the counts of one name belong to its lines in the
//! order of both; lcov 2 numbers them. Branches of lcov 2 may have an expression for a number and a
//! mark that they are exceptions' ways: whatever differs in the file stays apart here.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::names::readable;
use crate::coverage::model::{Branch, FileCoverage, Function, Line};
use crate::coverage::text;

/// Blocks and ways of branches have 16 bits each in [`Branch::index`].
const MAX_PART: u32 = 0xffff;

/// A record.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) path: Option<String>,
    lines: Vec<Line>,
    ways: Vec<Way>,
    /// Functions of lcov 1, by name.
    named: BTreeMap<String, Named>,
    /// lcov 2: the lines of functions by their number within the record.
    starts: HashMap<u32, u32>,
    /// lcov 2: counts of functions.
    numbered: Vec<Numbered>,
}

/// The functions of one name.
#[derive(Debug, Default)]
struct Named {
    lines: Vec<u32>,
    counts: Vec<u64>,
    /// The line in the file that named it first.
    at: u64,
}

#[derive(Debug)]
struct Numbered {
    index: u32,
    name: String,
    count: u64,
    /// The line in the file.
    at: u64,
}

/// A way of a branch as the file says it.
#[derive(Debug)]
struct Way {
    line: u32,
    key: Key,
    taken: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    exception: bool,
    block: u32,
    way: Name,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Name {
    Number(u32),
    Expression(String),
}

impl Record {
    /// The path and what was covered in it. `fail` gets lines of the file and what is wrong.
    pub(super) fn finish(
        self,
        fail: &mut impl FnMut(u64, String),
    ) -> Option<(String, FileCoverage)> {
        let path = self.path?;
        let mut functions = Vec::new();
        for (name, Named { lines, counts, at }) in self.named {
            let Some(last) = lines.len().checked_sub(1) else {
                fail(at, format!("the function `{name}` has a count and no line"));
                continue;
            };
            let name = readable(&name, &path);
            functions.extend(lines.iter().enumerate().map(|(place, line)| {
                // Counts of more than there are lines are the last one's.
                let end = if place == last { counts.len() } else { place + 1 };
                let own = counts.get(place..end).unwrap_or_default();
                let count = own.iter().fold(0u64, |sum, count| sum.saturating_add(*count));
                Function { name: name.clone(), line: *line, count }
            }));
        }
        for Numbered { index, name, count, at } in self.numbered {
            match self.starts.get(&index) {
                Some(line) => {
                    functions.push(Function { name: readable(&name, &path), line: *line, count });
                }
                None => fail(at, format!("the function `{name}` has a count and no line")),
            }
        }
        let branches = placed(self.ways);
        Some((path, FileCoverage::new(self.lines, functions, branches)))
    }

    /// Reads a field, which is on a line of the file.
    ///
    /// # Errors
    /// What is wrong with it. A count that cannot be read counts as not run.
    pub(super) fn field(&mut self, at: u64, key: &str, value: &str) -> Result<(), String> {
        match key {
            "DA" => {
                let mut parts = value.split(',');
                let line = line(parts.next(), "a line's number")?;
                let (count, read) = count(parts.next(), "a line");
                self.lines.push(Line { line, count });
                read
            }
            "FN" => {
                let (first, rest) = value.split_once(',').ok_or("a function has no name")?;
                let line = function_line(Some(first))?;
                // lcov 2 may say its last line, too.
                let name = match rest.split_once(',') {
                    Some((end, name)) if end.parse::<u32>().is_ok() => name,
                    _ => rest,
                };
                self.named(name, at).lines.push(line);
                Ok(())
            }
            "FNDA" => {
                let (first, name) =
                    value.split_once(',').ok_or("a function's count has no name")?;
                let (count, read) = count(Some(first), "a function");
                self.named(name, at).counts.push(count);
                read
            }
            "FNL" => {
                let mut parts = value.split(',');
                let index = function_number(parts.next())?;
                let line = function_line(parts.next())?;
                self.starts.insert(index, line);
                Ok(())
            }
            "FNA" => {
                let mut parts = value.splitn(3, ',');
                let index = function_number(parts.next())?;
                let (count, read) = count(parts.next(), "a function");
                let name = parts.next().ok_or("a function's count has no name")?.to_owned();
                self.numbered.push(Numbered { index, name, count, at });
                read
            }
            "BRDA" => self.way(value),
            // Sums are made anew.
            _ => Ok(()),
        }
    }

    fn named(&mut self, name: &str, at: u64) -> &mut Named {
        self.named.entry(name.to_owned()).or_insert_with(|| Named { at, ..Named::default() })
    }

    /// `LINE,[e]BLOCK,NUMBER|EXPRESSION,COUNT|-`
    fn way(&mut self, value: &str) -> Result<(), String> {
        let (first, rest) = value.split_once(',').ok_or("a branch has no block")?;
        let line = line(Some(first), "a branch's line")?;
        let (block, rest) = rest.split_once(',').ok_or("a branch has no number")?;
        let (way, taken) = rest.rsplit_once(',').ok_or("a branch has no count")?;
        let exception = block.starts_with('e');
        let block = block.trim_start_matches('e').parse::<u32>();
        let block = block.map_err(|_| "a branch's block is no number")?;
        let way = match way.parse::<u32>() {
            Ok(number) => Name::Number(number),
            Err(_) => Name::Expression(way.to_owned()),
        };
        let (taken, read) = match taken {
            "-" => (None, Ok(())),
            taken => {
                let (count, read) = count(Some(taken), "a branch");
                (Some(count), read)
            }
        };
        self.ways.push(Way { line, key: Key { exception, block, way }, taken });
        read
    }
}

impl Key {
    /// Its place if it is as lcov 1 says it.
    fn plain(&self) -> Option<u32> {
        match self.way {
            Name::Number(way) if !self.exception && way <= MAX_PART && self.block <= MAX_PART => {
                Some(index(self.block, way))
            }
            _ => None,
        }
    }
}

fn index(block: u32, way: u32) -> u32 {
    block.min(MAX_PART) << 16 | way.min(MAX_PART)
}

/// Gives each way a place: numbers keep theirs, what cannot gets the first free one of its block.
fn placed(mut ways: Vec<Way>) -> Vec<Branch> {
    let number = |way: &Way| matches!(way.key.way, Name::Number(_));
    ways.sort_by_key(|way| (way.key.plain().is_none(), !number(way)));
    let mut taken = HashSet::new();
    let mut given: HashMap<(u32, Key), u32> = HashMap::new();
    let mut next: HashMap<(u32, u32), u32> = HashMap::new();
    let mut branches = Vec::with_capacity(ways.len());
    for Way { line, key, taken: count } in ways {
        let place = key.plain().or_else(|| given.get(&(line, key.clone())).copied());
        let place = place.unwrap_or_else(|| {
            let wanted = match key.way {
                Name::Number(way) => Some(index(key.block, way)),
                Name::Expression(_) => None,
            };
            let free = wanted.filter(|place| !taken.contains(&(line, *place)));
            let place = free.unwrap_or_else(|| {
                let way = next.entry((line, key.block.min(MAX_PART))).or_insert(0);
                while *way < MAX_PART && taken.contains(&(line, index(key.block, *way))) {
                    *way += 1;
                }
                index(key.block, *way)
            });
            given.insert((line, key), place);
            place
        });
        taken.insert((line, place));
        branches.push(Branch { line, index: place, taken: count });
    }
    branches
}

fn line(text: Option<&str>, what: &str) -> Result<u32, String> {
    let text = text.unwrap_or_default();
    text::line(text).ok_or_else(|| format!("{what} `{text}` is not from 1 to {}", u32::MAX))
}

/// Functions that a compiler made are at line 0.
fn function_line(text: Option<&str>) -> Result<u32, String> {
    match text {
        Some("0") => Ok(0),
        text => line(text, "a function's line"),
    }
}

fn function_number(text: Option<&str>) -> Result<u32, String> {
    let text = text.unwrap_or_default();
    text.parse().map_err(|_| format!("a function's number `{text}` is no number"))
}

fn count(text: Option<&str>, whose: &str) -> (u64, Result<(), String>) {
    let read = text::count(text.unwrap_or_default());
    (read.value, read.wrong.map_or(Ok(()), |wrong| Err(format!("{whose}'s count {wrong}"))))
}
