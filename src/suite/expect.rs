//! What a command must do to pass, and what it did.

use std::time::Duration;

use crate::results::{Capture, Case, End, Format, Reader, Status};

/// What a test's command must do.
#[derive(Clone, Debug, Default)]
pub struct Expect {
    /// One of these exit statuses; 0 where none is named.
    pub status: Vec<u8>,
    /// These mean that it was skipped.
    pub skip: Vec<u8>,
    /// All of these are in its stdout.
    pub text: Vec<String>,
    /// Its stdout matches all of these.
    pub regex: Vec<regex::bytes::Regex>,
}

impl Expect {
    /// Whether its stdout has to be looked at.
    pub fn looks_at_stdout(&self) -> bool {
        !self.text.is_empty() || !self.regex.is_empty()
    }

    /// How its end counts: as the format's own pass and skip.
    fn end(&self, format: Format, end: &End) -> End {
        let End::Exited(code) = end else { return end.clone() };
        match () {
            () if self.status.contains(code) => End::Exited(0),
            // A status is expected, and it is another one, though it may be 0.
            () if !self.status.is_empty() && *code == 0 => {
                End::Lost("exit status 0, and another one is expected".into())
            }
            () => match format.skip_code() {
                Some(skip) if self.skip.contains(code) => End::Exited(skip),
                _ => end.clone(),
            },
        }
    }
}

/// What a run's output says, put together while it comes.
#[derive(Debug)]
pub struct Judged {
    reader: Reader,
    format: Format,
    /// What stdout and stderr printed, as it came.
    output: Capture,
    /// The beginning of stdout, for what is expected in it.
    stdout: Vec<u8>,
    keeps_stdout: bool,
}

/// How much of stdout is looked at for what is expected.
const STDOUT_MAX: usize = 8 << 20;

impl Judged {
    /// Before the run.
    pub fn new(format: Format, expect: &Expect) -> Judged {
        Judged {
            reader: Reader::new(format),
            format,
            output: Capture::default(),
            stdout: Vec::new(),
            keeps_stdout: expect.looks_at_stdout(),
        }
    }

    /// Takes what the command wrote to stdout.
    pub fn stdout(&mut self, bytes: &[u8]) {
        self.reader.feed(bytes);
        self.output.push(bytes);
        if self.keeps_stdout {
            let room = STDOUT_MAX.saturating_sub(self.stdout.len()).min(bytes.len());
            self.stdout.extend_from_slice(&bytes[..room]);
        }
    }

    /// Takes what it wrote to stderr. Go's test programs say on stderr that they are out of time.
    pub fn stderr(&mut self, bytes: &[u8]) {
        if self.format == Format::Go {
            self.reader.feed(bytes);
        }
        self.output.push(bytes);
    }
}

/// The results of a run: at least one. One without a name is the entry itself.
pub fn judge(judged: Judged, expect: &Expect, end: &End, took: Option<Duration>) -> Vec<Case> {
    let Judged { reader, format, output, stdout, .. } = judged;
    let skipped = matches!(end, End::Exited(code) if expect.skip.contains(code));
    let counted = expect.end(format, end);
    let mut cases = reader.finish(&counted);
    if skipped && format.skip_code().is_none() && cases.iter().all(|case| case.name.is_empty()) {
        let skip = Case { reason: Some(end.to_string()), ..Case::new("", "", Status::Skipped) };
        cases = vec![skip];
    }
    let missing = missing(expect, &stdout);
    let good = cases.iter().all(|case| case.status.good());
    if let (true, false, Some(missing)) = (good, skipped, missing) {
        cases.retain(|case| !case.name.is_empty());
        cases.push(Case { reason: Some(missing), ..Case::new("", "", Status::Failed) });
    }
    if let Some(whole) = cases.iter_mut().find(|case| case.name.is_empty() && case.group.is_empty())
    {
        whole.output = output.text();
        whole.duration = whole.duration.or(took);
        // The reader has seen what the status counts as; people want what it was.
        if whole.status == Status::Crashed && matches!(end, End::Exited(_)) {
            whole.status = Status::Failed;
        }
    }
    cases
}

fn missing(expect: &Expect, stdout: &[u8]) -> Option<String> {
    let absent = |text: &&String| memchr::memmem::find(stdout, text.as_bytes()).is_none();
    if let Some(text) = expect.text.iter().find(absent) {
        return Some(format!("its stdout has no `{text}`"));
    }
    let regex = expect.regex.iter().find(|regex| !regex.is_match(stdout))?;
    Some(format!("its stdout does not match `{regex}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(expect: &Expect, code: u8, stdout: &str) -> (Status, Option<String>) {
        let mut judged = Judged::new(Format::Exit, expect);
        judged.stdout(stdout.as_bytes());
        judged.stderr(b"err\n");
        let cases = judge(judged, expect, &End::Exited(code), None);
        assert_eq!(cases[0].output, format!("{stdout}err\n"));
        (cases[0].status, cases[0].reason.clone())
    }

    #[test]
    fn what_is_expected_decides() {
        let expect = Expect {
            status: vec![3],
            skip: vec![7],
            text: vec!["yes".into()],
            regex: vec![regex::bytes::Regex::new("y.s$").unwrap()],
        };
        assert_eq!(case(&expect, 3, "yes"), (Status::Passed, None));
        assert_eq!(case(&expect, 7, ""), (Status::Skipped, Some("exit status 7".into())));
        let (status, why) = case(&expect, 0, "yes");
        assert_eq!(status, Status::Failed);
        assert!(why.unwrap().contains("another one is expected"));
        let (status, why) = case(&expect, 3, "no");
        assert_eq!((status, why), (Status::Failed, Some("its stdout has no `yes`".into())));
        let (status, why) = case(&expect, 3, "yes no");
        assert_eq!(
            (status, why),
            (Status::Failed, Some("its stdout does not match `y.s$`".into()))
        );
        assert_eq!(case(&Expect::default(), 1, ""), (Status::Failed, Some("exit status 1".into())));
    }
}
