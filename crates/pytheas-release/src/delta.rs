//! Deltas: one file that turns the tree a device has into the tree it should have.
//!
//! ```text
//! "PYDELTA1"          8 bytes
//! old tree id        32 bytes
//! new tree id        32 bytes
//! plan, packed size   4 bytes, little endian
//! plan, size          4 bytes, little endian
//! plan                one zstd frame: text, see below
//! blocks              zstd frames, one after the other, in the plan's order
//! ```
//! The plan patches the tree document and then says how each content that the old tree lacks is
//! made, in the order in which the new tree first names it:
//! ```text
//! = 212                                keep the next 212 entries of the old tree
//! - 1                                  leave out the next one
//! + f 1034 9f86…0a08 app/main.py       an entry of the new tree (as in a tree document)
//! @                                    end of the tree's part
//! b 1034 17 0 990 61                   a block of 1034 bytes, packed into 61, made with the 990
//!                                      bytes from 0 on of the old tree's entry number 17
//! b 4194304 - 0 0 1298877              a block that needs nothing old
//! ```
//! A block is at most [`BLOCK_MAX`] bytes long and looks back at no more than [`REFERENCE_MAX`]
//! bytes of one old file, so applying needs bounded memory whatever the file claims. Nothing is
//! handed on before its hash is right: the new tree's id proves the plan, each file's SHA-256 its
//! blocks. The old tree is read in place.
//!
//! Readers of format 1 refuse other magic numbers; a later format gets a number of its own.

mod apply;
mod make;
mod plan;

use std::io;

pub use apply::{Delta, DeltaError};
pub use make::{MakeError, make};

use crate::{RelPath, Sha256};

/// Longest block, in bytes.
pub const BLOCK_MAX: usize = 4 << 20;
/// Longest piece of an old file that one block may look back at, in bytes.
pub const REFERENCE_MAX: usize = 8 << 20;
/// Longest plan, in bytes.
const PLAN_MAX: usize = 64 << 20;
const MAGIC: &[u8; 8] = b"PYDELTA1";

/// The files of a tree, to be read in pieces.
pub trait Files: Sync {
    /// The `len` bytes from `offset` on of the file at `path`.
    ///
    /// # Errors
    /// Whatever the file system says; fewer bytes than asked for are `UnexpectedEof`.
    fn read(&self, path: &RelPath, offset: u64, len: usize) -> io::Result<Vec<u8>>;
}

/// Takes the contents a device lacks, one after the other.
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
