//! A developer's keys, a repository in a folder, and devices that fetch from it.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp};
use pytheas_release::{
    BuildRecord, Health, Name, Platform, Release, Sha256, Version, delta::ObjectSink,
};
use pytheas_repo::{
    client::{self, Client, Limits},
    fetch::{Fetch, FolderFetch},
    keys::{self, Init, PublisherKeys},
    publish::{Events, Options, PublishError, Published, publish},
    store::Store,
};
use tempfile::TempDir;

pub(crate) type Files<'a> = &'a [(&'a str, &'a [u8])];
pub(crate) const PLATFORM: &str = "linux-x86_64";

pub(crate) fn now() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().unwrap()
}

pub(crate) fn days(n: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * n)
}

pub(crate) fn target(version: &str) -> String {
    format!("app/{version}/{PLATFORM}/release.json")
}

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend(state.to_le_bytes());
    }
    out.truncate(len);
    out
}

pub(crate) struct World {
    pub(crate) dir: TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let world = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        let (dir, root_valid) = (world.keys_dir(), days(365));
        keys::init(&Init {
            dir: &dir,
            passphrase: None,
            now: now(),
            root_valid,
        })
        .unwrap();
        world
    }

    /// With releases 1.0.0 and 1.1.0, where only one file differs.
    pub(crate) fn with_two_releases() -> Self {
        let world = Self::new();
        let (library, data) = (noise(1, 300_000), noise(2, 40_000));
        for version in ["1.0.0", "1.1.0"] {
            let main = format!("print('version {version}')\n").repeat(40);
            world
                .publish(
                    version,
                    &[
                        ("app/main.py", main.as_bytes()),
                        ("lib/library.so", &library),
                        ("data/table", &data),
                        ("data/same", &data),
                        ("empty", b""),
                    ],
                )
                .unwrap();
        }
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn keys_dir(&self) -> PathBuf {
        self.path("keys")
    }

    pub(crate) fn repo(&self) -> PathBuf {
        self.path("repo")
    }

    pub(crate) fn store(&self) -> Store {
        Store::folder(&self.repo()).unwrap()
    }

    pub(crate) fn keys(&self) -> PublisherKeys {
        PublisherKeys::load(&self.keys_dir(), &|_| None).unwrap()
    }

    /// A built tree: `files` and what makes it one.
    pub(crate) fn tree(&self, version: &str, platform: &str, files: Files<'_>) -> PathBuf {
        let dir = self.path(&format!("tree-{version}-{platform}"));
        let _fresh = fs::remove_dir_all(&dir);
        let record = BuildRecord {
            format: 1,
            name: "app".parse::<Name>().unwrap(),
            version: version.parse::<Version>().unwrap(),
            form: "bundle".into(),
            platform: platform.parse().unwrap(),
            entry: "bin/app".parse().unwrap(),
            health: Health::default(),
            config: BTreeMap::new(),
            interpreter: None,
            update: pytheas_release::UpdateRules::default(),
        };
        let record = record.encode();
        let fixed: Files<'_> = &[("bin/app", b"#!/bin/sh\n"), ("pytheas.json", &record)];
        for (name, content) in files.iter().chain(fixed) {
            let path = dir.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
        }
        fs::set_permissions(dir.join("bin/app"), fs::Permissions::from_mode(0o755)).unwrap();
        dir
    }

    pub(crate) fn publish(
        &self,
        version: &str,
        files: Files<'_>,
    ) -> Result<Published, PublishError> {
        let dir = self.tree(version, PLATFORM, files);
        self.publish_dir(&self.store(), &dir, &Options::at(now()))
    }

    pub(crate) fn publish_dir(
        &self,
        store: &Store,
        dir: &Path,
        options: &Options,
    ) -> Result<Published, PublishError> {
        runtime().block_on(publish(store, &self.keys(), dir, options, &Events::none()))
    }

    pub(crate) fn device(&self, name: &str) -> Device {
        let state = self.path(name);
        let root = fs::read(self.keys_dir().join("root.json")).unwrap();
        client::init(&state, &root, Some(&Sha256::of(&root))).unwrap();
        Device {
            state,
            repo: self.repo(),
        }
    }

    /// Keeps a copy of the repository as it is now.
    pub(crate) fn save(&self, name: &str) -> PathBuf {
        let copy = self.path(name);
        copy_dir(&self.repo(), &copy);
        copy
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

pub(crate) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// All published files, relative, sorted.
pub(crate) fn published_files(repo: &Path) -> Vec<String> {
    fn walk(dir: &Path, repo: &Path, all: &mut Vec<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, repo, all);
            } else {
                all.push(
                    path.strip_prefix(repo)
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .to_owned(),
                );
            }
        }
    }
    let mut all = Vec::new();
    walk(repo, repo, &mut all);
    all.retain(|file| !file.starts_with('.'));
    all.sort();
    all
}

pub(crate) struct Device {
    pub(crate) state: PathBuf,
    pub(crate) repo: PathBuf,
}

impl Device {
    /// Refreshes at `time` from the repository.
    pub(crate) fn refresh(
        &self,
        time: Timestamp,
    ) -> Result<client::Refreshed, client::MetadataError> {
        self.refresh_from(&mut FolderFetch(self.repo.clone()), time)
    }

