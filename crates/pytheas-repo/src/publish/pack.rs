//! Packs: new objects, compressed on every core, written one after the other.
//!
//! Memory is bounded: a worker runs at most [`AHEAD`] objects before the writer, and what it has
//! compressed lies in a temporary file once it is larger than [`IN_MEMORY`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, BufWriter, Read, Seek, Write},
    path::{Path, PathBuf},
    sync::{Condvar, Mutex, PoisonError},
    thread,
};

use pytheas_release::{BlobRef, Hasher, RelPath, Sha256, Tree};
use tempfile::SpooledTempFile;

use super::{Event, Events, Options, PublishError};

/// How many objects workers may be ahead of the writer.
const AHEAD: usize = 64;
/// Larger frames wait in a temporary file, in bytes.
const IN_MEMORY: usize = 512 << 10;

/// A pack that was made.
pub(super) struct Pack {
    pub(super) blob: BlobRef,
    pub(super) file: PathBuf,
    /// Object, offset and length of its frame, by offset.
    pub(super) objects: Vec<(Sha256, u64, u64)>,
}

/// An object to compress.
struct Job {
    path: RelPath,
    object: Sha256,
    size_bytes: u64,
}

/// The objects `wanted` of the tree in `dir`, in the order of their first paths, in packs below
/// `scratch`.
pub(super) fn make(
    tree: &Tree,
    wanted: &BTreeSet<Sha256>,
    dir: &Path,
    scratch: &Path,
    options: &Options,
    events: &Events,
) -> Result<Vec<Pack>, PublishError> {
    let mut seen = BTreeSet::new();
    let jobs: Vec<Job> = tree
        .files()
        .filter(|(_, _, object)| wanted.contains(object) && seen.insert(*object))
        .map(|(path, size_bytes, object)| Job {
            path: path.clone(),
            object,
            size_bytes,
        })
        .collect();
    let mut writer = Writer {
        scratch,
        limit: options.pack_bytes,
        open: None,
        done: Vec::new(),
    };
    in_order(
        jobs.len(),
        |number| compress(&jobs[number], dir, options.level),
        |number, mut frame| {
            writer
                .append(jobs[number].object, &mut frame)
                .map_err(PublishError::Scratch)?;
            events.tell(Event::Packing {
                done: number + 1,
                total: jobs.len(),
            });
            Ok(())
        },
    )?;
    writer.close().map_err(PublishError::Scratch)?;
    Ok(writer.done)
}

/// One zstd frame of the object, its content checked against the tree.
fn compress(job: &Job, dir: &Path, level: i32) -> Result<SpooledTempFile, PublishError> {
    let read = |source| PublishError::Read {
        path: job.path.clone(),
        source,
    };
    let mut file = File::open(job.path.under(dir)).map_err(read)?;
    let frame = SpooledTempFile::new(IN_MEMORY);
    let mut encoder =
        zstd::stream::write::Encoder::new(frame, level).map_err(PublishError::Scratch)?;
    encoder
        .set_pledged_src_size(Some(job.size_bytes))
        .map_err(PublishError::Scratch)?;
    let mut hasher = Hasher::new();
    let mut left = job.size_bytes;
    let mut buffer = vec![0; 128 << 10];
    let changed = || PublishError::Changed {
        path: job.path.clone(),
    };
    loop {
        let n = file.read(&mut buffer).map_err(read)?;
        if n == 0 {
            break;
        }
        left = left.checked_sub(n as u64).ok_or_else(changed)?;
        hasher.update(&buffer[..n]);
        encoder
            .write_all(&buffer[..n])
            .map_err(PublishError::Scratch)?;
    }
    if left != 0 || hasher.finish() != job.object {
        return Err(changed());
    }
    encoder.finish().map_err(PublishError::Scratch)
}

/// Writes packs.
struct Writer<'a> {
    scratch: &'a Path,
    limit: u64,
    open: Option<Open>,
    done: Vec<Pack>,
}

struct Open {
    path: PathBuf,
    file: BufWriter<File>,
    hasher: Hasher,
    size_bytes: u64,
    objects: Vec<(Sha256, u64, u64)>,
}

