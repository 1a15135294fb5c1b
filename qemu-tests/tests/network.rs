//! Workloads with networks of their own: who reaches whom, as those see it who try. What restarts leave is seen in
//! `restarts.rs`.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use qemu_tests::{Boot, BootFiles, Case, Coracle, Image, VmBuilder, seconds};

const BOOT_TIME: std::time::Duration = seconds(300);
/// An answer takes long on a host that is busy itself, but it comes.
const ANSWER_TIME: std::time::Duration = seconds(60);

/// Servers say whom they see; everybody else tries. `@NAME@` and `@NAME6@` stand for addresses.
const MACHINE: &str = r#"
name = "street"

[network.named.front]

[network.named.back]
internal = true

[pod.store]
network = "back"

[workload.web]
network = ["front", "back"]
debian = ["busybox-static", "socat"]
command = ["busybox", "sh", "/go"]
user = "1000"
ports = ["8080:80", "127.0.0.1:8081:80", "9000-9001:80-81", "5300:53/udp"]
files = [
  { path = "/say", content = "read line; echo web saw $SOCAT_PEERADDR\n" },
  { path = "/log", content = "read line; echo web saw $SOCAT_PEERADDR; echo $line by $SOCAT_PEERADDR >&2\n" },
  { path = "/ask", content = """@ask@""" },
  { path = "/go", content = """
socat TCP4-LISTEN:80,fork,reuseaddr EXEC:'busybox sh /say' &
socat TCP4-LISTEN:81,fork,reuseaddr EXEC:'busybox sh /say' &
socat TCP6-LISTEN:80,ipv6only=1,fork,reuseaddr EXEC:'busybox sh /say' &
socat UDP4-RECVFROM:53,fork EXEC:'busybox sh /log' &
. /ask
must itself TCP4:10.0.2.15:8080
must member TCP:db:5432
echo done
wait
""" },
]

[workload.db]
pod = "store"
debian = ["busybox-static", "socat"]
command = ["busybox", "sh", "/go"]
files = [
  { path = "/say", content = "read line; echo db saw $SOCAT_PEERADDR\n" },
  { path = "/ask", content = """@ask@""" },
  { path = "/go", content = """
socat TCP4-LISTEN:5432,fork,reuseaddr EXEC:'busybox sh /say' &
. /ask
must web TCP4:@web@:80
cannot outside TCP4:10.0.2.2:@outside@
cannot peer TCP4:@peer@:80
echo done
wait
""" },
]

[workload.peer]
network = "front"
debian = ["busybox-static", "socat"]
command = ["busybox", "sh", "/go"]
files = [
  { path = "/say", content = "read line; echo peer saw $SOCAT_PEERADDR\n" },
  { path = "/ask", content = """@ask@""" },
  { path = "/go", content = """
socat TCP4-LISTEN:80,fork,reuseaddr EXEC:'busybox sh /say' &
. /ask
must address TCP4:@web@:80
must six TCP6:[@web6@]:80
must name TCP:web:80
must published TCP4:10.0.2.15:8080
must redirected TCP4:10.0.2.15:8090
must outside TCP4:10.0.2.2:@outside@
cannot db TCP4:@store@:5432
cannot machine TCP4:10.0.2.15:7777
cannot router TCP4:@gateway@:7777
cannot local TCP4:10.0.2.15:8081
echo done
wait
""" },
]

[workload.stranger]
debian = ["busybox-static", "socat"]
network = "own"
command = ["busybox", "sh", "/go"]
files = [
  { path = "/ask", content = """@ask@""" },
  { path = "/go", content = """
. /ask
must published TCP4:10.0.2.15:8080
cannot web TCP4:@web@:80
cannot six TCP6:[@web6@]:80
cannot name TCP:web:80
echo done
busybox sleep 100000
""" },
]

[workload.narrow]
network = "front"
reach = ["web:80"]
debian = ["busybox-static", "socat"]
command = ["busybox", "sh", "/go"]
files = [
  { path = "/ask", content = """@ask@""" },
  { path = "/go", content = """
. /ask
must web TCP4:@web@:80
cannot port TCP4:@web@:81
cannot peer TCP4:@peer@:80
cannot outside TCP4:10.0.2.2:@outside@
echo done
busybox sleep 100000
""" },
]