    pub(crate) fn refresh_from(
        &self,
        fetch: &mut dyn Fetch,
        time: Timestamp,
    ) -> Result<client::Refreshed, client::MetadataError> {
        Client::open(&self.state, fetch)?.refresh(time)
    }

    pub(crate) fn release(&self, version: &str) -> miette::Result<Release> {
        let mut fetch = FolderFetch(self.repo.clone());
        let mut client = Client::open(&self.state, &mut fetch)?;
        Ok(client.fetch_release(&target(version), &platform())?)
    }

    /// Everything a device does: refresh, then fetch the whole release. Contents by path.
    pub(crate) fn install(
        &self,
        fetch: &mut dyn Fetch,
        version: &str,
    ) -> miette::Result<BTreeMap<String, Vec<u8>>> {
        let mut client = Client::open_with(&self.state, fetch, Limits::default())?;
        client.refresh(now())?;
        let release = client.fetch_release(&target(version), &platform())?;
        let tree = client.tree(&release)?;
        let index = client.index(&release)?;
        let mut objects = Memory::default();
        client.objects(&index, &tree.objects(), &mut objects, &mut |_| {})?;
        Ok(tree
            .files()
            .map(|(path, _, object)| (path.to_string(), objects.done[&object].clone()))
            .collect())
    }
}

pub(crate) fn platform() -> Platform {
    PLATFORM.parse().unwrap()
}

/// Keeps objects in memory; checks that the client keeps its promise about `begin` and `finish`.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) done: BTreeMap<Sha256, Vec<u8>>,
    open: Option<(Sha256, u64, Vec<u8>)>,
}

impl ObjectSink for Memory {
    fn begin(&mut self, sha256: Sha256, size_bytes: u64) -> io::Result<()> {
        self.open = Some((sha256, size_bytes, Vec::new()));
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.open.as_mut().expect("begun").2.extend(bytes);
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        let (sha256, size_bytes, bytes) = self.open.take().expect("begun");
        assert_eq!(bytes.len() as u64, size_bytes);
        assert_eq!(Sha256::of(&bytes), sha256);
        assert!(
            self.done.insert(sha256, bytes).is_none(),
            "an object is finished once"
        );
        Ok(())
    }
}

/// Message, help and causes of an error, as a person reads them.
pub(crate) fn shown(error: impl Into<miette::Report>) -> String {
    let report: miette::Report = error.into();
    let mut text = format!("error: {report}\n");
    for cause in report.chain().skip(1) {
        text += &format!("  because: {cause}\n");
    }
    if let Some(help) = report.help() {
        text += &format!("  help: {help}\n");
    }
    text
}

/// What someone can do who has keys: sign anything.
pub(crate) struct Forger {
    pub(crate) root: tough::schema::Root,
    keys: Vec<Box<dyn tough::key_source::KeySource>>,
}

impl Forger {
    /// With all keys in `dir`, for what its root metadata says.
    pub(crate) fn with_keys(dir: &Path) -> Self {
        let root: tough::schema::Signed<tough::schema::Root> =
            serde_json::from_slice(&fs::read(dir.join("root.json")).unwrap()).unwrap();
        let mut forger = Self {
            root: root.signed,
            keys: Vec::new(),
        };
        forger.add_keys(dir);
        forger
    }

    pub(crate) fn add_keys(&mut self, dir: &Path) {
        for name in [
            "root.pem",
            "targets.pem",
            "online/snapshot.pem",
            "online/timestamp.pem",
        ] {
            let key = keys::KeyFile::load(&dir.join(name), &|_| None).unwrap();
            self.keys.push(Box::new(key));
        }
    }

    pub(crate) fn sign<T: tough::schema::Role>(&self, role: T) -> Vec<u8> {
        let holder = tough::schema::KeyHolder::Root(self.root.clone());
        let random = aws_lc_rs::rand::SystemRandom::new();
        let sign = tough::editor::signed::SignedRole::new(role, &holder, &self.keys, &random);
        runtime().block_on(sign).unwrap().buffer().clone()
    }

    /// Signs the role in `repo/metadata/from` again after `change`, and writes it as `to`.
    pub(crate) fn resign<T>(&self, repo: &Path, from: &str, to: &str, change: impl FnOnce(&mut T))
    where
        T: tough::schema::Role + serde::de::DeserializeOwned,
    {
        let bytes = fs::read(repo.join("metadata").join(from)).unwrap();
        let mut signed: tough::schema::Signed<T> = serde_json::from_slice(&bytes).unwrap();
        change(&mut signed.signed);
        fs::write(repo.join("metadata").join(to), self.sign(signed.signed)).unwrap();
    }
}

/// What other metadata says about the file `name` in `repo/metadata`.
pub(crate) fn described(repo: &Path, name: &str, version: u64) -> tough::schema::Metafile {
    let bytes = fs::read(repo.join("metadata").join(name)).unwrap();
    tough::schema::Metafile {
        length: Some(bytes.len() as u64),
        hashes: Some(tough::schema::Hashes {
            sha256: Sha256::of(&bytes).as_bytes().to_vec().into(),
            _extra: Default::default(),
        }),
        version: version.try_into().unwrap(),
        _extra: Default::default(),
    }
}
