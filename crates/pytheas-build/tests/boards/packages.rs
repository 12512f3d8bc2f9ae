//! Packages of an index of mip's format: versions, hashes, mirrors, and manifests that are wrong.

use std::fs;

use pytheas_build::{
    BuildRequest, LockMode,
    micropython::mip::{self, LOCK_FILE, MipOptions},
};
use pytheas_project::{Connectivity, lock::Upgrade};

use crate::support::{Workspace, environment, shown};

const MAIN: &str = "import mqtt\ndef run():\n    pass\n";

fn workspace(dependencies: &str) -> Workspace {
    let workspace = Workspace::new(&[("src/main.py", MAIN)]);
    set(&workspace, dependencies);
    workspace.publish(
        "mqtt",
        "1.3.0",
        &[("mqtt.py", "import base\nV = 13\n")],
        &[("base", "1.0")],
    );
    workspace.publish(
        "mqtt",
        "1.4.0",
        &[("mqtt.py", "import base\nV = 14\n")],
        &[("base", "latest")],
    );
    workspace.publish("mqtt", "2.0.0", &[("mqtt.py", "V = 20\n")], &[]);
    workspace.publish("base", "1.0", &[("base.py", "B = 1\n")], &[]);
    workspace.publish("base", "1.1", &[("base.py", "B = 2\n")], &[]);
    workspace
}

fn set(workspace: &Workspace, dependencies: &str) {
    let text = format!(
        "[project]\nname = 'node'\nversion = '1'\n[tool.pytheas.target.node]\nform = 'micropython'\nentry = 'main:run'\n\
         [tool.pytheas.micropython]\ndependencies = [{dependencies}]\nindex = '../index'\n"
    );
    workspace.write("project/pyproject.toml", text.as_bytes());
}

fn options(upgrade: Upgrade) -> MipOptions {
    MipOptions {
        upgrade,
        connectivity: Connectivity::Offline,
        environment: environment(),
    }
}

/// Locks; the packages, or what it failed with.
fn locked(workspace: &Workspace, upgrade: Upgrade) -> String {
    match mip::lock(&workspace.project(), &options(upgrade), &|_| {}) {
        Ok(Some(report)) => {
            let packages = report.lock.packages.iter();
            let shown = packages.map(|one| format!("{} {}", one.name, one.version));
            shown.collect::<Vec<_>>().join(", ")
        }
        Ok(None) => "nothing".to_owned(),
        Err(error) => {
            let error = pytheas_build::micropython::MicroPythonError::from(error);
            workspace.said(&error.into())
        }
    }
}

