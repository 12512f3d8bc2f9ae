//! What every bundle goes without, `slim` or not: parts of the standard library and of packages
//! that are read when code is written, built or looked up, never when an app runs.
//!
//! Of the standard library: the texts of the interactive help, the old translator and the old build
//! system (unless something that is shipped names them), and Python twins of compiled modules. Of
//! packages: type stubs, Cython's sources, C sources beside what was compiled from them, headers
//! and static libraries. Those of packages that compile when they run stay.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use walkdir::WalkDir;

use crate::{
    error::{BuildError, io_error},
    slim,
};

/// Modules of the standard library that go unless a word of the shipped sources names them.
const UNLESS_NAMED: &[&str] = &["lib2to3", "distutils", "pydoc_data"];
/// Python twins: gone when the compiled module is there, and nothing names them.
const TWINS: &[(&str, &str)] = &[("_pydecimal", "_decimal.")];
/// Top-level modules of packages that compile C, CUDA or Cython while they run: then headers,
/// libraries and sources of all packages are of use.
const COMPILERS: &[&str] = &[
    "torch",
    "triton",
    "tensorflow",
    "jax",
    "jaxlib",
    "numba",
    "cupy",
    "pycuda",
    "pyopencl",
    "pybind11",
    "nanobind",
    "cython",
    "Cython",
    "pyximport",
    "pythran",
    "cppyy",
    "theano",
    "pytensor",
    "tvm",
    "ziglang",
    "setuptools_rust",
    "platformio",
    "esphome",
];
/// Top-level modules of packages that read type stubs, their own and those of all packages.
const CHECKERS: &[&str] = &["mypy", "pyright", "basedpyright", "pytype", "pyrefly", "ty"];
/// Parts of packages that name the old build system without needing it when an app runs.
const NO_WITNESS: &[&str] = &[
    "setuptools",
    "_distutils_hack",
    "pkg_resources",
    "pip",
    "wheel",
    "numpy/distutils",
    "numpy/f2py",
    "tests",
    "test",
];

/// Removes it from a tree whose standard library is `stdlib` and whose packages are in `site`;
/// `sources` are all folders of code, those two apart.
pub(crate) fn tree(stdlib: &Path, site: &Path, sources: &[PathBuf]) -> Result<(), BuildError> {
    packages(site)?;
    let named = named(site, sources)?;
    let dynload = fs::read_dir(stdlib.join("lib-dynload"));
    let compiled: Vec<String> = dynload
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|child| child.file_name().into_string().ok())
        .collect();
    let twins = TWINS
        .iter()
        .filter(|(_, twin)| compiled.iter().any(|name| name.starts_with(twin)))
        .map(|(name, _)| *name);
    for name in UNLESS_NAMED.iter().copied().chain(twins) {
        if !named.contains(name) {
            remove(&stdlib.join(name))?;
            remove(&stdlib.join(format!("{name}.py")))?;
            remove_byte_code(&stdlib.join("__pycache__"), name)?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), BuildError> {
    pytheas_durable::remove_tree(path).map_err(io_error("remove", path))
}

fn remove_byte_code(folder: &Path, name: &str) -> Result<(), BuildError> {
    let start = format!("{name}.");
    for child in fs::read_dir(folder).into_iter().flatten().flatten() {
        if child.file_name().to_string_lossy().starts_with(&start) {
            remove(&child.path())?;
        }
    }
    Ok(())
}

/// Which of the modules that may go are named by what is shipped.
fn named(site: &Path, sources: &[PathBuf]) -> Result<BTreeSet<&'static str>, BuildError> {
    let mut open: BTreeSet<&'static str> = UNLESS_NAMED
        .iter()
        .copied()
        .chain(TWINS.iter().map(|(name, _)| *name))
        .collect();
    let mut named = BTreeSet::new();
    for folder in sources.iter().map(PathBuf::as_path).chain([site]) {
        for entry in WalkDir::new(folder) {
            let entry = match entry {
                Ok(entry) => entry,
                Err(_) if !folder.exists() => continue,
                Err(error) => return Err(io_error("read", folder)(error.into())),
            };
            let path = entry.path();
            let is_code = path
                .extension()
                .is_some_and(|end| end == "py" || end == "so" || end == "pth");
            if !is_code
                || !entry.file_type().is_file()
                || (folder == site && !witnesses(path, site))
            {
                continue;
            }
            let bytes = fs::read(path).map_err(io_error("read", path))?;
            open.retain(|name| {
                let is_named = holds_word(&bytes, name);
                if is_named {
                    named.insert(*name);
                }
                !is_named
            });
            if open.is_empty() {
                return Ok(named);
            }
        }
    }
    Ok(named)
}

/// Whether a mention in this file of a package counts.
fn witnesses(path: &Path, site: &Path) -> bool {
    let inside = path.strip_prefix(site).unwrap_or(path).to_string_lossy();
    !NO_WITNESS.iter().any(|folder| {
        let is_below = inside
            .strip_prefix(folder)
            .is_some_and(|rest| rest.starts_with('/'));
        is_below || inside.contains(&format!("/{folder}/"))
    }) && !inside.ends_with("/setup.py")
        && inside != "distutils-precedence.pth"
}

