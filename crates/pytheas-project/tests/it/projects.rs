//! Reading projects: what is understood, and what is said about the rest.

use pytheas_project::{Entry, RequirementSource};

use crate::support::{Workspace, shown};

#[test]
fn a_folder_without_a_project_is_told_what_was_looked_for() {
    insta::assert_snapshot!(Workspace::new(&[("app.py", "")]).failure(), @"
    error: no Python project in `DIR`
      help: looked for `pyproject.toml`, `setup.py`, `setup.cfg`, `Pipfile`, `requirements.txt`, `environment.yml`, `main.py` and a package's `__init__.py`; a script of another name is given by its path
    ");
    let error = pytheas_project::Project::load("/nowhere/at/all".as_ref()).unwrap_err();
    insta::assert_snapshot!(shown(&error), @"
    error: cannot find `/nowhere/at/all`
      cause: No such file or directory (os error 2)
      help: check the path: a project's folder, one of its files, a script, or a zip application
    ");
    insta::assert_snapshot!(Workspace::new(&[("pyproject.toml", "[tool.black]\n")]).failure(), @"
    error: `DIR/pyproject.toml` has no `[project]` table
      help: add `[project]` with `name`, `version` and `dependencies`, or a `requirements.txt`
    ");
}

#[test]
fn broken_toml_is_shown_with_its_place() {
    let workspace =
        Workspace::new(&[("pyproject.toml", "[project]\nname = \"x\nversion = \"1\"\n")]);
    insta::assert_snapshot!(workspace.failure(), @r#"
    error: `DIR/pyproject.toml` line 2, column 10: invalid basic string, expected `"`
    "#);
    // The snippet: the source and the place that the terminal renders.
    let error = workspace.load().unwrap_err();
    let diagnostic: &dyn miette::Diagnostic = &error;
    let label = diagnostic.labels().unwrap().next().unwrap();
    let content = diagnostic
        .source_code()
        .unwrap()
        .read_span(label.inner(), 0, 0)
        .unwrap();
    assert_eq!(content.line(), 1, "counted from 0");
}

#[test]
fn a_misspelt_setting_is_told_with_the_right_spelling() {
    let failure = |text: &str| {
        Workspace::new(&[("requirements.txt", ""), ("pyproject.toml", text)]).failure()
    };
    insta::assert_snapshot!(failure("[tool.pytheas]\nentrypoint = 'a:b'\n"), @"
    error: `DIR/pyproject.toml` line 2, column 1: unknown key `entrypoint`
      help: did you mean `entry`?
    ");
    insta::assert_snapshot!(failure("[tool.pytheas]\nzzz = 1\n"), @"
    error: `DIR/pyproject.toml` line 2, column 1: unknown key `zzz`
      help: known are `app`, `entry`, `python`, `extras`, `groups`, `include`, `exclude`, `python-mirror`, `target`, `config`, `health`, `licences`, `audit`, `version`, `compile`, `numba`, `build`, `scripts`, `rule`, `test`, `micropython`, `requires`, `conflicts`, `allow-downgrade`, `hooks`
    ");
    insta::assert_snapshot!(failure("[tool.pytheas.target.x]\nplatfrom = 'linux-armv7'\n"), @"
    error: `DIR/pyproject.toml` line 2, column 1: unknown key `platfrom`
      help: did you mean `platform`?
    ");
    insta::assert_snapshot!(failure("[tool.pytheas.target.x]\nplatform = 'windows'\n"), @"error: `DIR/pyproject.toml` line 2, column 12: `windows` is not a platform; known are linux-x86_64, linux-aarch64, linux-armv7, linux-riscv64, linux-x86_64-musl, linux-aarch64-musl, linux-armv7-musl and `micropython-<arch>`");
    insta::assert_snapshot!(failure("[tool.pytheas]\nentry = 'a b'\n"), @"error: `DIR/pyproject.toml` line 2, column 9: `a b` is no entry point; write `module:callable`, `module`, or a script such as `main.py`");
    insta::assert_snapshot!(failure("[tool.pytheas]\npython = 'three'\n"), @"error: `DIR/pyproject.toml` line 2, column 10: `three` is no Python version; write `3.11`, `3.11.7` or a range such as `>=3.10,<3.13`");
    insta::assert_snapshot!(failure("[tool.pytheas.health]\nready = 'ftp://x'\n"), @"error: `DIR/pyproject.toml` line 2, column 9: `ftp://x` is no health rule; known are `notify`, `stay-up` and an `http://` address");
    insta::assert_snapshot!(failure("[tool.pytheas.health]\ndeadline = '60'\n"), @"error: `DIR/pyproject.toml` line 2, column 12: `60` is no time span; write e.g. `500ms`, `30s`, `5m`");
    insta::assert_snapshot!(failure("[tool.pytheas.config]\na = { type = 'intger' }\n"), @"
    error: `DIR/pyproject.toml` line 2, column 14: unknown value `intger`
      help: did you mean `integer`?
    ");
}

#[test]
fn defaults_of_options_fit_their_types() {
    let load = |option: &str| {
        let text = format!("[tool.pytheas.config]\nx = {option}\n");
        Workspace::new(&[("requirements.txt", ""), ("pyproject.toml", &text)])
    };
    for right in [
        "{}",
        "{ type = 'duration', default = '30s', env = 'X_Y' }",
        "{ type = 'integer', default = 3 }",
        "{ type = 'float', default = 3 }",
        "{ type = 'boolean', default = true }",
        "{ type = 'url', default = 'mqtt://broker:1883' }",
    ] {
        load(right).project();
    }
    insta::assert_snapshot!(load("{ type = 'duration', default = '30' }").failure(), @r#"
    error: option `x` in `DIR/pyproject.toml`: `"30"` is no duration
      help: correct its `default` or its `type` in `[tool.pytheas.config]`
    "#);
    insta::assert_snapshot!(load("{ type = 'integer', default = '3' }").failure(), @r#"
    error: option `x` in `DIR/pyproject.toml`: `"3"` is no integer
      help: correct its `default` or its `type` in `[tool.pytheas.config]`
    "#);
    insta::assert_snapshot!(load("{ type = 'secret', default = '3' }").failure(), @"
    error: option `x` in `DIR/pyproject.toml`: a secret has no default
      help: correct its `default` or its `type` in `[tool.pytheas.config]`
    ");
    insta::assert_snapshot!(load("{ env = 'A-B' }").failure(), @"
    error: option `x` in `DIR/pyproject.toml`: `A-B` is no name of an environment variable
      help: correct its `default` or its `type` in `[tool.pytheas.config]`
    ");
}

#[test]
fn groups_extras_and_targets_that_do_not_exist_are_named() {
    let project = "[project]\nname = 'a'\nversion = '1'\noptional-dependencies = { mqtt = ['x'] }\n[dependency-groups]\ndev = ['y']\n";
    let failure =
        |rest: &str| Workspace::new(&[("pyproject.toml", &format!("{project}{rest}"))]).failure();
    insta::assert_snapshot!(failure("[tool.pytheas]\nextras = ['mqqt']\n"), @"
    error: `DIR/pyproject.toml` has no extra `mqqt`
      help: did you mean `mqtt`?
    ");
    insta::assert_snapshot!(failure("[tool.pytheas]\ngroups = ['prod']\n"), @"
    error: `DIR/pyproject.toml` has no dependency group `prod`
      help: there are `dev`
    ");
    insta::assert_snapshot!(failure("all = [{include-group = 'all'}]\n"), @r#"
    error: dependency group `all` in `DIR/pyproject.toml`: includes itself: all -> all
      help: PEP 735: a group is a list of requirements and `{include-group = "…"}`
    "#);
    insta::assert_snapshot!(failure("all = [{include-group = 'tests'}]\n"), @r#"
    error: dependency group `tests` in `DIR/pyproject.toml`: does not exist, but another group includes it
      help: PEP 735: a group is a list of requirements and `{include-group = "…"}`
    "#);
    let workspace = Workspace::new(&[(
        "pyproject.toml",
        &format!("{project}[tool.pytheas.target.gateway]\nform = 'bundle'\n"),
    )]);
    insta::assert_snapshot!(workspace.filtered(&shown(&workspace.project().target(Some("gatway")).unwrap_err())), @"
    error: no target `gatway` in `DIR/pyproject.toml`
      help: did you mean `gateway`?
    ");
}

#[test]
fn dynamic_dependencies_come_from_requirements_or_are_refused() {
    let text = "[project]\nname = 'a'\nversion = '1'\ndynamic = ['dependencies']\n";
    insta::assert_snapshot!(Workspace::new(&[("pyproject.toml", text)]).failure(), @"
    error: the dependencies of `a` are dynamic: they are known only to its own code
      help: write them into `project.dependencies` of `DIR/pyproject.toml`, or into a `requirements.txt` beside it
    ");
    let both = Workspace::new(&[("pyproject.toml", text), ("requirements.txt", "idna\n")]);
    assert_eq!(both.project().source, RequirementSource::RequirementsTxt);
}

#[test]
fn names_come_from_settings_project_or_folder() {
    let named = |text: &str| {
        Workspace::new(&[("requirements.txt", ""), ("pyproject.toml", text)])
            .project()
            .name
            .to_string()
    };
    assert_eq!(
        named("[project]\nname = 'from-project'\nversion = '1'\n"),
        "from-project"
    );
    assert_eq!(
        named("[project]\nname = 'from-project'\n[tool.pytheas]\napp = 'from-settings'\n"),
        "from-settings"
    );
    let workspace = Workspace::new(&[("my app/requirements.txt", "")]);
    let project = pytheas_project::Project::load(&workspace.root().join("my app")).unwrap();
    assert_eq!(project.name.as_str(), "my-app");
}

#[test]
fn the_entry_point_is_found_in_the_documented_order() {
    let entry = |files: &[(&str, &str)], wanted: Option<&str>| {
        let workspace = Workspace::new(files);
        let wanted: Option<Entry> = wanted.map(|text| text.parse().unwrap());
        match workspace.project().entry(wanted.as_ref()) {
            Ok(entry) => entry.to_string(),
            Err(error) => workspace.filtered(&shown(&error)),
        }
    };
    let scripts = "[project]\nname = 'a'\nversion = '1'\nscripts = { one = 'a.cli:main' }\n";
    let setting = format!("{scripts}[tool.pytheas]\nentry = 'a.set'\n");
    assert_eq!(
        entry(&[("pyproject.toml", &setting)], Some("a.flag")),
        "a.flag"
    );
    assert_eq!(entry(&[("pyproject.toml", &setting)], None), "a.set");
    assert_eq!(
        entry(&[("pyproject.toml", scripts), ("main.py", "")], None),
        "a.cli:main"
    );
    assert_eq!(
        entry(
            &[
                ("requirements.txt", ""),
                ("main.py", ""),
                ("a/__main__.py", "")
            ],
            None
        ),
        "main.py"
    );
    assert_eq!(
        entry(&[("requirements.txt", ""), ("src/a/__main__.py", "")], None),
        "a"
    );
    let named = "[project]\nname = 'a'\nversion = '1'\nscripts = { a = 'a:main', b = 'b:main' }\n";
    assert_eq!(entry(&[("pyproject.toml", named)], None), "a:main");
    let several = named.replace("a = 'a:main'", "c = 'a:main'");
    insta::assert_snapshot!(entry(&[("pyproject.toml", &several)], None), @"
    error: `DIR/pyproject.toml` has several scripts
      help: choose one with `--entry`, or set `entry` in `[tool.pytheas]`: `a:main`, `b:main`
    ");
    insta::assert_snapshot!(entry(&[("requirements.txt", ""), ("app.py", ""), ("setup.py", "")], None), @"
    error: nothing says what starts `project` in `DIR`
      help: name it with `--entry MODULE:CALLABLE`, or set `entry` in `[tool.pytheas]`; it could be `app.py`
    ");
    insta::assert_snapshot!(entry(&[("pyproject.toml", "[project]\nname = 'a'\nversion = '1'\nscripts = { a = 'a main' }\n")], None), @"
    error: script `a` in `DIR/pyproject.toml` is `a main`, which is no entry point
      help: write it as `module:callable`
    ");
}

#[test]
fn a_missing_nested_requirements_file_is_named_with_its_place() {
    let workspace = Workspace::new(&[("requirements.txt", "idna\n-r more.txt\n")]);
    let error = pytheas_project::LockInputs::of(&workspace.project()).unwrap_err();
    insta::assert_snapshot!(workspace.filtered(&shown(&error)), @"
    error: cannot read `DIR/more.txt`, named by `DIR/requirements.txt` line 2
      cause: No such file or directory (os error 2)
      help: check the path; it is relative to the file that names it
    ");
}
