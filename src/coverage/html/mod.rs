//! The report for people: static pages without scripts and without anything from a network.
//!
//! | page | shows |
//! |---|---|
//! | `index.html` | sums by architecture, the tests, all directories |
//! | `DIR/index.html` | the files of a directory |
//! | `DIR/FILE.src.html` | functions and source lines, with a column of counts for each architecture |
//!
//! Pages are made beside their place and moved there as a whole; a report that is there already is
//! replaced, any other directory is left alone.

mod page;
mod source;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::collect::in_parallel;
use super::model::Coverage;
use super::table::{Row, Totals, common_root, directory};
use super::tools::Cancel;
use page::{INDEX, Link, MARK, Page, STYLE, Site};

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something else is there.
    #[error("{} exists and is no report of vmtest's", path.display())]
    Occupied {
        /// Where the report was to be.
        path: PathBuf,
    },
    /// [`Cancel`]. Nothing was written.
    #[error("interrupted")]
    Cancelled,
    /// It cannot be written.
    #[error("cannot write the report {}", path.display())]
    Write {
        /// Where the report was to be.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Error::Occupied { .. } => Some("remove it, or name another directory"),
            Error::Write { .. } => Some("is the directory writable, and is there room?"),
            Error::Cancelled => None,
        }
    }
}

/// Writes the report to `dest`, at once or not at all.
///
/// # Errors
/// The directory cannot be written, or holds something else than a report; or it was cancelled.
pub fn write(
    coverage: &Coverage,
    totals: &Totals,
    dest: &Path,
    cancel: &Cancel,
) -> Result<(), Error> {
    let fail = |source| Error::Write { path: dest.to_owned(), source };
    let occupied = match fs::read_dir(dest) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(fail(error)),
    };
    if occupied && !dest.join(MARK).is_file() {
        return Err(Error::Occupied { path: dest.to_owned() });
    }
    // Of a link, what it points to is replaced.
    let full = fs::canonicalize(dest).or_else(|_| std::path::absolute(dest)).map_err(fail)?;
    let parent = full.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(fail)?;
    let made = tempfile::Builder::new()
        .prefix(".vmtest-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir_in(parent)
        .map_err(fail)?;
    pages(coverage, totals, made.path(), cancel).map_err(fail)?;
    if cancel.is_cancelled() {
        return Err(Error::Cancelled);
    }
    publish(made, &full).map_err(fail)
}

