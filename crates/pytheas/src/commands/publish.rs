//! `pytheas publish`: sign a built folder and make it a release devices can get.

mod in_use;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use miette::{Context as _, IntoDiagnostic};
use pytheas_build::{SBOM_FILE, provenance_path};
use pytheas_release::{BoardImage, BuildRecord, RECORD_FILE, Version};
use pytheas_repo::{
    keys::{self, PublisherKeys},
    publish::{Event, Events, Options, Published, Reached, Reason},
    store::Store,
};
use serde::Serialize;
use url::Url;

use crate::{
    commands::{
        keys::{AccessArgs, KeysArgs, ask},
        publish_index::{self, IndexArgs},
    },
    context::Context,
    hub_client::HubArgs,
    output::{Paint, Show, bytes},
};

/// Sign a built folder and publish it as a release
///
/// Writes to the repository (a folder, `s3://bucket/prefix`, or a hub's
/// `http://hub:8470/repo`) and makes deltas from the earlier releases that
/// devices run, where a hub tells which, else from the newest. Devices see the old repository or the new one, never half of it.
#[derive(Debug, clap::Args)]
pub(crate) struct PublishArgs {
    /// The folder `pytheas build` made; with --index, a file
    #[arg(required_unless_present = "index")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    index: IndexArgs,
    /// The repository: a folder, an object store's URL, or a hub's `/repo`
    #[arg(
        long,
        env = "PYTHEAS_REPO",
        value_name = "DIR|URL",
        required_unless_present = "index"
    )]
    repo: Option<String>,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    keys: KeysArgs,
    /// Sign as this team, with its own key, instead of as the targets role
    #[arg(long = "as", value_name = "TEAM", conflicts_with = "index")]
    team: Option<String>,
    /// If signatures are missing, write the proposal here instead of failing
    #[arg(long, value_name = "FILE", conflicts_with = "index")]
    propose: Option<PathBuf>,
    /// From how many earlier releases to make deltas at most [default: the 3 newest; the 8 that most devices run, where the hub tells]
    #[arg(long, value_name = "N")]
    deltas: Option<usize>,
    /// The hub that knows what devices run [default: the one whose `/repo` is published to]
    #[arg(long, env = "PYTHEAS_HUB", value_name = "URL")]
    hub: Option<Url>,
    /// Make a delta from this earlier version too, however old (may be repeated)
    #[arg(long, value_name = "VERSION", conflicts_with = "index")]
    delta_from: Vec<Version>,
    /// The statement on where the folder came from, to sign and publish with it [default: DIR.provenance.json if it speaks of this folder]
    #[arg(long, value_name = "FILE", conflicts_with = "index")]
    provenance: Option<PathBuf>,
    /// How long the targets metadata is good, e.g. `90d`
    #[arg(long, value_parser = validity, value_name = "DURATION")]
    targets_valid: Option<SignedDuration>,
    /// How long the snapshot metadata is good, e.g. `30d`
    #[arg(long, value_parser = validity, value_name = "DURATION")]
    snapshot_valid: Option<SignedDuration>,
    /// How long the timestamp metadata is good, e.g. `7d`; the hub renews it
    #[arg(long, value_parser = validity, value_name = "DURATION")]
    timestamp_valid: Option<SignedDuration>,
}

fn validity(text: &str) -> Result<SignedDuration, String> {
    pytheas_release::parse_duration_ms(text)
        .filter(|ms| *ms >= 1000)
        .and_then(|ms| SignedDuration::try_from(Duration::from_millis(ms)).ok())
        .ok_or_else(|| format!("`{text}` is not a duration such as `12h`, `7d`"))
}

/// What was published, as it is shown.
#[derive(Serialize)]
struct Shown {
    release: String,
    platform: String,
    target: String,
    tree: String,
    files: u64,
    size_bytes: u64,
    already_published: bool,
    new_objects: usize,
    reused_objects: usize,
    uploaded_bytes: u64,
    /// What the hub says that devices run, if it was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    in_use: Option<in_use::Answer>,
    deltas: Vec<ShownDelta>,
    /// Those that were not made after all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    no_deltas: Vec<ShownNoDelta>,
    /// The signed image, of a release for boards.
    #[serde(skip_serializing_if = "Option::is_none")]
    board: Option<BoardImage>,
    /// Whether devices see it already.
    visible: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    proposal: Option<PathBuf>,
}

