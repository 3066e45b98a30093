//! Coverage by file and test: what all inputs become and all outputs are made of.
//!
//! Vectors are sorted and have each key once, so that adding is a merge of two sorted lists: a
//! kernel has some hundred thousand lines, and a header's are counted by hundreds of objects.

use std::collections::BTreeMap;
use std::mem;

/// The architecture of a test whose input does not tell, as of an lcov file.
pub const UNKNOWN_ARCH: &str = "unknown";

/// What several tests covered.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// The tests; a [`TestId`] is an index into them.
    pub tests: Vec<Test>,
    /// By path of the source file: what each test covered in it.
    pub files: BTreeMap<String, BTreeMap<TestId, FileCoverage>>,
}

/// Which test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TestId(pub usize);

/// A test: a run's name and its guest's architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    /// The run's name.
    pub name: String,
    /// The guest's architecture, or [`UNKNOWN_ARCH`].
    pub arch: String,
    /// How the run ended, as in `run.json`, where it is known.
    pub verdict: Option<String>,
    /// What the run could not bring home, for people.
    pub missing: Vec<String>,
}

/// What a test covered in one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileCoverage {
    lines: Vec<Line>,
    functions: Vec<Function>,
    branches: Vec<Branch>,
}

/// A line that code was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number, from 1.
    pub line: u32,
    /// How often it ran.
    pub count: u64,
}

/// A function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name, readable.
    pub name: String,
    /// Its first line.
    pub line: u32,
    /// How often it was called.
    pub count: u64,
}

/// A way that a branch can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Branch {
    /// The branch's line.
    pub line: u32,
    /// Which of the line's: the block in the upper 16 bits, the way in the lower.
    pub index: u32,
    /// How often it was taken; `None` if the branch was never reached.
    pub taken: Option<u64>,
}

/// How many there are, and how many of them ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ratio {
    /// All.
    pub found: u64,
    /// Those that ran at least once.
    pub hit: u64,
}

/// A summary of lines, functions and branches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Lines with code.
    pub lines: Ratio,
    /// Functions.
    pub functions: Ratio,
    /// Ways of branches.
    pub branches: Ratio,
}

impl Ratio {
    /// Counts one.
    pub fn count(&mut self, hit: bool) {
        self.found += 1;
        self.hit += u64::from(hit);
    }

    /// Adds another's.
    pub fn add(&mut self, other: Ratio) {
        self.found += other.found;
        self.hit += other.hit;
    }

    /// Hit of found in percent; `None` if there is nothing.
    pub fn percent(self) -> Option<f64> {
        (self.found > 0).then(|| self.hit as f64 * 100.0 / self.found as f64)
    }
}

impl Summary {
    /// Adds another's.
    pub fn add(&mut self, other: Summary) {
        self.lines.add(other.lines);
        self.functions.add(other.functions);
        self.branches.add(other.branches);
    }
}

impl FileCoverage {
    /// Lines, in order.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Functions, by line and name.
    pub fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// Ways of branches, by line and index.
    pub fn branches(&self) -> &[Branch] {
        &self.branches
    }

    /// Makes it of lists in any order; what is there twice is added up.
    pub fn new(
        mut lines: Vec<Line>,
        mut functions: Vec<Function>,
        mut branches: Vec<Branch>,
    ) -> FileCoverage {
        lines.sort_by_key(|line| line.line);
        lines.dedup_by(|later, first| {
            let same = later.line == first.line;
            if same {
                first.add(*later);
            }
            same
        });
        functions.sort_by(|a, b| (a.line, &a.name).cmp(&(b.line, &b.name)));
        functions.dedup_by(|later, first| {
            let same = later.line == first.line && later.name == first.name;
            if same {
                first.count = first.count.saturating_add(later.count);
            }
            same
        });
        branches.sort_by_key(|branch| (branch.line, branch.index));
        branches.dedup_by(|later, first| {
            let same = (later.line, later.index) == (first.line, first.index);
            if same {
                first.add(*later);
            }
            same
        });
        // Most of these are kept to the end, and grew by doubling.
        lines.shrink_to_fit();
        functions.shrink_to_fit();
        branches.shrink_to_fit();
        FileCoverage { lines, functions, branches }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.functions.is_empty() && self.branches.is_empty()
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: FileCoverage) {
        merge(&mut self.lines, other.lines, |line| line.line, |a, b| a.add(b));
        let functions = mem::take(&mut self.functions);
        self.functions = merge_functions(functions, other.functions);
        merge(&mut self.branches, other.branches, |b| (b.line, b.index), |a, b| a.add(b));
    }

