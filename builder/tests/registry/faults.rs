//! What a registry may do wrong, or do on purpose: refused by name, and nothing of it is left.

use std::time::Duration;

use crate::place::Place;
use crate::server::{Asked, Reply, Served, Server, digest};

/// The refusal of an image whose registry answers by `twist` where that says something.
fn refusal(twist: impl Fn(&Served, &Asked) -> Option<Reply> + Send + Sync + 'static) -> String {
    refusal_of("team/app:1", Served::new(), twist)
}

fn refusal_of(
    name: &str,
    served: Served,
    twist: impl Fn(&Served, &Asked) -> Option<Reply> + Send + Sync + 'static,
) -> String {
    let server = Server::new(move |asked| {
        let twisted = twist(&served, asked);
        twisted.unwrap_or_else(|| served.reply(asked))
    });
    let place = Place::new();
    let text = place.refusal(&format!("{}/{name}", server.host()));
    assert!(
        server.asked().len() < 30,
        "asked {} times",
        server.asked().len()
    );
    let tmp = std::fs::read_dir(place.cache.root().join("tmp")).unwrap();
    assert_eq!(tmp.count(), 0, "litter");
    assert!(!text.contains(['\x1b', '\r']), "{text:?}");
    text
}

fn expect(text: &str, wanted: &[&str]) {
    for wanted in wanted {
        assert!(text.contains(wanted), "{wanted} is not in: {text}");
    }
}

fn is_layer(served: &Served, asked: &Asked) -> bool {
    asked.path.contains(&served.layers[1])
}

#[test]
fn other_bytes_are_refused_and_not_kept() {
    let text = refusal(|served, asked| {
        let mut reply = served.reply(asked);
        reply.body[100] ^= 1;
        is_layer(served, asked).then_some(reply)
    });
    expect(
        &text,
        &[
            "sent something else for sha256:",
            "its SHA-256 is sha256:",
            "do not use it",
        ],
    );
    let text = refusal(|served, asked| {
        let manifest = asked.path.ends_with(&served.manifest);
        manifest.then(|| Reply::new(200, vec![b' '; served.documents[&served.manifest].len()]))
    });
    expect(&text, &["sent something else"]);
    let text = refusal(|served, asked| {
        let index = asked.path.ends_with("/1");
        index.then(|| {
            served
                .reply(asked)
                .header("Docker-Content-Digest", &digest(b"other"))
        })
    });
    expect(&text, &["sent something else"]);
}

#[test]
fn bodies_that_end_early_again_and_again_are_refused() {
    let text = refusal(|served, asked| {
        is_layer(served, asked).then(|| {
            let mut reply = served.reply(asked);
            reply.body.truncate(10);
            reply
        })
    });
    expect(&text, &["sent", "bytes of sha256:", "goes on from there"]);
}

#[test]
fn endless_bodies_are_cut() {
    let endless = |reply: Reply| Reply {
        endless: true,
        body: vec![b' '; 1 << 16],
        ..reply
    };
    let text =
        refusal(move |served, asked| is_layer(served, asked).then(|| endless(Reply::new(200, ""))));
    expect(&text, &["sent more than"]);
    let text = refusal(move |_, asked| {
        asked
            .path
            .ends_with("/1")
            .then(|| endless(Reply::new(200, "")))
    });
    expect(
        &text,
        &["sent more than 4194304 bytes for the manifest of 1"],
    );
    let text = refusal(move |_, asked| {
        asked
            .path
            .ends_with("/1")
            .then(|| endless(Reply::new(500, "")))
    });
    expect(&text, &["answered 500"]);
    let text = refusal(|_, asked| {
        asked
            .path
            .ends_with("/1")
            .then(|| Reply::new(200, vec![b' '; 5 << 20]))
    });
    expect(&text, &["sent more than 4194304 bytes"]);
}

#[test]
fn a_registry_that_is_silent_is_given_up() {
    let served = Served::new();
    let server = Server::new(move |asked| {
        std::thread::sleep(Duration::from_secs(5));
        served.reply(asked)
    });
    let mut place = Place::new();
    place.settings.timing.stall = Duration::from_millis(50);
    place.settings.timing.tries = 2;
    let text = place.refusal(&format!("{}/team/app:1", server.host()));
    expect(
        &text,
        &["sent nothing, or next to nothing", "try again later"],
    );
    assert_eq!(server.asked().len(), 2);
}

