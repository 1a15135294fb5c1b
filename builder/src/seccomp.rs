//! The default seccomp filter of a workload, as OCI's `linux.seccomp` (runtime-spec 1.2, config-linux §Seccomp).
//!
//! An allow list: what a workload needs that neither administers the machine nor makes namespaces. A known call
//! that is refused gets `EPERM`; one that the list does not know (newer than it) gets `ENOSYS`, so that the C
//! library falls back to an older one. A capability opens the calls that are of no use without it.

use serde_json::{Value, json};

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
const EAFNOSUPPORT: u32 = 97;

/// Calls that every workload may make.
const ALLOWED: &str = "
accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset chdir chmod chown clock_adjtime
clock_getres clock_gettime clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3 epoll_create
epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve
execveat exit exit_group faccessat faccessat2 fadvise64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2
fchown fchownat fcntl fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync ftruncate
futex futex_requeue futex_wait futex_waitv futex_wake futimesat get_mempolicy get_robust_list get_thread_area getcpu
getcwd getdents getdents64 getegid geteuid getgid getgroups getitimer getpeername getpgid getpgrp getpid getppid
getpriority getrandom getresgid getresuid getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday
getuid getxattr inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents
io_pgetevents io_setup io_submit ioctl ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset
landlock_restrict_self lchown lgetxattr link linkat listen listxattr llistxattr lremovexattr lseek lsetxattr lstat
madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2
mlockall mmap mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink mremap mseal msgctl
msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat open openat openat2
pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll prctl pread64 preadv
preadv2 prlimit64 process_mrelease pselect6 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv
recvfrom recvmmsg recvmsg remap_file_pages removexattr rename renameat renameat2 restart_syscall rmdir rseq
rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam sched_setscheduler
sched_yield select semctl semget semop semtimedop sendfile sendmmsg sendmsg sendto set_robust_list set_thread_area
set_tid_address setfsgid setfsuid setgid setgroups setitimer setpgid setpriority setregid setresgid setresuid
setreuid setrlimit setsid setsockopt setuid setxattr shmat shmctl shmdt shmget shutdown sigaltstack signalfd
signalfd4 socketpair splice stat statfs statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time
timer_create timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime
timerfd_settime times tkill truncate umask uname unlink unlinkat utime utimensat utimes vfork vmsplice wait4 waitid
write writev";

/// Known calls that are refused with `EPERM` unless a capability opens them.
const REFUSED: &str = "
acct add_key bpf chroot clock_settime delete_module fanotify_init finit_module fsconfig fsmount fsopen fspick
get_kernel_syms init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp kexec_file_load
kexec_load keyctl lookup_dcookie lsm_get_self_attr lsm_list_modules lsm_set_self_attr mbind migrate_pages modify_ldt
mount mount_setattr move_mount move_pages nfsservctl open_by_handle_at open_tree perf_event_open pidfd_getfd
pivot_root process_madvise process_vm_readv process_vm_writev ptrace query_module quotactl quotactl_fd reboot
request_key set_mempolicy set_mempolicy_home_node setdomainname sethostname setns settimeofday swapoff swapon sysfs
syslog umount2 unshare userfaultfd uselib ustat vhangup listmount statmount";

