//! Images: what goes in, what comes out, what is refused. `docs/images.md` maps its tables to these
//! tests; `every_row_has_its_test` keeps the map honest.

mod boot;
mod build;
mod cli;
mod formats;
mod manners;
mod nasty;
mod peers;
mod uroot;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use vmtest::arch::Arch;
use vmtest::formats::cpio::{Member, Reader, S_IFLNK};
use vmtest::initramfs::{Image, ImageSpec, Problems};

/// A builder for whatever machine this is.
fn builder() -> ImageSpec {
    ImageSpec::new(Arch::host().unwrap_or(Arch::Amd64))
}

/// An archive as a file, for as long as it is kept.
fn on_disk(archive: impl AsRef<[u8]>) -> tempfile::TempPath {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, archive.as_ref()).unwrap();
    file.into_temp_path()
}

fn finish(builder: &ImageSpec) -> Image {
    builder.finish().unwrap_or_else(|problems| panic!("{problems}"))
}

fn archive(builder: &ImageSpec) -> Vec<u8> {
    let mut out = Vec::new();
    finish(builder).write_to(&mut out).unwrap_or_else(|problems| panic!("{problems}"));
    out
}

fn problems(builder: &ImageSpec) -> Problems {
    builder.finish().expect_err("an image that cannot be made")
}

/// Asserts that there is exactly one problem, with all these words in it or its hint.
#[track_caller]
fn refused(builder: &ImageSpec, words: &[&str]) {
    let problems = problems(builder);
    let text = format!("{problems}\n{}", problems.hints().join("\n"));
    assert_eq!(problems.iter().count(), 1, "{text}");
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}

/// All members with their bodies (links: texts), by path.
fn members(archive: &[u8]) -> BTreeMap<String, (Member, Vec<u8>)> {
    let mut reader = Reader::new(archive);
    let mut members = BTreeMap::new();
    while let Some(member) = reader.next_member().unwrap() {
        let mut body = Vec::new();
        if member.file_type() == S_IFLNK {
            body = reader.link_target().unwrap();
        } else {
            reader.body().read_to_end(&mut body).unwrap();
        }
        let name = member.name.escape_ascii().to_string();
        assert!(members.insert(name.clone(), (member, body)).is_none(), "{name} is there twice");
    }
    members
}

fn paths(archive: &[u8]) -> Vec<String> {
    let mut reader = Reader::new(archive);
    let mut paths = Vec::new();
    while let Some(member) = reader.next_member().unwrap() {
        paths.push(member.name.escape_ascii().to_string());
    }
    paths
}

fn temp() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn write(dir: &Path, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, content).unwrap();
    path
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn every_row_has_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/images.md")).unwrap();
    // Rows end in a cell of test names: `file::name`.
    let mut rows = 0;
    let mut numbers = Vec::new();
    let mut in_map = false;
    for line in text.lines() {
        if line.starts_with("## ") {
            in_map = line.contains("→ test");
        }
        if !in_map || !line.starts_with('|') || line.starts_with("|---") || line.contains("| test")
        {
            continue;
        }
        rows += 1;
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        numbers.extend(cells[0].parse::<u32>());
        let names: Vec<&str> = cells[cells.len() - 1].split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test in: {line}");
        for name in names {
            let (file, test) = name.rsplit_once("::").unwrap_or_else(|| panic!("{name}"));
            let source = std::fs::read_to_string(root.join(file))
                .unwrap_or_else(|err| panic!("{file}: {err}"));
            assert!(source.contains(&format!("fn {test}(")), "{file} has no test `{test}`");
        }
    }
    assert!(rows > 60, "only {rows} rows");
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=25).collect::<Vec<_>>(), "the nasty inputs");
}
