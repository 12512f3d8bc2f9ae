//! Bundles for other machines, made on this one and run: Arm CPUs under qemu-user, this CPU in
//! roots without a GNU C library.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use pytheas_build::{Built, InterpreterChoice, TestError, TestOutcome, TestReport, TestRequest};
use pytheas_release::Platform;

use crate::support::{Workspace, built, can_unshare, skipped, stdout, try_build};

/// Uses compiled modules of Python and of a package, threads, a child process, and TLS.
const MAIN: &str = r#"
import json, os, platform, sqlite3, ssl, subprocess, sys, threading, zoneinfo
import lzma, bz2, zlib, ctypes, uuid, hashlib, readline, curses
from markupsafe import _speedups
import rpds

child = subprocess.run([sys.executable, "-c", "import sys, markupsafe; print(sys.prefix + '|' + sys.executable)"],
                       capture_output=True, text=True, check=True)
seen = []
thread = threading.Thread(target=lambda: seen.append(1)); thread.start(); thread.join()
print(json.dumps({
    "machine": platform.machine(),
    "prefix": sys.prefix,
    "executable": sys.executable,
    "child": child.stdout.strip(),
    "arguments": sys.argv[1:],
    "root": os.environ["PYTHEAS_ROOT"],
    "certificates": len(ssl.create_default_context().get_ca_certs()) > 50,
    "libraries": sorted({line.split()[-1] for line in open("/proc/self/maps") if ".so" in line}),
    "pyc": json.__cached__,
}))
"#;

fn workspace() -> Workspace {
    Workspace::new(&[
        ("main.py", MAIN),
        ("requirements.txt", "markupsafe\nrpds-py\n"),
        (
            "pyproject.toml",
            "[project]\nname = \"gate\"\nversion = \"1\"\nrequires-python = \">=3.11\"\ndependencies = [\"markupsafe\", \"rpds-py\"]\n[tool.pytheas]\nentry = \"main.py\"\n",
        ),
    ])
}

/// Whether Debian's packages can be had: apt's own sources and the archive's keys are there.
pub(crate) fn has_debian() -> bool {
    let is_debian = std::fs::read_to_string("/etc/os-release")
        .is_ok_and(|text| text.lines().any(|line| line == "ID=debian"));
    let has_keys = Path::new("/usr/share/keyrings/debian-archive-keyring.gpg").is_file();
    if !is_debian || !has_keys {
        skipped("this is no Debian with the archive's keys");
    }
    is_debian && has_keys
}

fn debian(workspace: &Workspace, platform: &str) -> Built {
    debian_with(workspace, platform, None)
}

fn debian_with(workspace: &Workspace, platform: &str, python: Option<&str>) -> Built {
    let mut request = workspace.request();
    request.platform = Some(platform.parse::<Platform>().unwrap());
    request.python = python.map(|text| text.parse().unwrap());
    request.interpreter = InterpreterChoice::Debian;
    built(&request)
}

pub(crate) fn program(name: &str) -> Option<PathBuf> {
    ["/usr/bin", "/bin", "/usr/local/bin"]
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.is_file())
}

