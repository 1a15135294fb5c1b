//! Keys that take one of a few words; a test holds each word against the parser.

/// Key, its words.
pub(super) const WORDS: [(&str, &[&str]); 12] = [
    ("hardware.profile", &["vm", "cloud", "metal", "none"]),
    ("state.on_damage", &["keep", "reset", "halt"]),
    ("failure.action", &["reboot", "poweroff", "halt"]),
    ("firewall.inbound", &["drop", "accept"]),
    ("firewall.allow.protocol", &["tcp", "udp"]),
    ("network.interface.*.ipv6", &["auto", "static", "off"]),
    ("workload.*.kind", &["service", "job"]),
    ("workload.*.restart", &["always", "on-failure", "never"]),
    ("workload.*.user_namespace", &["own", "host"]),
    ("workload.*.pid_namespace", &["own", "host"]),
    ("pod.*.user_namespace", &["own", "host"]),
    (
        "network.interface.*.bond.mode",
        &[
            "balance-rr",
            "active-backup",
            "balance-xor",
            "broadcast",
            "802.3ad",
            "balance-tlb",
            "balance-alb",
        ],
    ),
];

/// The words of a key.
pub(super) fn of(path: &str) -> Option<&'static [&'static str]> {
    let found = WORDS.iter().find(|(key, _)| *key == path);
    found.map(|(_, words)| *words)
}
