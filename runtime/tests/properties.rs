//! The properties of the fuzz targets, on a bounded number of inputs from a seeded generator: the same on every run.

#[allow(unreachable_pub, reason = "public in the crate of the fuzz targets")]
#[path = "../fuzz/src/properties.rs"]
mod properties;

use serde_json::{Value, json};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let length = self.below(most + 1);
        (0..length).map(|_| self.next() as u8).collect()
    }

    /// Words one after another, so that many are nearly right.
    fn text(&mut self, words: &[&str], most: usize) -> String {
        let count = self.below(most + 1);
        (0..count).map(|_| words[self.below(words.len())]).collect()
    }
}

#[test]
fn compiled_filters_say_what_the_profile_says() {
    let mut random = Random(1);
    for _ in 0..600 {
        properties::seccomp(&random.bytes(400));
    }
}

#[test]
fn user_strings_are_numbers_or_refused() {
    const WORDS: &[&str] = &[
        "0",
        "1",
        "9",
        "1000",
        "4294967294",
        "4294967295",
        "4294967296",
        ":",
        "-",
        "+",
        "x",
        "0x",
        " ",
        "\n",
        "e",
        "18446744073709551616",
        "root",
        "\u{661}",
        "=",
        "_",
    ];
    let mut random = Random(2);
    for _ in 0..3000 {
        properties::user(random.text(WORDS, 4).as_bytes());
        properties::user(&random.bytes(12));
    }
}

#[test]
fn mount_options_are_understood_or_refused() {
    const WORDS: &[&str] = &[
        ",",
        ",",
        ",",
        "ro",
        "rw",
        "bind",
        "rbind",
        "nosuid",
        "suid",
        "noatime",
        "relatime",
        "rro",
        "rnoexec",
        "private",
        "rshared",
        "mode=755",
        "size=1k",
        "=",
        "idmap",
        "tmpcopyup",
        "x\n",
        "tmpfs\n",
        "none\n",
        "\0",
    ];
    let mut random = Random(3);
    for _ in 0..3000 {
        properties::mount_options(random.text(WORDS, 12).as_bytes());
    }
}

#[test]
fn mountinfo_of_any_content_is_read() {
    const WORDS: &[&str] = &[
        "30 25 0:26 / /sys/fs/cgroup/cpu rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n",
        " - ",
        "cgroup ",
        " ",
        "\n",
        "/",
        "rw,",
        ",",
        "cgroup2 ",
        "memory",
        "\\040",
    ];
    let mut random = Random(4);
    for _ in 0..3000 {
        properties::mountinfo(random.text(WORDS, 12).as_bytes());
    }
}

#[test]
fn documents_of_any_content_are_planned_or_refused() {
    let mut random = Random(5);
    for _ in 0..1500 {
        let mut document = document();
        for _ in 0..=random.below(3) {
            let odd = odd_value(&mut random);
            replace_somewhere(&mut document, &mut random, odd);
        }
        let mut text = document.to_string().into_bytes();
        properties::config(&text);
        let at = random.below(text.len());
        text[at] = random.next() as u8;
        properties::config(&text);
        properties::config(&text[..at]);
    }
}

/// One of each kind of thing that a document may ask for.
fn document() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "h",
        "process": {
            "args": ["sh"], "env": ["A=1"], "cwd": "/", "user": { "uid": 1, "gid": 2, "additionalGids": [3], "umask": 63 },
            "capabilities": { "bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"] },
            "rlimits": [{ "type": "RLIMIT_CORE", "soft": 0, "hard": 1 }], "oomScoreAdj": 5, "noNewPrivileges": true,
        },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec"] },
            { "destination": "/data", "type": "bind", "source": "/srv", "options": ["rbind", "ro"] },
        ],
        "annotations": { "org.coracle.rootfs.lower": "/a:/b", "org.coracle.rootfs.upper-size": "4096" },
        "linux": {
            "namespaces": [{ "type": "pid" }, { "type": "mount" }, { "type": "uts" }, { "type": "ipc" }],
            "cgroupsPath": "/a/b", "sysctl": { "kernel.shmmax": "1" },
            "devices": [{ "path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 438 }],
            "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"], "rootfsPropagation": "private",
            "resources": { "memory": { "limit": 1000 }, "pids": { "limit": 9 }, "cpu": { "shares": 512 },
                "devices": [{ "allow": false, "access": "rwm" }], "unified": { "memory.high": "1" } },
            "seccomp": { "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{ "names": ["read"],
                "action": "SCMP_ACT_ALLOW", "args": [{ "index": 0, "value": 1, "op": "SCMP_CMP_EQ" }] }] },
        },
    })
}

fn odd_value(random: &mut Random) -> Value {
    match random.below(14) {
        0 => Value::Null,
        1 => json!(-1),
        2 => json!(u64::MAX),
        3 => json!(i64::MIN),
        4 => json!(4_294_967_295_u64),
        5 => json!(1.5),
        6 => json!(""),
        7 => json!("../../x"),
        8 => json!("/"),
        9 => json!("a\0b"),
        10 => json!([]),
        11 => json!({}),
        12 => json!("x".repeat(5000)),
        _ => json!(true),
    }
}

/// Walks down at random and replaces what is there.
fn replace_somewhere(value: &mut Value, random: &mut Random, odd: Value) {
    let children = match value {
        Value::Array(list) => list.len(),
        Value::Object(map) => map.len(),
        _ => 0,
    };
    if children == 0 || random.below(6) == 0 {
        *value = odd;
        return;
    }
    let child = random.below(children);
    let next = match value {
        Value::Array(list) => &mut list[child],
        Value::Object(map) => map.values_mut().nth(child).expect("it is below the length"),
        _ => return,
    };
    replace_somewhere(next, random, odd);
}
