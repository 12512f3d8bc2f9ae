//! `pytheas board`: boards with MicroPython on this machine's ports.

mod deploy;
mod fs;
mod info;
mod inject;
mod list;
mod logs;
mod repl;
mod reset;
mod run;
mod setup;

use std::time::Duration;

use clap::Subcommand;
use pytheas_board::link::{Address, Board, Facts, Stop, ports, repl::Options};
use pytheas_project::Environment;
use pytheas_release::Sha256;

use crate::context::Context;

/// Verbs on boards.
#[derive(Debug, Subcommand)]
pub(crate) enum BoardCommand {
    List(list::ListArgs),
    Info(info::InfoArgs),
    Setup(setup::SetupArgs),
    Deploy(deploy::DeployArgs),
    Run(run::RunArgs),
    Repl(repl::ReplArgs),
    Logs(logs::LogsArgs),
    Reset(reset::ResetArgs),
    /// Work with a board's files
    #[command(subcommand)]
    Fs(fs::FsCommand),
    Inject(inject::InjectArgs),
}

/// Runs the verb.
pub(crate) fn run(command: &BoardCommand, context: &Context) -> miette::Result<()> {
    match command {
        BoardCommand::List(args) => list::run(args, context),
        BoardCommand::Info(args) => info::run(args, context),
        BoardCommand::Setup(args) => setup::run(args, context),
        BoardCommand::Deploy(args) => deploy::run(args, context),
        BoardCommand::Run(args) => run::run(args, context),
        BoardCommand::Repl(args) => repl::run(args, context),
        BoardCommand::Logs(args) => logs::run(args, context),
        BoardCommand::Reset(args) => reset::run(args, context),
        BoardCommand::Inject(args) => inject::run(args, context),
        BoardCommand::Fs(command) => fs::run(command, context),
    }
}

/// Which board, and how to get hold of it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct BoardArgs {
    /// The board's port: a path, `tcp://host:port` or `rfc2217://host:port` [default: the only
    /// board on USB]
    #[arg(long, short, env = "PYTHEAS_BOARD", value_name = "PORT")]
    port: Option<Address>,
    /// Rate of the line
    #[arg(long, default_value_t = 115_200, value_name = "BAUD")]
    baud: u32,
    /// How long to try to reach the REPL, in seconds
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    patience: u64,
    /// Wait for you to reset the board, and stop its program before it starts
    #[arg(long)]
    catch: bool,
}

impl BoardArgs {
    /// Opens the line. Ctrl-C then ends in order: the board is left in its friendly REPL.
    pub(crate) fn open(&self, context: &Context) -> miette::Result<Board> {
        let address = match &self.port {
            Some(address) => address.clone(),
            None => only_port()?,
        };
        if self.catch {
            context.note("press the board's reset button now");
        }
        let options = Options {
            baud: self.baud,
            patience: Duration::from_secs(self.patience),
            catch: self.catch,
            stop: stop_on_signal()?,
        };
        Ok(Board::open(&address, options)?)
    }

    /// Opens the line, enters the raw REPL, asks what the board is, and remembers it.
    pub(crate) fn ask(&self, context: &Context) -> miette::Result<(Board, Facts)> {
        let mut board = self.open(context)?;
        let facts = Facts::ask(&mut board)?;
        remember(board.port(), &facts);
        Ok((board, facts))
    }
}

fn only_port() -> miette::Result<Address> {
    let ports: Vec<_> = ports::list()
        .into_iter()
        .filter(|port| port.usb.is_some())
        .collect();
    match ports.as_slice() {
        [only] => Ok(Address::Serial(only.path.clone())),
        [] => Err(miette::miette!(
            code = "pytheas::board::none",
            help = "plug a board in, with a cable that carries data, or name its port: `--port PORT`, or `PYTHEAS_BOARD`",
            "no board is on USB"
        )),
        several => {
            let names: Vec<_> = several
                .iter()
                .map(|port| format!("`{}`", port.path.display()))
                .collect();
            Err(miette::miette!(
                code = "pytheas::board::several",
                help = "say which: `--port PORT`, or `PYTHEAS_BOARD`",
                "there are {} boards on USB: {}",
                several.len(),
                names.join(", ")
            ))
        }
    }
}

/// Set on Ctrl-C and SIGTERM.
fn stop_on_signal() -> miette::Result<Stop> {
    let stop = Stop::default();
    crate::signals::set(&stop.0)?;
    Ok(stop)
}

/// Keeps what the board is, for commands that need no board at hand: `boards/ID.json` in the cache.
fn remember(port: &str, facts: &Facts) {
    let name = match facts.id.as_str() {
        "" => {
            Sha256::of(format!("{port}\n{}", facts.machine).as_bytes()).to_string()[..16].to_owned()
        }
        id => id
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .take(64)
            .collect(),
    };
    let folder = Environment::current().cache_dir().join("boards");
    let text = serde_json::json!({"port": port, "facts": facts}).to_string();
    let kept = pytheas_durable::create_dir_all(&folder).and_then(|()| {
        pytheas_durable::replace(&folder.join(format!("{name}.json")), text.as_bytes())
    });
    if let Err(error) = kept {
        tracing::debug!(%error, "what the board is could not be kept");
    }
}
