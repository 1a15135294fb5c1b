//! The engine under a fake clock.

mod gates;
mod history;
mod pods;
mod watching;

use super::*;
use crate::supervise::event::{
    Cause, Exit, News, Next, Notice, ProbeKind, ProbeResult, Standing, Trouble,
};
use config::boot::{BootHealth, BootRestart, Check, Kind, Readiness, Restart, StartLimit};

fn spec(name: &str, after: &[&str]) -> BootWorkload {
    BootWorkload {
        name: name.to_owned(),
        bundle: format!("/b/{name}"),
        kind: Kind::Service,
        after: after.iter().map(|&other| other.to_owned()).collect(),
        first_id: None,
        network: config::boot::Network::Host,
        io: None,
        requires: Vec::new(),
        conditions: Vec::new(),
        pod: None,
        sockets: Vec::new(),
        volumes: Vec::new(),
        secrets: Vec::new(),
        ports: Vec::new(),
        readiness: Readiness::Started,
        health: None,
        watchdog_ms: None,
        restart: restart(Restart::Always),
        stop_signal: 15,
        stop_timeout_ms: 5_000,
    }
}

fn restart(when: Restart) -> BootRestart {
    BootRestart {
        when,
        delay_ms: 100,
        delay_max_ms: 10_000,
        start_limit: None,
    }
}

fn limited(starts: u32, within_ms: u64) -> BootRestart {
    BootRestart {
        start_limit: Some(StartLimit { starts, within_ms }),
        ..restart(Restart::OnFailure)
    }
}

fn probed(name: &str, after: &[&str]) -> BootWorkload {
    BootWorkload {
        readiness: Readiness::Health,
        health: Some(BootHealth {
            check: Check::Tcp { port: 80 },
            every_ms: 10_000,
            timeout_ms: 5_000,
            retries: 3,
            grace_ms: 0,
        }),
        ..spec(name, after)
    }
}

fn job(name: &str, after: &[&str]) -> BootWorkload {
    BootWorkload {
        kind: Kind::Job,
        restart: limited(3, 60_000),
        ..spec(name, after)
    }
}

fn requiring(name: &str, requires: &[&str]) -> BootWorkload {
    BootWorkload {
        requires: requires.iter().map(|&other| other.to_owned()).collect(),
        ..spec(name, &[])
    }
}

fn activated(name: &str, after: &[&str]) -> BootWorkload {
    BootWorkload {
        sockets: vec!["s".to_owned()],
        ..spec(name, after)
    }
}

fn notifying(name: &str) -> BootWorkload {
    BootWorkload {
        readiness: Readiness::Notify,
        watchdog_ms: Some(30_000),
        ..spec(name, &[])
    }
}

/// An engine with its clock.
struct Bench {
    engine: Engine,
    now: Duration,
}

const PLAIN: Settings = Settings {
    seed: 0,
    shutdown_limit: Duration::from_secs(90),
    starts: 100,
};

impl Bench {
    fn new(specs: &[BootWorkload]) -> Self {
        Self::with_pods(specs, &[])
    }

    fn with_pods(specs: &[BootWorkload], pods: &[BootPod]) -> Self {
        Self {
            engine: Engine::new(specs, pods, PLAIN),
            now: Duration::from_secs(100),
        }
    }

    fn hear(&mut self, event: Event) -> Vec<Action> {
        self.engine.handle(event, self.now)
    }

    fn pass(&mut self, milliseconds: u64) -> Vec<Action> {
        self.now += Duration::from_millis(milliseconds);
        self.hear(Event::Tick)
    }

    /// Begins, and starts all.
    fn run(specs: &[BootWorkload]) -> Self {
        let mut bench = Self::new(specs);
        bench.hear(Event::Begin);
        for id in 0..specs.len() {
            bench.hear(Event::Started(id));
        }
        bench
    }

    fn is_ready(&self, id: Id) -> bool {
        matches!(self.engine.workloads[id].state, State::Running(run) if run.ready_since.is_some())
    }
}

fn exited(id: Id, status: i32) -> Event {
    Event::Exited(id, Exit::Status(status))
}

fn tell(notice: Notice) -> Action {
    Action::Tell(notice)
}

fn failed(delay_ms: u64) -> Action {
    let next = Next::Restart(Duration::from_millis(delay_ms));
    Action::Tell(Notice::Ended(0, Cause::Exited(Exit::Status(1)), next))
}

