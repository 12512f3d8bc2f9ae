//! Sticks as they are bought: FAT, which knows no permissions, mounted to be read only, with files for
//! several apps, and too small. Needs `mkfs.vfat` and `fusefat`.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use pytheas_repo::{
    export::{ExportError, Selection, export},
    store::Store,
};
use serde_json::Value;

use crate::support::{App, Device, World, noise, until};

/// A FAT file system of some megabytes, mounted.
struct Stick {
    image: PathBuf,
    at: PathBuf,
}

impl Stick {
    fn new(world: &World, name: &str, megabytes: u64) -> Option<Self> {
        let (image, at) = (world.path(&format!("{name}.img")), world.path(name));
        File::create(&image)
            .unwrap()
            .set_len(megabytes << 20)
            .unwrap();
        fs::create_dir(&at).unwrap();
        let made = Command::new("/usr/sbin/mkfs.vfat").arg(&image).output();
        let stick = Self { image, at };
        (made.is_ok_and(|made| made.status.success()) && stick.mount("rw+")).then_some(stick)
    }

    fn mount(&self, how: &str) -> bool {
        let mut command = Command::new("fusefat");
        command.arg(&self.image).arg(&self.at).args(["-o", how]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success()) && self.is_mounted()
    }

    fn is_mounted(&self) -> bool {
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        mounts.contains(&format!(" {} ", self.at.display()))
    }

    fn unmount(&self) {
        let _not_mounted = Command::new("fusermount").arg("-u").arg(&self.at).output();
    }

    /// Pulled out and put in again, where nothing may be written.
    fn read_only(&self) {
        self.unmount();
        until("it is unmounted", || (!self.is_mounted()).then_some(()));
        assert!(self.mount("ro"));
    }
}

impl Drop for Stick {
    fn drop(&mut self) {
        self.unmount();
    }
}

fn exported(world: &World, release: &str, path: &Path) -> Result<(), ExportError> {
    let release: pytheas_release::ReleaseRef = release.parse().unwrap();
    let selection = Selection {
        releases: vec![(release.name, Some(release.version))],
        ..Selection::default()
    };
    let store = Store::folder(&world.repo()).unwrap();
    let now = jiff::Timestamp::now();
    world
        .block_on(export(&store, None, &selection, path, now, |_, _| {}))
        .map(drop)
}

#[test]
fn a_fat_stick_takes_files_for_two_apps_and_gives_them_read_only() {
    let world = World::new();
    let Some(stick) = Stick::new(&world, "stick", 16) else {
        return testkit::skip("no FAT can be mounted: it needs `mkfs.vfat` and `fusefat`");
    };
    world.publish(&App::good("1.0.0"));
    world.publish(&App::good("3.0.0").named("broker"));
    for release in ["app@1.0.0", "broker@3.0.0"] {
        let path = stick.at.join(format!("{release}.pytheas"));
        exported(&world, release, &path).unwrap();
        // Once more: what is there is replaced.
        exported(&world, release, &path).unwrap();
    }
    stick.read_only();
    let device = world.device("device");
    let root = world.root_file();
    for release in ["app@1.0.0", "broker@3.0.0"] {
        let path = stick.at.join(format!("{release}.pytheas"));
        let args = [
            path.to_str().unwrap(),
            "--root",
            root.to_str().unwrap(),
            "--json",
        ];
        let output = device.output("apply", &args);
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(said["outcome"], "committed", "{output:?}");
    }
    let machine = device.machine();
    assert_eq!(machine["current"]["release"], "app@1.0.0");
    assert_eq!(
        machine["components"]["broker"]["current"]["release"],
        "broker@3.0.0"
    );
}

