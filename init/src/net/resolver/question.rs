//! What a client asks (RFC 1035 §4.1, RFC 6891).
//!
//! Refuses whatever is no single question of the class IN: a message that cannot be read as a header is passed over, all
//! else is answered with the response code that says what is wrong. Options of EDNS are read over.

use domain::base::iana::{Class, OptRcode, Rcode, Rtype};
use domain::base::name::{Name, ToName};
use domain::base::{Header, Message};

/// What an answer is good for: two questions that differ in nothing of this get the same one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// The name in lower case, as on the wire.
    pub name: Vec<u8>,
    /// The type of record.
    pub rtype: Rtype,
    /// Signatures are wanted (RFC 3225).
    pub dnssec_ok: bool,
    /// The client does the checking itself (RFC 4035 §3.2.2).
    pub checking_disabled: bool,
}

impl Key {
    /// A key for a name in any case.
    #[must_use]
    pub fn new(name: &Name<Vec<u8>>, rtype: Rtype) -> Self {
        let mut name = name.clone();
        name.make_canonical();
        Self {
            name: name.into_octets(),
            rtype,
            dnssec_ok: false,
            checking_disabled: false,
        }
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &Name<[u8]> {
        Name::from_slice(&self.name).expect("made from a name")
    }
}

/// What is repeated in an answer, whatever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope {
    /// The client's number for it.
    pub id: u16,
    /// It desires recursion.
    pub recursion_desired: bool,
    /// It has EDNS, and takes answers of so many bytes by UDP, 512 at least.
    pub udp_size: Option<u16>,
}

/// A question that can be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// What the answer repeats.
    pub envelope: Envelope,
    /// The name as the client wrote it, big and small letters.
    pub name: Name<Vec<u8>>,
    /// What is asked.
    pub key: Key,
}

/// Why there will be no answer from anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is no query, or nothing at all: answering could go on for ever between two servers.
    Ignored,
    /// It is told with this code, without the question.
    Told(Envelope, OptRcode),
}

/// Reads one message.
///
/// # Errors
/// What to do instead of answering.
pub fn parse(bytes: &[u8]) -> Result<Query, Refusal> {
    let message = Message::from_slice(bytes).map_err(|_| Refusal::Ignored)?;
    let header = message.header();
    if header.qr() {
        return Err(Refusal::Ignored);
    }
    let mut envelope = Envelope {
        id: header.id(),
        recursion_desired: header.rd(),
        udp_size: None,
    };
    let told = |envelope, code: Rcode| Refusal::Told(envelope, OptRcode::from_rcode(code));
    if header.opcode() != domain::base::iana::Opcode::QUERY {
        return Err(told(envelope, Rcode::NOTIMP));
    }
    let malformed = |_| told(envelope, Rcode::FORMERR);
    let question = message.sole_question().map_err(malformed)?;
    // Reads all the sections: what cannot be read is refused here and not passed on.
    let extension = find_extension(message).map_err(|()| told(envelope, Rcode::FORMERR))?;
    envelope.udp_size = extension.as_ref().map(|it| it.udp_size.max(512));
    if extension.as_ref().is_some_and(|it| it.version != 0) {
        return Err(Refusal::Told(envelope, OptRcode::BADVERS));
    }
    if question.qclass() != Class::IN || is_never_answered(question.qtype()) {
        return Err(told(envelope, Rcode::REFUSED));
    }
    let name: Name<Vec<u8>> = question.qname().to_name();
    Ok(Query {
        envelope,
        key: Key {
            dnssec_ok: extension.is_some_and(|it| it.dnssec_ok),
            checking_disabled: header.cd(),
            ..Key::new(&name, question.qtype())
        },
        name,
    })
}

struct Extension {
    udp_size: u16,
    version: u8,
    dnssec_ok: bool,
}

/// The OPT record; there is one at most (RFC 6891 §6.1.1).
fn find_extension(message: &Message<[u8]>) -> Result<Option<Extension>, ()> {
    let mut found = None;
    for record in message.additional().map_err(|_| ())? {
        let record = record.map_err(|_| ())?;
        if record.rtype() != Rtype::OPT {
            continue;
        }
        let flags = record.ttl().as_secs();
        let extension = Extension {
            udp_size: record.class().to_int(),
            version: flags.to_be_bytes()[1],
            dnssec_ok: flags & 0x8000 != 0,
        };
        if found.replace(extension).is_some() || !record.owner().is_root() {
            return Err(());
        }
    }
    Ok(found)
}

