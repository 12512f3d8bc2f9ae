//! Updates that change the app's data: hooks, and the data put back when they come to nothing.

use crate::support::{App, Device, World, until};

/// Changes the data as version `to` of an app would, in two steps, from what `from` has left.
fn migrate(from: &str, to: &str) -> String {
    format!(
        "set -e\n[ \"$(cat schema 2>/dev/null)\" = {from} ] || {{ echo \"schema is $(cat schema)\"; exit 9; }}\n\
         echo torn > schema\n[ \"$PYTHEAS_HOOK $1\" = 'after-update argument' ]\necho {to} > schema\n\
         echo \"$PYTHEAS_FROM_RELEASE $PYTHEAS_TO_RELEASE\" > moved\necho migrated to {to}"
    )
}

/// An app that works with the data of one schema only, and writes into it.
fn of_schema(version: &str, schema: &str) -> App {
    App::good(version).script(&format!(
        "[ -e \"$PYTHEAS_DATA_DIR/schema\" ] || echo {schema} > \"$PYTHEAS_DATA_DIR/schema\"\n\
         [ \"$(cat \"$PYTHEAS_DATA_DIR/schema\")\" = {schema} ] || exit 7\nexec sleep 100000"
    ))
}

#[track_caller]
fn nothing_is_left(device: &Device) {
    for name in ["snapshot", "snapshot.part", "data.part", "data.failed"] {
        until(&format!("`{name}` is removed"), || {
            (!device.state.join(name).exists()).then_some(())
        });
    }
}

