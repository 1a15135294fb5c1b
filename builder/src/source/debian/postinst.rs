//! What packages' maintainer scripts would have made, as data: no script is ever run.
//!
//! Common work is read out of the scripts ([`super::script`]) and out of `sysusers.d`; what single packages do
//! besides stands in the table here. What is covered by neither is told to the user by the package's name.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::accounts::Accounts;
use super::script::{Alternative, Script};
use crate::source::error::FileError;
use crate::source::image::read_content;
use crate::tree::{Content, Inode, InodeId, Kind, Metadata, Tree, TreeError};

/// One thing that a package's script makes.
enum Action {
    /// A symbolic link, if nothing is there.
    Link {
        path: &'static str,
        target: &'static str,
    },
    /// A copy of a file of the layer, if nothing is there.
    Copy {
        from: &'static str,
        to: &'static str,
    },
    /// An empty file, if nothing is there.
    Empty { path: &'static str },
    /// A directory, if nothing is there.
    Directory { path: &'static str },
    /// Owner, group and mode of what is there.
    Owner {
        path: &'static str,
        user: &'static str,
        group: &'static str,
        mode: u16,
    },
}

use Action::{Copy, Directory, Empty, Link, Owner};

/// What a package's script does that is not read out of it.
fn actions(package: &str) -> &'static [Action] {
    match package {
        "nginx-common" => &[
            Owner {
                path: "var/log/nginx",
                user: "root",
                group: "adm",
                mode: 0o755,
            },
            Empty {
                path: "var/log/nginx/access.log",
            },
            Owner {
                path: "var/log/nginx/access.log",
                user: "www-data",
                group: "adm",
                mode: 0o640,
            },
            Empty {
                path: "var/log/nginx/error.log",
            },
            Owner {
                path: "var/log/nginx/error.log",
                user: "www-data",
                group: "adm",
                mode: 0o640,
            },
            Link {
                path: "etc/nginx/sites-enabled/default",
                target: "/etc/nginx/sites-available/default",
            },
            Copy {
                from: "usr/share/nginx/html/index.html",
                to: "var/www/html/index.nginx-debian.html",
            },
        ],
        "redis-tools" => &[
            Directory {
                path: "var/log/redis",
            },
            Owner {
                path: "var/log/redis",
                user: "redis",
                group: "adm",
                mode: 0o2750,
            },
            Directory {
                path: "var/lib/redis",
            },
            Owner {
                path: "var/lib/redis",
                user: "redis",
                group: "redis",
                mode: 0o750,
            },
            Directory { path: "etc/redis" },
            Owner {
                path: "etc/redis",
                user: "redis",
                group: "redis",
                mode: 0o2770,
            },
        ],
        "redis-server" => &[Owner {
            path: "etc/redis/redis.conf",
            user: "redis",
            group: "redis",
            mode: 0o640,
        }],
        "memcached" => &[Copy {
            from: "usr/share/memcached/memcached.conf.default",
            to: "etc/memcached.conf",
        }],
        _ => &[],
    }
}

/// Packages whose scripts only care for a running machine, for upgrades, or for what the builder does itself.
const NOTHING_TO_DO: &[&str] = &[
    "base-files",
    "base-passwd",
    "bash",
    "ca-certificates",
    "coreutils",
    "dash",
    "debconf",
    "debianutils",
    "dpkg",
    "init-system-helpers",
    "iproute2",
    "libc-bin",
    "libc6",
    "libpam0g",
    "libgcrypt20",
    "libgssapi-krb5-2",
    "libpam-modules",
    "libselinux1",
    "nginx",
    "openssl",
    "passwd",
    "perl-base",
    "tar",
    "util-linux",
];

/// Does all of it to a layer's tree; the result names the packages whose scripts may do more.
pub(super) fn apply(
    tree: &mut Tree,
    scripts: &[(String, Script)],
) -> Result<Vec<String>, super::UnpackError> {
    make_skeleton(tree)?;
    let accounts = make_accounts(tree, scripts)?;
    make_alternatives(tree, scripts)?;
    make_certificates(tree)?;
    let mut uncovered = Vec::new();
    for (package, script) in scripts {
        for (from, to) in &script.nginx_modules {
            let target = format!("/usr/share/nginx/modules-available/{from}");
            put_link(tree, &format!("etc/nginx/modules-enabled/{to}"), &target)?;
        }
        let table = actions(package);
        for action in table {
            act(tree, &accounts, action)?;
        }
        if script.does_more && table.is_empty() && !NOTHING_TO_DO.contains(&package.as_str()) {
            uncovered.push(package.clone());
        }
    }
    Ok(uncovered)
}

fn act(tree: &mut Tree, accounts: &Accounts, action: &Action) -> Result<(), super::UnpackError> {
    match action {
        Link { path, target } => put_link(tree, path, target)?,
        Copy { from, to } => {
            let source = tree.lookup(from).map(|id| tree.inode(id).kind.clone());
            if let (Some(Kind::File(content)), None) = (source, tree.lookup(to)) {
                tree.put_file(to, 0o644, content)?;
            }
        }
        Empty { path } => put_empty(tree, path)?,
        Directory { path } => {
            tree.make_directories(path)?;
        }
        Owner {
            path,
            user,
            group,
            mode,
        } => {
            if let Some(id) = tree.lookup(path) {
                let metadata = &mut tree.inode_mut(id).metadata;
                metadata.uid = accounts.uid(user).unwrap_or(0);
                metadata.gid = accounts.gid(group).unwrap_or(0);
                metadata.mode = *mode;
            }
        }
    }
    Ok(())
}

/// What is there on every Debian machine, and the files over which init binds its own.
fn make_skeleton(tree: &mut Tree) -> Result<(), TreeError> {
    for (path, mode) in [
        ("dev", 0o755),
        ("etc", 0o755),
        ("home", 0o755),
        ("proc", 0o555),
        ("root", 0o700),
        ("run", 0o755),
        ("srv", 0o755),
        ("sys", 0o555),
        ("tmp", 0o1777),
        ("var", 0o755),
        ("var/cache", 0o755),
        ("var/lib", 0o755),
        ("var/log", 0o755),
        ("var/tmp", 0o1777),
    ] {
        let id = tree.make_directories(path)?;
        tree.inode_mut(id).metadata.mode = mode;
    }
    put_link(tree, "var/run", "/run")?;
    put_link(tree, "var/lock", "/run/lock")?;
    for path in ["etc/hostname", "etc/hosts", "etc/resolv.conf"] {
        put_empty(tree, path)?;
    }
    // base-files' own file is a link to a file that it does not always bring.
    if tree.lookup("etc/nsswitch.conf").is_none() {
        let text = "passwd: files\ngroup: files\nhosts: files dns\n";
        tree.put_file("etc/nsswitch.conf", 0o644, text_content(text))?;
    }
    Ok(())
}

fn make_accounts(
    tree: &mut Tree,
    scripts: &[(String, Script)],
) -> Result<Accounts, super::UnpackError> {
    let mut accounts = Accounts::fixed();
    for text in read_directory(tree, "usr/lib/sysusers.d", b".conf")? {
        accounts.add_sysusers(&String::from_utf8_lossy(&text));
    }
    for (_, script) in scripts {
        for group in &script.groups {
            accounts.add_group(group, None);
        }
        for account in &script.accounts {
            let (group, home) = (account.group.as_deref(), account.home.as_deref());
            accounts.add_user(&account.name, None, group, home, "");
        }
    }
    tree.put_file("etc/passwd", 0o644, text_content(&accounts.passwd()))?;
    tree.put_file("etc/group", 0o644, text_content(&accounts.group()))?;
    Ok(accounts)
}

/// For each name the alternative of the highest priority, as update-alternatives(1) chooses.
fn make_alternatives(tree: &mut Tree, scripts: &[(String, Script)]) -> Result<(), TreeError> {
    let mut best: BTreeMap<&str, &Alternative> = BTreeMap::new();
    for alternative in scripts.iter().flat_map(|(_, script)| &script.alternatives) {
        let there = lookup_link(tree, &alternative.target).is_some();
        let better = best
            .get(alternative.name.as_str())
            .is_none_or(|b| alternative.priority > b.priority);
        if there && better {
            best.insert(&alternative.name, alternative);
        }
    }
    for (name, alternative) in best {
        put_link(
            tree,
            &format!("etc/alternatives/{name}"),
            &alternative.target,
        )?;
        put_link(
            tree,
            &real_path(&alternative.link),
            &format!("/etc/alternatives/{name}"),
        )?;
    }
    Ok(())
}

/// The bundle that `update-ca-certificates` makes, and where OpenSSL looks for it.
fn make_certificates(tree: &mut Tree) -> Result<(), super::UnpackError> {
    let mut bundle = Vec::new();
    for text in read_directory(tree, "usr/share/ca-certificates/mozilla", b".crt")? {
        bundle.extend_from_slice(&text);
        if !text.ends_with(b"\n") {
            bundle.push(b'\n');
        }
    }
    if bundle.is_empty() {
        return Ok(());
    }
    let path = "etc/ssl/certs/ca-certificates.crt";
    tree.put_file(path, 0o644, Content::Bytes(Arc::from(bundle)))?;
    put_link(tree, "usr/lib/ssl/cert.pem", &format!("/{path}"))?;
    Ok(())
}

fn read_directory(tree: &Tree, path: &str, suffix: &[u8]) -> Result<Vec<Vec<u8>>, FileError> {
    let entries = tree.lookup(path).and_then(|id| tree.entries(id));
    let files = entries.into_iter().flatten();
    files
        .filter(|(name, _)| name.ends_with(suffix))
        .filter_map(|(_, id)| match &tree.inode(*id).kind {
            Kind::File(content) => Some(read_content(content)),
            _ => None,
        })
        .collect()
}

/// A path of merged-/usr in its real place.
fn real_path(path: &str) -> String {
    let path = path.trim_start_matches('/');
    let (first, _) = path.split_once('/').unwrap_or((path, ""));
    if super::unpack::MERGED.contains(&first) {
        format!("usr/{path}")
    } else {
        path.to_owned()
    }
}

fn lookup_link(tree: &Tree, path: &str) -> Option<InodeId> {
    tree.lookup(&real_path(path))
}

fn put_link(tree: &mut Tree, path: &str, target: &str) -> Result<(), TreeError> {
    if tree.lookup(path).is_none() {
        let kind = Kind::Symlink(target.as_bytes().to_vec());
        let metadata = Metadata::with_mode(0o777);
        tree.put(path, Inode { metadata, kind })?;
    }
    Ok(())
}

fn put_empty(tree: &mut Tree, path: &str) -> Result<(), TreeError> {
    if tree.lookup(path).is_none() {
        tree.put_file(path, 0o644, text_content(""))?;
    }
    Ok(())
}

fn text_content(text: &str) -> Content {
    Content::Bytes(Arc::from(text.as_bytes()))
}
