//! The isolators of an App Container image (specification 0.8, "Isolators"): the limits it asks for.
//!
//! Memory, processors and capabilities become limits that hold unless the machine's file says otherwise. The
//! specification has an executor tell what it ignores: that is told in words. An isolator narrows only; what an image
//! asks for beyond the default is the machine's file to grant.

use serde::Deserialize;
use serde_json::Value;

use crate::source::image::{CapabilityLimit, ImageLimits};

/// An isolator as it is written.
#[derive(Debug, Deserialize)]
pub(super) struct Isolator {
    name: String,
    #[serde(default)]
    value: Value,
}

/// The limits of a list of isolators; what does not hold is told in `notes`, what is no quantity is an error.
pub(super) fn limits(
    isolators: Vec<Isolator>,
    notes: &mut Vec<String>,
) -> Result<ImageLimits, String> {
    let mut limits = ImageLimits::default();
    for Isolator { name, value } in isolators {
        match name.as_str() {
            "resource/memory" => {
                let milli = limit(&name, &value)?;
                limits.memory =
                    milli.map(|milli| u64::try_from(milli.div_ceil(1000)).unwrap_or(u64::MAX));
            }
            "resource/cpu" => {
                let milli = limit(&name, &value)?;
                limits.cpu_millis = milli.map(|milli| u64::try_from(milli).unwrap_or(u64::MAX));
            }
            "os/linux/capabilities-retain-set" => {
                set_once(&mut limits, CapabilityLimit::Retain(set(&name, &value)?))?;
            }
            "os/linux/capabilities-remove-set" => {
                set_once(&mut limits, CapabilityLimit::Remove(set(&name, &value)?))?;
            }
            // Each workload has it.
            "os/linux/no-new-privileges" => {}
            _ => notes.push(format!("its isolator {name} is not applied")),
        }
    }
    Ok(limits)
}

fn set_once(limits: &mut ImageLimits, limit: CapabilityLimit) -> Result<(), String> {
    match limits.capabilities.replace(limit) {
        None => Ok(()),
        Some(_) => Err("it limits its capabilities twice".to_owned()),
    }
}

/// The `limit` of a resource in thousandths; a guarantee (`request`) is none.
fn limit(name: &str, value: &Value) -> Result<Option<u128>, String> {
    match value.get("limit") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => quantity(text)
            .filter(|milli| *milli > 0)
            .map(Some)
            .ok_or_else(|| format!("the limit {text:?} of {name} is no quantity")),
        Some(Value::Number(number)) => quantity(&number.to_string())
            .filter(|milli| *milli > 0)
            .map(Some)
            .ok_or_else(|| format!("the limit {number} of {name} is no quantity")),
        Some(other) => Err(format!("the limit {other} of {name} is no quantity")),
    }
}

fn set(name: &str, value: &Value) -> Result<Vec<String>, String> {
    let listed = |list: &Vec<Value>| {
        let texts = list.iter().map(|item| item.as_str().map(str::to_owned));
        texts.collect::<Option<Vec<String>>>()
    };
    value
        .get("set")
        .and_then(Value::as_array)
        .and_then(listed)
        .ok_or_else(|| format!("{name} has no set of capabilities"))
}

/// A quantity in thousandths: digits, maybe a fraction, and a metric or binary suffix. `None`: it is none, or beyond
/// all measure.
fn quantity(text: &str) -> Option<u128> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let unit: u128 = match suffix {
        "m" => 1,
        "" => 1000,
        "k" | "K" => 1000 * 1000,
        "M" => 1000 * 1000_u128.pow(2),
        "G" => 1000 * 1000_u128.pow(3),
        "T" => 1000 * 1000_u128.pow(4),
        "P" => 1000 * 1000_u128.pow(5),
        "E" => 1000 * 1000_u128.pow(6),
        "Ki" => 1000 << 10,
        "Mi" => 1000 << 20,
        "Gi" => 1000 << 30,
        "Ti" => 1000 << 40,
        "Pi" => 1000 << 50,
        "Ei" => 1000 << 60,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || whole.len() > 20 || fraction.len() > 9 {
        return None;
    }
    let fraction: u128 = format!("{fraction:0<9}").parse().ok()?;
    let whole = whole.parse::<u128>().ok()?.checked_mul(unit)?;
    whole.checked_add(fraction * unit / 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_have_metric_and_binary_suffixes() {
        for (text, milli) in [
            ("128974848", Some(128_974_848_000)),
            ("125952Ki", Some(128_974_848_000)),
            ("123Mi", Some(128_974_848_000)),
            ("300m", Some(300)),
            ("0.3", Some(300)),
            ("1G", Some(1_000_000_000_000)),
            ("1.5", Some(1500)),
            ("99999999999999999999Ei", None),
            ("", None),
            (".5", None),
            ("-1", None),
            ("1.2.3", None),
            ("1GB", None),
            ("999999999999999999999", None),
        ] {
            assert_eq!(quantity(text), milli, "{text}");
        }
    }

    fn of(text: &str) -> (Result<ImageLimits, String>, Vec<String>) {
        let mut notes = Vec::new();
        let limits = limits(serde_json::from_str(text).unwrap(), &mut notes);
        (limits, notes)
    }

    #[test]
    fn memory_processors_and_capabilities_are_limits_and_the_rest_is_told() {
        let (limits, notes) = of(r#"[
            {"name":"resource/memory","value":{"request":"1G","limit":"2Gi"}},
            {"name":"resource/cpu","value":{"request":"250m","limit":"500m"}},
            {"name":"os/linux/capabilities-retain-set","value":{"set":["CAP_KILL"]}},
            {"name":"os/linux/no-new-privileges","value":true},
            {"name":"os/linux/seccomp-retain-set","value":{"set":["read"]}},
            {"name":"resource/block-iops","value":{"default":true,"limit":"1000"}}]"#);
        let limits = limits.unwrap();
        assert_eq!(
            (limits.memory, limits.cpu_millis),
            (Some(2 << 30), Some(500))
        );
        assert_eq!(
            limits.capabilities,
            Some(CapabilityLimit::Retain(vec!["CAP_KILL".into()]))
        );
        assert_eq!(
            notes,
            [
                "its isolator os/linux/seccomp-retain-set is not applied",
                "its isolator resource/block-iops is not applied"
            ]
        );
    }

    #[test]
    fn isolators_that_say_nothing_clear_are_refused() {
        for text in [
            r#"[{"name":"resource/memory","value":{"limit":"lots"}}]"#,
            r#"[{"name":"resource/memory","value":{"limit":0}}]"#,
            r#"[{"name":"resource/cpu","value":{"limit":[]}}]"#,
            r#"[{"name":"os/linux/capabilities-remove-set","value":{"set":[1]}}]"#,
            r#"[{"name":"os/linux/capabilities-remove-set","value":{"set":[]}},
                {"name":"os/linux/capabilities-retain-set","value":{"set":[]}}]"#,
        ] {
            assert!(of(text).0.is_err(), "{text}");
        }
    }
}
