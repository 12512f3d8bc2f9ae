//! Downloads from servers that lie, break off or cannot do much.

use std::{fs, io};

use pytheas_release::Sha256;
use pytheas_repo::{
    client::{Client, Limits},
    fetch::{Body, Fetch, FolderFetch, Request, TransportError},
};

use crate::world::{Device, Memory, World, now, shown};

fn knowing() -> (World, Device) {
    let world = World::with_two_releases();
    let device = world.device("device");
    device.refresh(now()).unwrap();
    (world, device)
}

/// Sends without end, whatever is asked for below `prefix`.
struct Endless {
    folder: FolderFetch,
    prefix: &'static str,
    sent: std::rc::Rc<std::cell::Cell<u64>>,
}

struct Zeros(std::rc::Rc<std::cell::Cell<u64>>);

impl io::Read for Zeros {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        buffer.fill(b' ');
        self.0.set(self.0.get() + buffer.len() as u64);
        Ok(buffer.len())
    }
}

impl Fetch for Endless {
    fn fetch(&mut self, request: &Request<'_>) -> Result<Option<Body>, TransportError> {
        if !request.path.starts_with(self.prefix) {
            return self.folder.fetch(request);
        }
        let start = request.range.as_ref().map_or(0, |range| range.start);
        Ok(Some(Body {
            start,
            reader: Box::new(Zeros(self.sent.clone())),
        }))
    }
}

#[test]
fn endless_data_ends_at_the_limit() {
    let world = World::with_two_releases();
    for (prefix, most) in [
        ("metadata/2.root", Limits::default().root),
        ("metadata/timestamp", Limits::default().timestamp),
        ("metadata/2.snapshot", 1000),
        ("metadata/2.targets", 2000),
        ("targets/", 2 * 2000),
        ("blobs/", 2 << 20),
    ] {
        let device = world.device(&prefix.replace('/', "-"));
        let sent = std::rc::Rc::<std::cell::Cell<u64>>::default();
        let folder = FolderFetch(world.repo());
        let mut endless = Endless {
            folder,
            prefix,
            sent: sent.clone(),
        };
        let error = device.install(&mut endless, "1.1.0").unwrap_err();
        let text = shown(error);
        assert!(text.contains(prefix), "{prefix}: {text}");
        assert!(
            sent.get() > 0 && sent.get() <= most + (128 << 10),
            "{prefix}: {} bytes",
            sent.get()
        );
    }
}

