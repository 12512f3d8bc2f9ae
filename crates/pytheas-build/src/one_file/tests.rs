//! The real file, started for real: once, at once, killed, damaged, without room.

use std::{
    os::unix::fs::PermissionsExt,
    process::{Command, Output},
    time::Duration,
};

use proptest::prelude::*;

use super::*;

const SCRIPT: &str =
    "#!/bin/sh\necho \"$1|$PYTHEAS_ONE_FILE|$(cat \"${0%/bin/app}/data/a b\")\"\nexit 7\n";

/// A bundle of `megabytes` of data that does not compress, and the one file made of it.
struct World {
    dir: tempfile::TempDir,
    made: OneFile,
}

fn put(root: &Path, path: &str, bytes: &[u8], mode: u32) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    pytheas_durable::replace(&path, bytes).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
}

fn record(form: &str) -> BuildRecord {
    let text = serde_json::json!({
        "format": 1, "name": "app", "version": "1.0", "form": form,
        "platform": Platform::host().unwrap().as_str(), "entry": "bin/app",
        "health": {"ready": {"kind": "stay-up"}, "deadline_ms": 1000, "stay_up_ms": 1000},
    });
    serde_json::from_value(text).unwrap()
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

impl World {
    fn new(megabytes: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        put(&tree, "bin/app", SCRIPT.as_bytes(), 0o755);
        put(&tree, "data/a b", b"content", 0o644);
        put(&tree, "data/\u{fc}/empty", b"", 0o644);
        for number in 0..megabytes {
            let mut bytes = noise(1 << 20);
            bytes[0] = number as u8;
            put(&tree, &format!("lib/{number}/x.bin"), &bytes, 0o644);
        }
        std::fs::create_dir_all(tree.join("void")).unwrap();
        std::os::unix::fs::symlink("a b", tree.join("data/link")).unwrap();
        let made = Self::pack(&tree, &dir.path().join("app"));
        Self { dir, made }
    }

    fn pack(tree: &Path, to: &Path) -> OneFile {
        let scanned = pytheas_durable::trees::scan(tree).unwrap();
        one_file(tree, &scanned, &record("bundle"), to).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(name)
    }

    /// A start with an empty environment but `PYTHEAS_UNPACK_DIR`.
    fn command(&self) -> Command {
        let mut command = Command::new(self.path("app"));
        command.env_clear().env("PATH", "/usr/bin:/bin").arg("x y");
        command.env("PYTHEAS_UNPACK_DIR", self.path("run"));
        command
    }

    fn unpacked(&self) -> PathBuf {
        self.path("run").join(self.made.tree_id.to_string())
    }

    #[track_caller]
    fn check_good(&self, output: &Output) {
        let expected = format!("x y|{}|content\n", self.path("app").display());
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            expected,
            "{output:?}"
        );
        assert_eq!(output.status.code(), Some(7));
    }

    /// The unpacked tree is the one that was packed.
    #[track_caller]
    fn check_tree(&self) {
        let tree = pytheas_durable::trees::scan(&self.unpacked()).unwrap();
        assert_eq!(tree.id(), self.made.tree_id);
    }
}

fn error_of(world: &World, output: &Output) -> String {
    assert_eq!(output.status.code(), Some(127), "{output:?}");
    String::from_utf8_lossy(&output.stderr)
        .replace(&world.path("").display().to_string(), "DIR/")
        .replace(&world.made.tree_id.to_string(), "ID")
}