#[test]
fn nothing_starts_before_what_it_comes_after_is_ready() {
    let mut bench = Bench::new(&[probed("db", &[]), spec("web", &["db"])]);
    assert_eq!(bench.hear(Event::Begin), [Action::Start(0)]);
    assert_eq!(
        bench.hear(Event::Started(0)),
        [
            Action::Tell(Notice::Started(0)),
            Action::Probe(0, ProbeKind::UntilReady)
        ]
    );
    assert_eq!(
        bench.hear(Event::Probed(0, ProbeResult::Passed)),
        [Action::Tell(Notice::Ready(0)), Action::Start(1)]
    );
    let last = bench.hear(Event::Started(1));
    assert_eq!(
        last[1..],
        [
            Action::Tell(Notice::Ready(1)),
            Action::Tell(Notice::AllReady)
        ]
    );
    assert!(bench.is_ready(0) && bench.is_ready(1));
}

#[test]
fn a_machine_without_workloads_is_ready_at_once_and_stops_at_once() {
    let mut bench = Bench::new(&[]);
    assert_eq!(bench.hear(Event::Begin), [Action::Tell(Notice::AllReady)]);
    assert_eq!(bench.hear(Event::Shutdown), [Action::AllStopped]);
}

#[test]
fn a_dependency_on_a_later_or_unknown_workload_keeps_nothing_from_starting() {
    let mut bench = Bench::new(&[spec("a", &["b", "a", "ghost"]), spec("b", &["a"])]);
    assert_eq!(bench.hear(Event::Begin), [Action::Start(0)]);
}

#[test]
fn failed_workload_is_restarted_with_backoff() {
    let mut bench = Bench::run(&[spec("web", &[])]);
    for delay in [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
        assert_eq!(
            bench.hear(Event::Exited(0, Exit::Status(1))),
            [failed(delay), Action::Clean(0)]
        );
        assert_eq!(bench.hear(Event::Cleaned(0)), []);
        assert_eq!(bench.pass(delay - 1), []);
        assert_eq!(bench.pass(1), [Action::Start(0)]);
        bench.hear(Event::Started(0));
    }
}

#[test]
fn a_healthy_spell_resets_the_delay() {
    let mut bench = Bench::run(&[spec("web", &[])]);
    for _ in 0..3 {
        bench.hear(Event::Exited(0, Exit::Status(1)));
        bench.hear(Event::Cleaned(0));
        bench.pass(10_000);
        bench.hear(Event::Started(0));
    }
    bench.pass(9_999);
    assert_eq!(
        bench.hear(Event::Exited(0, Exit::Status(1)))[0],
        failed(800)
    );
    bench.hear(Event::Cleaned(0));
    bench.pass(10_000);
    bench.hear(Event::Started(0));
    bench.pass(10_000);
    assert_eq!(
        bench.hear(Event::Exited(0, Exit::Status(1)))[0],
        failed(100)
    );
}

#[test]
fn what_the_removal_takes_counts_as_waiting() {
    let mut bench = Bench::run(&[spec("web", &[])]);
    bench.hear(Event::Exited(0, Exit::Status(1)));
    bench.pass(150);
    assert_eq!(bench.hear(Event::Cleaned(0)), [Action::Start(0)]);
}

#[test]
fn the_restart_policy_decides_by_the_exit() {
    let cases = [
        (Restart::Always, Exit::Status(0), true),
        (Restart::Always, Exit::Signal(9), true),
        (Restart::OnFailure, Exit::Status(0), false),
        (Restart::OnFailure, Exit::Status(1), true),
        (Restart::OnFailure, Exit::Signal(11), true),
        (Restart::OnFailure, Exit::Unknown, true),
        (Restart::Never, Exit::Status(1), false),
    ];
    for (restart, exit, again) in cases {
        let mut bench = Bench::run(&[BootWorkload {
            restart: self::restart(restart),
            ..spec("web", &[])
        }]);
        bench.hear(Event::Exited(0, exit));
        bench.hear(Event::Cleaned(0));
        let started = bench.pass(60_000).contains(&Action::Start(0));
        assert_eq!(started, again, "{restart:?} after {exit:?}");
    }
}

#[test]
fn a_start_that_fails_is_tried_again() {
    let mut bench = Bench::new(&[spec("web", &[])]);
    bench.hear(Event::Begin);
    let actions = bench.hear(Event::StartFailed(0, "no".to_owned()));
    let next = Next::Restart(Duration::from_millis(100));
    let told = Action::Tell(Notice::Ended(0, Cause::StartFailed("no".to_owned()), next));
    assert_eq!(actions, [told, Action::Clean(0)]);
}

