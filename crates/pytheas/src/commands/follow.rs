//! `pytheas follow`: signed tags of a git repository become releases.

use std::{
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
};

use miette::{Context as _, IntoDiagnostic};
use pytheas_agent::{
    StateDir,
    follow::ChannelArgs,
    git::{Channel, Tag},
};
use serde::Serialize;

use crate::{context::Context, exit, output::Show};

/// Build and publish the signed tags of a git repository
///
/// Looks for new tags, verifies with git that an allowed key has signed them,
/// checks the tag out (no hooks, filters or submodules), builds it with the
/// tag's version and publishes it. A tag that is unsigned, moved, older than
/// the last one or without it in its history is refused by name. Of the tags
/// that are there at the first look only the newest is taken.
///
/// Example: `pytheas follow https://git.example/app.git --allowed-signers
/// signers --repo https://hub.example/repo`
#[derive(Debug, clap::Args)]
pub(crate) struct FollowArgs {
    #[command(flatten)]
    channel: ChannelArgs,
    /// The repository to publish to: a folder, an object store's URL, or a hub's `/repo`
    #[arg(long, env = "PYTHEAS_REPO", value_name = "DIR|URL")]
    repo: String,
    /// Folder of the signing keys [default: ~/.config/pytheas/keys]
    #[arg(long, env = "PYTHEAS_KEYS", value_name = "DIR")]
    keys: Option<PathBuf>,
    /// Folder of the project in the git repository [default: its root]
    #[arg(long, value_name = "FOLDER")]
    project: Option<PathBuf>,
    /// A target of `[tool.pytheas.target.NAME]` to build; may be repeated [default: this machine]
    #[arg(long, short, value_name = "NAME")]
    target: Vec<String>,
    /// Where the clone and the record of the tags lie [default: ~/.local/state/pytheas/follow, for root /var/lib/pytheas/follow]
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// What `pytheas build` is told besides, after `--`: `-- --python 3.11`
    #[arg(last = true, value_name = "BUILD_OPTION")]
    build: Vec<String>,
}

/// What became of a tag.
#[derive(Serialize)]
struct Shown {
    tag: String,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signed: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

impl Show for Shown {
    fn text(&self, out: &mut crate::output::Paint<'_>) -> std::io::Result<()> {
        match (&self.why, &self.signed) {
            (Some(why), _) => out.line(format!("{} tag `{}`: {why}", self.outcome, self.tag)),
            (None, Some(signed)) => {
                out.line(format!("{} tag `{}`: {signed}", self.outcome, self.tag))
            }
            (None, None) => out.line(format!("{} tag `{}`", self.outcome, self.tag)),
        }
    }
}

/// Follows it.
pub(crate) fn run(args: &FollowArgs, context: &Context) -> miette::Result<ExitCode> {
    let work = args
        .work
        .clone()
        .unwrap_or_else(|| StateDir::default_path().join("follow"));
    let channel = args.channel.channel(&work);
    loop {
        let looked = look(args, &channel, context);
        if args.channel.once {
            return looked.map(ExitCode::from);
        }
        if let Err(error) = looked {
            // Nobody fixes a wrong option while this waits.
            if exit::of(error.code().map(|code| code.to_string()).as_deref()) == exit::USER {
                return Err(error);
            }
            context.report(error.as_ref());
        }
        std::thread::sleep(args.channel.interval);
    }
}

/// Looks once: the exit code.
fn look(args: &FollowArgs, channel: &Channel, context: &Context) -> miette::Result<u8> {
    let polled = channel.poll()?;
    let mut code = 0;
    for (tag, refusal, news) in polled.refused {
        if news {
            code = exit::REFUSED;
            context.show(&Shown {
                tag,
                outcome: "refused",
                version: None,
                commit: None,
                signed: None,
                why: Some(refusal.to_string()),
            })?;
        }
    }
    for tag in &polled.accepted {
        let released = release(args, channel, tag, context);
        let why = released.as_ref().err().map(ToString::to_string);
        if why.is_none() {
            channel.done(tag)?;
        } else {
            code = exit::WORLD;
        }
        context.show(&Shown {
            tag: tag.name.clone(),
            outcome: if why.is_none() { "released" } else { "failed" },
            version: Some(tag.version.to_string()),
            commit: Some(tag.commit.clone()),
            signed: Some(tag.signed.clone()),
            why,
        })?;
    }
    Ok(code)
}

/// Builds and publishes the tag by this program's own verbs, each target in turn.
fn release(
    args: &FollowArgs,
    channel: &Channel,
    tag: &Tag,
    context: &Context,
) -> miette::Result<()> {
    let checkout = channel.dir.join("checkout");
    channel.checkout(tag, &checkout, None)?;
    let project = match &args.project {
        Some(folder) if folder.is_absolute() || folder.starts_with("..") => {
            miette::bail!("`--project {}` is not in the repository", folder.display())
        }
        Some(folder) => checkout.join(folder),
        None => checkout.clone(),
    };
    let targets: Vec<Option<&String>> = match &args.target[..] {
        [] => vec![None],
        targets => targets.iter().map(Some).collect(),
    };
    let built = channel.dir.join("built");
    for target in targets {
        pytheas_durable::remove_tree(&built)
            .into_diagnostic()
            .wrap_err_with(|| format!("cannot remove `{}`", built.display()))?;
        let mut build = verb("build")?;
        build.arg(&project).arg("--out").arg(&built);
        build.args(["--release-version", tag.version.as_str()]);
        build.args(
            target
                .map(|target| ["--target".into(), target.clone()])
                .iter()
                .flatten(),
        );
        build.args(&args.build);
        succeed(&mut build, "build", context)?;
        let mut publish = verb("publish")?;
        publish.arg(&built).args(["--repo", &args.repo]);
        if let Some(keys) = &args.keys {
            publish.arg("--keys").arg(keys);
        }
        succeed(&mut publish, "publish", context)?;
    }
    let _next_time = [checkout.as_path(), &built].map(pytheas_durable::remove_tree);
    Ok(())
}

fn verb(name: &str) -> miette::Result<Command> {
    let program = std::env::current_exe()
        .into_diagnostic()
        .wrap_err("cannot find this program")?;
    let mut command = Command::new(program);
    command.args([name, "--quiet"]).stdin(Stdio::null());
    Ok(command)
}

fn succeed(command: &mut Command, what: &str, context: &Context) -> miette::Result<()> {
    context.note(format!("pytheas {what}"));
    command.stdout(Stdio::null());
    let status = command
        .status()
        .into_diagnostic()
        .wrap_err_with(|| format!("cannot start `pytheas {what}`"))?;
    if !status.success() {
        miette::bail!("`pytheas {what}` failed: {status}");
    }
    Ok(())
}
