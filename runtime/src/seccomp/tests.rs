use super::bpf::{AUDIT_ARCH_I386, AUDIT_ARCH_X86_64, X32_BIT};
use super::*;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// A second implementation of the machine, to run the programs on. Panics on a jump out of the program.
pub(crate) fn execute(
    program: &[libc::sock_filter],
    arch: u32,
    number: u32,
    args: [u64; 6],
) -> u32 {
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
    run_as(Abi::X86_64, profile, name, args)
}

fn run_as(abi: Abi, profile: &str, name: &str, args: [u64; 6]) -> u32 {
    let profile: Seccomp = serde_json::from_str(profile).expect("valid JSON");
    let filter = compile(&profile).expect("valid profile");
    let (arch, base) = match abi {
        Abi::X86_64 => (AUDIT_ARCH_X86_64, 0),
        Abi::X32 => (AUDIT_ARCH_X86_64, X32_BIT),
        Abi::I386 => (AUDIT_ARCH_I386, 0),
    };
    let number = syscalls::numbers(name).expect("a known name")[abi as usize];
    assert_ne!(number, NONE, "{name}");
    execute(&filter.instructions, arch, base + u32::from(number), args)
}

const PROFILE: &str = r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],
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
fn architectures_that_are_not_listed_are_killed() {
    let filter =
        compile(&serde_json::from_str(PROFILE).expect("valid JSON")).expect("valid profile");
    const AUDIT_ARCH_AARCH64: u32 = 0xc000_00b7;
    for (arch, number) in [
        (AUDIT_ARCH_I386, 3),
        (AUDIT_ARCH_AARCH64, 63),
        (AUDIT_ARCH_X86_64, X32_BIT),
        (AUDIT_ARCH_X86_64, X32_BIT + 520),
    ] {
        let verdict = execute(&filter.instructions, arch, number, [0; 6]);
        assert_eq!(verdict, KILL, "{arch:#x} {number}");
    }
    let left_out = execute(&filter.instructions, AUDIT_ARCH_X86_64, u32::MAX, [0; 6]);
    assert_eq!(left_out, EPERM, "a tracer may leave a call out");
    assert_eq!(filter.unknown, ["arm_sync_file_range"]);
}

#[test]
fn listed_architectures_are_filtered_by_their_own_numbers() {
    let profile = r#"{"defaultAction":"SCMP_ACT_ERRNO",
        "architectures":["SCMP_ARCH_X32","SCMP_ARCH_X86","SCMP_ARCH_AARCH64"],"syscalls":[
        {"names":["read","execve","chown32"],"action":"SCMP_ACT_ALLOW"},
        {"names":["ptrace"],"action":"SCMP_ACT_KILL_PROCESS"},
        {"names":["personality"],"action":"SCMP_ACT_ALLOW",
         "args":[{"index":0,"value":18446744073709551615,"op":"SCMP_CMP_EQ"}]}]}"#;
    for abi in [Abi::X86_64, Abi::X32, Abi::I386] {
        for (name, expected) in [
            ("read", ALLOW),
            ("execve", ALLOW),
            ("ptrace", KILL),
            ("open", EPERM),
            ("futex_waitv", ENOSYS),
        ] {
            assert_eq!(
                run_as(abi, profile, name, [0; 6]),
                expected,
                "{abi:?} {name}"
            );
        }
    }
    assert_eq!(run_as(Abi::I386, profile, "chown32", [0; 6]), ALLOW);
    let minus_one = [u64::from(u32::MAX), 0, 0, 0, 0, 0];
    assert_eq!(
        run_as(Abi::I386, profile, "personality", minus_one),
        ALLOW,
        "the arguments of i386 have 32 bits"
    );
    assert_eq!(run_as(Abi::X32, profile, "personality", minus_one), EPERM);
}

