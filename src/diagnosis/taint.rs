//! What a kernel is tainted with (Documentation/admin-guide/tainted-kernels.rst).

use serde::{Serialize, Serializer};

/// Letters and names, by bit.
const FLAGS: [(char, &str); 20] = [
    ('P', "proprietary module"),
    ('F', "module loaded by force"),
    ('S', "processor out of specification"),
    ('R', "module unloaded by force"),
    ('M', "machine check"),
    ('B', "bad page"),
    ('U', "requested by user space"),
    ('D', "died"),
    ('A', "ACPI table overridden"),
    ('W', "warning"),
    ('C', "staging driver"),
    ('I', "firmware bug worked around"),
    ('O', "module from outside of the tree"),
    ('E', "unsigned module"),
    ('L', "soft lockup"),
    ('K', "live patched"),
    ('X', "the distribution's own"),
    ('T', "randomised structures"),
    ('N', "test"),
    ('J', "fwctl debugging"),
];

/// A set of reasons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Taint(u32);

impl Taint {
    /// From the number in `/proc/sys/kernel/tainted`. Bits without a name are kept.
    pub fn from_bits(bits: u32) -> Taint {
        Taint(bits)
    }

    /// The number.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Nothing taints the kernel, or nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0 == 0
    }

    /// Those of either.
    #[must_use]
    pub fn union(self, other: Taint) -> Taint {
        Taint(self.0 | other.0)
    }

    /// Those that are not in `before`.
    #[must_use]
    pub fn since(self, before: Taint) -> Taint {
        Taint(self.0 & !before.0)
    }

    /// The letters, in the order in which the kernel prints them.
    pub fn letters(self) -> String {
        self.flags().map(|(letter, _)| letter).collect()
    }

    /// The reasons in words.
    pub fn reasons(self) -> impl Iterator<Item = &'static str> {
        self.flags().map(|(_, reason)| reason)
    }

    fn flags(self) -> impl Iterator<Item = (char, &'static str)> {
        FLAGS
            .into_iter()
            .enumerate()
            .filter(move |(bit, _)| self.0 & (1 << bit) != 0)
            .map(|(_, flag)| flag)
    }

    /// What a message says: `CPU: 0 PID: 1 Comm: x Tainted: G    B  W   6.1.0`. `None` if it does not
    /// say anything about it.
    pub fn parse(message: &str) -> Option<Taint> {
        let Some((_, letters)) = message.split_once("Tainted: ") else {
            return message.contains("Not tainted").then_some(Taint(0));
        };
        let mut taint = Taint(0);
        // Ends where the release begins, or at a bracket: `Tainted: [W]=WARN` is the long form.
        for c in letters.chars() {
            match FLAGS.iter().position(|(letter, _)| *letter == c) {
                Some(bit) => taint.0 |= 1 << bit,
                None if c == ' ' || c == 'G' => {}
                None => break,
            }
        }
        Some(taint)
    }
}

impl Serialize for Taint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.letters())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_read_and_written() {
        let taint =
            Taint::parse("CPU: 0 PID: 1 Comm: x Tainted: G    B   W    L    6.1.0-rc1 #8").unwrap();
        assert_eq!(taint.letters(), "BWL");
        assert_eq!(taint.reasons().collect::<Vec<_>>(), ["bad page", "warning", "soft lockup"]);
        assert_eq!(Taint::parse("Comm: x Not tainted 6.1.0"), Some(Taint::default()));
        assert_eq!(Taint::parse("something else"), None);
    }

    #[test]
    fn what_came_since_is_told() {
        let before = Taint::from_bits(1 << 12);
        let after = Taint::from_bits(1 << 12 | 1 << 9);
        assert_eq!(after.since(before).letters(), "W");
        assert_eq!(before.since(after), Taint::default());
        assert_eq!(before.union(after).bits(), after.bits());
    }
}
