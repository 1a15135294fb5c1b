//! Drives the real runtime as root: each test is a claim about a container.

mod attributes;
mod confinement;
mod documents;
mod escapes;
mod exec;
mod harness;
mod hooks;
mod lifecycle;
mod limits;
mod mapped;
mod mounts;
mod namespaces;
mod network;
mod overwrite;
mod pause;
mod root;
mod rootless;
mod seccomp;
mod shared;
mod storm;
mod terminal;
mod tracing;
mod update;