/// Whether the bytes hold the name as a word of its own.
fn holds_word(bytes: &[u8], name: &str) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    memchr::memmem::find_iter(bytes, name).any(|at| {
        !bytes[..at].last().is_some_and(is_word) && !bytes.get(at + name.len()).is_some_and(is_word)
    })
}

/// What only compilers and type checkers read, of the packages in `site`.
fn packages(site: &Path) -> Result<(), BuildError> {
    let has_any = |names: &[&str]| {
        names
            .iter()
            .any(|name| site.join(name).exists() || site.join(format!("{name}.py")).exists())
    };
    let uses = Uses {
        sources: has_any(COMPILERS),
        stubs: has_any(CHECKERS),
    };
    let mut has_changed = false;
    for entry in WalkDir::new(site).contents_first(true) {
        let entry = match entry {
            Ok(entry) => entry,
            Err(_) if !site.exists() => return Ok(()),
            Err(error) => return Err(io_error("read", site)(error.into())),
        };
        let path = entry.path();
        if entry.file_type().is_file() && is_for_compilers(path, &uses) {
            fs::remove_file(path).map_err(io_error("remove", path))?;
            has_changed = true;
            // Fails for a folder that is not empty, which is what is meant.
            let folders = path.ancestors().skip(1).take_while(|up| *up != site);
            for folder in folders {
                if fs::remove_dir(folder).is_err() {
                    break;
                }
            }
        }
    }
    if has_changed {
        for child in fs::read_dir(site).map_err(io_error("read", site))? {
            let info = child.map_err(io_error("read", site))?.path();
            if info.extension().is_some_and(|end| end == "dist-info") {
                slim::shorten_record_at(site, &info)?;
            }
        }
    }
    Ok(())
}

/// What some package of the tree uses while it runs.
struct Uses {
    /// Sources and headers of C and Cython.
    sources: bool,
    /// Type stubs.
    stubs: bool,
}

fn is_for_compilers(path: &Path, uses: &Uses) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let Some((stem, ending)) = name.rsplit_once('.') else {
        return false;
    };
    let folder = path.parent().unwrap_or(path);
    match ending {
        "pyi" => !uses.stubs && !is_loaded_stub(folder, stem) && !is_data_stub(path),
        _ if uses.sources => false,
        // Their Python package lies around them: they are no data of a code generator.
        "pxd" | "pxi" | "pyx" => has_compiled(folder, None),
        "c" | "cc" | "cpp" | "cxx" => has_compiled(folder, Some(stem)),
        "h" | "hh" | "hpp" | "hxx" => path
            .components()
            .any(|part| matches!(part.as_os_str().to_str(), Some("include" | "includes"))),
        "a" => name.starts_with("lib"),
        _ => false,
    }
}

/// A stub that is read when the program runs (`lazy_loader.attach_stub`).
fn is_loaded_stub(folder: &Path, stem: &str) -> bool {
    let text = fs::read(folder.join(format!("{stem}.py"))).unwrap_or_default();
    text.windows(11).any(|window| window == b"attach_stub")
}

/// A stub without the code that it is the stub of is data of its package: completions and type
/// checks come from it (jedi, mypy). Packages of nothing but stubs (`yaml-stubs`) are for checkers.
pub(crate) fn is_data_stub(path: &Path) -> bool {
    let (Some(folder), Some(stem)) = (path.parent(), path.file_stem()) else {
        return false;
    };
    let stem = stem.to_string_lossy();
    path.extension().is_some_and(|ending| ending == "pyi")
        && !folder.join("__init__.py").exists()
        && !folder.join(format!("{stem}.py")).exists()
        && !has_compiled(folder, Some(&stem))
        && !folder
            .components()
            .any(|part| part.as_os_str().to_string_lossy().ends_with("-stubs"))
}

