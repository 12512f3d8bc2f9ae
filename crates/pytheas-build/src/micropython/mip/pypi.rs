//! Packages of the Python package index: resolved by uv, pure Python only.

use std::{
    collections::BTreeMap,
    io::{Cursor, Read as _},
    path::Path,
};

use flate2::read::GzDecoder;
use pytheas_project::{Project, Pylock, Uv, lock};

use super::MipError;
use crate::scratch;

/// Largest archive, unpacked.
const UNPACKED_LIMIT_BYTES: u64 = 64 << 20;

/// Resolves `requirements` (PEP 508) alone, with the indexes (`[tool.uv]`) of `project`; versions in
/// `kept` (requirements, too) are preferred.
pub(in super::super) fn resolve(
    requirements: &[String],
    project: Option<&Path>,
    kept: Option<&[String]>,
    uv: &Uv,
) -> Result<Pylock, MipError> {
    let failed = |why: String| MipError::Pypi {
        names: requirements.iter().map(|r| format!("`{r}`")).collect(),
        why,
    };
    let dir = tempfile::tempdir().map_err(|error| failed(error.to_string()))?;
    let own_uv = project
        .and_then(|dir| std::fs::read_to_string(dir.join("pyproject.toml")).ok())
        .and_then(|text| text.parse::<toml::Table>().ok())
        .and_then(|table| table.get("tool")?.get("uv").cloned());
    let once = |more: &[String], bare: &[String]| {
        let all: Vec<toml::Value> = requirements
            .iter()
            .chain(more)
            .map(|text| toml::Value::String(text.clone()))
            .collect();
        let mut document = toml::Table::new();
        let mut table = toml::Table::new();
        table.insert("name".into(), "board-packages".into());
        table.insert("version".into(), "0".into());
        // One Python only: for several, uv may choose several versions of a package.
        table.insert("requires-python".into(), "==3.13.*".into());
        table.insert("dependencies".into(), toml::Value::Array(all));
        document.insert("project".into(), table.into());
        let tool = toml::Table::from_iter([("uv".to_owned(), with_bare(own_uv.clone(), bare))]);
        document.insert("tool".into(), tool.into());
        let file = dir.path().join("pyproject.toml");
        let text = document.to_string();
        scratch::write(&file, text.as_bytes(), scratch::Kind::Data)
            .map_err(|error| failed(error.to_string()))?;
        let project =
            Project::load(dir.path()).map_err(|error| failed(crate::error::chain(&error)))?;
        let report = lock::lock(&project, uv, &lock::LockOptions::default(), &|_| {})
            .map_err(|error| failed(crate::error::chain(&error)))?;
        Pylock::read(&report.path)
            .map_err(|error| failed(crate::error::chain(&error)))?
            .ok_or_else(|| failed("no lock was made".to_owned()))
    };
    let attempt = |more: &[String]| {
        let mut bare = Vec::new();
        loop {
            match once(more, &bare) {
                Err(MipError::Pypi { why, .. })
                    if unbuildable(&why).is_some_and(|name| !bare.contains(&name)) =>
                {
                    bare.extend(unbuildable(&why));
                }
                result => return result,
            }
        }
    };
    match kept {
        // What is locked may no longer fit; then all are chosen again.
        Some(kept) if !kept.is_empty() => attempt(kept).or_else(|_| attempt(&[])),
        _ => attempt(&[]),
    }
}

/// The package that uv cannot build, to learn what it needs, because its archive holds modules alone:
/// those of the older micropython-lib are so.
fn unbuildable(why: &str) -> Option<String> {
    if !why.contains("does not appear to be a Python project") {
        return None;
    }
    let (_, rest) = why.split_once("build `")?;
    let (name, _) = rest.split_once("==")?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (!name.is_empty() && name.chars().all(is_name)).then(|| name.to_owned())
}

/// The settings of uv with packages that need nothing; what such a package imports and is not there,
/// the build says.
fn with_bare(own: Option<toml::Value>, bare: &[String]) -> toml::Value {
    let mut uv = match own {
        Some(toml::Value::Table(own)) => own,
        _ => toml::Table::new(),
    };
    let known = uv
        .entry("dependency-metadata")
        .or_insert_with(|| toml::Value::Array(Vec::new()));
    if let toml::Value::Array(known) = known {
        known.extend(bare.iter().map(|name| {
            let none = toml::Value::Array(Vec::new());
            toml::Table::from_iter([
                ("name".to_owned(), toml::Value::String(name.clone())),
                ("requires-dist".to_owned(), none),
            ])
            .into()
        }));
    }
    uv.into()
}

