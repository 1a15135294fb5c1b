//! Signed images as real tools sign them, and the same unsigned, altered, or signed by whom nobody trusts.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cosign;
mod openpgp;

use std::fs;
use std::path::Path;
use std::process::Command;

use builder::source::trust::check_local;

/// A folder with keys, images and signatures.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path().join(name), bytes).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path().join(name)).unwrap()
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Vec<u8> {
        let mut command = Command::new(program);
        let output = command.args(arguments).current_dir(self.path()).output();
        let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{program} {arguments:?}: {text}");
        output.stdout
    }

    /// Who signed the image, by the policies of a file; or why it is refused.
    fn check(&self, policies: &str, reference: &str) -> Result<String, String> {
        let spec = config::parse(&format!("name = \"m\"\n{policies}")).unwrap();
        match check_local(&spec.trust, reference, self.path()) {
            Ok(checked) => Ok(checked
                .signers
                .iter()
                .map(|signer| format!("{signer};"))
                .collect()),
            Err(error) => Err(format!("{error} [{}]", error.hint)),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The agents that gpg has started end with their folder, though not at once.
        for home in fs::read_dir(self.path()).into_iter().flatten().flatten() {
            if home.path().join("private-keys-v1.d").exists() {
                let mut command = Command::new("gpgconf");
                command.arg("--homedir").arg(home.path());
                let _ = command.args(["--kill", "all"]).output();
            }
        }
    }
}

const REFUSE_ALL: &str = "[trust]\ndefault = \"refuse\"\n";

#[test]
fn what_no_policy_is_for_is_refused_by_default_to_refuse() {
    let place = Place::new();
    let refusal = place.check(REFUSE_ALL, "dir:x").unwrap_err();
    assert!(
        refusal.contains("no policy of [trust] is for it"),
        "{refusal}"
    );
    assert_eq!(place.check("", "dir:x").unwrap(), "");
    let open = format!("{REFUSE_ALL}[trust.policy.p]\nimages = [\"dir:x\"]\nunsigned = true");
    assert_eq!(place.check(&open, "dir:x").unwrap(), "");
    assert!(place.check(&open, "dir:y").is_err());
}

#[test]
fn an_unsigned_image_fails_the_build_with_its_place_and_nothing_is_written() {
    let place = Place::new();
    place.write("key.asc", "none");
    place.write("app.aci", "whatever");
    let text = "name = \"m\"\n[trust.policy.team]\nimages = [\"aci:*\"]\nopenpgp_keys = [\"key.asc\"]\n\
                [workload.w]\nimage = \"aci:app.aci\"\n";
    place.write("os.toml", text);
    let run = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coracle"));
        command.current_dir(place.path()).args(["build", "os.toml"]);
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        let mut names: Vec<_> = fs::read_dir(place.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with("home"))
            .collect();
        names.sort();
        assert_eq!(names, ["app.aci", "key.asc", "os.toml"], "{stderr}");
        stderr
    };
    let refusal = run();
    assert!(
        refusal.contains("key.asc: it is no OpenPGP certificate"),
        "{refusal}"
    );
    openpgp::Home::new(&place, "home").key("ed25519", "never");
    fs::rename(place.path().join("home.asc"), place.path().join("key.asc")).unwrap();
    let refusal = run();
    for part in [
        "is refused by policy team: it is not signed: there is no app.aci.asc beside it",
        "os.toml:6:9",
        "hint: let one of its keys sign it: gpg",
    ] {
        assert!(refusal.contains(part), "{part}: {refusal}");
    }
}
