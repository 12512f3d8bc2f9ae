//! Whole graphs, over small trees of files.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::*;

fn put(root: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        pytheas_durable::replace(&path, text.as_bytes()).unwrap();
    }
}

fn graph(files: &[(&str, &str)], start: Start) -> Graph {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), files);
    let root = |name: &str, origin| Root {
        dir: dir.path().join(name),
        origin,
    };
    Graph::build(&Start {
        roots: vec![
            root("app", Origin::App),
            root("site", Origin::Package),
            root("stdlib", Origin::Stdlib),
        ],
        scripts: start
            .scripts
            .iter()
            .map(|script| dir.path().join(script))
            .collect(),
        ..start
    })
}

fn from(module: &str) -> Start {
    Start {
        modules: vec![module.to_owned()],
        ..Start::default()
    }
}

#[track_caller]
fn check(graph: &Graph, reached: &[&str], unreached: &[&str]) {
    for name in reached {
        assert!(
            graph.reached.contains_key(*name),
            "`{name}` is not reached: {:?}",
            graph.reached.keys()
        );
    }
    for name in unreached {
        assert!(
            !graph.reached.contains_key(*name),
            "`{name}` is reached: {:?}",
            graph.chain(name)
        );
    }
}

#[test]
fn imports_are_followed_through_packages_and_namespaces() {
    let graph = graph(
        &[
            (
                "app/main.py",
                "import a.b\nfrom space.part import x\nfrom c import *\n",
            ),
            ("site/a/__init__.py", ""),
            ("site/a/b.py", "from . import d\nfrom .e import f\n"),
            ("site/a/d.py", ""),
            ("site/a/e.py", "def g():\n    import lazy\n"),
            ("site/a/unused.py", ""),
            ("site/space/part.py", ""),
            ("site/space/other.py", ""),
            ("site/c/__init__.py", "__all__ = ['one']\n"),
            ("site/c/one.py", ""),
            ("site/c/two.py", ""),
            ("site/lazy.py", ""),
            ("stdlib/json/__init__.py", ""),
        ],
        from("main"),
    );
    check(
        &graph,
        &[
            "main",
            "a",
            "a.b",
            "a.d",
            "a.e",
            "lazy",
            "space",
            "space.part",
            "c",
            "c.one",
        ],
        &["a.unused", "space.other", "c.two", "json"],
    );
    let chain: Vec<String> = graph
        .chain("lazy")
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(chain, ["main", "a.b", "a.e", "lazy"]);
    assert_eq!(
        graph.reached["lazy"],
        Reason::Import {
            by: "a.e".to_owned(),
            line: 2,
            lazy: true
        }
    );
    assert!(graph.chain("json").is_empty());
}

#[test]
fn what_is_only_for_checkers_or_scripts_is_not_reached() {
    let graph = graph(
        &[
            (
                "app/main.py",
                "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import checked\nimport lib\nif __name__ == '__main__':\n    import own\n",
            ),
            ("app/own.py", ""),
            ("site/checked.py", ""),
            (
                "site/lib.py",
                "if __name__ == '__main__':\n    import shown\n",
            ),
            ("site/shown.py", ""),
        ],
        from("main"),
    );
    check(&graph, &["main", "lib", "own"], &["checked", "shown"]);
}

