//! Folders with a `main.py` and a `requirements.txt`: no configuration at all.

use std::{ffi::OsStr, process::Command};

use crate::support::{Workspace, can_unshare, python, run, stdout, without_host_pythons};

/// Uses a compiled package, a pure one, and modules that need shared libraries.
const MAIN: &str = r#"
import bz2, ctypes, json, lzma, os, sqlite3, ssl, subprocess, sys, uuid, zlib
import helper
import idna
import rpds
from markupsafe import _speedups

child = subprocess.run([sys.executable, "-c", "import idna, helper, sys; print(idna.__name__, sys.prefix)"],
                       capture_output=True, text=True, check=True)
print(json.dumps({
    "arguments": sys.argv[1:],
    "argv0": sys.argv[0],
    "executable": sys.executable,
    "prefix": sys.prefix,
    "path": sys.path,
    "file": __file__,
    "name": __name__,
    "child": child.stdout.strip(),
    "python_variables": sorted(k for k in os.environ if k.startswith("PYTHON")),
    "root": os.environ["PYTHEAS_ROOT"],
    "kept": os.environ.get("KEPT"),
    "helper": helper.__file__,
    "libraries": sorted({line[line.index("/"):].strip() for line in open("/proc/self/maps") if ".so" in line}),
}))
sys.exit(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
"#;

fn workspace() -> Workspace {
    let helper = "def f():\n    raise ValueError('from helper')\n";
    Workspace::new(&[
        ("main.py", MAIN),
        ("helper.py", helper),
        ("requirements.txt", "idna\nmarkupsafe\nrpds-py\n"),
    ])
}

#[test]
fn a_folder_builds_into_a_bundle_that_runs_anywhere() {
    let workspace = workspace();
    let built = workspace.build();
    assert_eq!(built.record.name.as_str(), "project");
    assert_eq!(built.record.entry.as_str(), "bin/project");
    assert_eq!(built.interpreter.provider, "host");
    assert_eq!(built.warnings, Vec::<String>::new());
    assert!(workspace.project().join("pylock.toml").is_file());
    assert!(!workspace.project().join("dist").exists());

    let moved = workspace.root().join("moved to ü").join("a place");
    std::fs::create_dir_all(moved.parent().unwrap()).unwrap();
    Command::new("mv")
        .arg(&built.dir)
        .arg(&moved)
        .status()
        .unwrap();
    let root = moved.display().to_string();

    let output = Command::new(moved.join("bin/project"))
        .args(["3", "two words", ""])
        .current_dir("/")
        .env_clear()
        .envs([
            ("PYTHONHOME", "/nowhere"),
            ("PYTHONPATH", "/nowhere"),
            ("PYTHONSTARTUP", "/x"),
            ("KEPT", "yes"),
        ])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["arguments"], serde_json::json!(["3", "two words", ""]));
    assert_eq!(told["argv0"], format!("{root}/app/main.py"));
    assert_eq!(told["file"], format!("{root}/app/main.py"));
    assert_eq!(told["name"], "__main__");
    assert_eq!(told["helper"], format!("{root}/app/helper.py"));
    assert_eq!(told["root"], root);
    assert_eq!(told["kept"], "yes");
    assert_eq!(told["prefix"], format!("{root}/python"));
    assert_eq!(told["child"], format!("idna {root}/python"));
    assert_eq!(
        told["python_variables"],
        serde_json::json!(["PYTHONDONTWRITEBYTECODE", "PYTHONNOUSERSITE"])
    );
    for path in told["path"].as_array().unwrap() {
        assert!(
            path.as_str().unwrap().starts_with(&root),
            "{path} is on the path"
        );
    }
    for library in told["libraries"].as_array().unwrap() {
        let library = library.as_str().unwrap();
        let name = library.rsplit('/').next().unwrap();
        let is_libc = [
            "libc.so",
            "libm.so",
            "ld-linux",
            "libresolv.so",
            "libpthread",
            "libdl",
            "librt",
            "libutil",
        ];
        assert!(
            library.starts_with(&root) || is_libc.iter().any(|start| name.starts_with(start)),
            "{library}"
        );
    }

    // Running it did not change the tree.
    assert_eq!(
        pytheas_durable::trees::scan(&moved).unwrap().id(),
        built.tree_id
    );
}

#[test]
fn a_bundle_runs_where_the_original_python_and_its_libraries_do_not_exist() {
    if !can_unshare() {
        return;
    }
    let built = workspace().build_and_keep();
    let hidden = without_host_pythons(&built.1.dir.join("bin/project"), &[OsStr::new("0")])
        .output()
        .unwrap();
    let told: serde_json::Value =
        serde_json::from_slice(&hidden.stdout).unwrap_or_else(|_| panic!("{hidden:?}"));
    assert_eq!(
        told["executable"].as_str().unwrap(),
        python_path(&built.1.dir),
        "{hidden:?}"
    );
    // The hiding is real: the original does not run there.
    let original = built.1.interpreter.origin.clone();
    let output = without_host_pythons(&original, &[OsStr::new("-V")])
        .output()
        .unwrap();
    assert!(
        !output.status.success(),
        "{} still runs",
        original.display()
    );
}

fn python_path(dir: &std::path::Path) -> &'static str {
    let real = python(dir).canonicalize().unwrap();
    Box::leak(real.display().to_string().into_boxed_str())
}

impl Workspace {
    fn build_and_keep(self) -> (Self, pytheas_build::Built) {
        let built = self.build();
        (self, built)
    }
}

