//! `reach`: what alone a workload or pod may connect to.

use std::collections::{BTreeMap, BTreeSet};

use super::{Endpoint, Reach};
use crate::boot::{Network, Protocol};
use crate::diagnostic::{Diagnostic, suggest};
use crate::manifest::{Manifest, Text};
use crate::mistakes::Mistakes;
use crate::network::port::port_number;
use crate::pod::Pod;
use crate::value::{Parsed, wrong};
use crate::workload::Workload;

const OUTSIDE: &str = "outside";

/// One entry: `outside`, `db`, `db:6379`, `db:53/udp`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    name: String,
    port: Option<(u16, Protocol)>,
}

fn entry(text: &Text) -> Parsed<Entry> {
    let whole = text.get_ref().as_str();
    let refuse = || {
        let hint = "as in \"db\", \"db:6379\", \"db:53/udp\" or \"outside\"";
        wrong(text, "is nothing to reach", hint)
    };
    let (place, protocol) = match whole.split_once('/') {
        None => (whole, Protocol::Tcp),
        Some((place, "tcp")) => (place, Protocol::Tcp),
        Some((place, "udp")) => (place, Protocol::Udp),
        Some((_, other)) => {
            let what = format!("has the unknown protocol `{other}`");
            return Err(wrong(text, what, suggest(other, ["tcp", "udp"])));
        }
    };
    let (name, port) = match place.split_once(':') {
        None if place == whole => (place, None),
        None => return Err(refuse()),
        Some((name, port)) => (name, Some(port_number(port).ok_or_else(refuse)?)),
    };
    if name == OUTSIDE && port.is_some() {
        let hint = "write \"outside\": what of it is reached, others' firewalls decide";
        return Err(wrong(text, "has a port", hint));
    }
    Ok(Entry {
        name: name.to_owned(),
        port: port.map(|port| (port, protocol)),
    })
}

/// Fills in what each endpoint reaches; what makes no sense is told.
pub(super) fn resolve(
    endpoints: &mut [Endpoint],
    manifest: &Manifest,
    workloads: &[Workload],
    pods: &[Pod],
    mistakes: &mut Mistakes,
) {
    refuse_without_network(manifest, workloads, pods, mistakes);
    let targets = Targets::new(endpoints, manifest, workloads);
    let resolved: Vec<Option<Vec<Reach>>> = endpoints
        .iter()
        .map(|endpoint| {
            let name = endpoint.name.as_str();
            let said = match endpoint.is_pod {
                true => manifest.pod.get(name)?.reach.as_ref(),
                false => manifest.workload.get(name)?.reach.as_ref(),
            };
            let texts = said?.get_ref();
            let reached = texts.iter().filter_map(|text| {
                let found = entry(text).and_then(|entry| targets.find(endpoint, text, &entry));
                mistakes.take(found)
            });
            Some(reached.flatten().collect())
        })
        .collect();
    for (endpoint, reach) in endpoints.iter_mut().zip(resolved) {
        endpoint.reach = reach;
    }
}

/// Who has the machine's network reaches what it reaches, and who has none reaches nothing.
fn refuse_without_network(
    manifest: &Manifest,
    workloads: &[Workload],
    pods: &[Pod],
    mistakes: &mut Mistakes,
) {
    let lone = workloads.iter().filter(|w| w.pod.is_none());
    let of_workloads = lone.filter_map(|w| {
        let table = manifest.workload.get(w.name.as_str())?;
        Some((w.network, table.reach.as_ref()?))
    });
    let of_pods = pods.iter().filter_map(|pod| {
        let table = manifest.pod.get(pod.name.as_str())?;
        Some((pod.network, table.reach.as_ref()?))
    });
    for (network, said) in of_workloads.chain(of_pods) {
        let what = match network {
            Network::Own => continue,
            Network::Host => "`reach` without a network of its own",
            Network::None => "`reach` without a network",
        };
        mistakes.push(
            Diagnostic::at(said.span(), what)
                .hint("remove it, or write network = \"own\" or the name of a network"),
        );
    }
}

/// What names lead to.
struct Targets<'a> {
    endpoints: &'a [Endpoint],
    /// Endpoints by all their names.
    by_name: BTreeMap<&'a str, usize>,
    /// The machine's ports that are a workload's, with the workload's name for each.
    machine: BTreeMap<&'a str, Vec<(u16, u16, Protocol)>>,
}

impl<'a> Targets<'a> {
    fn new(endpoints: &'a [Endpoint], manifest: &'a Manifest, workloads: &'a [Workload]) -> Self {
        let mut by_name = BTreeMap::new();
        for (index, endpoint) in endpoints.iter().enumerate() {
            by_name.extend(endpoint.names.iter().map(|name| (name.as_str(), index)));
        }
        let mut machine: BTreeMap<&str, Vec<(u16, u16, Protocol)>> = BTreeMap::new();
        for workload in workloads {
            let ports = machine.entry(&workload.name).or_default();
            if workload.network == Network::Host {
                let of_port = |p: &super::Port| (p.target, p.last_target(), p.protocol);
                ports.extend(workload.ports.iter().map(of_port));
            }
            for socket in &workload.sockets {
                let socket = manifest.socket.get(socket.as_str());
                let endpoint = socket.and_then(|s| crate::socket::listens_on(&s.listen));
                ports.extend(endpoint.map(|(port, protocol)| (port, port, protocol)));
            }
        }
        Self {
            endpoints,
            by_name,
            machine,
        }
    }

