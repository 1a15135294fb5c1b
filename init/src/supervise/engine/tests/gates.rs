//! What a workload waits for, and what it loses.

use super::*;

fn holds(condition: BootCondition) -> Event {
    Event::Condition {
        condition,
        holds: true,
    }
}

#[test]
fn only_so_many_starts_are_under_way_and_none_waits_long_for_one_that_hangs() {
    let specs = ["a", "b", "c", "d"].map(|name| spec(name, &[]));
    let settings = Settings { starts: 2, ..PLAIN };
    let mut bench = Bench {
        engine: Engine::new(&specs, &[], settings),
        now: Duration::from_secs(100),
    };
    assert_eq!(
        bench.hear(Event::Begin),
        [Action::Start(0), Action::Start(1)]
    );
    let started = bench.hear(Event::Started(0));
    assert_eq!(started.last(), Some(&Action::Start(2)));
    bench.pass(2_000);
    let started = bench.hear(Event::Started(2));
    assert_eq!(started.last(), Some(&Action::Start(3)));
    // Nobody is held back any more.
    let hangs = Duration::from_secs(100) + START_LIMIT;
    assert_eq!(bench.engine.next_deadline(), Some(hangs));
    let mut bench = Bench {
        engine: Engine::new(&specs, &[], Settings { starts: 1, ..PLAIN }),
        now: Duration::from_secs(100),
    };
    assert_eq!(bench.hear(Event::Begin), [Action::Start(0)]);
    assert_eq!(bench.engine.next_deadline(), Some(bench.now + SLOT));
    assert_eq!(bench.pass(4_999), []);
    assert_eq!(bench.pass(1), [Action::Start(1)]);
}

#[test]
fn one_that_leaves_its_connection_waiting_is_started_ever_more_rarely() {
    let mut bench = Bench::new(&[activated("web", &[])]);
    bench.hear(Event::Begin);
    let mut run = |idle: u64| {
        bench.pass(idle);
        assert_eq!(bench.hear(Event::Connected(0)), [Action::Start(0)]);
        bench.hear(Event::Started(0));
        let ended = bench.hear(exited(0, 0));
        bench.hear(Event::Cleaned(0));
        let Some(Action::Tell(Notice::Ended(0, _, Next::Listen(delay)))) = ended.first() else {
            panic!("{ended:?}");
        };
        bench.pass(u64::try_from(delay.as_millis()).unwrap());
        delay.as_millis()
    };
    let delays: Vec<_> = (0..12).map(|_| run(10)).collect();
    assert_eq!(
        delays,
        [
            100, 100, 100, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000
        ]
    );
    // Nobody waited this time.
    assert_eq!([run(1_000), run(1_000), run(10)], [100, 100, 100]);
}

fn waiting_for(name: &str, conditions: &[BootCondition]) -> BootWorkload {
    BootWorkload {
        conditions: conditions.to_vec(),
        ..spec(name, &[])
    }
}

#[test]
fn a_workload_starts_once_all_its_conditions_have_held() {
    let both = [BootCondition::Firewall, BootCondition::Network];
    let mut bench = Bench::new(&[waiting_for("web", &both), spec("alone", &[])]);
    assert_eq!(bench.hear(Event::Begin), [Action::Start(1)]);
    assert_eq!(bench.hear(holds(BootCondition::Network)), []);
    // The address is lost again meanwhile: the order is kept all the same.
    let lost = Event::Condition {
        condition: BootCondition::Network,
        holds: false,
    };
    assert_eq!(bench.hear(lost.clone()), []);
    assert_eq!(
        bench.hear(holds(BootCondition::Firewall)),
        [Action::Start(0)]
    );
    bench.hear(Event::Started(0));
    assert_eq!(bench.hear(lost), []);
}

#[test]
fn a_condition_may_hold_before_the_machine_begins() {
    let mut bench = Bench::new(&[waiting_for("web", &[BootCondition::Firewall])]);
    assert_eq!(bench.hear(holds(BootCondition::Firewall)), []);
    assert_eq!(bench.hear(Event::Begin), [Action::Start(0)]);
}

#[test]
fn who_waits_long_for_the_machine_alone_is_told_once() {
    let web = waiting_for("web", &[BootCondition::Network]);
    let behind = BootWorkload {
        after: vec!["web".to_owned()],
        ..waiting_for("behind", &[BootCondition::Network])
    };
    let mut bench = Bench::new(&[web, behind]);
    assert_eq!(bench.hear(Event::Begin), []);
    assert_eq!(bench.pass(9_999), []);
    let told = tell(Notice::WaitsFor(0, BootCondition::Network));
    assert_eq!(bench.pass(1), [told]);
    assert_eq!(bench.engine.next_deadline(), None);
    assert_eq!(bench.pass(60_000), []);
    assert_eq!(
        bench.hear(holds(BootCondition::Network)),
        [Action::Start(0)]
    );
}

