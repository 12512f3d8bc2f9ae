//! The launcher that every bundle carries as `bin/<app>`, and the file that tells it what to start
//! (the format is described in `launcher/src/main.rs`).

/// The program, for the platform that `pytheas` itself runs on.
pub(crate) const LAUNCHER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/launcher"));
/// The same for other CPUs, as `cargo xtask launcher` writes it.
const MACHINE_CODE: &[(&str, &str)] = &[
    (
        "aarch64",
        include_str!("../../../launcher/machine/aarch64.hex"),
    ),
    ("armv7", include_str!("../../../launcher/machine/armv7.hex")),
    (
        "riscv64",
        include_str!("../../../launcher/machine/riscv64.hex"),
    ),
    (
        "x86_64",
        include_str!("../../../launcher/machine/x86_64.hex"),
    ),
];
/// The file beside `bin` that it reads.
pub(crate) const LAUNCH_FILE: &str = "pytheas.launch";

/// The program for the CPU `arch` (as in platform names); none when there is none.
pub(crate) fn machine_code(arch: &str) -> Option<Vec<u8>> {
    let own = match std::env::consts::ARCH {
        "arm" => "armv7",
        other => other,
    };
    if arch == own {
        return Some(LAUNCHER.to_vec());
    }
    let (_, text) = MACHINE_CODE.iter().find(|(name, _)| *name == arch)?;
    let digits: Vec<u8> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(str::bytes)
        .filter_map(|byte| (byte as char).to_digit(16))
        .filter_map(|digit| u8::try_from(digit).ok())
        .collect();
    Some(
        digits
            .chunks_exact(2)
            .map(|pair| pair[0] * 16 + pair[1])
            .collect(),
    )
}

