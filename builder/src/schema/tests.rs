//! The schema against the parser, the examples, the mistakes and the reference: what one knows and another does not
//! fails here.

use super::*;
use std::fs;
use std::path::{Path, PathBuf};

/// What of a value a schema of ours refuses; nothing if it fits.
fn refusals(schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    if let Some(choices) = schema["anyOf"].as_array() {
        let fits = |choice: &Value| {
            let mut refused = Vec::new();
            refusals(choice, value, at, &mut refused);
            refused.is_empty()
        };
        if !choices.iter().any(fits) {
            found.push(format!("{at}: none of the choices"));
        }
        return;
    }
    let is = match schema["type"].as_str().unwrap_or_default() {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{at}: type {other:?}"),
    };
    if !is {
        found.push(format!("{at}: not of type {}", schema["type"]));
        return;
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        found.push(format!("{at}: none of {words:?}"));
    }
    for item in value.as_array().into_iter().flatten() {
        refusals(&schema["items"], item, at, found);
    }
    let Some(table) = value.as_object() else {
        return;
    };
    for key in schema["required"].as_array().into_iter().flatten() {
        if !table.contains_key(key.as_str().unwrap()) {
            found.push(format!("{at}: {key} is missing"));
        }
    }
    for (key, value) in table {
        let at = format!("{at}.{key}");
        match (&schema["properties"][key], &schema["additionalProperties"]) {
            (Value::Null, Value::Bool(false)) => found.push(format!("{at}: unknown")),
            (Value::Null, schema) | (schema, _) => refusals(schema, value, &at, found),
        }
    }
}

fn refused(text: &str) -> Vec<String> {
    let table: toml::Table = toml::from_str(text).unwrap();
    let mut found = Vec::new();
    refusals(
        &schema(),
        &serde_json::to_value(table).unwrap(),
        "",
        &mut found,
    );
    found
}

