//! What the pages have in common: frame, cards, lists, names of files.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use crate::coverage::cobertura::Escaped;
use crate::coverage::model::{Coverage, Ratio, Summary};
use crate::coverage::table::{Row, Totals, percent};
use crate::coverage::tools::Cancel;

/// The files of a report that are not sources' pages.
pub(super) const INDEX: &str = "index.html";
pub(super) const STYLE: &str = "style.css";
/// Tells that a directory is a report, so that the next one may take its place.
pub(super) const MARK: &str = ".vmtest-coverage";
/// How the pages of sources end.
const SOURCE_PAGE: &str = ".src.html";
/// Longer names than this would come near the limit of file systems (255).
const MAX_NAME: usize = 200;

/// What all pages are made of.
pub(super) struct Site<'a> {
    pub(super) coverage: &'a Coverage,
    pub(super) totals: &'a Totals,
    root: &'a str,
    pub(super) cancel: &'a Cancel,
}

/// A link's target and text, both unescaped.
pub(super) struct Link {
    pub(super) href: String,
    pub(super) text: String,
}

impl<'a> Site<'a> {
    pub(super) fn new(
        coverage: &'a Coverage,
        totals: &'a Totals,
        root: &'a str,
        cancel: &'a Cancel,
    ) -> Site<'a> {
        Site { coverage, totals, root, cancel }
    }

    fn below<'p>(&self, path: &'p str) -> &'p str {
        path.strip_prefix(self.root).unwrap_or(path)
    }

    /// Where the page of a directory is, with a slash at its end; empty for the root.
    pub(super) fn directory_at(&self, path: &str) -> String {
        let below = match path.len() < self.root.len() {
            true => "",
            false => self.below(path),
        };
        // Beside relative paths the absolute ones have a directory of their own.
        let start = if self.root.is_empty() && below.starts_with('/') { "~2F/" } else { "" };
        let parts = below.split('/').filter(|part| !part.is_empty());
        let parts = parts.map(|part| match is_page(part) {
            true => name(part).replacen('.', "~2E", 1) + "/",
            false => name(part) + "/",
        });
        start.to_owned() + &parts.collect::<String>()
    }

    /// Where the page of a file is. The ending keeps it apart from the pages of directories.
    pub(super) fn file_at(&self, path: &str) -> String {
        let at = self.directory_at(crate::coverage::table::directory(path));
        at + &name(path.rsplit('/').next().unwrap_or(path)) + SOURCE_PAGE
    }

    /// A directory's name for people.
    pub(super) fn shown_directory(&self, path: &str) -> String {
        let below = if path.len() < self.root.len() { "" } else { self.below(path) };
        match below {
            "" if self.root.is_empty() => ".".to_owned(),
            "" => self.root.to_owned(),
            below => below.to_owned(),
        }
    }
}

/// Whether a directory of this name would be where a page or another file of the report is.
fn is_page(part: &str) -> bool {
    [INDEX, STYLE, MARK].contains(&part) || part.ends_with(SOURCE_PAGE)
}

