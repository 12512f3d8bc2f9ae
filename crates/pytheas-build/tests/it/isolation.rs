//! Code that packages run to be built is cut off from the network, the home folder, the secrets and
//! the rest of the machine, and the error says of whom and how to allow it.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, atomic::AtomicUsize, atomic::Ordering},
};

use pytheas_build::BuildRequest;
use pytheas_project::isolate;

use crate::support::{Workspace, built, environment, shown, try_build};

/// A `setup.py` that tries what a malicious one would, and reports in the module that it builds.
const SETUP: &str = r#"
import os, pathlib, socket, sys
from setuptools import setup

def tried(action):
    try:
        action()
        return "done"
    except BaseException as error:
        return "cut off: " + type(error).__name__

def connect():
    socket.create_connection(("127.0.0.1", @PORT@), 5).close()

try:
    disks = [n for n in os.listdir("/sys/block") if os.path.exists("/dev/" + n)]
except OSError:
    disks = []

report = {
    "network": tried(connect),
    "netrc": tried(lambda: open("@HOME@/.netrc").read()),
    "ssh": tried(lambda: os.listdir("@HOME@/.ssh")),
    "outside": tried(lambda: open("@OUTSIDE@", "w").close()),
    "home": tried(lambda: open(os.path.expanduser("~/made"), "w").close()),
    "secrets": sorted(name for name in os.environ if "SECRET" in name or "TOKEN" in name),
    "disk": tried(lambda: [open("/dev/" + n, "rb").close() for n in disks] or 1 / 0),
    "null": tried(lambda: open("/dev/null", "r+b").write(open("/dev/urandom", "rb").read(4))),
    "capabilities": [line.split()[1] for line in open("/proc/self/status") if line[:4] in ("CapE", "CapP", "CapB")],
    "parent": tried(lambda: [open(f"/proc/{pid}/environ").read() for pid in [os.getppid()]]),
}
pathlib.Path("nosy.py").write_text("report = " + repr(report))
if "@STRICT@" and report["network"] != "done":
    sys.exit("cannot fetch what I need")
setup(name="nosy-thing", version="1.0", py_modules=["nosy"])
"#;

struct Trap {
    workspace: Workspace,
    calls: Arc<AtomicUsize>,
}

