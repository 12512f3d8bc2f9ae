//! `pytheas board` with the emulated board: set up, signed releases over the cable, files, programs.

use std::{fs::File, path::Path, process::Command, time::Duration};

use testkit::board::{Board, Rig};

use crate::common::{json, ok, pytheas, shown, wait_for};

/// A board, and the command with its port and a compiler.
pub(crate) struct Bench {
    pub(crate) home: tempfile::TempDir,
    pub(crate) board: Board,
    compiler: std::path::PathBuf,
    /// QEMU looks only once a second whether somebody opened the pseudo-terminal.
    held: File,
}

impl Bench {
    pub(crate) fn start() -> Option<Self> {
        let compiler = Rig::find()?.mpy_cross()?;
        let home = tempfile::tempdir().unwrap();
        let board = Board::start(&home.path().join("flash"))?;
        let held = File::options().read(true).write(true).open(board.pty());
        Some(Self {
            home,
            board,
            compiler,
            held: held.unwrap(),
        })
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = pytheas(self.home.path());
        command
            .args(args)
            .env("PYTHEAS_BOARD", self.board.pty())
            .env("PYTHEAS_MPY_CROSS", &self.compiler)
            .current_dir(self.home.path());
        command
    }

    pub(crate) fn board(&self, args: &[&str]) -> Command {
        let mut command = self.command(&["board"]);
        command.args(args);
        if args[0] != "list" {
            command.args(["--patience", "60"]);
        }
        command
    }

    /// Builds and publishes `node@VERSION`, which confirms itself.
    fn publish(&self, version: &str) {
        let source = self.home.path().join("source");
        put(
            &source.join("pyproject.toml"),
            &format!(
                "[project]\nname = \"node\"\nversion = \"{version}\"\n\
                 [tool.pytheas.target.board]\nform = \"micropython\"\n\
                 platform = \"micropython-any\"\nentry = \"node:run\"\n\
                 [tool.pytheas.micropython]\nfirmware-modules = [\"pytheas\"]\n"
            ),
        );
        put(
            &source.join("node.py"),
            &format!(
                "def run():\n    import pytheas\n    pytheas.confirm()\n    print('node {version} runs')\n    import time\n    while True:\n        time.sleep(1)\n"
            ),
        );
        ok(&mut self.command(&["build", "source", "-t", "board", "-o", "out"]));
        ok(&mut self.command(&["publish", "out", "--keys", "keys", "--repo", "repo"]));
    }

    /// Waits until the release says that it runs. Any verb but `logs` would interrupt it.
    fn runs(&self, version: &str) {
        let mut seen = String::new();
        let says = format!("node {version} runs");
        wait_for("the release to run", Duration::from_secs(120), || {
            // What it said before this process listened is gone: it is started again.
            let mut logs = self.board(&["logs", "--restart", "--for", "5"]);
            seen.push_str(&ok(&mut logs));
            seen.contains(&says).then_some(())
        });
    }

