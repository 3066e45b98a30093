//! A page for people: one file, without scripts, without anything from a network.
//!
//! The matrix has a row for each entry of the suite and a column for each machine; then what did not pass,
//! with output, console and the command that repeats it; when which guest ran, by slot; and the output of all
//! else that has any.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};

use super::super::file::Cell;
use super::super::record::{Attempt, Run, Test};
use super::text;
use super::trace::guests;
use crate::results::Status;

/// How many bars the timeline has; more cannot be told apart.
const BARS_MAX: usize = 2000;

/// How many tests that passed are shown with what they printed.
const PASSED_MAX: usize = 5000;

/// Of a test that passed, at most this much of its output, in bytes.
const PASSED_OUTPUT_MAX: usize = 4 << 10;

const STYLE: &str = include_str!("style.css");

pub(super) fn write(run: &Run, out: &mut dyn Write) -> io::Result<()> {
    let verdict = if run.passed() { "passed" } else { "failed" };
    write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>vmtest: {verdict}</title><style>{STYLE}</style></head><body>\n\
         <header><h1>vmtest: <span class=\"{}\">{verdict}</span></h1>",
        if run.passed() { "ok" } else { "bad" }
    )?;
    write!(
        out,
        "<p class=\"note\">{} · {} · {} guest{} at a time{}</p></header>\n<main>\n",
        text::time_of_day(run.started_secs),
        text::duration(run.secs),
        run.jobs.max(1),
        if run.jobs > 1 { "s" } else { "" },
        if run.incomplete { " · <b class=\"bad\">ended before its end</b>" } else { "" }
    )?;
    counts(run, out)?;
    matrix(run, out)?;
    section(out, "Not passed", run.failures().into_iter())?;
    let flaky = run.tests.iter().filter(|test| test.status() == Status::Flaky);
    section(out, "Flaky", flaky)?;
    timeline(run, out)?;
    let others = run.tests.iter().filter(|test| {
        let has_something =
            |attempt: &Attempt| !attempt.output.is_empty() || attempt.reason.is_some();
        matches!(test.status(), Status::Passed | Status::Skipped)
            && test.attempts.iter().any(has_something)
    });
    section(out, "Passed and skipped, with output", others.take(PASSED_MAX))?;
    writeln!(out, "</main></body></html>")?;
    out.flush()
}

fn counts(run: &Run, out: &mut dyn Write) -> io::Result<()> {
    let mut counts = BTreeMap::new();
    for test in &run.tests {
        *counts.entry(test.status()).or_insert(0usize) += 1;
    }
    write!(out, "<ul class=\"counts\">")?;
    for (status, count) in counts {
        write!(out, "<li class=\"{}\"><b>{count}</b> {status}</li>", class(status))?;
    }
    writeln!(out, "</ul>")
}

fn class(status: Status) -> &'static str {
    match status {
        Status::Passed => "p",
        Status::Skipped => "s",
        Status::Flaky => "k",
        Status::NotRun => "n",
        Status::Failed | Status::TimedOut | Status::Crashed => "f",
    }
}

/// Nothing is said by colour alone.
fn mark(status: Status) -> &'static str {
    match status {
        Status::Passed => "✓",
        Status::Skipped => "–",
        Status::Flaky => "≈",
        Status::NotRun => "∅",
        Status::Failed => "✗",
        Status::TimedOut => "⏱",
        Status::Crashed => "☠",
    }
}

/// What an entry did in a cell, all its tests together.
#[derive(Default)]
struct Square {
    worst: Option<Status>,
    tests: usize,
    secs: f64,
}

fn matrix(run: &Run, out: &mut dyn Write) -> io::Result<()> {
    let cells = run.cells();
    let columns: HashMap<&Cell, usize> =
        cells.iter().enumerate().map(|(at, cell)| (*cell, at)).collect();
    let mut rows: Vec<(&str, Vec<Square>)> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for test in &run.tests {
        let at = *places.entry(&test.names.suite).or_insert(rows.len());
        if at == rows.len() {
            rows.push((&test.names.suite, cells.iter().map(|_| Square::default()).collect()));
        }
        let square = &mut rows[at].1[columns[&test.names.cell]];
        let status = test.status();
        square.worst = Some(square.worst.map_or(status, |worst| worst.min(status)));
        square.tests += 1;
        square.secs += test.secs();
    }
    write!(out, "<h2>Matrix</h2>\n<div class=\"scroll\"><table><thead><tr><th>test</th>")?;
    for cell in &cells {
        write!(out, "<th>{}</th>", escape(&cell.to_string()))?;
    }
    writeln!(out, "</tr></thead><tbody>")?;
    for (name, squares) in rows {
        write!(out, "<tr><th>{}</th>", escape(name))?;
        for Square { worst, tests, secs } in squares {
            let Some(status) = worst else {
                write!(out, "<td></td>")?;
                continue;
            };
            let several = if tests > 1 { format!(" {tests} tests,") } else { String::new() };
            write!(
                out,
                "<td class=\"{}\">{} {status}<small>{several} {}</small></td>",
                class(status),
                mark(status),
                text::duration(secs)
            )?;
        }
        writeln!(out, "</tr>")?;
    }
    writeln!(out, "</tbody></table></div>")
}

