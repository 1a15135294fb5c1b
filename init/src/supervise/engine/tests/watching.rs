//! Checks, grace, and what a workload says of itself.

use super::*;

fn with_grace(grace_ms: u64) -> BootWorkload {
    let mut spec = probed("web", &[]);
    if let Some(health) = &mut spec.health {
        health.grace_ms = grace_ms;
        health.retries = 2;
    }
    spec
}

#[test]
fn failed_checks_within_the_grace_do_not_count() {
    let mut bench = Bench::run(&[with_grace(25_000)]);
    bench.hear(Event::Probed(0, ProbeResult::Passed));
    for _ in 0..2 {
        assert_eq!(bench.pass(10_000), [Action::Probe(0, ProbeKind::Once)]);
        assert_eq!(bench.hear(Event::Probed(0, ProbeResult::Failed)), []);
    }
    bench.pass(10_000);
    assert_eq!(
        bench.hear(Event::Probed(0, ProbeResult::Failed)),
        [tell(Notice::CheckFailed(0, 1))]
    );
    bench.pass(10_000);
    assert_eq!(
        bench.hear(Event::Probed(0, ProbeResult::Failed)),
        [
            tell(Notice::CheckFailed(0, 2)),
            tell(Notice::Unhealthy(0, Trouble::Checks, true)),
            Action::Signal(0, 15)
        ]
    );
}

#[test]
fn one_that_is_not_ready_when_its_grace_is_over_is_unhealthy() {
    let mut bench = Bench::run(&[with_grace(5_000)]);
    assert_eq!(bench.pass(24_999), []);
    assert_eq!(
        bench.pass(1),
        [
            tell(Notice::Unhealthy(0, Trouble::NotReady, true)),
            Action::StopProbe(0),
            Action::Signal(0, 15)
        ]
    );
    // It counts like any other failure.
    assert!(matches!(
        bench.hear(exited(0, 0))[0],
        Action::Tell(Notice::Ended(0, _, Next::Restart(_)))
    ));
}

#[test]
fn a_notifying_workload_is_ready_when_it_says_so() {
    let mut bench = Bench::run(&[notifying("app")]);
    assert!(!bench.is_ready(0));
    assert_eq!(bench.hear(Event::Notified(0, News::Watchdog)), []);
    assert_eq!(
        bench.hear(Event::Notified(0, News::Ready)),
        [tell(Notice::Ready(0)), tell(Notice::AllReady)]
    );
    assert_eq!(bench.hear(Event::Notified(0, News::Ready)), []);
}

#[test]
fn one_that_says_ready_without_being_asked_is_not_heard() {
    let mut bench = Bench::run(&[probed("web", &[])]);
    assert_eq!(bench.hear(Event::Notified(0, News::Ready)), []);
    assert!(!bench.is_ready(0));
}

#[test]
fn a_silent_watchdog_makes_a_workload_unhealthy() {
    let mut bench = Bench::run(&[notifying("app")]);
    bench.hear(Event::Notified(0, News::Ready));
    for _ in 0..5 {
        assert_eq!(bench.pass(29_999), []);
        assert_eq!(bench.hear(Event::Notified(0, News::Watchdog)), []);
    }
    assert_eq!(
        bench.pass(30_000),
        [
            tell(Notice::Unhealthy(0, Trouble::Watchdog, true)),
            Action::Signal(0, 15)
        ]
    );
}

#[test]
fn one_that_says_it_ends_is_not_checked_any_more_but_must_end() {
    let mut spec = probed("web", &[]);
    spec.readiness = Readiness::Notify;
    let mut bench = Bench::run(&[spec]);
    bench.hear(Event::Notified(0, News::Ready));
    bench.pass(10_000);
    assert_eq!(
        bench.hear(Event::Notified(0, News::Stopping)),
        [Action::StopProbe(0)]
    );
    assert_eq!(bench.hear(Event::Notified(0, News::Watchdog)), []);
    assert_eq!(bench.pass(4_999), []);
    assert_eq!(
        bench.pass(1),
        [
            tell(Notice::Unhealthy(0, Trouble::StillThere, true)),
            Action::Signal(0, 15)
        ]
    );
}

#[test]
fn what_survives_sigkill_is_killed_again_ever_more_rarely_and_told_once() {
    let mut bench = Bench::run(&[notifying("app")]);
    bench.hear(Event::Notified(0, News::Ready));
    bench.pass(30_000);
    assert_eq!(
        bench.pass(5_000),
        [tell(Notice::Killing(0)), Action::Kill(0)]
    );
    assert_eq!(
        bench.pass(5_000),
        [tell(Notice::Unkillable(0)), Action::Kill(0)]
    );
    assert_eq!(bench.pass(9_999), []);
    assert_eq!(bench.pass(1), [Action::Kill(0)]);
    assert_eq!(bench.pass(19_999), []);
    assert_eq!(bench.pass(1), [Action::Kill(0)]);
}

#[test]
fn restarts_of_many_are_spread_by_the_seed() {
    let specs: Vec<_> = (0..20).map(|n| spec(&format!("w{n}"), &[])).collect();
    let settings = Settings {
        seed: 4711,
        ..PLAIN
    };
    let mut bench = Bench {
        engine: Engine::new(&specs, &[], settings),
        now: Duration::from_secs(1),
    };
    bench.hear(Event::Begin);
    let mut delays = Vec::new();
    for id in 0..20 {
        bench.hear(Event::Started(id));
        let actions = bench.hear(exited(id, 1));
        let Action::Tell(Notice::Ended(_, _, Next::Restart(delay))) = actions[0] else {
            panic!("{actions:?}");
        };
        assert!((80..=100).contains(&delay.as_millis()), "{delay:?}");
        delays.push(delay);
    }
    delays.sort();
    delays.dedup();
    assert!(delays.len() > 10, "{delays:?}");
}
