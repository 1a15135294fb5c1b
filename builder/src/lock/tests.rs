//! The lock as its users see it.

use super::*;

fn request(name: &str) -> Request {
    Request {
        packages: vec![name.into()],
        suite: None,
        recommends: false,
        alone: false,
    }
}

fn pinned(name: &str, version: &str) -> Pinned {
    Pinned {
        name: name.into(),
        version: version.into(),
        architecture: "amd64".into(),
        sha256: "0a".repeat(32),
        size: 5,
        filename: format!("pool/{name}.deb"),
    }
}

#[test]
fn pins_are_found_again_and_sorted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(LOCK_FILE);
    let mut lock = Lock::open(&path, Pins::Keep).unwrap();
    let other = Request {
        suite: Some("trixie".into()),
        alone: true,
        ..request("a")
    };
    lock.set_debian(request("b"), vec![pinned("b", "1"), pinned("libc6", "2")]);
    lock.set_debian(other.clone(), vec![pinned("a", "3")]);
    lock.save().unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(
        text.starts_with('#') && text.find("\"a\"") < text.find("\"b\""),
        "{text}"
    );
    let lock = Lock::open(&path, Pins::Keep).unwrap();
    assert_eq!(
        lock.debian(&request("b")).unwrap().unwrap()[1],
        pinned("libc6", "2")
    );
    assert_eq!(lock.debian(&other).unwrap().unwrap(), [pinned("a", "3")]);
    assert_eq!(lock.debian(&request("a")).unwrap(), None);
}

#[test]
fn update_ignores_old_pins_and_keeps_others() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(LOCK_FILE);
    let mut lock = Lock::open(&path, Pins::Keep).unwrap();
    lock.set_debian(request("a"), vec![pinned("a", "1")]);
    lock.set_debian(request("b"), vec![pinned("b", "1")]);
    lock.save().unwrap();
    let mut lock = Lock::open(&path, Pins::Move).unwrap();
    assert_eq!(lock.debian(&request("a")).unwrap(), None);
    lock.set_debian(request("a"), vec![pinned("a", "2")]);
    assert_eq!(
        lock.debian(&request("a")).unwrap().unwrap(),
        [pinned("a", "2")]
    );
    lock.save().unwrap();
    let lock = Lock::open(&path, Pins::Keep).unwrap();
    assert_eq!(
        lock.debian(&request("a")).unwrap().unwrap(),
        [pinned("a", "2")]
    );
    assert_eq!(
        lock.debian(&request("b")).unwrap().unwrap(),
        [pinned("b", "1")]
    );
}

#[test]
fn unchanged_lock_is_not_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(LOCK_FILE);
    let mut lock = Lock::open(&path, Pins::Keep).unwrap();
    lock.set_debian(request("a"), vec![pinned("a", "1")]);
    lock.save().unwrap();
    let text = fs::read_to_string(&path).unwrap() + "# mine\n";
    fs::write(&path, &text).unwrap();
    let mut lock = Lock::open(&path, Pins::Move).unwrap();
    lock.set_debian(request("a"), vec![pinned("a", "1")]);
    lock.save().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn damaged_files_are_refused_with_their_line() {
    let path = Path::new("dir/coracle.lock");
    let package = "[[debian]]\npackages = [\"a\"]\n[[debian.package]]\nname = \"a\"\n";
    for (text, want) in [
        ("version = 1\nbroken", "dir/coracle.lock:2:"),
        (
            "# x\nversion = 3\nnew = 1\n",
            "coracle.lock:2: the lock file has version 3",
        ),
        ("x = 1\n", "no valid version"),
        ("version = 1\nx = 1\n", "coracle.lock:2:"),
        (
            &format!("version = 1\n{package}"),
            "coracle.lock:4: the lock file is damaged: missing field",
        ),
        (
            "version = 1\n[[debian]]\npackages = []\npackage = []\nnew = 1\n",
            "coracle.lock:5:",
        ),
        (
            &format!(
                "version = 1\n{package}version = \"1\"\narchitecture = \"all\"\nsha256 = \"xy\"\nsize = 1\nfilename = \"f\"\n"
            ),
            "coracle.lock:8: the lock file is damaged: the sha256 of a",
        ),
    ] {
        let error = parse(path, text).unwrap_err().to_string();
        assert!(error.contains(want), "{text}: {error}");
    }
}

#[test]
fn pins_that_apt_would_take_for_options_are_refused() {
    let good = pinned("libstdc++6", "1:12.2.0-14+deb12u1~x");
    let with = |change: &dyn Fn(&mut Pinned)| {
        let mut pin = good.clone();
        change(&mut pin);
        let request = request("a");
        let mut document = Document::default();
        document
            .debian
            .push(document::DebianEntry::new(request, vec![pin]));
        let text = render(&document);
        parse(Path::new("coracle.lock"), &text)
    };
    assert!(with(&|_| {}).is_ok());
    for name in ["-oDir::Bin::gpg=x", "a b", "bash-", "", "Bash", "a/b", "x*"] {
        assert!(with(&|pin| pin.name = name.into()).is_err(), "{name}");
    }
    for version in ["", "-1", "1 2", "1/2", "1\n"] {
        let error = with(&|pin| pin.version = version.into()).unwrap_err();
        assert!(error.to_string().contains("coracle.lock:"), "{error}");
    }
    assert!(with(&|pin| pin.architecture = "../x".into()).is_err());
}

fn image(digest: char) -> PinnedImage {
    PinnedImage {
        reference: "a.org/b:1".into(),
        platform: "linux/amd64".into(),
        index: None,
        manifest: format!("sha256:{}", String::from(digest).repeat(64)),
    }
}

