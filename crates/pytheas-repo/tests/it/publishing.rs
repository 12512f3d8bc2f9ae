//! Publishing as a developer does it, and what a device gets.

use std::{
    collections::BTreeMap,
    fs, io,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use jiff::SignedDuration;
use pytheas_durable::trees;
use pytheas_release::{
    Sha256, Tree,
    delta::{Delta, MadeSink},
};
use pytheas_repo::{
    client::Client,
    fetch::FolderFetch,
    keys::OnlineKeys,
    publish::{Event, Events, InUse, Options, PublishError, Validity, publish},
    renew::{RenewError, Renewed, renew},
    repository::{Repository, RepositoryError},
    store::Store,
};

use crate::world::{
    PLATFORM, World, days, noise, now, platform, published_files, runtime, shown, target,
};

#[test]
fn a_published_release_reaches_a_device_byte_for_byte() {
    let world = World::with_two_releases();
    let device = world.device("device");
    let files = device
        .install(&mut FolderFetch(world.repo()), "1.1.0")
        .unwrap();
    assert_eq!(files["lib/library.so"], noise(1, 300_000));
    assert_eq!(files["data/table"], files["data/same"]);
    assert_eq!(files["empty"], b"");
    assert!(files["app/main.py"].starts_with(b"print('version 1.1.0')"));
    assert_eq!(files.len(), 7);
}

#[test]
fn the_layout_is_the_contract() {
    let world = World::with_two_releases();
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for file in published_files(&world.repo()) {
        let hash = Sha256::of(&fs::read(world.repo().join(&file)).unwrap()).to_string();
        let kind = file
            .replace(&hash, "HASH")
            .replace(&format!("/{}/", &hash[..2]), "/HA/");
        *kinds.entry(kind).or_default() += 1;
    }
    let kinds: Vec<String> = kinds
        .into_iter()
        .map(|(kind, n)| format!("{n} {kind}"))
        .collect();
    insta::assert_snapshot!(kinds.join("\n"), @r"
    7 blobs/HA/HASH
    1 metadata/1.root.json
    1 metadata/1.snapshot.json
    1 metadata/1.targets.json
    1 metadata/2.snapshot.json
    1 metadata/2.targets.json
    1 metadata/timestamp.json
    1 targets/app/1.0.0/linux-x86_64/HASH.release.json
    1 targets/app/1.1.0/linux-x86_64/HASH.release.json
    ");
}

/// The hashes of what was made.
#[derive(Default)]
struct Made(Vec<Sha256>);

impl MadeSink for Made {
    fn begin(&mut self, _: usize, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn write(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self, sha256: Sha256) -> io::Result<()> {
        self.0.push(sha256);
        Ok(())
    }
}

#[test]
fn a_small_change_is_a_small_delta_that_needs_no_other_document() {
    let world = World::with_two_releases();
    let device = world.device("device");
    device.refresh(now()).unwrap();
    let mut fetch = FolderFetch(world.repo());
    let mut client = Client::open(&device.state, &mut fetch).unwrap();
    let release = client.fetch_release(&target("1.1.0"), &platform()).unwrap();
    let old_dir = world.path(&format!("tree-1.0.0-{PLATFORM}"));
    let old = trees::scan(&old_dir).unwrap();
    let blob = release.deltas[&old.id()];
    assert!(blob.size_bytes < 1500, "{} bytes", blob.size_bytes);

    let mut progress = Vec::new();
    let path = client
        .blob(&blob, &mut |bytes| progress.push(bytes))
        .unwrap();
    assert_eq!(
        (progress.first(), progress.last()),
        (Some(&0), Some(&blob.size_bytes))
    );
    let delta = Delta::open(fs::File::open(path).unwrap()).unwrap();
    assert_eq!(delta.head().contents(), 2, "app/main.py and pytheas.json");
    let mut made = Made::default();
    let new: Tree = delta
        .apply(&old, &trees::Folder(old_dir), &mut made)
        .unwrap();
    assert_eq!(new.id(), release.tree.id);
    assert_eq!(made.0.len(), 2);
    assert!(
        made.0
            .iter()
            .all(|sha256| new.objects().contains_key(sha256))
    );
}

#[test]
fn deltas_are_also_made_from_the_versions_that_are_named() {
    let world = World::with_two_releases();
    let main = b"print('version 1.2.0')\n".repeat(40);
    let library = noise(1, 300_000);
    let files: &[(&str, &[u8])] = &[("app/main.py", &main), ("lib/library.so", &library)];
    let dir = world.tree("1.2.0", PLATFORM, files);
    let mut options = Options {
        deltas: Some(0),
        delta_from: vec!["0.9.0".parse().unwrap()],
        ..Options::at(now())
    };
    let error = world.publish_dir(&world.store(), &dir, &options);
    let error = miette::Report::new(error.unwrap_err());
    assert_eq!(
        (error.to_string(), error.help().unwrap().to_string()),
        (
            format!("there is no `app@0.9.0` for `{PLATFORM}` to make a delta from"),
            "there are: 1.1.0, 1.0.0".to_owned()
        )
    );
    options.delta_from = vec!["1.0.0".parse().unwrap()];
    let published = world.publish_dir(&world.store(), &dir, &options).unwrap();
    let from: Vec<String> = published
        .deltas
        .iter()
        .map(|delta| delta.from.to_string())
        .collect();
    assert_eq!(from, ["app@1.0.0"], "the named one alone, not the newest");
}

#[test]
fn deltas_are_made_from_what_devices_run_the_most_used_first() {
    let world = World::new();
    let publish = |version: &str, options: &Options| {
        let main = format!("print('version {version}')\n").repeat(40);
        let files: &[(&str, &[u8])] = &[
            ("app/main.py", main.as_bytes()),
            ("lib/library.so", &noise(1, 300_000)),
        ];
        let dir = world.tree(version, PLATFORM, files);
        let published = world.publish_dir(&world.store(), &dir, options).unwrap();
        let made = published.deltas.iter();
        let made = made.map(|delta| format!("{} {:?}", delta.from.version, delta.reason));
        made.collect::<Vec<_>>()
    };
    let clock = std::cell::Cell::new(now());
    let quick = |deltas, in_use: &[(&str, u64)]| Options {
        deltas,
        level: 1,
        in_use: in_use
            .iter()
            .map(|(version, devices)| InUse {
                version: version.parse().unwrap(),
                devices: *devices,
            })
            .collect(),
        ..Options::at(clock.replace(clock.get() + SignedDuration::from_secs(1)))
    };
    for number in 0..6 {
        publish(&format!("1.{number}"), &quick(Some(0), &[]));
    }
    // What nobody published is no reason to fail; nobody runs 1.4.
    let used = [("1.2", 2), ("0.1", 50), ("1.0", 7), ("1.1", 7), ("1.4", 0)];
    let all = publish("2.0", &quick(None, &used));
    insta::assert_snapshot!(all.join("\n"), @"
    1.1 InUse { devices: 7 }
    1.0 InUse { devices: 7 }
    1.2 InUse { devices: 2 }
    1.5 Newest
    ");
    let two = publish("2.1", &quick(Some(2), &used));
    insta::assert_snapshot!(two.join("\n"), @"
    1.1 InUse { devices: 7 }
    1.0 InUse { devices: 7 }
    ");
    // Nobody runs anything that is here: as if nobody knew.
    let newest = publish("2.2", &quick(None, &[("0.1", 50)]));
    insta::assert_snapshot!(newest.join("\n"), @"
    2.1 Newest
    2.0 Newest
    1.5 Newest
    ");
    let named = Options {
        delta_from: vec!["1.3".parse().unwrap(), "1.2".parse().unwrap()],
        ..quick(Some(2), &used)
    };
    insta::assert_snapshot!(publish("2.3", &named).join("\n"), @"
    1.3 Asked
    1.2 Asked
    1.1 InUse { devices: 7 }
    1.0 InUse { devices: 7 }
    ");
}

#[test]
fn unchanged_objects_are_not_published_again() {
    let world = World::with_two_releases();
    let packs = |repo: PathBuf| {
        published_files(&repo)
            .iter()
            .map(|f| fs::metadata(repo.join(f)).unwrap().len())
            .sum::<u64>()
    };
    let before = packs(world.repo());
    let (library, data) = (noise(1, 300_000), noise(2, 40_000));
    let published = world
        .publish(
            "1.2.0",
            &[
                ("new", b"new"),
                ("lib/library.so", &library),
                ("data/table", &data),
            ],
        )
        .unwrap();
    assert_eq!(
        (published.new_objects, published.reused_objects),
        (2, 3),
        "{published:?}"
    );
    assert_eq!(published.deltas.len(), 2, "from both earlier releases");
    assert!(packs(world.repo()) - before < 12_000);
    let files = world
        .device("d")
        .install(&mut FolderFetch(world.repo()), "1.2.0")
        .unwrap();
    assert_eq!(
        (&files["new"][..], files["lib/library.so"].len()),
        (&b"new"[..], 300_000)
    );
}

#[test]
fn publishing_the_same_again_changes_nothing() {
    let world = World::new();
    let first = world.publish("1.0.0", &[("a", b"a")]).unwrap();
    let files = published_files(&world.repo());
    let again = world.publish("1.0.0", &[("a", b"a")]).unwrap();
    assert_eq!(
        (first.already, again.already, again.uploaded_bytes),
        (false, true, 0)
    );
    assert_eq!(again.tree, first.tree);
    assert_eq!(published_files(&world.repo()), files);
}

#[test]
fn publishing_the_same_again_keeps_the_releases_from_expiring() {
    let world = World::new();
    world.publish("1.0.0", &[("a", b"a")]).unwrap();
    let first = world.publish("1.1.0", &[("a", b"b")]).unwrap();
    let dir = world.tree("1.1.0", PLATFORM, &[("a", b"b")]);
    for later in [60, 200] {
        let options = Options::at(now() + days(later));
        let again = world.publish_dir(&world.store(), &dir, &options).unwrap();
        assert!(
            again.already && again.uploaded_bytes > 0,
            "after {later} days"
        );
        assert_eq!(again.tree, first.tree);
    }
    let now = now() + days(201);
    let store = world.store();
    let keys = world.keys();
    let open = pytheas_repo::repository::Repository::open(&store, &keys.root.bytes, now);
    let repository = crate::world::runtime().block_on(open).unwrap();
    assert_eq!(repository.releases().len(), 2);
    assert_eq!(
        repository.versions()[1],
        4,
        "targets were signed four times"
    );
}

#[test]
fn a_repository_inside_the_folder_to_publish_is_refused() {
    let world = World::new();
    let dir = world.tree("1.0.0", PLATFORM, &[]);
    for place in [dir.clone(), dir.join("lib/repo")] {
        let store = Store::folder(&place).unwrap();
        let error = world.publish_dir(&store, &dir, &Options::at(now()));
        assert!(
            matches!(error, Err(PublishError::Inside { .. })),
            "{error:?}"
        );
        assert!(!place.join(".publish.lock").exists());
    }
}

#[test]
fn a_published_version_never_changes() {
    let world = World::new();
    world.publish("1.0.0", &[("a", b"a")]).unwrap();
    let error = world.publish("1.0.0", &[("a", b"b")]).unwrap_err();
    let PublishError::Taken {
        published, yours, ..
    } = &error
    else {
        panic!("{error}")
    };
    let text = error
        .to_string()
        .replace(&published.short(), "[OLD]")
        .replace(&yours.short(), "[NEW]");
    insta::assert_snapshot!(text, @"`app@1.0.0` for `linux-x86_64` is published already, with other content (tree [OLD], yours is [NEW])");
}

#[test]
fn large_releases_lie_in_several_packs() {
    let world = World::new();
    let parts: Vec<(String, Vec<u8>)> = (0..9)
        .map(|n| (format!("part-{n}"), noise(n, 50_000)))
        .collect();
    let files: Vec<(&str, &[u8])> = parts.iter().map(|(n, c)| (n.as_str(), &c[..])).collect();
    let dir = world.tree("1.0.0", PLATFORM, &files);
    let options = Options {
        pack_bytes: 120_000,
        ..Options::at(now())
    };
    world.publish_dir(&world.store(), &dir, &options).unwrap();
    let packs = published_files(&world.repo())
        .iter()
        .filter(|f| fs::metadata(world.repo().join(f)).unwrap().len() > 50_000)
        .count();
    assert_eq!(packs, 3);
    let got = world
        .device("d")
        .install(&mut FolderFetch(world.repo()), "1.0.0")
        .unwrap();
    for (name, content) in parts {
        assert_eq!(got[&name], content);
    }
}

#[test]
fn what_is_no_built_tree_is_refused() {
    let world = World::new();
    let publish = |dir: &std::path::Path| {
        let error = world
            .publish_dir(&world.store(), dir, &Options::at(now()))
            .unwrap_err();
        shown(error).replace(world.dir.path().to_str().unwrap(), "[DIR]")
    };
    let dir = world.path("empty");
    fs::create_dir(&dir).unwrap();
    insta::assert_snapshot!(publish(&dir), @r"
    error: `[DIR]/empty` was not made by `pytheas build`: it has no `pytheas.json`
      help: build first: `pytheas build -o DIR`, then `pytheas publish DIR`
    ");
    fs::write(dir.join("pytheas.json"), "{").unwrap();
    insta::assert_snapshot!(publish(&dir), @r"
    error: `[DIR]/empty/pytheas.json` cannot be used
      because: `pytheas.json` does not parse
      because: EOF while parsing an object at line 1 column 1
      help: build again with this version of pytheas
    ");
    let dir = world.tree("1.0.0", PLATFORM, &[]);
    fs::remove_file(dir.join("bin/app")).unwrap();
    insta::assert_snapshot!(publish(&dir), @r"
    error: the entry `bin/app` that `pytheas.json` names is no executable file of the tree
      help: the folder was changed after the build; build again
    ");
    assert!(!world.repo().exists(), "nothing is left behind");
}

#[test]
fn two_publishers_of_a_folder_do_not_meet() {
    let world = World::new();
    let other = world.store().lock().unwrap();
    // The hub, which renews signatures, does not wait; publishers do.
    let error = PublishError::from(world.store().lock().unwrap_err());
    let text = shown(error)
        .replace(world.dir.path().to_str().unwrap(), "[DIR]")
        .replace(&std::process::id().to_string(), "[PID]");
    insta::assert_snapshot!(text, @r"
    error: someone else is publishing to `[DIR]/repo`
      because: `[DIR]/repo/.publish.lock` is locked by process [PID]
      help: wait until it is done and run the command again
    ");
    std::thread::scope(|scope| {
        let published = scope.spawn(|| world.publish("1.0.0", &[]));
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert!(!world.repo().join("metadata").exists() && !published.is_finished());
        drop(other);
        published.join().unwrap().unwrap();
    });
}

#[test]
fn progress_is_told_in_order() {
    let world = World::with_two_releases();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let events = Events::new({
        let seen = seen.clone();
        move |event| seen.lock().unwrap().push(event)
    });
    let dir = world.tree("1.3.0", PLATFORM, &[("x", b"x")]);
    runtime()
        .block_on(publish(
            &world.store(),
            &world.keys(),
            &dir,
            &Options::at(now()),
            &events,
        ))
        .unwrap();
    let kinds: Vec<String> = seen
        .lock()
        .unwrap()
        .iter()
        .map(|event| match event {
            Event::Scanned { files, .. } => format!("scanned {files} files"),
            Event::Packing { done, total } => format!("packing {done}/{total}"),
            Event::Delta { from, .. } => format!("delta from {from}"),
            Event::NoDelta { from, why } => format!("no delta from {from}: {why}"),
            Event::NoStatement { why, .. } => format!("no statement: {why}"),
            Event::BoardSigned { counter, .. } => format!("board image {counter}"),
            Event::Uploaded { path, .. } => {
                let kind = path.split('/').next().unwrap();
                format!(
                    "uploaded {kind}/…{}",
                    path.rsplit('.')
                        .next()
                        .filter(|e| *e == "json")
                        .unwrap_or("")
                )
            }
            Event::Committed { targets_version } => format!("committed {targets_version}"),
        })
        .collect();
    insta::assert_snapshot!(kinds.join("\n"), @r"
    scanned 3 files
    packing 1/2
    packing 2/2
    delta from app@1.1.0
    delta from app@1.0.0
    uploaded blobs/…
    uploaded blobs/…
    uploaded blobs/…
    uploaded blobs/…
    uploaded blobs/…
    uploaded targets/…json
    uploaded metadata/…json
    uploaded metadata/…json
    uploaded metadata/…json
    committed 3
    ");
}

#[test]
fn the_hub_lists_what_was_published_and_minds_expiry() {
    let world = World::with_two_releases();
    let root = fs::read(world.keys_dir().join("root.json")).unwrap();
    let runtime = runtime();
    let store = world.store();
    let repository = runtime
        .block_on(Repository::open(&store, &root, now()))
        .unwrap();
    let listed: Vec<String> = repository
        .releases()
        .iter()
        .map(|r| format!("{} {} {}", r.reference, r.platform, r.published.unwrap()))
        .collect();
    assert_eq!(
        listed,
        [
            "app@1.0.0 linux-x86_64 2026-06-01T12:00:00Z",
            "app@1.1.0 linux-x86_64 2026-06-01T12:00:00Z",
        ]
    );
    let release = runtime
        .block_on(repository.release(&target("1.1.0")))
        .unwrap();
    assert_eq!(Some(release.tree.id), repository.releases()[1].tree);
    let missing = runtime
        .block_on(repository.release("app/9/x/release.json"))
        .unwrap_err();
    assert!(
        missing
            .to_string()
            .contains("no release `app/9/x/release.json`"),
        "{missing}"
    );

    let later = now() + days(8);
    let error = runtime
        .block_on(Repository::open(&store, &root, later))
        .unwrap_err();
    assert!(
        matches!(&error, RepositoryError::Expired { role, .. } if role == "timestamp"),
        "{error}"
    );
    let empty = Store::folder(&world.path("empty")).unwrap();
    let error = runtime
        .block_on(Repository::open(&empty, &root, now()))
        .unwrap_err();
    assert!(matches!(error, RepositoryError::Empty { .. }), "{error}");
}

#[test]
fn the_hub_renews_signatures_until_the_developers_run_out() {
    let world = World::with_two_releases();
    let keys = OnlineKeys::load(&world.keys_dir().join("online")).unwrap();
    let runtime = runtime();
    let renew = |days_later: i64| {
        let time = now() + days(days_later);
        runtime.block_on(renew(&world.store(), &keys, &Validity::default(), time))
    };
    let device = world.device("device");
    let seen = |n: i64| {
        device
            .refresh(now() + days(n))
            .map(|r| (r.targets, r.snapshot, r.timestamp))
    };

    assert_eq!(seen(0).unwrap(), (2, 2, 2));
    seen(8).unwrap_err();
    let expires = now() + days(8 + 7);
    assert_eq!(
        renew(8).unwrap(),
        Renewed {
            snapshot: None,
            timestamp: 3,
            expires
        }
    );
    assert_eq!(seen(8).unwrap(), (2, 2, 3));
    let renewed = renew(20).unwrap();
    assert_eq!(
        (renewed.snapshot, renewed.timestamp),
        (Some(3), 4),
        "past half of its 30 days"
    );
    assert_eq!(seen(26).unwrap(), (2, 3, 4));
    let error = renew(91).unwrap_err();
    assert!(
        matches!(&error, RenewError::Offline { role, .. } if role == "targets"),
        "{error}"
    );
    // The developer publishes again, although everything online has expired.
    let dir = world.tree("2.0.0", PLATFORM, &[]);
    let options = Options::at(now() + days(91));
    world.publish_dir(&world.store(), &dir, &options).unwrap();
    assert_eq!(seen(92).unwrap(), (3, 4, 5));
    // And nothing is published under a root that devices refuse.
    let dir = world.tree("3.0.0", PLATFORM, &[]);
    let options = Options::at(now() + days(366));
    let error = world
        .publish_dir(&world.store(), &dir, &options)
        .unwrap_err();
    insta::assert_snapshot!(shown(error), @r"
    error: the root metadata expired at 2027-06-01T12:00:00Z and it is 2027-06-02T12:00:00Z
      help: renew it with the root key: devices refuse everything signed under it
    ");
}

#[test]
fn a_clock_that_was_never_set_signs_nothing_that_devices_would_refuse() {
    let world = World::with_two_releases();
    let before = fs::read(world.repo().join("metadata/timestamp.json")).unwrap();
    let never_set = jiff::Timestamp::from_second(86_400).unwrap();
    let error = world
        .publish_dir(
            &world.store(),
            &world.tree("3.0.0", PLATFORM, &[]),
            &Options::at(never_set),
        )
        .unwrap_err();
    let text = shown(error).replace(world.dir.path().to_str().unwrap(), "[DIR]");
    insta::assert_snapshot!(text, @"
    error: the clock of this computer says 1970-01-02T00:00:00Z, and the repository in `[DIR]/repo` was signed at 2026-06-01T12:00:00Z
      help: set the clock: what is signed now would be too old for devices. If the repository's date is the wrong one, `pytheas keys rotate online` and `pytheas keys publish` begin anew
    ");
    let after = fs::read(world.repo().join("metadata/timestamp.json")).unwrap();
    assert_eq!(before, after);
    // Two clocks that are set need not be the same to the minute.
    let tree = world.tree("3.0.0", PLATFORM, &[]);
    let late = Options::at(now() - SignedDuration::from_hours(2));
    world.publish_dir(&world.store(), &tree, &late).unwrap();
}

#[test]
fn validity_is_the_publishers_choice() {
    let world = World::new();
    let validity = Validity {
        timestamp: SignedDuration::from_mins(5),
        ..Validity::default()
    };
    let options = Options {
        validity,
        ..Options::at(now())
    };
    world
        .publish_dir(
            &world.store(),
            &world.tree("1.0.0", PLATFORM, &[]),
            &options,
        )
        .unwrap();
    let device = world.device("device");
    device
        .refresh(now() + SignedDuration::from_mins(4))
        .unwrap();
    device
        .refresh(now() + SignedDuration::from_mins(5))
        .unwrap_err();
}

#[test]
fn a_place_that_belongs_to_other_keys_is_left_alone() {
    let (world, other) = (World::new(), World::new());
    let metadata = world.repo().join("metadata");
    fs::create_dir_all(&metadata).unwrap();
    fs::copy(
        other.keys_dir().join("root.json"),
        metadata.join("1.root.json"),
    )
    .unwrap();
    let error = world.publish("1.0.0", &[]).unwrap_err();
    assert!(matches!(error, PublishError::OtherRoot { .. }), "{error}");
    other.publish("1.0.0", &[]).unwrap();
    let dir = world.tree("1.0.0", PLATFORM, &[]);
    let error = world
        .publish_dir(&other.store(), &dir, &Options::at(now()))
        .unwrap_err();
    let text = shown(error).replace(other.dir.path().to_str().unwrap(), "[OTHER]");
    insta::assert_snapshot!(text, @r"
    error: the repository in `[OTHER]/repo` does not verify
      because: `metadata/timestamp.json` is not signed as it must be
      because: Signature threshold of 1 not met for role timestamp (0 valid signatures)
      help: is `root.json` the one of this repository? If so, someone or something changed the repository: restore it; after new keys, `pytheas keys publish` signs it again
    ");
}

#[test]
fn large_files_are_written_in_parts() {
    let world = World::new();
    let large = noise(7, 21 << 20);
    let dir = world.tree("1.0.0", PLATFORM, &[("large", &large)]);
    let options = Options {
        level: 1,
        ..Options::at(now())
    };
    world.publish_dir(&world.store(), &dir, &options).unwrap();
    let files = world
        .device("d")
        .install(&mut FolderFetch(world.repo()), "1.0.0")
        .unwrap();
    assert!(files["large"] == large);
}