/// Whether a compiled module lies in the folder: of this name, or any.
fn has_compiled(folder: &Path, stem: Option<&str>) -> bool {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|child| child.file_name().into_string().ok())
        .filter(|name| name.ends_with(".so"))
        .any(|name| stem.is_none_or(|stem| name.split('.').next() == Some(stem)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree_of(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            pytheas_durable::replace(&path, text.as_bytes()).unwrap();
        }
        dir
    }

    fn trimmed(files: &[(&str, &str)]) -> (tempfile::TempDir, Vec<String>) {
        let dir = tree_of(files);
        let root = dir.path();
        tree(&root.join("lib"), &root.join("site"), &[root.join("app")]).unwrap();
        let left = WalkDir::new(root)
            .sort_by_file_name()
            .into_iter()
            .flatten()
            .filter(|entry| entry.file_type().is_file())
            .map(|entry| {
                entry
                    .path()
                    .strip_prefix(root)
                    .unwrap()
                    .display()
                    .to_string()
            })
            .collect();
        (dir, left)
    }

    const STDLIB: &[(&str, &str)] = &[
        ("lib/distutils/core.py", ""),
        ("lib/lib2to3/main.py", ""),
        ("lib/pydoc_data/topics.py", ""),
        ("lib/_pydecimal.py", ""),
        ("lib/__pycache__/_pydecimal.cpython-311.pyc", ""),
        ("lib/lib-dynload/_decimal.cpython-311.so", ""),
        ("lib/os.py", "import distutils"),
    ];

    #[test]
    fn stubs_without_code_are_data_and_a_type_checker_has_them_all() {
        let files = [
            ("site/plain/__init__.py", ""),
            ("site/plain/__init__.pyi", ""),
            ("site/plain/_fast.pyi", ""),
            ("site/space/x.pyi", ""),
            ("site/space/x.abi3.so", ""),
            ("site/yaml-stubs/a.pyi", ""),
            ("site/jedi/__init__.py", ""),
            ("site/jedi/typeshed/stdlib/3/abc.pyi", ""),
            ("site/top.py", ""),
            ("site/top.pyi", ""),
        ];
        let stubs = |files: &[(&str, &str)]| {
            let (_dir, left) = trimmed(files);
            let stubs = left.into_iter().filter(|path| path.ends_with(".pyi"));
            stubs.collect::<Vec<_>>()
        };
        assert_eq!(stubs(&files), ["site/jedi/typeshed/stdlib/3/abc.pyi"]);
        let with_checker = [&files[..], &[("site/mypy/__init__.py", "")]].concat();
        assert_eq!(stubs(&with_checker).len(), 6);
    }

    #[test]
    fn old_parts_of_the_standard_library_go_unless_something_names_them() {
        let mut files = STDLIB.to_vec();
        files.push(("app/main.py", "import mydistutils, distutils_x"));
        files.push(("site/setuptools/build.py", "import distutils"));
        let (_dir, left) = trimmed(&files);
        assert_eq!(
            left,
            [
                "app/main.py",
                "lib/lib-dynload/_decimal.cpython-311.so",
                "lib/os.py",
                "site/setuptools/build.py"
            ]
        );
        let mut files = STDLIB.to_vec();
        files.push(("app/main.py", "from distutils.version import LooseVersion"));
        files.push(("site/past/__init__.py", "from lib2to3.pgen2 import parse"));
        let (_dir, left) = trimmed(&files);
        let has = |name: &str| left.iter().any(|path| path == name);
        assert!(has("lib/distutils/core.py") && has("lib/lib2to3/main.py"));
        assert!(!has("lib/pydoc_data/topics.py"));
    }

    #[test]
    fn a_twin_stays_where_the_compiled_module_is_missing() {
        let (_dir, left) = trimmed(&[("lib/_pydecimal.py", ""), ("site/a.py", "")]);
        assert_eq!(left, ["lib/_pydecimal.py", "site/a.py"]);
    }

    const PACKAGES: &[(&str, &str)] = &[
        ("site/p/__init__.py", ""),
        ("site/p/__init__.pyi", ""),
        ("site/p/fast.cpython-311.so", ""),
        ("site/p/fast.pyx", ""),
        ("site/p/fast.c", ""),
        ("site/p/shipped.c", ""),
        ("site/p/include/p.h", ""),
        ("site/p/firmware/main.h", ""),
        ("site/p/lib/libp.a", ""),
        ("site/lazy.py", "attach_stub(__name__, __file__)"),
        ("site/lazy.pyi", ""),
        (
            "site/p-1.dist-info/RECORD",
            "p/__init__.py,,\np/__init__.pyi,,\np/include/p.h,,\n",
        ),
    ];

    #[test]
    fn what_compilers_read_goes_and_the_record_says_so() {
        let (dir, left) = trimmed(PACKAGES);
        assert_eq!(
            left,
            [
                "site/lazy.py",
                "site/lazy.pyi",
                "site/p/__init__.py",
                "site/p/fast.cpython-311.so",
                "site/p/firmware/main.h",
                "site/p/shipped.c",
                "site/p-1.dist-info/RECORD",
            ]
        );
        let record = fs::read_to_string(dir.path().join("site/p-1.dist-info/RECORD")).unwrap();
        assert_eq!(record, "p/__init__.py,,\n");
        assert!(!dir.path().join("site/p/include").exists());
    }

    #[test]
    fn a_package_that_compiles_at_run_time_keeps_headers_and_libraries() {
        let mut files = PACKAGES.to_vec();
        files.push(("site/numba/__init__.py", ""));
        let (_dir, left) = trimmed(&files);
        let has = |name: &str| left.iter().any(|path| path == name);
        assert!(has("site/p/include/p.h") && has("site/p/lib/libp.a") && has("site/p/fast.pyx"));
        assert!(!has("site/p/__init__.pyi"));
    }
}
