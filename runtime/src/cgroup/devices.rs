//! `linux.resources.devices` as an eBPF program (`BPF_PROG_TYPE_CGROUP_DEVICE`), which is how cgroup v2 guards
//! devices. Pure; loading is `sys`'s.
//!
//! The last rule that matches an access decides; if none does, it is denied. An allowing rule matches when it
//! grants all of what is asked for, a denying one when it forbids any of it. After the rules of the document come
//! the runtime's own: making nodes, and using the specification's default devices and terminals, is allowed.

use crate::error::{Error, Result};
use crate::spec::DeviceRule;

/// One instruction, as the kernel takes it (`struct bpf_insn`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    code: u8,
    /// Destination in the low four bits, source in the high four.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// `BPF_DEVCG_*` of `linux/bpf.h`.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
const MAKE: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;
const EVERY_ACCESS: i32 = MAKE | READ | WRITE;

/// More rules than the kernel's limit on instructions could hold are refused early.
const MAX_RULES: usize = 400;

#[derive(Debug, Clone, Copy)]
struct Rule {
    allow: bool,
    kind: Option<i32>,
    major: Option<i32>,
    minor: Option<i32>,
    access: i32,
}

const fn allow(kind: i32, major: Option<i32>, minor: Option<i32>, access: i32) -> Rule {
    Rule {
        allow: true,
        kind: Some(kind),
        major,
        minor,
        access,
    }
}

/// Not the console (5:1): the specification's `/dev/console` is a terminal of the container's own, while a node of
/// that number, which an image may have, is the machine's.
const OWN_RULES: [Rule; 10] = [
    allow(CHARACTER, None, None, MAKE),
    allow(BLOCK, None, None, MAKE),
    allow(CHARACTER, Some(1), Some(3), EVERY_ACCESS),
    allow(CHARACTER, Some(1), Some(5), EVERY_ACCESS),
    allow(CHARACTER, Some(1), Some(7), EVERY_ACCESS),
    allow(CHARACTER, Some(1), Some(8), EVERY_ACCESS),
    allow(CHARACTER, Some(1), Some(9), EVERY_ACCESS),
    allow(CHARACTER, Some(5), Some(0), EVERY_ACCESS),
    allow(CHARACTER, Some(5), Some(2), EVERY_ACCESS),
    allow(CHARACTER, Some(136), None, EVERY_ACCESS),
];

