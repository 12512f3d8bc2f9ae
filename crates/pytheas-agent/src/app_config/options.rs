//! The options that a release says operators may set (`[tool.pytheas.config]`): what fits them, and
//! how their variables hold it.

use pytheas_api::Settings;
use pytheas_release::{BuildRecord, ConfigOption, parse_duration_ms};
use serde_json::Value;

use crate::attributes::cut;

/// What is wrong with `settings` for a release, by the options it says operators may set.
pub(crate) fn misfit(settings: &Settings, record: &BuildRecord) -> Option<String> {
    record.config.iter().find_map(|(name, option)| {
        let value = settings.get(name)?;
        let fits = match (option.kind.as_str(), value) {
            ("integer", Value::Number(number)) => !number.is_f64(),
            ("float", Value::Number(_)) | ("boolean", Value::Bool(_)) => true,
            ("duration", Value::String(text)) => parse_duration_ms(text).is_some(),
            ("url", Value::String(text)) => text.split_once(':').is_some_and(|(scheme, rest)| {
                !rest.is_empty() && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            }),
            ("string" | "secret", Value::String(_)) => true,
            ("integer" | "float" | "boolean" | "duration" | "url" | "string" | "secret", _) => {
                false
            }
            _ => true, // a type of a newer builder
        };
        let has_nul = value.as_str().is_some_and(|text| text.contains('\0'));
        if fits && !has_nul {
            return None;
        }
        let shown = match option.kind.as_str() {
            "secret" => "its value".to_owned(),
            _ => format!("`{}`", cut(&value.to_string())),
        };
        let (kind, app) = (&option.kind, &record.name);
        Some(format!(
            "setting `{name}`: {shown} is no {kind} (`{app}` {})",
            record.version
        ))
    })
}

/// The value of an option as its variable holds it, when it is set.
pub(crate) fn variable(
    settings: &Settings,
    name: &str,
    option: &ConfigOption,
) -> Option<(String, String)> {
    let value = match settings.get(name)? {
        Value::String(text) => text.clone(),
        Value::Null => return None,
        other => other.to_string(),
    };
    Some((option.env.clone(), value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_have_to_be_of_the_types_that_the_release_declares() {
        let option = |kind: &str| json!({"type": kind, "env": kind.to_uppercase()});
        let mut record = json!({"format": 1, "name": "app", "version": "1.0", "form": "bundle",
            "platform": "linux-x86_64", "entry": "bin/app", "config": {}});
        for kind in [
            "integer", "float", "boolean", "duration", "url", "string", "secret", "odd",
        ] {
            record["config"][kind] = option(kind);
        }
        let record = BuildRecord::parse(record.to_string().as_bytes()).unwrap();
        let wrong = |value: Value| misfit(value.as_object().unwrap(), &record);
        let right = json!({"integer": 3, "float": 3, "boolean": false, "duration": "5m",
            "url": "http://a", "string": "", "secret": "x", "odd": [1], "other": {"a": 1}});
        assert_eq!(wrong(right), None);
        let said: Vec<String> = [
            json!({"integer": 3.5}),
            json!({"float": "3"}),
            json!({"boolean": 1}),
            json!({"duration": 30}),
            json!({"url": "nowhere"}),
            json!({"string": null}),
            json!({"secret": 17}),
            json!({"string": "a\u{0}b"}),
        ]
        .into_iter()
        .map(|value| wrong(value).unwrap())
        .collect();
        insta::assert_snapshot!(said.join("\n"), @r#"
        setting `integer`: `3.5` is no integer (`app` 1.0)
        setting `float`: `"3"` is no float (`app` 1.0)
        setting `boolean`: `1` is no boolean (`app` 1.0)
        setting `duration`: `30` is no duration (`app` 1.0)
        setting `url`: `"nowhere"` is no url (`app` 1.0)
        setting `string`: `null` is no string (`app` 1.0)
        setting `secret`: its value is no secret (`app` 1.0)
        setting `string`: `"a\u0000b"` is no string (`app` 1.0)
        "#);
    }
}
