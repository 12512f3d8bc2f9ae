//! Starting and stopping, and what hinders it.

use std::{
    io::Read,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use miette::Diagnostic;
use pytheas_hub::{Config, Hub, StartError};

use crate::world::World;

fn start(config: Config) -> Result<(), StartError> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let hub = runtime.block_on(Hub::start(config))?;
    runtime.block_on(hub.shutdown());
    Ok(())
}

fn shown(error: &StartError, hide: &str) -> String {
    let help = error
        .help()
        .map(|help| help.to_string())
        .unwrap_or_default();
    format!("{error}\nhelp: {help}").replace(hide, "[DIR]")
}

#[test]
fn a_port_in_use_is_named_with_a_way_out() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(dir.path());
    config.listen = world.address();
    let error = start(config).unwrap_err();
    let shown = shown(&error, &world.address().to_string());
    insta::assert_snapshot!(shown, @"
    `[DIR]` is in use
    help: another hub? `ss -ltnp` names the program; choose another place with `--listen`, or `--listen 127.0.0.1:0` for a free port
    ");
}

#[test]
fn two_hubs_do_not_share_a_data_directory() {
    let world = World::new();
    let error = start(world.config.clone()).unwrap_err();
    insta::assert_snapshot!(shown(&error, &world.dir.path().display().to_string()), @"
    another hub uses the data directory `[DIR]/data`
    help: stop it, or choose another one with `--data`
    ");
}

#[test]
fn a_data_directory_that_is_a_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "x").unwrap();
    let error = start(Config::new(path.join("data"))).unwrap_err();
    insta::assert_snapshot!(shown(&error, &dir.path().display().to_string()), @"
    cannot write to the data directory `[DIR]/file/data`
    help: is it yours, and is there room? Choose another one with `--data`
    ");
}

#[test]
fn online_keys_and_root_that_are_not_there_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(dir.path().join("data"));
    config.listen = "127.0.0.1:0".parse().unwrap();
    config.online_keys = Some(dir.path().join("keys"));
    let error = start(config.clone()).unwrap_err();
    assert!(matches!(error, StartError::OnlineKeys { .. }), "{error:?}");
    config.online_keys = None;
    config.root = Some(dir.path().join("root.json"));
    let error = start(config.clone()).unwrap_err();
    assert!(matches!(error, StartError::Root { .. }), "{error:?}");
    config.root = None;
    config.poll_interval = Duration::from_secs(86_400);
    let error = start(config).unwrap_err();
    assert!(
        matches!(error, StartError::PollInterval { .. }),
        "{error:?}"
    );
}

#[test]
fn a_new_data_directory_is_its_owners_only() {
    let world = World::new();
    let mode = world
        .dir
        .path()
        .join("data")
        .metadata()
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn stopping_ends_open_streams_and_idle_connections_at_once() {
    let mut world = World::new();
    let mut events = world
        .call("GET", "/api/v1/events")
        .bearer(&world.admin)
        .open();
    let idle = std::net::TcpStream::connect(world.address()).unwrap();
    let mut first = [0; 16];
    events.read_exact(&mut first).unwrap();
    let begin = Instant::now();
    world.stop();
    assert!(
        begin.elapsed() < Duration::from_secs(3),
        "{:?}",
        begin.elapsed()
    );
    let mut rest = Vec::new();
    events.read_to_end(&mut rest).unwrap();
    drop(idle);
}

#[test]
fn a_stopper_lets_run_return() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(dir.path());
    config.listen = "127.0.0.1:0".parse().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let hub = Hub::start(config).await.unwrap();
        let stopper = hub.stopper();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            stopper.stop();
        });
        hub.run().await;
    });
}