#[test]
fn versions_are_chosen_kept_and_raised_on_request() {
    let workspace = workspace("'mqtt^1.3'");
    assert_eq!(locked(&workspace, Upgrade::Nothing), "base 1.1, mqtt 1.4.0");
    let file = workspace.root().join("project").join(LOCK_FILE);
    let first = fs::read_to_string(&file).unwrap();
    assert!(first.contains("sha256 = \""));
    workspace.publish("mqtt", "1.5.0", &[("mqtt.py", "V = 15\n")], &[]);
    assert_eq!(locked(&workspace, Upgrade::Nothing), "base 1.1, mqtt 1.4.0");
    assert_eq!(fs::read_to_string(&file).unwrap(), first);
    let one = Upgrade::Packages(vec!["mqtt".to_owned()]);
    assert_eq!(locked(&workspace, one), "mqtt 1.5.0");
    set(&workspace, "'mqtt@1.3.0'");
    assert_eq!(
        locked(&workspace, Upgrade::Everything),
        "base 1.0, mqtt 1.3.0"
    );
    set(&workspace, "'mqtt==1.3.0', 'base>=1.1'");
    insta::assert_snapshot!(locked(&workspace, Upgrade::Nothing), @"
    no version of `base` is `==1.0` (for `mqtt`) and `>=1.1`
    help: there are 1.1, 1.0
    ");
    set(&workspace, "");
    assert_eq!(locked(&workspace, Upgrade::Nothing), "nothing");
    assert!(!file.exists());
}

#[test]
fn a_dependency_that_is_removed_is_gone_from_lock_and_image() {
    let workspace = workspace("'mqtt==2.0.0', 'base'");
    workspace.build();
    set(&workspace, "'mqtt==2.0.0'");
    let locked_only = BuildRequest {
        lock: LockMode::Locked,
        ..workspace.request()
    };
    let error = pytheas_build::micropython::build_board(&locked_only, &|_| {}).unwrap_err();
    insta::assert_snapshot!(workspace.said(&error), @"
    `…/project/pytheas.mip.lock` does not hold: gone is `base`
    help: run `pytheas lock`
    ");
    let built = workspace.build();
    assert!(built.report.dropped.iter().all(|one| one.from != "base"));
    let lock = mip::MipLock::read(&workspace.project().dir)
        .unwrap()
        .unwrap();
    assert_eq!(lock.packages.len(), 1);
}

#[test]
fn wrong_manifests_are_refused() {
    let workspace = workspace("'mqt'");
    let mut said = vec![locked(&workspace, Upgrade::Nothing)];
    set(&workspace, "'mip:mqt'");
    said.push(locked(&workspace, Upgrade::Nothing));
    workspace.publish("a", "1", &[("a.py", "")], &[("b", "1")]);
    workspace.publish("b", "1", &[("b.py", "")], &[("c", "")]);
    workspace.publish("c", "1", &[("c.py", "")], &[("a", "latest")]);
    set(&workspace, "'a'");
    said.push(locked(&workspace, Upgrade::Nothing));
    workspace.publish("lost", "1", &[("lost.py", "")], &[("nowhere", "1")]);
    set(&workspace, "'lost'");
    said.push(locked(&workspace, Upgrade::Nothing));
    for (number, path) in ["../evil.py", "/boot.py", "a/../../b.py"]
        .iter()
        .enumerate()
    {
        let name = format!("evil{number}");
        workspace.publish(&name, "1", &[(path, "")], &[]);
        set(&workspace, &format!("'{name}'"));
        said.push(locked(&workspace, Upgrade::Nothing));
    }
    set(&workspace, "'./nowhere'");
    said.push(locked(&workspace, Upgrade::Nothing));
    workspace.write("index/package/py/mqtt/latest.json", b"<html>");
    workspace.write("index/package/py/mqtt/2.0.0.json", b"<html>");
    set(&workspace, "'mqtt'");
    said.push(locked(&workspace, Upgrade::Nothing));
    // The first refusal comes from the Python package index, which is not asked without a network.
    insta::assert_snapshot!(said[1..].join("\n--\n"), @"
    no package `mqt` in the index `…/project/../index`
    help: did you mean `mqtt`?
    --
    packages need each other in a circle: `a` → `b` → `c` → `a`
    help: one of their manifests is wrong: take another version, or a copy without the circle
    --
    no package `nowhere 1`, which `lost` needs, in the index `…/project/../index`
    help: check its name and the index
    --
    `evil0` has a file for `../evil.py`, which is no path in an app: no file system of a board can hold `../evil.py`: the path climbs out of the tree
    help: the package's manifest is wrong or hostile; nothing of it was used
    --
    `evil1` has a file for `/boot.py`, which is no path in an app: no file system of a board can hold `/boot.py`: the path is absolute
    help: the package's manifest is wrong or hostile; nothing of it was used
    --
    `evil2` has a file for `a/../../b.py`, which is no path in an app: no file system of a board can hold `a/../../b.py`: the path climbs out of the tree
    help: the package's manifest is wrong or hostile; nothing of it was used
    --
    `./nowhere` in `[tool.pytheas.micropython]` is no dependency: `…/project/./nowhere` is no folder
    help: write a name with versions (`umqtt.simple>=1.3`, `microdot ^2.0`), the address of a `package.json` or a module, `github:OWNER/REPOSITORY`, or a folder (`./lib/mine`)
    --
    the package manifest at `…/project/../index/package/py/mqtt/2.0.0.json` is not understood: expected value at line 1 column 1
    help: check the address; mip's format has `hashes`, `urls`, `deps` and `version`
    ");
    assert!(said[0].contains("`mqt`"), "{}", said[0]);
    assert!(!workspace.root().join("project").join(LOCK_FILE).exists());
}

#[test]
fn every_digit_of_a_hash_is_checked_on_arrival() {
    let workspace = workspace("'mqtt==2.0.0'");
    // What the index says is wrong: seen when it is locked.
    let digits = &pytheas_release::Sha256::of(b"V = 20\n").to_string()[..8];
    let file = format!("index/file/{}/{digits}", &digits[..2]);
    workspace.write(&file, b"V = 666\n");
    insta::assert_snapshot!(locked(&workspace, Upgrade::Nothing), @"
    `mqtt.py` of `mqtt` is not the file it should be
    help: its SHA-256 is 742d01c711deb68e85464153584456e1a271428bc220371c451d275aeede8364, expected a0f1843a…; if the package was changed on purpose, `pytheas lock --upgrade` takes the new one
    ");
    workspace.write(&file, b"V = 20\n");
    assert_eq!(locked(&workspace, Upgrade::Nothing), "mqtt 2.0.0");
    // Changed afterwards: seen by whoever does not have it yet.
    workspace.write(&file, b"V = 666\n");
    let compiler =
        pytheas_build::micropython::MpyCross::find(&environment(), Connectivity::Online, &|_| {})
            .unwrap();
    let fresh = BuildRequest {
        environment: environment()
            .with("PYTHEAS_CACHE_DIR", workspace.root().join("cache"))
            .with("PYTHEAS_MPY_CROSS", compiler.program),
        ..workspace.request()
    };
    let error = pytheas_build::micropython::build_board(&fresh, &|_| {}).unwrap_err();
    insta::assert_snapshot!(shown(&error), @"
    `mqtt.py` of `mqtt` is not the file it should be
    help: its SHA-256 is 742d01c711deb68e85464153584456e1a271428bc220371c451d275aeede8364, expected a0f1843a771f008b4a50f19f21912929975eddc2e7b1783428b3b8ac669649db; if the package was changed on purpose, `pytheas lock --upgrade` takes the new one
    ");
    assert!(!workspace.root().join("out").exists());
}

#[test]
fn a_mirror_is_an_index_that_gives_the_same_image() {
    let workspace = workspace("'mqtt^1.3', './own'");
    workspace.write("project/own/extra.py", b"");
    let built = workspace.build();
    let lock = mip::MipLock::read(&workspace.project().dir)
        .unwrap()
        .unwrap();
    let mirror = workspace.root().join("mirror");
    let count = mip::mirror(
        &workspace.project(),
        &lock,
        &options(Upgrade::Nothing),
        &mirror,
    );
    assert_eq!(count.unwrap(), 2);
    // With its lock, from the mirror alone; then locked anew from it.
    fs::remove_dir_all(workspace.root().join("index")).unwrap();
    let compiler =
        pytheas_build::micropython::MpyCross::find(&environment(), Connectivity::Online, &|_| {})
            .unwrap();
    for round in ["first", "second"] {
        let request = BuildRequest {
            connectivity: Connectivity::Offline,
            environment: environment()
                .with("PYTHEAS_CACHE_DIR", workspace.root().join(round))
                .with("PYTHEAS_MPY_CROSS", &compiler.program)
                .with("PYTHEAS_MIP_INDEX", &mirror),
            ..workspace.request()
        };
        let again = pytheas_build::micropython::build_board(&request, &|_| {})
            .unwrap_or_else(|error| panic!("{}", shown(&error)));
        assert_eq!(again.manifest, built.manifest);
        fs::remove_file(workspace.root().join("project").join(LOCK_FILE)).unwrap();
    }
}

#[test]
fn addresses_of_manifests_and_modules_are_dependencies_too() {
    let workspace = workspace("");
    workspace.write(
        "remote/package.json",
        br#"{"urls": [["mqtt.py", "code/mqtt.py"]], "deps": [["base", "1.0"]], "version": "0.2"}"#,
    );
    workspace.write("remote/code/mqtt.py", b"import base, tool\n");
    workspace.write("remote/tool.py", b"");
    let at = |path: &str| format!("'file://{}'", workspace.root().join(path).display());
    set(
        &workspace,
        &[at("remote/package.json"), at("remote/tool.py")].join(", "),
    );
    let built = workspace.build();
    let kept: Vec<&str> = built
        .report
        .kept
        .iter()
        .map(|one| one.path.as_str())
        .collect();
    assert_eq!(kept, ["base.mpy", "main.mpy", "mqtt.mpy", "tool.mpy"]);
    workspace.write("project/src/base.py", b"");
    assert!(
        workspace
            .build()
            .report
            .kept
            .iter()
            .any(|one| one.path == "base.mpy" && one.from == "app")
    );
}

#[test]
fn a_placeholder_of_a_package_is_told_of() {
    let workspace = workspace("'mqtt<2', 'stdlib'");
    let empty = "# Only the name, for code that imports it.\n\n";
    let files = [
        ("datetime.py", empty),
        ("kit/__init__.py", ""),
        ("kit/one.py", "ONE = 1\n"),
    ];
    workspace.publish("stdlib", "1.0", &files, &[]);
    let main = "import mqtt, datetime\nfrom kit import one\ndef run():\n    pass\n";
    workspace.write("project/src/main.py", main.as_bytes());
    assert_eq!(
        workspace.build().warnings,
        ["`datetime` of stdlib is a placeholder without any code: what is used of it is not there"]
    );
}
