//! See `properties::signature`.
#![no_main]

use coracle_builder_fuzz::properties;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::signature(bytes));
