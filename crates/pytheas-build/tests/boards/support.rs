//! Projects, an index of mip's format, and MicroPython, for the tests of this crate.

use std::{
    error::Error,
    path::{Path, PathBuf},
    process::Command,
};

use miette::Diagnostic;
use pytheas_build::{
    BuildError, BuildRequest,
    micropython::{BoardBuilt, build_board},
};
use pytheas_project::{Environment, Project};
use pytheas_release::Sha256;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder with a project in `project`, an index in `index`, and room beside them.
pub(crate) struct Workspace {
    pub(crate) dir: TempDir,
}

impl Workspace {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let workspace = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        for (name, text) in files {
            workspace.write(&format!("project/{name}"), text.as_bytes());
        }
        workspace
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().canonicalize().unwrap()
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.root().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        pytheas_durable::replace(&path, bytes).unwrap();
    }

    pub(crate) fn project(&self) -> Project {
        Project::load(&self.root().join("project")).unwrap()
    }

    /// A build for the target `node`.
    pub(crate) fn request(&self) -> BuildRequest {
        BuildRequest {
            target: Some("node".to_owned()),
            out: Some(self.root().join("out")),
            environment: environment(),
            ..BuildRequest::new(self.project())
        }
    }

    #[track_caller]
    pub(crate) fn build(&self) -> BoardBuilt {
        build_board(&self.request(), &|_| {}).unwrap_or_else(|error| panic!("{}", shown(&error)))
    }

    /// What a build fails with.
    #[track_caller]
    pub(crate) fn refused(&self) -> String {
        self.said(&build_board(&self.request(), &|_| {}).unwrap_err())
    }

    pub(crate) fn said(&self, error: &BuildError) -> String {
        shown(error).replace(&self.root().display().to_string(), "…")
    }

    /// Puts a package into the index, as micropython-lib's `tools/build.py` does.
    pub(crate) fn publish(
        &self,
        name: &str,
        version: &str,
        files: &[(&str, &str)],
        deps: &[(&str, &str)],
    ) {
        let hashes: Vec<Value> = files
            .iter()
            .map(|(path, text)| {
                let digits = Sha256::of(text.as_bytes()).to_string()[..8].to_owned();
                let place = format!("index/file/{}/{digits}", &digits[..2]);
                self.write(&place, text.as_bytes());
                json!([path, digits])
            })
            .collect();
        let manifest = json!({
            "v": 1, "version": version, "hashes": hashes, "urls": [], "deps": deps,
        });
        for version in [version, "latest"] {
            let place = format!("index/package/py/{name}/{version}.json");
            self.write(&place, manifest.to_string().as_bytes());
        }
        let file = self.root().join("index/index.json");
        let mut index: Value = std::fs::read(&file)
            .map(|bytes| serde_json::from_slice(&bytes).unwrap())
            .unwrap_or_else(|_| json!({"v": 2, "updated": 0, "packages": []}));
        let packages = index["packages"].as_array_mut().unwrap();
        match packages.iter_mut().find(|package| package["name"] == name) {
            Some(package) => {
                package["version"] = json!(version);
                package["versions"]["py"]
                    .as_array_mut()
                    .unwrap()
                    .push(json!(version));
            }
            None => packages
                .push(json!({"name": name, "version": version, "versions": {"py": [version]}})),
        }
        self.write("index/index.json", index.to_string().as_bytes());
    }
}

/// This process's environment with a cache that the tests share between runs.
pub(crate) fn environment() -> Environment {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pytheas-cache");
    Environment::current()
        .with("PYTHEAS_CACHE_DIR", cache)
        .without("PYTHEAS_MIP_INDEX")
}

/// An error with its causes and what helps.
pub(crate) fn shown(error: &BuildError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!("\n  {cause}"));
        source = cause.source();
    }
    if let Some(help) = error.help() {
        text.push_str(&format!("\nhelp: {help}"));
    }
    text
}

/// Mounts the image as a board's guard does and starts it; what it wrote.
pub(crate) fn run(unix: &Path, image: &Path, entry: &str) -> String {
    let script = image.with_extension("py");
    let text = "import sys, vfs\n\
        vfs.mount(vfs.VfsRom(open(sys.argv[1], 'rb').read()), '/app')\n\
        sys.path.insert(0, '/app')\n\
        module, _, function = sys.argv[2].partition(':')\n\
        found = __import__(module, None, None, (function,))\n\
        getattr(found, function)()\n";
    pytheas_durable::replace(&script, text.as_bytes()).unwrap();
    let output = Command::new(unix)
        .arg(&script)
        .arg(image)
        .arg(entry)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
