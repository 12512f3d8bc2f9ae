//! A wheel or source distribution as an index wants it: its metadata as form fields.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;
use pytheas_release::Sha256;
use zip::ZipArchive;

use super::UploadError;

/// Metadata larger than this is a mistake or an attack.
const METADATA_MAX: u64 = 16 << 20;

/// The form's name of each field of the core metadata that has another one than in lower case.
const NAMES: &[(&str, &str)] = &[
    ("classifier", "classifiers"),
    ("home_page", "home_page"),
    ("license_file", "license_files"),
    ("platform", "platform"),
    ("project_url", "project_urls"),
    ("supported_platform", "supported_platform"),
];

/// A file that can be uploaded.
#[derive(Debug, Clone)]
pub struct Distribution {
    /// Where it lies.
    pub path: PathBuf,
    /// Its name.
    pub file_name: String,
    /// The project's name, as its metadata writes it.
    pub name: String,
    /// The version.
    pub version: String,
    /// The hash of the file.
    pub sha256: Sha256,
    bytes: Vec<u8>,
    fields: Vec<(String, String)>,
}

impl Distribution {
    /// Sends these attestations (PEP 740) with it; see [`attestations_of`](super::attestations_of).
    pub fn attest(&mut self, attestations: &[serde_json::Value]) {
        let text = serde_json::Value::from(attestations.to_vec()).to_string();
        self.fields.push(("attestations".to_owned(), text));
    }
}

