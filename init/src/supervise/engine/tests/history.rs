//! Random machines with random histories: what must hold in all of them.

use super::*;

/// A small generator (Knuth's MMIX), so that a seed names a history.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }
}

/// What is under way for one workload.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Process {
    starting: bool,
    running: bool,
    cleaning: bool,
    probing: bool,
    watched: bool,
    closed: bool,
}

/// A machine that answers each action at random, after random delays, and fails now and then.
struct World {
    random: Random,
    pending: Vec<(Duration, Event)>,
    processes: Vec<Process>,
    /// The pods that are being made, are made, are being removed.
    pods: Vec<[bool; 3]>,
    /// The conditions that have held.
    held: Vec<BootCondition>,
    stopping: bool,
    stopped: bool,
}

fn random_machine(random: &mut Random) -> (Vec<BootWorkload>, Vec<BootPod>) {
    let count = 1 + random.below(7);
    let pods: Vec<BootPod> = (0..random.below(3))
        .map(|n| BootPod {
            name: format!("p{n}"),
            hostname: format!("p{n}"),
            share_pid: random.one_in(2),
            first_id: None,
            network: config::boot::Network::Host,
        })
        .collect();
    let workloads = (0..count).map(|n| random_workload(n, &pods, random));
    (workloads.collect(), pods)
}

fn random_workload(n: u64, pods: &[BootPod], random: &mut Random) -> BootWorkload {
    let some = |random: &mut Random| -> Vec<String> {
        let chosen = (0..n).filter(|_| random.one_in(3));
        chosen.map(|other| format!("w{other}")).collect()
    };
    let name = format!("w{n}");
    let mut spec = match random.below(6) {
        0 => job(&name, &[]),
        1 => probed(&name, &[]),
        2 => notifying(&name),
        3 => activated(&name, &[]),
        _ => spec(&name, &[]),
    };
    spec.after = some(random);
    spec.requires = some(random);
    let conditions = [BootCondition::Firewall, BootCondition::Network].into_iter();
    spec.conditions = conditions.filter(|_| random.one_in(3)).collect();
    if spec.kind == Kind::Service {
        spec.restart.when = [Restart::Always, Restart::OnFailure, Restart::Never]
            [usize::try_from(random.below(3)).unwrap()];
        if random.one_in(3) {
            spec.restart.start_limit = limited(2, 30_000).start_limit;
        }
    }
    if let Some(health) = &mut spec.health {
        health.grace_ms = random.below(2) * 5_000;
    }
    if !pods.is_empty() && random.one_in(2) {
        let at = usize::try_from(random.below(pods.len() as u64)).unwrap();
        spec.pod = Some(pods[at].name.clone());
    }
    spec
}

impl World {
    fn later(&mut self, now: Duration, event: Event) {
        let delay = Duration::from_millis(self.random.below(3_000));
        self.pending.push((now + delay, event));
    }

    /// What the machine would do, and what it would never be asked for.
    fn perform(&mut self, action: &Action, engine: &Engine, now: Duration) {
        assert!(!self.stopped, "{action:?} after all had stopped");
        match *action {
            Action::Start(id) => self.start(id, engine, now),
            Action::AbortStart(id) => {
                // A runtime in an endless system call does not even end by SIGKILL.
                if self.processes[id].starting && !self.random.one_in(4) {
                    self.later(now, Event::StartFailed(id, "aborted".to_owned()));
                }
            }
            Action::Signal(id, _) => {
                assert!(self.processes[id].running, "nobody to signal");
                if !self.random.one_in(3) {
                    self.later(now, Event::Exited(id, Exit::Signal(15)));
                }
            }
            Action::Kill(id) => {
                if !self.random.one_in(8) {
                    self.later(now, Event::Exited(id, Exit::Signal(9)));
                }
            }
            Action::Clean(id) => {
                let process = &mut self.processes[id];
                assert!(!process.cleaning && !process.running, "cleaned too early");
                assert!(!process.probing, "a probe of what is gone");
                process.cleaning = true;
                self.later(now, Event::Cleaned(id));
            }
            Action::AbortClean(_) | Action::AbortPod(_) => {}
            Action::Watch(id) => {
                let process = &mut self.processes[id];
                assert!(!process.watched && !process.running && !process.closed);
                process.watched = true;
                if !self.random.one_in(4) {
                    self.later(now, Event::Connected(id));
                }
            }
            Action::Unwatch(id) => {
                assert!(std::mem::take(&mut self.processes[id].watched));
            }
            Action::CloseSockets(id) => {
                let process = &mut self.processes[id];
                assert!(!std::mem::replace(&mut process.closed, true));
                process.watched = false;
            }
            Action::Probe(id, kind) => self.probe(id, kind, now),
            Action::StopProbe(id) => {
                assert!(std::mem::take(&mut self.processes[id].probing));
            }
            Action::PreparePod(pod) => {
                assert_eq!(self.pods[pod], [false; 3], "a pod is made twice");
                self.pods[pod][0] = true;
                let fails = self.random.one_in(4);
                let failed = Event::PodFailed(pod, "no".to_owned());
                self.later(
                    now,
                    if fails {
                        failed
                    } else {
                        Event::PodPrepared(pod)
                    },
                );
            }
            Action::RemovePod(pod) => {
                self.pods[pod] = [false, false, true];
                let members = engine.workloads.iter().zip(&self.processes);
                let mut inside = members.filter(|(workload, _)| workload.pod == Some(pod));
                assert!(
                    inside.all(|(_, process)| !process.running && !process.starting),
                    "a pod is removed with somebody in it"
                );
                self.later(now, Event::PodRemoved(pod));
            }
            Action::Tell(ref notice) => Self::check_notice(notice, engine),
            Action::AllStopped => {
                assert!(self.stopping, "all stopped, and nobody asked for it");
                self.stopped = true;
            }
        }
    }

