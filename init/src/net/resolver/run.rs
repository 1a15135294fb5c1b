//! `coracle-init resolver`: from the files to [`Server`], and what a signal means.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use config::boot::BOOT_SPEC_PATH;
use rustix::thread::CapabilitySet;

use super::forwarder::Forwarder;
use super::names::Names;
use super::server::{Server, Wake};
use super::settings::Spec;
use super::{PORT, settings};
use crate::net::confine::confine;
use crate::net::facts::{FACTS, Facts};
use crate::net::message::note;
use crate::sys;

/// What workloads with networks of their own have as `/etc/resolv.conf`.
pub const RESOLV_CONF: &str = "/run/coracle/etc/own/resolv.conf";

/// Serves until it is killed or fails; returns the exit status. The arguments are for tests: the files that stand for the
/// `BootSpec`, the facts and `resolv.conf`.
#[must_use]
pub fn run(arguments: &[String]) -> i32 {
    let paths = match arguments {
        [] => [BOOT_SPEC_PATH, FACTS, RESOLV_CONF].map(PathBuf::from),
        [spec, facts, resolv_conf] => [spec, facts, resolv_conf].map(PathBuf::from),
        _ => return 2,
    };
    match serve(&paths) {
        Ok(()) => 0,
        Err(error) => {
            note(error);
            1
        }
    }
}

fn serve([spec, facts, resolv_conf]: &[PathBuf; 3]) -> io::Result<()> {
    let mut spec = Spec::read(spec)?;
    let Some(fabric) = spec.fabric.take() else {
        return Err(io::Error::other("no workload has a network of its own"));
    };
    let gateway = (fabric.gateway, fabric.gateway6);
    let own: [IpAddr; 2] = [gateway.0.into(), gateway.1.into()];
    let addresses = own.map(|address| SocketAddr::new(address, PORT));
    let forwarder = Forwarder::new(Names::new(gateway, fabric.endpoints));
    let signals = sys::catch_signals(&[libc::SIGHUP, libc::SIGTERM])?;
    let mut server = Server::listen(&addresses, signals, forwarder)?;
    let mut resolv_conf = open(resolv_conf)?;
    if resolv_conf.metadata()?.len() == 0 {
        overwrite(&mut resolv_conf, &settings::resolv_conf(gateway, &[]))?;
    }
    let folder = facts.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder)?;
    let facts = facts.file_name().map(PathBuf::from).unwrap_or_default();
    confine(folder, CapabilitySet::empty())?;
    loop {
        let facts = spec.fix(Facts::read(&facts).unwrap_or_else(|error| {
            note(format_args!("cannot read the network's facts: {error}"));
            Facts::default()
        }));
        let servers = settings::servers(&facts, &own, settings::link_index);
        server.set_facts(&servers, facts.hostname.as_deref().unwrap_or_default());
        let text = settings::resolv_conf(gateway, &facts.search);
        if let Err(error) = overwrite(&mut resolv_conf, &text) {
            note(format_args!("cannot write resolv.conf: {error}"));
        }
        match server.serve()? {
            Wake::Signal(libc::SIGTERM) => return Ok(()),
            Wake::Signal(_) => {}
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
}

/// In place: workloads have this very file mounted.
fn overwrite(file: &mut File, text: &str) -> io::Result<()> {
    file.rewind()?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)
}
