//! A file's page: its functions, and its lines with a column of counts for each architecture.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};

use crate::coverage::cobertura::Escaped;
use crate::coverage::model::{FileCoverage, TestId};
use crate::coverage::table::directory;

use super::page::{Link, Page, Site};

/// Longer files are generated ones, which nobody reads.
const MAX_SOURCE: u64 = 32 << 20;
/// A line's title names so many tests.
const MAX_TESTS: usize = 12;

/// What the page shows of one file.
struct Columns<'a> {
    /// One for each architecture that has code in the file: its place in the list of all.
    archs: Vec<(usize, &'a str, FileCoverage)>,
    all: FileCoverage,
    /// The tests' own coverage, with what they are called.
    tests: Vec<(TestId, &'a FileCoverage)>,
}

pub(super) fn page(site: &Site<'_>, path: &str) -> String {
    let at = site.file_at(path);
    let up = "../".repeat(at.matches('/').count());
    let home = Link { href: format!("{up}index.html"), text: "Coverage".into() };
    let dir = directory(path);
    let parent = Link { href: "index.html".into(), text: site.shown_directory(dir) };
    let trail = if up.is_empty() { vec![home] } else { vec![home, parent] };
    let mut page = Page::new(&up, path.rsplit('/').next().unwrap_or(path), &trail);
    let tests = &site.coverage.files[path];
    let archs = site.totals.archs.iter().enumerate();
    let columns = Columns {
        archs: archs
            .filter_map(|(at, arch)| {
                Some((at, arch.as_str(), site.coverage.union(tests, Some(arch))?))
            })
            .collect(),
        all: site.coverage.union(tests, None).unwrap_or_default(),
        tests: tests.iter().map(|(test, file)| (*test, file)).collect(),
    };
    page.cards_of(site, &site.totals.files[path]);
    functions(&mut page, &columns);
    page.raw(
        "<div class=legend><span class=h>ran</span><span class=p>ran in part: not all branches, \
         or not on all architectures</span><span class=m>never ran</span></div>",
    );
    lines(&mut page, site, path, &columns);
    page.finish()
}

fn functions(page: &mut Page, columns: &Columns<'_>) {
    let functions = columns.all.functions();
    if functions.is_empty() {
        return;
    }
    let hit = columns.all.summary().functions.hit;
    let total = functions.len();
    page.raw("<details><summary>");
    page.raw(&format!("Functions: {hit} of {total} called</summary><div class=scroll>"));
    page.raw("<table class=list><thead><tr><th>Function<th class=n>Line");
    for (_, arch, _) in &columns.archs {
        page.raw("<th class=n>Calls, ");
        page.text(arch);
    }
    page.raw("</thead><tbody>");
    for function in functions {
        page.raw(&format!("\n<tr><td class=path><a href=\"#L{}\">", function.line));
        page.text(&function.name);
        page.raw(&format!("</a><td class=n>{}", function.line));
        for (_, _, file) in &columns.archs {
            let own = file.functions().iter();
            let mut own = own.filter(|own| own.line == function.line && own.name == function.name);
            match own.next().map(|own| own.count) {
                Some(0) => page.raw("<td class=\"n zero\">0"),
                Some(count) => page.raw(&format!("<td class=n>{count}")),
                None => page.raw("<td class=n><span class=none>–</span>"),
            }
        }
    }
    page.raw("</tbody></table></div></details>\n");
}

fn lines(page: &mut Page, site: &Site<'_>, path: &str, columns: &Columns<'_>) {
    let wanted = |path: &str| {
        // A name in a profile may lead anywhere, also to a device that never ends.
        let metadata = fs::metadata(path)?;
        match metadata.is_file() && metadata.len() <= MAX_SOURCE {
            true => File::open(path),
            false => Err(std::io::Error::other("it is no regular file, or a very large one")),
        }
    };
    let mut source = match wanted(path) {
        Ok(file) => Some(BufReader::new(file)),
        Err(error) => {
            page.raw("<p class=warn>The source is not shown: cannot read ");
            page.text(&format!("{path}: {error}"));
            page.raw(". <code>--source-root FROM=DIR</code> says where it is.</p>");
            None
        }
    };
    page.raw("<div class=source><table><thead><tr><th>Line<th>Branches");
    for (_, arch, _) in &columns.archs {
        page.raw("<th>");
        page.text(arch);
    }
    page.raw("<th>Source</thead><tbody>");
    let code: Vec<u32> = columns.all.lines().iter().map(|line| line.line).collect();
    let starts: Vec<u32> = columns.all.functions().iter().map(|function| function.line).collect();
    let has = |lines: &[u32], number: u32| lines.binary_search(&number).is_ok();
    let mut number = 1;
    if let Some(source) = &mut source {
        let mut bytes = Vec::new();
        while !site.cancel.is_cancelled()
            && source.read_until(b'\n', &mut bytes).is_ok_and(|n| n > 0)
        {
            let text = String::from_utf8_lossy(&bytes);
            let text = text.trim_end_matches(['\n', '\r']);
            row(page, site, columns, number, has(&code, number), has(&starts, number), text);
            number += 1;
            bytes.clear();
        }
    }
    // Behind its end only what was counted: a number in a profile may be as large as it likes.
    let behind: BTreeSet<u32> =
        code.iter().chain(&starts).copied().filter(|line| *line >= number).collect();
    if let Some(last) = behind.last().filter(|_| source.is_some()) {
        let columns = columns.archs.len() + 3;
        page.raw(&format!(
            "\n<tr><td colspan={columns}><p class=warn>The source ends here, and what was \
             counted goes on to line {last}: this is not the file that was compiled.</p>"
        ));
    }
    for number in behind {
        row(page, site, columns, number, has(&code, number), has(&starts, number), "");
    }
    page.raw("</tbody></table></div>\n");
}

fn row(
    page: &mut Page,
    site: &Site<'_>,
    columns: &Columns<'_>,
    number: u32,
    code: bool,
    start: bool,
    text: &str,
) {
    page.raw("\n<tr");
    if code {
        page.raw(match state(columns, number) {
            State::Hit => " class=h",
            State::Missed => " class=m",
            State::Partly => " class=p",
        });
    }
    if code || start {
        page.raw(" id=L");
        page.number(number);
    }
    page.raw("><th>");
    page.number(number);
    page.raw("<td class=b>");
    let ways = columns.all.branches_of(number);
    if !ways.is_empty() {
        let taken = ways.iter().filter(|way| way.taken.unwrap_or(0) > 0).count();
        page.raw(&format!("{taken}/{}", ways.len()));
    }
    for (_, arch, file) in &columns.archs {
        match file.count(number) {
            Some(0) => page.raw("<td class=m>0"),
            Some(count) => {
                page.raw("<td class=h title=\"");
                page.raw(&who(site, columns, arch, number));
                page.raw("\">");
                page.raw(&short(count));
            }
            None => page.raw("<td>"),
        }
    }
    page.raw("<td>");
    page.text(text);
}

enum State {
    Hit,
    Missed,
    Partly,
}

fn state(columns: &Columns<'_>, number: u32) -> State {
    let counts = columns.archs.iter().filter_map(|(_, _, file)| file.count(number));
    let (mut hit, mut missed) = (false, false);
    counts.for_each(|count| if count > 0 { hit = true } else { missed = true });
    let ways = columns.all.branches_of(number);
    let untaken = ways.iter().any(|way| way.taken.unwrap_or(0) == 0);
    match (hit, missed || untaken) {
        (false, _) => State::Missed,
        (true, true) => State::Partly,
        (true, false) => State::Hit,
    }
}

/// The tests that ran a line on an architecture, each with its count, the highest first.
fn who(site: &Site<'_>, columns: &Columns<'_>, arch: &str, line: u32) -> String {
    let mut counts: Vec<(u64, &str)> = columns
        .tests
        .iter()
        .filter(|(test, _)| site.coverage.tests[test.0].arch == arch)
        .filter_map(|(test, file)| {
            let count = file.count(line).filter(|count| *count > 0)?;
            Some((count, site.coverage.tests[test.0].name.as_str()))
        })
        .collect();
    counts.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
    let named = counts.iter().take(MAX_TESTS);
    let mut text: Vec<String> = named
        .map(|(count, name)| format!("{} ({}): {count}", Escaped(name), Escaped(arch)))
        .collect();
    if counts.len() > MAX_TESTS {
        text.push(format!("and {} more tests", counts.len() - MAX_TESTS));
    }
    text.join("&#10;")
}

/// A count in few letters; the title has it whole.
fn short(count: u64) -> String {
    const UNITS: [(u64, &str); 5] = [
        (1_000_000_000_000_000_000, "E"),
        (1_000_000_000_000_000, "P"),
        (1_000_000_000_000, "T"),
        (1_000_000_000, "G"),
        (1_000_000, "M"),
    ];
    match UNITS.iter().find(|(unit, _)| count >= *unit) {
        Some((unit, name)) => {
            let tenths = count / (unit / 10);
            format!("{}.{}{name}", tenths / 10, tenths % 10)
        }
        None => count.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_counts_are_short() {
        for (count, text) in [
            (0, "0"),
            (999_999, "999999"),
            (1_000_000, "1.0M"),
            (1_999_999_999, "1.9G"),
            (u64::MAX, "18.4E"),
        ] {
            assert_eq!(short(count), text);
        }
    }
}