/// A project that needs the package, a listener that counts, and a home with secrets.
fn trap(settings: &str, strict: &str) -> Trap {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    std::thread::spawn(move || {
        for _ in listener.incoming() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    let workspace = Workspace::new(&[("main.py", "import nosy\nprint(nosy.report)\n")]);
    let root = workspace.root();
    let home = root.join("home");
    std::fs::create_dir_all(home.join(".ssh")).unwrap();
    pytheas_durable::replace(&home.join(".netrc"), b"machine x login y password z\n").unwrap();
    let setup = SETUP
        .replace("@PORT@", &port)
        .replace("@HOME@", &home.display().to_string())
        .replace("@OUTSIDE@", &outside(&workspace).display().to_string())
        .replace("@STRICT@", strict);
    let nosy = root.join("nosy");
    std::fs::create_dir(&nosy).unwrap();
    pytheas_durable::replace(&nosy.join("setup.py"), setup.as_bytes()).unwrap();
    workspace.write(
        "pyproject.toml",
        &format!(
            "[project]\nname = \"host-app\"\nversion = \"1\"\nrequires-python = \">=3.10\"\ndependencies = [\"nosy-thing @ {}\"]\n\n[tool.pytheas]\nentry = \"main\"\n{settings}",
            sdist(&nosy),
        ),
    );
    Trap { workspace, calls }
}

/// The address of a source distribution of the folder.
fn sdist(dir: &Path) -> String {
    let name = "nosy_thing-1.0";
    let top = dir.with_file_name(name);
    std::fs::create_dir(&top).unwrap();
    std::fs::copy(dir.join("setup.py"), top.join("setup.py")).unwrap();
    let info = b"Metadata-Version: 2.1\nName: nosy-thing\nVersion: 1.0\n";
    pytheas_durable::replace(&top.join("PKG-INFO"), info).unwrap();
    let file = dir.with_file_name(format!("{name}.tar.gz"));
    let made = Command::new("tar")
        .arg("-czf")
        .arg(&file)
        .arg("-C")
        .arg(dir.parent().unwrap())
        .arg(name)
        .status()
        .unwrap();
    assert!(made.success());
    format!("file://{}", file.display())
}

/// A file that no build may make, in a folder that anyone of this machine's user may write.
fn outside(workspace: &Workspace) -> PathBuf {
    let name = workspace.root().file_name().unwrap().to_owned();
    Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(name)
        .with_extension("written")
}

/// A cache of uv's that the tests share: what they build lies elsewhere each time.
fn uv_cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("isolation-uv-cache")
}

impl Trap {
    fn request(&self) -> BuildRequest {
        let home = self.workspace.root().join("home");
        let mut request = self.workspace.request();
        request.environment = environment()
            .with("UV_CACHE_DIR", uv_cache())
            .with("HOME", home)
            .with("MY_SECRET", "x")
            .with("PYTHEAS_TOKEN", "x");
        request
    }

    /// What the package found out, by its own report in the bundle.
    fn report(&self, request: &BuildRequest) -> String {
        let built = built(request);
        let output = crate::support::run(&built.dir.join("bin/host-app"), &[]);
        crate::support::stdout(&output)
    }
}

const CUT_OFF: &str = "'netrc': 'cut off: ";

fn is_cut_off(report: &str) {
    for name in ["netrc", "ssh", "outside", "parent"] {
        let expected = format!("'{name}': 'cut off: ");
        // Without a process namespace of its own a build sees itself as its parent.
        assert!(report.contains(&expected) || name == "parent", "{report}");
    }
    // Without any disk there is nothing to be opened, which is as good.
    assert!(report.contains("'disk': 'cut off: "), "{report}");
    assert!(report.contains("'null': 'done'"), "{report}");
    let none = "'capabilities': ['0000000000000000', '0000000000000000', '0000000000000000']";
    // Who is not root has a bounding set, and nothing in it to gain.
    assert!(
        report.contains(none) || !rustix::process::geteuid().is_root(),
        "{report}"
    );
    assert!(report.contains("'secrets': []"), "{report}");
    assert!(report.contains("'home': 'done'"), "{report}");
}

#[test]
fn a_dependency_that_executes_code_is_built_without_network_home_and_secrets() {
    let trap = trap("", "");
    let report = trap.report(&trap.request());
    is_cut_off(&report);
    assert!(report.contains("'network': 'cut off: "), "{report}");
    assert_eq!(trap.calls.load(Ordering::SeqCst), 0);
    let root = trap.workspace.root();
    assert!(!outside(&trap.workspace).exists() && !root.join("home/made").exists());
}

#[test]
fn without_namespaces_landlock_and_seccomp_cut_it_off_as_well() {
    let trap = trap("", "");
    let mut request = trap.request();
    request.environment = request.environment.with(isolate::SWITCH, "landlock");
    let report = trap.report(&request);
    is_cut_off(&report);
    assert!(report.contains("'network': 'cut off: "), "{report}");
    assert_eq!(trap.calls.load(Ordering::SeqCst), 0);
    assert!(!outside(&trap.workspace).exists());
}

#[test]
fn a_build_that_needs_the_network_says_how_to_allow_it_and_then_has_it() {
    let trap = trap("", "strict");
    let error = shown(&try_build(&trap.request()).unwrap_err());
    for expected in [
        "cannot fetch what I need",
        "`nosy-thing` was built apart",
        "network = [\"nosy-thing\"]",
        "--allow-build-network",
    ] {
        assert!(error.contains(expected), "{expected}: {error}");
    }
    assert!(!trap.workspace.out().exists());
    assert_eq!(trap.calls.load(Ordering::SeqCst), 0);

    let mut request = trap.request();
    request.environment = request.environment.with(isolate::NETWORK, "Nosy_Thing");
    let report = trap.report(&request);
    assert!(report.contains("'network': 'done'"), "{report}");
    assert!(report.contains(CUT_OFF), "{report}");
    assert!(trap.calls.load(Ordering::SeqCst) > 0);
}

#[test]
fn the_settings_allow_the_network_to_the_packages_they_name_only() {
    let other = trap("\n[tool.pytheas.build]\nnetwork = [\"other-thing\"]\n", "");
    let report = other.report(&other.request());
    assert!(report.contains("'network': 'cut off: "), "{report}");
    let named = trap("\n[tool.pytheas.build]\nnetwork = [\"nosy-thing\"]\n", "");
    let report = named.report(&named.request());
    assert!(report.contains("'network': 'done'"), "{report}");
}

#[test]
fn the_projects_own_back_end_is_cut_off_too() {
    let workspace = Workspace::new(&[
        (
            "pyproject.toml",
            "[build-system]\nrequires = []\nbuild-backend = \"own\"\nbackend-path = [\".\"]\n\n[project]\nname = \"own-app\"\nversion = \"1\"\nrequires-python = \">=3.10\"\nscripts = { own-app = \"own:main\" }\n",
        ),
        ("own.py", OWN),
    ]);
    let mut request = workspace.request();
    request.environment = environment().with("UV_CACHE_DIR", uv_cache());
    let error = shown(&try_build(&request).unwrap_err());
    assert!(error.contains("Network is unreachable"), "{error}");
    assert!(error.contains("network = [\"own-app\"]"), "{error}");
    let pyproject = std::fs::read_to_string(workspace.project().join("pyproject.toml")).unwrap();
    workspace.write(
        "pyproject.toml",
        &format!("{pyproject}\n[tool.pytheas.build]\nnetwork = true\n"),
    );
    let mut request = workspace.request();
    request.environment = environment().with("UV_CACHE_DIR", uv_cache());
    // Nothing listens there: with a network the answer is another one.
    let error = shown(&try_build(&request).unwrap_err());
    assert!(error.contains("Connection refused"), "{error}");
}

const OWN: &str = r#"
import socket

def main():
    pass

def build_wheel(directory, settings=None, metadata=None):
    socket.create_connection(("127.0.0.1", 9), 5)
"#;

/// A wheel whose `.pth` file writes a file as soon as a Python finds it, also into a build's own.
fn eager_wheel(path: &Path, writes: &Path) {
    use std::io::Write as _;
    let mut zip = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    let line = format!("import os; open({writes:?}, 'w').close()\n");
    let info = "eager-1.0.dist-info";
    for (name, text) in [
        ("eager.pth".to_owned(), line.as_str()),
        (
            format!("{info}/METADATA"),
            "Metadata-Version: 2.1\nName: eager\nVersion: 1.0\n",
        ),
        (
            format!("{info}/WHEEL"),
            "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        ),
        (
            format!("{info}/RECORD"),
            "eager.pth,,\neager-1.0.dist-info/METADATA,,\neager-1.0.dist-info/WHEEL,,\neager-1.0.dist-info/RECORD,,\n",
        ),
    ] {
        zip.start_file(name, zip::write::SimpleFileOptions::default())
            .unwrap();
        zip.write_all(text.as_bytes()).unwrap();
    }
    zip.finish().unwrap();
}

#[test]
fn what_a_build_requires_runs_nothing_outside_by_a_pth_file() {
    for mode in ["", "landlock"] {
        let workspace = Workspace::new(&[(
            "own.py",
            "def main():\n    pass\n\ndef build_wheel(*_):\n    raise SystemExit('this far')\n",
        )]);
        let wheel = workspace.root().join("eager-1.0-py3-none-any.whl");
        eager_wheel(&wheel, &outside(&workspace));
        workspace.write(
            "pyproject.toml",
            &format!(
                "[build-system]\nrequires = [\"eager @ file://{}\"]\nbuild-backend = \"own\"\nbackend-path = [\".\"]\n\n[project]\nname = \"own-app\"\nversion = \"1\"\nrequires-python = \">=3.10\"\nscripts = {{ own-app = \"own:main\" }}\n",
                wheel.display()
            ),
        );
        let mut request = workspace.request();
        request.environment = environment()
            .with("UV_CACHE_DIR", uv_cache())
            .with(isolate::SWITCH, mode);
        let error = shown(&try_build(&request).unwrap_err());
        assert!(error.contains("this far"), "{error}");
        assert!(!outside(&workspace).exists(), "{mode}");
    }
}

#[test]
fn a_back_ends_name_opens_no_folder_of_uvs_cache() {
    let cache = uv_cache();
    let archive = cache.join("archive-v0");
    std::fs::create_dir_all(&archive).unwrap();
    let file = archive.join(format!("poison-{}", std::process::id()));
    let own = format!(
        "def main():\n    pass\n\ndef build_wheel(*_):\n    try:\n        open({file:?}, 'w').close()\n    except OSError as error:\n        raise SystemExit('cut off')\n    raise SystemExit('poisoned')\n"
    );
    let workspace = Workspace::new(&[("own.py", &own)]);
    workspace.write(
        "pyproject.toml",
        &format!(
            "[build-system]\nrequires = []\nbuild-backend = 'own, os as o; y = \"{}\"; import own'\nbackend-path = [\".\"]\n\n[project]\nname = \"own-app\"\nversion = \"1\"\nrequires-python = \">=3.10\"\nscripts = {{ own-app = \"own:main\" }}\n",
            archive.display()
        ),
    );
    let mut request = workspace.request();
    request.environment = environment().with("UV_CACHE_DIR", cache);
    let error = shown(&try_build(&request).unwrap_err());
    assert!(error.contains("cut off"), "{error}");
    assert!(!file.exists());
}