/// A command that runs where the kernel starts Arm programs by qemu-user: in a user namespace with
/// its own `binfmt_misc` (Linux 6.7), so nothing changes for the machine. None, visibly, without.
pub(crate) fn emulated(cpu: &str, command: &[&OsStr]) -> Option<Command> {
    let Some(qemu) = program(&format!("qemu-{cpu}-static")) else {
        skipped(&format!(
            "there is no `qemu-{cpu}-static` (qemu-user-static)"
        ));
        return None;
    };
    // Magic and mask as Debian's `binfmt.d/qemu-*.conf` have them.
    let (class, machine) = match cpu {
        "arm" => (1, "28"),
        "riscv64" => (2, "f3"),
        _ => (2, "b7"),
    };
    let magic = format!(
        r"\x7f\x45\x4c\x46\x0{class}\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x{machine}\x00"
    );
    let mask = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff";
    let script = r#"
        mount -t binfmt_misc none /proc/sys/fs/binfmt_misc || exit 99
        printf '%s' "$1" > /proc/sys/fs/binfmt_misc/register || exit 99
        shift
        exec "$@"
    "#;
    let rule = format!(":arm:M::{magic}:{mask}:{}:FP", qemu.display());
    let make = |program: &[&OsStr]| {
        let mut command = Command::new("unshare");
        command
            .args(["-Urm", "sh", "-c", script, "sh", &rule])
            .args(program);
        command
    };
    let works = make(&[OsStr::new("true")]).output();
    if !works.is_ok_and(|output| output.status.success()) {
        skipped("the kernel has no `binfmt_misc` for user namespaces (Linux 6.7)");
        return None;
    }
    Some(make(command))
}

