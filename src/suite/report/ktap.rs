//! KTAP 1: an entry of the suite in a cell is a test, the tests of its output are below it.

use std::collections::HashMap;
use std::io::{self, Write};

use super::super::file::Cell;
use super::super::record::{Run, Test};
use super::text;
use crate::results::Status;

pub(super) fn write(run: &Run, out: &mut dyn Write) -> io::Result<()> {
    let mut places: HashMap<(&Cell, &str), usize> = HashMap::new();
    let mut groups: Vec<Vec<&Test>> = Vec::new();
    for test in &run.tests {
        let key = (&test.names.cell, test.names.suite.as_str());
        let at = *places.entry(key).or_insert(groups.len());
        match groups.get_mut(at) {
            Some(group) => group.push(test),
            None => groups.push(vec![test]),
        }
    }
    writeln!(out, "KTAP version 1\n1..{}", groups.len())?;
    for (number, group) in groups.iter().enumerate() {
        let names = &group[0].names;
        let name = format!("{} [{}]", names.suite, names.cell);
        if let [only] = group[..]
            && only.names.name.is_empty()
        {
            result(out, "", number + 1, &name, only)?;
            continue;
        }
        writeln!(out, "  KTAP version 1\n  # Subtest: {}\n  1..{}", escaped(&name), group.len())?;
        for (number, test) in group.iter().enumerate() {
            let own = if test.names.name.is_empty() { &test.names.suite } else { &test.names.name };
            result(out, "  ", number + 1, own, test)?;
        }
        let ok = if group.iter().all(|test| test.status().good()) { "ok" } else { "not ok" };
        writeln!(out, "{ok} {} {}", number + 1, escaped(&name))?;
    }
    out.flush()
}

fn result(
    out: &mut dyn Write,
    indent: &str,
    number: usize,
    name: &str,
    test: &Test,
) -> io::Result<()> {
    let (status, told) = (test.status(), test.telling());
    if !status.good() {
        for line in told.console.iter().map(String::as_str).chain(told.output.lines()) {
            writeln!(out, "{indent}# {}", text::one_line(line))?;
        }
    }
    let ok = if status.good() { "ok" } else { "not ok" };
    let reason = told.reason.as_deref().map(text::one_line).unwrap_or_default();
    let directive = match status {
        Status::Passed => String::new(),
        Status::Skipped => format!(" # SKIP {reason}"),
        Status::TimedOut => format!(" # TIMEOUT {reason}"),
        Status::Flaky => " # flaky".to_owned(),
        Status::Crashed | Status::NotRun => format!(" # ERROR {status}: {reason}"),
        Status::Failed if reason.is_empty() => String::new(),
        Status::Failed => format!(" # {reason}"),
    };
    writeln!(out, "{indent}{ok} {number} {}{}", escaped(name), directive.trim_end())
}

/// A name without what would be a directive.
fn escaped(name: &str) -> String {
    text::one_line(name).replace('#', "\\#")
}

#[cfg(test)]
mod tests {
    use super::super::super::record::tests::run;
    use crate::results::{End, Format, Reader, Status};

    #[test]
    fn what_is_written_is_read_again() {
        let mut out = Vec::new();
        super::write(&run(), &mut out).unwrap();
        let mut reader = Reader::new(Format::Ktap);
        reader.feed(&out);
        let cases = reader.finish(&End::Exited(1));
        let told: Vec<(String, Status)> = cases
            .into_iter()
            .map(|case| (format!("{}/{}", case.group, case.name), case.status))
            .collect();
        assert_eq!(
            told,
            [
                ("/good [amd64]".into(), Status::Passed),
                ("flaky [amd64]/a".into(), Status::Passed),
                ("/good [riscv64]".into(), Status::Failed),
                ("bad [riscv64]/b".into(), Status::TimedOut),
                ("/skip [riscv64]".into(), Status::Skipped),
            ]
        );
    }
}
