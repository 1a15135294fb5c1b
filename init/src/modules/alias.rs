//! Which module drives a device: the tables `modules.alias` and `modules.dep` in kmod's formats (modules.dep(5)).
//!
//! Pure: texts in, names out. A line that is no entry is skipped, as kmod does. Patterns are those of fnmatch(3)
//! without flags, and `-` and `_` are one, as in every name of a module.

use std::collections::BTreeMap;

/// The tables of one folder of modules.
#[derive(Debug, Clone, Copy)]
pub struct Tables<'a> {
    /// `modules.alias`: lines of `alias PATTERN MODULE`.
    pub alias: &'a str,
    /// `modules.dep`: lines of `FILE: FILE…`; the last of them is loaded first.
    pub dep: &'a str,
}

/// The tables, taken apart.
#[derive(Debug)]
pub struct Index<'a> {
    aliases: Vec<(&'a str, &'a str)>,
    files: BTreeMap<String, Vec<&'a str>>,
}

impl<'a> Index<'a> {
    /// Takes the tables apart.
    #[must_use]
    pub fn new(tables: Tables<'a>) -> Self {
        let files = tables.dep.lines().filter_map(parse_dependencies);
        Self {
            aliases: tables.alias.lines().filter_map(parse_alias).collect(),
            files: files.collect(),
        }
    }

    /// The modules that say they drive this device, by its `modalias`.
    pub fn modules_for(&self, modalias: &str) -> impl Iterator<Item = &'a str> {
        let matching = move |(pattern, _): &&(&str, &str)| matches(pattern, modalias);
        self.aliases
            .iter()
            .filter(matching)
            .map(|(_, module)| *module)
    }

    /// The files to load for a module, in their order; none for a module that is not here.
    #[must_use]
    pub fn files_of(&self, module: &str) -> &[&'a str] {
        self.files.get(module).map_or(&[], Vec::as_slice)
    }
}

fn parse_alias(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split_whitespace();
    match (words.next()?, words.next()?, words.next()?, words.next()) {
        ("alias", pattern, module, None) => Some((pattern, module)),
        _ => None,
    }
}

/// The module's name as the kernel has it, and its files in load order.
fn parse_dependencies(line: &str) -> Option<(String, Vec<&str>)> {
    let (file, needs) = line.split_once(':')?;
    let name = name_of(file)?;
    let mut files: Vec<&str> = needs.split_whitespace().rev().collect();
    files.push(file);
    Some((name, files))
}

/// A module's name by its file: `-` and `_` are one, the suffix is none of it.
#[must_use]
pub fn name_of(file: &str) -> Option<String> {
    let base = file.rsplit('/').next()?;
    Some(base.split_once(".ko")?.0.replace('-', "_"))
}

/// fnmatch(3) without flags, with `-` as `_` outside of brackets.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on when something behind the last `*` does not fit: one byte more for the `*`.
    let mut retry = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            retry = Some((p, t));
        } else if let Some(length) = match_one(&pattern[p..], text[t]) {
            p += length;
            t += 1;
        } else if let Some((after_star, from)) = retry {
            retry = Some((after_star, from + 1));
            (p, t) = (after_star, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// How long the part of the pattern is that stands for this byte; `None`: it stands for another.
fn match_one(pattern: &[u8], byte: u8) -> Option<usize> {
    let plain = |byte: u8| if byte == b'-' { b'_' } else { byte };
    match *pattern.first()? {
        b'?' => Some(1),
        b'[' => match_set(pattern, byte),
        literal => (plain(literal) == plain(byte)).then_some(1),
    }
}

/// A bracket expression: single bytes and ranges, negated by `!` or `^`. One that never ends stands for nothing.
fn match_set(pattern: &[u8], byte: u8) -> Option<usize> {
    let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let begin = if negated { 2 } else { 1 };
    // A `]` that stands first is a member.
    let end = begin + 1 + pattern.get(begin + 1..)?.iter().position(|&b| b == b']')?;
    let mut set = &pattern[begin..end];
    let mut found = false;
    while let [first, rest @ ..] = set {
        if let [b'-', last, rest @ ..] = rest {
            found |= (*first..=*last).contains(&byte);
            set = rest;
        } else {
            found |= *first == byte;
            set = rest;
        }
    }
    (found != negated).then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_fnmatch_does() {
        for (pattern, text, expected) in [
            ("pci:v00008086d0000100E*", "pci:v00008086d0000100Esv1", true),
            ("pci:v00008086d0000100E*", "pci:v00008086d0000100F", false),
            (
                "pci:v*d*sv*sd*bc01sc08i02*",
                "pci:v1Bd10sv1sd2bc01sc08i02",
                true,
            ),
            (
                "pci:v*d*sv*sd*bc01sc08i02*",
                "pci:v1Bd10sv1sd2bc01sc06i01",
                false,
            ),
            ("usb:v1d0[0-9]*", "usb:v1d07x", true),
            ("usb:v1d0[0-9]*", "usb:v1d0A", false),
            ("a[!b-d]e", "aae", true),
            ("a[^b-d]e", "ace", false),
            ("a[]]", "a]", true),
            ("a[b-]", "a-", true),
            ("a[", "a[", false),
            ("a[]", "a]", false),
            ("scsi:t-0x00*", "scsi:t-0x00", true),
            ("scsi:t-0x00*", "scsi:t_0x00", true),
            ("?*", "", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("*a*b", "xaxb", true),
            ("*a*b", "xaxbx", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_cost_no_more_than_pattern_times_text() {
        let pattern = "*a".repeat(60) + "b";
        assert!(!matches(&pattern, &"a".repeat(4000)));
    }

    #[test]
    fn a_device_leads_to_its_modules_and_their_files_in_load_order() {
        let tables = Tables {
            alias: "# comment\nalias pci:v1* e1000e\nalias pci:* other\nalias broken\n",
            dep: "kernel/e1000e.ko.xz: kernel/ptp.ko kernel/pps_core.ko\nkernel/pps_core.ko:\nxhci-pci.ko:\nnonsense\n",
        };
        let index = Index::new(tables);
        let modules: Vec<_> = index.modules_for("pci:v1d2").collect();
        assert_eq!(modules, ["e1000e", "other"]);
        let files = index.files_of("e1000e");
        assert_eq!(
            files,
            ["kernel/pps_core.ko", "kernel/ptp.ko", "kernel/e1000e.ko.xz"]
        );
        assert_eq!(index.files_of("pps_core"), ["kernel/pps_core.ko"]);
        assert_eq!(index.files_of("xhci_pci"), ["xhci-pci.ko"]);
        assert!(index.files_of("gone").is_empty());
    }
}
