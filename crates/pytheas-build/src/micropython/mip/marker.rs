//! Markers (PEP 508) of packages of the Python package index, as they are true of a board.
//!
//! `implementation_name` is `micropython`, `platform_python_implementation` `MicroPython`, and
//! `sys_platform` the board's port (`rp2`, `esp32`, …) or, where the target names no board, anything
//! but a computer's. Python's version is the one that versions are chosen for
//! ([`super::pypi`]): MicroPython's own 3.4 would bring in what replaces parts of old Pythons.

use pep508_rs::MarkerTree;

/// A package that a board does not get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeftOut {
    /// The package.
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: String,
    /// What is not true there.
    pub(crate) marker: String,
}

impl LeftOut {
    /// In words.
    pub(crate) fn why(&self) -> String {
        format!("it is for `{}` only", self.marker)
    }
}

/// Computers' `sys_platform`.
const COMPUTERS: [&str; 7] = [
    "linux",
    "darwin",
    "win32",
    "cygwin",
    "aix",
    "android",
    "emscripten",
];

/// Whether a package with this marker may be needed on a board with this port, or on any board; one
/// that cannot be parsed may.
pub(super) fn applies(marker: &str, port: Option<&str>) -> bool {
    match (marker.parse::<MarkerTree>(), there(port).parse()) {
        (Ok(marker), Ok(there)) => !marker.is_disjoint(&there),
        _ => true,
    }
}

/// What is true on a board.
fn there(port: Option<&str>) -> String {
    let platform = match port {
        Some(port) => format!("sys_platform == '{port}'"),
        None => COMPUTERS
            .map(|name| format!("sys_platform != '{name}'"))
            .join(" and "),
    };
    let systems = ["Linux", "Darwin", "Windows", "Java"]
        .map(|name| format!("platform_system != '{name}'"))
        .join(" and ");
    format!(
        "implementation_name == 'micropython' and platform_python_implementation == 'MicroPython' \
         and os_name != 'nt' and os_name != 'posix' and os_name != 'java' \
         and {systems} and {platform}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(marker: &str, any: bool, rp2: bool) {
        assert_eq!(applies(marker, None), any, "{marker}, any board");
        assert_eq!(applies(marker, Some("rp2")), rp2, "{marker}, rp2");
    }

    #[test]
    fn markers_are_true_of_boards_or_not() {
        check("implementation_name == 'micropython'", true, true);
        check("implementation_name != 'micropython'", false, false);
        check("implementation_name == 'cpython'", false, false);
        check("platform_python_implementation == 'CPython'", false, false);
        check("platform_python_implementation != 'PyPy'", true, true);
        check("sys_platform == 'win32'", false, false);
        check("sys_platform != 'win32'", true, true);
        check("sys_platform == 'rp2'", true, true);
        check("sys_platform == 'esp32'", true, false);
        check("sys_platform != 'rp2'", true, false);
        check("platform_system == 'Windows'", false, false);
        check("os_name == 'nt'", false, false);
        check(
            "sys_platform == 'linux' and implementation_name == 'cpython'",
            false,
            false,
        );
        check(
            "sys_platform == 'esp32' or implementation_name == 'micropython'",
            true,
            true,
        );
        check("python_full_version >= '3.8'", true, true);
        check("this is none", true, true);
    }
}