#[derive(Serialize)]
struct ShownDelta {
    from: String,
    #[serde(flatten)]
    reason: ShownReason,
    size_bytes: u64,
}

#[derive(Serialize)]
struct ShownNoDelta {
    from: String,
    #[serde(flatten)]
    reason: ShownReason,
    why: String,
}

/// Why from this release.
#[derive(Serialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
enum ShownReason {
    Asked,
    InUse { devices: u64 },
    Newest,
}

impl From<Reason> for ShownReason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Asked => Self::Asked,
            Reason::InUse { devices } => Self::InUse { devices },
            Reason::Newest => Self::Newest,
        }
    }
}

impl Shown {
    fn of(published: &Published, in_use: Option<in_use::Answer>) -> Self {
        Self {
            release: published.reference.to_string(),
            platform: published.platform.to_string(),
            target: published.target.clone(),
            tree: published.tree.to_string(),
            files: published.files,
            size_bytes: published.size_bytes,
            already_published: published.already,
            new_objects: published.new_objects,
            reused_objects: published.reused_objects,
            uploaded_bytes: published.uploaded_bytes,
            in_use,
            deltas: published
                .deltas
                .iter()
                .map(|delta| ShownDelta {
                    from: delta.from.to_string(),
                    reason: delta.reason.into(),
                    size_bytes: delta.size_bytes,
                })
                .collect(),
            no_deltas: published
                .not_made
                .iter()
                .map(|delta| ShownNoDelta {
                    from: delta.from.to_string(),
                    reason: delta.reason.into(),
                    why: delta.why.clone(),
                })
                .collect(),
            board: published.board,
            visible: published.reached == Reached::Devices,
            proposal: match &published.reached {
                Reached::Proposed(file) => Some(file.clone()),
                _ => None,
            },
        }
    }
}

impl Show for Shown {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        out.fact("release", format!("{} for {}", self.release, self.platform))?;
        out.fact("tree", &self.tree)?;
        out.fact(
            "size",
            format!("{} in {} files", bytes(self.size_bytes), self.files),
        )?;
        if let Some(board) = &self.board {
            let size = bytes(board.image.size_bytes);
            out.fact("board image", format!("{size}, counter {}", board.counter))?;
        }
        if self.already_published {
            return out.fact("published", "before; nothing to do");
        }
        let objects = format!(
            "{} new, {} there already",
            self.new_objects, self.reused_objects
        );
        out.fact("objects", objects)?;
        out.fact("uploaded", bytes(self.uploaded_bytes))?;
        for delta in &self.deltas {
            let used = match delta.reason {
                ShownReason::InUse { devices: 1 } => " (1 device runs it)".to_owned(),
                ShownReason::InUse { devices } => format!(" ({devices} devices run it)"),
                ShownReason::Asked | ShownReason::Newest => String::new(),
            };
            out.fact(
                "delta",
                format!("from {}: {}{used}", delta.from, bytes(delta.size_bytes)),
            )?;
        }
        Ok(())
    }
}

