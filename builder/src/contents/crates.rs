//! The crates in our own programs, as `build.rs` found them in Cargo.lock.

use super::Crate;

/// Name, version, checksum and licence of each, a line each, with tabs in between.
const LIST: &str = include_str!(concat!(env!("OUT_DIR"), "/crates.tsv"));

/// All of them, in the order of their names.
pub(super) fn crates() -> Vec<Crate> {
    LIST.lines().filter_map(parse).collect()
}

fn parse(line: &str) -> Option<Crate> {
    let mut fields = line.split('\t').map(str::to_owned);
    Some(Crate {
        name: fields.next()?,
        version: fields.next()?,
        sha256: fields.next()?,
        license: fields.next()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_crate_of_our_programs_is_known_with_its_checksum() {
        let crates = crates();
        let rustix = crates.iter().find(|one| one.name == "rustix").unwrap();
        assert!(rustix.license.contains("Apache-2.0"));
        for one in &crates {
            let is_hex = one.sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
            assert!(one.sha256.len() == 64 && is_hex, "{one:?}");
            assert!(!one.name.starts_with("coracle"), "{one:?}");
        }
        // What only runs while compiling is in no program.
        assert!(crates.iter().all(|one| one.name != "syn"));
    }
}
