//! Boards behind a gateway: the real hub, the real agent, emulated boards on its ports. A release for
//! boards goes through the device that has them, and a board that does not confirm it, or is away,
//! is told of and ends in a release that works.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use serde_json::Value;
use testkit::board::{Board, Rig};

use crate::common::{GOOD, Hub, Running, json, ok, script_tree, wait_for};

/// An app that works: it confirms itself, and goes on.
const WORKS: &str = "    pytheas.confirm()\n    while True:\n        time.sleep(1)\n";
/// One that fails before it does.
const FAILS: &str = "    raise ValueError('no sensor')\n";

/// A board with a name for its port that stays when the board is switched off.
struct Node {
    board: Board,
    port: PathBuf,
    /// QEMU looks only once a second whether somebody opened the pseudo-terminal.
    held: Option<File>,
}

impl Node {
    fn start(hub: &Hub, name: &str) -> Option<Self> {
        let board = Board::start(&hub.home.join(format!("{name}.flash")))?;
        let mut node = Self {
            board,
            port: hub.home.join(format!("port-{name}")),
            held: None,
        };
        node.plug();
        Some(node)
    }

    fn plug(&mut self) {
        let held = File::options()
            .read(true)
            .write(true)
            .open(self.board.pty());
        self.held = Some(held.unwrap());
        let _none_before = fs::remove_file(&self.port);
        std::os::unix::fs::symlink(self.board.pty(), &self.port).unwrap();
    }

    fn unplug(&mut self) {
        fs::remove_file(&self.port).unwrap();
        self.held = None;
        self.board.kill();
    }

    /// `machine.reset()` ends an emulated board.
    fn mind(&mut self) {
        if self.held.is_some() && !self.board.is_running() {
            self.board.restart();
            self.plug();
        }
    }
}

struct World {
    hub: Hub,
    compiler: PathBuf,
    nodes: Vec<Node>,
    agent: Option<Running>,
    _home: tempfile::TempDir,
}

impl World {
    /// A hub, and a gateway with boards of these names that were set up; updates wait so long for them.
    fn start(names: &[&str], wait: &str) -> Option<Self> {
        Self::with(names, &format!("wait = \"{wait}\""))
    }

    /// So with this in the settings of each board.
    fn with(names: &[&str], more: &str) -> Option<Self> {
        let compiler = Rig::find()?.mpy_cross()?;
        let home = tempfile::tempdir().unwrap();
        let hub = Hub::start(home.path());
        let mut world = Self {
            hub,
            compiler,
            nodes: Vec::new(),
            agent: None,
            _home: home,
        };
        let mut settings = String::new();
        for name in names {
            let node = Node::start(&world.hub, name)?;
            let mut setup = world.pytheas(&["board", "setup", "--patience", "60", "--keys"]);
            setup.arg(&world.hub.keys).env("PYTHEAS_BOARD", &node.port);
            ok(setup.args(["--set", "confirm=15", "--set", "attempts=2"]));
            settings.push_str(&format!(
                "[[board]]\nname = \"{name}\"\nport = \"{}\"\napp = \"node\"\n{more}\n",
                node.port.display()
            ));
            world.nodes.push(node);
        }
        fs::create_dir_all(world.hub.state("gw")).unwrap();
        fs::write(world.hub.state("gw").join("agent.toml"), settings).unwrap();
        world.agent = Some(world.hub.agent("gw", |_| {}));
        world.wait("the boards to be known", |world| {
            let known = world.attribute("pytheas.board-app.node");
            let all = names.iter().all(|name| {
                world
                    .attribute(&format!("pytheas.board.{name}"))
                    .contains("armv7em")
            });
            (all && known == "micropython-armv7em").then_some(())
        });
        Some(world)
    }

    fn pytheas(&self, args: &[&str]) -> Command {
        let mut command = self.hub.pytheas(args);
        command
            .env("PYTHEAS_MPY_CROSS", &self.compiler)
            .current_dir(&self.hub.home);
        command
    }

    /// Builds and publishes `node@VERSION` for any board.
    fn publish(&self, version: &str, body: &str) {
        let source = self.hub.home.join("source");
        fs::create_dir_all(source.join("src")).unwrap();
        let project = format!(
            "[project]\nname = \"node\"\nversion = \"{version}\"\n\
             [tool.pytheas.target.board]\nform = \"micropython\"\n\
             platform = \"micropython-any\"\nentry = \"node:run\"\n\
             [tool.pytheas.micropython]\nfirmware-modules = [\"pytheas\"]\n"
        );
        fs::write(source.join("pyproject.toml"), project).unwrap();
        let app = format!("import pytheas, time\ndef run():\n    print('node {version}')\n{body}");
        fs::write(source.join("src/node.py"), app).unwrap();
        let out = self.hub.home.join("out");
        ok(self
            .pytheas(&["build", "source", "-t", "board", "-o"])
            .arg(&out));
        self.hub.publish(&out);
    }

