//! Detached signatures that gpg makes.

use std::fs;
use std::path::Path;

use builder::progress::Progress;
use builder::source::cache::Cache;
use builder::source::load_checked;
use builder::source::trust::{Checked, check_local};

use super::Place;

/// A keyring of gpg's, with one key.
pub(super) struct Home<'a> {
    place: &'a Place,
    name: &'a str,
    time: Option<&'a str>,
}

impl<'a> Home<'a> {
    pub(super) fn new(place: &'a Place, name: &'a str) -> Self {
        fs::create_dir(place.path().join(name)).unwrap();
        place.run("chmod", &["700", name]);
        Self {
            place,
            name,
            time: None,
        }
    }

    /// The same at another time of day.
    fn at(mut self, time: &'a str) -> Self {
        self.time = Some(time);
        self
    }

    fn gpg(&self, arguments: &[&str]) -> Vec<u8> {
        let mut all = vec![
            "--homedir",
            self.name,
            "--batch",
            "--yes",
            "--quiet",
            "--no-tty",
        ];
        all.extend(["--pinentry-mode", "loopback", "--passphrase", ""]);
        if let Some(time) = self.time {
            all.extend(["--faked-system-time", time]);
        }
        all.extend(arguments);
        self.place.run("gpg", &all)
    }

    /// Makes a key and writes its certificate to `NAME.asc`.
    pub(super) fn key(&self, algorithm: &str, expires: &str) -> &Self {
        let user = format!("{} <{}@example.org>", self.name, self.name);
        self.gpg(&["--quick-gen-key", &user, algorithm, "cert,sign", expires]);
        self.export()
    }

    fn export(&self) -> &Self {
        let file = format!("{}.asc", self.name);
        self.gpg(&["--armor", "--output", &file, "--export"]);
        self
    }

    fn fingerprint(&self) -> String {
        let listed = self.gpg(&["--with-colons", "--list-keys"]);
        let listed = String::from_utf8(listed).unwrap();
        let line = listed
            .lines()
            .find(|line| line.starts_with("fpr:"))
            .unwrap();
        line.split(':').nth(9).unwrap().to_owned()
    }

    /// Signs `app.aci`.
    fn sign(&self, options: &[&str]) -> &Self {
        let rest = [
            "--output",
            "app.aci.asc",
            "--armor",
            "--detach-sign",
            "app.aci",
        ];
        self.gpg(&[options, &rest].concat());
        self
    }
}

fn policy(key: &str) -> String {
    format!(
        "[trust.policy.p]\nimages = [\"aci:*\", \"oci-archive:*\"]\nopenpgp_keys = [\"{key}\"]\n"
    )
}

fn place() -> Place {
    let place = Place::new();
    place.write("app.aci", "an image");
    place
}

#[track_caller]
fn assert_refused(place: &Place, key: &str, says: &str) {
    let refusal = place.check(&policy(key), "aci:app.aci").unwrap_err();
    assert!(refusal.contains(says), "no {says:?} in: {refusal}");
}

#[test]
fn signatures_of_each_kind_of_key_hold_and_tell_the_signer() {
    for algorithm in ["ed25519", "rsa2048", "nistp256"] {
        let place = place();
        let home = Home::new(&place, "red");
        home.key(algorithm, "never").sign(&[]);
        let signer = place.check(&policy("red.asc"), "aci:app.aci").unwrap();
        let fingerprint = home.fingerprint();
        assert_eq!(
            signer,
            format!("signed (OpenPGP) by {fingerprint}, as policy p asks;")
        );
        // A binary signature and certificate, and another kind of file.
        fs::rename(place.path().join("app.aci"), place.path().join("app.tar")).unwrap();
        home.gpg(&["--output", "app.tar.sig", "--detach-sign", "app.tar"]);
        home.gpg(&["--output", "red.gpg", "--export"]);
        place
            .check(&policy("red.gpg"), "oci-archive:app.tar:v1")
            .unwrap();
    }
}

#[test]
fn a_subkey_signs_for_its_certificate_until_it_is_revoked() {
    let place = place();
    let home = Home::new(&place, "red");
    home.key("ed25519", "never");
    let fingerprint = home.fingerprint();
    home.gpg(&["--quick-add-key", &fingerprint, "ed25519", "sign", "never"]);
    home.export().sign(&[]);
    let signer = place.check(&policy("red.asc"), "aci:app.aci").unwrap();
    assert!(signer.contains(&fingerprint), "{signer}");
    let commands = "key 1\nrevkey\ny\n0\n\ny\nsave\n";
    place.write("commands", commands);
    home.gpg(&[
        "--command-file",
        "commands",
        "--no-batch",
        "--edit-key",
        &fingerprint,
    ]);
    home.export();
    assert_refused(&place, "red.asc", "its key is revoked");
}