    /// The version in the active slot, once it is confirmed.
    fn confirmed(&self) -> String {
        wait_for("a confirmed release", Duration::from_secs(60), || {
            let info = json(&mut self.board(&["info"]));
            let slots = &info["slots"];
            let active = usize::try_from(slots["active"].as_u64()?).ok()?;
            let version = slots["slots"][active]["version"].as_str()?.to_owned();
            (slots["pending"] == false).then_some(version)
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's own folder")]
pub(crate) fn put(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

#[test]
fn a_board_is_set_up_and_takes_signed_releases_over_the_cable() {
    let Some(mut bench) = Bench::start() else {
        return;
    };
    ok(&mut bench.command(&["keys", "init", "--keys", "keys"]));
    bench.publish("1.0");
    let first = json(&mut bench.board(&["setup", "--keys", "keys", "--set", "confirm=90"]));
    assert_eq!(first["written"].as_array().unwrap().len(), 3);
    let again = json(&mut bench.board(&["setup", "--keys", "keys", "--set", "confirm=90"]));
    assert!(again["written"].as_array().unwrap().is_empty(), "{again}");
    assert_eq!(again["package"]["written"], 0);

    // What is built but not signed is refused, for safety.
    let unsigned = bench.board(&["deploy", "out/app.romfs"]).output().unwrap();
    assert_eq!(unsigned.status.code(), Some(4), "{}", shown(&unsigned));
    assert!(
        shown(&unsigned).contains("not signed") || shown(&unsigned).contains("signed by no key")
    );

    let done = json(&mut bench.board(&["deploy", "node@1.0", "--repo", "repo"]));
    assert_eq!(
        (&done["target"], &done["written"]),
        (&"slot".into(), &1.into())
    );
    bench.runs("1.0");
    assert_eq!(bench.confirmed(), "1.0");
    let done = json(&mut bench.board(&["deploy", "node@1.0", "--repo", "repo"]));
    assert_eq!(done["unchanged"], 1);
    bench.publish("1.1");
    ok(&mut bench.board(&["deploy", "node@1.1", "--repo", "repo"]));
    bench.runs("1.1");
    assert_eq!(bench.confirmed(), "1.1");
    // The older one is refused: its counter is lower.
    let older = bench
        .board(&["deploy", "node@1.0", "--repo", "repo"])
        .output()
        .unwrap();
    assert_eq!(older.status.code(), Some(4), "{}", shown(&older));
    // It was confirmed, so a cut of the power takes nothing back.
    bench.board.restart();
    assert_eq!(bench.confirmed(), "1.1");

    // A developer's own key: refused until the board trusts it, too.
    ok(&mut bench.command(&["keys", "new", "desk", "--keys", "desk"]));
    let desk = ["deploy", "source", "--key", "desk/desk.pem"];
    let source = bench.home.path().join("source/node.py");
    let code = std::fs::read_to_string(&source).unwrap();
    put(&source, &code.replace("node 1.1 runs", "node desk runs"));
    let strange = bench.board(&desk).output().unwrap();
    assert_eq!(strange.status.code(), Some(4), "{}", shown(&strange));
    assert!(
        shown(&strange).contains("signed by no key"),
        "{}",
        shown(&strange)
    );
    let own = [
        "keys", "export", "--board", "--as", "desk", "--keys", "desk",
    ];
    let own = ok(&mut bench.command(&own));
    ok(&mut bench.board(&["setup", "--keys", "keys", "--key", own.trim()]));
    ok(&mut bench.board(&desk));
    bench.runs("desk");
}

#[test]
fn a_project_is_started_on_a_fresh_board_with_the_package_it_imports() {
    let Some(mut bench) = Bench::start() else {
        return;
    };
    let source = bench.home.path().join("desk");
    put(
        &source.join("pyproject.toml"),
        "[project]\nname = \"desk\"\nversion = \"1\"\n[tool.pytheas.target.board]\n\
         form = \"micropython\"\nplatform = \"micropython-any\"\nentry = \"desk:run\"\n",
    );
    put(
        &source.join("desk.py"),
        "import pytheas\nasync def run():\n    pytheas.confirm()\n    print('desk', 'runs')\n",
    );
    // No target is named: the project has one for boards.
    for to in ["rom", "files"] {
        let done = json(&mut bench.board(&["deploy", "desk", "--to", to, "--force"]));
        assert_eq!(done["target"], to);
        bench.board.restart();
        let held = File::options()
            .read(true)
            .write(true)
            .open(bench.board.pty());
        bench.held = held.unwrap();
        wait_for("the app to run", Duration::from_secs(120), || {
            bench.board.said().contains("desk runs").then_some(())
        });
    }
    put(&source.join("ca.txt"), "no certificate");
    let refused = bench
        .board(&["setup", "--ca", "desk/ca.txt"])
        .output()
        .unwrap();
    assert!(
        shown(&refused).contains("no certificate"),
        "{}",
        shown(&refused)
    );
}

#[test]
fn programs_run_and_files_come_and_go() {
    let Some(bench) = Bench::start() else { return };
    assert_eq!(
        ok(&mut bench.board(&["run", "-c", "print(6 * 7)"])),
        "42\n".replace('\n', "\r\n")
    );
    let failed = bench.board(&["run", "-c", "1/0"]).output().unwrap();
    assert_eq!(failed.status.code(), Some(1));
    assert!(
        shown(&failed).contains("ZeroDivisionError"),
        "{}",
        shown(&failed)
    );
    put(&bench.home.path().join("tree/a/b.txt"), "hello");
    put(&bench.home.path().join("tree/c.py"), "print('c')");
    ok(&mut bench.board(&["fs", "put", "tree", "/tree"]));
    assert_eq!(
        ok(&mut bench.board(&["fs", "cat", "tree/a/b.txt"])),
        "hello"
    );
    ok(&mut bench.board(&["fs", "get", "/tree", "back"]));
    let back = std::fs::read_to_string(bench.home.path().join("back/a/b.txt"));
    assert_eq!(back.unwrap(), "hello");
    let listed = json(&mut bench.board(&["fs", "ls", "-r", "/tree"]));
    assert_eq!(listed.as_array().unwrap().len(), 3, "{listed}");
    let missing = bench.board(&["fs", "cat", "nothing"]).output().unwrap();
    assert!(
        shown(&missing).contains("there is no such file"),
        "{}",
        shown(&missing)
    );
    let full = bench.board(&["fs", "rm", "/tree"]).output().unwrap();
    assert!(shown(&full).contains("not empty"), "{}", shown(&full));
    ok(&mut bench.board(&["fs", "rm", "-r", "/tree"]));
    // A folder of sources is compiled for the board; a second time nothing is sent.
    put(&bench.home.path().join("app/lib/mod.py"), "ANSWER = 42\n");
    let done = json(&mut bench.board(&["deploy", "app"]));
    assert_eq!(
        (&done["target"], &done["written"]),
        (&"rom".into(), &1.into())
    );
    assert!(
        done["why"].as_str().unwrap().contains("two places"),
        "{done}"
    );
    let done = json(&mut bench.board(&["deploy", "app"]));
    assert_eq!(
        (&done["written"], &done["unchanged"]),
        (&0.into(), &1.into())
    );
    assert_eq!(
        ok(&mut bench.board(&["run", "-c", "import mod;print(mod.ANSWER)"])),
        "42\r\n"
    );
    // A program of the board's own kind: `__main__`, from the image.
    put(
        &bench.home.path().join("app/main.py"),
        "import mod\nif __name__ == '__main__':\n    RAN = mod.ANSWER + 1\n",
    );
    ok(&mut bench.board(&["deploy", "app"]));
    let ran = || {
        // The next command may stop it before it has run: then it is started again.
        let output = bench.board(&["run", "-c", "print(RAN)"]).output().unwrap();
        let seen = output.stdout == b"43\r\n";
        if !seen {
            ok(&mut bench.board(&["reset"]));
            std::thread::sleep(std::time::Duration::from_millis(500));
        }
        seen
    };
    assert!((0..20).any(|_| ran()));
    // What it may open by its path must be in the file system.
    put(&bench.home.path().join("app/data.txt"), "1");
    let done = json(&mut bench.board(&["deploy", "app"]));
    assert_eq!(done["target"], "files");
    assert!(
        done["why"].as_str().unwrap().contains("by their path"),
        "{done}"
    );
}

/// With the pseudo-terminal, the port of a board on USB goes away when the board is reset.
#[test]
fn a_program_that_cannot_be_stopped_is_caught_at_a_reset_that_takes_the_port_away() {
    let Some(mut bench) = Bench::start() else {
        return;
    };
    let port = bench.home.path().join("port");
    let plug = |bench: &Bench| {
        let _none_before = std::fs::remove_file(&port);
        std::os::unix::fs::symlink(bench.board.pty(), &port).unwrap();
    };
    plug(&bench);
    let main = "import micropython, time\ntime.sleep(8)\nmicropython.kbd_intr(-1)\n\
                while True:\n    time.sleep(1)\n";
    put(&bench.home.path().join("main.py"), main);
    ok(&mut bench.board(&["fs", "put", "main.py", "/"]));
    bench.board.kill();
    bench.board.restart();
    bench.held = File::options()
        .read(true)
        .write(true)
        .open(bench.board.pty())
        .unwrap();
    plug(&bench);
    let mut info = bench.board(&["info", "--json", "--catch"]);
    info.env("PYTHEAS_BOARD", &port);
    let info = info
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(1));
    bench.board.kill();
    std::thread::sleep(Duration::from_millis(500));
    bench.board.restart();
    bench.held = File::options()
        .read(true)
        .write(true)
        .open(bench.board.pty())
        .unwrap();
    plug(&bench);
    let output = info.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", shown(&output));
}
