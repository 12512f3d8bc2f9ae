//! What is known about a built tree: bill of materials, licences, known vulnerabilities,
//! provenance, and whether a second build gives the same bytes.

mod audit;
mod inventory;
mod licence;
mod metadata;
mod provenance;
mod reproduce;
mod sbom;
mod spdx;
mod system_packages;

pub use audit::{
    Audit, AuditSubject, Database, DatabaseError, Finding, Ignore, OSV_API, ParseSeverityError,
    Part, PartKind, Severity, SubjectError, audit,
};
pub(crate) use inventory::entry_points;
pub use inventory::{Distribution, Inventory, InventoryError};
pub use licence::{Licence, LicencePolicy, LicenceSource};
pub use metadata::Metadata;
pub use provenance::{
    BUILD_TYPE, Provenance, ProvenanceError, provenance_path, write_provenance,
    write_wheel_provenance,
};
pub use reproduce::{NotReproducible, check_reproducible, check_wheel_reproducible};
pub(crate) use sbom::add as add_sbom;
pub use sbom::{SBOM_FILE, sbom};
