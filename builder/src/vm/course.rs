//! The course of a run as a pure state machine: what the guest, QEMU and the user do, and what follows from it.
//!
//! States: *booting* until `stage ready`; *ready* until someone wants it to end; *stopping* from the first press of
//! the power button on. From each of them the run may become *failed* (refused, panicked, too late), which ends it
//! after a moment in which the guest may finish its sentence. Time is the time since power-on and is always given
//! from outside: there is no clock and no system call here.

use std::time::Duration;

use super::console::{GuestEvent, Line};
use super::error::{Error, LastSeen};
use super::timeline::Timeline;

/// How long a guest may take from the first press of the power button to its end.
pub(crate) const POWER_OFF_TIME: Duration = Duration::from_secs(30);
/// The button is pressed again this often until the guest says that it stops: firmware and a booting kernel do not
/// listen.
const PRESS_AGAIN: Duration = Duration::from_secs(2);
/// How long a panicking kernel may go on with its report.
const PANIC_TIME: Duration = Duration::from_secs(2);
/// How long a guest that refuses may go on with its reasons. What it does then is the policy of its file.
const REFUSAL_TIME: Duration = Duration::from_secs(2);
/// How long a guest that has halted is left to itself: it never ends.
const HALT_TIME: Duration = Duration::from_secs(1);

/// What the run is for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Goal {
    /// Power off as soon as every workload is ready and has answered.
    pub(crate) exit_when_ready: bool,
    /// How long it may take to be ready.
    pub(crate) timeout: Option<Duration>,
    /// How long it may take to power off.
    pub(crate) power_off_time: Duration,
}

/// What happens.
#[derive(Debug)]
pub(crate) enum Input {
    /// The guest's console has a line.
    Line(Line),
    /// QEMU says why the machine ends.
    Shutdown(String),
    /// The user wants it to end (SIGINT, SIGTERM, SIGHUP).
    Interrupt,
    /// Every workload that answers a question has been asked.
    Asked(Option<Error>),
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Ask the workloads, then say [`Input::Asked`].
    Ask,
    /// Press the power button.
    PowerDown,
    /// End QEMU at once.
    Kill,
    /// Tell the user.
    Note(String),
}

/// Where the run is.
#[derive(Debug, Default)]
pub(crate) struct Course {
    goal: Goal,
    pub(crate) timeline: Timeline,
    last: LastSeen,
    ready: bool,
    /// The workloads have been asked.
    asked: bool,
    stopping: Option<Stopping>,
    kill_at: Option<Duration>,
    powered_off: bool,
    shutdown: Option<String>,
    failure: Option<Error>,
}

#[derive(Debug)]
struct Stopping {
    deadline: Duration,
    /// `None`: the guest has heard it.
    press_again: Option<Duration>,
}

impl Course {
    pub(crate) fn new(goal: Goal) -> Self {
        Self {
            goal,
            ..Self::default()
        }
    }

