//! A repository made by python-tuf, from which the agent updates; python-tuf's own client reads
//! the same. Releases of a team: named by a delegated role.
//!
//! Needs a Python with `tuf` and `securesystemslib[crypto]`; `PYTHEAS_TEST_PYTUF` names its
//! interpreter (default `/tmp/pytuf/bin/python`). Skips, saying so, without one.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{App, World};

/// Reads a target with python-tuf's client over HTTP.
const READ: &str = r#"
import pathlib, sys
from tuf.ngclient import Updater
url, root, state, name = sys.argv[1:5]
pathlib.Path(state).mkdir()
updater = Updater(state, url + "/repo/metadata/", state, url + "/repo/targets/",
                  bootstrap=pathlib.Path(root).read_bytes())
updater.refresh()
info = updater.get_targetinfo(name)
if info is None:
    sys.exit("nobody names " + name)
print(pathlib.Path(updater.download_target(info)).read_text())
"#;

pub(crate) fn python() -> Option<PathBuf> {
    let python = std::env::var_os("PYTHEAS_TEST_PYTUF")
        .map_or_else(|| PathBuf::from("/tmp/pytuf/bin/python"), PathBuf::from);
    let ready = Command::new(&python).args(["-c", "import tuf"]).status();
    if ready.is_ok_and(|status| status.success()) {
        return Some(python);
    }
    testkit::skip(&format!(
        "no python-tuf in `{}`; PYTHEAS_TEST_PYTUF names another Python",
        python.display()
    ));
    None
}

/// Makes the metadata of the world's repository anew with python-tuf; devices made after it trust
/// the new root.
#[track_caller]
pub(crate) fn make_repository(python: &Path, world: &World, args: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tuf/make_repository.py");
    let keys = world.path("python-keys");
    let output = Command::new(python)
        .arg("-B")
        .arg(script)
        .arg(world.repo())
        .arg(&keys)
        .args(args)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    fs::copy(keys.join("root.json"), world.root_file()).unwrap();
}

#[test]
fn the_agent_updates_from_a_repository_of_python_tuf_in_which_a_team_names_the_releases() {
    let Some(python) = python() else { return };
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let second = world.publish(&App::good("1.1.0"));
    make_repository(&python, &world, &[]);
    let device = world.device_with("device", &first);
    device.runs("1.0.0");
    let action = world.hub.offer(&second.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.runs("1.1.0");
    // The role's metadata was kept, and is not asked for again.
    assert!(device.state.join("tuf/team.json").exists());
    assert_eq!(world.hub.asked("1.team.json"), 1);

    let script = world.path("read.py");
    pytheas_durable::replace(&script, READ.as_bytes()).unwrap();
    let output = Command::new(&python)
        .arg(&script)
        .arg(world.hub.url())
        .arg(world.root_file())
        .arg(world.path("python-state"))
        .arg(&second.target)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let release: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(release["version"], "1.1.0");
}