/// Transfers of zones, and the other types that are no data (RFC 6895 §3.1), but for ANY.
fn is_never_answered(rtype: Rtype) -> bool {
    let is_meta = (128..=255).contains(&rtype.to_int()) || rtype == Rtype::OPT;
    is_meta && rtype != Rtype::ANY || rtype.to_int() == 0
}

/// The header of a message that is to be an answer of this resolver.
pub(super) fn answer_header(header: &mut Header, envelope: &Envelope) {
    header.set_id(envelope.id);
    header.set_qr(true);
    header.set_rd(envelope.recursion_desired);
    header.set_ra(true);
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use domain::base::MessageBuilder;

    /// A question as a stub resolver sends it.
    pub(in super::super) fn question(name: &str, rtype: Rtype, udp_size: Option<u16>) -> Vec<u8> {
        let mut builder = MessageBuilder::new_vec();
        builder.header_mut().set_id(0x1234);
        builder.header_mut().set_rd(true);
        let mut builder = builder.question();
        let name = Name::vec_from_str(name).unwrap();
        builder.push((name, rtype)).unwrap();
        let mut builder = builder.additional();
        if let Some(size) = udp_size {
            builder
                .opt(|opt| {
                    opt.set_udp_payload_size(size);
                    Ok(())
                })
                .unwrap();
        }
        builder.finish()
    }

    #[test]
    fn a_question_is_read_with_its_extension() {
        let query = parse(&question("Web.Example.ORG", Rtype::AAAA, Some(4096))).unwrap();
        assert_eq!(query.name.to_string(), "Web.Example.ORG");
        assert_eq!(query.key.name().to_string(), "web.example.org");
        assert_eq!(
            query.envelope,
            Envelope {
                id: 0x1234,
                recursion_desired: true,
                udp_size: Some(4096)
            }
        );
        let query = parse(&question("a", Rtype::A, None)).unwrap();
        assert_eq!(query.envelope.udp_size, None);
        let query = parse(&question("a", Rtype::A, Some(5))).unwrap();
        assert_eq!(query.envelope.udp_size, Some(512));
    }

    #[test]
    fn what_is_no_single_question_is_refused() {
        let good = question("a.example", Rtype::A, Some(1232));
        let code = |bytes: &[u8]| match parse(bytes) {
            Err(Refusal::Told(_, code)) => Some(code),
            Err(Refusal::Ignored) => None,
            Ok(query) => panic!("{query:?}"),
        };
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            code(&bytes)
        };
        assert_eq!(code(&[]), None);
        assert_eq!(code(&good[..11]), None);
        assert_eq!(with(&|bytes| bytes[2] |= 0x80), None, "an answer");
        assert_eq!(with(&|bytes| bytes[2] |= 5 << 3), Some(OptRcode::NOTIMP));
        assert_eq!(with(&|bytes| bytes[5] = 0), Some(OptRcode::FORMERR));
        assert_eq!(with(&|bytes| bytes[5] = 2), Some(OptRcode::FORMERR));
        // A name that points to itself.
        let looped = |bytes: &mut Vec<u8>| bytes.splice(12..23, [0xc0, 12]).count();
        assert_eq!(
            with(&|bytes| {
                looped(bytes);
            }),
            Some(OptRcode::FORMERR)
        );
        for length in 12..good.len() {
            assert_eq!(code(&good[..length]), Some(OptRcode::FORMERR), "{length}");
        }
        assert_eq!(with(&|bytes| bytes[26] = 3), Some(OptRcode::REFUSED), "CH");
        for rtype in [Rtype::AXFR, Rtype::IXFR, Rtype::TSIG, Rtype::OPT] {
            assert_eq!(code(&question("a", rtype, None)), Some(OptRcode::REFUSED));
        }
        // The version of EDNS.
        let version = good.len() - 5;
        assert_eq!(with(&|bytes| bytes[version] = 1), Some(OptRcode::BADVERS));
    }
}
