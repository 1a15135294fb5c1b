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
    let mut lock = Lock::open(&path, false).unwrap();
    let other = Request {
        suite: Some("trixie".into()),
        alone: true,
        ..request("a")
    };
    lock.set(request("b"), vec![pinned("b", "1"), pinned("libc6", "2")]);
    lock.set(other.clone(), vec![pinned("a", "3")]);
    lock.save().unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(
        text.starts_with('#') && text.find("\"a\"") < text.find("\"b\""),
        "{text}"
    );
    let lock = Lock::open(&path, false).unwrap();
    assert_eq!(lock.get(&request("b")).unwrap()[1], pinned("libc6", "2"));
    assert_eq!(lock.get(&other).unwrap(), [pinned("a", "3")]);
    assert_eq!(lock.get(&request("a")), None);
}

#[test]
fn update_ignores_old_pins_and_keeps_others() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(LOCK_FILE);
    let mut lock = Lock::open(&path, false).unwrap();
    lock.set(request("a"), vec![pinned("a", "1")]);
    lock.set(request("b"), vec![pinned("b", "1")]);
    lock.save().unwrap();
    let mut lock = Lock::open(&path, true).unwrap();
    assert_eq!(lock.get(&request("a")), None);
    lock.set(request("a"), vec![pinned("a", "2")]);
    assert_eq!(lock.get(&request("a")).unwrap(), [pinned("a", "2")]);
    lock.save().unwrap();
    let lock = Lock::open(&path, false).unwrap();
    assert_eq!(lock.get(&request("a")).unwrap(), [pinned("a", "2")]);
    assert_eq!(lock.get(&request("b")).unwrap(), [pinned("b", "1")]);
}

#[test]
fn unchanged_lock_is_not_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(LOCK_FILE);
    let mut lock = Lock::open(&path, false).unwrap();
    lock.set(request("a"), vec![pinned("a", "1")]);
    lock.save().unwrap();
    let text = fs::read_to_string(&path).unwrap() + "# mine\n";
    fs::write(&path, &text).unwrap();
    let mut lock = Lock::open(&path, true).unwrap();
    lock.set(request("a"), vec![pinned("a", "1")]);
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
            "# x\nversion = 2\nnew = 1\n",
            "coracle.lock:2: the lock file has version 2",
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
        let text = render(&mut vec![DebianEntry::new(request, vec![pin])]);
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