fn section<'a>(
    out: &mut dyn Write,
    title: &str,
    tests: impl Iterator<Item = &'a Test>,
) -> io::Result<()> {
    let mut tests = tests.peekable();
    if tests.peek().is_none() {
        return Ok(());
    }
    writeln!(out, "<h2>{title}</h2>")?;
    tests.try_for_each(|test| details(test, out))
}

fn details(test: &Test, out: &mut dyn Write) -> io::Result<()> {
    let (status, told) = (test.status(), test.telling());
    let reason = told.reason.as_deref().map(text::one_line).unwrap_or_default();
    writeln!(
        out,
        "<details><summary><b class=\"{}\">{} {status}</b> {} <small>{}</small> <i>{}</i></summary>",
        class(status),
        mark(status),
        escape(&test.names.to_string()),
        text::duration(test.secs()),
        escape(&reason)
    )?;
    for attempt in &test.attempts {
        if test.attempts.len() > 1 {
            let (number, status) = (attempt.number, attempt.status);
            writeln!(
                out,
                "<h3>try {number}: <span class=\"{}\">{status}</span></h3>",
                class(status)
            )?;
        }
        attempt_details(attempt, out)?;
    }
    writeln!(out, "</details>")
}

fn attempt_details(attempt: &Attempt, out: &mut dyn Write) -> io::Result<()> {
    let mut output = attempt.output.as_str();
    if attempt.status == Status::Passed && output.len() > PASSED_OUTPUT_MAX {
        let from = output.len() - PASSED_OUTPUT_MAX;
        let at = (from..output.len()).find(|at| output.is_char_boundary(*at)).unwrap_or(from);
        output = &output[at..];
    }
    if !output.is_empty() {
        writeln!(out, "<pre>{}</pre>", escape(&text::printable(output)))?;
    }
    if !attempt.console.is_empty() {
        let console = attempt.console.join("\n");
        writeln!(out, "<p class=\"note\">the console</p><pre>{}</pre>", escape(&console))?;
    }
    if !attempt.repeat.is_empty() {
        let repeat = escape(&attempt.repeat);
        writeln!(out, "<p class=\"note\">repeat it: <code>{repeat}</code></p>")?;
    }
    Ok(())
}

fn timeline(run: &Run, out: &mut dyn Write) -> io::Result<()> {
    let mut guests = guests(run);
    if guests.is_empty() {
        return Ok(());
    }
    let all = guests.len();
    // The longest tell most.
    guests.sort_by(|a, b| b.attempt.guest_secs.total_cmp(&a.attempt.guest_secs));
    guests.truncate(BARS_MAX);
    let slots = guests.iter().map(|guest| guest.attempt.slot).max().unwrap_or(0) + 1;
    let whole = run.secs.max(0.001);
    let (width, row) = (1200.0, 22);
    writeln!(out, "<h2>Guests by slot</h2>")?;
    if all > guests.len() {
        writeln!(out, "<p class=\"note\">the longest {} of {all}</p>", guests.len())?;
    }
    write!(
        out,
        "<div class=\"scroll\"><svg viewBox=\"0 0 {width} {}\" role=\"img\" \
         aria-label=\"guests by slot and time\">",
        slots * row + 20
    )?;
    for guest in guests {
        let attempt = guest.attempt;
        let place = |secs: f64| (secs / whole * width).clamp(0.0, width);
        let begin = place(attempt.started_secs - run.started_secs);
        let (boot, length) = (place(attempt.boot_secs), place(attempt.guest_secs).max(1.0));
        let top = attempt.slot * row + 2;
        let class = if guest.good { "p" } else { "f" };
        write!(
            out,
            "<g><title>{} [{}] {}, boot {}</title>\
             <rect class=\"{class}\" x=\"{begin:.1}\" y=\"{top}\" width=\"{length:.1}\" height=\"18\"/>\
             <rect class=\"b\" x=\"{begin:.1}\" y=\"{top}\" width=\"{boot:.1}\" height=\"18\"/></g>",
            escape(&guest.names.suite),
            escape(&guest.names.cell.to_string()),
            text::duration(attempt.guest_secs),
            text::duration(attempt.boot_secs)
        )?;
    }
    writeln!(
        out,
        "<text x=\"0\" y=\"{0}\">0</text><text x=\"{width}\" y=\"{0}\" text-anchor=\"end\">{1}</text>\
         </svg></div>",
        slots * row + 16,
        text::duration(whole)
    )
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::super::record::tests::{attempt, names, run};
    use super::*;

    #[test]
    fn everything_is_on_one_page() {
        let mut run = run();
        run.add(names("amd64", "<script>", "a&b"), attempt(1, Status::Failed));
        let mut out = Vec::new();
        write(&run, &mut out).unwrap();
        let page = String::from_utf8(out).unwrap();
        for part in [
            "<th>riscv64</th>",
            "☠ crashed",
            "≈ flaky",
            "said &lt;this&gt;",
            "Kernel panic - not syncing: x",
            "repeat it: <code>vmtest --arch=amd64 -- ./a</code>",
            "&lt;script&gt;: a&amp;b",
            "<svg",
            "prefers-color-scheme: dark",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        for absent in ["<script", "http://", "https://", "src=", "href=", "\u{1}"] {
            assert!(!page.contains(absent), "{absent}: {page}");
        }
    }
}
