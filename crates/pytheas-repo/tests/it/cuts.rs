//! Publishes that are cut off or raced leave a valid repository behind.

use std::{
    fmt, fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, local::LocalFileSystem,
    memory::InMemory, path::Path,
};
use pytheas_repo::{
    fetch::FolderFetch,
    keys::OnlineKeys,
    publish::{Options, PublishError, Validity},
    renew::renew,
    repository::RepositoryError,
    store::{Store, StoreError},
};

use crate::world::{PLATFORM, World, copy_dir, noise, now, runtime};

type Hook = Box<dyn Fn(&Path) + Send + Sync>;

/// Fails all puts after the first `left`, and calls `before` before each.
struct Faulty<S> {
    inner: S,
    left: AtomicUsize,
    before: Hook,
}

impl<S> Faulty<S> {
    fn new(inner: S, left: usize, before: Hook) -> Arc<Self> {
        Arc::new(Self {
            inner,
            left: AtomicUsize::new(left),
            before,
        })
    }
}

impl<S> fmt::Debug for Faulty<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

impl<S> fmt::Display for Faulty<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

#[async_trait]
impl<S: ObjectStore> ObjectStore for Faulty<S> {
    async fn put_opts(&self, to: &Path, bytes: PutPayload, how: PutOptions) -> Result<PutResult> {
        (self.before)(to);
        let take = |left: usize| left.checked_sub(1);
        if self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
            .is_err()
        {
            return Err(object_store::Error::Generic {
                store: "test",
                source: "power cut".into(),
            });
        }
        self.inner.put_opts(to, bytes, how).await
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        unreachable!("the tests' files are small")
    }

    async fn get_opts(&self, from: &Path, how: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(from, how).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, how: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, how).await
    }
}

#[test]
fn a_publish_cut_off_at_any_put_leaves_the_old_repository_and_can_be_repeated() {
    let world = World::new();
    world
        .publish("1.0.0", &[("a", b"first"), ("b", &noise(1, 9000))])
        .unwrap();
    let old = world.save("old");
    let dir = world.tree(
        "1.1.0",
        PLATFORM,
        &[("a", b"second"), ("b", &noise(1, 9000))],
    );
    let options = Options::at(now());
    let mut fetch = FolderFetch(world.repo());
    for left in 0.. {
        fs::remove_dir_all(world.repo()).unwrap();
        copy_dir(&old, &world.repo());
        let folder = LocalFileSystem::new_with_prefix(world.repo()).unwrap();
        let faulty = Faulty::new(folder, left, Box::new(|_| {}));
        let cut = world.publish_dir(&Store::from_objects(faulty, "test"), &dir, &options);
        let device = world.device(&format!("device-{left}"));
        assert_eq!(
            device.install(&mut fetch, "1.0.0").unwrap()["a"],
            b"first",
            "cut {left}"
        );
        if cut.is_ok() {
            // Pack, tree, index, delta, release, targets, snapshot, timestamp; the timestamp is
            // tried with a condition first, which this store does not know.
            assert_eq!(left, 9);
            break;
        }
        device.install(&mut fetch, "1.1.0").unwrap_err();
        let again = world.publish_dir(&world.store(), &dir, &options).unwrap();
        let files = device.install(&mut fetch, "1.1.0").unwrap();
        assert_eq!(files["a"], b"second", "cut {left}: {again:?}");
    }
}