/// A part of a path as a name that is the same in URLs: other bytes than letters, digits, `.`, `_`,
/// `-` and `+` are `~` and two digits.
fn name(part: &str) -> String {
    let dots = part.bytes().all(|byte| byte == b'.');
    let mut out = String::with_capacity(part.len());
    for byte in part.bytes() {
        match byte {
            b'.' if dots => out.push_str("~2E"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'+' => {
                out.push(char::from(byte));
            }
            _ => {
                let _ = write!(out, "~{byte:02X}");
            }
        }
    }
    if out.len() > MAX_NAME {
        let hash = Sha256::digest(part.as_bytes());
        out.truncate(MAX_NAME - 20);
        out.push('~');
        for byte in &hash[..8] {
            let _ = write!(out, "{byte:02x}");
        }
    }
    out
}

/// A page in the making.
pub(super) struct Page {
    text: String,
}

impl Page {
    /// Begins a page; `up` leads from it to the first page's directory, `path` to it.
    pub(super) fn new(up: &str, title: &str, path: &[Link]) -> Page {
        let mut page = Page { text: String::with_capacity(16 << 10) };
        let _ = write!(
            page.text,
            "<!DOCTYPE html>\n<html lang=en><head><meta charset=utf-8>\
             <meta name=viewport content=\"width=device-width, initial-scale=1\">\
             <title>{} – coverage</title><link rel=stylesheet href=\"{up}style.css\"></head>\n\
             <body><header class=top><nav>vmtest",
            Escaped(title)
        );
        for link in path {
            page.raw(" › ");
            page.link(link);
        }
        let _ = write!(page.text, "</nav><h1>{}</h1></header>\n<main>", Escaped(title));
        page
    }

    /// Adds what is HTML already.
    pub(super) fn raw(&mut self, html: &str) {
        self.text.push_str(html);
    }

    /// Adds text.
    pub(super) fn text(&mut self, text: &str) {
        let _ = write!(self.text, "{}", Escaped(text));
    }

    /// Adds a number.
    pub(super) fn number(&mut self, number: impl std::fmt::Display) {
        let _ = write!(self.text, "{number}");
    }

    pub(super) fn heading(&mut self, text: &str) {
        let _ = write!(self.text, "<h2>{}</h2>", Escaped(text));
    }

    fn link(&mut self, link: &Link) {
        let _ =
            write!(self.text, "<a href=\"{}\">{}</a>", Escaped(&link.href), Escaped(&link.text));
    }

    fn bar(&mut self, ratio: Ratio) {
        let width = ratio.percent().unwrap_or(0.0);
        let _ = write!(self.text, "<span class=bar><i style=\"width:{width:.1}%\"></i></span>");
    }

    /// The sums of everything.
    pub(super) fn cards(&mut self, site: &Site<'_>) {
        let by_arch: Vec<_> = site.totals.by_arch.iter().map(|sum| Some(*sum)).collect();
        self.cards_of(site, &Row { all: site.totals.all, by_arch });
    }

    /// The sums of a directory or file: a card for each architecture, and one for all of them.
    pub(super) fn cards_of(&mut self, site: &Site<'_>, row: &Row) {
        self.raw("<div class=cards>");
        // Where one architecture has code, it is all.
        if row.by_arch.iter().flatten().count() != 1 {
            self.card("all architectures", row.all);
        }
        for (arch, sum) in site.totals.archs.iter().zip(&row.by_arch) {
            if let Some(sum) = sum {
                self.card(arch, *sum);
            }
        }
        self.raw("</div>\n");
    }

    fn card(&mut self, title: &str, sum: Summary) {
        let _ = write!(self.text, "<section class=card><h3>{}</h3><div class=big>", Escaped(title));
        match percent(sum.lines) {
            Some(percent) => self.raw(&format!("{percent}% <small>of lines</small></div>")),
            None => self.raw("– <small>no lines</small></div>"),
        }
        self.bar(sum.lines);
        self.raw("<dl>");
        for (what, ratio) in
            [("lines", sum.lines), ("functions", sum.functions), ("branches", sum.branches)]
        {
            if let Some(percent) = percent(ratio) {
                let (hit, found) = (grouped(ratio.hit), grouped(ratio.found));
                let _ = write!(self.text, "<dt>{what}<dd>{hit} of {found} · {percent}%");
            }
        }
        self.raw("</dl></section>");
    }

    /// A list of directories or files with their sums.
    pub(super) fn list(&mut self, what: &str, site: &Site<'_>, rows: Vec<(Link, &Row)>) {
        let several = site.totals.archs.len() > 1;
        let _ =
            write!(self.text, "<div class=scroll><table class=\"list sums\"><thead><tr><th>{what}");
        for arch in &site.totals.archs {
            let arch = if several { format!("Lines, {arch}") } else { "Lines".to_owned() };
            let _ = write!(self.text, "<th class=n>{}", Escaped(&arch));
        }
        if several {
            self.raw("<th class=n>Lines, all");
        }
        self.raw("<th class=n>Functions<th class=n>Branches</thead>\n<tbody>");
        for (link, row) in rows {
            self.raw("\n<tr><td class=path>");
            self.link(&link);
            for sum in &row.by_arch {
                self.cell(sum.map(|sum| sum.lines), true);
            }
            if several {
                self.cell(Some(row.all.lines), true);
            }
            self.cell(Some(row.all.functions), false);
            self.cell(Some(row.all.branches), false);
        }
        self.raw("</tbody></table></div>\n");
    }

    fn cell(&mut self, ratio: Option<Ratio>, bar: bool) {
        self.raw("<td class=n>");
        match ratio.and_then(|ratio| Some((ratio, percent(ratio)?))) {
            Some((ratio, percent)) => {
                let (hit, found) = (ratio.hit, ratio.found);
                let _ = write!(self.text, "<b>{percent}%</b> <small>{hit}/{found}</small>");
                if bar {
                    self.bar(ratio);
                }
            }
            None => self.raw("<span class=none>–</span>"),
        }
    }

    /// The finished page.
    pub(super) fn finish(mut self) -> String {
        let _ = write!(
            self.text,
            "</main>\n<footer>made by vmtest {}</footer></body></html>\n",
            env!("CARGO_PKG_VERSION")
        );
        self.text
    }
}

/// 1234567 as 1 234 567, with narrow spaces that do not break.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_and_differ() {
        for (part, expected) in
            [("open.c", "open.c"), ("..", "~2E~2E"), ("a b%~", "a~20b~25~7E"), ("é", "~C3~A9")]
        {
            assert_eq!(name(part), expected);
        }
        let long = name(&"x".repeat(300));
        assert!(long.len() <= MAX_NAME);
        assert_ne!(long, name(&"x".repeat(301)));
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(123), "123");
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
    }
}