/// One record of the launch file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    /// The program, relative to the bundle.
    Program(&'a str),
    /// An argument as it is.
    Argument(&'a str),
    /// An argument that is a path in the bundle.
    Path(&'a str),
    /// Variables that begin so are not passed on.
    Drop(&'a str),
    /// A variable that is set: `NAME=value`.
    Set(&'a str),
    /// A variable that is set unless it is there, to the first file that exists: `NAME=/a:b`.
    Default(&'a str),
    /// An argument, when a variable is set and not empty, which is then passed on: `NAME=argument`.
    When(&'a str),
    /// An argument: the path by which the launcher was started.
    Started,
    /// `PYTHEAS_ROOT` is passed on as it is.
    KeepRoot,
}

/// The file's content.
pub(crate) fn encode(records: &[Record<'_>]) -> Vec<u8> {
    let mut bytes = b"pytheas-launch 1\0".to_vec();
    for record in records {
        let (marker, text) = match record {
            Record::Program(text) => (b'!', text),
            Record::Argument(text) => (b'=', text),
            Record::Path(text) => (b'@', text),
            Record::Drop(text) => (b'-', text),
            Record::Set(text) => (b'+', text),
            Record::Default(text) => (b'*', text),
            Record::When(text) => (b'?', text),
            Record::Started => (b'~', &""),
            Record::KeepRoot => (b'%', &""),
        };
        bytes.push(marker);
        bytes.extend(text.bytes().filter(|byte| *byte != 0));
        bytes.push(0);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, path::Path, process::Command};

    use super::*;

    /// A bundle whose program is a shell script that shows what it got.
    fn bundle(root: &Path, records: &[Record<'_>]) {
        let put = |path: &str, bytes: &[u8]| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            pytheas_durable::replace(&path, bytes).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        };
        put("bin/app", LAUNCHER);
        put("show", b"#!/bin/sh\nfor a in \"$@\"; do echo \"[$a]\"; done\necho \"$PYTHEAS_ROOT|$A|$PYTHONHOME|$B\"\nexit 7\n");
        put(LAUNCH_FILE, &encode(records));
    }

    const RECORDS: &[Record<'_>] = &[
        Record::Program("show"),
        Record::Argument("-I"),
        Record::Path("app/main.py"),
        Record::Drop("PYTHON"),
        Record::Set("A=set"),
    ];

    #[test]
    fn it_starts_the_program_from_any_folder_and_path() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let deep = dir
            .join("a b")
            .join("ü".repeat(60))
            .join("x".repeat(200))
            .join("y".repeat(200));
        bundle(&deep, RECORDS);
        let link = dir.join("link");
        std::os::unix::fs::symlink(deep.join("bin/app"), &link).unwrap();
        for (program, cwd) in [
            (deep.join("bin/app"), &*dir),
            (link, Path::new("/")),
            ("./app".into(), &deep.join("bin")),
        ] {
            let output = Command::new(&program)
                .current_dir(cwd)
                .env_clear()
                .envs([
                    ("A", "old"),
                    ("PYTHONHOME", "/host"),
                    ("B", "kept"),
                    ("PYTHEAS_ROOT", "old"),
                ])
                .args(["one two", ""])
                .output()
                .unwrap();
            let root = deep.display();
            assert_eq!(
                String::from_utf8_lossy(&output.stdout),
                format!("[-I]\n[{root}/app/main.py]\n[one two]\n[]\n{root}|set||kept\n"),
                "{program:?} {output:?}"
            );
            assert_eq!(output.status.code(), Some(7));
        }
    }

    #[test]
    fn an_argument_is_added_when_its_variable_is_set_and_that_is_passed_on() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let records = [
            Record::Program("show"),
            Record::Drop("PYTHON"),
            Record::When("PYTHONHOME=-u"),
            Record::When("PYTHONDEVMODE=-Xdev"),
            Record::Argument("main.py"),
        ];
        bundle(&root, &records);
        let at = root.display();
        for (home, expected) in [
            ("1", format!("[-u]\n[main.py]\n{at}||1|\n")),
            ("", format!("[main.py]\n{at}|||\n")),
        ] {
            let output = Command::new(root.join("bin/app"))
                .env_clear()
                .envs([("PYTHONHOME", home), ("PYTHONDEVMODE_", "1")])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
        }
    }

    #[test]
    fn a_python_launcher_tells_its_own_path_and_keeps_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let records = [
            Record::Program("show"),
            Record::Started,
            Record::KeepRoot,
            Record::Default("A=/nowhere:show:other"),
            Record::Default("B=show"),
        ];
        bundle(&root, &records);
        let link = root.join("link");
        std::os::unix::fs::symlink("bin/app", &link).unwrap();
        let output = Command::new(&link)
            .env_clear()
            .envs([("PYTHEAS_ROOT", "/above"), ("B", "mine")])
            .output()
            .unwrap();
        let at = root.display();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            format!("[{at}/link]\n/above|{at}/show||mine\n")
        );
    }

    #[test]
    fn there_is_machine_code_for_each_cpu() {
        for (arch, machine) in [
            ("x86_64", 62_u8),
            ("aarch64", 183),
            ("armv7", 40),
            ("riscv64", 243),
        ] {
            let code = machine_code(arch).unwrap();
            assert_eq!((&code[..4], code[18]), (&b"\x7fELF"[..], machine), "{arch}");
        }
        assert_eq!(machine_code("z80"), None);
    }

    #[test]
    fn what_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let fails = |expected: &str| {
            let output = Command::new(root.join("bin/app"))
                .env_clear()
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stderr)
                .replace(&root.display().to_string(), "ROOT");
            assert_eq!((text.as_ref(), output.status.code()), (expected, Some(127)));
        };
        bundle(&root, &[Record::Program("python/bin/python3")]);
        fails(
            "pytheas: cannot start `ROOT/python/bin/python3`: no such file\n  help: install the bundle again\n",
        );
        pytheas_durable::replace(&root.join(LAUNCH_FILE), b"something else").unwrap();
        fails(
            "pytheas: `ROOT/pytheas.launch` is damaged or of another version\n  help: install the bundle again\n",
        );
        std::fs::remove_file(root.join(LAUNCH_FILE)).unwrap();
        fails(
            "pytheas: cannot read `ROOT/pytheas.launch`: no such file\n  help: the program must stay in the `bin` folder of its bundle; link to it instead of copying it\n",
        );
    }

    #[test]
    fn a_thousand_arguments_and_variables_are_passed_on() {
        let dir = tempfile::tempdir().unwrap();
        bundle(dir.path(), RECORDS);
        let output = Command::new(dir.path().join("bin/app"))
            .env_clear()
            .envs((0..1000).map(|n| (format!("V{n}"), "x".repeat(100))))
            .args((0..1000).map(|n| n.to_string()))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(text.lines().count(), 1003, "{output:?}");
    }
}
