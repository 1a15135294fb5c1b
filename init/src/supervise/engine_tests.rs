//! The engine under a fake clock.

use super::*;

fn spec(name: &str, after: &[&str]) -> BootWorkload {
    BootWorkload {
        name: name.to_owned(),
        bundle: format!("/b/{name}"),
        after: after.iter().map(|&other| other.to_owned()).collect(),
        volumes: Vec::new(),
        secrets: Vec::new(),
        ports: Vec::new(),
        readiness: Readiness::Started,
        check_interval_ms: 10_000,
        restart: Restart::Always,
        stop_signal: 15,
        stop_timeout_ms: 5_000,
    }
}

fn probed(name: &str, after: &[&str]) -> BootWorkload {
    BootWorkload {
        readiness: Readiness::Tcp { port: 80 },
        ..spec(name, after)
    }
}

/// An engine with its clock.
struct Bench {
    engine: Engine,
    now: Duration,
}

impl Bench {
    fn new(specs: &[BootWorkload]) -> Self {
        Self {
            engine: Engine::new(specs),
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

    /// Brings a workload without dependencies from its start to running.
    fn run(specs: &[BootWorkload]) -> Self {
        let mut bench = Self::new(specs);
        bench.hear(Event::Begin);
        for id in 0..specs.len() {
            bench.hear(Event::Started(id));
        }
        bench
    }
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
    assert!(bench.engine.is_ready(0) && bench.engine.is_ready(1));
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
            restart,
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
fn a_workload_that_cannot_start_stays_down_and_blocks_what_waits_for_it() {
    let mut bench = Bench::new(&[spec("db", &[]), spec("web", &["db"])]);
    bench.hear(Event::Begin);
    let actions = bench.hear(Event::CannotStart(0, "no state".to_owned()));
    let cause = Cause::StartFailed("no state".to_owned());
    let told = Action::Tell(Notice::Ended(0, cause, Next::Down));
    assert_eq!(actions, [told, Action::Tell(Notice::Blocked(1, 0))]);
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
        [Action::Tell(Notice::Unhealthy(0)), Action::Signal(0, 15)]
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
        restart: Restart::Never,
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
        restart: Restart::Never,
        ..probed("db", &[])
    };
    let mut bench = Bench::new(&[db, spec("web", &["db"])]);
    bench.hear(Event::Begin);
    bench.hear(Event::Started(0));
    let actions = bench.hear(Event::Exited(0, Exit::Status(1)));
    assert!(actions.contains(&Action::Tell(Notice::Blocked(1, 0))));
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

/// A machine that answers each action at random, after random delays, and sometimes fails.
struct World {
    seed: u64,
    pending: Vec<(Duration, Event)>,
    running: Vec<bool>,
}

impl World {
    fn random(&mut self, limit: u64) -> u64 {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % limit
    }

    fn answer(&mut self, action: &Action, now: Duration) {
        let delay = Duration::from_millis(self.random(3_000));
        let event = match *action {
            Action::Start(id) if self.random(64) == 0 => Event::CannotStart(id, "never".to_owned()),
            Action::Start(id) if self.random(4) == 0 => Event::StartFailed(id, "no".to_owned()),
            Action::Start(id) => {
                if self.random(2) == 0 {
                    let status = i32::try_from(self.random(2)).unwrap();
                    self.pending
                        .push((now + delay + delay, Event::Exited(id, Exit::Status(status))));
                }
                Event::Started(id)
            }
            Action::Signal(id, _) if self.random(3) > 0 => Event::Exited(id, Exit::Signal(15)),
            Action::Kill(id) if self.random(8) > 0 => Event::Exited(id, Exit::Signal(9)),
            Action::Clean(id) => Event::Cleaned(id),
            Action::Probe(id, ProbeKind::UntilReady) => Event::Probed(id, ProbeResult::Passed),
            Action::Probe(id, ProbeKind::Once) if self.random(2) == 0 => {
                Event::Probed(id, ProbeResult::Failed)
            }
            Action::Probe(id, ProbeKind::Once) => Event::Probed(id, ProbeResult::Lost),
            _ => return,
        };
        self.pending.push((now + delay, event));
    }

    fn check(&mut self, action: &Action, engine: &Engine) {
        match *action {
            Action::Start(id) => {
                assert!(!self.running[id], "started twice");
                let ready = |&before: &Id| engine.workloads[before].was_ready;
                assert!(
                    engine.workloads[id].after.iter().all(ready),
                    "started before its dependency"
                );
                self.running[id] = true;
            }
            Action::Clean(id) => self.running[id] = false,
            Action::Tell(Notice::Ended(_, _, Next::Restart(delay))) => {
                assert!(delay <= LONGEST_DELAY)
            }
            _ => {}
        }
    }
}

#[test]
fn no_history_gets_stuck_or_breaks_the_order() {
    for seed in 0..300 {
        let specs = [
            spec("a", &[]),
            probed("b", &["a"]),
            spec("c", &[]),
            probed("d", &["b", "c"]),
        ];
        let mut bench = Bench::new(&specs);
        let mut world = World {
            seed,
            pending: Vec::new(),
            running: vec![false; specs.len()],
        };
        let stop_at = bench.now + Duration::from_millis(world.random(60_000));
        world.pending.push((bench.now, Event::Begin));
        world.pending.push((stop_at, Event::Shutdown));
        let mut stopped = false;
        for _ in 0..10_000 {
            world.pending.sort_by_key(|(at, _)| *at);
            let tick = bench.engine.next_deadline();
            let next = world.pending.first().map(|(at, _)| *at);
            let Some(at) = [tick, next].into_iter().flatten().min() else {
                break;
            };
            bench.now = bench.now.max(at);
            let due = next.is_some_and(|next| next <= bench.now);
            let event = if due {
                world.pending.remove(0).1
            } else {
                Event::Tick
            };
            for action in bench.hear(event) {
                assert!(!stopped, "seed {seed}: {action:?} after all had stopped");
                world.check(&action, &bench.engine);
                world.answer(&action, bench.now);
                stopped |= action == Action::AllStopped;
            }
        }
        assert!(stopped, "seed {seed} got stuck in {:?}", bench.engine);
    }
}

#[test]
fn in_a_hurry_everything_is_killed_at_once_whatever_comes_after_what() {
    let mut bench = Bench::run(&[spec("db", &[]), spec("web", &["db"])]);
    assert_eq!(bench.hear(Event::Shutdown), [Action::Signal(1, 15)]);
    assert_eq!(
        bench.hear(Event::Hurry),
        [
            Action::Tell(Notice::Killing(1)),
            Action::Kill(1),
            Action::Tell(Notice::Killing(0)),
            Action::Kill(0),
        ]
    );
    // One that not even SIGKILL ends does not hold the others up.
    bench.hear(Event::Exited(0, Exit::Signal(9)));
    let actions = bench.pass(5_000);
    assert!(actions.contains(&Action::Tell(Notice::Unkillable(1))));
    assert!(actions.contains(&Action::AllStopped));
}

#[test]
fn in_a_hurry_a_start_is_given_up_and_what_came_up_meanwhile_is_killed() {
    let mut bench = Bench::new(&[spec("db", &[])]);
    bench.hear(Event::Begin);
    bench.hear(Event::Shutdown);
    assert_eq!(bench.hear(Event::Hurry), [Action::AbortStart(0)]);
    let actions = bench.hear(Event::Started(0));
    assert!(actions.contains(&Action::Kill(0)), "{actions:?}");
}

#[test]
fn nothing_hurries_a_machine_that_does_not_stop() {
    let mut bench = Bench::run(&[spec("db", &[])]);
    assert_eq!(bench.hear(Event::Hurry), []);
    assert_eq!(bench.hear(Event::Shutdown), [Action::Signal(0, 15)]);
}
