//! What a machine tells its workloads of names, and itself of the time: with a name server and a time server of the
//! test's own, which are workloads of the machine.

use std::time::Instant;

use anyhow::{Result, ensure};
use qemu_tests::{Boot, BootFiles, Case, Coracle, Image, VmBuilder, seconds};

const BOOT_TIME: std::time::Duration = seconds(300);

/// The time server is an hour ahead of the clock at first, which has it set, and later by a fifth of a second, which has
/// it drawn.
const MACHINE: &str = r#"
name = "street"

[network]
hostname = "street-7"
dns = ["127.0.0.1"]
search = ["example.org"]
ntp = ["127.0.0.1"]

[network.named.front]

[network.named.back]
internal = true

[pod.store]
network = "back"

[workload.upstream]
network = "host"
debian = ["busybox-static", "dnsmasq-base", "socat"]
user_namespace = "host"
capabilities = ["CAP_NET_BIND_SERVICE", "CAP_SETUID", "CAP_SETGID"]
command = ["busybox", "sh", "/go"]
files = [
  { path = "/tell", content = '''
file=/tmp/q/$$
busybox dd of=$file bs=48 count=1 2>/dev/null
ahead=0
[ $(busybox ls /tmp/q | busybox wc -l) -gt 4 ] || ahead=3600
bytes() { printf '\\%03o\\%03o\\%03o\\%03o' $(($1 >> 24 & 255)) $(($1 >> 16 & 255)) $(($1 >> 8 & 255)) $(($1 & 255)); }
stamp() {
  time=$(busybox stat -c %z $1)
  part=1${time#*.}
  part=$((${part%% *} - 1000000000 + 200000000))
  seconds=$(($(busybox stat -c %Z $1) + ahead + part / 1000000000 + 2208988800))
  bytes $seconds
  bytes $((part % 1000000000 * 65536 / 1000000000 << 16))
}
came=$(stamp $file)
answer=/tmp/$$
printf '\044\001\006\354' > $answer
busybox head -c 20 /dev/zero >> $answer
busybox tail -c 8 $file >> $answer
printf "$came$(stamp $answer)" >> $answer
busybox cat $answer
''' },
  { path = "/go", content = """
busybox mkdir -p /tmp/q
dnsmasq -k --user=root --no-resolv --no-hosts --listen-address=127.0.0.1 --bind-interfaces --pid-file= --local=/example.org/ --host-record=host.example.org,198.51.100.7,2001:db8::7 --host-record=web.example.org,198.51.100.66 --log-queries --log-facility=- 2>&1 &
socat UDP4-RECVFROM:123,bind=127.0.0.1,fork EXEC:'busybox sh /tell' &
wait
""" },
]

[workload.web]
network = ["front", "back"]
debian = ["busybox-static"]
command = ["busybox", "sleep", "100000"]

[workload.db]
pod = "store"
debian = ["busybox-static"]
command = ["busybox", "sh", "/go"]
files = [
  { path = "/say", content = """@say@""" },
  { path = "/go", content = """
. /say
say db web.
say db nobody.
echo done
busybox sleep 100000
""" },
]

[workload.peer]
network = "front"
debian = ["busybox-static"]
command = ["busybox", "sh", "/go"]
files = [
  { path = "/say", content = """@say@""" },
  { path = "/go", content = """
. /say
busybox cat /etc/resolv.conf
say peer web.
say peer db.
say peer store.
say peer no-such-name.
say peer street-7.
say peer host.example.org
say peer missing.example.org
echo done
busybox sleep 100000
""" },
]
"#;

/// Asks until there is an answer of either kind, as a name server may start after who asks it. A dot at the end keeps
/// busybox from adding the search domain, as C libraries do not by `ndots:0`.
const SAY: &str = r#"
set -f
say() {
  until text=$(busybox nslookup -type=a $2 2>&1); echo "$text" | busybox grep -q -e NXDOMAIN -e "^Name"; do busybox sleep 1; done
  echo "$1 asks $2:" $(echo "$text" | busybox grep -A9 -e NXDOMAIN -e "^Name")
}
"#;

#[test]
fn names_are_told_on_a_common_network_and_the_clock_is_set() -> Result<()> {
    let case = Case::new("names")?;
    let text = MACHINE.replace("@say@", SAY);
    let spec = config::parse(&text)
        .map_err(|mistakes| anyhow::anyhow!("{}", mistakes.render("street.toml", &text)))?;
    let fabric = &spec.fabric;
    let address = |name: &str| {
        let endpoint = fabric.endpoint(name);
        endpoint.map_or_else(String::new, |endpoint| endpoint.address.to_string())
    };
    let image = Image::open(Coracle::new(&case).build("street", &text)?)?;
    let files = BootFiles::of_image(&case, &image)?;
    let vm = VmBuilder::new(&case, "direct", image.path().to_owned()).boot(Boot::Direct(&files));
    let mut vm = vm.start()?;
    vm.expect("stage ready", BOOT_TIME)?;
    let web = address("web");
    let mut waiting = vec![
        format!("peer | nameserver {}", fabric.gateway),
        "peer | search example.org".to_owned(),
        format!("peer asks web.: Name: web Address: {web}"),
        "peer asks db.: ** server can't find db.: NXDOMAIN".to_owned(),
        "peer asks store.: ** server can't find store.: NXDOMAIN".to_owned(),
        "peer asks no-such-name.: ** server can't find no-such-name.: NXDOMAIN".to_owned(),
        format!(
            "peer asks street-7.: Name: street-7 Address: {}",
            fabric.gateway
        ),
        "peer asks host.example.org: Name: host.example.org Address: 198.51.100.7".to_owned(),
        "peer asks missing.example.org: ** server can't find missing.example.org".to_owned(),
        "peer | done".to_owned(),
        format!("db asks web.: Name: web Address: {web}"),
        "db asks nobody.: ** server can't find nobody.: NXDOMAIN".to_owned(),
        "ntp: clock stepped by +3".to_owned(),
        "ntp: clock off by +".to_owned(),
    ];
    let deadline = Instant::now() + BOOT_TIME;
    while !waiting.is_empty() {
        let lines = vm.lines();
        waiting.retain(|sign| !lines.iter().any(|line| line.contains(sign)));
        ensure!(Instant::now() < deadline, "no {waiting:#?}");
        std::thread::sleep(seconds(1));
    }
    // No name of one label has left the machine.
    let lines = vm.lines();
    for name in ["web", "db", "store", "no-such-name", "street-7", "nobody"] {
        let asked = format!("] {name} from ");
        ensure!(
            !lines.iter().any(|line| line.contains(&asked)),
            "{name} was asked for"
        );
    }
    ensure!(
        lines
            .iter()
            .any(|line| line.contains("] host.example.org from 127.0.0.1"))
    );
    Ok(())
}