#[test]
fn images_and_files_are_pinned_and_moves_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(LOCK_FILE);
    let file = |digest: char| PinnedFile {
        path: "oci:x".into(),
        digest: format!("sha256:{}", String::from(digest).repeat(64)),
    };
    let mut lock = Lock::open(&path, Pins::Keep).unwrap();
    assert_eq!(lock.image("a.org/b:1").unwrap(), None);
    lock.set_image(image('a'));
    lock.set_file(file('b'));
    lock.set_debian(request("p"), vec![pinned("p", "1"), pinned("old", "1")]);
    lock.save().unwrap();
    let only = BTreeSet::from([Key::Image("a.org/b:1".into()), Key::Debian(request("p"))]);
    let mut lock = Lock::open(&path, Pins::MoveOnly(only)).unwrap();
    assert_eq!(lock.image("a.org/b:1").unwrap(), None);
    assert_eq!(lock.file("oci:x").unwrap(), Some(file('b').digest.as_str()));
    lock.set_image(image('c'));
    lock.set_debian(request("p"), vec![pinned("p", "2"), pinned("new", "1")]);
    lock.set_file(file('b'));
    let told: Vec<String> = lock.changes().iter().map(Change::to_string).collect();
    let (a, c) = ("a".repeat(64), "c".repeat(64));
    assert_eq!(
        told,
        [
            format!("a.org/b:1\n    sha256:{a} → sha256:{c}"),
            "debian p\n    new 1 (new)\n    old 1 (gone)\n    p 1 → 2".to_owned(),
        ]
    );
    lock.save().unwrap();
    let lock = Lock::open(&path, Pins::Require).unwrap();
    assert_eq!(lock.image("a.org/b:1").unwrap(), Some(&image('c')));
}

#[test]
fn what_is_not_pinned_is_named_where_nothing_may_be_added() {
    let lock = Lock::open(Path::new("/no/such/lock"), Pins::Require).unwrap();
    for (error, want) in [
        (
            lock.debian(&request("nginx")).unwrap_err(),
            "debian nginx is not pinned",
        ),
        (
            lock.image("a.org/b:1").unwrap_err(),
            "a.org/b:1 is not pinned",
        ),
        (lock.file("oci:x").unwrap_err(), "oci:x is not pinned"),
    ] {
        assert!(error.to_string().contains(want), "{error}");
    }
}

#[test]
fn a_lock_of_the_first_version_is_carried_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(LOCK_FILE);
    let mut lock = Lock::open(&path, Pins::Keep).unwrap();
    lock.set_debian(request("p"), vec![pinned("p", "1")]);
    lock.save().unwrap();
    let first = fs::read_to_string(&path)
        .unwrap()
        .replace("version = 2\n", "version = 1\n");
    fs::write(&path, &first).unwrap();
    let mut lock = Lock::open(&path, Pins::Keep).unwrap();
    assert!(lock.debian(&request("p")).unwrap().is_some());
    lock.save().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), first);
    lock.set_image(image('a'));
    lock.save().unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(
        text.contains("version = 2") && text.contains("[[debian]]"),
        "{text}"
    );
}

#[test]
fn digests_that_are_none_are_refused_with_their_line() {
    let text = "version = 2\n[[file]]\npath = \"oci:x\"\ndigest = \"sha256:../x\"\n";
    let error = parse(Path::new("coracle.lock"), text)
        .unwrap_err()
        .to_string();
    assert!(error.contains("coracle.lock:4:"), "{error}");
}

#[test]
fn what_an_update_moved_meanwhile_is_not_moved_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(LOCK_FILE);
    let file = |path: &str, digit: &str| PinnedFile {
        path: path.into(),
        digest: format!("sha256:{}", digit.repeat(64)),
    };
    let mut lock = Lock::open(&path, Pins::Keep).unwrap();
    lock.set_file(file("a", "1"));
    lock.save().unwrap();
    let mut build = Lock::open(&path, Pins::Keep).unwrap();
    let mut update = Lock::open(&path, Pins::Move).unwrap();
    update.set_file(file("a", "2"));
    update.save().unwrap();
    build.set_file(file("b", "3"));
    build.save().unwrap();
    let lock = Lock::open(&path, Pins::Keep).unwrap();
    assert_eq!(lock.files(), [file("a", "2"), file("b", "3")]);
}

#[test]
fn builds_that_pin_at_once_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(LOCK_FILE);
    std::thread::scope(|scope| {
        for name in 0..16 {
            let path = &path;
            scope.spawn(move || {
                let mut lock = Lock::open(path, Pins::Keep).unwrap();
                lock.set_file(PinnedFile {
                    path: format!("file{name}"),
                    digest: format!("sha256:{}", "1".repeat(64)),
                });
                lock.save().unwrap();
            });
        }
    });
    assert_eq!(Lock::open(&path, Pins::Keep).unwrap().files().len(), 16);
}

#[test]
fn a_thing_that_is_pinned_twice_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(LOCK_FILE);
    let entry = |digit: &str| {
        let digest = digit.repeat(64);
        format!("[[file]]\npath = \"a\"\ndigest = \"sha256:{digest}\"\n")
    };
    fs::write(&path, format!("version = 2\n{}{}", entry("1"), entry("2"))).unwrap();
    let error = Lock::open(&path, Pins::Keep).unwrap_err().to_string();
    assert!(
        error.contains("it pins a twice") && error.contains(":6:"),
        "{error}"
    );
}
