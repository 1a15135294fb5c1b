//! Turns an image's or a manifest's user (`name|uid[:group|gid]`) into numbers, by the image's own files.
//!
//! Strict: what is no name and no plain decimal number is refused and quoted, never guessed.

use super::image::{Image, ImageError};

/// The highest usable id: 2³²−1 means "no change" to the kernel.
const MAX_ID: u32 = u32::MAX - 1;
const FILE_CAP: u64 = 16 << 20;

/// Why a user was refused.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// The text has a wrong form.
    #[error("user {text:?}: {reason}")]
    Form {
        /// The text as given.
        text: String,
        /// What is wrong.
        reason: String,
    },
    /// The name is not in the image.
    #[error("user {text:?}: the image's {file} has no {name:?}")]
    Unknown {
        /// The text as given.
        text: String,
        /// `/etc/passwd` or `/etc/group`.
        file: &'static str,
        /// The missing name.
        name: String,
    },
    /// The image's file cannot be read.
    #[error("user {text:?}: {file} cannot be used")]
    File {
        /// The text as given.
        text: String,
        /// The file.
        file: &'static str,
        /// Why.
        #[source]
        source: ImageError,
    },
}

/// Who a workload runs as.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Further groups, sorted, without `gid`.
    pub additional_gids: Vec<u32>,
    /// The home directory by `/etc/passwd`.
    pub home: Option<String>,
}

impl User {
    /// Adds groups that need no name.
    pub fn add_groups(&mut self, gids: &[u32]) {
        let own = self.gid;
        self.additional_gids
            .extend(gids.iter().copied().filter(|gid| *gid != own));
        self.additional_gids.sort_unstable();
        self.additional_gids.dedup();
    }
}

struct Account {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// Looks the text up in the image's `/etc/passwd` and `/etc/group`. Without a group the account's own groups apply;
/// a number that is no account has group 0.
///
/// # Errors
/// [`UserError`], quoting the text.
pub fn resolve_user(image: &Image, text: &str) -> Result<User, UserError> {
    let form = |reason: String| UserError::Form {
        text: text.into(),
        reason,
    };
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    if user.is_empty() {
        return Err(form("the user is empty".into()));
    }
    let accounts = read_accounts(image, text)?;
    let groups = read_groups(image, text)?;
    let (uid, account) = match parse_id(user).map_err(form)? {
        Some(uid) => (uid, accounts.iter().find(|a| a.uid == uid)),
        None => match accounts.iter().find(|a| a.name == user) {
            Some(account) => (account.uid, Some(account)),
            None => return Err(unknown(text, "/etc/passwd", user)),
        },
    };
    let mut resolved = User {
        uid,
        gid: account.map_or(0, |a| a.gid),
        additional_gids: Vec::new(),
        home: account.map(|a| a.home.clone()).filter(|h| !h.is_empty()),
    };
    match (group, account) {
        (Some(""), _) => return Err(form("the group is empty".into())),
        (Some(group), _) => {
            resolved.gid = match parse_id(group).map_err(form)? {
                Some(gid) => gid,
                None => match groups.iter().find(|g| g.name == group) {
                    Some(found) => found.gid,
                    None => return Err(unknown(text, "/etc/group", group)),
                },
            };
        }
        (None, Some(account)) => {
            let member = |group: &&Group| group.members.contains(&account.name);
            let gids = groups.iter().filter(member).map(|g| g.gid);
            resolved.additional_gids = gids.filter(|gid| *gid != resolved.gid).collect();
            resolved.additional_gids.sort_unstable();
            resolved.additional_gids.dedup();
        }
        (None, None) => {}
    }
    Ok(resolved)
}

/// `None`: a name. A name begins with a letter or underscore, a number is plain decimal.
fn parse_id(text: &str) -> Result<Option<u32>, String> {
    if text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        if text.contains(|c: char| c.is_whitespace() || c.is_control() || c == ':') {
            return Err(format!("{text:?} is no name"));
        }
        return Ok(None);
    }
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if !plain {
        return Err(format!("{text:?} is neither a name nor a decimal number"));
    }
    match text.parse::<u32>() {
        Ok(id) if id <= MAX_ID => Ok(Some(id)),
        _ => Err(format!("{text} is above {MAX_ID}")),
    }
}

