//! Real bundles, listed and slimmed: the bill of materials against the official schema, licences,
//! the import graph, and a slim bundle that still runs.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use pytheas_build::{
    BuildError, BuildRequest, Built, Inventory, LicencePolicy, SBOM_FILE, build, check,
    check_reproducible, import_graph, platform_gaps,
};
use pytheas_project::{Environment, Project, SlimRule};
use pytheas_release::Platform;
use serde_json::Value;

/// A project that imports a package with a dependency it does not declare and leaves one unused.
fn built(root: &Path, target: Option<&str>) -> (BuildRequest, Built) {
    let dir = root.join("project");
    let put = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        pytheas_durable::replace(&path, text.as_bytes()).unwrap();
    };
    put("requirements.txt", "jinja2==3.1.4\nidna==3.10\n");
    put(
        "pyproject.toml",
        "[tool.pytheas.target.small]\nslim = true\nkeep = ['wave']\n",
    );
    put(
        "main.py",
        "import json\nimport jinja2\nimport markupsafe\n\
         print(json.dumps(jinja2.Template('{{ x }}').render(x=markupsafe.escape('<'))))\n",
    );
    let mut request = BuildRequest::new(Project::load(&dir).unwrap());
    request.out = Some(root.join(target.unwrap_or("whole")));
    request.target = target.map(str::to_owned);
    request.environment = Environment::current()
        .with(
            "PYTHEAS_CACHE_DIR",
            Path::new(env!("CARGO_TARGET_TMPDIR")).join("pytheas-cache"),
        )
        .without("PYTHEAS_PYTHON_MIRROR");
    let built = build(&request, &|_| {}).unwrap_or_else(|error| panic!("{error:?}"));
    (request, built)
}