    /// Counts what there is.
    pub fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        self.lines.iter().for_each(|line| summary.lines.count(line.count > 0));
        self.functions.iter().for_each(|function| summary.functions.count(function.count > 0));
        self.branches.iter().for_each(|b| summary.branches.count(b.taken.unwrap_or(0) > 0));
        summary
    }

    /// How often a line ran; `None` if no code was made for it.
    pub fn count(&self, line: u32) -> Option<u64> {
        let at = self.lines.binary_search_by_key(&line, |line| line.line).ok()?;
        Some(self.lines[at].count)
    }

    /// The ways of a line's branches.
    pub fn branches_of(&self, line: u32) -> &[Branch] {
        let from = self.branches.partition_point(|branch| branch.line < line);
        let to = self.branches.partition_point(|branch| branch.line <= line);
        &self.branches[from..to]
    }
}

impl Line {
    fn add(&mut self, other: Line) {
        self.count = self.count.saturating_add(other.count);
    }
}

impl Branch {
    fn add(&mut self, other: Branch) {
        self.taken = match (self.taken, other.taken) {
            (Some(a), Some(b)) => Some(a.saturating_add(b)),
            (a, b) => a.or(b),
        };
    }
}

/// Merges `other` into `all`, both sorted by `key`.
fn merge<T: Copy, K: Ord>(
    all: &mut Vec<T>,
    other: Vec<T>,
    key: impl Fn(&T) -> K,
    add: impl Fn(&mut T, T),
) {
    if all.is_empty() {
        *all = other;
        return;
    }
    // An object after the other has the same lines of a header: nothing moves then.
    if all.len() == other.len() && all.iter().zip(&other).all(|(a, b)| key(a) == key(b)) {
        all.iter_mut().zip(other).for_each(|(a, b)| add(a, b));
        return;
    }
    let mut merged = Vec::with_capacity(all.len().max(other.len()));
    let mut others = other.into_iter().peekable();
    for mut item in all.drain(..) {
        while let Some(before) = others.next_if(|next| key(next) < key(&item)) {
            merged.push(before);
        }
        if let Some(same) = others.next_if(|next| key(next) == key(&item)) {
            add(&mut item, same);
        }
        merged.push(item);
    }
    merged.extend(others);
    merged.shrink_to_fit();
    *all = merged;
}

fn merge_functions(all: Vec<Function>, other: Vec<Function>) -> Vec<Function> {
    if all.is_empty() || other.is_empty() {
        return if all.is_empty() { other } else { all };
    }
    let mut merged = Vec::with_capacity(all.len().max(other.len()));
    let mut others = other.into_iter().peekable();
    for mut item in all {
        while let Some(before) =
            others.next_if(|next| (next.line, &next.name) < (item.line, &item.name))
        {
            merged.push(before);
        }
        if let Some(same) =
            others.next_if(|next| (next.line, &next.name) == (item.line, &item.name))
        {
            item.count = item.count.saturating_add(same.count);
        }
        merged.push(item);
    }
    merged.extend(others);
    merged
}

impl Coverage {
    /// Adds a test, or finds the one with this name and architecture.
    pub fn test(&mut self, name: &str, arch: &str) -> TestId {
        let found = self.tests.iter().position(|test| test.name == name && test.arch == arch);
        TestId(found.unwrap_or_else(|| {
            let (name, arch) = (name.to_owned(), arch.to_owned());
            self.tests.push(Test { name, arch, verdict: None, missing: Vec::new() });
            self.tests.len() - 1
        }))
    }