#[test]
fn a_stick_that_is_too_small_keeps_what_it_had() {
    let world = World::new();
    let Some(stick) = Stick::new(&world, "small", 2) else {
        return testkit::skip("no FAT can be mounted: it needs `mkfs.vfat` and `fusefat`");
    };
    world.publish(&App::good("1.0.0"));
    let path = stick.at.join("app.pytheas");
    exported(&world, "app@1.0.0", &path).unwrap();
    let before = fs::read(&path).unwrap();
    world.publish(&App::good("2.0.0").file("lib/big", noise(3, 4_000_000)));
    let error = exported(&world, "app@2.0.0", &path).unwrap_err();
    assert!(matches!(error, ExportError::Write { .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
    // FUSE hides what is removed while it is open, for a moment.
    until("nothing half written stays", || {
        let count = fs::read_dir(&stick.at).unwrap().count();
        (count == 1).then_some(())
    });
}

/// `apply` with these words in JSON: exit code and what it says.
fn apply(device: &Device, words: &[&str]) -> (i32, Value) {
    let output = device.output("apply", &[words, &["--json"]].concat());
    let said = serde_json::from_slice(&output.stdout);
    (
        output.status.code().unwrap(),
        said.unwrap_or_else(|_| panic!("{output:?}")),
    )
}

#[test]
fn a_file_is_applied_also_where_the_devices_state_is_gone_or_rotten() {
    let world = World::new();
    let mut device = world.device("device");
    let root = world.root_file();
    let root = ["--root", root.to_str().unwrap()];
    let state = device.state.join("state.json");
    let next = |number: usize| {
        let version = format!("1.{number}.0");
        world.publish(&App::good(&version));
        let path = world.path(&format!("{number}.pytheas"));
        exported(&world, &format!("app@{version}"), &path).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let runs = |device: &Device, number: usize| {
        let release = &device.machine()["current"]["release"];
        assert_eq!(*release, format!("app@1.{number}.0"));
    };
    let (code, said) = apply(&device, &[&[next(0).as_str()][..], &root].concat());
    assert_eq!((code, &said["outcome"]), (0, &"committed".into()), "{said}");
    for (number, damage) in ["gone", "empty", "noise", "folder"].into_iter().enumerate() {
        pytheas_durable::remove_tree(&state).unwrap();
        match damage {
            "empty" => pytheas_durable::replace(&state, b"").unwrap(),
            "noise" => pytheas_durable::replace(&state, b"{\"format\": 1, \xff").unwrap(),
            "folder" => fs::create_dir_all(state.join("in-it")).unwrap(),
            _ => {}
        }
        let (code, said) = apply(&device, &[&next(number + 1)]);
        assert_eq!(
            (code, &said["outcome"]),
            (0, &"committed".into()),
            "{damage}: {said}"
        );
        runs(&device, number + 1);
    }
    // The running agent knows the state, whatever became of the file.
    let mut agent = device.command("run");
    agent.stdout(Stdio::null()).stderr(Stdio::null());
    device.child = Some(agent.spawn().unwrap());
    device.runs("1.4.0");
    device.is_idle();
    pytheas_durable::replace(&state, b"noise").unwrap();
    let (code, said) = apply(&device, &[&next(5)]);
    assert_eq!((code, &said["outcome"]), (0, &"committed".into()), "{said}");
    runs(&device, 5);
    device.stop();

    // Whom it trusts is not guessed; somebody has to say it again.
    let stick = next(6);
    for folder in ["tuf", "tuf-copy"] {
        pytheas_durable::remove_tree(&device.state.join(folder)).unwrap();
    }
    let (code, said) = apply(&device, &[&stick]);
    assert_eq!(code, 4, "{said}");
    runs(&device, 5);
    let (code, said) = apply(&device, &[&[stick.as_str()][..], &root].concat());
    assert_eq!((code, &said["outcome"]), (0, &"committed".into()), "{said}");
    runs(&device, 6);
    // Nor is who it is.
    for file in ["identity.json", "identity.copy"] {
        pytheas_durable::replace_private(&device.state.join(file), b"{").unwrap();
    }
    let stick = next(7);
    let (code, said) = apply(&device, &[&[stick.as_str()][..], &root].concat());
    let why = said["error"]["message"].as_str().unwrap();
    assert!(code == 3 && why.contains("does not parse"), "{said}");
    fs::remove_file(device.state.join("identity.json")).unwrap();
    let (code, said) = apply(&device, &[&[stick.as_str()][..], &root].concat());
    assert_eq!((code, &said["outcome"]), (0, &"committed".into()), "{said}");
    runs(&device, 7);
}