/// The bundle for `platform`, as a folder that was moved and as one file, runs under qemu-user.
#[track_caller]
fn runs_on(platform: &str, cpu: &str, machine: &str, python: &str) {
    if !has_debian() {
        return;
    }
    let workspace = workspace();
    let built = debian_with(&workspace, platform, Some(python));
    assert_eq!(built.record.platform.as_str(), platform);
    assert_eq!(built.interpreter.provider, "debian");
    let file = workspace.root().join("gate");
    pytheas_build::one_file(&built.dir, &built.tree, &built.record, &file).unwrap();
    let moved = workspace.root().join("moved to ü");
    Command::new("mv")
        .arg(&built.dir)
        .arg(&moved)
        .status()
        .unwrap();
    let unpacked = workspace.root().join("unpacked");
    for program in [&moved.join("bin/gate"), &file] {
        let arguments = [program.as_os_str(), OsStr::new("two words")];
        let Some(mut command) = emulated(cpu, &arguments) else {
            return;
        };
        let output = command
            .env("LD_LIBRARY_PATH", "/nowhere")
            .env("PYTHEAS_UNPACK_DIR", &unpacked)
            .output()
            .unwrap();
        let text = stdout(&output);
        let root = if *program == file {
            unpacked.join(built.tree_id.to_string())
        } else {
            moved.clone()
        };
        let home = root.join("python").display().to_string();
        let home = home.replace('ü', "\\u00fc");
        for expected in [
            format!(r#""machine": "{machine}""#),
            format!(r#""prefix": "{home}""#),
            format!(r#""child": "{home}|{home}/bin/python{python}""#),
            r#""arguments": ["two words"]"#.to_owned(),
            r#""certificates": true"#.to_owned(),
            format!("__init__.cpython-{}.pyc", python.replace('.', "")),
        ] {
            assert!(text.contains(&expected), "{expected} in {text}");
        }
    }
}

#[test]
fn a_bundle_for_64_bit_arm_runs_there() {
    runs_on("linux-aarch64", "aarch64", "aarch64", "3.11");
}

#[test]
fn a_bundle_for_32_bit_arm_runs_there() {
    runs_on("linux-armv7", "arm", "armv7l", "3.11");
}

/// Debian 12 has none for it; the archive it comes from has the next release, too.
#[test]
fn a_bundle_for_riscv_runs_there() {
    runs_on("linux-riscv64", "riscv64", "riscv64", "3.13");
}

/// Runs `program` in the root `root`, with only /proc and /dev besides what is in it.
pub(crate) fn in_root(root: &Path, program: &str, arguments: &[&str]) -> Output {
    let script = r#"
        set -e
        root=$1; shift
        mkdir -p "$root/proc" "$root/dev"
        mount --rbind /dev "$root/dev"
        mount -t proc none "$root/proc"
        exec env -i PATH=/bin /usr/sbin/chroot "$root" "$@"
    "#;
    Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-c", script, "sh"])
        .arg(root)
        .arg(program)
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn a_bundle_with_its_own_c_library_runs_in_an_empty_root_and_beside_musl() {
    if !has_debian() || !can_unshare() || std::env::consts::ARCH != "x86_64" {
        return;
    }
    let workspace = workspace();
    let built = debian(&workspace, "linux-x86_64");
    let root = workspace.root().join("root");
    std::fs::create_dir(&root).unwrap();
    Command::new("mv")
        .arg(&built.dir)
        .arg(root.join("app"))
        .status()
        .unwrap();
    let text = stdout(&in_root(&root, "/app/bin/gate", &["x"]));
    assert!(text.contains(r#""prefix": "/app/python""#), "{text}");
    assert!(
        text.contains(r#""child": "/app/python|/app/python/bin/python3.11""#),
        "{text}"
    );
    assert!(text.contains(r#""certificates": true"#), "{text}");
    assert!(!text.contains("/lib/x86_64"), "{text}");

    // As on Alpine: BusyBox and musl, whose loader cannot load what is made for glibc.
    let (busybox, musl) = (program("busybox"), Path::new("/lib/ld-musl-x86_64.so.1"));
    let (Some(busybox), true) = (busybox, musl.exists()) else {
        skipped("there is no `busybox` (busybox-static) or no musl (musl)");
        return;
    };
    for dir in ["bin", "lib"] {
        std::fs::create_dir(root.join(dir)).unwrap();
    }
    std::fs::copy(busybox, root.join("bin/busybox")).unwrap();
    std::os::unix::fs::symlink("busybox", root.join("bin/sh")).unwrap();
    std::fs::copy(musl, root.join("lib/ld-musl-x86_64.so.1")).unwrap();
    let script = "cd /; exec app/bin/gate y";
    let text = stdout(&in_root(&root, "/bin/sh", &["-c", script]));
    assert!(text.contains(r#""arguments": ["y"]"#), "{text}");
    assert!(text.contains(r#""root": "/app""#), "{text}");
}

#[test]
fn an_archive_that_is_not_signed_by_its_key_is_refused() {
    if !has_debian() {
        return;
    }
    let workspace = workspace();
    let mirror = workspace.root().join("mirror");
    let release = mirror.join("dists/stable/InRelease");
    std::fs::create_dir_all(release.parent().unwrap()).unwrap();
    let text = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nSHA256:\n\n-----BEGIN PGP SIGNATURE-----\n\niQ==\n-----END PGP SIGNATURE-----\n";
    pytheas_durable::replace(&release, text.as_bytes()).unwrap();
    let mut request = workspace.request();
    request.interpreter = InterpreterChoice::Debian;
    let value = format!("{} stable", mirror.display());
    request.environment = request.environment.with("PYTHEAS_DEBIAN_MIRROR", value);
    let error = crate::support::shown(&try_build(&request).unwrap_err());
    let error = error.replace(&mirror.display().to_string(), "MIRROR");
    assert!(
        error.starts_with("error: `stable` from `MIRROR` is not signed by a key in "),
        "{error}"
    );
}

/// Runs a project's own tests inside its bundle for `platform`; none, visibly, where that cannot be.
#[track_caller]
fn tested_on(
    workspace: &Workspace,
    platform: &str,
    slim_target: Option<&str>,
    arguments: &[&str],
) -> Option<TestReport> {
    if !has_debian() {
        return None;
    }
    let mut build = workspace.request();
    build.out = None;
    build.target = slim_target.map(str::to_owned);
    build.platform = Some(platform.parse().unwrap());
    build.interpreter = InterpreterChoice::Debian;
    let request = TestRequest {
        build,
        built: None,
        one_file: false,
        junit: None,
        arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
    };
    match pytheas_build::prepare_tests(&request, &|_| {}) {
        Ok(prepared) => Some(prepared.run(std::process::Stdio::inherit()).unwrap()),
        Err(error @ (TestError::NoEmulator { .. } | TestError::NoBinfmt { .. })) => {
            skipped(&error.to_string());
            None
        }
        Err(error) => panic!("{}", crate::support::shown(&error)),
    }
}

/// What of the example gateway's tests runs unless all suites are asked for: emulated processes
/// take minutes.
const SOME: &[&str] = &[
    "tests/test_process.py::test_ready_comes_only_when_everything_works",
    "tests/test_rules.py",
    "tests/test_storage.py",
];

/// The example gateway's own tests.
#[track_caller]
fn greenhouse_passes_on(platform: &str) {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/greenhouse");
    let workspace = Workspace::new(&[]);
    let copied = Command::new("cp")
        .arg("-rT")
        .args([&example, &workspace.project()])
        .status();
    assert!(copied.unwrap().success());
    let all = std::env::var_os("PYTHEAS_TEST_ALL").is_some();
    let arguments = if all { &[][..] } else { SOME };
    let Some(report) = tested_on(&workspace, platform, None, arguments) else {
        return;
    };
    assert!(report.passed, "{report:?}");
    let passed = |file: &str| {
        report
            .tests
            .iter()
            .filter(|test| test.name.contains(file) && test.outcome == TestOutcome::Passed)
            .count()
    };
    for file in ["test_process", "test_rules", "test_storage"] {
        assert!(passed(file) > 0, "{file}: {report:?}");
    }
    assert_eq!(report.tests.len() > 30, all, "{report:?}");
}

#[test]
fn a_slim_bundle_with_numpy_passes_its_tests_on_64_bit_arm() {
    let workspace = Workspace::new(&[
        (
            "pyproject.toml",
            "[project]\nname = \"meter\"\nversion = \"1\"\nrequires-python = \">=3.11\"\n\
             dependencies = [\"numpy>=1.26,<2.3\"]\n[dependency-groups]\ntest = [\"pytest>=8\"]\n\
             [tool.pytheas]\nentry = \"meter\"\n[tool.pytheas.target.small]\nslim = true\n",
        ),
        (
            "meter.py",
            "import numpy as np\ndef solve(matrix, right):\n    return np.linalg.solve(matrix, right)\n",
        ),
        (
            "tests/test_meter.py",
            "import platform\nimport meter\nimport numpy as np\n\
             def test_it_solves():\n    \
                 found = meter.solve(np.array([[2.0, 0], [0, 4]]), np.array([2.0, 8]))\n    \
                 np.testing.assert_allclose(found, [1, 2])\n\
             def test_where():\n    assert platform.machine() == 'aarch64' and '/app/' in meter.__file__\n",
        ),
    ]);
    let Some(report) = tested_on(&workspace, "linux-aarch64", Some("small"), &[]) else {
        return;
    };
    assert!(report.passed, "{report:?}");
    assert_eq!(report.count(&TestOutcome::Passed), 2);
    assert!(report.emulator.is_some() || std::env::consts::ARCH == "aarch64");
}

#[test]
fn greenhouse_passes_its_tests_on_64_bit_arm() {
    greenhouse_passes_on("linux-aarch64");
}

#[test]
fn greenhouse_passes_its_tests_on_32_bit_arm() {
    greenhouse_passes_on("linux-armv7");
}

/// A wheel of one module in `folder`.
fn write_wheel(folder: &Path, name: &str) {
    use std::io::Write as _;
    let info = format!("{name}-1.0.dist-info");
    let files = [
        (format!("{name}.py"), "x = 1\n".to_owned()),
        (
            format!("{info}/METADATA"),
            format!("Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"),
        ),
        (
            format!("{info}/WHEEL"),
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n".to_owned(),
        ),
        (format!("{info}/RECORD"), String::new()),
    ];
    let path = folder.join(format!("{name}-1.0-py3-none-any.whl"));
    let mut zip = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    for (name, text) in files {
        zip.start_file(name, zip::write::SimpleFileOptions::default())
            .unwrap();
        zip.write_all(text.as_bytes()).unwrap();
    }
    zip.finish().unwrap();
}

#[test]
fn a_wheel_given_by_its_path_is_installed_for_another_cpu() {
    if !has_debian() {
        return;
    }
    let workspace = Workspace::new(&[
        ("main.py", "import near\n"),
        ("requirements.txt", "./near-1.0-py3-none-any.whl\n"),
    ]);
    write_wheel(&workspace.project(), "near");
    let built = debian(&workspace, "linux-aarch64");
    let site = "python/lib/python3/dist-packages";
    let module = std::fs::read_dir(built.dir.join(site))
        .unwrap()
        .flatten()
        .any(|child| child.file_name() == "near.py");
    assert!(module);
}

#[test]
fn what_is_installed_is_what_uv_installs() {
    let workspace = Workspace::new(&[
        ("main.py", "print('x')\n"),
        (
            "requirements.txt",
            "markupsafe\nrpds-py\nhttpx[cli]\njupyterlab-widgets==3.0.13\n",
        ),
    ]);
    let built = workspace.build();
    let python = built.dir.join("python/bin/python3");
    let theirs = workspace.root().join("theirs");
    let uv = pytheas_project::Uv::find(
        &crate::support::environment(),
        pytheas_project::Connectivity::Online,
        &|_| {},
    );
    let mut command = uv.unwrap().command();
    command.args([
        "pip",
        "install",
        "--quiet",
        "--preview-features",
        "pylock",
        "--python",
    ]);
    command.arg(&python).arg("--target").arg(&theirs).arg("-r");
    let status = command
        .arg(workspace.project().join("pylock.toml"))
        .status();
    assert!(status.unwrap().success());
    let site = built
        .interpreter
        .site_packages
        .under(&built.dir.join("python"));
    let (ours, mut theirs) = (files(&site), files(&theirs));
    // Data goes to the interpreter's prefix, where programs look for it; uv leaves it here.
    // Type stubs and C sources stay out: no program reads them.
    theirs.retain(|name, _| {
        !name.starts_with("share/")
            && !name.starts_with("etc/")
            && !name.ends_with(".pyi")
            && !name.ends_with(".c")
    });
    let names: Vec<_> = ours.keys().collect();
    assert_eq!(names, theirs.keys().collect::<Vec<_>>());
    assert!(names.len() > 100, "{}", names.len());
    for (name, content) in &ours {
        if name.ends_with("/RECORD") {
            let lines: Vec<&str> = theirs[name].lines().collect();
            for line in content.lines().filter(|line| !line.starts_with("../")) {
                // Stripped libraries are recorded without hash and size.
                let is_there = match line.strip_suffix(",,") {
                    Some(path) if path.ends_with(".so") => lines
                        .iter()
                        .any(|line| line.starts_with(&format!("{path},"))),
                    _ => lines.contains(&line),
                };
                assert!(is_there, "{name}: {line}");
            }
        } else if !name.ends_with(".so") {
            assert!(content == &theirs[name], "{name}");
        }
    }
}

/// The files below `dir` that no build changes, as text.
fn files(dir: &Path) -> std::collections::BTreeMap<String, String> {
    let mut found = std::collections::BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for child in std::fs::read_dir(&folder).unwrap().flatten() {
            let path = child.path();
            let name = path.strip_prefix(dir).unwrap().display().to_string();
            let last = name.rsplit('/').next().unwrap_or(&name);
            let own = [
                "INSTALLER",
                "REQUESTED",
                "direct_url.json",
                "uv_cache.json",
                "uv_build.json",
                ".lock",
                "bin",
                "__pycache__",
                "pytheas_app.pth",
                "_pytheas.py",
                "_pytheas.pth",
                "_pytheas.index",
            ];
            if own.contains(&last) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = std::fs::read(&path).unwrap();
                found.insert(name, String::from_utf8_lossy(&bytes).into_owned());
            }
        }
    }
    found
}