/// The modules of an archive, by path on the board.
pub(super) fn unpack(
    package: &str,
    version: &str,
    name: &str,
    bytes: &[u8],
) -> Result<BTreeMap<String, Vec<u8>>, MipError> {
    let wrong = |why: String| MipError::NotPure {
        name: package.to_owned(),
        version: version.to_owned(),
        why,
    };
    let mut files = if name.ends_with(".whl") {
        wheel(bytes)
            .map_err(|error| wrong(format!("is an archive that cannot be read: {error}")))?
    } else {
        sdist(bytes)
            .map_err(|error| wrong(format!("is an archive that cannot be read: {error}")))?
    };
    // Some pure packages bring a library that they load on computers, by ctypes: no board imports that.
    let native = |path: &str| {
        [".so", ".pyd", ".dll", ".dylib"]
            .iter()
            .any(|end| path.ends_with(end))
    };
    let compiled = files.keys().find(|path| native(path)).cloned();
    files.retain(|path, _| !native(path));
    let has_module = |path: &String| path.ends_with(".py") || path.ends_with(".mpy");
    if !files.keys().any(has_module) {
        return Err(wrong(match compiled {
            Some(path) => format!("holds compiled code for computers, `{path}`"),
            None => "holds no module".to_owned(),
        }));
    }
    Ok(files)
}

fn wheel(bytes: &[u8]) -> std::io::Result<BTreeMap<String, Vec<u8>>> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes))?;
    let mut files = BTreeMap::new();
    let mut left = UNPACKED_LIMIT_BYTES;
    for at in 0..archive.len() {
        let mut member = archive.by_index(at)?;
        let name = member.name()?.into_owned();
        let first = name.split('/').next().unwrap_or("");
        let inside = match name.split_once(".data/purelib/") {
            Some((_, inside)) => inside.to_owned(),
            None if first.ends_with(".dist-info") || first.ends_with(".data") => continue,
            None => name.clone(),
        };
        if member.is_dir() {
            continue;
        }
        let mut content = Vec::new();
        member.by_ref().take(left).read_to_end(&mut content)?;
        left = left.saturating_sub(content.len() as u64);
        if left == 0 {
            return Err(std::io::Error::other("it is too large"));
        }
        files.insert(inside, content);
    }
    Ok(files)
}

/// Modules at the top of a source distribution, or in its `src`.
fn sdist(bytes: &[u8]) -> std::io::Result<BTreeMap<String, Vec<u8>>> {
    let mut archive = tar::Archive::new(GzDecoder::new(bytes));
    let mut files = BTreeMap::new();
    let mut left = UNPACKED_LIMIT_BYTES;
    for entry in archive.entries()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path()?.to_string_lossy().into_owned();
        let Some((_, inside)) = path.split_once('/') else {
            continue;
        };
        let inside = inside.strip_prefix("src/").unwrap_or(inside).to_owned();
        let first = inside.split('/').next().unwrap_or("");
        let is_other = matches!(
            first,
            "setup.py"
                | "conftest.py"
                | "noxfile.py"
                | "tests"
                | "test"
                | "docs"
                | "doc"
                | "examples"
                | "example"
                | "build"
                | "sdist_upip.py"
        ) || first.ends_with(".egg-info");
        let is_module = inside.ends_with(".py") || inside.ends_with(".mpy");
        if is_other || !(is_module || inside.contains('/')) {
            continue;
        }
        let mut content = Vec::new();
        entry.by_ref().take(left).read_to_end(&mut content)?;
        left = left.saturating_sub(content.len() as u64);
        if left == 0 {
            return Err(std::io::Error::other("it is too large"));
        }
        files.insert(inside, content);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pure_package_loads_on_computers_stays_behind() {
        let wheel = |files: &[&str]| {
            let mut out = zip::ZipWriter::new(Cursor::new(Vec::new()));
            for path in files {
                let options = zip::write::SimpleFileOptions::default();
                out.start_file(*path, options).unwrap();
            }
            out.finish().unwrap().into_inner()
        };
        let unpack = |files: &[&str]| unpack("p", "1", "p-1-py3-none-any.whl", &wheel(files));
        let both = unpack(&["p/__init__.py", "p/prebuilt/lib.dylib"]).unwrap();
        assert_eq!(both.into_keys().collect::<Vec<_>>(), ["p/__init__.py"]);
        let why = unpack(&["p/_p.so"]).unwrap_err().to_string();
        assert!(
            why.contains("compiled code for computers, `p/_p.so`"),
            "{why}"
        );
    }

    #[test]
    fn a_package_of_modules_alone_needs_nothing() {
        let why = "error: Failed to download and build `micropython-umqtt-simple==1.3.4`\n  cause: `/x/src` does not appear to be a Python project, as neither";
        let name = unbuildable(why).unwrap();
        assert_eq!(name, "micropython-umqtt-simple");
        assert_eq!(
            unbuildable("Failed to download and build `a==1`: no compiler"),
            None
        );
        let own = "[[dependency-metadata]]\nname = 'a'\n"
            .parse::<toml::Table>()
            .unwrap();
        let uv = with_bare(Some(own.into()), &[name]);
        let known = uv["dependency-metadata"].as_array().unwrap();
        let names: Vec<_> = known.iter().map(|one| one["name"].as_str()).collect();
        assert_eq!(names, [Some("a"), Some("micropython-umqtt-simple")]);
        assert_eq!(known[1]["requires-dist"].as_array().map(Vec::len), Some(0));
    }
}
