use super::bpf::{AUDIT_ARCH_X86_64, X32_BIT};
use super::*;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// A second implementation of the machine, to run the programs on. Panics on a jump out of the program.
fn execute(program: &[libc::sock_filter], arch: u32, number: u32, args: [u64; 6]) -> u32 {
    let load = |offset: u32| match offset {
        0 => number,
        4 => arch,
        at if at % 8 == 0 => args[(at as usize - 16) / 8] as u32,
        at => (args[(at as usize - 20) / 8] >> 32) as u32,
    };
    let (mut pc, mut a) = (0, 0u32);
    loop {
        let at = program[pc];
        pc += 1;
        let branch = |condition: bool| usize::from(if condition { at.jt } else { at.jf });
        match at.code {
            0x20 => a = load(at.k),
            0x54 => a &= at.k,
            0x06 => return at.k,
            0x05 => pc += at.k as usize,
            0x15 => pc += branch(a == at.k),
            0x25 => pc += branch(a > at.k),
            0x35 => pc += branch(a >= at.k),
            code => panic!("unexpected instruction {code:#x}"),
        }
    }
}

fn run(profile: &str, name: &str, args: [u64; 6]) -> u32 {
    let profile: Seccomp = serde_json::from_str(profile).expect("valid JSON");
    let filter = compile(&profile).expect("valid profile");
    execute(
        &filter.instructions,
        AUDIT_ARCH_X86_64,
        syscalls::number(name).expect("a known name"),
        args,
    )
}

const PROFILE: &str = r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X32"],
    "syscalls":[
    {"names":["read","write","execve","arm_sync_file_range"],"action":"SCMP_ACT_ALLOW"},
    {"names":["ptrace"],"action":"SCMP_ACT_KILL_PROCESS"},
    {"names":["clone"],"action":"SCMP_ACT_ALLOW",
     "args":[{"index":0,"value":2114060288,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}]},
    {"names":["openat2"],"action":"SCMP_ACT_ERRNO","errnoRet":38}]}"#;

#[test]
fn calls_get_the_action_of_their_rule_and_others_the_default() {
    for (name, args, expected) in [
        ("read", [0; 6], ALLOW),
        ("execve", [0; 6], ALLOW),
        ("ptrace", [0; 6], KILL),
        ("open", [0; 6], EPERM),
        ("openat2", [0; 6], ENOSYS),
        ("clone", [0x0001_0000, 0, 0, 0, 0, 0], ALLOW),
        ("clone", [0x1000_0000, 0, 0, 0, 0, 0], EPERM),
        ("futex_waitv", [0; 6], ENOSYS),
    ] {
        assert_eq!(run(PROFILE, name, args), expected, "{name}");
    }
}

#[test]
fn other_architectures_are_killed() {
    let filter =
        compile(&serde_json::from_str(PROFILE).expect("valid JSON")).expect("valid profile");
    const AUDIT_ARCH_I386: u32 = 0x4000_0003;
    assert_eq!(
        execute(&filter.instructions, AUDIT_ARCH_I386, 0, [0; 6]),
        KILL
    );
    assert_eq!(
        execute(&filter.instructions, AUDIT_ARCH_X86_64, X32_BIT, [0; 6]),
        KILL
    );
    assert_eq!(
        execute(&filter.instructions, AUDIT_ARCH_X86_64, u32::MAX, [0; 6]),
        KILL
    );
    assert_eq!(filter.unknown, ["arm_sync_file_range"]);
}

