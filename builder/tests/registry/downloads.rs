//! What comes whole, in parts, twice at once, or not at all.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::place::Place;
use crate::server::{Reply, Served, Server, content};

fn app(server: &Server) -> String {
    format!("{}/team/app:1", server.host())
}

fn hex(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap()
}

#[test]
fn an_image_of_an_index_comes_once_and_is_read_without_the_network() {
    let served = Served::new();
    let (index, manifest) = (served.index.clone(), served.manifest.clone());
    let server = Server::new(move |asked| served.reply(asked));
    let place = Place::new();
    let image = place.pull(&app(&server)).unwrap();
    assert_eq!(image.read("/hello", 100).unwrap(), b"hello\n");
    assert!(image.read("/data", 1 << 20).unwrap() == content());
    assert_eq!(
        (image.config.command, image.digest),
        (vec!["/hello".to_owned()], manifest)
    );
    let asked = server.asked().len();
    assert_eq!(asked, 5, "index, manifest, configuration, two layers");
    let by_digest = format!("{}/team/app:1@{index}", server.host());
    let alone = Place {
        cache: place.cache.clone().without_network(),
        ..place
    };
    alone.pull(&by_digest).unwrap();
    assert_eq!(server.asked().len(), asked);
    let refusal = alone.refusal(&app(&server));
    assert!(
        refusal.contains("(manifests/1) is not in the cache")
            && refusal.contains("without --offline"),
        "{refusal}"
    );
}

#[test]
fn offline_names_what_an_empty_cache_lacks() {
    let served = Served::new();
    let digest = served.manifest.clone();
    let server = Server::new(move |asked| served.reply(asked));
    let mut place = Place::new();
    place.cache = place.cache.without_network();
    let refusal = place.refusal(&format!("{}/team/app@{digest}", server.host()));
    assert!(
        refusal.contains(&digest) && server.asked().is_empty(),
        "{refusal}"
    );
}

#[test]
fn a_broken_download_goes_on_where_it_broke() {
    let served = Served::new();
    let layer = served.layers[1].clone();
    let path = format!("blobs/{layer}");
    let server = Server::new(move |asked| {
        let reply = served.reply(asked);
        let at = reply.body.len() / 2;
        match asked.path.contains(&path) && asked.header("range").is_none() {
            true => reply.cut(at),
            false => reply,
        }
    });
    let place = Place::new();
    let image = place.pull(&app(&server)).unwrap();
    assert!(image.read("/data", 1 << 20).unwrap() == content());
    assert_eq!(server.count(&layer), 2);
    let left = std::fs::read_dir(place.cache.root().join("download")).unwrap();
    assert_eq!(left.count(), 0, "litter");
}

#[test]
fn a_stalled_download_goes_on_on_another_connection() {
    let served = Served::new();
    let layer = served.layers[1].clone();
    let path = format!("blobs/{layer}");
    let server = Server::new(move |asked| {
        let reply = served.reply(asked);
        match asked.path.contains(&path) && asked.header("range").is_none() {
            true => Reply {
                stall: Duration::from_secs(30),
                ..reply.cut(1000)
            },
            false => reply,
        }
    });
    let mut place = Place::new();
    place.settings.timing.stall = Duration::from_millis(300);
    place.settings.timing.tries = 20;
    assert!(
        place
            .pull(&app(&server))
            .unwrap()
            .read("/data", 1 << 20)
            .unwrap()
            == content()
    );
}

#[test]
fn a_killed_build_s_part_is_gone_on_from() {
    let served = Served::new();
    let (layer, bytes) = (
        served.layers[1].clone(),
        served.blobs[&served.layers[1]].clone(),
    );
    let server = Server::new(move |asked| served.reply(asked));
    let place = Place::new();
    let part = place.cache.directory("download").unwrap().join(hex(&layer));
    std::fs::write(part, &bytes[..5000]).unwrap();
    place.pull(&app(&server)).unwrap();
    let asked = server
        .asked()
        .into_iter()
        .find(|asked| asked.path.contains(&layer))
        .unwrap();
    assert_eq!(asked.header("range"), Some("bytes=5000-"));
}

#[test]
fn a_part_that_is_damaged_or_too_long_is_begun_anew() {
    let served = Served::new();
    let layer = served.layers[1].clone();
    for part in [vec![7; 5000], vec![7; 1 << 20]] {
        let served = served.clone();
        let server = Server::new(move |asked| served.reply(asked));
        let place = Place::new();
        let path = place.cache.directory("download").unwrap().join(hex(&layer));
        std::fs::write(path, part).unwrap();
        assert!(
            place
                .pull(&app(&server))
                .unwrap()
                .read("/data", 1 << 20)
                .unwrap()
                == content()
        );
    }
}

#[test]
fn a_registry_without_ranges_is_asked_for_the_whole() {
    let served = Served::new();
    let (layer, bytes) = (
        served.layers[1].clone(),
        served.blobs[&served.layers[1]].clone(),
    );
    let server = Server::new(move |asked| {
        let mut asked = asked.clone();
        asked.headers.remove("range");
        served.reply(&asked)
    });
    let place = Place::new();
    let part = place.cache.directory("download").unwrap().join(hex(&layer));
    std::fs::write(part, &bytes[..5000]).unwrap();
    assert!(
        place
            .pull(&app(&server))
            .unwrap()
            .read("/data", 1 << 20)
            .unwrap()
            == content()
    );
}

#[test]
fn two_builds_at_once_download_a_layer_once() {
    let served = Served::new();
    let layers = served.layers.clone();
    let server = Server::new(move |asked| {
        // Long enough for both to be there.
        let stall = Duration::from_millis(u64::from(asked.path.contains("blobs")) * 50);
        std::thread::sleep(stall);
        served.reply(asked)
    });
    let place = Place::new();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let image = place.pull(&app(&server)).unwrap();
                assert!(image.read("/data", 1 << 20).unwrap() == content());
            });
        }
    });
    for layer in layers {
        assert_eq!(server.count(&layer), 1, "{layer}");
    }
}

#[test]
fn what_may_pass_is_tried_again() {
    let served = Served::new();
    let count = AtomicUsize::new(0);
    let server = Server::new(move |asked| match count.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::new(500, ""),
        1 => Reply::new(429, "").header("Retry-After", "0"),
        2 => Reply::new(503, ""),
        _ => served.reply(asked),
    });
    Place::new().pull(&app(&server)).unwrap();
}

#[test]
fn signatures_beside_an_image_are_fetched_and_kept() {
    use builder::progress::Progress;
    use builder::source::registry::Registries;
    let mut served = Served::new();
    let payload = b"{\"critical\":{}}".to_vec();
    let manifest = served.manifest.clone();
    served.add_signature(&manifest, &payload, "c2ln");
    let (signed, unsigned) = (served.manifest.clone(), served.index.clone());
    let server = Server::new(move |asked| served.reply(asked));
    let place = Place::new();
    let silent = Progress::silent();
    let reference = crate::place::named(&app(&server));
    let registries = Registries::new(place.settings.clone(), &place.cache, &silent);
    let found = registries.signatures(&reference, &signed).unwrap();
    assert_eq!(
        (found[0].payload.as_slice(), found[0].signature.as_str()),
        (&payload[..], "c2ln")
    );
    assert!(
        registries
            .signatures(&reference, &unsigned)
            .unwrap()
            .is_empty()
    );
    let alone = place.cache.clone().without_network();
    let registries = Registries::new(place.settings.clone(), &alone, &silent);
    assert_eq!(registries.signatures(&reference, &signed).unwrap(), found);
    assert!(registries.signatures(&reference, &unsigned).is_err());
}
