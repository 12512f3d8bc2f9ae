//! Indexes behind a password: a real pypiserver, with the credentials where the ecosystem has
//! them; they get into no lock, error or note.

use std::{
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use pytheas_project::{
    Connectivity, Environment, Event, Project, Uv,
    lock::{self, LockError, LockOptions},
};

use crate::support::{Workspace, environment, shown};

const SECRET: &str = "s3cret-of-the-index";

/// pypiserver in a virtual environment that the tests share; none when it cannot be made.
fn pypiserver() -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pypiserver-venv");
    let _lock = pytheas_durable::FileLock::acquire(&dir.with_extension("lock")).ok()?;
    let program = dir.join("bin/pypi-server");
    if program.is_file() {
        return Some(program);
    }
    let runs = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    let made = runs(Command::new("python3").args(["-m", "venv"]).arg(&dir))
        && runs(Command::new(dir.join("bin/pip")).args(["install", "-q", "pypiserver", "passlib"]));
    made.then_some(program)
}

struct Index {
    server: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Drop for Index {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Index {
    /// An index with the package `inner-thing` 1.0 that wants the user `me`.
    fn start() -> Option<Self> {
        let program = pypiserver()?;
        let dir = tempfile::tempdir().unwrap();
        let packages = dir.path().join("packages");
        std::fs::create_dir(&packages).unwrap();
        pytheas_durable::replace(&packages.join("inner_thing-1.0-py3-none-any.whl"), &wheel())
            .unwrap();
        let hash = format!(
            "from passlib.hash import apr_md5_crypt as h; print('me:' + h.hash('{SECRET}'))"
        );
        let hash = Command::new(program.with_file_name("python"))
            .args(["-c", &hash])
            .output()
            .unwrap();
        let users = dir.path().join("users");
        pytheas_durable::replace(&users, &hash.stdout).unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let server = Command::new(&program)
            .args([
                "run",
                "-i",
                "127.0.0.1",
                "-p",
                &port.to_string(),
                "-a",
                "update,download,list",
                "--disable-fallback",
                "-P",
            ])
            .args([&users, &packages])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let index = Self {
            server,
            port,
            _dir: dir,
        };
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "pypiserver did not start"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(index)
    }

    fn address(&self, user: &str) -> String {
        format!("http://{user}127.0.0.1:{}/simple/", self.port)
    }
}

/// The smallest wheel there is.
fn wheel() -> Vec<u8> {
    use std::io::Write as _;
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let info = "inner_thing-1.0.dist-info";
    for (name, text) in [
        ("inner_thing.py".to_owned(), "x = 1\n"),
        (
            format!("{info}/METADATA"),
            "Metadata-Version: 2.1\nName: inner-thing\nVersion: 1.0\n",
        ),
        (
            format!("{info}/WHEEL"),
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        ),
        (format!("{info}/RECORD"), ""),
    ] {
        zip.start_file(name, zip::write::SimpleFileOptions::default())
            .unwrap();
        zip.write_all(text.as_bytes()).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// Locks with `environment`; gives the lock's text or the error's, whichever there is.
fn outcome(workspace: &Workspace, environment: &Environment) -> Result<String, String> {
    let cache = tempfile::tempdir().unwrap();
    let environment = environment
        .clone()
        .with("UV_CACHE_DIR", cache.path())
        .with("UV_KEYRING_PROVIDER", "disabled");
    let uv = Uv::find(&environment, Connectivity::Online, &|_| {}).unwrap();
    let options = LockOptions {
        python_version: Some("3.11".to_owned()),
        ..LockOptions::default()
    };
    let project: Project = workspace.project();
    let warnings = std::cell::RefCell::new(String::new());
    let result: Result<_, LockError> = lock::lock(&project, &uv, &options, &|event| {
        if let Event::Warning { text } = event {
            warnings.borrow_mut().push_str(&text);
        }
    });
    let text = match result {
        Ok(_) => Ok(workspace.read("pylock.toml")),
        Err(error) => Err(format!("{}{error:?}", shown(&error))),
    };
    let said = format!("{text:?}{}", warnings.borrow());
    assert!(
        !said.contains(SECRET) && !said.contains("me:"),
        "a credential is in: {said}"
    );
    text
}

#[test]
fn credentials_come_from_the_usual_places_and_stay_there() {
    let Some(index) = Index::start() else {
        testkit::skip("pypiserver cannot be installed from the index");
        return;
    };
    let me = format!("me:{SECRET}@");
    let plain = environment().without("NETRC").with("HOME", "/nowhere");

    // In the requirements file itself.
    let line = format!("--index-url {}\ninner-thing\n", index.address(&me));
    let workspace = Workspace::new(&[("requirements.txt", &line)]);
    let text = outcome(&workspace, &plain).unwrap();
    assert!(text.contains("inner_thing-1.0-py3-none-any.whl"), "{text}");

    // netrc.
    let netrc = workspace.root().join("netrc");
    let entry = format!("machine 127.0.0.1\nlogin me\npassword {SECRET}\n");
    pytheas_durable::replace(&netrc, entry.as_bytes()).unwrap();
    let line = format!("--index-url {}\ninner-thing\n", index.address(""));
    let workspace = Workspace::new(&[("requirements.txt", &line)]);
    outcome(&workspace, &plain.clone().with("NETRC", &netrc)).unwrap();

    // uv's variables for a named index, for a project whose other tool is pipenv.
    let pipfile = format!(
        "[[source]]\nname = 'corp'\nurl = '{}'\n[packages]\ninner-thing = '*'\n",
        index.address("")
    );
    let workspace = Workspace::new(&[("Pipfile", &pipfile)]);
    let named = plain
        .clone()
        .with("UV_INDEX_CORP_USERNAME", "me")
        .with("UV_INDEX_CORP_PASSWORD", SECRET);
    outcome(&workspace, &named).unwrap();

    // The variable that names the index.
    let workspace = Workspace::new(&[("requirements.txt", "inner-thing\n")]);
    outcome(
        &workspace,
        &plain.clone().with("UV_DEFAULT_INDEX", index.address(&me)),
    )
    .unwrap();

    // Wrong ones: the error names the index and no password.
    let wrong = plain.with(
        "UV_DEFAULT_INDEX",
        index.address(&format!("me:{SECRET}-not@")),
    );
    let workspace = Workspace::new(&[("requirements.txt", "inner-thing\n")]);
    let error = outcome(&workspace, &wrong).unwrap_err();
    assert!(
        error.contains("the package index refuses access") && !error.contains("loosen"),
        "{error}"
    );
}