#[test]
fn other_keys_and_other_files_are_refused() {
    let place = place();
    Home::new(&place, "red").key("ed25519", "never").sign(&[]);
    Home::new(&place, "blue").key("ed25519", "never");
    assert_refused(&place, "blue.asc", "it is not by a key of the policy");
    assert_refused(&place, "none.asc", "none.asc");
    let both =
        "[trust.policy.p]\nimages = [\"aci:*\"]\nopenpgp_keys = [\"blue.asc\", \"red.asc\"]\n";
    place.check(both, "aci:app.aci").unwrap();

    place.write("app.aci", "an imagE");
    assert_refused(&place, "red.asc", "the signature is not of this file");
    place.write("app.aci", "an image");
    let signature = place.read("app.aci.asc");
    for cut in [0, 1, 27, 100, signature.len() / 2, signature.len() - 40] {
        place.write("app.aci.asc", &signature[..cut]);
        assert_refused(&place, "red.asc", "app.aci.asc");
    }
    place.write("app.aci.asc", b"no signature");
    assert_refused(&place, "red.asc", "it is no OpenPGP signature");
    place.write("app.aci.asc", place.read("red.asc"));
    assert_refused(&place, "red.asc", "app.aci.asc");
    fs::remove_file(place.path().join("app.aci.asc")).unwrap();
    assert_refused(&place, "red.asc", "there is no app.aci.asc beside it");
}

#[test]
fn each_file_of_an_image_is_signed() {
    let place = place();
    Home::new(&place, "red").key("ed25519", "never").sign(&[]);
    place.write("base.aci", "another image");
    let refusal = place
        .check(&policy("red.asc"), "aci:app.aci,base.aci")
        .unwrap_err();
    assert!(refusal.contains("no base.aci.asc beside it"), "{refusal}");
    let open = format!(
        "{}[trust.policy.base]\nimages = [\"aci:base.aci\"]\nunsigned = true\n",
        policy("red.asc")
    );
    place.check(&open, "aci:app.aci,base.aci").unwrap();
    // Folders and layouts carry no such signature.
    let all = policy("red.asc").replace("aci:*", "*");
    for reference in ["dir:.", "oci:."] {
        assert!(place.check(&all, reference).is_err(), "{reference}");
    }
}

#[test]
fn expired_and_revoked_certificates_are_refused() {
    let place = place();
    let old = Home::new(&place, "old").at("20200101T000000");
    old.key("ed25519", "1y").sign(&[]);
    assert_refused(&place, "old.asc", "its certificate is expired");
    // Its time is made longer: the newest word counts.
    let renewed = Home { time: None, ..old };
    let fingerprint = renewed.fingerprint();
    renewed.gpg(&["--quick-set-expire", &fingerprint, "0"]);
    renewed.export();
    place.check(&policy("old.asc"), "aci:app.aci").unwrap();

    let gone = Home::new(&place, "gone");
    gone.key("ed25519", "never").sign(&[]);
    place.check(&policy("gone.asc"), "aci:app.aci").unwrap();
    let fingerprint = gone.fingerprint();
    let path = place
        .path()
        .join(format!("gone/openpgp-revocs.d/{fingerprint}.rev"));
    let revocation = fs::read_to_string(path)
        .unwrap()
        .replace(":-----BEGIN", "-----BEGIN");
    place.write("revocation", revocation);
    gone.gpg(&["--import", "revocation"]);
    gone.export();
    assert_refused(&place, "gone.asc", "its certificate is revoked");
}

#[test]
fn signatures_of_another_time_are_refused() {
    let place = place();
    let old = Home::new(&place, "old").at("20200101T000000");
    old.key("ed25519", "never")
        .sign(&["--default-sig-expire", "1d"]);
    assert_refused(&place, "old.asc", "the signature is expired");
    let future = Home::new(&place, "future").at("20800101T000000");
    future.key("ed25519", "never").sign(&[]);
    assert_refused(&place, "future.asc", "the signature is of the future");
}

