//! Apps that are taken off a device, also when the power goes meanwhile.

use std::{fs, process::Output};

use crate::support::{App, Device, World, alive, until};

/// A device on which `app@1.0.0` and `broker@1.0.0` run.
fn pair(world: &World) -> Device {
    let device = world.device_with("device", &world.publish(&App::good("1.0.0")));
    let broker = world.publish(&App::good("1.0.0").named("broker"));
    let action = world.hub.offer(&broker.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.is_idle();
    device.component("broker").runs("1.0.0");
    device
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn an_app_is_stopped_and_deleted_and_its_data_stays_until_it_is_named() {
    let world = World::new();
    let device = pair(&world);
    let broker = device.component("broker");
    let pid = broker.app_pid().unwrap();
    let output = device.output("remove", &["broker"]);
    let data = broker.state.join("data");
    assert_eq!(
        said(&output),
        format!(
            "`broker@1.0.0` is removed; its data stays in `{}`\n",
            data.display()
        )
    );
    assert!(!alive(pid));
    let left: Vec<_> = fs::read_dir(&broker.state)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["data"]);
    assert!(device.status()["components"].is_null());
    device.runs("1.0.0");
    until("the hub knows", || {
        let talk = world.hub.talk();
        let data = &talk.attributes.last()?["data"];
        data["pytheas.component.broker"].is_null().then_some(())
    });

    // It comes back to its data.
    fs::File::create(data.join("kept")).unwrap();
    let next = world.publish(&App::good("1.1.0").named("broker"));
    let action = world.hub.offer(&next.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    broker.runs("1.1.0");
    assert!(broker.data("kept").is_some());

    let output = device.output("remove", &["broker", "--data", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["release"], "broker@1.1.0");
    assert_eq!(
        (&json["removed"], &json["data"]),
        (&true.into(), &().into())
    );
    assert!(!broker.state.exists());

    let history = said(&device.output("history", &[]));
    let lines: Vec<&str> = history.lines().collect();
    let removed = lines.iter().enumerate();
    let removed = removed.filter(|(_, line)| line.contains("  removed"));
    let told: Vec<String> = removed
        .map(|(at, line)| format!("{}{}", &line[19..], lines[at + 1]))
        .collect();
    assert_eq!(
        told,
        [
            "  removed      broker@1.0.0, by an operator    its data stays",
            "  removed      broker@1.1.0, by an operator    its data, too"
        ],
        "{history}"
    );
}

#[test]
fn what_cannot_be_removed_says_why_and_the_last_app_can_without_an_agent() {
    let world = World::new();
    let mut device = pair(&world);
    let needs = world.publish(&App::good("1.1.0").requires("broker", ">=1"));
    let action = world.hub.offer(&needs.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.is_idle();
    for (name, words) in [
        ("nobody", "`nobody` is not installed here"),
        ("pytheas-agent", "is the agent itself"),
        ("app", "`app` was installed first"),
        ("broker", "`app@1.1.0` requires `broker`"),
    ] {
        let output = device.output("remove", &[name]);
        assert_eq!(output.status.code(), Some(1), "{name}");
        assert!(said(&output).contains(words), "{name}: {}", said(&output));
    }
    let next = world.publish(&App::good("1.2.0"));
    let action = world.hub.offer(&next.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.is_idle();
    device.stop();
    let output = device.output("remove", &["broker", "--data"]);
    assert_eq!(said(&output), "`broker@1.0.0` is removed\n");
    let output = device.output("remove", &["app"]);
    assert!(said(&output).starts_with("`app@1.2.0` is removed; its data stays in"));
    assert!(device.slots().is_empty());
    assert!(device.status()["release"].is_null());

    // And it is a device as before.
    device.start();
    let action = world.hub.offer(&needs.target);
    assert!(world.hub.failure(&action)[0].contains("broker"));
    let action = world.hub.offer(&next.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.runs("1.2.0");
}

#[test]
fn a_power_cut_leaves_the_app_whole_or_gone() {
    let world = World::new();
    let mut device = pair(&world);
    device.stop();
    let next = world.publish(&App::good("1.1.0").named("broker"));
    for (point, gone) in [
        ("agent:remove:marked", false),
        ("agent:remove:stopped", true),
        ("agent:remove:current", true),
        ("agent:remove:slots", true),
        ("agent:remove:mark", true),
    ] {
        let broker = device.component("broker");
        device.start_with(Some(point));
        if !broker.state.join("current").exists() {
            unreachable!("it is installed before each cut");
        }
        broker.runs(
            if point == "agent:remove:marked" || point == "agent:remove:stopped" {
                "1.0.0"
            } else {
                "1.1.0"
            },
        );
        let mut command = device.command("remove");
        let mut asking = command.arg("broker").spawn().unwrap();
        until("the power goes", || device.ended());
        let _no_agent_any_more = asking.kill();
        asking.wait().unwrap();
        device.start();
        until("it is settled", || {
            let mark = broker.state.join("removing").exists();
            let listed = !device.status()["components"].is_null();
            (!mark && listed != gone).then_some(())
        });
        device.is_idle();
        device.runs("1.0.0");
        if gone {
            let left = fs::read_dir(&broker.state).unwrap().count();
            assert_eq!(left, 1, "{point}: only data");
            let action = world.hub.offer(&next.target);
            assert_eq!(world.hub.closed(&action), Ok(()));
            device.is_idle();
        }
        broker.runs(if gone { "1.1.0" } else { "1.0.0" });
        device.stop();
    }
}
