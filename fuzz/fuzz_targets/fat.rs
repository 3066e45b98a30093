//! Any tree is an image that the crate `fatfs` reads back as the same tree, or an error.
#![no_main]

use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use vmtest::formats::fat::{DirId, Disk, Image, Tree};

#[derive(Arbitrary, Debug)]
struct Entry {
    /// Which of the directories there are so far it lies in.
    parent: u8,
    name: Name,
    modified: i64,
    kind: Kind,
}

#[derive(Arbitrary, Debug)]
enum Name {
    Text(String),
    /// A letter, a number and an ending: names whose short names collide.
    Numbered(char, u16, bool),
    Long(char, u8),
    Bytes(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
enum Kind {
    Dir,
    File(u16, u8),
    /// Of a size that is not what it says.
    Claims(u64),
}

impl Name {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Name::Text(text) => text.clone().into_bytes(),
            Name::Numbered(c, n, true) => format!("{c}{c}{c}{c}{c}{c}{n}.{c}").into_bytes(),
            Name::Numbered(c, n, false) => format!("{c}~{n}").into_bytes(),
            Name::Long(c, len) => c.to_string().repeat(usize::from(*len) + 1).into_bytes(),
            Name::Bytes(bytes) => bytes.clone(),
        }
    }
}

type Content = BTreeMap<String, Option<Vec<u8>>>;

fuzz_target!(|input: (bool, Vec<Entry>)| {
    let (partitioned, entries) = input;
    let mut tree = Tree::new();
    let mut dirs = vec![(DirId::ROOT, String::new())];
    let mut content = Content::new();
    let mut honest = true;
    for Entry { parent, name, modified, kind } in &entries {
        let (parent, above) = dirs[usize::from(*parent) % dirs.len()].clone();
        let name = name.bytes();
        let path = format!("{above}/{}", String::from_utf8_lossy(&name));
        match kind {
            Kind::Dir => {
                dirs.push((tree.add_dir(parent, name, *modified), path.clone()));
                content.insert(path, None);
            }
            Kind::File(size, fill) => {
                let body = vec![*fill; usize::from(*size)];
                tree.add_file(parent, name, *modified, body.len() as u64, body.clone());
                content.insert(path, Some(body));
            }
            Kind::Claims(size) => {
                honest &= *size == 0;
                tree.add_file(parent, name, *modified, *size, Vec::new());
                content.insert(path, Some(Vec::new()));
            }
        }
    }
    let disk = if partitioned { Disk::Partitioned } else { Disk::Whole };
    let image = match Image::plan(tree, disk) {
        Ok(image) => image,
        Err(unstorable) => {
            assert!(!unstorable.problems.is_empty());
            let text = unstorable.to_string();
            assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
            return;
        }
    };
    if image.bytes() > 64 << 20 {
        return;
    }
    let mut bytes = Vec::new();
    let written = image.write(&mut bytes, |body| Ok(Cursor::new(body.clone())));
    assert_eq!(written.is_ok(), honest);
    if !honest {
        return;
    }
    assert_eq!(bytes.len() as u64, image.bytes());
    let start = if partitioned { 1 << 20 } else { 0 };
    assert_eq!(read_back(&mut bytes[start..]), content);
});

fn read_back(bytes: &mut [u8]) -> Content {
    let fs = fatfs::FileSystem::new(Cursor::new(bytes), fatfs::FsOptions::new()).unwrap();
    let mut content = Content::new();
    let mut pending = vec![(String::new(), fs.root_dir())];
    while let Some((above, dir)) = pending.pop() {
        for entry in dir.iter() {
            let entry = entry.unwrap();
            let name = entry.file_name();
            if name == "." || name == ".." {
                continue;
            }
            let path = format!("{above}/{name}");
            if entry.is_dir() {
                content.insert(path.clone(), None);
                pending.push((path, entry.to_dir()));
            } else {
                let mut body = Vec::new();
                entry.to_file().read_to_end(&mut body).unwrap();
                content.insert(path, Some(body));
            }
        }
    }
    content
}