#[test]
fn names_in_strings_and_beginnings_of_names_are_followed() {
    let graph = graph(
        &[
            (
                "app/main.py",
                "import server, drivers, lazy\nRUN = 'server.loops.auto:setup'\nserver.load('drivers')\nX = 'json.tool'\n",
            ),
            (
                "site/server/__init__.py",
                "def load(x):\n    return importlib.import_module(x)\n",
            ),
            ("site/server/loops/__init__.py", ""),
            ("site/server/loops/auto.py", ""),
            ("site/server/loops/other.py", ""),
            (
                "site/drivers/__init__.py",
                "def get(name):\n    return import_module(f'drivers.db_{name}')\n",
            ),
            ("site/drivers/db_a.py", ""),
            ("site/drivers/plain.py", ""),
            (
                "site/lazy/__init__.py",
                "_parts = {'Thing': '.things'}\ndef __getattr__(name):\n    return import_module(_parts[name], __name__)\n",
            ),
            ("site/lazy/things.py", ""),
            ("site/lazy/rest.py", ""),
        ],
        from("main"),
    );
    check(
        &graph,
        // Beside an import that cannot be decided, everything of the package is kept.
        &[
            "server.loops.auto",
            "server.loops.other",
            "drivers.db_a",
            "lazy.things",
            "lazy.rest",
        ],
        &["drivers.plain"],
    );
    let undecided: Vec<(String, u32)> = graph
        .undecided
        .iter()
        .map(|at| (at.module.clone(), at.line))
        .collect();
    assert_eq!(
        undecided,
        [("lazy".to_owned(), 3), ("server".to_owned(), 2)]
    );
}

#[test]
fn plug_ins_are_reached_by_their_group_and_kept_modules_by_their_name() {
    let plugin = |group: &str, module: &str| Plugin {
        group: group.to_owned(),
        name: "x".to_owned(),
        module: module.to_owned(),
        distribution: "dist".to_owned(),
    };
    let graph = graph(
        &[
            (
                "app/main.py",
                "for p in entry_points(group='app.plugins'): p.load()\n",
            ),
            ("site/one.py", "import deep\n"),
            ("site/two.py", ""),
            ("site/deep.py", ""),
            ("site/kept/__init__.py", ""),
            ("site/kept/inner.py", ""),
            ("site/kept/tests/__init__.py", ""),
        ],
        Start {
            plugins: vec![plugin("app.plugins", "one"), plugin("other.plugins", "two")],
            keep: vec!["kept.*".to_owned()],
            ..from("main")
        },
    );
    check(
        &graph,
        &["one", "deep", "kept", "kept.inner"],
        &["two", "kept.tests"],
    );
}

#[test]
fn only_what_the_program_comes_to_by_itself_is_certain() {
    let graph = graph(
        &[
            (
                "app/main.py",
                "import importlib\nfrom exports import plain\ndef run(name):\n    from later import web\n    importlib.import_module('exports.to_' + name)\nif x:\n    import conditional\nuvicorn.run('named.app:app')\n",
            ),
            (
                "app/exports/__init__.py",
                "try:\n    from . import fast\nexcept ImportError:\n    from . import slow\n",
            ),
            ("app/exports/plain.py", ""),
            ("app/exports/fast.py", "import nofast\n"),
            ("app/exports/slow.py", "import noslow\n"),
            ("app/exports/to_kafka.py", "import kafka\n"),
            ("app/later/__init__.py", ""),
            ("app/later/web.py", "import fastapi\n"),
            ("app/named/__init__.py", ""),
            ("app/named/app.py", "import starlette\n"),
            ("app/conditional.py", "import windows\n"),
        ],
        Start {
            scripts: vec!["app/main.py".into()],
            ..Start::default()
        },
    );
    let certain = |name: &str| {
        let missing = graph.missing.iter().find(|missing| missing.name == name);
        let missing = missing.unwrap_or_else(|| panic!("{name}: {:?}", graph.missing));
        assert!(!missing.optional, "{name}");
        graph.certain.contains(&missing.by)
    };
    assert!(certain("fastapi") && certain("starlette"));
    for name in ["nofast", "noslow", "kafka", "windows"] {
        assert!(!certain(name), "{name}");
    }
}

#[test]
fn a_missing_module_is_told_with_its_place() {
    let graph = graph(
        &[(
            "app/main.py",
            "import sys, nothere\ntry:\n    import maybe\nexcept ImportError:\n    maybe = None\n",
        )],
        Start {
            scripts: vec!["app/main.py".into()],
            ..Start::default()
        },
    );
    let missing: Vec<(String, u32, bool)> = graph
        .missing
        .iter()
        .map(|missing| (missing.name.clone(), missing.line, missing.optional))
        .collect();
    assert_eq!(
        missing,
        [
            ("maybe".to_owned(), 3, true),
            ("nothere".to_owned(), 1, false)
        ]
    );
    assert_eq!(graph.reached["__main__"], Reason::Entry);
}

