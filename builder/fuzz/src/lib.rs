//! What the fuzz targets check. `scripts/fuzz archive` runs one; the builder's own tests check the same on a bounded
//! number of broken inputs.

pub mod properties;
