//! Network devices of the host that move into the container.

use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Bundle, bundle};

/// A pair of virtual devices of the host, `a` with addresses; removed at the end if they are still there.
struct Pair {
    a: String,
    b: String,
}

impl Pair {
    fn new() -> Option<Self> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |end: char| format!("c{}{end}{number}", std::process::id());
        let pair = Self {
            a: name('a'),
            b: name('b'),
        };
        let made = ip(&[
            "link", "add", &pair.a, "type", "veth", "peer", "name", &pair.b,
        ]);
        if let Err(reason) = made {
            eprintln!("skipped: no pair of virtual network devices: {reason}");
            return None;
        }
        ip(&["address", "add", "192.0.2.7/24", "dev", &pair.a]).expect("an address");
        Some(pair)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // Either takes the other with it.
        let _ = ip(&["link", "delete", &self.b]);
        let _ = ip(&["link", "delete", &self.a]);
    }
}

fn ip(words: &[&str]) -> Result<String, String> {
    let output = Command::new("ip").args(words).output();
    let output = output.map_err(|error| format!("ip: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    }
}

fn on_host(name: &str) -> bool {
    ip(&["link", "show", "dev", name]).is_ok()
}

fn with_network(mut bundle: Bundle, devices: Value) -> Bundle {
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut();
    namespaces
        .expect("a list")
        .push(json!({ "type": "network" }));
    bundle.with("/linux/netDevices", devices)
}

#[test]
fn device_moves_in_with_its_new_name_and_its_address_and_is_up() {
    let (Some(bundle), Some(pair)) = (bundle(), Pair::new()) else {
        return;
    };
    let devices = json!({ pair.a.as_str(): { "name": "eth%d" } });
    let bundle = with_network(bundle, devices).command(
        "cat /sys/class/net/eth0/flags ; cat /proc/net/fib_trie ; list /sys/class/net ; sleep 1000",
    );
    let id = bundle.id.as_str();
    bundle.runtime(&["run", "--detach", id]).good();
    assert!(!on_host(&pair.a));
    let inside = |words: &[&str]| {
        let words = [&["exec", id, "/bin/helper"], words].concat();
        bundle.runtime(&words).good()
    };
    let flags = inside(&["cat", "/sys/class/net/eth0/flags"]);
    let flags = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16);
    assert_eq!(flags.expect("a number") & 1, 1, "it is up");
    let routes = inside(&["cat", "/proc/net/fib_trie"]);
    assert!(routes.contains("192.0.2.7"), "{routes}");
    let names = inside(&["list", "/sys/class/net"]);
    assert!(
        names.contains("eth0") && !names.contains(&pair.a),
        "{names}"
    );
}

#[test]
fn devices_come_back_from_a_container_that_cannot_be_made() {
    let (Some(bundle), Some(pair), Some(other)) = (bundle(), Pair::new(), Pair::new()) else {
        return;
    };
    // The second has no free name.
    let taken = json!({ pair.a.as_str(): { "name": "x" }, other.a.as_str(): { "name": "lo0" }, "no-such": {} });
    let bundle = with_network(bundle, taken);
    let failure = bundle.run().failure();
    assert!(failure.contains("no-such"), "{failure}");
    bundle.assert_gone();
    let addresses = ip(&["address", "show", "dev", &pair.a]).expect("it is back");
    assert!(addresses.contains("192.0.2.7/24"), "{addresses}");
    // The set-up fails after the move.
    let devices = json!({ other.a.as_str(): {} });
    let bundle = bundle
        .with("/linux/netDevices", devices)
        .with("/process/args", json!(["/no/such/program"]));
    bundle.run().failure();
    let addresses = ip(&["address", "show", "dev", &other.a]).expect("it is back");
    assert!(addresses.contains("192.0.2.7/24"), "{addresses}");
}

#[test]
fn device_whose_addresses_cannot_be_set_in_the_container_comes_back() {
    let (Some(bundle), Some(pair)) = (bundle(), Pair::new()) else {
        return;
    };
    let address = "2001:db8::7/64";
    let holder = format!("coracle-{}", pair.a);
    let add = ["address", "add", address, "dev", &pair.a, "nodad"];
    let made = ip(&add).and_then(|_| ip(&["netns", "add", &holder]));
    if let Err(reason) = made {
        eprintln!("skipped: no IPv6 or no named network namespace: {reason}");
        return;
    }
    let without_ipv6 = "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6";
    let set = ip(&["netns", "exec", &holder, "sh", "-c", without_ipv6]);
    let path = format!("/run/netns/{holder}");
    let mut bundle = bundle.with("/linux/netDevices", json!({ pair.a.as_str(): {} }));
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut();
    let namespace = json!({ "type": "network", "path": path });
    namespaces.expect("a list").push(namespace);
    let output = bundle.run();
    let addresses = ip(&["address", "show", "dev", &pair.a]);
    ip(&["netns", "delete", &holder]).expect("deleted");
    set.expect("set");
    let failure = output.failure();
    assert!(failure.contains("move network device"), "{failure}");
    let addresses = addresses.expect("it is back");
    for address in ["192.0.2.7/24", address] {
        assert!(addresses.contains(address), "{addresses}");
    }
}

#[test]
fn devices_need_a_network_namespace_and_a_free_name() {
    let (Some(bundle), Some(pair)) = (bundle(), Pair::new()) else {
        return;
    };
    let devices = json!({ pair.a.as_str(): { "name": "y" }, pair.b.as_str(): { "name": "y%d" } });
    let bundle = bundle.with("/linux/netDevices", devices);
    let failure = bundle.run().failure();
    assert!(failure.contains("linux.netDevices"), "{failure}");
    // In a namespace where the name is taken.
    let holder = format!("coracle-{}", pair.a);
    if let Err(reason) = ip(&["netns", "add", &holder]) {
        eprintln!("skipped the rest: no named network namespace: {reason}");
        return;
    }
    ip(&[
        "-n", &holder, "link", "add", "y", "type", "veth", "peer", "name", "z",
    ])
    .expect("made");
    let namespace = json!({ "type": "network", "path": format!("/run/netns/{holder}") });
    let mut bundle = bundle;
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut();
    namespaces.expect("a list").push(namespace);
    let failure = bundle.run().failure();
    let stays = on_host(&pair.a);
    let free = bundle.with(
        "/linux/netDevices",
        json!({ pair.b.as_str(): { "name": "z%d" } }),
    );
    let output = free.run();
    let names = ip(&["-n", &holder, "link", "show"]);
    ip(&["netns", "delete", &holder]).expect("deleted");
    assert!(failure.contains("\"y\" already") && stays, "{failure}");
    output.good();
    assert!(
        names.expect("there").contains("z0@"),
        "it stays in the namespace"
    );
}
