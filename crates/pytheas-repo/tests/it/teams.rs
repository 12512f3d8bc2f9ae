//! Teams that sign their own releases, read by python-tuf and by `tough`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use pytheas_repo::{
    delegations::{Delegate, DelegationError},
    keys::{self, OnlineKeys, PublisherKeys},
    publish::{Events, Options, PublishError, Published, Reached, Validity, delegate, publish},
    renew::renew,
    repository::Repository,
};
use tough::{IntoVec, RepositoryLoader, TargetName};

use crate::{
    python::{SCRIPT, python},
    world::{PLATFORM, World, now, runtime, target},
};

/// The folder of a team's keys, and its public half.
pub(crate) fn team(world: &World, name: &str, key: &str) -> (PathBuf, PathBuf) {
    let (dir, public) = (world.path(name), world.path(&format!("{key}.pub")));
    fs::write(&public, keys::new_key(&dir, key, None).unwrap()).unwrap();
    let root = fs::read(world.keys_dir().join("root.json")).unwrap();
    fs::write(dir.join("root.json"), root).unwrap();
    (dir, public)
}

pub(crate) fn change(world: &World, change: &Delegate) -> Result<Vec<String>, PublishError> {
    let (store, keys) = (world.store(), world.keys());
    let (options, events) = (Options::at(now()), Events::none());
    let done = delegate(&store, &keys, change, &options, &events);
    runtime().block_on(done).map(|(says, _)| says)
}

pub(crate) fn set(team: &str, paths: &[&str], keys: &[&PathBuf]) -> Delegate {
    Delegate::Set {
        team: team.into(),
        paths: paths.iter().map(|path| (*path).into()).collect(),
        keys: keys
            .iter()
            .map(|file| keys::read_public(file).unwrap())
            .collect(),
        threshold: None,
    }
}

pub(crate) fn publish_as(
    world: &World,
    dir: &Path,
    team: &str,
    version: &str,
) -> Result<Published, PublishError> {
    let keys = PublisherKeys::load_team(dir, team, &|_| None).unwrap();
    let tree = world.tree(version, PLATFORM, &[("team", b"ours")]);
    let (options, events) = (Options::at(now()), Events::none());
    let store = world.store();
    let done = publish(&store, &keys, &tree, &options, &events);
    runtime().block_on(done)
}

pub(crate) fn take_up(world: &World) {
    let keys = OnlineKeys::load(&world.keys_dir().join("online")).unwrap();
    let store = world.store();
    let renewed = runtime().block_on(renew(&store, &keys, &Validity::default(), now()));
    assert!(renewed.unwrap().snapshot.is_some());
}

fn listed(world: &World) -> Vec<String> {
    let root = fs::read(world.keys_dir().join("root.json")).unwrap();
    let store = world.store();
    let repository = runtime()
        .block_on(Repository::open(&store, &root, now()))
        .unwrap();
    let all = repository.releases().into_iter();
    for one in repository.releases() {
        runtime().block_on(repository.release(&one.target)).unwrap();
    }
    all.map(|one| one.reference.version.to_string()).collect()
}

/// Whether python-tuf gets the release.
fn python_reads(world: &World, version: &str) -> Option<bool> {
    let python = python()?;
    let (script, state) = (world.path("read.py"), world.path("python-state"));
    fs::write(&script, SCRIPT).unwrap();
    let _fresh = fs::remove_dir_all(&state);
    let output = Command::new(python)
        .arg(script)
        .args([world.repo(), state])
        .arg(target(version))
        .output()
        .unwrap();
    let found =
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains(version);
    Some(found)
}

/// Whether `tough` finds the release and its bytes.
fn tough_reads(world: &World, version: &str) -> bool {
    let root = fs::read(world.keys_dir().join("root.json")).unwrap();
    let url = |name: &str| {
        format!("file://{}/{name}/", world.repo().display())
            .parse()
            .unwrap()
    };
    runtime().block_on(async {
        let loader = RepositoryLoader::new(&root, url("metadata"), url("targets"))
            .expiration_enforcement(tough::ExpirationEnforcement::Unsafe);
        let repository = loader.load().await.unwrap();
        let name = TargetName::new(target(version)).unwrap();
        let found = repository.all_targets().any(|(known, _)| *known == name);
        // Its files lie where the specification says, not where `tough` looks: the list must do.
        if let Ok(Some(stream)) = repository.read_target(&name).await {
            let _found_or_not = stream.into_vec().await;
        }
        found
    })
}

