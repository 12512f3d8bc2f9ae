//! Bundles for musl, made on a machine with glibc from a real CPython for musl that lies in a folder
//! as python-build-standalone's archives do (`cargo xtask test --all` makes it).

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use pytheas_build::{Built, InterpreterChoice, TestOutcome, TestRequest};

use crate::{
    platforms::{emulated, has_debian, in_root, program},
    support::{Workspace, built, can_unshare, shown, skipped, stdout},
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
    "libraries": sorted({line.split()[-1].rpartition("/")[2] for line in open("/proc/self/maps") if "/libc." in line or "/ld-" in line}),
    "packed": len(zlib.compress(b"x" * 1000)) < 100,
    "pyc": json.__cached__.rpartition("/")[2],
}))
"#;

/// The folder with archives; none, visibly, where it was not made.
fn archives(cpu: &str) -> Option<PathBuf> {
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/musl");
    let folder = std::env::var_os("PYTHEAS_TEST_MUSL").map_or(made, PathBuf::from);
    let file = format!("-{cpu}-unknown-linux-musl-");
    let sums = std::fs::read_to_string(folder.join("SHA256SUMS")).unwrap_or_default();
    if sums.contains(&file) {
        return folder.canonicalize().ok();
    }
    skipped(&format!(
        "there is no Python for musl on {cpu} (`cargo xtask test --all` makes it)"
    ));
    None
}

fn project() -> Workspace {
    Workspace::new(&[
        ("main.py", MAIN),
        (
            "pyproject.toml",
            "[project]\nname = \"gate\"\nversion = \"1\"\nrequires-python = \">=3.11\"\n\
             dependencies = [\"pydantic\"]\n[dependency-groups]\ntest = [\"pytest>=8\"]\n\
             [tool.pytheas]\nentry = \"main.py\"\n",
        ),
        (
            "tests/test_where.py",
            "import os, platform\nimport pydantic_core\n\
             def test_where():\n    assert platform.machine() == 'aarch64'\n\
             def test_musl():\n    assert 'linux-musl' in pydantic_core._pydantic_core.__file__\n\
             def test_own():\n    assert pydantic_core.__file__.startswith(os.environ['PYTHEAS_ROOT'])\n",
        ),
    ])
}

fn build(workspace: &Workspace, platform: &str, archives: &Path) -> Built {
    let mut request = workspace.request();
    request.platform = Some(platform.parse().unwrap());
    request.interpreter = InterpreterChoice::PythonBuildStandalone;
    request.environment = request.environment.with("PYTHEAS_PYTHON_MIRROR", archives);
    let built = built(&request);
    assert_eq!(built.record.platform.as_str(), platform);
    built
}

/// What the app prints where musl is the C library of `cpu`.
fn expected(cpu: &str, home: &str) -> serde_json::Value {
    serde_json::json!({
        "item": {"name": "tea", "price": 2.5},
        "core": "__init__.py",
        "prefix": home,
        "arguments": ["two words"],
        "threads": [1],
        "libraries": [format!("ld-musl-{cpu}.so.1")],
        "packed": true,
        "pyc": "__init__.cpython-311.pyc",
    })
}

#[test]
fn a_bundle_for_musl_takes_musllinux_wheels_and_runs_beside_busybox() {
    let Some(archives) = archives("x86_64") else {
        return;
    };
    if !can_unshare() || std::env::consts::ARCH != "x86_64" {
        return;
    }
    let workspace = project();
    let built = build(&workspace, "linux-x86_64-musl", &archives);

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
    assert_eq!(seen, expected("x86_64", "/app/python"));
}

/// Runs as it would on Alpine for 64-bit Arm, under qemu-user: nothing in the root but musl's
/// loader, BusyBox and what the test puts there.
const IN_ROOT: &str = r#"
set -e
root=$1; shift
mkdir -p "$root/proc" "$root/dev" "$root/tmp"
mount --rbind /dev "$root/dev"
mount --rbind /proc "$root/proc"
exec env -i PATH=/bin PYTHEAS_UNPACK_DIR=/tmp/run /usr/sbin/chroot "$root" /bin/busybox sh -c "$1"
"#;

