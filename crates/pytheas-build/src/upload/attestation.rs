//! Attestations (PEP 740) that lie beside a distribution, as `NAME.*.attestation`, where other tools
//! put them: looked at before they are sent, so that a mix-up is found here and not by users.

use std::path::{Path, PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use miette::Diagnostic;
use pytheas_release::Sha256;
use serde_json::Value;

/// An attestation that must not be sent.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum AttestationError {
    /// It cannot be used.
    #[error("the attestation `{}` cannot be sent: {reason}", path.display())]
    #[diagnostic(
        code(pytheas::upload::attestation),
        help("make it again for this file, e.g. with `python -m pypi_attestations sign FILE`")
    )]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// There is none.
    #[error("there is no attestation beside `{}`", path.display())]
    #[diagnostic(
        code(pytheas::upload::no_attestation),
        help(
            "expected is `FILE.publish.attestation`; leave out `--attestations` to upload without"
        )
    )]
    None {
        /// The distribution.
        path: PathBuf,
    },
}

/// The attestations beside the distribution `path`, whose hash is `sha256`, in the order of their
/// names. Each must have PEP 740's shape and speak of this very file; signatures are the index's
/// to check.
///
/// # Errors
/// When there is none, or one is not for this file.
pub fn attestations_of(path: &Path, sha256: &Sha256) -> Result<Vec<Value>, AttestationError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let start = format!("{name}.");
    let children = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = children
        .map(|child| child.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(&start) && name.ends_with(".attestation")
        })
        .collect();
    files.sort();
    if files.is_empty() {
        return Err(AttestationError::None {
            path: path.to_owned(),
        });
    }
    files
        .into_iter()
        .map(|file| {
            let read = std::fs::read(&file).map_err(|error| error.to_string());
            read.and_then(|bytes| checked(&bytes, &name, sha256))
                .map_err(|reason| AttestationError::Wrong { path: file, reason })
        })
        .collect()
}

/// The attestation, when it has PEP 740's shape and speaks of the file.
fn checked(bytes: &[u8], name: &str, sha256: &Sha256) -> Result<Value, String> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if value["version"] != 1 {
        return Err("its `version` is not 1".to_owned());
    }
    let material = &value["verification_material"];
    if !material["certificate"].is_string() || !material["transparency_entries"].is_array() {
        return Err("its `verification_material` is incomplete".to_owned());
    }
    let envelope = &value["envelope"];
    if !envelope["signature"].is_string() {
        return Err("its `envelope` has no `signature`".to_owned());
    }
    let statement = envelope["statement"].as_str().unwrap_or_default();
    let statement = STANDARD
        .decode(statement)
        .map_err(|error| format!("its statement is no base64: {error}"))?;
    let statement: Value =
        serde_json::from_slice(&statement).map_err(|error| format!("its statement: {error}"))?;
    let Some([subject]) = statement["subject"].as_array().map(Vec::as_slice) else {
        return Err("its statement does not have exactly one subject".to_owned());
    };
    if subject["digest"]["sha256"] != sha256.to_string().as_str() {
        return Err(format!(
            "it speaks of another file than `{name}`: the SHA-256 differs"
        ));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn attestation(sha256: &Sha256) -> Value {
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": "a", "digest": {"sha256": sha256.to_string()}}],
            "predicateType": "https://docs.example/publish/v1", "predicate": null,
        });
        json!({
            "version": 1,
            "verification_material": {"certificate": "MA==", "transparency_entries": [{}]},
            "envelope": {"statement": STANDARD.encode(statement.to_string()), "signature": "MA=="},
        })
    }

    #[test]
    fn only_attestations_of_this_very_file_are_sent() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("demo-1-py3-none-any.whl");
        let (own, other) = (Sha256::of(b"own"), Sha256::of(b"other"));
        let put = |name: &str, value: &Value| {
            let path = dir.path().join(format!("demo-1-py3-none-any.whl.{name}"));
            pytheas_durable::replace(&path, value.to_string().as_bytes()).unwrap();
        };
        let said = || {
            let error = attestations_of(&file, &own).unwrap_err().to_string();
            error.replace(&dir.path().display().to_string(), "DIR")
        };
        insta::assert_snapshot!(said(), @"there is no attestation beside `DIR/demo-1-py3-none-any.whl`");
        put("publish.attestation", &attestation(&own));
        put("slsa.attestation", &attestation(&own));
        assert_eq!(attestations_of(&file, &own).unwrap().len(), 2);
        put("slsa.attestation", &attestation(&other));
        insta::assert_snapshot!(said(), @"the attestation `DIR/demo-1-py3-none-any.whl.slsa.attestation` cannot be sent: it speaks of another file than `demo-1-py3-none-any.whl`: the SHA-256 differs");
        put("slsa.attestation", &json!({"version": 2}));
        insta::assert_snapshot!(said(), @"the attestation `DIR/demo-1-py3-none-any.whl.slsa.attestation` cannot be sent: its `version` is not 1");
    }
}
