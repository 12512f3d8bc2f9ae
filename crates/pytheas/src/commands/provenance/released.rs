//! The provenance of a published release: found by TUF's metadata, its envelope's signature checked.

use std::path::Path;

use jiff::Timestamp;
use miette::{Context as _, Diagnostic, IntoDiagnostic};
use pytheas_build::Provenance;
use pytheas_release::ReleaseRef;
use pytheas_repo::{dsse::Envelope, repository::Repository, store::Store};

use super::{Found, ProvenanceArgs, save};
use crate::commands::publish::stored_token;

/// A release whose provenance cannot be had.
#[derive(Debug, thiserror::Error, Diagnostic)]
enum ReleasedError {
    /// The text names no release.
    #[error("`{0}` names no release")]
    #[diagnostic(
        code(pytheas::provenance::reference),
        help("with `--repo`, write `NAME@VERSION`, e.g. `greenhouse@1.1.0`")
    )]
    Reference(String),
    /// It is not there.
    #[error("`{repo}` has no `{reference}`{platform}")]
    #[diagnostic(code(pytheas::provenance::release), help("{have}"))]
    NoRelease {
        /// The repository.
        repo: String,
        /// What was asked for.
        reference: String,
        /// ` for PLATFORM`, where one was named.
        platform: String,
        /// What is there.
        have: String,
    },
    /// It is there for several platforms.
    #[error("`{reference}` is there for several platforms: {platforms}")]
    #[diagnostic(
        code(pytheas::provenance::platform),
        help("name one with `--platform`")
    )]
    Several {
        /// What was asked for.
        reference: String,
        /// The platforms.
        platforms: String,
    },
    /// It was published without a statement.
    #[error("`{target}` was published without provenance")]
    #[diagnostic(
        code(pytheas::provenance::none),
        help(
            "`pytheas publish DIR` publishes the statement that `pytheas build` laid beside the folder, `DIR.provenance.json`"
        )
    )]
    None {
        /// The release.
        target: String,
    },
    /// The envelope is gone, or something else is in its place.
    #[error("the provenance of `{target}` is not in the repository as it was published")]
    #[diagnostic(
        code(pytheas::provenance::refused::blob),
        help("the repository was changed or copied in part: do not trust it, or copy it again")
    )]
    Changed {
        /// The release.
        target: String,
    },
}

/// The statement that the release was published with.
pub(super) fn find(repo: &str, args: &ProvenanceArgs) -> miette::Result<Found> {
    let text = args.artifact.to_string_lossy().into_owned();
    let reference: ReleaseRef = text
        .parse()
        .map_err(|_| ReleasedError::Reference(text.clone()))?;
    let root = args.root()?;
    let store = Store::open(repo, stored_token(repo)?.as_deref())?;
    let runtime = tokio::runtime::Runtime::new()
        .into_diagnostic()
        .wrap_err("cannot start the runtime for downloads")?;
    runtime.block_on(async {
        let repository = Repository::open(&store, &root.bytes, Timestamp::now()).await?;
        let all = repository.releases();
        let fits: Vec<_> = all
            .iter()
            .filter(|one| one.reference == reference)
            .filter(|one| args.platform.as_ref().is_none_or(|p| *p == one.platform))
            .collect();
        let target = match fits[..] {
            [one] => one.target.clone(),
            [] => {
                let names: Vec<String> = all
                    .iter()
                    .map(|one| format!("`{}` for {}", one.reference, one.platform))
                    .collect();
                let platform = args.platform.as_ref();
                return Err(ReleasedError::NoRelease {
                    repo: repo.to_owned(),
                    reference: text.clone(),
                    platform: platform.map_or(String::new(), |p| format!(" for {p}")),
                    have: match &names[..] {
                        [] => "it has no releases".to_owned(),
                        _ => format!("it has {}", names.join(", ")),
                    },
                }
                .into());
            }
            _ => {
                let platforms: Vec<String> =
                    fits.iter().map(|one| one.platform.to_string()).collect();
                return Err(ReleasedError::Several {
                    reference: text.clone(),
                    platforms: platforms.join(", "),
                }
                .into());
            }
        };
        let release = repository.release(&target).await?;
        let Some(blob) = &release.provenance else {
            return Err(ReleasedError::None { target }.into());
        };
        let Some(bytes) = repository.blob(blob).await? else {
            return Err(ReleasedError::Changed { target }.into());
        };
        let payload = Envelope::parse(&bytes)?.verify_by(&repository.signers(&target))?;
        if let Some(file) = &args.save {
            save(&bytes, file)?;
        }
        Ok(Found {
            provenance: Provenance::parse(&payload, Path::new(&target))?,
            signed: true,
            tree: Some(release.tree.id.0),
        })
    })
}
