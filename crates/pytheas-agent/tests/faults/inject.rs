//! The faults, each injected once into one run of the agent.

use std::{fmt, path::PathBuf, process::Command, time::Duration};

use crate::{
    fleet::{Bench, Scenario},
    model::{Kept, Record, Recorder},
    proxy::Lie,
    random::Random,
    trace::{self, After, Call, Observer, Verdict, Watched},
};

/// How long an agent may go on once it has met its fault.
const AFTERWARDS: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(60);

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Killed before this call that changes the disk.
    Kill(usize),
    /// Killed in the middle of this call that writes.
    Tear(usize),
    /// This call writes less than it was asked to.
    Short(usize),
    /// The power is cut before this call; what was not synced is kept in part.
    Cut(usize, Kept),
    /// As above, of an agent that was started after another one was killed.
    CutAgain(usize, usize, Kept),
    /// The disk is full at this call, or from it on.
    Full(usize, bool),
    /// The disk fails at this call that changes it, or from it on.
    WriteError(usize, bool),
    /// … at this call that reads.
    ReadError(usize),
    /// One bit of what this call reads is another.
    ReadFlip(usize, u64),
    /// A bit of this file was another before the update.
    Rot(usize, u64),
    /// The agent was killed before this call; then a bit of a file became another.
    RotThere(usize, u64),
    /// This answer from the network is spoilt, or all from it on.
    Network(usize, Lie, bool, u64),
    /// From this reading of the clock on it is wrong by so many seconds.
    Clock(usize, i64),
    /// A disk on which so many KiB are free.
    SmallDisk(usize),
    /// Killed before this call, and the agent after it before that one.
    Twice(usize, usize),
}

impl Fault {
    /// What kind it is, as it is counted.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Kill(_) => "killed",
            Self::Tear(_) | Self::Short(_) => "torn write",
            Self::Cut(..) => "power cut",
            Self::CutAgain(..) => "power cut after a kill",
            Self::Full(..) => "disk full",
            Self::SmallDisk(_) => "small disk",
            Self::WriteError(..) | Self::ReadError(_) => "disk error",
            Self::ReadFlip(..) | Self::Rot(..) | Self::RotThere(..) => "corrupt read",
            Self::Network(..) => "network",
            Self::Clock(..) => "clock",
            Self::Twice(..) => "killed twice",
        }
    }
}

/// Its name, by which it is replayed.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stays = |stays: &bool| if *stays { "-on" } else { "" };
        match self {
            Self::Kill(at) => write!(f, "kill/{at}"),
            Self::Tear(at) => write!(f, "tear/{at}"),
            Self::Short(at) => write!(f, "short/{at}"),
            Self::Cut(at, Kept::Some(seed)) => write!(f, "cut/{at}/{seed}"),
            Self::Cut(at, kept) => write!(f, "cut/{at}/{kept:?}"),
            Self::CutAgain(run, at, Kept::Some(seed)) => {
                write!(f, "cut-again/{run}/{at}/{seed}")
            }
            Self::CutAgain(run, at, kept) => write!(f, "cut-again/{run}/{at}/{kept:?}"),
            Self::Full(at, on) => write!(f, "full{}/{at}", stays(on)),
            Self::SmallDisk(free) => write!(f, "small-disk/{free}"),
            Self::WriteError(at, on) => write!(f, "eio{}/{at}", stays(on)),
            Self::ReadError(at) => write!(f, "read-eio/{at}"),
            Self::ReadFlip(at, seed) => write!(f, "read-flip/{at}/{seed}"),
            Self::Rot(at, seed) => write!(f, "rot/{at}/{seed}"),
            Self::RotThere(at, seed) => write!(f, "rot-there/{at}/{seed}"),
            Self::Network(at, lie, on, seed) => write!(f, "net{}/{at}/{lie:?}/{seed}", stays(on)),
            Self::Clock(at, offset) => write!(f, "clock/{at}/{offset}"),
            Self::Twice(first, second) => write!(f, "twice/{first}/{second}"),
        }
    }
}

