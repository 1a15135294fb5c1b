//! See `properties::mount_options`.
#![no_main]

use coracle_runtime_fuzz::properties;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::mount_options(bytes));