#[test]
fn data_is_migrated_with_the_release() {
    let world = World::new();
    let device = world.device_with("device", &world.publish(&of_schema("1.0.0", "s1")));
    let next = of_schema("2.0.0", "s2")
        .hook(
            "before-update",
            60_000,
            "[ \"$(cat running)\" = '1.0.0 1.0.0' ]",
        )
        .hook("after-update", 60_000, &migrate("s1", "s2"));
    let action = world.hub.offer(&world.publish(&next).target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.runs("2.0.0");
    assert_eq!(device.data("schema").as_deref(), Some("s2"));
    assert_eq!(device.data("moved").as_deref(), Some("app@1.0.0 app@2.0.0"));
    nothing_is_left(&device);
    let log = std::fs::read_to_string(device.state.join("logs/app.log")).unwrap();
    assert!(
        log.contains("hook after-update of app@2.0.0") && log.contains("migrated to s2"),
        "{log}"
    );
}

#[test]
fn what_fails_leaves_the_data_as_it_was() {
    let world = World::new();
    let first = of_schema("1.0.0", "s1").hook(
        "after-rollback",
        60_000,
        "echo \"$PYTHEAS_FROM_RELEASE\" >> back",
    );
    let device = world.device_with("device", &world.publish(&first));
    let spoil = "echo torn > schema; echo more > more; mkdir -p d; ";
    let next = |version: &str| of_schema(version, "s2");
    for (version, app, said) in [
        (
            "1.1.0",
            next("1.1.0").hook(
                "after-update",
                60_000,
                &format!("{spoil} echo no such table; exit 3"),
            ),
            "failed: exit status 3",
        ),
        (
            "1.2.0",
            next("1.2.0").hook("after-update", 300, &format!("{spoil} sleep 1000 & wait")),
            "did not end within 0.3 s",
        ),
        (
            "1.3.0",
            next("1.3.0")
                .hook("after-update", 60_000, spoil)
                .crashing("exit 1"),
            "exit status 1",
        ),
    ] {
        let action = world.hub.offer(&world.publish(&app).target);
        let lines = world.hub.failure(&action);
        assert!(
            lines.iter().any(|line| line.contains(said)),
            "{version}: {lines:?}"
        );
        device.is_idle();
        device.runs("1.0.0");
        assert_eq!(device.data("schema").as_deref(), Some("s1"), "{version}");
        assert_eq!(device.data("more"), None, "{version}");
        // The hook of the release that is gone back to saw the data that was put back.
        assert_eq!(
            device
                .data("back")
                .as_deref()
                .map(|text| text.lines().last().unwrap().to_owned()),
            Some(format!("app@{version}"))
        );
        nothing_is_left(&device);
    }
}

#[test]
fn a_release_can_say_that_it_is_not_the_time() {
    let world = World::new();
    let device = world.device_with("device", &world.publish(&App::good("1.0.0")));
    let pid = device.app_pid();
    let next = App::good("1.1.0").hook("before-update", 60_000, "echo batch 7 is not done; exit 1");
    let action = world.hub.offer(&world.publish(&next).target);
    insta::assert_snapshot!(world.hub.failure(&action).join("\n"), @r"
    the hook `before-update` of `app@1.1.0` failed: exit status 1
    batch 7 is not done
    ");
    device.is_idle();
    assert_eq!(device.app_pid(), pid, "the app was not touched");
}

#[test]
fn an_operator_who_goes_back_keeps_the_data() {
    let world = World::new();
    let first = App::good("1.0.0").hook(
        "after-rollback",
        60_000,
        "echo \"from $PYTHEAS_FROM_RELEASE\" > back",
    );
    let device = world.device_with("device", &world.publish(&first));
    let action = world.hub.offer(&world.publish(&App::good("1.1.0")).target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.is_idle();
    assert!(device.output("rollback", &[]).status.success());
    device.runs("1.0.0");
    assert_eq!(device.data("back").as_deref(), Some("from app@1.1.0"));
}

/// The points at which an update that changes data is half done.
const POINTS: &[(&str, u32)] = &[
    ("agent:state:preparing", 1),
    ("agent:state:snapshotting", 1),
    ("agent:snapshot:stopped", 1),
    ("agent:data:file", 2),
    ("agent:data:copied", 1),
    ("agent:data:aside", 1),
    ("agent:state:switching", 1),
    ("agent:switch:one", 1),
    ("agent:state:migrating", 1),
    ("agent:hook:spawned", 1),
    ("agent:migrate:one", 1),
    ("agent:state:probation", 1),
    ("agent:state:committed", 1),
];

const BACK: &[&str] = &[
    "agent:state:rolling-back",
    "agent:rollback:stopped",
    "agent:data:given-up",
    "agent:data:back",
    "agent:rollback:one",
];

#[test]
fn killed_at_every_point_the_data_is_the_old_or_the_new_one() {
    let world = World::new();
    let mut device = world.device_with("device", &world.publish(&of_schema("1.0.0", "s0")));
    let mut at = 0;
    for (point, passings) in POINTS {
        for passing in 1..=*passings {
            let name = format!("{point}:{passing}");
            at += 1;
            let (from, to) = (format!("s{}", at - 1), format!("s{at}"));
            let next = of_schema(&format!("1.{at}.0"), &to)
                .hook("before-update", 60_000, "true")
                .hook("after-update", 60_000, &migrate(&from, &to));
            let next = world.publish(&next);
            device.kill();
            let action = world.hub.offer(&next.target);
            device.start_with(Some(&name));
            until(&format!("{name}: it dies"), || device.ended());
            device.start();
            assert_eq!(world.hub.closed(&action), Ok(()), "{name}");
            device.is_idle();
            device.runs(&format!("1.{at}.0"));
            assert_eq!(device.data("schema"), Some(to), "{name}");
            nothing_is_left(&device);
        }
    }
    let runs = format!("1.{at}.0");
    for (i, point) in BACK.iter().enumerate() {
        let bad = of_schema(&format!("2.{i}.0"), "x").hook(
            "after-update",
            60_000,
            "echo torn > schema; rm moved; exit 1",
        );
        let bad = world.publish(&bad);
        device.kill();
        let action = world.hub.offer(&bad.target);
        device.start_with(Some(point));
        until(&format!("{point}: it dies"), || device.ended());
        device.start();
        assert!(world.hub.closed(&action).is_err(), "{point}");
        device.is_idle();
        device.runs(&runs);
        assert_eq!(device.data("schema"), Some(format!("s{at}")), "{point}");
        assert!(device.data("moved").is_some(), "{point}");
        nothing_is_left(&device);
    }
}
