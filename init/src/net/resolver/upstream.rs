//! What is asked of a name server, and what of its answer is believed.
//!
//! An answer counts for the question that was asked and nothing else. Kept are the records of the asked type at the end of
//! the chain of aliases that begins at the asked name, that chain, and for a negative answer the zone's SOA record
//! (RFC 2308); with signatures wanted, what proves the answer. Everything else is left out, the additional section
//! as a whole. All is read and written anew: no byte of a name server's message reaches a client unread.

use domain::base::iana::{Class, OptRcode, Rcode, Rtype};
use domain::base::name::{Name, ParsedName, ToName};
use domain::base::record::ParsedRecord;
use domain::base::{Message, MessageBuilder, Ttl};
use domain::rdata::{AllRecordData, Cname, Soa};

use super::UDP_SIZE;
use super::answer::{Answer, Sections};
use super::question::Key;

/// An answer is forgotten after a day at the latest, a negative one after three hours (RFC 2308 §5).
const LONGEST: u32 = 24 * 60 * 60;
const LONGEST_NEGATIVE: u32 = 3 * 60 * 60;
/// So many aliases may follow one another.
const LONGEST_CHAIN: usize = 16;

/// What an answer comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is none to this question: forged, late or malformed. The right one may still come.
    Unfit,
    /// It is to be kept for so many seconds.
    Answer(Answer, u32),
    /// It did not fit in a datagram.
    Truncated,
    /// The server does not know EDNS (RFC 6891 §7).
    WithoutExtension,
    /// The server cannot or will not answer.
    Failure,
}

/// The message for a name server.
#[must_use]
pub fn compose(key: &Key, id: u16, with_extension: bool) -> Vec<u8> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(id);
    builder.header_mut().set_rd(true);
    builder.header_mut().set_cd(key.checking_disabled);
    let mut builder = builder.question();
    builder
        .push((key.name(), key.rtype))
        .expect("a question fits in an empty message");
    let mut builder = builder.additional();
    if with_extension {
        let with = |opt: &mut domain::base::message_builder::OptBuilder<'_, Vec<u8>>| {
            opt.set_udp_payload_size(UDP_SIZE);
            opt.set_dnssec_ok(key.dnssec_ok);
            Ok(())
        };
        builder.opt(with).expect("an OPT record fits behind it");
    }
    builder.finish()
}

/// Reads the answer to the question that [`compose`] wrote.
#[must_use]
pub fn accept(bytes: &[u8], key: &Key, id: u16, with_extension: bool) -> Outcome {
    let Ok(message) = Message::from_slice(bytes) else {
        return Outcome::Unfit;
    };
    let header = message.header();
    if header.id() != id || !header.qr() || header.opcode().to_int() != 0 {
        return Outcome::Unfit;
    }
    let code = header.rcode();
    let is_asked = message.sole_question().is_ok_and(|question| {
        question.qname().name_eq(key.name())
            && question.qtype() == key.rtype
            && question.qclass() == Class::IN
    });
    if !is_asked {
        // A server that cannot read a message need not repeat its question.
        let has_none = message.header_counts().qdcount() == 0;
        return match code {
            Rcode::FORMERR | Rcode::NOTIMP if has_none => no_extension(with_extension),
            _ => Outcome::Unfit,
        };
    }
    match code {
        Rcode::NOERROR | Rcode::NXDOMAIN if header.tc() => Outcome::Truncated,
        Rcode::NOERROR | Rcode::NXDOMAIN => read(message, key).unwrap_or(Outcome::Unfit),
        Rcode::FORMERR | Rcode::NOTIMP => no_extension(with_extension),
        _ => Outcome::Failure,
    }
}

fn no_extension(with_extension: bool) -> Outcome {
    if with_extension {
        Outcome::WithoutExtension
    } else {
        Outcome::Failure
    }
}

type Parsed<'a> = ParsedRecord<'a, [u8]>;

/// A record with its owner in lower case.
struct Owned<'a> {
    owner: Name<Vec<u8>>,
    record: Parsed<'a>,
}