/// Compiles the rules. `None` without rules: then there is nothing to guard.
pub(super) fn compile(rules: &[DeviceRule]) -> Result<Option<Vec<Instruction>>> {
    if rules.is_empty() {
        return Ok(None);
    }
    if rules.len() > MAX_RULES {
        return Err(Error::Config(format!(
            "linux.resources.devices: more than {MAX_RULES} rules"
        )));
    }
    let mut rules = rules.iter().map(resolve).collect::<Result<Vec<_>>>()?;
    rules.extend(OWN_RULES);
    let mut program = vec![
        load(TYPE, 0),
        copy(ACCESS, TYPE),
        with(AND, TYPE, 0xffff),
        with(SHIFT_RIGHT, ACCESS, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for rule in rules.iter().rev() {
        program.extend(check(*rule));
        if rule.is_unconditional() {
            // The kernel refuses programs with instructions that are never reached.
            return Ok(Some(program));
        }
    }
    program.extend([with(SET, RESULT, 0), exit()]);
    Ok(Some(program))
}

impl Rule {
    fn is_unconditional(&self) -> bool {
        self.kind.is_none()
            && self.major.is_none()
            && self.minor.is_none()
            && self.access == EVERY_ACCESS
    }
}

fn resolve(rule: &DeviceRule) -> Result<Rule> {
    let wrong = |what: &str| Error::Config(format!("linux.resources.devices: {what} in {rule:?}"));
    let kind = match rule.kind.as_deref() {
        None | Some("" | "a") => None,
        Some("c" | "u") => Some(CHARACTER),
        Some("b") => Some(BLOCK),
        Some(_) => return Err(wrong("unknown type")),
    };
    // Any negative number stands for all, as in the formats before this one.
    let number = |number: Option<i64>| match number {
        None | Some(..0) => Ok(None),
        Some(number) => i32::try_from(number)
            .map(Some)
            .map_err(|_| wrong("number out of range")),
    };
    let mut access = 0;
    for letter in rule.access.as_deref().unwrap_or("rwm").chars() {
        access |= match letter {
            'm' => MAKE,
            'r' => READ,
            'w' => WRITE,
            _ => return Err(wrong("unknown access")),
        };
    }
    let access = if access == 0 { EVERY_ACCESS } else { access };
    Ok(Rule {
        allow: rule.allow,
        kind,
        major: number(rule.major)?,
        minor: number(rule.minor)?,
        access,
    })
}

/// Returns the rule's verdict if it matches, else goes on behind it.
fn check(rule: Rule) -> Vec<Instruction> {
    let mut code = Vec::new();
    let mut unless_equal = |register: u8, value: Option<i32>| {
        code.extend(value.map(|value| with(IF_NOT_EQUAL, register, value)));
    };
    unless_equal(TYPE, rule.kind);
    unless_equal(MAJOR, rule.major);
    unless_equal(MINOR, rule.minor);
    if rule.allow && rule.access != EVERY_ACCESS {
        code.extend([
            copy(SCRATCH, ACCESS),
            with(AND, SCRATCH, !rule.access),
            with(IF_NOT_EQUAL, SCRATCH, 0),
        ]);
    } else if rule.access != EVERY_ACCESS {
        code.extend([
            copy(SCRATCH, ACCESS),
            with(AND, SCRATCH, rule.access),
            with(IF_EQUAL, SCRATCH, 0),
        ]);
    }
    code.extend([with(SET, RESULT, rule.allow.into()), exit()]);
    let end = code.len();
    for (at, instruction) in code.iter_mut().enumerate() {
        if matches!(instruction.code, IF_NOT_EQUAL | IF_EQUAL) {
            // A rule has 11 instructions at most.
            instruction.offset = (end - at - 1) as i16;
        }
    }
    code
}

const RESULT: u8 = 0;
/// Holds the context at the start, and is free once that has been read.
const SCRATCH: u8 = 1;
const TYPE: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// 32-bit operations with an immediate operand (`linux/bpf.h`).
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const SET: u8 = 0xb4;
const IF_EQUAL: u8 = 0x16;
const IF_NOT_EQUAL: u8 = 0x56;
/// 32-bit copy of a register, load of a word, and the end.
const COPY: u8 = 0xbc;
const LOAD: u8 = 0x61;
const EXIT: u8 = 0x95;

fn with(code: u8, register: u8, immediate: i32) -> Instruction {
    Instruction {
        code,
        registers: register,
        offset: 0,
        immediate,
    }
}

fn copy(to: u8, from: u8) -> Instruction {
    Instruction {
        code: COPY,
        registers: to | from << 4,
        offset: 0,
        immediate: 0,
    }
}

fn load(to: u8, offset: i16) -> Instruction {
    Instruction {
        code: LOAD,
        registers: to | SCRATCH << 4,
        offset,
        immediate: 0,
    }
}

fn exit() -> Instruction {
    with(EXIT, 0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A second implementation of the machine. Panics on a jump out of the program.
    fn execute(program: &[Instruction], kind: i32, access: i32, major: i32, minor: i32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0i32; 6];
        let mut pc = 0;
        loop {
            let at = program[pc];
            let (to, from) = (
                usize::from(at.registers & 15),
                usize::from(at.registers >> 4),
            );
            pc += 1;
            match at.code {
                LOAD => registers[to] = context[at.offset as usize / 4],
                COPY => registers[to] = registers[from],
                AND => registers[to] &= at.immediate,
                SHIFT_RIGHT => registers[to] = ((registers[to] as u32) >> at.immediate) as i32,
                SET => registers[to] = at.immediate,
                IF_EQUAL if registers[to] == at.immediate => pc += at.offset as usize,
                IF_NOT_EQUAL if registers[to] != at.immediate => pc += at.offset as usize,
                IF_EQUAL | IF_NOT_EQUAL => {}
                EXIT => return registers[0] == 1,
                code => panic!("unexpected instruction {code:#x}"),
            }
        }
    }

    fn compile_text(text: &str) -> Result<Option<Vec<Instruction>>> {
        compile(&serde_json::from_str::<Vec<DeviceRule>>(text).expect("well formed"))
    }

    #[test]
    fn last_matching_rule_decides_and_default_devices_stay_usable() {
        let text = r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":10,"minor":229,"access":"rw"},
            {"allow":true,"type":"b","major":8},{"allow":false,"type":"b","major":8,"minor":1,"access":"w"}]"#;
        let program = compile_text(text).expect("valid").expect("there are rules");
        for (kind, access, major, minor, expected) in [
            (CHARACTER, READ | WRITE, 1, 3, true),
            (CHARACTER, READ, 1, 1, false),
            (CHARACTER, MAKE, 1, 1, true),
            (CHARACTER, READ | WRITE, 10, 229, true),
            (CHARACTER, READ | WRITE, 136, 7, true),
            (CHARACTER, WRITE, 5, 1, false),
            (BLOCK, READ, 10, 229, false),
            (BLOCK, READ | WRITE, 8, 0, true),
            (BLOCK, READ, 8, 1, true),
            (BLOCK, READ | WRITE, 8, 1, false),
            (BLOCK, READ, 9, 0, false),
        ] {
            assert_eq!(
                execute(&program, kind, access, major, minor),
                expected,
                "{kind} {access} {major}:{minor}"
            );
        }
    }

    #[test]
    fn nothing_comes_after_a_rule_that_always_matches() {
        let text = r#"[{"allow":true,"type":"c","major":7},{"allow":false}]"#;
        let program = compile_text(text).expect("valid").expect("there are rules");
        assert!(!execute(&program, CHARACTER, READ, 7, 0));
        assert_eq!(
            program.len(),
            compile_text(r#"[{"allow":false}]"#)
                .expect("valid")
                .expect("a rule")
                .len()
        );
    }

    #[test]
    fn no_rules_make_no_program_and_wrong_ones_are_refused() {
        assert_eq!(compile_text("[]").expect("valid"), None);
        for text in [
            r#"[{"allow":true,"type":"x"}]"#,
            r#"[{"allow":true,"access":"rx"}]"#,
            r#"[{"allow":true,"major":4294967296}]"#,
        ] {
            assert!(compile_text(text).is_err(), "{text}");
        }
    }
}
