//! The command: pins that move, and pins that are kept.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use crate::server::{Served, Server};

fn coracle(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coracle"));
    // The kernel's packages come from the cache that all tests share.
    if arguments[0] != "build" {
        command.env("CORACLE_CACHE", folder.join("cache"));
    }
    command
        .current_dir(folder)
        .env("DOCKER_CONFIG", folder)
        .args(arguments)
        .output()
        .unwrap()
}

fn good(folder: &Path, arguments: &[&str]) -> String {
    let output = coracle(folder, arguments);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn bad(folder: &Path, arguments: &[&str]) -> String {
    let output = coracle(folder, arguments);
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn update_moves_the_pin_of_a_tag_and_says_from_what_to_what() {
    let old = Served::new();
    let mut new = old.clone();
    let again = String::from_utf8(old.documents[&old.manifest].clone()).unwrap() + "\n";
    let moved = crate::server::digest(again.as_bytes());
    new.documents
        .insert("1".to_owned(), again.clone().into_bytes());
    new.documents.insert(moved.clone(), again.into_bytes());
    let before = old.manifest.clone();
    let served = Arc::new(Mutex::new(old));
    let shared = served.clone();
    let server = Server::new(move |asked| shared.lock().unwrap().reply(asked));
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let image = format!("{}/team/app:1", server.host());
    fs::write(
        folder.join("os.toml"),
        format!("name = \"m\"\n[workload.a]\nimage = \"{image}\"\n[workload.b]\nimage = \"dir:.\"\ncommand = [\"/x\"]\n"),
    )
    .unwrap();
    let told = good(folder, &["update", "--workload", "a"]);
    assert_eq!(told, format!("{image} (new)\n    {before}\n"));
    let lock = fs::read_to_string(folder.join("coracle.lock")).unwrap();
    for want in [
        "version = 2",
        "[[image]]",
        "platform = \"linux/amd64\"",
        "index = \"sha256:",
        &before,
    ] {
        assert!(lock.contains(want), "{want}: {lock}");
    }
    assert_eq!(good(folder, &["update", "os.toml", "--workload", "a"]), "");
    *served.lock().unwrap() = new;
    let told = good(folder, &["update", "--workload", "a"]);
    assert_eq!(told, format!("{image}\n    {before} → {moved}\n"));
    // A folder is source: there is nothing to pin.
    assert_eq!(good(folder, &["update", "--workload", "b"]), "");
    let refusal = bad(folder, &["update", "--workload", "c"]);
    assert!(
        refusal.contains("no workload `c`") && refusal.contains("a, b"),
        "{refusal}"
    );
}

#[test]
fn an_image_that_cannot_be_had_is_told_with_its_place() {
    let served = Served::new();
    let server = Server::new(move |asked| served.reply(asked));
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "name = \"m\"\n[workload.a]\nimage = \"{}/team/app:2\"\n",
        server.host()
    );
    fs::write(folder.path().join("os.toml"), text).unwrap();
    let refusal = bad(folder.path(), &["update", "--workload", "a"]);
    for want in [
        "os.toml:3:9",
        "has no tag 2",
        "hint: see whether the tag is right",
    ] {
        assert!(refusal.contains(want), "{want}: {refusal}");
    }
}

/// Runs a shell's line.
fn run(folder: &Path, line: &str) {
    let mut command = Command::new("sh");
    let output = command
        .current_dir(folder)
        .args(["-c", line])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A signature of the payload in cosign's format, by openssl.
fn signature(folder: &Path, payload: &str) -> String {
    fs::write(folder.join("payload"), payload).unwrap();
    run(
        folder,
        "openssl dgst -sha256 -sign key.pem -out signature payload",
    );
    let mut command = Command::new("base64");
    let output = command
        .args(["-w0", "signature"])
        .current_dir(folder)
        .stderr(Stdio::inherit());
    String::from_utf8(output.output().unwrap().stdout).unwrap()
}

#[test]
fn a_build_keeps_its_pins_and_says_what_changed_or_is_not_signed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    run(
        folder,
        "echo hello > hello && umoci init --layout layout && umoci new --image layout:1 && \
         umoci insert --rootless --image layout:1 hello /hello && \
         openssl ecparam -name prime256v1 -genkey -noout -out key.pem && \
         openssl ec -in key.pem -pubout -out key.pub",
    );
    let served = Arc::new(Mutex::new(Served::new()));
    let shared = served.clone();
    let server = Server::new(move |asked| shared.lock().unwrap().reply(asked));
    let name = format!("{}/team/app", server.host());
    let text = format!(
        "name = \"m\"\n\
         [trust]\ndefault = \"refuse\"\n\
         [trust.policy.team]\nimages = [\"{}/team/*\"]\ncosign_keys = [\"key.pub\"]\n\
         [trust.policy.mine]\nimages = [\"oci:*\"]\nunsigned = true\n\
         [workload.a]\nimage = \"{name}:1\"\n\
         [workload.b]\nimage = \"oci:layout:1\"\ncommand = [\"/hello\"]\n",
        server.host()
    );
    fs::write(folder.join("os.toml"), text).unwrap();

    let refusal = bad(folder, &["build", "os.toml", "-o", "a.img"]);
    assert!(
        refusal.contains("refused by policy team") && refusal.contains("os.toml:11:9"),
        "{refusal}"
    );
    assert_eq!(server.count("blobs"), 0, "no layer of it may come");
    assert!(!folder.join("coracle.lock").exists() && !folder.join("a.img").exists());

    let index = served.lock().unwrap().index.clone();
    let payload = format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"{name}"}},"image":{{"docker-manifest-digest":"{index}"}},"type":"cosign container image signature"}},"optional":null}}"#
    );
    let signed = signature(folder, &payload);
    served
        .lock()
        .unwrap()
        .add_signature(&index, payload.as_bytes(), &signed);
    good(folder, &["build", "os.toml", "-o", "a.img"]);
    let asked = server.asked().len();
    good(
        folder,
        &["build", "--locked", "--offline", "os.toml", "-o", "b.img"],
    );
    assert_eq!(server.asked().len(), asked, "offline asks nobody");
    assert!(fs::read(folder.join("a.img")).unwrap() == fs::read(folder.join("b.img")).unwrap());

    run(folder, "umoci config --image layout:1 --config.cmd /other");
    let refusal = bad(folder, &["build", "os.toml", "-o", "a.img"]);
    for want in [
        "os.toml:13:9",
        "`oci:layout:1` is sha256:",
        "now, and coracle.lock pins sha256:",
        "hint: `coracle update os.toml --workload b` pins what it is now",
    ] {
        assert!(refusal.contains(want), "{want}: {refusal}");
    }
    assert!(good(folder, &["update", "--workload", "b"]).starts_with("oci:layout:1\n"));
    good(
        folder,
        &["build", "--locked", "--offline", "os.toml", "-o", "a.img"],
    );

    let lock = fs::read_to_string(folder.join("coracle.lock")).unwrap();
    let manifest = served.lock().unwrap().manifest.clone();
    fs::write(
        folder.join("coracle.lock"),
        lock.replace(&manifest, &format!("sha256:{}", "0".repeat(64))),
    )
    .unwrap();
    let refusal = bad(
        folder,
        &["build", "--locked", "--offline", "os.toml", "-o", "a.img"],
    );
    assert!(
        refusal.contains("coracle.lock pins the manifest sha256:0000")
            && refusal.contains(&format!("the pinned index {index} has {manifest}")),
        "{refusal}"
    );
    fs::write(folder.join("coracle.lock"), lock).unwrap();

    run(folder, "sed -i s,team/app:1,team/app:2, os.toml");
    let refusal = bad(folder, &["build", "--locked", "os.toml", "-o", "a.img"]);
    assert!(
        refusal.contains("team/app:2 is not pinned in coracle.lock, and --locked"),
        "{refusal}"
    );
    let refusal = bad(folder, &["build", "--offline", "os.toml", "-o", "a.img"]);
    assert!(
        refusal.contains("is not in the cache, and --offline fetches nothing"),
        "{refusal}"
    );
}
