//! The command inside the test containers: a static program that does what its arguments say and prints what came
//! of it. Commands are separated by `;` arguments. Compiled by the harness with rustc alone.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    for command in words.split(|word| word == ";") {
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        println!("{}", perform(&command));
        let _ = std::io::stdout().flush();
    }
}

fn perform(command: &[&str]) -> String {
    match command {
        ["exit", status] => std::process::exit(status.parse().expect("a number")),
        ["cat", path] => result(fs::read_to_string(path)),
        ["write", path, text] => result(fs::write(path, text).map(|()| "ok".into())),
        ["mkdir", path] => result(fs::create_dir(path).map(|()| "ok".into())),
        ["fill", path, bytes] => {
            let bytes = vec![1; bytes.parse().expect("a number")];
            result(fs::write(path, bytes).map(|()| "ok".into()))
        }
        ["rmdir", path] => result(fs::remove_dir(path).map(|()| "ok".into())),
        ["chown", path, uid] => {
            let uid = uid.parse().expect("a number");
            result(std::os::unix::fs::chown(path, Some(uid), None).map(|()| "ok".into()))
        }
        ["list", path] => result(fs::read_dir(path).map(|entries| {
            let mut names: Vec<_> = entries
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect();
            names.sort();
            names.join(" ")
        })),
        ["stat", path] => result(fs::symlink_metadata(path).map(|stat| {
            format!(
                "{:o} {}:{} {:x}",
                stat.mode(),
                stat.uid(),
                stat.gid(),
                stat.rdev()
            )
        })),
        ["cwd"] => result(std::env::current_dir().map(|path| path.display().to_string())),
        ["env", name] => std::env::var(name).unwrap_or_else(|_| "unset".into()),
        ["pid"] => std::process::id().to_string(),
        ["sleep", seconds] => {
            std::thread::sleep(Duration::from_secs(seconds.parse().expect("a number")));
            "slept".into()
        }
        ["syscall", number, first] => {
            let answer = syscall(
                number.parse().expect("a number"),
                first.parse().expect("a number"),
            );
            format!("syscall {answer}")
        }
        ["int80", number, first] => {
            let answer = int80(
                number.parse().expect("a number"),
                first.parse().expect("a number"),
            );
            format!("int80 {answer}")
        }
        ["link", path] => result(fs::read_link(path).map(|path| path.display().to_string())),
        ["read-line"] => {
            let mut line = String::new();
            result(std::io::stdin().read_line(&mut line).map(|_| format!("read {line:?}")))
        }
        // Rows and columns of the terminal that is the standard input.
        ["winsize"] => {
            const TIOCGWINSZ: u64 = 0x5413;
            let mut size = [0_u16; 4];
            let answer = raw(16, [0, TIOCGWINSZ, size.as_mut_ptr() as u64, 0, 0]);
            format!("winsize {answer} {} {}", size[0], size[1])
        }
        ["mknod", path, device] => {
            let path = std::ffi::CString::new(*path).expect("no NUL");
            const CHARACTER: u64 = 0o020_666;
            let answer = raw(
                133,
                [
                    path.as_ptr() as u64,
                    CHARACTER,
                    device.parse().expect("a number"),
                    0,
                    0,
                ],
            );
            format!("mknod {answer}")
        }
        // As a hook: a line for its name and the state on standard input.
        ["log-state", path, name] => {
            let state = std::io::read_to_string(std::io::stdin());
            let log = fs::OpenOptions::new().append(true).create(true).open(path);
            let written = log.and_then(|mut log| writeln!(log, "{name} {}", state?));
            result(written.map(|()| "ok".into()))
        }
        ["hunt", marker, stop, result] => hunt(marker, stop, result),
        // A sysfs of its own, writable, in new user, network and mount namespaces.
        ["own-sysfs", target] => {
            const NAMESPACES: u64 = 0x1000_0000 | 0x4000_0000 | 0x0002_0000;
            let made = syscall(272, NAMESPACES);
            let target = std::ffi::CString::new(*target).expect("no NUL");
            let kind = c"sysfs".as_ptr() as u64;
            let mounted = raw(165, [kind, target.as_ptr() as u64, kind, 0, 0]);
            format!("unshare {made} mount {mounted}")
        }
        other => panic!("unknown command {other:?}"),
    }
}

