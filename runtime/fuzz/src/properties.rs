//! What must hold for any bytes that reach a parser or a compiler of the runtime.
//!
//! Used by the fuzz targets and by `tests/properties.rs`. Each function panics if its property does not hold.

use std::ffi::OsString;
use std::path::Path;

use coracle_runtime::cli::{self, Command};
use coracle_runtime::plan::Plan;
use coracle_runtime::spec::{self, Seccomp, SeccompArg, SeccompSyscall, Spec};
use coracle_runtime::{cgroup, mount, seccomp as compiler};

/// Any document is refused or becomes a plan whose paths stay where they belong.
pub fn config(bytes: &[u8]) {
    let Ok(spec) = spec::parse::<Spec>(bytes, Path::new("config.json")) else {
        return;
    };
    let Ok(plan) = Plan::new(spec, Path::new("/bundle"), "id") else {
        return;
    };
    let mut targets = plan.mounts.iter().map(|mount| &mount.destination);
    assert!(targets.all(|path| path.is_absolute()));
    let mut hidden = plan.masked_paths.iter().chain(&plan.readonly_paths);
    assert!(hidden.all(|path| path.is_absolute()));
}

/// A user is `UID[:GID]` in decimal digits, below the number that means "as it is", and nothing else.
pub fn user(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let id = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse::<u32>().ok().filter(|_| digits);
        number.filter(|&number| number != u32::MAX)
    };
    let expected = match text.split_once(':') {
        None => id(&text).map(|uid| (uid, 0)),
        Some((uid, gid)) => id(uid).zip(id(gid)),
    };
    let option = format!("--user={text}");
    let words = ["exec", &option, "id", "sh"].map(OsString::from);
    let found = match cli::parse(words).map(|invocation| invocation.command) {
        Ok(Command::Exec { options, .. }) => {
            let user = options.user.expect("the option was given");
            Some((user.uid, user.gid))
        }
        _ => None,
    };
    assert_eq!(found, expected, "{text:?}");
}

/// Any text gives controllers with a name each.
pub fn mountinfo(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for (name, _) in cgroup::parse_mountinfo(&text) {
        assert!(!name.contains([',', ' ', '\n']), "{name:?}");
    }
}

/// Any options are refused or understood; what is set is never cleared at the same time, but for access times,
/// which are set by clearing them first.
pub fn mount_options(bytes: &[u8]) {
    const ACCESS_TIMES: u64 = 0x70;
    let text = String::from_utf8_lossy(bytes);
    let (kind, options) = text.split_once('\n').unwrap_or(("tmpfs", &text));
    let options: Vec<String> = options.split(',').map(str::to_owned).collect();
    let Ok(parsed) = mount::options::parse(Some(kind), &options) else {
        return;
    };
    for attributes in [parsed.attributes, parsed.recursive] {
        assert_eq!(
            attributes.set & attributes.clear & !ACCESS_TIMES,
            0,
            "{options:?}"
        );
    }
    let mut names = parsed.parameters.iter().map(|(name, _)| name);
    assert!(names.all(|name| options.iter().any(|option| option.starts_with(name))));
}

/// A compiled profile says what the profile says, for every ABI, by an interpreter of BPF and a plain reading of
/// the document.
pub fn seccomp(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let profile = make_profile(&mut choices);
    let Ok(filter) = compiler::compile(&profile) else {
        return;
    };
    for abi in [Abi::X86_64, Abi::X32, Abi::I386] {
        for call in CALLS {
            let Some(number) = abi.number(call) else {
                continue;
            };
            for _ in 0..3 {
                let args: [u64; 6] = std::array::from_fn(|_| choices.value());
                let data = (abi.architecture(), abi.base() + number, args);
                let found = execute(&filter.instructions, data);
                let expected = read(&profile, abi, call.0, args);
                assert_eq!(found, expected, "{abi:?} {} {args:x?} {profile:?}", call.0);
            }
        }
    }
    const AARCH64: u32 = 0xc000_00b7;
    let foreign = execute(&filter.instructions, (AARCH64, 63, [0; 6]));
    assert_eq!(foreign, libc::SECCOMP_RET_KILL_PROCESS);
}