/// What was done to the disk by an agent, or by one that was killed and the one after it.
pub(crate) struct Recorded {
    pub(crate) record: Record,
    /// For each of its moments, the action the hub still offered.
    offers: Vec<Option<String>>,
    /// The moment at which the first agent was killed.
    pub(crate) killed: usize,
}

impl Recorded {
    fn of(bench: &mut Bench, scenario: &Scenario, kill: Option<usize>) -> Self {
        bench.begin(scenario);
        let mut offers = Vec::new();
        let hub = &bench.hub;
        let offer = || {
            let talk = hub.talk();
            offers.push(talk.offer.as_ref().map(|(action, ..)| action.clone()));
        };
        let mut recorder = KilledOnce {
            recorder: Recorder::new(&bench.state, offer),
            calls: 0,
            kill,
        };
        let mut run = || {
            let watched = Watched::default();
            trace::run(
                bench.command(),
                &bench.state,
                watched,
                PATIENCE,
                &mut recorder,
            )
            .unwrap()
        };
        if kill.is_some() {
            // With fewer calls than the last time it may have come to its end before.
            assert_ne!(run(), trace::End::TimedOut, "{}", bench.take_log());
        }
        assert_eq!(run(), trace::End::Exited(0), "{}", bench.take_log());
        Self {
            record: recorder.recorder.finish(),
            offers,
            killed: kill.unwrap_or(0),
        }
    }

    /// Leaves the device as a cut at `moment` would; the call that was about to be made.
    fn cut(&self, bench: &Bench, moment: usize, kept: Kept) -> String {
        bench.put(&self.record, moment, kept);
        let mut talk = bench.hub.talk();
        match self.offers.get(moment).and_then(Clone::clone) {
            Some(action) => {
                if let Some(offer) = &mut talk.offer {
                    offer.0 = action;
                }
            }
            None => talk.offer = None,
        }
        let call = self.record.calls.get(moment);
        format!("before {}", call.map_or("the end", String::as_str))
    }
}

/// Records, and kills the first agent before one of its calls.
struct KilledOnce<F> {
    recorder: Recorder<F>,
    calls: usize,
    kill: Option<usize>,
}

impl<F: FnMut()> Observer for KilledOnce<F> {
    fn before(&mut self, call: &Call) -> Verdict {
        self.calls += 1;
        if self.kill.is_some_and(|kill| self.calls == kill + 1) {
            return Verdict::Kill; // never made, so not recorded
        }
        self.recorder.before(call)
    }

    fn after(&mut self, call: &Call, result: i64) -> After {
        self.recorder.after(call, result)
    }
}

/// A run without faults: all that may go wrong in it.
pub(crate) struct Course {
    /// What it does to the disk.
    pub(crate) whole: Recorded,
    /// … in two attempts.
    pub(crate) in_two: Vec<Recorded>,
    /// Calls that change the disk.
    pub(crate) changes: Vec<libc::c_long>,
    /// Calls that read it.
    pub(crate) reads: Vec<libc::c_long>,
    pub(crate) readings: usize,
    pub(crate) requests: usize,
    /// Files on the device before it.
    pub(crate) files: usize,
}

impl Course {
    /// Goes through the update without faults, and once for each of `kills` with a kill before
    /// that share of its calls.
    pub(crate) fn of(bench: &mut Bench, scenario: &Scenario, kills: &[f64]) -> Self {
        bench.begin(scenario);
        let files = files(&bench.state).len();
        let whole = Recorded::of(bench, scenario, None);
        let requests = bench.proxy.plan().seen.len();
        bench.recover(scenario).unwrap();
        let calls = whole.record.calls.len() as f64;
        let in_two = kills
            .iter()
            .map(|share| Recorded::of(bench, scenario, Some((calls * share) as usize)))
            .collect();

        let mut count = |watched: Watched| {
            bench.begin(scenario);
            let mut counter = Counter::default();
            let end = trace::run(
                bench.command(),
                &bench.state,
                watched,
                PATIENCE,
                &mut counter,
            );
            assert_eq!(end.unwrap(), trace::End::Exited(0), "{}", bench.take_log());
            counter
        };
        let all = count(Watched {
            reads: true,
            clock: true,
        });
        let changes = count(Watched::default());
        Self {
            whole,
            in_two,
            changes: changes.calls,
            reads: all.reads,
            readings: all.readings,
            requests,
            files,
        }
    }
}

