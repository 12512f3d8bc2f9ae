//! Tests of the keys.
#![expect(clippy::disallowed_methods, reason = "tests put wrong files in place")]

use std::os::unix::fs::PermissionsExt;

use pytheas_release::Sha256;

use super::*;

fn now() -> Timestamp {
    "2026-06-01T12:00:00.5Z".parse().unwrap()
}

fn make(dir: &Path, passphrase: Option<&str>) -> Result<KeysInfo, KeyError> {
    init(&Init {
        dir,
        passphrase,
        now: now(),
        root_valid: SignedDuration::from_hours(24 * 365),
    })
}

/// Message and help, paths and ids made the same everywhere.
fn shown(error: &KeyError, dir: &Path) -> String {
    let help = error
        .help()
        .map(|help| help.to_string())
        .unwrap_or_default();
    let text = format!("error: {error}\n help: {help}");
    let text = text.replace(dir.to_str().unwrap(), "[KEYS]");
    match text.find(".pem` (") {
        Some(at) => format!("{}[ID]{}", &text[..at + 7], &text[at + 15..]),
        None => text,
    }
}

#[test]
fn new_keys_are_private_and_the_root_names_them() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("keys");
    let info = make(&dir, None).unwrap();
    assert_eq!(info.root_version, 1);
    assert_eq!(
        info.expires.to_string(),
        "2027-06-01T12:00:00Z",
        "whole seconds, for python-tuf"
    );
    assert_eq!(
        info.root_sha256,
        Sha256::of(&fs::read(dir.join("root.json")).unwrap())
    );
    let names: Vec<_> = info.roles.iter().map(|role| role.role.as_str()).collect();
    assert_eq!(names, ["root", "targets", "snapshot", "timestamp"]);
    for role in &info.roles {
        let [key] = &role.keys[..] else {
            panic!("{role:?}")
        };
        assert_eq!((role.threshold, key.encrypted), (1, false));
        let file = key.file.as_ref().unwrap();
        assert_eq!(
            fs::metadata(file).unwrap().permissions().mode() & 0o7777,
            0o600
        );
        assert_eq!(
            fs::metadata(file.parent().unwrap())
                .unwrap()
                .permissions()
                .mode()
                & 0o7777,
            0o700
        );
    }
    assert_eq!(info, show(&dir, now()).unwrap());
    PublisherKeys::load(&dir, &|_| panic!("no key is protected")).unwrap();
}

#[test]
fn the_hub_gets_by_with_the_online_folder_alone() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, hub) = (temp.path().join("keys"), temp.path().join("hub"));
    make(&dir, Some("secret")).unwrap();
    fs::rename(dir.join("online"), &hub).unwrap();
    let keys = OnlineKeys::load(&hub).unwrap();
    assert_eq!(keys.keys.len(), 2);
    let with_file: Vec<_> = show(&hub, now())
        .unwrap()
        .roles
        .into_iter()
        .filter(|r| r.keys[0].file.is_some())
        .map(|r| r.role)
        .collect();
    assert_eq!(with_file, ["snapshot", "timestamp"]);
}