/// Publishes it.
pub(crate) fn run(args: &PublishArgs, context: &Context) -> miette::Result<()> {
    let (dir, repo) = match (&args.index.index, &args.dir, &args.repo) {
        (Some(index), file, _) => {
            let token = args.access.token();
            return publish_index::run(index, file.as_ref(), &args.index, token, context);
        }
        (None, Some(dir), Some(repo)) => (dir, repo),
        _ => unreachable!("clap requires both without `--index`"),
    };
    let mut options = Options {
        deltas: args.deltas,
        delta_from: args.delta_from.clone(),
        ..Options::at(Timestamp::now())
    };
    options.attached.statement.clone_from(&args.provenance);
    let validity = &mut options.validity;
    validity.targets = args.targets_valid.unwrap_or(validity.targets);
    validity.snapshot = args.snapshot_valid.unwrap_or(validity.snapshot);
    validity.timestamp = args.timestamp_valid.unwrap_or(validity.timestamp);
    options.propose.clone_from(&args.propose);
    let store = args.access.open(repo)?;
    let (folder, team) = (args.keys.dir(), args.team.as_deref());
    let keys = match (team, &args.propose) {
        (Some(team), _) => PublisherKeys::load_team(&folder, team, &ask)?,
        (None, Some(_)) => PublisherKeys::load_some(&folder, &ask)?,
        (None, None) => PublisherKeys::load(&folder, &ask)?,
    };
    let record = record(dir);
    let is_for_boards = record.as_ref().is_some_and(|one| one.platform.is_board());
    let keys = match is_for_boards {
        true => keys.with_board_keys(&ask)?,
        false => keys,
    };
    let hub = hub_to_ask(repo, args.hub.as_ref(), &args.access);
    let in_use = match (&record, hub) {
        // Boards take whole images.
        (Some(record), Some(hub)) if !is_for_boards && args.deltas != Some(0) => {
            let answer = in_use::ask(&hub, record);
            options.in_use = answer.versions();
            if let Some(note) = answer.note() {
                context.note(note);
            }
            Some(answer)
        }
        _ => None,
    };
    let published = publish_with(dir, &store, &keys, &options, context)?;
    match &published.reached {
        Reached::Devices => {}
        Reached::Uploaded => context.note(UPLOADED),
        Reached::Proposed(file) => context.note(format!(
            "signatures are missing: `pytheas keys sign {0}` where the keys are, then `pytheas keys publish --proposal {0}`",
            file.display()
        )),
    }
    context.show(&Shown::of(&published, in_use))
}

/// What is left to do after a team without online keys has published.
pub(crate) const UPLOADED: &str = "devices see it when the online keys have signed it: a hub does that at once, otherwise whoever has them runs `pytheas keys publish`";

/// What the built folder says of itself; where it cannot be read, publishing says why.
fn record(dir: &Path) -> Option<BuildRecord> {
    let bytes = std::fs::read(dir.join(RECORD_FILE)).ok()?;
    BuildRecord::parse(&bytes).ok()
}

/// The hub that knows what devices run. A token that was given for the repository of one hub is not
/// shown to another, for which there is the one that `pytheas login` stored.
fn hub_to_ask(repo: &str, hub: Option<&Url>, access: &AccessArgs) -> Option<HubArgs> {
    let own = hub_of(repo);
    let mut asked = access.hub(hub.or(own.as_ref())?.clone());
    let plain = |hub: &Url| hub.as_str().trim_end_matches('/').to_owned();
    if own.is_some_and(|own| plain(&own) != plain(&asked.hub)) {
        asked.token = None;
    }
    Some(asked)
}

/// The hub whose repository this is: one logs in to the address above `/repo`.
fn hub_of(repo: &str) -> Option<Url> {
    let hub = repo.trim_end_matches('/').strip_suffix("/repo")?;
    let hub: Url = hub.parse().ok()?;
    matches!(hub.scheme(), "http" | "https").then_some(hub)
}

/// The token that `pytheas login` stored for the hub whose repository this is.
pub(crate) fn stored_token(
    repo: &str,
) -> Result<Option<String>, crate::credentials::CredentialsError> {
    match hub_of(repo) {
        Some(hub) => crate::credentials::token_for(&hub),
        None => Ok(None),
    }
}

/// Publishes `dir` to `repo` with the usual options.
pub(crate) fn publish(
    dir: &Path,
    repo: &str,
    keys: &Path,
    context: &Context,
) -> miette::Result<Published> {
    publish_with(
        dir,
        &Store::open(repo, None)?,
        &PublisherKeys::load(keys, &ask)?,
        &Options::at(Timestamp::now()),
        context,
    )
}

