//! The forwarder under a clock and random numbers of the tests' own.

use super::super::names::tests::names;
use super::super::question::tests::question;
use super::super::upstream::tests::response;
use super::*;
use domain::base::Message;
use domain::base::iana::{Rcode, Rtype};

const WEB: [u8; 4] = [10, 213, 0, 2];
const ADDRESS: &str = "www.example.org 60 A 192.0.2.1";

struct Bench {
    forwarder: Forwarder,
    now: Duration,
    state: u16,
}

/// What became of something, in short: `ask SERVER udp`, `close`, `PORT RCODE COUNT`.
type Words = Vec<String>;

impl Bench {
    fn new(servers: &[&str]) -> Self {
        let mut bench = Self {
            forwarder: Forwarder::new(names()),
            now: Duration::from_secs(1000),
            state: 7,
        };
        bench.set_servers(servers);
        bench
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut Forwarder, Duration, Random<'_>) -> T) -> T {
        let state = &mut self.state;
        let mut random = || {
            *state = state.wrapping_mul(75).wrapping_add(74);
            *state
        };
        act(&mut self.forwarder, self.now, &mut random)
    }

    fn set_servers(&mut self, servers: &[&str]) -> Vec<Action> {
        let servers: Vec<SocketAddr> = servers
            .iter()
            .map(|server| SocketAddr::new(server.parse().unwrap(), 53))
            .collect();
        self.with(|forwarder, now, random| forwarder.set_servers(&servers, now, random))
    }

    fn question(&mut self, address: [u8; 4], port: u16, bytes: &[u8]) -> Vec<Action> {
        let client = Client {
            address: (address, port).into(),
            via: Via::Udp(0),
        };
        self.with(|forwarder, now, random| forwarder.question(client, bytes, now, random))
    }

    fn ask(&mut self, port: u16, name: &str) -> Vec<Action> {
        self.question(WEB, port, &question(name, Rtype::A, Some(1232)))
    }

    fn answer(&mut self, asked: &[Action], code: Rcode, records: &[&str]) -> Vec<Action> {
        let (flight, message) = query_of(asked);
        let bytes = response(&message, code, records);
        self.with(|forwarder, now, random| forwarder.answer(flight, &bytes, now, random))
    }

    fn pass(&mut self, milliseconds: u64) -> Vec<Action> {
        self.now += Duration::from_millis(milliseconds);
        self.with(|forwarder, now, random| forwarder.tick(now, random))
    }

    fn is_idle(&self) -> bool {
        let Forwarder {
            flights,
            by_key,
            deadlines,
            waiting,
            waiting_count,
            tcp_count,
            ..
        } = &self.forwarder;
        flights.is_empty()
            && by_key.is_empty()
            && deadlines.is_empty()
            && waiting.is_empty()
            && (*waiting_count, *tcp_count) == (0, 0)
    }
}

fn query_of(actions: &[Action]) -> (u64, Vec<u8>) {
    actions
        .iter()
        .find_map(|action| match action {
            Action::Ask {
                flight, message, ..
            } => Some((*flight, message.clone())),
            _ => None,
        })
        .unwrap()
}

fn words(actions: &[Action]) -> Words {
    let word = |action: &Action| match action {
        Action::Close(_) => "close".to_owned(),
        Action::HangUp(_) => "hang up".to_owned(),
        Action::Ask {
            server, transport, ..
        } => format!("ask {} {transport:?}", server.ip()),
        Action::Reply(client, message) => {
            let message = Message::from_slice(message).unwrap();
            let count = message.header_counts().ancount();
            let code = message.header().rcode();
            format!("{} {code} {count}", client.address.port())
        }
    };
    actions.iter().map(word).collect()
}

#[test]
fn the_machines_names_are_answered_at_once_and_strangers_not_at_all() {
    let mut bench = Bench::new(&[]);
    assert_eq!(words(&bench.ask(1, "shop")), ["1 NOERROR 1"]);
    assert_eq!(words(&bench.ask(1, "db")), ["1 NXDOMAIN 0"]);
    let stranger = bench.question([192, 0, 2, 9], 1, &question("shop", Rtype::A, None));
    assert_eq!(words(&stranger), ["1 REFUSED 0"]);
    assert_eq!(bench.question(WEB, 1, b"garbage"), []);
    let client = Client {
        address: (WEB, 1).into(),
        via: Via::Tcp(9),
    };
    let actions = bench.with(|it, now, random| it.question(client, b"garbage", now, random));
    assert_eq!(actions, [Action::HangUp(9)]);
}

