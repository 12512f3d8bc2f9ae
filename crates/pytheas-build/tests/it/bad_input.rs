//! Inputs that are wrong on purpose: each ends, with an error that names what to change or with a
//! result that is whole.

use crate::support::{Workspace, built, environment, shown, try_build};

const HELLO: (&str, &str) = ("main.py", "import idna\nprint(idna.encode('a'))\n");

#[test]
fn requirements_files_that_name_each_other_are_refused_by_name() {
    let workspace = Workspace::new(&[
        HELLO,
        (
            "requirements.txt",
            "-r ./more/../b.txt\n-c c.txt\n-r link.txt\n",
        ),
        ("more/x.txt", ""),
        ("b.txt", "-r requirements.txt\nidna\n"),
        ("c.txt", "-c requirements.txt\nidna==3.7\n"),
    ]);
    let link = workspace.project().join("link.txt");
    std::os::unix::fs::symlink("requirements.txt", link).unwrap();
    let error = shown(&try_build(&workspace.request()).unwrap_err());
    assert!(
        error.contains("names itself") && error.contains("b.txt` line 1"),
        "{error}"
    );
    assert!(!workspace.out().exists());
}

#[test]
fn pins_that_contradict_each_other_are_both_named() {
    let workspace = Workspace::new(&[HELLO, ("requirements.txt", "idna==3.7\nidna==3.6\n")]);
    let error = shown(&try_build(&workspace.request()).unwrap_err());
    assert!(
        error.contains("idna==3.7") && error.contains("idna==3.6"),
        "{error}"
    );
    assert!(!workspace.out().exists());
}

#[test]
fn a_cache_whose_files_are_cut_short_is_mended() {
    let workspace = Workspace::new(&[HELLO, ("requirements.txt", "idna==3.7\n")]);
    let mut request = workspace.request();
    let cache = workspace.root().join("cache");
    // The interpreter's part of the shared cache is large; only packages are kept apart here.
    request.environment = environment();
    let shared = request.environment.cache_dir();
    std::fs::create_dir(&cache).unwrap();
    for child in std::fs::read_dir(&shared).into_iter().flatten().flatten() {
        if child.file_name() != "wheels" {
            std::os::unix::fs::symlink(child.path(), cache.join(child.file_name())).unwrap();
        }
    }
    request.environment = environment().with("PYTHEAS_CACHE_DIR", &cache);
    let first = built(&request);
    let mut damaged = 0;
    let mut folders = vec![cache.join("wheels")];
    while let Some(folder) = folders.pop() {
        for child in std::fs::read_dir(&folder).unwrap().flatten() {
            if child.file_type().unwrap().is_dir() {
                folders.push(child.path());
            } else if child.path().extension().is_none_or(|end| end != "whl") {
                std::fs::File::options()
                    .write(true)
                    .open(child.path())
                    .unwrap()
                    .set_len(2)
                    .unwrap();
                damaged += 1;
            }
        }
    }
    assert!(damaged > 0);
    let again = built(&request);
    assert_eq!(first.tree_id, again.tree_id);
}