/// `None` when it is malformed.
fn read(message: &Message<[u8]>, key: &Key) -> Option<Outcome> {
    let answers = records(message.answer().ok()?)?;
    let authority = records(message.authority().ok()?)?;
    let chain = chain(&answers, key)?;
    let end = chain.last().expect("it begins with the asked name");
    let is_negative = !answers
        .iter()
        .any(|it| it.owner == *end && is_wanted(it.record.rtype(), key));
    // Neither an answer nor a word about there being none: it points to other servers, being none for this name.
    let header = message.header();
    if is_negative && chain.len() == 1 && !header.ra() && !header.aa() {
        return Some(Outcome::Failure);
    }
    let code = OptRcode::from_rcode(header.rcode());
    let mut sections = Sections::new(key, code, false);
    let mut life = LONGEST;
    for it in &answers {
        if belongs(it, &chain, end, key) {
            life = life.min(push(&mut sections, &it.record, None)?);
        }
    }
    let mut sections = sections.authority();
    let mut negative_life = 0;
    for it in authority {
        let is_proof = matches!(it.record.rtype(), Rtype::NSEC | Rtype::NSEC3 | Rtype::RRSIG);
        if is_negative && it.record.rtype() == Rtype::SOA && end.ends_with(&it.owner) {
            let soa = it.record.to_record::<Soa<ParsedName<&[u8]>>>().ok()??;
            let seconds = soa.ttl().as_secs().min(soa.data().minimum().as_secs());
            negative_life = seconds.min(LONGEST_NEGATIVE);
            push(&mut sections, &it.record, Some(negative_life))?;
        } else if key.dnssec_ok && is_proof {
            push(&mut sections, &it.record, None)?;
        }
    }
    if is_negative {
        life = life.min(negative_life);
    }
    Some(Outcome::Answer(sections.finish(), life))
}

fn records<'a>(section: domain::base::message::RecordSection<'a, [u8]>) -> Option<Vec<Owned<'a>>> {
    let mut records = Vec::new();
    for record in section {
        let record = record.ok()?;
        let mut owner: Name<Vec<u8>> = record.owner().to_name();
        owner.make_canonical();
        if record.class() == Class::IN {
            records.push(Owned { owner, record });
        }
    }
    Some(records)
}

fn is_wanted(rtype: Rtype, key: &Key) -> bool {
    rtype == key.rtype || key.rtype == Rtype::ANY
}

