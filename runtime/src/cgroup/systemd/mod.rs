//! The cgroup as a transient scope of systemd, which then keeps its hands off what is below (`Delegate=`).
//!
//! `linux.cgroupsPath` is `slice:prefix:name` here, and the unit `prefix-name.scope` in that slice. systemd is told
//! of the limits that it knows, so that it does not set others; all of them are set in the files as well.

mod dbus;

use std::io;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use crate::error::{Context, Error, Result};
use crate::spec::Resources;
use dbus::{Connection, Reader, Target, Value, Writer};

const MANAGER: Target<'_> = Target {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};
const JOB_REMOVED: &str = "type='signal',sender='org.freedesktop.systemd1',path='/org/freedesktop/systemd1',\
    interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";

/// Slice and unit of `slice:prefix:name`. `fallback` is the path that stands for none.
pub(super) fn parse(path: &Path, fallback: &Path, is_root: bool) -> Result<(String, String)> {
    let wrong = |why: &str| {
        Error::Config(format!(
            "linux.cgroupsPath: {:?} is not slice:prefix:name, as systemd needs it: {why}",
            path.display()
        ))
    };
    let text = path.to_str().ok_or_else(|| wrong("not UTF-8"))?;
    let mut parts = text.split(':');
    let parts = (parts.next(), parts.next(), parts.next(), parts.next());
    let (slice, prefix, name) = match parts {
        (Some(slice), Some(prefix), Some(name), None) => (slice, prefix, name),
        _ if path == fallback => {
            let name = path.file_name().and_then(|name| name.to_str());
            ("", "coracle", name.unwrap_or_default())
        }
        _ => return Err(wrong("not three parts")),
    };
    let plain = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-.:\\@".contains(&byte))
    };
    if name.is_empty() || ![slice, prefix, name].into_iter().all(plain) {
        return Err(wrong("no name of a unit"));
    }
    let slice = match slice {
        "" if is_root => "system.slice",
        "" => "user.slice",
        slice if slice.ends_with(".slice") => slice,
        _ => return Err(wrong("no slice")),
    };
    let unit = match prefix {
        "" => format!("{name}.scope"),
        prefix => format!("{prefix}-{name}.scope"),
    };
    Ok((slice.to_owned(), unit))
}

/// Starts the scope with a process in it; returns when it is there.
pub(super) fn start(unit: &str, slice: &str, pid: i32, resources: &Resources) -> Result<()> {
    start_over(connect()?, unit, slice, pid, resources).during(format!("start {unit} by systemd"))
}

fn start_over(
    mut connection: Connection,
    unit: &str,
    slice: &str,
    pid: i32,
    resources: &Resources,
) -> io::Result<()> {
    let text = |text: &str| Value::Text(text.to_owned());
    let mut properties = vec![
        ("Description", text("OCI container")),
        ("Slice", text(slice)),
        ("Delegate", Value::Bool(true)),
        ("DefaultDependencies", Value::Bool(false)),
        // Else a scope whose process was killed for want of memory would stay, and its name with it.
        ("CollectMode", text("inactive-or-failed")),
        ("PIDs", Value::U32s(vec![pid as u32])),
        ("CPUAccounting", Value::Bool(true)),
        ("MemoryAccounting", Value::Bool(true)),
        ("TasksAccounting", Value::Bool(true)),
        ("IOAccounting", Value::Bool(true)),
    ];
    properties.extend(limits(resources));
    let mut body = Writer::default();
    body.text(unit);
    body.text("replace");
    body.properties(&properties);
    body.no_structures();
    run_job(
        &mut connection,
        "StartTransientUnit",
        "ssa(sv)a(sa(sv))",
        body,
    )
}

/// Stops the scope, if there is still one; returns when it is gone.
pub(super) fn stop(unit: &str) -> Result<()> {
    stop_over(connect()?, unit).during(format!("stop {unit} by systemd"))
}

fn stop_over(mut connection: Connection, unit: &str) -> io::Result<()> {
    let mut body = Writer::default();
    body.text(unit);
    body.text("replace");
    match run_job(&mut connection, "StopUnit", "ss", body) {
        Err(error) if error.to_string().contains("NoSuchUnit") => return Ok(()),
        other => other?,
    }
    // A unit that has not failed has nothing to reset.
    let mut body = Writer::default();
    body.text(unit);
    let _ = connection.call(MANAGER, "ResetFailedUnit", "s", body);
    Ok(())
}

