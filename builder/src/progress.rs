//! What the user sees while work goes on.
//!
//! On a terminal each step shows a spinner or a bar, several at once, and disappears when it is done. Elsewhere a step
//! that takes longer than a second is told in plain lines. Both are on standard error. With `--json` each step is told
//! by messages on standard output. Steps may be begun, advanced and ended by any thread. It decides nothing and refuses
//! nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::message::{Message, State};
use crate::streams::tell_line;

/// Steps shorter than this leave no line behind.
const WORTH_A_LINE: Duration = Duration::from_secs(1);
/// How long a step that goes on says nothing, in plain lines and in messages.
const BETWEEN_LINES: Duration = Duration::from_secs(10);
const BETWEEN_MESSAGES: Duration = Duration::from_secs(1);

/// Where progress is told. Clones tell at the same place.
#[derive(Debug, Clone)]
pub struct Progress {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    mode: Mode,
    /// Notes already told, so that none is told twice.
    told: Mutex<Vec<String>>,
    steps: AtomicU64,
}

#[derive(Debug)]
enum Mode {
    Silent,
    Lines,
    Bars(MultiProgress),
    Messages,
}

impl Progress {
    /// Bars on a terminal, plain lines elsewhere, and on a terminal that cannot draw (`TERM=dumb`).
    pub fn stderr() -> Self {
        let bars = MultiProgress::new();
        Self::with_mode(if bars.is_hidden() {
            Mode::Lines
        } else {
            Mode::Bars(bars)
        })
    }

    /// Messages on standard output.
    pub fn messages() -> Self {
        Self::with_mode(Mode::Messages)
    }

    /// Tells nothing.
    pub fn silent() -> Self {
        Self::with_mode(Mode::Silent)
    }

    fn with_mode(mode: Mode) -> Self {
        let shared = Shared {
            mode,
            told: Mutex::default(),
            steps: AtomicU64::new(0),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Begins a step of `total` units (bytes as a rule), or of unknown length. It ends when the value is dropped.
    pub fn step(&self, what: impl Into<String>, total: Option<u64>) -> Step {
        let what = what.into();
        let bar = match &self.shared.mode {
            Mode::Bars(bars) => bars.add(new_bar(&what, total)),
            _ => ProgressBar::hidden(),
        };
        if let Some(total) = total {
            bar.set_length(total);
        }
        let step = Step {
            shared: Arc::clone(&self.shared),
            id: 1 + self.shared.steps.fetch_add(1, Ordering::Relaxed),
            what,
            bar,
            begun: Instant::now(),
            told: Mutex::new(None),
        };
        if let Mode::Messages = self.shared.mode {
            step.send(State::Begun, None);
        }
        step
    }

    /// Tells a line that stays; the same line is told once only.
    pub fn note(&self, text: impl Into<String>) {
        let text = text.into();
        let mut told = locked(&self.shared.told);
        if told.contains(&text) {
            return;
        }
        match &self.shared.mode {
            Mode::Messages => Message::Note { text: &text }.send(),
            _ => self.shared.line(&text),
        }
        told.push(text);
    }
}

impl Shared {
    /// Tells a line on standard error, above the bars where there are some.
    fn line(&self, text: &str) {
        match &self.mode {
            Mode::Lines => tell_line(text),
            Mode::Bars(bars) => bars.suspend(|| tell_line(text)),
            Mode::Silent | Mode::Messages => {}
        }
    }
}

/// A bar that nothing draws yet.
fn new_bar(what: &str, total: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::no_length().with_message(what.to_owned());
    bar.set_style(style(total.is_some()));
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn style(with_length: bool) -> ProgressStyle {
    let template = if with_length {
        "{spinner} {wide_msg} {bar:30} {bytes:>10}/{total_bytes:10} {eta:>4}"
    } else {
        "{spinner} {wide_msg}"
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A step that is going on.
#[derive(Debug)]
pub struct Step {
    shared: Arc<Shared>,
    id: u64,
    what: String,
    bar: ProgressBar,
    begun: Instant,
    /// When it was last told that it goes on.
    told: Mutex<Option<Instant>>,
}

impl Step {
    /// `units` more are done.
    pub fn advance(&self, units: u64) {
        self.bar.inc(units);
        let going = match self.shared.mode {
            Mode::Lines => self.is_due(WORTH_A_LINE, BETWEEN_LINES),
            Mode::Messages => self.is_due(BETWEEN_MESSAGES, BETWEEN_MESSAGES),
            Mode::Silent | Mode::Bars(_) => false,
        };
        match (&self.shared.mode, going) {
            (Mode::Messages, true) => self.send(State::Going, None),
            (_, true) => self.shared.line(&self.going_line()),
            (_, false) => {}
        }
    }

    /// The step's length has become known, or is another than was thought.
    pub fn set_total(&self, total: u64) {
        if self.bar.length().is_none() {
            self.bar.set_style(style(true));
        }
        self.bar.set_length(total);
    }

    /// Whether it is time to tell, first after `first` and then each `between`; if so, it counts as told.
    fn is_due(&self, first: Duration, between: Duration) -> bool {
        if self.begun.elapsed() < first {
            return false;
        }
        let mut told = locked(&self.told);
        let due = told.is_none_or(|told| told.elapsed() >= between);
        if due {
            *told = Some(Instant::now());
        }
        due
    }

    fn going_line(&self) -> String {
        match self.bar.length() {
            Some(total) if total > 0 => {
                let percent = self.bar.position().min(total) as f64 / total as f64 * 100.0;
                format!("{} ... {percent:.0} %", self.what)
            }
            _ => format!("{} ...", self.what),
        }
    }

    fn send(&self, state: State, seconds: Option<f64>) {
        let message = Message::Step {
            id: self.id,
            what: &self.what,
            state,
            done: self.bar.position(),
            total: self.bar.length(),
            seconds,
        };
        message.send();
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        if let Mode::Bars(bars) = &self.shared.mode {
            bars.remove(&self.bar);
        }
        let took = self.begun.elapsed();
        if let Mode::Messages = self.shared.mode {
            self.send(State::Ended, Some(took.as_secs_f64()));
        } else if took > WORTH_A_LINE {
            let line = format!("{} ({:.1} s)", self.what, took.as_secs_f64());
            self.shared.line(&line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_go_on_in_several_threads() {
        fn is_shared<T: Send + Sync + 'static>(_: &T) {}
        let progress = Progress::silent();
        let step = progress.step("fetching", None);
        is_shared(&progress);
        is_shared(&step);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let own = progress.clone().step("one of them", Some(7));
                    own.advance(7);
                    step.advance(10);
                });
            }
        });
        assert_eq!(step.bar.position(), 40);
        assert_eq!(step.id, 1);
        assert_eq!(progress.step("last", None).id, 6);
    }

    #[test]
    fn a_step_that_goes_on_says_how_far_it_is_once_it_knows_its_length() {
        let step = Progress::silent().step("fetching", None);
        step.advance(3);
        assert_eq!(step.going_line(), "fetching ...");
        step.set_total(12);
        assert_eq!(step.going_line(), "fetching ... 25 %");
    }
}
