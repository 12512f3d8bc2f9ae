//! Deltas that a hub has made on demand, which nobody has signed: taken where they are of use, and
//! never a reason not to update.

use std::{fs, path::Path};

use pytheas_release::{BlobRef, Release, Sha256, TreeId};
use pytheas_repo::{
    layout, on_demand,
    publish::{Options, Published},
    store::Store,
};

use crate::support::{App, Device, World, noise};

/// Publishes without deltas.
fn publish(world: &World, app: &App) -> Published {
    let options = Options {
        deltas: Some(0),
        level: 3,
        ..Options::at(jiff::Timestamp::now())
    };
    world.publish_with(app, &options)
}

fn document(world: &World, published: &Published) -> Release {
    let folder = world.repo().join("targets").join(&published.target);
    let mut files = fs::read_dir(folder.parent().unwrap()).unwrap();
    let bytes = fs::read(files.next().unwrap().unwrap().path()).unwrap();
    Release::parse(&published.target, &bytes).unwrap()
}

/// The delta that a hub would make.
fn delta(world: &World, from: &Published, to: &Published) -> Vec<u8> {
    let store = Store::folder(&world.repo()).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let (from, to) = (document(world, from), document(world, to));
    on_demand::make(&store, &world.handle(), &from, &to, scratch.path())
        .unwrap()
        .expect("it is shorter than the contents")
}

#[expect(
    clippy::disallowed_methods,
    reason = "a repository that lives as long as the test"
)]
fn put(repo: &Path, path: &str, bytes: &[u8]) {
    let path = repo.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Offers these bytes as the delta between two trees; the path of its blob.
fn offer(world: &World, (from, to): (TreeId, TreeId), blob: BlobRef, bytes: &[u8]) -> String {
    let pointer = serde_json::to_vec(&blob).unwrap();
    put(&world.repo(), &layout::offered_delta(from, to), &pointer);
    let path = layout::blob(&blob.sha256);
    put(&world.repo(), &path, bytes);
    path
}

fn described(bytes: &[u8]) -> BlobRef {
    BlobRef {
        sha256: Sha256::of(bytes),
        size_bytes: bytes.len() as u64,
    }
}

/// A release so large that its delta has more than one segment.
fn big(version: &str) -> App {
    let mut app = App::good(version);
    let own: u64 = version.bytes().map(u64::from).sum();
    for number in 0..16 {
        let old = noise(500 + number, 500_000);
        let new = noise(1_000 * own + number, 30_000);
        app = app.file(&format!("lib/big-{number}.bin"), [old, new].concat());
    }
    app
}

#[test]
fn a_delta_that_the_hub_has_made_is_taken() {
    let world = World::new();
    let first = publish(&world, &App::good("1.0.0"));
    let device = world.device_with("device", &first);
    let second = publish(&world, &App::good("1.1.0"));
    let made = delta(&world, &first, &second);
    offer(&world, (first.tree, second.tree), described(&made), &made);
    world.hub.talk().sent_bytes = 0;
    let blobs = world.hub.asked("GET /repo/blobs/");
    let action = world.hub.offer(&second.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.runs("1.1.0");
    assert_eq!(device.current(), Some(second.tree));
    // As with a signed one: the delta alone, no tree document, no index, no pack.
    assert_eq!(world.hub.asked("GET /repo/blobs/") - blobs, 1);
    assert_eq!(world.hub.asked("GET /repo/deltas/"), 1);
    let sent = world.hub.talk().sent_bytes;
    assert!(sent < 12_000, "{sent} bytes were sent");
}

#[test]
fn a_signed_delta_is_taken_before_one_that_is_only_offered() {
    let world = World::new();
    let first = publish(&world, &App::good("1.0.0"));
    let device = world.device_with("device", &first);
    let second = world.publish(&App::good("1.1.0"));
    assert_eq!(second.deltas.len(), 1);
    let action = world.hub.offer(&second.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    assert_eq!(device.current(), Some(second.tree));
    assert_eq!(world.hub.asked("GET /repo/deltas/"), 0);
}

/// The delta, with another tree's id at this place in its head, which no check covers.
fn claimed(mut delta: Vec<u8>, at: usize, tree: TreeId) -> Vec<u8> {
    let hex = tree.to_string();
    for (number, byte) in delta[at..at + 32].iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * number..2 * number + 2], 16).unwrap();
    }
    delta
}

/// What a broken or hostile hub offers.
struct Lie {
    name: &'static str,
    pointer: Vec<u8>,
    blob: Option<(String, Vec<u8>)>,
    /// Files whose path holds this never end.
    endless: Option<String>,
}

