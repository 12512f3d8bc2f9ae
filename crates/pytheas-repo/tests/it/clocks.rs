//! Clocks that are wrong.

use jiff::Timestamp;

use crate::world::{World, days, now};

fn in_1970() -> Timestamp {
    "1970-01-01T00:02:11Z".parse().unwrap()
}

#[test]
fn a_board_that_wakes_up_in_1970_updates() {
    let world = World::with_two_releases();
    let device = world.device("device");
    let refreshed = device.refresh(in_1970()).unwrap();
    assert_eq!(refreshed.targets, 2);
    assert_eq!(
        refreshed.time_used,
        now(),
        "the metadata says when it was signed"
    );
}

#[test]
fn in_1970_expired_metadata_is_not_fresh() {
    let world = World::new();
    world.publish("1.0.0", &[]).unwrap();
    let old = world.save("old");
    // The hub renews until eight days later: the first timestamp has expired by then.
    let keys = pytheas_repo::keys::OnlineKeys::load(&world.keys_dir().join("online")).unwrap();
    let (store, valid) = (world.store(), pytheas_repo::publish::Validity::default());
    let renew = pytheas_repo::renew::renew(&store, &keys, &valid, now() + days(8));
    crate::world::runtime().block_on(renew).unwrap();

    let device = world.device("device");
    let refreshed = device.refresh(in_1970()).unwrap();
    assert_eq!(refreshed.time_used, now() + days(8));
    // After a power cut it is 1970 again, and the time that is known from disk still counts.
    let mut replayed = pytheas_repo::fetch::FolderFetch(old);
    device.refresh_from(&mut replayed, in_1970()).unwrap_err();
    let stale = device.state.join("tuf/snapshot.json");
    assert!(stale.exists());
    assert_eq!(
        device.refresh(in_1970()).unwrap().time_used,
        now() + days(8)
    );
}

#[test]
fn a_clock_that_is_right_is_used() {
    let world = World::with_two_releases();
    let device = world.device("device");
    let time = now() + days(3);
    assert_eq!(device.refresh(time).unwrap().time_used, time);
    // Slightly slow: the signature's time counts.
    assert_eq!(device.refresh(now() - days(1)).unwrap().time_used, now());
}

#[test]
fn a_clock_that_was_ahead_does_no_lasting_harm() {
    let world = World::with_two_releases();
    let device = world.device("device");
    device
        .refresh("2099-01-01T00:00:00Z".parse().unwrap())
        .unwrap_err();
    assert_eq!(device.refresh(now()).unwrap().time_used, now());
}

#[test]
fn a_false_time_signed_with_a_stolen_key_goes_away_with_the_key() {
    use crate::{
        roots::{replace_keys, sign_online, write_root},
        world::Forger,
    };
    use tough::schema::{RoleType, Timestamp as TimestampRole};

    let world = World::new();
    world.publish("1.0.0", &[]).unwrap();
    let device = world.device("device");
    let (thief, repo) = (Forger::with_keys(&world.keys_dir()), world.repo());
    thief.resign(
        &repo,
        "timestamp.json",
        "timestamp.json",
        |t: &mut TimestampRole| {
            t.version = 2.try_into().unwrap();
            t.expires = "2098-01-01T00:00:00Z".parse().unwrap();
            t._extra
                .insert("x-pytheas-signed".into(), "2097-01-01T00:00:00Z".into());
        },
    );
    let error = device.refresh(now()).unwrap_err();
    assert!(error.to_string().contains("it is 2097-01-01"), "{error}");
    let roles = [RoleType::Timestamp, RoleType::Snapshot];
    let root = replace_keys(&world, "keys", "keys2", 2, &roles);
    write_root(&world, &root, &["keys"]);
    sign_online(&world, &root, &["keys2"], 2);
    assert_eq!(device.refresh(now()).unwrap().root, 2);
}