impl Writer<'_> {
    fn append(&mut self, object: Sha256, frame: &mut SpooledTempFile) -> io::Result<()> {
        let open = match &mut self.open {
            Some(open) => open,
            none => {
                let path = self.scratch.join(format!("pack-{}", self.done.len()));
                let file = BufWriter::new(File::create(&path)?);
                let (hasher, objects) = (Hasher::new(), Vec::new());
                none.insert(Open {
                    path,
                    file,
                    hasher,
                    size_bytes: 0,
                    objects,
                })
            }
        };
        frame.rewind()?;
        let start = open.size_bytes;
        let mut buffer = vec![0; 128 << 10];
        loop {
            let n = frame.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            open.hasher.update(&buffer[..n]);
            open.file.write_all(&buffer[..n])?;
            open.size_bytes += n as u64;
        }
        open.objects.push((object, start, open.size_bytes - start));
        if open.size_bytes >= self.limit {
            self.close()
        } else {
            Ok(())
        }
    }

    fn close(&mut self) -> io::Result<()> {
        let Some(mut open) = self.open.take() else {
            return Ok(());
        };
        open.file.flush()?;
        let blob = BlobRef {
            sha256: open.hasher.finish(),
            size_bytes: open.size_bytes,
        };
        self.done.push(Pack {
            blob,
            file: open.path,
            objects: open.objects,
        });
        Ok(())
    }
}

/// What workers and the consumer share.
struct Queue<T> {
    next: usize,
    consumed: usize,
    ready: BTreeMap<usize, T>,
    stop: bool,
}

/// Calls `produce` for 0..`count` on every core and `consume` with the results in order, on this
/// thread. The first error in order ends it.
fn in_order<T: Send, E: Send>(
    count: usize,
    produce: impl Fn(usize) -> Result<T, E> + Sync,
    mut consume: impl FnMut(usize, T) -> Result<(), E>,
) -> Result<(), E> {
    let queue = Mutex::new(Queue {
        next: 0,
        consumed: 0,
        ready: BTreeMap::new(),
        stop: false,
    });
    let changed = Condvar::new();
    let lock = || queue.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || {
        let _stopper = OnDrop(|| {
            if thread::panicking() {
                lock().stop = true;
                changed.notify_all();
            }
        });
        loop {
            let number = {
                let mut queue = lock();
                while !queue.stop && queue.next < count && queue.next >= queue.consumed + AHEAD {
                    queue = changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                }
                if queue.stop || queue.next >= count {
                    return;
                }
                queue.next += 1;
                queue.next - 1
            };
            let result = produce(number);
            lock().ready.insert(number, result);
            changed.notify_all();
        }
    };
    let workers = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(count);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(work);
        }
        for number in 0..count {
            let result = {
                let mut queue = lock();
                loop {
                    if let Some(result) = queue.ready.remove(&number) {
                        queue.consumed = number + 1;
                        changed.notify_all();
                        break result;
                    }
                    if queue.stop {
                        return Ok(()); // a worker panicked; the scope passes it on
                    }
                    queue = changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                }
            };
            if let Err(error) = result.and_then(|value| consume(number, value)) {
                lock().stop = true;
                changed.notify_all();
                return Err(error);
            }
        }
        Ok(())
    })
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn results_come_in_order_and_workers_wait_for_the_writer() {
        let (produced, most_ahead) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let mut seen = Vec::new();
        in_order(
            500,
            |n| {
                produced.fetch_add(1, Ordering::SeqCst);
                Ok::<_, ()>(n * 2)
            },
            |n, value| {
                let ahead = produced.load(Ordering::SeqCst).saturating_sub(n);
                most_ahead.fetch_max(ahead, Ordering::SeqCst);
                seen.push(value);
                Ok(())
            },
        )
        .unwrap();
        assert_eq!(seen, (0..500).map(|n| n * 2).collect::<Vec<_>>());
        assert!(most_ahead.load(Ordering::SeqCst) <= AHEAD + 1);
    }

    #[test]
    fn the_first_error_in_order_ends_it() {
        let result = in_order(
            300,
            |n| if n % 100 == 99 { Err(n) } else { Ok(n) },
            |_, _| Ok(()),
        );
        assert_eq!(result, Err(99));
        assert_eq!(
            in_order(9, Ok::<_, usize>, |n, _| if n == 4 {
                Err(n)
            } else {
                Ok(())
            }),
            Err(4)
        );
        assert_eq!(in_order(0, Ok::<_, usize>, |_, _| Ok(())), Ok(()));
    }
}
