//! The clock at boot: never before what is known to be past.
//!
//! The kernel sets its clock from the machine's own (`CONFIG_RTC_HCTOSYS`); where it does not, that is done here. A clock
//! that stands before the image was made, or before the last time that this machine was seen to run (a file on the state
//! partition carries it), is wrong for certain and is set forward to that. It is never set back: by how much it is ahead,
//! if it is, only the network can tell ([`crate::net::ntp`]). A time on record that is days ahead of a machine's own clock,
//! which shows a time that may be, is not believed: without a network the machine would be ahead for ever.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Mode, OFlags, open};
use rustix::time::{ClockId, Timespec, clock_settime};

use crate::console::Console;

/// No machine ran this program before: 2025-01-01.
const BEFORE_THIS_PROGRAM: Duration = Duration::from_secs(1_735_689_600);
/// So much a machine's own clock may have lost while it was off.
const DRIFT: Duration = Duration::from_secs(24 * 60 * 60);
/// The file whose time of change is the last time, below the state's mount point.
const LAST_TIME: &str = ".last-time";
/// Says whether the kernel set its clock from this one (`1`), and what this one shows.
const RTC_TAKEN: &str = "/sys/class/rtc/rtc0/hctosys";
const RTC_SECONDS: &str = "/sys/class/rtc/rtc0/since_epoch";

/// What is known of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Known {
    /// The kernel's clock.
    clock: Duration,
    /// The machine's own clock, if the kernel has not taken it.
    rtc: Option<Duration>,
    /// When the image was made.
    image: Duration,
    /// The last time that is on record.
    last: Option<Duration>,
    /// The machine has a clock of its own, which goes on while it is off.
    has_rtc: bool,
}

impl Known {
    /// The last time that is on record, unless it is nonsense: a clock that goes on, and shows a time that may be, is days
    /// behind only if the one that was recorded was ahead.
    fn credible_last(&self) -> Option<Duration> {
        let own = self.rtc.unwrap_or(self.clock);
        let may_be = self.has_rtc && own >= self.image.max(BEFORE_THIS_PROGRAM);
        self.last.filter(|&last| !may_be || last <= own + DRIFT)
    }
}

/// The time to set, and where it is from; `None`: the clock may be right.
fn decide(known: Known) -> Option<(Duration, &'static str)> {
    let (clock, from) = match known.rtc {
        Some(rtc) => (rtc, Some("the machine's own clock")),
        None => (known.clock, None),
    };
    let floors = [
        (BEFORE_THIS_PROGRAM, "this program's age"),
        (known.image, "the image's age"),
        (
            known.credible_last().unwrap_or_default(),
            "the last time on record",
        ),
    ];
    let (floor, reason) = floors
        .into_iter()
        .max_by_key(|(time, _)| *time)
        .unwrap_or_default();
    if clock < floor {
        Some((floor, reason))
    } else {
        from.map(|from| (clock, from))
    }
}

/// Sets the clock if it is known to be wrong, and says so. `state`: where the state is mounted, if it is.
pub fn set(image_epoch: i64, state: Option<&str>, console: &mut Console) {
    let known = Known {
        clock: since_epoch(SystemTime::now()),
        rtc: read_rtc(),
        image: Duration::from_secs(u64::try_from(image_epoch).unwrap_or(0)),
        last: state.and_then(last_time),
        has_rtc: fs::exists(RTC_TAKEN).unwrap_or(false),
    };
    if known.credible_last() != known.last {
        console.say(
            "the last time on record is days ahead of the machine's own clock: it is not believed",
        );
    }
    let Some((time, from)) = decide(known) else {
        return;
    };
    let value = Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    };
    let before = known.clock.as_secs();
    match clock_settime(ClockId::Realtime, value) {
        Ok(()) => console.say(format_args!(
            "clock set from {before} to {} s since 1970, by {from}",
            time.as_secs()
        )),
        Err(errno) => console.say(format_args!("cannot set the clock: {errno}")),
    }
}

/// Leaves the time on record for the next boot.
pub fn save(state: &str) {
    if let Ok(record) = Record::open(state) {
        record.keep();
    }
}

/// The time on record, for who keeps the clock and may open no file any more.
#[derive(Debug)]
pub struct Record(File);

impl Record {
    /// Opens it, where the state is mounted.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn open(state: &str) -> io::Result<Self> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        Ok(Self(File::from(open(
            format!("{state}/{LAST_TIME}"),
            flags,
            mode,
        )?)))
    }

    /// Leaves the time of now. The file's own time counts; it is set by writing, for which it needs nothing but to be open.
    pub fn keep(&self) {
        let _ = self.0.write_all_at(b"\n", 0);
    }
}

fn last_time(state: &str) -> Option<Duration> {
    let metadata = fs::symlink_metadata(format!("{state}/{LAST_TIME}")).ok()?;
    Some(since_epoch(metadata.modified().ok()?))
}

/// `None` if there is none, or if the kernel has taken its time.
fn read_rtc() -> Option<Duration> {
    let taken = fs::read_to_string(RTC_TAKEN).ok()?;
    if taken.trim() == "1" {
        return None;
    }
    let seconds = fs::read_to_string(RTC_SECONDS).ok()?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_clock_is_set_only_when_it_is_known_to_be_wrong() {
        const NOW: u64 = 1_800_000_000;
        let known = |clock, rtc: Option<u64>, image, last: Option<u64>| Known {
            clock: at(clock),
            rtc: rtc.map(at),
            image: at(image),
            last: last.map(at),
            has_rtc: rtc.is_some(),
        };
        let cases = [
            (known(NOW, None, 0, None), None),
            (known(NOW, None, NOW, Some(NOW)), None),
            (known(NOW, None, 0, Some(NOW + 5)), Some(NOW + 5)),
            (known(NOW, None, NOW + 7, Some(NOW + 5)), Some(NOW + 7)),
            (known(3, None, 0, None), Some(BEFORE_THIS_PROGRAM.as_secs())),
            (known(3, Some(NOW), 0, None), Some(NOW)),
            (known(3, Some(NOW), 0, Some(NOW + 1)), Some(NOW + 1)),
            // Years ahead: of a clock that goes on that is not believed, of one that may have stood still it is.
            (known(3, Some(NOW), 0, Some(2 * NOW)), Some(NOW)),
            (known(NOW, None, 0, Some(2 * NOW)), Some(2 * NOW)),
            (known(3, Some(4), 0, Some(2 * NOW)), Some(2 * NOW)),
        ];
        for (known, expected) in cases {
            let found = decide(known).map(|(time, _)| time.as_secs());
            assert_eq!(found, expected, "{known:?}");
        }
    }

    #[test]
    fn the_time_on_record_is_that_of_the_file() {
        let state = std::env::temp_dir().join(format!("coracle-clock-{}", std::process::id()));
        fs::create_dir_all(&state).unwrap();
        let state = state.to_str().unwrap();
        assert_eq!(last_time(state), None);
        let before = since_epoch(SystemTime::now());
        save(state);
        assert!(last_time(state).unwrap() >= before - at(1));
        fs::remove_dir_all(state).unwrap();
    }
}