#[test]
fn weak_signatures_are_refused() {
    let place = place();
    let red = Home::new(&place, "red");
    red.key("rsa2048", "never");
    for (option, says) in [
        (&["--digest-algo", "SHA1"][..], "the weak hash SHA1"),
        (&["--digest-algo", "RIPEMD160"], "the weak hash RIPEMD160"),
        (&["--digest-algo", "SHA224"], "the weak hash SHA224"),
        (&["--textmode"], "not one of binary data"),
        (
            &["--sig-notation", "!critical@example.org=1"],
            "is not understood",
        ),
    ] {
        red.sign(option);
        assert_refused(&place, "red.asc", says);
    }
    for (name, algorithm, says) in [
        ("short", "rsa1024", "1024 bits"),
        ("dsa", "dsa2048", "weak or unknown algorithm"),
    ] {
        Home::new(&place, name)
            .key(algorithm, "never")
            .sign(&["--digest-algo", "SHA256"]);
        assert_refused(&place, &format!("{name}.asc"), says);
    }
    red.gpg(&["--armor", "--output", "secret.asc", "--export-secret-keys"]);
    assert_refused(&place, "secret.asc", "it is a private key");
}

#[test]
fn a_certificate_that_signs_itself_weakly_does_not_count() {
    let place = place();
    let old = Home::new(&place, "old");
    let user = "old <old@example.org>";
    old.gpg(&[
        "--cert-digest-algo",
        "SHA1",
        "--quick-gen-key",
        user,
        "rsa2048",
        "cert,sign",
        "never",
    ]);
    old.export().sign(&["--digest-algo", "SHA256"]);
    assert_refused(&place, "old.asc", "not signed by itself, or weakly so");
}

fn checked(place: &Place, reference: &str) -> Checked {
    let text = format!("name = \"m\"\n{}", policy("red.asc"));
    let spec = config::parse(&text).unwrap();
    check_local(&spec.trust, reference, place.path()).unwrap()
}

/// Reads an image that was checked, with a cache of this name; its digest, or why not.
fn read(
    place: &Place,
    reference: &str,
    checked: &Checked,
    cache: &str,
) -> Result<Option<String>, String> {
    let cache = Cache::open(Some(&place.path().join(cache))).unwrap();
    let base: &Path = place.path();
    match load_checked(reference, base, checked, &cache, &Progress::silent()) {
        Ok((_, digest)) => Ok(digest),
        Err(error) => Err(format!("{:#}", anyhow::Error::new(error))),
    }
}

#[test]
fn what_is_read_is_what_was_verified_whatever_becomes_of_the_file() {
    let place = Place::new();
    let home = Home::new(&place, "red");
    home.key("ed25519", "never");
    let make = |archive: &str, command: &str| {
        let script = format!(
            "rm -rf layout && umoci init --layout layout && umoci new --image layout:1 && \
             umoci config --image layout:1 --config.cmd {command} && tar -C layout -cf {archive} ."
        );
        place.run("sh", &["-c", &script]);
    };
    make("app.tar", "/good");
    make("evil.tar", "/evil");
    home.gpg(&["--output", "app.tar.sig", "--detach-sign", "app.tar"]);
    let archive = "oci-archive:app.tar";
    let good = checked(&place, archive);
    let digest = read(&place, archive, &good, "cache").unwrap();
    place.write("app.tar", place.read("evil.tar"));
    assert_eq!(read(&place, archive, &good, "cache").unwrap(), digest);
    let refusal = read(&place, archive, &good, "empty").unwrap_err();
    assert!(refusal.contains("it changed meanwhile"), "{refusal}");
    assert_ne!(
        read(&place, archive, &Checked::default(), "cache").unwrap(),
        digest
    );

    place.write("app.aci", "an image");
    home.sign(&[]);
    let good = checked(&place, "aci:app.aci");
    place.write("app.aci", "another image");
    let refusal = read(&place, "aci:app.aci", &good, "cache").unwrap_err();
    assert!(refusal.contains("it changed meanwhile"), "{refusal}");
}

#[test]
fn a_policy_for_a_folder_counts_from_wherever_the_build_is_started() {
    let place = Place::new();
    let home = Home::new(&place, "red");
    home.key("ed25519", "never");
    place.write("app.aci", "an image");
    let here = place.path().display().to_string();
    let policies = policy("red.asc").replace("aci:*", &format!("aci:{here}/*"));
    let refusal = place.check(&policies, &format!("aci:{here}/app.aci"));
    let refusal = refusal.unwrap_err();
    assert!(refusal.contains("it is not signed"), "{refusal}");
}
