//! What makes the Pythons of a bundle start and end fast: a module that `site` imports
//! (`startup.py` says what it does) and the table of modules that it reads.
//!
//! The table `_pytheas.index` lies beside the module. It is a value in the interpreter's own format
//! `marshal`: the suffix of byte code, the folder of the module, and for each folder of modules the
//! size of each module's byte code — negative for a package —, the file of an extension module, or
//! `None` for what Python itself has to look at. Folders are relative to the bundle and begin with
//! `/`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

use walkdir::WalkDir;

use crate::{
    error::{BuildError, io_error},
    interpreter::Interpreter,
    scratch::{self, Kind},
};

const MODULE: &str = include_str!("startup.py");
const INDEX: &str = "_pytheas.index";
const CACHE: &str = "__pycache__";

/// A folder's modules by name.
type Table = BTreeMap<String, Found>;

/// How a module is found.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    /// By the size of its byte code, negative for a package.
    Code(i32),
    /// As this extension module.
    Extension(String),
    /// By Python itself.
    Otherwise,
}

/// Adds the module, and the file by which `site` imports it, to the folder for packages.
pub(crate) fn add_module(site: &Path) -> Result<(), BuildError> {
    for (name, text) in [
        ("_pytheas.py", MODULE),
        ("_pytheas.pth", "import _pytheas\n"),
    ] {
        let file = site.join(name);
        scratch::write(&file, text.as_bytes(), Kind::Data).map_err(io_error("write", &file))?;
    }
    Ok(())
}

/// Writes the table of the modules of the bundle in `dir`, once no module is added or taken away
/// any more. Without byte code there is none.
pub(crate) fn add_index(dir: &Path, interpreter: &Interpreter) -> Result<(), BuildError> {
    let home = dir.join("python");
    let site = interpreter.site_packages.under(&home);
    let stdlib = interpreter.stdlib.under(&home);
    let Some(suffix) = suffix(&stdlib.join(CACHE)) else {
        return Ok(());
    };
    if !site.join("_pytheas.py").is_file() {
        return Ok(());
    }
    let mut folders = BTreeMap::new();
    for top in [&dir.join("app"), &stdlib, &site] {
        if top.is_dir() {
            read(dir, top, &suffix, &mut folders).map_err(io_error("read", top))?;
        }
    }
    let below = format!("/python/{}", interpreter.site_packages);
    let bytes = encode(&suffix, &below, &folders);
    let file = site.join(INDEX);
    scratch::write(&file, &bytes, Kind::Data).map_err(io_error("write", &file))
}

/// How the names of the interpreter's byte code end, e.g. `.cpython-311.pyc`.
pub(crate) fn suffix(cache: &Path) -> Option<String> {
    fs::read_dir(cache)
        .ok()?
        .flatten()
        .filter_map(|child| child.file_name().into_string().ok())
        .find_map(|name| {
            let rest = name.strip_prefix("os")?;
            (rest.starts_with('.') && rest.ends_with(".pyc") && rest.matches('.').count() == 2)
                .then(|| rest.to_owned())
        })
}

/// Adds the tables of `top` and of the folders in it to `folders`.
fn read(
    dir: &Path,
    top: &Path,
    suffix: &str,
    folders: &mut BTreeMap<String, Table>,
) -> io::Result<()> {
    let mut walk = WalkDir::new(top).sort_by_file_name().into_iter();
    while let Some(entry) = walk.next() {
        let entry = entry?;
        if !entry.file_type().is_dir() {
            continue;
        }
        if entry.file_name() == CACHE {
            walk.skip_current_dir();
            continue;
        }
        let Some(name) = entry
            .path()
            .strip_prefix(dir)
            .ok()
            .and_then(|path| path.to_str())
        else {
            continue;
        };
        let name = format!("/{name}");
        if folders.contains_key(&name) {
            continue;
        }
        let table = table(entry.path(), suffix)?;
        if table.values().any(|found| *found != Found::Otherwise) {
            folders.insert(name, table);
        }
    }
    Ok(())
}