#[test]
fn comparisons_are_of_64_bits_and_unsigned() {
    let big = 0x1_0000_0005_u64;
    let samples = [
        0,
        4,
        5,
        6,
        0xffff_ffff,
        big - 1,
        big,
        big + 1,
        0x2_0000_0000,
        0x2_0000_0005,
        u64::MAX,
    ];
    type Holds = fn(u64, u64) -> bool;
    let operators: [(&str, Holds); 6] = [
        ("SCMP_CMP_NE", |a, b| a != b),
        ("SCMP_CMP_LT", |a, b| a < b),
        ("SCMP_CMP_LE", |a, b| a <= b),
        ("SCMP_CMP_EQ", |a, b| a == b),
        ("SCMP_CMP_GE", |a, b| a >= b),
        ("SCMP_CMP_GT", |a, b| a > b),
    ];
    for (op, holds) in operators {
        for value in samples {
            for other in samples {
                let profile = format!(
                    r#"{{"defaultAction":"SCMP_ACT_KILL_PROCESS","syscalls":[{{"names":["read"],
                    "action":"SCMP_ACT_ALLOW","args":[{{"index":3,"value":{value},"op":"{op}"}},
                    {{"index":5,"value":7,"op":"SCMP_CMP_EQ"}}]}}]}}"#
                );
                let expected = if holds(other, value) { ALLOW } else { KILL };
                assert_eq!(
                    run(&profile, "read", [0, 0, 0, other, 0, 7]),
                    expected,
                    "{other} {op} {value}"
                );
                assert_eq!(
                    run(&profile, "read", [0, 0, 0, other, 0, 8]),
                    KILL,
                    "both must hold"
                );
            }
        }
    }
}

#[test]
fn repeated_argument_index_means_any_of_them() {
    let profile = r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["personality"],
        "action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":0,"op":"SCMP_CMP_EQ"},
        {"index":0,"value":8,"op":"SCMP_CMP_EQ"}]}]}"#;
    for (value, expected) in [(0, ALLOW), (8, ALLOW), (9, EPERM)] {
        assert_eq!(
            run(profile, "personality", [value, 0, 0, 0, 0, 0]),
            expected,
            "{value}"
        );
    }
}

#[test]
fn first_matching_rule_decides() {
    let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
        {"names":["socket"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":40,"op":"SCMP_CMP_EQ"}]},
        {"names":["socket"],"action":"SCMP_ACT_LOG"},
        {"names":["socket"],"action":"SCMP_ACT_KILL"}]}"#;
    assert_eq!(run(profile, "socket", [40, 0, 0, 0, 0, 0]), EPERM);
    assert_eq!(
        run(profile, "socket", [2, 0, 0, 0, 0, 0]),
        libc::SECCOMP_RET_LOG
    );
    assert_eq!(
        run(profile, "seccomp", [0; 6]),
        ALLOW,
        "the default allows newer calls, too"
    );
}

#[test]
fn every_call_finds_its_own_decision_in_a_large_profile() {
    let numbers: Vec<u32> = (0..400).step_by(2).collect();
    let decisions = numbers
        .iter()
        .map(|&number| {
            let mut decision = Decision::new(KILL);
            let conditions = vec![Condition {
                index: 0,
                operator: Operator::Equal,
                mask: u64::MAX,
                value: u64::from(number),
            }];
            decision.add(&Rule {
                conditions,
                action: ALLOW | number,
            });
            (number, decision)
        })
        .collect();
    let program = bpf::assemble(&decisions, EPERM, ENOSYS);
    for number in 0..420 {
        let expected = match number {
            399.. => ENOSYS,
            even if even % 2 == 0 => ALLOW | number,
            _ => EPERM,
        };
        let args = [u64::from(number), 0, 0, 0, 0, 0];
        assert_eq!(
            execute(&program, AUDIT_ARCH_X86_64, number, args),
            expected,
            "{number}"
        );
    }
}

#[test]
fn what_is_not_understood_is_refused() {
    for profile in [
        r#"{"defaultAction":"SCMP_ACT_MAYBE"}"#,
        r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#,
        r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":65536}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_X"]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/x"}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL",
            "args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL",
            "args":[{"index":1,"value":0,"op":"=="}]}]}"#,
    ] {
        let profile: Seccomp = serde_json::from_str(profile).expect("valid JSON");
        assert!(compile(&profile).is_err());
    }
}
