//! What is known about a built tree: bill of materials, licences, known vulnerabilities,
//! provenance, and whether a second build gives the same bytes.

mod inventory;
mod licence;
mod metadata;
mod reproduce;
mod sbom;
mod spdx;
mod system_packages;

pub(crate) use inventory::entry_points;
pub use inventory::{Distribution, Inventory, InventoryError};
pub use licence::{Licence, LicencePolicy, LicenceSource};
pub use metadata::Metadata;
pub use reproduce::{NotReproducible, check_reproducible};
pub(crate) use sbom::add as add_sbom;
pub use sbom::{SBOM_FILE, sbom};
