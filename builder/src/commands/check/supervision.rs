//! How a workload is kept, in the words of `coracle check`.

use std::time::Duration;

use config::boot::{BootCondition, Check, Kind, Listen, Network, Readiness, Restart};
use config::spec::{Health, RestartPolicy, Spec, Workload};

type Row = (&'static str, String);

/// Pods and sockets.
pub(super) fn machine_rows(spec: &Spec) -> Vec<Row> {
    let pods = spec.pods.iter().map(|pod| {
        let of_pod = |w: &&Workload| w.pod.as_ref() == Some(&pod.name);
        let members: Vec<&str> = spec
            .workloads
            .iter()
            .filter(of_pod)
            .map(|w| w.name.as_str())
            .collect();
        let network = match pod.network {
            Network::Own => format!(", on {}", pod.networks.join(", ")),
            Network::Host => String::new(),
            Network::None => ", no network but loopback".to_owned(),
        };
        let shared = if pod.share_pid {
            ", one pid namespace"
        } else {
            ""
        };
        (
            "pod",
            format!("{} of {}{network}{shared}", pod.name, members.join(", ")),
        )
    });
    let sockets = spec.sockets.iter().map(|socket| {
        let place = match &socket.listen {
            Listen::Tcp { address, port } => format!("{address} port {port}"),
            Listen::Udp { address, port } => format!("{address} port {port}/udp"),
            Listen::Unix { mode } => format!("a Unix socket, mode {mode:04o}"),
        };
        ("socket", format!("{} on {place}", socket.name))
    });
    pods.chain(sockets).collect()
}

/// What starts the workload, what makes it ready, what is checked, when it starts again.
pub(super) fn rows(workload: &Workload) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut after = workload.after.clone();
    if workload.conditions.contains(&BootCondition::Network) {
        after.push("network".to_owned());
    }
    for (what, names) in [("after", &after), ("requires", &workload.requires)] {
        if !names.is_empty() {
            rows.push((what, names.join(", ")));
        }
    }
    if !workload.sockets.is_empty() {
        let names = workload.sockets.join(" or ");
        rows.push(("started by", format!("the first connection to {names}")));
    }
    rows.extend(workload.pod.iter().map(|pod| ("pod", pod.clone())));
    match workload.kind {
        Kind::Job => rows.push(("done when", "it exits with status 0".to_owned())),
        Kind::Service => rows.push(("ready when", readiness(workload))),
    }
    rows.extend(
        workload
            .health
            .as_ref()
            .map(|health| ("checked", checked(health))),
    );
    rows.extend(
        workload
            .watchdog
            .map(|limit| ("watchdog", format!("WATCHDOG=1 within {}", time(limit)))),
    );
    rows.push(("restarted", restarted(&workload.restart)));
    rows
}

fn readiness(workload: &Workload) -> String {
    match (&workload.readiness, &workload.health) {
        (Readiness::Port { port }, _) => format!("port {port} accepts"),
        (Readiness::Notify, _) => "it says READY=1".to_owned(),
        (Readiness::Health, Some(health)) => check(&health.check),
        (Readiness::Started | Readiness::Health, _) => "its process runs".to_owned(),
    }
}

fn check(check: &Check) -> String {
    match check {
        Check::Tcp { port } => format!("port {port} accepts"),
        Check::Http { port, path, .. } => format!("http://:{port}{path} answers"),
        Check::Exec { command } => format!("`{}` succeeds", command.join(" ")),
    }
}

fn checked(health: &Health) -> String {
    format!(
        "every {}, for {} at most; unhealthy after {} failures{}",
        time(health.every),
        time(health.timeout),
        health.retries,
        if health.grace.is_zero() {
            String::new()
        } else {
            format!(", not counted for {}", time(health.grace))
        }
    )
}

fn restarted(policy: &RestartPolicy) -> String {
    let delays = format!("after {} to {}", time(policy.delay), time(policy.delay_max));
    let when = match policy.when {
        Restart::Always => format!("always, {delays}"),
        Restart::OnFailure => format!("on failure, {delays}"),
        Restart::Never => "never".to_owned(),
    };
    match &policy.start_limit {
        Some(limit) => format!(
            "{when}, at most {} starts in {}",
            limit.starts,
            time(Duration::from_millis(limit.within_ms))
        ),
        None => when,
    }
}

/// A duration as the language writes it.
fn time(duration: Duration) -> String {
    let ms = duration.as_millis();
    let units = [("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    let fitting = units
        .into_iter()
        .find(|(_, unit)| ms != 0 && ms.is_multiple_of(*unit));
    match fitting {
        Some((name, unit)) => format!("{}{name}", ms / unit),
        None => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_tell_what_the_file_says() {
        let spec = config::parse(
            "name = \"m\"\n[socket.s]\nlisten = \"81\"\n[pod.p]\n[workload.w]\nimage = \"dir:x\"\nsockets = [\"s\"]\n\
             pod = \"p\"\nhealth = { exec = [\"ok\", \"-v\"], grace = \"90s\" }\nstart_limit = { starts = 3, within = \"2h\" }",
        )
        .unwrap();
        assert_eq!(
            machine_rows(&spec),
            [
                ("pod", "p of w, on default".to_owned()),
                ("socket", "s on 0.0.0.0 port 81".to_owned())
            ]
        );
        let rows: Vec<String> = rows(&spec.workloads[0])
            .into_iter()
            .map(|(what, value)| format!("{what}: {value}"))
            .collect();
        assert_eq!(
            rows,
            [
                "started by: the first connection to s",
                "pod: p",
                "ready when: `ok -v` succeeds",
                "checked: every 10s, for 5s at most; unhealthy after 3 failures, not counted for 90s",
                "restarted: always, after 100ms to 10s, at most 3 starts in 2h",
            ]
        );
    }
}
