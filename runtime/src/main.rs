//! The `coracle-runtime` program; see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(coracle_runtime::run(std::env::args_os().skip(1)))
}
