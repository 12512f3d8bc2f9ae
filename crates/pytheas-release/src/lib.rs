//! What a release is: the tree of files a device gets, its identity, the signed document that
//! describes it, and the delta that turns one tree into another.
//!
//! Pure: bytes in, bytes out. No async, no network, no clock, no environment; the one trait that
//! stands for files ([`delta::OldTree`], [`delta::NewTree`]) is filled in by the caller.
//!
//! ```
//! use pytheas_release::{Entry, RelPath, Sha256, Tree};
//!
//! let mut tree = Tree::default();
//! let path: RelPath = "app/main.py".parse()?;
//! let content = b"print('hello')\n";
//! tree.insert(path, Entry::File {
//!     size_bytes: content.len() as u64,
//!     sha256: Sha256::of(content),
//!     executable: false,
//! })?;
//! assert_eq!(Tree::parse(&tree.encode())?.id(), tree.id());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod board;
pub mod compat;
pub mod delta;
mod digest;
mod document;
mod health;
mod hooks;
mod path;
mod pep440;
mod platform;
mod record;
mod reference;
mod tree;

pub use digest::{Hasher, ParseDigestError, Sha256, TreeId};
pub use document::{BlobRef, BoardImage, DocumentError, Release, TreeRef, target_name};
pub use health::{Health, Ready, parse_duration_ms};
pub use hooks::{HOOK_TIMEOUT_MS, Hook, Hooks};
pub use path::{PathError, RelPath};
pub use pep440::{NotPep440, NotSpecifiers, Pep440, Specifiers};
pub use platform::{Platform, PlatformError};
pub use record::{
    BuildRecord, ConfigOption, InterpreterRecord, RECORD_FILE, RecordError, UpdateRules,
};
pub use reference::{Name, NameError, ReleaseRef, Version};
pub use tree::{Entry, Tree, TreeError};
