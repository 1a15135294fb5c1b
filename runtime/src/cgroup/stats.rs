//! What a container uses, in the form of runc's `events`: from the files of cgroup v2, or those of v1 where the
//! container has a cgroup there.
//!
//! A file that is not there is a use that nobody counts, and left out or 0; it is no error.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, PollFlags, eventfd};
use serde_json::{Map, Value, json};

use super::{Cgroup, directory};
use crate::error::{Context, Result};

/// The document's `data`.
pub(super) fn collect(cgroup: &Cgroup) -> Result<Value> {
    Ok(json!({
        "cpu": cpu(cgroup),
        "memory": memory(cgroup),
        "pids": pids(cgroup)?,
        "blkio": block_io(cgroup),
        "hugetlb": hugetlb(cgroup),
        "intel_rdt": {},
        "network_interfaces": null,
    }))
}

fn unified(cgroup: &Cgroup, file: &str) -> Option<String> {
    fs::read_to_string(cgroup.unified.as_ref()?.join(file)).ok()
}

fn legacy(cgroup: &Cgroup, file: &str) -> Option<String> {
    let controller = file.split('.').next()?;
    fs::read_to_string(cgroup.legacy.get(controller)?.join(file)).ok()
}

/// A single number; `max` is the largest.
fn number(text: &str) -> Option<u64> {
    match text.trim() {
        "max" => Some(u64::MAX),
        text => text.parse().ok(),
    }
}

/// Of v2, else of v1.
fn either(cgroup: &Cgroup, v2: &str, v1: &str) -> Option<u64> {
    let text = unified(cgroup, v2).or_else(|| legacy(cgroup, v1))?;
    number(&text)
}

pub(super) fn memory_usage(cgroup: &Cgroup) -> Option<u64> {
    either(cgroup, "memory.current", "memory.usage_in_bytes")
}

/// Times in nanoseconds. v2 counts the use of processors in every cgroup, without a controller.
fn cpu(cgroup: &Cgroup) -> Value {
    let text = unified(cgroup, "cpu.stat").unwrap_or_default();
    let throttled = legacy(cgroup, "cpu.stat").unwrap_or_default();
    let time = |key: &str| directory::keyed(&text, key).unwrap_or(0) * 1000;
    let count = |key: &str| {
        directory::keyed(&text, key)
            .or_else(|| directory::keyed(&throttled, key))
            .unwrap_or(0)
    };
    let throttled_time = directory::keyed(&throttled, "throttled_time");
    json!({
        "usage": { "total": time("usage_usec"), "kernel": time("system_usec"), "user": time("user_usec") },
        "throttling": {
            "periods": count("nr_periods"),
            "throttledPeriods": count("nr_throttled"),
            "throttledTime": throttled_time.unwrap_or_else(|| time("throttled_usec")),
        },
    })
}

fn memory(cgroup: &Cgroup) -> Value {
    let stat = unified(cgroup, "memory.stat").or_else(|| legacy(cgroup, "memory.stat"));
    let stat = stat.unwrap_or_default();
    let entry =
        |usage: Option<u64>, limit: Option<u64>, max: Option<u64>, failures: Option<u64>| {
            json!({
                "limit": limit.unwrap_or(0),
                "usage": usage.unwrap_or(0),
                "max": max.unwrap_or(0),
                "failcnt": failures.unwrap_or(0),
            })
        };
    let failures = unified(cgroup, "memory.events")
        .and_then(|text| directory::keyed(&text, "max"))
        .or_else(|| number(&legacy(cgroup, "memory.failcnt")?));
    let raw: Map<String, Value> = stat
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(key, value)| Some((key.to_owned(), value.parse::<u64>().ok()?.into())))
        .collect();
    let cache = directory::keyed(&stat, "file").or_else(|| directory::keyed(&stat, "cache"));
    let kernel = unified(cgroup, "memory.stat").and_then(|text| directory::keyed(&text, "kernel"));
    json!({
        "usage": entry(
            memory_usage(cgroup),
            either(cgroup, "memory.max", "memory.limit_in_bytes"),
            either(cgroup, "memory.peak", "memory.max_usage_in_bytes"),
            failures,
        ),
        "swap": entry(
            either(cgroup, "memory.swap.current", "memory.memsw.usage_in_bytes"),
            either(cgroup, "memory.swap.max", "memory.memsw.limit_in_bytes"),
            either(cgroup, "memory.swap.peak", "memory.memsw.max_usage_in_bytes"),
            None,
        ),
        "kernel": entry(
            kernel.or_else(|| number(&legacy(cgroup, "memory.kmem.usage_in_bytes")?)),
            None,
            None,
            None,
        ),
        "cache": cache.unwrap_or(0),
        "raw": raw,
    })
}

