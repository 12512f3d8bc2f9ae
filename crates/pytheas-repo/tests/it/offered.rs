//! Deltas made on demand: made from what is published, offered whole or not at all, removed by age
//! and room.

use std::{collections::BTreeSet, fs};

use jiff::Timestamp;
use pytheas_release::{BlobRef, Release, Sha256, TreeId, delta};
use pytheas_repo::{
    layout,
    on_demand::{self, Keep},
};

use crate::world::{PLATFORM, World, days, noise, now, runtime};

fn tree(number: u8) -> TreeId {
    TreeId(Sha256::of(&[number]))
}

/// The beginning of a delta between these trees, `len` bytes long.
fn delta(from: TreeId, to: TreeId, len: usize) -> Vec<u8> {
    let mut bytes = noise(u64::from(from.0.as_bytes()[0]), len);
    bytes[8..40].copy_from_slice(from.0.as_bytes());
    bytes[40..72].copy_from_slice(to.0.as_bytes());
    bytes
}

fn offer(world: &World, from: TreeId, to: TreeId, bytes: Vec<u8>) -> BlobRef {
    let store = world.store();
    runtime()
        .block_on(on_demand::offer(&store, from, to, bytes))
        .unwrap()
}

fn offered(world: &World, from: TreeId, to: TreeId) -> Option<BlobRef> {
    let store = world.store();
    runtime()
        .block_on(on_demand::offered(&store, from, to, Timestamp::now()))
        .unwrap()
}

fn collect(world: &World, keep: Keep, at: Timestamp, gone: TreeId) -> on_demand::Collected {
    let store = world.store();
    let signed = BTreeSet::new();
    let done = on_demand::collect(&store, keep, at, &signed, |from, _| from != gone);
    runtime().block_on(done).unwrap()
}

/// Two releases with no delta between them.
fn two(world: &World) -> (Release, Release) {
    let library = noise(1, 300_000);
    let mut changed = library.clone();
    changed[1000] ^= 0xff;
    for (version, library) in [("1.0.0", &library), ("1.1.0", &changed)] {
        let dir = world.tree(version, PLATFORM, &[("lib/library.so", library)]);
        let options = pytheas_repo::publish::Options {
            deltas: Some(0),
            ..pytheas_repo::publish::Options::at(now())
        };
        world.publish_dir(&world.store(), &dir, &options).unwrap();
    }
    let device = world.device("device");
    device.refresh(now()).unwrap();
    (
        device.release("1.0.0").unwrap(),
        device.release("1.1.0").unwrap(),
    )
}

#[test]
fn a_delta_is_made_of_two_published_releases() {
    let world = World::new();
    let (old, new) = two(&world);
    let scratch = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let make = |from: &Release, to: &Release| {
        on_demand::make(&world.store(), runtime.handle(), from, to, scratch.path()).unwrap()
    };
    let made = make(&old, &new).unwrap();
    assert!(made.len() < 2_000, "{} bytes for one byte", made.len());
    let head = delta::Head::read(&mut &made[..]).unwrap();
    assert_eq!((head.old(), head.new_id()), (old.tree.id, new.tree.id));
    assert_eq!(made[delta::IDS][..32], *old.tree.id.0.as_bytes());
    assert_eq!(made[delta::IDS][32..], *new.tree.id.0.as_bytes());

    let blob = offer(&world, old.tree.id, new.tree.id, made);
    assert_eq!(offered(&world, old.tree.id, new.tree.id), Some(blob));
    assert_eq!(offered(&world, new.tree.id, old.tree.id), None);
}

#[test]
fn no_delta_is_made_that_saves_nothing() {
    let world = World::new();
    for (version, seed) in [("1.0.0", 1), ("1.1.0", 2)] {
        world
            .publish(version, &[("lib/library.so", &noise(seed, 3_000_000))])
            .unwrap();
    }
    let device = world.device("device");
    device.refresh(now()).unwrap();
    let (mut old, new) = (
        device.release("1.0.0").unwrap(),
        device.release("1.1.0").unwrap(),
    );
    let scratch = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let made = on_demand::make(&world.store(), runtime.handle(), &old, &new, scratch.path());
    assert_eq!(made.unwrap().map(|delta| delta.len()), None);
    old.index.sha256 = Sha256::of(b"no such index");
    let made = on_demand::make(&world.store(), runtime.handle(), &old, &new, scratch.path());
    assert!(made.is_err());
}

