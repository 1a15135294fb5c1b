//! Pods: made before their workloads, gone with them.

use super::*;

fn pods() -> [BootPod; 1] {
    [BootPod {
        name: "p".to_owned(),
        hostname: "p".to_owned(),
        share_pid: false,
        first_id: None,
        network: config::boot::Network::Host,
    }]
}

fn member(spec: BootWorkload) -> BootWorkload {
    BootWorkload {
        pod: Some("p".to_owned()),
        ..spec
    }
}

/// Two members that run.
fn running() -> Bench {
    let specs = [
        member(BootWorkload {
            restart: limited(2, 60_000),
            ..spec("a", &[])
        }),
        member(spec("b", &[])),
    ];
    let mut bench = Bench::with_pods(&specs, &pods());
    assert_eq!(bench.hear(Event::Begin), [Action::PreparePod(0)]);
    assert_eq!(
        bench.hear(Event::PodPrepared(0)),
        [Action::Start(0), Action::Start(1)]
    );
    bench.hear(Event::Started(0));
    bench.hear(Event::Started(1));
    bench
}

#[test]
fn members_are_restarted_one_by_one() {
    let mut bench = running();
    let actions = bench.hear(exited(0, 1));
    assert_eq!(actions, [failed(100), Action::Clean(0)]);
    bench.hear(Event::Cleaned(0));
    assert_eq!(bench.pass(100), [Action::Start(0)]);
    assert!(bench.is_ready(1));
}

#[test]
fn a_member_that_failed_takes_its_pod_down() {
    let mut bench = running();
    bench.hear(exited(0, 1));
    bench.hear(Event::Cleaned(0));
    bench.pass(100);
    bench.hear(Event::Started(0));
    bench.hear(exited(0, 1));
    assert_eq!(
        bench.hear(Event::Cleaned(0)),
        [tell(Notice::PodFailed(0, 0)), Action::Signal(1, 15)]
    );
    assert_eq!(
        bench.hear(exited(1, 0)),
        [tell(Notice::Stopped(1)), Action::Clean(1)]
    );
    assert_eq!(bench.hear(Event::Cleaned(1)), [Action::RemovePod(0)]);
    assert_eq!(bench.hear(Event::PodRemoved(0)), []);
    assert_eq!(bench.pass(3_600_000), []);
}

#[test]
fn a_pod_that_cannot_be_made_is_tried_again_with_growing_delays() {
    let mut bench = Bench::with_pods(&[member(spec("a", &[]))], &pods());
    bench.hear(Event::Begin);
    for delay in [100, 200, 400] {
        let due = Duration::from_millis(delay);
        assert_eq!(
            bench.hear(Event::PodFailed(0, "no".to_owned())),
            [tell(Notice::PodNotMade(0, "no".to_owned(), due))]
        );
        assert_eq!(bench.pass(delay - 1), []);
        assert_eq!(bench.pass(1), [Action::PreparePod(0)]);
    }
    assert_eq!(bench.pass(30_000), [Action::AbortPod(0)]);
    assert_eq!(bench.pass(30_000), []);
}

#[test]
fn a_pod_that_is_lost_is_made_again_once_its_members_are_gone() {
    let mut bench = running();
    assert_eq!(
        bench.hear(Event::PodFailed(0, "killed".to_owned())),
        [
            tell(Notice::PodLost(0, "killed".to_owned())),
            Action::Signal(0, 15),
            Action::Signal(1, 15)
        ]
    );
    for id in [0, 1] {
        bench.hear(exited(id, 0));
    }
    assert_eq!(bench.hear(Event::Cleaned(0)), []);
    assert_eq!(bench.hear(Event::Cleaned(1)), [Action::RemovePod(0)]);
    assert_eq!(bench.hear(Event::PodRemoved(0)), [Action::PreparePod(0)]);
    assert_eq!(
        bench.hear(Event::PodPrepared(0)),
        [Action::Start(0), Action::Start(1)]
    );
}

#[test]
fn a_pod_of_jobs_goes_when_they_are_done() {
    let specs = [member(job("a", &[])), member(job("b", &["a"]))];
    let mut bench = Bench::with_pods(&specs, &pods());
    bench.hear(Event::Begin);
    bench.hear(Event::PodPrepared(0));
    for id in [0, 1] {
        bench.hear(Event::Started(id));
        bench.hear(exited(id, 0));
    }
    bench.hear(Event::Cleaned(0));
    assert_eq!(bench.hear(Event::Cleaned(1)), [Action::RemovePod(0)]);
}

#[test]
fn a_pod_is_made_only_when_a_member_waits_for_nothing_else() {
    let specs = [spec("db", &[]), member(spec("a", &["db"]))];
    let mut bench = Bench::with_pods(&specs, &pods());
    assert_eq!(bench.hear(Event::Begin), [Action::Start(0)]);
    let actions = bench.hear(Event::Started(0));
    assert_eq!(actions[2..], [Action::PreparePod(0)]);
}
