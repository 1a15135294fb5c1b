//! When the machine reached what, on one clock that begins at power-on.
//!
//! Power-on is the start of QEMU. The guest stamps its lines with its own clock, which begins with its kernel: the
//! moment at which the kernel began is the host's time of the first stamped line minus its stamp,
//! and every later line is placed by its stamp, free of the console's delay.

use std::fmt;
use std::time::Duration;

/// What was reached, and when.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Mark {
    /// `loader`, `kernel`, a stage's name, `workload NAME ready`, `answer NAME`.
    pub what: String,
    /// Seconds since power-on.
    #[serde(serialize_with = "as_seconds")]
    pub at: Duration,
}

fn as_seconds<S: serde::Serializer>(at: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(at.as_secs_f64())
}

/// The marks of one run, in the order in which they were noted.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct Timeline {
    marks: Vec<Mark>,
    #[serde(skip)]
    kernel: Option<Duration>,
}

impl Timeline {
    /// Notes something the guest said at `guest_time` of its own clock; the host heard it `heard` after power-on.
    pub fn note_guest(&mut self, what: impl Into<String>, guest_time: Duration, heard: Duration) {
        let kernel = match self.kernel {
            Some(kernel) => kernel,
            None => {
                let kernel = heard.saturating_sub(guest_time);
                self.note_host("kernel", kernel);
                *self.kernel.insert(kernel)
            }
        };
        self.note_host(what, kernel + guest_time);
    }

    /// Notes that the firmware was done `at` after power-on; a later word replaces an earlier one.
    pub fn note_loader(&mut self, at: Duration) {
        self.marks.retain(|mark| mark.what != "loader");
        self.note_host("loader", at);
    }

    /// Notes something the host saw `at` after power-on.
    pub fn note_host(&mut self, what: impl Into<String>, at: Duration) {
        let what = what.into();
        self.marks.push(Mark { what, at });
    }

    /// The marks so far.
    pub fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// When `what` was reached first.
    pub fn at(&self, what: &str) -> Option<Duration> {
        let mark = self.marks.iter().find(|mark| mark.what == what)?;
        Some(mark.at)
    }
}

/// A table of three columns: what, since power-on, since the line above.
impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widest = self.marks.iter().map(|mark| mark.what.len()).max();
        let width = widest.unwrap_or(0).max("power-on".len());
        writeln!(f, "{:width$}  {:>9}  {:>9}", "stage", "at", "took")?;
        writeln!(f, "{:width$}  {:>7.3} s", "power-on", 0.0)?;
        let mut before = Duration::ZERO;
        for Mark { what, at } in &self.marks {
            let took = at.saturating_sub(before).as_secs_f64();
            let at_seconds = at.as_secs_f64();
            writeln!(f, "{what:width$}  {at_seconds:>7.3} s  {took:>7.3} s")?;
            before = *at;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn run() -> Timeline {
        let mut timeline = Timeline::default();
        timeline.note_guest("initramfs", ms(500), ms(3_500));
        timeline.note_guest("root", ms(700), ms(4_900));
        timeline.note_host("answer web", ms(5_000));
        timeline
    }

    #[test]
    fn guest_lines_are_placed_by_their_stamp_not_by_their_arrival() {
        let timeline = run();
        assert_eq!(timeline.at("kernel"), Some(ms(3_000)));
        assert_eq!(timeline.at("root"), Some(ms(3_700)));
        assert_eq!(timeline.at("nothing"), None);
    }

    #[test]
    fn a_guest_clock_ahead_of_the_host_gives_no_time_before_power_on() {
        let mut timeline = Timeline::default();
        timeline.note_guest("initramfs", ms(900), ms(800));
        assert_eq!(timeline.at("kernel"), Some(ms(0)));
    }

    #[test]
    fn the_last_loader_counts_and_stands_before_the_kernel() {
        let mut timeline = Timeline::default();
        timeline.note_loader(ms(1_000));
        timeline.note_loader(ms(2_000));
        timeline.note_guest("initramfs", ms(500), ms(3_500));
        let marks: Vec<_> = timeline.marks().iter().map(|mark| &*mark.what).collect();
        assert_eq!(marks, ["loader", "kernel", "initramfs"]);
        assert_eq!(timeline.at("loader"), Some(ms(2_000)));
    }

    #[test]
    fn the_table_has_each_mark_with_what_it_took() {
        let expected = "\
stage              at       took
power-on      0.000 s
kernel        3.000 s    3.000 s
initramfs     3.500 s    0.500 s
root          3.700 s    0.200 s
answer web    5.000 s    1.300 s
";
        assert_eq!(run().to_string(), expected);
    }
}
