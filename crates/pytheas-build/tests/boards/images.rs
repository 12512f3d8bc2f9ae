//! Images: what is inside, what is refused, and that MicroPython runs them.

use std::{fs, path::Path, process::Command};

use pytheas_build::{
    BuildRequest,
    micropython::{
        CompileOptions, Compiler, MpyCross, Why, build_board, check_board, compile_tree, read_lines,
    },
};
use pytheas_project::Connectivity;
use pytheas_release::board;
use testkit::board::Rig;

use crate::support::{Workspace, environment, run, shown};

const TARGET: &str = "[project]\nname = 'node'\nversion = '1.2'\n[tool.pytheas.target.node]\nform = 'micropython'\nentry = 'node.main:run'\n";
const MAIN: &str =
    "from . import sensor\ndef run():\n    print('read', sensor.read())\n    sensor.fail(2)\n";
const SENSOR: &str = "def read():\n    return 42\n\ndef fail(n):\n    if n:\n        return fail(n - 1)\n    raise ValueError('broken')\n";

fn files<'a>(main: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut files = vec![
        ("pyproject.toml", TARGET),
        ("src/node/__init__.py", ""),
        ("src/node/main.py", main),
        ("src/node/sensor.py", SENSOR),
    ];
    files.extend(more);
    files
}

#[test]
fn an_image_holds_what_imports_reach_and_micropython_runs_it() {
    let with_packages =
        format!("{TARGET}[tool.pytheas.micropython]\ndependencies = ['microdot>=2,<3']\n");
    let main = "from microdot import Microdot\nfrom .sensor import read\ndef run():\n    app = Microdot()\n    app.get('/')(lambda request: 'hi')\n    print('routes', len(app.url_map), read())\n";
    let mut files = files(
        main,
        &[
            ("src/node/unused.py", "import nothing_like_it\n"),
            ("src/node/page.html", "<html>"),
            ("src/logo.png", "x"),
            ("tests/test_node.py", "import pytest\n"),
        ],
    );
    files[0].1 = &with_packages;
    let workspace = Workspace::new(&files);
    let built = workspace.build();
    let kept: Vec<&str> = built
        .report
        .kept
        .iter()
        .map(|one| one.path.as_str())
        .collect();
    assert_eq!(
        kept,
        [
            "microdot/__init__.mpy",
            "microdot/microdot.mpy",
            "node/__init__.mpy",
            "node/main.mpy",
            "node/sensor.mpy",
            "node/page.html"
        ]
    );
    let dropped = |path: &str| {
        built
            .report
            .dropped
            .iter()
            .find(|one| one.path == path)
            .unwrap()
    };
    assert_eq!(dropped("src/node/unused.py").why, "nothing imports it");
    assert_eq!(dropped("microdot/session.py").from, "microdot");
    assert!(dropped("src/logo.png").why.contains("`include`"));
    let chain = built.report.chain("microdot.microdot");
    assert_eq!(
        chain.iter().map(|(module, _)| *module).collect::<Vec<_>>(),
        ["microdot.microdot", "microdot", "node.main"]
    );
    assert_eq!(*chain[2].1, Why::Entry);

    let image = fs::read(built.dir.join("app.romfs")).unwrap();
    let read = board::read(&image).unwrap();
    assert_eq!(read.manifest.entry, "node.main:run");
    assert_eq!(read.manifest.platform.as_str(), "micropython-any");
    assert_eq!(read.manifest.mpy, Some(6));
    assert_eq!(read.signatures, []);
    assert_eq!(built.record.entry.as_str(), "app.romfs");

    // The lock holds, and a second build elsewhere gives the same.
    let again = BuildRequest {
        out: Some(workspace.root().join("again")),
        lock: pytheas_build::LockMode::Locked,
        ..workspace.request()
    };
    assert_eq!(build_board(&again, &|_| {}).unwrap().tree_id, built.tree_id);

    let Some(unix) = Rig::find().and_then(|rig| rig.unix()) else {
        return;
    };
    let image = workspace.root().join("app.romfs");
    fs::copy(built.dir.join("app.romfs"), &image).unwrap();
    assert_eq!(run(&unix, &image, &read.manifest.entry), "routes 1 42\n");
}

