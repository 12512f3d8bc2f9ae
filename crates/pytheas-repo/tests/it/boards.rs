//! Releases for boards: what is published is signed as a board checks it, counts up, and is kept.

use std::{collections::BTreeMap, fs, path::PathBuf};

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use pytheas_release::{
    BoardImage, BuildRecord, Health, Sha256, UpdateRules,
    board::{self, BoardRules, Body, Image, ImageManifest},
};
use pytheas_repo::{
    export::{Selection, export},
    garbage,
    keys::{
        KeyError, PublisherKeys,
        boards::board_keys,
        change::{Change, Source},
    },
    layout,
    publish::{Event, Events, Options, PublishError, Published, publish},
};
use tough::schema::RoleType;

use crate::{
    ceremonies::{make, put},
    world::{World, days, now, runtime, shown},
};

const PLATFORM: &str = "micropython-any";

/// A built tree for boards.
fn tree(world: &World, version: &str, body: &[u8]) -> PathBuf {
    let dir = world.path(&format!("board-{version}"));
    fs::create_dir_all(&dir).unwrap();
    let record = BuildRecord {
        format: 1,
        name: "node".parse().unwrap(),
        version: version.parse().unwrap(),
        form: "micropython".into(),
        platform: PLATFORM.parse().unwrap(),
        entry: "app.romfs".parse().unwrap(),
        health: Health::default(),
        config: BTreeMap::new(),
        interpreter: None,
        update: UpdateRules::default(),
    };
    fs::write(dir.join("pytheas.json"), record.encode()).unwrap();
    fs::write(dir.join("lines.json"), "{}").unwrap();
    let mut manifest = ImageManifest {
        format: 1,
        name: "node".parse().unwrap(),
        version: version.parse().unwrap(),
        counter: 0,
        platform: PLATFORM.parse().unwrap(),
        entry: "node:run".into(),
        mpy: None,
        front: 0,
        body: Body {
            sha256: Sha256::of(b""),
            size: 0,
        },
        requires: BoardRules::default(),
        allow_downgrade: false,
        keys: Vec::new(),
        config: BTreeMap::new(),
    };
    manifest.bind(body);
    let image = board::assemble(&manifest, &[], body).unwrap();
    fs::write(dir.join("app.romfs"), image).unwrap();
    dir
}

fn keys(world: &World) -> PublisherKeys {
    world.keys().with_board_keys(&|_| None).unwrap()
}

fn publish_board(world: &World, version: &str) -> Result<Published, PublishError> {
    let dir = tree(world, version, version.as_bytes());
    runtime().block_on(publish(
        &world.store(),
        &keys(world),
        &dir,
        &Options::at(now()),
        &Events::none(),
    ))
}

fn image(world: &World, board: &BoardImage) -> Vec<u8> {
    let bytes = fs::read(world.repo().join(layout::blob(&board.image.sha256))).unwrap();
    assert_eq!(Sha256::of(&bytes), board.image.sha256);
    bytes
}

/// Which of these keys a board that has them would accept it by.
fn signed_by(image: &Image<'_>, keys: &[[u8; 32]]) -> Vec<usize> {
    let message = board::signed_message(image.manifest_bytes);
    let good = |key: &[u8; 32]| {
        image.signatures.iter().any(|one| {
            one.key_id == board::key_id(key)
                && UnparsedPublicKey::new(&ED25519, key)
                    .verify(message.as_bytes(), &one.signature)
                    .is_ok()
        })
    };
    let all = keys.iter().enumerate();
    all.filter(|(_, key)| good(key)).map(|(at, _)| at).collect()
}

#[test]
fn the_image_is_signed_counts_up_and_keeps_its_body() {
    let world = World::new();
    let trusted = board_keys(&world.keys_dir()).unwrap();
    assert_eq!(trusted.len(), 1);
    let mut last = 0;
    for version in ["1.0", "1.1", "1.2"] {
        let published = publish_board(&world, version).unwrap();
        assert!(published.deltas.is_empty());
        let board = published.board.unwrap();
        let bytes = image(&world, &board);
        let read = board::read(&bytes).unwrap();
        assert_eq!(signed_by(&read, &trusted), [0]);
        assert_eq!(read.body, version.as_bytes());
        assert_eq!(read.manifest.counter, board.counter);
        assert!(read.manifest.keys.is_empty(), "nothing was rotated");
        assert!(board.counter > last);
        last = board.counter;
        let lines = board.lines.unwrap();
        let lines = fs::read(world.repo().join(layout::blob(&lines.sha256))).unwrap();
        assert_eq!(lines, b"{}");
        let mut forged = bytes.clone();
        *forged.last_mut().unwrap() ^= 1;
        assert!(board::read(&forged).is_err());
    }
    let again = publish_board(&world, "1.2").unwrap();
    assert!(again.already && again.uploaded_bytes == 0);
    assert_eq!(again.board.unwrap().counter, last);
}

