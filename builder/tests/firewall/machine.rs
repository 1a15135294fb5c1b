//! A machine of namespaces: the machine itself, workloads attached as init attaches them, and the outside.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use builder::firewall::compile;
use config::spec::Spec;

use crate::namespace::Namespace;

/// How long nothing may come of a connection before it counts as dropped.
const PATIENCE: Duration = Duration::from_millis(700);

/// The outside's addresses, and the machine's towards it.
pub(crate) const OUTSIDE: [&str; 2] = ["192.0.2.2", "2001:db8::2"];
pub(crate) const MACHINE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

pub(crate) struct Machine {
    pub(crate) spec: Spec,
    pub(crate) host: Namespace,
    pub(crate) outside: Namespace,
    pub(crate) workloads: BTreeMap<String, Namespace>,
}

impl Machine {
    pub(crate) fn new(text: &str) -> Self {
        let spec = config::parse(text).unwrap();
        let (host, outside) = (Namespace::new("host"), Namespace::new("out"));
        host.ip("link set lo up");
        host.send(compile(&spec).unwrap().messages()).unwrap();
        host.set("ipv4/ip_forward", "1");
        host.set("ipv6/conf/all/forwarding", "1");
        for gateway in gateways(&spec) {
            host.ip(&format!("addr add {gateway} dev lo nodad"));
        }
        host.ip(&format!(
            "link add up0 type veth peer name eth0 netns {}",
            outside.name
        ));
        host.ip("link set up0 group 16 up");
        outside.ip("link set lo up");
        outside.ip("link set eth0 up");
        for (at, length) in [(0, 24), (1, 64)] {
            host.ip(&format!("addr add {}/{length} dev up0 nodad", MACHINE[at]));
            outside.ip(&format!("addr add {}/{length} dev eth0 nodad", OUTSIDE[at]));
            // The outside knows the way to the pool, as somebody hostile beside the machine would.
            let pool = [spec.fabric.pool, spec.fabric.pool6][at];
            outside.ip(&format!("route add {pool} via {}", MACHINE[at]));
        }
        let mut machine = Self {
            workloads: BTreeMap::new(),
            spec,
            host,
            outside,
        };
        machine.attach_all();
        machine
    }

    /// As init's `attach` does, by other means.
    fn attach_all(&mut self) {
        for endpoint in &self.spec.fabric.endpoints {
            let inside = Namespace::new(&endpoint.name);
            let link = &endpoint.link;
            let host = &self.host;
            host.ip(&format!(
                "link add {link} group 8 type veth peer name eth0 netns {}",
                inside.name
            ));
            host.ip(&format!("link set {link} addrgenmode none up"));
            host.set(&format!("ipv4/conf/{link}/route_localnet"), "1");
            inside.ip("link set lo up");
            inside.ip("link set eth0 addrgenmode none up");
            let pairs = [
                (
                    IpAddr::from(endpoint.address),
                    IpAddr::from(self.spec.fabric.gateway),
                ),
                (endpoint.address6.into(), self.spec.fabric.gateway6.into()),
            ];
            let hardware = |namespace: &Namespace, device: &str| {
                let path = format!("/sys/class/net/{device}/address");
                namespace.run(&["cat", &path], None).trim().to_owned()
            };
            let (near, far) = (hardware(host, link), hardware(&inside, "eth0"));
            for (own, gateway) in pairs {
                let length = if own.is_ipv4() { 32 } else { 128 };
                host.ip(&format!(
                    "route add {own}/{length} dev {link} src {gateway}"
                ));
                host.ip(&format!(
                    "neigh add {own} lladdr {far} dev {link} nud permanent"
                ));
                inside.ip(&format!("addr add {own}/{length} dev eth0 nodad"));
                inside.ip(&format!(
                    "neigh add {gateway} lladdr {near} dev eth0 nud permanent"
                ));
                let family = if own.is_ipv4() { "-4" } else { "-6" };
                inside.ip(&format!(
                    "{family} route add default via {gateway} dev eth0 onlink"
                ));
            }
            inside.set("ipv4/ip_unprivileged_port_start", "0");
            self.workloads.insert(endpoint.name.clone(), inside);
        }
    }

    /// A workload's address of that family.
    pub(crate) fn address(&self, name: &str, v6: bool) -> IpAddr {
        let endpoint = self.spec.fabric.endpoint(name).unwrap();
        if v6 {
            endpoint.address6.into()
        } else {
            endpoint.address.into()
        }
    }

    pub(crate) fn gateway(&self, v6: bool) -> IpAddr {
        let fabric = &self.spec.fabric;
        if v6 {
            fabric.gateway6.into()
        } else {
            fabric.gateway.into()
        }
    }

    pub(crate) fn workload(&self, name: &str) -> &Namespace {
        &self.workloads[name]
    }
}

fn gateways(spec: &Spec) -> [IpAddr; 2] {
    [spec.fabric.gateway.into(), spec.fabric.gateway6.into()]
}

/// What a client sees.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The server's own name, and the client's address as the server sees it.
    Answer(String, IpAddr),
    /// Nobody listens there: the firewall lets it through.
    Refused,
    /// Nothing comes back.
    Dropped,
}

/// Serves by TCP and UDP on a port of a namespace for as long as the test runs; each answer is the server's name and whom it
/// sees.
pub(crate) fn serve(namespace: &Namespace, name: &'static str, port: u16) {
    let (tcp, udp) = namespace.within(move || {
        let any = SocketAddr::new(IpAddr::from([0_u16; 8]), port);
        (
            TcpListener::bind(any).unwrap(),
            UdpSocket::bind(any).unwrap(),
        )
    });
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            let peer = stream.peer_addr().unwrap().ip().to_canonical();
            let _ = write!(stream, "{name} {peer}");
        }
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
            let text = format!("{name} {}", peer.ip().to_canonical());
            let _ = udp.send_to(text.as_bytes(), peer);
        }
    });
}

/// Connects from a namespace by TCP.
pub(crate) fn connect(from: &Namespace, to: IpAddr, port: u16) -> Seen {
    from.within(move || {
        let mut stream = match TcpStream::connect_timeout(&(to, port).into(), PATIENCE) {
            Ok(stream) => stream,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Seen::Refused,
            Err(_) => return Seen::Dropped,
        };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut text = String::new();
        match stream.read_to_string(&mut text) {
            Ok(_) => answer(&text),
            Err(_) => Seen::Dropped,
        }
    })
}

/// Asks from a namespace by UDP, maybe from an address of the caller's choice.
pub(crate) fn ask(from: &Namespace, to: IpAddr, port: u16, source: Option<IpAddr>) -> Seen {
    from.within(move || {
        let any = if to.is_ipv4() {
            IpAddr::from([0; 4])
        } else {
            IpAddr::from([0_u16; 8])
        };
        let socket = UdpSocket::bind((source.unwrap_or(any), 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        // Connected, so that a refusal is heard.
        if socket.connect((to, port)).is_err() || socket.send(b"?").is_err() {
            return Seen::Dropped;
        }
        let mut buffer = [0; 256];
        match socket.recv(&mut buffer) {
            Ok(size) => answer(&String::from_utf8_lossy(&buffer[..size])),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Seen::Refused,
            Err(_) => Seen::Dropped,
        }
    })
}

fn answer(text: &str) -> Seen {
    let (name, peer) = text.split_once(' ').unwrap();
    Seen::Answer(name.to_owned(), peer.parse().unwrap())
}
