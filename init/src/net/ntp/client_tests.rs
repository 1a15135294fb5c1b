//! The client under clocks of the tests' own, with servers that are as far off as a test says.

use super::super::packet::tests::{kiss, reply};
use super::*;

const SECOND: i64 = 1_000_000_000;
const IMAGE: i64 = 1_780_000_000;
const START: i64 = 1_790_000_000 * SECOND;

struct Bench {
    client: Client,
    now: Duration,
    /// What this machine's clock is ahead of the true one.
    error: i64,
    count: u64,
    asked: Vec<usize>,
}

/// What a server does with a request that comes at the given true time.
type Behaviour = dyn Fn(usize, &[u8], i64) -> Option<Vec<u8>>;

fn honest(_: usize, request: &[u8], time: i64) -> Option<Vec<u8>> {
    Some(reply(request, time, time))
}

impl Bench {
    fn new(error: i64) -> Self {
        let now = Duration::from_secs(100);
        Self {
            client: Client::new(IMAGE, now),
            now,
            error,
            count: 0,
            asked: Vec::new(),
        }
    }

    fn time(&self) -> i64 {
        START + i64::try_from(self.now.as_nanos()).unwrap()
    }

    fn wall(&self) -> i64 {
        self.time() + self.error
    }

    /// Goes on until there is something to tell other than packets; each takes a millisecond.
    fn next(&mut self, servers: usize, behaviour: &Behaviour) -> (u64, Vec<String>) {
        let begin = self.now;
        loop {
            self.now = self.now.max(self.client.next_deadline());
            let actions = self.client.tick(self.now, self.wall());
            let words = self.perform(actions, servers, behaviour);
            if !words.is_empty() {
                return ((self.now - begin).as_secs(), words);
            }
        }
    }

    fn perform(
        &mut self,
        actions: Vec<Action>,
        servers: usize,
        behaviour: &Behaviour,
    ) -> Vec<String> {
        let mut words = Vec::new();
        for action in actions {
            match action {
                Action::Send(index) => words.extend(self.exchange(index, servers, behaviour)),
                Action::Step(by, _, _) => {
                    self.error += by;
                    words.push(format!("step {}", seconds(by)));
                }
                Action::Slew(by, _, _) => {
                    self.error += by;
                    words.push(format!("slew {}", seconds(by)));
                }
                Action::Note(text) => words.push(text),
                Action::Resolve => {
                    let addresses: Vec<IpAddr> = (1..=servers)
                        .map(|last| IpAddr::from([192, 0, 2, u8::try_from(last).unwrap()]))
                        .collect();
                    self.client.set_servers(&addresses, self.now);
                }
            }
        }
        words
    }

    fn exchange(&mut self, index: usize, servers: usize, behaviour: &Behaviour) -> Vec<String> {
        self.asked.push(index);
        self.count += 1;
        let (now, wall) = (self.now, self.wall());
        let request = self.client.sent(index, self.count, now, wall);
        let answer = behaviour(index, &request, self.time() + SECOND / 1000);
        let Some(bytes) = answer else {
            return Vec::new();
        };
        let actions = self.client.receive(index, &bytes, wall + SECOND / 500);
        self.perform(actions, servers, behaviour)
    }
}

#[test]
fn a_clock_is_set_after_the_first_round_and_kept_with_growing_pauses() {
    let mut bench = Bench::new(-3 * SECOND - SECOND / 5);
    assert_eq!(
        bench.next(2, &honest),
        (6, vec!["step +3.200 s".to_owned()])
    );
    assert_eq!(bench.asked.len(), 8);
    let mut passed = Vec::new();
    for _ in 0..6 {
        let (time, words) = bench.next(2, &honest);
        assert_eq!(words.len(), 1);
        assert!(words[0].starts_with("slew "), "{words:?}");
        passed.push(time);
    }
    assert_eq!(passed, [66, 130, 258, 514, 1026, 1026]);
    assert_eq!(bench.asked.len(), 8 + 6 * 4);
}