impl Distribution {
    /// Reads the file and its metadata.
    ///
    /// # Errors
    /// When it cannot be read or is no distribution.
    pub fn read(path: &Path) -> Result<Self, UploadError> {
        let wrong = |reason: &str| UploadError::NotADistribution {
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        let file_name = path.file_name().and_then(|name| name.to_str());
        let file_name = file_name
            .ok_or_else(|| wrong("its name is no text"))?
            .to_owned();
        let (kind, python) = if file_name.ends_with(".whl") {
            let parts: Vec<&str> = file_name.split('-').collect();
            if !(5..=6).contains(&parts.len()) {
                return Err(wrong("its name is no wheel's"));
            }
            ("bdist_wheel", parts[parts.len() - 3].to_owned())
        } else if file_name.ends_with(".tar.gz") {
            ("sdist", "source".to_owned())
        } else {
            return Err(wrong(
                "its name ends neither with `.whl` nor with `.tar.gz`",
            ));
        };
        let bytes = std::fs::read(path).map_err(|source| UploadError::Read {
            path: path.to_owned(),
            source,
        })?;
        let metadata = if kind == "sdist" {
            of_sdist(&bytes)
        } else {
            of_wheel(&bytes)
        };
        let metadata = metadata
            .map_err(|error| wrong(&error.to_string()))?
            .ok_or_else(|| wrong("it holds no metadata"))?;
        let sha256 = Sha256::of(&bytes);
        let mut fields = vec![
            (":action".to_owned(), "file_upload".to_owned()),
            ("protocol_version".to_owned(), "1".to_owned()),
            ("filetype".to_owned(), kind.to_owned()),
            ("pyversion".to_owned(), python),
            ("sha256_digest".to_owned(), sha256.to_string()),
        ];
        fields.extend(parse(&metadata));
        let field = |name: &str| {
            let found = fields.iter().find(|(key, _)| key == name);
            found
                .map(|(_, value)| value.clone())
                .filter(|value| !value.is_empty())
        };
        let name = field("name").ok_or_else(|| wrong("its metadata has no `Name`"))?;
        let version = field("version").ok_or_else(|| wrong("its metadata has no `Version`"))?;
        Ok(Self {
            path: path.to_owned(),
            file_name,
            name,
            version,
            sha256,
            bytes,
            fields,
        })
    }

    /// Its size.
    pub fn size_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The form (RFC 7578): content type and body.
    pub(super) fn form(&self) -> (String, Vec<u8>) {
        // The hash of the file cannot occur in the file, and in no field but its own without dashes.
        let boundary = format!("--pytheas-{}", self.sha256);
        let mut body = Vec::with_capacity(self.bytes.len() + 8192);
        for (name, value) in &self.fields {
            let head = format!("Content-Disposition: form-data; name=\"{name}\"");
            body.extend(format!("--{boundary}\r\n{head}\r\n\r\n{value}\r\n").as_bytes());
        }
        let file_name = self.file_name.replace(['"', '\r', '\n'], "_");
        let head = format!(
            "Content-Disposition: form-data; name=\"content\"; filename=\"{file_name}\"\r\nContent-Type: application/octet-stream"
        );
        body.extend(format!("--{boundary}\r\n{head}\r\n\r\n").as_bytes());
        body.extend(&self.bytes);
        body.extend(format!("\r\n--{boundary}--\r\n").as_bytes());
        (format!("multipart/form-data; boundary={boundary}"), body)
    }
}

/// `NAME-VERSION.dist-info/METADATA` of a wheel.
fn of_wheel(bytes: &[u8]) -> io::Result<Option<String>> {
    let mut archive = ZipArchive::new(io::Cursor::new(bytes)).map_err(io::Error::other)?;
    let name = archive
        .file_names()
        .flatten()
        .find(|name| {
            let parts: Vec<&str> = name.split('/').collect();
            matches!(parts[..], [dir, "METADATA"] if dir.ends_with(".dist-info"))
        })
        .map(std::borrow::Cow::into_owned);
    let Some(name) = name else { return Ok(None) };
    let entry = archive.by_name(&name).map_err(io::Error::other)?;
    text(entry).map(Some)
}

/// `NAME-VERSION/PKG-INFO` of a source distribution.
fn of_sdist(bytes: &[u8]) -> io::Result<Option<String>> {
    let mut archive = tar::Archive::new(GzDecoder::new(bytes));
    for entry in archive.entries()? {
        let entry = entry?;
        let path = entry.path()?.into_owned();
        if path.components().count() == 2 && path.file_name().is_some_and(|n| n == "PKG-INFO") {
            return text(entry).map(Some);
        }
    }
    Ok(None)
}

fn text(reader: impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    reader.take(METADATA_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > METADATA_MAX {
        return Err(io::Error::other("its metadata is larger than 16 MiB"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The fields of core metadata (an e-mail's header, the description as its body) by their names in
/// the form.
fn parse(text: &str) -> Vec<(String, String)> {
    let mut fields: Vec<(String, String)> = Vec::new();
    let text = text.replace("\r\n", "\n");
    let (header, body) = text.split_once("\n\n").unwrap_or((&text, ""));
    for line in header.lines() {
        if let (Some(rest), Some((_, value))) = (line.strip_prefix([' ', '\t']), fields.last_mut())
        {
            value.push('\n');
            value.push_str(rest.strip_prefix("       ").unwrap_or(rest));
        } else if let Some((name, value)) = line.split_once(':') {
            let name = name.trim().to_lowercase().replace('-', "_");
            let known = NAMES.iter().find(|(own, _)| *own == name);
            let name = known.map_or(name.clone(), |(_, form)| (*form).to_owned());
            fields.push((name, value.trim().to_owned()));
        }
    }
    if !body.trim().is_empty() && !fields.iter().any(|(name, _)| name == "description") {
        fields.push(("description".to_owned(), body.to_owned()));
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_becomes_form_fields() {
        let text = "Metadata-Version: 2.4\nName: demo\nVersion: 1\nClassifier: A\nClassifier: B\n\
             License-File: LICENSE\nProject-URL: Home, https://h.example\nSummary: one\n        two\n\nLong\ntext\n";
        let fields = parse(text);
        let shown: Vec<String> = fields.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            shown,
            [
                "metadata_version=2.4",
                "name=demo",
                "version=1",
                "classifiers=A",
                "classifiers=B",
                "license_files=LICENSE",
                "project_urls=Home, https://h.example",
                "summary=one\ntwo",
                "description=Long\ntext\n",
            ]
        );
    }

    #[test]
    fn what_is_no_distribution_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let check = |name: &str, bytes: &[u8], expected: &str| {
            let path = dir.path().join(name);
            pytheas_durable::replace(&path, bytes).unwrap();
            let error = Distribution::read(&path).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("a.zip", b"", "ends neither with");
        check("a.whl", b"", "its name is no wheel's");
        check(
            "a-1-py3-none-any.whl",
            b"no zip",
            "is no wheel and no source distribution",
        );
        check(
            "a-1.tar.gz",
            b"no gzip",
            "is no wheel and no source distribution",
        );
        let missing = Distribution::read(&dir.path().join("b-1.tar.gz")).unwrap_err();
        assert!(matches!(missing, UploadError::Read { .. }));
    }
}