/// The files on a device whose decay the agent can be asked to stand.
fn files(state: &std::path::Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![state.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && entry.metadata().unwrap().len() > 0 {
                found.push(entry.path());
            }
        }
    }
    // What the device cannot get again by itself is not its to repair: who it is, whom it trusts.
    found.retain(|path| {
        let relative = path.strip_prefix(state).unwrap();
        !relative.starts_with("data")
            && !relative.starts_with("logs")
            && !relative.starts_with("tuf")
            && relative != std::path::Path::new("identity.json")
    });
    found.sort();
    found
}

fn is_read(call: &Call) -> bool {
    let creates = |flags: u64| flags & (libc::O_CREAT | libc::O_TRUNC) as u64 != 0;
    match call.number {
        libc::SYS_read
        | libc::SYS_pread64
        | libc::SYS_readv
        | libc::SYS_getdents64
        | libc::SYS_readlink
        | libc::SYS_readlinkat
        | libc::SYS_statx => true,
        libc::SYS_open => !creates(call.args[1]),
        libc::SYS_openat => !creates(call.args[2]),
        _ => false,
    }
}

/// Whether a call needs room on the disk.
pub(crate) fn grows(number: libc::c_long) -> bool {
    !matches!(
        number,
        libc::SYS_unlink
            | libc::SYS_unlinkat
            | libc::SYS_rmdir
            | libc::SYS_chmod
            | libc::SYS_fchmod
            | libc::SYS_fchmodat
            | libc::SYS_ftruncate
    )
}

pub(crate) fn reads_content(number: libc::c_long) -> bool {
    matches!(number, libc::SYS_read | libc::SYS_pread64)
}

#[derive(Default)]
struct Counter {
    calls: Vec<libc::c_long>,
    reads: Vec<libc::c_long>,
    readings: usize,
}

impl Observer for Counter {
    fn before(&mut self, call: &Call) -> Verdict {
        if is_read(call) {
            self.reads.push(call.number);
        } else {
            self.calls.push(call.number);
        }
        Verdict::Pass
    }

    fn after(&mut self, _: &Call, _: i64) -> After {
        After::GoOn
    }

    fn clock_offset(&mut self) -> i64 {
        self.readings += 1;
        0
    }
}

/// Waits for the moment of one fault.
struct Injector {
    fault: Fault,
    pid: libc::pid_t,
    changes: usize,
    reads: usize,
    readings: usize,
    /// What it met.
    met: Option<String>,
}

impl Injector {
    fn new(fault: Fault) -> Self {
        Self {
            fault,
            pid: 0,
            changes: 0,
            reads: 0,
            readings: 0,
            met: None,
        }
    }

    fn meet(&mut self, call: &Call, verdict: Verdict) -> Verdict {
        if self.met.is_none() {
            self.met = Some(call.to_string());
        }
        verdict
    }
}