    fn find(&self, from: &Endpoint, text: &Text, entry: &Entry) -> Parsed<Vec<Reach>> {
        if entry.name == OUTSIDE {
            return match from.leads_outside {
                true => Ok(vec![Reach::Outside]),
                false => Err(wrong(
                    text,
                    "is nowhere from internal networks alone",
                    "remove it, or put it on a network that is not internal, too",
                )),
            };
        }
        let Some(machine) = self.machine.get(entry.name.as_str()) else {
            return match self.by_name.get(entry.name.as_str()) {
                Some(&pod) => self.endpoint(from, text, entry, pod).map(|e| vec![e]),
                None => Err(self.unknown(text, &entry.name)),
            };
        };
        // From internal networks alone there is no way to the machine.
        let machine = if from.leads_outside {
            &machine[..]
        } else {
            &[]
        };
        let fits = |(first, last, protocol): &&(u16, u16, Protocol)| match entry.port {
            None => true,
            Some((port, wanted)) => (*first..=*last).contains(&port) && wanted == *protocol,
        };
        let mut reached: Vec<Reach> = machine
            .iter()
            .filter(fits)
            .map(|&(first, last, protocol)| match entry.port {
                None => Reach::Machine {
                    first,
                    last,
                    protocol,
                },
                Some((port, _)) => Reach::Machine {
                    first: port,
                    last: port,
                    protocol,
                },
            })
            .collect();
        match self.by_name.get(entry.name.as_str()) {
            // One that also serves by the machine's sockets need not be reached in another way.
            Some(&index) => match self.endpoint(from, text, entry, index) {
                Ok(endpoint) => reached.push(endpoint),
                Err(mistake) if reached.is_empty() => return Err(mistake),
                Err(_) => {}
            },
            None if reached.is_empty() => return Err(no_port(from, text, entry)),
            None => {}
        }
        Ok(reached)
    }

    fn endpoint(&self, from: &Endpoint, text: &Text, entry: &Entry, index: usize) -> Parsed<Reach> {
        let to = &self.endpoints[index];
        let direct = to
            .networks
            .iter()
            .any(|network| from.networks.contains(network));
        if !direct && from.leads_outside && !to.ports.is_empty() {
            return self.published(text, entry, index);
        }
        if !direct {
            let what = format!(
                "`{}` and `{}` have no network in common",
                from.name, to.name
            );
            let hint = format!(
                "put both on one: network = [\"{}\", …]",
                to.networks.first().map_or("", String::as_str)
            );
            return Err(Diagnostic::at(text.span(), what).hint(hint));
        }
        Ok(Reach::Endpoint {
            index,
            port: entry.port,
            direct,
        })
    }

    /// Another network's, by what it publishes.
    fn published(&self, text: &Text, entry: &Entry, index: usize) -> Parsed<Reach> {
        let to = &self.endpoints[index];
        let leads_to = |port: &super::Port, (wanted, protocol): (u16, Protocol)| {
            (port.target..=port.last_target()).contains(&wanted) && port.protocol == protocol
        };
        let is_published =
            |wanted: (u16, Protocol)| to.ports.iter().any(|port| leads_to(port, wanted));
        if entry.port.is_none_or(is_published) {
            return Ok(Reach::Endpoint {
                index,
                port: entry.port,
                direct: false,
            });
        }
        let what = format!(
            "`{}`: `{}` does not publish this port, and they have no network in common",
            text.get_ref(),
            to.name
        );
        let hint = format!(
            "name the port that it listens on and publishes, or put both on one: network = [\"{}\", …]",
            to.networks.first().map_or("", String::as_str)
        );
        Err(Diagnostic::at(text.span(), what).hint(hint))
    }

    fn unknown(&self, text: &Text, name: &str) -> Diagnostic {
        let known = self.machine.keys().chain(self.by_name.keys()).copied();
        // Most workloads are known in both ways.
        let known: BTreeSet<&str> = known.chain([OUTSIDE]).collect();
        let what = format!("`{name}`: there is no workload or pod of that name to reach");
        Diagnostic::at(text.span(), what).hint(suggest(name, known))
    }
}

/// The named one has the machine's network, and there no port that is meant.
fn no_port(from: &Endpoint, text: &Text, entry: &Entry) -> Diagnostic {
    let (said, name) = (text.get_ref(), &entry.name);
    if !from.leads_outside {
        let what = format!("`{said}` is nowhere from internal networks alone");
        let hint = "remove it, or put it on a network that is not internal, too";
        return Diagnostic::at(text.span(), what).hint(hint);
    }
    let what = match entry.port {
        None => format!("`{name}` has no port that anybody reaches"),
        Some(_) => format!("`{said}`: `{name}` does not have this port"),
    };
    let hint = "it has no network of its own: only its `ports` and sockets can be reached";
    Diagnostic::at(text.span(), what).hint(hint)
}
