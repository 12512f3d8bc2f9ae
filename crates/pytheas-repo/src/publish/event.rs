//! What a publish tells while it runs.

use std::{fmt, path::PathBuf, sync::Arc};

use pytheas_release::{ReleaseRef, TreeId};

/// What happens while publishing, for progress bars and logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The tree was read.
    Scanned {
        /// Its identity.
        tree: TreeId,
        /// Number of files.
        files: u64,
        /// Their size.
        size_bytes: u64,
    },
    /// Objects are compressed.
    Packing {
        /// Objects done.
        done: usize,
        /// Objects to do.
        total: usize,
    },
    /// A delta was made.
    Delta {
        /// From this release.
        from: ReleaseRef,
        /// Its length.
        size_bytes: u64,
    },
    /// A delta was not made; devices with that release fetch single objects instead.
    NoDelta {
        /// From this release.
        from: ReleaseRef,
        /// The reason.
        why: String,
    },
    /// The statement that lies there is left out.
    NoStatement {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// A board's image was signed.
    BoardSigned {
        /// Its counter.
        counter: u32,
        /// Signatures in it.
        signatures: usize,
        /// What boards cannot check as other devices do.
        warnings: Vec<String>,
    },
    /// A file was uploaded.
    Uploaded {
        /// The file.
        path: String,
        /// Its length.
        size_bytes: u64,
    },
    /// The release is visible to devices.
    Committed {
        /// Version of the targets metadata.
        targets_version: u64,
    },
}

/// Who is told about [`Event`]s.
#[derive(Clone)]
pub struct Events(Arc<dyn Fn(Event) + Send + Sync>);

impl Events {
    /// Calls `listener` with each event, from any thread.
    pub fn new(listener: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self(Arc::new(listener))
    }

    /// Nobody.
    pub fn none() -> Self {
        Self::new(|_| {})
    }

    pub(super) fn tell(&self, event: Event) {
        (self.0)(event);
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events")
    }
}