fn result(result: std::io::Result<String>) -> String {
    match result {
        Ok(text) => text,
        Err(error) => format!("errno {}", error.raw_os_error().unwrap_or(0)),
    }
}

/// Tries to get hold of every other process of the pid namespace while it is still the runtime: by its links, its root,
/// its memory, and by tracing it. What runs `/bin/helper` is the container's own, and fair game.
///
/// Ends once there is a file `stop`; writes what it got to the file `result`.
fn hunt(marker: &str, stop: &str, result: &str) -> String {
    const PTRACE: u64 = 101;
    const PTRACE_SEIZE: u64 = 0x4206;
    const WAIT4: u64 = 61;
    const WNOHANG_WALL: u64 = 0x4000_0001;
    let (mut denied, mut own, mut escapes) = (0_u64, 0_u64, Vec::new());
    while fs::metadata(stop).is_err() {
        let entries = fs::read_dir("/proc").expect("procfs").flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u64>().ok());
        for pid in pids.filter(|pid| *pid != u64::from(std::process::id())) {
            let is_foreign = || match fs::read_link(format!("/proc/{pid}/exe")) {
                Ok(path) => (path != *"/bin/helper").then_some(format!("exe {}", path.display())),
                Err(_) => None,
            };
            match fs::read_link(format!("/proc/{pid}/exe")) {
                Ok(path) if path == *"/bin/helper" => own += 1,
                Ok(path) => escapes.push(format!("exe {}", path.display())),
                Err(error) if error.raw_os_error() == Some(13) => denied += 1,
                Err(_) => {}
            }
            if fs::metadata(format!("/proc/{pid}/root{marker}")).is_ok() {
                escapes.push("root".into());
            }
            if fs::File::open(format!("/proc/{pid}/mem")).is_ok() {
                escapes.extend(is_foreign().map(|how| format!("mem of {how}")));
            }
            if raw4(PTRACE, [PTRACE_SEIZE, pid, 0, 0]) == 0 {
                escapes.extend(is_foreign().map(|how| format!("traced {how}")));
            }
        }
        // Of a traced process that has ended its parent hears only then.
        while raw4(WAIT4, [u64::MAX, 0, WNOHANG_WALL, 0]) > 0 {}
    }
    let text = format!("denied {denied} own {own} escapes {} {escapes:?}", escapes.len());
    fs::write(result, &text).expect("written");
    text
}

fn syscall(number: u64, first: u64) -> i64 {
    raw(number, [first, 0, 0, 0, 0])
}

/// A call as 32-bit programs make it.
fn int80(number: u32, first: u64) -> i32 {
    let answer: u64;
    // SAFETY: as below; rbx, which holds the argument, is put back.
    unsafe {
        std::arch::asm!("xchg rbx, {first}", "int 0x80", "xchg rbx, {first}", first = inout(reg) first => _,
            inlateout("rax") u64::from(number) => answer, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    answer as i32
}

fn raw4(number: u64, arguments: [u64; 4]) -> i64 {
    let [first, second, third, fourth] = arguments;
    raw(number, [first, second, third, fourth, 0])
}

fn raw(number: u64, arguments: [u64; 5]) -> i64 {
    let answer: i64;
    // SAFETY: the calls that the tests make (getppid, keyctl, mknod …) write to no memory of ours but the array
    // of `winsize`.
    unsafe {
        std::arch::asm!("syscall", inlateout("rax") number as i64 => answer, in("rdi") arguments[0],
            in("rsi") arguments[1], in("rdx") arguments[2], in("r10") arguments[3], in("r8") arguments[4],
            out("rcx") _, out("r11") _);
    }
    answer
}