fn unknown(text: &str, file: &'static str, name: &str) -> UserError {
    UserError::Unknown {
        text: text.into(),
        file,
        name: name.into(),
    }
}

/// The file's lines in fields; a missing file has none.
fn read_lines(
    image: &Image,
    text: &str,
    file: &'static str,
) -> Result<Vec<Vec<String>>, UserError> {
    if image.find(file).is_none() {
        return Ok(Vec::new());
    }
    let bytes = image
        .read(file, FILE_CAP)
        .map_err(|source| UserError::File {
            text: text.into(),
            file,
            source,
        })?;
    let lines = String::from_utf8_lossy(&bytes).into_owned();
    Ok(lines
        .lines()
        .map(|line| line.split(':').map(str::to_owned).collect())
        .collect())
}

fn read_accounts(image: &Image, text: &str) -> Result<Vec<Account>, UserError> {
    let lines = read_lines(image, text, "/etc/passwd")?;
    let account = |f: Vec<String>| {
        Some(Account {
            uid: parse_id(f.get(2)?).ok()??,
            gid: parse_id(f.get(3)?).ok()??,
            home: f.get(5).cloned().unwrap_or_default(),
            name: f.into_iter().next()?,
        })
    };
    Ok(lines.into_iter().filter_map(account).collect())
}

fn read_groups(image: &Image, text: &str) -> Result<Vec<Group>, UserError> {
    let lines = read_lines(image, text, "/etc/group")?;
    let group = |f: Vec<String>| {
        Some(Group {
            gid: parse_id(f.get(2)?).ok()??,
            members: f.get(3)?.split(',').map(str::to_owned).collect(),
            name: f.into_iter().next()?,
        })
    };
    Ok(lines.into_iter().filter_map(group).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::image::{ImageConfig, Layer};
    use crate::tree::{Content, Tree};
    use std::sync::Arc;

    fn image() -> Image {
        let mut tree = Tree::default();
        let mut put = |path, text: &str| {
            let content = Content::Bytes(Arc::from(text.as_bytes()));
            tree.put_file(path, 0o644, content).unwrap();
        };
        put(
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nbroken\nred:x:100:101::/data:/bin/sh\n",
        );
        put(
            "etc/group",
            "root:x:0:\nred:x:101:\ntape:x:26:red,x\naudio:x:29:red\nz:x:7:root\n",
        );
        Image {
            layers: vec![Layer {
                id: "0".into(),
                tree,
            }],
            config: ImageConfig::default(),
            digest: String::new(),
        }
    }

    #[test]
    fn users_are_looked_up_in_the_image() {
        let image = image();
        for (text, want) in [
            ("red", (100, 101, vec![26, 29])),
            ("100", (100, 101, vec![26, 29])),
            ("red:audio", (100, 29, vec![])),
            ("red:5", (100, 5, vec![])),
            ("0", (0, 0, vec![7])),
            ("1234", (1234, 0, vec![])),
            ("4294967294:tape", (4_294_967_294, 26, vec![])),
        ] {
            let user = resolve_user(&image, text).unwrap();
            assert_eq!((user.uid, user.gid, user.additional_gids), want, "{text}");
        }
        assert_eq!(
            resolve_user(&image, "red").unwrap().home.as_deref(),
            Some("/data")
        );
    }

    #[test]
    fn what_is_no_user_is_refused_and_quoted() {
        let image = image();
        for text in [
            "",
            ":",
            ":0",
            "1000:",
            "0x0",
            "-1",
            "+1",
            "1 ",
            " 1",
            "1a",
            "007",
            "4294967295",
            "99999999999",
            "nobody",
            "red:nogroup",
            "red:0x1",
            "red:audio:x",
            "red\n",
            "é",
            "1:-1",
        ] {
            let error = resolve_user(&image, text).unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{text:?}: {error}");
        }
    }
}
