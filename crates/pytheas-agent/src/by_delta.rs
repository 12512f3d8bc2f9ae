//! Makes the new contents by a delta that is applied while it comes in.
//!
//! ```text
//! downloads/tree-<new>/delta             how far it is: head and plan, then what each segment made
//! downloads/tree-<new>/segment           what had come of a segment when the network went away
//! downloads/tree-<new>/objects/made-<n>  the content that is half made
//! ```
//! The delta itself is never stored. Each record in `delta` begins with its length and the first
//! eight bytes of its SHA-256, so that a record that a power cut has torn, and all after it, count
//! for nothing; what the records say was made is hashed before it is believed. Broken off at any
//! point, it goes on with the segment at hand, and without a power cut in the middle of it.

mod line;
mod log;
mod sink;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek as _, SeekFrom, Write as _},
    path::PathBuf,
    thread,
};

use line::Line;
use log::{encode_progress, parse_progress, read_record, write_record};
use pytheas_durable::trees;
use pytheas_release::{
    BlobRef, Hasher, Tree, TreeId,
    delta::{Applier, DeltaError, Files, Head, Progress},
};
use pytheas_repo::client::{Client, ContentError};
use sink::{Sink, made_path};

use crate::written::Written;

/// Why the delta was not the way.
#[derive(Debug)]
pub(crate) enum Error {
    /// It is of no use; another way may work.
    Unusable(DeltaError),
    /// It was not obtained.
    Content(ContentError),
    /// The disk.
    Disk(PathBuf, io::Error),
}

/// Where a delta is applied.
pub(crate) struct Place<'a> {
    /// `downloads/tree-<new>`.
    pub(crate) folder: PathBuf,
    /// `downloads/tree-<new>/objects`.
    pub(crate) objects: PathBuf,
    /// The tree to make.
    pub(crate) new: TreeId,
    /// The running tree.
    pub(crate) old: &'a Tree,
    /// Its files.
    pub(crate) files: &'a dyn Files,
    /// Is told what was made.
    pub(crate) written: &'a Written,
}

/// What is known before the first segment.
struct Begun {
    head: Head,
    /// What was done before, each with where the log ended then.
    kept: Vec<(Progress, u64)>,
    log: File,
    /// The delta from a place on, if it is coming in already.
    reader: Option<(u64, Watched)>,
}

/// A delta that comes in whole, in one run: then every byte of it counts.
struct Whole {
    hasher: Hasher,
    /// What had not come when the work ended.
    rest: Option<Watched>,
}

impl Whole {
    /// Whether the bytes are others than the release names; not said of what cannot be read.
    fn differs_from(mut self, blob: &BlobRef) -> bool {
        let mut buffer = vec![0; 64 << 10];
        let mut rest = self.rest.take().map(|rest| rest.take(blob.size_bytes));
        while let Some(rest) = &mut rest {
            match rest.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => self.hasher.update(&buffer[..count]),
                Err(_) => return false,
            }
        }
        self.hasher.finish() != blob.sha256
    }
}

impl Begun {
    fn whole(&self) -> Option<Whole> {
        self.reader.as_ref().map(|_| {
            let mut hasher = Hasher::new();
            hasher.update(self.head.as_bytes());
            Whole { hasher, rest: None }
        })
    }
}

