//! The smaller tables of `[tool.pytheas]`, one per verb that reads them.

use serde::Deserialize;

/// The table `[tool.pytheas.build]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct BuildSpec {
    /// Whose builds may use the network.
    pub network: BuildNetwork,
}

/// `bytecode` of a target: what a bundle holds of its modules.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ByteCode {
    /// Sources and byte code.
    #[default]
    WithSource,
    /// Of the app's and the packages' modules only byte code.
    Only,
    /// Only sources.
    None,
}

/// `true` (the project's own build), or the names of packages.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "`true`, `false` or a list of package names")]
pub enum BuildNetwork {
    /// The project's own, or none.
    Own(bool),
    /// These packages'.
    Packages(Vec<String>),
}

impl Default for BuildNetwork {
    fn default() -> Self {
        Self::Own(false)
    }
}

/// The table `[tool.pytheas.audit]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct AuditSpec {
    /// A folder or zip file of OSV documents, or the address of a server with OSV's API.
    pub database: Option<String>,
    /// The mildest severity that fails: `low`, `medium`, `high` or `critical`.
    pub fail_on: Option<String>,
    /// Advisories that were looked at.
    pub ignore: Vec<IgnoreSpec>,
}

/// One entry of `ignore` in `[tool.pytheas.audit]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct IgnoreSpec {
    /// The advisory, by any of its names: `CVE-…`, `GHSA-…`, `PYSEC-…`.
    pub id: String,
    /// The last day it is passed over, `YYYY-MM-DD`; for ever when absent.
    pub until: Option<Day>,
    /// Why.
    pub reason: Option<String>,
}

/// A day, `2026-11-21` as text or as TOML's date; days sort as their text does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "toml::Value")]
pub struct Day(pub String);

impl TryFrom<toml::Value> for Day {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        let text = match &value {
            toml::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let date = text.parse::<toml::value::Datetime>().ok();
        match date {
            Some(toml::value::Datetime {
                date: Some(_),
                time: None,
                offset: None,
            }) => Ok(Self(text)),
            _ => Err(format!("`{text}` is no day; write e.g. `2027-01-31`")),
        }
    }
}

/// The table `version` of `[tool.pytheas]`: where the version of an app without a build back end
/// comes from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct VersionSpec {
    /// `git`, `file` or `attr`; told by the other keys when absent.
    pub from: Option<VersionFrom>,
    /// With `git`: the tags that count, with one `*` for the version; `v*` when absent.
    pub tag: Option<String>,
    /// With `file`: a text file that holds the version, or a Python file with `__version__`.
    pub file: Option<String>,
    /// With `attr`: `package.module.NAME`, a string assigned at the top of the module.
    pub attr: Option<String>,
}

/// Where a version comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VersionFrom {
    /// The nearest tag of the repository.
    Git,
    /// A file.
    File,
    /// A string in a module, which is read and not run.
    Attr,
}

/// The table `[tool.pytheas.compile]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CompileSpec {
    /// Modules by their dotted names; `package.*` is every module below a package.
    pub modules: Vec<String>,
    /// What compiles them.
    #[serde(default)]
    pub with: CompileWith,
    /// Another version of Cython or mypy than the one Pytheas knows.
    pub version: Option<String>,
    /// Whether the sources stay beside the compiled modules, for the lines in tracebacks.
    #[serde(default)]
    pub keep_sources: bool,
    /// What `pytheas bench` calls: `package.module:callable`.
    pub bench: Option<String>,
}

/// What turns Python modules into C.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CompileWith {
    /// Cython: any Python, types by annotations of its own.
    #[default]
    Cython,
    /// mypyc: type-checked Python.
    Mypyc,
}

impl CompileWith {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cython => "cython",
            Self::Mypyc => "mypyc",
        }
    }
}

/// The table `[tool.pytheas.numba]`: what numba compiles when a bundle is built.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct NumbaSpec {
    /// Whether its cache is filled at all.
    pub fill: bool,
    /// `module:callable`, called without arguments: they call what shall be compiled.
    pub warm: Vec<String>,
    /// Features of the CPU, by LLVM's names, that every device has beyond its architecture's least.
    pub features: Vec<String>,
}

impl Default for NumbaSpec {
    fn default() -> Self {
        Self {
            fill: true,
            warm: Vec::new(),
            features: Vec::new(),
        }
    }
}

/// One `[[tool.pytheas.rule]]`: `when` this module is reached, `slim` keeps those as well.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SlimRule {
    /// A module; `*` for always.
    pub when: String,
    /// Modules; `name.*` for everything below one.
    pub keep: Vec<String>,
}

/// The table `[tool.pytheas.test]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct TestSpec {
    /// Dependency groups that the tests need.
    pub groups: Vec<String>,
    /// Extras that the tests need.
    pub extras: Vec<String>,
    /// What runs them, e.g. `pytest -q`; split as a shell would, but there is no shell.
    pub command: Option<String>,
}

/// The table `[tool.pytheas.licences]`: SPDX identifiers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct LicenceSpec {
    /// The only ones that may be; any, when empty.
    pub allow: Vec<String>,
    /// Those that may not be.
    pub deny: Vec<String>,
    /// Packages that were looked at and are fine.
    pub except: Vec<String>,
}
