//! Dates and times as FAT has them.

/// Date and time as FAT has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DosTime {
    pub(super) date: u16,
    pub(super) time: u16,
}

/// FAT's form of a UTC time, the nearest that FAT knows.
pub(super) fn dos_time(seconds: i64) -> DosTime {
    const FIRST: i64 = 315_532_800; // 1980-01-01
    const LAST: i64 = 4_354_819_198; // 2107-12-31 23:59:58
    let seconds = seconds.clamp(FIRST, LAST);
    let (mut days, time) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970;
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    while days >= 365 + i64::from(leap(year)) {
        days -= 365 + i64::from(leap(year));
        year += 1;
    }
    let february = 28 + i64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    DosTime {
        date: ((year - 1980) << 9 | month << 5 | (days + 1)) as u16,
        time: ((time / 3600) << 11 | (time / 60 % 60) << 5 | (time % 60 / 2)) as u16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_clamped_and_converted() {
        for (seconds, year, month, day, clock) in [
            (0, 1980, 1, 1, (0, 0, 0)),
            (315_532_800, 1980, 1, 1, (0, 0, 0)),
            (951_782_399, 2000, 2, 28, (23, 59, 58)),
            (951_782_400, 2000, 2, 29, (0, 0, 0)),
            (1_798_761_599, 2026, 12, 31, (23, 59, 58)),
            (i64::MAX, 2107, 12, 31, (23, 59, 58)),
        ] {
            let found = dos_time(seconds);
            assert_eq!(
                found.date,
                (year - 1980) << 9 | month << 5 | day,
                "{seconds}"
            );
            let (hour, minute, second) = clock;
            assert_eq!(
                found.time,
                hour << 11 | minute << 5 | (second / 2),
                "{seconds}"
            );
        }
    }
}
