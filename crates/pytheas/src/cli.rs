//! The command line: verbs and the flags every verb takes.

use clap::{Args, Parser, Subcommand};

use crate::{commands, context::Context, output::Color};

/// Takes Python to the edge: lock, build, sign, publish, update and watch fleets
#[derive(Debug, Parser)]
#[command(name = "pytheas", version, infer_long_args = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every verb.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Print JSON instead of text
    #[arg(long, global = true)]
    json: bool,
    /// Print results and errors only
    #[arg(long, short, global = true)]
    quiet: bool,
    /// Say more on standard error; twice for everything
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// When to use colour
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        env = "PYTHEAS_COLOR"
    )]
    color: Color,
}

impl Global {
    /// What commands are handed.
    pub(crate) fn context(&self) -> Context {
        Context {
            json: self.json,
            quiet: self.quiet,
            color: self.color,
            steps: true,
        }
    }

    /// Sends logs to standard error; `PYTHEAS_LOG` picks them as `RUST_LOG` would.
    pub(crate) fn start_logging(&self) {
        let default = match self.verbose {
            0 => "warn,pytheas_hub=info,pytheas_agent=info",
            1 => "info",
            _ => "debug",
        };
        let wanted = std::env::var("PYTHEAS_LOG").unwrap_or_default();
        let wanted = Some(wanted.trim()).filter(|wanted| !wanted.is_empty());
        let parsed = wanted.map(tracing_subscriber::EnvFilter::try_new);
        let wrong = parsed.as_ref().and_then(|parsed| parsed.as_ref().err());
        let wrong = wrong.map(ToString::to_string);
        let filter = parsed
            .and_then(Result::ok)
            .unwrap_or_else(|| tracing_subscriber::EnvFilter::new(default));
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(self.color.on_stderr())
            .with_target(false)
            .init();
        if let (Some(wanted), Some(wrong)) = (wanted, wrong) {
            tracing::warn!(
                "PYTHEAS_LOG={wanted:?} is not understood ({wrong}) and has no effect; write e.g. `PYTHEAS_LOG=info,pytheas_hub=debug`"
            );
        }
    }
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Lock(commands::lock::LockArgs),
    Sync(commands::sync::SyncArgs),
    Build(commands::build::BuildArgs),
    Bench(commands::bench::BenchArgs),
    /// Look after MicroPython boards
    #[command(subcommand)]
    Board(commands::board::BoardCommand),
    /// See how large the cache is, and make it smaller
    #[command(subcommand)]
    Cache(commands::cache::CacheCommand),
    Sbom(commands::sbom::SbomArgs),
    Licences(commands::licences::LicencesArgs),
    Audit(commands::audit::AuditArgs),
    /// See where a built artifact came from
    #[command(subcommand)]
    Provenance(commands::provenance::ProvenanceCommand),
    Why(commands::why::WhyArgs),
    Traceback(commands::traceback::TracebackArgs),
    Check(commands::check::CheckArgs),
    Test(commands::test::TestArgs),
    Run(commands::run_app::RunArgs),
    /// Make and show signing keys
    #[command(subcommand)]
    Keys(commands::keys::KeysCommand),
    Publish(commands::publish::PublishArgs),
    Export(commands::export::ExportArgs),
    Follow(commands::follow::FollowArgs),
    Hub(commands::hub::HubRunArgs),
    Agent(commands::agent::AgentArgs),
    /// See and admit devices
    #[command(subcommand)]
    Device(commands::device::DeviceCommand),
    /// Bring releases to devices
    #[command(subcommand)]
    Rollout(commands::rollout::RolloutCommand),
    /// Set what apps on devices are configured with
    #[command(subcommand)]
    Config(commands::config::ConfigCommand),
    /// Make and revoke tokens for the hub
    #[command(subcommand)]
    Token(commands::token::TokenCommand),
    /// Make keys that admit devices without a person
    #[command(subcommand)]
    EnrolmentKey(commands::enrolment_key::EnrolmentKeyCommand),
    /// Upload plain files for other DDI clients
    #[command(subcommand)]
    Artifact(commands::artifact::ArtifactCommand),
    Releases(commands::releases::ReleasesArgs),
    Traffic(commands::traffic::TrafficArgs),
    /// Look after a repository
    #[command(subcommand)]
    Repo(commands::repo::RepoCommand),
    /// Make and apply deltas by hand
    #[command(subcommand)]
    Delta(commands::delta::DeltaCommand),
    Login(commands::login::LoginArgs),
    Logout(commands::login::LogoutArgs),
    Demo(commands::demo::DemoArgs),
    Completions(commands::completions::CompletionsArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        super::Cli::command().debug_assert();
    }
}
