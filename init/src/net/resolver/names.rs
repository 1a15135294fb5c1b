//! The names that the machine itself knows, and who may know them.
//!
//! Who asks is known by the source address, which the firewall keeps from being forged. A name of a workload is told to
//! those on a network with it and to itself; to all others it is as if there were none. A name of one label never leaves
//! the machine, and so does nothing that RFC 6761 and its kin keep from name servers, and nothing that one asks for who
//! does not reach the outside.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use config::boot::BootEndpoint;
use domain::base::iana::{Class, OptRcode, Rtype};
use domain::base::name::Name;
use domain::base::{Record, Ttl};
use domain::rdata::{A, Aaaa, Ptr};

use super::answer::{Answer, Sections};
use super::question::Key;

/// Addresses follow from the image, but a machine may get another one, so nobody is to keep them for long.
const LIFE: Ttl = Ttl::from_secs(30);

/// Who there is.
#[derive(Debug)]
pub struct Names {
    gateway: (Ipv4Addr, Ipv6Addr),
    hostname: String,
    members: Vec<BootEndpoint>,
    by_address: HashMap<IpAddr, usize>,
    by_name: HashMap<String, usize>,
}

/// What is to become of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// This is the answer.
    Answer(Answer),
    /// The name servers have it, if anybody.
    Elsewhere,
}

/// Whom a name or an address means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Machine,
    Member(usize),
}

impl Names {
    /// `gateway`: the machine's addresses on the workloads' side.
    #[must_use]
    pub fn new(gateway: (Ipv4Addr, Ipv6Addr), members: Vec<BootEndpoint>) -> Self {
        let mut by_address = HashMap::new();
        let mut by_name = HashMap::new();
        for (index, member) in members.iter().enumerate() {
            by_address.insert(member.address.into(), index);
            by_address.insert(member.address6.into(), index);
            for name in &member.names {
                by_name.entry(name.to_ascii_lowercase()).or_insert(index);
            }
        }
        Self {
            gateway,
            hostname: String::new(),
            members,
            by_address,
            by_name,
        }
    }

    /// The machine is called so now.
    pub fn set_hostname(&mut self, hostname: &str) {
        self.hostname = hostname.to_ascii_lowercase();
    }

    /// The number of who asks from there; `None` for nobody that this resolver is for.
    #[must_use]
    pub fn member(&self, address: IpAddr) -> Option<usize> {
        self.by_address.get(&address).copied()
    }

    /// What `asker` is told.
    #[must_use]
    pub fn find(&self, asker: usize, key: &Key) -> Found {
        let text = key.name().to_string();
        if let Some(owner) = self.owner_of_name(asker, &text) {
            return Found::Answer(self.addresses(owner, key));
        }
        if let Some(address) = reverse_address(&text)
            && let Some(owner) = self.owner_of_address(address)
        {
            return Found::Answer(self.pointer(asker, owner, key));
        }
        match special(&text, key) {
            // Questions are a way outside, too: whoever rules a zone reads in them what he likes.
            Found::Elsewhere if !self.members[asker].outside => {
                Found::Answer(Answer::empty(key, OptRcode::NXDOMAIN, true))
            }
            found => found,
        }
    }

    /// Whom `asker` means by a name. What a network calls the machine takes no name from a workload.
    fn owner_of_name(&self, asker: usize, name: &str) -> Option<Owner> {
        let member = self.by_name.get(name).copied().map(Owner::Member);
        let is_machine = !self.hostname.is_empty() && name == self.hostname;
        member
            .filter(|&owner| self.may_know(asker, owner))
            .or(is_machine.then_some(Owner::Machine))
    }

    fn owner_of_address(&self, address: IpAddr) -> Option<Owner> {
        if address == self.gateway.0 || address == self.gateway.1 {
            return Some(Owner::Machine);
        }
        self.member(address).map(Owner::Member)
    }

    fn may_know(&self, asker: usize, owner: Owner) -> bool {
        let Owner::Member(member) = owner else {
            return true;
        };
        let networks = |index: usize| &self.members[index].networks;
        let is_common = |network| networks(asker).contains(network);
        asker == member || networks(member).iter().any(is_common)
    }

    fn addresses(&self, owner: Owner, key: &Key) -> Answer {
        let (address, address6) = match owner {
            Owner::Machine => self.gateway,
            Owner::Member(index) => (self.members[index].address, self.members[index].address6),
        };
        local(key, Some(address), Some(address6))
    }

    fn pointer(&self, asker: usize, owner: Owner, key: &Key) -> Answer {
        let name = match owner {
            Owner::Machine => Some(&self.hostname).filter(|name| !name.is_empty()),
            Owner::Member(index) => self.members[index].names.first(),
        };
        let name = name
            .filter(|_| self.may_know(asker, owner))
            .and_then(|name| Name::vec_from_str(name).ok());
        let Some(name) = name else {
            return Answer::empty(key, OptRcode::NXDOMAIN, true);
        };
        let mut sections = Sections::new(key, OptRcode::NOERROR, true);
        if matches!(key.rtype, Rtype::PTR | Rtype::ANY) {
            let record = Record::new(key.name(), Class::IN, LIFE, Ptr::new(name));
            sections.push(record).expect("one record fits");
        }
        sections.finish()
    }
}

