//! PAX extended header records (IEEE 1003.1-2001, `pax`), with GNU's sparse files and star's extended attributes.
//!
//! Pure parsing of bytes; whatever does not parse is `None`.

use std::collections::BTreeMap;

/// Records by keyword; a later one replaces an earlier one.
#[derive(Debug, Clone, Default)]
pub(super) struct Records {
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    /// GNU.sparse.offset / numbytes of form 0.0, which repeat.
    pairs: Vec<(u64, u64)>,
}

/// Where a sparse file's map is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sparse {
    /// In the records (0.0 and 0.1).
    Records,
    /// Before the data (1.0).
    Data,
}

impl Records {
    /// Adds the records of one extended header. `None`: they are broken.
    pub(super) fn merge(&mut self, mut bytes: &[u8]) -> Option<()> {
        let mut offset = None;
        while !bytes.is_empty() {
            let space = bytes.iter().position(|b| *b == b' ')?;
            let len: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
            if len <= space + 1 || len > bytes.len() || bytes[len - 1] != b'\n' {
                return None;
            }
            let record = &bytes[space + 1..len - 1];
            bytes = &bytes[len..];
            let equals = record.iter().position(|b| *b == b'=')?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"GNU.sparse.offset" => offset = Some(decimal(value)?),
                b"GNU.sparse.numbytes" => self.pairs.push((offset.take()?, decimal(value)?)),
                _ if value.is_empty() && !key.starts_with(b"SCHILY.xattr.") => {
                    self.values.remove(key);
                }
                _ => {
                    self.values.insert(key.to_vec(), value.to_vec());
                }
            }
        }
        Some(())
    }

    /// Forgets all but these records.
    pub(super) fn keep_only(&mut self, keys: &[&str]) {
        self.values
            .retain(|key, _| keys.iter().any(|kept| kept.as_bytes() == key));
        self.pairs.clear();
    }

    /// A record's value.
    pub(super) fn get(&self, key: &str) -> Option<&[u8]> {
        self.values.get(key.as_bytes()).map(Vec::as_slice)
    }

    /// A record's value as a decimal number.
    pub(super) fn number(&self, key: &str) -> Option<i128> {
        std::str::from_utf8(self.get(key)?).ok()?.parse().ok()
    }

    /// A record's value as seconds with a fraction, rounded down to nanoseconds.
    pub(super) fn time(&self, key: &str) -> Option<(i64, u32)> {
        parse_time(std::str::from_utf8(self.get(key)?).ok()?)
    }

    /// The extended attributes (`SCHILY.xattr.NAME`).
    pub(super) fn xattrs(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let prefix = b"SCHILY.xattr.";
        self.values
            .iter()
            .filter_map(|(k, v)| Some((k.strip_prefix(&prefix[..])?.to_vec(), v.clone())))
            .filter(|(name, _)| !name.is_empty() && !name.contains(&0))
            .collect()
    }

    /// Whether the entry is a sparse file, and of which form.
    pub(super) fn sparse_version(&self) -> Option<Sparse> {
        if self.get("GNU.sparse.major") == Some(b"1") {
            return Some(Sparse::Data);
        }
        (self.get("GNU.sparse.map").is_some() || self.get("GNU.sparse.size").is_some())
            .then_some(Sparse::Records)
    }

    /// The map of forms 0.0 and 0.1.
    pub(super) fn sparse_map(&self) -> Option<Vec<(u64, u64)>> {
        let Some(map) = self.get("GNU.sparse.map") else {
            return Some(self.pairs.clone());
        };
        let numbers: Vec<u64> = map
            .split(|b| *b == b',')
            .map(decimal)
            .collect::<Option<_>>()?;
        pairs(&numbers)
    }
}

/// The map of form 1.0 and the bytes it takes: decimal numbers, a line each; their count comes first.
pub(super) fn sparse_data_map(bytes: &[u8]) -> Option<(Vec<(u64, u64)>, usize)> {
    let mut used = 0;
    let mut next = || {
        let rest = &bytes[used..];
        let end = rest.iter().position(|b| *b == b'\n')?;
        used += end + 1;
        decimal(&rest[..end])
    };
    let count = usize::try_from(next()?).ok()?;
    // Each number takes two bytes at least, which bounds what is allocated.
    if count > bytes.len() / 4 {
        return None;
    }
    let numbers: Vec<u64> = (0..count * 2).map(|_| next()).collect::<Option<_>>()?;
    Some((pairs(&numbers)?, used))
}

fn pairs(numbers: &[u64]) -> Option<Vec<(u64, u64)>> {
    let chunks = numbers.chunks_exact(2);
    chunks
        .remainder()
        .is_empty()
        .then(|| chunks.map(|pair| (pair[0], pair[1])).collect())
}

fn decimal(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn parse_time(text: &str) -> Option<(i64, u32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos = format!("{:0<9.9}", fraction).parse::<u32>().ok()?;
    if whole.starts_with('-') && nanos > 0 {
        // -1.25 s is 0.75 s after second -2.
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos));
    }
    Some((seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_and_broken_ones_refused() {
        let mut records = Records::default();
        records
            .merge(b"12 path=a/b\n24 SCHILY.xattr.user.a=\n")
            .unwrap();
        assert_eq!(records.get("path"), Some(&b"a/b"[..]));
        assert_eq!(records.xattrs().get(&b"user.a"[..]), Some(&vec![]));
        for bad in [
            &b"12 path=a/b"[..],
            b"13 path=a/b\n",
            b"0 path=a\n",
            b"x",
            b"99999999999999999999 a=b\n",
            b"5 abc\n",
            b"3 \n\n",
        ] {
            assert_eq!(Records::default().merge(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn times_have_nanoseconds() {
        for (text, want) in [
            ("1.5", Some((1, 500_000_000))),
            ("1", Some((1, 0))),
            ("1.1234567899", Some((1, 123_456_789))),
            ("-1.25", Some((-2, 750_000_000))),
            ("-0.5", Some((-1, 500_000_000))),
            ("1.x", None),
            ("", None),
        ] {
            assert_eq!(parse_time(text), want, "{text}");
        }
    }

    #[test]
    fn sparse_maps_are_read() {
        assert_eq!(
            sparse_data_map(b"2\n0\n5\n100\n7\ndata"),
            Some((vec![(0, 5), (100, 7)], 12))
        );
        assert_eq!(sparse_data_map(b"999999999999\n0\n"), None);
        assert_eq!(sparse_data_map(b"1\n0\n"), None);
    }
}
