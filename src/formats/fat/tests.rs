//! Images read back by the crate `fatfs`, which shares no code and no author with ours.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

/// Path to content; `None` for directories.
type Content = BTreeMap<String, Option<Vec<u8>>>;

type Bytes = Vec<u8>;

/// A tree with these files and directories; parents are added where they are missing.
fn tree_of(content: &Content) -> Tree<Bytes> {
    let mut tree = Tree::new();
    let mut dirs: HashMap<String, DirId> = HashMap::new();
    dirs.insert(String::new(), DirId::ROOT);
    fn dir_of(path: &str, tree: &mut Tree<Bytes>, dirs: &mut HashMap<String, DirId>) -> DirId {
        if let Some(id) = dirs.get(path) {
            return *id;
        }
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = dir_of(parent, tree, dirs);
        let id = tree.add_dir(parent, name, 0);
        dirs.insert(path.to_owned(), id);
        id
    }
    for (path, body) in content {
        match body {
            None => {
                dir_of(path, &mut tree, &mut dirs);
            }
            Some(body) => {
                let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
                let parent = dir_of(parent, &mut tree, &mut dirs);
                tree.add_file(parent, name, 1_700_000_001, body.len() as u64, body.clone());
            }
        }
    }
    tree
}

fn written(image: &Image<Bytes>) -> Vec<u8> {
    let mut out = Vec::new();
    image.write(&mut out, |body| Ok(Cursor::new(body.clone()))).unwrap();
    assert_eq!(out.len() as u64, image.bytes());
    out
}

fn image_of(content: &Content, disk: Disk) -> Image<Bytes> {
    Image::plan(tree_of(content), disk).unwrap()
}

/// What another reader finds in an image.
fn read_back<D: Read + Write + Seek>(disk: D) -> Content {
    let fs = fatfs::FileSystem::new(disk, fatfs::FsOptions::new()).unwrap();
    assert_eq!(fs.volume_label(), "VMTEST");
    assert_eq!(fs.read_volume_label_from_root_dir().unwrap().as_deref(), Some("VMTEST"));
    let mut content = Content::new();
    let mut pending = vec![(String::new(), fs.root_dir())];
    while let Some((path, dir)) = pending.pop() {
        for entry in dir.iter() {
            let entry = entry.unwrap();
            let name = entry.file_name();
            if name == "." || name == ".." {
                continue;
            }
            let path = if path.is_empty() { name } else { format!("{path}/{name}") };
            if entry.is_dir() {
                content.insert(path.clone(), None);
                pending.push((path, entry.to_dir()));
            } else {
                let mut body = Vec::new();
                entry.to_file().read_to_end(&mut body).unwrap();
                assert_eq!(body.len() as u64, entry.len());
                content.insert(path, Some(body));
            }
        }
    }
    content
}

fn some(bytes: &[u8]) -> Option<Vec<u8>> {
    Some(bytes.to_vec())
}

#[test]
fn an_empty_tree_is_a_file_system() {
    for disk in [Disk::Whole, Disk::Partitioned] {
        let image = image_of(&Content::new(), disk);
        assert_eq!(image.kind(), FatKind::Fat12);
        let start = if disk == Disk::Whole { 0 } else { 1 << 20 };
        assert_eq!(read_back(Cursor::new(&mut written(&image)[start..])), Content::new());
    }
}

#[test]
fn the_partition_table_describes_the_partition() {
    let bytes = written(&image_of(&Content::from([("a".into(), some(b"x"))]), Disk::Partitioned));
    assert_eq!(&bytes[510..512], [0x55, 0xaa]);
    let entry = &bytes[446..462];
    let word = |at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().unwrap());
    assert_eq!(entry[4], 0x01);
    assert_eq!(word(8), 2048);
    assert_eq!((word(8) + word(12)) as usize * 512, bytes.len());
    assert_eq!(bytes[462..510], [0; 48], "there is one partition");
    // Head, sector, cylinder of sector 2048 on a disk of 255 heads and 63 sectors a track.
    assert_eq!(entry[1..4], [32, 33, 0]);
    // The file system knows where it is.
    assert_eq!(bytes[(1 << 20) + 28..][..4], 2048_u32.to_le_bytes());
}

