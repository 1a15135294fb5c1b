//! The course of one boot, from the lines that init has left in the log: when each stage was reached, and when each
//! workload was first started and first ready. Times are in seconds since the kernel started; what was before it, by the
//! boot loader's own word, has negative ones.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::guest_log::Line;

/// The table of a boot; empty if the log has nothing of it.
pub(super) fn describe(lines: &[Line], boot: u64) -> String {
    let mut seen = BTreeSet::new();
    let of_boot = lines.iter().filter(|line| line.boot == boot);
    let points = of_boot.filter_map(|line| Some((line.micros, point(line.init_words()?)?)));
    // What comes again, a restart, is no part of the boot.
    let first: Vec<(u64, String)> = points
        .filter(|(_, what)| seen.insert(what.clone()))
        .collect();
    if first.is_empty() {
        return String::new();
    }
    let words = lines.iter().filter(|line| line.boot == boot);
    let before = words.filter_map(Line::init_words).find_map(before_kernel);
    let first = first.into_iter().map(|(at, what)| (seconds(at), what));
    table(before.unwrap_or_default().into_iter().chain(first))
}

fn table(points: impl Iterator<Item = (f64, String)>) -> String {
    let mut text = String::new();
    let mut before = None;
    for (at, what) in points {
        let after = (at - before.unwrap_or(at.min(0.0))).max(0.0);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{at:>10.3}  +{after:<9.3} {what}");
        before = Some(at);
    }
    text
}

/// `before the kernel: firmware SECONDS s, loader SECONDS s[, its menu after SECONDS s]`, as points of the boot.
fn before_kernel(words: &str) -> Option<Vec<(f64, String)>> {
    let mut parts = words.strip_prefix("before the kernel: ")?.split(", ");
    let mut took = |what: &str| {
        let number = parts.next()?.strip_prefix(what)?.strip_suffix(" s")?;
        number
            .parse()
            .ok()
            .filter(|seconds: &f64| seconds.is_finite())
    };
    let (firmware, loader) = (took("firmware ")?, took("loader ")?);
    let menu = took("its menu after ");
    let points = [
        Some((-loader - firmware, "power-on")),
        Some((-loader, "boot loader")),
        menu.map(|menu| (menu - loader, "boot menu")),
        Some((0.0, "kernel")),
    ];
    let points = points.into_iter().flatten();
    Some(points.map(|(at, what)| (at, what.to_owned())).collect())
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
    fn what_was_before_the_kernel_comes_first() {
        let described = |menu: &str| {
            let text = format!(
                "1.1 2026-11-25T00:00:00.000000Z 0.500000 init stage initramfs\n\
                1.2 2026-11-25T00:00:00.000000Z 9.000000 init before the kernel: firmware 2.500 s, loader 1.250 s{menu}\n"
            );
            let lines = text.lines();
            let lines: Vec<Line> = lines
                .map(|line| Line::parse("coracle", line).unwrap())
                .collect();
            describe(&lines, 1)
        };
        let first = "    -3.750  +0.000     power-on\n    -1.250  +2.500     boot loader\n";
        let last = "     0.500  +0.500     stage initramfs\n";
        assert_eq!(
            described(""),
            format!("{first}     0.000  +1.250     kernel\n{last}")
        );
        assert_eq!(
            described(", its menu after 0.250 s"),
            format!(
                "{first}    -1.000  +0.250     boot menu\n     0.000  +1.000     kernel\n{last}"
            )
        );
    }

    #[test]
    fn a_line_of_times_that_is_none_is_left_out() {
        for words in [
            "before the kernel: firmware inf s, loader 0.250 s",
            "before the kernel: firmware 1.0 s",
            "stage ready",
        ] {
            assert_eq!(before_kernel(words), None, "{words}");
        }
    }

    #[test]
    fn what_a_workload_prints_is_no_point_of_a_boot() {
        let line = "1.1 2026-11-25T00:00:00.000000Z 9.000000 out stage ready";
        let line = Line::parse("web", line).unwrap();
        assert_eq!(describe(&[line], 1), "");
    }
}
