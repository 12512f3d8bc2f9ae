//! Offline files: what is exported is what a device takes, and nothing else is handed out.

use std::{fs, path::Path};

use pytheas_repo::{
    client::{self, Client},
    export::{ExportError, Exported, Selection, export},
    fetch::Fetch as _,
    offline::OfflineFile,
};

use crate::world::{World, now, target};

fn exported(world: &World, selection: &Selection, out: &Path) -> Result<Exported, ExportError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(export(
        &world.store(),
        None,
        selection,
        out,
        now(),
        |_, _| {},
    ))
}

fn all() -> Selection {
    Selection::default()
}

#[test]
fn the_same_repository_gives_the_same_bytes_and_a_device_finds_all_in_them() {
    let world = World::with_two_releases();
    let (one, two) = (world.path("one.pytheas"), world.path("two.pytheas"));
    let made = exported(&world, &all(), &one).unwrap();
    exported(&world, &all(), &two).unwrap();
    let bytes = fs::read(&one).unwrap();
    assert_eq!(bytes, fs::read(&two).unwrap());
    assert_eq!(bytes.len() as u64, made.size_bytes);
    assert_eq!(made.releases.len(), 1, "the newest alone");
    assert_eq!(made.releases[0].deltas.len(), 1);
    assert_eq!(made.releases[0].deltas[0].0, "1.0.0");

    let mut file = OfflineFile::open(&one).unwrap();
    let mut seen = 0;
    file.check(&mut |done| seen = done).unwrap();
    assert_eq!(seen, made.size_bytes);
    assert_eq!(file.releases(), [target("1.1.0")]);
    let state = world.path("state");
    let root = fs::read(world.repo().join("metadata/1.root.json")).unwrap();
    client::init(&state, &root, None).unwrap();
    let mut client = Client::open(&state, &mut file).unwrap();
    client.refresh(now()).unwrap();
    let platform = "linux-x86_64".parse().unwrap();
    let release = client.fetch_release(&target("1.1.0"), &platform).unwrap();
    client.tree(&release).unwrap();
    let index = client.index(&release).unwrap();
    for blob in index.packs.iter().chain(release.deltas.values()) {
        client.blob(blob, &mut |_| {}).unwrap();
    }
    assert_eq!(client.expires(), Some(made.expires));
}

#[test]
fn a_range_beyond_the_end_brings_what_there_is() {
    let world = World::with_two_releases();
    let path = world.path("one.pytheas");
    exported(&world, &all(), &path).unwrap();
    let mut file = OfflineFile::open(&path).unwrap();
    let size = fs::metadata(world.repo().join("metadata/1.root.json"))
        .unwrap()
        .len();
    for (range, expected) in [
        (0..size, size),
        (size - 3..size + 9, 3),
        (size + 1..size + 2, 0),
    ] {
        let request = pytheas_repo::fetch::Request {
            path: "metadata/1.root.json",
            range: Some(range),
            max_bytes: u64::MAX,
        };
        let mut body = file.fetch(&request).unwrap().unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut body.reader, &mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, expected);
    }
}

#[test]
fn only_the_deltas_asked_for_go_in() {
    let world = World::with_two_releases();
    let out = world.path("out.pytheas");
    let from = |version: &str| Selection {
        from: Some(vec![version.parse().unwrap()]),
        ..all()
    };
    let made = exported(&world, &from("1.1.0"), &out).unwrap();
    assert!(made.releases[0].deltas.is_empty());
    let made = exported(&world, &from("1.0.0"), &out).unwrap();
    assert_eq!(made.releases[0].deltas.len(), 1);
    let error = exported(&world, &from("0.1"), &out).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("has no release `app@0.1` to update from"),
        "{error}"
    );
}

#[test]
fn a_damaged_repository_is_not_exported_and_the_file_before_stays() {
    let world = World::with_two_releases();
    let out = world.path("out.pytheas");
    exported(&world, &all(), &out).unwrap();
    let good = fs::read(&out).unwrap();
    let file = OfflineFile::open(&out).unwrap();
    for member in file
        .members()
        .iter()
        .filter(|m| m.path.starts_with("blobs/"))
    {
        let path = world.repo().join(&member.path);
        let bytes = fs::read(&path).unwrap();
        let mut bad = bytes.clone();
        bad[bytes.len() / 2] ^= 1;
        let short = bytes[..bytes.len() - 1].to_vec();
        let long = [&bytes[..], b"x"].concat();
        for wrong in [bad, short, long] {
            pytheas_durable::replace(&path, &wrong).unwrap();
            assert!(exported(&world, &all(), &out).is_err(), "{}", member.path);
        }
        pytheas_durable::replace(&path, &bytes).unwrap();
    }
    assert_eq!(fs::read(&out).unwrap(), good);
    exported(&world, &all(), &out).unwrap();
}