fn publish_with(
    dir: &Path,
    store: &Store,
    keys: &PublisherKeys,
    options: &Options,
    context: &Context,
) -> miette::Result<Published> {
    let mut options = options.clone();
    attach(dir, &mut options);
    let progress = context.progress();
    progress.step("reading the tree");
    let events = Events::new(move |event| match event {
        Event::Scanned {
            files, size_bytes, ..
        } => {
            progress.step(format!("{files} files, {}", bytes(size_bytes)));
        }
        Event::Packing { done, total } => progress.count("compressing", done, total),
        Event::Delta { from, size_bytes } => {
            progress.step(format!("delta from {from}: {}", bytes(size_bytes)));
        }
        Event::NoDelta { from, why } => {
            progress.note(&format!("no delta from {from}: {why}"));
        }
        Event::NoStatement { path, why } => {
            let path = path.display();
            progress.note(&format!("`{path}` is not published: {why}"));
        }
        Event::BoardSigned {
            counter, warnings, ..
        } => {
            progress.step(format!("signed the board image, counter {counter}"));
            for warning in warnings {
                progress.note(&warning);
            }
        }
        Event::Uploaded { path, .. } => progress.detail(format!("uploaded {path}")),
        Event::Committed { targets_version } => {
            progress.step(format!("signed targets version {targets_version}"));
        }
    });
    let runtime = tokio::runtime::Runtime::new()
        .into_diagnostic()
        .wrap_err("cannot start the runtime for uploads")?;
    Ok(runtime.block_on(pytheas_repo::publish::publish(
        store, keys, dir, &options, &events,
    ))?)
}

/// What lies with a built folder is published with it.
fn attach(dir: &Path, options: &mut Options) {
    let attached = &mut options.attached;
    if attached.statement.is_none() {
        // `.` has no name of its own.
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        attached.statement = Some(provenance_path(&dir)).filter(|path| path.is_file());
        attached.statement_was_found = true;
    }
    attached.sbom = Some(dir.join(SBOM_FILE)).filter(|path| path.is_file());
}

/// New keys without a passphrase, for the demo.
pub(crate) fn make_keys(dir: &Path) -> miette::Result<()> {
    keys::init(&keys::Init {
        dir,
        passphrase: None,
        now: Timestamp::now(),
        root_valid: SignedDuration::from_hours(24 * 365),
    })?;
    Ok(())
}

/// What was published, in one line.
pub(crate) fn summary(published: &Published) -> String {
    let deltas: Vec<_> = published
        .deltas
        .iter()
        .map(|delta| format!("delta from {} {}", delta.from, bytes(delta.size_bytes)))
        .collect();
    let uploaded = format!("uploaded {}", bytes(published.uploaded_bytes));
    [&[uploaded][..], &deltas].concat().join(", ")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Given {
        #[command(flatten)]
        access: AccessArgs,
    }

    #[test]
    fn a_token_is_shown_to_no_other_hub_than_the_one_that_is_published_to() {
        let given = Given::parse_from(["publish", "--token", "pyt_secret"]);
        let asked = |repo, hub: Option<&str>| {
            let hub: Option<Url> = hub.map(|hub| hub.parse().unwrap());
            let asked = hub_to_ask(repo, hub.as_ref(), &given.access)?;
            Some((asked.hub.to_string(), asked.token.is_some()))
        };
        let to = |hub: &str, with_token| Some((hub.to_owned(), with_token));
        assert_eq!(asked("/srv/repo", None), None);
        assert_eq!(asked("https://a/repo/", None), to("https://a/", true));
        assert_eq!(
            asked("https://a/repo", Some("https://a")),
            to("https://a/", true)
        );
        assert_eq!(
            asked("https://a/x/repo", Some("https://a/x/")),
            to("https://a/x/", true)
        );
        assert_eq!(
            asked("https://a/repo", Some("https://b")),
            to("https://b/", false)
        );
        assert_eq!(
            asked("https://a/repo", Some("http://a")),
            to("http://a/", false)
        );
        // There it is for nobody else.
        assert_eq!(
            asked("s3://bucket/repo", Some("https://b")),
            to("https://b/", true)
        );
    }
}
