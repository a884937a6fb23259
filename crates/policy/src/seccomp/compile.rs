//! Writes the filter: architecture check, then a balanced binary search over ranges of call numbers, so that a call
//! costs some ten instructions however long the table is.

use super::parse::{Alternative, Call, Condition, Rule};

/// An architecture that sandboxes run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// 64-bit x86; its 32-bit and x32 entries are foreign.
    X86_64,
    /// 64-bit Arm.
    Aarch64,
}

impl Arch {
    /// By the name that Rust gives it.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "x86_64" => Some(Self::X86_64),
            "aarch64" => Some(Self::Aarch64),
            _ => None,
        }
    }

    /// `AUDIT_ARCH_*` of `linux/audit.h`.
    pub const fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xC000_003E,
            Self::Aarch64 => 0xC000_00B7,
        }
    }

    fn number(self, call: &Call) -> Option<u32> {
        match self {
            Self::X86_64 => call.x86_64,
            Self::Aarch64 => call.aarch64,
        }
    }
}

/// One BPF instruction: code, jump if true, jump if false, operand (`struct sock_filter`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation code.
    pub code: u16,
    /// Jump distance if true.
    pub jump_true: u8,
    /// Jump distance if false.
    pub jump_false: u8,
    /// Operand.
    pub operand: u32,
}

impl Instruction {
    /// Code, jumps and operand in one word, highest first.
    pub const fn pack(self) -> u64 {
        (self.code as u64) << 48 | (self.jump_true as u64) << 40 | (self.jump_false as u64) << 32 | self.operand as u64
    }
}

pub(super) const LOAD: u16 = 0x20;
pub(super) const AND: u16 = 0x54;
pub(super) const JUMP: u16 = 0x05;
pub(super) const JUMP_EQUAL: u16 = 0x15;
pub(super) const JUMP_AT_LEAST: u16 = 0x35;
pub(super) const RETURN: u16 = 0x06;
pub(super) const RETURN_ALLOW: u32 = 0x7FFF_0000;
const RETURN_ERRNO: u32 = 0x0005_0000;
pub(super) const RETURN_EPERM: u32 = RETURN_ERRNO | 1;
pub(super) const RETURN_ENOSYS: u32 = 0x0005_0026;
pub(super) const RETURN_KILL: u32 = 0x8000_0000;

const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGUMENTS: u32 = 16;
const LONGEST_JUMP: usize = 255;

const fn op(code: u16, operand: u32) -> Instruction {
    Instruction { code, jump_true: 0, jump_false: 0, operand }
}

/// The filter for one architecture: unknown calls are ENOSYS, calls of another architecture kill the process.
pub fn compile(calls: &[Call], arch: Arch) -> Vec<Instruction> {
    let mut known: Vec<(u32, &Rule)> = calls.iter().filter_map(|call| Some((arch.number(call)?, &call.rule))).collect();
    known.sort_by_key(|(number, _)| *number);
    let mut program = vec![
        op(LOAD, OFFSET_ARCH),
        Instruction { code: JUMP_EQUAL, jump_true: 1, jump_false: 0, operand: arch.audit() },
        op(RETURN, RETURN_KILL),
        op(LOAD, OFFSET_NUMBER),
    ];
    program.extend(search(&ranges(&known)));
    program
}

/// From the first number of each range to what becomes of it (None = unknown).
fn ranges<'a>(known: &[(u32, &'a Rule)]) -> Vec<(u32, Option<&'a Rule>)> {
    let mut ranges: Vec<(u32, Option<&Rule>)> = vec![(0, None)];
    let mut next = 0;
    for (number, rule) in known {
        if *number > next {
            push(&mut ranges, next, None);
        }
        push(&mut ranges, *number, Some(rule));
        next = number + 1;
    }
    push(&mut ranges, next, None);
    ranges
}

fn push<'a>(ranges: &mut Vec<(u32, Option<&'a Rule>)>, start: u32, rule: Option<&'a Rule>) {
    match ranges.last_mut() {
        Some(last) if last.1 == rule => {}
        Some(last) if last.0 == start => last.1 = rule,
        _ => ranges.push((start, rule)),
    }
}

fn search(ranges: &[(u32, Option<&Rule>)]) -> Vec<Instruction> {
    if let [(_, rule)] = ranges {
        return leaf(*rule);
    }
    let middle = ranges.len() / 2;
    let (left, right) = (search(&ranges[..middle]), search(&ranges[middle..]));
    let mut program = if left.len() <= LONGEST_JUMP {
        vec![Instruction { code: JUMP_AT_LEAST, jump_true: left.len() as u8, jump_false: 0, operand: ranges[middle].0 }]
    } else {
        let far = op(JUMP, left.len() as u32);
        vec![Instruction { code: JUMP_AT_LEAST, jump_true: 0, jump_false: 1, operand: ranges[middle].0 }, far]
    };
    program.extend(left);
    program.extend(right);
    program
}

fn leaf(rule: Option<&Rule>) -> Vec<Instruction> {
    match rule {
        None => vec![op(RETURN, RETURN_ENOSYS)],
        Some(Rule::Allow) => vec![op(RETURN, RETURN_ALLOW)],
        Some(Rule::Refuse) => vec![op(RETURN, RETURN_EPERM)],
        Some(Rule::If(alternatives)) => {
            let mut program: Vec<Instruction> = alternatives.iter().flat_map(alternative).collect();
            program.push(op(RETURN, RETURN_EPERM));
            program
        }
    }
}

/// All conditions, then the answer; a failed one jumps behind it. Built from the end, so that distances are known.
fn alternative(alternative: &Alternative) -> Vec<Instruction> {
    let mut program = vec![op(RETURN, alternative.errno.map_or(RETURN_ALLOW, |errno| RETURN_ERRNO | u32::from(errno)))];
    for condition in alternative.conditions.iter().rev() {
        let mut test = test(condition, program.len());
        test.extend(program);
        program = test;
    }
    program
}

/// A test that falls through if the condition holds and else jumps over `rest` instructions behind it.
fn test(condition: &Condition, rest: usize) -> Vec<Instruction> {
    let load = |argument: u32| op(LOAD, OFFSET_ARGUMENTS + 8 * argument);
    let mut program = Vec::new();
    match condition {
        Condition::Clear { argument, mask } => {
            program.extend([load(*argument), op(AND, *mask)]);
            program.push(Instruction { code: JUMP_EQUAL, jump_true: 0, jump_false: rest as u8, operand: 0 });
        }
        Condition::OneOf { argument, values } => {
            program.push(load(*argument));
            for (index, value) in values.iter().enumerate() {
                let behind = values.len() - 1 - index;
                let jump_false = if behind == 0 { rest as u8 } else { 0 };
                program.push(Instruction { code: JUMP_EQUAL, jump_true: behind as u8, jump_false, operand: *value });
            }
        }
        Condition::NoneOf { argument, mask, values } => {
            program.push(load(*argument));
            if *mask != u32::MAX {
                program.push(op(AND, *mask));
            }
            for (index, value) in values.iter().enumerate() {
                let behind = values.len() - 1 - index + rest;
                program.push(Instruction { code: JUMP_EQUAL, jump_true: behind as u8, jump_false: 0, operand: *value });
            }
        }
    }
    program
}
