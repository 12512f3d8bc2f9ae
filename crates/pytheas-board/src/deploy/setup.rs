//! Preparing a board for signed images: the package `pytheas`, its settings and keys in `/pytheas`,
//! and a `main.py` that starts the guard. May be repeated; changes only what differs.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{DeployError, Deployed, Files, Progress, rom::MainPy, tree};
use crate::link::{Board, Facts, LinkError, files};

/// The board's `main.py`.
pub const MAIN: &str = "import pytheas\npytheas.boot()\n";
const FOLDER: &str = "/pytheas"; // what the package takes for its folder (slots.py)
const CONFIG: &str = "/pytheas/config.json";
const KEYS: &str = "/pytheas/keys";
const CA: &str = "/pytheas/ca.der";
const MAIN_PATH: &str = "/main.py";

/// What a board gets.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The package, compiled: `hub.mpy` and so on.
    pub package: Files,
    /// Settings that replace those of the same names; null removes one.
    pub settings: Map<String, Value>,
    /// The certificate (DER) of the authority that the hub's was issued by; none: what is there stays.
    pub ca: Option<Vec<u8>>,
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

/// Whether apps can import the package.
///
/// # Errors
/// When the board does not answer.
pub fn has_package(board: &mut Board) -> Result<bool, LinkError> {
    // What a test run has mounted and imported is gone after a restart.
    let code = "import sys\n\
        p=sys.path[:]\n\
        sys.path[:]=[x for x in p if x in('','.frozen','/lib')]\n\
        for n in list(sys.modules):\n if n.split('.')[0]=='pytheas':del sys.modules[n]\n\
        try:\n import pytheas\n pytheas.boot\n print(1)\n\
        except (ImportError,AttributeError):\n print(0)\n\
        sys.path[:]=p";
    Ok(board.exec(code)?.starts_with(b"1"))
}

/// Brings the package alone, for apps that import it.
///
/// # Errors
/// When the board cannot be written.
pub fn bring_package(
    board: &mut Board,
    facts: &Facts,
    package: &Files,
) -> Result<Deployed, DeployError> {
    tree::deploy(board, facts, FOLDER, package, &mut |_, _| {})
}

/// Prepares the board.
///
/// # Errors
/// [`DeployError::MainPy`] and [`DeployError::Setting`] before anything is written, when there is a
/// `main.py` that is not ours, or a setting that the guard could not use.
pub fn setup(
    board: &mut Board,
    facts: &Facts,
    setup: &Setup,
    progress: Progress<'_>,
) -> Result<SetUp, DeployError> {
    let main = there(board, MAIN_PATH)?;
    let foreign = main
        .as_deref()
        .is_some_and(|text| text != MAIN.as_bytes() && !super::rom::is_starter(text));
    if foreign && setup.main_py == MainPy::Keep {
        return Err(DeployError::MainPy);
    }
    let before = there(board, CONFIG)?;
    let settings = settings(facts, before.as_deref(), setup);
    super::settings::check(&facts.platform, &settings)?;
    let lacking = missing(&settings);
    let settings = Value::Object(settings).to_string();
    let package = needed(&setup.package, &settings);
    let package = tree::deploy(board, facts, FOLDER, &package, progress)?;
    let (mut written, mut remarks) = (Vec::new(), package.remarks.clone());
    if before.as_deref().is_some_and(|text| object(text).is_none()) {
        remarks.push(format!(
            "the settings in `{CONFIG}` could not be read: only what was named now is in there"
        ));
    }
    remarks.extend(lacking);

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
    if let Some(ca) = &setup.ca
        && there(board, CA)?.as_ref() != Some(ca)
    {
        put(board, CA, ca)?;
    }
    if before.as_deref() != Some(settings.as_bytes()) {
        put(board, CONFIG, settings.as_bytes())?;
    }
    // Last: from here on the guard starts.
    if main.as_deref() != Some(MAIN.as_bytes()) {
        if foreign {
            let aside = super::starting::put_aside(board)?;
            remarks.push(format!("the board's `/main.py` is now `{aside}`"));
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
fn settings(facts: &Facts, before: Option<&[u8]>, setup: &Setup) -> Map<String, Value> {
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
    if setup.ca.is_some() {
        all.insert("ca".into(), json!(CA));
    }
    for (name, value) in &setup.settings {
        match value {
            Value::Null => all.remove(name),
            value => all.insert(name.clone(), value.clone()),
        };
    }
    all.retain(|_, value| !value.is_null());
    all
}

/// What keeps a board with these settings from its hub.
fn missing(settings: &Map<String, Value>) -> Option<String> {
    let text = |name: &str| settings.get(name).and_then(Value::as_str);
    let hub = text("hub")?;
    let lacks: Vec<&str> = [("id", "--id"), ("token", "--token"), ("ca", "--ca")]
        .into_iter()
        .filter(|(name, _)| *name != "ca" || hub.starts_with("https:"))
        .filter(|(name, _)| text(name).is_none())
        .map(|(_, flag)| flag)
        .collect();
    (!lacks.is_empty()).then(|| {
        let lacks = lacks.join("`, `");
        format!("the board cannot reach its hub yet: `{lacks}` are missing")
    })
}
