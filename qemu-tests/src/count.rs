//! Guest instructions of a boot, as the `insn-count` plugin writes them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;

/// The stages by their markers' numbers, in the order of a boot.
pub const STAGES: [(u8, &str); 6] = [
    (1, "initramfs"),
    (2, "root"),
    (3, "system"),
    (4, "state"),
    (5, "network"),
    (READY, "ready"),
];

/// The marker of `stage ready`.
const READY: u8 = 6;

/// Counts of one boot: guest instructions from power-on to the first execution of each marker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    markers: BTreeMap<u8, u64>,
}

impl Counts {
    /// Reads the plugin's file.
    ///
    /// # Errors
    /// If it cannot be read or has a line that is not the plugin's.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path);
        let text = text.with_context(|| format!("read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("in {}", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let mut counts = Self::default();
        for line in text.lines() {
            let words: Vec<_> = line.split(' ').collect();
            match words[..] {
                ["insn-count:", "marker", number, count] => {
                    let count = count.parse().context("a count is no number")?;
                    let number = number.parse().context("a marker is no number")?;
                    counts.markers.entry(number).or_insert(count);
                }
                ["insn-count:", "total", _] => {}
                _ => bail!("not a line of insn-count: {line:?}"),
            }
        }
        Ok(counts)
    }

    /// Instructions from power-on to `stage ready`.
    ///
    /// # Errors
    /// If the machine never was ready.
    pub fn ready(&self) -> Result<u64> {
        let count = self.markers.get(&READY).copied();
        count.context("the machine was never ready")
    }
}

/// The plugin, built now.
///
/// # Errors
/// If Cargo fails.
pub fn plugin() -> Result<PathBuf> {
    crate::build_in_workspace("coracle-insn-count", "libinsn_count.so")
}

/// The median of several boots, stage by stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// What was booted, and how.
    pub name: String,
    /// Instructions from power-on until the machine was ready.
    pub instructions: u64,
    /// The greatest distance of a single boot from the median, as a part of it.
    pub spread: f64,
    /// The floor of the same way to boot.
    pub floor: u64,
    /// `instructions / floor`.
    pub times_floor: f64,
    /// Each stage with its instructions from power-on; empty for a floor itself.
    pub stages: Vec<(&'static str, u64)>,
}

impl Row {
    /// Sums up boots of one kind beside their floor; `floor: None` for the floor itself.
    ///
    /// # Errors
    /// If there is no boot or one was never ready.
    pub fn sum_up(name: &str, boots: &[Counts], floor: Option<u64>) -> Result<Self> {
        let ready = boots
            .iter()
            .map(Counts::ready)
            .collect::<Result<Vec<_>>>()?;
        let instructions = median(&ready).context("no boot was counted")?;
        let distance = ready.iter().map(|count| count.abs_diff(instructions)).max();
        let stage = |(number, name): &(u8, &'static str)| {
            let counts: Vec<_> = boots
                .iter()
                .filter_map(|b| b.markers.get(number).copied())
                .collect();
            Some((*name, median(&counts)?))
        };
        let floor_count = floor.unwrap_or(instructions);
        Ok(Self {
            name: name.to_owned(),
            instructions,
            spread: distance.unwrap_or(0) as f64 / instructions as f64,
            floor: floor_count,
            times_floor: instructions as f64 / floor_count as f64,
            stages: match floor {
                Some(_) => STAGES.iter().filter_map(stage).collect(),
                None => Vec::new(),
            },
        })
    }
}

fn median(counts: &[u64]) -> Option<u64> {
    let mut sorted = counts.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied()
}

/// A table: millions of instructions, and what they are of the floor; below each boot its stages.
#[derive(Debug)]
pub struct Table<'a>(pub &'a [Row]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:34} {:>12} {:>8} {:>8}",
            "power-on to ready", "10^6 insns", "x floor", "spread"
        )?;
        for boot in self.0 {
            let millions = boot.instructions as f64 / 1e6;
            let (times, spread) = (boot.times_floor, boot.spread * 100.0);
            writeln!(
                f,
                "{:34} {millions:>12.1} {times:>8.2} {spread:>7.2}%",
                boot.name
            )?;
            let mut before = 0;
            for (stage, count) in &boot.stages {
                let took = count.saturating_sub(before) as f64;
                let (millions, times) = (took / 1e6, took / boot.floor as f64);
                writeln!(f, "    to {stage:27} {millions:>12.1} {times:>8.2}")?;
                before = *count;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(ready: u64) -> Counts {
        let initramfs = ready / 2;
        let text = format!(
            "insn-count: marker 1 {initramfs}\ninsn-count: marker 9 5\ninsn-count: marker 6 {ready}\n\
             insn-count: marker 6 99999\ninsn-count: total 100000\n"
        );
        Counts::parse(&text).unwrap()
    }

    #[test]
    fn the_first_execution_of_a_marker_counts() {
        assert_eq!(counts(1000).ready().unwrap(), 1000);
        assert!(
            Counts::parse("insn-count: total 7\n")
                .unwrap()
                .ready()
                .is_err()
        );
        assert!(Counts::parse("something else\n").is_err());
    }

    #[test]
    fn boots_are_summed_up_by_their_median_beside_the_floor() {
        let boots = [counts(1500), counts(1200), counts(1260)];
        let boot = Row::sum_up("direct", &boots, Some(1000)).unwrap();
        assert_eq!(boot.instructions, 1260);
        assert!((boot.times_floor - 1.26).abs() < 1e-9);
        assert!((boot.spread - 240.0 / 1260.0).abs() < 1e-9);
        assert_eq!(boot.stages, [("initramfs", 630), ("ready", 1260)]);
        let table = Table(&[boot]).to_string();
        assert!(table.contains("to ready"), "{table}");
        assert!(Row::sum_up("none", &[], None).is_err());
    }
}