#[test]
fn a_circle_of_imports_ends() {
    let graph = graph(
        &[("app/a.py", "import b\n"), ("app/b.py", "import a, a.c\n")],
        from("a"),
    );
    check(&graph, &["a", "b"], &[]);
    assert_eq!(graph.chain("b").len(), 2);
}

#[test]
fn a_string_that_names_a_class_reaches_its_module() {
    let graph = graph(
        &[
            (
                "app/main.py",
                "config = {'()': 'colours.Formatter', 'x': 'green.Light.On', 'y': 'plain.word'}\n",
            ),
            ("site/colours/__init__.py", ""),
            ("site/green.py", ""),
            ("site/plain.py", ""),
        ],
        from("main"),
    );
    // A name that begins with an installed module names it, whatever follows.
    check(&graph, &["colours", "green", "plain"], &[]);
}

#[test]
fn copies_of_packages_in_a_vendor_folder_are_imported_by_their_own_names() {
    let graph = graph(
        &[
            ("app/main.py", "import poetry.core.parser"),
            ("site/poetry/core/__init__.py", ""),
            ("site/poetry/core/parser.py", "from lark import Lark, tools"),
            (
                "site/poetry/core/_vendor/lark/__init__.py",
                "from lark.lark import Lark",
            ),
            ("site/poetry/core/_vendor/lark/lark.py", ""),
            ("site/poetry/core/_vendor/lark/tools.py", ""),
            ("site/poetry/core/_vendor/unused/__init__.py", ""),
        ],
        from("main"),
    );
    check(
        &graph,
        &[
            "poetry.core._vendor.lark.lark",
            "poetry.core._vendor.lark.tools",
        ],
        &["poetry.core._vendor.unused"],
    );
    assert!(graph.missing.is_empty(), "{:?}", graph.missing);
}

#[test]
fn pkg_resources_imports_the_copies_of_setuptools() {
    let graph = graph(
        &[
            ("app/main.py", "import pkg_resources"),
            ("site/pkg_resources/__init__.py", "import packaging.markers"),
            ("site/setuptools/__init__.py", "import packaging"),
            ("site/setuptools/_vendor/packaging/__init__.py", ""),
            ("site/setuptools/_vendor/packaging/markers.py", ""),
        ],
        from("main"),
    );
    check(&graph, &["setuptools._vendor.packaging.markers"], &[]);
    assert!(graph.missing.is_empty(), "{:?}", graph.missing);
}

#[test]
fn a_program_with_the_name_of_a_package_imports_the_package() {
    let graph = graph(
        &[
            ("app/bin/tool.py", "import tool"),
            ("site/tool/__init__.py", "from tool.image import x"),
            ("site/tool/image.py", "import hexes"),
            ("site/hexes.py", ""),
        ],
        Start {
            scripts: vec!["app/bin/tool.py".into()],
            ..Start::default()
        },
    );
    check(&graph, &["tool.image", "hexes"], &[]);
}

#[test]
fn a_library_that_is_opened_by_its_path_is_no_module() {
    let graph = graph(
        &[
            ("app/main.py", "import packs"),
            (
                "site/packs/__init__.py",
                "from cffi import FFI\nlib = FFI().dlopen('native.so')",
            ),
            ("site/packs/native.so", "\x7fELF pack_open"),
            ("site/packs/fast.so", "\x7fELF PyInit_fast"),
        ],
        from("main"),
    );
    assert!(graph.modules.contains_key("packs.fast"));
    assert!(!graph.modules.contains_key("packs.native"));
}

