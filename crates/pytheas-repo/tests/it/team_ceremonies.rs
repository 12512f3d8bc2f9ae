//! A team whose keys lie in several folders: what lacks signatures is carried from one to the next.

use std::{fs, path::Path};

use pytheas_repo::{
    delegations::Delegate,
    fetch::FolderFetch,
    keys::{
        PublisherKeys,
        proposal::{Proposal, ProposalError, Signing, sign_file},
    },
    publish::{Events, Fresh, Options, PublishError, Reached, Refresh, publish, publish_keys},
};

use crate::{
    teams::{change, set, take_up, team},
    world::{PLATFORM, World, now, runtime},
};

fn sign(file: &Path, dir: &Path) -> Result<Signing, ProposalError> {
    sign_file(file, dir, &|_| None)
}

/// Team `greenhouse` with two keys in two folders, both of which must sign.
fn two_of_two(world: &World) -> [std::path::PathBuf; 2] {
    let (first, one) = team(world, "first", "greenhouse");
    let (second, two) = team(world, "second", "greenhouse-2");
    let Delegate::Set {
        team, paths, keys, ..
    } = set("greenhouse", &["app/*"], &[&one, &two])
    else {
        unreachable!("that is what it makes");
    };
    let threshold = Some(2);
    change(
        world,
        &Delegate::Set {
            team,
            paths,
            keys,
            threshold,
        },
    )
    .unwrap();
    [first, second]
}

fn propose(world: &World, dir: &Path, version: &str) -> std::path::PathBuf {
    let file = world.path(&format!("{version}.proposal"));
    let keys = PublisherKeys::load_team(dir, "greenhouse", &|_| None).unwrap();
    let tree = world.tree(version, PLATFORM, &[("team", b"ours")]);
    let (store, events) = (world.store(), Events::none());
    let plain = Options::at(now());
    let error = runtime().block_on(publish(&store, &keys, &tree, &plain, &events));
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("needs 2 signatures")
    );
    let options = Options {
        propose: Some(file.clone()),
        ..plain
    };
    let published = runtime().block_on(publish(&store, &keys, &tree, &options, &events));
    assert_eq!(published.unwrap().reached, Reached::Proposed(file.clone()));
    file
}

fn enforce(world: &World, keys: &PublisherKeys, file: &Path) -> Result<Fresh, PublishError> {
    let refresh = Refresh {
        proposal: Some(Proposal::read(file).unwrap()),
        ..Refresh::default()
    };
    let (store, options, events) = (world.store(), Options::at(now()), Events::none());
    runtime().block_on(publish_keys(&store, keys, &refresh, &options, &events))
}

#[test]
fn a_team_of_two_folders_signs_one_after_the_other() {
    let world = World::with_two_releases();
    let [first, second] = two_of_two(&world);
    let device = world.device("device");
    let get = |version: &str| device.install(&mut FolderFetch(world.repo()), version);
    let file = propose(&world, &first, "2.0.0");
    let members = PublisherKeys::load_team(&first, "greenhouse", &|_| None).unwrap();
    let error = enforce(&world, &members, &file).unwrap_err();
    assert!(error.to_string().contains("lacks 1 signatures"), "{error}");

    let signing = sign(&file, &second).unwrap();
    assert_eq!((signing.role, signing.missing.len()), ("team", 0));
    assert_eq!(signing.says[0], "of the team greenhouse");
    assert!(signing.says.iter().any(|line| line.contains("2.0.0")));

    // The team has no online keys: it uploads, and the hub makes a snapshot of it.
    let fresh = enforce(&world, &members, &file).unwrap();
    assert_eq!(fresh.reached, Reached::Uploaded);
    assert!(get("2.0.0").is_err());
    take_up(&world);
    get("2.0.0").unwrap();

    // Who has them puts the next one in force at once, and only once.
    let file = propose(&world, &second, "2.1.0");
    sign(&file, &first).unwrap();
    let owner = PublisherKeys::load_some(&world.keys_dir(), &|_| None).unwrap();
    let fresh = enforce(&world, &owner, &file).unwrap();
    assert_eq!(fresh.reached, Reached::Devices);
    get("2.1.0").unwrap();
    get("2.0.0").unwrap();
    let stale = enforce(&world, &owner, &file).unwrap_err();
    assert!(stale.to_string().contains("the next one is"), "{stale}");
}

#[test]
fn a_teams_proposal_is_not_believed_further_than_it_is_signed() {
    let world = World::with_two_releases();
    let [first, second] = two_of_two(&world);
    let file = propose(&world, &first, "2.0.0");
    let good = fs::read_to_string(&file).unwrap();
    type Edit = fn(&mut serde_json::Value);
    let edits: [(Edit, &str); 4] = [
        // The keys of the team, as the bearer would like them.
        (
            |p| p["targets"]["signed"]["version"] = 77.into(),
            "the targets metadata in it",
        ),
        (|p| p["team"] = "other".into(), "other"),
        (
            |p| p["signed"]["signed"]["version"] = 77.into(),
            "it was changed after the key",
        ),
        (
            |p| {
                let all = p["signed"]["signed"]["targets"].as_object_mut().unwrap();
                let one = all.values().next().unwrap().clone();
                all.insert("other/1/linux-x86_64/release.json".into(), one);
            },
            "is not for the team `greenhouse` to sign",
        ),
    ];
    for (edit, why) in edits {
        let mut value: serde_json::Value = serde_json::from_str(&good).unwrap();
        edit(&mut value["proposed"]);
        fs::write(&file, value.to_string()).unwrap();
        let error = sign(&file, &second).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
    // Nor does the owner's key of the targets role sign for a team.
    fs::write(&file, good).unwrap();
    let error = sign(&file, &world.keys_dir()).unwrap_err();
    assert!(matches!(error, ProposalError::NoKey { .. }), "{error}");
    // The team has lost the right meanwhile.
    sign(&file, &second).unwrap();
    change(
        &world,
        &Delegate::Remove {
            team: "greenhouse".into(),
        },
    )
    .unwrap();
    let owner = PublisherKeys::load_some(&world.keys_dir(), &|_| None).unwrap();
    enforce(&world, &owner, &file).unwrap_err();
}
