//! The accounts of a Debian layer: base-passwd's fixed ids (Debian policy 9.2.2) and what packages add.
//!
//! An added account's id depends on its name only (and on collisions), not on which other packages are there: files
//! in a volume keep their owner when the next version of an image has more packages.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

/// System accounts are 100 to 999 (policy 9.2.2).
const FIRST: u32 = 100;
const LAST: u32 = 999;

const FIXED_USERS: &[(&str, u32, u32, &str, &str)] = &[
    ("root", 0, 0, "/root", "/bin/bash"),
    ("daemon", 1, 1, "/usr/sbin", NOLOGIN),
    ("bin", 2, 2, "/bin", NOLOGIN),
    ("sys", 3, 3, "/dev", NOLOGIN),
    ("sync", 4, 65534, "/bin", "/bin/sync"),
    ("games", 5, 60, "/usr/games", NOLOGIN),
    ("man", 6, 12, "/var/cache/man", NOLOGIN),
    ("lp", 7, 7, "/var/spool/lpd", NOLOGIN),
    ("mail", 8, 8, "/var/mail", NOLOGIN),
    ("news", 9, 9, "/var/spool/news", NOLOGIN),
    ("uucp", 10, 10, "/var/spool/uucp", NOLOGIN),
    ("proxy", 13, 13, "/bin", NOLOGIN),
    ("www-data", 33, 33, "/var/www", NOLOGIN),
    ("backup", 34, 34, "/var/backups", NOLOGIN),
    ("list", 38, 38, "/var/list", NOLOGIN),
    ("irc", 39, 39, "/run/ircd", NOLOGIN),
    ("_apt", 42, 65534, "/nonexistent", NOLOGIN),
    ("nobody", 65534, 65534, "/nonexistent", NOLOGIN),
];

const FIXED_GROUPS: &[(&str, u32)] = &[
    ("root", 0),
    ("daemon", 1),
    ("bin", 2),
    ("sys", 3),
    ("adm", 4),
    ("tty", 5),
    ("disk", 6),
    ("lp", 7),
    ("mail", 8),
    ("news", 9),
    ("uucp", 10),
    ("man", 12),
    ("proxy", 13),
    ("kmem", 15),
    ("dialout", 20),
    ("fax", 21),
    ("voice", 22),
    ("cdrom", 24),
    ("floppy", 25),
    ("tape", 26),
    ("sudo", 27),
    ("audio", 29),
    ("dip", 30),
    ("www-data", 33),
    ("backup", 34),
    ("operator", 37),
    ("list", 38),
    ("irc", 39),
    ("src", 40),
    ("shadow", 42),
    ("utmp", 43),
    ("video", 44),
    ("sasl", 45),
    ("plugdev", 46),
    ("staff", 50),
    ("games", 60),
    ("users", 100),
    ("nogroup", 65534),
];

const NOLOGIN: &str = "/usr/sbin/nologin";

#[derive(Debug, Clone)]
struct User {
    uid: u32,
    gid: u32,
    gecos: String,
    home: String,
    shell: String,
}

#[derive(Debug, Clone, Default)]
struct Group {
    gid: u32,
    members: Vec<String>,
}

/// Users and groups by name.
#[derive(Debug)]
pub(super) struct Accounts {
    users: BTreeMap<String, User>,
    groups: BTreeMap<String, Group>,
}

impl Accounts {
    /// base-passwd's.
    pub(super) fn fixed() -> Self {
        let user = |(name, uid, gid, home, shell): &(&str, u32, u32, &str, &str)| {
            let user = User {
                uid: *uid,
                gid: *gid,
                gecos: if *name == "_apt" { "" } else { name }.to_owned(),
                home: (*home).to_owned(),
                shell: (*shell).to_owned(),
            };
            ((*name).to_owned(), user)
        };
        let group = |(name, gid): &(&str, u32)| {
            let group = Group {
                gid: *gid,
                members: Vec::new(),
            };
            ((*name).to_owned(), group)
        };
        Self {
            users: FIXED_USERS.iter().map(user).collect(),
            groups: FIXED_GROUPS.iter().map(group).collect(),
        }
    }

    /// A system group, if it is not there yet; its id.
    pub(super) fn add_group(&mut self, name: &str, gid: Option<u32>) -> u32 {
        if let Some(group) = self.groups.get(name) {
            return group.gid;
        }
        let gid = gid.unwrap_or_else(|| self.free_id(name));
        let group = Group {
            gid,
            members: Vec::new(),
        };
        self.groups.insert(name.to_owned(), group);
        gid
    }

    /// A system user, if it is not there yet, in the named group (`nogroup` if none is named).
    pub(super) fn add_user(
        &mut self,
        name: &str,
        uid: Option<u32>,
        group: Option<&str>,
        home: Option<&str>,
        gecos: &str,
    ) {
        if self.users.contains_key(name) {
            return;
        }
        let gid = self.add_group(
            group.unwrap_or("nogroup"),
            uid.filter(|_| group == Some(name)),
        );
        let taken = |uid: u32| self.users.values().any(|u| u.uid == uid);
        let uid = uid
            .or_else(|| (group == Some(name) && !taken(gid)).then_some(gid))
            .unwrap_or_else(|| self.free_id(name));
        let user = User {
            uid,
            gid,
            gecos: gecos.to_owned(),
            home: home.unwrap_or("/nonexistent").to_owned(),
            shell: NOLOGIN.to_owned(),
        };
        self.users.insert(name.to_owned(), user);
    }

