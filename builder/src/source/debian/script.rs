//! Reads out of a maintainer script what it would have made, without running it: system accounts, alternatives and
//! nginx's module links, where they are written plainly. It guesses nothing: what has unknown variables is left out.

use std::collections::BTreeMap;

/// A system account that a script adds (`adduser --system`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SystemAccount {
    pub(super) name: String,
    pub(super) home: Option<String>,
    /// A group of its own name (`--group`), another one (`--ingroup`), or none of both: `nogroup`.
    pub(super) group: Option<String>,
}

/// One `update-alternatives --install` or one of its `--slave`s.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Alternative {
    pub(super) link: String,
    pub(super) name: String,
    pub(super) target: String,
    pub(super) priority: i64,
}

/// What a script says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Script {
    pub(super) accounts: Vec<SystemAccount>,
    pub(super) groups: Vec<String>,
    pub(super) alternatives: Vec<Alternative>,
    /// nginx's modules: configuration file and the name of its link.
    pub(super) nginx_modules: Vec<(String, String)>,
    /// Whether it does anything besides and outside of what debhelper generates.
    pub(super) does_more: bool,
}

pub(super) fn read(text: &str) -> Script {
    let mut script = Script::default();
    let mut variables = BTreeMap::new();
    let mut generated = false;
    for line in text.replace("\\\n", " ").lines() {
        let line = line.trim();
        if line.starts_with("# Automatically added by") {
            generated = true;
        } else if line.starts_with("# End automatically added") {
            generated = false;
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some((name, value)) = assignment(line) {
            variables.insert(name, expand(&value, &variables).unwrap_or_default());
            continue;
        }
        if let Some(pairs) = line.strip_prefix("for confpair in ") {
            let pairs = pairs.split(';').next().unwrap_or("").split_whitespace();
            script
                .nginx_modules
                .extend(pairs.filter_map(|p| p.split_once(':').map(|(a, b)| (a.into(), b.into()))));
        }
        let words: Vec<String> = words(line)
            .iter()
            .map_while(|word| expand(word, &variables))
            .collect();
        let known = read_command(&words, &mut script);
        script.does_more |= !known && !generated && !is_structure(line);
    }
    script
}

fn read_command(words: &[String], script: &mut Script) -> bool {
    let program = |word: &String| {
        let name = word.rsplit('/').next().unwrap_or(word);
        ["adduser", "addgroup", "update-alternatives"].contains(&name)
    };
    let Some(at) = words.iter().position(program) else {
        return false;
    };
    // The command's own words end where the shell goes on.
    let rest = &words[at + 1..];
    let end = rest
        .iter()
        .position(|w| w.starts_with(['>', '|', '&', ';']) || w.starts_with("2>"));
    let rest = &rest[..end.unwrap_or(rest.len())];
    match words[at].rsplit('/').next() {
        Some("adduser") if rest.iter().any(|w| w == "--system") => {
            script.accounts.extend(read_adduser(rest));
        }
        Some("addgroup") if rest.iter().any(|w| w == "--system") => {
            script
                .groups
                .extend(rest.last().filter(|w| is_account(w)).cloned());
        }
        Some("update-alternatives") => script.alternatives.extend(read_alternatives(rest)),
        _ => return false,
    }
    true
}

fn read_adduser(words: &[String]) -> Option<SystemAccount> {
    let mut account = SystemAccount {
        name: String::new(),
        home: None,
        group: None,
    };
    let mut own_group = false;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let (option, mut value) = match word.split_once('=') {
            Some((option, value)) => (option, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        let takes_value = [
            "--home",
            "--ingroup",
            "--gecos",
            "--comment",
            "--shell",
            "--uid",
            "--gid",
            "--firstuid",
            "--lastuid",
            "--conf",
        ];
        if value.is_none() && takes_value.contains(&option) {
            value = words.next().cloned();
        }
        match option {
            "--home" => account.home = value,
            "--ingroup" => account.group = value,
            "--group" => own_group = true,
            _ if option.starts_with('-') => {}
            _ if account.name.is_empty() => account.name = word.clone(),
            _ => return None, // `adduser USER GROUP`
        }
    }
    if own_group {
        account.group = Some(account.name.clone());
    }
    let fields = [Some(&account.name), account.group.as_ref()];
    let home_is_plain = account.home.iter().all(|h| !h.contains([':', '\n']));
    (home_is_plain && fields.into_iter().flatten().all(|f| is_account(f))).then_some(account)
}

fn read_alternatives(words: &[String]) -> Vec<Alternative> {
    let mut found = Vec::new();
    let mut priority = None;
    let mut at = 0;
    while at < words.len() {
        let take = |n: usize| words.get(at + n).cloned();
        let (link, name, target) = (take(1), take(2), take(3));
        match words[at].as_str() {
            "--install" => {
                priority = take(4).and_then(|p| p.parse().ok());
                at += 5;
            }
            "--slave" => at += 4,
            _ => {
                at += 1;
                continue;
            }
        }
        let all = (link, name, target, priority);
        if let (Some(link), Some(name), Some(target), Some(priority)) = all {
            let plain = |path: &str| path.starts_with('/') && !path.split('/').any(|c| c == "..");
            if plain(&link) && plain(&target) && !name.contains('/') && !name.is_empty() {
                found.push(Alternative {
                    link,
                    name,
                    target,
                    priority,
                });
            }
        }
    }
    found
}

fn is_account(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 32
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
}

/// `NAME=word`, and nothing after it.
fn assignment(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once('=')?;
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let mut words = words(value);
    (is_name && words.len() == 1).then(|| (name.to_owned(), words.remove(0)))
}

/// The words of a simple command; a single quoted `$` is not told from a variable, which then is unknown.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut begun = false;
    for c in line.chars() {
        match quote {
            Some(q) if c == q => quote = None,
            Some(_) => word.push(c),
            None if c == '"' || c == '\'' => {
                quote = Some(c);
                begun = true;
            }
            None if c.is_whitespace() => {
                if begun || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            None => word.push(c),
        }
    }
    if begun || !word.is_empty() {
        words.push(word);
    }
    words
}

/// The word with its variables replaced; `None` if one is unknown or anything else is to be evaluated.
fn expand(word: &str, variables: &BTreeMap<String, String>) -> Option<String> {
    if word.contains('`') {
        return None;
    }
    let mut parts = word.split('$');
    let mut expanded = parts.next().unwrap_or("").to_owned();
    for part in parts {
        let (name, rest) = match part.strip_prefix('{') {
            Some(braced) => braced.split_once('}')?,
            None => {
                let end = part.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                part.split_at(end.unwrap_or(part.len()))
            }
        };
        expanded += variables.get(name).filter(|value| !value.is_empty())?;
        expanded += rest;
    }
    Some(expanded)
}

/// Lines that do nothing by themselves.
fn is_structure(line: &str) -> bool {
    let first = line.split_whitespace().next().unwrap_or("");
    [
        "case",
        "esac",
        "if",
        "fi",
        "then",
        "else",
        "elif",
        ";;",
        "exit",
        "set",
        "done",
        "{",
        "}",
        ":",
        "do",
        "configure)",
        "*)",
    ]
    .contains(&first)
        || line.ends_with(')') && !line.contains('(')
        || line == ". /usr/share/debconf/confmodule"
        || line.starts_with("echo ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_read_where_they_are_plain() {
        let script = read(
            "USER=\"redis\"\nGROUP=\"$USER\"\nif x; then\nadduser \\\n  --system \\\n --home /var/lib/redis \\\n\
             --quiet \\\n --group \\\n ${USER} || true\nfi\naddgroup --system $GROUP >/dev/null\n\
             adduser --system --ingroup $GROUP --gecos \"Some One\" --shell /bin/false two >/dev/null\n\
             adduser --system $UNKNOWN\nadduser $USER other\n",
        );
        let account = |name: &str, home: Option<&str>, group: &str| SystemAccount {
            name: name.into(),
            home: home.map(str::to_owned),
            group: Some(group.into()),
        };
        assert_eq!(
            script.accounts,
            [
                account("redis", Some("/var/lib/redis"), "redis"),
                account("two", None, "redis")
            ]
        );
        assert_eq!(script.groups, ["redis"]);
    }

    #[test]
    fn alternatives_are_read_with_their_slaves() {
        let script = read(
            "# Automatically added by x\nif y; then\nupdate-alternatives --install /usr/bin/awk awk /usr/bin/mawk 5 \\\n\
             --slave /usr/bin/nawk nawk /usr/bin/mawk\nfi\n# End automatically added section\n",
        );
        let links: Vec<_> = script
            .alternatives
            .iter()
            .map(|a| (a.link.as_str(), a.priority))
            .collect();
        assert_eq!(links, [("/usr/bin/awk", 5), ("/usr/bin/nawk", 5)]);
        assert!(!script.does_more);
    }

    #[test]
    fn scripts_that_do_more_are_told() {
        for (text, want) in [
            (
                "#!/bin/sh\nset -e\n# Automatically added by x\nldconfig\n# End automatically added section\nexit 0\n",
                false,
            ),
            (
                "#!/bin/sh\ncase \"$1\" in\nconfigure)\n;;\nabort-upgrade|abort-remove)\n;;\nesac\n",
                false,
            ),
            ("#!/bin/sh\nmkdir /x\n", true),
            ("", false),
        ] {
            assert_eq!(read(text).does_more, want, "{text}");
        }
    }
}
