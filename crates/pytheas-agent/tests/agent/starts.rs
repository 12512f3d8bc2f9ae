//! Several agents in one state directory: of those that are started at once one works, the others say
//! which, and nothing on the disk shows that they were there.

use std::{fs, process::Child};

use rustix::process::Signal;

use crate::support::{App, Device, World, alive, signal, until};

/// Starts so many at once.
fn start(device: &Device, world: &World, count: usize) -> Vec<(Child, std::path::PathBuf)> {
    (0..count)
        .map(|number| {
            let log = world.path(&format!("start-{number}.log"));
            let mut command = device.command("run");
            command.stderr(fs::File::create(&log).unwrap());
            command.args(["--poll-interval", "100ms"]);
            (command.spawn().unwrap(), log)
        })
        .collect()
}

#[test]
fn of_agents_that_are_started_at_once_one_works() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let mut device = world.device_with("device", &first);
    let mut newest = first;
    for (round, count) in [2, 5, 5].into_iter().enumerate() {
        device.kill();
        let started = |device: &Device| {
            let log = fs::read_to_string(device.state.join("logs/app.log")).unwrap();
            log.matches("--- pytheas: started ").count()
        };
        let before = started(&device);
        let mut all = start(&device, &world, count);
        let pids: Vec<u32> = all.iter().map(|(child, _)| child.id()).collect();
        until("all but one have ended", || {
            all.retain_mut(|(child, log)| {
                let Some(status) = child.try_wait().unwrap() else {
                    return true;
                };
                let said = fs::read_to_string(log).unwrap();
                assert_eq!(status.code(), Some(3), "{said}");
                let named = pids
                    .iter()
                    .any(|pid| said.contains(&format!("another agent (process {pid}) works in")));
                // The one that works may not have written its number yet.
                assert!(named || said.contains("(process ?)"), "{said}");
                false
            });
            (all.len() <= 1).then_some(())
        });
        let (mut child, _) = all.pop().expect("one works");
        let version = newest.reference.version.to_string();
        device.runs(&version);
        until("its lock is seen", || {
            (device.status()["agent_pid"] == child.id()).then_some(())
        });
        assert_eq!(started(&device), before + 1, "the app was started once");
        let next = world.publish(&App::good(&format!("1.{}.0", round + 1)));
        let action = world.hub.offer(&next.target);
        assert_eq!(world.hub.closed(&action), Ok(()));
        device.is_idle();
        assert_eq!(device.current(), Some(next.tree));
        newest = next;
        let app = device.app_pid().unwrap();
        signal(child.id(), Signal::TERM);
        assert!(child.wait().unwrap().success());
        assert!(!alive(app));
    }
}

#[test]
fn of_agents_that_make_a_new_device_at_once_one_does() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let device = world.device("device");
    let action = world.hub.offer(&first.target);
    let root = world.root_file();
    let mut all: Vec<Child> = (0..5)
        .map(|_| {
            let mut command = device.command("run");
            command.args(["--hub", &world.hub.url(), "--id", "dev1", "--root"]);
            command.arg(&root).args(["--poll-interval", "100ms"]);
            command.stderr(std::process::Stdio::null()).spawn().unwrap()
        })
        .collect();
    assert_eq!(world.hub.closed(&action), Ok(()));
    until("all but one have ended", || {
        all.retain_mut(|child| child.try_wait().unwrap().is_none());
        (all.len() == 1).then_some(())
    });
    device.runs("1.0.0");
    // One secret, one identity, one copy of it.
    let claims: Vec<_> = world
        .hub
        .talk()
        .enrolments
        .iter()
        .map(|one| one["claim"].clone())
        .collect();
    assert!(claims.windows(2).all(|two| two[0] == two[1]), "{claims:?}");
    let read = |name: &str| fs::read(device.state.join(name)).unwrap();
    assert_eq!(read("identity.json"), read("identity.copy"));
    let mut child = all.pop().unwrap();
    signal(child.id(), Signal::TERM);
    assert!(child.wait().unwrap().success());
}