#[test]
fn a_limit_that_is_exceeded_is_told() {
    let (world, device) = knowing();
    let path = world.repo().join("metadata/timestamp.json");
    let mut long = fs::read(&path).unwrap();
    long.resize(20_000, b' ');
    fs::write(&path, long).unwrap();
    insta::assert_snapshot!(shown(device.refresh(now()).unwrap_err()), @r"
    error: `metadata/timestamp.json` is larger than the 16384 bytes allowed
      help: the server sends something else than what was published; nothing of it was kept
    ");
}

#[test]
fn missing_files_are_named() {
    for file in [
        "metadata/timestamp.json",
        "metadata/2.snapshot.json",
        "metadata/2.targets.json",
    ] {
        let world = World::with_two_releases();
        fs::remove_file(world.repo().join(file)).unwrap();
        let error = world.device("device").refresh(now()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("the repository has no file `{file}`")
        );
    }
}

#[test]
fn a_download_that_broke_off_goes_on_where_it_stopped() {
    /// Breaks after some bytes, and counts what it sent.
    struct Breaking(FolderFetch, u64, u64);
    impl Fetch for Breaking {
        fn fetch(&mut self, request: &Request<'_>) -> Result<Option<Body>, TransportError> {
            let Some(body) = self.0.fetch(request)? else {
                return Ok(None);
            };
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut io::Read::take(body.reader, self.1), &mut bytes)?;
            self.2 += bytes.len() as u64;
            let broken = Broken(io::Cursor::new(bytes));
            Ok(Some(Body {
                start: body.start,
                reader: Box::new(broken),
            }))
        }
    }
    struct Broken(io::Cursor<Vec<u8>>);
    impl io::Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(io::ErrorKind::ConnectionReset.into()),
                n => Ok(n),
            }
        }
    }
    let (world, device) = knowing();
    let release = device.release("1.1.0").unwrap();
    let mut folder = FolderFetch(world.repo());
    let index = Client::open(&device.state, &mut folder)
        .unwrap()
        .index(&release)
        .unwrap();
    let pack = *index
        .packs
        .iter()
        .max_by_key(|pack| pack.size_bytes)
        .unwrap();
    let mut breaking = Breaking(folder.clone(), 100_000, 0);
    let mut attempts = 0;
    let path = loop {
        attempts += 1;
        let mut client = Client::open(&device.state, &mut breaking).unwrap();
        match client.blob(&pack, &mut |_| {}) {
            Ok(path) => break path,
            Err(error) => assert!(error.to_string().contains("broke off"), "{error}"),
        }
    };
    assert_eq!(attempts, pack.size_bytes.div_ceil(100_000));
    assert_eq!(breaking.2, pack.size_bytes, "no byte was sent twice");
    assert_eq!(Sha256::of(&fs::read(&path).unwrap()), pack.sha256);

    // Complete: nothing is fetched again. Rotten: it is, from the start.
    let mut none = Breaking(FolderFetch(world.path("nowhere")), 0, 0);
    Client::open(&device.state, &mut none)
        .unwrap()
        .blob(&pack, &mut |_| {})
        .unwrap();
    let mut rotten = fs::read(&path).unwrap();
    rotten[70_000] ^= 1;
    rotten.truncate(200_000);
    fs::write(&path, rotten).unwrap();
    let mut client = Client::open(&device.state, &mut folder).unwrap();
    client.blob(&pack, &mut |_| {}).unwrap();
    assert_eq!(Sha256::of(&fs::read(&path).unwrap()), pack.sha256);
    client.forget_blob(&pack).unwrap();
    assert!(!path.exists());
}

#[test]
fn a_server_that_ignores_ranges_is_coped_with() {
    struct Whole(FolderFetch);
    impl Fetch for Whole {
        fn fetch(&mut self, request: &Request<'_>) -> Result<Option<Body>, TransportError> {
            self.0.fetch(&Request {
                range: None,
                ..request.clone()
            })
        }
    }
    let (world, device) = knowing();
    device
        .install(&mut Whole(FolderFetch(world.repo())), "1.1.0")
        .unwrap();
}

#[test]
fn an_object_that_was_wrong_once_is_fetched_again() {
    /// Damages the first answer from a blob of this length.
    struct Once(FolderFetch, String, bool);
    impl Fetch for Once {
        fn fetch(&mut self, request: &Request<'_>) -> Result<Option<Body>, TransportError> {
            let Some(mut body) = self.0.fetch(request)? else {
                return Ok(None);
            };
            if request.path == self.1 && !std::mem::replace(&mut self.2, true) {
                let mut bytes = Vec::new();
                io::Read::read_to_end(&mut body.reader, &mut bytes)?;
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                body.reader = Box::new(io::Cursor::new(bytes));
            }
            Ok(Some(body))
        }
    }
    let (world, device) = knowing();
    let release = device.release("1.0.0").unwrap();
    let mut folder = FolderFetch(world.repo());
    let mut client = Client::open(&device.state, &mut folder).unwrap();
    let (index, tree) = (
        client.index(&release).unwrap(),
        client.tree(&release).unwrap(),
    );
    let path = pytheas_repo::layout::blob(&index.packs[0].sha256);
    let mut once = Once(FolderFetch(world.repo()), path, false);
    let mut client = Client::open(&device.state, &mut once).unwrap();
    let mut objects = Memory::default();
    client
        .objects(&index, &tree.objects(), &mut objects, &mut |_| {})
        .unwrap();
    assert_eq!(objects.done.len(), tree.objects().len());
    assert!(once.2);
}
