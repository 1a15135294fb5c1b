//! The rows of docs/reference.md: what each key is for.

const REFERENCE: &str = include_str!("../../../docs/reference.md");

/// The part of the reference on a table, by its path (`workload.*`); the top level has an empty one.
pub(super) fn section(table: &str) -> Option<&'static str> {
    let mut offset = 0;
    for line in REFERENCE.split_inclusive('\n') {
        offset += line.len();
        let Some(title) = line.trim_end().strip_prefix("##") else {
            continue;
        };
        let title = title.trim_start_matches('#').trim();
        let is_it = match title
            .strip_prefix("`[")
            .and_then(|title| title.strip_suffix("]`"))
        {
            Some(name) => !table.is_empty() && fits(name, table),
            None => table.is_empty() && title == "Top level",
        };
        if is_it {
            let rest = &REFERENCE[offset..];
            let end = rest.find("\n#").unwrap_or(rest.len());
            return Some(&rest[..end]);
        }
    }
    None
}

/// Whether a heading's name (`network.interface.LABEL`) is a path (`network.interface.*`).
fn fits(name: &str, path: &str) -> bool {
    let is_one = |(name, path): (&str, &str)| {
        name == path || (path == "*" && name.chars().all(|c| c.is_ascii_uppercase()))
    };
    name.split('.').count() == path.split('.').count()
        && name.split('.').zip(path.split('.')).all(is_one)
}

/// The rows of a part: the keys of each with its text.
pub(super) fn rows(section: &str) -> impl Iterator<Item = (Vec<&str>, &str)> {
    let table = section.trim_start().lines();
    let table = table.take_while(|line| line.starts_with('|')).skip(2);
    table.filter_map(|line| {
        let mut cells = line.trim_matches('|').split(" | ");
        let keys = cells.next()?.split('`').skip(1).step_by(2).collect();
        Some((keys, cells.nth(1).unwrap_or_default().trim()))
    })
}

/// What a key is for, without marks.
pub(super) fn description(path: &str) -> Option<String> {
    let (table, key) = path.rsplit_once('.').unwrap_or(("", path));
    let mut rows = rows(section(table)?);
    let (_, text) = rows.find(|(keys, _)| keys.contains(&key))?;
    (!text.is_empty()).then(|| text.replace(['`', '\\'], "").replace("**", ""))
}
