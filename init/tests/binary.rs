//! The real executable, as PID 1's children use it, and the markers that the instruction counter looks for.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

const BINARY: &str = env!("CARGO_BIN_EXE_coracle-init");

#[test]
fn without_being_pid_1_it_says_what_it_is() {
    for arguments in [
        &[][..],
        &["uplink", "eth0"],
        &["probe"],
        &["probe", "once", "9000", "1", "tcp", "70000"],
    ] {
        let output = Command::new(BINARY).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("PID 1"));
    }
}

#[test]
fn every_stage_has_its_marker_in_the_code() {
    let code = std::fs::read(BINARY).unwrap();
    for stage in 1..=9_u32 {
        let mut marker = vec![0x0f, 0x1f, 0x80];
        marker.extend((0x0C0A_C100 + stage).to_le_bytes());
        assert!(
            code.windows(marker.len()).any(|bytes| bytes == marker),
            "stage {stage}"
        );
    }
}
