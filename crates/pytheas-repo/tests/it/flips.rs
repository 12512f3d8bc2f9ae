//! A flipped byte in any published file is refused, and the error names the file.

use std::fs;

use pytheas_repo::{client::Client, fetch::FolderFetch};

use crate::world::{World, copy_dir, platform, published_files, shown, target};

/// All a device can do with the newest release, by both ways: the delta, and single objects.
fn everything(device: &crate::world::Device) -> miette::Result<()> {
    let mut fetch = FolderFetch(device.repo.clone());
    device.install(&mut fetch, "1.0.0")?;
    device.install(&mut fetch, "1.1.0")?;
    let mut client = Client::open(&device.state, &mut fetch)?;
    let release = client.fetch_release(&target("1.1.0"), &platform())?;
    for blob in release.deltas.values() {
        client.blob(blob, &mut |_| {})?;
    }
    Ok(())
}

/// Damages each file that a device uses, in several places, by `damage`.
fn each_is_refused(damage: impl Fn(&[u8], usize) -> Vec<u8>) {
    let world = World::with_two_releases();
    let pristine = world.save("pristine");
    let mut device = world.device("device");
    device.repo = pristine.clone();
    everything(&device).unwrap();
    let files = published_files(&pristine);
    assert!(files.len() >= 14, "{files:?}");
    let mut refused = 0;
    for file in &files {
        let content = fs::read(pristine.join(file)).unwrap();
        let step = (content.len() / 7).max(1);
        for position in (0..content.len()).step_by(step).chain([content.len() - 1]) {
            let damaged = world.path("damaged");
            let _fresh = fs::remove_dir_all(&damaged);
            copy_dir(&pristine, &damaged);
            let bytes = damage(&content, position);
            if bytes.trim_ascii_end() == content.trim_ascii_end() {
                continue; // without its last newline, a document says the same
            }
            fs::write(damaged.join(file), bytes).unwrap();
            let _fresh = fs::remove_dir_all(world.path("victim"));
            let mut device = world.device("victim");
            device.repo = damaged;
            let superseded = ["1.root.json", "1.targets.json", "1.snapshot.json"];
            let result = everything(&device);
            if superseded.iter().any(|name| file.ends_with(name)) {
                result.unwrap(); // a device that has the root asks for none of these
                continue;
            }
            let text = shown(result.expect_err(&format!("{file}, byte {position}")));
            let name = file.as_str();
            assert!(text.contains(name), "{file}, byte {position}:\n{text}");
            refused += 1;
        }
    }
    assert!(refused > 80, "{refused}");
}

#[test]
fn a_flipped_byte_in_any_published_file_is_refused_naming_it() {
    each_is_refused(|content, position| {
        let mut flipped = content.to_owned();
        flipped[position] ^= 1;
        flipped
    });
}

#[test]
fn a_truncated_published_file_is_refused_naming_it() {
    each_is_refused(|content, position| content[..position].to_owned());
}

#[test]
fn a_root_with_a_flipped_byte_is_not_trusted_in_the_first_place() {
    let world = World::new();
    let root = fs::read(world.keys_dir().join("root.json")).unwrap();
    let hash = pytheas_release::Sha256::of(&root);
    for position in (0..root.len()).step_by(41) {
        let mut flipped = root.clone();
        flipped[position] ^= 1;
        let state = world.path("state");
        let by_hash = pytheas_repo::client::init(&state, &flipped, Some(&hash)).unwrap_err();
        assert!(by_hash.to_string().contains("was expected"), "{by_hash}");
        pytheas_repo::client::init(&state, &flipped, None).unwrap_err();
        assert!(!pytheas_repo::client::is_initialised(&state));
    }
}

#[test]
fn the_hub_refuses_flipped_metadata_and_documents_too() {
    use pytheas_repo::repository::{Repository, RepositoryError};

    let world = World::with_two_releases();
    let root = fs::read(world.keys_dir().join("root.json")).unwrap();
    let (runtime, store) = (crate::world::runtime(), world.store());
    let read = || {
        runtime.block_on(async {
            let repository = Repository::open(&store, &root, crate::world::now()).await?;
            repository.release(&target("1.0.0")).await?;
            repository.release(&target("1.1.0")).await
        })
    };
    read().unwrap();
    let mut files = published_files(&world.repo());
    let unused = ["blobs/", "metadata/1."];
    files.retain(|file| !unused.iter().any(|prefix| file.starts_with(prefix)));
    assert_eq!(files.len(), 5, "{files:?}");
    for file in files {
        let path = world.repo().join(&file);
        let good = fs::read(&path).unwrap();
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 1;
        fs::write(&path, flipped).unwrap();
        let error = read().unwrap_err();
        assert!(
            matches!(error, RepositoryError::Unverified { .. }),
            "{file}: {error}"
        );
        fs::write(&path, good).unwrap();
    }
}
