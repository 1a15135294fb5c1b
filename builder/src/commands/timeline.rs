//! The course of one boot, from the lines that init has left in the log: when each stage was reached, and when each
//! workload was first started and first ready.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::guest_log::Line;

/// The table of a boot, in seconds since the kernel started; empty if the log has nothing of it.
pub(super) fn describe(lines: &[Line], boot: u64) -> String {
    let mut seen = BTreeSet::new();
    let of_boot = lines.iter().filter(|line| line.boot == boot);
    let points = of_boot.filter_map(|line| Some((line.micros, point(line.init_words()?)?)));
    // What comes again, a restart, is no part of the boot.
    let first: Vec<(u64, String)> = points
        .filter(|(_, what)| seen.insert(what.clone()))
        .collect();
    let mut text = String::new();
    let mut before = 0;
    for (micros, what) in &first {
        let (at, after) = (seconds(*micros), seconds(micros.saturating_sub(before)));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{at:>10.3}  +{after:<9.3} {what}");
        before = *micros;
    }
    text
}

/// The point of a boot that a line of init's marks.
fn point(words: &str) -> Option<String> {
    if let Some(stage) = words.strip_prefix("stage ") {
        return Some(format!("stage {stage}"));
    }
    let (name, what) = words.strip_prefix("workload ")?.split_once(' ')?;
    let what = match what {
        "started" | "ready" => what,
        _ if what.starts_with("listens") => "listens",
        _ if what.ends_with("; done") => "done",
        _ => return None,
    };
    Some(format!("workload {name} {what}"))
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boots_course_is_its_stages_and_the_first_time_of_each_workload() {
        let text = "1.1 2026-11-25T00:00:00.000000Z 9.000000 init stage ready\n\
            2.1 2026-11-25T00:00:00.000000Z 0.500000 init stage initramfs\n\
            2.2 2026-11-25T00:00:00.000000Z 0.750000 init network uplink eth0 10.0.2.15/24\n\
            2.3 2026-11-25T00:00:00.000000Z 1.000000 init workload web started\n\
            2.4 2026-11-25T00:00:00.000000Z 1.250000 init workload migrate exited with status 0; done\n\
            2.5 2026-11-25T00:00:00.000000Z 1.500000 init workload web ready\n\
            2.6 2026-11-25T00:00:00.000000Z 3.000000 init workload web started\n";
        let lines: Vec<Line> = text
            .lines()
            .map(|line| Line::parse("coracle", line).unwrap())
            .collect();
        assert_eq!(
            describe(&lines, 2),
            "     0.500  +0.500     stage initramfs\n\
             \x20    1.000  +0.500     workload web started\n\
             \x20    1.250  +0.250     workload migrate done\n\
             \x20    1.500  +0.250     workload web ready\n"
        );
        assert_eq!(describe(&lines, 3), "");
    }

    #[test]
    fn what_a_workload_prints_is_no_point_of_a_boot() {
        let line = "1.1 2026-11-25T00:00:00.000000Z 9.000000 out stage ready";
        let line = Line::parse("web", line).unwrap();
        assert_eq!(describe(&[line], 1), "");
    }
}
