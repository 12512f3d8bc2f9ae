//! Preparing a board for signed images: the package `pytheas`, its settings and keys in `/pytheas`,
//! and a `main.py` that starts the guard. May be repeated; changes only what differs.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{DeployError, Deployed, Files, Progress, rom::MainPy, tree};
use crate::link::{Board, Facts, LinkError, files};

/// The board's `main.py`.
pub const MAIN: &str = "import pytheas.boot\npytheas.boot.run()\n";
const FOLDER: &str = "/pytheas"; // what the package takes for its folder (slots.py)
const CONFIG: &str = "/pytheas/config.json";
const KEYS: &str = "/pytheas/keys";
const MAIN_PATH: &str = "/main.py";

/// What a board gets.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The package, compiled: `boot.mpy` and so on.
    pub package: Files,
    /// Settings that replace those of the same names; null removes one.
    pub settings: Map<String, Value>,
    /// Raw Ed25519 public keys that images must be signed by; none: those there stay.
    pub keys: Vec<[u8; 32]>,
    /// What becomes of a `main.py` of the user's.
    pub main_py: MainPy,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SetUp {
    /// What became of the package.
    pub package: Deployed,
    /// Files that were written besides.
    pub written: Vec<String>,
    /// What the user should know.
    pub remarks: Vec<String>,
}

/// Prepares the board.
///
/// # Errors
/// [`DeployError::MainPy`] before anything is written, when there is one that is not ours.
pub fn setup(
    board: &mut Board,
    facts: &Facts,
    setup: &Setup,
    progress: Progress<'_>,
) -> Result<SetUp, DeployError> {
    let main = there(board, MAIN_PATH)?;
    let foreign = main
        .as_deref()
        .is_some_and(|text| text != MAIN.as_bytes() && text != super::rom::STARTER.as_bytes());
    if foreign && setup.main_py == MainPy::Keep {
        return Err(DeployError::MainPy);
    }
    let before = there(board, CONFIG)?;
    let settings = settings(facts, before.as_deref(), setup);
    let package = needed(&setup.package, &settings);
    let package = tree::deploy(board, facts, FOLDER, &package, progress)?;
    let (mut written, mut remarks) = (Vec::new(), package.remarks.clone());
    if before.as_deref().is_some_and(|text| object(text).is_none()) {
        remarks.push(format!(
            "the settings in `{CONFIG}` could not be read: only what was named now is in there"
        ));
    }

    let keys = setup.keys.concat();
    let mut put = |board: &mut Board, path: &str, bytes: &[u8]| {
        written.push(path.to_owned());
        files::write(board, facts, path, bytes, &mut |_| {})
    };
    let trusted = there(board, KEYS)?.unwrap_or_default();
    if !keys.is_empty() && trusted != keys {
        put(board, KEYS, &keys)?;
    }
    if keys.is_empty() && trusted.is_empty() {
        remarks.push(
            "the board trusts no key yet, so it takes no image: name a folder with `--keys`".into(),
        );
    }
    if before.as_deref() != Some(settings.as_bytes()) {
        put(board, CONFIG, settings.as_bytes())?;
    }
    // Last: from here on the guard starts.
    if main.as_deref() != Some(MAIN.as_bytes()) {
        if foreign {
            board.exec("import os\nos.rename('/main.py','/main.py.bak')")?;
            remarks.push("the board's `/main.py` is now `/main.py.bak`".into());
        }
        put(board, MAIN_PATH, MAIN.as_bytes())?;
    }
    Ok(SetUp {
        package,
        written,
        remarks,
    })
}

fn there(board: &mut Board, path: &str) -> Result<Option<Vec<u8>>, LinkError> {
    match files::read(board, path, &mut |_| {}) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.exception() == Some("OSError") => Ok(None),
        Err(error) => Err(error),
    }
}

/// The package without the backend that a board with these settings does not use: flash is scarce.
pub fn needed(package: &Files, settings: &str) -> Files {
    let settings: Value = serde_json::from_str(settings).unwrap_or_default();
    let unused = if settings["backend"] == "rom" {
        "file.mpy"
    } else {
        "rom.mpy"
    };
    let mut needed = package.clone();
    needed.retain(|path, _| path.as_str() != unused);
    needed
}

fn object(text: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice(text).ok()
}

/// The settings there, with the new ones in their place and where the slots are.
fn settings(facts: &Facts, before: Option<&[u8]>, setup: &Setup) -> String {
    let mut all = before.and_then(object).unwrap_or_default();
    if !all.contains_key("backend") {
        // Two partitions, or one that can be split because its blocks are erased one by one.
        let partitions: Vec<_> = facts.rom.iter().map(|rom| rom.number).take(2).collect();
        let enough = partitions.len() > 1 || facts.rom.first().is_some_and(|rom| rom.block > 0);
        if enough {
            all.insert("backend".into(), json!("rom"));
            all.insert("rom".into(), json!(partitions));
        } else {
            all.insert("backend".into(), json!("file"));
        }
    }
    for (name, value) in &setup.settings {
        match value {
            Value::Null => all.remove(name),
            value => all.insert(name.clone(), value.clone()),
        };
    }
    Value::Object(all).to_string()
}
