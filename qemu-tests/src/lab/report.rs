//! What a lab guest told of its steps.

use anyhow::{Context, Result, ensure};

/// Every step in its order.
#[derive(Debug, Default)]
pub struct Report {
    steps: Vec<Step>,
}

/// One step.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// What it wrote, standard error among it.
    pub lines: Vec<String>,
    /// Its exit status; `None` if it did not end.
    pub status: Option<i32>,
}

impl Report {
    /// Reads a console. What is not of a step is passed over: the kernel speaks, too.
    pub fn read(console: &[String]) -> Self {
        let mut steps: Vec<Step> = Vec::new();
        for line in console {
            let line = line.trim_end_matches('\r');
            if let Some(name) = line.strip_prefix("lab: begin ") {
                // Three digits and a dash keep the order.
                let name = name.get(4..).unwrap_or(name).to_owned();
                steps.push(Step {
                    name,
                    ..Step::default()
                });
            } else if let Some(step) = steps.last_mut() {
                if let Some(text) = line.strip_prefix("lab| ") {
                    step.lines.push(text.to_owned());
                } else if let Some(end) = line.strip_prefix("lab: end ") {
                    step.status = end.rsplit(' ').next().and_then(|word| word.parse().ok());
                }
            }
        }
        Self { steps }
    }

    /// A step by its name.
    ///
    /// # Errors
    /// If there is none.
    pub fn step(&self, name: &str) -> Result<&Step> {
        let found = self.steps.iter().find(|step| step.name == name);
        found.with_context(|| format!("the guest ran no step {name}"))
    }

    /// Fails unless each step ended with status 0, and tells all that did not with what they wrote.
    ///
    /// # Errors
    /// With the steps that failed.
    pub fn expect_success(&self) -> Result<()> {
        let failed: Vec<String> = self
            .steps
            .iter()
            .filter(|step| step.status != Some(0))
            .map(|step| {
                let (name, status) = (&step.name, step.status);
                format!(
                    "{name} ended with {status:?}:\n    {}",
                    step.lines.join("\n    ")
                )
            })
            .collect();
        ensure!(failed.is_empty(), "steps failed\n{}", failed.join("\n"));
        ensure!(!self.steps.is_empty(), "the guest ran no step");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_have_their_lines_and_status() -> Result<()> {
        let console = [
            "[    1.0] kernel",
            "lab: begin 001-first",
            "lab| one\r",
            "[    2.0] kernel",
            "lab| two",
            "lab: end 001-first 0",
            "lab: begin 002-second",
        ];
        let report = Report::read(&console.map(str::to_owned));
        let first = report.step("first")?;
        assert_eq!(
            (first.status, &first.lines[..]),
            (Some(0), &["one".to_owned(), "two".to_owned()][..])
        );
        assert_eq!(report.step("second")?.status, None);
        assert!(report.expect_success().is_err());
        assert!(report.step("third").is_err());
        Ok(())
    }
}
