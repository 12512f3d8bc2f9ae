//! Packages for boards: what `[tool.pytheas.micropython] dependencies` names, locked in
//! `pytheas.mip.lock` with full hashes.
//!
//! They come from an index of mip's format (an address or a folder), from the Python package index
//! (pure Python only), from the address of a `package.json` or of a module, or from a local folder.
//! Every file is checked against all 64 digits of its SHA-256 whenever it arrives; the 8 digits that
//! mip's index has are checked when it is locked.

mod dependency;
mod error;
mod fetch;
mod index;
mod install;
mod lock;
mod locking;
mod marker;
mod mirror;
pub(super) mod pypi;
mod resolve;

pub use error::MipError;
pub use lock::{LOCK_FILE, LockedPackage, MipLock};
pub use locking::{MipOptions, MipReport, lock, lock_if_needed, status};
pub use mirror::mirror;

pub(super) use install::PackageFile;
pub(crate) use install::{Packages, files};
pub(crate) use marker::LeftOut;
