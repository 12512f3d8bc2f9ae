//! `environment.yml` (conda): the `pip:` part, and conda packages that are pure Python and have
//! the same name on the package index. conda's own packages are not installed.

use std::path::Path;

use saphyr::{LoadableYamlNode, Yaml};

use super::{Found, InputError, text};
use crate::project::normalised_name;

/// conda packages that are something else on a Python package index, or are not there: programs,
/// C libraries, other languages.
const NOT_PYTHON: &[&str] = &[
    "blas",
    "boost",
    "boost-cpp",
    "bzip2",
    "c-compiler",
    "ca-certificates",
    "cairo",
    "clang",
    "cmake",
    "compilers",
    "cuda",
    "cuda-toolkit",
    "cudatoolkit",
    "cudnn",
    "curl",
    "cxx-compiler",
    "eigen",
    "expat",
    "ffmpeg",
    "fftw",
    "fontconfig",
    "fortran-compiler",
    "freetype",
    "gcc",
    "gdal",
    "geos",
    "gfortran",
    "git",
    "git-lfs",
    "glib",
    "go",
    "graphviz",
    "gsl",
    "gxx",
    "hdf5",
    "icu",
    "imagemagick",
    "intel-openmp",
    "java-jdk",
    "jpeg",
    "jq",
    "julia",
    "krb5",
    "lapack",
    "llvm",
    "llvm-openmp",
    "lz4-c",
    "make",
    "mamba",
    "mkl",
    "mosquitto",
    "mpich",
    "mysql",
    "nccl",
    "ncurses",
    "netcdf4-c",
    "ninja",
    "nodejs",
    "nomkl",
    "openblas",
    "opencv",
    "openjdk",
    "openmp",
    "openmpi",
    "openssl",
    "pandoc",
    "patchelf",
    "perl",
    "pkg-config",
    "poppler",
    "postgresql",
    "proj",
    "protobuf-c",
    "pytorch-cuda",
    "qt",
    "r",
    "r-base",
    "readline",
    "redis",
    "redis-server",
    "ruby",
    "rust",
    "sed",
    "snappy",
    "sqlite",
    "swig",
    "tesseract",
    "texlive-core",
    "tk",
    "vim",
    "wget",
    "xz",
    "yaml",
    "zeromq",
    "zlib",
    "zstd",
];

/// Reads an `environment.yml`. The names of conda's packages are in `Found::conda`.
pub(crate) fn read(file: &Path) -> Result<Found, InputError> {
    let content = text(file)?;
    let documents = Yaml::load_from_str(&content).map_err(|error| {
        let marker = error.marker();
        InputError::Syntax {
            file: file.to_owned(),
            line: marker.line(),
            column: marker.col() + 1,
            message: error.info().to_owned(),
        }
    })?;
    let mut found = Found::default();
    let Some(document) = documents.first() else {
        return Ok(found);
    };
    let not_a_mapping = || InputError::Syntax {
        file: file.to_owned(),
        line: 1,
        column: 1,
        message: "this is no environment: expected `dependencies:` with a list below".to_owned(),
    };
    if !document.is_mapping() && !document.is_null() {
        return Err(not_a_mapping());
    }
    let list = document.as_mapping_get("dependencies");
    if list.is_some_and(|list| !list.is_sequence() && !list.is_null()) {
        return Err(not_a_mapping());
    }
    found.name = document
        .as_mapping_get("name")
        .and_then(Yaml::as_str)
        .map(str::to_owned);
    let mut refused = Vec::new();
    for item in list.and_then(Yaml::as_vec).into_iter().flatten() {
        if let Some(pip) = item.as_mapping_get("pip").and_then(Yaml::as_vec) {
            for line in pip.iter().filter_map(Yaml::as_str) {
                pip_line(file, line, &mut found)?;
            }
        } else if let Some(spec) = item.as_str() {
            match package(spec) {
                Ok(Package::Python(version)) => {
                    found.requires_python = version.and_then(|text| text.parse().ok());
                }
                Ok(Package::Tool) => {}
                Ok(Package::Named { name, requirement }) => {
                    found.conda.insert(normalised_name(&name));
                    found.dependencies.push(requirement);
                }
                Err(reason) => refused.push((spec.to_owned(), reason)),
            }
        } else {
            let text = item
                .as_mapping()
                .and_then(|map| map.keys().next()?.as_str());
            let text = text.unwrap_or("an item of another kind").to_owned();
            refused.push((text, "neither a package nor a `pip:` list".to_owned()));
        }
    }
    if refused.is_empty() {
        Ok(found)
    } else {
        Err(InputError::conda(file, refused))
    }
}

