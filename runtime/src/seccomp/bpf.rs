//! From decisions to classic BPF instructions (`Documentation/userspace-api/seccomp_filter.rst`).
//!
//! Knows numbers only: no names, no document. The program is written from its end: jumps go forward only, so
//! every target is there, and its distance known, before the jump to it is written. Pieces that are far away are
//! reached through a jump of their own, since a branch spans 255 instructions.

use std::ops::Range;

use libc::sock_filter;

use super::syscalls::{Abi, LIMIT};

/// Of `struct seccomp_data`: the number, the architecture, and the first argument (two little-endian words each).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// `AUDIT_ARCH_X86_64` of `linux/audit.h`; of x32, too.
pub(super) const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
/// `AUDIT_ARCH_I386`.
pub(super) const AUDIT_ARCH_I386: u32 = 0x4000_0003;
/// Set in every x32 system call number; those share x86-64's architecture value.
pub(super) const X32_BIT: u32 = 0x4000_0000;
/// The number that a tracer sets to have a call left out; no call of x32.
const SKIPPED: u32 = u32::MAX;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_GREATER: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
const IF_GREATER_OR_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;

/// The numbers that x32 has for itself: higher than those of newer calls.
const X32_OWN: Range<usize> = 512..548;

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
#[derive(Debug, Clone)]
struct Rule {
    conditions: Range<usize>,
    action: u32,
    /// One more than the index of the next rule for the same call, or 0.
    next: u16,
}

/// What to do with one system call: the rules in order, else the final action.
#[derive(Debug, Clone, Copy)]
struct Slot {
    otherwise: u32,
    /// One more than the index of the first rule, or 0.
    rules: u16,
    /// The same for the last rule.
    last: u16,
    closed: bool,
}

impl Slot {
    fn of(otherwise: u32, closed: bool) -> Self {
        Self {
            otherwise,
            rules: 0,
            last: 0,
            closed,
        }
    }
}

/// What to do with the system calls of one ABI.
#[derive(Debug)]
pub(super) struct Decisions {
    abi: Abi,
    /// By number.
    slots: Vec<Slot>,
    rules: Vec<Rule>,
    default: u32,
    /// One more than the highest number that the profile names.
    known: usize,
}

impl Decisions {
    pub(super) fn new(abi: Abi, default: u32) -> Self {
        Self {
            abi,
            slots: vec![Slot::of(default, false); LIMIT],
            rules: Vec::new(),
            default,
            known: 0,
        }
    }

    pub(super) fn abi(&self) -> Abi {
        self.abi
    }

    /// Notes that the profile knows the call, whatever it says of it.
    pub(super) fn name(&mut self, number: u16) {
        let number = usize::from(number);
        if self.abi != Abi::X32 || !X32_OWN.contains(&number) {
            self.known = self.known.max(number + 1);
        }
    }

    /// Appends a rule: a range of the conditions that [`assemble`] gets. Nothing follows a rule without conditions.
    pub(super) fn add(&mut self, number: u16, conditions: Range<usize>, action: u32) {
        let slot = &mut self.slots[usize::from(number)];
        if slot.closed {
            return;
        }
        if conditions.is_empty() {
            (slot.otherwise, slot.closed) = (action, true);
            return;
        }
        let new = self.rules.len() as u16 + 1;
        match usize::from(slot.last).checked_sub(1) {
            Some(last) => self.rules[last].next = new,
            None => slot.rules = new,
        }
        slot.last = new;
        self.rules.push(Rule {
            conditions,
            action,
            next: 0,
        });
    }

    /// How many rules with conditions there are.
    pub(super) fn rules(&self) -> usize {
        self.rules.len()
    }

