//! `Template`: an empty file system as the few bytes of it that are not zero, from which init makes a state partition.
//!
//! Pure: the builder encodes one, init decodes it. What is no template is refused; nothing is read or written here.

/// The first bytes of an encoded template.
const MAGIC: &[u8; 8] = b"CoracleT";
const HEADER: usize = 8 + 8 + 8;
/// Gaps of fewer zeros are kept in a run: a run of its own costs as much.
const LEAST_GAP: usize = 16;

/// An empty file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Bytes of the file system.
    pub len: u64,
    /// The bytes at its start that mean something; what lies behind them may have any content.
    pub metadata: u64,
    /// What is not zero among them: offset and bytes, in order.
    pub runs: Vec<(u64, Vec<u8>)>,
}

impl Template {
    /// From the first bytes of a file system of `len` bytes.
    pub fn new(len: u64, metadata: &[u8]) -> Self {
        let mut runs = Vec::new();
        let mut at = 0;
        while let Some(start) = position(metadata, at, |byte| byte != 0) {
            let mut end = start;
            // The end is where enough zeros follow.
            loop {
                end = position(metadata, end, |byte| byte == 0).unwrap_or(metadata.len());
                match position(metadata, end, |byte| byte != 0) {
                    Some(next) if next - end < LEAST_GAP => end = next,
                    _ => break,
                }
            }
            runs.push((start as u64, metadata[start..end].to_vec()));
            at = end;
        }
        Self {
            len,
            metadata: metadata.len() as u64,
            runs,
        }
    }

    /// The bytes of a file; all numbers are little-endian.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(self.len.to_le_bytes());
        bytes.extend(self.metadata.to_le_bytes());
        for (offset, run) in &self.runs {
            bytes.extend(offset.to_le_bytes());
            bytes.extend((run.len() as u64).to_le_bytes());
            bytes.extend(run);
        }
        bytes
    }

    /// What [`Self::encode`] made; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| {
            let eight = bytes.get(at..at.checked_add(8)?)?;
            Some(u64::from_le_bytes(eight.try_into().ok()?))
        };
        let (len, metadata) = (number(8)?, number(16)?);
        if &bytes[..8] != MAGIC || metadata > len {
            return None;
        }
        let mut runs = Vec::new();
        let (mut at, mut done) = (HEADER, 0);
        while at < bytes.len() {
            let (offset, size) = (number(at)?, number(at + 8)?);
            let start = at + 16;
            let end = start.checked_add(usize::try_from(size).ok()?)?;
            let run = bytes.get(start..end)?.to_vec();
            if offset < done || offset.checked_add(size)? > metadata {
                return None;
            }
            done = offset + size;
            runs.push((offset, run));
            at = end;
        }
        Some(Self {
            len,
            metadata,
            runs,
        })
    }
}

fn position(bytes: &[u8], from: usize, wanted: impl Fn(u8) -> bool) -> Option<usize> {
    let rest = bytes.get(from..)?;
    rest.iter()
        .position(|&byte| wanted(byte))
        .map(|at| from + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Vec<u8>, Template) {
        let mut bytes = vec![0; 100_000];
        bytes[1024..2000].fill(7);
        bytes[2010] = 1;
        bytes[99_999] = 9;
        let template = Template::new(1 << 20, &bytes);
        (bytes, template)
    }

    #[test]
    fn a_template_gives_its_bytes_back() {
        let (bytes, template) = sample();
        let mut back = vec![0; bytes.len()];
        for (offset, run) in &template.runs {
            back[*offset as usize..][..run.len()].copy_from_slice(run);
        }
        assert!(back == bytes);
        assert_eq!(template.runs.len(), 2);
        let encoded = template.encode();
        assert!(encoded.len() < 1100);
        assert_eq!(Template::decode(&encoded), Some(template));
    }

    #[test]
    fn what_is_cut_short_or_reaches_too_far_is_refused() {
        let encoded = sample().1.encode();
        for len in (0..encoded.len()).filter(|len| ![HEADER, 1051].contains(len)) {
            let decoded = Template::decode(&encoded[..len]);
            assert!(decoded.is_none_or(|t| t.runs.len() < 2), "{len}");
        }
        let mut far = encoded;
        far[HEADER + 6] = 1;
        assert_eq!(Template::decode(&far), None);
        assert_eq!(Template::decode(&[0xff; 64]), None);
    }
}