#[test]
fn a_liar_among_three_is_outvoted_and_of_two_neither_is_believed() {
    let liar = |index: usize, request: &[u8], time: i64| {
        let by = if index == 0 { 1000 * SECOND } else { 0 };
        Some(reply(request, time + by, time + by))
    };
    let mut bench = Bench::new(-SECOND);
    assert_eq!(bench.next(3, &liar).1, ["step +1.000 s"]);
    let mut bench = Bench::new(-SECOND);
    assert_eq!(bench.next(2, &liar).1, ["the time servers do not agree"]);
    assert_eq!(bench.error, -SECOND);
}

#[test]
fn a_time_that_cannot_be_is_told_once_and_not_taken() {
    let wrong = |_: usize, request: &[u8], _: i64| {
        let time = (IMAGE - 5) * SECOND;
        Some(reply(request, time, time))
    };
    let mut bench = Bench::new(0);
    // By the rule of the first time behind the image, it is one in 136 years.
    let (_, words) = bench.next(1, &wrong);
    assert!(words[0].starts_with("192.0.2.1 tells a time that cannot be"));
    for _ in 0..20 {
        bench.now += Duration::from_secs(64);
        let actions = bench.client.tick(bench.now, bench.wall());
        assert_eq!(bench.perform(actions, 1, &wrong), Vec::<String>::new());
    }
    assert_eq!(bench.error, 0);
}

#[test]
fn silence_is_told_once_and_names_are_asked_for_again() {
    let silent = |_: usize, _: &[u8], _: i64| None;
    let mut bench = Bench::new(-9 * SECOND);
    assert_eq!(
        bench.next(1, &silent),
        (8, vec!["no time server answers".to_owned()])
    );
    for _ in 0..40 {
        bench.now = bench.now.max(bench.client.next_deadline());
        let actions = bench.client.tick(bench.now, bench.wall());
        assert_eq!(bench.perform(actions, 1, &silent), Vec::<String>::new());
    }
    assert_eq!(bench.next(1, &honest).1, ["step +9.000 s"]);
}

#[test]
fn a_server_that_asks_for_it_is_asked_less_or_no_more() {
    let of_two = |code: &'static [u8; 4]| {
        move |index: usize, request: &[u8], time: i64| {
            let mut bytes = reply(request, time, time);
            if index == 0 {
                kiss(&mut bytes, code);
            }
            Some(bytes)
        }
    };
    let asked = |bench: &Bench| bench.asked.iter().filter(|&&index| index == 0).count();
    let mut bench = Bench::new(0);
    let denying = of_two(b"DENY");
    assert_eq!(
        bench.next(2, &denying).1,
        ["192.0.2.1 wants to be asked no more"]
    );
    for _ in 0..20 {
        bench.next(2, &denying);
    }
    assert_eq!(asked(&bench), 1);
    let mut bench = Bench::new(0);
    let limiting = of_two(b"RATE");
    for _ in 0..20 {
        bench.next(2, &limiting);
    }
    assert!((2..=5).contains(&asked(&bench)), "{}", asked(&bench));
}

#[test]
fn packets_of_strangers_change_nothing() {
    let mut bench = Bench::new(-5 * SECOND);
    let foreign = |_: usize, request: &[u8], time: i64| {
        let mut bytes = reply(request, time + 99 * SECOND, time + 99 * SECOND);
        bytes[30] ^= 1;
        Some(bytes)
    };
    assert_eq!(bench.next(1, &foreign).1, ["no time server answers"]);
    assert_eq!(bench.error, -5 * SECOND);
}

#[test]
fn seconds_have_a_sign_and_three_digits() {
    assert_eq!(seconds(3_200_000_000), "+3.200 s");
    assert_eq!(seconds(-1), "-0.001 s");
    assert_eq!(seconds(0), "+0.000 s");
}

#[test]
fn who_asked_in_vain_asks_again_when_the_network_is_back() {
    let mut bench = Bench::new(0);
    let silent = |_: usize, _: &[u8], _: i64| None;
    bench.next(1, &silent);
    let pause = bench.client.next_deadline().saturating_sub(bench.now);
    assert!(pause >= FIRST_RETRY, "{pause:?}");
    bench.client.network_is_back(bench.now);
    assert_eq!(bench.client.next_deadline(), bench.now);
    let (_, words) = bench.next(1, &honest);
    assert_eq!(words, ["slew +0.000 s"]);
    let next = bench.client.next_deadline();
    bench.client.network_is_back(bench.now);
    assert_eq!(bench.client.next_deadline(), next, "nothing is amiss");
}
