//! What the fuzz targets check. `scripts/fuzz config` runs one; the runtime's own tests check the same on a
//! bounded number of generated inputs.

pub mod properties;