/// Bytes as decisions; zeros once they are used up.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[usize::from(self.byte()) % list.len()]
    }

    /// Often a value that others choose, too, or one beside it.
    fn value(&mut self) -> u64 {
        let high = self.of(&[0, 0, 0, 1, 0xffff_ffff]);
        let low = self.of(&[0, 1, 2, 21, 40, 0x7fff_ffff, 0xffff_ffff]);
        (high << 32 | low) + u64::from(high == 0 && self.byte().is_multiple_of(4))
    }
}

/// Name, and numbers for x86-64, i386 and x32 where it has its own.
type Call = (&'static str, Option<u32>, Option<u32>, Option<u32>);

const CALLS: &[Call] = &[
    ("read", Some(0), Some(3), None),
    ("open", Some(2), Some(5), None),
    ("ioctl", Some(16), Some(54), Some(514)),
    ("socket", Some(41), Some(359), None),
    ("bind", Some(49), Some(361), None),
    ("execve", Some(59), Some(11), Some(520)),
    ("shmat", Some(30), Some(397), None),
    ("ptrace", Some(101), Some(26), Some(521)),
    ("personality", Some(135), Some(136), None),
    ("keyctl", Some(250), Some(288), None),
    ("openat2", Some(437), Some(437), None),
    ("futex_waitv", Some(449), Some(449), None),
    ("chown32", None, Some(212), None),
    ("socketcall", None, Some(102), None),
    ("ipc", None, Some(117), None),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Abi {
    X86_64,
    X32,
    I386,
}

impl Abi {
    fn number(self, call: &Call) -> Option<u32> {
        match self {
            Self::X86_64 => call.1,
            Self::I386 => call.2,
            Self::X32 => call.3.or(call.1),
        }
    }

    fn architecture(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::I386 => 0x4000_0003,
        }
    }

    fn base(self) -> u32 {
        if self == Self::X32 { 0x4000_0000 } else { 0 }
    }

    fn is_listed(self, profile: &Seccomp) -> bool {
        let name = match self {
            Self::X86_64 => return true,
            Self::X32 => "SCMP_ARCH_X32",
            Self::I386 => "SCMP_ARCH_X86",
        };
        profile.architectures.iter().any(|listed| listed == name)
    }
}

fn make_profile(choices: &mut Choices<'_>) -> Seccomp {
    let architectures = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];
    let listed = choices.byte();
    let (default_action, default_errno_ret) = make_action(choices);
    Seccomp {
        default_action,
        default_errno_ret,
        architectures: (0..3)
            .filter(|bit| listed & 1 << bit != 0)
            .map(|bit| architectures[bit].to_owned())
            .collect(),
        listener_path: Some("/agent".into()),
        syscalls: (0..choices.byte() % 12)
            .map(|_| make_entry(choices))
            .collect(),
        ..Seccomp::default()
    }
}

fn make_action(choices: &mut Choices<'_>) -> (String, Option<u32>) {
    let name = choices.of(compiler::ACTIONS);
    let errno = matches!(name, "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE")
        .then(|| choices.of(&[None, Some(1), Some(38), Some(4095)]));
    (name.to_owned(), errno.flatten())
}

fn make_entry(choices: &mut Choices<'_>) -> SeccompSyscall {
    let (action, errno_ret) = make_action(choices);
    SeccompSyscall {
        names: (0..1 + choices.byte() % 3)
            .map(|_| choices.of(CALLS).0.to_owned())
            .collect(),
        action,
        errno_ret,
        args: (0..(choices.byte() % 8).saturating_sub(4))
            .map(|_| SeccompArg {
                index: u32::from(choices.byte() % 6),
                value: choices.value(),
                value_two: choices.value(),
                op: choices.of(compiler::OPERATORS).to_owned(),
            })
            .collect(),
    }
}

/// The kernel's machine (`Documentation/userspace-api/seccomp_filter.rst`). Panics on a jump out of the program.
fn execute(program: &[libc::sock_filter], (arch, number, args): (u32, u32, [u64; 6])) -> u32 {
    let load = |offset: u32| match offset {
        0 => number,
        4 => arch,
        at if at % 8 == 0 => args[(at as usize - 16) / 8] as u32,
        at => (args[(at as usize - 20) / 8] >> 32) as u32,
    };
    let (mut at, mut accumulator) = (0, 0_u32);
    loop {
        let now = program[at];
        at += 1;
        let branch = |holds: bool| usize::from(if holds { now.jt } else { now.jf });
        match now.code {
            0x20 => accumulator = load(now.k),
            0x54 => accumulator &= now.k,
            0x06 => return now.k,
            0x05 => at += now.k as usize,
            0x15 => at += branch(accumulator == now.k),
            0x25 => at += branch(accumulator > now.k),
            0x35 => at += branch(accumulator >= now.k),
            code => panic!("unexpected instruction {code:#x}"),
        }
    }
}

