//! Programs that the kernel runs for us: seccomp filters and device guards.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::check;
use crate::cgroup::Instruction;

/// Puts a seccomp filter on this process (`SECCOMP_FILTER_FLAG_*`). There is no way back. Returns the listener if
/// the flags ask for one.
pub(crate) fn load_seccomp(
    program: &[libc::sock_filter],
    flags: u32,
) -> io::Result<Option<OwnedFd>> {
    let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog {
        len: length,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies `len` instructions from `filter`, which lives through the call, and writes none.
    let loaded = check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    })?;
    if flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32 == 0 {
        return Ok(None);
    }
    // SAFETY: with this flag the kernel returns a new descriptor, that nobody else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(loaded as RawFd) }))
}

/// What `bpf(BPF_PROG_LOAD)` reads, up to the name (`union bpf_attr`).
#[repr(C)]
struct LoadProgram {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

/// What `bpf(BPF_PROG_ATTACH)` reads (`union bpf_attr`).
#[repr(C)]
struct AttachProgram {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// What `bpf(BPF_PROG_QUERY)` reads and writes (`union bpf_attr`).
#[repr(C)]
struct QueryPrograms {
    target: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
}

const BPF_CGROUP_DEVICE: u32 = 6;

/// Puts a program on a cgroup that already has one, and takes the old ones off then: at no moment is more allowed
/// than by the old or the new.
pub(crate) fn replace_device_guard(
    cgroup: BorrowedFd<'_>,
    program: &[Instruction],
) -> io::Result<()> {
    let old = device_guards(cgroup)?;
    guard_devices(cgroup, program)?;
    for guard in old {
        detach_device_guard(cgroup, guard)?;
    }
    Ok(())
}

/// The ids of the programs on the cgroup itself.
fn device_guards(cgroup: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    const BPF_PROG_QUERY: u32 = 16;
    // The kernel allows 64 on one cgroup.
    let mut ids = vec![0_u32; 64];
    let mut query = QueryPrograms {
        target: cgroup.as_raw_fd() as u32,
        kind: BPF_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: ids.len() as u32,
    };
    // SAFETY: the kernel reads and writes the structure, of the size given, and at most `count` ids; both live
    // through the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_QUERY,
            &raw mut query,
            size_of_val(&query),
        )
    })?;
    ids.truncate(query.count as usize);
    Ok(ids)
}

fn detach_device_guard(cgroup: BorrowedFd<'_>, id: u32) -> io::Result<()> {
    const BPF_PROG_DETACH: u32 = 9;
    const BPF_PROG_GET_FD_BY_ID: u32 = 13;
    // `union bpf_attr`: the id, the next id, flags.
    let by_id = [id, 0, 0];
    // SAFETY: the kernel reads the array, of the size given.
    let opened = check(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_GET_FD_BY_ID,
            by_id.as_ptr(),
            size_of_val(&by_id),
        )
    })?;
    // SAFETY: a new descriptor that nobody else owns.
    let opened = unsafe { OwnedFd::from_raw_fd(opened as RawFd) };
    let detach = AttachProgram {
        target: cgroup.as_raw_fd() as u32,
        program: opened.as_raw_fd() as u32,
        kind: BPF_CGROUP_DEVICE,
        flags: 0,
    };
    // SAFETY: the kernel reads the structure, of the size given.
    check(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_DETACH,
            &raw const detach,
            size_of_val(&detach),
        )
    })
    .map(drop)
}

/// Puts a program on a cgroup that is asked for each access to a device. It lives as long as the cgroup.
pub(crate) fn guard_devices(cgroup: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()> {
    const BPF_PROG_LOAD: u32 = 5;
    const BPF_PROG_ATTACH: u32 = 8;
    const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
    const BPF_F_ALLOW_MULTI: u32 = 2;
    let load = LoadProgram {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: the kernel reads the structure, of the size given, and the instructions and string that it points to;
    // all live through the call.
    let loaded = check(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_LOAD,
            &raw const load,
            size_of_val(&load),
        )
    })?;
    // SAFETY: a new descriptor that nobody else owns.
    let loaded = unsafe { OwnedFd::from_raw_fd(loaded as RawFd) };
    let attach = AttachProgram {
        target: cgroup.as_raw_fd() as u32,
        program: loaded.as_raw_fd() as u32,
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: the kernel reads the structure, of the size given.
    check(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_ATTACH,
            &raw const attach,
            size_of_val(&attach),
        )
    })
    .map(drop)
}
