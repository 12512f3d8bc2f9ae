//! Settings from the hub: the app gets them, proves that it works with them, or has the old ones
//! back.

use std::fs;

use pytheas_release::ConfigOption;
use serde_json::{Value, json};

use crate::support::{App, Device, World, until};

/// An app that notes with what it was started, and cannot work with settings that say `bad`.
fn app(version: &str) -> App {
    let mut app = App::good(version).script(
        "echo \"$PYTHEAS_CONFIG_REVISION $APP_EVERY\" >> \"$PYTHEAS_DATA_DIR/starts\"\n\
         if grep -q bad \"$PYTHEAS_CONFIG\" 2>/dev/null; then\n\
         echo 'no sensor called bad'; exit 3; fi\n\
         cp \"$PYTHEAS_CONFIG\" \"$PYTHEAS_DATA_DIR/seen\" 2>/dev/null\n\
         exec sleep 100000",
    );
    let option = ConfigOption {
        kind: "duration".into(),
        default: Some("10s".into()),
        env: "APP_EVERY".into(),
        help: String::new(),
    };
    app.config.insert("every".into(), option);
    // Longer than it takes to find `bad` on a machine that does much else.
    app.health.stay_up_ms = 1_000;
    app
}

fn send(world: &World, revision: &str, settings: Value) {
    world.hub.talk().settings = Some((revision.into(), settings));
}

/// Waits until the device says that it runs with this revision; what else it says of settings.
#[track_caller]
fn applied(world: &World, revision: &str) -> Vec<(String, String)> {
    told(world, "pytheas.config", revision)
}

#[track_caller]
fn told(world: &World, key: &str, begin: &str) -> Vec<(String, String)> {
    until(&format!("`{key}` is told as `{begin}`"), || {
        let talk = world.hub.talk();
        let data = talk.attributes.last()?["data"].as_object()?.clone();
        let found = data.get(key)?.as_str()?.starts_with(begin);
        let of_config = data
            .into_iter()
            .filter(|(key, _)| key.starts_with("pytheas.config-"));
        let text = |value: Value| value.as_str().unwrap_or_default().to_owned();
        found.then(|| of_config.map(|(key, value)| (key, text(value))).collect())
    })
}

fn starts(device: &Device) -> Vec<String> {
    let text = device.data("starts").unwrap_or_default();
    text.lines().map(|line| line.trim().to_owned()).collect()
}

fn seen(device: &Device) -> Value {
    serde_json::from_str(&device.data("seen").unwrap_or_default()).unwrap_or_default()
}