    /// Ranges of numbers with the same decision, each by its first number, from 0 without gaps. `beyond` is for
    /// calls newer than any that the profile names.
    fn ranges(&self, beyond: u32, ranges: &mut Vec<(u32, Slot)>) {
        ranges.clear();
        let base = if self.abi == Abi::X32 { X32_BIT } else { 0 };
        let beyond = match self.known {
            0 => self.default,
            _ => beyond,
        };
        let beyond = Slot::of(beyond, true);
        for (number, slot) in self.slots.iter().enumerate() {
            let own = self.abi == Abi::X32 && X32_OWN.contains(&number);
            let slot = if number < self.known || own {
                slot
            } else {
                &beyond
            };
            match ranges.last() {
                Some((_, last))
                    if last.rules == 0 && slot.rules == 0 && last.otherwise == slot.otherwise => {}
                _ => ranges.push((base + number as u32, *slot)),
            }
        }
    }
}

/// The whole program. `beyond` is for numbers above the last that the profile names.
pub(super) fn assemble(
    decisions: &[Decisions],
    conditions: &[Condition],
    default: u32,
    beyond: u32,
) -> Vec<sock_filter> {
    let mut program = Program::new();
    let mut ranges = Vec::with_capacity(LIMIT);
    let mut abi = |program: &mut Program, abi: Abi| {
        let decisions = decisions.iter().find(|found| found.abi == abi)?;
        decisions.ranges(beyond, &mut ranges);
        Some(program.search(decisions, conditions, &ranges))
    };
    let i386 = abi(&mut program, Abi::I386).map(|search| {
        program.load(NUMBER, search);
        program.here()
    });
    let x32 = abi(&mut program, Abi::X32);
    let native = abi(&mut program, Abi::X86_64);
    let native = native.unwrap_or_else(|| program.give(default));
    let x32 = x32.unwrap_or_else(|| {
        let (skipped, kill) = (program.give(default), program.give(KILL));
        program.branch(IF_EQUAL, SKIPPED, skipped, kill)
    });
    let number = program.branch(IF_GREATER_OR_EQUAL, X32_BIT, x32, native);
    program.load(NUMBER, number);
    let native = program.here();
    let kill = program.give(KILL);
    let foreign = match i386 {
        Some(i386) => program.branch(IF_EQUAL, AUDIT_ARCH_I386, i386, kill),
        None => kill,
    };
    let architecture = program.branch(IF_EQUAL, AUDIT_ARCH_X86_64, native, foreign);
    program.load(ARCHITECTURE, architecture);
    program.finish()
}

const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;

/// A place in the program: how many instructions there are from it to the end.
type Label = usize;

/// The program, last instruction first.
struct Program {
    code: Vec<sock_filter>,
    /// Where returns are, to be shared by whoever is near.
    returns: Vec<(u32, Label)>,
}

impl Program {
    fn new() -> Self {
        Self {
            code: Vec::with_capacity(1024),
            returns: Vec::with_capacity(8),
        }
    }

    fn here(&self) -> Label {
        self.code.len()
    }

