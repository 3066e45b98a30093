//! Which tests of a suite are run.

/// Words of the command line: a test is chosen whose name has one of them; all are where there is none.
/// A word with `*` or `?` is a pattern for the whole name.
#[derive(Clone, Debug, Default)]
pub struct Filter(Vec<String>);

impl Filter {
    /// Of these words.
    pub fn new(words: impl IntoIterator<Item = impl Into<String>>) -> Filter {
        Filter(words.into_iter().map(Into::into).collect())
    }

    /// Whether a name is chosen.
    pub fn chooses(&self, name: &str) -> bool {
        let matches = |word: &String| match word.contains(['*', '?']) {
            true => crate::formats::glob::matches(word.as_bytes(), name.as_bytes()),
            false => name.contains(word.as_str()),
        };
        self.0.is_empty() || self.0.iter().any(matches)
    }
}

/// A part of a suite: `hash:K/N`. Which part a test is in depends on its name, architecture and kernel alone,
/// so that machines that know nothing of each other share a suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    number: u64,
    of: u64,
}

/// No partition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is no partition")]
pub struct PartitionError {
    /// What was given.
    pub given: String,
}

impl PartitionError {
    /// How to fix it.
    pub fn hint(&self) -> String {
        "write it as hash:K/N, K from 1 to N: the first of four parts is hash:1/4".into()
    }
}

impl std::str::FromStr for Partition {
    type Err = PartitionError;

    fn from_str(text: &str) -> Result<Partition, PartitionError> {
        let parse = || {
            let (number, of) = text.strip_prefix("hash:")?.split_once('/')?;
            let (number, of) = (number.parse().ok()?, of.parse().ok()?);
            (1..=of).contains(&number).then_some(Partition { number, of })
        };
        parse().ok_or_else(|| PartitionError { given: text.to_owned() })
    }
}

impl Partition {
    /// Whether a test is in it.
    pub fn has(self, name: &str, cell: &super::Cell) -> bool {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for part in [&cell.arch, &cell.kernel, name] {
            // FNV-1a: the same on every machine and in every version.
            for byte in part.bytes().chain([0]) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        // The low bits of FNV alone are poor for names that differ in one place.
        (hash ^ (hash >> 32)) % self.of == self.number - 1
    }
}

#[cfg(test)]
mod tests {
    use super::super::Cell;
    use super::*;

    #[test]
    fn each_test_is_in_one_partition() {
        let parts: Vec<Partition> =
            (1..=4).map(|k| format!("hash:{k}/4").parse().unwrap()).collect();
        let mut counts = [0; 4];
        for number in 0..400 {
            let cell = Cell { arch: "arm".into(), kernel: "default".into() };
            let name = format!("test {number}");
            let within: Vec<usize> = (0..4).filter(|part| parts[*part].has(&name, &cell)).collect();
            assert_eq!(within.len(), 1);
            counts[within[0]] += 1;
        }
        assert!(counts.iter().all(|count| *count > 60), "{counts:?}");
        for wrong in ["hash:0/4", "hash:5/4", "hash:1", "count:1/2", "hash:1/0"] {
            assert!(wrong.parse::<Partition>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn words_and_patterns_choose() {
        assert!(Filter::default().chooses("x"));
        let filter = Filter::new(["net", "disk?"]);
        assert!(filter.chooses("a net test") && filter.chooses("disk1"));
        assert!(!filter.chooses("a disk1") && !filter.chooses("ne"));
    }
}