/// The modules of one folder. As with Python's own finder a package goes before an extension
/// module, and that before a source.
fn table(folder: &Path, suffix: &str) -> io::Result<Table> {
    let mut packages = BTreeSet::new();
    let mut sources = BTreeSet::new();
    let mut extensions = BTreeMap::new();
    let mut others = BTreeSet::new();
    for child in fs::read_dir(folder)? {
        let child = child?;
        let Ok(name) = child.file_name().into_string() else {
            continue;
        };
        let kind = child.file_type()?;
        let stem = name.split('.').next().unwrap_or(&name).to_owned();
        if kind.is_dir() && name != CACHE && !name.contains('.') {
            packages.insert(name);
        } else if kind.is_file() && name.strip_suffix(".py") == Some(stem.as_str()) {
            sources.insert(stem);
        } else if kind.is_file() && is_extension(&name, &stem, suffix) {
            // Of two of one name, Python has to choose.
            if extensions.insert(stem.clone(), name).is_some() {
                others.insert(stem);
            }
        } else if kind.is_symlink() || name.ends_with(".so") || name.ends_with(".pyc") {
            others.insert(stem);
        }
    }
    let mut table = Table::new();
    for (stem, name) in extensions {
        let is_alone = !sources.contains(&stem);
        let found = is_alone.then_some(Found::Extension(name));
        table.insert(stem, found.unwrap_or(Found::Otherwise));
    }
    for stem in sources {
        let size = size(&folder.join(CACHE).join(format!("{stem}{suffix}")));
        let found = size.map_or(Found::Otherwise, Found::Code);
        table.entry(stem).or_insert(found);
    }
    for stem in others {
        table.insert(stem, Found::Otherwise);
    }
    for package in packages {
        let home = folder.join(&package);
        let is_plain = home.join("__init__.py").is_file() && !has_other_init(&home)?;
        let size = size(&home.join(CACHE).join(format!("__init__{suffix}")))
            .filter(|_| is_plain)
            .map(|size| -size);
        // A folder that is no package is looked at after all modules, and by Python itself.
        if size.is_some() || home.join("__init__.py").exists() || has_other_init(&home)? {
            table.insert(package, size.map_or(Found::Otherwise, Found::Code));
        } else {
            table.entry(package).or_insert(Found::Otherwise);
        }
    }
    Ok(table)
}

/// Whether a file is the extension module `stem` for the Python whose byte code is named by
/// `suffix`: `stem.cpython-311-x86_64-linux-gnu.so`, `stem.abi3.so` or `stem.so`.
fn is_extension(name: &str, stem: &str, suffix: &str) -> bool {
    let tag = suffix.strip_suffix(".pyc").unwrap_or(suffix);
    let kind = name
        .strip_prefix(stem)
        .and_then(|rest| rest.strip_suffix(".so"));
    kind.is_some_and(|kind| {
        let own = kind.strip_prefix(tag);
        matches!(kind, "" | ".abi3") || own.is_some_and(|rest| rest.starts_with('-'))
    })
}

