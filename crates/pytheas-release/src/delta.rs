//! Deltas: one file that turns the tree a device has into the tree it should have.
//!
//! ```text
//! "PYDELTA2"          8 bytes
//! old tree id        32 bytes
//! new tree id        32 bytes
//! plan, size          4 bytes, little endian
//! plan, packed size   4 bytes, little endian
//! plan, check         8 bytes: the first of the SHA-256 of the packed plan
//! plan                LZMA of the tables described in `plan`
//! segments            one after the other, in the plan's order
//! ```
//! The plan patches the tree document and says how each content that the old tree lacks is made.
//! The hashes of those contents are not in it: the device computes them from what it makes, and the
//! new tree's id, which is signed, proves them all. A segment makes one or many contents, or a part
//! of a large one, from pieces of old files and its own bytes:
//! - *text*, *binary*: LZMA that looks back at the old pieces;
//! - *patch*: approximate copies of one old piece with the addresses moved (`pytheas-codec`);
//! - *records*: as text, for the `RECORD` files of Python packages, whose lines' hashes are left
//!   out where they are those of the tree.
//!
//! A segment makes at most [`SEGMENT_MAX`] bytes and looks back at [`REFERENCE_MAX`], so applying
//! needs bounded memory whatever the file claims. Segments need nothing of each other but the
//! hashes: who was broken off goes on with the next segment, and reads on from its place. Each has
//! a check of eight bytes, so that damage is found where it is. The old tree is read in place.
//!
//! Readers of format 2 refuse other magic numbers; a later format gets a number of its own.

mod apply;
#[cfg(any(feature = "make-deltas", test))]
mod group;
#[cfg(any(feature = "make-deltas", test))]
mod make;
#[cfg(any(feature = "make-deltas", test))]
mod mutate;
#[cfg(any(feature = "make-deltas", test))]
mod pair;
mod plan;
mod records;
mod steps;
mod unpack;

use std::io;

pub use apply::{Applier, Delta, DeltaError, Progress};
#[cfg(any(feature = "make-deltas", test))]
pub use make::{MakeError, Part, Summary, make, make_with_summary};
#[cfg(any(feature = "make-deltas", test))]
pub use mutate::{as_fuzzed, for_fuzzing, mutated};
pub use plan::Head;
pub use unpack::{Unpacked, Unpacker, Workspace};

use crate::{RelPath, Sha256};

/// What one segment makes at most, in bytes.
pub const SEGMENT_MAX: usize = 6 << 20;
/// What one segment looks back at, at most, in bytes.
pub const REFERENCE_MAX: usize = 8 << 20;
/// Where the ids of the old and the new tree lie in a delta, 32 bytes each.
pub const IDS: std::ops::Range<usize> = 8..72;
/// Longest plan, in bytes.
const PLAN_MAX: usize = 8 << 20;
const MAGIC: &[u8; 8] = b"PYDELTA2";

/// The files of a tree, to be read in pieces.
pub trait Files: Sync {
    /// The `len` bytes from `offset` on of the file at `path`.
    ///
    /// # Errors
    /// Whatever the file system says; fewer bytes than asked for are `UnexpectedEof`.
    fn read(&self, path: &RelPath, offset: u64, len: usize) -> io::Result<Vec<u8>>;

    /// Appends the same to `out`.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn read_into(
        &self,
        path: &RelPath,
        offset: u64,
        len: usize,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        out.extend(self.read(path, offset, len)?);
        Ok(())
    }
}

/// Takes contents whose hashes are known beforehand, one after the other.
pub trait ObjectSink {
    /// An object begins.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn begin(&mut self, sha256: Sha256, size_bytes: u64) -> io::Result<()>;

    /// The next bytes of it. Not yet verified: do not act on them.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// It is complete, and its length and hash are right. Not called when they are not.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn finish(&mut self) -> io::Result<()>;
}

/// Takes the contents that a delta makes. Their hashes are computed, not promised: keep each under
/// its hash, and believe none before [`Applier::finish`] has said that the tree is the right one.
pub trait MadeSink {
    /// The content with this number begins, or goes on at `from` bytes.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn begin(&mut self, number: usize, from: u64) -> io::Result<()>;

    /// The next bytes of it.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// It is complete and has this hash.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn finish(&mut self, sha256: Sha256) -> io::Result<()>;
}

/// The contents that `new` has and `old` has not, in the order of their first path in `new`.
pub fn missing(old: &crate::Tree, new: &crate::Tree) -> Vec<(RelPath, u64, Sha256)> {
    let mut have: std::collections::BTreeSet<Sha256> = old.objects().into_keys().collect();
    new.files()
        .filter(|(_, _, sha256)| have.insert(*sha256))
        .map(|(path, size, sha256)| (path.clone(), size, sha256))
        .collect()
}

#[cfg(test)]
mod tests;
