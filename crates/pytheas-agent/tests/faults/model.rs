//! What a disk may hold after a power cut: a file system that remembers which changes were synced.
//!
//! Every change is an operation on an inode: a name put into or taken out of a folder, bytes
//! written, a length, a mode. An operation is safe once its inode was synced (`fsync` of the file
//! for its content, `fsync` of the folder for its names, `syncfs` for all); until then a cut may
//! keep it or lose it, whatever came before or after it. A rename is one operation, there or not.
//! That is what POSIX promises and no more; real file systems promise more, each something else.

use std::{
    collections::{BTreeMap, HashMap, HashSet, hash_map::DefaultHasher},
    ffi::OsString,
    fs,
    hash::{Hash as _, Hasher as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use crate::{
    random::Random,
    trace::{self, After, Call, Observer, Verdict},
};

type Id = usize;

#[derive(Debug, Clone)]
enum Node {
    Folder(BTreeMap<OsString, Id>, u32),
    File(Vec<u8>, u32),
    Link(PathBuf),
}

#[derive(Debug, Clone)]
enum Change {
    /// A name in a folder now leads to an inode, or to nothing.
    Name(Id, OsString, Option<Id>),
    /// A name moves; with what was in its place, when two names are exchanged.
    Rename(Id, OsString, Id, OsString, Id, Option<Id>),
    Write(Id, u64, Vec<u8>),
    Length(Id, u64),
    Mode(Id, u32),
}

impl Change {
    /// The inode whose sync makes it safe.
    fn inode(&self) -> Id {
        match self {
            Self::Name(id, ..)
            | Self::Rename(_, _, id, ..)
            | Self::Write(id, ..)
            | Self::Length(id, ..)
            | Self::Mode(id, ..) => *id,
        }
    }

    fn is_content(&self) -> bool {
        matches!(self, Self::Write(..) | Self::Length(..))
    }
}

struct Operation {
    change: Change,
    /// The moment at which it happened.
    at: usize,
    /// The moment from which on it is safe.
    safe: usize,
}

/// What happened to a folder during a run.
pub(crate) struct Record {
    nodes: Vec<Node>,
    operations: Vec<Operation>,
    /// The calls, in order: before each of them, and after the last, the power may be cut.
    pub(crate) calls: Vec<String>,
}

/// Which of the changes that are not safe a cut keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    Nothing,
    Everything,
    /// Names, but no content: files that were not synced are empty.
    NamesOnly,
    /// As above, but the lengths are there: zeros in them.
    NamesAndLengths,
    /// Content, but no names.
    ContentOnly,
    /// Any of them, by this seed: whole, torn, or as zeros.
    Some(u64),
}

impl Kept {
    pub(crate) const EXTREMES: &[Self] = &[
        Self::Nothing,
        Self::Everything,
        Self::NamesOnly,
        Self::NamesAndLengths,
        Self::ContentOnly,
    ];
}

/// Records a run.
pub(crate) struct Recorder<F> {
    root: PathBuf,
    known: HashMap<u64, Id>,
    record: Record,
    existed: HashSet<libc::pid_t>,
    /// Called at each moment.
    moment: F,
}

impl<F: FnMut()> Recorder<F> {
    /// What lies in `root` now is safe.
    pub(crate) fn new(root: &Path, moment: F) -> Self {
        let mut recorder = Self {
            root: root.to_owned(),
            known: HashMap::new(),
            record: Record {
                nodes: Vec::new(),
                operations: Vec::new(),
                calls: Vec::new(),
            },
            existed: HashSet::new(),
            moment,
        };
        recorder.load(root);
        recorder
    }

    pub(crate) fn finish(mut self) -> Record {
        (self.moment)();
        self.record
    }

    fn load(&mut self, path: &Path) -> Id {
        let metadata = fs::symlink_metadata(path).unwrap();
        if let Some(id) = self.known.get(&metadata.ino()) {
            return *id;
        }
        let id = self.add(path);
        if metadata.is_dir() {
            for entry in fs::read_dir(path).unwrap().map(Result::unwrap) {
                let child = self.load(&entry.path());
                if let Node::Folder(names, _) = &mut self.record.nodes[id] {
                    names.insert(entry.file_name(), child);
                }
            }
        }
        id
    }

    /// A new inode, with the content it has now, without names in it.
    fn add(&mut self, path: &Path) -> Id {
        let metadata = fs::symlink_metadata(path).unwrap();
        let mode = metadata.permissions().mode() & 0o7777;
        let node = if metadata.is_dir() {
            Node::Folder(BTreeMap::new(), mode)
        } else if metadata.is_symlink() {
            Node::Link(fs::read_link(path).unwrap())
        } else if metadata.is_file() {
            Node::File(fs::read(path).unwrap(), mode)
        } else {
            Node::File(Vec::new(), mode) // a socket: made anew at each start
        };
        self.record.nodes.push(node);
        let id = self.record.nodes.len() - 1;
        self.known.insert(metadata.ino(), id);
        id
    }

    fn happened(&mut self, change: Change) {
        let at = self.record.calls.len();
        self.record.operations.push(Operation {
            change,
            at,
            safe: usize::MAX,
        });
    }

    fn safe(&mut self, which: impl Fn(&Change) -> bool) {
        let now = self.record.calls.len();
        for operation in &mut self.record.operations {
            if operation.safe == usize::MAX && which(&operation.change) {
                operation.safe = now;
            }
        }
    }

    fn id(&self, path: &Path) -> Option<Id> {
        let metadata = fs::symlink_metadata(path).ok()?;
        self.known.get(&metadata.ino()).copied()
    }

    /// The folder a path lies in, and its name there.
    fn place(&self, path: &Path) -> Option<(Id, OsString)> {
        let folder = fs::canonicalize(path.parent()?).ok()?;
        Some((self.id(&folder)?, path.file_name()?.to_owned()))
    }

    fn fd(&self, call: &Call, argument: usize) -> Option<(Id, PathBuf)> {
        let path = PathBuf::from(format!(
            "/proc/{}/fd/{}",
            call.tid, call.args[argument] as i32
        ));
        let inode = fs::metadata(&path).ok()?.ino();
        Some((*self.known.get(&inode)?, path))
    }

    fn named(&mut self, path: &Path) -> Option<()> {
        let (folder, name) = self.place(path)?;
        let id = self.add(path);
        if let Node::File(bytes, _) = &mut self.record.nodes[id] {
            bytes.clear();
        }
        self.happened(Change::Name(folder, name, Some(id)));
        Some(())
    }

    fn done(&mut self, call: &Call, result: i64) -> Option<()> {
        let path = &call.path;
        match call.number {
            libc::SYS_open | libc::SYS_openat | libc::SYS_creat => {
                if !self.existed.remove(&call.tid) {
                    return self.named(path);
                }
                let flags = match call.number {
                    libc::SYS_open => call.args[1],
                    libc::SYS_openat => call.args[2],
                    _ => libc::O_TRUNC as u64,
                };
                if flags & libc::O_TRUNC as u64 != 0 {
                    let real = fs::canonicalize(path).ok()?;
                    let id = self.id(&real)?;
                    self.happened(Change::Length(id, 0));
                }
            }
            libc::SYS_mkdir | libc::SYS_mkdirat | libc::SYS_symlink | libc::SYS_symlinkat => {
                self.named(path)?;
            }
            libc::SYS_link | libc::SYS_linkat => {
                let to = call.to.as_ref()?;
                let (folder, name) = self.place(to)?;
                let id = self.id(to)?;
                self.happened(Change::Name(folder, name, Some(id)));
            }
            libc::SYS_unlink | libc::SYS_unlinkat | libc::SYS_rmdir => {
                let (folder, name) = self.place(path)?;
                self.happened(Change::Name(folder, name, None));
            }
            libc::SYS_rename | libc::SYS_renameat | libc::SYS_renameat2 => {
                let to = call.to.as_ref()?;
                let (from_folder, from_name) = self.place(path)?;
                let (to_folder, to_name) = self.place(to)?;
                let id = self.id(to)?;
                let exchanged = call.number == libc::SYS_renameat2
                    && call.args[4] & u64::from(libc::RENAME_EXCHANGE) != 0;
                let other = if exchanged { self.id(path) } else { None };
                self.happened(Change::Rename(
                    from_folder,
                    from_name,
                    to_folder,
                    to_name,
                    id,
                    other,
                ));
            }
            libc::SYS_ftruncate => {
                let (id, _) = self.fd(call, 0)?;
                self.happened(Change::Length(id, call.args[1]));
            }
            libc::SYS_fchmod => {
                let (id, path) = self.fd(call, 0)?;
                let mode = fs::metadata(path).ok()?.permissions().mode() & 0o7777;
                self.happened(Change::Mode(id, mode));
            }
            libc::SYS_chmod | libc::SYS_fchmodat => {
                let id = self.id(path)?;
                let mode = fs::metadata(path).ok()?.permissions().mode() & 0o7777;
                self.happened(Change::Mode(id, mode));
            }
            libc::SYS_fsync | libc::SYS_fdatasync => {
                let (id, _) = self.fd(call, 0)?;
                self.safe(|change| change.inode() == id);
            }
            libc::SYS_syncfs => self.safe(|_| true),
            number if trace::writes(number) => self.written(call, result.cast_unsigned())?,
            number => panic!("the model does not know {}: {call}", trace::name(number)),
        }
        Some(())
    }

    /// What was written is read back: whichever call it was, the bytes are there now.
    fn written(&mut self, call: &Call, len: u64) -> Option<()> {
        use std::os::unix::fs::FileExt as _;
        let argument = if call.number == libc::SYS_copy_file_range {
            2
        } else {
            0
        };
        let (id, path) = self.fd(call, argument)?;
        let end = match call.number {
            libc::SYS_pwrite64 | libc::SYS_pwritev => call.args[3] + len,
            _ => {
                let info = format!("/proc/{}/fdinfo/{}", call.tid, call.args[argument] as i32);
                let info = fs::read_to_string(info).ok()?;
                info.lines()
                    .find_map(|line| line.strip_prefix("pos:"))?
                    .trim()
                    .parse()
                    .ok()?
            }
        };
        let mut bytes = vec![0; len as usize];
        let at = end - len;
        fs::File::open(path)
            .ok()?
            .read_exact_at(&mut bytes, at)
            .unwrap();
        self.happened(Change::Write(id, at, bytes));
        Some(())
    }
}

impl<F: FnMut()> Observer for Recorder<F> {
    fn before(&mut self, call: &Call) -> Verdict {
        (self.moment)();
        let relative = call.path.strip_prefix(&self.root).unwrap_or(&call.path);
        let name = trace::name(call.number);
        self.record
            .calls
            .push(format!("{name} {}", relative.display()));
        if fs::metadata(&call.path).is_ok() {
            self.existed.insert(call.tid);
        } else {
            self.existed.remove(&call.tid);
        }
        Verdict::Watch
    }

    fn after(&mut self, call: &Call, result: i64) -> After {
        if result >= 0 {
            assert!(self.done(call, result).is_some(), "the model lost {call}");
        }
        self.existed.remove(&call.tid);
        After::GoOn
    }
}

impl Record {
    /// How many changes are not safe at `moment`.
    pub(crate) fn unsafe_changes(&self, moment: usize) -> usize {
        let mut operations = self.operations.iter();
        operations
            .by_ref()
            .filter(|o| o.at <= moment && o.safe > moment)
            .count()
    }

    /// Writes to `into`, which must not exist, what is left when the power is cut before call
    /// `moment` (or after the last one). The hash of it.
    pub(crate) fn after_cut(&self, moment: usize, kept: Kept, into: &Path) -> u64 {
        let mut random = Random::new(match kept {
            Kept::Some(seed) => seed,
            _ => 0,
        });
        let mut nodes = self.nodes.clone();
        // Inodes made in the run begin empty.
        for operation in self.operations.iter().filter(|o| o.at <= moment) {
            let change = &operation.change;
            if operation.safe <= moment {
                apply(&mut nodes, change, Part::Whole);
                continue;
            }
            let part = match kept {
                Kept::Nothing => None,
                Kept::Everything => Some(Part::Whole),
                Kept::NamesOnly => (!change.is_content()).then_some(Part::Whole),
                Kept::NamesAndLengths => Some(if change.is_content() {
                    Part::Zeros
                } else {
                    Part::Whole
                }),
                Kept::ContentOnly => change.is_content().then_some(Part::Whole),
                Kept::Some(_) => Part::random(&mut random, change),
            };
            if let Some(part) = part {
                apply(&mut nodes, change, part);
            }
        }
        let mut written = Writer {
            nodes: &nodes,
            places: HashMap::new(),
            hasher: DefaultHasher::new(),
        };
        written.write(0, into, into);
        written.hasher.finish()
    }
}

/// How much of a change a cut keeps.
#[derive(Clone, Copy)]
enum Part {
    Whole,
    /// The length, with zeros in it.
    Zeros,
    /// The first bytes.
    First(usize),
    /// All but one sector.
    Hole(usize),
}

const SECTOR: usize = 512;

impl Part {
    fn random(random: &mut Random, change: &Change) -> Option<Self> {
        let Change::Write(_, _, bytes) = change else {
            return random.one_in(2).then_some(Self::Whole);
        };
        match random.below(6) {
            0 | 1 => None,
            2 => Some(Self::Whole),
            3 => Some(Self::Zeros),
            4 => {
                let first = random.below(bytes.len() + 1);
                let sectors = random.one_in(2) && bytes.len() > SECTOR;
                Some(Self::First(if sectors {
                    first / SECTOR * SECTOR
                } else {
                    first
                }))
            }
            _ => Some(Self::Hole(random.below(bytes.len().div_ceil(SECTOR)))),
        }
    }
}

fn apply(nodes: &mut [Node], change: &Change, part: Part) {
    match change {
        Change::Name(folder, name, to) => {
            if let Node::Folder(names, _) = &mut nodes[*folder] {
                match to {
                    Some(id) => names.insert(name.clone(), *id),
                    None => names.remove(name),
                };
            }
        }
        Change::Rename(from_folder, from, to_folder, to, id, other) => {
            if let Node::Folder(names, _) = &mut nodes[*from_folder] {
                match other {
                    Some(other) => names.insert(from.clone(), *other),
                    None => names.remove(from),
                };
            }
            if let Node::Folder(names, _) = &mut nodes[*to_folder] {
                names.insert(to.clone(), *id);
            }
        }
        Change::Write(id, at, bytes) => {
            let Node::File(content, _) = &mut nodes[*id] else {
                return;
            };
            let at = *at as usize;
            let mut put = |from: usize, to: usize, zeros: bool| {
                if from >= to {
                    return;
                }
                if content.len() < at + to {
                    content.resize(at + to, 0);
                }
                if !zeros {
                    content[at + from..at + to].copy_from_slice(&bytes[from..to]);
                }
            };
            match part {
                Part::Whole => put(0, bytes.len(), false),
                Part::Zeros => put(0, bytes.len(), true),
                Part::First(len) => put(0, len, false),
                Part::Hole(sector) => {
                    let hole = (sector * SECTOR).min(bytes.len());
                    put(0, bytes.len(), true);
                    put(0, hole, false);
                    put((hole + SECTOR).min(bytes.len()), bytes.len(), false);
                }
            }
        }
        Change::Length(id, len) => {
            if let Node::File(content, _) = &mut nodes[*id] {
                content.resize(*len as usize, 0);
            }
        }
        Change::Mode(id, mode) => match &mut nodes[*id] {
            Node::Folder(_, old) | Node::File(_, old) => *old = *mode,
            Node::Link(_) => {}
        },
    }
}

struct Writer<'a> {
    nodes: &'a [Node],
    places: HashMap<Id, PathBuf>,
    hasher: DefaultHasher,
}

