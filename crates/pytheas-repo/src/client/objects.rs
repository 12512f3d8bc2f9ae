//! Objects out of packs: few ranged requests, each object verified before it counts.

use std::{
    collections::BTreeMap,
    io::{self, Read},
};

use pytheas_release::{Hasher, Sha256, delta::ObjectSink};

use super::{Client, ContentError};
use crate::{
    fetch::{Fetch, fetch_range},
    index::{ContentIndex, IndexError, Place},
    layout,
    unpack::decoder,
};

/// Why one object was not obtained.
enum Failure {
    /// Wrong bytes: worth one more try.
    Wrong(String),
    /// The network or the disk.
    Fatal(ContentError),
}

impl Client<'_> {
    /// Fetches the objects `missing` (hash and size, as [`pytheas_release::Tree::objects`] lists
    /// them) out of the packs of `index` into `sink`.
    ///
    /// The sink's `finish` is called for an object only when its length and hash are right; a
    /// `begin` without a `finish` before it means that the object begun last is to be thrown away.
    /// `progress` is told the bytes fetched so far, of [`ContentIndex::cost_bytes`].
    /// Memory stays bounded, however large an object is.
    ///
    /// # Errors
    /// [`ContentError::ObjectMismatch`] when an object was wrong twice; [`ContentError::Download`]
    /// when the network fails: then ask again for what is still missing.
    pub fn objects(
        &mut self,
        index: &ContentIndex,
        missing: &BTreeMap<Sha256, u64>,
        sink: &mut dyn ObjectSink,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), ContentError> {
        fetch_objects(self.fetch, index, missing, sink, progress)
    }
}

pub(crate) fn fetch_objects(
    fetch: &mut dyn Fetch,
    index: &ContentIndex,
    missing: &BTreeMap<Sha256, u64>,
    sink: &mut dyn ObjectSink,
    progress: &mut dyn FnMut(u64),
) -> Result<(), ContentError> {
    let index_error = |source: IndexError| ContentError::Index {
        file: "of this release".into(),
        source,
    };
    let mut again: Vec<(Place, String)> = Vec::new();
    let mut done = 0;
    for range in index.ranges(missing.keys()).map_err(index_error)? {
        let path = layout::blob(&range.pack.sha256);
        let mut reader = fetch_range(fetch, &path, range.start..range.end)?;
        let mut at = range.start;
        for place in range.objects {
            skip(&mut reader, place.2 - at, &path)?;
            let size = missing.get(&place.0).copied().unwrap_or(0);
            match one(&mut reader, place, size, &path, sink) {
                Ok(()) => {}
                Err(Failure::Wrong(why)) => {
                    tracing::warn!(file = %path, object = %place.0, "object {} in `{path}` is not what was signed ({why}); fetching it again", place.0);
                    again.push((place, path.clone()));
                }
                Err(Failure::Fatal(error)) => return Err(error),
            }
            at = place.2 + place.3;
            progress(done + at - range.start);
        }
        done += range.end - range.start;
    }
    for (place, path) in again {
        let size = missing.get(&place.0).copied().unwrap_or(0);
        let mut reader = fetch_range(fetch, &path, place.2..place.2 + place.3)?;
        match one(&mut reader, place, size, &path, sink) {
            Ok(()) => {}
            Err(Failure::Wrong(why)) => {
                return Err(ContentError::ObjectMismatch {
                    path,
                    object: place.0,
                    why,
                });
            }
            Err(Failure::Fatal(error)) => return Err(error),
        }
    }
    Ok(())
}

/// Reads over `bytes` that nobody wants.
fn skip(reader: &mut impl Read, bytes: u64, path: &str) -> Result<(), ContentError> {
    io::copy(&mut reader.take(bytes), &mut io::sink())
        .map(drop)
        .map_err(|source| {
            crate::fetch::DownloadError::Broken {
                file: path.to_owned(),
                source,
            }
            .into()
        })
}

/// Hands the object at `place` to `sink`; `reader` is afterwards at the end of its frame.
fn one(
    reader: &mut impl Read,
    place: Place,
    size_bytes: u64,
    path: &str,
    sink: &mut dyn ObjectSink,
) -> Result<(), Failure> {
    let Place(object, _, _, frame_bytes) = place;
    let mut frame = Watched {
        reader: reader.take(frame_bytes),
        error: None,
    };
    let result = unpack_into(&mut frame, object, size_bytes, sink);
    if frame.error.is_none() {
        // What the decoder left, so that the next frame begins where it should.
        let _watched = io::copy(&mut frame, &mut io::sink());
    }
    if let Some(source) = frame.error {
        let file = path.to_owned();
        let error = crate::fetch::DownloadError::Broken { file, source };
        return Err(Failure::Fatal(error.into()));
    }
    result
}

fn unpack_into(
    frame: &mut impl Read,
    object: Sha256,
    size_bytes: u64,
    sink: &mut dyn ObjectSink,
) -> Result<(), Failure> {
    let stored = |source| Failure::Fatal(ContentError::Sink { object, source });
    let damaged = |error: io::Error| Failure::Wrong(format!("it does not decompress: {error}"));
    sink.begin(object, size_bytes).map_err(stored)?;
    let mut hasher = Hasher::new();
    let mut found_bytes = 0_u64;
    let mut unpacked = decoder(frame).map_err(damaged)?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let n = unpacked.read(&mut buffer).map_err(damaged)?;
        if n == 0 {
            break;
        }
        found_bytes += n as u64;
        if found_bytes > size_bytes {
            return Err(Failure::Wrong(format!(
                "it has more than {size_bytes} bytes"
            )));
        }
        hasher.update(&buffer[..n]);
        sink.write(&buffer[..n]).map_err(stored)?;
    }
    if found_bytes != size_bytes {
        return Err(Failure::Wrong(format!(
            "it has {found_bytes} bytes instead of {size_bytes}"
        )));
    }
    let found = hasher.finish();
    if found != object {
        return Err(Failure::Wrong(format!("its SHA-256 is {found}")));
    }
    sink.finish().map_err(stored)
}

/// Remembers an error of the network, which the decoder would report as its own.
struct Watched<R> {
    reader: R,
    error: Option<io::Error>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer).map_err(|error| {
            if error.kind() == io::ErrorKind::Interrupted {
                return error;
            }
            let kind = error.kind();
            self.error = Some(error);
            kind.into()
        })
    }
}