#[test]
fn without_name_servers_a_question_fails_and_later_it_does_not() {
    let mut bench = Bench::new(&[]);
    assert_eq!(words(&bench.ask(1, "www.example.org")), ["1 SERVFAIL 0"]);
    bench.set_servers(&["192.0.2.53"]);
    let asked = bench.ask(1, "www.example.org");
    assert_eq!(words(&asked), ["ask 192.0.2.53 Udp"]);
    bench.set_servers(&["192.0.2.53"]);
    assert_eq!(
        words(&bench.answer(&asked, Rcode::NOERROR, &[ADDRESS])),
        ["close", "1 NOERROR 1"]
    );
    assert!(bench.is_idle());
}

#[test]
fn equal_questions_are_asked_once_and_their_answer_is_kept() {
    let mut bench = Bench::new(&["192.0.2.53"]);
    let asked = bench.ask(1, "www.example.org");
    assert_eq!(bench.ask(2, "WWW.example.org"), []);
    assert_eq!(bench.ask(2, "WWW.example.org"), [], "sent again");
    let answers = bench.answer(&asked, Rcode::NOERROR, &[ADDRESS]);
    assert_eq!(words(&answers), ["close", "1 NOERROR 1", "2 NOERROR 1"]);
    bench.pass(59_000);
    assert_eq!(words(&bench.ask(3, "www.example.org")), ["3 NOERROR 1"]);
    bench.pass(1_000);
    assert_eq!(
        words(&bench.ask(3, "www.example.org")),
        ["ask 192.0.2.53 Udp"]
    );
}

#[test]
fn a_forged_answer_changes_nothing() {
    let mut bench = Bench::new(&["192.0.2.53"]);
    let asked = bench.ask(1, "www.example.org");
    let (flight, message) = query_of(&asked);
    let mut forged = response(&message, Rcode::NOERROR, &[ADDRESS]);
    forged[0] ^= 1;
    let actions = bench.with(|it, now, random| it.answer(flight, &forged, now, random));
    assert_eq!(actions, []);
    let right = bench.answer(&asked, Rcode::NOERROR, &[ADDRESS]);
    assert_eq!(words(&right), ["close", "1 NOERROR 1"]);
    let late = bench.answer(&asked, Rcode::NOERROR, &[ADDRESS]);
    assert_eq!(late, []);
}

#[test]
fn all_name_servers_are_tried_and_the_one_that_answers_is_asked_first() {
    let mut bench = Bench::new(&["192.0.2.1", "192.0.2.2"]);
    assert_eq!(
        words(&bench.ask(1, "www.example.org")),
        ["ask 192.0.2.1 Udp"]
    );
    let second = bench.pass(900);
    assert_eq!(words(&second), ["ask 192.0.2.2 Udp"]);
    let third = bench.answer(&second, Rcode::SERVFAIL, &[]);
    assert_eq!(words(&third), ["ask 192.0.2.1 Udp"]);
    let fourth = bench.pass(1800);
    assert_eq!(words(&fourth), ["ask 192.0.2.2 Udp"]);
    bench.answer(&fourth, Rcode::NOERROR, &[ADDRESS]);
    assert_eq!(words(&bench.ask(1, "a.example.org")), ["ask 192.0.2.2 Udp"]);
    let mut all = Vec::new();
    for _ in 0..20 {
        all.extend(words(&bench.pass(1000)));
    }
    assert_eq!(all.last().unwrap(), "1 SERVFAIL 0");
    assert!(bench.is_idle());
    assert_eq!(bench.forwarder.next_deadline(), None);
}

#[test]
fn a_cut_answer_is_asked_for_by_tcp_and_an_old_server_without_edns() {
    let mut bench = Bench::new(&["192.0.2.1"]);
    let asked = bench.ask(1, "www.example.org");
    let plain = bench.answer(&asked, Rcode::FORMERR, &[]);
    let (flight, message) = query_of(&plain);
    assert!(Message::from_slice(&message).unwrap().opt().is_none());
    let mut cut = response(&message, Rcode::NOERROR, &[]);
    cut[2] |= 2;
    let tcp = bench.with(|it, now, random| it.answer(flight, &cut, now, random));
    assert_eq!(words(&tcp), ["ask 192.0.2.1 Tcp"]);
    let answers = bench.answer(&tcp, Rcode::NOERROR, &[ADDRESS]);
    assert_eq!(words(&answers), ["close", "1 NOERROR 1"]);
    assert!(bench.is_idle());
}

#[test]
fn other_name_servers_are_asked_what_the_former_did_not_answer() {
    let mut bench = Bench::new(&["192.0.2.1"]);
    let asked = bench.ask(1, "www.example.org");
    bench.answer(&asked, Rcode::NOERROR, &[ADDRESS]);
    bench.ask(1, "a.example.org");
    assert_eq!(
        words(&bench.set_servers(&["192.0.2.2"])),
        ["ask 192.0.2.2 Udp"]
    );
    assert_eq!(
        words(&bench.ask(1, "www.example.org")),
        ["ask 192.0.2.2 Udp"]
    );
    let mut all = words(&bench.set_servers(&[]));
    all.sort();
    assert_eq!(all, ["1 SERVFAIL 0", "1 SERVFAIL 0", "close", "close"]);
    assert!(bench.is_idle());
}