#[test]
fn a_pod_is_made_once_the_conditions_of_one_of_its_workloads_hold() {
    let pod = BootPod {
        name: "p".to_owned(),
        hostname: "p".to_owned(),
        share_pid: false,
        first_id: None,
        network: config::boot::Network::Host,
    };
    let web = BootWorkload {
        pod: Some("p".to_owned()),
        ..waiting_for("web", &[BootCondition::Firewall])
    };
    let mut bench = Bench::with_pods(&[web], &[pod]);
    assert_eq!(bench.hear(Event::Begin), []);
    assert_eq!(
        bench.hear(holds(BootCondition::Firewall)),
        [Action::PreparePod(0)]
    );
}

#[test]
fn a_machine_that_stops_does_not_wait_for_conditions() {
    let mut bench = Bench::new(&[waiting_for("web", &[BootCondition::Network])]);
    bench.hear(Event::Begin);
    assert_eq!(bench.hear(Event::Shutdown), [Action::AllStopped]);
}

#[test]
fn a_job_that_is_done_opens_the_way_for_what_comes_after_it() {
    let mut bench = Bench::new(&[job("migrate", &[]), spec("web", &["migrate"])]);
    assert_eq!(bench.hear(Event::Begin), [Action::Start(0)]);
    assert_eq!(bench.hear(Event::Started(0)), [tell(Notice::Started(0))]);
    let done = tell(Notice::Ended(0, Cause::Exited(Exit::Status(0)), Next::Done));
    assert_eq!(
        bench.hear(exited(0, 0)),
        [done, Action::Clean(0), Action::Start(1)]
    );
    assert_eq!(bench.hear(Event::Cleaned(0)), []);
    assert!(
        bench
            .hear(Event::Started(1))
            .contains(&tell(Notice::AllReady))
    );
    assert_eq!(bench.engine.next_deadline(), None);
}

#[test]
fn a_job_that_fails_too_often_has_failed_and_who_waits_is_told_down_the_line() {
    let specs = [job("a", &[]), spec("b", &["a"]), spec("c", &["b"])];
    let mut bench = Bench::new(&specs);
    bench.hear(Event::Begin);
    for _ in 0..2 {
        bench.hear(Event::Started(0));
        let actions = bench.hear(exited(0, 1));
        assert!(matches!(
            actions[0],
            Action::Tell(Notice::Ended(0, _, Next::Restart(_)))
        ));
        bench.hear(Event::Cleaned(0));
        assert_eq!(bench.pass(10_000), [Action::Start(0)]);
    }
    bench.hear(Event::Started(0));
    let limit = Some(StartLimit {
        starts: 3,
        within_ms: 60_000,
    });
    let over = Next::Failed(limit);
    let actions = bench.hear(exited(0, 1));
    assert_eq!(
        actions[0],
        tell(Notice::Ended(0, Cause::Exited(Exit::Status(1)), over))
    );
    assert_eq!(
        bench.hear(Event::Cleaned(0)),
        [
            tell(Notice::Blocked(1, 0, Standing::Failed)),
            tell(Notice::Blocked(2, 1, Standing::Waiting)),
        ]
    );
    assert_eq!(bench.pass(3_600_000), []);
}

#[test]
fn failures_that_are_long_ago_do_not_count() {
    let mut bench = Bench::run(&[BootWorkload {
        restart: limited(2, 60_000),
        ..spec("web", &[])
    }]);
    for _ in 0..5 {
        let actions = bench.hear(exited(0, 1));
        assert!(matches!(
            actions[0],
            Action::Tell(Notice::Ended(0, _, Next::Restart(_)))
        ));
        bench.hear(Event::Cleaned(0));
        assert_eq!(bench.pass(60_000), [Action::Start(0)]);
        bench.hear(Event::Started(0));
    }
}

#[test]
fn what_requires_another_stops_when_that_one_goes_down_and_comes_back_with_it() {
    let mut bench = Bench::run(&[spec("db", &[]), requiring("web", &["db"])]);
    let actions = bench.hear(exited(0, 1));
    assert_eq!(
        actions,
        [
            failed(100),
            Action::Clean(0),
            tell(Notice::NeedIsGone(1, 0)),
            Action::Signal(1, 15)
        ]
    );
    bench.hear(Event::Cleaned(0));
    assert_eq!(
        bench.hear(exited(1, 0)),
        [tell(Notice::Stopped(1)), Action::Clean(1)]
    );
    assert_eq!(bench.hear(Event::Cleaned(1)), []);
    assert_eq!(bench.pass(100), [Action::Start(0)]);
    assert_eq!(
        bench.hear(Event::Started(0)),
        [
            tell(Notice::Started(0)),
            tell(Notice::Ready(0)),
            Action::Start(1)
        ]
    );
}