#[test]
fn names_of_all_kinds_are_read_back() {
    let long = "x".repeat(255);
    let wide = "😀".repeat(127);
    let mut content = Content::new();
    for name in [
        "a",
        "A b",
        "README",
        "readme.txt",
        ".hidden",
        "..x",
        " leading",
        "aux",
        "con.txt",
        "[a];+=,",
        "thirteen unit",
        "fourteen units",
        "日本語.テキスト",
        "naïve",
        "z😀z",
        "a~1",
        "abcdefg~1.txt",
        "abcdefgh1.txt",
        "abcdefgh2.txt",
        "~",
        "no.dots.but.many",
        "\u{7f}",
        &long,
        &wide,
    ] {
        content.insert(name.to_owned(), some(name.as_bytes()));
    }
    content.insert("empty dir".into(), None);
    content.insert("empty file".into(), some(b""));
    content.insert("d".into(), None);
    content.insert("d/d".into(), None);
    content.insert("d/d/d".into(), some(&[7; 9000]));
    let bytes = written(&image_of(&content, Disk::Whole));
    assert_eq!(read_back(Cursor::new(bytes)), content);
}

#[test]
fn every_size_around_a_cluster_is_read_back() {
    let content: Content = [0, 1, 511, 512, 513, 4095, 4096, 4097, 8191, 8192, 300_000]
        .into_iter()
        .map(|size: usize| (size.to_string(), Some((0..size).map(|i| (i % 251) as u8).collect())))
        .collect();
    let bytes = written(&image_of(&content, Disk::Whole));
    assert_eq!(read_back(Cursor::new(bytes)), content);
}

#[test]
fn the_bytes_do_not_depend_on_the_order_of_adding() {
    let names: Vec<String> = (0..200).map(|i| format!("some name {i}")).collect();
    let image = |names: &mut dyn Iterator<Item = &String>| {
        let mut tree = Tree::new();
        let dirs: Vec<_> =
            names.map(|name| (name, tree.add_dir(DirId::ROOT, &name[..], 0))).collect();
        for (name, dir) in dirs.iter().rev() {
            tree.add_file(*dir, &name[5..], 5, 3, b"abc".to_vec());
        }
        written(&Image::plan(tree, Disk::Partitioned).unwrap())
    };
    assert!(image(&mut names.iter()) == image(&mut names.iter().rev()));
}

#[test]
fn all_that_is_wrong_is_listed_at_once() {
    let mut tree = Tree::new();
    let d = tree.add_dir(DirId::ROOT, "d", 0);
    for name in ["a:b", "ok", "x.", "Readme", "README", "readme", "tab\t"] {
        tree.add_file(d, name, 0, 0, ());
    }
    tree.add_file(d, b"\xff\xfe".to_vec(), 0, 0, ());
    tree.add_file(d, "é".repeat(256), 0, 0, ());
    tree.add_file(d, "big", 0, 1 << 32, ());
    tree.add_file(d, "biggest that fits", 0, (1 << 32) - 1, ());
    tree.add_dir(d, "D ", 0);
    let err = Image::plan(tree, Disk::Partitioned).unwrap_err();
    let long = "é".repeat(256);
    assert_eq!(
        err.to_string().lines().collect::<Vec<_>>(),
        [
            "9 things cannot be stored on vfat:",
            "  `d/D `: the name ends in a blank",
            "  `d/Readme`: is the same name as `d/README` without regard to case",
            "  `d/a:b`: the name contains `:`, which vfat reserves",
            "  `d/big`: the file has 4294967296 bytes; vfat allows 4294967295",
            "  `d/readme`: is the same name as `d/README` without regard to case",
            "  `d/tab\\t`: the name contains `\\t`, which vfat reserves",
            "  `d/x.`: the name ends in a dot",
            &format!("  `d/{long}`: the name has 256 UTF-16 units; vfat allows 255"),
            "  `d/\\xff\\xfe`: the name is not UTF-8",
        ]
    );
    assert!(err.hint().contains("--share"));
}

#[test]
fn one_problem_takes_one_line() {
    let mut tree = Tree::new();
    tree.add_file(DirId::ROOT, "a?", 0, 0, ());
    let err = Image::plan(tree, Disk::Partitioned).unwrap_err();
    assert_eq!(
        err.to_string(),
        "cannot be stored on vfat: `a?`: the name contains `?`, which vfat reserves"
    );
}

