//! Answers as they are kept, and as they go out.
//!
//! An answer is kept as a whole message without an OPT record, whose question is written as it was first asked. The name in
//! the question always stands in one piece at the same place, and all other names may point there; so the case of a
//! client's own letters is put in by writing over it.

use domain::base::iana::{OptRcode, Rtype};
use domain::base::message_builder::{PushError, StaticCompressor};
use domain::base::name::ToName;
use domain::base::opt::OptHeader;
use domain::base::rdata::ComposeRecordData;
use domain::base::record::RecordHeader;
use domain::base::{HeaderSection, Message, MessageBuilder, Record};
use domain::dep::octseq::Parser;

use super::UDP_SIZE;
use super::question::{self, Envelope, Key, Query};

/// Where the question's name stands in a message.
const NAME_AT: usize = size_of::<HeaderSection>();

/// What was found, for every client that asks the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Header, question, answer and authority.
    message: Vec<u8>,
    /// Where in it the times to live stand.
    ttls: Vec<usize>,
}

/// By which way a client asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// One datagram.
    Udp,
    /// A connection.
    Tcp,
}

/// Collects the records of an [`Answer`].
pub(super) struct Sections {
    builder: Builder,
}

type Target = StaticCompressor<Vec<u8>>;
enum Builder {
    Answer(domain::base::message_builder::AnswerBuilder<Target>),
    Authority(domain::base::message_builder::AuthorityBuilder<Target>),
}

impl Sections {
    /// No records yet.
    pub(super) fn new(key: &Key, code: OptRcode, authoritative: bool) -> Self {
        let target = StaticCompressor::new(Vec::with_capacity(256));
        let mut builder = MessageBuilder::from_target(target).expect("a vector takes a header");
        builder.header_mut().set_rcode(code.rcode());
        builder.header_mut().set_aa(authoritative);
        builder.header_mut().set_cd(key.checking_disabled);
        builder.set_push_limit(usize::from(u16::MAX));
        let mut builder = builder.question();
        builder
            .push((key.name(), key.rtype))
            .expect("a question fits in an empty message");
        Self {
            builder: Builder::Answer(builder.answer()),
        }
    }

    /// Adds a record to the section that is open.
    pub(super) fn push<N: ToName, D: ComposeRecordData>(
        &mut self,
        record: Record<N, D>,
    ) -> Result<(), PushError> {
        match &mut self.builder {
            Builder::Answer(builder) => builder.push(record),
            Builder::Authority(builder) => builder.push(record),
        }
    }

    /// Goes on to the authority section.
    pub(super) fn authority(self) -> Self {
        let builder = match self.builder {
            Builder::Answer(builder) => Builder::Authority(builder.authority()),
            open @ Builder::Authority(_) => open,
        };
        Self { builder }
    }

    /// The answer.
    pub(super) fn finish(self) -> Answer {
        let message = match self.builder {
            Builder::Answer(builder) => builder.finish(),
            Builder::Authority(builder) => builder.finish(),
        }
        .into_target();
        let ttls = ttl_places(&message);
        Answer { message, ttls }
    }
}

impl Answer {
    /// One without records.
    #[must_use]
    pub fn empty(key: &Key, code: OptRcode, authoritative: bool) -> Self {
        Sections::new(key, code, authoritative).finish()
    }

    /// How much memory it takes, about.
    #[must_use]
    pub fn size(&self) -> usize {
        self.message.len() + self.ttls.len() * size_of::<usize>()
    }

    /// The message for one client. `age`: for how many seconds it has been kept.
    #[must_use]
    pub fn reply(&self, query: &Query, transport: Transport, age: u32) -> Vec<u8> {
        let mut message = self.message.clone();
        for &at in &self.ttls {
            let field: &mut [u8; 4] = (&mut message[at..at + 4]).try_into().expect("four bytes");
            *field = u32::from_be_bytes(*field).saturating_sub(age).to_be_bytes();
        }
        let name = query.name.as_slice();
        message[NAME_AT..NAME_AT + name.len()].copy_from_slice(name);
        let extension = if query.envelope.udp_size.is_some() {
            extension(OptRcode::NOERROR, query.key.dnssec_ok)
        } else {
            Vec::new()
        };
        if message.len() + extension.len() > limit(&query.envelope, transport) {
            // The question alone: what is cut off is asked for again by TCP (RFC 2181 §9).
            message.truncate(NAME_AT + name.len() + 4);
            let section = HeaderSection::for_message_slice_mut(&mut message);
            section.header_mut().set_tc(true);
            section.counts_mut().set_ancount(0);
            section.counts_mut().set_nscount(0);
        }
        let section = HeaderSection::for_message_slice_mut(&mut message);
        question::answer_header(section.header_mut(), &query.envelope);
        section
            .counts_mut()
            .set_arcount(u16::from(!extension.is_empty()));
        message.extend_from_slice(&extension);
        message
    }

    /// The records, for tests and for this program's own questions.
    #[must_use]
    pub fn message(&self) -> &Message<[u8]> {
        Message::from_slice(&self.message).expect("made by a builder")
    }
}