/// Whether a package's own module may be another than `__init__.py`.
fn has_other_init(home: &Path) -> io::Result<bool> {
    for child in fs::read_dir(home)? {
        let name = child?.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("__init__.") && name != "__init__.py" && !name.ends_with(".pyi") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The size of a file of byte code that the finder can use.
fn size(path: &Path) -> Option<i32> {
    let metadata = fs::symlink_metadata(path)
        .ok()
        .filter(fs::Metadata::is_file)?;
    i32::try_from(metadata.len())
        .ok()
        .filter(|size| (17..i32::MAX).contains(size))
}

/// The table in Python's format `marshal`.
fn encode(suffix: &str, below: &str, folders: &BTreeMap<String, Table>) -> Vec<u8> {
    let mut bytes = b"(\x03\0\0\0".to_vec();
    text(&mut bytes, suffix);
    text(&mut bytes, below);
    bytes.push(b'{');
    for (folder, table) in folders {
        text(&mut bytes, folder);
        bytes.push(b'{');
        for (name, found) in table {
            text(&mut bytes, name);
            match found {
                Found::Code(size) => {
                    bytes.push(b'i');
                    bytes.extend(size.to_le_bytes());
                }
                Found::Extension(file) => text(&mut bytes, file),
                Found::Otherwise => bytes.push(b'N'),
            }
        }
        bytes.push(b'0');
    }
    bytes.push(b'0');
    bytes
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    match u8::try_from(text.len()) {
        Ok(length) if text.is_ascii() => bytes.extend([b'z', length]),
        _ => {
            bytes.push(b'u');
            bytes.extend((text.len() as u32).to_le_bytes());
        }
    }
    bytes.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(paths: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for path in paths {
            scratch::write(&dir.path().join(path), &[b'x'; 20], Kind::Data).unwrap();
        }
        dir
    }

    #[test]
    fn a_package_goes_before_an_extension_module_and_that_before_a_source() {
        let dir = folder(&[
            "both/__init__.py",
            "both/__pycache__/__init__.p.pyc",
            "both.py",
            "__pycache__/both.p.pyc",
            "fast.py",
            "fast.abi3.so",
            "__pycache__/fast.p.pyc",
            "plain.py",
            "__pycache__/plain.p.pyc",
            "broken.py",
            "space/inner.py",
            "built/__init__.py",
            "built/__init__.abi3.so",
            "built/__pycache__/__init__.p.pyc",
            "named.py",
            "__pycache__/named.p.pyc",
            "named/data.txt",
            "only.pyc",
            "notes.txt",
            "quick.p-x86_64-linux-gnu.so",
            "plainer.so",
            "other.q-x86_64-linux-gnu.so",
            "twice.so",
            "twice.abi3.so",
        ]);
        let table = table(dir.path(), ".p.pyc").unwrap();
        let found: Vec<(&str, &Found)> = table
            .iter()
            .map(|(name, found)| (name.as_str(), found))
            .collect();
        let extension = |name: &str| Found::Extension(name.to_owned());
        assert_eq!(
            found,
            [
                ("both", &Found::Code(-20)),
                ("broken", &Found::Otherwise),
                ("built", &Found::Otherwise),
                ("fast", &Found::Otherwise),
                ("named", &Found::Code(20)),
                ("only", &Found::Otherwise),
                ("other", &Found::Otherwise),
                ("plain", &Found::Code(20)),
                ("plainer", &extension("plainer.so")),
                ("quick", &extension("quick.p-x86_64-linux-gnu.so")),
                ("space", &Found::Otherwise),
                ("twice", &Found::Otherwise),
            ]
        );
    }

    #[test]
    fn the_table_is_what_python_reads() {
        let table = Table::from([
            ("a".to_owned(), Found::Code(-300)),
            ("b".to_owned(), Found::Extension("b.so".to_owned())),
            ("ü".to_owned(), Found::Otherwise),
            ("x".repeat(300), Found::Code(17)),
        ]);
        let bytes = encode(
            ".p.pyc",
            "/python/lib",
            &BTreeMap::from([("/app".to_owned(), table)]),
        );
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let Ok(output) = std::process::Command::new("python3")
            .args(["-c", "import marshal, sys; s, b, f = marshal.loads(bytes.fromhex(sys.argv[1])); print(ascii((s, b, sorted((k[:2], v) for k, v in f['/app'].items()))))"])
            .arg(hex)
            .output()
        else {
            return testkit::skip("no python3");
        };
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).trim(),
            "('.p.pyc', '/python/lib', [('a', -300), ('b', 'b.so'), ('xx', 17), ('\\xfc', None)])",
            "{output:?}"
        );
    }
}