#[test]
fn directories_hold_65536_records_and_not_one_more() {
    let image = |entries: usize, sub: bool| {
        let mut tree = Tree::new();
        let dir = if sub { tree.add_dir(DirId::ROOT, "sub", 0) } else { DirId::ROOT };
        for i in 0..entries {
            // Two records each.
            tree.add_file(dir, format!("{i:06}"), 0, 0, Vec::new());
        }
        Image::plan(tree, Disk::Whole)
    };
    // The root takes a record for its label, others two for `.` and `..`.
    assert_eq!(read_back(Cursor::new(written(&image(32_759, false).unwrap()))).len(), 32_759);
    assert_eq!(image(32_767, true).unwrap().kind(), FatKind::Fat12);
    for (entries, sub, text) in [
        (32_768, true, "`sub`: the directory needs 65538 records for its 32768 names"),
        (32_768, false, "cannot be stored on vfat: the directory needs 65537 records"),
    ] {
        let err = image(entries, sub).unwrap_err();
        assert!(err.to_string().contains(text), "{err}");
    }
    // A root of more records than FAT16 can have makes it FAT32.
    assert_eq!(image(32_760, false).unwrap().kind(), FatKind::Fat32);
}

#[test]
fn many_entries_take_little_time() {
    let start = Instant::now();
    let mut tree: Tree<Bytes> = Tree::new();
    for i in 0..200_000 {
        tree.add_file(DirId::ROOT, format!("file with a long name {i}"), 0, 0, Vec::new());
    }
    let err = Image::plan(tree, Disk::Whole).unwrap_err();
    assert!(err.to_string().contains("its 200000 names"), "{err}");
    // Generous: a quadratic search would take minutes.
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn deep_trees_do_not_overflow_the_stack() {
    let mut tree = Tree::new();
    let mut dir = DirId::ROOT;
    for _ in 0..20_000 {
        dir = tree.add_dir(dir, "d", 0);
    }
    tree.add_file(dir, "f", 0, 1, b"x".to_vec());
    let image = Image::plan(tree, Disk::Whole).unwrap();
    let mut disk = Sparse::default();
    image.write(&mut disk, |body| Ok(Cursor::new(body.clone()))).unwrap();
    assert_eq!(disk.len, image.bytes());
}

#[test]
fn a_body_of_another_size_is_an_error() {
    let mut tree = Tree::new();
    tree.add_file(DirId::ROOT, "f", 0, 3, b"abc".to_vec());
    let image = Image::plan(tree, Disk::Whole).unwrap();
    let write = |body: &'static [u8]| {
        image.write(&mut io::sink(), |_| Ok(body)).map_err(|err| err.to_string())
    };
    assert_eq!(write(b"xyz"), Ok(()));
    assert_eq!(write(b"xy"), Err("`f` has 2 bytes instead of the 3 it had at first".into()));
    assert_eq!(write(b"wxyz"), Err("`f` has more than the 3 bytes it had at first".into()));
    let err = image
        .write(&mut io::sink(), |_| Err::<&[u8], _>(io::ErrorKind::PermissionDenied.into()))
        .unwrap_err();
    assert_eq!(err.to_string(), "cannot read `f`");
    assert!(std::error::Error::source(&err).is_some());
    let mut small = [0; 4096];
    let err = image.write(&mut &mut small[..], |body| Ok(Cursor::new(body.clone()))).unwrap_err();
    assert!(matches!(err, WriteError::Output(_)));
}

/// Each kind, with files of zeros that take no memory: the image is kept as its pages that are not
/// zero.
#[test]
fn all_three_kinds_are_read_back_beyond_2_gib() {
    for (kind, zeros) in [
        (FatKind::Fat12, 1 << 20),
        (FatKind::Fat16, 20 << 20),
        (FatKind::Fat16, 255 << 20),
        (FatKind::Fat32, 256 << 20),
        (FatKind::Fat32, 2_200_u64 << 20),
    ] {
        let mut tree = Tree::new();
        let root = DirId::ROOT;
        tree.add_file(root, "first", 0, 5, (0, "first"));
        let sub = tree.add_dir(root, "sub", 0);
        tree.add_file(sub, "large file of zeros", 0, zeros + 4, (zeros, "last"));
        tree.add_file(sub, "the last one", 0, 4, (0, "tail"));
        let image = Image::plan(tree, Disk::Whole).unwrap();
        assert_eq!(image.kind(), kind, "{zeros}");
        let mut disk = Sparse::default();
        image
            .write(&mut disk, |(zeros, text)| Ok(io::repeat(0).take(*zeros).chain(text.as_bytes())))
            .unwrap();
        assert_eq!(disk.len, image.bytes());

        disk.position = 0;
        let fs = fatfs::FileSystem::new(disk, fatfs::FsOptions::new()).unwrap();
        let expected = match kind {
            FatKind::Fat12 => fatfs::FatType::Fat12,
            FatKind::Fat16 => fatfs::FatType::Fat16,
            FatKind::Fat32 => fatfs::FatType::Fat32,
        };
        assert_eq!(fs.fat_type(), expected);
        let text = |path: &str| {
            let mut text = String::new();
            fs.root_dir().open_file(path).unwrap().read_to_string(&mut text).unwrap();
            text
        };
        assert_eq!(text("first"), "first");
        assert_eq!(text("sub/the last one"), "tail");
        if kind != FatKind::Fat32 || zeros < 1 << 30 {
            let mut large = fs.root_dir().open_file("sub/large file of zeros").unwrap();
            large.seek(SeekFrom::End(-5)).unwrap();
            let mut end = Vec::new();
            large.read_to_end(&mut end).unwrap();
            assert_eq!(end, b"\0last");
        }
    }
}

