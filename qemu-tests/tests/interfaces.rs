//! The machine's interfaces: two machines joined by two cables, with a bond over both, a VLAN in it and a tunnel through
//! that, to a peer whose name leads nowhere at first; cables that are pulled and plugged in again.

use anyhow::Result;
use qemu_tests::{Boot, BootFiles, Case, Coracle, Image, Vm, VmBuilder, free_port, seconds};

const BOOT_TIME: std::time::Duration = seconds(300);
const TIME: std::time::Duration = seconds(120);

const LEFT_KEY: &str = "YMSCm6OLPIhnvphRDJpP01gs8h0UdYgzwTBPEyGULUA=";
const LEFT_PUBLIC: &str = "pN3nZlVxbCBE9ljS1IzUzNx5bvolJIUTV1ytgbMg9hI=";
const RIGHT_KEY: &str = "yF6CCfXWCo8zvKi8U57FlUwNAUNyMtI8NPBxHp5rq0g=";
const RIGHT_PUBLIC: &str = "XTUvUHuGCrtmI2SYoZiGU/fUnJrNpYmepkGbTt91KR0=";
const SHARED_KEY: &str = "O20gSxov2ed6/zOOEyoC+mdfcGsgj5/E5M8bI6ixTxs=";

const INTERFACES: &str = r#"
name = "NAME"

[network]
DNS

[firewall]
inbound = "accept"

[network.interface.uplink]
dhcp = true

[network.interface.lan1]
mac = "52:54:00:00:0a:N1"

[network.interface.lan2]
mac = "52:54:00:00:0a:N2"

[network.interface.back]
bond = { of = ["lan1", "lan2"] }
addresses = ["10.1.0.N/24"]
ipv6 = "static"

[network.interface.v10]
vlan = { id = 10, of = "back" }
addresses = ["10.2.0.N/24"]
ipv6 = "static"

[network.interface.wg0]
addresses = ["10.9.0.N/32"]
wireguard = { key = "wg-key", listen = 51820, peers = [{ public_key = "PUBLIC", preshared_key = "wg-shared", ENDPOINT allowed = ["10.9.0.M/32"] }] }
"#;

const SERVER: &str = r#"
[workload.web]
debian = ["busybox-static"]
command = ["busybox", "httpd", "-f", "-p", "10.9.0.2:8080", "-h", "/www"]
files = [{ path = "/www/index.html", content = "through the tunnel\n" }]
network = "host"
after = ["network"]
restart = "always"

# A name server: where the tunnel's end is, it tells wrongly at first, as it does when that has moved.
[workload.names]
debian = ["perl-base"]
command = ["perl", "/names.pl"]
network = "host"
files = [{ path = "/names.pl", content = '''
use Socket; $| = 1;
socket(my $s, PF_INET, SOCK_DGRAM, 0) or die "$!\n";
bind($s, pack_sockaddr_in(53, INADDR_ANY)) or die "$!\n";
my $asked = 0;
while (my $from = recv($s, my $q, 1500, 0)) {
    my $end = index($q, "\0", 12) + 5; next if $end < 17;
    my $question = substr($q, 12, $end - 12); my $type = unpack("n", substr($question, -4, 2));
    my $answer = "";
    if ($type == 1) {
        my $address = $asked++ ? "10.2.0.2" : "10.2.0.66"; print "told $address\n";
        $answer = pack("n3Nn", 0xc00c, 1, 1, 1, 4) . inet_aton($address);
    }
    send($s, substr($q, 0, 2) . pack("n5", 0x8580, 1, $answer ne "", 0, 0) . $question . $answer, 0, $from);
}
''' }]
"#;

const CLIENT: &str = r#"
[workload.client]
debian = ["perl-base"]
command = ["perl", "/client.pl"]
network = "host"
files = [{ path = "/client.pl", content = '''
use Socket; $| = 1; $SIG{ALRM} = sub { die "late\n" };
for (my $n = 1; ; $n++) {
    my $answer = eval {
        alarm 5;
        socket(my $s, PF_INET, SOCK_STREAM, 0) or die "$!\n";
        connect($s, pack_sockaddr_in(8080, inet_aton("10.9.0.2"))) or die "$!\n";
        syswrite($s, "GET / HTTP/1.0\r\n\r\n");
        my $all = ""; while (sysread($s, my $part, 4096)) { $all .= $part }
        alarm 0; (split /\r\n\r\n/, $all)[1];
    };
    alarm 0; chomp(my $told = $answer // $@); print "try $n: $told\n"; sleep 1;
}
''' }]
"#;

