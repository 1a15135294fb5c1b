//! That the messages are what nft(8) makes of the text, and that they grow as the machine does.

use builder::firewall::{Ruleset, compile};

use crate::namespace::Namespace;

/// All that the language has.
pub(crate) const EVERYTHING: &str = r#"
name = "m"
[network]
addresses = ["10.77.0.0/24", "fd00:77::/64"]
[network.named.front]
[network.named.back]
internal = true
[network.interface.lan]
device = "up0"
dhcp = true
[firewall]
allow = [
    { ports = "22", interface = "lan" },
    { ports = "8000-8010", protocol = "udp", from = ["192.0.2.0/25", "2001:db8::/33", "198.51.100.7"] },
]
[socket.http]
listen = "80"
[socket.local]
listen = "127.0.0.1:81"
[workload.web]
image = "dir:x"
network = ["front", "back"]
ports = ["8080:80", "53:53/udp", "127.0.0.1:8443:443", "[2001:db8::1]:8443:443", "9000-9002:90-92", "20000-29999:20000-29999/udp"]
[workload.db]
image = "dir:x"
network = "back"
[workload.job]
image = "dir:x"
network = "own"
reach = ["outside", "web:80", "metrics", "lazy:80"]
[workload.narrow]
image = "dir:x"
network = "front"
reach = ["web", "web:53/udp", "metrics:9100"]
[workload.metrics]
image = "dir:x"
network = "host"
ports = ["9100:9100", "9101:9102", "127.0.0.1:9200:9201", "10.77.9.9:9300:9300", "40000-49999:40000-49999/udp"]
[workload.lazy]
image = "dir:x"
network = "none"
sockets = ["http", "local"]
"#;

fn ruleset(text: &str) -> Ruleset {
    compile(&config::parse(text).unwrap()).unwrap()
}

/// Rules and sets as nft tells them, without the handles.
fn listed(namespace: &Namespace) -> String {
    namespace.run(&["nft", "-n", "list", "ruleset"], None)
}

fn listed_json(namespace: &Namespace) -> serde_json::Value {
    let text = namespace.run(&["nft", "-j", "list", "ruleset"], None);
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    forget_handles(&mut json);
    json
}

fn forget_handles(json: &mut serde_json::Value) {
    match json {
        serde_json::Value::Object(table) => {
            table.remove("handle");
            table.values_mut().for_each(forget_handles);
            if let Some(serde_json::Value::Array(elements)) = table.get_mut("elem") {
                elements.sort_by_key(ToString::to_string);
            }
        }
        serde_json::Value::Array(list) => list.iter_mut().for_each(forget_handles),
        _ => {}
    }
}

#[test]
fn the_messages_say_what_nft_makes_of_the_text() {
    let hosts_only =
        "name = \"m\"\n[workload.w]\nimage = \"dir:x\"\nnetwork = \"host\"\nports = [\"80:81\"]";
    for text in [EVERYTHING, hosts_only, "name = \"m\""] {
        let ruleset = ruleset(text);
        let (ours, theirs) = (Namespace::new("ours"), Namespace::new("nft"));
        theirs.run(&["nft", "-f", "-"], Some(&ruleset.text()));
        ours.send(ruleset.messages()).unwrap();
        let (own, other) = (listed_json(&ours), listed_json(&theirs));
        if own != other {
            println!("{}\n--- nft's:\n{}", listed(&ours), listed(&theirs));
            panic!("the messages differ from the text");
        }
        // What is there is replaced.
        ours.send(ruleset.messages()).unwrap();
        assert_eq!(listed_json(&ours), own);
    }
}

#[test]
fn five_hundred_workloads_are_five_times_as_much_as_a_hundred() {
    let size = |count: usize| {
        let workloads: String = (0..count)
            .map(|n| {
                format!(
                    "[workload.w{n}]\nimage = \"dir:x\"\nnetwork = \"own\"\nports = [\"{}:80\"]\nreach = [\"outside\", \"w0\"]\n",
                    10_000 + n
                )
            })
            .collect();
        let ruleset = ruleset(&format!("name = \"m\"\n{workloads}"));
        let namespace = Namespace::new("many");
        let messages = ruleset.messages();
        let size = messages.len();
        namespace.send(messages).unwrap();
        let rules: usize = ruleset.chains.iter().map(|chain| chain.rules.len()).sum();
        (size, rules)
    };
    let ((few, few_rules), (many, many_rules)) = (size(100), size(500));
    assert_eq!(few_rules, many_rules);
    assert!(many < few * 5, "{few} and {many} bytes");
}
