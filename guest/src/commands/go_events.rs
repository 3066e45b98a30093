//! Go's test output as events: what `go tool test2json` does, for the output of `-test.v`.
//!
//! Format: `go doc test2json`. A test's own output between the marks belongs to the test that was
//! named last. Times are left out: the guest's clock says nothing to the host.

use serde::Serialize;

/// Fields as `go test -json` names them; hosts written for `hugelgupf/vmtest` read them.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct TestEvent<'a> {
    action: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    package: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    test: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    elapsed: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<&'a str>,
}

/// A line that says what happens to a test.
const STARTS: &[(&str, &str)] =
    &[("=== RUN ", "run"), ("=== PAUSE ", "pause"), ("=== CONT ", "cont"), ("=== NAME ", "")];
const REPORTS: &[(&str, &str)] = &[
    ("--- PASS: ", "pass"),
    ("--- FAIL: ", "fail"),
    ("--- SKIP: ", "skip"),
    ("--- BENCH: ", "bench"),
];

pub(super) struct Converter {
    package: String,
    /// Whom output belongs to.
    current: Option<String>,
    /// Tests that have run and have no result yet: a program that dies leaves them failed.
    open: Vec<String>,
    result: Option<&'static str>,
    events: Vec<String>,
}

impl Converter {
    pub(super) fn new(package: &str) -> Converter {
        Converter {
            package: package.to_owned(),
            current: None,
            open: Vec::new(),
            result: None,
            events: Vec::new(),
        }
    }

    /// The events, as JSON, that one line of output makes; the line has its newline.
    pub(super) fn line(&mut self, line: &str) -> Vec<String> {
        let text = line.trim_end_matches(['\n', '\r']);
        // A test that prints without newline pushes the mark to the right of its text; the mark's
        // own output stays with the line it is on.
        let report = REPORTS.iter().find_map(|(mark, action)| {
            let rest = text.trim_start().strip_prefix(mark)?;
            Some((*action, rest))
        });
        if let Some((action, name)) =
            STARTS.iter().find_map(|(mark, action)| Some((*action, text.strip_prefix(mark)?)))
        {
            let name = name.trim().to_owned();
            self.current = Some(name.clone());
            if action == "run" {
                self.open.push(name.clone());
            }
            if !action.is_empty() {
                self.event(action, Some(&name), None, None);
            }
            self.output(Some(&name), line);
        } else if let Some((action, rest)) = report {
            let (name, elapsed) = name_and_seconds(rest);
            self.current = Some(name.to_owned());
            self.output(Some(name), line);
            self.open.retain(|open| open != name);
            self.event(action, Some(name), elapsed, None);
        } else {
            match text {
                "PASS" => self.finish("pass"),
                "FAIL" => self.finish("fail"),
                _ if text.starts_with("FAIL\t") => self.finish("fail"),
                _ => {}
            }
            let whole_package = self.result.is_some() || is_benchmark_header(text);
            let owner = if whole_package { None } else { self.current.clone() };
            self.output(owner.as_deref(), line);
        }
        std::mem::take(&mut self.events)
    }

    /// The events that a line makes which the program said beside its output, on stderr.
    pub(super) fn aside(&mut self, line: &str) -> Vec<String> {
        let owner = self.current.clone();
        self.output(owner.as_deref(), line);
        std::mem::take(&mut self.events)
    }

    /// Whether the program said its result.
    pub(super) fn is_finished(&self) -> bool {
        self.result.is_some()
    }

    /// The events at the end of the output.
    pub(super) fn end(mut self) -> Vec<String> {
        for name in std::mem::take(&mut self.open).iter().rev() {
            self.event("fail", Some(name), None, None);
        }
        // Without a last word the program died.
        let result = self.result.unwrap_or("fail");
        self.event(result, None, None, None);
        self.events
    }

    fn finish(&mut self, result: &'static str) {
        self.result = Some(result);
        self.current = None;
    }

    fn output(&mut self, test: Option<&str>, text: &str) {
        self.event("output", test, None, Some(text));
    }

    fn event(
        &mut self,
        action: &str,
        test: Option<&str>,
        elapsed: Option<f64>,
        output: Option<&str>,
    ) {
        let event = TestEvent { action, package: &self.package, test, elapsed, output };
        // Strings and numbers can always be said in JSON.
        self.events.extend(serde_json::to_string(&event).ok());
    }
}

/// The event that a program has a test; `go test` has none like it.
pub(super) fn listed(package: &str, name: &str) -> String {
    let event =
        TestEvent { action: "listed", package, test: Some(name), elapsed: None, output: None };
    serde_json::to_string(&event).unwrap_or_default()
}

/// `TestX (0.25s)`.
fn name_and_seconds(text: &str) -> (&str, Option<f64>) {
    let Some((name, rest)) = text.split_once(" (") else { return (text.trim(), None) };
    let seconds = rest.trim_end().strip_suffix("s)").and_then(|seconds| seconds.parse().ok());
    (name, seconds)
}

fn is_benchmark_header(text: &str) -> bool {
    ["goos: ", "goarch: ", "pkg: ", "cpu: "].iter().any(|start| text.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Actions with the test's name, without output.
    fn actions(output: &str) -> Vec<String> {
        let mut converter = Converter::new("p");
        let mut events: Vec<_> =
            output.split_inclusive('\n').flat_map(|line| converter.line(line)).collect();
        events.extend(converter.end());
        events
            .iter()
            .map(|event| serde_json::from_str::<serde_json::Value>(event).unwrap())
            .filter(|event| event["Action"] != "output")
            .map(|event| {
                let test = event["Test"].as_str().unwrap_or("-");
                format!("{} {test}", event["Action"].as_str().unwrap())
            })
            .collect()
    }

    #[test]
    fn results_of_tests_and_subtests() {
        let output = "=== RUN   TestA\n=== RUN   TestA/sub\n    x_test.go:1: hi\n--- PASS: TestA (0.10s)\n    --- PASS: TestA/sub (0.00s)\n=== RUN   TestB\n--- SKIP: TestB (0.00s)\n=== RUN   TestC\n--- FAIL: TestC (0.00s)\nFAIL\n";
        assert_eq!(
            actions(output),
            [
                "run TestA",
                "run TestA/sub",
                "pass TestA",
                "pass TestA/sub",
                "run TestB",
                "skip TestB",
                "run TestC",
                "fail TestC",
                "fail -"
            ]
        );
        assert_eq!(actions("PASS\n"), ["pass -"]);
    }

    #[test]
    fn a_program_that_dies_fails_what_it_was_at() {
        let output = "=== RUN   TestA\n=== RUN   TestA/b\npanic: boom\n\ngoroutine 1:\n";
        assert_eq!(
            actions(output),
            ["run TestA", "run TestA/b", "fail TestA/b", "fail TestA", "fail -"]
        );
    }

    #[test]
    fn output_is_complete_and_has_its_test() {
        let mut converter = Converter::new("p");
        converter.line("=== RUN   TestA\n");
        let events = converter.line("some \"text\"\n");
        assert_eq!(
            events,
            [r#"{"Action":"output","Package":"p","Test":"TestA","Output":"some \"text\"\n"}"#]
        );
        let events = converter.line("--- PASS: TestA (1.50s)\n");
        assert_eq!(events[1], r#"{"Action":"pass","Package":"p","Test":"TestA","Elapsed":1.5}"#);
    }
}