impl Writer<'_> {
    #[expect(clippy::disallowed_methods, reason = "a device's disk, made up")]
    fn write(&mut self, id: Id, path: &Path, root: &Path) {
        let relative = path.strip_prefix(root).unwrap_or(path);
        relative.hash(&mut self.hasher);
        match &self.nodes[id] {
            Node::Folder(names, mode) => {
                mode.hash(&mut self.hasher);
                // Two names for one folder would be a loop or worse: a rename is one operation,
                // but its folder's earlier names may be back.
                if self.places.insert(id, path.to_owned()).is_some() {
                    return;
                }
                fs::create_dir(path).unwrap();
                for (name, id) in names {
                    self.write(*id, &path.join(name), root);
                }
                fs::set_permissions(path, fs::Permissions::from_mode(*mode)).unwrap();
            }
            Node::File(bytes, mode) => {
                (bytes, mode).hash(&mut self.hasher);
                if let Some(place) = self.places.get(&id) {
                    return fs::hard_link(place, path).unwrap();
                }
                fs::write(path, bytes).unwrap();
                fs::set_permissions(path, fs::Permissions::from_mode(*mode)).unwrap();
                self.places.insert(id, path.to_owned());
            }
            Node::Link(target) => {
                target.hash(&mut self.hasher);
                std::os::unix::fs::symlink(target, path).unwrap();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(record: &Record, moment: usize, kept: Kept) -> Vec<(String, String)> {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("cut");
        record.after_cut(moment, kept, &root);
        let mut found = Vec::new();
        for entry in fs::read_dir(&root).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            found.push((name, fs::read_to_string(entry.path()).unwrap()));
        }
        found.sort();
        found
    }

    fn recorded(script: &str) -> Record {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let mut recorder = Recorder::new(&root, || {});
        let mut command = std::process::Command::new("python3");
        command.args(["-c", script]).current_dir(&root);
        let watched = trace::Watched::default();
        let patience = std::time::Duration::from_secs(60);
        let end = trace::run(command, &root, watched, patience, &mut recorder).unwrap();
        assert_eq!(end, trace::End::Exited(0));
        recorder.finish()
    }

    fn named(name: &str, content: &str) -> (String, String) {
        (name.into(), content.into())
    }

    #[test]
    fn what_was_not_synced_may_be_gone_and_what_was_is_there() {
        if let Err(why) = trace::is_possible() {
            return testkit::skip(&format!("no ptrace here: {why}"));
        }
        let record = recorded(
            "import os\n\
             f = open('new', 'wb', buffering=0); f.write(b'content'); os.rename('new', 'name')\n\
             os.fsync(f.fileno())\n\
             d = os.open('.', os.O_RDONLY); os.fsync(d)",
        );
        assert_eq!(
            record.calls,
            [
                "openat new",
                "write new",
                "rename new",
                "fsync name",
                "fsync "
            ]
        );
        assert_eq!(cut(&record, 3, Kept::Nothing), []);
        assert_eq!(cut(&record, 3, Kept::NamesOnly), [named("name", "")]);
        assert_eq!(
            cut(&record, 3, Kept::NamesAndLengths),
            [named("name", "\0\0\0\0\0\0\0")]
        );
        assert_eq!(
            cut(&record, 3, Kept::Everything),
            [named("name", "content")]
        );
        assert_eq!(cut(&record, 2, Kept::Everything), [named("new", "content")]);
        assert_eq!(cut(&record, 4, Kept::NamesOnly), [named("name", "content")]);
        assert_eq!(cut(&record, 4, Kept::Nothing), []);
        assert_eq!(cut(&record, 5, Kept::Nothing), [named("name", "content")]);
    }
}
