//! The command: pins that move, and pins that are kept.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use crate::server::{Served, Server};

fn coracle(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coracle"));
    command
        .current_dir(folder)
        .env("CORACLE_CACHE", folder.join("cache"))
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