impl Place<'_> {
    fn log(&self) -> PathBuf {
        self.folder.join("delta")
    }

    fn segment(&self) -> PathBuf {
        self.folder.join("segment")
    }

    fn disk(&self) -> impl FnOnce(io::Error) -> Error + use<> {
        let log = self.log();
        move |source| Error::Disk(log, source)
    }

    /// Applies the delta `blob`, or what is missing of it; `ready` is told about it before the
    /// first segment. Afterwards every content lies in `objects`.
    ///
    /// # Errors
    /// [`Error`].
    pub(crate) fn apply<E: From<Error>>(
        &self,
        client: &mut Client<'_>,
        blob: &BlobRef,
        ready: impl Fn(&Head) -> Result<(), E>,
    ) -> Result<Tree, E> {
        let mut again = true;
        loop {
            let begun = self.begin(client, blob)?;
            ready(&begun.head)?;
            let mut whole = begun.whole();
            let result = self.go_on(client, blob, begun, &mut whole);
            let is_wrong = whole.is_some_and(|whole| whole.differs_from(blob));
            let error = match result {
                Ok(tree) if !is_wrong => {
                    self.forget();
                    return Ok(tree);
                }
                Ok(_) => DeltaError::Damaged("its bytes are not those that were signed".into()),
                Err(Error::Unusable(error)) if is_wrong => error,
                Err(error) => return Err(error.into()),
            };
            self.forget();
            if !again {
                return Err(Error::Content(Client::wrong_blob(blob, error)).into());
            }
            tracing::warn!("{error}; fetching the delta again");
            again = false;
        }
    }

    /// Removes what only serves to go on.
    pub(crate) fn forget(&self) {
        for path in [self.log(), self.segment()] {
            let _there_or_not = fs::remove_file(path);
        }
    }

    /// Head and plan, from the log or from the repository; what the log says was done.
    fn begin(&self, client: &mut Client<'_>, blob: &BlobRef) -> Result<Begun, Error> {
        let mut log = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.log())
            .map_err(self.disk())?;
        let mut records = Vec::new();
        let mut end = 0;
        while let Some(record) = read_record(&mut log) {
            end += 12 + record.len() as u64;
            records.push((record, end));
        }
        let mut records = records.into_iter();
        let head = records.next().and_then(|(record, end)| {
            let rest = record.strip_prefix(&blob.sha256.as_bytes()[..])?;
            Some((Head::read(&mut &*rest).ok()?, end))
        });
        if let Some((head, mut end)) = head {
            let mut kept = Vec::new();
            for (record, to) in records {
                let Some(progress) = parse_progress(&record) else {
                    break;
                };
                kept.push((progress, end));
                end = to;
            }
            log.set_len(end).map_err(self.disk())?;
            return Ok(Begun {
                head,
                kept,
                log,
                reader: None,
            });
        }
        log.set_len(0).map_err(self.disk())?;
        let (head, reader) = self.fetch_head(client, blob)?;
        let mut record = blob.sha256.as_bytes().to_vec();
        record.extend_from_slice(head.as_bytes());
        write_record(&mut log, 0, &record).map_err(self.disk())?;
        Ok(Begun {
            reader: Some((head.as_bytes().len() as u64, reader)),
            head,
            kept: Vec::new(),
            log,
        })
    }

    fn fetch_head(
        &self,
        client: &mut Client<'_>,
        blob: &BlobRef,
    ) -> Result<(Head, Watched), Error> {
        let mut again = true;
        loop {
            let mut reader = Watched::new(client.blob_from(blob, 0).map_err(Error::Content)?);
            match Head::read(&mut reader) {
                Ok(head) => return Ok((head, reader)),
                Err(DeltaError::Read(source)) if reader.failed => {
                    return Err(Error::Content(Client::broken_blob(blob, source)));
                }
                Err(error) if again => {
                    tracing::warn!(
                        "the delta does not begin as it should ({error}); fetching it again"
                    );
                    again = false;
                }
                Err(error) => return Err(Error::Content(Client::wrong_blob(blob, error))),
            }
        }
    }

    fn go_on(
        &self,
        client: &mut Client<'_>,
        blob: &BlobRef,
        begun: Begun,
        whole: &mut Option<Whole>,
    ) -> Result<Tree, Error> {
        let Begun {
            head,
            kept,
            mut log,
            mut reader,
        } = begun;
        let log = &mut log;
        let is_other = head.new_id() != self.new;
        let made = format!("it makes tree {}", head.new_id());
        let applier = if is_other {
            Err(DeltaError::Damaged(made))
        } else {
            Applier::new(head, self.old)
        };
        let mut applier = match applier {
            Ok(applier) => applier,
            Err(error) => {
                if let Some(whole) = whole {
                    whole.rest = reader.take().map(|(_, source)| source);
                }
                return Err(Error::Unusable(error));
            }
        };
        for (progress, before) in kept {
            if !self.is_there(&progress) || !applier.skip(&progress, self.prefix(&progress)) {
                log.set_len(before).map_err(self.disk())?;
                break;
            }
        }
        let mut end = log.seek(SeekFrom::End(0)).map_err(self.disk())?;
        let mut sink = Sink::new(&self.objects, self.written);
        let mut again = true;
        let mut packed = self.kept_segment(&applier);
        let unpacker = applier.unpacker();
        while let Some(place) = applier.place() {
            let broken = thread::scope(|scope| {
                let mut line = Line::new(scope, &unpacker, self.files);
                let (mut from, mut came) = (place, Ok(()));
                loop {
                    // One more comes in if there is room; what is ready meanwhile is written.
                    let next = line.next_segment().unwrap_or(applier.next_segment());
                    let len = unpacker.packed_len(next);
                    let len = len.filter(|_| came.is_ok() && line.has_room(next));
                    if let Some(len) = len {
                        came = fill(client, blob, &mut reader, from, len, &mut packed);
                        match came {
                            Ok(()) => {
                                from += len as u64;
                                if let Some(whole) = whole {
                                    whole.hasher.update(&packed);
                                }
                                line.put(next, std::mem::take(&mut packed));
                            }
                            Err(_) => self.keep_segment(from, &packed),
                        }
                    }
                    let Some(made) = line.take(len.is_none()) else {
                        if len.is_none() && line.is_empty() {
                            return came.map(|()| None);
                        }
                        continue;
                    };
                    match made.and_then(|made| applier.take(made, &mut sink)) {
                        Ok(progress) => {
                            let record = encode_progress(&progress);
                            end = write_record(log, end, &record).map_err(self.disk())?;
                            again = true;
                        }
                        Err(DeltaError::Write { source, .. }) => {
                            return Err(Error::Disk(self.objects.clone(), source));
                        }
                        Err(error) => return Ok(Some(error)),
                    }
                }
            })?;
            match broken {
                None => {}
                Some(error @ DeltaError::DamagedSegment { .. }) if again => {
                    tracing::warn!("{error}; fetching it again");
                    again = false;
                    reader = None;
                    packed = Vec::new();
                    *whole = None;
                    let _it_comes_again = fs::remove_file(self.segment());
                }
                Some(error @ DeltaError::DamagedSegment { .. }) => {
                    self.forget();
                    return Err(Error::Content(Client::wrong_blob(blob, error)));
                }
                Some(error) => {
                    self.forget();
                    if let Some(whole) = whole {
                        whole.rest = reader.take().map(|(_, source)| source);
                    }
                    return Err(Error::Unusable(error));
                }
            }
        }
        applier.finish(self.files).map_err(|error| {
            self.forget();
            Error::Unusable(error)
        })
    }

    /// Whether the contents that a segment made are still there.
    fn is_there(&self, progress: &Progress) -> bool {
        progress.finished.iter().all(|sha256| {
            let path = self.objects.join(sha256.to_string());
            trees::hash_file(&path).is_ok_and(|(_, found)| found == *sha256)
        })
    }

    /// What hashes the beginning of the content that a segment left half made.
    fn prefix(&self, progress: &Progress) -> Option<Hasher> {
        let (number, len, _) = progress.open?;
        let mut rest = File::open(made_path(&self.objects, number)).ok()?.take(len);
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            match rest.read(&mut buffer).ok()? {
                0 => return Some(hasher),
                n => hasher.update(&buffer[..n]),
            }
        }
    }

    /// What had come of the next segment before.
    fn kept_segment(&self, applier: &Applier<'_>) -> Vec<u8> {
        let kept = fs::read(self.segment()).unwrap_or_default();
        let _there_or_not = fs::remove_file(self.segment());
        match (kept.split_first_chunk(), applier.place()) {
            (Some((at, rest)), Some(place))
                if u64::from_le_bytes(*at) == place
                    && applier
                        .unpacker()
                        .packed_len(applier.next_segment())
                        .is_some_and(|len| rest.len() <= len) =>
            {
                rest.to_vec()
            }
            _ => Vec::new(),
        }
    }

    /// Keeps what has come of a segment; if that fails, it comes again.
    fn keep_segment(&self, place: u64, packed: &[u8]) {
        if !packed.is_empty() {
            let bytes = [&place.to_le_bytes()[..], packed].concat();
            let _or_not = File::create(self.segment()).and_then(|mut file| file.write_all(&bytes));
        }
    }
}

