//! Root keys that several people hold: thresholds, proposals that are carried, lost keys, expiry.

use std::{fs, path::Path};

use jiff::Timestamp;
use pytheas_repo::{
    keys::{
        self, PublisherKeys,
        change::{Change, ChangeError, Changed, How, Source, change},
        proposal::{ProposalError, Signing, sign_file},
    },
    publish::{Events, Options, Reached, Refresh, publish, publish_keys},
};
use tough::schema::RoleType;

use crate::world::{PLATFORM, World, days, now, runtime, shown};

/// A change in the keys of `world` at `time`.
pub(crate) fn make_at(
    world: &World,
    what: &Change,
    time: Timestamp,
) -> Result<Changed, ChangeError> {
    let how = How {
        dir: &world.keys_dir(),
        now: time,
        root_valid: days(365),
        new_passphrase: None,
        passphrase: &|_| None,
    };
    change(&how, what)
}

pub(crate) fn make(world: &World, what: &Change) -> Result<Changed, ChangeError> {
    make_at(world, what, now())
}

pub(crate) fn put(world: &World, time: Timestamp) -> pytheas_repo::publish::Fresh {
    let keys = PublisherKeys::load_some(&world.keys_dir(), &|_| None).unwrap();
    let (refresh, options) = (Refresh::default(), Options::at(time));
    let (store, events) = (world.store(), Events::none());
    let put = publish_keys(&store, &keys, &refresh, &options, &events);
    runtime().block_on(put).unwrap()
}

fn sign(file: &Path, dir: &Path) -> Result<Signing, ProposalError> {
    sign_file(file, dir, &|_| None)
}

/// Root 2 of 3: the developer's, Alice's, Bob's. The others' folders.
fn two_of_three(world: &World) -> [std::path::PathBuf; 2] {
    let folders = ["alice", "bob"].map(|name| {
        let dir = world.path(name);
        let public = keys::new_key(&dir, name, None).unwrap();
        let file = world.path(&format!("{name}.pub"));
        fs::write(&file, public).unwrap();
        let source = Source::Public(file);
        let changed = make(world, &Change::Add(RoleType::Root, source)).unwrap();
        assert_eq!(changed.proposal, None);
        dir
    });
    let changed = make(world, &Change::Threshold(RoleType::Root, 2)).unwrap();
    // The new root needs two of its own keys, and only one is here.
    let file = changed.proposal.unwrap();
    assert_eq!(
        keys::RootFile::load(&world.keys_dir())
            .unwrap()
            .signed
            .version
            .get(),
        3
    );
    let stick = world.path("stick.json");
    fs::copy(&file, &stick).unwrap();
    let signing = sign(&stick, &folders[0]).unwrap();
    assert!(
        signing.missing.is_empty() && !signing.in_force,
        "{signing:?}"
    );
    assert!(sign(&stick, &world.keys_dir()).unwrap().in_force);
    assert!(!file.exists(), "nothing waits any more");
    folders
}

#[test]
fn a_lost_root_key_of_three_is_replaced_by_the_other_two() {
    let world = World::with_two_releases();
    let device = world.device("device");
    assert_eq!(device.refresh(now()).unwrap().root, 1);
    let [alice, bob] = two_of_three(&world);
    put(&world, now());
    assert_eq!(device.refresh(now()).unwrap().root, 4);

    // The developer's root key is lost; Alice and Bob give the role a new one.
    let lost = world.keys_dir().join("root.pem");
    fs::remove_file(&lost).unwrap();
    let info = keys::show(&world.keys_dir(), now()).unwrap();
    let gone = info.roles[0]
        .keys
        .iter()
        .find(|key| key.file.is_none())
        .unwrap();
    let gone = info.roles[0]
        .keys
        .first()
        .filter(|k| k.file.is_none())
        .unwrap_or(gone);
    let rotate = Change::Rotate(
        vec![RoleType::Root],
        Some(gone.id[..10].into()),
        Source::New,
    );
    let changed = make(&world, &rotate).unwrap();
    assert_eq!(changed.made.len(), 1);
    let file = changed.proposal.unwrap();
    let words: Vec<_> = changed
        .missing
        .iter()
        .map(|m| (m.role.as_str(), m.have))
        .collect();
    assert_eq!(words, [("root version 4", 0), ("root version 5", 1)]);
    for (dir, left) in [(&alice, 1), (&bob, 0)] {
        // Without a root of their own there is nothing to compare with; with one there is.
        assert_eq!(sign(&file, dir).unwrap().missing.len(), left, "{dir:?}");
    }
    assert!(sign(&file, &world.keys_dir()).unwrap().in_force);
    put(&world, now());
    assert_eq!(device.refresh(now()).unwrap().root, 5);
    let error = make(&world, &rotate).unwrap_err();
    assert!(matches!(error, ChangeError::NotUsed { .. }), "{error}");
}