#[test]
fn what_was_cut_off_is_not_offered() {
    let world = World::new();
    let (from, to) = (tree(1), tree(2));
    let blob = offer(&world, from, to, delta(from, to, 500));
    let (pointer, path) = (
        world.repo().join(layout::offered_delta(from, to)),
        world.repo().join(layout::blob(&blob.sha256)),
    );
    let bytes = fs::read(&pointer).unwrap();
    fs::remove_file(&pointer).unwrap();
    assert_eq!(offered(&world, from, to), None, "the blob alone is nothing");
    for wrong in [&b"{}"[..], b"", &[b' '; 5000]] {
        fs::write(&pointer, wrong).unwrap();
        assert_eq!(offered(&world, from, to), None);
    }
    fs::write(&pointer, bytes).unwrap();
    assert_eq!(offered(&world, from, to), Some(blob));
    fs::write(&path, "shorter").unwrap();
    assert_eq!(offered(&world, from, to), None, "another length");
    fs::remove_file(path).unwrap();
    assert_eq!(offered(&world, from, to), None);
}

#[test]
fn unused_deltas_and_those_above_the_limit_go_with_their_blobs() {
    let world = World::new();
    let to = tree(0);
    let made: Vec<(TreeId, BlobRef)> = (1..=4)
        .map(|number| {
            let from = tree(number);
            (from, offer(&world, from, to, delta(from, to, 1000)))
        })
        .collect();
    // Used ten days apart; the first one longest ago.
    for (number, (from, _)) in made.iter().enumerate() {
        let file = world.repo().join(layout::offered_delta(*from, to));
        let used = std::time::SystemTime::now()
            - std::time::Duration::from_secs(24 * 3600 * 10 * (4 - number as u64));
        let file = fs::File::options().write(true).open(file).unwrap();
        file.set_modified(used).unwrap();
    }
    let keep = Keep {
        size_bytes: 2_500,
        unused: days(365),
    };
    let there = |number: usize| {
        let blob = world.repo().join(layout::blob(&made[number].1.sha256));
        let pointer = world.repo().join(layout::offered_delta(made[number].0, to));
        assert_eq!(blob.exists(), pointer.exists());
        blob.exists()
    };
    let all = |wanted: [bool; 4]| assert_eq!([0, 1, 2, 3].map(there), wanted);
    // Asking for the oldest makes it the one used last.
    assert!(offered(&world, made[0].0, to).is_some());
    let done = collect(&world, keep, Timestamp::now(), tree(9));
    assert_eq!((done.removed, done.removed_bytes), (2, 2000));
    assert_eq!((done.kept, done.kept_bytes), (2, 2000));
    all([true, false, false, true]);
    let older = Keep {
        unused: days(5),
        ..keep
    };
    assert_eq!(collect(&world, older, Timestamp::now(), tree(9)).removed, 1);
    all([true, false, false, false]);
    assert_eq!(
        collect(&world, keep, Timestamp::now(), made[0].0).removed,
        1
    );
    all([false; 4]);
}

#[test]
fn a_wrong_pointer_takes_no_other_blob_with_it() {
    let world = World::new();
    let (old, new) = two(&world);
    let index = new.index;
    let pointer = world
        .repo()
        .join(layout::offered_delta(old.tree.id, new.tree.id));
    fs::create_dir_all(pointer.parent().unwrap()).unwrap();
    fs::write(&pointer, serde_json::to_vec(&index).unwrap()).unwrap();
    let nothing = Keep {
        size_bytes: 0,
        unused: days(1),
    };
    let done = collect(&world, nothing, Timestamp::now(), tree(9));
    assert_eq!((done.removed, done.removed_bytes), (1, 0));
    assert!(!pointer.exists());
    assert!(world.repo().join(layout::blob(&index.sha256)).exists());
}