#[test]
fn no_delta_that_is_offered_can_keep_a_device_from_updating() {
    let world = World::new();
    let first = publish(&world, &App::good("1.0.0"));
    let other = publish(&world, &App::good("1.1.0"));
    let second = publish(&world, &App::good("1.2.0"));
    let good = delta(&world, &first, &second);
    let pointer = |blob: BlobRef| serde_json::to_vec(&blob).unwrap();
    let lie = |name, said: BlobRef, bytes: &[u8]| Lie {
        name,
        pointer: pointer(said),
        blob: Some((layout::blob(&said.sha256), bytes.to_vec())),
        endless: None,
    };
    let nothing = |name, pointer: &[u8]| Lie {
        name,
        pointer: pointer.to_vec(),
        blob: None,
        endless: None,
    };
    let said = |size_bytes, salt: &[u8]| BlobRef {
        sha256: Sha256::of(salt),
        size_bytes,
    };
    let honest = |name, bytes: &[u8]| lie(name, described(bytes), bytes);
    let mut flipped = good.clone();
    let last = flipped.len() - 20;
    flipped[last] ^= 1;
    let mut other_head = good.clone();
    other_head[100] ^= 1;
    let longer = [&good[..], &[0; 500]].concat();
    let endless = said(100_000, b"endless");
    let lies = [
        nothing("no pointer at all", b"\xff\x00 no JSON"),
        nothing("a pointer of another kind", b"[1, 2, {\"sha256\": 7}]"),
        nothing("a blob that is not there", &pointer(said(5_000, b"away"))),
        nothing("a blob of any length", &pointer(said(u64::MAX, b"huge"))),
        Lie {
            endless: Some("/deltas/".into()),
            ..nothing("a pointer that never ends", b"")
        },
        Lie {
            endless: Some(layout::blob(&endless.sha256)),
            ..nothing("a delta that never ends", &pointer(endless))
        },
        honest("noise", &noise(3, 5_000)),
        honest("nothing", b""),
        honest("a byte of a segment changed", &flipped),
        honest("a byte of the plan changed", &other_head),
        honest("more at the end", &longer),
        lie("another hash", said(good.len() as u64, b"other"), &good),
        lie("cut short", described(&good), &good[..good.len() / 2]),
        lie(
            "shorter than said",
            said(good.len() as u64 + 9, b"x"),
            &good,
        ),
        honest("from another tree", &delta(&world, &other, &second)),
        honest("to another tree", &delta(&world, &first, &other)),
        honest(
            "from another tree than it says",
            &claimed(delta(&world, &other, &second), 8, first.tree),
        ),
        honest(
            "to another tree than it says",
            &claimed(delta(&world, &first, &other), 40, second.tree),
        ),
    ];
    for (number, lie) in lies.into_iter().enumerate() {
        let mut device = world.device_with(&format!("device-{number}"), &first);
        let path = layout::offered_delta(first.tree, second.tree);
        put(&world.repo(), &path, &lie.pointer);
        if let Some((path, bytes)) = &lie.blob {
            put(&world.repo(), path, bytes);
        }
        world.hub.talk().endless = lie.endless;
        let asked = world.hub.asked("GET /repo/deltas/");
        let action = world.hub.offer(&second.target);
        assert_eq!(world.hub.closed(&action), Ok(()), "{}", lie.name);
        assert_eq!(device.current(), Some(second.tree), "{}", lie.name);
        assert!(world.hub.asked("GET /repo/deltas/") > asked, "{}", lie.name);
        device.is_idle();
        assert_eq!(device.machine()["refused"], serde_json::json!([]));
        device.kill();
        world.hub.talk().endless = None;
    }
}

#[test]
fn an_offered_delta_that_breaks_off_goes_on_and_gives_way_when_it_comes_no_further() {
    let world = World::new();
    let first = publish(&world, &big("1.0.0"));
    let device = world.device_with("device", &first);
    let second = publish(&world, &big("1.1.0"));
    let made = delta(&world, &first, &second);
    let blob = offer(&world, (first.tree, second.tree), described(&made), &made);
    {
        let mut talk = world.hub.talk();
        talk.sent_bytes = 0;
        talk.break_off = vec![made.len() / 2];
    }
    let action = world.hub.offer(&second.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    assert_eq!(device.current(), Some(second.tree));
    let sent = world.hub.talk().sent_bytes;
    assert!(
        sent < made.len() + made.len() / 3,
        "{sent} of {}",
        made.len()
    );
    assert_eq!(world.hub.asked(&format!("GET /repo/{blob}")), 2);

    // A hub that never gets further than the plan: contents, at the second try.
    let third = publish(&world, &big("1.2.0"));
    let made = delta(&world, &second, &third);
    let blob = offer(&world, (second.tree, third.tree), described(&made), &made);
    world.hub.talk().break_off = vec![3_000; 2];
    let action = world.hub.offer(&third.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    assert_eq!(device.current(), Some(third.tree));
    assert_eq!(world.hub.asked(&format!("GET /repo/{blob}")), 2);
}

#[test]
fn a_device_whose_repository_cannot_be_asked_for_deltas_fetches_contents() {
    // Some buckets answer 403 for what is not there, and some hubs fail.
    let world = World::new();
    let first = publish(&world, &App::good("1.0.0"));
    let device: Device = world.device_with("device", &first);
    let second = publish(&world, &App::good("1.1.0"));
    world.hub.talk().forbidden = Some("deltas/".into());
    let action = world.hub.offer(&second.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    assert_eq!(device.current(), Some(second.tree));
    assert_eq!(world.hub.asked("GET /repo/deltas/"), 1);
}
