//! Unpacks segments in the background, on two cores where there are as many, and hands on what they
//! make in their order: while one is written to the disk and the next still comes in, others are
//! unpacked.

use std::{
    collections::{BTreeMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, TryRecvError, channel},
    },
    thread::{self, Scope},
};

use pytheas_release::delta::{DeltaError, Files, Unpacked, Unpacker, Workspace};

/// What the whole process may take while segments are unpacked, in bytes: with what estimates miss, a
/// megabyte and more below 32 MB.
const PROCESS_MAX: usize = 30_100_000;
/// What segments under way take together at most, in bytes of memory; one alone may take more. The two
/// largest that are unpacked beside each other in practice (OctoPrint's libraries) take 23.0 MB.
const MEMORY_MAX: usize = 23_100_000;
/// As much they may always take, also where the trees of many files, or a program that was not built
/// for devices, leave less.
const MEMORY_MIN: usize = 16_000_000;
/// As many they may be.
const UNDER_WAY_MAX: usize = 16;
/// Threads that unpack. More would need more memory at a time than there may be.
const WORKERS: usize = 2;

type Job = (usize, Vec<u8>);
type Made = Result<Unpacked, DeltaError>;

/// The segments under way. Dropping it ends the threads, once they are done with what they have.
pub(super) struct Line<'a> {
    unpacker: Unpacker<'a>,
    files: &'a dyn Files,
    workers: usize,
    give: Sender<Job>,
    made: Receiver<(usize, thread::Result<Made>)>,
    /// What was made before its turn came.
    early: BTreeMap<usize, Made>,
    /// Number and memory of each, oldest first.
    under_way: VecDeque<(usize, usize)>,
    /// What they may take together, in bytes.
    memory_max: usize,
}

/// What segments may take together in this process now, in bytes: what its trees, its connection and its
/// code leave of [`PROCESS_MAX`].
fn room() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: Option<usize> =
        resident.and_then(|text| text.trim().strip_suffix(" kB")?.parse().ok());
    let taken = kib.map_or(PROCESS_MAX, |kib| kib.saturating_mul(1 << 10));
    PROCESS_MAX
        .saturating_sub(taken)
        .clamp(MEMORY_MIN, MEMORY_MAX)
}

impl<'a> Line<'a> {
    /// One with threads of `scope`; if there can be none, segments are unpacked as they are put in.
    pub(super) fn new<'scope>(
        scope: &'scope Scope<'scope, '_>,
        unpacker: &Unpacker<'a>,
        files: &'a dyn Files,
    ) -> Self
    where
        'a: 'scope,
    {
        let (give, jobs) = channel();
        let (hand_on, made) = channel();
        let jobs = Arc::new(Mutex::new(jobs));
        let mut workers = 0;
        for _ in 0..WORKERS {
            let (jobs, hand_on, unpacker) = (Arc::clone(&jobs), hand_on.clone(), unpacker.clone());
            let work = move || {
                let mut workspace = Workspace::default();
                let mut job = next_job(&jobs);
                while let Ok((number, packed)) = job {
                    let unpack = || unpacker.unpack(number, &packed, files, &mut workspace);
                    let result = catch_unwind(AssertUnwindSafe(unpack));
                    drop(packed);
                    // Only what the next segment needs as well is kept, before it is known that this
                    // one needs less.
                    let next = ready_job(&jobs);
                    match &next {
                        Some((next, _)) => unpacker.fit(*next, &mut workspace),
                        None => workspace = Workspace::default(),
                    }
                    if hand_on.send((number, result)).is_err() {
                        break; // nobody wants it any more
                    }
                    job = next.map_or_else(|| next_job(&jobs), Ok);
                }
            };
            workers += usize::from(thread::Builder::new().spawn_scoped(scope, work).is_ok());
        }
        Self {
            unpacker: unpacker.clone(),
            files,
            workers,
            give,
            made,
            early: BTreeMap::new(),
            under_way: VecDeque::new(),
            memory_max: room(),
        }
    }

    /// Number of the segment after the last one that was put in.
    pub(super) fn next_segment(&self) -> Option<usize> {
        self.under_way.back().map(|(number, _)| number + 1)
    }

    /// Whether none is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Whether segment `number` may be put in beside what is under way.
    pub(super) fn has_room(&self, number: usize) -> bool {
        let all = self.under_way.iter().map(|(_, memory)| memory);
        let memory = all.fold(self.memory(number), |sum, one| sum.saturating_add(*one));
        self.under_way.is_empty()
            || memory <= self.memory_max && self.under_way.len() < UNDER_WAY_MAX
    }

    fn memory(&self, number: usize) -> usize {
        self.unpacker.memory(number).unwrap_or(0)
    }

    /// Puts in the segment that comes next.
    pub(super) fn put(&mut self, number: usize, packed: Vec<u8>) {
        self.under_way.push_back((number, self.memory(number)));
        if self.workers > 0 {
            let _a_thread_waits_for_it = self.give.send((number, packed));
        } else {
            let workspace = &mut Workspace::default();
            let made = self.unpacker.unpack(number, &packed, self.files, workspace);
            self.early.insert(number, made);
        }
    }

    /// What the oldest segment makes, if that is there; with `wait`, the next one to be unpacked is
    /// waited for first, whichever that is: it may have made room.
    pub(super) fn take(&mut self, mut wait: bool) -> Option<Made> {
        let (oldest, _) = *self.under_way.front()?;
        loop {
            if let Some(made) = self.early.remove(&oldest) {
                self.under_way.pop_front();
                return Some(made);
            }
            let arrived = match wait {
                true => self.made.recv().map_err(|_| TryRecvError::Disconnected),
                false => self.made.try_recv(),
            };
            let (number, made) = match arrived {
                Ok(arrived) => arrived,
                Err(TryRecvError::Empty) => return None,
                // No thread is left: what they had comes again.
                Err(TryRecvError::Disconnected) => {
                    self.under_way.clear();
                    return None;
                }
            };
            wait = false;
            // A panic is as if it had happened here.
            let made = made.unwrap_or_else(|panic| resume_unwind(panic));
            // What is unpacked waits for its turn in less memory.
            let under_way = self
                .under_way
                .iter_mut()
                .find(|(other, _)| *other == number);
            if let Some((_, memory)) = under_way {
                *memory = made.as_ref().map_or(0, Unpacked::memory);
            }
            self.early.insert(number, made);
        }
    }
}

fn next_job(jobs: &Mutex<Receiver<Job>>) -> Result<Job, std::sync::mpsc::RecvError> {
    jobs.lock().unwrap_or_else(PoisonError::into_inner).recv()
}

/// The next job if there is one; none while another thread waits for it.
fn ready_job(jobs: &Mutex<Receiver<Job>>) -> Option<Job> {
    jobs.try_lock().ok()?.try_recv().ok()
}
