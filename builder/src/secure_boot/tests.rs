//! A set of keys is slow to make: each test that needs one takes the same.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use super::*;
use crate::format::pe::append_sections;

/// Two sets, `a` and `b`, in a folder that stays.
fn sets() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap().keep();
        for name in ["a", "b"] {
            let new = NewKeys {
                owner: format!("Test {name}"),
                bits: 2048,
                now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            };
            KeySet::generate(&new)
                .unwrap()
                .write(&folder.join(name))
                .unwrap();
        }
        folder
    })
}

fn signing(key: &str, certificate: &str) -> Signing {
    Signing {
        signer: Signer::Key(Box::new(read_key(&sets().join(key)).unwrap())),
        certificate: Certificate::read(&sets().join(certificate)).unwrap(),
    }
}

fn command(words: &[&str]) -> Signing {
    let words = words.iter().map(ToString::to_string).collect();
    Signing {
        signer: Signer::Command(SignCommand::new(words, sets().join("a"))),
        certificate: Certificate::read(&sets().join("a/db.pem")).unwrap(),
    }
}

/// The stub that Debian ships, where it is installed, with a section more.
fn image() -> Option<Vec<u8>> {
    let stub = std::fs::read("/usr/lib/systemd/boot/efi/linuxx64.efi.stub").ok()?;
    Some(append_sections(&stub, &[(".cmdline", b"quiet")]).unwrap())
}

#[test]
fn a_signed_image_fits_and_one_that_was_changed_does_not() {
    let Some(image) = image() else { return };
    let signed = signing("a/db.key", "a/db.pem")
        .sign("uki", image.clone())
        .unwrap();
    assert_eq!(
        signed,
        signing("a/db.key", "a/db.der").sign("uki", image).unwrap(),
        "the same bytes each time"
    );
    let found = signatures(&signed).unwrap();
    assert!(found.len() == 1 && found[0].fits);
    assert_eq!(
        found[0].certificate.subject(),
        "CN=Test a image signing key"
    );
    for at in [1000, 50_000, signed.len() - 3000] {
        let mut changed = signed.clone();
        changed[at] ^= 1;
        assert!(!signatures(&changed).unwrap()[0].fits, "{at}");
    }
}

