//! The guest programs that `coracle` carries as data; it never links them.

/// PID 1, `coracle-init`: a static ELF file.
pub const INIT: &[u8] = include_bytes!(env!("CORACLE_GUEST_INIT"));

/// The OCI runtime, `coracle-runtime`: a static ELF file.
pub const RUNTIME: &[u8] = include_bytes!(env!("CORACLE_GUEST_RUNTIME"));