/// All keys: the path of their table, and the key.
fn keys() -> Vec<(String, &'static str)> {
    fn collect(shape: &Shape, path: &str, found: &mut Vec<(String, &'static str)>) {
        match shape {
            Shape::Array(item) => collect(item, path, found),
            Shape::Map(value) => collect(value, &format!("{path}.*"), found),
            Shape::Table(fields) => {
                for field in fields {
                    found.push((path.to_owned(), field.name));
                    let inner = match path {
                        "" => field.name.to_owned(),
                        path => format!("{path}.{}", field.name),
                    };
                    collect(&field.shape, &inner, found);
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    collect(&machine(), "", &mut found);
    found
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn every_example_fits_the_schema() {
    let mut count = 0;
    for entry in fs::read_dir(repository().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            let text = fs::read_to_string(&path).unwrap();
            assert_eq!(refused(&text), Vec::<String>::new(), "{}", path.display());
            count += 1;
        }
    }
    assert!(count >= 3);
}

#[test]
fn mistakes_of_form_are_refused_by_schema_and_parser() {
    for text in [
        "version = \"1\"",
        "name = 5",
        "name = \"a\"\nkye = 1",
        "name = \"a\"\nstate = true",
        "name = \"a\"\n[state]\non_damage = \"keep\"",
        "name = \"a\"\n[state]\nsize = \"64MiB\"\non_damage = \"x\"",
        "name = \"a\"\n[kernel]\ncommand_line = \"x\"",
        "name = \"a\"\n[workload.w]\nimage = \"dir:.\"\npids = \"9\"",
        "name = \"a\"\n[workload.w]\nimage = \"dir:.\"\nnetwork = 1",
        "name = \"a\"\n[workload.w]\nimage = \"dir:.\"\nvolumes = [{ name = \"x\" }]",
        "name = \"a\"\n[workload.w]\nimage = \"dir:.\"\nenv = { A = 1 }",
        "name = \"a\"\n[[workload]]\nimage = \"dir:.\"",
    ] {
        assert!(!refused(text).is_empty(), "{text}");
        assert!(config::parse(text).is_err(), "{text}");
    }
}

#[test]
fn each_word_is_known_to_the_parser_and_no_other() {
    let keys = keys();
    for (path, words) in words::WORDS {
        let (table, key) = path.rsplit_once('.').unwrap();
        assert!(keys.iter().any(|(t, k)| t == table && *k == key), "{path}");
        // The parser's words are in the hint for one that it does not know, or in its message.
        let (table, entry) = match path {
            "firewall.allow.protocol" => (
                "firewall".to_owned(),
                "allow = [{ ports = \"80\", protocol = \"@\" }]".to_owned(),
            ),
            "network.interface.*.bond.mode" => (
                "network.interface.x".to_owned(),
                "bond = { of = [\"a\", \"b\"], mode = \"@\" }".to_owned(),
            ),
            "state.on_damage" => (
                "state".to_owned(),
                "size = \"64MiB\"\non_damage = \"@\"".to_owned(),
            ),
            _ if path.starts_with("workload") => (
                table.replace('*', "x"),
                format!("image = \"dir:.\"\n{key} = \"@\""),
            ),
            _ => (table.replace('*', "x"), format!("{key} = \"@\"")),
        };
        let told = |word: &str| {
            let text = format!("name = \"a\"\n[{table}]\n{}\n", entry.replace('@', word));
            let all = config::parse(&text).err().map(|mistakes| mistakes.0);
            let all = all.unwrap_or_default();
            all.into_iter()
                .find(|mistake| mistake.message.contains(&format!("`{word}`")))
        };
        assert!(told("no-such-word").is_some(), "{path}: anything goes");
        for word in words {
            let mistake = told(word);
            assert!(mistake.is_none(), "{path} = {word}: {mistake:?}");
        }
    }
}

#[test]
fn every_key_is_in_the_reference() {
    for (table, key) in keys() {
        // A table with a heading of its own is found by that, an inline one in the part on the table around it.
        let own = match table.as_str() {
            "" => key.to_owned(),
            table => format!("{table}.{key}"),
        };
        let has_heading = [own.clone(), format!("{own}.*")];
        if has_heading
            .iter()
            .any(|path| reference::section(path).is_some())
        {
            continue;
        }
        let mut around = table.as_str();
        let section = loop {
            match reference::section(around) {
                Some(section) => break section,
                None => around = around.rsplit_once('.').map_or("", |(outer, _)| outer),
            }
        };
        let spans = section.split('`').skip(1).step_by(2);
        let is_word = |span: &str| {
            let mut words = span.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            words.any(|word| word == key)
        };
        let mut spans = spans;
        assert!(
            spans.any(is_word),
            "`{key}` of [{table}] is not in reference.md"
        );
    }
}

#[test]
fn every_key_of_the_reference_is_in_the_schema() {
    let keys = keys();
    let mut tables: Vec<&str> = keys.iter().map(|(table, _)| table.as_str()).collect();
    tables.sort_unstable();
    tables.dedup();
    let mut count = 0;
    for table in tables {
        let Some(section) = reference::section(table) else {
            continue;
        };
        for (names, _) in reference::rows(section) {
            for name in names.into_iter().filter(|name| !name.contains('.')) {
                let known = keys.iter().any(|(t, key)| t == table && *key == name);
                assert!(known, "`{name}` of [{table}] in reference.md is no key");
                count += 1;
            }
        }
    }
    assert!(count > 60, "{count}");
}

#[test]
fn required_keys_and_descriptions_are_found() {
    let schema = schema();
    assert_eq!(schema["required"], json!(["name"]));
    let state = &schema["properties"]["state"];
    assert_eq!(state["required"], json!(["size"]));
    assert_eq!(
        state["properties"]["on_damage"]["enum"],
        json!(["keep", "reset", "halt"])
    );
    let workload = &schema["properties"]["workload"]["additionalProperties"];
    let memory = workload["properties"]["memory"]["description"]
        .as_str()
        .unwrap();
    assert!(memory.starts_with("the memory limit"), "{memory}");
    assert_eq!(
        workload["properties"]["network"]["anyOf"][1]["type"],
        "array"
    );
}