/// Without the controller the processes are counted. No limit is 0.
fn pids(cgroup: &Cgroup) -> Result<Value> {
    let current = match either(cgroup, "pids.current", "pids.current") {
        Some(current) => current,
        None => cgroup.processes()?.len() as u64,
    };
    let limit = either(cgroup, "pids.max", "pids.max").filter(|&limit| limit != u64::MAX);
    Ok(json!({ "current": current, "limit": limit.unwrap_or(0) }))
}

fn block_io(cgroup: &Cgroup) -> Value {
    if let Some(text) = unified(cgroup, "io.stat") {
        let (bytes, operations) = parse_io_stat(&text);
        return json!({ "ioServiceBytesRecursive": bytes, "ioServicedRecursive": operations });
    }
    let list = |file| parse_blkio(&legacy(cgroup, file).unwrap_or_default());
    json!({
        "ioServiceBytesRecursive": list("blkio.throttle.io_service_bytes_recursive"),
        "ioServicedRecursive": list("blkio.throttle.io_serviced_recursive"),
    })
}

fn io_entry(device: &str, operation: &str, value: &str) -> Option<Value> {
    let (major, minor) = device.split_once(':')?;
    let (major, minor): (u64, u64) = (major.parse().ok()?, minor.parse().ok()?);
    let value: u64 = value.parse().ok()?;
    Some(json!({ "major": major, "minor": minor, "op": operation, "value": value }))
}

/// Lines of `8:0 rbytes=1 wbytes=2 rios=3 …`: bytes and operations.
fn parse_io_stat(text: &str) -> (Vec<Value>, Vec<Value>) {
    let (mut bytes, mut operations) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let Some(device) = fields.next() else {
            continue;
        };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            match key {
                "rbytes" => bytes.extend(io_entry(device, "Read", value)),
                "wbytes" => bytes.extend(io_entry(device, "Write", value)),
                "dbytes" => bytes.extend(io_entry(device, "Discard", value)),
                "rios" => operations.extend(io_entry(device, "Read", value)),
                "wios" => operations.extend(io_entry(device, "Write", value)),
                "dios" => operations.extend(io_entry(device, "Discard", value)),
                _ => {}
            }
        }
    }
    (bytes, operations)
}

/// Lines of `8:0 Read 1`, and a total.
fn parse_blkio(text: &str) -> Vec<Value> {
    let entry = |line: &str| {
        let mut fields = line.split_whitespace();
        io_entry(fields.next()?, fields.next()?, fields.next()?)
    };
    text.lines().filter_map(entry).collect()
}

