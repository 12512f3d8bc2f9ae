//! Builds of every kind of input that is not a plain folder with requirements.

use std::path::Path;

use pytheas_build::BuildRequest;
use pytheas_project::Project;

use crate::support::{Workspace, built, environment, run, shown, stdout, try_build};

fn request(workspace: &Workspace, project: Project) -> BuildRequest {
    let mut request = BuildRequest::new(project);
    request.out = Some(workspace.out());
    request.environment = environment();
    request
}

/// What the app in `path` (a folder or file of the workspace) says when it is built and run.
#[track_caller]
fn says(workspace: &Workspace, path: &str, program: &str) -> String {
    let project = match Project::load(&workspace.project().join(path)) {
        Ok(project) => project,
        Err(error) => panic!("{}", shown(&error)),
    };
    let built = built(&request(workspace, project));
    stdout(&run(&built.dir.join("bin").join(program), &[]))
}

#[test]
fn a_script_is_built_alone() {
    let workspace = Workspace::new(&[
        (
            "report.py",
            "# /// script\n# dependencies = ['idna==3.7']\n# ///\nimport idna\nprint(idna.__version__)\n",
        ),
        ("private.txt", "not for the bundle"),
    ]);
    assert_eq!(says(&workspace, "report.py", "report"), "3.7\n");
    let app: Vec<_> = std::fs::read_dir(workspace.out().join("app"))
        .unwrap()
        .flatten()
        .collect();
    assert!(
        !app.iter().any(|child| child.file_name() == "private.txt"),
        "{app:?}"
    );
}

#[test]
fn a_bare_package_keeps_its_name() {
    let workspace = Workspace::new(&[
        ("tool/__init__.py", ""),
        ("tool/__main__.py", "from tool.part import x\nprint(x)\n"),
        ("tool/part.py", "x = 'part'\n"),
    ]);
    assert_eq!(says(&workspace, "tool", "tool"), "part\n");
}

#[test]
fn a_zip_application_runs_as_it_is() {
    let workspace = Workspace::new(&[
        ("source/__main__.py", "import part\nprint(part.x)\n"),
        ("source/part.py", "x = 'zipped'\n"),
    ]);
    let root = workspace.project();
    let made = std::process::Command::new("python3")
        .args(["-m", "zipapp", "source", "-o", "app.pyz"])
        .current_dir(&root)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    assert_eq!(says(&workspace, "app.pyz", "app"), "zipped\n");
}

#[test]
fn setup_py_with_computed_scripts_and_setup_cfg_alone_are_built() {
    let code = "def main(): print('legacy')\n";
    let setup = "from setuptools import setup\nname = 'legacy'\nsetup(name=name, version='0.' + str(3), py_modules=[name], entry_points={'console_scripts': ['%s = legacy:main' % name]})\n";
    let workspace = Workspace::new(&[("setup.py", setup), ("legacy.py", code)]);
    let project = Project::load(&workspace.project()).unwrap();
    let result = built(&request(&workspace, project));
    assert_eq!(result.record.version.as_str(), "0.3");
    assert_eq!(
        stdout(&run(&result.record.entry.under(&result.dir), &[])),
        "legacy\n"
    );

    let config = "[metadata]\nname = legacy\nversion = 1.0\n[options]\npy_modules = legacy\n[options.entry_points]\nconsole_scripts =\n    legacy = legacy:main\n";
    let workspace = Workspace::new(&[("setup.cfg", config), ("legacy.py", code)]);
    assert_eq!(says(&workspace, "", "legacy"), "legacy\n");
}

#[test]
fn a_published_package_is_an_app() {
    let workspace = Workspace::new(&[]);
    let published = |requirement: &str| {
        Project::published(requirement, &[], Path::new(&workspace.project())).unwrap()
    };
    let result = built(&request(&workspace, published("cowsay==6.1")));
    assert_eq!(
        (result.record.name.as_str(), result.record.version.as_str()),
        ("cowsay", "6.1")
    );
    let said = stdout(&run(&result.dir.join("bin/cowsay"), &["-t", "hello"]));
    assert!(said.contains("hello"), "{said}");
    assert!(
        !result.dir.join("app").exists()
            || std::fs::read_dir(result.dir.join("app"))
                .unwrap()
                .next()
                .is_none()
    );

    let error = try_build(&request(&workspace, published("idna==3.7"))).unwrap_err();
    insta::assert_snapshot!(shown(&error), @"
    error: `idna` has no program: it is a library
      help: name what starts the app with `--entry MODULE:CALLABLE`
    ");
}
