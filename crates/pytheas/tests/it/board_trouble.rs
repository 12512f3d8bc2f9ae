//! `pytheas board` when things go wrong: commands that are killed, boards that are full, files that no
//! board loads, other programs on the port.

use std::{
    io::Write,
    process::{Output, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    board_link::{Bench, put},
    common::{json, ok, shown},
};

/// Runs a command that has to fail with this exit code; both streams.
#[track_caller]
fn fails(bench: &Bench, code: i32, args: &[&str]) -> String {
    let output = bench.board(args).output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{}", shown(&output));
    shown(&output)
}

fn with_input(bench: &Bench, args: &[&str], input: &str) -> Output {
    let mut command = bench.board(args);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap()
}

#[test]
fn a_deploy_that_is_ended_at_any_moment_leaves_a_board_that_takes_the_next_one() {
    let Some(bench) = Bench::start() else { return };
    let mut cuts = 0;
    // In this order: an image's modules come before those of the file system.
    for (round, to) in ["files", "rom"].into_iter().enumerate() {
        for number in 0..60 {
            put(
                &bench.home.path().join(format!("app/m{number:02}.py")),
                &format!("VALUE = {number} + {round}\nNAME = 'module {number} of {round}'\n"),
            );
        }
        let args = ["deploy", "app", "--to", to];
        for (step, signal) in [Signal::TERM, Signal::KILL, Signal::KILL]
            .into_iter()
            .enumerate()
        {
            let mut deploy = bench.board(&args).spawn().unwrap();
            let wait = 300 + 350 * u64::try_from(step).unwrap();
            std::thread::sleep(Duration::from_millis(wait));
            cuts += usize::from(deploy.try_wait().unwrap().is_none());
            let pid = Pid::from_child(&deploy);
            let _ended_already = kill_process(pid, signal);
            deploy.wait().unwrap();
        }
        ok(&mut bench.board(&args));
        let again = json(&mut bench.board(&args));
        assert_eq!(again["written"], 0, "{again}");
        let code = "import m59,m00;print(m00.NAME,m59.VALUE)";
        assert_eq!(
            ok(&mut bench.board(&["run", "-c", code])).trim(),
            format!("module 0 of {round} {}", 59 + round),
        );
    }
    assert!(cuts > 0);
}

#[test]
fn programs_read_what_is_typed_and_may_exit() {
    let Some(bench) = Bench::start() else { return };
    let asks = "print('hello', input('who? '))\nprint('and', input())";
    let output = with_input(
        &bench,
        &["run", "-c", asks],
        "Ada\nGr\u{e4}ce\nnobody asks\n",
    );
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", shown(&output));
    assert!(said.contains("hello Ada"), "{said}");
    // What nobody read does no harm, and neither does an end.
    let exits = "import sys\nprint('out')\nsys.exit(3)";
    for _ in 0..2 {
        assert_eq!(ok(&mut bench.board(&["run", "-c", exits])), "out\r\n");
    }
    assert_eq!(ok(&mut bench.board(&["run", "-c", "print(1)"])), "1\r\n");
}

/// A file system of 32 KB in the board's memory, at `/ram`.
const RAM: &str = "import sys,vfs
class R:
 def __init__(s): s.d=bytearray(32768)
 def readblocks(s,n,b,o=0):
  a=n*512+o
  b[:]=s.d[a:a+len(b)]
 def writeblocks(s,n,b,o=0):
  a=n*512+o
  s.d[a:a+len(b)]=b
 def ioctl(s,o,_): return {4:64,5:512}.get(o,0)
r=R()
vfs.VfsLfs2.mkfs(r)
vfs.mount(vfs.VfsLfs2(r),'/ram')
sys.path.append('/ram')";

fn noise(len: u32) -> String {
    let mut state = 1_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b'!' + (state >> 24) as u8 % 90)
    };
    (0..len).map(next).collect()
}

