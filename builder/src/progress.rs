//! What the user sees while work goes on, on standard error only.
//!
//! On a terminal a step shows a spinner or a bar and disappears when it is done; elsewhere a step that takes
//! longer than a second is told in plain lines. It decides nothing and refuses nothing.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::streams::tell_line;

/// Steps shorter than this leave no line behind.
const WORTH_A_LINE: Duration = Duration::from_secs(1);

/// Where progress is told.
#[derive(Debug)]
pub struct Progress {
    mode: Mode,
    /// Notes already told, so that none is told twice.
    told: Mutex<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Silent,
    Lines,
    Bars,
}

impl Progress {
    /// Bars on a terminal, plain lines elsewhere.
    pub fn stderr() -> Self {
        let mode = if std::io::stderr().is_terminal() {
            Mode::Bars
        } else {
            Mode::Lines
        };
        Self::with_mode(mode)
    }

    /// Tells nothing.
    pub fn silent() -> Self {
        Self::with_mode(Mode::Silent)
    }

    fn with_mode(mode: Mode) -> Self {
        Self {
            mode,
            told: Mutex::new(Vec::new()),
        }
    }

    /// Begins a step of `total` units (bytes as a rule), or of unknown length. It ends when the value is dropped.
    pub fn step(&self, what: impl Into<String>, total: Option<u64>) -> Step {
        let what = what.into();
        let bar = match (self.mode, total) {
            (Mode::Bars, Some(total)) => ProgressBar::new(total).with_style(bar_style()),
            (Mode::Bars, None) => ProgressBar::new_spinner(),
            _ => ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden()),
        };
        if self.mode == Mode::Bars {
            bar.set_message(what.clone());
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        Step {
            mode: self.mode,
            what,
            bar,
            begun: Instant::now(),
            announced: Mutex::new(false),
        }
    }

    /// Tells a line that stays; the same line is told once only.
    pub fn note(&self, text: impl Into<String>) {
        let text = text.into();
        if self.mode == Mode::Silent {
            return;
        }
        let mut told = self
            .told
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if !told.contains(&text) {
            tell_line(&text);
            told.push(text);
        }
    }
}

fn bar_style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {msg} {bar:30} {bytes}/{total_bytes} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// A step that is going on.
#[derive(Debug)]
pub struct Step {
    mode: Mode,
    what: String,
    bar: ProgressBar,
    begun: Instant,
    announced: Mutex<bool>,
}

impl Step {
    /// `units` more are done.
    pub fn advance(&self, units: u64) {
        self.bar.inc(units);
        if self.mode == Mode::Lines && self.begun.elapsed() > WORTH_A_LINE {
            let mut announced = self
                .announced
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            if !*announced {
                tell_line(&format!("{} ...", self.what));
                *announced = true;
            }
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        let took = self.begun.elapsed();
        if self.mode != Mode::Silent && took > WORTH_A_LINE {
            tell_line(&format!("{} ({:.1} s)", self.what, took.as_secs_f64()));
        }
    }
}
