use super::*;

#[test]
fn minimal_document_parses_and_unknown_properties_are_ignored() {
    let text = r#"{"ociVersion":"1.0.2","x":1,"linux":{"resources":{"memory":{"limit":-1}}}}"#;
    let spec: Spec = serde_json::from_str(text).expect("valid");
    assert_eq!(
        spec.linux
            .resources
            .and_then(|resources| resources.memory?.limit),
        Some(-1)
    );
}

#[test]
fn numbers_out_of_range_and_deep_nesting_are_refused() {
    let deep = format!(
        r#"{{"ociVersion":"1.0.2","linux":{{"personality":{}{}}}}}"#,
        "[".repeat(4000),
        "]".repeat(4000)
    );
    let cases = [
        r#"{"ociVersion":"1.0.2","process":{"cwd":"/","user":{"uid":4294967296}}}"#,
        r#"{"ociVersion":"1.0.2","process":{"cwd":"/","user":{"uid":-1}}}"#,
        r#"{"ociVersion":"1.0.2","process":{"cwd":"/","user":{"uid":"0x0"}}}"#,
        r#"{"ociVersion":"1.0.2"} trailing"#,
        &deep,
    ];
    for text in cases {
        assert!(
            serde_json::from_str::<Spec>(text).is_err(),
            "{}",
            &text[..60.min(text.len())]
        );
    }
}

#[test]
fn null_stands_for_what_is_left_out() {
    let text = r#"{"ociVersion":"1.2.0","mounts":null,"hooks":null,"annotations":null,"process":{"cwd":"/","args":null,
        "user":{"additionalGids":null},"capabilities":null,"rlimits":null},"linux":{"resources":{"memory":null,
        "devices":null,"unified":null},"namespaces":null,"maskedPaths":null,"seccomp":null}}"#;
    let spec: Spec = serde_json::from_str(text).expect("valid");
    assert!(spec.mounts.is_empty() && spec.linux.seccomp.is_none());
    let process = spec.process.expect("it is there");
    assert!(process.args.is_empty() && process.capabilities.is_none());
}