/// Moves the finished directory to its place; what was there is removed.
fn publish(made: tempfile::TempDir, dest: &Path) -> io::Result<()> {
    if fs::symlink_metadata(dest).is_err() {
        fs::rename(made.path(), dest)?;
        // Nothing is left to remove.
        let _ = made.keep();
        return Ok(());
    }
    let exchanged = renameat_with(CWD, made.path(), CWD, dest, RenameFlags::EXCHANGE);
    match exchanged {
        Ok(()) => made.close(),
        // File systems that cannot exchange: for a moment there is none.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            fs::remove_dir_all(dest)?;
            fs::rename(made.path(), dest)?;
            let _ = made.keep();
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// One page to write.
enum Job<'a> {
    Directory(&'a str, Vec<&'a str>),
    File(&'a str),
}

fn pages(coverage: &Coverage, totals: &Totals, dest: &Path, cancel: &Cancel) -> io::Result<()> {
    let root = common_root(coverage.files.keys().map(String::as_str));
    let site = Site::new(coverage, totals, root, cancel);
    fs::write(dest.join(STYLE), include_str!("style.css"))?;
    fs::write(dest.join(MARK), "")?;
    let mut directories: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for path in coverage.files.keys() {
        directories.entry(directory(path)).or_default().push(path);
    }
    for path in directories.keys() {
        fs::create_dir_all(dest.join(site.directory_at(path)))?;
    }
    fs::write(dest.join(INDEX), index(&site, &directories))?;
    let failed = std::sync::Mutex::new(None);
    let jobs = std::thread::available_parallelism().map_or(2, usize::from).min(8);
    let write = |job: Job<'_>| {
        if cancel.is_cancelled() {
            return;
        }
        let (at, text) = match job {
            Job::Directory(path, files) => {
                (site.directory_at(path) + INDEX, directory_page(&site, path, &files))
            }
            Job::File(path) => (site.file_at(path), source::page(&site, path)),
        };
        if let Err(error) = fs::write(dest.join(at), text) {
            failed.lock().unwrap_or_else(|err| err.into_inner()).get_or_insert(error);
        }
    };
    in_parallel(
        jobs,
        |send| {
            for (path, files) in &directories {
                let files_of = files.iter().map(|file| Job::File(file));
                // The root's own page is the index.
                let own = (!site.directory_at(path).is_empty())
                    .then(|| Job::Directory(path, files.clone()));
                for job in own.into_iter().chain(files_of) {
                    let _ = send.send(job);
                }
            }
        },
        write,
    );
    match failed.into_inner().unwrap_or_else(|err| err.into_inner()) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// The first page.
fn index(site: &Site<'_>, directories: &BTreeMap<&str, Vec<&str>>) -> String {
    let mut page = Page::new("", "Coverage", &[]);
    page.raw("<p class=note>");
    page.text(&format!("{} files in {}", site.coverage.files.len(), site.shown_directory("")));
    page.raw("</p>");
    page.cards(site);
    tests(&mut page, site);
    let rows = directories.keys().map(|path| {
        let at = site.directory_at(path);
        let href = if at.is_empty() { "#files".to_owned() } else { at + INDEX };
        (Link { href, text: site.shown_directory(path) }, &site.totals.directories[*path])
    });
    page.heading("Directories");
    page.list("Directory", site, rows.collect());
    let own = directories.iter().find(|(path, _)| site.directory_at(path).is_empty());
    if let Some((_, files)) = own {
        page.raw("<div id=files></div>");
        page.heading("Files");
        page.list("File", site, file_rows(site, files, ""));
    }
    page.finish()
}

/// Name, architecture and verdict of the tests, and what is missing of them.
fn tests(page: &mut Page, site: &Site<'_>) {
    let tests = &site.coverage.tests;
    let open = if tests.len() > 12 { "" } else { " open" };
    page.raw(&format!("<details{open}><summary>{} tests</summary><div class=scroll>", tests.len()));
    page.raw(
        "<table class=list><thead><tr><th>Test<th>Architecture<th>Verdict<th class=n>Files\
         <th class=n>Lines hit<th>Missing</thead><tbody>",
    );
    let mut sums = vec![(0u64, 0u64); tests.len()];
    for (test, file) in site.coverage.files.values().flatten() {
        sums[test.0].0 += 1;
        sums[test.0].1 += file.summary().lines.hit;
    }
    for (test, (files, hit)) in tests.iter().zip(sums) {
        page.raw("<tr><td class=path>");
        page.text(&test.name);
        page.raw("<td>");
        page.text(&test.arch);
        let verdict = test.verdict.as_deref().unwrap_or("unknown");
        page.raw(match verdict {
            "passed" => "<td class=good>",
            "unknown" => "<td>",
            _ => "<td class=bad>",
        });
        page.text(verdict);
        page.raw(&format!("<td class=n>{files}<td class=n>{hit}<td class=path>"));
        page.text(&test.missing.join("; "));
    }
    page.raw("</tbody></table></div></details>");
}

fn directory_page(site: &Site<'_>, path: &str, files: &[&str]) -> String {
    let at = site.directory_at(path);
    let up = "../".repeat(at.matches('/').count());
    let title = site.shown_directory(path);
    let home = Link { href: format!("{up}index.html"), text: "Coverage".into() };
    let mut page = Page::new(&up, &title, &[home]);
    page.cards_of(site, &site.totals.directories[path]);
    page.heading("Files");
    page.list("File", site, file_rows(site, files, &at));
    page.finish()
}

/// The rows of files, for a page in the directory `at`.
fn file_rows<'a>(site: &'a Site<'_>, files: &[&str], at: &str) -> Vec<(Link, &'a Row)> {
    let row = |path: &&str| {
        let page = site.file_at(path);
        let href = page.strip_prefix(at).unwrap_or(&page).to_owned();
        let text = path.rsplit('/').next().unwrap_or(path).to_owned();
        (Link { href, text }, &site.totals.files[*path])
    };
    files.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coverage::model::tests::lines;

    fn sample(dir: &Path) -> Coverage {
        fs::write(dir.join("a b<&>.c"), b"int x;\n\tif (a < b && \"c\")\n\xff\n</table>\n")
            .unwrap();
        let mut coverage = Coverage::default();
        let amd64 = coverage.test("boot <1>", "amd64");
        let arm = coverage.test("boot", "arm");
        let path = dir.join("a b<&>.c").to_string_lossy().into_owned();
        coverage.add(&path, amd64, lines(&[(2, 1_234_567), (3, 0)]));
        coverage.add(&path, arm, lines(&[(2, 0), (9, 1)]));
        coverage.add("/absent/x~y/../z.c", arm, lines(&[(1, 1)]));
        coverage
    }

    fn make(coverage: &Coverage, dest: &Path) -> Result<(), Error> {
        write(coverage, &Totals::new(coverage), dest, &Cancel::default())
    }

    fn all_pages(dir: &Path) -> Vec<(PathBuf, String)> {
        let entries = walkdir::WalkDir::new(dir).into_iter().flatten();
        let pages = entries.filter(|e| e.path().extension().is_some_and(|e| e == "html"));
        pages.map(|e| (e.path().to_owned(), fs::read_to_string(e.path()).unwrap())).collect()
    }

    #[test]
    fn every_link_leads_somewhere_and_nothing_escapes() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("out/report");
        make(&sample(dir.path()), &dest).unwrap();
        let pages = all_pages(&dest);
        assert_eq!(pages.len(), 5);
        for (path, text) in &pages {
            for part in text.split("href=\"").skip(1) {
                let href = part.split('"').next().unwrap();
                let (file, anchor) = href.split_once('#').unwrap_or((href, ""));
                let target = path.parent().unwrap().join(file);
                assert!(file.is_empty() || target.is_file(), "{href} in {}", path.display());
                if file.is_empty() {
                    assert!(text.contains(&format!("id={anchor}")), "{href}");
                }
            }
            assert!(!text.contains("a b<&>"), "{}", path.display());
            assert!(!text.contains("boot <1>"), "{}", path.display());
            assert!(!text.contains("http"), "no network: {}", path.display());
            assert!(!text.contains("<script"), "{}", path.display());
        }
        let source = pages.iter().find(|(_, text)| text.contains("if (a &lt; b")).unwrap();
        assert!(source.1.contains("&lt;/table&gt;"), "{}", source.1);
        assert!(source.1.contains("boot &lt;1&gt; (amd64): 1234567"), "{}", source.1);
        // It has four lines, and one of the tests counted the ninth.
        let end =
            "colspan=5><p class=warn>The source ends here, and what was counted goes on to line 9:";
        let told: Vec<_> = pages.iter().filter(|(_, text)| text.contains(end)).collect();
        assert_eq!(told, [source]);
    }

    /// The lines' numbers, and what a reader of the page sees of them.
    #[test]
    fn a_line_number_of_any_size_costs_no_time() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("short.c");
        fs::write(&source, "one\ntwo\n").unwrap();
        let path = source.to_string_lossy().into_owned();
        let mut coverage = Coverage::default();
        let test = coverage.test("boot", "arm");
        let far = [(1, 1), (u32::MAX - 1, 0), (u32::MAX, 1)];
        coverage.add(&path, test, lines(&far));
        coverage.add("/absent/x.c", test, lines(&far));
        let begin = std::time::Instant::now();
        make(&coverage, &dir.path().join("report")).unwrap();
        assert!(begin.elapsed() < std::time::Duration::from_secs(2), "{:?}", begin.elapsed());
        let rows = all_pages(&dir.path().join("report"));
        let rows = rows.iter().filter(|(_, text)| text.contains(&format!("id=L{}", u32::MAX)));
        assert_eq!(rows.count(), 2);
    }

    #[test]
    fn a_report_that_is_interrupted_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("report");
        let cancel = Cancel::default();
        cancel.cancel();
        let coverage = sample(dir.path());
        let error = write(&coverage, &Totals::new(&coverage), &dest, &cancel).unwrap_err();
        assert!(matches!(error, Error::Cancelled));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_report_is_replaced_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("report");
        let coverage = sample(dir.path());
        fs::create_dir(&dest).unwrap();
        make(&coverage, &dest).unwrap();
        fs::write(dest.join("old"), "").unwrap();
        make(&coverage, &dest).unwrap();
        assert!(!dest.join("old").exists());
        assert!(dest.join(INDEX).is_file());
        let left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");

        let foreign = dir.path().join("foreign");
        fs::create_dir(&foreign).unwrap();
        fs::write(foreign.join("mine"), "").unwrap();
        assert!(matches!(make(&coverage, &foreign), Err(Error::Occupied { .. })));
        assert!(foreign.join("mine").is_file());
        assert!(matches!(make(&coverage, &foreign.join("mine/x")), Err(Error::Write { .. })));
    }
}