/// The calls that a capability opens.
const OPENED: [(&str, &str); 12] = [
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        "bpf fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount open_tree perf_event_open pivot_root quotactl quotactl_fd setdomainname sethostname setns syslog umount2 unshare listmount statmount",
    ),
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perf_event_open"),
    ("CAP_SYS_BOOT", "reboot kexec_load kexec_file_load"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module init_module finit_module"),
    ("CAP_SYS_PACCT", "acct"),
    (
        "CAP_SYS_PTRACE",
        "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    ),
    ("CAP_SYS_TIME", "clock_settime settimeofday"),
    (
        "CAP_SYS_NICE",
        "mbind migrate_pages move_pages set_mempolicy set_mempolicy_home_node",
    ),
    ("CAP_SYSLOG", "syslog"),
];

/// Flags of `clone` that make a namespace: NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;
/// All address families but the kernel's crypto interface (38) and the hypervisor's sockets (40), as groups: the
/// bits that a group shares, and their value. The kernel takes the lower half of the register as the family, so
/// the upper half is not looked at here either.
const FAMILIES: [(u64, u64); 7] = [
    (0xffff_ffe0, 0),
    (0xffff_fffc, 32),
    (0xffff_fffe, 36),
    (0xffff_ffff, 39),
    (0xffff_ffff, 41),
    (0xffff_fffe, 42),
    (0xffff_fffc, 44),
];

/// The filter for a workload with these capabilities.
pub fn profile(capabilities: &[String]) -> Value {
    let administers = capabilities.iter().any(|c| c == "CAP_SYS_ADMIN");
    let opened: Vec<&str> = OPENED
        .iter()
        .filter(|(cap, _)| capabilities.iter().any(|c| c == cap))
        .flat_map(|(_, calls)| calls.split_whitespace())
        .collect();
    let mut allowed: Vec<&str> = ALLOWED
        .split_whitespace()
        .chain(opened.iter().copied())
        .collect();
    let refused: Vec<&str> = REFUSED
        .split_whitespace()
        .filter(|call| !opened.contains(call))
        .collect();
    if administers {
        allowed.extend(["clone", "clone3"]);
    }
    allowed.sort_unstable();
    allowed.dedup();
    let mut rules = project_rules();
    rules.extend([
        json!({ "names": allowed, "action": "SCMP_ACT_ALLOW" }),
        json!({ "names": refused, "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM }),
    ]);
    rules.extend(socket_rules());
    rules.extend(personality_rules());
    if !administers {
        rules.extend(clone_rules());
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": ENOSYS,
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": rules,
    })
}

/// No file leaves its project, by which the size of a volume holds: its owner could else take it out, or let new
/// files be of none. The kernel takes the lower half of the register as the request.
fn project_rules() -> Vec<Value> {
    const FS_IOC_FSSETXATTR: u64 = 0x401c_5820;
    const FS_IOC_SETFLAGS: u64 = 0x4008_6602;
    [FS_IOC_FSSETXATTR, FS_IOC_SETFLAGS]
        .map(|request| {
            json!({ "names": ["ioctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM,
                "args": [{ "index": 1, "value": 0xffff_ffffu64, "valueTwo": request, "op": "SCMP_CMP_MASKED_EQ" }] })
        })
        .to_vec()
}

/// Threads and processes, but no namespaces; `clone3` hides its flags in memory, so it does not exist here and
/// the C library falls back to `clone`.
fn clone_rules() -> Vec<Value> {
    vec![
        json!({ "names": ["clone"], "action": "SCMP_ACT_ALLOW",
            "args": [{ "index": 0, "value": CLONE_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }] }),
        json!({ "names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM }),
        json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS }),
    ]
}

/// Sockets of the families of [`FAMILIES`]; the kernel's own answer to any other is that there is no such family.
fn socket_rules() -> Vec<Value> {
    let mut rules: Vec<Value> = FAMILIES
        .iter()
        .map(|(mask, value)| {
            json!({ "names": ["socket"], "action": "SCMP_ACT_ALLOW",
                "args": [{ "index": 0, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ" }] })
        })
        .collect();
    rules
        .push(json!({ "names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": EAFNOSUPPORT }));
    rules
}

/// Asking for the personality and the harmless ones: Linux, its 32-bit word size, and UNAME26 with both.
fn personality_rules() -> Vec<Value> {
    let mut rules = [0u64, 0x0008, 0x0002_0000, 0x0002_0008, 0xffff_ffff]
        .map(|value| {
            json!({ "names": ["personality"], "action": "SCMP_ACT_ALLOW",
                "args": [{ "index": 0, "value": value, "op": "SCMP_CMP_EQ" }] })
        })
        .to_vec();
    rules.push(json!({ "names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM }));
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action_of(profile: &Value, call: &str) -> Vec<String> {
        let rules = profile["syscalls"].as_array().unwrap();
        rules
            .iter()
            .filter(|rule| {
                rule["names"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|name| name == call)
            })
            .map(|rule| rule["action"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn no_call_is_both_allowed_and_refused() {
        for call in ALLOWED.split_whitespace() {
            assert!(!REFUSED.split_whitespace().any(|r| r == call), "{call}");
        }
        for (_, calls) in OPENED {
            assert!(
                calls
                    .split_whitespace()
                    .all(|call| REFUSED.split_whitespace().any(|r| r == call)),
                "{calls}"
            );
        }
    }

    #[test]
    fn sockets_of_two_families_are_refused_whatever_the_upper_half_of_the_register() {
        let allowed = |family: u64| FAMILIES.iter().any(|(mask, value)| family & mask == *value);
        for family in 0..48 {
            for upper in [0, 1 << 32, u64::MAX << 32] {
                let expected = family != 38 && family != 40;
                assert_eq!(allowed(upper | family), expected, "{family}");
            }
        }
        assert!(!allowed(48) && !allowed(0x8000_0000));
    }

    #[test]
    fn a_call_that_is_allowed_with_some_arguments_only_is_refused_by_a_known_error_otherwise() {
        let plain = profile(&[]);
        for (call, errno) in [("clone", 1), ("personality", 1), ("socket", 97)] {
            let rules = plain["syscalls"].as_array().unwrap();
            let last = rules
                .iter()
                .rfind(|rule| rule["names"].as_array().unwrap().contains(&call.into()))
                .unwrap();
            assert_eq!(last["errnoRet"], errno, "{call}");
            assert!(last.get("args").is_none(), "{call}");
        }
    }

    #[test]
    fn a_file_cannot_be_taken_out_of_its_project() {
        let profile = profile(&[]);
        let rules = profile["syscalls"].as_array().unwrap();
        let requests: Vec<_> = rules
            .iter()
            .filter(|rule| rule["names"].as_array().unwrap().contains(&"ioctl".into()))
            .take_while(|rule| rule["action"] == "SCMP_ACT_ERRNO")
            .map(|rule| rule["args"][0]["valueTwo"].as_u64().unwrap())
            .collect();
        assert_eq!(requests, [0x401c_5820, 0x4008_6602]);
    }

    #[test]
    fn a_capability_opens_its_calls_and_no_other() {
        let plain = profile(&[]);
        assert_eq!(action_of(&plain, "mount"), ["SCMP_ACT_ERRNO"]);
        assert_eq!(action_of(&plain, "unshare"), ["SCMP_ACT_ERRNO"]);
        let tracing = profile(&["CAP_SYS_PTRACE".to_owned()]);
        assert_eq!(action_of(&tracing, "ptrace"), ["SCMP_ACT_ALLOW"]);
        assert_eq!(action_of(&tracing, "mount"), ["SCMP_ACT_ERRNO"]);
        let admin = profile(&["CAP_SYS_ADMIN".to_owned()]);
        assert_eq!(action_of(&admin, "clone3"), ["SCMP_ACT_ALLOW"]);
    }
}