#[test]
fn a_passphrase_protects_the_offline_keys_only() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().to_owned();
    let info = make(&dir, Some("correct horse")).unwrap();
    let encrypted: Vec<_> = info.roles.iter().map(|r| r.keys[0].encrypted).collect();
    assert_eq!(encrypted, [true, true, false, false]);
    let text = fs::read_to_string(dir.join("targets.pem")).unwrap();
    assert!(
        text.contains("}\n-----BEGIN ENCRYPTED PRIVATE KEY-----\n"),
        "{text}"
    );
    PublisherKeys::load(&dir, &|path| {
        assert!(path.ends_with("targets.pem"), "{path:?}");
        Some("correct horse".to_owned().into())
    })
    .unwrap();
    let wrong = PublisherKeys::load(&dir, &|_| Some("battery".to_owned().into())).unwrap_err();
    insta::assert_snapshot!(shown(&wrong, &dir), @r"
    error: the passphrase does not open the key `[KEYS]/targets.pem`
     help: try again; a lost passphrase cannot be recovered
    ");
    let none = PublisherKeys::load(&dir, &|_| None).unwrap_err();
    insta::assert_snapshot!(shown(&none, &dir), @r"
    error: the key `[KEYS]/targets.pem` is protected by a passphrase and none was given
     help: type it when asked, or set PYTHEAS_KEY_PASSPHRASE
    ");
    insta::assert_snapshot!(shown(&make(&dir.join("x"), Some("")).unwrap_err(), &dir), @r"
    error: the passphrase is empty
     help: choose a passphrase, or make keys without one
    ");
}

#[test]
fn keys_are_never_overwritten() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().to_owned();
    fs::create_dir(dir.join("online")).unwrap();
    fs::write(dir.join("online/snapshot.pem"), "precious").unwrap();
    insta::assert_snapshot!(shown(&make(&dir, None).unwrap_err(), &dir), @r"
    error: there are keys in `[KEYS]` already: `[KEYS]/online/snapshot.pem` exists
     help: keys are never overwritten, devices would stop trusting you; choose another folder, or use the keys that are there
    ");
    assert_eq!(
        fs::read_dir(&dir).unwrap().count(),
        1,
        "nothing was written"
    );
    assert_eq!(
        fs::read_to_string(dir.join("online/snapshot.pem")).unwrap(),
        "precious"
    );
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().to_owned();
    make(&dir, None).unwrap();
    let path = dir.join("targets.pem");
    for mode in [0o640, 0o604, 0o660] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = PublisherKeys::load(&dir, &|_| None).unwrap_err();
        assert!(matches!(error, KeyError::Mode { .. }), "{mode:o}: {error}");
    }
    insta::assert_snapshot!(
        shown(&PublisherKeys::load(&dir, &|_| None).unwrap_err(), &dir), @r"
    error: the key `[KEYS]/targets.pem` can be read by others (mode 0660)
     help: `chmod 600 [KEYS]/targets.pem`; if someone else may have read it, replace the key
    ");
}

#[test]
fn missing_damaged_and_foreign_keys_are_named() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, other) = (temp.path().join("keys"), temp.path().join("other"));
    let load = || PublisherKeys::load(&dir, &|_| None).unwrap_err();
    insta::assert_snapshot!(shown(&load(), &dir), @r"
    error: there is no `[KEYS]/root.json`
     help: make keys with `pytheas keys init`, or name the folder that has them with `--keys`; where only this file is missing, take the newest `metadata/N.root.json` of your repository
    ");
    make(&dir, None).unwrap();
    make(&other, None).unwrap();
    let path = dir.join("online/timestamp.pem");

    fs::copy(other.join("online/timestamp.pem"), &path).unwrap();
    insta::assert_snapshot!(shown(&load(), &dir), @r"
    error: the key `[KEYS]/online/timestamp.pem` ([ID]) is not a key of the role `timestamp` in `root.json`
     help: the keys of two repositories are mixed up; `pytheas keys show` lists the ids that are expected
    ");

    fs::write(
        &path,
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    )
    .unwrap();
    insta::assert_snapshot!(shown(&load(), &dir), @r"
    error: `[KEYS]/online/timestamp.pem` is not an Ed25519 private key (PKCS#8 PEM)
     help: restore it from your backup; `openssl pkey -in FILE -noout -text` shows what it is
    ");

    fs::remove_file(&path).unwrap();
    insta::assert_snapshot!(shown(&load(), &dir), @r"
    error: there is no `[KEYS]/online/timestamp.pem`
     help: the key is needed to sign; copy it from where it is kept, or name its folder with `--keys`
    ");

    let root = fs::read_to_string(dir.join("root.json")).unwrap();
    fs::write(
        dir.join("root.json"),
        root.replace("\"version\": 1", "\"version\": 2"),
    )
    .unwrap();
    insta::assert_snapshot!(shown(&load(), &dir), @r"
    error: `[KEYS]/root.json` is not signed root metadata: Signature threshold of 1 not met for role root (0 valid signatures)
     help: restore it from your backup, or take the newest `metadata/N.root.json` of your repository
    ");
}

#[test]
fn a_key_file_that_lost_its_content_is_not_called_absent() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("keys");
    make(&dir, None).unwrap();
    fs::write(dir.join("targets.pem"), "").unwrap();
    let error = PublisherKeys::load(&dir, &|_| None).unwrap_err();
    assert!(matches!(error, KeyError::NotAKey { .. }), "{error}");
    let team = dir.join("team.pem");
    fs::write(&team, "-----BEGIN").unwrap();
    fs::set_permissions(&team, fs::Permissions::from_mode(0o600)).unwrap();
    let error = PublisherKeys::load_team(&dir, "team", &|_| None).unwrap_err();
    assert!(matches!(error, KeyError::NotAKey { .. }), "{error}");
}

/// A key that a program signs with; nobody has its private half.
fn command_key(number: u32) -> tough::schema::key::Key {
    let public = format!("{number:064x}");
    let text = format!(
        r#"{{"keytype": "ed25519", "scheme": "ed25519", "keyval": {{"public": "{public}"}}}}"#
    );
    public::parse(&text).unwrap()
}

#[test]
fn a_key_is_meant_by_its_own_name_first_and_by_the_beginning_of_an_id_only_if_no_other_begins_so() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let put = |name: &str, key: &tough::schema::key::Key| {
        let document = command::CommandKey::document("false", key, None);
        let path = dir.join(format!("{name}.toml"));
        fs::write(&path, document).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    let digits = |key: &tough::schema::key::Key| public::hex(&public::id(key));
    let (one, other) = (command_key(1), command_key(2));
    // A file that is called like the first digits of another key's id.
    put("one", &one);
    put(&digits(&one)[..6], &other);
    let found = |name: &str| folder::find(dir, name).map(|found| found.id().unwrap());
    assert_eq!(found(&digits(&one)[..6]).unwrap(), public::id(&other));
    assert_eq!(found(&digits(&one)[..7]).unwrap(), public::id(&one));
    assert_eq!(
        found(&digits(&one).to_uppercase()).unwrap(),
        public::id(&one)
    );

    let mut seen = std::collections::HashMap::new();
    let (first, second) = (3..)
        .find_map(|number| {
            let key = command_key(number);
            let before = seen.insert(digits(&key)[..4].to_owned(), number);
            Some((command_key(before?), key))
        })
        .unwrap();
    put("a", &first);
    put("b", &second);
    insta::assert_snapshot!(
        shown(&found(&digits(&first)[..4]).unwrap_err(), dir).replace(&digits(&first)[..4], "[4]"),
        @r"
    error: `[4]` is the beginning of the ids of several keys (a, b)
     help: give the name of one, or more digits of its id
    "
    );
    assert_eq!(found(&digits(&second)[..16]).unwrap(), public::id(&second));
    // Twice the same key is one key.
    put("c", &second);
    assert_eq!(found(&digits(&second)[..16]).unwrap(), public::id(&second));
}