#[test]
fn a_workload_that_cannot_start_has_failed_and_blocks_what_waits_for_it() {
    let mut bench = Bench::new(&[spec("db", &[]), spec("web", &["db"])]);
    bench.hear(Event::Begin);
    let actions = bench.hear(Event::CannotStart(0, "no state".to_owned()));
    let cause = Cause::StartFailed("no state".to_owned());
    let told = tell(Notice::Ended(0, cause, Next::Failed(None)));
    let blocked = tell(Notice::Blocked(1, 0, Standing::Failed));
    assert_eq!(actions, [told, blocked]);
    assert_eq!(bench.engine.next_deadline(), None);
}

#[test]
fn a_start_that_takes_too_long_is_aborted_once() {
    let mut bench = Bench::new(&[spec("web", &[])]);
    bench.hear(Event::Begin);
    assert_eq!(bench.pass(30_000), [Action::AbortStart(0)]);
    assert_eq!(bench.pass(30_000), []);
}

#[test]
fn three_failed_checks_in_a_row_restart_the_workload() {
    let mut bench = Bench::run(&[probed("web", &[])]);
    bench.hear(Event::Probed(0, ProbeResult::Passed));
    for result in [
        ProbeResult::Failed,
        ProbeResult::Failed,
        ProbeResult::Passed,
        ProbeResult::Failed,
    ] {
        assert_eq!(bench.pass(10_000), [Action::Probe(0, ProbeKind::Once)]);
        bench.hear(Event::Probed(0, result));
    }
    bench.pass(10_000);
    assert_eq!(
        bench.hear(Event::Probed(0, ProbeResult::Failed)),
        [Action::Tell(Notice::CheckFailed(0, 2))]
    );
    bench.pass(10_000);
    let actions = bench.hear(Event::Probed(0, ProbeResult::Failed));
    assert_eq!(
        actions[1..],
        [
            tell(Notice::Unhealthy(0, Trouble::Checks, true)),
            Action::Signal(0, 15)
        ]
    );
    // Even an exit with status 0 is a failure then.
    let actions = bench.hear(Event::Exited(0, Exit::Status(0)));
    assert!(matches!(
        actions[0],
        Action::Tell(Notice::Ended(0, _, Next::Restart(_)))
    ));
}

#[test]
fn a_workload_that_is_never_restarted_is_not_stopped_for_its_checks() {
    let mut bench = Bench::run(&[BootWorkload {
        restart: restart(Restart::Never),
        ..probed("web", &[])
    }]);
    bench.hear(Event::Probed(0, ProbeResult::Passed));
    for _ in 0..5 {
        bench.pass(10_000);
        let actions = bench.hear(Event::Probed(0, ProbeResult::Failed));
        assert!(
            !actions
                .iter()
                .any(|action| matches!(action, Action::Signal(..)))
        );
    }
}

#[test]
fn a_lost_probe_is_no_failed_check() {
    let mut bench = Bench::run(&[probed("web", &[])]);
    assert_eq!(bench.hear(Event::Probed(0, ProbeResult::Lost)), []);
    assert_eq!(bench.pass(250), [Action::Probe(0, ProbeKind::UntilReady)]);
}

#[test]
fn a_slow_workload_is_told_once() {
    let mut bench = Bench::run(&[probed("web", &[])]);
    assert_eq!(
        bench.pass(30_000),
        [Action::Tell(Notice::Slow(0, Duration::from_secs(30)))]
    );
    assert_eq!(bench.pass(30_000), []);
}

#[test]
fn who_waits_for_a_failed_workload_is_told() {
    let db = BootWorkload {
        restart: restart(Restart::Never),
        ..probed("db", &[])
    };
    let mut bench = Bench::new(&[db, spec("web", &["db"])]);
    bench.hear(Event::Begin);
    bench.hear(Event::Started(0));
    bench.hear(exited(0, 1));
    let actions = bench.hear(Event::Cleaned(0));
    assert_eq!(actions, [tell(Notice::Blocked(1, 0, Standing::Failed))]);
}