#[test]
fn what_requires_one_that_failed_stays_stopped_and_that_is_told() {
    let db = BootWorkload {
        restart: restart(Restart::Never),
        ..spec("db", &[])
    };
    let mut bench = Bench::run(&[db, requiring("web", &["db"]), requiring("top", &["web"])]);
    bench.hear(exited(0, 1));
    bench.hear(Event::Cleaned(0));
    for id in [1, 2] {
        bench.hear(exited(id, 0));
    }
    assert_eq!(
        bench.hear(Event::Cleaned(1)),
        [tell(Notice::Blocked(1, 0, Standing::Failed))]
    );
    assert_eq!(
        bench.hear(Event::Cleaned(2)),
        [tell(Notice::Blocked(2, 1, Standing::Waiting))]
    );
    assert_eq!(bench.engine.next_deadline(), None);
}

#[test]
fn a_start_under_way_is_stopped_once_it_is_there_when_its_need_is_gone() {
    let mut bench = Bench::new(&[spec("db", &[]), requiring("web", &["db"])]);
    bench.hear(Event::Begin);
    bench.hear(Event::Started(0));
    assert!(!bench.hear(exited(0, 1)).contains(&Action::Signal(1, 15)));
    let actions = bench.hear(Event::Started(1));
    let told = tell(Notice::NeedIsGone(1, 0));
    assert!(actions.contains(&told) && actions.contains(&Action::Signal(1, 15)));
}

#[test]
fn a_workload_with_sockets_starts_at_the_first_connection_and_listens_again_when_it_ended_well() {
    let mut bench = Bench::new(&[activated("lazy", &[]), requiring("web", &["lazy"])]);
    assert_eq!(
        bench.hear(Event::Begin),
        [
            tell(Notice::Listening(0)),
            Action::Watch(0),
            Action::Start(1)
        ]
    );
    bench.hear(Event::Started(1));
    assert_eq!(bench.hear(Event::Connected(0)), [Action::Start(0)]);
    // A late echo.
    assert_eq!(bench.hear(Event::Connected(0)), []);
    bench.hear(Event::Started(0));
    bench.hear(exited(0, 0));
    assert_eq!(bench.hear(Event::Cleaned(0)), []);
    assert_eq!(bench.pass(100), [Action::Watch(0)]);
    // Whoever requires it has not been touched.
    assert!(bench.is_ready(1));
}

#[test]
fn sockets_of_a_workload_that_failed_are_closed_and_that_is_told() {
    let mut bench = Bench::new(&[BootWorkload {
        restart: limited(2, 60_000),
        ..activated("lazy", &[])
    }]);
    bench.hear(Event::Begin);
    bench.hear(Event::Connected(0));
    bench.hear(Event::StartFailed(0, "no".to_owned()));
    bench.hear(Event::Cleaned(0));
    assert_eq!(bench.pass(100), [Action::Watch(0)]);
    bench.hear(Event::Connected(0));
    bench.hear(Event::StartFailed(0, "no".to_owned()));
    assert_eq!(
        bench.hear(Event::Cleaned(0)),
        [Action::CloseSockets(0), tell(Notice::SocketsClosed(0))]
    );
    assert_eq!(bench.hear(Event::Connected(0)), []);
}

#[test]
fn nothing_starts_by_a_connection_once_the_machine_stops() {
    let mut bench = Bench::new(&[activated("lazy", &[])]);
    bench.hear(Event::Begin);
    assert_eq!(
        bench.hear(Event::Shutdown),
        [Action::CloseSockets(0), Action::AllStopped]
    );
    assert_eq!(bench.hear(Event::Connected(0)), []);
}

#[test]
fn the_machine_waits_no_longer_than_its_own_time() {
    let mut bench = Bench::run(&[
        BootWorkload {
            stop_timeout_ms: 3_600_000,
            ..spec("slow", &[])
        },
        spec("web", &["slow"]),
    ]);
    bench.hear(Event::Shutdown);
    bench.hear(exited(1, 0));
    assert_eq!(
        bench.pass(90_000),
        [tell(Notice::Killing(0)), Action::Kill(0)]
    );
    assert_eq!(
        bench.pass(5_000),
        [tell(Notice::Unkillable(0)), Action::AllStopped]
    );
}

#[test]
fn a_start_that_never_ends_does_not_hold_a_machine_that_stops() {
    let mut bench = Bench::new(&[spec("web", &[])]);
    bench.hear(Event::Begin);
    bench.hear(Event::Shutdown);
    assert_eq!(bench.pass(30_000), [Action::AbortStart(0)]);
    assert_eq!(bench.pass(60_000), [Action::AbortStart(0)]);
    assert_eq!(
        bench.pass(5_000),
        [tell(Notice::Unkillable(0)), Action::AllStopped]
    );
}