#[test]
fn one_client_cannot_take_what_is_there_for_all() {
    let mut bench = Bench::new(&["192.0.2.1"]);
    for number in 0..MOST_WAITING_OF_ONE {
        let actions = bench.ask(1, &format!("host-{number}.example.org"));
        assert_eq!(words(&actions), ["ask 192.0.2.1 Udp"]);
    }
    assert_eq!(words(&bench.ask(1, "more.example.org")), ["1 SERVFAIL 0"]);
    let other = question("more.example.org", Rtype::A, None);
    let other = bench.question([10, 213, 0, 3], 1, &other);
    assert_eq!(words(&other), ["ask 192.0.2.1 Udp"]);
    for _ in 0..20 {
        bench.pass(1000);
    }
    assert!(bench.is_idle());
}

#[test]
fn the_two_addresses_of_a_client_are_one_and_all_but_one_leave_the_last_one_its_answers() {
    let mut bench = Bench::new(&["192.0.2.1"]);
    let mut begun = 0;
    for number in 0..2 * MOST_FLIGHTS {
        for last in [2, 3, 6] {
            let bytes = question(&format!("{last}-{number}.example.org"), Rtype::A, None);
            let six = std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into());
            for address in [[10, 213, 0, last].into(), std::net::IpAddr::from(six)] {
                let client = Client {
                    address: (address, 1).into(),
                    via: Via::Udp(0),
                };
                let actions = bench
                    .with(|forwarder, now, random| forwarder.question(client, &bytes, now, random));
                let is_begun = |action: &Action| matches!(action, Action::Ask { .. });
                begun += actions.iter().filter(|action| is_begun(action)).count();
            }
        }
    }
    // Each of these questions is asked from both addresses, so each flight has two who wait.
    assert!(begun <= 3 * MOST_WAITING_OF_ONE / 2, "{begun}");
    let other = question("more.example.org", Rtype::A, None);
    let other = bench.question([10, 213, 0, 7], 1, &other);
    assert_eq!(words(&other), ["ask 192.0.2.1 Udp"]);
    for _ in 0..20 {
        bench.pass(1000);
    }
    assert!(bench.is_idle());
}

/// A small generator (xorshift), so that a failure comes again.
fn scramble(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    usize::try_from(*state >> 33).unwrap()
}

fn mutate(bytes: &mut Vec<u8>, state: &mut u64) {
    for _ in 0..=scramble(state) % 4 {
        if bytes.is_empty() {
            return;
        }
        let at = scramble(state) % bytes.len();
        match scramble(state) % 4 {
            0 => bytes.truncate(at),
            1 => bytes[at] = 0xc0,
            2 => bytes[at] = u8::try_from(scramble(state) & 0xff).unwrap(),
            _ => bytes.insert(at, 0),
        }
    }
}

#[test]
fn no_packet_of_a_client_or_a_server_does_harm() {
    let mut state = 0x9e37_79b9_7f4a_7c15;
    let mut bench = Bench::new(&["192.0.2.1", "192.0.2.2"]);
    let names = ["www.example.org", "shop", "1.0.213.10.in-addr.arpa", "."];
    let records = [
        "www.example.org 60 CNAME a.example",
        "a.example 60 CNAME b.example",
        "b.example 60 A 192.0.2.1",
        "www.example.org 60 TXT text",
        "--",
        "example.org 60 SOA 40",
    ];
    for round in 0..20_000_u32 {
        let rtype = [Rtype::A, Rtype::TXT, Rtype::ANY, Rtype::CNAME][scramble(&mut state) % 4];
        let mut bytes = question(names[scramble(&mut state) % 4], rtype, Some(1232));
        if !scramble(&mut state).is_multiple_of(3) {
            mutate(&mut bytes, &mut state);
        }
        let actions = bench.question(WEB, 1, &bytes);
        for action in actions {
            match action {
                Action::Reply(_, message) => assert!((12..=1232).contains(&message.len())),
                Action::Ask {
                    flight, message, ..
                } => {
                    let mut bytes = response(&message, Rcode::NOERROR, &records);
                    mutate(&mut bytes, &mut state);
                    bench.with(|it, now, random| it.answer(flight, &bytes, now, random));
                }
                Action::Close(_) | Action::HangUp(_) => {}
            }
        }
        if round % 16 == 0 {
            bench.pass(700);
        }
    }
    for _ in 0..20 {
        bench.pass(1000);
    }
    assert!(bench.is_idle());
}
