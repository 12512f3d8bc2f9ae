//! `pytheas demo`: the main job on one machine, with real processes and nothing mocked.

mod processes;
mod story;
mod versions;

use std::{path::PathBuf, process::ExitCode};

use miette::{Context as _, IntoDiagnostic};

use crate::context::Context;

/// Show the whole way on this machine: build, sign, roll out, update, roll back
///
/// Starts a hub and three agents on loopback, builds the example app with its
/// own interpreter, installs 1.0.0, updates to 1.1.0 by delta, ships a broken
/// 1.2.0 to one canary and watches it roll back by itself. With a MicroPython at
/// hand a microcontroller's app goes the same way. Then stays up with the
/// dashboard until ctrl-C.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// Exit when the story is told; 0 only when every device ended in 1.1.0 and the roll-back was seen
    #[arg(long)]
    once: bool,
    /// Work in this folder and keep it [default: a temporary one, removed at the end]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// How many devices to start
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(2..=20))]
    devices: u32,
    /// Address for the hub
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    listen: String,
    #[command(flatten)]
    build: crate::commands::build::ToolArgs,
}

/// Tells the story.
pub(crate) fn run(args: &DemoArgs, context: &Context) -> miette::Result<ExitCode> {
    let temporary;
    let dir = match &args.dir {
        Some(dir) => {
            pytheas_durable::create_dir_all(dir)
                .into_diagnostic()
                .wrap_err_with(|| format!("cannot create `{}`", dir.display()))?;
            std::path::absolute(dir).into_diagnostic()?
        }
        None => {
            temporary = tempfile::Builder::new()
                .prefix("pytheas-demo-")
                .tempdir()
                .into_diagnostic()
                .wrap_err("cannot create a temporary folder")?;
            temporary.path().to_owned()
        }
    };
    if dir.join("hub").exists() {
        return Err(miette::miette!(
            help = "name another folder, or remove it",
            "`{}` holds an earlier demo",
            dir.display()
        ));
    }
    let told = story::tell(args, &dir, context);
    // Slots are read-only; a temporary folder's own removal would stumble over them.
    if args.dir.is_none() {
        context.note(format!("removing {}", dir.display()));
        let _best_effort = pytheas_durable::remove_tree(&dir);
    }
    told
}
