//! What an app may not do, tried by one that does all it can.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use serde_json::Value;

use crate::support::{App, Device, World, until};

/// Tries everything, notes what it is and what worked, and stays.
const TRIES: &str = r#"
cd "$PYTHEAS_DATA_DIR"
{
  echo "uid $(id -u) groups $(id -G) home $HOME"
  grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status | tr '\t' ' '
  echo "data limit $(ulimit -d)"
  tried() { if "$@" 2>>errors; then echo "did: $4"; else echo "could not: $4"; fi; }
  tried sh -c 'echo x > "$1/lib/version"; exit $?' 'write its code' "$here"
  tried sh -c 'echo x > "$1/lib/new"; exit $?' 'add to its code' "$here"
  tried sh -c 'cat "$1/../../identity.json" > stolen' 'read the identity' "$here"
  tried sh -c 'mount -t tmpfs none .' 'mount'
  tried sh -c 'echo x > kept && mkdir -p a/b && mv kept a/b/kept && rm -r a' 'use its data'
  tried sh -c 'f=$(mktemp) && rm "$f"' 'use the temporary folder'
  tried sh -c 'echo x > /dev/null' 'use a device'
} > tried.new
mv tried.new tried
exec sleep 100000
"#;

/// A device outside of `/tmp`, where every app may write, that others can enter.
fn device(world: &World, name: &str) -> (Device, tempfile::TempDir) {
    let tmp = tempfile::Builder::new()
        .prefix("confined-")
        .tempdir_in("/var/lib")
        .or_else(|_| tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")))
        .unwrap();
    fs::set_permissions(tmp.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let state: PathBuf = tmp.path().join(name);
    (Device::new(world, state), tmp)
}

fn tried(device: &Device) -> String {
    let path = device.state.join("data/tried");
    let text = until("the app has tried everything", || {
        fs::read_to_string(&path).ok()
    });
    text.replace(&device.state.display().to_string(), "[STATE]")
}

fn guards(status: &Value) -> Vec<(String, bool)> {
    let guards = status["app"]["guards"].as_array().unwrap();
    let name = |guard: &Value| guard["name"].as_str().unwrap().to_owned();
    guards
        .iter()
        .map(|guard| (name(guard), guard["in_force"].as_bool().unwrap()))
        .collect()
}

/// Whether this kernel has Landlock (its list of security modules, or a system call's answer, may
/// be hidden): what the agent says is compared with what the app could do.
fn in_force(status: &Value, name: &str) -> bool {
    guards(status).contains(&(name.to_owned(), true))
}

#[test]
fn an_app_can_change_neither_its_code_nor_the_system() {
    let world = World::new();
    let release = world.publish(&App::good("1.0.0").script(TRIES));
    let (mut device, _tmp) = device(&world, "device");
    device.args.extend(["--app-memory".into(), "100 MB".into()]);
    device.start();
    let action = world.hub.offer(&release.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    let (text, status) = (tried(&device), device.status());
    let has = |line: &str| text.lines().any(|found| found == line);
    assert!(has("NoNewPrivs: 1") && has("Seccomp: 2"), "{text}");
    assert!(has("could not: mount"), "{text}");
    assert!(
        has("did: use its data") && has("did: use a device"),
        "{text}"
    );
    assert!(has("did: use the temporary folder"), "{text}");
    assert!(text.contains("home [STATE]/data"), "{text}");
    assert!(in_force(&status, "no-new-privileges") && in_force(&status, "seccomp"));
    assert!(in_force(&status, "memory"), "{:?}", guards(&status));
    // Without a cgroup of the agent's own: KiB.
    let by_process = status["app"]["guards"]
        .to_string()
        .contains("of data in each process");
    assert!(!by_process || has("data limit 97656"), "{text}");
    if in_force(&status, "landlock") {
        assert!(has("could not: write its code"), "{text}");
        assert!(has("could not: add to its code"), "{text}");
    } else {
        testkit::skip("this kernel has no Landlock");
    }
    assert_eq!(device.current(), Some(release.tree));
}

#[test]
fn an_app_runs_as_its_own_user() {
    if !rustix::process::geteuid().is_root() {
        return testkit::skip("only root can start a process as somebody else");
    }
    let world = World::new();
    let release = world.publish(&App::good("1.0.0").script(TRIES));
    let (mut device, _tmp) = device(&world, "device");
    // What was the agent's before.
    fs::create_dir_all(device.state.join("data/old")).unwrap();
    device
        .args
        .extend(["--app-user", "nobody", "--no-sandbox"].map(String::from));
    device.start();
    let action = world.hub.offer(&release.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    let text = tried(&device);
    let has = |line: &str| text.lines().any(|found| found == line);
    assert!(
        text.starts_with("uid 65534 groups 65534 home [STATE]/data\n"),
        "{text}"
    );
    assert!(has("NoNewPrivs: 0") && has("Seccomp: 0"), "{text}");
    for no in [
        "write its code",
        "add to its code",
        "read the identity",
        "mount",
    ] {
        assert!(has(&format!("could not: {no}")), "{text}");
    }
    assert!(has("did: use its data"), "{text}");
    let status = device.status();
    assert!(in_force(&status, "user") && !in_force(&status, "seccomp"));

    // The app does not outlive the agent, whoever it is.
    let app = device.app_pid().unwrap();
    device.kill();
    until("the app is gone", || {
        (!crate::support::alive(app)).then_some(())
    });

    // A user that is not there is said, and nothing is started in its stead.
    device.args.pop();
    *device.args.last_mut().unwrap() = "no-such-user".into();
    device.start();
    until("it is said", || {
        let status = device.status();
        let said = status["last_error"].as_str().unwrap_or_default().to_owned();
        said.contains("no user `no-such-user`").then_some(())
    });
    assert!(!device.app_pid().is_some_and(crate::support::alive));
}
