//! Signatures in cosign's format that openssl makes.

use builder::source::trust::cosign::{CosignKey, CosignSignature, verify};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Place;

const NAME: &str = "registry.example.org/team/app";

fn digest(byte: &str) -> String {
    format!("sha256:{}", byte.repeat(32))
}

fn payload(name: &str, digest: &str) -> Value {
    json!({
        "critical": {
            "identity": { "docker-reference": name },
            "image": { "docker-manifest-digest": digest },
            "type": "cosign container image signature",
        },
        "optional": null,
    })
}

impl Place {
    /// Makes a key: `NAME.pem` and `NAME.pub`.
    fn make_key(&self, name: &str, options: &[&str]) -> CosignKey {
        let (private, public) = (format!("{name}.pem"), format!("{name}.pub"));
        self.run(
            "openssl",
            &[&["genpkey", "-quiet", "-out", &private], options].concat(),
        );
        self.run(
            "openssl",
            &["pkey", "-in", &private, "-pubout", "-out", &public],
        );
        CosignKey::parse(&self.read(&public)).unwrap()
    }

    fn sign_with(&self, name: &str, payload: &Value) -> CosignSignature {
        let payload = payload.to_string().into_bytes();
        self.write("payload", &payload);
        let private = format!("{name}.pem");
        if name == "ed" {
            self.run(
                "openssl",
                &[
                    "pkeyutl",
                    "-sign",
                    "-rawin",
                    "-in",
                    "payload",
                    "-out",
                    "signature",
                    "-inkey",
                    &private,
                ],
            );
        } else {
            self.run(
                "openssl",
                &[
                    "dgst",
                    "-sha256",
                    "-sign",
                    &private,
                    "-out",
                    "signature",
                    "payload",
                ],
            );
        }
        let signature = self.run("openssl", &["base64", "-A", "-in", "signature"]);
        let signature = String::from_utf8(signature).unwrap();
        CosignSignature { payload, signature }
    }
}

const P256: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
const RSA: &[&str] = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];

#[test]
fn each_kind_of_key_signs_and_only_for_its_own() {
    let place = Place::new();
    let keys = [
        ("ec", place.make_key("ec", P256)),
        ("rsa", place.make_key("rsa", RSA)),
        ("ed", place.make_key("ed", &["-algorithm", "ed25519"])),
        ("other", place.make_key("other", P256)),
    ];
    let digests = [digest("ab"), digest("cd")];
    for (name, key) in &keys {
        let signature = place.sign_with(name, &payload(NAME, &digests[1]));
        for (other, of_other) in &keys {
            let found = verify(
                std::slice::from_ref(of_other),
                NAME,
                &digests,
                std::slice::from_ref(&signature),
            );
            match name == other {
                true => assert!(found.unwrap().starts_with("sha256:"), "{name}"),
                false => assert!(
                    found
                        .unwrap_err()
                        .contains("none of its signatures is by a key"),
                    "{name} {other}"
                ),
            }
        }
        // One of several that holds is enough.
        let all = [
            place.sign_with("other", &payload(NAME, &digest("00"))),
            signature.clone(),
        ];
        verify(std::slice::from_ref(key), NAME, &digests, &all).unwrap();
        for cut in [0, 4, 20, signature.signature.len() - 4] {
            let cut = CosignSignature {
                signature: signature.signature[..cut].to_owned(),
                ..signature.clone()
            };
            assert!(verify(std::slice::from_ref(key), NAME, &digests, &[cut]).is_err());
        }
        for at in [0, 20, signature.payload.len() - 1] {
            let mut changed = signature.clone();
            changed.payload[at] ^= 1;
            assert!(verify(std::slice::from_ref(key), NAME, &digests, &[changed]).is_err());
        }
    }
    assert!(
        verify(&[keys[0].1.clone()], NAME, &digests, &[])
            .unwrap_err()
            .contains("it is not signed")
    );
}

#[test]
fn the_payload_is_of_this_image_and_of_nothing_else() {
    let place = Place::new();
    let keys = [place.make_key("ec", P256)];
    let digests = [digest("ab")];
    let good = payload(NAME, &digests[0]);
    let with = |path: &str, value: Value| {
        let mut changed = good.clone();
        *changed.pointer_mut(path).unwrap() = value;
        changed
    };
    let mut unknown = good.clone();
    unknown["critical"]["must-know"] = json!(1);
    for (payload, says) in [
        (
            with(
                "/critical/image/docker-manifest-digest",
                json!(digest("ac")),
            ),
            "is for sha256:acac",
        ),
        (
            with(
                "/critical/identity/docker-reference",
                json!("registry.example.org/team/app2"),
            ),
            "app2\", not for",
        ),
        (
            with(
                "/critical/identity/docker-reference",
                json!("evil.example.org/team/app"),
            ),
            "evil.example.org",
        ),
        (
            with("/critical/type", json!("something else")),
            "something else",
        ),
        (with("/critical/image", json!({})), "not as it should be"),
        (with("/critical", json!(null)), "not as it should be"),
        (unknown, "unknown field `must-know`"),
        (json!([]), "not as it should be"),
    ] {
        let signature = place.sign_with("ec", &payload);
        let refusal = verify(&keys, NAME, &digests, &[signature]).unwrap_err();
        assert!(refusal.contains(says), "{says}: {refusal}");
    }
    for (signed, name) in [
        ("registry.example.org/team/app:1.0", NAME),
        ("index.docker.io/library/redis", "docker.io/library/redis"),
    ] {
        let signature = place.sign_with("ec", &payload(signed, &digests[0]));
        verify(&keys, name, &digests, &[signature]).unwrap();
    }
}

