//! `follow`: update this device from the signed tags of a git repository that holds a published
//! repository in one of its folders.
//!
//! The tag's signature says *when* there is something new; what is installed is still judged by
//! TUF, as over the network, and the update is the same as from a file.

use std::{
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use pytheas_api::DeviceId;
use pytheas_release::Sha256;
use pytheas_update::Offer;

use crate::{
    apply::{self, ApplyError},
    cli::{StateArgs, parse_time, say},
    error::{AgentError, exit},
    git::{Channel, Tag},
    identity::Identity,
    paths::StateDir,
    supervisor::Confinement,
};

/// Which tags of which repository, and by whose keys.
#[derive(Debug, Clone, Args)]
pub struct ChannelArgs {
    /// The git repository: an address or a folder
    #[arg(value_name = "GIT_URL")]
    pub url: String,
    /// Which tags; what the `*` stands for is the version
    #[arg(long, default_value = "v*", value_name = "PATTERN")]
    pub tags: String,
    /// SSH keys that may sign tags: an allowed signers file, as ssh-keygen(1) describes it
    #[arg(long, value_name = "FILE")]
    pub allowed_signers: Option<PathBuf>,
    /// OpenPGP keys that may sign tags, as `gpg --export` writes them
    #[arg(long, value_name = "FILE")]
    pub openpgp_keys: Option<PathBuf>,
    /// Take also a tag whose history does not contain the one taken before
    #[arg(long)]
    pub any_history: bool,
    /// Look once and end
    #[arg(long)]
    pub once: bool,
    /// Pause between two looks
    #[arg(long, default_value = "5m", value_name = "TIME", value_parser = parse_time)]
    pub interval: Duration,
}

impl ChannelArgs {
    /// The channel, its clone and its ledger in a folder below `dir`.
    pub fn channel(&self, dir: &Path) -> Channel {
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let name = Sha256::of(self.url.as_bytes()).to_string();
        Channel {
            url: self.url.clone(),
            tags: self.tags.clone(),
            allowed_signers: self.allowed_signers.as_ref().map(absolute),
            openpgp_keys: self.openpgp_keys.as_ref().map(absolute),
            any_history: self.any_history,
            dir: absolute(&dir.join(&name[..16])),
        }
    }
}

/// Update this device from the signed tags of a git repository
///
/// The repository holds a published repository (what `pytheas publish --repo` writes) in the
/// folder `--folder` of its tags. Each new tag that an allowed key has signed is fetched, and its
/// release for this platform is installed with every check of an update over the network. Without
/// `--once` it goes on for ever, beside the agent or alone.
///
/// Exit codes with `--once`: 0 up to date, 1 wrong use, 3 git, the network or the disk fails,
/// 4 a tag or its release was refused.
#[derive(Debug, Clone, Args)]
pub struct FollowArgs {
    /// What.
    #[command(flatten)]
    pub channel: ChannelArgs,
    /// Folder of the published repository in the tags
    #[arg(long, default_value = "repo", value_name = "FOLDER")]
    pub folder: String,
    /// First root metadata of the repository (metadata/1.root.json), brought by hand: for a device
    /// that knows no hub
    #[arg(long, value_name = "FILE")]
    pub root: Option<PathBuf>,
    /// Device id of a device that knows no hub [default: the host's name and six random digits]
    #[arg(long, value_name = "ID", requires = "root")]
    pub id: Option<DeviceId>,
    /// What the app may not, when no agent runs.
    #[command(flatten)]
    pub confinement: Confinement,
    /// Where.
    #[command(flatten)]
    pub state: StateArgs,
}

/// `follow`.
///
/// # Errors
/// [`AgentError`]; without `--once` only what waiting cannot mend.
pub fn follow(args: &FollowArgs, out: &mut dyn Write) -> Result<u8, AgentError> {
    let dir = args.state.dir();
    apply::provision(&dir, args.root.as_deref(), args.id.as_ref())?;
    let channel = args.channel.channel(&dir.root().join("git"));
    loop {
        let looked = look(args, &dir, &channel, out);
        if args.channel.once {
            return looked;
        }
        match looked {
            Err(error) if error.exit_code() == exit::USER => return Err(error),
            Err(error) => say(out, format_args!("error: {}\n", crate::http::chain(&error)))?,
            Ok(_) => {}
        }
        std::thread::sleep(args.channel.interval);
    }
}

/// Looks once: the exit code.
fn look(
    args: &FollowArgs,
    dir: &StateDir,
    channel: &Channel,
    out: &mut dyn Write,
) -> Result<u8, AgentError> {
    let polled = channel.poll()?;
    let mut code = exit::OK;
    for (name, refusal, news) in &polled.refused {
        if *news {
            code = exit::REFUSED;
            say(out, format_args!("refused tag `{name}`: {refusal}\n"))?;
        }
    }
    // A device wants the newest alone.
    let Some(tag) = polled.accepted.last() else {
        return Ok(code);
    };
    say(out, format_args!("tag `{}`: {}\n", tag.name, tag.signed))?;
    let folder = channel.dir.join("checkout");
    channel.checkout(tag, &folder, Some(&args.folder))?;
    let installed = install(dir, &folder, tag, &args.confinement, out);
    let ended = match &installed {
        Ok(()) => true,
        // It was tried; trying the same again would end the same.
        Err(AgentError::Apply(error)) => matches!(
            error.as_ref(),
            ApplyError::Failed { .. } | ApplyError::NoRelease { .. }
        ),
        Err(_) => false,
    };
    if ended {
        channel.done(tag)?;
        pytheas_durable::remove_tree(&folder).map_err(AgentError::io("remove", &folder))?;
    }
    match installed {
        // It goes on by itself; the next look sees what became of it.
        Err(AgentError::Apply(error)) if matches!(*error, ApplyError::Waits { .. }) => {
            say(out, format_args!("{error}\n"))?;
            Ok(code)
        }
        other => other.map(|()| code),
    }
}

fn install(
    dir: &StateDir,
    folder: &Path,
    tag: &Tag,
    confinement: &Confinement,
    out: &mut dyn Write,
) -> Result<(), AgentError> {
    let platform = Identity::load(&dir.identity())?.platform;
    let mut found = Vec::new();
    let apps = std::fs::read_dir(folder.join("targets"))
        .into_iter()
        .flatten();
    for app in apps.flatten() {
        let name = app.file_name().to_string_lossy().into_owned();
        let there = app
            .path()
            .join(tag.version.as_str())
            .join(platform.as_str());
        if there.is_dir() {
            found.push(name);
        }
    }
    let [name] = &found[..] else {
        let wanted = format!("of version `{}` for `{platform}`", tag.version);
        let have = if found.is_empty() {
            "none of that version and platform".to_owned()
        } else {
            format!("several: {}", found.join(", "))
        };
        let path = folder.to_owned();
        return Err(ApplyError::NoRelease {
            path,
            wanted,
            have,
            platform,
        }
        .into());
    };
    let target = format!("{name}/{}/{platform}/release.json", tag.version);
    let mut progress = |text: String| say(out, format_args!("{text}\n"));
    let offer = Offer::one(target);
    apply::carry_out(dir, folder, offer, true, confinement, &mut progress)?;
    say(
        out,
        format_args!("`{name}@{}` runs and is committed\n", tag.version),
    )
}
