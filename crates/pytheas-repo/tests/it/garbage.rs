//! Garbage is removed, and nothing else: whatever a device may ask for stays.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use jiff::{SignedDuration, Timestamp};
use pytheas_release::Sha256;
use pytheas_repo::{
    fetch::FolderFetch,
    garbage::{Found, GarbageError, Options, collect},
    layout, on_demand,
    publish::Options as PublishOptions,
    store::{Store, StoreError},
};

use crate::{
    teams::{change, publish_as, set, take_up, team},
    world::{PLATFORM, World, days, noise, now, published_files, runtime, shown},
};

fn in_days(n: i64) -> Timestamp {
    Timestamp::now() + days(n)
}

fn gc(world: &World, at: Timestamp, remove: bool) -> Result<Found, GarbageError> {
    let options = Options {
        now: at,
        min_age: days(30),
        remove,
    };
    runtime().block_on(collect(&world.store(), None, &options))
}

fn paths(found: &Found) -> Vec<&str> {
    found
        .garbage
        .iter()
        .map(|file| file.path.as_str())
        .collect()
}

/// A blob that nobody names.
fn junk(world: &World, bytes: &[u8]) -> String {
    let path = layout::blob(&Sha256::of(bytes));
    let file = world.repo().join(&path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, bytes).unwrap();
    path
}

fn make_old(file: &Path, days: u64) {
    let then = SystemTime::now() - Duration::from_secs(days * 24 * 3600);
    let file = fs::File::options().write(true).open(file).unwrap();
    file.set_modified(then).unwrap();
}

#[test]
fn what_no_release_needs_goes_and_every_release_stays_whole() {
    let world = World::with_two_releases();
    let library = noise(1, 300_000);
    world
        .publish("1.2.0", &[("lib/library.so", &library)])
        .unwrap();
    let clean = published_files(&world.repo());
    let junk = junk(&world, b"what a publish left");
    // Nobody knows what these are.
    fs::create_dir_all(world.repo().join("deltas")).unwrap();
    for foreign in [
        "blobs/README",
        "deltas/notes.txt",
        "metadata/notes.md",
        "index.html",
    ] {
        fs::write(world.repo().join(foreign), "mine").unwrap();
    }

    let found = gc(&world, in_days(60), false).unwrap();
    assert_eq!(
        paths(&found),
        [
            junk.as_str(),
            "metadata/1.snapshot.json",
            "metadata/2.snapshot.json"
        ]
    );
    assert_eq!((found.releases, found.removed, found.young), (3, false, 0));
    assert!(world.repo().join(&junk).exists());

    let found = gc(&world, in_days(60), true).unwrap();
    assert!(found.removed && found.garbage.len() == 3);
    let left = published_files(&world.repo());
    let wanted = |path: &&String| !path.ends_with(".snapshot.json") || path.contains("3.");
    let clean: Vec<&String> = clean.iter().filter(wanted).collect();
    let ours = |path: &&String| clean.contains(path);
    assert_eq!(left.iter().filter(ours).count(), clean.len(), "{left:?}");
    assert_eq!(
        left.len(),
        clean.len() + 4,
        "the foreign files are left: {left:?}"
    );
    for version in ["1.0.0", "1.1.0", "1.2.0"] {
        let device = world.device(&format!("device-{version}"));
        let files = device
            .install(&mut FolderFetch(world.repo()), version)
            .unwrap();
        assert_eq!(files["lib/library.so"], library);
    }
    for delta in world
        .device("device-1.2.0")
        .release("1.2.0")
        .unwrap()
        .deltas
        .values()
    {
        let bytes = fs::read(world.repo().join(layout::blob(&delta.sha256))).unwrap();
        assert_eq!(Sha256::of(&bytes), delta.sha256);
    }
    let again = gc(&world, in_days(60), true).unwrap();
    assert!(again.garbage.is_empty(), "{again:?}");
    world.publish("1.3.0", &[]).unwrap();
}

#[test]
fn what_is_young_stays_and_so_does_the_snapshot_that_a_reader_may_hold() {
    let world = World::with_two_releases();
    let junk = junk(&world, b"somebody is publishing this");
    let found = gc(&world, Timestamp::now(), true).unwrap();
    assert!(found.garbage.is_empty() && found.young == 1, "{found:?}");
    assert!(world.repo().join(junk).exists());
    // Written long ago, but replaced just now.
    make_old(&world.repo().join("metadata/1.snapshot.json"), 300);
    assert!(
        gc(&world, Timestamp::now(), true)
            .unwrap()
            .garbage
            .is_empty()
    );
    make_old(&world.repo().join("metadata/2.snapshot.json"), 40);
    let found = gc(&world, Timestamp::now(), true).unwrap();
    assert_eq!(paths(&found), ["metadata/1.snapshot.json"]);
}

