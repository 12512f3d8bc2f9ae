//! Building again: over an earlier result, after a killed build, with another lock.

use std::process::Command;

use pytheas_build::{Event, Phase};

use crate::support::{Workspace, events, run, stdout};

fn workspace() -> Workspace {
    Workspace::new(&[
        ("main.py", "print('one')\n"),
        ("requirements.txt", "idna\n"),
    ])
}

#[test]
fn an_earlier_build_is_replaced_whole_and_a_failed_one_leaves_it() {
    let workspace = workspace();
    let first = workspace.build();
    workspace.write("main.py", "print('two')\n");
    let second = workspace.build();
    assert_ne!(first.tree_id, second.tree_id);
    assert_eq!(stdout(&run(&second.dir.join("bin/project"), &[])), "two\n");

    let mut request = workspace.request();
    request.entry = Some("nothing.py".parse().unwrap());
    crate::support::try_build(&request).unwrap_err();
    assert_eq!(
        pytheas_durable::trees::scan(&second.dir).unwrap().id(),
        second.tree_id
    );
    let left: Vec<_> = std::fs::read_dir(workspace.root())
        .unwrap()
        .map(|child| child.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn what_a_killed_build_left_is_removed_by_the_next() {
    let workspace = workspace();
    // A process id that is gone: of a process that has ended and was waited for.
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    let gone = workspace
        .root()
        .join(format!(".out.pytheas-build-{}-x", child.id()));
    let running = workspace
        .root()
        .join(format!(".out.pytheas-build-{}-x", std::process::id()));
    std::fs::create_dir_all(gone.join("tree")).unwrap();
    std::fs::create_dir_all(running.join("tree")).unwrap();
    workspace.build();
    assert!(!gone.exists());
    assert!(running.exists(), "another build's folder was removed");
}

#[test]
fn only_the_app_changes_when_only_the_app_changed() {
    let workspace = workspace();
    let first = workspace.build();
    workspace.write("main.py", "print('two')\n");
    let second = workspace.build();
    let changed: Vec<&str> = second
        .tree
        .iter()
        .filter(|(path, entry)| first.tree.get(path) != Some(entry))
        .map(|(path, _)| path.as_str())
        .filter(|path| *path != "sbom.cdx.json") // lists the app's own hashes
        .collect();
    assert_eq!(changed.len(), 2, "{changed:?}");
    assert!(
        changed.iter().all(|path| path.starts_with("app/")),
        "{changed:?}"
    );
}

#[test]
fn a_build_tells_its_phases_in_their_order_and_locks_once() {
    let workspace = workspace();
    let phases = |events: &[Event]| -> Vec<Phase> {
        events
            .iter()
            .filter_map(|event| match event {
                Event::Phase(phase) => Some(*phase),
                _ => None,
            })
            .collect()
    };
    let (told, result) = events(&workspace.request());
    assert!(result.unwrap().locked.is_some());
    assert_eq!(phases(&told), Phase::ALL);
    let (told, result) = events(&workspace.request());
    assert!(result.unwrap().locked.is_none());
    assert_eq!(phases(&told), Phase::ALL);
}