fn action_value(name: &str, errno: Option<u32>) -> u32 {
    let errno = errno.unwrap_or(1);
    match name {
        "SCMP_ACT_ALLOW" => 0x7fff_0000,
        "SCMP_ACT_LOG" => 0x7ffc_0000,
        "SCMP_ACT_TRACE" => 0x7ff0_0000 | errno,
        "SCMP_ACT_NOTIFY" => 0x7fc0_0000,
        "SCMP_ACT_ERRNO" => 0x0005_0000 | errno,
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => 0,
        "SCMP_ACT_KILL_PROCESS" => 0x8000_0000,
        other => panic!("unknown action {other}"),
    }
}

/// What the document says of a call, read without any cleverness.
fn read(profile: &Seccomp, abi: Abi, name: &str, args: [u64; 6]) -> u32 {
    if !abi.is_listed(profile) {
        return libc::SECCOMP_RET_KILL_PROCESS;
    }
    let default = action_value(&profile.default_action, profile.default_errno_ret);
    let number = |name: &str| {
        let call = CALLS.iter().find(|call| call.0 == name);
        call.and_then(|call| abi.number(call)).unwrap_or(0)
    };
    let own = |number: u32| abi == Abi::X32 && number >= 512;
    let names = profile.syscalls.iter().flat_map(|entry| &entry.names);
    let known = names
        .map(|name| number(name))
        .filter(|&number| !own(number));
    let has_number = |name: &String| {
        CALLS
            .iter()
            .any(|call| call.0 == name && abi.number(call).is_some_and(|n| !own(n)))
    };
    let any = profile
        .syscalls
        .iter()
        .flat_map(|entry| &entry.names)
        .any(has_number);
    let newest = known.max().unwrap_or(0);
    if any && default & 0xffff_0000 == 0x0005_0000 && number(name) > newest && !own(number(name)) {
        return 0x0005_0000 | libc::ENOSYS as u32;
    }
    for entry in &profile.syscalls {
        let action = action_value(&entry.action, entry.errno_ret);
        for named in &entry.names {
            let applies = if named == name {
                holds(&entry.args, abi, args)
            } else if abi == Abi::I386 && is_multiplexed(name, named, args[0]) {
                let stricter = (action & 0xffff_0000) as i32 <= (default & 0xffff_0000) as i32
                    && action & 0xffff_0000 != default & 0xffff_0000;
                entry.args.is_empty() || stricter
            } else {
                continue;
            };
            if applies {
                return action;
            }
        }
    }
    default
}

fn is_multiplexed(multiplexer: &str, name: &str, first: u64) -> bool {
    match (multiplexer, name) {
        ("socketcall", "socket") => first as u32 == 1,
        ("socketcall", "bind") => first as u32 == 2,
        ("ipc", "shmat") => first as u16 == 21,
        _ => false,
    }
}

fn holds(conditions: &[SeccompArg], abi: Abi, args: [u64; 6]) -> bool {
    let width = if abi == Abi::I386 {
        u64::from(u32::MAX)
    } else {
        u64::MAX
    };
    let one = |condition: &SeccompArg| {
        let (found, value) = (
            args[condition.index as usize] & width,
            condition.value & width,
        );
        match condition.op.as_str() {
            "SCMP_CMP_NE" => found != value,
            "SCMP_CMP_LT" => found < value,
            "SCMP_CMP_LE" => found <= value,
            "SCMP_CMP_EQ" => found == value,
            "SCMP_CMP_GE" => found >= value,
            "SCMP_CMP_GT" => found > value,
            "SCMP_CMP_MASKED_EQ" => found & value == condition.value_two & width,
            other => panic!("unknown operator {other}"),
        }
    };
    let mut indices: Vec<u32> = conditions.iter().map(|condition| condition.index).collect();
    indices.sort_unstable();
    if indices.windows(2).any(|pair| pair[0] == pair[1]) {
        conditions.iter().any(one)
    } else {
        conditions.iter().all(one)
    }
}