#[test]
fn multiplexed_calls_of_i386_follow_the_rules_of_the_calls() {
    let entry = |default: &str, action: &str, args: &str| {
        format!(
            r#"{{"defaultAction":"{default}","architectures":["SCMP_ARCH_X86"],"syscalls":[
            {{"names":["socket","recv","shmat"],"action":"{action}","args":[{args}]}}]}}"#
        )
    };
    let vsock = r#"{"index":0,"value":40,"op":"SCMP_CMP_EQ"}"#;
    let (allow, deny) = ("SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO");
    let call = |number: u64| [number, 0, 0, 0, 0, 0];
    for (profile, name, args, expected) in [
        (entry(deny, allow, ""), "socketcall", call(1), ALLOW),
        (entry(deny, allow, ""), "socketcall", call(10), ALLOW),
        (entry(deny, allow, ""), "socketcall", call(2), ENOSYS),
        (entry(deny, allow, ""), "ipc", call(0x1_0015), ALLOW),
        // What lies in memory cannot be looked at: nothing is allowed on trust.
        (entry(deny, allow, vsock), "socketcall", call(1), ENOSYS),
        (entry(allow, deny, vsock), "socketcall", call(1), EPERM),
        (entry(allow, deny, vsock), "socketcall", call(2), ALLOW),
    ] {
        let found = run_as(Abi::I386, &profile, name, args);
        let found = if found == EPERM && expected == ENOSYS {
            ENOSYS
        } else {
            found
        };
        assert_eq!(found, expected, "{profile} {name} {args:?}");
    }
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
fn first_matching_rule_decides_and_nothing_follows_one_without_conditions() {
    let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
        {"names":["socket"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":40,"op":"SCMP_CMP_EQ"}]},
        {"names":["socket"],"action":"SCMP_ACT_TRAP","args":[{"index":0,"value":16,"op":"SCMP_CMP_GE"}]},
        {"names":["bind"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":40,"op":"SCMP_CMP_EQ"}]},
        {"names":["bind"],"action":"SCMP_ACT_LOG"},
        {"names":["bind"],"action":"SCMP_ACT_KILL"}]}"#;
    for (name, first, expected) in [
        ("socket", 40, EPERM),
        ("socket", 41, libc::SECCOMP_RET_TRAP),
        ("socket", 15, ALLOW),
        ("bind", 40, EPERM),
        ("bind", 2, libc::SECCOMP_RET_LOG),
        // The default allows newer calls, too.
        ("seccomp", 0, ALLOW),
    ] {
        let found = run(profile, name, [first, 0, 0, 0, 0, 0]);
        assert_eq!(found, expected, "{name} {first}");
    }
}

#[test]
fn every_call_finds_its_own_decision_in_a_large_profile() {
    let mut decisions = Decisions::new(Abi::X86_64, EPERM);
    let mut conditions = Vec::new();
    for number in (0..400).step_by(2) {
        conditions.push(Condition {
            index: 0,
            operator: Operator::Equal,
            mask: u64::MAX,
            value: u64::from(number),
        });
        decisions.name(number);
        let last = conditions.len();
        decisions.add(number, last - 1..last, ALLOW | u32::from(number));
    }
    let program = bpf::assemble(&[decisions], &conditions, EPERM, ENOSYS);
    for number in 0..420 {
        let expected = match number {
            399.. => ENOSYS,
            even if even % 2 == 0 => ALLOW | number,
            _ => EPERM,
        };
        let args = [u64::from(number), 0, 0, 0, 0, 0];
        let found = execute(&program, AUDIT_ARCH_X86_64, number, args);
        assert_eq!(found, expected, "{number}");
        let other = execute(&program, AUDIT_ARCH_X86_64, number, [u64::MAX; 6]);
        let expected = if number < 399 { EPERM } else { ENOSYS };
        assert_eq!(other, expected, "{number}");
    }
}

#[test]
fn what_is_not_understood_is_refused() {
    for profile in [
        r#"{"defaultAction":"SCMP_ACT_MAYBE"}"#,
        r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#,
        r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":65536}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":1}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_X"]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_VAX"]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["X86"]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerMetadata":"x"}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":[],"action":"SCMP_ACT_KILL"}]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_NOTIFY"}]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL",
            "errnoRet":1}]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL",
            "args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL",
            "args":[{"index":1,"value":0,"op":"=="}]}]}"#,
    ] {
        let parsed: Seccomp = serde_json::from_str(profile).expect("valid JSON");
        assert!(compile(&parsed).is_err(), "{profile}");
    }
}

#[test]
fn listener_is_there_if_and_only_if_an_action_notifies() {
    const LISTENS: u32 = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32;
    let compiled = |action: &str| {
        let profile = format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/agent","listenerMetadata":"m",
            "flags":["SECCOMP_FILTER_FLAG_TSYNC","SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
            "syscalls":[{{"names":["mkdir"],"action":"{action}"}}]}}"#
        );
        compile(&serde_json::from_str(&profile).expect("valid JSON")).expect("valid profile")
    };
    let notifies = compiled("SCMP_ACT_NOTIFY");
    let listener = notifies.listener.expect("there is a listener");
    assert_eq!(listener.path, PathBuf::from("/run/agent"));
    assert_eq!(listener.metadata.as_deref(), Some("m"));
    // Both TSYNC and a listener need TSYNC_ESRCH.
    assert_eq!(notifies.flags, LISTENS | 1 | 1 << 4 | 1 << 5);
    let denies = compiled("SCMP_ACT_ERRNO");
    assert_eq!((denies.listener, denies.flags), (None, 1));
}

#[test]
fn profile_with_too_many_rules_is_refused_before_it_takes_long() {
    let condition = r#"{"index":0,"value":1,"op":"SCMP_CMP_EQ"}"#;
    let entry = format!(
        r#"{{"names":["read"],"action":"SCMP_ACT_KILL","args":[{}]}}"#,
        [condition; 3000].join(",")
    );
    let profile = format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{entry}]}}"#);
    let profile = serde_json::from_str(&profile).expect("valid JSON");
    assert!(compile(&profile).is_err());
}
