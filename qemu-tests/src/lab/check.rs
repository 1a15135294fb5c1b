//! What steps of a lab check with.

/// Begins each step: checks tell what is not as it should be and let the step go on; `failed` is its result.
pub const CHECK: &str = r#"
failed=0
# check WHAT WANTED COMMAND...: the output is exactly this.
check() {
    what=$1 wanted=$2
    shift 2
    got=$("$@" 2>&1)
    if [ "$got" != "$wanted" ]; then
        echo "$what: got: $got"
        echo "$what: wanted: $wanted"
        failed=1
    else
        echo "$what: good"
    fi
}
# has WHAT WANTED COMMAND...: the output has a text in it.
has() {
    what=$1 wanted=$2
    shift 2
    got=$("$@" 2>&1)
    case $got in
    *"$wanted"*) echo "$what: good" ;;
    *) echo "$what: got: $got"; echo "$what: wanted: $wanted"; failed=1 ;;
    esac
}
# await COMMAND...: again until it succeeds; the step's own deadline ends it.
await() {
    until "$@" >/dev/null 2>&1; do sleep 0.2; done
}
"#;