#[test]
fn a_plug_in_brings_all_of_its_distribution_and_only_when_its_group_is_named() {
    let plugin = |group: &str, module: &str| Plugin {
        group: group.to_owned(),
        name: module.to_owned(),
        module: module.to_owned(),
        distribution: module.to_owned(),
    };
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let graph = graph(
        &[
            ("app/main.py", "load('themes')"),
            ("site/alabaster/__init__.py", ""),
            ("site/alabaster/support.py", ""),
            ("site/other/__init__.py", ""),
            ("site/other/late.py", ""),
        ],
        Start {
            plugins: vec![plugin("themes", "alabaster"), plugin("sounds", "other")],
            distributions: [
                (
                    "alabaster".to_owned(),
                    list(&["alabaster", "alabaster.support"]),
                ),
                ("other".to_owned(), list(&["other", "other.late"])),
            ]
            .into(),
            ..from("main")
        },
    );
    check(&graph, &["alabaster.support"], &["other", "other.late"]);
}

#[test]
fn names_in_the_data_of_a_reached_package_reach_modules_of_packages() {
    let dir = tempfile::tempdir().unwrap();
    put(
        dir.path(),
        &[("theme.conf", "style = green.styles.Dark\nlog = wave.x\n")],
    );
    let data = vec![dir.path().join("theme.conf")];
    let files = [
        ("app/main.py", "import theme"),
        ("site/theme.py", ""),
        ("site/green/__init__.py", ""),
        ("site/green/styles.py", ""),
        ("stdlib/wave.py", ""),
    ];
    let with = |top: &str| Start {
        data: [(top.to_owned(), data.clone())].into(),
        ..from("main")
    };
    check(&graph(&files, with("theme")), &["green.styles"], &["wave"]);
    check(&graph(&files, with("green")), &[], &["green"]);
}

#[test]
fn a_file_of_python_that_a_string_names_and_a_module_that_another_python_runs_are_reached() {
    let graph = graph(
        &[
            ("app/main.py", "import pump\nHELPER = 'helpers/own.py'\n"),
            ("app/helpers/own.py", "import of_own\n"),
            ("app/of_own.py", ""),
            (
                "site/pump/__init__.py",
                "import os, subprocess, sys\ndef go():\n    here = os.path.dirname(__file__)\n    subprocess.run([sys.executable, os.path.join(here, 'workers', 'valve.py')])\n    subprocess.run([sys.executable, '-m', 'maker', here])\n    open(f'{here}/forms/flow.py')\n",
            ),
            ("site/pump/workers/valve.py", "import late\n"),
            ("site/pump/forms/flow.py", ""),
            ("site/pump/unused.py", ""),
            ("site/late.py", ""),
            ("site/maker/__init__.py", ""),
            ("site/maker/__main__.py", "import of_maker\n"),
            ("site/of_maker.py", ""),
            ("site/other/valve.py", ""),
        ],
        from("main"),
    );
    check(
        &graph,
        &[
            "pump.workers.valve",
            "pump.forms.flow",
            "late",
            "helpers.own",
            "of_own",
        ],
        &["pump.unused", "other.valve"],
    );
}

#[test]
fn a_file_that_a_package_of_its_name_hides_is_followed_when_a_string_names_it() {
    let graph = graph(
        &[
            ("app/main.py", "import parts\nimport plain\n"),
            (
                "site/parts/__init__.py",
                "import sys\nfor p in sys.path:\n    load(p, 'parts.py')\n",
            ),
            ("site/parts.py", "import of_hidden\n"),
            ("site/of_hidden.py", ""),
            ("site/plain/__init__.py", ""),
            ("site/plain.py", "import of_plain\n"),
            ("site/of_plain.py", ""),
        ],
        from("main"),
    );
    check(&graph, &["parts", "of_hidden"], &["of_plain"]);
}

