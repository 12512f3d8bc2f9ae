//! `apply`: update this device from a file that `pytheas export` made.
//!
//! The file is looked at here, whole, before anything is begun; then the running agent is asked
//! (or, when none runs, an agent works in this process, without a hub) and its end is waited for.

use std::{
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Args;
use miette::Diagnostic;
use pytheas_api::DeviceId;
use pytheas_release::Platform;
use pytheas_repo::offline::{OfflineError, OfflineFile};
use pytheas_update::{Machine, Offer, Reason, State};
use serde::Serialize;

use crate::{
    cli::{StateArgs, lock, say},
    error::{AgentError, exit},
    identity::{Identity, IdentityError},
    offline::{Order, Outcome},
    paths::StateDir,
    request,
    status::{Live, load_machine, running_agent},
    supervisor::Confinement,
};

/// How long a running agent may take until it looks at a request: it may be waiting for a hub.
const TAKEN_WITHIN: Duration = Duration::from_secs(120);
/// How long an order that was taken may not be noted while nothing else is under way.
const NOTED_WITHIN: Duration = Duration::from_secs(30);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// Update this device from a file, without a hub
///
/// The file is one that `pytheas export` made. Every check of an update over the network is done
/// on it: signatures, versions, expiry, platform, requirements; then the same update runs, with
/// probation and the way back. An agent that runs does it; without one the app is started, judged
/// and stopped again, and runs when the agent starts.
///
/// Exit codes: 0 the release runs, 1 wrong use, 3 the file or the disk fails, 4 refused, or rolled
/// back because the app did not prove that it works.
#[derive(Debug, Clone, Args)]
pub struct ApplyArgs {
    /// The file
    pub file: PathBuf,
    /// The release to take when the file has several for this platform, e.g. `greenhouse@1.1.0`;
    /// given several times, these are installed together or not at all
    #[arg(long, value_name = "RELEASE")]
    pub release: Vec<String>,
    /// First root metadata of the repository (metadata/1.root.json), brought by hand: for a device
    /// that knows no hub
    #[arg(long, value_name = "FILE")]
    pub root: Option<PathBuf>,
    /// Device id of a device that knows no hub [default: the host's name and six random digits]
    #[arg(long, value_name = "ID", requires = "root")]
    pub id: Option<DeviceId>,
    /// How it ended as JSON, and nothing on the way
    #[arg(long)]
    pub json: bool,
    /// What the app may not, when no agent runs.
    #[command(flatten)]
    pub confinement: Confinement,
    /// Where.
    #[command(flatten)]
    pub state: StateArgs,
}

/// A file that is not for this device.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ApplyError {
    /// The file cannot be used.
    #[error(transparent)]
    #[diagnostic(transparent)]
    File(#[from] OfflineError),
    /// Its metadata is too old.
    #[error("`{file}` in `{}` expired at {expired} and it is {now}", path.display())]
    #[diagnostic(
        code(pytheas::apply::refused::expired),
        help(
            "run `pytheas export` again on the repository as it is now and bring that file (`--timestamp-valid` of `pytheas publish` says how long it stays good); if the date here is wrong, set the clock"
        )
    )]
    Expired {
        /// The offline file.
        path: PathBuf,
        /// The metadata file in it.
        file: String,
        /// When it expired.
        expired: jiff::Timestamp,
        /// The device's time.
        now: jiff::Timestamp,
    },
    /// Nothing in it is for this device.
    #[error("`{}` has no release {wanted}", path.display())]
    #[diagnostic(
        code(pytheas::apply::refused::no_release),
        help(
            "it has {have}; export the release for this platform too: `pytheas export --platform {platform}`"
        )
    )]
    NoRelease {
        /// The offline file.
        path: PathBuf,
        /// What was looked for.
        wanted: String,
        /// What there is.
        have: String,
        /// The device's platform.
        platform: Platform,
    },
    /// More than one is.
    #[error("`{}` has several releases for this device: {have}", path.display())]
    #[diagnostic(
        code(pytheas::apply::which),
        help("say which: `--release {first}`; given several times, they are installed together")
    )]
    Several {
        /// The offline file.
        path: PathBuf,
        /// What there is.
        have: String,
        /// One of them.
        first: String,
    },
    /// The update did not succeed.
    #[error("`{release}` was not installed: {}", message.lines().next().unwrap_or_default())]
    #[diagnostic(
        code(pytheas::apply::refused::failed),
        help("{}", after_first(message))
    )]
    Failed {
        /// The release.
        release: String,
        /// The kind of failure.
        reason: Reason,
        /// The whole explanation.
        message: String,
    },
    /// Nothing was begun.
    #[error("nothing was begun: the order cannot be noted in `{}`", dir.display())]
    #[diagnostic(
        code(pytheas::apply::not_noted),
        help("is the disk full? Free some room there and apply the file again")
    )]
    NotNoted {
        /// The state directory.
        dir: PathBuf,
    },
    /// The agent is gone.
    #[error("the agent ended before the update did")]
    #[diagnostic(
        code(pytheas::apply::agent_ended),
        help("it goes on when the agent starts again; leave the stick where it is")
    )]
    AgentEnded,
    /// It may not go on yet.
    #[error("the update waits: {why}")]
    #[diagnostic(
        code(pytheas::apply::waits),
        help("it goes on by itself when it may, as long as the agent runs")
    )]
    Waits {
        /// For what.
        why: String,
    },
    /// The agent does not listen.
    #[error("agent {pid} did not take the order")]
    #[diagnostic(
        code(pytheas::apply::agent_silent),
        help("look at its log; nothing was begun")
    )]
    Silent {
        /// Its process.
        pid: u32,
    },
}