#[test]
fn a_full_board_keeps_what_it_had() {
    let Some(bench) = Bench::start() else { return };
    ok(&mut bench.board(&["run", "-c", RAM]));
    let app = bench.home.path().join("app");
    put(&app.join("mod.py"), "ANSWER = 41\n");
    let deploy = ["deploy", "app", "--root", "/ram", "--no-restart"];
    ok(&mut bench.board(&deploy));
    let code = "import sys\nsys.modules.pop('mod',0)\nimport mod\nprint(mod.ANSWER)";
    let answer = || ok(&mut bench.board(&["run", "-c", code]));
    assert_eq!(answer(), "41\r\n");
    put(&app.join("mod.py"), "ANSWER = 42\n");
    put(&app.join("data.txt"), &noise(40_000));
    let full = fails(&bench, 1, &deploy);
    assert!(
        full.contains("the app needs") && full.contains("free"),
        "{full}"
    );
    assert_eq!(answer(), "41\r\n");
    // What does not fit is gone again; what is there stays.
    put(&bench.home.path().join("large"), &noise(18_000));
    ok(&mut bench.board(&["fs", "put", "large", "/ram/one"]));
    let full = fails(&bench, 1, &["fs", "put", "large", "/ram/two"]);
    assert!(full.contains("the file system is full"), "{full}");
    let listed = ok(&mut bench.board(&["fs", "ls", "/ram", "--json"]));
    assert!(
        listed.contains("/ram/one") && !listed.contains("/ram/two"),
        "{listed}"
    );
    // An image that no partition takes is refused before a byte is sent.
    put(&app.join("data.txt"), &noise(4_300_000));
    let full = fails(&bench, 1, &["deploy", "app", "--to", "rom"]);
    assert!(full.contains("ROMFS partition"), "{full}");
    assert_eq!(answer(), "41\r\n");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test's own folder")]
fn a_module_that_no_board_loads_is_told_what_to_do() {
    let Some(bench) = Bench::start() else { return };
    std::fs::write(bench.home.path().join("old.mpy"), b"M\x05\x00\x1f\x00\x00").unwrap();
    ok(&mut bench.board(&["fs", "put", "old.mpy", "/"]));
    let said = fails(&bench, 1, &["run", "-c", "import old"]);
    assert!(said.contains("incompatible .mpy file"), "{said}");
    assert!(said.contains("pytheas board info"), "{said}");
    std::fs::create_dir_all(bench.home.path().join("app")).unwrap();
    std::fs::copy(
        bench.home.path().join("old.mpy"),
        bench.home.path().join("app/old.mpy"),
    )
    .unwrap();
    for to in ["files", "rom"] {
        let said = fails(&bench, 1, &["deploy", "app", "--to", to]);
        assert!(
            said.contains("version 5") && said.contains("old.mpy"),
            "{said}"
        );
    }
}

#[test]
fn a_folder_that_is_not_there_is_told_of_once() {
    let Some(bench) = Bench::start() else { return };
    put(&bench.home.path().join("app/card.py"), "CARD = 1\n");
    let deploy = ["deploy", "app", "--root", "/sd", "--no-restart"];
    for told in [true, false] {
        let output = bench.board(&deploy).output().unwrap();
        let said = shown(&output);
        assert!(output.status.success(), "{said}");
        assert_eq!(said.contains("`/sd` was not there"), told, "{said}");
    }
}

#[test]
fn a_silent_program_and_whoever_else_has_the_port_are_named() {
    let Some(bench) = Bench::start() else { return };
    let stubborn = "import micropython\nmicropython.kbd_intr(-1)\nwhile True: pass\n";
    put(&bench.home.path().join("main.py"), stubborn);
    ok(&mut bench.board(&["fs", "put", "main.py", "/"]));
    ok(&mut bench.board(&["reset"]));
    let mut info = bench.command(&["board", "info", "--patience", "3"]);
    let output = info.output().unwrap();
    let said = shown(&output);
    assert_eq!(output.status.code(), Some(3), "{said}");
    // This process holds the line for QEMU's sake.
    assert!(
        said.contains(&format!("(process {})", std::process::id())),
        "{said}"
    );
    assert!(
        said.contains("nothing answers") && said.contains("--catch"),
        "{said}"
    );
}