#[test]
fn an_expired_root_is_renewed_and_devices_follow() {
    let world = World::with_two_releases();
    let device = world.device("device");
    device.refresh(now()).unwrap();
    let late = now() + days(400);
    let dir = world.tree("2.0.0", PLATFORM, &[]);
    world
        .publish_dir(&world.store(), &dir, &Options::at(late))
        .unwrap_err();
    let changed = make_at(&world, &Change::Renew, late).unwrap();
    assert_eq!((changed.version, changed.proposal), (2, None));
    let fresh = put(&world, late);
    assert!(fresh.targets.is_some(), "they had expired, too");
    let refreshed = device.refresh(late).unwrap();
    assert_eq!((refreshed.root, refreshed.targets), (2, 3));
    world
        .publish_dir(&world.store(), &dir, &Options::at(late))
        .unwrap();
    device.refresh(late).unwrap();
    assert_eq!(
        device.release("2.0.0").unwrap().version.to_string(),
        "2.0.0"
    );
}

#[test]
fn releases_that_two_must_sign_are_signed_by_two() {
    let world = World::with_two_releases();
    let alice = world.path("alice");
    let public = world.path("alice.pub");
    fs::write(&public, keys::new_key(&alice, "alice", None).unwrap()).unwrap();
    make(
        &world,
        &Change::Add(RoleType::Targets, Source::Public(public)),
    )
    .unwrap();
    make(&world, &Change::Threshold(RoleType::Targets, 2)).unwrap();
    let error = PublisherKeys::load(&world.keys_dir(), &|_| None).unwrap_err();
    assert!(
        matches!(
            error,
            keys::KeyError::TooFew {
                have: 1,
                needed: 2,
                ..
            }
        ),
        "{error}"
    );

    let dir = world.tree("2.0.0", PLATFORM, &[]);
    let keys = PublisherKeys::load_some(&world.keys_dir(), &|_| None).unwrap();
    // The old targets have one signature: they must be signed again before devices hear of two.
    let file = world.path("proposal");
    let (store, events) = (world.store(), Events::none());
    let options = Options {
        propose: Some(file.clone()),
        ..Options::at(now())
    };
    let refresh = Refresh::default();
    let again = publish_keys(&store, &keys, &refresh, &options, &events);
    let fresh = runtime().block_on(again).unwrap();
    assert_eq!(fresh.reached, Reached::Proposed(file.clone()));
    let complete = |file: &Path| {
        let proposal = Some(pytheas_repo::keys::proposal::Proposal::read(file).unwrap());
        let refresh = Refresh {
            proposal,
            ..Refresh::default()
        };
        runtime().block_on(publish_keys(&store, &keys, &refresh, &options, &events))
    };
    let error = complete(&file).unwrap_err();
    assert!(error.to_string().contains("lacks 1 signatures"), "{error}");
    sign(&file, &alice).unwrap();
    complete(&file).unwrap();
    let device = world.device("device");
    device.refresh(now()).unwrap();

    let propose = publish(&store, &keys, &dir, &options, &events);
    let published = runtime().block_on(propose).unwrap();
    assert_eq!(published.reached, Reached::Proposed(file.clone()));
    device.refresh(now()).unwrap();
    device.release("2.0.0").unwrap_err();
    let signing = sign(&file, &alice).unwrap();
    assert!(
        signing.says.iter().any(|line| line.contains("2.0.0")),
        "{signing:?}"
    );
    complete(&file).unwrap();
    device.refresh(now()).unwrap();
    device.release("2.0.0").unwrap();
    let stale = complete(&file).unwrap_err();
    assert!(stale.to_string().contains("the next one is"), "{stale}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let (world, other) = (World::new(), World::new());
    let error = make(&world, &Change::Threshold(RoleType::Root, 2)).unwrap_err();
    insta::assert_snapshot!(shown(error), @r"
    error: the role `root` would need 2 signatures of 1 keys
      help: add keys first (`pytheas keys add root`), or lower the threshold (`pytheas keys threshold root N`, at least 1)
    ");
    for n in [0, u64::MAX] {
        make(&world, &Change::Threshold(RoleType::Targets, n)).unwrap_err();
    }
    let online = Source::Here("snapshot".into());
    let error = make(&world, &Change::Add(RoleType::Targets, online)).unwrap_err();
    assert!(matches!(error, ChangeError::Shared { .. }), "{error}");
    let error = make(&world, &Change::Revoke("beef".into())).unwrap_err();
    assert!(matches!(error, ChangeError::NotUsed { .. }), "{error}");
    let only = keys::show(&world.keys_dir(), now()).unwrap().roles[0].keys[0]
        .id
        .clone();
    for name in [&only, "root", "keys/root.pem"] {
        let error = make(&world, &Change::Revoke(name.into())).unwrap_err();
        insta::allow_duplicates! {
            insta::with_settings!({ filters => [(r"\b[0-9a-f]{8}\b", "[ID]")] }, {
                insta::assert_snapshot!(shown(error), @"
                error: without the key [ID] the role `root` has none of the 1 keys that must sign
                  help: replace it instead: `pytheas keys rotate root --key [ID]`; or give the role another first: `pytheas keys add root`
                ");
            });
        }
    }
    // A key of the same name, in another folder.
    let elsewhere = world.dir.path().join("stick");
    fs::create_dir(&elsewhere).unwrap();
    fs::copy(
        world.keys_dir().join("root.pem"),
        elsewhere.join("root.pem"),
    )
    .unwrap();
    for name in ["root.pem", "absent/root.pem"] {
        let path = elsewhere.join(name).to_str().unwrap().to_owned();
        let error = make(&world, &Change::Revoke(path)).unwrap_err();
        assert!(matches!(error, ChangeError::NotUsed { .. }), "{error}");
    }
    let within = world.keys_dir().join("online/timestamp.pem");
    let error = make(&world, &Change::Revoke(within.to_str().unwrap().into())).unwrap_err();
    assert!(matches!(error, ChangeError::Needed { .. }), "{error}");
    // A file called like the first digits of a key that is in use: which one is meant is not guessed.
    let clash = world.keys_dir().join(format!("{}.pem", &only[..8]));
    fs::copy(world.keys_dir().join("targets.pem"), &clash).unwrap();
    let error = make(&world, &Change::Revoke(only[..8].into())).unwrap_err();
    assert!(matches!(error, ChangeError::Ambiguous { .. }), "{error}");
    let error = make(&world, &Change::Revoke(only.clone())).unwrap_err();
    assert!(matches!(error, ChangeError::Needed { .. }), "{error}");
    fs::remove_file(clash).unwrap();
    for short in ["", "b", "0ff"] {
        let error = make(&world, &Change::Revoke(short.into())).unwrap_err();
        assert!(matches!(error, ChangeError::TooShort { .. }), "{error}");
    }
    let error = make(&world, &Change::Threshold(RoleType::Root, 1)).unwrap_err();
    assert!(matches!(error, ChangeError::Unchanged { .. }), "{error}");
    assert_eq!(
        keys::show(&world.keys_dir(), now()).unwrap().root_version,
        1
    );

    // A proposal of another repository, a changed one, a stale one.
    let moved = other.path("root.pem");
    fs::rename(other.keys_dir().join("root.pem"), &moved).unwrap();
    let file = make(&other, &Change::Renew).unwrap().proposal.unwrap();
    let error = sign(&file, &world.keys_dir()).unwrap_err();
    assert!(matches!(error, ProposalError::Foreign { .. }), "{error}");
    fs::rename(moved, other.keys_dir().join("root.pem")).unwrap();
    let stick = other.path("stick");
    fs::copy(&file, &stick).unwrap();
    assert!(sign(&stick, &other.keys_dir()).unwrap().in_force);
    let text = fs::read_to_string(&stick).unwrap();
    fs::write(&stick, text.replacen("2027-06", "2099-06", 5)).unwrap();
    let error = sign(&stick, &other.keys_dir()).unwrap_err();
    assert!(matches!(error, ProposalError::Bad { .. }), "{error}");
    make(&other, &Change::Renew).unwrap();
    fs::write(&stick, text).unwrap();
    let error = sign(&stick, &other.keys_dir()).unwrap_err();
    assert!(matches!(error, ProposalError::Stale { .. }), "{error}");
    for text in ["", "{}", "[]", "{\"format\":1}"] {
        fs::write(&stick, text).unwrap();
        let error = sign(&stick, &other.keys_dir()).unwrap_err();
        assert!(
            matches!(error, ProposalError::Bad { .. }),
            "{text}: {error}"
        );
    }
}

#[test]
fn a_power_cut_while_a_root_is_put_in_force_is_made_good() {
    let world = World::new();
    let dir = world.keys_dir();
    let old = fs::read(dir.join("root.json")).unwrap();
    make(&world, &Change::Renew).unwrap();
    // `2.root.json` was written, `root.json` not.
    fs::write(dir.join("root.json"), &old).unwrap();
    assert_eq!(keys::show(&dir, now()).unwrap().root_version, 2);
    assert_eq!(make(&world, &Change::Renew).unwrap().version, 3);
}

#[test]
fn what_is_compared_over_the_telephone_is_the_sha256_of_the_root_in_force() {
    let world = World::new();
    let before = keys::show(&world.keys_dir(), now()).unwrap().root_sha256;
    let public = world.path("alice.pub");
    let alice = world.path("alice");
    fs::write(&public, keys::new_key(&alice, "alice", None).unwrap()).unwrap();
    make(&world, &Change::Threshold(RoleType::Root, 2)).unwrap_err();
    make(&world, &Change::Add(RoleType::Root, Source::Public(public))).unwrap();
    let changed = make(&world, &Change::Threshold(RoleType::Root, 2)).unwrap();
    let root = keys::show(&world.keys_dir(), now()).unwrap().root_sha256;
    assert_ne!(root, before);
    let stick = world.path("stick.json");
    fs::copy(changed.proposal.unwrap(), &stick).unwrap();
    for _ in 0..3 {
        let signing = sign(&stick, &alice).unwrap();
        assert_eq!(signing.root_sha256, root.to_string());
    }
}

#[test]
fn a_proposal_that_counts_a_key_twice_or_hides_a_change_is_told() {
    let world = World::new();
    let public = world.path("alice.pub");
    let alice = world.path("alice");
    fs::write(&public, keys::new_key(&alice, "alice", None).unwrap()).unwrap();
    make(&world, &Change::Add(RoleType::Root, Source::Public(public))).unwrap();
    let changed = make(&world, &Change::Threshold(RoleType::Root, 2)).unwrap();
    let text = fs::read(changed.proposal.unwrap()).unwrap();
    let file = world.path("edited.json");
    let edit = |edit: &dyn Fn(&mut serde_json::Value)| {
        let mut value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        value["proposed"]["signatures"] = serde_json::json!([]);
        edit(&mut value["proposed"]["signed"]);
        fs::write(&file, value.to_string()).unwrap();
        sign(&file, &alice)
    };
    for role in ["root", "targets"] {
        let error = edit(&|signed| {
            let ids = signed["roles"][role]["keyids"].as_array_mut().unwrap();
            ids.push(ids[0].clone());
        });
        assert!(matches!(error, Err(ProposalError::Bad { .. })), "{error:?}");
    }
    let says = edit(&|signed| {
        signed["consistent_snapshot"] = false.into();
        signed["further"] = 1.into();
    });
    let says = says.unwrap().says.join("\n");
    assert!(
        says.contains("consistent snapshots: false (was true)"),
        "{says}"
    );
    assert!(says.contains("further field `further`"), "{says}");
    let endless = sign(Path::new("/dev/zero"), &alice);
    assert!(
        matches!(endless, Err(ProposalError::Bad { .. })),
        "{endless:?}"
    );
}

#[test]
fn two_who_put_the_same_root_in_force_may_both_publish_it() {
    let world = World::with_two_releases();
    let alice = world.path("alice");
    let public = world.path("alice.pub");
    fs::write(&public, keys::new_key(&alice, "alice", None).unwrap()).unwrap();
    make(&world, &Change::Add(RoleType::Root, Source::Public(public))).unwrap();
    let changed = make(&world, &Change::Renew).unwrap();
    assert_eq!((changed.version, changed.proposal), (3, None));
    put(&world, now());
    // The same root with a further signature: other bytes, and no other root.
    let theirs = world.keys_dir().join("3.root.json");
    let mut root: serde_json::Value = serde_json::from_slice(&fs::read(&theirs).unwrap()).unwrap();
    let signature = serde_json::json!({ "keyid": "00".repeat(32), "sig": "00" });
    root["signatures"].as_array_mut().unwrap().push(signature);
    for name in ["3.root.json", "root.json", "online/root.json"] {
        fs::write(world.keys_dir().join(name), root.to_string()).unwrap();
    }
    assert_eq!(put(&world, now()).root, 3);
}

#[test]
fn changes_at_the_same_time_are_made_one_after_the_other() {
    let world = World::new();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| make(&world, &Change::Add(RoleType::Root, Source::New)).unwrap());
        }
    });
    let info = keys::show(&world.keys_dir(), now()).unwrap();
    assert_eq!((info.root_version, info.roles[0].keys.len()), (7, 7));
}

#[test]
fn several_changes_are_one_version_or_none() {
    let world = World::new();
    let online = [RoleType::Snapshot, RoleType::Timestamp];
    let add = online.map(|role| Change::Add(role, Source::New));
    let changed = make(&world, &Change::All(add.to_vec())).unwrap();
    assert_eq!((changed.version, changed.made.len()), (2, 2));
    let further = Change::Add(RoleType::Snapshot, Source::New);
    make(&world, &further).unwrap();
    // The snapshot role has three keys, the timestamp role two.
    let threshold = online.map(|role| Change::Threshold(role, 3));
    let error = make(&world, &Change::All(threshold.to_vec())).unwrap_err();
    assert!(matches!(error, ChangeError::Threshold { .. }), "{error}");
    let info = keys::show(&world.keys_dir(), now()).unwrap();
    assert_eq!(info.root_version, 3);
    assert!(info.roles.iter().all(|role| role.threshold == 1));
}
