//! Where the real programs are, and visible skips where they are not.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use testkit::board::Rig;

/// The folder of target/ that `cargo xtask` fills with programs.
pub(crate) fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools")
}

/// A program of the MicroPython rig; none, visibly, when it is not there.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = Rig::find()?.dir().join(name);
    if path.exists() {
        return Some(path);
    }
    testkit::skip(&format!("`{name}` of the MicroPython rig is not there"));
    None
}

/// MicroPython's source, as far as it is kept; none, visibly, when it is not there.
pub(crate) fn source() -> Option<PathBuf> {
    let rig = Rig::find()?;
    let beside_port = rig.unix().and_then(|port| port.canonicalize().ok());
    let built_in = beside_port
        .iter()
        .flat_map(|port| port.ancestors().map(Path::to_path_buf));
    let mut places = std::iter::once(rig.dir().join("source")).chain(built_in);
    let found = places.find(|dir| dir.join("tools/mpy-tool.py").exists());
    if found.is_none() {
        testkit::skip("MicroPython's source (tools/mpy-tool.py) is not in the rig");
    }
    found
}

/// The interpreter that a Python program of the rig runs under: the one its first line names.
pub(crate) fn python_of(name: &str) -> Option<PathBuf> {
    let text = std::fs::read_to_string(program(name)?).expect("a script");
    let first = text.lines().next().and_then(|line| line.strip_prefix("#!"));
    Some(PathBuf::from(
        first.expect("a script names its interpreter"),
    ))
}

/// Few cases of a property by default, many in the full suite.
pub(crate) fn cases(few: usize, many: usize) -> usize {
    if std::env::var_os("PYTHEAS_TEST_ALL").is_some() {
        many
    } else {
        few
    }
}

/// What the command prints; it must succeed.
#[track_caller]
pub(crate) fn output(command: &mut Command) -> String {
    let output = command.output().expect("the program starts");
    assert!(
        output.status.success(),
        "{command:?} failed:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}

/// Writes a file of a test, with its folders.
#[expect(
    clippy::disallowed_methods,
    reason = "a test's own file in a temporary folder"
)]
pub(crate) fn put(path: &Path, content: &[u8]) {
    std::fs::create_dir_all(path.parent().expect("below a folder")).expect("a folder");
    std::fs::write(path, content).expect("a file");
}