/// Addresses for a name that this machine answers for.
fn local(key: &Key, address: Option<Ipv4Addr>, address6: Option<Ipv6Addr>) -> Answer {
    let mut sections = Sections::new(key, OptRcode::NOERROR, true);
    if let Some(address) = address.filter(|_| matches!(key.rtype, Rtype::A | Rtype::ANY)) {
        let record = Record::new(key.name(), Class::IN, LIFE, A::new(address));
        sections.push(record).expect("one record fits");
    }
    if let Some(address) = address6.filter(|_| matches!(key.rtype, Rtype::AAAA | Rtype::ANY)) {
        let record = Record::new(key.name(), Class::IN, LIFE, Aaaa::new(address));
        sections.push(record).expect("two records fit");
    }
    sections.finish()
}

/// Names that no name server is asked for (RFC 6761, 6762, 7686, 9462), and names of one label, but for the records by
/// which a client checks signatures from the root on.
fn special(name: &str, key: &Key) -> Found {
    let is_of_a_zone = matches!(
        key.rtype,
        Rtype::NS | Rtype::SOA | Rtype::DS | Rtype::DNSKEY
    );
    let last = name.rsplit('.').next().unwrap_or_default();
    match last {
        "localhost" => Found::Answer(local(
            key,
            Some(Ipv4Addr::LOCALHOST),
            Some(Ipv6Addr::LOCALHOST),
        )),
        "invalid" | "local" | "onion" | "alt" => {
            Found::Answer(Answer::empty(key, OptRcode::NXDOMAIN, true))
        }
        _ if name == "resolver.arpa" || name.ends_with(".resolver.arpa") => {
            Found::Answer(Answer::empty(key, OptRcode::NXDOMAIN, true))
        }
        _ if !name.contains('.') && !name.is_empty() && !is_of_a_zone => {
            Found::Answer(Answer::empty(key, OptRcode::NXDOMAIN, true))
        }
        _ => Found::Elsewhere,
    }
}

/// The address that a name of `in-addr.arpa` (RFC 1035 §3.5) or `ip6.arpa` (RFC 3596 §2.5) stands for.
fn reverse_address(name: &str) -> Option<IpAddr> {
    if let Some(labels) = name.strip_suffix(".in-addr.arpa") {
        let octets: Option<Vec<u8>> = labels.rsplit('.').map(decimal).collect();
        let octets: [u8; 4] = octets?.try_into().ok()?;
        return Some(IpAddr::from(octets));
    }
    let labels = name.strip_suffix(".ip6.arpa")?;
    let nibbles: Option<Vec<u8>> = labels.rsplit('.').map(nibble).collect();
    let nibbles: [u8; 32] = nibbles?.try_into().ok()?;
    let mut octets = [0; 16];
    for (octet, pair) in octets.iter_mut().zip(nibbles.chunks(2)) {
        *octet = pair[0] << 4 | pair[1];
    }
    Some(IpAddr::from(octets))
}

fn decimal(label: &str) -> Option<u8> {
    let value: u8 = label.parse().ok()?;
    (value.to_string() == label).then_some(value)
}