#[test]
fn a_team_signs_its_own_releases_and_no_others() {
    let world = World::with_two_releases();
    let (dir, public) = team(&world, "greenhouse", "greenhouse");
    let error = change(&world, &set("greenhouse", &[], &[&public])).unwrap_err();
    assert!(
        matches!(
            error,
            PublishError::Delegation(DelegationError::Incomplete { .. })
        ),
        "{error}"
    );
    let error = publish_as(&world, &dir, "greenhouse", "2.0.0").unwrap_err();
    assert!(
        matches!(
            error,
            PublishError::Delegation(DelegationError::Unknown { .. })
        ),
        "{error}"
    );
    let says = change(&world, &set("greenhouse", &["app/*"], &[&public])).unwrap();
    assert_eq!(says[0], "greenhouse: may sign app/*/*/*");

    let published = publish_as(&world, &dir, "greenhouse", "2.0.0").unwrap();
    assert_eq!(published.reached, Reached::Uploaded);
    assert_eq!(listed(&world), ["1.0.0", "1.1.0"], "no snapshot has it yet");
    publish_as(&world, &dir, "greenhouse", "2.1.0").unwrap();
    take_up(&world);
    assert_eq!(listed(&world), ["1.0.0", "1.1.0", "2.0.0", "2.1.0"]);
    for version in ["1.1.0", "2.0.0", "2.1.0"] {
        assert!(tough_reads(&world, version), "{version}");
        match python_reads(&world, version) {
            Some(read) => assert!(read, "{version}"),
            None => return testkit::skip("no python-tuf"),
        }
    }
    // The targets role goes on publishing, and never again under a name that the team has.
    world.publish("3.0.0", &[]).unwrap();
    world.publish("2.0.0", &[("x", b"other")]).unwrap_err();
    assert_eq!(listed(&world).len(), 5);

    // Another team may not sign these, and the patterns of the first come first.
    let (other, key) = team(&world, "other", "other");
    change(&world, &set("other", &["gateway", "app/*"], &[&key])).unwrap();
    let error = publish_as(&world, &other, "other", "4.0.0").unwrap_err();
    assert!(
        matches!(
            error,
            PublishError::Delegation(DelegationError::Hidden { .. })
        ),
        "{error}"
    );
    change(&world, &set("other", &["gateway"], &[])).unwrap();
    let error = publish_as(&world, &other, "other", "4.0.0").unwrap_err();
    assert!(
        matches!(
            error,
            PublishError::Delegation(DelegationError::Path { .. })
        ),
        "{error}"
    );
    // A delegate whose team has published nothing stops nobody.
    assert_eq!(listed(&world).len(), 5);
    assert_eq!(python_reads(&world, "2.1.0"), Some(true));
    assert_eq!(world.device("d").refresh(now()).unwrap().root, 1);
}

#[test]
fn a_teams_key_is_replaced_and_the_team_removed() {
    let world = World::with_two_releases();
    let device = world.device("device");
    let (dir, old) = team(&world, "team", "crew");
    change(&world, &set("crew", &["app/*"], &[&old])).unwrap();
    publish_as(&world, &dir, "crew", "2.0.0").unwrap();
    take_up(&world);
    device.refresh(now()).unwrap();

    // Replaced at once: what the old key signed is gone until it is published again.
    let (fresh, new) = (world.path("fresh"), world.path("fresh.pub"));
    fs::write(&new, keys::new_key(&fresh, "crew", None).unwrap()).unwrap();
    fs::copy(dir.join("root.json"), fresh.join("root.json")).unwrap();
    change(&world, &set("crew", &[], &[&new])).unwrap();
    assert_eq!(listed(&world), ["1.0.0", "1.1.0"]);
    device.refresh(now()).unwrap();
    let error = publish_as(&world, &dir, "crew", "2.1.0").unwrap_err();
    assert!(matches!(error, PublishError::Sign(_)), "{error}");
    publish_as(&world, &fresh, "crew", "2.1.0").unwrap();
    take_up(&world);
    assert_eq!(listed(&world), ["1.0.0", "1.1.0", "2.1.0"]);
    device.refresh(now()).unwrap();

    // With both keys for a while, nothing is lost.
    let both = set("crew", &[], &[&old, &new]);
    change(&world, &both).unwrap();
    publish_as(&world, &dir, "crew", "2.2.0").unwrap();
    take_up(&world);
    change(&world, &set("crew", &[], &[&old])).unwrap();
    assert_eq!(listed(&world), ["1.0.0", "1.1.0", "2.1.0", "2.2.0"]);
    assert_ne!(python_reads(&world, "2.2.0"), Some(false));

    let remove = Delegate::Remove {
        team: "crew".into(),
    };
    change(&world, &remove).unwrap();
    assert_eq!(listed(&world), ["1.0.0", "1.1.0"]);
    device.refresh(now()).unwrap();
    assert_ne!(python_reads(&world, "2.2.0"), Some(true));
    assert_ne!(python_reads(&world, "1.1.0"), Some(false));
    change(&world, &remove).unwrap_err();
}