#[test]
fn tracebacks_of_stripped_code_are_led_back_to_its_lines() {
    let workspace = Workspace::new(&files(MAIN, &[]));
    let stripped = format!("{TARGET}optimize = 3\n");
    workspace.write("project/pyproject.toml", stripped.as_bytes());
    let built = workspace.build();
    let lines = read_lines(&built.dir).unwrap();
    let Some(unix) = Rig::find().and_then(|rig| rig.unix()) else {
        return;
    };
    let image = workspace.root().join("app.romfs");
    fs::copy(built.dir.join("app.romfs"), &image).unwrap();
    let said = run(&unix, &image, "node.main:run");
    assert!(
        said.contains("File \"node/main.py\", line 1, in run"),
        "{said}"
    );
    let mapped = lines.map_traceback(&said);
    let frames: Vec<&str> = mapped
        .lines()
        .filter(|line| line.contains("src/"))
        .collect();
    assert_eq!(
        frames,
        [
            "  File \"src/node/main.py\", line 4, in run",
            "  File \"src/node/sensor.py\", line 6, in fail",
            "  File \"src/node/sensor.py\", line 6, in fail",
            "  File \"src/node/sensor.py\", line 5-7, in fail"
        ]
    );
}

#[test]
fn native_code_decides_the_platform_and_needs_one() {
    let native = "import micropython\n@micropython.native\ndef run():\n    return 1\n";
    let workspace = Workspace::new(&files(native, &[]));
    insta::assert_snapshot!(workspace.refused(), @r#"
    `src/node/main.py:2` does not compile: SyntaxError: invalid arch
    help: it has native or viper code: name the board (`board = "…"`) or its architecture (`platform = "micropython-<arch>"`) in the target
    "#);
    workspace.write(
        "project/pyproject.toml",
        format!("{TARGET}board = 'RPI_PICO2'\n").as_bytes(),
    );
    assert_eq!(
        workspace.build().manifest.platform.as_str(),
        "micropython-armv7emsp"
    );

    workspace.write(
        "project/pyproject.toml",
        format!("{TARGET}board = 'RPI_PICO'\nplatform = 'micropython-xtensawin'\n").as_bytes(),
    );
    insta::assert_snapshot!(workspace.refused(), @r#"
    `platform = micropython-xtensawin` does not fit `board = "RPI_PICO"`, which runs armv6m
    help: leave `platform` out: the board decides it
    "#);
}

#[test]
fn compiled_modules_of_others_must_fit_the_board() {
    let main = "import ready\ndef run():\n    pass\n";
    let workspace = Workspace::new(&files(main, &[]));
    workspace.write("project/lib/ready.mpy", b"M\x05\x00\x1f");
    insta::assert_snapshot!(workspace.refused(), @"
    `lib/ready.mpy` is no module
      the .mpy file has format version 5, MicroPython 1.19 and later read 6
    help: the file is damaged, or was made for MicroPython before 1.19; take the package's source instead
    ");
    // Header, no constants, the source's name; then the code of an empty module.
    let compiler = compiler();
    let source = pytheas_build::micropython::Source {
        name: "ready.py".to_owned(),
        bytes: b"import micropython, helper\n@micropython.native\ndef f():\n    return 1\n"
            .to_vec(),
    };
    let options = CompileOptions {
        arch: pytheas_build::micropython::board("ESP32_GENERIC")
            .unwrap()
            .arch,
        optimize: 0,
    };
    let mpy = compiler.compile(&[source], options).unwrap().remove(0);
    workspace.write("project/lib/ready.mpy", &mpy);
    workspace.write("project/lib/helper.py", b"");
    workspace.write(
        "project/pyproject.toml",
        format!("{TARGET}board = 'RPI_PICO'\n").as_bytes(),
    );
    insta::assert_snapshot!(workspace.refused(), @"
    `ready.mpy` cannot run on the board
      the file has native code for xtensawin, the board runs armv6m
    help: take the package's source instead; with native code inside, name the `board` in the target
    ");
    workspace.write(
        "project/pyproject.toml",
        format!("{TARGET}board = 'ESP32_GENERIC'\n").as_bytes(),
    );
    let built = workspace.build();
    assert_eq!(built.manifest.platform.as_str(), "micropython-xtensawin");
    // Its imports were read from its bytecode.
    assert!(built.report.kept.iter().any(|one| one.path == "helper.mpy"));
}

#[test]
fn what_the_board_lacks_is_named_with_its_place_and_something_instead() {
    let main = "import logging\nfrom threading import Thread\ntry:\n    import orjson\nexcept ImportError:\n    orjson = None\nif TYPE_CHECKING:\n    import numpy\ndef run():\n    import statistics\n";
    let workspace = Workspace::new(&files(main, &[]));
    insta::assert_snapshot!(workspace.refused(), @"
    the board would lack `logging` (imported by src/node/main.py:1), `threading` (imported by src/node/main.py:2)
    help: instead of `logging`: `logging` of mip, or print: `pytheas board logs` shows it
    instead of `threading`: `threading` of mip, or asyncio, or _thread
    packages are named in `dependencies` of `[tool.pytheas.micropython]`, modules that this firmware has in its `firmware-modules`
    ");
    let check = check_board(&workspace.request(), false, &|_| {}).unwrap();
    let missing: Vec<String> = check
        .report
        .missing
        .iter()
        .map(|one| format!("{} {} {:?}", one.module, one.place(), one.when))
        .collect();
    insta::assert_debug_snapshot!(missing, @r#"
    [
        "logging src/node/main.py:1 Always",
        "threading src/node/main.py:2 Always",
        "orjson src/node/main.py:4 Perhaps",
        "statistics src/node/main.py:10 Later",
    ]
    "#);
    // A module of the firmware, or one that the project brings.
    workspace.write("project/lib/logging.py", b"");
    workspace.write(
        "project/pyproject.toml",
        format!("{TARGET}[tool.pytheas.micropython]\nfirmware-modules = ['threading']\n")
            .as_bytes(),
    );
    let built = workspace.build();
    insta::assert_debug_snapshot!(built.warnings, @r#"
    [
        "the board lacks `statistics`, which src/node/main.py:10 imports when a function is called",
    ]
    "#);
}

#[test]
fn bad_projects_are_refused_with_help() {
    let workspace = Workspace::new(&files(MAIN, &[]));
    let mut said = Vec::new();
    for (more, entry) in [
        ("", "node.mian:run"),
        ("", "node.main:start"),
        ("board = 'ESP32_GENERIC_S4'\n", "node.main:run"),
        ("platform = 'linux-x86_64'\n", "node.main:run"),
        ("optimize = 4\n", "node.main:run"),
        ("micropython = 'new'\n", "node.main:run"),
        ("budget = '500 B'\n", "node.main:run"),
        ("budgets = { app = '10 B' }\n", "node.main:run"),
    ] {
        let text = format!("{}{more}", TARGET.replace("node.main:run", entry));
        workspace.write("project/pyproject.toml", text.as_bytes());
        said.push(workspace.refused());
        assert!(!workspace.root().join("out").exists());
    }
    insta::assert_snapshot!(said.join("\n--\n"), @r#"
    the entry point `node.mian:run` names the module `node.mian`, which is not there; did you mean `node.main`?
    help: write `entry = "module:function"` in the target; the module is looked for in the project, its `src` and its `lib`
    --
    the entry point `node.main:start` names `start`, which `src/node/main.py` does not define
    help: write `entry = "module:function"` in the target; the module is looked for in the project, its `src` and its `lib`
    --
    no board `ESP32_GENERIC_S4` is known
    help: did you mean `ESP32_GENERIC_P4`? else give `platform = "micropython-<arch>"` instead of `board`, with the architecture that `pytheas board info` shows
    --
    `linux-x86_64` is no platform of boards
    help: write `micropython-any`, or `micropython-<arch>` with an architecture of `mpy-cross -march`, such as `armv6m`, `armv7m`, `xtensawin` or `rv32imc`
    --
    `optimize = 4` is no level of mpy-cross
    help: write 0 (everything), 1 or 2 (without `assert`) or 3 (without line numbers, too)
    --
    `micropython = new` is no version
    help: write the oldest MicroPython that will do, e.g. `1.25`
    --
    the result has 1.5 kB, 952 B more than the budget of 500 B
    help: largest parts: `node/main.mpy` 100 B, `node/sensor.mpy` 94 B, `node/__init__.mpy` 31 B
    --
    `app` has 225 B, 215 B more than its budget of 10 B
    help: largest parts: `node/main.mpy` 100 B, `node/sensor.mpy` 94 B, `node/__init__.mpy` 31 B; `pytheas check` names lighter packages, `slim = true` leaves out what nothing reaches
    "#);
    workspace.write("project/pyproject.toml", TARGET.as_bytes());
    workspace.write("project/src/node/sensor.py", b"def f(:\n");
    insta::assert_snapshot!(workspace.refused(), @"
    `src/node/sensor.py:1` does not compile: SyntaxError: invalid syntax
    help: MicroPython knows most of Python 3.4 and parts of later versions; `match`, positional-only parameters and some others are not among them
    ");
}

#[test]
fn files_and_a_frozen_manifest_are_written_on_request() {
    let workspace = Workspace::new(&files(MAIN, &[]));
    workspace.write(
        "project/pyproject.toml",
        format!("{TARGET}also = ['files', 'frozen']\n").as_bytes(),
    );
    let built = workspace.build();
    assert!(built.dir.join("files/node/sensor.mpy").is_file());
    let Some(rig) = Rig::find() else { return };
    // MicroPython's own tool.
    let source = rig.dir().join("source");
    if !source.join("tools/makemanifest.py").is_file() {
        testkit::skip("MicroPython's source is not kept here");
        return;
    }
    let scratch = workspace.root().join("frozen");
    let names = "qstrdefs.preprocessed.h";
    let made = fs::read(source.join(names)).unwrap();
    workspace.write(&format!("frozen/genhdr/{names}"), &made);
    let output = Command::new("python3")
        .arg(source.join("tools/makemanifest.py"))
        .arg("-o")
        .arg(scratch.join("frozen_content.c"))
        .args(["-v", &format!("MPY_DIR={}", source.display())])
        .args(["-v", "PORT_DIR=.", "-v", "MPY_LIB_DIR=."])
        .arg("-b")
        .arg(&scratch)
        .arg(built.dir.join("manifest.py"))
        .env("MICROPY_MPYCROSS", &compiler().mpy_cross().program)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let content = fs::read_to_string(scratch.join("frozen_content.c")).unwrap();
    assert!(content.contains("node/sensor.py"));
}

#[test]
fn a_folder_is_compiled_without_a_project() {
    let workspace = Workspace::new(&[
        ("main.py", "print('start')\n"),
        ("app/__init__.py", ""),
        ("app/data.json", "{}"),
        (".git/config", ""),
        ("__pycache__/x.pyc", ""),
    ]);
    let dir = workspace.root().join("project");
    let options = CompileOptions::default();
    let files = compile_tree(&dir, &compiler(), options).unwrap();
    let paths: Vec<&str> = files.keys().map(|path| path.as_str()).collect();
    assert_eq!(paths, ["app/__init__.mpy", "app/data.json", "main.py"]);
    workspace.write("project/app/bad.py", b"x =\n");
    let error = compile_tree(&dir, &compiler(), options).unwrap_err();
    insta::assert_snapshot!(shown(&error.into()), @"
    `app/bad.py:1` does not compile: SyntaxError: invalid syntax
    help: MicroPython knows most of Python 3.4 and parts of later versions; `match`, positional-only parameters and some others are not among them
    ");
}

fn compiler() -> Compiler {
    let environment = environment();
    let found = MpyCross::find(&environment, Connectivity::Online, &|_| {});
    Compiler::new(found.unwrap(), &environment)
}

#[test]
fn a_named_mpy_cross_must_be_one() {
    let environment = environment().with("PYTHEAS_MPY_CROSS", "/bin/true");
    let error = MpyCross::find(&environment, Connectivity::Online, &|_| {}).unwrap_err();
    insta::assert_snapshot!(shown(&error.into()), @"
    `/bin/true` is no usable mpy-cross: it does not answer `--version` as mpy-cross does
    help: correct or unset `PYTHEAS_MPY_CROSS`
    ");
    let nowhere = environment.with("PYTHEAS_MPY_CROSS", "/nowhere/mpy-cross");
    assert!(MpyCross::find(&nowhere, Connectivity::Online, &|_| {}).is_err());
    assert!(Path::new("/bin/true").exists());
}

#[test]
fn what_importing_costs_is_measured_on_an_emulated_board() {
    let Some(rig) = Rig::find() else { return };
    if rig.firmware().is_none() || rig.unix().is_none() {
        return;
    }
    let main = "TABLE = bytearray(3000)\ndef run():\n    pass\n";
    let workspace = Workspace::new(&files(main, &[]));
    workspace.write(
        "project/pyproject.toml",
        format!("{TARGET}ram-budget = '2 kB'\nimport-budget = '1 M'\n").as_bytes(),
    );
    let request = BuildRequest {
        environment: environment().with("PYTHEAS_MICROPYTHON", rig.dir()),
        ..workspace.request()
    };
    let check = check_board(&request, true, &|_| {}).unwrap();
    if check
        .not_measured
        .iter()
        .any(|one| one.why.contains("not installed"))
    {
        testkit::skip("qemu-system-arm is not installed");
        return;
    }
    assert_eq!(check.not_measured, []);
    let [board, unix] = &check.costs[..] else {
        panic!("{:?}", check.costs);
    };
    assert_eq!((board.on, unix.on), ("qemu", "unix"));
    assert!((3000..5000).contains(&board.ram_bytes), "{board:?}");
    assert!(
        board.instructions.is_some_and(|count| count > 1000),
        "{board:?}"
    );
    let modules: Vec<&str> = board
        .modules
        .iter()
        .map(|one| one.module.as_str())
        .collect();
    assert_eq!(modules, ["node", "node.main"]);
    assert!(board.modules[1].ram_bytes >= 3000);
    // Instructions do not depend on how loaded this machine is.
    let again = check_board(&request, true, &|_| {}).unwrap();
    assert_eq!(again.costs[0].ram_bytes, board.ram_bytes);
    let error = build_board(&request, &|_| {}).unwrap_err();
    assert!(
        shown(&error).contains("the budget is 2 kB"),
        "{}",
        shown(&error)
    );
}
