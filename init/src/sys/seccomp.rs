//! A filter of system calls for this process and for good (seccomp(2)).

use std::io;
use std::mem::offset_of;

use libc::sock_filter;

/// `AUDIT_ARCH_X86_64` of linux/audit.h: the numbers of system calls are those of this architecture.
const ARCHITECTURE: u32 = 0xc000_003e;
const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// From now on only these system calls are made, and sockets of these families; every other one fails with `EPERM`.
///
/// # Errors
/// When the kernel has no filters, or this process may still gain privileges.
pub fn allow_only(calls: &[libc::c_long], families: &[libc::c_int]) -> io::Result<()> {
    let program = program(calls, families);
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let description = libc::sock_fprog {
        len: length,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies the program, which has as many instructions as it says and outlives the call.
    let result = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const description,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Each comparison is followed by what it leads to, and jumps over that otherwise.
fn program(calls: &[libc::c_long], families: &[libc::c_int]) -> Vec<sock_filter> {
    let field = |offset: usize| instruction(LOAD, u32::try_from(offset).expect("64 bytes"));
    let allow = instruction(RETURN, libc::SECCOMP_RET_ALLOW);
    let refuse = instruction(RETURN, libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs());
    let mut program = vec![
        field(offset_of!(libc::seccomp_data, arch)),
        compare(ARCHITECTURE, 1, 0),
        instruction(RETURN, libc::SECCOMP_RET_KILL_PROCESS),
        field(offset_of!(libc::seccomp_data, nr)),
    ];
    for &call in calls {
        program.push(compare(number(call), 0, 1));
        program.push(allow);
    }
    if !families.is_empty() {
        let rest = u8::try_from(1 + 2 * families.len()).expect("some families");
        program.push(compare(number(libc::SYS_socket), 0, rest));
        program.push(field(offset_of!(libc::seccomp_data, args)));
        for family in families {
            program.push(compare(family.unsigned_abs(), 0, 1));
            program.push(allow);
        }
    }
    program.push(refuse);
    program
}

fn number(call: libc::c_long) -> u32 {
    u32::try_from(call).expect("system calls have small numbers")
}

fn instruction(code: u16, k: u32) -> sock_filter {
    sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

/// Jumps over `jt` instructions if it is equal, over `jf` if it is not.
fn compare(k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter {
        jt,
        jf,
        ..instruction(EQUAL, k)
    }
}
