//! Setting and drawing the clock (adjtimex(2)).

use std::io;

/// What the kernel takes along with a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockQuality {
    /// By how much it may be wrong, in microseconds.
    pub error_us: i64,
    /// The time constant of the kernel's loop.
    pub time_constant: i64,
    /// 1 for a leap second that is inserted at the end of the day, -1 for one that is deleted, 0 for none.
    pub leap: i32,
}

/// Adds `by` nanoseconds to the clock at once.
///
/// # Errors
/// `EPERM` without `CAP_SYS_TIME`.
pub fn step_clock(by: i64, quality: &ClockQuality) -> io::Result<()> {
    let mut request = request(libc::ADJ_SETOFFSET, quality);
    request.time = libc::timeval {
        tv_sec: by.div_euclid(1_000_000_000),
        // Nanoseconds, as ADJ_NANO says, never negative.
        tv_usec: by.rem_euclid(1_000_000_000),
    };
    adjust(&mut request)
}

/// Lets the kernel's loop draw the clock by `by` nanoseconds, half a second at most.
///
/// # Errors
/// `EPERM` without `CAP_SYS_TIME`.
pub fn slew_clock(by: i64, quality: &ClockQuality) -> io::Result<()> {
    let mut request = request(libc::ADJ_OFFSET | libc::ADJ_TIMECONST, quality);
    request.offset = by;
    request.constant = quality.time_constant;
    adjust(&mut request)
}

fn request(modes: libc::c_uint, quality: &ClockQuality) -> libc::timex {
    let leap = match quality.leap {
        0 => 0,
        1 => libc::STA_INS,
        _ => libc::STA_DEL,
    };
    // SAFETY: the struct is plain data, and zero is valid for each field.
    let mut request: libc::timex = unsafe { std::mem::zeroed() };
    request.modes =
        modes | libc::ADJ_NANO | libc::ADJ_STATUS | libc::ADJ_MAXERROR | libc::ADJ_ESTERROR;
    request.status = libc::STA_PLL | leap;
    request.maxerror = quality.error_us;
    request.esterror = quality.error_us;
    request
}

fn adjust(request: &mut libc::timex) -> io::Result<()> {
    // SAFETY: the kernel reads and writes the one struct, which outlives the call.
    if unsafe { libc::adjtimex(request) } < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
