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