#[test]
fn bundles_for_64_bit_arm_run_beside_musl_and_busybox_of_that_cpu() {
    let Some(archives) = archives("aarch64") else {
        return;
    };
    let workspace = project();
    let built = build(&workspace, "linux-aarch64-musl", &archives);
    let root = workspace.root().join("root");
    for (file, to) in [("busybox", "bin"), ("ld-musl-aarch64.so.1", "lib")] {
        let machine = archives.join("aarch64").join(to).join(file);
        std::fs::create_dir_all(root.join(to)).unwrap();
        std::fs::copy(machine, root.join(to).join(file)).unwrap();
    }
    pytheas_build::one_file(&built.dir, &built.tree, &built.record, &root.join("gate")).unwrap();
    pytheas_durable::move_dir(&built.dir, &root.join("app")).unwrap();
    let run = |program: &str| {
        let script = format!("cd /; exec {program} 'two words'");
        let words = ["sh", "-c", IN_ROOT, "sh"].map(OsStr::new);
        let rest = [root.as_os_str(), OsStr::new(&script)];
        let output = emulated("aarch64", &[&words[..], &rest[..]].concat())?
            .output()
            .unwrap();
        Some(stdout(&output))
    };
    let seen = |program: &str| -> Option<serde_json::Value> {
        Some(serde_json::from_str(&run(program)?).unwrap())
    };
    let Some(folder) = seen("app/bin/gate") else {
        return;
    };
    assert_eq!(folder, expected("aarch64", "/app/python"));
    let home = format!("/tmp/run/{}/python", built.tree_id);
    assert_eq!(seen("./gate"), Some(expected("aarch64", &home)));

    // The other way for such machines: Debian's Python, which brings its own C library.
    if !has_debian() {
        return;
    }
    let mut request = workspace.request();
    request.platform = Some("linux-aarch64".parse().unwrap());
    request.interpreter = InterpreterChoice::Debian;
    let debian = crate::support::built(&request);
    pytheas_durable::move_dir(&debian.dir, &root.join("debian")).unwrap();
    let seen = seen("debian/bin/gate").unwrap();
    assert_eq!(seen["prefix"], "/debian/python");
    assert_eq!(
        seen["libraries"],
        serde_json::json!(["ld-linux-aarch64.so.1", "libc.so.6"])
    );
}

#[test]
fn a_project_passes_its_tests_in_a_bundle_for_musl_on_64_bit_arm() {
    let Some(archives) = archives("aarch64") else {
        return;
    };
    let workspace = project();
    let mut build = workspace.request();
    build.out = None;
    build.platform = Some("linux-aarch64-musl".parse().unwrap());
    build.interpreter = InterpreterChoice::PythonBuildStandalone;
    build.environment = build
        .environment
        .with("PYTHEAS_PYTHON_MIRROR", &archives)
        // Where qemu-user finds the loader of that CPU: this machine has none.
        .with("QEMU_LD_PREFIX", archives.join("aarch64"));
    let request = TestRequest {
        build,
        built: None,
        one_file: false,
        junit: None,
        arguments: Vec::new(),
    };
    let report = match pytheas_build::prepare_tests(&request, &|_| {}) {
        Ok(prepared) => prepared.run(std::process::Stdio::inherit()).unwrap(),
        Err(
            error @ (pytheas_build::TestError::NoEmulator { .. }
            | pytheas_build::TestError::NoBinfmt { .. }),
        ) => return skipped(&error.to_string()),
        Err(error) => panic!("{}", shown(&error)),
    };
    assert!(report.passed, "{report:?}");
    assert_eq!(report.count(&TestOutcome::Passed), 3, "{report:?}");
}
