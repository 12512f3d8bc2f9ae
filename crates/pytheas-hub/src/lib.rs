//! The hub: devices, rollouts, artifacts, dashboard; one process on SQLite and files.
//!
//! - [`Hub::start`] opens the data directory, listens, and answers; the caller prints.
//! - `routes/<noun>/<verb>.rs`: the REST API, hawkBit's device API (`routes/ddi`), the repository.
//! - `pages/`: the dashboard. `jobs/`: what happens on its own. `store/`: the database.
//! - `engine` carries out what the rollout machine (`pytheas-rollout`) decides; the hub itself
//!   decides nothing about rollouts.
//!
//! Invariants: a change is one transaction with its audit row, and is told only after it is on
//! disk; secrets are stored as hashes and never logged; nothing a device says is taken as markup.
//!
//! ```no_run
//! # async fn run() -> Result<(), pytheas_hub::StartError> {
//! use pytheas_hub::{Config, Hub};
//!
//! let hub = Hub::start(Config::new("/var/lib/pytheas-hub")).await?;
//! println!("{} {:?}", hub.url(), hub.first_token());
//! hub.run().await; // until `hub.stopper().stop()`
//! # Ok(())
//! # }
//! ```

mod app;
mod artifacts;
mod auth;
mod bus;
mod clock;
mod config;
mod delta_orders;
mod engine;
mod fleet_config;
mod jobs;
mod launch;
mod limits;
mod origin;
mod pages;
mod presence;
mod ranges;
mod releases;
mod reply;
mod routes;
mod secret;
mod serve;
mod start;
mod store;
mod tls;
mod tracebacks;
mod traffic;

pub use clock::Clock;
pub use config::Config;
pub use start::{Hub, StartError, Stopper};
pub use store::StoreError;
pub use tls::{TlsError, TlsFiles};

/// The OpenAPI document of the REST API, as `/openapi.json` serves it.
pub fn openapi_json() -> String {
    use utoipa::OpenApi;
    routes::openapi::Document::openapi()
        .to_pretty_json()
        .unwrap_or_default()
}
