//! Boots real images under QEMU and asserts what the guest says.
//!
//! A case makes its folder ([`Case`]), has the real `coracle` build an image into it ([`Coracle`]), boots a copy
//! ([`Vm`]) and waits for lines of the console, each with a deadline. What happened is kept under
//! `target/qemu-tests/CASE/`. The harness shares no code with the builder: it starts QEMU itself and looks into
//! images with standard tools, so that one mistake is not made on both sides.
#![forbid(unsafe_code)]

mod case;
mod console;
mod coracle;
pub mod count;
mod http;
mod image;
mod kernel;
mod lab;
mod power_cut;
mod redis;
mod segment;
mod tool;
mod umoci;
mod vm;

pub use case::{Case, seconds};
pub use coracle::{Coracle, Finished, Running, build_in_workspace};
pub use http::{Response, get};
pub use image::{Image, Partition};
pub use kernel::{BootFiles, floor_initrd};
pub use lab::{
    CHECK, Lab, Report, Step, TestProgram, find_program, guest_runtime, runtime_bench,
    runtime_test_helper, runtime_tests,
};
pub use power_cut::{Random, WriteLog};
pub use redis::Redis;
pub use segment::{Segment, Server};
pub use tool::{run_tool, tool_is_missing};
pub use umoci::redis_layout;
pub use vm::{Boot, DiskBus, Vm, VmBuilder, free_port};