#[test]
fn an_app_gets_settings_as_a_file_and_as_the_variables_it_declares() {
    let world = World::new();
    let device = world.device_with("device", &world.publish(&app("1.0.0")));
    assert_eq!(applied(&world, "0"), []);
    assert_eq!(starts(&device), ["10s"], "its default, and no file");
    assert_eq!(device.status()["config"], Value::Null);

    let first = json!({"every": "5s", "mqtt": {"host": "b"}});
    send(&world, "1-aa", first.clone());
    assert_eq!(applied(&world, "1-aa"), []);
    assert_eq!(starts(&device), ["10s", "1-aa 5s"]);
    assert_eq!(seen(&device), first);
    assert_eq!(device.status()["config"], json!({"applied": "1-aa"}));

    // Another number for the same settings is no reason to start anew.
    send(&world, "2-aa", first);
    applied(&world, "2-aa");
    assert_eq!(starts(&device).len(), 2);

    // A new release finds them, too; nothing set is the default again.
    let action = world.hub.offer(&world.publish(&app("1.1.0")).target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    assert_eq!(starts(&device)[2..], ["2-aa 5s"]);
    send(&world, "3-bb", json!({}));
    applied(&world, "3-bb");
    assert_eq!(starts(&device)[3..], ["3-bb 10s"]);
}

#[test]
fn settings_with_which_an_app_does_not_work_are_given_up_and_the_hub_learns_why() {
    let world = World::new();
    let device = world.device_with("device", &world.publish(&app("1.0.0")));
    send(&world, "1-aa", json!({"every": "5s"}));
    applied(&world, "1-aa");
    send(&world, "2-bb", json!({"every": "5s", "sensor": "bad"}));
    let why = told(&world, "pytheas.config-refused", "2-bb");
    insta::assert_snapshot!(why.iter().map(|(key, value)| format!("{key} = {value}")).collect::<Vec<_>>().join("\n"), @"
    pytheas.config-log.0 = no sensor called bad
    pytheas.config-refused = 2-bb `app@1.0.0` ended: exit status 3
    ");
    until("the old settings run", || {
        let starts = starts(&device);
        (starts.len() >= 6).then_some(())
    });
    assert_eq!(
        starts(&device)[2..],
        ["2-bb 5s", "2-bb 5s", "2-bb 5s", "1-aa 5s"]
    );
    assert_eq!(seen(&device), json!({"every": "5s"}));
    let status = device.status();
    assert_eq!(
        (&status["config"]["applied"], &status["config"]["refused"]),
        (&json!("1-aa"), &json!("2-bb"))
    );

    // The hub goes on sending them: they are not tried again by what runs.
    let polls = world.hub.asked("GET /default/controller/v1/dev1 ");
    world.hub.polled(polls + 3);
    assert_eq!(starts(&device).len(), 6);

    // Another release may take them.
    let tolerant = App::good("1.1.0").script("exec sleep 100000");
    let action = world.hub.offer(&world.publish(&tolerant).target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    assert_eq!(applied(&world, "2-bb"), []);
}

#[test]
fn settings_of_the_wrong_type_never_reach_the_app() {
    let world = World::new();
    let device = world.device_with("device", &world.publish(&app("1.0.0")));
    send(&world, "1-aa", json!({"every": 5}));
    let why = told(&world, "pytheas.config-refused", "1-aa");
    assert_eq!(
        why,
        [(
            "pytheas.config-refused".to_owned(),
            "1-aa setting `every`: `5` is no duration (`app` 1.0.0)".to_owned()
        )]
    );
    assert_eq!(starts(&device), ["10s"]);
}

#[test]
fn a_power_cut_in_a_trial_ends_in_the_old_settings_or_the_new() {
    let world = World::new();
    let mut device = world.device_with("device", &world.publish(&app("1.0.0")));
    send(&world, "1-aa", json!({"every": "1s"}));
    applied(&world, "1-aa");
    for (n, (name, settings)) in [
        ("2-ok", json!({"every": "2s"})),
        ("3-no", json!({"every": "3s", "sensor": "bad"})),
    ]
    .into_iter()
    .enumerate()
    {
        // Cut off when the new settings are noted and the app's file is still the old one; then
        // again as soon as the app was started.
        device.stop();
        device.start_with(Some("agent:config:saved"));
        send(&world, name, settings);
        until("it is cut off", || device.ended());
        device.start_with(Some("agent:app:spawned"));
        until("it is cut off", || device.ended());
        device.start();
        let (in_force, file) = match n {
            0 => (applied(&world, "2-ok"), json!({"every": "2s"})),
            _ => (
                told(&world, "pytheas.config-refused", "3-no"),
                json!({"every": "2s"}),
            ),
        };
        assert_eq!(in_force.is_empty(), n == 0, "{in_force:?}");
        until("the app has them", || (seen(&device) == file).then_some(()));
    }
}

#[test]
fn an_app_may_be_told_to_read_its_settings_again() {
    let world = World::new();
    let first = App::good("1.0.0").script(
        "echo started >> \"$PYTHEAS_DATA_DIR/starts\"\n\
         if grep -q bad \"$PYTHEAS_CONFIG\" 2>/dev/null; then exit 8; fi\n\
         trap 'if grep -q bad \"$PYTHEAS_CONFIG\"; then exit 7; fi; cp \"$PYTHEAS_CONFIG\" \"$PYTHEAS_DATA_DIR/seen\"' HUP\n\
         while :; do sleep 0.05; done",
    );
    let mut device = world.device("device");
    fs::create_dir_all(&device.state).unwrap();
    let text = b"[config]\napply = \"reload\"\n";
    pytheas_durable::replace(&device.state.join("agent.toml"), text).unwrap();
    device.start();
    let action = world.hub.offer(&world.publish(&first).target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    send(&world, "1-aa", json!({"n": 1}));
    applied(&world, "1-aa");
    assert_eq!(starts(&device).len(), 2, "it did not know the file before");
    send(&world, "2-bb", json!({"n": 2}));
    applied(&world, "2-bb");
    assert_eq!((starts(&device).len(), seen(&device)), (2, json!({"n": 2})));
    send(&world, "3-cc", json!({"n": "bad"}));
    let why = told(&world, "pytheas.config-refused", "3-cc");
    assert!(why[0].1.contains("exit status 8"), "{why:?}");
    applied(&world, "2-bb");
}

#[test]
fn the_pin_of_the_devices_token_is_not_the_apps() {
    let world = World::new();
    let mut device = world.device("device");
    device.env = [("PYTHEAS_CLIENT_PIN", "1234"), ("OF_THE_SITE", "yes")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
    device.start();
    let script = "env > \"$PYTHEAS_DATA_DIR/env\"; exec sleep 100000";
    let app = App::good("1.0.0").script(script);
    let action = world.hub.offer(&world.publish(&app).target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    let env = device.data("env").unwrap();
    assert!(
        env.contains("OF_THE_SITE=yes") && !env.contains("1234"),
        "{env}"
    );
}