#[test]
fn what_is_no_strong_public_key_is_refused() {
    let place = Place::new();
    place.make_key("ec", P256);
    place.run("openssl", &["genrsa", "-out", "short.pem", "1024"]);
    place.run(
        "openssl",
        &["pkey", "-in", "short.pem", "-pubout", "-out", "short.pub"],
    );
    place.run(
        "openssl",
        &[
            "genpkey",
            "-quiet",
            "-out",
            "p384.pem",
            "-algorithm",
            "EC",
            "-pkeyopt",
            "ec_paramgen_curve:P-384",
        ],
    );
    place.run(
        "openssl",
        &["pkey", "-in", "p384.pem", "-pubout", "-out", "p384.pub"],
    );
    place.write(
        "two.pub",
        [place.read("ec.pub"), place.read("ec.pub")].concat(),
    );
    place.write("cut.pub", &place.read("ec.pub")[..60]);
    place.write("text.pub", "key");
    for (file, says) in [
        ("short.pub", "1024 bits"),
        ("p384.pub", "none of ECDSA P-256"),
        ("ec.pem", "it is a private key"),
        ("two.pub", "several keys"),
        ("cut.pub", "no public key in PEM"),
        ("text.pub", "no public key in PEM"),
    ] {
        let refusal = CosignKey::parse(&place.read(file)).unwrap_err();
        assert!(refusal.contains(says), "{file}: {refusal}");
    }
}

/// Puts a blob into the layout and tells its descriptor.
fn put(place: &Place, bytes: &[u8], media_type: &str) -> Value {
    let hex = format!("{:x}", Sha256::digest(bytes));
    place.write(&format!("layout/blobs/sha256/{hex}"), bytes);
    json!({ "mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len() })
}

#[test]
fn a_layout_holds_the_signatures_of_its_image() {
    let place = Place::new();
    std::fs::create_dir_all(place.path().join("layout/blobs/sha256")).unwrap();
    place.make_key("ec", P256);
    place.make_key("other", P256);
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let mut image = put(&place, b"{}", manifest_type);
    let digest = image["digest"].as_str().unwrap().to_owned();
    let signature = place.sign_with("ec", &payload(NAME, &digest));
    let mut layer = put(
        &place,
        &signature.payload,
        "application/vnd.dev.cosign.simplesigning.v1+json",
    );
    layer["annotations"] = json!({ "dev.cosignproject.cosign/signature": signature.signature });
    let manifest = json!({ "schemaVersion": 2, "config": layer, "layers": [layer] });
    let mut signatures = put(&place, manifest.to_string().as_bytes(), manifest_type);
    let write = |manifests: Value| {
        place.write(
            "layout/index.json",
            json!({ "manifests": manifests }).to_string(),
        );
    };
    let policy = |key: &str, name: &str| {
        format!(
            "[trust.policy.p]\nimages = [\"oci:*\"]\ncosign_keys = [\"{key}.pub\"]\nsigned_as = \"{name}\"\n"
        )
    };
    let tag = format!("{}.sig", digest.replace(':', "-"));
    for (of_image, of_signatures) in [
        ("kind", "dev.cosignproject.cosign/sigs"),
        ("org.opencontainers.image.ref.name", tag.as_str()),
    ] {
        image["annotations"] = json!({ of_image: "dev.cosignproject.cosign/image" });
        signatures["annotations"] = json!({ of_image: of_signatures });
        write(json!([signatures, image]));
        let signer = place.check(&policy("ec", NAME), "oci:layout").unwrap();
        assert!(signer.contains("signed (cosign) by sha256:"), "{signer}");
        let refusal = place
            .check(&policy("other", NAME), "oci:layout")
            .unwrap_err();
        assert!(refusal.contains("none of its signatures"), "{refusal}");
        let refusal = place
            .check(&policy("ec", "evil.org/x"), "oci:layout")
            .unwrap_err();
        assert!(refusal.contains("not for \"evil.org/x\""), "{refusal}");
    }
    // Another image in its place, two of them, and no signature.
    let evil = put(&place, b"{ }", manifest_type);
    for (manifests, says) in [
        (json!([signatures, evil]), "its signature is for"),
        (
            json!([signatures, image, evil]),
            "not exactly one such image",
        ),
        (json!([image]), "it is not signed"),
        (json!([signatures]), "not exactly one such image"),
        (
            json!([{ "digest": "../../x" }, signatures]),
            "its signature is for",
        ),
    ] {
        write(manifests);
        let refusal = place.check(&policy("ec", NAME), "oci:layout").unwrap_err();
        assert!(refusal.contains(says), "{says}: {refusal}");
    }
    let unnamed = "[trust.policy.p]\nimages = [\"oci:*\"]\ncosign_keys = [\"ec.pub\"]\n";
    let refusal = place.check(unnamed, "oci:layout").unwrap_err();
    assert!(refusal.contains("needs `signed_as`"), "{refusal}");
}
