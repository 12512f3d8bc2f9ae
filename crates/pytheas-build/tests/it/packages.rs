//! Projects with a `[build-system]`, with several entry points, and published applications.

use crate::support::{Workspace, built, run, stdout};

const PYPROJECT: &str = r#"
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "weather-station"
dynamic = ["version"]
requires-python = ">=3.10"
dependencies = ["idna"]
scripts = { weather = "weather.cli:main" }

[project.optional-dependencies]
fast = ["markupsafe"]

[dependency-groups]
dev = ["nothing-that-exists-0"]

[tool.hatch.version]
path = "src/weather/__init__.py"

[tool.hatch.build.targets.wheel]
packages = ["src/weather"]

[tool.pytheas]
extras = ["fast"]

[tool.pytheas.health]
ready = "notify"
deadline = "30s"

[tool.pytheas.config]
interval = { type = "duration", default = "30s", help = "time between readings" }
"#;

const CLI: &str = r#"
import importlib.metadata as metadata, os, sys
from importlib.resources import files
import idna, markupsafe

def main():
    print(metadata.version("weather-station"), files("weather").joinpath("data.txt").read_text().strip())
    print([entry.value for entry in metadata.entry_points(group="console_scripts") if entry.name == "weather"])
    print(os.path.basename(sys.argv[0]), sys.argv[1:], __name__)
    return 4
"#;

fn workspace() -> Workspace {
    Workspace::new(&[
        ("pyproject.toml", PYPROJECT),
        ("src/weather/__init__.py", "__version__ = '2.3.1'\n"),
        ("src/weather/cli.py", CLI),
        ("src/weather/data.txt", "packaged\n"),
    ])
}

#[test]
fn a_project_with_a_build_system_is_installed_as_a_package() {
    let workspace = workspace();
    let built = workspace.build();
    assert_eq!(
        (built.record.name.as_str(), built.record.version.as_str()),
        ("weather-station", "2.3.1")
    );
    let record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(built.dir.join("pytheas.json")).unwrap()).unwrap();
    assert_eq!(record["health"]["ready"]["kind"], "notify");
    assert_eq!(
        record["config"]["interval"]["env"],
        "WEATHER_STATION_INTERVAL"
    );
    assert_eq!(record["interpreter"]["provider"], "host");

    let output = run(&built.dir.join("bin/weather-station"), &["a"]);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "2.3.1 packaged\n['weather.cli:main']\nweather-station ['a'] weather.cli\n",
        "{output:?}"
    );
    assert_eq!(output.status.code(), Some(4));

    // The build left nothing in the project but the lock file.
    let mut names: Vec<_> = std::fs::read_dir(workspace.project())
        .unwrap()
        .map(|child| child.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["pylock.toml", "pyproject.toml", "src"]);
    let lock = std::fs::read_to_string(workspace.project().join("pylock.toml")).unwrap();
    assert!(
        lock.contains("name = \"markupsafe\"") && !lock.contains("nothing-that-exists"),
        "{lock}"
    );
}

#[test]
fn no_file_of_a_bundle_names_the_folder_it_was_built_in() {
    let workspace = workspace();
    let built = workspace.build();
    let needles = [
        workspace.root().display().to_string(),
        workspace.project().display().to_string(),
    ];
    for (path, _, _) in built.tree.files() {
        let bytes = std::fs::read(path.under(&built.dir)).unwrap();
        for needle in &needles {
            let found = bytes
                .windows(needle.len())
                .any(|window| window == needle.as_bytes());
            assert!(!found, "`{path}` names `{needle}`");
        }
    }
}

#[test]
fn a_published_application_is_built_from_one_line() {
    let workspace = Workspace::new(&[("requirements.txt", "pygments\n")]);
    let mut request = workspace.request();
    request.name = Some("pygmentize".parse().unwrap());
    request.entry = Some("pygments.cmdline:main".parse().unwrap());
    let built = built(&request);
    let text = stdout(&run(&built.dir.join("bin/pygmentize"), &["-V"]));
    assert!(text.starts_with("Pygments version"), "{text}");
    // As a module, too.
    request.entry = Some("pygments".parse().unwrap());
    let built = crate::support::built(&request);
    let text = stdout(&run(&built.dir.join("bin/pygmentize"), &["-V"]));
    assert!(text.starts_with("Pygments version"), "{text}");
}

#[test]
fn a_target_overrides_the_project() {
    let workspace = workspace();
    let text = format!(
        "{PYPROJECT}\n[tool.pytheas.target.other]\nform = \"bundle\"\nentry = \"weather.cli\"\n"
    );
    workspace.write("pyproject.toml", &text);
    let mut request = workspace.request();
    request.target = Some("other".to_owned());
    let built = built(&request);
    let output = run(&built.dir.join("bin/weather-station"), &[]);
    assert!(
        output.status.success() && output.stdout.is_empty(),
        "`python -m weather.cli` calls nothing: {output:?}"
    );
}

#[test]
fn modules_called_target_are_packed_and_leftovers_of_setuptools_are_not() {
    let workspace = Workspace::new(&[
        (
            "pyproject.toml",
            "[project]\nname = \"app\"\nversion = \"1\"\nscripts = { app = \"app.target:main\" }\n\
             [build-system]\nrequires = [\"setuptools\"]\nbuild-backend = \"setuptools.build_meta\"\n",
        ),
        ("src/app/__init__.py", ""),
        (
            "src/app/target/__init__.py",
            "import os\ndef main(): print(sorted(os.listdir(os.path.dirname(__file__) + '/..')))\n",
        ),
        (
            "build/lib/app/gone.py",
            "raise SystemExit('of an earlier build')\n",
        ),
    ]);
    let built = workspace.build();
    assert_eq!(
        stdout(&run(&built.dir.join("bin/app"), &[])),
        "['__init__.py', '__pycache__', 'target']\n"
    );
}

#[test]
fn data_of_wheels_lies_where_programs_look_for_it() {
    let workspace = Workspace::new(&[
        ("requirements.txt", "httpie==3.2.4\n"),
        (
            "main.py",
            "import sys\nfrom importlib.metadata import files\n\
             page = [f for f in files('httpie') if f.name == 'http.1'][0].locate().resolve()\n\
             print(page.is_file(), page.relative_to(sys.prefix))\n",
        ),
    ]);
    let built = workspace.build();
    assert_eq!(
        stdout(&run(&built.dir.join("bin/project"), &[])),
        "True share/man/man1/http.1\n"
    );
}

#[test]
fn a_source_distribution_in_c_is_compiled_the_same_with_every_cache() {
    let workspace = Workspace::new(&[
        ("requirements.txt", "netifaces==0.11.0\n"),
        (
            "main.py",
            "import netifaces\nprint('lo' in netifaces.interfaces())\n",
        ),
    ]);
    let ids: Vec<_> = ["a", "b"]
        .into_iter()
        .map(|cache| {
            let mut request = workspace.request();
            request.environment = request
                .environment
                .with("UV_CACHE_DIR", workspace.root().join(cache));
            let built = built(&request);
            assert_eq!(stdout(&run(&built.dir.join("bin/project"), &[])), "True\n");
            assert!(!built.dir.join("python/include").exists());
            built.tree_id
        })
        .collect();
    assert_eq!(ids[0], ids[1]);
}