#[test]
fn the_field_s_own_tool_agrees() {
    let Some(image) = image() else { return };
    if Command::new("sbverify").arg("--version").output().is_err() {
        eprintln!("skipped: sbverify is not installed (Debian package sbsigntool)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("signed.efi");
    std::fs::write(
        &path,
        signing("a/db.key", "a/db.pem").sign("uki", image).unwrap(),
    )
    .unwrap();
    let accepts = |certificate: &str| {
        let mut sbverify = Command::new("sbverify");
        sbverify
            .arg("--cert")
            .arg(sets().join(certificate))
            .arg(&path);
        sbverify.output().unwrap().status.success()
    };
    assert!(accepts("a/db.pem"));
    assert!(!accepts("b/db.pem"));
}

#[test]
fn a_key_of_another_pair_signs_nothing() {
    let Some(image) = image() else { return };
    let other = signing("b/db.key", "a/db.pem");
    assert!(matches!(
        other.signer.check(&other.certificate),
        Err(SecureBootError::Mismatch { .. })
    ));
    assert!(matches!(
        other.sign("uki", image),
        Err(SecureBootError::Mismatch { .. })
    ));
}

#[test]
fn a_command_signs_what_the_key_would() {
    let Some(image) = image() else { return };
    let openssl = [
        "openssl",
        "pkeyutl",
        "-sign",
        "-inkey",
        "db.key",
        "-pkeyopt",
        "digest:sha256",
    ];
    let signed = command(&openssl).sign("uki", image.clone()).unwrap();
    assert_eq!(
        signed,
        signing("a/db.key", "a/db.pem").sign("uki", image).unwrap()
    );
}

#[test]
fn a_command_that_fails_hangs_or_lies_signs_nothing() {
    let Some(image) = image() else { return };
    for (words, wanted) in [
        (&["/nonexistent"][..], "does not start"),
        (&["false"], "failed: exit status: 1"),
        (&["true"], "wrote 0 bytes that are no signature"),
        (
            &["head", "-c", "256", "/dev/zero"],
            "wrote 256 bytes that are no signature",
        ),
        (
            &[
                "sh",
                "-c",
                "openssl pkeyutl -sign -inkey ../b/db.key -pkeyopt digest:sha256",
            ],
            "no signature by the key of CN=Test a",
        ),
    ] {
        let error = command(words)
            .sign("uki", image.clone())
            .unwrap_err()
            .to_string();
        assert!(error.contains(wanted), "{error}");
    }
    let mut slow = command(&["sleep", "100"]);
    if let Signer::Command(command) = &mut slow.signer {
        command.time_limit = Duration::from_millis(50);
    }
    let error = slow.sign("uki", image.clone()).unwrap_err().to_string();
    assert!(error.contains("took longer"), "{error}");
    let mut agent = command(&["sh", "-c", "sleep 20 & exit 0"]);
    if let Signer::Command(command) = &mut agent.signer {
        command.time_limit = Duration::from_secs(4);
    }
    let error = agent.sign("uki", image).unwrap_err().to_string();
    assert!(error.contains("holds its output open"), "{error}");
}

#[test]
fn keys_are_their_owner_s_alone_and_never_overwritten() {
    let path = sets().join("a/db.key");
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let before = std::fs::read(&path).unwrap();
    let new = NewKeys {
        owner: "New".to_owned(),
        bits: 2048,
        now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
    };
    let error = KeySet::generate(&new)
        .unwrap()
        .write(&sets().join("a"))
        .unwrap_err();
    assert!(error.to_string().contains("cannot write"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn certificates_and_keys_of_no_use_are_told_by_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str, arguments: &[&str]| {
        let path = folder.path().join(name);
        let mut openssl = Command::new("openssl");
        openssl.args([
            "req",
            "-x509",
            "-nodes",
            "-subj",
            "/CN=x",
            "-keyout",
            "/dev/null",
            "-out",
        ]);
        let output = openssl.arg(&path).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        path
    };
    for (arguments, wanted) in [
        (&["-newkey", "rsa:1024"][..], "RSA of 1024 bits"),
        (&["-newkey", "rsa:2048", "-sha1"], "broken hash"),
        (
            &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
            "no RSA key",
        ),
        (
            &[
                "-newkey",
                "rsa:2048",
                "-addext",
                "extendedKeyUsage=serverAuth",
            ],
            "usage excludes",
        ),
        (
            &["-newkey", "rsa:2048", "-addext", "keyUsage=keyEncipherment"],
            "usage excludes",
        ),
    ] {
        let error = Certificate::read(&make("c.pem", arguments)).unwrap_err();
        assert!(error.to_string().contains(wanted), "{error}");
        assert!(error.hint().is_some());
    }
    let late = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    let certificate = Certificate::read(&sets().join("a/db.pem")).unwrap();
    assert!(certificate.out_of_time(late).unwrap().contains("expired"));
    assert!(
        certificate
            .out_of_time(SystemTime::UNIX_EPOCH)
            .unwrap()
            .contains("valid from")
    );
    for (text, wanted) in [
        ("-----BEGIN ENCRYPTED PRIVATE KEY-----\n", "passphrase"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n",
            "passphrase",
        ),
        ("-----BEGIN EC PRIVATE KEY-----\n", "no RSA key"),
        ("-----BEGIN CERTIFICATE-----\n", "no private key"),
        ("key", "no RSA key"),
    ] {
        let path = folder.path().join("k");
        std::fs::write(&path, text).unwrap();
        let error = read_key(&path).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
}

#[test]
fn an_update_of_a_variable_verifies_with_openssl() {
    let set = sets().join("a");
    let update = std::fs::read(set.join("db.auth")).unwrap();
    let list = std::fs::read(set.join("db.esl")).unwrap();
    assert!(update.ends_with(&list));
    let signature = &update[40..update.len() - list.len()];
    let mut covered = variables::name_utf16(variables::Variable::Allowed);
    covered.extend_from_slice(&variables::Variable::Allowed.vendor().to_bytes_le());
    covered.extend_from_slice(&variables::ATTRIBUTES.to_le_bytes());
    covered.extend_from_slice(&update[..16]);
    covered.extend_from_slice(&list);
    let folder = tempfile::tempdir().unwrap();
    // OpenSSL wants a ContentInfo around it.
    let mut wrapped = vec![
        0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02,
    ];
    let len = |n: usize| [0x82, (n >> 8) as u8, n as u8];
    wrapped.push(0xa0);
    wrapped.extend(len(signature.len()));
    wrapped.extend_from_slice(signature);
    let mut info = vec![0x30];
    info.extend(len(wrapped.len()));
    info.extend(wrapped);
    std::fs::write(folder.path().join("p7"), info).unwrap();
    std::fs::write(folder.path().join("content"), covered).unwrap();
    let output = Command::new("openssl")
        .current_dir(folder.path())
        .args([
            "smime",
            "-verify",
            "-inform",
            "DER",
            "-binary",
            "-in",
            "p7",
            "-content",
            "content",
            "-purpose",
            "any",
            "-partial_chain",
            "-CAfile",
        ])
        .arg(set.join("KEK.pem"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
