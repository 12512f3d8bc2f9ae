//! Signals in the midst of a build: nothing it started goes on, nothing half made stays.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Stdio},
    time::Duration,
};

use crate::common::{pytheas, wait_for};

/// A project with a dependency in a folder, whose build sleeps for `seconds`, long after its time.
fn project(dir: &Path, seconds: &str) {
    let slow = dir.join("project/slow");
    fs::create_dir_all(slow.join("backend")).unwrap();
    let pyproject = "[project]\nname = 'demo-app'\nversion = '1'\nrequires-python = '>=3.11'\n\
        dependencies = ['slow']\n[tool.uv.sources]\nslow = { path = 'slow' }\n\
        [tool.pytheas]\nentry = 'main.py'\n";
    fs::write(dir.join("project/pyproject.toml"), pyproject).unwrap();
    fs::write(dir.join("project/main.py"), "import slow\n").unwrap();
    let pyproject = "[project]\nname = 'slow'\nversion = '1'\n\
        [build-system]\nrequires = []\nbuild-backend = 'b'\nbackend-path = ['backend']\n";
    fs::write(slow.join("pyproject.toml"), pyproject).unwrap();
    let backend = format!(
        "import subprocess\ndef build_wheel(*_a, **_k):\n    subprocess.run(['sleep', '{seconds}'])\n"
    );
    fs::write(slow.join("backend/b.py"), backend).unwrap();
}

/// Whether a process has `word` as an argument of its own.
fn runs(word: &str) -> bool {
    fs::read_dir("/proc").unwrap().flatten().any(|process| {
        fs::read(process.path().join("cmdline")).is_ok_and(|line| {
            line.split(|byte| *byte == 0)
                .any(|one| one == word.as_bytes())
        })
    })
}

/// A build that is at the dependency's back end.
fn building(dir: &Path, seconds: &str) -> Child {
    let mut command = pytheas(dir);
    command
        .args(["build", "--python", "3.11", "-C"])
        .arg(dir.join("project"))
        .env("TMPDIR", dir.join("tmp"))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let child = command.spawn().unwrap();
    wait_for("the back end", Duration::from_secs(300), || {
        runs(seconds).then_some(())
    });
    child
}

/// Ends a build by `signal` and tells what is left in its folders.
fn end_by(dir: &Path, seconds: &str, signal: rustix::process::Signal) -> Vec<String> {
    let mut child = building(dir, seconds);
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, signal).unwrap();
    // `timeout` and others say it twice at once: to the process and to its group.
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(20));
        rustix::process::kill_process(id, signal).unwrap();
    }
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(signal.as_raw()), "{status}");
    wait_for("the back end's end", Duration::from_secs(60), || {
        (!runs(seconds)).then_some(())
    });
    ["tmp", "project/dist"]
        .iter()
        .flat_map(|folder| {
            fs::read_dir(dir.join(folder))
                .into_iter()
                .flatten()
                .flatten()
        })
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn a_build_that_is_interrupted_ends_what_it_started_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let seconds = format!("8640{}", std::process::id());
    project(dir.path(), &seconds);
    fs::create_dir(dir.path().join("tmp")).unwrap();
    let nothing: [&str; 0] = [];
    let end_by = |signal| end_by(dir.path(), &seconds, signal);
    assert_eq!(end_by(rustix::process::Signal::INT), nothing);
    // A killed one cannot put in order; the next one does.
    let left = end_by(rustix::process::Signal::KILL);
    assert!(
        left.iter().any(|name| name.starts_with("pytheas-work-"))
            && left
                .iter()
                .any(|name| name.starts_with(".demo-app.pytheas-build-")),
        "{left:?}"
    );
    assert_eq!(end_by(rustix::process::Signal::TERM), nothing);
}