/// By page size, as the names of the files have it.
fn hugetlb(cgroup: &Cgroup) -> Value {
    let mut sizes = Map::new();
    let directories = [cgroup.unified.as_ref(), cgroup.legacy.get("hugetlb")];
    let entries = directories
        .into_iter()
        .flatten()
        .filter_map(|path| fs::read_dir(path).ok());
    for entry in entries.flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_str().and_then(|name| name.strip_prefix("hugetlb."));
        let v2 = name.and_then(|name| name.strip_suffix(".current"));
        let v1 = name.and_then(|name| name.strip_suffix(".usage_in_bytes"));
        let Some(size) = v2.or(v1).filter(|size| !size.contains('.')) else {
            continue;
        };
        let usage = either(
            cgroup,
            &format!("hugetlb.{size}.current"),
            &format!("hugetlb.{size}.usage_in_bytes"),
        );
        let failures = unified(cgroup, &format!("hugetlb.{size}.events"))
            .and_then(|text| directory::keyed(&text, "max"))
            .or_else(|| number(&legacy(cgroup, &format!("hugetlb.{size}.failcnt"))?));
        let max = legacy(cgroup, &format!("hugetlb.{size}.max_usage_in_bytes"));
        sizes.insert(
            size.to_owned(),
            json!({
                "usage": usage.unwrap_or(0),
                "max": max.and_then(|text| number(&text)).unwrap_or(0),
                "failcnt": failures.unwrap_or(0),
            }),
        );
    }
    Value::Object(sizes)
}

/// Tells of processes killed for want of memory.
#[derive(Debug)]
pub(crate) enum OomEvents {
    /// `memory.events` of v2, and the kills counted so far.
    Unified(File, u64),
    /// The event descriptor of v1, and what it is registered for.
    Legacy(
        OwnedFd,
        #[allow(dead_code, reason = "closed, it tells no more")] File,
    ),
}

impl OomEvents {
    pub(super) fn open(cgroup: &Cgroup) -> Result<Option<Self>> {
        let v2 = cgroup
            .unified
            .as_ref()
            .map(|path| path.join("memory.events"));
        if let Some(path) = v2.filter(|path| path.exists()) {
            let mut file = File::open(&path).at("open", &path)?;
            let killed = oom_kills(&mut file).at("read", &path)?;
            return Ok(Some(Self::Unified(file, killed)));
        }
        let Some(directory) = cgroup.legacy.get("memory") else {
            return Ok(None);
        };
        let path = directory.join("memory.oom_control");
        let control = File::open(&path).at("open", &path)?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let event = eventfd(0, flags).during("make an event descriptor")?;
        let path = directory.join("cgroup.event_control");
        let value = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
        directory::write(&path, &value).at("write", &path)?;
        Ok(Some(Self::Legacy(event, control)))
    }

    /// To be polled, and for what.
    pub(crate) fn watched(&self) -> (BorrowedFd<'_>, PollFlags) {
        match self {
            Self::Unified(file, _) => (file.as_fd(), PollFlags::PRI),
            Self::Legacy(event, _) => (event.as_fd(), PollFlags::IN),
        }
    }

    /// How many there were since the last time.
    pub(crate) fn take(&mut self) -> u64 {
        match self {
            Self::Unified(file, before) => {
                let now = oom_kills(file).unwrap_or(*before);
                let new = now.saturating_sub(*before);
                *before = now;
                new
            }
            Self::Legacy(event, _) => {
                let mut count = [0; 8];
                rustix::io::read(event, &mut count).map_or(0, |_| u64::from_ne_bytes(count))
            }
        }
    }
}

fn oom_kills(file: &mut File) -> std::io::Result<u64> {
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    Ok(directory::keyed(&text, "oom_kill").unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_io_is_read_from_either_version() {
        let (bytes, operations) =
            parse_io_stat("8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n7:1 \n");
        assert_eq!(
            bytes[0],
            json!({ "major": 8, "minor": 0, "op": "Read", "value": 10 })
        );
        assert_eq!((bytes.len(), operations.len()), (3, 3));
        let list = parse_blkio("8:0 Read 5\n8:0 Write 6\nTotal 11\n");
        assert_eq!(
            list[1],
            json!({ "major": 8, "minor": 0, "op": "Write", "value": 6 })
        );
        assert_eq!(list.len(), 2);
    }
}
