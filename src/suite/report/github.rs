//! What a job of GitHub shows: annotations beside its log, and a summary.
//!
//! GitHub keeps ten annotations of a kind a step, in the order in which they are printed, and drops a summary
//! above 1 MiB as a whole: so the worst come first, and the summary stops in time.

use std::fmt::Write;

use super::super::record::{Run, Test};
use super::text;
use crate::results::Status;

/// How many annotations GitHub keeps of one kind and step.
const ANNOTATIONS_MAX: usize = 10;

/// What a summary has at most, in bytes; GitHub takes 1024 KiB.
const SUMMARY_MAX: usize = 1000 << 10;

/// What of a test's output is in the summary, in bytes.
const OUTPUT_MAX: usize = 8 << 10;

/// Lines for the step's stdout; `file` is what they point to.
pub fn annotations(run: &Run, file: &str) -> String {
    let mut lines = String::new();
    let failures = run.failures();
    let more = failures.len().saturating_sub(ANNOTATIONS_MAX);
    for (number, test) in failures.iter().take(ANNOTATIONS_MAX).enumerate() {
        let told = test.telling();
        let mut message = test.status().to_string();
        if let Some(reason) = &told.reason {
            let _ = write!(message, ": {reason}");
        }
        if number + 1 == ANNOTATIONS_MAX && more > 0 {
            let _ = write!(message, " (and {more} more tests did not pass)");
        }
        let title = property(&test.names.to_string());
        let _ =
            writeln!(lines, "::error file={},title={title}::{}", property(file), data(&message));
    }
    lines
}

/// `%`, and the ends of lines.
fn data(text: &str) -> String {
    text::printable(text).replace('%', "%25").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// The job's summary, in Markdown.
pub fn summary(run: &Run) -> String {
    let mut text = String::new();
    let counts: Vec<String> = Status::ALL
        .iter()
        .rev()
        .map(|status| (run.count(*status), status))
        .filter(|(count, _)| *count > 0)
        .map(|(count, status)| format!("{count} {status}"))
        .collect();
    let verdict = if run.passed() { "passed" } else { "**failed**" };
    let took = text::duration(run.secs);
    let _ = writeln!(text, "### vmtest: {verdict}\n\n{} in {took}\n", counts.join(", "));
    let _ = writeln!(text, "| machine | tests | not passed |\n|---|---:|---:|");
    for cell in run.cells() {
        let of_cell = || run.tests.iter().filter(|test| test.names.cell == *cell);
        let bad = of_cell().filter(|test| !test.status().good()).count();
        let _ =
            writeln!(text, "| {} | {} | {bad} |", markdown(&cell.to_string()), of_cell().count());
    }
    let failures = run.failures();
    for (number, test) in failures.iter().enumerate() {
        let part = failure(test);
        if text.len() + part.len() > SUMMARY_MAX {
            let _ = writeln!(text, "\n… and {} more that did not pass.", failures.len() - number);
            break;
        }
        text.push_str(&part);
    }
    text
}

fn failure(test: &Test) -> String {
    let told = test.telling();
    let reason = told.reason.as_deref().map(text::one_line).unwrap_or_default();
    let mut shown: Vec<&str> = told.console.iter().map(String::as_str).collect();
    shown.extend(told.output.lines());
    let mut output = text::printable(&shown.join("\n"));
    if output.len() > OUTPUT_MAX {
        let from = (output.len() - OUTPUT_MAX..output.len())
            .find(|at| output.is_char_boundary(*at))
            .unwrap_or(0);
        output = format!("…{}", &output[from..]);
    }
    format!(
        "\n<details><summary>{}: {} ({})</summary>\n\n<pre>{}</pre>\n\n<code>{}</code>\n</details>\n",
        test.status(),
        html(&test.names.to_string()),
        html(&reason),
        html(&output),
        html(&told.repeat)
    )
}

fn markdown(text: &str) -> String {
    text::one_line(text).replace('|', "\\|")
}

fn html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::super::record::tests::{attempt, names, run};
    use super::*;

    #[test]
    fn the_worst_ten_are_annotated() {
        let mut run = run();
        for number in 0..30 {
            let names = names("amd64", &format!("more, {number}"), "");
            run.add(names, attempt(1, Status::Failed));
        }
        let text = annotations(&run, "vmtest.toml");
        assert_eq!(text.lines().count(), 10);
        assert!(
            text.starts_with("::error file=vmtest.toml,title=good [riscv64]::crashed: "),
            "{text}"
        );
        assert!(text.contains("title=more%2C 0") && text.contains("and 22 more"), "{text}");
        assert!(!text.contains('\u{1}'));
    }

    #[test]
    fn a_summary_is_small_enough_for_github() {
        let mut run = run();
        for number in 0..2000 {
            let mut attempt = attempt(1, Status::Failed);
            attempt.output = "é".repeat(20_000);
            run.add(names("amd64", &format!("{number}"), ""), attempt);
        }
        let text = summary(&run);
        assert!(text.len() < 1 << 20 && text.contains("more that did not pass"));
        assert!(text.contains("| riscv64 | 3 | 2 |"), "{}", &text[..500]);
    }
}