    fn start(&mut self, id: Id, engine: &Engine, now: Duration) {
        let workload = &engine.workloads[id];
        let process = &mut self.processes[id];
        assert!(!self.stopping, "started while the machine stops");
        let others = engine
            .workloads
            .iter()
            .filter(|other| other.holds_slot(now) && !other.has_sockets);
        assert!(
            workload.has_sockets || others.count() <= engine.starts,
            "too many starts at once"
        );
        assert!(
            !process.starting && !process.running && !process.cleaning,
            "started twice"
        );
        assert!(!process.closed, "started without its sockets");
        let mut after = workload.after.iter();
        assert!(
            after.all(|&other| engine.workloads[other].was_ready),
            "started before what it comes after"
        );
        let mut requires = workload.requires.iter();
        assert!(
            requires.all(|&other| engine.workloads[other].is_up()),
            "started without what it requires"
        );
        assert!(
            workload.pod.is_none_or(|pod| self.pods[pod][1]),
            "started without its pod"
        );
        let mut conditions = workload.conditions.iter();
        assert!(
            conditions.all(|condition| self.held.contains(condition)),
            "started before the machine was ready for it"
        );
        process.starting = true;
        process.watched = false;
        match self.random.below(64) {
            0 => self.later(now, Event::CannotStart(id, "never".to_owned())),
            1..=12 => self.later(now, Event::StartFailed(id, "no".to_owned())),
            // It hangs.
            13 => {}
            _ => self.later(now, Event::Started(id)),
        }
    }

    fn probe(&mut self, id: Id, kind: ProbeKind, now: Duration) {
        let process = &mut self.processes[id];
        assert!(process.running && !std::mem::replace(&mut process.probing, true));
        let result = match (kind, self.random.below(4)) {
            (ProbeKind::UntilReady, 0) => return,
            (_, 1) => ProbeResult::Lost,
            (ProbeKind::Once, 2) => ProbeResult::Failed,
            _ => ProbeResult::Passed,
        };
        self.later(now, Event::Probed(id, result));
    }

    fn check_notice(notice: &Notice, engine: &Engine) {
        match notice {
            Notice::Ended(_, _, Next::Restart(delay)) => {
                assert!(*delay <= Duration::from_secs(10) && !delay.is_zero());
            }
            Notice::AllReady => assert!(engine.workloads.iter().all(|w| w.was_ready)),
            _ => {}
        }
    }

