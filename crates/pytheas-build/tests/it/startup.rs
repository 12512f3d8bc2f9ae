//! That a bundle's quick start and end change nothing but the time: what Python says about modules
//! is the same with them and without.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::support::{Workspace, stdout};

/// Runs a bundle from `/`, quickly or as plain Python does.
fn start(program: &Path, is_plain: bool, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).current_dir("/").env_clear();
    if is_plain {
        command.env("PYTHEAS_PLAIN_START", "1");
    }
    command.output().unwrap()
}

const MAIN: &str = r#"
import gc, importlib, importlib.util, inspect, json, multiprocessing, os, pickle, pkgutil, subprocess, sys, tempfile
import traceback
from importlib import metadata, resources

import _json, _ssl, idna, kit, kit.part, space.inner, _pytheas


def work(number):
    return kit.part.double(number), type(kit.part.__loader__).__name__


def main():
    quick = "PYTHEAS_PLAIN_START" not in os.environ
    loaders = {type(module.__loader__).__name__ for module in (idna, kit, kit.part, json)}
    assert loaders == ({"BundledLoader"} if quick else {"SourceFileLoader"}), loaders
    print("file", os.path.relpath(kit.part.__file__, os.environ["PYTHEAS_ROOT"]), kit.__package__, kit.part.__package__)
    print("path", [os.path.basename(entry) for entry in kit.__path__], kit.__spec__.submodule_search_locations == kit.__path__)
    print("cached", os.path.basename(kit.__cached__), os.path.isfile(kit.__cached__), kit.__spec__.has_location)
    print("code", os.path.samefile(kit.part.double.__code__.co_filename, kit.part.__file__))
    print("source", inspect.getsource(kit.part.double).splitlines()[0], inspect.getfile(kit.part) == kit.part.__file__)
    for module in (_json, _ssl):
        spec = module.__spec__
        print("extension", spec.name, spec.origin == getattr(module, "__file__", "built-in"), type(spec.loader).__name__)
        print("its spec", spec.cached, spec.has_location, spec.submodule_search_locations, hasattr(module, "__cached__"), module.__loader__ is spec.loader)
    print("get_data", kit.__loader__.get_data(os.path.join(kit.__path__[0], "data.txt")), kit.part.__loader__.get_source("kit.part")[:11])
    print("resources", resources.files("kit").joinpath("data.txt").read_text().strip(), resources.read_text("kit", "data.txt").strip())
    print("pkgutil", [module.name for module in pkgutil.iter_modules(kit.__path__)], pkgutil.get_data("kit", "data.txt"))
    print("walk", sorted(module.name for module in pkgutil.walk_packages(space.__path__, "space.")))
    print("namespace", [os.path.basename(entry) for entry in space.__path__], space.inner.VALUE, space.__spec__.loader.__class__.__name__)
    print("metadata", metadata.version("idna"), importlib.util.find_spec("kit.nothing"), importlib.util.find_spec("nothing"))
    print("pickle", pickle.loads(pickle.dumps(kit.part.double))(4), type(pickle.loads(pickle.dumps(kit.__loader__))).__name__)
    try:
        kit.part.fail()
    except ValueError:
        print("traceback", traceback.format_exc().splitlines()[-3:])
    code = "import kit.part, idna; print(kit.part.double(21), type(idna.__loader__).__name__ == %r)" % loaders.copy().pop()
    print("child", subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout)
    print("isolated", subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True).stdout)
    print("no site", subprocess.run([sys.executable, "-S", "-c", "import json; print(json.dumps(1))"], capture_output=True, text=True).stdout)
    print("-m", subprocess.run([sys.executable, "-m", "kit", "a"], capture_output=True, text=True).stdout)
    print("-O", subprocess.run([sys.executable, "-O", "-c", "import kit; print(kit.ASSERTS)"], capture_output=True, text=True).stdout)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print("spawn", pool.map(work, [1, 2])[1][0])
    print("reload", importlib.reload(kit.part) is sys.modules["kit.part"])
    sys.path.insert(0, ["no folder"])
    import sched
    del sys.path[0]
    print("past what is no folder", sched.__name__)

    # Later modules: in a new folder, in a folder of the bundle's path, over a bundled one.
    with tempfile.TemporaryDirectory() as folder:
        def write(name, text):
            with open(os.path.join(folder, name), "w") as file:
                file.write(text)
            importlib.invalidate_caches()
        write("late.py", "VALUE = 1")
        sys.path.append(folder)
        import late
        write("idna_more.py", "VALUE = 2")
        import idna_more
        kit.__path__.append(folder)
        print("late", late.VALUE, idna_more.VALUE, importlib.import_module("kit.late").VALUE)
        write("unread.py", "VALUE = 'mine'")
        sys.path.remove(folder)
        sys.path.insert(0, folder)
        import unread
        print("first", unread.VALUE)
        sys.path.remove(folder)
        del sys.modules["unread"]
        import unread
        print("again", unread.VALUE)
        saved = sys.path[:]
        sys.path[:] = []
        sys.modules.pop("kit.rare", None)
        try:
            import rare_top
        except ModuleNotFoundError as error:
            print("no path", error)
        sys.path[:] = saved
    gone = sys.path_hooks[:]
    sys.path_hooks.insert(0, lambda entry: (_ for _ in ()).throw(ImportError))
    sys.modules.pop("unread")
    import unread
    print("hooks", type(unread.__loader__).__name__)
    sys.path_hooks[:] = gone

    print("gc", gc.get_threshold(), gc.isenabled(), gc.get_freeze_count(), kit.DURING[0] >= 700)
    print("set", kit.part.OWN, gc.get_threshold() == kit.part.OWN)