/// What the lines after the first say, without the word `help`.
fn after_first(message: &str) -> String {
    let rest: Vec<&str> = message.lines().skip(1).collect();
    let rest = rest.join("\n");
    match rest.strip_prefix("help: ") {
        Some(help) => help.to_owned(),
        None if rest.is_empty() => "what ran before, if anything did, still runs".into(),
        None => rest,
    }
}

impl ApplyError {
    /// The exit code that says what kind of error it is.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::File(OfflineError::Open { .. } | OfflineError::Read { .. })
            | Self::AgentEnded
            | Self::NotNoted { .. }
            | Self::Waits { .. }
            | Self::Silent { .. } => exit::WORLD,
            Self::Several { .. } => exit::USER,
            Self::Failed {
                reason: Reason::NoSpace | Reason::Device | Reason::Content,
                ..
            } => exit::WORLD,
            _ => exit::REFUSED,
        }
    }
}

/// How it ended, for programs.
#[derive(Serialize)]
struct Shown<'a> {
    file: &'a Path,
    release: &'a str,
    platform: &'a str,
    outcome: &'static str,
    message: String,
}

/// `apply`.
///
/// # Errors
/// [`AgentError`].
pub fn apply(args: &ApplyArgs, out: &mut dyn Write) -> Result<u8, AgentError> {
    let dir = args.state.dir();
    provision(&dir, args.root.as_deref(), args.id.as_ref())?;
    let platform = Identity::load(&dir.identity())?.platform;
    let path = std::path::absolute(&args.file).unwrap_or_else(|_| args.file.clone());
    let mut progress = |text: String| match args.json {
        true => Ok(()),
        false => say(out, format_args!("{text}\n")),
    };
    let (offer, release) = look(&path, args, &platform, &mut progress)?;
    let ended = carry_out(&dir, &path, offer, false, &args.confinement, &mut progress);
    let (outcome, message) = match &ended {
        Ok(()) => ("committed", format!("`{release}` runs and is committed")),
        Err(AgentError::Apply(error)) => match error.as_ref() {
            ApplyError::Failed { message, .. } => ("failed", message.clone()),
            _ => return ended.map(|()| exit::OK),
        },
        Err(_) => return ended.map(|()| exit::OK),
    };
    if args.json {
        let shown = Shown {
            file: &path,
            release: &release.replace('`', ""),
            platform: platform.as_str(),
            outcome,
            message,
        };
        let json = serde_json::to_string_pretty(&shown).unwrap_or_default();
        crate::cli::put_json(out, &json)?;
    } else if ended.is_ok() {
        say(out, format_args!("{message}\n"))?;
    }
    ended.map(|()| exit::OK)
}