impl Observer for Injector {
    fn before(&mut self, call: &Call) -> Verdict {
        if self.pid == 0 {
            self.pid = call.tid; // the first call is the main thread's
        }
        let number = if is_read(call) {
            &mut self.reads
        } else {
            &mut self.changes
        };
        let now = *number;
        *number += 1;
        let changes = !is_read(call);
        let reached = |at: usize, stays: bool| now == at || stays && now > at;
        match self.fault {
            Fault::Kill(at) if changes && reached(at, false) => self.meet(call, Verdict::Kill),
            Fault::Tear(at) | Fault::Short(at) if changes && reached(at, false) => {
                let len = match call.number {
                    libc::SYS_copy_file_range => call.args[4],
                    libc::SYS_sendfile => call.args[3],
                    _ => call.args[2],
                };
                // What a file is copied by asks for more than there is.
                let len = len.min(4096);
                self.meet(call, Verdict::Shorten(if len > 1 { len / 2 } else { len }))
            }
            Fault::Full(at, stays) if changes && reached(at, stays) => {
                if grows(call.number) {
                    self.meet(call, Verdict::Fail(libc::ENOSPC))
                } else {
                    Verdict::Pass
                }
            }
            Fault::WriteError(at, stays) if changes && reached(at, stays) => {
                self.meet(call, Verdict::Fail(libc::EIO))
            }
            Fault::ReadError(at) if !changes && reached(at, false) => {
                self.meet(call, Verdict::Fail(libc::EIO))
            }
            Fault::ReadFlip(at, _) if !changes && reached(at, false) => {
                if reads_content(call.number) {
                    Verdict::Watch
                } else {
                    Verdict::Pass
                }
            }
            _ => Verdict::Pass,
        }
    }

    fn after(&mut self, call: &Call, result: i64) -> After {
        match self.fault {
            Fault::Tear(_) => After::Kill,
            Fault::ReadFlip(_, seed) => {
                let Some(mut bytes) = usize::try_from(result)
                    .ok()
                    .filter(|len| *len > 0)
                    .and_then(|len| trace::read_memory(call.tid, call.args[1], len))
                else {
                    return After::GoOn;
                };
                let mut random = Random::new(seed);
                let at = random.below(bytes.len());
                bytes[at] ^= 1 << random.below(8);
                self.met = Some(format!("{call}, byte {at} of {}", bytes.len()));
                After::Replace(bytes)
            }
            _ => After::GoOn,
        }
    }

    fn clock_offset(&mut self) -> i64 {
        let now = self.readings;
        self.readings += 1;
        match self.fault {
            Fault::Clock(at, offset) if now >= at => {
                self.met = Some(format!("reading {at} of the clock"));
                offset
            }
            _ => 0,
        }
    }
}

/// Injects `fault` and lets the device recover; what it met, or nothing when it never came to it.
pub(crate) fn inject(
    bench: &mut Bench,
    scenario: &Scenario,
    course: &Course,
    fault: Fault,
) -> Result<Option<String>, String> {
    bench.begin(scenario);
    let floor = bench.trusted();
    let met = match fault {
        Fault::Cut(moment, kept) => Some(course.whole.cut(bench, moment, kept)),
        Fault::CutAgain(run, moment, kept) => course
            .in_two
            .get(run)
            .map(|recorded| recorded.cut(bench, moment, kept)),
        Fault::Rot(number, seed) => rot(bench, number, seed),
        Fault::RotThere(at, seed) => traced(bench, Fault::Kill(at)).map(|call| {
            let number = Random::new(seed).below(usize::MAX);
            let rotten = rot(bench, number, seed);
            format!("{call}; then {}", rotten.unwrap_or_default())
        }),
        Fault::Network(at, lie, stays, seed) => {
            bench.proxy.plan().lie = Some((at, lie, stays, seed));
            let mut child = bench.command().spawn().unwrap();
            // Mostly it is killed a moment after; now and then it may help itself.
            let patient = seed % 8 == 0 && !stays;
            let mut left = if patient { 400 } else { 15 };
            let deadline = std::time::Instant::now() + PATIENCE;
            while child.try_wait().unwrap().is_none() && left > 0 {
                std::thread::sleep(Duration::from_millis(10));
                if bench.proxy.plan().lied || std::time::Instant::now() > deadline {
                    left -= 1;
                }
            }
            let _ended_already = child.kill();
            child.wait().unwrap();
            let plan = bench.proxy.plan();
            plan.lied
                .then(|| plan.seen.get(at).cloned().unwrap_or_default())
        }
        Fault::SmallDisk(free) => small_disk(bench, free),
        Fault::Twice(first, second) => traced(bench, Fault::Kill(first)).map(|met| {
            let then = traced(bench, Fault::Kill(second));
            format!("{met}; then {}", then.unwrap_or_default())
        }),
        fault => traced(bench, fault),
    };
    if met.is_none() {
        return Ok(None);
    }
    let outcome = match fault {
        Fault::Rot(..) | Fault::RotThere(..) => bench.recover_from_decay(scenario),
        _ => bench
            .must_be_whole(scenario, &floor)
            .and_then(|()| bench.recover(scenario)),
    };
    outcome.map_err(|why| format!("{why}\n  met: {}", met.as_deref().unwrap_or_default()))?;
    Ok(met)
}

