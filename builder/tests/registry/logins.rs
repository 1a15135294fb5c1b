//! Logins: what is sent, and to whom it is not.

use crate::place::Place;
use crate::server::{Asked, Reply, Served, Server};

const SECRET: &str = "horse-battery";
/// `user:horse-battery`.
const BASIC: &str = "dXNlcjpob3JzZS1iYXR0ZXJ5";

fn log_in(place: &Place, server: &Server) {
    place.log_in(&format!(
        r#"{{"auths": {{"{}": {{"auth": "{BASIC}"}}}}}}"#,
        server.host()
    ));
}

fn app(server: &Server) -> String {
    format!("{}/team/app:1", server.host())
}

fn basic_only(asked: &Asked, served: &Served) -> Reply {
    match asked.header("authorization") {
        Some(header) if header == format!("Basic {BASIC}") => served.reply(asked),
        _ => Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"r\""),
    }
}

#[test]
fn without_a_login_the_places_are_named() {
    let served = Served::new();
    let server = Server::new(move |asked| basic_only(asked, &served));
    let place = Place::new();
    let text = place.refusal(&app(&server));
    let login = format!("skopeo login {}", server.host());
    for want in ["wants a login\n", login.as_str(), "config.json"] {
        assert!(text.contains(want), "{text}");
    }
    log_in(&place, &server);
    place.pull(&app(&server)).unwrap();
}

#[test]
fn a_wrong_login_is_not_told() {
    let server =
        Server::new(|_| Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"r\""));
    let place = Place::new();
    log_in(&place, &server);
    let text = place.refusal(&app(&server));
    assert!(
        text.contains("does not take the one it was given"),
        "{text}"
    );
    assert!(!text.contains(SECRET) && !text.contains(BASIC), "{text}");
}

/// A registry with a token server, which gives a token for this kind of login.
fn with_tokens(login: &'static str) -> Server {
    let served = Served::new();
    let challenge = |asked: &Asked| {
        let host = asked.header("host").unwrap();
        format!(r#"Bearer realm="http://{host}/token",service="here",scope="x""#)
    };
    Server::new(move |asked| {
        if asked.path.starts_with("/token") {
            let basic = asked.header("authorization") == Some(&format!("Basic {BASIC}"));
            let identity = asked.method == "POST" && asked.body.contains("refresh_token=tok%2B1&");
            let scope = "service=here&scope=repository%3Ateam%2Fapp%3Apull";
            assert!(
                asked.path.contains(scope) || asked.body.contains(scope),
                "{asked:?}"
            );
            let good = match login {
                "identity" => identity,
                "basic" => basic,
                _ => true,
            };
            return match good {
                true => Reply::new(200, r#"{"access_token": "t0ken", "expires_in": 60}"#),
                false => Reply::new(401, ""),
            };
        }
        match asked.header("authorization") {
            Some("Bearer t0ken") => served.reply(asked),
            _ => Reply::new(401, "").header("WWW-Authenticate", &challenge(asked)),
        }
    })
}

#[test]
fn tokens_are_fetched_once_with_what_login_there_is() {
    let server = with_tokens("none");
    Place::new().pull(&app(&server)).unwrap();
    assert_eq!(server.count("/token"), 2, "one to resolve, one to pull");
    let server = with_tokens("basic");
    let place = Place::new();
    assert!(place.refusal(&app(&server)).contains("wants a login"));
    log_in(&place, &server);
    place.pull(&app(&server)).unwrap();
    let server = with_tokens("identity");
    place.log_in(&format!(
        r#"{{"auths": {{"{}": {{"identitytoken": "tok+1"}}}}}}"#,
        server.host()
    ));
    place.pull(&app(&server)).unwrap();
}

#[test]
fn a_redirect_to_another_server_takes_no_login_along() {
    let served = Served::new();
    let storage = {
        let served = served.clone();
        Server::new(move |asked| served.reply(asked))
    };
    let elsewhere = format!("http://{}", storage.host());
    let server = Server::new(move |asked| {
        let reply = basic_only(asked, &served);
        match reply.status == 200 && asked.path.contains("blobs") {
            true => Reply::new(307, "").header("Location", &format!("{elsewhere}{}", asked.path)),
            false => reply,
        }
    });
    let place = Place::new();
    log_in(&place, &server);
    place.pull(&app(&server)).unwrap();
    assert_eq!(storage.count("blobs"), 3);
    let leaked = storage
        .asked()
        .iter()
        .any(|asked| asked.header("authorization").is_some());
    assert!(!leaked, "the login went along");
}

#[test]
fn a_token_server_in_plain_http_elsewhere_gets_no_login() {
    let server = Server::new(|_| {
        let challenge = r#"Bearer realm="http://tokens.example.org/""#;
        Reply::new(401, "").header("WWW-Authenticate", challenge)
    });
    let place = Place::new();
    log_in(&place, &server);
    let text = place.refusal(&app(&server));
    assert!(
        text.contains("tokens.example.org: this is plain HTTP"),
        "{text}"
    );
}
