//! Files that survive power cuts: the only place that syncs and renames state.
//!
//! Four meanings of "atomic write" are in use in the world; only one survives a power cut: content
//! synced, then the name changed, then the folder synced. Everything here has that one meaning,
//! and `clippy.toml` forbids the rest elsewhere.
//!
//! ```
//! let dir = tempfile::tempdir()?;
//! let path = dir.path().join("state.json");
//! pytheas_durable::replace(&path, b"{}")?;
//! assert_eq!(std::fs::read(&path)?, b"{}");
//! # Ok::<(), std::io::Error>(())
//! ```

mod dirs;
mod early;
pub mod faults;
mod files;
mod lock;
pub mod trees;

pub use dirs::{create_dir_all, exchange_dirs, move_dir, remove_tree, swap_symlink, sync_dir};
pub use early::begin_writing;
pub use files::{read_at_most, replace, replace_private, replace_with, sweep};
pub use lock::{FileLock, LockError};