/// A disk of which only pages with something in them are kept.
#[derive(Debug, Default)]
struct Sparse {
    pages: HashMap<u64, Box<[u8; PAGE]>>,
    len: u64,
    position: u64,
}

const PAGE: usize = 4096;

impl Write for Sparse {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let at = (self.position % PAGE as u64) as usize;
        let part = &bytes[..bytes.len().min(PAGE - at)];
        let page = self.position / PAGE as u64;
        if self.pages.contains_key(&page) || *part != [0; PAGE][..part.len()] {
            let page = self.pages.entry(page).or_insert_with(|| Box::new([0; PAGE]));
            page[at..at + part.len()].copy_from_slice(part);
        }
        self.position += part.len() as u64;
        self.len = self.len.max(self.position);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Sparse {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let at = (self.position % PAGE as u64) as usize;
        let len = buffer.len().min(PAGE - at).min((self.len - self.position) as usize);
        match self.pages.get(&(self.position / PAGE as u64)) {
            Some(page) => buffer[..len].copy_from_slice(&page[at..at + len]),
            None => buffer[..len].fill(0),
        }
        self.position += len as u64;
        Ok(len)
    }
}

impl Seek for Sparse {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::Current(by) => self.position.saturating_add_signed(by),
            SeekFrom::End(by) => self.len.saturating_add_signed(by),
        };
        Ok(self.position)
    }
}

/// Names that may meet in one directory: few letters, so that short names collide.
fn any_name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-c]{1,9}(\\.[a-c]{1,4})?",
        "[ a-b.~1]{1,14}",
        "[^\"*/:<>?\\\\|\\x00-\\x1f]{1,20}",
        "[é日😀x]{1,70}",
    ]
    .prop_filter("a name vfat can hold", |name| names::check(name.as_bytes()).is_ok())
}

fn any_content() -> impl Strategy<Value = Content> {
    let path = prop::collection::vec(any_name(), 1..4);
    let body = prop_oneof![
        1 => Just(None),
        3 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Some),
        1 => (0_usize..20_000, any::<u8>()).prop_map(|(len, fill)| Some(vec![fill; len])),
    ];
    prop::collection::vec((path, body), 0..40).prop_map(|entries| {
        // The first of several that cannot be together stays.
        let mut content = Content::new();
        let mut seen: HashMap<String, bool> = HashMap::new();
        'entries: for (path, body) in entries {
            let mut prefixes = Vec::new();
            for i in 1..=path.len() {
                let prefix = path[..i].join("/");
                let is_dir = i < path.len() || body.is_none();
                match seen.get(&names::folded(&prefix)) {
                    Some(true) if is_dir && content.contains_key(&prefix) => {}
                    Some(_) => continue 'entries,
                    None => prefixes.push((prefix, is_dir)),
                }
            }
            for (prefix, is_dir) in prefixes {
                seen.insert(names::folded(&prefix), is_dir);
                content.insert(prefix, if is_dir { None } else { body.clone() });
            }
        }
        content
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn any_tree_is_read_back(content in any_content()) {
        let bytes = written(&image_of(&content, Disk::Whole));
        prop_assert_eq!(read_back(Cursor::new(bytes)), content);
    }
}

proptest! {
    #[test]
    fn any_names_are_an_image_or_an_error_about_each(names in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5), 0..12)) {
        let mut tree = Tree::new();
        for name in &names {
            tree.add_file(DirId::ROOT, name.clone(), 0, 0, Vec::new());
        }
        match Image::plan(tree, Disk::Whole) {
            Ok(image) => prop_assert_eq!(read_back(Cursor::new(written(&image))).len(), names.len()),
            Err(err) => {
                prop_assert!(err.problems.len() <= names.len());
                prop_assert!(!err.to_string().contains('\0'));
            }
        }
    }
}