#[test]
fn the_first_start_unpacks_and_the_others_only_start() {
    let world = World::new(40); // three frames
    world.check_good(&world.command().output().unwrap());
    world.check_tree();
    let before = std::fs::metadata(world.unpacked())
        .unwrap()
        .modified()
        .unwrap();
    world.check_good(&world.command().output().unwrap());
    let after = std::fs::metadata(world.unpacked())
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(before, after);
    assert!(!world.unpacked().with_extension("tmp").exists());
    // Later starts read nothing but the tree: a cache that is read-only by then does as well.
    let mode = std::fs::metadata(world.path("run"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn the_folder_is_that_of_the_user() {
    let world = World::new(0);
    for (variable, value, below) in [
        ("XDG_CACHE_HOME", "xdg", "xdg/pytheas/run"),
        ("HOME", "home", "home/.cache/pytheas/run"),
        ("TMPDIR", "tmp", "tmp/pytheas-UID"),
    ] {
        std::fs::create_dir_all(world.path(value)).unwrap();
        let mut command = world.command();
        command
            .env_remove("PYTHEAS_UNPACK_DIR")
            .env(variable, world.path(value));
        world.check_good(&command.output().unwrap());
        let user = rustix::process::geteuid().as_raw().to_string();
        let dir = world.path(&below.replace("UID", &user));
        assert!(dir.join(world.made.tree_id.to_string()).is_dir(), "{dir:?}");
    }
}

#[test]
fn many_first_starts_at_once_all_succeed() {
    let world = World::new(6);
    let starts: Vec<_> = (0..24)
        .map(|_| {
            let mut command = world.command();
            command.stdout(std::process::Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    for start in starts {
        world.check_good(&start.wait_with_output().unwrap());
    }
    world.check_tree();
}

#[test]
fn a_start_that_was_killed_leaves_no_half_tree() {
    let world = World::new(24);
    let mut cut = 0;
    for delay_ms in 0..30 {
        let mut child = world
            .command()
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(delay_ms));
        child.kill().unwrap();
        child.wait().unwrap();
        if world.unpacked().exists() {
            world.check_tree();
            pytheas_durable::remove_tree(&world.unpacked()).unwrap();
        } else {
            cut += 1;
        }
    }
    assert!(cut > 3, "only {cut} starts were cut");
    world.check_good(&world.command().output().unwrap());
    world.check_tree();
}

#[test]
fn a_damaged_or_cut_off_file_is_named_and_leaves_nothing() {
    let world = World::new(2);
    let whole = std::fs::read(world.path("app")).unwrap();
    let len = whole.len();
    let index_at = u64::from_le_bytes(whole[len - 232..len - 224].try_into().unwrap());
    let index_at = usize::try_from(index_at).unwrap() + 20;
    for (number, at) in [index_at, len / 2, len - 300, len - 100, len - 10]
        .into_iter()
        .enumerate()
    {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        let name = format!("damaged-{number}");
        put(&world.path(""), &name, &bytes, 0o755);
        let output = world.command_of(&name).output().unwrap();
        assert_eq!(
            error_of(&world, &output),
            format!(
                "pytheas: `DIR/{name}` is damaged or was cut off\n  help: copy the file again\n"
            )
        );
    }
    put(&world.path(""), "short", &whole[..len * 2 / 3], 0o755);
    let output = world.command_of("short").output().unwrap();
    assert!(error_of(&world, &output).contains("is damaged or was cut off"));
    assert!(!world.unpacked().exists());
    assert!(!world.unpacked().with_extension("tmp").exists());
}

impl World {
    fn command_of(&self, name: &str) -> Command {
        let mut command = Command::new(self.path(name));
        command
            .env_clear()
            .env("PYTHEAS_UNPACK_DIR", self.path("run"));
        command
    }
}

#[test]
fn a_folder_that_others_can_write_to_is_not_used() {
    let world = World::new(0);
    std::fs::create_dir(world.path("run")).unwrap();
    std::fs::set_permissions(world.path("run"), PermissionsExt::from_mode(0o777)).unwrap();
    let output = world.command().output().unwrap();
    insta::assert_snapshot!(error_of(&world, &output), @r"
    pytheas: cannot unpack into `DIR/run`: other users can write to it
      help: the app needs 1 MiB there; change `PYTHEAS_UNPACK_DIR`
    ");
}

/// A start in a mount namespace where `run` is a file system with these options; none (said
/// visibly) where we may not make one.
fn start_mounted(world: &World, options: &str) -> Option<Output> {
    std::fs::create_dir_all(world.path("run")).unwrap();
    let script = "mount -t tmpfs -o \"$1\" none \"$2\" || exit 99; \"$3\"; code=$?; ls -A \"$2\" >&2; exit $code";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh", options]);
    command.arg(world.path("run")).arg(world.path("app"));
    command.env("PYTHEAS_UNPACK_DIR", world.path("run"));
    let output = command.output().unwrap();
    if output.status.code() == Some(127) {
        return Some(output);
    }
    testkit::skip("mounting needs root");
    None
}

#[test]
fn a_full_disk_is_said_and_the_space_given_back() {
    let world = World::new(3);
    if let Some(output) = start_mounted(&world, "size=1m,mode=700") {
        insta::assert_snapshot!(error_of(&world, &output), @r"
        pytheas: cannot unpack into `DIR/run`: no space is left
          help: the app needs 4 MiB there; change `PYTHEAS_UNPACK_DIR`
        ID.lock
        ");
    }
    // Room enough by numbers, but not for so many files: writing itself fails.
    if let Some(output) = start_mounted(&world, "size=64m,nr_inodes=9,mode=700") {
        insta::assert_snapshot!(error_of(&world, &output), @r"
        pytheas: cannot unpack into `DIR/run`: no space is left
          help: the app needs 4 MiB there; change `PYTHEAS_UNPACK_DIR`
        ID.lock
        ");
    }
}

#[test]
fn a_read_only_or_noexec_cache_is_said() {
    let world = World::new(0);
    if let Some(output) = start_mounted(&world, "ro,mode=700") {
        insta::assert_snapshot!(error_of(&world, &output), @r"
        pytheas: cannot unpack into `DIR/run`: the file system is read-only
          help: the app needs 1 MiB there; change `PYTHEAS_UNPACK_DIR`
        ");
    }
    if let Some(output) = start_mounted(&world, "noexec,mode=700") {
        insta::assert_snapshot!(error_of(&world, &output), @r"
        pytheas: cannot unpack into `DIR/run`: it lies on a file system that is mounted with `noexec`
          help: the app needs 1 MiB there; change `PYTHEAS_UNPACK_DIR`
        ID.lock
        ");
    }
}

/// A script run in a mount namespace with the app as `$1`; none (said visibly) where we may not have one.
fn mounted(world: &World, script: &str) -> Option<Output> {
    let script = format!("mount -t tmpfs none /mnt || exit 99\ncp \"$1\" /mnt/app\n{script}");
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &script, "sh"]);
    command.arg(world.path("app")).env_clear();
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let output = command.output().unwrap();
    if output.status.code() == Some(99) || output.status.code() == Some(1) {
        testkit::skip("mounting needs root");
        return None;
    }
    Some(output)
}

#[test]
fn every_folder_that_does_not_do_is_named_with_the_reason() {
    let world = World::new(0);
    let script = "mkdir /mnt/tmp /mnt/tmp/pytheas-0 && chown 65534 /mnt/tmp/pytheas-0
mount -t tmpfs -o noexec none /tmp && mount -t tmpfs -o ro none /var/tmp
cd /mnt && HOME=/mnt/app TMPDIR=/mnt/tmp ./app";
    if let Some(output) = mounted(&world, script) {
        insta::assert_snapshot!(error_of(&world, &output), @r"
        pytheas: cannot unpack into `/mnt/app/.cache/pytheas/run`: a part of the path is no folder
          nor into `/mnt/tmp/pytheas-0`: it belongs to another user
          nor into `/var/tmp/pytheas-0`: the file system is read-only
          nor into `/tmp/pytheas-0`: it lies on a file system that is mounted with `noexec`
          help: the app needs 1 MiB in a folder of its own; name one with `PYTHEAS_UNPACK_DIR`
        ");
    }
}

#[test]
fn a_tree_that_is_later_on_a_noexec_file_system_is_named() {
    let world = World::new(0);
    let script = "cd /mnt && export PYTHEAS_UNPACK_DIR=/mnt/run && ./app > /dev/null
mount --bind /mnt/run /mnt/run && mount -o remount,bind,noexec /mnt/run && ./app";
    if let Some(output) = mounted(&world, script) {
        insta::assert_snapshot!(error_of(&world, &output), @r"
        pytheas: cannot start `/mnt/run/ID/bin/app`: it lies on a file system that is mounted with `noexec`
          help: name a folder on another one with `PYTHEAS_UNPACK_DIR`
        ");
    }
}

#[test]
fn a_file_that_has_lost_its_name_still_starts() {
    let world = World::new(0);
    let script =
        "exec 3< /mnt/app && rm /mnt/app && cd / && PYTHEAS_UNPACK_DIR=/mnt/run /proc/self/fd/3 x";
    if let Some(output) = mounted(&world, script) {
        assert_eq!(output.status.code(), Some(7), "{output:?}");
    }
}

#[test]
fn a_program_that_its_user_cannot_read_is_said() {
    let world = World::new(0);
    let script = "chmod 711 /mnt/app && cd / && setpriv --reuid 65534 --clear-groups /mnt/app";
    if let Some(output) = mounted(&world, script) {
        insta::assert_snapshot!(error_of(&world, &output), @r"
        pytheas: cannot read `/mnt/app`: permission denied
          help: it must be readable for the user who starts it (`chmod a+r`)
        ");
    }
}

#[test]
fn the_same_tree_gives_the_same_bytes_and_the_launcher_is_small() {
    let world = World::new(1);
    World::pack(&world.path("tree"), &world.path("again"));
    let read = |name| std::fs::read(world.path(name)).unwrap();
    assert!(read("app") == read("again"));
    assert_eq!(read("app").len() as u64, world.made.size_bytes);
    for platform in [
        "linux-x86_64",
        "linux-aarch64",
        "linux-armv7",
        "linux-riscv64",
    ] {
        let launcher = launcher(&platform.parse().unwrap()).unwrap();
        assert!(launcher.starts_with(b"\x7fELF") && launcher.len() < 100_000);
    }
}

#[test]
fn a_file_of_an_earlier_build_is_told_from_others() {
    let world = World::new(0);
    assert!(is_made_here(&world.path("app")));
    let bytes = std::fs::read(world.path("app")).unwrap();
    for (name, content) in [("cut", &bytes[..bytes.len() - 1]), ("short", &bytes[..100])] {
        pytheas_durable::replace(&world.path(name), content).unwrap();
        assert!(!is_made_here(&world.path(name)), "{name}");
    }
    assert!(!is_made_here(&world.path("tree")) && !is_made_here(&world.path("none")));
}

#[test]
fn what_is_no_bundle_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::default();
    let error = one_file(
        dir.path(),
        &tree,
        &record("wheelhouse"),
        &dir.path().join("x"),
    );
    assert_eq!(
        error.unwrap_err().to_string(),
        "form `wheelhouse` cannot be made one file"
    );
    let error = one_file(dir.path(), &tree, &record("bundle"), dir.path()).unwrap_err();
    assert!(matches!(error, OneFileError::Folder { .. }));
}

fn decoded(frame: &[u8], len: usize) -> Option<Vec<u8>> {
    let mut out = vec![0; len];
    let mut decoder = Box::new(decoder::Decoder::new());
    decoder.decode(frame, &mut out).ok().map(|()| out)
}

fn encoded(bytes: &[u8], level: i32) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), level).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_decoder_gives_what_the_reference_packed(
        words in prop::collection::vec((0_usize..40, 0_u8..=255, 1_usize..300), 0..600),
        level in 1..20_i32,
        damage in any::<prop::sample::Index>(),
    ) {
        let mut bytes = Vec::new();
        for (word, noise, repeat) in words {
            bytes.extend(format!("word {word} ").repeat(repeat % 7).bytes());
            bytes.extend(std::iter::repeat_n(noise, repeat % 90));
            bytes.extend((0..repeat % 50).map(|n| noise.wrapping_mul(n as u8).wrapping_add(word as u8)));
        }
        let mut frame = encoded(&bytes, level);
        prop_assert!(decoded(&frame, bytes.len()).as_ref() == Some(&bytes));
        prop_assert!(decoded(&frame, bytes.len() + 1).is_none());
        let at = damage.index(frame.len());
        frame[at] ^= 0x41;
        // It may hit a bit that means nothing, but never gives other bytes, and never panics.
        if let Some(other) = decoded(&frame, bytes.len()) {
            prop_assert!(other == bytes);
        }
        prop_assert!(decoded(&frame[..at], bytes.len()).is_none() || bytes.is_empty());
    }

    #[test]
    fn the_decoder_survives_noise(bytes in prop::collection::vec(any::<u8>(), 0..400), len in 0_usize..3000) {
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd];
        frame.extend(bytes);
        let _either_way = decoded(&frame, len);
    }
}

#[test]
fn byte_code_stands_behind_its_source_and_the_app_at_the_end() {
    let mut paths = [
        "app/main.py",
        "python/lib/a/__pycache__/x.cpython-311.pyc",
        "python/lib/site/_pytheas.index",
        "python/lib/a/y.py",
        "python/lib/a/x.py",
        "python/lib/a.so",
    ];
    paths.sort_by_key(|path| place(path));
    assert_eq!(
        paths,
        [
            "python/lib/a/x.py",
            "python/lib/a/__pycache__/x.cpython-311.pyc",
            "python/lib/a/y.py",
            "python/lib/a.so",
            "python/lib/site/_pytheas.index",
            "app/main.py",
        ]
    );
}

#[test]
fn a_frame_from_the_cache_is_the_frame_that_would_be_packed() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = b"some text, some text".repeat(99);
    let packed = pack(&bytes).unwrap();
    assert_eq!(pack_once(&bytes, dir.path()).unwrap(), packed);
    let file = std::fs::read_dir(dir.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    assert_eq!(std::fs::read(&file).unwrap(), packed);
    // Taken from there: another frame of the same content is found, a damaged one is not.
    let mut other = zstd::bulk::compress(&bytes, 1).unwrap();
    let lengths = [
        (other.len() as u32).to_le_bytes(),
        packed[4..8].try_into().unwrap(),
    ];
    other.splice(..0, lengths.concat());
    for (content, expected) in [
        (&other, &other),
        (&packed[..20].to_vec(), &packed),
        (&Vec::new(), &packed),
    ] {
        pytheas_durable::replace(&file, content).unwrap();
        assert_eq!(&pack_once(&bytes, dir.path()).unwrap(), expected);
    }
    assert_eq!(
        pack_once(&bytes, Path::new("/proc/nowhere")).unwrap(),
        packed
    );
}
