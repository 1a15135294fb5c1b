//! What the fuzz targets check. `cargo fuzz run config` in this folder; the runtime's own tests check the same on a
//! bounded number of generated inputs.

pub mod properties;