fn nibble(label: &str) -> Option<u8> {
    let digit = label.chars().next().filter(|_| label.len() == 1)?;
    u8::try_from(digit.to_digit(16)?).ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use domain::rdata::AllRecordData;

    pub(in super::super) fn names() -> Names {
        let member = |last: u8, names: &[&str], networks: &[&str]| BootEndpoint {
            name: names[0].to_owned(),
            link: format!("w{last}"),
            address: Ipv4Addr::new(10, 213, 0, last),
            address6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into()),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            networks: networks.iter().map(|name| (*name).to_owned()).collect(),
            outside: networks.contains(&"default"),
        };
        let members = vec![
            member(2, &["web"], &["default"]),
            member(3, &["shop", "cart"], &["default", "back"]),
            member(4, &["db"], &["back"]),
            member(5, &["alone"], &[]),
            member(6, &["mail"], &["default"]),
            member(7, &["news"], &["default"]),
        ];
        let gateway = (
            Ipv4Addr::new(10, 213, 0, 1),
            Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1),
        );
        let mut names = Names::new(gateway, members);
        names.set_hostname("Machine-7");
        names
    }

    fn ask(asker: usize, name: &str, rtype: Rtype) -> String {
        ask_of(&names(), asker, name, rtype)
    }

    fn ask_of(names: &Names, asker: usize, name: &str, rtype: Rtype) -> String {
        let name = Name::vec_from_str(name).unwrap();
        match names.find(asker, &Key::new(&name, rtype)) {
            Found::Elsewhere => "elsewhere".to_owned(),
            Found::Answer(answer) => {
                let message = answer.message();
                let data: Vec<String> = message
                    .answer()
                    .unwrap()
                    .into_records::<AllRecordData<_, _>>()
                    .map(|record| record.unwrap().data().to_string())
                    .collect();
                format!("{} {}", message.header().rcode(), data.join(" "))
            }
        }
    }

    #[test]
    fn a_name_is_told_on_a_common_network_and_to_itself() {
        const WEB: usize = 0;
        const SHOP: usize = 1;
        const DB: usize = 2;
        const ALONE: usize = 3;
        let unknown = ask(WEB, "no-such-name", Rtype::A);
        assert_eq!(unknown, "NXDOMAIN ");
        let cases = [
            (WEB, "shop", Rtype::A, "NOERROR 10.213.0.3"),
            (WEB, "SHOP", Rtype::AAAA, "NOERROR fd00::3"),
            (WEB, "cart", Rtype::A, "NOERROR 10.213.0.3"),
            (WEB, "shop", Rtype::MX, "NOERROR "),
            (SHOP, "db", Rtype::ANY, "NOERROR 10.213.0.4 fd00::4"),
            (WEB, "db", Rtype::A, unknown.as_str()),
            (WEB, "db", Rtype::AAAA, unknown.as_str()),
            (DB, "web", Rtype::A, unknown.as_str()),
            (ALONE, "web", Rtype::A, unknown.as_str()),
            (WEB, "alone", Rtype::A, unknown.as_str()),
            (ALONE, "alone", Rtype::A, "NOERROR 10.213.0.5"),
            (DB, "machine-7", Rtype::A, "NOERROR 10.213.0.1"),
            (ALONE, "machine-7", Rtype::AAAA, "NOERROR fd00::1"),
            (WEB, "db.example.org", Rtype::A, "elsewhere"),
            (DB, "secret.example.org", Rtype::TXT, unknown.as_str()),
            (DB, ".", Rtype::DNSKEY, unknown.as_str()),
            (DB, "9.9.9.9.in-addr.arpa", Rtype::PTR, unknown.as_str()),
        ];
        for (asker, name, rtype, expected) in cases {
            assert_eq!(ask(asker, name, rtype), expected, "{asker} {name} {rtype}");
        }
    }

    #[test]
    fn an_address_is_named_to_those_who_may_know_it() {
        let six = |last: &str| format!("{last}{}0.0.d.f.ip6.arpa", "0.".repeat(27));
        let cases = [
            ("3.0.213.10.in-addr.arpa".to_owned(), "NOERROR shop."),
            ("4.0.213.10.in-addr.arpa".to_owned(), "NXDOMAIN "),
            ("1.0.213.10.in-addr.arpa".to_owned(), "NOERROR machine-7."),
            (six("3."), "NOERROR shop."),
            (six("4."), "NXDOMAIN "),
            ("9.9.213.10.in-addr.arpa".to_owned(), "elsewhere"),
            ("03.0.213.10.in-addr.arpa".to_owned(), "elsewhere"),
            ("3.0.213.in-addr.arpa".to_owned(), "elsewhere"),
        ];
        for (name, expected) in cases {
            assert_eq!(ask(0, &name, Rtype::PTR), expected, "{name}");
        }
        assert_eq!(ask(0, "3.0.213.10.in-addr.arpa", Rtype::A), "NOERROR ");
    }

    #[test]
    fn special_names_stay_on_the_machine() {
        let cases = [
            ("localhost", Rtype::A, "NOERROR 127.0.0.1"),
            ("a.b.localhost", Rtype::AAAA, "NOERROR ::1"),
            ("printer.local", Rtype::A, "NXDOMAIN "),
            ("x.invalid", Rtype::A, "NXDOMAIN "),
            ("_dns.resolver.arpa", Rtype::from_int(64), "NXDOMAIN "),
            ("org", Rtype::A, "NXDOMAIN "),
            ("org", Rtype::DS, "elsewhere"),
            (".", Rtype::DNSKEY, "elsewhere"),
            ("example.org", Rtype::A, "elsewhere"),
        ];
        for (name, rtype, expected) in cases {
            assert_eq!(ask(0, name, rtype), expected, "{name} {rtype}");
        }
    }

    #[test]
    fn a_network_that_calls_the_machine_like_a_workload_takes_no_name_from_it() {
        let mut names = names();
        names.set_hostname("shop");
        assert_eq!(ask_of(&names, 0, "shop", Rtype::A), "NOERROR 10.213.0.3");
        // Who may not know the workload hears of the machine, as everybody does.
        assert_eq!(ask_of(&names, 3, "shop", Rtype::A), "NOERROR 10.213.0.1");
    }

    #[test]
    fn strangers_are_nobody() {
        let names = names();
        assert_eq!(names.member("10.213.0.4".parse().unwrap()), Some(2));
        assert_eq!(names.member("fd00::4".parse().unwrap()), Some(2));
        assert_eq!(names.member("10.213.0.1".parse().unwrap()), None);
        assert_eq!(names.member("192.0.2.1".parse().unwrap()), None);
    }
}
