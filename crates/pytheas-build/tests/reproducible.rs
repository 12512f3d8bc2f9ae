//! Same input, same bytes. Alone in its program, since the umask belongs to the whole process.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use pytheas_build::{BuildRequest, Built, build};
use pytheas_project::{Connectivity, Environment, Project, Uv};

fn project(dir: &Path) {
    let put = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        pytheas_durable::replace(&path, text.as_bytes()).unwrap();
    };
    put(
        "pyproject.toml",
        "[build-system]\nrequires = ['setuptools']\nbuild-backend = 'setuptools.build_meta'\n\
         [project]\nname = 'same'\nversion = '1.0.0'\ndependencies = ['idna==3.10', 'markupsafe==3.0.2', 'docopt==0.6.2']\n\
         scripts = { same = 'same:main' }\n",
    );
    put(
        "same/__init__.py",
        "NAMES = {'a', 'b', 'c', 'd', 'e'}\ndef main():\n    return 'x' in {'u', 'v', 'w'}\n",
    );
}

fn built(root: &Path, environment: Environment) -> Built {
    let dir = root.join("project");
    std::fs::create_dir_all(&dir).unwrap();
    project(&dir);
    let mut request = BuildRequest::new(Project::load(&dir).unwrap());
    request.out = Some(root.join("out"));
    request.environment = environment;
    build(&request, &|_| {})
        .unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)))
}

#[test]
fn the_same_input_gives_the_same_tree_whatever_is_around_it() {
    let shared = Environment::current()
        .with(
            "PYTHEAS_CACHE_DIR",
            Path::new(env!("CARGO_TARGET_TMPDIR")).join("pytheas-cache"),
        )
        .without("PYTHEAS_PYTHON_MIRROR");
    let uv = Uv::find(&shared, Connectivity::Online, &|_| {}).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (
        dir.path().join("one"),
        dir.path().join("another, longer place/two"),
    );

    let first = built(&one, shared.clone());
    // Another interpreter cache, home, locale, time zone, temporary folder and umask; uv's own
    // cache stays, so that nothing but the build back end is fetched.
    let home = two.join("home");
    let tmp = two.join("tmp");
    std::fs::create_dir_all(&home).unwrap();
    std::fs::create_dir_all(&tmp).unwrap();
    let uv_cache = shared
        .path("UV_CACHE_DIR")
        .unwrap_or_else(|| shared.cache_dir().with_file_name("uv-cache-two"));
    let other = shared
        .with("PYTHEAS_CACHE_DIR", two.join("cache"))
        .with("PYTHEAS_UV", uv.path)
        .with("UV_CACHE_DIR", uv_cache)
        .with("HOME", home)
        .with("TMPDIR", tmp)
        .with("LC_ALL", "C")
        .with("TZ", "Asia/Tokyo")
        .with("PYTHONHASHSEED", "77")
        .with("SOURCE_DATE_EPOCH", "1000000000");
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let second = built(&two, other);
    rustix::process::umask(before);

    let differing: Vec<&str> = first
        .tree
        .iter()
        .filter(|(path, entry)| second.tree.get(path) != Some(entry))
        .map(|(path, _)| path.as_str())
        .collect();
    assert_eq!(differing, Vec::<&str>::new());
    assert_eq!(first.tree_id, second.tree_id);
    assert!(first.file_count > 500, "{}", first.file_count);
}