/// Appends what is missing of the `len` bytes of the delta from `place` on to `packed`.
fn fill(
    client: &mut Client<'_>,
    blob: &BlobRef,
    reader: &mut Option<(u64, Watched)>,
    place: u64,
    len: usize,
    packed: &mut Vec<u8>,
) -> Result<(), Error> {
    let from = place + packed.len() as u64;
    let (at, source) = match reader.take() {
        Some((at, source)) if at == from => reader.insert((at, source)),
        _ => {
            let source = client.blob_from(blob, from).map_err(Error::Content)?;
            reader.insert((from, Watched::new(source)))
        }
    };
    let missing = len.saturating_sub(packed.len());
    packed.reserve_exact(missing.min(1 << 20));
    let read = source.take(missing as u64).read_to_end(packed);
    *at = place + packed.len() as u64;
    read.map(drop)
        .map_err(|source| Error::Content(Client::broken_blob(blob, source)))
}

/// Remembers whether reading failed, as opposed to coming to an end.
struct Watched {
    reader: Box<dyn Read>,
    failed: bool,
}

impl Watched {
    fn new(reader: Box<dyn Read>) -> Self {
        Self {
            reader,
            failed: false,
        }
    }
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.reader.read(buffer);
        if let Err(error) = &result
            && error.kind() != io::ErrorKind::Interrupted
        {
            self.failed = true;
        }
        result
    }
}
