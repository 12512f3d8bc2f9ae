//! Why a release, or a change of keys, was not published.

use std::{io, path::PathBuf};

use jiff::Timestamp;
use miette::Diagnostic;
use pytheas_durable::trees::ScanError;
use pytheas_release::{Platform, RECORD_FILE, RecordError, RelPath, ReleaseRef, TreeId};

use crate::{
    client::ContentError,
    delegations::DelegationError,
    keys::{KeyError, proposal::ProposalError},
    repository::RepositoryError,
    sign::SignError,
    store::StoreError,
};

/// A release that was not published; the repository is as it was.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum PublishError {
    /// The store fails.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Store(#[from] StoreError),
    /// The repository that is there cannot be used.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Repository(#[from] RepositoryError),
    /// Something in the repository is not what was signed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Content(#[from] ContentError),
    /// The folder cannot be read as a tree.
    #[error("`{}` cannot be published", dir.display())]
    #[diagnostic(
        code(pytheas::publish::scan),
        help("publish the folder that `pytheas build` made")
    )]
    Scan {
        /// The folder.
        dir: PathBuf,
        /// What is wrong.
        source: ScanError,
    },
    /// The repository would be a part of what is published.
    #[error("the repository `{}` lies in `{}`, the folder to publish", repo.display(), dir.display())]
    #[diagnostic(
        code(pytheas::publish::inside),
        help("name a folder beside it with `--repo`")
    )]
    Inside {
        /// The repository.
        repo: PathBuf,
        /// The folder.
        dir: PathBuf,
    },
    /// The folder is not a built tree.
    #[error("`{}` was not made by `pytheas build`: it has no `{RECORD_FILE}`", dir.display())]
    #[diagnostic(
        code(pytheas::publish::not_built),
        help("build first: `pytheas build -o DIR`, then `pytheas publish DIR`")
    )]
    NotBuilt {
        /// The folder.
        dir: PathBuf,
    },
    /// The image for boards cannot be signed.
    #[error("the board image `{}` cannot be published: {why}", path.display())]
    #[diagnostic(
        code(pytheas::publish::board_image),
        help("build again with this version of pytheas, then publish the new folder")
    )]
    BoardImage {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Boards check Ed25519 alone.
    #[error(
        "none of the keys that sign this release is Ed25519, and boards check no other ({have})"
    )]
    #[diagnostic(
        code(pytheas::publish::board_key),
        help(
            "give the role an Ed25519 key: `pytheas keys add targets`; for a team `pytheas keys new TEAM`, then `pytheas keys delegate`"
        )
    )]
    BoardKey {
        /// The kinds that are there.
        have: String,
    },
    /// The record cannot be used.
    #[error("`{}` cannot be used", path.display())]
    #[diagnostic(
        code(pytheas::publish::record),
        help("build again with this version of pytheas")
    )]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: RecordError,
    },
    /// Nothing would start.
    #[error("the entry `{entry}` that `{RECORD_FILE}` names is no executable file of the tree")]
    #[diagnostic(
        code(pytheas::publish::no_entry),
        help("the folder was changed after the build; build again")
    )]
    NoEntry {
        /// The entry.
        entry: RelPath,
    },
    /// The version has another content already.
    #[error("`{reference}` for `{platform}` is published already, with other content (tree {}, yours is {})", published.short(), yours.short())]
    #[diagnostic(
        code(pytheas::publish::taken),
        help("a published version never changes; raise the version and build again")
    )]
    Taken {
        /// Name and version.
        reference: ReleaseRef,
        /// The platform.
        platform: Platform,
        /// The published tree.
        published: TreeId,
        /// The tree in the folder.
        yours: TreeId,
    },
    /// A delta is wanted from a release that is not there.
    #[error("there is no `{wanted}` for `{platform}` to make a delta from")]
    #[diagnostic(code(pytheas::publish::no_earlier), help("{have}"))]
    NoEarlier {
        /// The release.
        wanted: ReleaseRef,
        /// The platform.
        platform: Platform,
        /// What there is.
        have: String,
    },
    /// The root metadata is too old to sign under.
    #[error("the root metadata expired at {expired} and it is {now}")]
    #[diagnostic(
        code(pytheas::publish::refused::root_expired),
        help("renew it with the root key: devices refuse everything signed under it")
    )]
    RootExpired {
        /// When.
        expired: Timestamp,
        /// The time.
        now: Timestamp,
    },
    /// The repository belongs to other keys.
    #[error("`{path}` in `{store}` is the root metadata of other keys")]
    #[diagnostic(
        code(pytheas::publish::refused::other_root),
        help("publish with the keys this repository was made with, or to an empty place")
    )]
    OtherRoot {
        /// The store.
        store: String,
        /// The file.
        path: String,
    },
    /// A file changed while it was published.
    #[error("`{path}` changed while it was being published")]
    #[diagnostic(
        code(pytheas::publish::changed),
        help("let nothing write into the folder, and publish again")
    )]
    Changed {
        /// The file.
        path: RelPath,
    },
    /// A file of the tree cannot be read.
    #[error("cannot read `{path}` of the tree")]
    #[diagnostic(
        code(pytheas::publish::io::read),
        help("is the folder still there and readable?")
    )]
    Read {
        /// The file.
        path: RelPath,
        /// What the system says.
        source: io::Error,
    },
    /// Temporary files.
    #[error("cannot write temporary files")]
    #[diagnostic(
        code(pytheas::publish::io::scratch),
        help(
            "make room, or set TMPDIR to a folder with room: packs are made there before they are uploaded"
        )
    )]
    Scratch(#[source] io::Error),
    /// A statement or bill of materials that cannot be published.
    #[error("`{}` cannot be published beside the tree: {why}", path.display())]
    #[diagnostic(
        code(pytheas::publish::attached),
        help(
            "build again and publish what that build wrote; without a statement the release has no provenance"
        )
    )]
    Attached {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The keys.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Key(#[from] KeyError),
    /// The signature failed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Sign(#[from] SignError),
    /// The proposal cannot be written or used.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Proposal(#[from] ProposalError),
    /// The team may not.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Delegation(#[from] DelegationError),
    /// The repository has a newer root than the folder of keys.
    #[error("the root metadata in `{store}` has version {there}, the one in `{}` version {here}", dir.display())]
    #[diagnostic(
        code(pytheas::publish::refused::stale_root),
        help(
            "somebody changed the keys elsewhere: copy `metadata/N.root.json` of the repository for every version you lack into the folder of keys"
        )
    )]
    StaleRoot {
        /// The store.
        store: String,
        /// Version there.
        there: u64,
        /// The folder.
        dir: PathBuf,
        /// Version here.
        here: u64,
    },
    /// Nothing good is left to build on.
    #[error("`{store}` has no targets metadata that keys of yours have signed")]
    #[diagnostic(
        code(pytheas::publish::refused::nothing_good),
        help(
            "restore `metadata/` from a backup, then run this again; or begin anew in an empty place and publish the releases again"
        )
    )]
    NothingGood {
        /// The store.
        store: String,
    },
    /// The proposal does not fit what is there.
    #[error("the proposed targets metadata has version {proposed}, the next one is {next}")]
    #[diagnostic(
        code(pytheas::publish::refused::stale_proposal),
        help("somebody published meanwhile: make the proposal again")
    )]
    StaleProposal {
        /// The proposed version.
        proposed: u64,
        /// The next one.
        next: u64,
    },
    /// The proposal lacks signatures.
    #[error("the proposal lacks {lacks} signatures")]
    #[diagnostic(
        code(pytheas::publish::refused::unsigned_proposal),
        help("`pytheas keys sign FILE` adds them, where the keys are")
    )]
    Unsigned {
        /// How many.
        lacks: u64,
    },
    /// No release is called so.
    #[error("no release `{target}` is there to be dropped")]
    #[diagnostic(code(pytheas::publish::no_release), help("{have}"))]
    NoRelease {
        /// What was given.
        target: String,
        /// What there is.
        have: String,
    },
}