    /// Whether the event may happen at all, given what is under way; what it changes is noted.
    fn admit(&mut self, event: &Event, now: Duration) -> bool {
        match *event {
            Event::Started(id) => {
                let happens = std::mem::take(&mut self.processes[id].starting);
                self.processes[id].running = happens;
                if happens {
                    if self.random.one_in(2) {
                        let status = i32::try_from(self.random.below(2)).unwrap();
                        self.later(now, exited(id, status));
                    }
                    for news in [News::Ready, News::Watchdog, News::Stopping] {
                        if self.random.one_in(3) {
                            self.later(now, Event::Notified(id, news));
                        }
                    }
                }
                happens
            }
            Event::StartFailed(id, _) | Event::CannotStart(id, _) => {
                std::mem::take(&mut self.processes[id].starting)
            }
            Event::Exited(id, _) => std::mem::take(&mut self.processes[id].running),
            Event::Cleaned(id) => std::mem::take(&mut self.processes[id].cleaning),
            Event::Probed(id, _) => std::mem::take(&mut self.processes[id].probing),
            Event::Connected(id) => std::mem::take(&mut self.processes[id].watched),
            Event::PodPrepared(pod) => {
                if !self.pods[pod][0] {
                    return false;
                }
                self.pods[pod] = [false, true, false];
                if self.random.one_in(3) {
                    self.later(now, Event::PodFailed(pod, "killed".to_owned()));
                }
                true
            }
            Event::PodFailed(pod, _) => {
                let was_there = self.pods[pod][0] || self.pods[pod][1];
                if was_there {
                    self.pods[pod] = [false; 3];
                }
                was_there
            }
            Event::PodRemoved(pod) => std::mem::take(&mut self.pods[pod][2]),
            Event::Condition { condition, holds } => {
                if holds {
                    self.held.push(condition);
                }
                true
            }
            Event::Shutdown => {
                self.stopping = true;
                true
            }
            Event::Begin | Event::Tick | Event::Hurry | Event::Notified(..) => true,
        }
    }
}

/// Each state has a deadline, or an event under way that leaves it, or is one that may last.
fn check_not_stuck(engine: &Engine, world: &World) {
    for (id, workload) in engine.workloads.iter().enumerate() {
        let process = world.processes[id];
        let awaited = match workload.state {
            State::Starting { .. } => process.starting,
            State::Cleaning { .. } => process.cleaning,
            State::Running(_) => process.running,
            State::Stopping { .. } => workload.deadline().is_some(),
            State::BackingOff { .. } => workload.deadline().is_some(),
            State::Idle { .. } => process.watched,
            State::Waiting => {
                let has_all = engine.has_its_needs(id) && workload.pod.is_none();
                engine.begun && (!has_all || engine.next_slot.is_some())
            }
            State::Done | State::Down | State::Failed => true,
        };
        let begun = engine.begun || workload.state == State::Waiting;
        assert!(begun, "{id} began before the machine");
        assert!(
            awaited || !engine.begun || engine.stop.is_some(),
            "workload {id} is stuck in {:?}",
            workload.state
        );
    }
}

fn live(seed: u64) {
    let mut random = Random(seed);
    let (specs, pods) = random_machine(&mut random);
    let settings = Settings {
        seed,
        starts: 1 + usize::try_from(random.below(3)).unwrap(),
        ..PLAIN
    };
    let mut bench = Bench {
        engine: Engine::new(&specs, &pods, settings),
        now: Duration::from_secs(100),
    };
    let stop_at = bench.now + Duration::from_millis(random.below(120_000));
    let hurry_at = stop_at + Duration::from_millis(random.below(200_000));
    let mut world = World {
        random,
        pending: vec![
            (bench.now, Event::Begin),
            (stop_at, Event::Shutdown),
            (hurry_at, Event::Hurry),
        ],
        processes: vec![Process::default(); specs.len()],
        pods: vec![[false; 3]; pods.len()],
        held: Vec::new(),
        stopping: false,
        stopped: false,
    };
    for condition in [BootCondition::Firewall, BootCondition::Network] {
        for holds in [false, true, false] {
            world.later(bench.now, Event::Condition { condition, holds });
        }
    }
    for _ in 0..20_000 {
        world.pending.sort_by_key(|(at, _)| *at);
        let tick = bench.engine.next_deadline();
        let next = world.pending.first().map(|(at, _)| *at);
        let Some(at) = [tick, next].into_iter().flatten().min() else {
            break;
        };
        bench.now = bench.now.max(at);
        let event = match next {
            Some(next) if next <= bench.now => world.pending.remove(0).1,
            _ => Event::Tick,
        };
        if !world.admit(&event, bench.now) {
            continue;
        }
        for action in bench.hear(event) {
            world.perform(&action, &bench.engine, bench.now);
        }
        check_not_stuck(&bench.engine, &world);
        let limit = PLAIN.shutdown_limit + KILL_LIMIT;
        assert!(
            world.stopped || bench.now <= stop_at + limit,
            "the machine does not stop in its time"
        );
    }
    assert!(world.stopped, "the machine never stops: {:?}", bench.engine);
}

#[test]
fn no_history_of_any_machine_gets_stuck_or_breaks_a_rule() {
    for seed in 0..3000 {
        let result = std::panic::catch_unwind(|| live(seed));
        assert!(result.is_ok(), "by seed {seed}");
    }
}