    fn finish(mut self) -> Vec<sock_filter> {
        self.code.reverse();
        self.code
    }

    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) {
        self.code.push(sock_filter { code, jt, jf, k });
    }

    /// Makes `label` what comes next.
    fn continue_at(&mut self, label: Label) {
        let distance = self.here() - label;
        if distance > 0 {
            self.push(JUMP, 0, 0, distance as u32);
        }
    }

    fn load(&mut self, offset: u32, next: Label) {
        self.continue_at(next);
        self.push(LOAD, 0, 0, offset);
    }

    /// Ends the program with an action.
    fn give(&mut self, action: u32) -> Label {
        const NEAR: usize = 200;
        let here = self.here();
        let known = self.returns.iter_mut().find(|(known, _)| *known == action);
        match known {
            Some((_, label)) if here - *label <= NEAR => return *label,
            Some((_, label)) => *label = here + 1,
            None => self.returns.push((action, here + 1)),
        }
        self.push(RETURN, 0, 0, action);
        self.here()
    }

    fn branch(&mut self, code: u16, value: u32, mut yes: Label, mut no: Label) -> Label {
        // Each detour moves the branch one on, so the limit leaves room for one.
        const REACH: usize = u8::MAX as usize - 1;
        for label in [&mut yes, &mut no] {
            if self.here() - *label > REACH {
                self.push(JUMP, 0, 0, (self.here() - *label) as u32);
                *label = self.here();
            }
        }
        let (jt, jf) = ((self.here() - yes) as u8, (self.here() - no) as u8);
        self.push(code, jt, jf, value);
        self.here()
    }

    /// A balanced search for the range of the number in the accumulator.
    fn search(
        &mut self,
        decisions: &Decisions,
        conditions: &[Condition],
        ranges: &[(u32, Slot)],
    ) -> Label {
        if let [(_, slot)] = ranges {
            return self.decide(decisions, conditions, slot);
        }
        let (below, above) = ranges.split_at(ranges.len() / 2);
        let first_above = above[0].0;
        let above = self.search(decisions, conditions, above);
        let below = self.search(decisions, conditions, below);
        self.branch(IF_GREATER_OR_EQUAL, first_above, above, below)
    }

    fn decide(&mut self, decisions: &Decisions, conditions: &[Condition], slot: &Slot) -> Label {
        self.decide_from(decisions, conditions, slot.rules, slot.otherwise)
    }

    fn decide_from(
        &mut self,
        decisions: &Decisions,
        conditions: &[Condition],
        rule: u16,
        otherwise: u32,
    ) -> Label {
        let Some(rule) = usize::from(rule).checked_sub(1) else {
            return self.give(otherwise);
        };
        let rule = &decisions.rules[rule];
        let fails = self.decide_from(decisions, conditions, rule.next, otherwise);
        let mut holds = self.give(rule.action);
        for condition in conditions[rule.conditions.clone()].iter().rev() {
            holds = match decisions.abi {
                Abi::I386 => self.compare_low(condition, holds, fails),
                _ => self.compare(condition, holds, fails),
            };
        }
        holds
    }

    /// Compares the high words, and the low ones where those do not decide.
    fn compare(&mut self, condition: &Condition, holds: Label, fails: Label) -> Label {
        use Operator::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, MaskedEqual, NotEqual};
        let low = self.compare_low(condition, holds, fails);
        let value = (condition.value >> 32) as u32;
        let differs = match condition.operator {
            NotEqual => holds,
            _ => fails,
        };
        let equal = match condition.operator {
            Equal | NotEqual | MaskedEqual => self.branch(IF_EQUAL, value, low, differs),
            Greater | GreaterOrEqual => {
                let equal = self.branch(IF_EQUAL, value, low, fails);
                self.branch(IF_GREATER, value, holds, equal)
            }
            Less | LessOrEqual => {
                let equal = self.branch(IF_EQUAL, value, low, holds);
                self.branch(IF_GREATER, value, fails, equal)
            }
        };
        self.load_word(condition, 1, equal)
    }

    /// Compares the low words only: the arguments of i386 have no others.
    fn compare_low(&mut self, condition: &Condition, holds: Label, fails: Label) -> Label {
        use Operator::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, MaskedEqual, NotEqual};
        let (code, yes, no) = match condition.operator {
            Equal | MaskedEqual => (IF_EQUAL, holds, fails),
            NotEqual => (IF_EQUAL, fails, holds),
            Greater => (IF_GREATER, holds, fails),
            GreaterOrEqual => (IF_GREATER_OR_EQUAL, holds, fails),
            Less => (IF_GREATER_OR_EQUAL, fails, holds),
            LessOrEqual => (IF_GREATER, fails, holds),
        };
        let test = self.branch(code, condition.value as u32, yes, no);
        self.load_word(condition, 0, test)
    }

    /// Loads the low (0) or high (1) word of the argument, masked.
    fn load_word(&mut self, condition: &Condition, word: u32, next: Label) -> Label {
        self.continue_at(next);
        if condition.operator == Operator::MaskedEqual {
            self.push(AND, 0, 0, (condition.mask >> (32 * word)) as u32);
        }
        self.push(LOAD, 0, 0, ARGUMENTS + 8 * condition.index + 4 * word);
        self.here()
    }
}