if __name__ == "__main__":
    gc.set_threshold(700, 10, 10)
    main()
"#;

const PROJECT: &[(&str, &str)] = &[
    ("requirements.txt", "idna\n"),
    ("main.py", MAIN),
    (
        "kit/__init__.py",
        "import gc\nDURING = gc.get_threshold()\nASSERTS = __debug__\n",
    ),
    (
        "kit/__main__.py",
        "import sys\nprint(__name__, __spec__.name, sys.argv[1:], __file__.endswith('/app/kit/__main__.py'))\n",
    ),
    ("kit/data.txt", "packaged\n"),
    (
        "kit/part.py",
        "import gc\ndef double(number):\n    return 2 * number\n\n\ndef fail():\n    raise ValueError('here')  # this line\n\n\ngc.set_threshold(900, 9, 9)\nOWN = gc.get_threshold()\n",
    ),
    ("space/inner.py", "VALUE = 'inner'\n"),
    ("unread.py", "VALUE = 'bundled'\n"),
    ("rare_top.py", ""),
];

#[test]
fn modules_say_the_same_of_themselves_as_without_the_quick_start() {
    let workspace = Workspace::new(PROJECT);
    workspace.build();
    let program: PathBuf = workspace.out().join("bin/project");
    let quick = stdout(&start(&program, false, &[]));
    let plain = stdout(&start(&program, true, &[]));
    // Only a changed list of hooks shows Python's own loader in both.
    assert_eq!(quick, plain);
    for expected in [
        "file app/kit/part.py kit kit",
        "source def double(number): True",
        "raise ValueError('here')  # this line",
        "namespace ['space', 'space'] inner NamespaceLoader",
        "-m __main__ kit.__main__ ['a'] True",
        "spawn 4",
        "child 42 True",
        "late 1 2 1",
        "first mine",
        "again bundled",
        "no path No module named 'rare_top'",
        "hooks SourceFileLoader",
        "set (900, 9, 9) True",
        "-O False",
    ] {
        assert!(quick.contains(expected), "{expected} in {quick}");
    }
}

const END: &str = r#"
import sys
objects = [[number] for number in range(30_000)]
kind = sys.argv[1]
import _pytheas, gc, atexit


class Cycle:
    def __init__(self):
        self.me = self


class Ends(Cycle):
    def __del__(self):
        print("ended", gc.get_freeze_count() > 0)


class Keeper:
    pass


if kind == "object":
    Keeper.it = Ends()
elif kind == "file":
    Keeper.it = open(sys.argv[2], "w")
    Keeper.it.write("kept")
elif kind == "generator":
    def steps():
        try:
            yield
        finally:
            print("finally")
    Keeper.it = steps()
    next(Keeper.it)
elif kind == "quiet":
    # Runs after the module's own, which was registered first of all.
    Keeper.it = Cycle()
    atexit.unregister(_pytheas._leave)
    atexit.register(lambda: print("frozen", gc.get_freeze_count() > 20_000))
    atexit.register(_pytheas._leave)
"#;

#[test]
fn what_an_object_does_at_its_end_is_done() {
    let workspace = Workspace::new(&[("requirements.txt", ""), ("main.py", END)]);
    workspace.build();
    let program = workspace.out().join("bin/project");
    let file = workspace.root().join("written");
    let path = file.display().to_string();
    for is_plain in [false, true] {
        let run = |kind| stdout(&start(&program, is_plain, &[kind, &path]));
        assert_eq!(run("object"), "ended False\n");
        assert_eq!(run("generator"), "finally\n");
        assert_eq!(run("file"), "");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
        std::fs::remove_file(&file).unwrap();
    }
    let quiet = stdout(&start(&program, false, &["quiet", &path]));
    assert_eq!(quiet, "frozen True\n");
}

#[test]
fn byte_code_that_was_changed_is_not_taken_for_what_was_built() {
    let workspace = Workspace::new(&[
        ("requirements.txt", ""),
        ("main.py", "import part\nprint(part.VALUE)\n"),
        ("part.py", "VALUE = 'built'\n"),
    ]);
    workspace.build();
    let program = workspace.out().join("bin/project");
    assert_eq!(stdout(&start(&program, false, &[])), "built\n");
    let cache = workspace.out().join("app/__pycache__");
    std::fs::remove_dir_all(&cache).unwrap();
    assert_eq!(stdout(&start(&program, false, &[])), "built\n");
}