[workload.hostile]
network = "front"
capabilities = ["CAP_NET_ADMIN", "CAP_NET_RAW"]
debian = ["busybox-static", "socat"]
command = ["busybox", "sh", "/go"]
files = [
  { path = "/ask", content = """@ask@""" },
  { path = "/go", content = """
. /ask
must web TCP4:@web@:80
busybox ip addr add @store@/32 dev eth0
busybox ip addr add @peer@/32 dev eth0
busybox ip addr add @store6@/128 dev eth0
busybox ip addr add 127.0.0.2/8 dev eth0
busybox ip addr add 10.0.2.77/32 dev eth0
echo has $(busybox ip addr show eth0 | busybox grep -c 'inet ') addresses
cannot web-as-store TCP4:@web@:80,bind=@store@
cannot web-as-peer TCP4:@web@:80,bind=@peer@
cannot web-as-store6 TCP6:[@web6@]:80,bind=[@store6@]
cannot web-as-outside TCP4:@web@:80,bind=10.0.2.77
for n in 1 2 3; do echo forged | socat -t 1 - UDP4:@web@:53,bind=@peer@; done
until echo true | socat -t 10 - UDP4:@web@:53 | busybox grep saw; do busybox sleep 1; done
cannot machine TCP4:10.0.2.15:7777
cannot router TCP4:@gateway@:7777
busybox ip route flush table main
busybox ip route add 10.0.0.0/8 dev eth0
busybox ip neigh flush dev eth0
cannot by-hand TCP4:@store@:5432
echo done
busybox sleep 100000
""" },
]

[workload.keeper]
network = "host"
ports = ["8090:7777"]
debian = ["busybox-static", "socat"]
command = ["busybox", "sh", "/go"]
files = [
  { path = "/say", content = "read line; echo machine saw $SOCAT_PEERADDR\n" },
  { path = "/ask", content = """@ask@""" },
  { path = "/go", content = """
socat TCP4-LISTEN:7777,fork,reuseaddr EXEC:'busybox sh /say' &
. /ask
must published TCP4:127.0.0.1:8080
must local TCP4:127.0.0.1:8081
must db TCP4:@store@:5432
must redirected TCP4:127.0.0.1:8090
echo hears routers on $(busybox grep -l [12] /proc/sys/net/ipv6/conf/*/accept_ra | busybox grep -cvE '/(all|lo)/') of $(busybox ls /sys/class/net | busybox wc -l) links
echo done
wait
""" },
]
"#;

/// What everybody asks by: a question that must be answered at some time, and one that must never be.
const ASK: &str = r#"
ask() { echo q | socat -t 30 - $1,connect-timeout=10 2>/dev/null; }
must() { until answer=$(ask $2) && [ "$answer" ]; do busybox sleep 1; done; echo "$1: $answer"; }
cannot() { answer=$(ask $2); if [ "$answer" ]; then echo "BREACH $1: $answer"; else echo "kept from $1"; fi; }
"#;

/// The machine's file with the addresses that follow from it.
fn machine(outside: u16) -> Result<String> {
    let text = MACHINE
        .replace("@ask@", ASK)
        .replace("@outside@", &outside.to_string());
    let spec = config::parse(&text)
        .map_err(|mistakes| anyhow::anyhow!("{}", mistakes.render("street.toml", &text)))?;
    let fabric = &spec.fabric;
    let mut text = text.replace("@gateway@", &fabric.gateway.to_string());
    for endpoint in &fabric.endpoints {
        let name = &endpoint.name;
        text = text
            .replace(&format!("@{name}@"), &endpoint.address.to_string())
            .replace(&format!("@{name}6@"), &endpoint.address6.to_string());
    }
    Ok(text)
}

/// Whoever connects is answered, as a server outside that a workload reaches.
fn answer_forever(listener: TcpListener) {
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let _ = stream.write_all(b"outside answers\n");
        }
    });
}

/// What is answered; an error, too, if nothing is.
fn ask_once(address: SocketAddrV4) -> Result<String> {
    let mut answer = String::new();
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(seconds(20)))?;
    stream.write_all(b"q\n")?;
    stream.read_to_string(&mut answer)?;
    ensure!(!answer.is_empty(), "nothing");
    Ok(answer)
}

fn ask(address: SocketAddrV4) -> Result<String> {
    let deadline = Instant::now() + ANSWER_TIME;
    loop {
        match ask_once(address) {
            Ok(answer) => return Ok(answer),
            Err(error) => ensure!(Instant::now() < deadline, "{address}: {error:#}"),
        }
        std::thread::sleep(seconds(1));
    }
}

