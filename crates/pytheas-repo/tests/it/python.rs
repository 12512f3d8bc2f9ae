//! python-tuf, an independent client, reads what we publish. Needs a virtual environment with
//! `tuf` and `securesystemslib[crypto]`; `PYTHEAS_TEST_PYTUF` names its interpreter (default
//! `/tmp/pytuf/bin/python`). Skips, saying so, without one.

use std::{fs, path::PathBuf, process::Command};

use crate::world::{World, target};

pub(crate) const SCRIPT: &str = r#"
import sys, pathlib
from datetime import datetime, timezone
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient._internal import trusted_metadata_set

class Folder(FetcherInterface):
    def _fetch(self, url):
        path = pathlib.Path(url.removeprefix("folder:"))
        if not path.exists():
            raise DownloadHTTPError(url, 404)
        yield path.read_bytes()

repo, state, name = sys.argv[1:4]
state = pathlib.Path(state); state.mkdir()
root = pathlib.Path(repo, "metadata/1.root.json").read_bytes()
updater = Updater(str(state), f"folder:{repo}/metadata/", str(state), f"folder:{repo}/targets/", Folder(), bootstrap=root)
updater._trusted_set.reference_time = datetime(2026, 6, 1, 13, tzinfo=timezone.utc)
updater.refresh()
info = updater.get_targetinfo(name)
path = updater.download_target(info)
print(pathlib.Path(path).read_text())
"#;

/// The interpreter that has python-tuf.
pub(crate) fn python() -> Option<PathBuf> {
    let python = std::env::var_os("PYTHEAS_TEST_PYTUF")
        .map_or_else(|| PathBuf::from("/tmp/pytuf/bin/python"), PathBuf::from);
    let ready = Command::new(&python).args(["-c", "import tuf"]).output();
    ready
        .is_ok_and(|output| output.status.success())
        .then_some(python)
}

#[test]
fn python_tuf_reads_the_repository() {
    let Some(python) = python() else {
        return testkit::skip("no python-tuf; PYTHEAS_TEST_PYTUF names another Python");
    };
    let world = World::with_two_releases();
    let script = world.path("read.py");
    fs::write(&script, SCRIPT).unwrap();
    let output = Command::new(&python)
        .arg(script)
        .args([world.repo(), world.path("python-state")])
        .arg(target("1.1.0"))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let release: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(release["version"], "1.1.0");
}