    /// Adds what a test covered in a file. Nothing is added for a file without any code.
    pub fn add(&mut self, path: &str, test: TestId, coverage: FileCoverage) {
        if coverage.is_empty() {
            return;
        }
        match self.files.get_mut(path) {
            Some(tests) => tests.entry(test).or_default().add(coverage),
            None => {
                self.files.insert(path.to_owned(), BTreeMap::from([(test, coverage)]));
            }
        }
    }

    /// The architectures of the tests, in the order of [`crate::arch::Arch::ALL`], others after them.
    pub fn archs(&self) -> Vec<String> {
        let mut archs: Vec<String> = self.tests.iter().map(|test| test.arch.clone()).collect();
        archs.sort_by_key(|arch| {
            let known = crate::arch::Arch::ALL.iter().position(|known| known.name() == arch);
            (known.unwrap_or(usize::MAX), arch.clone())
        });
        archs.dedup();
        archs
    }

    /// What the tests of one architecture covered in a file, or those of all.
    pub fn union(
        &self,
        tests: &BTreeMap<TestId, FileCoverage>,
        arch: Option<&str>,
    ) -> Option<FileCoverage> {
        let mut wanted = tests
            .iter()
            .filter(|(test, _)| arch.is_none_or(|arch| self.tests[test.0].arch == arch))
            .map(|(_, coverage)| coverage);
        let mut all = wanted.next()?.clone();
        wanted.for_each(|coverage| all.add(coverage.clone()));
        Some(all)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn lines(counts: &[(u32, u64)]) -> FileCoverage {
        let lines = counts.iter().map(|&(line, count)| Line { line, count }).collect();
        FileCoverage::new(lines, Vec::new(), Vec::new())
    }

    #[test]
    fn counts_are_added_by_line_function_and_branch() {
        let one = |count, taken| {
            FileCoverage::new(
                vec![Line { line: 3, count }, Line { line: 1, count: 1 }],
                vec![Function { name: "f".into(), line: 1, count }],
                vec![Branch { line: 3, index: 0, taken }],
            )
        };
        let mut all = one(2, None);
        all.add(one(5, Some(1)));
        all.add(lines(&[(2, 9)]));
        assert_eq!(all.count(3), Some(7));
        assert_eq!(all.count(2), Some(9));
        assert_eq!(all.count(4), None);
        assert_eq!(all.functions()[0].count, 7);
        assert_eq!(all.branches_of(3), [Branch { line: 3, index: 0, taken: Some(1) }]);
        assert_eq!(all.branches_of(2), []);
        assert_eq!(all.summary().lines, Ratio { found: 3, hit: 3 });
    }

    #[test]
    fn architectures_are_apart_and_in_order() {
        let mut coverage = Coverage::default();
        for arch in ["unknown", "riscv64", "amd64"] {
            let test = coverage.test("boot", arch);
            coverage.add("a.c", test, lines(&[(1, 1), (2, u64::from(arch == "amd64"))]));
        }
        assert_eq!(coverage.archs(), ["amd64", "riscv64", "unknown"]);
        let tests = &coverage.files["a.c"];
        assert_eq!(coverage.union(tests, Some("riscv64")).unwrap().count(2), Some(0));
        assert_eq!(coverage.union(tests, None).unwrap().count(1), Some(3));
        assert!(coverage.union(tests, Some("arm")).is_none());
    }

    proptest! {
        #[test]
        fn adding_is_the_same_in_any_order(
            a in proptest::collection::vec((1u32..40, 0u64..5), 0..30),
            b in proptest::collection::vec((1u32..40, 0u64..5), 0..30),
        ) {
            let mut ab = lines(&a);
            ab.add(lines(&b));
            let mut ba = lines(&b);
            ba.add(lines(&a));
            prop_assert_eq!(&ab, &ba);
            let both: Vec<_> = a.into_iter().chain(b).collect();
            prop_assert_eq!(ab, lines(&both));
        }
    }
}
