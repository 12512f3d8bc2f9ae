//! Hooks that are functions of the app: programs of the bundle, also of a slim one.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use crate::common::{json as shown_json, ok, pytheas, shown};

fn project(dir: &Path, hooks: &str) {
    let write = |name: &str, text: &str| fs::write(dir.join(name), text).unwrap();
    fs::create_dir_all(dir).unwrap();
    write("main.py", "print('hello')\n");
    write(
        "store.py",
        "import json, os\n\ndef migrate():\n    with open('schema.json', 'w') as file:\n        json.dump({'to': os.environ['PYTHEAS_TO_RELEASE']}, file)\n\ndef refuse():\n    return 'not now'\n",
    );
    write(
        "pyproject.toml",
        &format!(
            "[project]\nname = 'app'\nversion = '1.0'\nrequires-python = '>=3.9'\n[tool.pytheas]\nentry = 'main.py'\n\
             [tool.pytheas.requires]\nbroker = '>=2'\nmodel = ['gw-*', 'pi']\n[tool.pytheas.conflicts]\nlegacy = '*'\n\
             [tool.pytheas.hooks]\n{hooks}\n"
        ),
    );
}

#[test]
fn a_function_of_the_app_becomes_a_program() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    project(
        &dir.join("project"),
        "before-update = 'store:refuse'\nafter-update = { command = 'store:migrate', timeout = '2m' }",
    );
    let mut build = pytheas(dir);
    build
        .args(["build", "--python", "3.11", "--slim", "-o"])
        .arg(dir.join("out"));
    shown_json(build.arg("-C").arg(dir.join("project")));
    let record: Value =
        serde_json::from_slice(&fs::read(dir.join("out/pytheas.json")).unwrap()).unwrap();
    let update = &record["update"];
    assert_eq!(
        update["rules"]["requires"],
        json!({"broker": ">=2", "model": "gw-* | pi"})
    );
    assert_eq!(update["rules"]["conflicts"], json!({"legacy": "*"}));
    assert_eq!(update["hooks"]["after-update"]["timeout_ms"], 120_000);
    let data = dir.join("data");
    fs::create_dir(&data).unwrap();
    let run = |hook: &str| {
        let program = update["hooks"][hook]["command"][0].as_str().unwrap();
        let mut command = Command::new(dir.join("out").join(program));
        command
            .env_clear()
            .env("PYTHEAS_TO_RELEASE", "app@1.0")
            .current_dir(&data);
        command
    };
    ok(&mut run("after-update"));
    assert_eq!(
        fs::read_to_string(data.join("schema.json")).unwrap(),
        r#"{"to": "app@1.0"}"#
    );
    let refused = run("before-update").output().unwrap();
    assert_eq!(shown(&refused), "exit 1\n--- stdout\n--- stderr\nnot now\n");
}

#[test]
fn a_hook_that_is_not_there_is_found_at_the_build() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    for (hooks, said) in [
        (
            "after-update = ['alembic', 'upgrade']",
            "the hook `after-update` runs `alembic`, which is not in the bundle",
        ),
        (
            "after-update = 'stork:migrate'",
            "the hook `after-update` is `stork:migrate`, which is not there",
        ),
    ] {
        project(&dir.join("project"), hooks);
        let mut build = pytheas(dir);
        build
            .args(["build", "--python", "3.11", "-o"])
            .arg(dir.join("out"));
        let output = build.arg("-C").arg(dir.join("project")).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).replace("\n  ", " ");
        assert!(!output.status.success() && text.contains(said), "{text}");
    }
}