/// Makes a device that knows no hub know whom to trust; one that has an identity keeps it.
pub(crate) fn provision(
    dir: &StateDir,
    root: Option<&Path>,
    id: Option<&DeviceId>,
) -> Result<(), AgentError> {
    let known = match Identity::load(&dir.identity()) {
        Err(IdentityError::Missing { .. }) => None,
        other => Some(other?),
    };
    let Some(root) = root else {
        return match known {
            Some(_) => Ok(()),
            None => Err(AgentError::NoRoot),
        };
    };
    let bytes = std::fs::read(root).map_err(AgentError::io("read", root))?;
    pytheas_durable::create_dir_all(dir.root()).map_err(AgentError::io("create", dir.root()))?;
    pytheas_repo::client::init(dir.root(), &bytes, None).map_err(AgentError::root_file(root))?;
    if known.is_none() {
        let _lock = lock(dir)?;
        let identity = Identity::new(String::new(), id.cloned(), crate::cli::host()?, None)?;
        identity.save(&dir.identity())?;
    }
    Ok(())
}

/// Checks the file as far as that is possible without the trusted state, and finds the release
/// that is for this device, or those: what to offer it, and what people call that.
fn look(
    path: &Path,
    args: &ApplyArgs,
    platform: &Platform,
    progress: &mut dyn FnMut(String) -> Result<(), AgentError>,
) -> Result<(Offer, String), AgentError> {
    let file = OfflineFile::open(path).map_err(ApplyError::from)?;
    let megabytes = file.size_bytes() / 1_000_000;
    let size = match megabytes {
        0 => format!("{} kB", file.size_bytes().div_ceil(1000)),
        _ => format!("{megabytes} MB"),
    };
    progress(format!("checking `{}`: {size}", path.display()))?;
    let mut told = 0;
    let mut silent = Ok(());
    file.check(&mut |done| {
        let tenth = done * 10 / file.size_bytes().max(1);
        if tenth > told && tenth < 10 && megabytes >= 50 {
            told = tenth;
            silent = progress(format!("checking: {} %", tenth * 10));
        }
    })
    .map_err(ApplyError::from)?;
    silent?;
    let chosen = choose(&file, &args.release, platform)?;
    let now = crate::clock::now();
    let expiries = file.expiries().map_err(ApplyError::from)?;
    if let Some(first) = expiries.first()
        && first.expires <= now
    {
        return Err(ApplyError::Expired {
            path: path.to_owned(),
            file: first.file.clone(),
            expired: first.expires,
            now,
        }
        .into());
    }
    Ok(chosen)
}

/// The targets to install together, and what people call them.
fn choose(
    file: &OfflineFile,
    wanted: &[String],
    platform: &Platform,
) -> Result<(Offer, String), ApplyError> {
    let wanted: Vec<Option<&str>> = match wanted {
        [] => vec![None],
        several => several.iter().map(|one| Some(one.as_str())).collect(),
    };
    let mut chosen: Vec<(String, String)> = Vec::new();
    for one in wanted {
        let found = choose_one(file, one, platform)?;
        if !chosen.contains(&found) {
            chosen.push(found);
        }
    }
    let (mut targets, releases): (Vec<_>, Vec<_>) = chosen.into_iter().unzip();
    let also = targets.split_off(1);
    let offer = Offer {
        also,
        ..Offer::one(targets.remove(0))
    };
    Ok((offer, releases.join("`, `")))
}

fn choose_one(
    file: &OfflineFile,
    wanted: Option<&str>,
    platform: &Platform,
) -> Result<(String, String), ApplyError> {
    let path = || file.path().to_owned();
    let mut all: Vec<(String, String, String)> = Vec::new();
    for target in file.releases() {
        if let [name, version, platform, "release.json"] = target.split('/').collect::<Vec<_>>()[..]
        {
            let release = format!("{name}@{version}");
            all.push((target.clone(), release, platform.to_owned()));
        }
    }
    let fits = all.iter().filter(|(_, release, of)| {
        of == platform.as_str() && wanted.is_none_or(|wanted| wanted == release)
    });
    let fitting: Vec<_> = fits.collect();
    match &fitting[..] {
        [(target, release, _)] => Ok((target.clone(), release.clone())),
        [] => {
            let have: Vec<String> = all
                .iter()
                .map(|(_, release, platform)| format!("`{release}` for `{platform}`"))
                .collect();
            let wanted = wanted.map_or(String::new(), |wanted| format!("`{wanted}` "));
            Err(ApplyError::NoRelease {
                path: path(),
                wanted: format!("{wanted}for `{platform}`"),
                have: if have.is_empty() {
                    "none".into()
                } else {
                    have.join(", ")
                },
                platform: platform.clone(),
            })
        }
        several => Err(ApplyError::Several {
            path: path(),
            have: several
                .iter()
                .map(|(_, release, _)| format!("`{release}`"))
                .collect::<Vec<_>>()
                .join(", "),
            first: several
                .last()
                .map(|(_, r, _)| r.clone())
                .unwrap_or_default(),
        }),
    }
}