    /// What systemd-sysusers would do with a file of `usr/lib/sysusers.d` (sysusers.d(5)).
    pub(super) fn add_sysusers(&mut self, text: &str) {
        for line in text.lines() {
            let fields = sysusers_fields(line);
            let field = |index: usize| {
                let value: Option<&String> = fields.get(index);
                value
                    .map(String::as_str)
                    .filter(|v| *v != "-" && !v.is_empty())
            };
            let Some(name) = field(1).filter(|n| !n.contains([':', ',', '%'])) else {
                continue;
            };
            match field(0) {
                Some("g") => {
                    self.add_group(name, field(2).and_then(|id| id.parse().ok()));
                }
                Some("u" | "u!") => self.add_sysuser(name, field(2), field(3), field(4)),
                Some("m") => {
                    if let Some(group) = field(2) {
                        self.add_user(name, None, Some(name), None, "");
                        self.add_group(group, None);
                        let group = self.groups.get_mut(group).expect("it was added");
                        if !group.members.iter().any(|m| m == name) {
                            group.members.push(name.to_owned());
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn add_sysuser(
        &mut self,
        name: &str,
        id: Option<&str>,
        gecos: Option<&str>,
        home: Option<&str>,
    ) {
        let (uid, group) = match id.map(|id| id.split_once(':').unwrap_or((id, name))) {
            Some((uid, group)) => (uid.parse().ok(), group.to_owned()),
            None => (None, name.to_owned()),
        };
        let group = match group.parse::<u32>() {
            Ok(gid) => self.group_of(gid).unwrap_or_else(|| name.to_owned()),
            Err(_) => group,
        };
        let plain = |text: &str| !text.contains([':', '%']);
        self.add_user(
            name,
            uid,
            Some(&group),
            Some(home.filter(|h| plain(h)).unwrap_or("/")),
            gecos.filter(|g| plain(g)).unwrap_or(""),
        );
    }

    fn group_of(&self, gid: u32) -> Option<String> {
        let mut groups = self.groups.iter();
        groups.find(|(_, g)| g.gid == gid).map(|(n, _)| n.clone())
    }

    /// A user's id.
    pub(super) fn uid(&self, name: &str) -> Option<u32> {
        self.users.get(name).map(|user| user.uid)
    }

    /// A group's id.
    pub(super) fn gid(&self, name: &str) -> Option<u32> {
        self.groups.get(name).map(|group| group.gid)
    }

    /// `etc/passwd` (passwd(5)), by id; passwords are locked.
    pub(super) fn passwd(&self) -> String {
        let mut users: Vec<_> = self.users.iter().collect();
        users.sort_by_key(|(name, user)| (user.uid, *name));
        users
            .iter()
            .map(|(name, u)| {
                format!(
                    "{name}:*:{}:{}:{}:{}:{}\n",
                    u.uid, u.gid, u.gecos, u.home, u.shell
                )
            })
            .collect()
    }

    /// `etc/group` (group(5)), by id.
    pub(super) fn group(&self) -> String {
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_by_key(|(name, group)| (group.gid, *name));
        groups
            .iter()
            .map(|(name, g)| format!("{name}:*:{}:{}\n", g.gid, g.members.join(",")))
            .collect()
    }

    /// An id that follows from the name and is neither a user's nor a group's.
    fn free_id(&self, name: &str) -> u32 {
        let count = LAST - FIRST + 1;
        let hash = Sha256::digest(name.as_bytes());
        let begin = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]) % count;
        let free = |id: &u32| {
            self.users.values().all(|u| u.uid != *id) && self.groups.values().all(|g| g.gid != *id)
        };
        (0..count)
            .map(|step| FIRST + (begin + step) % count)
            .find(free)
            .unwrap_or(LAST)
    }
}

/// Fields at white space; quotes keep some together.
fn sysusers_fields(line: &str) -> Vec<String> {
    let line = line.trim();
    if line.starts_with(['#', ';']) {
        return Vec::new();
    }
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        let last = fields.last_mut().expect("never empty");
        match c {
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => {
                if !last.is_empty() {
                    fields.push(String::new());
                }
            }
            c => last.push(c),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_accounts_are_base_passwds() {
        let accounts = Accounts::fixed();
        assert!(
            accounts
                .passwd()
                .starts_with("root:*:0:0:root:/root:/bin/bash\ndaemon:*:1:1:daemon:")
        );
        assert!(accounts.group().contains("\nwww-data:*:33:\n"));
        assert_eq!(accounts.uid("www-data"), Some(33));
    }

    #[test]
    fn added_accounts_keep_their_ids_whatever_else_is_there() {
        let mut alone = Accounts::fixed();
        alone.add_user("redis", None, Some("redis"), Some("/var/lib/redis"), "");
        let mut more = Accounts::fixed();
        for name in ["a", "b", "messagebus"] {
            more.add_user(name, None, Some(name), None, "");
        }
        more.add_user("redis", None, Some("redis"), Some("/var/lib/redis"), "");
        assert_eq!(alone.uid("redis"), more.uid("redis"));
        assert_eq!(alone.uid("redis"), alone.gid("redis"));
        assert!((100..=999).contains(&alone.uid("redis").unwrap()));
    }

    #[test]
    fn sysusers_files_are_followed() {
        let mut accounts = Accounts::fixed();
        accounts.add_sysusers(
            "# c\nu messagebus - \"System Message Bus\"\nu fix 450:480 - /var/fix\ng render 490 -\n\
             m messagebus adm\nu root 0 - /root\nu http 33:www-data\nu bad:name -\nx\n",
        );
        assert!(accounts.uid("messagebus").is_some());
        assert_eq!(accounts.uid("fix"), Some(450));
        assert_eq!(accounts.gid("render"), Some(490));
        assert_eq!(accounts.uid("root"), Some(0));
        assert!(accounts.group().contains("adm:*:4:messagebus\n"));
        assert!(accounts.passwd().contains("System Message Bus"));
        assert!(!accounts.passwd().contains("bad"));
    }
}