#[test]
fn a_publish_writes_again_what_may_be_garbage() {
    let world = World::with_two_releases();
    let files: &[(&str, &[u8])] = &[("app/main.py", b"print('new')")];
    // The blobs of a publish that was cut off long ago.
    let other = World::new();
    let tree = other.tree("1.2.0", PLATFORM, files);
    let options = PublishOptions::at(now());
    other.publish_dir(&other.store(), &tree, &options).unwrap();
    for path in published_files(&other.repo()) {
        if path.starts_with("blobs/") && !world.repo().join(&path).exists() {
            let to = world.repo().join(&path);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(other.repo().join(&path), &to).unwrap();
            make_old(&to, 50);
        }
    }
    let before = gc(&world, Timestamp::now(), false).unwrap();
    assert!(!before.garbage.is_empty());
    let tree = world.tree("1.2.0", PLATFORM, files);
    let options = PublishOptions::at(Timestamp::now());
    world.publish_dir(&world.store(), &tree, &options).unwrap();
    let reused: Vec<&str> = {
        let after = gc(&world, Timestamp::now(), false).unwrap();
        let still: Vec<String> = after.garbage.into_iter().map(|file| file.path).collect();
        let gone = paths(&before).into_iter();
        gone.filter(|path| !still.contains(&(*path).to_owned()))
            .collect()
    };
    assert!(!reused.is_empty(), "nothing of it was of use");
    for path in reused {
        let written = fs::metadata(world.repo().join(path)).unwrap().modified();
        let age = SystemTime::now().duration_since(written.unwrap()).unwrap();
        assert!(
            age < Duration::from_secs(3600),
            "{path} was not written again"
        );
    }
}

#[test]
fn when_a_needed_file_cannot_be_read_nothing_is_removed() {
    let world = World::with_two_releases();
    let junk = junk(&world, b"junk");
    let release = {
        let device = world.device("device");
        device.refresh(now()).unwrap();
        device.release("1.0.0").unwrap()
    };
    let index = world.repo().join(layout::blob(&release.index.sha256));
    fs::write(index, "damaged").unwrap();
    let error = gc(&world, in_days(60), true).unwrap_err();
    let text = shown(error)
        .replace(&world.repo().display().to_string(), "REPO")
        .replace(&layout::blob(&release.index.sha256), "blobs/INDEX");
    insta::assert_snapshot!(text, @r"
    error: `blobs/INDEX` in `REPO`, which a release needs, is missing or not what was signed; nothing was removed
      help: restore this file from a copy of the repository, then try again
    ");
    assert!(world.repo().join(junk).exists());
}

#[test]
fn nothing_is_removed_while_somebody_publishes() {
    let world = World::with_two_releases();
    let store = world.store();
    let _publishing = store.lock().unwrap();
    let error = gc(&world, in_days(60), true).unwrap_err();
    assert!(
        matches!(error, GarbageError::Store(StoreError::Locked { .. })),
        "{error}"
    );
}

#[test]
fn over_http_nothing_can_be_removed() {
    let store = Store::open("http://127.0.0.1:9/repo", None).unwrap();
    let options = Options {
        now: now(),
        min_age: SignedDuration::ZERO,
        remove: true,
    };
    let error = runtime()
        .block_on(collect(&store, None, &options))
        .unwrap_err();
    assert!(matches!(error, GarbageError::Http { .. }), "{error}");
}

#[test]
fn what_a_team_has_uploaded_stays_and_a_team_that_cannot_be_read_stops_it() {
    let world = World::with_two_releases();
    let (dir, public) = team(&world, "fleet", "fleet");
    change(&world, &set("fleet", &["app/2.*/*/*"], &[&public])).unwrap();
    // Uploaded; no snapshot lists it yet.
    publish_as(&world, &dir, "fleet", "2.0.0").unwrap();
    let found = gc(&world, in_days(60), true).unwrap();
    assert_eq!(found.releases, 3);
    take_up(&world);
    let device = world.device("device");
    let files = device.install(&mut FolderFetch(world.repo()), "2.0.0");
    assert_eq!(files.unwrap()["team"], b"ours");

    // Another key: until the team publishes again, nobody can say what it needs.
    let (_, public) = team(&world, "fleet-2", "bob");
    change(&world, &set("fleet", &["app/2.*/*/*"], &[&public])).unwrap();
    let error = gc(&world, in_days(60), true).unwrap_err();
    assert!(matches!(error, GarbageError::Team { .. }), "{error}");
}

#[test]
fn deltas_made_on_demand_stay_while_their_releases_live() {
    let world = World::with_two_releases();
    let device = world.device("device");
    device.refresh(now()).unwrap();
    let (old, new) = (
        device.release("1.0.0").unwrap().tree.id,
        device.release("1.1.0").unwrap().tree.id,
    );
    let elsewhere = pytheas_release::TreeId(Sha256::of(b"of a release that is gone"));
    let offer = |from, to, bytes: &[u8]| {
        let store = world.store();
        let done = on_demand::offer(&store, from, to, bytes.to_vec());
        layout::blob(&runtime().block_on(done).unwrap().sha256)
    };
    let kept = offer(new, old, b"back");
    let gone = offer(elsewhere, new, b"from elsewhere");
    let found = gc(&world, in_days(60), true).unwrap();
    let pointer = layout::offered_delta(elsewhere, new);
    assert_eq!(
        paths(&found),
        [gone.as_str(), &pointer, "metadata/1.snapshot.json"]
    );
    assert!(world.repo().join(kept).exists());
    assert!(world.repo().join(layout::offered_delta(new, old)).exists());
}
