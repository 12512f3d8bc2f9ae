//! Settings as they are typed: `mqtt.port=1883`, keys in steps, values as JSON or plain text.

use std::{
    io::{self, Read as _},
    path::Path,
};

use miette::Diagnostic;
use pytheas_api::Settings;
use serde_json::Value;
use thiserror::Error;

/// Most that is read of a file, in bytes: the hub takes layers of 64 KiB.
const MOST: u64 = 16 << 20;

/// Settings that cannot be read.
#[derive(Debug, Error, Diagnostic)]
pub(super) enum JsonError {
    /// Not `KEY=VALUE`.
    #[error("`{0}` is not `KEY=VALUE`")]
    #[diagnostic(
        code(pytheas::config::assignment),
        help("write e.g. `interval=30`, `mqtt.host=broker.local`, `tags='[\"a\",\"b\"]'`")
    )]
    Assignment(String),
    /// An empty step.
    #[error("`{0}` is no key: a step between its dots is empty")]
    #[diagnostic(
        code(pytheas::config::key),
        help("`pytheas config import` takes keys of any kind, dots included")
    )]
    Key(String),
    /// Named twice, or below each other.
    #[error("`{0}` is set twice")]
    #[diagnostic(code(pytheas::config::twice), help("set it once"))]
    Twice(String),
    /// The file cannot be read.
    #[error("cannot read `{from}`")]
    #[diagnostic(code(pytheas::config::read))]
    Read {
        /// The file.
        from: String,
        /// Why.
        source: io::Error,
    },
    /// No JSON object.
    #[error("`{from}` holds no JSON object")]
    #[diagnostic(
        code(pytheas::config::not_json),
        help("an object such as `{{\"interval\": 30}}` is wanted")
    )]
    NotJson {
        /// The file.
        from: String,
        /// Where it is wrong.
        source: serde_json::Error,
    },
    /// Neither what `export` writes nor settings.
    #[error("`{from}` is not what `pytheas config export` writes")]
    #[diagnostic(
        code(pytheas::config::not_an_export),
        help("for the settings of one layer say which: `--group NAME`, `--device ID` or `--all`")
    )]
    NotAnExport {
        /// The file.
        from: String,
        /// Where it is wrong.
        source: serde_json::Error,
    },
}

/// The steps of a key.
pub(super) fn steps(key: &str) -> Result<Vec<&str>, JsonError> {
    let steps: Vec<&str> = key.split('.').collect();
    if steps.iter().any(|step| step.is_empty()) {
        return Err(JsonError::Key(key.to_owned()));
    }
    Ok(steps)
}

/// Puts `value` under `key` into a merge patch.
pub(super) fn put(patch: &mut Settings, key: &str, value: Value) -> Result<(), JsonError> {
    let steps = steps(key)?;
    let twice = || JsonError::Twice(key.to_owned());
    let (last, before) = steps.split_last().ok_or_else(twice)?;
    let mut at = patch;
    for step in before {
        let next = at
            .entry((*step).to_owned())
            .or_insert_with(|| Value::Object(Settings::new()));
        at = next.as_object_mut().ok_or_else(twice)?;
    }
    match at.insert((*last).to_owned(), value) {
        None => Ok(()),
        Some(_) => Err(twice()),
    }
}

/// What `KEY=VALUE` words set: a value is JSON if it is some, else the text itself.
pub(super) fn patch(words: &[String], text_only: bool) -> Result<Settings, JsonError> {
    let mut patch = Settings::new();
    for word in words {
        let (key, text) = word
            .split_once('=')
            .ok_or_else(|| JsonError::Assignment(word.clone()))?;
        let json = serde_json::from_str(text).ok().filter(|_| !text_only);
        put(&mut patch, key, json.unwrap_or_else(|| Value::from(text)))?;
    }
    Ok(patch)
}

/// What stands under `key`.
pub(super) fn find<'s>(settings: &'s Settings, key: &str) -> Result<Option<&'s Value>, JsonError> {
    let steps = steps(key)?;
    let Some((first, rest)) = steps.split_first() else {
        return Ok(None);
    };
    let first = settings.get(*first);
    Ok(rest
        .iter()
        .try_fold(first, |found, step| found.map(|value| value.get(*step)))
        .flatten())
}

/// The text of a file, or of standard input for `-`.
fn read(path: &Path) -> Result<(String, String), JsonError> {
    let from = match path.to_str() {
        Some("-") => "standard input".to_owned(),
        _ => path.display().to_string(),
    };
    let mut text = String::new();
    let done = if path.as_os_str() == "-" {
        io::stdin().lock().take(MOST).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MOST).read_to_string(&mut text))
    };
    match done {
        Ok(_) => Ok((text, from)),
        Err(source) => Err(JsonError::Read { from, source }),
    }
}

/// The JSON object in a file, or on standard input for `-`.
pub(super) fn object(path: &Path) -> Result<Settings, JsonError> {
    let (text, from) = read(path)?;
    serde_json::from_str(&text).map_err(|source| JsonError::NotJson { from, source })
}

/// Layers as `export` writes them.
pub(super) fn layers(
    path: &Path,
) -> Result<std::collections::BTreeMap<pytheas_api::ConfigLayer, Settings>, JsonError> {
    let (text, from) = read(path)?;
    serde_json::from_str(&text).map_err(|source| JsonError::NotAnExport { from, source })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(words: &[&str]) -> Result<Value, String> {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        patch(&words, false)
            .map(Value::Object)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn words_become_settings() {
        let words = [
            "a=1",
            "b.c=x",
            "b.d=true",
            "e=[1,\"2\"]",
            "f=",
            "g=a=b",
            "h=\"5\"",
            "i=null",
        ];
        let expected = json!({"a": 1, "b": {"c": "x", "d": true}, "e": [1, "2"], "f": "",
            "g": "a=b", "h": "5", "i": null});
        assert_eq!(of(&words).unwrap(), expected);
        let wrong: Vec<String> = [
            &["a"][..],
            &[".a=1"],
            &["a..b=1"],
            &["=1"],
            &["a=1", "a=2"],
            &["a=1", "a.b=2"],
        ]
        .map(|words| of(words).unwrap_err())
        .to_vec();
        insta::assert_snapshot!(wrong.join("\n"), @r"
        `a` is not `KEY=VALUE`
        `.a` is no key: a step between its dots is empty
        `a..b` is no key: a step between its dots is empty
        `` is no key: a step between its dots is empty
        `a` is set twice
        `a.b` is set twice
        ");
    }

    #[test]
    fn a_key_leads_through_objects_only() {
        let settings = json!({"a": {"b": [1]}, "c": null})
            .as_object()
            .unwrap()
            .clone();
        let at = |key: &str| find(&settings, key).unwrap().cloned();
        assert_eq!(at("a.b"), Some(json!([1])));
        assert_eq!(at("c"), Some(Value::Null));
        assert_eq!((at("a.b.0"), at("a.x"), at("x.y")), (None, None, None));
    }
}