fn output_of(built: &Built) -> String {
    let program = built.record.entry.under(&built.dir);
    let output = Command::new(program).env_clear().output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A Python with CycloneDX's own validator, made once below `target`; none without the network.
fn validator() -> Option<PathBuf> {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cyclonedx-venv");
    let python = venv.join("bin/python");
    let works = |python: &Path| {
        Command::new(python)
            .args(["-c", "import cyclonedx.validation.json, jsonschema"])
            .output()
            .is_ok_and(|output| output.status.success())
    };
    if !works(&python) {
        // Whether it worked is told by trying it.
        let _ = Command::new("python3")
            .args(["-m", "venv"])
            .arg(&venv)
            .output();
        let _ = Command::new(&python)
            .args([
                "-m",
                "pip",
                "-q",
                "install",
                "cyclonedx-python-lib[validation]",
            ])
            .output();
    }
    works(&python).then_some(python)
}

#[test]
fn a_bundle_carries_a_valid_bill_that_is_part_of_its_tree() {
    let dir = tempfile::tempdir().unwrap();
    let (request, built) = built(dir.path(), None);
    let path = built.dir.join(SBOM_FILE);
    let bill: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert!(built.tree.get(&SBOM_FILE.parse().unwrap()).is_some());
    assert_eq!(
        pytheas_durable::trees::scan(&built.dir).unwrap().id(),
        built.tree_id
    );

    let component = |name: &str| {
        bill["components"]
            .as_array()
            .unwrap()
            .iter()
            .find(|component| component["name"] == name)
            .unwrap_or_else(|| panic!("no `{name}` in {bill:#}"))
    };
    assert_eq!(component("jinja2")["purl"], "pkg:pypi/jinja2@3.1.4");
    assert_eq!(component("jinja2")["hashes"][0]["alg"], "SHA-256");
    assert_eq!(
        component("jinja2")["licenses"][0]["license"]["id"],
        "BSD-3-Clause"
    );
    assert_eq!(component("cpython")["type"], "platform");
    let depends_on = |name: &str| {
        bill["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .find(|entry| entry["ref"] == name)
            .map(|entry| entry["dependsOn"].to_string())
            .unwrap_or_default()
    };
    assert!(depends_on("app").contains("pkg:pypi/jinja2@3.1.4"));
    assert!(depends_on("pkg:pypi/jinja2@3.1.4").contains("pkg:pypi/markupsafe@"));

    let policy = LicencePolicy {
        deny: vec!["BSD-3-Clause".to_owned()],
        ..LicencePolicy::default()
    };
    let refused: Vec<String> = Inventory::read(&built.dir)
        .unwrap()
        .distributions
        .into_iter()
        .filter(|distribution| {
            policy
                .refusal(&distribution.name, &distribution.licence)
                .is_some()
        })
        .map(|distribution| distribution.name)
        .collect();
    assert_eq!(refused, ["idna", "jinja2", "markupsafe"]);

    check_reproducible(&request, &built, &|_| {}).unwrap_or_else(|error| panic!("{error:?}"));

    let Some(python) = validator() else {
        testkit::skip("the validator of CycloneDX cannot be installed");
        return;
    };
    let script = "import sys\n\
        from cyclonedx.schema import SchemaVersion\n\
        from cyclonedx.validation.json import JsonStrictValidator\n\
        error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read())\n\
        sys.exit(repr(error) if error else 0)\n";
    let output = Command::new(python)
        .args(["-c", script])
        .arg(&path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_slim_bundle_runs_and_has_only_what_is_reached() {
    let dir = tempfile::tempdir().unwrap();
    let (request, whole) = built(dir.path(), None);
    let (_, slim) = built(dir.path(), Some("small"));
    assert_eq!(output_of(&slim), "\"&lt;\"\n");
    assert_eq!(output_of(&slim), output_of(&whole));
    assert!(slim.size_bytes < whole.size_bytes, "{}", slim.size_bytes);
    let has = |ending: &str| {
        slim.tree
            .files()
            .any(|(path, _, _)| path.as_str().ends_with(ending))
    };
    assert!(has("/jinja2/environment.py"));
    assert!(has("/wave.py"), "`keep` keeps it");
    assert!(!has("/pdb.py"));
    assert!(!has("/idna/core.py"), "nothing imports it");
    assert!(!has(".pyi"));
    let bill = std::fs::read_to_string(slim.dir.join(SBOM_FILE)).unwrap();
    assert!(
        !bill.contains("pkg:pypi/idna@"),
        "the bill lists what is shipped"
    );

    let graph = import_graph(&whole.dir, None).unwrap();
    let chain: Vec<String> = graph
        .chain("markupsafe")
        .into_iter()
        .map(|(module, _)| module)
        .collect();
    assert_eq!(chain, ["__main__", "markupsafe"]);

    let found = check(&request.project, &whole.dir).unwrap();
    assert_eq!(found.unused, ["idna"]);
    let of_slim = check(&request.project, &slim.dir).unwrap();
    assert_eq!(of_slim.unused, ["idna"], "left out is still required");
    assert_eq!(found.undeclared[0].package, "markupsafe");
    assert_eq!(found.undeclared[0].line, 3);
    assert!(found.missing.is_empty(), "{:?}", found.missing);
    assert!(found.has_failed());

    // What no app reads is in neither of them.
    let whole_has = |part: &str| {
        let mut files = whole.tree.files();
        files.any(|(path, _, _)| path.as_str().contains(part))
    };
    assert!(!whole_has("/lib2to3/") && !whole_has("/distutils/") && !whole_has(".pyi"));
    let arm: Platform = "linux-aarch64".parse().unwrap();
    let gaps = platform_gaps(&request.project, &[arm], found.python.as_deref()).unwrap();
    assert_eq!((gaps[0].packages, gaps[0].wheels), (3, 3), "{gaps:?}");
    let python = found.python.unwrap();
    assert!(python.starts_with(&gaps[0].python), "{python}");
}

#[test]
fn a_rule_of_the_project_is_a_reason_and_a_budget_of_a_package_holds() {
    let dir = tempfile::tempdir().unwrap();
    let (mut request, whole) = built(dir.path(), None);
    request.project.settings.rule = vec![SlimRule {
        when: "jinja2".to_owned(),
        keep: vec!["chunk".to_owned()],
    }];
    let graph = import_graph(&whole.dir, Some(&request.project)).unwrap();
    assert!(graph.reached.contains_key("chunk") && graph.reached.contains_key("wave"));
    let graph = import_graph(&whole.dir, None).unwrap();
    assert!(!graph.reached.contains_key("chunk"));

    let targets = &mut request.project.settings.target;
    let target = targets.get_mut("small").unwrap();
    target.budgets = [("Jinja2".to_owned(), "10 kB".to_owned())].into();
    request.target = Some("small".to_owned());
    let error = build(&request, &|_| {}).unwrap_err();
    assert!(
        matches!(&error, BuildError::PackageOverBudget { package, .. } if package == "jinja2"),
        "{error:?}"
    );
}