#[test]
fn the_second_of_two_publishers_to_an_object_store_goes_on_from_what_the_first_published() {
    let world = World::new();
    let memory = Arc::new(InMemory::new());
    let plain = Store::from_objects(memory.clone(), "memory");
    let options = Options::at(now());
    for moment in ["targets.json", "snapshot.json", "timestamp.json"] {
        let version = format!("1.0.0-{moment}");
        let mine = world.tree(&version, PLATFORM, &[("a", b"mine")]);
        let theirs = world.tree(&format!("{version}-theirs"), PLATFORM, &[("a", b"theirs")]);
        let keys_dir = world.keys_dir();
        let (plain_again, done) = (plain.clone(), AtomicUsize::new(0));
        let faulty = Faulty::new(
            memory.clone(),
            usize::MAX,
            Box::new(move |path| {
                let name = path.filename().unwrap_or_default();
                if name.ends_with(moment) && done.fetch_add(1, Ordering::SeqCst) == 0 {
                    let (store, dir, keys) =
                        (plain_again.clone(), theirs.clone(), keys_dir.clone());
                    std::thread::spawn(move || {
                        let keys =
                            pytheas_repo::keys::PublisherKeys::load(&keys, &|_| None).unwrap();
                        let events = pytheas_repo::publish::Events::none();
                        let options = Options::at(now());
                        let publish =
                            pytheas_repo::publish::publish(&store, &keys, &dir, &options, &events);
                        runtime().block_on(publish).unwrap();
                    })
                    .join()
                    .unwrap();
                }
            }),
        );
        let store = Store::from_objects(faulty, "memory");
        world.publish_dir(&store, &mine, &options).unwrap();
    }
    let root = fs::read(world.keys_dir().join("root.json")).unwrap();
    let open = pytheas_repo::repository::Repository::open(&plain, &root, now());
    assert_eq!(runtime().block_on(open).unwrap().releases().len(), 6);
}

#[test]
fn signatures_renewed_meanwhile_do_not_disturb_a_publish() {
    let world = World::new();
    let memory = Arc::new(InMemory::new());
    let plain = Store::from_objects(memory.clone(), "memory");
    let options = Options::at(now());
    world
        .publish_dir(&plain, &world.tree("1.0.0", PLATFORM, &[]), &options)
        .unwrap();
    let (keys_dir, again, done) = (world.keys_dir(), plain.clone(), AtomicUsize::new(0));
    let faulty = Faulty::new(
        memory,
        usize::MAX,
        Box::new(move |path| {
            if path.as_ref().ends_with("timestamp.json") && done.fetch_add(1, Ordering::SeqCst) == 0
            {
                let (store, keys) = (
                    again.clone(),
                    OnlineKeys::load(&keys_dir.join("online")).unwrap(),
                );
                std::thread::spawn(move || {
                    let valid = Validity::default();
                    runtime()
                        .block_on(renew(&store, &keys, &valid, now()))
                        .unwrap();
                })
                .join()
                .unwrap();
            }
        }),
    );
    let store = Store::from_objects(faulty, "memory");
    world
        .publish_dir(&store, &world.tree("1.1.0", PLATFORM, &[]), &options)
        .unwrap();
    let root = fs::read(world.keys_dir().join("root.json")).unwrap();
    let open = pytheas_repo::repository::Repository::open(&plain, &root, now());
    let repository = runtime().block_on(open).unwrap();
    assert_eq!(repository.releases().len(), 2);
    assert_eq!(repository.versions()[3], 3, "published, renewed, published");
}

#[test]
fn a_store_that_is_not_there_is_named() {
    let world = World::new();
    let store = Store::open("http://127.0.0.1:9/repo", Some("token")).unwrap();
    let dir = world.tree("1.0.0", PLATFORM, &[]);
    let error = world
        .publish_dir(&store, &dir, &Options::at(now()))
        .unwrap_err();
    assert!(
        error.to_string().contains("http://127.0.0.1:9/repo"),
        "{error}"
    );
    assert!(
        matches!(
            error,
            PublishError::Store(StoreError::Failed { .. })
                | PublishError::Repository(RepositoryError::Store(StoreError::Failed { .. }))
        ),
        "{error:?}"
    );
    for wrong in ["gopher://x", "http://", "s3://"] {
        let error = Store::open(wrong, None).unwrap_err();
        assert!(
            matches!(error, StoreError::Location { .. }),
            "{wrong}: {error}"
        );
    }
}