#[test]
fn limits_and_errors_are_told() {
    let text = refusal(|_, _| Some(Reply::new(429, "").header("Retry-After", "3600")));
    expect(
        &text,
        &[
            "limits how much is fetched (429) and asks to wait 3600 s",
            "or log in",
        ],
    );
    let text = refusal(|_, _| {
        Some(Reply::new(
            500,
            "{\"errors\":[{\"code\":\"X\",\"message\":\"no\\u001b[31m disk\"}]}",
        ))
    });
    expect(
        &text,
        &["answered 500 for manifests/1 (it says: no [31m disk)"],
    );
    let text = refusal(|_, _| {
        Some(Reply::new(
            403,
            "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"not you\"}]}",
        ))
    });
    expect(&text, &["does not let this login read", "not you"]);
}

#[test]
fn a_missing_tag_and_a_missing_image_are_told_apart() {
    let text = refusal_of("team/app:2", Served::new(), |_, _| None);
    expect(&text, &["team/app has no tag 2", "list-tags"]);
    let text = refusal_of("team/other:1", Served::new(), |_, _| None);
    expect(&text, &["there is no image", "team/other", "needs a login"]);
}

#[test]
fn images_for_other_platforms_are_refused() {
    let mut served = Served::new();
    let index = served.add_index("{}", "windows", "amd64");
    let text = refusal_of(&format!("team/app@{index}"), served, |_, _| None);
    expect(
        &text,
        &["no image for linux/amd64, only for linux/arm64, windows/amd64"],
    );
}

#[test]
fn indexes_without_an_end_are_refused() {
    let mut served = Served::new();
    let mut at = served.index.clone();
    for _ in 0..5 {
        let inner = String::from_utf8(served.documents[&at].clone()).unwrap();
        at = served.add_index(&inner, "linux", "amd64");
    }
    let text = refusal_of(&format!("team/app@{at}"), served, |_, _| None);
    expect(&text, &["nested too deeply"]);
    // One that names itself has another digest than it says.
    let mut served = Served::new();
    let itself = String::from_utf8(served.documents["1"].clone()).unwrap();
    let itself = itself.replace(&served.manifest, &digest(b"itself"));
    served
        .documents
        .insert(digest(b"itself"), itself.clone().into_bytes());
    served.documents.insert("1".to_owned(), itself.into_bytes());
    let text = refusal_of("team/app:1", served, |_, _| None);
    expect(&text, &["sent"]);
}

#[test]
fn documents_that_are_none_are_refused() {
    for (document, want) in [
        ("nonsense", "expected"),
        (r#"{"schemaVersion":1,"fsLayers":[]}"#, "schema 1"),
        (
            r#"{"manifests":[],"config":{"digest":"x","size":1}}"#,
            "at once",
        ),
        (
            r#"{"config":{"digest":"sha256:../../x","size":1},"layers":[]}"#,
            "is not supported",
        ),
    ] {
        let text = refusal(move |_, asked| {
            asked
                .path
                .ends_with("/1")
                .then(|| Reply::new(200, document))
        });
        expect(&text, &[want]);
    }
}

#[test]
fn redirects_that_lead_nowhere_good_are_not_followed() {
    for (location, want) in [
        ("/v2/team/app/manifests/1", "leads on and on"),
        ("http://registry.example.org/x", "plain HTTP"),
        ("file:///etc/passwd", "no address of a document"),
        ("", "no address of a document"),
    ] {
        let text = refusal(move |_, _| Some(Reply::new(307, "").header("Location", location)));
        expect(&text, &[want]);
    }
}

#[test]
fn unknown_hosts_and_closed_ports_are_told() {
    let place = Place::new();
    expect(
        &place.refusal("registry.invalid/team/app:1"),
        &["registry.invalid", "hint: "],
    );
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    expect(
        &place.refusal(&format!("{closed}/team/app:1")),
        &["cannot talk to 127.0.0.1"],
    );
}