    fn device(&self) -> Value {
        json(&mut self.hub.pytheas(&["device", "show", "gw"]))
    }

    fn attribute(&self, key: &str) -> String {
        let output = self
            .hub
            .pytheas(&["device", "show", "gw", "--json"])
            .output();
        let shown: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap_or_default();
        shown["attributes"][key]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    fn said(&self) -> String {
        let log = fs::read_to_string(self.hub.home.join("gw.log")).unwrap_or_default();
        format!("{}\n{log}", self.device()["history"][0]["messages"])
    }

    fn wait<T>(&mut self, what: &str, mut ready: impl FnMut(&Self) -> Option<T>) -> T {
        wait_for(what, Duration::from_secs(400), || {
            for node in &mut self.nodes {
                node.mind();
            }
            ready(self)
        })
    }

    fn begin(&self, args: &[&str]) -> String {
        let mut start = vec!["rollout", "start"];
        start.extend(args);
        json(&mut self.hub.pytheas(&start))["rollout"]["id"].to_string()
    }

    /// Waits until the rollout has ended; its state.
    fn end(&mut self, id: &str) -> String {
        self.wait("the rollout", |world| {
            let value = json(&mut world.hub.pytheas(&["rollout", "status", id]));
            let state = value["rollout"]["state"].as_str()?.to_owned();
            (state != "running").then_some(state)
        })
    }

    #[track_caller]
    fn succeeds(&mut self, release: &str) {
        let id = self.begin(&[release]);
        let state = self.end(&id);
        assert_eq!(state, "finished", "{}", self.said());
    }

    /// What the hub is told that a board runs.
    fn runs(&mut self, name: &str, release: &str) {
        let key = format!("pytheas.board.{name}");
        let wanted = format!("{release} (micropython-armv7");
        self.wait(&format!("`{name}` to run {release}"), |world| {
            let told = world.attribute(&key);
            (told.starts_with(&wanted) && told.ends_with(')')).then_some(())
        });
    }

    /// What the board itself says; the app on it is interrupted for that.
    fn asked(&mut self, at: usize) -> (String, bool) {
        let code = "import json,pytheas\npytheas.ready()\n\
                    print(json.dumps([pytheas.runs()['version'],pytheas.r[4]]))";
        let text = self.nodes[at].board.exec(code).unwrap();
        serde_json::from_str(text.trim()).unwrap()
    }
}

#[test]
fn a_gateway_updates_its_board_and_tells_of_one_that_did_not_confirm() {
    let Some(mut world) = World::start(&["left"], "5m") else {
        return;
    };
    world.publish("1.0", WORKS);
    world.succeeds("node@1.0");
    world.runs("left", "node 1.0");
    world.publish("1.1", FAILS);
    let id = world.begin(&["node@1.1"]);
    assert_eq!(world.end(&id), "paused", "{}", world.said());
    let said = world.said();
    for word in [
        "node 1.1",
        "did not confirm",
        "ValueError: no sensor",
        "left",
        // Led back to the source.
        "src/node.py",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
    world.runs("left", "node 1.0");

    // The board is away when the next one comes, and the update waits for it.
    world.publish("1.2", WORKS);
    world.nodes[0].unplug();
    let id = world.begin(&["node@1.2"]);
    world.wait("the gateway to wait for its board", |world| {
        let said = world.device()["history"][0]["messages"].to_string();
        said.contains("there is no port").then_some(())
    });
    world.nodes[0].board.restart();
    world.nodes[0].plug();
    assert_eq!(world.end(&id), "finished", "{}", world.said());
    world.runs("left", "node 1.2");
    assert_eq!(world.asked(0), ("1.2".to_owned(), false));
}

#[test]
fn boards_of_one_app_move_together_and_go_back_together() {
    let Some(mut world) = World::start(&["left", "right"], "3m") else {
        return;
    };
    world.publish("1.0", WORKS);
    world.succeeds("node@1.0");
    world.runs("left", "node 1.0");
    world.runs("right", "node 1.0");
    // It works on the board that is first, and has confirmed itself there when the other one fails.
    let only_left = "    import os\n    if 'right' in os.listdir('/'):\n        raise ValueError('no sensor')\n";
    world.nodes[1]
        .board
        .exec("open('/right','w').close()")
        .unwrap();
    world.publish("1.1", &format!("{only_left}{WORKS}"));
    let id = world.begin(&["node@1.1"]);
    assert_eq!(world.end(&id), "paused", "{}", world.said());
    let said = world.said();
    for word in ["board `right`", "ValueError: no sensor"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    world.runs("left", "node 1.0");
    world.runs("right", "node 1.0");
    assert_eq!(world.asked(0), ("1.0".to_owned(), false));
    assert_eq!(world.asked(1), ("1.0".to_owned(), false));
}

#[test]
fn a_port_without_a_board_ends_the_update_before_anything_is_switched() {
    let Some(mut world) = World::start(&["left"], "2s") else {
        return;
    };
    world.publish("1.0", WORKS);
    world.succeeds("node@1.0");
    world.nodes[0].unplug();
    world.publish("1.1", WORKS);
    let id = world.begin(&["node@1.1"]);
    assert_eq!(world.end(&id), "paused", "{}", world.said());
    assert!(
        world.said().contains("there is no port"),
        "{}",
        world.said()
    );
    world.nodes[0].board.restart();
    world.nodes[0].plug();
    assert_eq!(world.asked(0), ("1.0".to_owned(), false));
}

impl World {
    /// Publishes the gateway's own app.
    fn publish_app(&self, version: &str) {
        let dir = self.hub.home.join(format!("app-{version}"));
        script_tree(&dir, version, &format!("{GOOD}# {version}\n"));
        self.hub.publish(&dir);
    }

    /// Waits until the gateway's update is in this state.
    fn is_in(&mut self, state: &str) {
        let file = self.hub.state("gw").join("state.json");
        self.wait(&format!("the gateway's update to be {state}"), |_| {
            let machine: Value = serde_json::from_slice(&fs::read(&file).ok()?).ok()?;
            (machine["update"]["state"] == state).then_some(())
        });
    }

    /// Waits until the gateway knows that a board has begun what is to prove itself.
    fn is_on_trial(&mut self) {
        let file = self.hub.state("gw").join("boards.json");
        self.wait("a board to be on trial", |_| {
            let known: Value = serde_json::from_slice(&fs::read(&file).ok()?).ok()?;
            let begun = known["left"]["runs"].as_str()?.to_owned();
            (known["left"]["on_trial"].is_string() && begun.ends_with(".9")).then_some(())
        });
    }
}

#[test]
fn the_gateways_app_and_its_boards_are_one_update_forth_and_back() {
    let Some(mut world) = World::start(&["left"], "5m") else {
        return;
    };
    let both = |version: &str| [format!("app@{version}"), format!("node@{version}")];
    let begin = |world: &mut World, version: &str| {
        let [app, node] = both(version);
        let id = world.begin(&[&app, &node]);
        world.end(&id)
    };
    world.publish_app("1.0");
    world.publish("1.0", WORKS);
    assert_eq!(begin(&mut world, "1.0"), "finished", "{}", world.said());
    world.runs("left", "node 1.0");

    // The board's part fails: the gateway's app, which works, goes back with it.
    world.publish_app("1.1");
    world.publish(
        "1.1",
        &format!("    pytheas.log('looking for it')\n    pytheas.metric('t', 21.5)\n{FAILS}"),
    );
    assert_eq!(begin(&mut world, "1.1"), "paused", "{}", world.said());
    world.runs("left", "node 1.0");
    assert_eq!(world.device()["device"]["release"], "app@1.0");
    // How the board is and why it fell is known under its own name.
    world.wait("the board's health", |world| {
        let of = |what: &str| world.attribute(&format!("pytheas.board.left.{what}"));
        let heap: u32 = of("heap.free").parse().ok()?;
        let crash: Vec<String> = (0..6).map(|n| of(&format!("crash.{n}"))).collect();
        let crashed = crash
            .iter()
            .any(|line| line.contains("ValueError: no sensor"));
        let led_back = crash.iter().any(|line| line.contains("\"src/node.py\""));
        let is_of = of("crash") == "node 1.1";
        (heap > 1000 && crashed && led_back && is_of && !of("uptime").is_empty()).then_some(())
    });
    assert!(world.said().contains("src/node.py"), "{}", world.said());

    world.publish_app("1.2");
    world.publish("1.2", WORKS);
    assert_eq!(begin(&mut world, "1.2"), "finished", "{}", world.said());
    world.runs("left", "node 1.2");
    // An operator goes back: again both.
    let mut rollback = crate::common::pytheas(&world.hub.home);
    rollback.args(["agent", "rollback", "--state"]);
    ok(rollback.arg(world.hub.state("gw")));
    world.runs("left", "node 1.0");
    assert_eq!(world.asked(0), ("1.0".to_owned(), false));
    world.wait("the gateway's app to be back", |world| {
        (world.device()["device"]["release"] == "app@1.0").then_some(())
    });
}

#[test]
fn power_cuts_of_gateway_and_board_end_in_one_release_on_both() {
    let Some(mut world) = World::start(&["left"], "40s") else {
        return;
    };
    let slowly = |then: &str| format!("    time.sleep(4)\n{then}");
    world.publish("1.0", WORKS);
    world.succeeds("node@1.0");

    // The gateway while its board proves itself.
    world.publish("1.9", &slowly(WORKS));
    let id = world.begin(&["node@1.9"]);
    world.is_on_trial();
    world.agent.take().unwrap().kill();
    world.agent = Some(world.hub.agent("gw", |_| {}));
    assert_eq!(world.end(&id), "finished", "{}", world.said());
    world.runs("left", "node 1.9");

    // The board while its slot is filled.
    world.publish(
        "2.0",
        &format!("{WORKS}# {}\n", "0123456789abcdef".repeat(64)),
    );
    let id = world.begin(&["node@2.0"]);
    world.is_in("staging");
    world.nodes[0].board.kill();
    assert_eq!(world.end(&id), "finished", "{}", world.said());
    world.runs("left", "node 2.0");

    // The board is pulled out in its trial and stays away while the rest goes back.
    world.publish("2.9", &slowly(FAILS));
    let id = world.begin(&["node@2.9"]);
    world.is_on_trial();
    world.nodes[0].unplug();
    assert_eq!(world.end(&id), "paused", "{}", world.said());
    world.is_in("idle");
    world.nodes[0].board.restart();
    world.nodes[0].plug();
    world.runs("left", "node 2.0");
    assert_eq!(world.asked(0), ("2.0".to_owned(), false));
}

#[test]
fn settings_of_the_hub_reach_boards_behind_a_gateway() {
    let Some(mut world) = World::with(&["left", "right"], "telemetry = \"4s\"") else {
        return;
    };
    let tells =
        "    for key, value in pytheas.settings.items():\n        pytheas.metric(key, value)\n";
    world.publish("1.0", &format!("{tells}{WORKS}"));
    world.succeeds("node@1.0");
    let set = |world: &World, args: &[&str]| {
        ok(world.hub.pytheas(&["config", "set"]).args(args));
        let config = json(&mut world.hub.pytheas(&["config", "show", "--device", "gw"]));
        config["tag"].as_str().unwrap().to_owned()
    };
    let tag = set(&world, &["interval=5", "boards.left.pin=7"]);
    let metric = |world: &World, board: &str, name: &str| {
        world.attribute(&format!("pytheas.board.{board}.metric.{name}"))
    };
    world.wait("the boards to have them", |world| {
        let has = |board| world.attribute(&format!("pytheas.board-config.{board}")) == tag;
        let told = metric(world, "left", "interval") == "5"
            && metric(world, "left", "pin") == "7"
            && metric(world, "right", "interval") == "5";
        (has("left") && has("right") && told).then_some(())
    });
    assert_eq!(metric(&world, "right", "pin"), "");
    let config = json(&mut world.hub.pytheas(&["config", "show", "--device", "gw"]));
    assert_eq!(
        config["boards"]["left"]["applied"],
        tag.as_str(),
        "{config}"
    );

    // Of what is too long for a board it is told, and the ones before stay.
    let long = "x".repeat(12_000);
    let tag = set(&world, &[&format!("boards.left.text={long}")]);
    world.wait("the board to be spared", |world| {
        let why = world.attribute("pytheas.board-config-refused.left");
        let has = world.attribute("pytheas.board-config.right") == tag;
        (has && why.starts_with(&tag) && why.contains("a board takes 12000")).then_some(())
    });
    assert_eq!(metric(&world, "left", "pin"), "7");

    // What is taken away is gone there, too.
    ok(&mut world
        .hub
        .pytheas(&["config", "unset", "boards.left.text", "interval"]));
    world.wait("the setting to be gone", |world| {
        let gone = |board| metric(world, board, "interval").is_empty();
        (gone("left") && gone("right") && metric(world, "left", "pin") == "7").then_some(())
    });
}
