//! Functions with offsets as files and lines, from a kernel's and its modules' debug information.
//!
//! The address that a randomised kernel ran at plays no part: a frame is a symbol and an offset. A
//! caller's frame is where its call returns to, so the instruction before it is looked up.

mod image;
mod relocate;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt::Write;

use super::frame::{self, Frame, Role, Symbol};
use super::splat::Splat;

pub use super::frame::Location;
pub use image::{Image, ImageError};

/// So many places are remembered.
const MAX_KNOWN: usize = 1 << 17;

/// Finds the source of frames.
#[derive(Debug)]
pub struct Decoder {
    kernel: Image,
    modules: HashMap<String, Option<Image>>,
    /// The kernel's source directory as its compiler saw it, with a slash at its end.
    root: String,
    known: HashMap<Key, Vec<Location>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    module: Option<String>,
    symbol: String,
    offset: u64,
    size: Option<u64>,
    returns: bool,
}

/// A frame that is asked for.
struct Query<'a> {
    module: Option<&'a str>,
    symbol: &'a str,
    offset: u64,
    size: Option<u64>,
    role: Role,
}

impl Decoder {
    /// A decoder for a kernel's own functions.
    pub fn new(kernel: Image) -> Decoder {
        let mut decoder =
            Decoder { kernel, modules: HashMap::new(), root: String::new(), known: HashMap::new() };
        decoder.root = decoder.find_root().unwrap_or_default();
        decoder
    }

    /// The kernel.
    pub fn kernel(&self) -> &Image {
        &self.kernel
    }

    /// Adds a module, under its name in the log. `None`: there is no file for it.
    pub fn add_module(&mut self, name: &str, image: Option<Image>) {
        self.modules.insert(name.replace('-', "_"), image);
    }

    /// Whether nothing is known about a module yet.
    pub fn lacks(&self, module: &str) -> bool {
        !self.modules.contains_key(&module.replace('-', "_"))
    }

    /// The modules that a line's frames are in.
    pub fn modules_of(line: &str) -> Vec<&str> {
        symbols(line).into_iter().filter_map(|symbol| symbol.module).collect()
    }

    /// Where a frame is: the innermost inlined function first, the symbol's own last. Empty when the
    /// file does not know.
    pub fn locate(&mut self, frame: &Frame) -> Vec<Location> {
        let Some(offset) = frame.offset else { return Vec::new() };
        self.look_up(&Query {
            module: frame.module.as_deref(),
            symbol: &frame.symbol,
            offset,
            size: frame.size,
            role: frame.role,
        })
    }

    /// Puts the places into all frames of a report, and into its lines.
    pub fn decode(&mut self, splat: &mut Splat) {
        for frame in splat.traces.iter_mut().flat_map(|trace| &mut trace.frames) {
            frame.locations = self.locate(frame);
        }
        splat.lines = splat.lines.iter().flat_map(|line| self.decode_line(line)).collect();
    }

    /// A line with the places behind its functions. Inlined functions come before it on lines of
    /// their own, as if they had been called.
    pub fn decode_line(&mut self, line: &str) -> Vec<String> {
        let role = frame::parse(line).map(|frame| frame.role);
        let found = symbols(line);
        let mut lines = Vec::new();
        let mut decoded = String::with_capacity(line.len());
        let mut done = 0;
        for symbol in &found {
            let role = role.unwrap_or(if line.contains("WARNING: ") {
                Role::Instruction
            } else {
                Role::Call
            });
            let locations = self.look_up(&Query {
                module: symbol.module,
                symbol: symbol.name,
                offset: symbol.offset,
                size: Some(symbol.size),
                role,
            });
            let Some((own, inlined)) = locations.split_last() else { continue };
            if let [_] = found.as_slice() {
                let indent = &line[..line.len() - line.trim_start().len()];
                lines.extend(inlined.iter().filter_map(|place| {
                    let function = place.function.as_deref()?;
                    Some(format!("{indent}{function} ({}) [inline]", place.place()?))
                }));
            }
            if let Some(place) = own.place() {
                decoded.push_str(&line[done..symbol.end]);
                let _ = write!(decoded, " ({place})");
                done = symbol.end;
            }
        }
        decoded.push_str(&line[done..]);
        lines.push(decoded);
        lines
    }

    fn look_up(&mut self, query: &Query<'_>) -> Vec<Location> {
        let returns = matches!(query.role, Role::Call | Role::Guess | Role::Link);
        let key = Key {
            module: query.module.map(|name| name.replace('-', "_")),
            symbol: query.symbol.to_owned(),
            offset: query.offset,
            size: query.size,
            returns,
        };
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let found = self.search(&key);
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        self.known.insert(key, found.clone());
        found
    }

    fn search(&self, key: &Key) -> Vec<Location> {
        let image = match &key.module {
            None => Some(&self.kernel),
            Some(name) => self.modules.get(name).and_then(Option::as_ref),
        };
        let address = image
            .and_then(|image| Some((image, image.address(&key.symbol, key.offset, key.size)?)));
        let Some((image, address)) = address else { return Vec::new() };
        // A function's first byte is no place to return to.
        let back = u64::from(key.returns && key.offset > 0);
        let mut locations = image.locations(address - back);
        for location in &mut locations {
            if let Some(file) = &mut location.file
                && let Some(short) = file.strip_prefix(&self.root)
            {
                *file = short.to_owned();
            }
        }
        locations
    }

    /// Every kernel has a `start_kernel`, in `init/main.c`.
    fn find_root(&self) -> Option<String> {
        let address = self.kernel.address("start_kernel", 0, None)?;
        let locations = self.kernel.locations(address);
        let file = locations.last()?.file.as_deref()?;
        file.strip_suffix("init/main.c").map(str::to_owned)
    }
}

fn symbols(line: &str) -> Vec<Symbol<'_>> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(symbol) = frame::symbol(line, from) {
        from = symbol.end;
        found.push(symbol);
    }
    found
}
