//! TUF roles, keys, content store, fetch and publish: nothing unverified leaves this room.
//!
//! Two sides that share the layout and the formats:
//! - [`client`]: what a device does; small, synchronous, the network a trait and the time an
//!   argument. Always there.
//! - `keys`, `store`, `publish`, `repository`, `renew` (feature `store`): what the developer's
//!   machine and the hub do; asynchronous, on any `object_store`.
//!
//! Metadata has `tough`'s types and signature checks on both sides; the device has its own client
//! because trusted metadata must survive power cuts there ([`client`]).
//!
//! ```no_run
//! use pytheas_repo::{client::{self, Client}, fetch::FolderFetch};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let state = std::path::Path::new("/var/lib/pytheas");
//! client::init(state, &std::fs::read("root.json")?, None)?;
//! let mut stick = FolderFetch("/media/usb/repo".into());
//! let mut client = Client::open(state, &mut stick)?;
//! client.refresh(jiff::Timestamp::now())?;
//! let release =
//!     client.fetch_release("greenhouse/1.1.0/linux-x86_64/release.json", &"linux-x86_64".parse()?)?;
//! println!("{} has {} files", release.reference(), release.tree.files);
//! # Ok(())
//! # }
//! ```

pub mod busy;
pub mod client;
pub mod fetch;
pub mod index;
pub mod layout;
pub mod offline;
pub mod signing;
pub mod steady;
mod unpack;

#[cfg(feature = "store")]
mod base;
#[cfg(feature = "store")]
pub mod delegations;
#[cfg(feature = "store")]
pub mod dsse;
#[cfg(feature = "store")]
pub mod export;
#[cfg(feature = "store")]
pub mod garbage;
#[cfg(feature = "store")]
pub mod keys;
#[cfg(feature = "store")]
pub mod on_demand;
#[cfg(feature = "store")]
pub mod publish;
#[cfg(feature = "store")]
pub mod renew;
#[cfg(feature = "store")]
pub mod repository;
#[cfg(feature = "store")]
mod sign;
#[cfg(feature = "store")]
pub mod store;
#[cfg(feature = "store")]
mod transport;

pub use unpack::UnpackError;

/// Field of the timestamp metadata that says when it was signed (RFC 3339): a device whose clock
/// is behind it knows that its clock is wrong. TUF allows further fields (§4.2), clients that do
/// not know it ignore it.
#[cfg(feature = "store")]
pub(crate) const SIGNED_AT: &str = "x-pytheas-signed";
