//! Where each processor is, by QEMU's `info registers -a`.

use serde::Serialize;

/// So many processors are read.
const MAX_PROCESSORS: usize = 4096;

/// What QEMU says of one processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Registers {
    /// Its number.
    pub number: u32,
    /// The address of the instruction that comes next.
    pub pc: u64,
    /// Whether it runs a program; `None` where QEMU does not say.
    pub in_user_space: Option<bool>,
    /// It waits for an interrupt; `None` where QEMU does not say.
    pub halted: Option<bool>,
}

/// Reads the text, of any of the five architectures.
pub fn parse(text: &str) -> Vec<Registers> {
    let mut all: Vec<Registers> = Vec::new();
    let mut number = None;
    for line in text.lines() {
        if let Some(rest) = line.trim_start().strip_prefix("CPU#") {
            number = rest.trim().parse().ok();
            continue;
        }
        let Some(number) = number else { continue };
        if let Some(pc) = program_counter(line)
            && all.last().is_none_or(|last| last.number != number)
            && all.len() < MAX_PROCESSORS
        {
            all.push(Registers { number, pc, in_user_space: None, halted: None });
        }
        let Some(last) = all.last_mut().filter(|last| last.number == number) else { continue };
        last.in_user_space = last.in_user_space.or_else(|| privilege(line));
        last.halted = last.halted.or_else(|| field(line, "HLT=").map(|value| value == "1"));
    }
    for registers in &mut all {
        // riscv64: the kernel has the upper half.
        registers.in_user_space.get_or_insert(registers.pc >> 63 == 0);
    }
    all
}

/// `RIP=`, `EIP=`, ` PC=`, `R15=`, and riscv64's ` pc       ffff…`.
fn program_counter(line: &str) -> Option<u64> {
    let digits = ["RIP=", "EIP=", "PC=", "R15="].iter().find_map(|name| field(line, name));
    let digits = digits.or_else(|| {
        let mut words = line.split_whitespace();
        (words.next() == Some("pc")).then(|| words.next()).flatten()
    });
    u64::from_str_radix(digits?, 16).ok()
}

/// amd64's and i386's `CPL=3`, arm64's `EL0t`, arm's `usr32`.
fn privilege(line: &str) -> Option<bool> {
    if let Some(level) = field(line, "CPL=") {
        return Some(level == "3");
    }
    if line.contains("PSTATE=") {
        return Some(line.contains("EL0t"));
    }
    (field(line, "PSR=").is_some()).then(|| line.contains("usr32") || line.contains("usr26"))
}

/// The word behind a name that begins a word.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let at = line.match_indices(name).map(|(at, _)| at);
    let at = at.into_iter().find(|&at| at == 0 || line.as_bytes()[at - 1] == b' ')?;
    line[at + name.len()..].split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_five_are_read() {
        let rows = [
            (
                "\nCPU#0\nRAX=0 RBX=1\nRIP=ffffffff81a2b3c4 RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1\n",
                (0xffff_ffff_81a2_b3c4, Some(false), Some(true)),
            ),
            (
                "CPU#0\nEIP=b7f01234 EFL=00000246 CPL=3 II=0 HLT=0\n",
                (0xb7f0_1234, Some(true), Some(false)),
            ),
            (
                "CPU#0\n PC=ffff800080012345 X00=0\nPSTATE=60000005 -ZC- EL1h\n",
                (0xffff_8000_8001_2345, Some(false), None),
            ),
            (
                "CPU#0\nR12=0 R13=0 R14=0 R15=c0101234\nPSR=600f0013 -ZC- A svc32\n",
                (0xc010_1234, Some(false), None),
            ),
            (
                "CPU#0\n V      =   0\n pc       ffffffff80a7f7c0\n mhartid  0\n",
                (0xffff_ffff_80a7_f7c0, Some(false), None),
            ),
            ("CPU#0\n pc       00007fff80a7f7c0\n", (0x7fff_80a7_f7c0, Some(true), None)),
        ];
        for (text, (pc, in_user_space, halted)) in rows {
            assert_eq!(parse(text), [Registers { number: 0, pc, in_user_space, halted }], "{text}");
        }
        assert_eq!(parse("CPU#0\n pc 1\n\nCPU#1\n pc 2\n").len(), 2);
        assert!(parse("RIP=1\nCPU#x\nRIP=2\nCPU#1\nRIP=zz").is_empty());
    }
}
