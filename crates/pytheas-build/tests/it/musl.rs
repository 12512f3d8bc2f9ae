//! Bundles for musl, made on a machine with glibc from a real CPython for musl that lies in a folder
//! as python-build-standalone's archives do (`cargo xtask test --all` makes it).

use std::path::{Path, PathBuf};

use pytheas_build::InterpreterChoice;

use crate::{
    platforms::{in_root, program},
    support::{Workspace, built, can_unshare, skipped, stdout},
};

const MAIN: &str = r#"
import json, platform, subprocess, sys, sysconfig, threading, zlib
from pydantic import BaseModel

class Item(BaseModel):
    name: str
    price: float

child = subprocess.run([sys.executable, "-c", "import pydantic_core; print(pydantic_core.__file__)"],
                       capture_output=True, text=True, check=True)
seen = []
thread = threading.Thread(target=lambda: seen.append(1)); thread.start(); thread.join()
print(json.dumps({
    "item": Item(name="tea", price="2.5").model_dump(),
    "core": child.stdout.strip().rpartition("/")[2],
    "prefix": sys.prefix,
    "arguments": sys.argv[1:],
    "threads": seen,
    "libraries": sorted({line.split()[-1].rpartition("/")[2] for line in open("/proc/self/maps") if "libc" in line or "ld-" in line}),
    "packed": len(zlib.compress(b"x" * 1000)) < 100,
    "pyc": json.__cached__.rpartition("/")[2],
}))
"#;

/// The folder with archives; none, visibly, where it was not made.
fn archives() -> Option<PathBuf> {
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/musl");
    let folder = std::env::var_os("PYTHEAS_TEST_MUSL").map_or(made, PathBuf::from);
    if folder.join("SHA256SUMS").is_file() {
        return Some(folder);
    }
    skipped("there is no Python for musl (`cargo xtask test --all` makes it)");
    None
}

#[test]
fn a_bundle_for_musl_takes_musllinux_wheels_and_runs_beside_busybox() {
    let Some(archives) = archives() else { return };
    if !can_unshare() || std::env::consts::ARCH != "x86_64" {
        return;
    }
    let workspace = Workspace::new(&[
        ("main.py", MAIN),
        (
            "pyproject.toml",
            "[project]\nname = \"gate\"\nversion = \"1\"\nrequires-python = \">=3.11\"\n\
             dependencies = [\"pydantic\"]\n[tool.pytheas]\nentry = \"main.py\"\n",
        ),
    ]);
    let mut request = workspace.request();
    request.platform = Some("linux-x86_64-musl".parse().unwrap());
    request.interpreter = InterpreterChoice::PythonBuildStandalone;
    request.environment = request.environment.with("PYTHEAS_PYTHON_MIRROR", &archives);
    let built = built(&request);
    assert_eq!(built.record.platform.as_str(), "linux-x86_64-musl");

    let (busybox, musl) = (program("busybox"), Path::new("/lib/ld-musl-x86_64.so.1"));
    let (Some(busybox), true) = (busybox, musl.exists()) else {
        skipped("there is no `busybox` (busybox-static) or no musl (musl)");
        return;
    };
    let root = workspace.root().join("root");
    for dir in ["bin", "lib"] {
        std::fs::create_dir_all(root.join(dir)).unwrap();
    }
    pytheas_durable::move_dir(&built.dir, &root.join("app")).unwrap();
    std::fs::copy(busybox, root.join("bin/busybox")).unwrap();
    std::os::unix::fs::symlink("busybox", root.join("bin/sh")).unwrap();
    // All of musl is its loader; a machine with musl has it here.
    std::fs::copy(musl, root.join("lib/ld-musl-x86_64.so.1")).unwrap();
    let output = in_root(
        &root,
        "/bin/sh",
        &["-c", "cd /; exec app/bin/gate 'two words'"],
    );
    let seen: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    let expected = serde_json::json!({
        "item": {"name": "tea", "price": 2.5},
        "core": "__init__.py",
        "prefix": "/app/python",
        "arguments": ["two words"],
        "threads": [1],
        "libraries": ["ld-musl-x86_64.so.1"],
        "packed": true,
        "pyc": "__init__.cpython-311.pyc",
    });
    assert_eq!(seen, expected);
}
