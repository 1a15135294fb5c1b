//! From decisions to classic BPF instructions (`Documentation/userspace-api/seccomp_filter.rst`).
//!
//! Knows numbers only: no names, no document. Code is made of pieces whose jumps are relative and forward, so
//! that pieces can be put one after another without fixing them up.

use std::collections::BTreeMap;

use libc::sock_filter;

/// Of `struct seccomp_data`: the number, the architecture, and the first argument (two little-endian words each).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// `AUDIT_ARCH_X86_64` of `linux/audit.h`.
pub(super) const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
/// Set in every x32 system call number; those share x86-64's architecture value.
pub(super) const X32_BIT: u32 = 0x4000_0000;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_GREATER: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
const IF_GREATER_OR_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;

/// How an argument is compared, unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    NotEqual,
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
    MaskedEqual,
}

/// One comparison of a 64-bit argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    /// 0 to 5.
    pub(super) index: u32,
    pub(super) operator: Operator,
    /// All ones unless the operator is `MaskedEqual`.
    pub(super) mask: u64,
    pub(super) value: u64,
}

/// If all conditions hold, the filter returns the action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) conditions: Vec<Condition>,
    pub(super) action: u32,
}

/// What to do with one system call: the rules in order, else the final action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decision {
    rules: Vec<Rule>,
    otherwise: u32,
    closed: bool,
}

impl Decision {
    pub(super) fn new(otherwise: u32) -> Self {
        Self {
            rules: Vec::new(),
            otherwise,
            closed: false,
        }
    }

    /// Appends a rule; one that comes after an unconditional rule can never match.
    pub(super) fn add(&mut self, rule: &Rule) {
        if self.closed || self.rules.contains(rule) {
            return;
        }
        if rule.conditions.is_empty() {
            self.otherwise = rule.action;
            self.closed = true;
        } else {
            self.rules.push(rule.clone());
        }
    }
}

/// The whole program. `default` is for numbers that have no decision, `beyond` for those above the last one.
pub(super) fn assemble(
    decisions: &BTreeMap<u32, Decision>,
    default: u32,
    beyond: u32,
) -> Vec<sock_filter> {
    let mut program = vec![
        load(ARCHITECTURE),
        branch(IF_EQUAL, AUDIT_ARCH_X86_64, 1, 0),
        give(libc::SECCOMP_RET_KILL_PROCESS),
        load(NUMBER),
        branch(IF_GREATER_OR_EQUAL, X32_BIT, 0, 1),
        give(libc::SECCOMP_RET_KILL_PROCESS),
    ];
    program.extend(search(&ranges(decisions, default, beyond)));
    program
}

/// Ranges of numbers with the same decision, each given by its first number, from 0 without gaps.
fn ranges(decisions: &BTreeMap<u32, Decision>, default: u32, beyond: u32) -> Vec<(u32, Decision)> {
    let mut ranges: Vec<(u32, Decision)> = Vec::new();
    let mut push = |first: u32, decision: Decision| match ranges.last() {
        Some((_, last)) if last.rules == decision.rules && last.otherwise == decision.otherwise => {
        }
        _ => ranges.push((first, decision)),
    };
    let mut next = 0;
    for (&number, decision) in decisions {
        if number > next {
            push(next, Decision::new(default));
        }
        push(number, decision.clone());
        next = number + 1;
    }
    push(next, Decision::new(beyond));
    ranges
}

/// A balanced search for the range of the number in the accumulator.
fn search(ranges: &[(u32, Decision)]) -> Vec<sock_filter> {
    if let [(_, decision)] = ranges {
        return decide(decision);
    }
    let middle = ranges.len() / 2;
    let (below, above) = (search(&ranges[..middle]), search(&ranges[middle..]));
    let mut code = match u8::try_from(below.len()) {
        Ok(skip) => vec![branch(IF_GREATER_OR_EQUAL, ranges[middle].0, skip, 0)],
        // A branch reaches 255 instructions; a jump reaches any.
        Err(_) => {
            vec![
                branch(IF_GREATER_OR_EQUAL, ranges[middle].0, 0, 1),
                instruction(JUMP, 0, 0, below.len() as u32),
            ]
        }
    };
    code.extend(below);
    code.extend(above);
    code
}