fn ask_by_udp(port: u16) -> Result<String> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_read_timeout(Some(seconds(2)))?;
    let deadline = Instant::now() + ANSWER_TIME;
    let mut buffer = [0; 100];
    while Instant::now() < deadline {
        socket.send_to(b"q\n", (Ipv4Addr::LOCALHOST, port))?;
        if let Ok(size) = socket.recv(&mut buffer) {
            return Ok(String::from_utf8_lossy(&buffer[..size]).into_owned());
        }
    }
    bail!("no answer by UDP")
}

#[test]
fn workloads_reach_whom_the_file_says() -> Result<()> {
    let case = Case::new("network")?;
    let outside = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let text = machine(outside.local_addr()?.port())?;
    answer_forever(outside);
    let spec = config::parse(&text).ok().context("parsed before")?;
    let address = |name| spec.fabric.endpoint(name).map(|e| e.address.to_string());
    let image = Image::open(Coracle::new(&case).build("street", &text)?)?;
    let files = BootFiles::of_image(&case, &image)?;
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port();
    let vm = VmBuilder::new(&case, "direct", image.path().to_owned()).boot(Boot::Direct(&files));
    let vm = vm
        .forward(8080)?
        .forward(9001)?
        .forward(8090)?
        .forward(7777)?
        .forward_udp(udp, 5300);
    let mut vm = vm.start()?;
    vm.expect("stage ready", BOOT_TIME)?;
    for port in [8080, 9001] {
        let answer = ask(vm.address(port)?)?;
        ensure!(answer.contains("web saw 10.0.2.2"), "port {port}: {answer}");
    }
    let answer = ask(vm.address(8090)?)?;
    ensure!(answer.contains("machine saw 10.0.2.2"), "{answer}");
    let answer = ask_once(vm.address(7777)?);
    ensure!(answer.is_err(), "the target itself is open: {answer:?}");
    let answer = ask_by_udp(udp)?;
    ensure!(answer.contains("web saw 10.0.2.2"), "{answer}");
    let names = [
        "web", "db", "peer", "stranger", "narrow", "hostile", "keeper",
    ];
    let mut waiting: Vec<String> = names.iter().map(|name| format!("{name} | done")).collect();
    let deadline = Instant::now() + 3 * BOOT_TIME;
    while !waiting.is_empty() {
        let lines = vm.lines();
        waiting.retain(|sign| !lines.iter().any(|line| line.contains(sign.as_str())));
        ensure!(Instant::now() < deadline, "no {waiting:?}");
        std::thread::sleep(seconds(1));
    }
    let lines = vm.lines();
    let peer = address("peer").context("peer")?;
    let gateway = spec.fabric.gateway.to_string();
    for sign in [
        format!("peer | address: web saw {peer}"),
        "peer | six: web saw [".to_owned(),
        "peer | name: web saw ".to_owned(),
        format!("peer | published: web saw {peer}"),
        "peer | outside: outside answers".to_owned(),
        "peer | kept from db".to_owned(),
        "peer | kept from machine".to_owned(),
        "peer | kept from router".to_owned(),
        "peer | kept from local".to_owned(),
        "db | web: web saw ".to_owned(),
        "db | kept from outside".to_owned(),
        "stranger | published: web saw ".to_owned(),
        "stranger | kept from web".to_owned(),
        "stranger | kept from six".to_owned(),
        "stranger | kept from name".to_owned(),
        "narrow | web: web saw ".to_owned(),
        "narrow | kept from port".to_owned(),
        "narrow | kept from outside".to_owned(),
        "hostile | has 5 addresses".to_owned(),
        "hostile | kept from web-as-peer".to_owned(),
        "hostile | kept from by-hand".to_owned(),
        "web | true by ".to_owned(),
        "web | member: db saw ".to_owned(),
        format!("web | itself: web saw {gateway}"),
        format!("keeper | published: web saw {gateway}"),
        format!("keeper | local: web saw {gateway}"),
        format!("keeper | db: db saw {gateway}"),
        "keeper | hears routers on 1 of ".to_owned(),
        format!("peer | redirected: machine saw {peer}"),
        "keeper | redirected: machine saw ".to_owned(),
    ] {
        ensure!(lines.iter().any(|line| line.contains(&sign)), "no {sign}");
    }
    vm.refute("BREACH")?;
    vm.refute("web | forged by")?;
    vm.refute("fabric ended")?;
    vm.power_down()
}