#[test]
fn every_module_of_the_standard_library_that_was_taken_can_be_imported() {
    let workspace = workspace();
    let built = workspace.build();
    let script = r#"
import importlib, os, sys
folder = next(p for p in sys.path if p.endswith("lib-dynload"))
names = sorted({name.split(".")[0] for name in os.listdir(folder)})
for name in names:
    importlib.import_module(name)
print(len(names))
"#;
    let count: usize = stdout(&run(&python(&built.dir), &["-I", "-c", script]))
        .trim()
        .parse()
        .unwrap();
    assert!(count > 20, "{count}");
}

#[test]
fn tracebacks_show_the_sources_in_their_new_place() {
    let workspace = Workspace::new(&[
        ("main.py", "import helper\nhelper.f()\n"),
        (
            "helper.py",
            "def f():\n    raise ValueError('from helper')\n",
        ),
        ("requirements.txt", ""),
    ]);
    let built = workspace.build();
    let output = run(&built.dir.join("bin/project"), &[]);
    let text =
        String::from_utf8_lossy(&output.stderr).replace(&built.dir.display().to_string(), "BUNDLE");
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!(text, @r#"
    Traceback (most recent call last):
      File "BUNDLE/app/main.py", line 2, in <module>
        helper.f()
      File "BUNDLE/app/helper.py", line 2, in f
        raise ValueError('from helper')
    ValueError: from helper
    "#);
}

#[test]
fn hidden_files_tests_and_environments_stay_out_unless_they_are_included() {
    let workspace = Workspace::new(&[
        ("main.py", ""),
        ("requirements.txt", ""),
        (
            "pyproject.toml",
            "[tool.pytheas]\ninclude = ['.streamlit/config.toml', 'dist/keep/*.txt']\nexclude = ['notes', '**/*.bak']\n",
        ),
        (".env", "SECRET=1"),
        (".git/config", ""),
        (".streamlit/config.toml", ""),
        (".streamlit/secrets.toml", ""),
        ("venv2/pyvenv.cfg", ""),
        ("venv2/lib/x.py", ""),
        ("tests/test_main.py", ""),
        ("package/__init__.py", ""),
        ("package/tests/__init__.py", ""),
        ("package/data.json", "{}"),
        ("package/old.bak", ""),
        ("package/__pycache__/x.pyc", ""),
        ("thing.egg-info/PKG-INFO", ""),
        ("dist/old.whl", ""),
        ("dist/keep/a.txt", ""),
        ("notes/n.txt", ""),
        ("node_modules/x/y.js", ""),
        ("fleet/gw/agent.lock", ""),
        ("fleet/gw/identity.json", "{}"),
    ]);
    std::os::unix::fs::symlink("package/data.json", workspace.project().join("link.json")).unwrap();
    let built = workspace.build();
    let app: Vec<&str> = built
        .tree
        .files()
        .filter_map(|(path, _, _)| path.as_str().strip_prefix("app/"))
        .filter(|path| !path.ends_with(".pyc"))
        .collect();
    assert_eq!(
        app,
        [
            ".streamlit/config.toml",
            "dist/keep/a.txt",
            "link.json",
            "main.py",
            "package/__init__.py",
            "package/data.json",
            "package/tests/__init__.py",
            "pyproject.toml",
            "requirements.txt",
        ]
    );
}

#[test]
fn a_package_in_a_folder_is_taken_as_it_is_now_and_never_by_a_path_of_this_machine() {
    let workspace = Workspace::new(&[
        ("requirements.txt", "-e ./lib\n"),
        ("main.py", "import mine\nprint(mine.__file__, mine.VALUE)\n"),
        ("lib/mine.py", "\"\"\"Mine.\"\"\"\nVALUE = 1\n"),
        (
            "lib/pyproject.toml",
            "[project]\nname = \"mine\"\nversion = \"1\"\ndescription = \"\"\n\
             [build-system]\nrequires = [\"flit_core\"]\nbuild-backend = \"flit_core.buildapi\"\n",
        ),
    ]);
    for value in ["1", "2"] {
        let module = format!("\"\"\"Mine.\"\"\"\nVALUE = {value}\n");
        workspace.write("lib/mine.py", &module);
        let built = workspace.build();
        let told = stdout(&run(&built.dir.join("bin/project"), &[]));
        let (file, found) = told.trim().rsplit_once(' ').unwrap();
        assert!(file.starts_with(built.dir.to_str().unwrap()), "{file}");
        assert_eq!(found, value);
    }
}

#[test]
fn including_everything_does_not_include_the_build_itself() {
    let workspace = Workspace::new(&[
        ("requirements.txt", ""),
        ("main.py", "print('runs')\n"),
        ("pyproject.toml", "[tool.pytheas]\ninclude = [\"**\"]\n"),
    ]);
    let mut request = workspace.request();
    request.out = None;
    let built = crate::support::built(&request);
    let twice: Vec<_> = built
        .tree
        .files()
        .filter(|(path, ..)| path.as_str().starts_with("app/dist/"))
        .collect();
    assert!(twice.is_empty(), "{twice:?}");
}

#[test]
fn a_namespace_package_with_a_main_is_run() {
    let workspace = Workspace::new(&[
        ("requirements.txt", ""),
        ("station/__main__.py", "print('station runs')\n"),
    ]);
    let built = workspace.build();
    assert_eq!(
        stdout(&run(&built.dir.join("bin/project"), &[])),
        "station runs\n"
    );
}