#[test]
fn boards_follow_a_rotation_by_what_the_old_key_signs() {
    let world = World::new();
    publish_board(&world, "1.0").unwrap();
    let old = board_keys(&world.keys_dir()).unwrap();
    make(
        &world,
        &Change::Rotate(vec![RoleType::Targets], None, Source::New),
    )
    .unwrap();
    put(&world, now());
    let new = board_keys(&world.keys_dir()).unwrap();
    assert_ne!(old, new);
    let board = publish_board(&world, "1.1").unwrap().board.unwrap();
    let bytes = image(&world, &board);
    let read = board::read(&bytes).unwrap();
    assert_eq!(signed_by(&read, &[old[0], new[0]]), [0, 1]);
    let hex: String = new[0].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(read.manifest.keys, [hex]);
}

#[test]
fn images_and_lines_outlive_the_garbage_and_go_along_on_a_stick() {
    let world = World::new();
    let board = publish_board(&world, "1.0").unwrap().board.unwrap();
    let options = garbage::Options {
        now: now() + days(4000),
        min_age: days(1),
        remove: true,
    };
    let store = world.store();
    runtime()
        .block_on(garbage::collect(&store, None, &options))
        .unwrap();
    image(&world, &board);
    assert!(
        world
            .repo()
            .join(layout::blob(&board.lines.unwrap().sha256))
            .is_file()
    );
    let out = world.path("stick.pytheas");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime
        .block_on(export(
            &store,
            None,
            &Selection::default(),
            &out,
            now(),
            |_, _| {},
        ))
        .unwrap();
    let name = board.image.sha256.to_string();
    let bytes = fs::read(&out).unwrap();
    assert!(
        bytes
            .windows(name.len())
            .any(|part| part == name.as_bytes())
    );
}

#[test]
fn an_image_of_another_release_is_not_signed() {
    let world = World::new();
    let dir = tree(&world, "1.0", b"body");
    let other = tree(&world, "2.0", b"body");
    fs::copy(other.join("app.romfs"), dir.join("app.romfs")).unwrap();
    let options = Options::at(now());
    let error = world
        .publish_dir(&world.store(), &dir, &options)
        .unwrap_err();
    let shown = shown(error).replace(world.dir.path().to_str().unwrap(), "");
    insta::assert_snapshot!(shown, @"
    error: the board image `/board-1.0/app.romfs` cannot be published: its manifest is of node@2.0 for micropython-any, the folder's record of node@1.0 for micropython-any
      help: build again with this version of pytheas, then publish the new folder
    ");
    fs::write(dir.join("app.romfs"), b"\xd2\xcd\x31\x00").unwrap();
    let error = world
        .publish_dir(&world.store(), &dir, &options)
        .unwrap_err();
    assert!(error.to_string().contains("cut off"), "{error}");
    assert!(!world.repo().join(layout::TIMESTAMP).exists());
}

#[test]
fn a_role_without_an_ed25519_key_publishes_nothing_for_boards() {
    let world = World::new();
    publish_board(&world, "1.0").unwrap();
    // A key as hardware has them.
    let (pem, public) = (world.path("p256.pem"), world.path("p256.pub"));
    let sh = |command: String| {
        let done = std::process::Command::new("sh")
            .arg("-c")
            .arg(command)
            .output();
        done.is_ok_and(|done| done.status.success())
    };
    if !sh(format!(
        "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {0} && openssl pkey -in {0} -pubout -out {1}",
        pem.display(),
        public.display()
    )) {
        return testkit::skip("no openssl");
    }
    let command = format!("openssl dgst -sha256 -sign {}", pem.display());
    pytheas_repo::keys::new_command_key(&world.keys_dir(), "token", &command, &public, None)
        .unwrap();
    make(
        &world,
        &Change::Rotate(vec![RoleType::Targets], None, Source::Here("token".into())),
    )
    .unwrap();
    put(&world, now());
    let error = board_keys(&world.keys_dir()).unwrap_err();
    assert!(matches!(error, KeyError::NoBoardKey { .. }), "{error}");
    // The old key still makes boards happy, and the warning says who does not count.
    let dir = tree(&world, "1.1", b"x");
    let said = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let events = Events::new({
        let said = said.clone();
        move |event| {
            if let Event::BoardSigned { warnings, .. } = event {
                said.lock().unwrap().extend(warnings);
            }
        }
    });
    runtime()
        .block_on(publish(
            &world.store(),
            &keys(&world),
            &dir,
            &Options::at(now()),
            &events,
        ))
        .unwrap();
    insta::assert_snapshot!(said.lock().unwrap().join("\n"), @"boards check Ed25519 alone, so they do not see the signature of ecdsa-sha2-nistp256");
    fs::remove_file(world.keys_dir().join("targets.pem")).unwrap();
    insta::assert_snapshot!(shown(publish_board(&world, "1.2").unwrap_err()), @"
    error: none of the keys that sign this release is Ed25519, and boards check no other (ecdsa-sha2-nistp256)
      help: give the role an Ed25519 key: `pytheas keys add targets`; for a team `pytheas keys new TEAM`, then `pytheas keys delegate`
    ");
}