/// A line of the `pip:` part: a requirement, or an option of pip.
fn pip_line(file: &Path, line: &str, found: &mut Found) -> Result<(), InputError> {
    let line = line.trim();
    if line.starts_with('-') {
        found.pip_options.push(line.to_owned());
    } else if line.starts_with("./")
        || line.starts_with("../")
        || line.contains("://") && !line.contains(" @ ")
    {
        return Err(InputError::Dependency {
            file: file.to_owned(),
            name: "pip".to_owned(),
            value: crate::requirements::without_credentials(line),
            reason: "write it with its name: `NAME @ ADDRESS`".to_owned(),
        });
    } else {
        found.dependencies.push(line.to_owned());
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Package {
    Python(Option<String>),
    /// Installers, which a bundle does not need.
    Tool,
    Named {
        name: String,
        requirement: String,
    },
}

/// conda's match specification: `channel::name`, `name=1.2`, `name=1.2=build`, `name >=1,<2`.
fn package(spec: &str) -> Result<Package, String> {
    let spec = spec.split(" #").next().unwrap_or(spec).trim();
    let spec = spec.rsplit_once("::").map_or(spec, |(_, rest)| rest);
    let end = spec
        .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')))
        .unwrap_or(spec.len());
    let (name, rest) = spec.split_at(end);
    let name = name.to_lowercase();
    let version = version(rest.trim()).ok_or_else(|| "its version is not understood".to_owned());
    match name.as_str() {
        "python" => return Ok(Package::Python(version?)),
        "pip" | "setuptools" | "wheel" | "conda" => return Ok(Package::Tool),
        _ => {}
    }
    let starts = [
        "lib", "r-", "_", "gcc_", "gxx_", "m2-", "cuda-", "xorg-", "perl-", "font-",
    ];
    if name.is_empty() {
        return Err("it is not understood".to_owned());
    }
    if NOT_PYTHON.contains(&name.as_str()) || starts.iter().any(|start| name.starts_with(start)) {
        return Err("no Python package".to_owned());
    }
    let requirement = format!("{name}{}", version?.unwrap_or_default());
    Ok(Package::Named { name, requirement })
}

/// conda's version part as PEP 440; `Some(None)` when any will do.
fn version(text: &str) -> Option<Option<String>> {
    if text.is_empty() || text == "*" {
        return Some(None);
    }
    if text.contains(['[', '|']) {
        return None;
    }
    let specifiers = if let Some(exact) = text.strip_prefix("==") {
        format!("=={}", exact.split('=').next()?)
    } else if let Some(rest) = text.strip_prefix('=') {
        // `=1.2` is any 1.2; with a build it is exactly that version.
        match rest.trim_end_matches(".*").split_once('=') {
            Some((version, _build)) => format!("=={version}"),
            None => format!("=={}.*", rest.trim_end_matches(".*").trim_end_matches('*')),
        }
    } else if text.starts_with(|c: char| c.is_ascii_digit()) {
        format!("=={text}")
    } else {
        text.replace(' ', "")
    };
    let parsed: pep440_rs::VersionSpecifiers = specifiers.parse().ok()?;
    Some(Some(parsed.to_string().replace(' ', "")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(spec: &str, expected: &str) {
        let found = match package(spec) {
            Ok(Package::Named { requirement, .. }) => requirement,
            Ok(other) => format!("{other:?}"),
            Err(reason) => reason,
        };
        assert_eq!(found, expected, "{spec}");
    }

    #[test]
    fn match_specifications_are_translated() {
        check("requests", "requests");
        check("requests=2.31", "requests==2.31.*");
        check("requests=2.31.*", "requests==2.31.*");
        check("requests==2.31.0", "requests==2.31.0");
        check("requests=2.31.0=pyhd8ed1ab_0", "requests==2.31.0");
        check("conda-forge::click>=8,<9", "click>=8,<9");
        check("click >=8", "click>=8");
        check("python=3.11", "Python(Some(\"==3.11.*\"))");
        check("pip", "Tool");
        check("libpq", "no Python package");
        check("graphviz", "no Python package");
        check("click=8|9", "its version is not understood");
    }
}
