//! `events`: what a container uses, once or again and again, and each time it runs out of memory.

use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use serde_json::Value;

use crate::error::{Context, Error, Result};
use crate::state::{Container, Process, Status};

/// In the order of runc's, for whoever compares text.
#[derive(Debug, Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
}

/// One line of JSON an event, on standard output. With `stats` once, else until the container ends.
pub fn events(root: &Path, id: &str, stats: bool, interval: Duration) -> Result<()> {
    let container = Container::new(root, id)?;
    let record = container.record()?;
    let stopped = || Error::Container(format!("container {id:?} is not running"));
    if container.status(&record) == Status::Stopped {
        return Err(stopped());
    }
    let cgroup = record.cgroup.as_ref().ok_or_else(stopped)?;
    let event = |kind, data| Event { kind, id, data };
    let report = || Ok(event("stats", Some(cgroup.stats()?)));
    if stats {
        return print(&report()?).map(drop);
    }
    let pidfd = record.process.map(Process::open).transpose()?.flatten();
    let pidfd = pidfd.ok_or_else(stopped)?;
    let mut oom = cgroup.oom_events()?;
    let mut next = Instant::now() + interval;
    loop {
        let timeout = next.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: timeout.subsec_nanos().into(),
        };
        let mut watched = vec![PollFd::new(&pidfd, PollFlags::IN)];
        if let Some((descriptor, flags)) = oom.as_ref().map(|oom| oom.watched()) {
            watched.push(PollFd::from_borrowed_fd(descriptor, flags));
        }
        match poll(&mut watched, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).during("wait for events"),
        }
        let ended = watched[0].revents().contains(PollFlags::IN);
        for _ in 0..oom.as_mut().map_or(0, |oom| oom.take()) {
            if !print(&event("oom", None))? {
                return Ok(());
            }
        }
        if ended {
            return Ok(());
        }
        if Instant::now() >= next {
            next += interval;
            if !print(&report()?)? {
                return Ok(());
            }
        }
    }
}

/// Whether anybody still reads.
fn print(event: &Event<'_>) -> Result<bool> {
    let mut line = serde_json::to_vec(event).expect("texts and numbers are JSON");
    line.push(b'\n');
    match io::stdout().write_all(&line) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        other => other.during("write events").map(|()| true),
    }
}
