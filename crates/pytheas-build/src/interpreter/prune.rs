//! What of a standard library a bundle does not need: tests, editors, installers, build files,
//! and Tk (its libraries are larger than Python; Debian leaves it out as well).

/// Folders, relative to the standard library, that are left out with all they hold.
const FOLDERS: &[&str] = &[
    "test",
    "idlelib",
    "turtledemo",
    "ensurepip",
    "tkinter",
    "lib2to3/tests",
    "site-packages",
    "dist-packages",
    "ctypes/test",
    "distutils/tests",
    "sqlite3/test",
    "unittest/test",
    "__phello__",
];
/// Files, relative to the standard library.
const FILES: &[&str] = &[
    "turtle.py",
    "EXTERNALLY-MANAGED",
    // Hooks of the host's distribution.
    "sitecustomize.py",
    "usercustomize.py",
];

/// Whether a file or folder of the standard library stays out of a bundle; `path` is relative to
/// it, with `/`.
pub(super) fn is_left_out(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    if FOLDERS.contains(&path) || FILES.contains(&path) || name == "__pycache__" {
        return true;
    }
    if path.starts_with("config-") || path == "config" || path.ends_with(".a") {
        return true;
    }
    if name == "tests" && !path.starts_with("site-packages") && path.contains('/') {
        return true;
    }
    // `nis` (gone in 3.13) is what brings the libraries of NIS and Kerberos along.
    let unwanted = [
        "nis.",
        "_test",
        "_xxtestfuzz",
        "_xxsubinterpreters_test",
        "xxlimited",
        "xxsubtype",
        "_ctypes_test",
        "_tkinter",
    ];
    (name.ends_with(".so")) && unwanted.iter().any(|start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_and_tools_stay_out_and_modules_stay_in() {
        for out in [
            "test",
            "idlelib",
            "ensurepip",
            "config-3.11-x86_64-linux-gnu",
            "lib2to3/tests",
            "unittest/test",
            "json/__pycache__",
            "lib-dynload/_testcapi.cpython-311-x86_64-linux-gnu.so",
            "tkinter",
            "turtle.py",
            "lib-dynload/_tkinter.cpython-311-x86_64-linux-gnu.so",
            "sitecustomize.py",
        ] {
            assert!(is_left_out(out), "{out}");
        }
        for inside in [
            "unittest",
            "unittest/mock.py",
            "lib2to3",
            "ctypes",
            "configparser.py",
            "lib-dynload",
            "tempfile.py",
            "lib-dynload/_ssl.cpython-311-x86_64-linux-gnu.so",
            "doctest.py",
            "sqlite3",
            "json/tool.py",
            "site.py",
        ] {
            assert!(!is_left_out(inside), "{inside}");
        }
    }
}