/// The message that says no more than a response code.
#[must_use]
pub fn refuse(envelope: &Envelope, code: OptRcode) -> Vec<u8> {
    let mut message = MessageBuilder::new_vec();
    question::answer_header(message.header_mut(), envelope);
    message.header_mut().set_rcode(code.rcode());
    let mut message = message.finish();
    if envelope.udp_size.is_some() {
        HeaderSection::for_message_slice_mut(&mut message)
            .counts_mut()
            .set_arcount(1);
        message.extend_from_slice(&extension(code, false));
    }
    message
}

/// The OPT record without options.
fn extension(code: OptRcode, dnssec_ok: bool) -> Vec<u8> {
    let mut header = OptHeader::default();
    header.set_udp_payload_size(UDP_SIZE);
    header.set_rcode(code);
    header.set_dnssec_ok(dnssec_ok);
    let mut bytes = Vec::with_capacity(11);
    header.compose(&mut bytes).expect("a vector grows");
    bytes.extend_from_slice(&0_u16.to_be_bytes());
    bytes
}

/// The most bytes a client takes. Above [`UDP_SIZE`] a datagram may be cut into fragments on its way.
fn limit(envelope: &Envelope, transport: Transport) -> usize {
    usize::from(match transport {
        Transport::Tcp => u16::MAX,
        Transport::Udp => envelope.udp_size.unwrap_or(512).min(UDP_SIZE),
    })
}

/// Where the times to live stand in a message that a builder made.
fn ttl_places(message: &[u8]) -> Vec<usize> {
    const TTL_AND_LENGTH: usize = 6;
    let parsed = Message::from_slice(message).expect("made by a builder");
    let mut parser = Parser::from_ref(message);
    let start = parsed.question().answer().expect("made by a builder").pos();
    parser.seek(start).expect("within the message");
    let mut places = Vec::new();
    while parser.remaining() > 0 {
        let header = RecordHeader::parse_ref(&mut parser).expect("made by a builder");
        if header.rtype() != Rtype::OPT {
            places.push(parser.pos() - TTL_AND_LENGTH);
        }
        parser
            .advance(usize::from(header.rdlen()))
            .expect("made by a builder");
    }
    places
}

#[cfg(test)]
mod tests {
    use super::super::question::parse;
    use super::super::question::tests::question;
    use super::*;
    use domain::base::{Name, Ttl};
    use domain::rdata::{A, AllRecordData};

    fn addresses(count: u8) -> Answer {
        let name = Name::vec_from_str("web.example").unwrap();
        let key = Key::new(&name, Rtype::A);
        let mut sections = Sections::new(&key, OptRcode::NOERROR, false);
        for last in 0..count {
            let data = A::from_octets(192, 0, 2, last);
            let record = Record::new(
                &name,
                domain::base::iana::Class::IN,
                Ttl::from_secs(60),
                data,
            );
            sections.push(record).unwrap();
        }
        sections.finish()
    }

    #[test]
    fn a_reply_has_the_clients_letters_and_number_and_the_time_that_is_left() {
        let query = parse(&question("WEB.example", Rtype::A, Some(1232))).unwrap();
        let reply = addresses(2).reply(&query, Transport::Udp, 25);
        let message = Message::from_slice(&reply).unwrap();
        assert_eq!(message.header().id(), 0x1234);
        assert!(message.header().qr() && message.header().ra() && message.header().rd());
        let records: Vec<String> = message
            .answer()
            .unwrap()
            .into_records::<AllRecordData<_, _>>()
            .map(|record| {
                let record = record.unwrap();
                format!(
                    "{} {} {}",
                    record.owner(),
                    record.ttl().as_secs(),
                    record.data()
                )
            })
            .collect();
        assert_eq!(
            records,
            ["WEB.example 35 192.0.2.0", "WEB.example 35 192.0.2.1"]
        );
        assert_eq!(message.opt().unwrap().udp_payload_size(), UDP_SIZE);
        let reply = addresses(2).reply(&query, Transport::Udp, 100);
        let first = Message::from_slice(&reply)
            .unwrap()
            .answer()
            .unwrap()
            .next();
        assert_eq!(first.unwrap().unwrap().ttl().as_secs(), 0);
    }

    #[test]
    fn a_reply_that_does_not_fit_is_cut_to_its_question() {
        let cases = [
            (None, Transport::Udp, 20, false),
            (None, Transport::Udp, 40, true),
            (Some(1232), Transport::Udp, 40, false),
            (Some(4096), Transport::Udp, 100, true),
            (None, Transport::Tcp, 100, false),
        ];
        for (size, transport, count, is_cut) in cases {
            let query = parse(&question("web.example", Rtype::A, size)).unwrap();
            let reply = addresses(count).reply(&query, transport, 0);
            let message = Message::from_slice(&reply).unwrap();
            assert_eq!(message.header().tc(), is_cut, "{size:?} {count}");
            let expected = if is_cut { 0 } else { u16::from(count) };
            assert_eq!(message.header_counts().ancount(), expected);
            assert_eq!(message.opt().is_some(), size.is_some());
        }
    }

    #[test]
    fn a_refusal_says_the_code() {
        let Err(question::Refusal::Told(envelope, _)) =
            parse(&question("a", Rtype::AXFR, Some(512)))
        else {
            panic!("not refused")
        };
        let reply = refuse(&envelope, OptRcode::BADVERS);
        let message = Message::from_slice(&reply).unwrap();
        assert_eq!(message.opt_rcode(), OptRcode::BADVERS);
        assert_eq!(message.header_counts().qdcount(), 0);
    }
}
