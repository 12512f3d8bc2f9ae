//! What the launchers of an entry point `module:callable` start: the text of the start module, and
//! the archive behind the launcher's machine code.
//!
//! Some programs start themselves again as `[sys.executable, *sys.argv]`: reloaders (Django's,
//! tornado's, hupper's) and restarts. `sys.argv[0]` is what it is for a console script, the program
//! in `bin`, and here that is the launcher, which is no Python. But Python runs a zip archive that
//! holds a `__main__.py`, whatever stands before it: so the launcher has one behind its machine code.

use std::io::{self, Cursor, Write};

use zip::{CompressionMethod, DateTime, ZipWriter, write::SimpleFileOptions};

/// The expression that calls an entry point. `package:module.callable` imports the module, as
/// `from package import module` does.
pub(crate) fn call(module: &str, callable: &str) -> String {
    let first = callable.split('.').next().unwrap_or(callable);
    format!("__import__(\"{module}\", fromlist=[\"{first}\"]).{callable}()")
}

/// The start module: it calls an entry point. `sys.argv[0]` is what a console script would have,
/// since programs show it in their help.
pub(crate) fn text(name: &str, module: &str, callable: &str) -> String {
    format!(
        "# Written by pytheas: starts `{module}:{callable}`.\n\
         import os\n\
         import sys\n\
         \n\
         if __name__ == \"__main__\":\n    \
             root = os.path.dirname(os.path.abspath(__file__))\n    \
             sys.argv[0] = os.path.join(root, \"bin\", \"{name}\")\n    \
             sys.exit({})\n",
        call(module, callable)
    )
}

/// The modules that a start module imports, or may; none for another script.
pub(crate) fn modules(text: &str) -> Option<[String; 2]> {
    if !text.starts_with("# Written by pytheas") {
        return None;
    }
    let rest = text.split_once("__import__(\"")?.1;
    let (module, rest) = rest.split_once('"')?;
    let first = rest.split('"').nth(1)?;
    Some([module.to_owned(), format!("{module}.{first}")])
}

/// Runs the start module two folders above, as the launcher lets Python do, in this very module.
const MAIN: &str = "\
# Written by pytheas: `python bin/NAME` starts what `bin/NAME` does.
import os
import sys
sys.path.pop(0)
__file__ = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__)))), \"@START@\")
__spec__ = __loader__ = None
with open(__file__, \"rb\") as file:
    code = compile(file.read(), __file__, \"exec\")
del file
exec(code)
";

/// The launcher `code` with the archive behind it, which runs the file `start` of the launcher's root.
pub(crate) fn with_archive(mut code: Vec<u8>, start: &str) -> io::Result<Vec<u8>> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    // Not compressed, and of the earliest time there is: the same bytes each time, read without zlib.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default());
    writer.start_file("__main__.py", options)?;
    writer.write_all(MAIN.replace("@START@", start).as_bytes())?;
    code.extend(writer.finish()?.into_inner());
    Ok(code)
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;
    use crate::scratch::{self, Kind};

    #[test]
    fn the_start_module_calls_the_callable() {
        let module = text("greenhouse", "greenhouse.main", "run");
        assert!(module.ends_with(
            "    sys.exit(__import__(\"greenhouse.main\", fromlist=[\"run\"]).run())\n"
        ));
        let text = text("granian", "granian", "cli.entrypoint");
        assert_eq!(
            modules(&text).unwrap(),
            ["granian".to_owned(), "granian.cli".to_owned()]
        );
        assert_eq!(modules("import x"), None);
    }

    #[test]
    fn python_given_the_launcher_runs_what_the_launcher_does() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("a b");
        let code = crate::launcher::machine_code("x86_64").unwrap();
        let made = with_archive(code.clone(), "start.py").unwrap();
        assert!(made.starts_with(&code));
        assert_eq!(made, with_archive(code, "start.py").unwrap());
        scratch::write(&root.join("bin/app"), &made, Kind::Program).unwrap();
        let start = "import sys\nif __name__ == '__main__':\n    import __main__\n    print(__file__, __main__.__spec__, sys.argv[1:], [p for p in sys.path if 'bin/app' in p])\n";
        scratch::write(&root.join("start.py"), start.as_bytes(), Kind::Data).unwrap();
        let Ok(out) = Command::new("python3")
            .arg(root.join("bin/app"))
            .arg("--x")
            .output()
        else {
            testkit::skip("no python3");
            return;
        };
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        let start = fs::canonicalize(root.join("start.py")).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&out.stdout),
            format!("{} None ['--x'] []\n", start.display())
        );
    }
}
