//! Debug sections of modules, which the linker has left to be completed.

use object::elf;
use object::read::{Object, ObjectSection, ObjectSymbol, Relocation};
use object::{RelocationFlags, RelocationKind, RelocationTarget};

/// Completes a section's bytes in place: where it refers to symbols, their addresses are put in.
/// `address` is where a section is thought to be. What is not understood stays as it is.
pub(super) fn apply<'a>(
    file: &object::File<'a>,
    section: &object::Section<'a, '_>,
    bytes: &mut [u8],
    address: &dyn Fn(object::SectionIndex) -> u64,
) {
    let little = file.is_little_endian();
    for (offset, relocation) in section.relocations() {
        let Some(target) = target(file, &relocation, address) else { continue };
        let value = target.wrapping_add(relocation.addend() as u64);
        let Ok(at) = usize::try_from(offset) else { continue };
        let Some((operation, size)) = operation(file, &relocation) else { continue };
        let Some(field) = at.checked_add(size).and_then(|end| bytes.get_mut(at..end)) else {
            continue;
        };
        let old = read(field, little);
        let implicit = if relocation.has_implicit_addend() { old } else { 0 };
        let new = match operation {
            Operation::Set => value.wrapping_add(implicit),
            Operation::Add => old.wrapping_add(value),
            Operation::Subtract => old.wrapping_sub(value),
            Operation::SetSix => old & !0x3f | value & 0x3f,
            Operation::SubtractSix => old & !0x3f | old.wrapping_sub(value) & 0x3f,
        };
        write(field, new, little);
    }
}

#[derive(Clone, Copy)]
enum Operation {
    Set,
    Add,
    Subtract,
    /// The low six bits: operands of DWARF's call frames on riscv64.
    SetSix,
    SubtractSix,
}

/// What to do with how many bytes. riscv64 writes differences as an addition and a subtraction.
fn operation(file: &object::File<'_>, relocation: &Relocation) -> Option<(Operation, usize)> {
    if file.architecture() == object::Architecture::Riscv64
        && let RelocationFlags::Elf { r_type } = relocation.flags()
    {
        let found = match r_type {
            elf::R_RISCV_ADD8 => (Operation::Add, 1),
            elf::R_RISCV_ADD16 => (Operation::Add, 2),
            elf::R_RISCV_ADD32 => (Operation::Add, 4),
            elf::R_RISCV_ADD64 => (Operation::Add, 8),
            elf::R_RISCV_SUB8 => (Operation::Subtract, 1),
            elf::R_RISCV_SUB16 => (Operation::Subtract, 2),
            elf::R_RISCV_SUB32 => (Operation::Subtract, 4),
            elf::R_RISCV_SUB64 => (Operation::Subtract, 8),
            elf::R_RISCV_SET6 => (Operation::SetSix, 1),
            elf::R_RISCV_SUB6 => (Operation::SubtractSix, 1),
            elf::R_RISCV_SET8 => (Operation::Set, 1),
            elf::R_RISCV_SET16 => (Operation::Set, 2),
            elf::R_RISCV_32 | elf::R_RISCV_SET32 => (Operation::Set, 4),
            elf::R_RISCV_64 => (Operation::Set, 8),
            _ => return None,
        };
        return Some(found);
    }
    let size = usize::from(relocation.size() / 8);
    let absolute = relocation.kind() == RelocationKind::Absolute && (1..=8).contains(&size);
    absolute.then_some((Operation::Set, size))
}

fn target(
    file: &object::File<'_>,
    relocation: &Relocation,
    address: &dyn Fn(object::SectionIndex) -> u64,
) -> Option<u64> {
    match relocation.target() {
        RelocationTarget::Symbol(index) => {
            let symbol = file.symbol_by_index(index).ok()?;
            let base = symbol.section_index().map_or(0, address);
            Some(base.wrapping_add(symbol.address()))
        }
        RelocationTarget::Section(index) => Some(address(index)),
        RelocationTarget::Absolute => Some(0),
        _ => None,
    }
}

fn read(field: &[u8], little: bool) -> u64 {
    let step = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
    if little { field.iter().rev().fold(0, step) } else { field.iter().fold(0, step) }
}

fn write(field: &mut [u8], value: u64, little: bool) {
    let length = field.len();
    for (at, byte) in field.iter_mut().enumerate() {
        let place = if little { at } else { length - 1 - at };
        *byte = (value >> (8 * place)) as u8;
    }
}
