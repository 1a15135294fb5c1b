//! Debian's docker-registry on loopback: plain, with TLS by an authority of the test's own, with logins.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::place::Place;

/// `user:password`, as htpasswd writes it with bcrypt.
const USERS: &str = "user:$2y$04$UoZ7osQIKH/gsgAWdjiv7edeusgnciZdql1zxZb5XXE/a1TPFl9UK\n";

struct Running {
    child: Child,
    host: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A registry that keeps its images in the folder; with logins it speaks TLS.
fn start(folder: &Path, logins: bool) -> Running {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let config = folder.join("config.yml");
    let here = folder.display();
    let mut text =
        format!("version: 0.1\nlog: {{level: error}}\nhttp:\n  addr: 127.0.0.1:{port}\n");
    if logins {
        text += &format!("  tls: {{certificate: {here}/cert.pem, key: {here}/key.pem}}\n");
        text += &format!("auth: {{htpasswd: {{realm: r, path: {here}/users}}}}\n");
    }
    text += &format!("storage: {{filesystem: {{rootdirectory: {here}/images}}}}\n");
    fs::write(&config, text).unwrap();
    let child = Command::new("docker-registry")
        .args(["serve".as_ref(), config.as_os_str()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "docker-registry does not listen"
        );
        thread::sleep(Duration::from_millis(10));
    }
    Running {
        child,
        host: format!("localhost:{port}"),
    }
}

fn run(folder: &Path, program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {text}");
}

/// A layout with an image of one file, by umoci.
fn layout(folder: &Path) {
    fs::write(folder.join("hello"), "hello\n").unwrap();
    run(folder, "umoci", &["init", "--layout", "layout"]);
    run(folder, "umoci", &["new", "--image", "layout:1"]);
    run(
        folder,
        "umoci",
        &[
            "insert",
            "--rootless",
            "--image",
            "layout:1",
            "hello",
            "/hello",
        ],
    );
    run(
        folder,
        "umoci",
        &["config", "--image", "layout:1", "--config.cmd", "/hello"],
    );
}

fn hello(place: &Place, name: &str) {
    let image = place.pull(name).unwrap();
    assert_eq!(image.read("/hello", 100).unwrap(), b"hello\n");
}

#[test]
fn images_pushed_by_skopeo_are_pulled_by_tag_and_digest() {
    let place = Place::new();
    let folder = place.directory.path();
    layout(folder);
    let registry = start(folder, false);
    for (format, tag) in [("oci", "oci"), ("v2s2", "docker")] {
        let name = format!("{}/team/app:{tag}", registry.host);
        let to = format!("docker://{name}");
        let options = ["copy", "-q", "--dest-tls-verify=false", "--format", format];
        run(
            folder,
            "skopeo",
            &[&options[..], &["oci:layout:1", &to]].concat(),
        );
        hello(&place, &name);
        let digest = place.pull(&name).unwrap().digest;
        let fresh = Place::new();
        hello(&fresh, &format!("{}/team/app@{digest}", registry.host));
    }
    let refusal = place.refusal(&format!("{}/team/app:none", registry.host));
    assert!(refusal.contains("team/app has no tag none"), "{refusal}");
    let refusal = place.refusal(&format!("{}/team/none:1", registry.host));
    assert!(refusal.contains("none"), "{refusal}");
}

#[test]
fn tls_by_an_authority_of_the_file_s_own_and_logins() {
    let mut place = Place::new();
    let folder = place.directory.path().to_owned();
    layout(&folder);
    let new = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30";
    let script = format!(
        "{new} -subj /CN=authority -keyout ca.key -out ca.pem -addext basicConstraints=critical,CA:TRUE && \
         {new} -subj /CN=localhost -keyout key.pem -out cert.pem -CA ca.pem -CAkey ca.key \
         -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE"
    );
    run(&folder, "sh", &["-c", &script]);
    fs::write(folder.join("users"), USERS).unwrap();
    let registry = start(&folder, true);
    let name = format!("{}/team/app:1", registry.host);
    let to = format!("docker://{name}");
    let options = [
        "copy",
        "-q",
        "--dest-tls-verify=false",
        "--dest-creds",
        "user:password",
    ];
    run(
        &folder,
        "skopeo",
        &[&options[..], &["oci:layout:1", &to]].concat(),
    );

    // On loopback plain HTTP is spoken where no authority is named; this one speaks TLS only.
    assert!(place.refusal(&name).contains("400"));
    run(
        &folder,
        "sh",
        &[
            "-c",
            &format!("{new} -subj /CN=other -keyout o.key -out other.pem"),
        ],
    );
    place.trust(&registry.host, folder.join("other.pem"));
    let refusal = place.refusal(&name);
    assert!(
        refusal.contains("nobody that this host trusts") && refusal.contains("ca = "),
        "{refusal}"
    );
    place.trust(&registry.host, folder.join("ca.pem"));
    let refusal = place.refusal(&name);
    assert!(
        refusal.contains("wants a login") && refusal.contains("config.json"),
        "{refusal}"
    );
    place.log_in(&format!(
        r#"{{"auths": {{"{}": {{"auth": "dXNlcjpwYXNzd29yZA=="}}}}}}"#,
        registry.host
    ));
    hello(&place, &name);
}