/// What differs: name, own and other number, own key, the other's public key, the socket's kind, who is asked for names,
/// and where the other is.
struct Side {
    name: &'static str,
    number: u8,
    other: u8,
    key: &'static str,
    public: &'static str,
    socket: &'static str,
    dns: &'static str,
    endpoint: &'static str,
}

fn start(case: &Case, side: &Side, workload: &str, ports: [u16; 2]) -> Result<Vm> {
    let machine = [INTERFACES, workload].concat();
    let machine = machine
        .replace("NAME", side.name)
        .replace("PUBLIC", side.public)
        .replace("DNS", side.dns)
        .replace("ENDPOINT", side.endpoint)
        .replace("0a:N", &format!("0a:{}", side.number))
        .replace(".N/", &format!(".{}/", side.number))
        .replace(".M/", &format!(".{}/", side.other));
    let image = Image::open(Coracle::new(case).build(side.name, &machine)?)?;
    let files = BootFiles::of_image(case, &image)?;
    let mut builder =
        VmBuilder::new(case, side.name, image.path().to_owned()).boot(Boot::Direct(&files));
    for (place, port) in (1..).zip(ports) {
        let netdev = format!("socket,id=lan{place},{}=127.0.0.1:{port}", side.socket);
        let mac = format!("52:54:00:00:0a:{}{place}", side.number);
        let device = format!("virtio-net-pci,netdev=lan{place},mac={mac},romfile=");
        builder = builder.extra(&["-netdev", &netdev, "-device", &device]);
    }
    for (name, value) in [("wg-key", side.key), ("wg-shared", SHARED_KEY)] {
        let secret = format!("name=opt/io.systemd.credentials/{name},string={value}");
        builder = builder.extra(&["-fw_cfg", &secret]);
    }
    builder.start()
}

#[test]
fn machines_reach_each_other_by_a_tunnel_in_a_vlan_of_a_bond_and_cables_may_be_pulled() -> Result<()>
{
    let case = Case::new("interfaces")?;
    let ports = [free_port()?, free_port()?];
    let right = Side {
        name: "right",
        number: 2,
        other: 1,
        key: RIGHT_KEY,
        public: LEFT_PUBLIC,
        socket: "listen",
        dns: "",
        endpoint: "",
    };
    let left = Side {
        name: "left",
        number: 1,
        other: 2,
        key: LEFT_KEY,
        public: RIGHT_PUBLIC,
        socket: "connect",
        dns: r#"dns = ["10.2.0.2"]"#,
        endpoint: r#"endpoint = "right.example:51820","#,
    };
    let mut right = start(&case, &right, SERVER, ports)?;
    let mut left = start(&case, &left, CLIENT, ports)?;
    right.expect("network wg0 wg0 10.9.0.2/32", BOOT_TIME)?;
    left.expect(": through the tunnel", BOOT_TIME)?;
    right.expect("names | told 10.2.0.66", TIME)?;
    right.expect("names | told 10.2.0.2", TIME)?;
    for line in [
        "network back back 10.1.0.1/24",
        "network v10 v10 10.2.0.1/24",
        "network wg0 wg0 10.9.0.1/32",
    ] {
        anyhow::ensure!(
            left.lines().iter().any(|said| said.contains(line)),
            "{line}: {:#?}",
            left.lines()
        );
    }
    // One cable is pulled: the other one carries everything.
    left.set_link("lan1", false)?;
    right.set_link("lan1", false)?;
    for _ in 0..3 {
        left.expect(": through the tunnel", TIME)?;
    }
    // Both: the tunnel has no way until one is back.
    left.set_link("lan2", false)?;
    right.set_link("lan2", false)?;
    left.expect("network back lost", TIME)?;
    left.set_link("lan1", true)?;
    right.set_link("lan1", true)?;
    left.expect("network back back 10.1.0.1/24", TIME)?;
    left.expect(": through the tunnel", TIME)?;
    // The lease of before is confirmed.
    left.set_link("net", false)?;
    left.expect("network uplink lost", TIME)?;
    left.set_link("net", true)?;
    left.expect("network uplink eth", TIME)?;
    right.power_down()?;
    left.power_down()
}
