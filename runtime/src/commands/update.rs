//! `update`: changes limits of a container that exists, and keeps them in its state.

use std::io::Read;
use std::path::Path;

use crate::cli::UpdateOptions;
use crate::error::{Context, Error, Result};
use crate::spec::{self, BlockIo, Cpu, Memory, Pids, Resources};
use crate::state::{Container, Status};

/// No document of resources is larger.
const MAX_INPUT_BYTES: u64 = 16 * 1024 * 1024;

/// Sets what the options or their document name; the rest stays.
pub fn update(root: &Path, id: &str, options: &UpdateOptions) -> Result<()> {
    let change = requested(options)?;
    let container = Container::new(root, id)?;
    let lock = container.lock()?;
    let mut record = container.record()?;
    let status = container.status_under_lock(&record, &lock);
    let Some(cgroup) = record.cgroup.as_mut().filter(|_| status != Status::Stopped) else {
        return Err(Error::Container(format!(
            "cannot update container {id:?}: it is {}",
            status.name()
        )));
    };
    cgroup.update(change)?;
    container.write(&record)
}

fn requested(options: &UpdateOptions) -> Result<Resources> {
    if options.l3_cache_schema.is_some() || options.mem_bw_schema.is_some() {
        return Err(Error::Unsupported(
            "options --l3-cache-schema and --mem-bw-schema".into(),
        ));
    }
    match options.resources.as_deref() {
        Some(path) if path == Path::new("-") => {
            let mut text = Vec::new();
            let mut input = std::io::stdin().lock().take(MAX_INPUT_BYTES);
            input.read_to_end(&mut text).at("read", "/dev/stdin")?;
            spec::parse(&text, path)
        }
        Some(path) => spec::parse(&spec::read(path)?, path),
        None => Ok(from_options(options)),
    }
}

fn from_options(options: &UpdateOptions) -> Resources {
    let memory = Memory {
        limit: options.memory,
        reservation: options.memory_reservation,
        swap: options.memory_swap,
        ..Memory::default()
    };
    let cpu = Cpu {
        shares: options.cpu_share,
        quota: options.cpu_quota,
        burst: options.cpu_burst,
        period: options.cpu_period,
        realtime_runtime: options.cpu_rt_runtime,
        realtime_period: options.cpu_rt_period,
        cpus: options.cpuset_cpus.clone(),
        mems: options.cpuset_mems.clone(),
        idle: options.cpu_idle,
    };
    let block_io = BlockIo {
        weight: options.blkio_weight,
        ..BlockIo::default()
    };
    Resources {
        memory: given(memory),
        cpu: given(cpu),
        pids: options.pids_limit.map(|limit| Pids { limit: Some(limit) }),
        block_io: given(block_io),
        ..Resources::default()
    }
}

fn given<T: Default + PartialEq>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}