/// Whether a disk of its own can be mounted here.
pub(crate) fn small_disks_are_possible() -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let mounted = Command::new("unshare")
        .args(["-Urm", "mount", "-t", "tmpfs", "none"])
        .arg(folder.path())
        .output();
    match mounted {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Runs the agent on a real file system with so little room.
fn small_disk(bench: &Bench, free_kib: usize) -> Option<String> {
    const SCRIPT: &str = r#"
        set -e
        state=$1 disk=$1.disk free=$2; shift 2
        mkdir -p "$disk"
        used=$(du -sk "$state" | cut -f1)
        mount -t tmpfs -o "size=$((used + free))k" none "$disk"
        cp -a "$state/." "$disk"
        timeout -s KILL 4 "$@" --state "$disk" || true
        rm -rf "$state"; mkdir "$state"; cp -a "$disk/." "$state"
    "#;
    let command = bench.command();
    let mut args: Vec<_> = command.get_args().collect();
    args.truncate(args.len() - 2); // `--state` and where
    let output = Command::new("unshare")
        .args(["-Urm", "sh", "-c", SCRIPT, "sh"])
        .arg(&bench.state)
        .arg(free_kib.to_string())
        .arg(command.get_program())
        .args(args)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    Some(format!("{free_kib} KiB are free"))
}

fn rot(bench: &Bench, number: usize, seed: u64) -> Option<String> {
    let files = files(&bench.state);
    let path = files.get(number % files.len())?;
    let mut random = Random::new(seed ^ 0x5eed);
    let at = random.below(std::fs::metadata(path).unwrap().len() as usize);
    bench.rot(path, at, random.below(8) as u32);
    Some(format!("byte {at} of {}", path.display()))
}

fn traced(bench: &Bench, fault: Fault) -> Option<String> {
    struct Hurrying(Injector);
    impl Observer for Hurrying {
        fn before(&mut self, call: &Call) -> Verdict {
            let before = self.0.met.is_some();
            let verdict = self.0.before(call);
            self.hurry(before);
            verdict
        }
        fn after(&mut self, call: &Call, result: i64) -> After {
            let before = self.0.met.is_some();
            let after = self.0.after(call, result);
            self.hurry(before);
            after
        }
        fn clock_offset(&mut self) -> i64 {
            let before = self.0.met.is_some();
            let offset = self.0.clock_offset();
            self.hurry(before);
            offset
        }
    }
    impl Hurrying {
        /// An agent that met its fault may pause for long before it tries again.
        fn hurry(&self, before: bool) {
            if !before && self.0.met.is_some() && self.0.pid != 0 {
                trace::hurry(self.0.pid, AFTERWARDS);
            }
        }
    }
    let watched = Watched {
        reads: matches!(fault, Fault::ReadError(_) | Fault::ReadFlip(..)),
        clock: matches!(fault, Fault::Clock(..)),
    };
    let mut injector = Hurrying(Injector::new(fault));
    let end = trace::run(
        bench.command(),
        &bench.state,
        watched,
        PATIENCE,
        &mut injector,
    )
    .unwrap();
    assert!(
        injector.0.met.is_some() || end == trace::End::Exited(0),
        "without a fault the agent ended by itself: {end:?}\n{}",
        bench.take_log()
    );
    injector.0.met
}