/// Lets the running agent, or one in this process, update from the file. When it is `unattended`
/// it may have to wait ([`ApplyError::Waits`]); it goes on by itself then.
pub(crate) fn carry_out(
    dir: &StateDir,
    path: &Path,
    offer: Offer,
    unattended: bool,
    confinement: &Confinement,
    progress: &mut dyn FnMut(String) -> Result<(), AgentError>,
) -> Result<(), AgentError> {
    let mut id = [0; 8];
    getrandom::fill(&mut id).map_err(IdentityError::Random)?;
    let mut order = Order::new(hex::encode(id), path.to_owned(), offer);
    order.unattended = unattended;
    if let Some(pid) = request::agent(dir) {
        let machine = known_machine(dir)?;
        if !matches!(machine.state(), State::Idle) {
            if let Some(why) = waits(dir).filter(|_| unattended) {
                return Err(ApplyError::Waits { why }.into());
            }
            return Err(AgentError::Busy {
                state: machine.state().name().to_owned(),
            });
        }
        request::apply(dir, &order, pid)?;
        let asked = Instant::now();
        while dir.request().exists() {
            if running_agent(dir).is_none() || asked.elapsed() > TAKEN_WITHIN {
                let _taken_after_all = std::fs::remove_file(dir.request());
                return Err(ApplyError::Silent { pid }.into());
            }
            std::thread::sleep(LOOK);
        }
        return wait(dir, &order, &mut || running_agent(dir).is_none(), progress);
    }
    let lock = lock(dir)?;
    let machine = known_machine(dir)?;
    if machine.state().action().is_some() {
        return Err(AgentError::Busy {
            state: machine.state().name().to_owned(),
        });
    }
    let running = crate::cli::run_order(dir, order.clone(), confinement, lock)?;
    let ended = wait(dir, &order, &mut || running.is_finished(), progress);
    running.end();
    ended
}

/// The machine as it was written last. What is damaged, or gone, the agent that does the work rebuilds
/// from what runs, as it does at each start.
fn known_machine(dir: &StateDir) -> Result<Machine, AgentError> {
    match load_machine(dir) {
        Err(AgentError::State { source, .. }) if source.is_damage() => Ok(Machine::default()),
        other => Ok(other?.unwrap_or_default()),
    }
}

/// What the update under way waits for.
fn waits(dir: &StateDir) -> Option<String> {
    Live::load(&dir.status()).held
}

/// Waits until the order has ended, telling each step; `gone` says whether nobody works on it.
fn wait(
    dir: &StateDir,
    order: &Order,
    gone: &mut dyn FnMut() -> bool,
    progress: &mut dyn FnMut(String) -> Result<(), AgentError>,
) -> Result<(), AgentError> {
    let mut told = "idle";
    let mut busy_at = Instant::now();
    loop {
        // Looked at first: who is gone after that has written down all there is.
        let nobody = gone();
        let known = Order::load(dir).filter(|known| known.id == order.id);
        let was_noted = known.is_some();
        if let Some(outcome) = known.and_then(|known| known.outcome) {
            let offer = order.offer();
            let release = offer.targets().map(|target| {
                let release: Vec<&str> = target.split('/').take(2).collect();
                release.join("@")
            });
            let release: Vec<String> = release.collect();
            return match outcome {
                Outcome::Committed => Ok(()),
                Outcome::Failed { reason, message } => Err(ApplyError::Failed {
                    release: release.join("`, `"),
                    reason,
                    message,
                }
                .into()),
            };
        }
        if order.unattended
            && let Some(why) = waits(dir)
        {
            return Err(ApplyError::Waits { why }.into());
        }
        let is_lost = !was_noted && busy_at.elapsed() > NOTED_WITHIN;
        if nobody && !was_noted || is_lost {
            let dir = dir.root().to_owned();
            return Err(ApplyError::NotNoted { dir }.into());
        }
        if nobody {
            return Err(ApplyError::AgentEnded.into());
        }
        if let Ok(Some(machine)) = load_machine(dir) {
            let state = machine.state().name();
            if state != "idle" {
                busy_at = Instant::now();
            }
            if state != told && state != "idle" {
                progress(state.to_owned())?;
            }
            told = state;
        }
        std::thread::sleep(LOOK);
    }
}
