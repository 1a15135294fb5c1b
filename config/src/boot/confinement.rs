//! What a workload may use of the machine's disks.

use serde::{Deserialize, Serialize};

/// What a workload may use of the disks that hold the root and the state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootIo {
    /// Its share beside the others', from 1 to 10,000; 100 is everybody's.
    pub weight: Option<u32>,
    /// Bytes a second that it may read.
    pub read: Option<u64>,
    /// Bytes a second that it may write.
    pub write: Option<u64>,
    /// Requests a second that it may read by.
    pub read_ops: Option<u64>,
    /// Requests a second that it may write by.
    pub write_ops: Option<u64>,
}

impl BootIo {
    /// The limits as `io.max` takes them behind a device (cgroup-v2, "IO Interface Files"); `None`: there are none.
    #[must_use]
    pub fn maximum(&self) -> Option<String> {
        let words: Vec<String> = [
            ("rbps", self.read),
            ("wbps", self.write),
            ("riops", self.read_ops),
            ("wiops", self.write_ops),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some(format!("{key}={}", value?)))
        .collect();
        Some(words.join(" ")).filter(|words| !words.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maxima_are_words_and_a_weight_alone_is_none() {
        let io = BootIo {
            weight: Some(5),
            read: Some(1 << 20),
            write_ops: Some(7),
            ..BootIo::default()
        };
        assert_eq!(io.maximum().as_deref(), Some("rbps=1048576 wiops=7"));
        let weight = BootIo {
            weight: Some(5),
            ..BootIo::default()
        };
        assert_eq!(weight.maximum(), None);
    }
}