const COMPILED: &[(&str, &str)] = &[
    ("requirements.txt", "idna\n"),
    (
        "main.py",
        "import os, idna, kit, kit.part\nprint(kit.part.VALUE, [os.path.splitext(m.__file__)[1] for m in (idna, kit, kit.part)], os.path.basename(str(kit.part.__cached__)))\n",
    ),
    ("kit/__init__.py", ""),
    ("kit/part.py", "VALUE = {'a', 'b', '*'} and '*'\n"),
    ("kit/old.py", "print 'two'\n"),
];

#[test]
fn byte_code_of_an_earlier_build_is_that_of_a_new_one_and_a_damaged_one_is_made_again() {
    let workspace = Workspace::new(COMPILED);
    let cache = workspace.root().join("cache");
    let mut request = workspace.request();
    request.environment = request
        .environment
        .clone()
        .with("PYTHEAS_CACHE_DIR", &cache);
    let shared = crate::support::environment().cache_dir();
    std::fs::create_dir_all(&cache).unwrap();
    for part in ["tools", "wheels", "interpreters"] {
        let _ = std::os::unix::fs::symlink(shared.join(part), cache.join(part));
    }
    let packs = || -> Vec<PathBuf> {
        let files = |dir: &Path| -> Vec<PathBuf> {
            let children = std::fs::read_dir(dir).into_iter().flatten().flatten();
            children.map(|child| child.path()).collect()
        };
        let mut all: Vec<PathBuf> = files(&cache.join("bytecode"))
            .iter()
            .flat_map(|dir| files(dir))
            .collect();
        all.sort();
        all
    };
    let anew = crate::support::built(&request);
    let first = packs();
    assert!(first.len() >= 4, "idna, kit, main, _pytheas: {first:?}");
    let kept = crate::support::built(&request);
    assert_eq!(kept.tree_id, anew.tree_id);
    assert_eq!(kept.warnings, anew.warnings);
    assert!(
        kept.warnings
            .iter()
            .any(|text| text.contains("`app/kit/old.py` does not compile")),
        "{:?}",
        kept.warnings
    );
    assert_eq!(packs(), first);
    let mut all = request.clone();
    all.environment = all.environment.clone().with("PYTHEAS_COMPILE_ANEW", "1");
    assert_eq!(crate::support::built(&all).tree_id, anew.tree_id);

    for pack in &first {
        let mut bytes = std::fs::read(pack).unwrap();
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        pytheas_durable::replace(pack, &bytes).unwrap();
    }
    assert_eq!(crate::support::built(&request).tree_id, anew.tree_id);

    workspace.write("kit/part.py", "VALUE = 'new'\n");
    crate::support::built(&request);
    let program = workspace.out().join("bin/project");
    assert!(stdout(&start(&program, false, &[])).starts_with("new "));
    assert_eq!(packs().len(), first.len() + 1);
}

#[test]
fn a_bundle_may_hold_only_byte_code_or_none() {
    let workspace = Workspace::new(COMPILED);
    workspace.write(
        "pyproject.toml",
        "[project]\nname = 'project'\nversion = '1'\ndependencies = ['idna']\n[tool.pytheas]\nentry = 'main.py'\n[tool.pytheas.target.only]\nbytecode = 'only'\n[tool.pytheas.target.none]\nbytecode = 'none'\n",
    );
    let mut request = workspace.request();
    let mut shown = |target: Option<&str>| {
        request.target = target.map(ToOwned::to_owned);
        let built = crate::support::built(&request);
        let count = |end: &str| {
            let names = built.tree.iter().map(|(path, _)| path.as_str());
            names
                .filter(|name| !name.contains("python3.") || name.contains("/idna/"))
                .filter(|name| name.ends_with(end))
                .count()
        };
        let program = workspace.out().join("bin/project");
        let said = stdout(&start(&program, false, &[]));
        (said, count(".py"), count(".pyc") > 0, built.size_bytes)
    };
    let (said, _, has_code, whole) = shown(None);
    assert!(
        said.starts_with("* ['.py', '.py', '.py'] part.cpython"),
        "{said}"
    );
    assert!(has_code);
    let (said, sources, has_code, only) = shown(Some("only"));
    assert!(
        said.starts_with("* ['.pyc', '.pyc', '.pyc'] part.pyc"),
        "{said}"
    );
    // The script that is started, and what does not compile.
    assert_eq!((sources, has_code), (2, true));
    let (said, _, has_code, none) = shown(Some("none"));
    assert!(said.starts_with("* ['.py', '.py', '.py'] "), "{said}");
    assert!(!has_code);
    assert!(none < only && only < whole, "{none} {only} {whole}");
}