#[test]
fn workloads_stop_in_reverse_order_by_term_then_kill() {
    let mut bench = Bench::run(&[spec("db", &[]), spec("web", &["db"])]);
    bench.hear(Event::Started(1));
    assert_eq!(bench.hear(Event::Shutdown), [Action::Signal(1, 15)]);
    assert_eq!(bench.pass(4_999), []);
    assert_eq!(
        bench.pass(1),
        [Action::Tell(Notice::Killing(1)), Action::Kill(1)]
    );
    assert_eq!(
        bench.hear(Event::Exited(1, Exit::Signal(9))),
        [Action::Tell(Notice::Stopped(1)), Action::Signal(0, 15)]
    );
    assert_eq!(
        bench.hear(Event::Exited(0, Exit::Status(0))),
        [Action::Tell(Notice::Stopped(0)), Action::AllStopped]
    );
    assert_eq!(bench.hear(Event::Shutdown), []);
}

#[test]
fn a_workload_that_survives_sigkill_does_not_hold_the_machine() {
    let mut bench = Bench::run(&[spec("web", &[])]);
    bench.hear(Event::Shutdown);
    bench.pass(5_000);
    assert_eq!(
        bench.pass(5_000),
        [Action::Tell(Notice::Unkillable(0)), Action::AllStopped]
    );
}

#[test]
fn a_shutdown_while_starting_stops_what_started() {
    let mut bench = Bench::new(&[probed("web", &[])]);
    bench.hear(Event::Begin);
    assert_eq!(bench.hear(Event::Shutdown), []);
    assert_eq!(
        bench.hear(Event::Started(0)),
        [Action::Tell(Notice::Started(0)), Action::Signal(0, 15)]
    );
}

#[test]
fn a_shutdown_stops_the_probe_and_starts_nothing_more() {
    let mut bench = Bench::run(&[probed("db", &[]), spec("web", &["db"])]);
    assert_eq!(
        bench.hear(Event::Shutdown),
        [Action::StopProbe(0), Action::Signal(0, 15)]
    );
    assert_eq!(bench.hear(Event::Probed(0, ProbeResult::Passed)), []);
    assert_eq!(bench.pass(1), []);
}

#[test]
fn late_echoes_are_ignored() {
    let mut bench = Bench::run(&[spec("web", &[])]);
    for event in [
        Event::Started(0),
        Event::StartFailed(0, String::new()),
        Event::Cleaned(0),
        Event::Probed(0, ProbeResult::Failed),
    ] {
        assert_eq!(bench.hear(event.clone()), [], "{event:?}");
    }
    bench.hear(Event::Exited(0, Exit::Status(1)));
    assert_eq!(bench.hear(Event::Exited(0, Exit::Status(1))), []);
}

#[test]
fn in_a_hurry_everything_is_killed_at_once_whatever_comes_after_what() {
    let mut bench = Bench::run(&[spec("db", &[]), spec("web", &["db"])]);
    assert_eq!(bench.hear(Event::Shutdown), [Action::Signal(1, 15)]);
    assert_eq!(
        bench.hear(Event::Hurry),
        [
            Action::Tell(Notice::Killing(0)),
            Action::Kill(0),
            Action::Tell(Notice::Killing(1)),
            Action::Kill(1),
        ]
    );
    // One that not even SIGKILL ends does not hold the others up.
    bench.hear(Event::Exited(0, Exit::Signal(9)));
    let actions = bench.pass(5_000);
    assert!(actions.contains(&Action::Tell(Notice::Unkillable(1))));
    assert!(actions.contains(&Action::AllStopped));
}

#[test]
fn in_a_hurry_a_start_is_given_up() {
    let mut bench = Bench::new(&[spec("db", &[])]);
    bench.hear(Event::Begin);
    bench.hear(Event::Shutdown);
    assert_eq!(bench.hear(Event::Hurry), [Action::AbortStart(0)]);
    let actions = bench.hear(Event::StartFailed(0, String::new()));
    assert!(actions.contains(&Action::AllStopped), "{actions:?}");
}

#[test]
fn in_a_hurry_what_came_up_too_late_is_killed() {
    let mut bench = Bench::new(&[spec("db", &[])]);
    bench.hear(Event::Begin);
    bench.hear(Event::Shutdown);
    bench.hear(Event::Hurry);
    let actions = bench.hear(Event::Started(0));
    assert!(actions.contains(&Action::Kill(0)), "{actions:?}");
}

#[test]
fn nothing_hurries_a_machine_that_does_not_stop() {
    let mut bench = Bench::run(&[spec("db", &[])]);
    assert_eq!(bench.hear(Event::Hurry), []);
    assert_eq!(bench.hear(Event::Shutdown), [Action::Signal(0, 15)]);
}