/// The asked name and the names that it is an alias for, one by one; `None` when an alias cannot be read.
fn chain(answers: &[Owned<'_>], key: &Key) -> Option<Vec<Name<Vec<u8>>>> {
    let mut chain = vec![key.name().to_name::<Vec<u8>>()];
    if is_wanted(Rtype::CNAME, key) {
        return Some(chain);
    }
    while chain.len() <= LONGEST_CHAIN {
        let end = chain.last().expect("never empty");
        let is_next = |it: &&Owned<'_>| it.record.rtype() == Rtype::CNAME && it.owner == *end;
        let Some(alias) = answers.iter().find(is_next) else {
            break;
        };
        let record = alias
            .record
            .to_record::<Cname<ParsedName<&[u8]>>>()
            .ok()??;
        let mut target: Name<Vec<u8>> = record.data().cname().to_name();
        target.make_canonical();
        if chain.contains(&target) {
            break;
        }
        chain.push(target);
    }
    Some(chain)
}

/// It is a link of the chain, what stands at its end, or the signature of such.
fn belongs(it: &Owned<'_>, chain: &[Name<Vec<u8>>], end: &Name<Vec<u8>>, key: &Key) -> bool {
    match it.record.rtype() {
        rtype if is_wanted(rtype, key) && it.owner == *end => true,
        Rtype::CNAME => chain.contains(&it.owner),
        // Whole trees of aliases (RFC 6672): the aliases themselves come along.
        Rtype::DNAME => is_above(it, chain),
        Rtype::RRSIG => key.dnssec_ok && (chain.contains(&it.owner) || is_above(it, chain)),
        _ => false,
    }
}

fn is_above(it: &Owned<'_>, chain: &[Name<Vec<u8>>]) -> bool {
    chain
        .iter()
        .any(|name| name.ends_with(&it.owner) && *name != it.owner)
}

/// Reads a record and writes it anew; its time to live, which `life` may set. `None` when its data are malformed or there
/// is no more room.
fn push(sections: &mut Sections, record: &Parsed<'_>, life: Option<u32>) -> Option<u32> {
    let mut record = record
        .to_any_record::<AllRecordData<&[u8], ParsedName<&[u8]>>>()
        .ok()?;
    // The highest bit set means none at all (RFC 2181 §8).
    let given = record.ttl().as_secs();
    let given = if given > i32::MAX.unsigned_abs() {
        0
    } else {
        given
    };
    let life = life.unwrap_or(given);
    record.set_ttl(Ttl::from_secs(life));
    sections.push(record).ok()?;
    Some(life)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use domain::base::Record;
    use domain::rdata::{A, Ns, Txt};

    const ID: u16 = 0x4242;

    pub(in super::super) fn name(text: &str) -> Name<Vec<u8>> {
        Name::vec_from_str(text).unwrap()
    }

    /// A server's answer: records as `OWNER TTL TYPE DATA`, the authority's behind a `--`.
    pub(in super::super) fn response(query: &[u8], code: Rcode, records: &[&str]) -> Vec<u8> {
        let query = Message::from_slice(query).unwrap();
        let builder = MessageBuilder::new_vec();
        let mut builder = builder.start_answer(query, code).unwrap();
        builder.header_mut().set_ra(true);
        let mut parts = records.split(|record| *record == "--");
        for record in parts.next().unwrap() {
            builder.push(record_of(record)).unwrap();
        }
        let mut builder = builder.authority();
        for record in parts.next().unwrap_or_default() {
            builder.push(record_of(record)).unwrap();
        }
        builder.finish()
    }

    type AnyData = AllRecordData<Vec<u8>, Name<Vec<u8>>>;

    fn record_of(text: &str) -> Record<Name<Vec<u8>>, AnyData> {
        let words: Vec<&str> = text.split(' ').collect();
        let data: AnyData = match words[2] {
            "A" => A::new(words[3].parse().unwrap()).into(),
            "CNAME" => Cname::new(name(words[3])).into(),
            "NS" => Ns::new(name(words[3])).into(),
            "TXT" => Txt::build_from_slice(words[3].as_bytes()).unwrap().into(),
            "SOA" => {
                let seconds = Ttl::from_secs(words[3].parse().unwrap());
                let zone = name(words[0]);
                Soa::new(
                    zone.clone(),
                    zone,
                    1.into(),
                    seconds,
                    seconds,
                    seconds,
                    seconds,
                )
                .into()
            }
            other => panic!("{other}"),
        };
        let ttl = Ttl::from_secs(words[1].parse().unwrap());
        Record::new(name(words[0]), Class::IN, ttl, data)
    }

    fn asked(text: &str, rtype: Rtype) -> Key {
        Key::new(&name(text), rtype)
    }

    /// The records that are left, and for how long; the rcode in front when there is one.
    fn outcome(code: Rcode, records: &[&str]) -> String {
        let key = asked("www.example.org", Rtype::A);
        let response = response(&compose(&key, ID, true), code, records);
        match accept(&response, &key, ID, true) {
            Outcome::Answer(answer, life) => {
                let message = answer.message();
                let mut words = vec![message.header().rcode().to_string(), life.to_string()];
                for section in [message.answer().unwrap(), message.authority().unwrap()] {
                    for record in section.into_records::<AllRecordData<_, _>>() {
                        let record = record.unwrap();
                        let data = record.data();
                        words.push(format!("{}={}", record.owner(), data.rtype_text()));
                    }
                }
                words.join(" ")
            }
            other => format!("{other:?}"),
        }
    }

    trait RtypeText {
        fn rtype_text(&self) -> String;
    }

    impl<O: AsRef<[u8]>, N: ToName + std::fmt::Display> RtypeText for AllRecordData<O, N> {
        fn rtype_text(&self) -> String {
            match self {
                Self::A(data) => data.to_string(),
                Self::Cname(data) => data.to_string(),
                Self::Soa(_) => "SOA".to_owned(),
                _ => "OTHER".to_owned(),
            }
        }
    }

    #[test]
    fn only_what_was_asked_for_is_kept() {
        let cases: [(&[&str], &str); 8] = [
            (
                &[
                    "www.example.org 60 A 192.0.2.1",
                    "WWW.example.org 50 A 192.0.2.2",
                ],
                "NOERROR 50 www.example.org=192.0.2.1 www.example.org=192.0.2.2",
            ),
            (
                &[
                    "www.example.org 60 A 192.0.2.1",
                    "bank.example 60 A 203.0.113.9",
                ],
                "NOERROR 60 www.example.org=192.0.2.1",
            ),
            (
                &[
                    "www.example.org 60 A 192.0.2.1",
                    "--",
                    "org 9 NS evil.example",
                ],
                "NOERROR 60 www.example.org=192.0.2.1",
            ),
            (
                &[
                    "a.example 30 A 192.0.2.1",
                    "www.example.org 60 CNAME A.example",
                ],
                "NOERROR 30 a.example=192.0.2.1 www.example.org=a.example.",
            ),
            // A chain that ends nowhere, with data for a name that is not its end.
            (
                &[
                    "www.example.org 60 CNAME a.example",
                    "www.example.org 60 A 192.0.2.1",
                ],
                "NOERROR 0 www.example.org=a.example.",
            ),
            (
                &[
                    "www.example.org 60 CNAME a.example",
                    "a.example 60 CNAME www.example.org",
                ],
                "NOERROR 0 www.example.org=a.example. a.example=www.example.org.",
            ),
            (
                &["www.example.org 60 TXT text", "--", "example.org 60 SOA 40"],
                "NOERROR 40 example.org=SOA",
            ),
            (
                &["www.example.org 4294967295 A 192.0.2.1"],
                "NOERROR 0 www.example.org=192.0.2.1",
            ),
        ];
        for (records, expected) in cases {
            assert_eq!(outcome(Rcode::NOERROR, records), expected);
        }
    }

    #[test]
    fn a_negative_answer_lives_as_its_zone_says() {
        let cases: [(&[&str], &str); 6] = [
            (
                &["--", "example.org 600 SOA 300"],
                "NXDOMAIN 300 example.org=SOA",
            ),
            (
                &["--", "example.org 60 SOA 300"],
                "NXDOMAIN 60 example.org=SOA",
            ),
            (&["--", "org 99999 SOA 99999"], "NXDOMAIN 10800 org=SOA"),
            (&["--", "example.com 600 SOA 300"], "NXDOMAIN 0"),
            (&["--", "a.www.example.org 600 SOA 300"], "NXDOMAIN 0"),
            (
                &[
                    "www.example.org 20 CNAME a.example",
                    "--",
                    "example 60 SOA 60",
                ],
                "NXDOMAIN 20 www.example.org=a.example. example=SOA",
            ),
        ];
        for (records, expected) in cases {
            assert_eq!(outcome(Rcode::NXDOMAIN, records), expected);
        }
    }

    #[test]
    fn an_answer_to_another_question_is_unfit() {
        let key = asked("www.example.org", Rtype::A);
        let query = compose(&key, ID, true);
        let good = response(&query, Rcode::NOERROR, &["www.example.org 60 A 192.0.2.1"]);
        let fit = |bytes: &[u8]| accept(bytes, &key, ID, true) != Outcome::Unfit;
        assert!(fit(&good));
        assert_eq!(accept(&good, &key, ID ^ 1, true), Outcome::Unfit);
        for other in [
            asked("www.example.com", Rtype::A),
            asked("www.example.org", Rtype::AAAA),
        ] {
            assert_eq!(accept(&good, &other, ID, true), Outcome::Unfit);
        }
        assert!(!fit(&query), "its own question");
        for length in 0..good.len() {
            assert!(!fit(&good[..length]), "{length} bytes");
        }
        let mut looped = good.clone();
        let owner = looped.len() - 16;
        looped[owner] = 0xc0;
        looped[owner + 1] = u8::try_from(owner).unwrap();
        assert!(!fit(&looped), "a name that points to itself");
    }

    #[test]
    fn a_servers_trouble_is_told_apart() {
        let key = asked("www.example.org", Rtype::A);
        let query = compose(&key, ID, true);
        let with = |code| accept(&response(&query, code, &[]), &key, ID, true);
        assert_eq!(with(Rcode::SERVFAIL), Outcome::Failure);
        assert_eq!(with(Rcode::REFUSED), Outcome::Failure);
        assert_eq!(with(Rcode::FORMERR), Outcome::WithoutExtension);
        let plain = response(&query, Rcode::FORMERR, &[]);
        assert_eq!(accept(&plain, &key, ID, false), Outcome::Failure);
        let mut cut = response(&query, Rcode::NOERROR, &[]);
        cut[2] |= 2;
        assert_eq!(accept(&cut, &key, ID, true), Outcome::Truncated);
        let mut bare = plain[..12].to_vec();
        bare[5] = 0;
        assert_eq!(accept(&bare, &key, ID, true), Outcome::WithoutExtension);
        let mut referral = response(&query, Rcode::NOERROR, &["--", "org 60 NS a.example"]);
        referral[3] &= 0x7f;
        assert_eq!(accept(&referral, &key, ID, true), Outcome::Failure);
    }
}