/// Tells systemd of changed limits.
pub(super) fn update(unit: &str, resources: &Resources) -> Result<()> {
    let properties = limits(resources);
    if properties.is_empty() {
        return Ok(());
    }
    let mut body = Writer::default();
    body.text(unit);
    body.u32(true.into());
    body.properties(&properties);
    connect()?
        .call(MANAGER, "SetUnitProperties", "sba(sv)", body)
        .map(drop)
        .during(format!("update {unit} by systemd"))
}

fn connect() -> Result<Connection> {
    let uid = geteuid().as_raw();
    let variable = if uid == 0 {
        "DBUS_SYSTEM_BUS_ADDRESS"
    } else {
        "DBUS_SESSION_BUS_ADDRESS"
    };
    let address = std::env::var(variable).ok();
    let path = match address
        .as_deref()
        .and_then(|text| text.strip_prefix("unix:path="))
    {
        Some(path) => PathBuf::from(path.split([',', ';']).next().unwrap_or_default()),
        None if uid == 0 => "/run/dbus/system_bus_socket".into(),
        None => format!("/run/user/{uid}/bus").into(),
    };
    Connection::open(&path, uid).at("reach systemd, to manage the cgroup, over D-Bus at", path)
}

/// Calls a method that starts a job, and waits until that is done.
fn run_job(
    connection: &mut Connection,
    method: &str,
    signature: &str,
    body: Writer,
) -> io::Result<()> {
    connection.add_match(JOB_REMOVED)?;
    // Without it systemd sends no signals.
    connection.call(MANAGER, "Subscribe", "", Writer::default())?;
    let reply = connection.call(MANAGER, method, signature, body)?;
    let garbled = || io::Error::new(io::ErrorKind::InvalidData, "an answer without a job");
    let job = Reader::new(&reply).text().ok_or_else(garbled)?;
    loop {
        let signal = connection.signal()?;
        if signal.member != "JobRemoved" {
            continue;
        }
        let mut reader = Reader::new(&signal.body);
        let (_, removed) = (reader.u32(), reader.text());
        if removed != Some(job) {
            continue;
        }
        let (_, result) = (reader.text(), reader.text());
        return match result {
            Some("done") => Ok(()),
            other => Err(io::Error::other(format!("the job ended as {other:?}"))),
        };
    }
}

/// The limits by systemd's names (systemd.resource-control(5)).
fn limits(resources: &Resources) -> Vec<(&'static str, Value)> {
    const NONE: u64 = u64::MAX;
    let amount = |value: i64| if value < 0 { NONE } else { value as u64 };
    let set = |value: Option<i64>| value.filter(|&value| value != 0);
    let mut found = Vec::new();
    if let Some(memory) = &resources.memory {
        let limit = set(memory.limit);
        if let Some(limit) = limit {
            found.push(("MemoryMax", Value::U64(amount(limit))));
        }
        if let Some(reservation) = set(memory.reservation) {
            found.push(("MemoryLow", Value::U64(amount(reservation))));
        }
        match (set(memory.swap), limit) {
            (Some(..0), _) => found.push(("MemorySwapMax", Value::U64(NONE))),
            (Some(both), Some(limit @ 1..)) if both >= limit => {
                found.push(("MemorySwapMax", Value::U64((both - limit) as u64)));
            }
            _ => {}
        }
    }
    if let Some(cpu) = &resources.cpu {
        if let Some(shares) = cpu.shares.filter(|&shares| shares != 0) {
            found.push(("CPUWeight", Value::U64(super::v2::weight(shares))));
        }
        if let Some(quota) = set(cpu.quota) {
            let period = cpu.period.filter(|&period| period != 0).unwrap_or(100_000);
            // A share of a second, which systemd keeps in steps of 10 ms.
            let share = match quota {
                ..0 => NONE,
                quota => (quota as u64)
                    .saturating_mul(1_000_000)
                    .div_ceil(period)
                    .div_ceil(10_000)
                    .saturating_mul(10_000),
            };
            found.push(("CPUQuotaPerSecUSec", Value::U64(share)));
        }
    }
    if let Some(limit) = resources.pids.as_ref().and_then(|pids| pids.limit) {
        let limit = if limit > 0 { limit as u64 } else { NONE };
        found.push(("TasksMax", Value::U64(limit)));
    }
    found
}

#[cfg(test)]
mod tests;