fn decide(decision: &Decision) -> Vec<sock_filter> {
    let mut code: Vec<_> = decision.rules.iter().flat_map(check_rule).collect();
    code.push(give(decision.otherwise));
    code
}

/// Where a comparison goes on.
#[derive(Clone, Copy)]
enum Goto {
    /// The next instruction.
    Next,
    /// Past this condition: it holds.
    Holds,
    /// Past this rule: it does not apply.
    Fails,
}

/// Six conditions are at most 6 × 7 instructions, so every jump within a rule fits its eight bits.
fn check_rule(rule: &Rule) -> Vec<sock_filter> {
    let pieces: Vec<_> = rule.conditions.iter().map(compare).collect();
    let mut left: usize = pieces.iter().map(Vec::len).sum();
    let mut code = Vec::with_capacity(left + 1);
    for piece in pieces {
        let end = piece.len();
        for (at, (mut instruction, if_true, if_false)) in piece.into_iter().enumerate() {
            let resolve = |goto: Goto| match goto {
                Goto::Next => 0,
                Goto::Holds => (end - at - 1) as u8,
                // The return that ends the rule is skipped, too.
                Goto::Fails => (left - at) as u8,
            };
            (instruction.jt, instruction.jf) = (resolve(if_true), resolve(if_false));
            code.push(instruction);
        }
        left -= end;
    }
    code.push(give(rule.action));
    code
}

type Symbolic = (sock_filter, Goto, Goto);

/// Compares the high words, and the low ones where those do not decide.
fn compare(condition: &Condition) -> Vec<Symbolic> {
    use Goto::{Fails, Holds, Next};
    let (high, low) = ((condition.value >> 32) as u32, condition.value as u32);
    let (mask_high, mask_low) = ((condition.mask >> 32) as u32, condition.mask as u32);
    let word = |high: u32| (load(ARGUMENTS + 8 * condition.index + 4 * high), Next, Next);
    let test = |code: u16, value: u32, yes: Goto, no: Goto| (branch(code, value, 0, 0), yes, no);
    let and = |mask: u32| (instruction(AND, 0, 0, mask), Next, Next);
    match condition.operator {
        Operator::Equal => {
            vec![
                word(1),
                test(IF_EQUAL, high, Next, Fails),
                word(0),
                test(IF_EQUAL, low, Next, Fails),
            ]
        }
        Operator::NotEqual => {
            vec![
                word(1),
                test(IF_EQUAL, high, Next, Holds),
                word(0),
                test(IF_EQUAL, low, Fails, Next),
            ]
        }
        Operator::MaskedEqual => vec![
            word(1),
            and(mask_high),
            test(IF_EQUAL, high, Next, Fails),
            word(0),
            and(mask_low),
            test(IF_EQUAL, low, Next, Fails),
        ],
        Operator::Greater | Operator::GreaterOrEqual => {
            let strict = condition.operator == Operator::Greater;
            let code = if strict {
                IF_GREATER
            } else {
                IF_GREATER_OR_EQUAL
            };
            vec![
                word(1),
                test(IF_GREATER, high, Holds, Next),
                test(IF_EQUAL, high, Next, Fails),
                word(0),
                test(code, low, Next, Fails),
            ]
        }
        Operator::Less | Operator::LessOrEqual => {
            let strict = condition.operator == Operator::Less;
            let code = if strict {
                IF_GREATER_OR_EQUAL
            } else {
                IF_GREATER
            };
            vec![
                word(1),
                test(IF_GREATER, high, Fails, Next),
                test(IF_EQUAL, high, Next, Holds),
                word(0),
                test(code, low, Fails, Next),
            ]
        }
    }
}

fn load(offset: u32) -> sock_filter {
    instruction(LOAD, 0, 0, offset)
}

fn give(action: u32) -> sock_filter {
    instruction(RETURN, 0, 0, action)
}

fn branch(code: u16, value: u32, if_true: u8, if_false: u8) -> sock_filter {
    instruction(code, if_true, if_false, value)
}

fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}