    /// When [`Input::Tick`] is due at the latest.
    pub(crate) fn wake(&self) -> Option<Duration> {
        let not_ready = self.goal.timeout.filter(|_| self.waits_for_ready());
        let stopping = self.stopping.as_ref();
        let press = stopping.and_then(|stopping| stopping.press_again);
        let deadline = stopping.map(|stopping| stopping.deadline);
        [not_ready, press, deadline, self.kill_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether the machine stays after it is ready, so that its times are of interest then.
    pub(crate) fn stays(&self) -> bool {
        !self.goal.exit_when_ready && self.stopping.is_none()
    }

    /// Takes what happened at `now` and says what is to be done.
    pub(crate) fn step(&mut self, now: Duration, input: Input) -> Vec<Action> {
        match input {
            Input::Line(line) => self.hear(now, line),
            Input::Shutdown(reason) => {
                self.shutdown = Some(reason);
                Vec::new()
            }
            Input::Interrupt => self.interrupt(now),
            Input::Asked(failure) => {
                self.asked = true;
                self.failure = self.failure.take().or(failure);
                if self.stays() {
                    let note = "the machine runs; press Ctrl-C to power it off";
                    return vec![Action::Note(note.to_owned())];
                }
                self.stop(now)
            }
            Input::Tick => self.tick(now),
        }
    }

    fn waits_for_ready(&self) -> bool {
        !self.ready && self.stopping.is_none() && self.failure.is_none()
    }

    fn hear(&mut self, now: Duration, line: Line) -> Vec<Action> {
        if !line.text.is_empty() {
            self.last.line = Some(line.text);
        }
        let Some(event) = line.event else {
            return Vec::new();
        };
        let guest_time = line.guest_time.unwrap_or(now);
        match event {
            GuestEvent::Stage(name) => self.reach(now, guest_time, name),
            GuestEvent::WorkloadReady(name) => {
                let what = format!("workload {name} ready");
                self.timeline.note_guest(what, guest_time, now);
                Vec::new()
            }
            GuestEvent::LoaderStarts => {
                // A firmware that fails with one loader tries the next: the last one counts.
                self.timeline.note_loader(now);
                Vec::new()
            }
            GuestEvent::FirmwareRefused(reason) => {
                self.fail(now, Error::FirmwareRefused { reason });
                vec![Action::Kill]
            }
            GuestEvent::Refused(reason) => {
                self.fail(now + REFUSAL_TIME, Error::Refused { reason });
                Vec::new()
            }
            GuestEvent::KernelPanic(reason) => {
                self.fail(now + PANIC_TIME, Error::KernelPanic { reason });
                Vec::new()
            }
        }
    }

    fn reach(&mut self, now: Duration, guest_time: Duration, stage: String) -> Vec<Action> {
        self.timeline.note_guest(&*stage, guest_time, now);
        self.last.stage = Some(stage.clone());
        match stage.as_str() {
            "ready" if !self.ready => {
                self.ready = true;
                if self.stopping.is_none() {
                    return vec![Action::Ask];
                }
            }
            "stopping" => match &mut self.stopping {
                Some(stopping) => stopping.press_again = None,
                // The guest stops of its own accord; it gets the same time.
                None => {
                    self.stopping = Some(Stopping {
                        deadline: now + self.goal.power_off_time,
                        press_again: None,
                    });
                }
            },
            // QEMU ends with a guest that restarts.
            "poweroff" | "reboot" => self.powered_off = true,
            "halt" => {
                self.powered_off = true;
                self.kill_at.get_or_insert(now + HALT_TIME);
            }
            _ => {}
        }
        Vec::new()
    }

    fn interrupt(&mut self, now: Duration) -> Vec<Action> {
        if self.stopping.is_none() {
            let mut actions = self.stop(now);
            let note = "shutting down; press Ctrl-C again to kill the machine";
            actions.push(Action::Note(note.to_owned()));
            return actions;
        }
        let last = self.last.clone();
        self.fail(now, Error::Killed { last });
        vec![Action::Kill]
    }

    fn stop(&mut self, now: Duration) -> Vec<Action> {
        if self.stopping.is_some() {
            return Vec::new();
        }
        self.stopping = Some(Stopping {
            deadline: now + self.goal.power_off_time,
            press_again: Some(now + PRESS_AGAIN),
        });
        vec![Action::PowerDown]
    }

    /// The first failure is the reason; what follows it is its consequence.
    fn fail(&mut self, kill_at: Duration, failure: Error) {
        self.kill_at.get_or_insert(kill_at);
        self.failure.get_or_insert(failure);
    }

    fn tick(&mut self, now: Duration) -> Vec<Action> {
        let last = self.last.clone();
        if let Some(timeout) = self.goal.timeout
            && self.waits_for_ready()
            && now >= timeout
        {
            self.fail(now, Error::NotReady { timeout, last });
        } else if let Some(stopping) = &mut self.stopping {
            if now >= stopping.deadline {
                let timeout = self.goal.power_off_time;
                self.fail(now, Error::PowerOffTimeout { timeout, last });
            } else if let Some(due) = &mut stopping.press_again
                && now >= *due
            {
                *due = now + PRESS_AGAIN;
                return vec![Action::PowerDown];
            }
        }
        if self.kill_at.is_some_and(|at| now >= at) {
            return vec![Action::Kill];
        }
        Vec::new()
    }

    /// What the run came to, once QEMU has ended; `qemu` is QEMU's own failure, if it had one.
    pub(crate) fn finish(self, qemu: Option<Error>) -> Result<Timeline, Error> {
        let last = self.last;
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        if let Some(failure) = qemu {
            return Err(failure);
        }
        if !self.powered_off {
            let reason = match self.shutdown.as_deref() {
                Some("guest-reset") => "the guest restarted".to_owned(),
                Some("guest-shutdown") => "the guest cut its power".to_owned(),
                Some(other) => other.to_owned(),
                None => "QEMU ended".to_owned(),
            };
            return Err(Error::NotClean { reason, last });
        }
        if !self.ready || !self.asked {
            return Err(Error::StoppedEarly { last });
        }
        Ok(self.timeline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::console::Reader;

    const SECOND: Duration = Duration::from_secs(1);

    /// A run under a clock that the test moves.
    struct Run {
        course: Course,
        now: Duration,
    }

    impl Run {
        fn new(exit_when_ready: bool, timeout: Option<u64>) -> Self {
            let timeout = timeout.map(Duration::from_secs);
            Self {
                course: Course::new(Goal {
                    exit_when_ready,
                    timeout,
                    power_off_time: POWER_OFF_TIME,
                }),
                now: SECOND,
            }
        }

        fn step(&mut self, input: Input) -> Vec<Action> {
            self.course.step(self.now, input)
        }

        fn hear(&mut self, text: &str) -> Vec<Action> {
            let lines = Reader::default().push(format!("{text}\n").as_bytes());
            lines
                .into_iter()
                .flat_map(|line| self.step(Input::Line(line)))
                .collect()
        }

        fn stage(&mut self, stage: &str) -> Vec<Action> {
            self.hear(&format!("coracle: [0.500] stage {stage}"))
        }

        /// Sleeps as long as the course allows.
        fn sleep(&mut self) -> Vec<Action> {
            self.now = self.course.wake().unwrap();
            self.step(Input::Tick)
        }
    }

    #[test]
    fn a_good_run_asks_powers_down_and_ends_clean() {
        let mut run = Run::new(true, Some(60));
        assert_eq!(run.stage("initramfs"), []);
        assert_eq!(run.stage("ready"), [Action::Ask]);
        assert_eq!(run.step(Input::Asked(None)), [Action::PowerDown]);
        run.stage("stopping");
        run.stage("poweroff");
        assert!(run.course.finish(None).unwrap().at("ready").is_some());
    }

    #[test]
    fn without_exit_when_ready_the_machine_stays_until_it_is_interrupted() {
        let mut run = Run::new(false, Some(60));
        run.stage("ready");
        let actions = run.step(Input::Asked(None));
        assert!(matches!(actions[..], [Action::Note(_)]), "{actions:?}");
        assert_eq!(run.course.wake(), None);
        assert_eq!(run.step(Input::Interrupt)[0], Action::PowerDown);
    }

    #[test]
    fn the_button_is_pressed_until_the_guest_hears_it() {
        let mut run = Run::new(false, None);
        run.step(Input::Interrupt);
        assert_eq!(run.sleep(), [Action::PowerDown]);
        assert_eq!(run.sleep(), [Action::PowerDown]);
        run.stage("stopping");
        assert_eq!(run.sleep(), [Action::Kill]);
        assert_eq!(run.now, SECOND + POWER_OFF_TIME);
        let error = run.course.finish(None).unwrap_err();
        assert!(matches!(error, Error::PowerOffTimeout { .. }), "{error}");
    }

    #[test]
    fn a_second_interrupt_kills() {
        let mut run = Run::new(false, None);
        run.stage("ready");
        run.step(Input::Interrupt);
        assert_eq!(run.step(Input::Interrupt), [Action::Kill]);
        assert!(matches!(run.course.finish(None), Err(Error::Killed { .. })));
    }

    #[test]
    fn a_late_machine_is_killed_and_its_last_words_are_told() {
        let mut run = Run::new(true, Some(5));
        run.stage("root");
        run.hear("db | starting");
        assert_eq!(run.sleep(), [Action::Kill]);
        let text = run.course.finish(None).unwrap_err().to_string();
        assert!(
            text.contains("\"root\"") && text.contains("db | starting"),
            "{text}"
        );
    }

    #[test]
    fn refusal_and_panic_are_the_reason_whatever_follows() {
        let refused = "coracle: [0.600] refused: dm-verity: bad block";
        let panicked = "[    0.600000] Kernel panic - not syncing: no init";
        for (said, reason) in [(refused, "bad block"), (panicked, "no init")] {
            let mut run = Run::new(true, Some(5));
            run.stage("initramfs");
            assert_eq!(run.hear(said), []);
            assert_eq!(run.sleep(), [Action::Kill]);
            run.step(Input::Shutdown("guest-reset".into()));
            let text = run.course.finish(None).unwrap_err().to_string();
            assert!(text.contains(reason), "{text}");
        }
    }

    #[test]
    fn an_end_without_the_last_stage_is_a_failure() {
        let mut run = Run::new(true, None);
        run.stage("ready");
        run.step(Input::Shutdown("guest-reset".into()));
        let error = run.course.finish(None).unwrap_err();
        assert!(error.to_string().contains("restarted"), "{error}");
    }

    #[test]
    fn a_guest_that_restarts_has_ended_and_one_that_halts_is_ended() {
        for (stage, kills) in [("reboot", false), ("halt", true)] {
            let mut run = Run::new(true, None);
            run.stage("ready");
            run.step(Input::Asked(None));
            run.stage("stopping");
            run.stage(stage);
            if kills {
                assert_eq!(run.sleep(), [Action::Kill]);
            }
            assert!(run.course.finish(None).is_ok(), "{stage}");
        }
    }

    #[test]
    fn a_clean_end_before_every_answer_is_a_failure() {
        for before in ["initramfs", "ready"] {
            let mut run = Run::new(true, None);
            run.stage(before);
            run.step(Input::Interrupt);
            run.stage("stopping");
            run.stage("poweroff");
            let error = run.course.finish(None).unwrap_err();
            assert!(matches!(error, Error::StoppedEarly { .. }), "{error}");
        }
    }

    #[test]
    fn a_missing_answer_fails_the_run_after_a_clean_power_off() {
        let mut run = Run::new(true, None);
        run.stage("ready");
        let failure = Error::NoAnswer {
            workload: "web".into(),
            url: "http://x".into(),
            source: std::io::Error::other("refused"),
        };
        assert_eq!(run.step(Input::Asked(Some(failure))), [Action::PowerDown]);
        run.stage("stopping");
        run.stage("poweroff");
        assert!(matches!(
            run.course.finish(None),
            Err(Error::NoAnswer { .. })
        ));
    }
}