#[test]
fn a_folder_that_a_package_puts_on_the_path_is_searched_before_an_import_leads_to_nothing() {
    let graph = graph(
        &[
            (
                "site/tool/__init__.py",
                "import sys, time\nsys.path.insert(0, 'x')\nimport mock_service\n\
                 from helper import part\ntry:\n    import extra\nexcept ImportError:\n    extra = None\n\
                 def f():\n    import late, fixture\n",
            ),
            ("site/tool/copies/boto/tests/__init__.py", ""),
            (
                "site/tool/copies/boto/tests/mock_service.py",
                "import lonely",
            ),
            ("site/tool/lib/helper/__init__.py", ""),
            ("site/tool/lib/helper/part.py", ""),
            ("site/tool/lib/helper/unused.py", ""),
            ("site/tool/lib/extra.py", ""),
            ("site/tool/lib/late.py", ""),
            ("site/tool/lib/time.py", ""),
            ("site/tool/tests/__init__.py", ""),
            ("site/tool/tests/fixture.py", ""),
            ("site/lonely.py", ""),
            ("site/other/late.py", ""),
        ],
        from("tool"),
    );
    check(
        &graph,
        &[
            "tool.copies.boto.tests.mock_service",
            "tool.lib.helper.part",
            "tool.lib.late",
            "lonely",
        ],
        &[
            "tool.lib.helper.unused",
            "tool.lib.extra",
            "tool.lib.time",
            "tool.tests.fixture",
            "other.late",
        ],
    );
}

#[test]
fn an_app_s_modules_are_reached_in_folders_that_it_may_put_on_the_path() {
    let graph = graph(
        &[
            (
                "app/main.py",
                "import sys\nsys.path.append('lib')\nimport pump\nimport gone\n",
            ),
            ("app/lib/pump.py", "import serial"),
            ("site/serial/__init__.py", ""),
        ],
        from("main"),
    );
    check(&graph, &["lib.pump", "serial"], &[]);
    let missing: Vec<&str> = graph.missing.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(missing, ["gone", "pump"]);
}

#[test]
fn a_requirement_of_the_app_that_nothing_imports_is_kept_whole() {
    let files = &[
        ("site/tool.py", "import used"),
        ("site/used/__init__.py", ""),
        ("site/used/late.py", ""),
        ("site/formatter/__init__.py", "import beneath"),
        ("site/formatter/colours.py", ""),
        ("site/beneath.py", ""),
        ("site/stranger.py", ""),
    ];
    let distribution = |name: &str, modules: &[&str]| {
        let modules = modules.iter().map(|name| (*name).to_owned()).collect();
        (name.to_owned(), modules)
    };
    let graph = graph(
        files,
        Start {
            distributions: BTreeMap::from([
                distribution("used", &["used", "used.late"]),
                distribution("formatter", &["formatter", "formatter.colours"]),
                distribution("stranger", &["stranger"]),
            ]),
            required: BTreeSet::from(["used".to_owned(), "formatter".to_owned()]),
            ..from("tool")
        },
    );
    check(
        &graph,
        &["formatter.colours", "beneath"],
        &["used.late", "stranger"],
    );
}

#[test]
fn a_file_that_is_run_by_its_path_has_its_imports_followed() {
    let dir = tempfile::tempdir().unwrap();
    let mib = (
        "site/snmp/mibs/SNMP-v2.py",
        "from snmp import cache\nfrom . import near\n",
    );
    put(dir.path(), &[mib]);
    let graph = graph(
        &[
            ("site/snmp/__init__.py", ""),
            ("site/snmp/cache.py", ""),
            ("site/snmp/debug.py", ""),
            ("site/snmp/mibs/__init__.py", ""),
            ("site/snmp/mibs/near.py", ""),
            ("site/other/__init__.py", ""),
        ],
        Start {
            unspelt: BTreeMap::from([
                (
                    "snmp".to_owned(),
                    vec![("snmp.mibs.SNMP-v2".to_owned(), dir.path().join(mib.0))],
                ),
                (
                    "unreached".to_owned(),
                    vec![("unreached.a-b".to_owned(), dir.path().join(mib.0))],
                ),
            ]),
            ..from("snmp")
        },
    );
    check(
        &graph,
        &["snmp.cache", "snmp.mibs.near"],
        &["snmp.debug", "other"],
    );
}
