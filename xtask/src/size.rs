//! `cargo xtask size`: the device agent as it is shipped, and how large it is.

use std::process::{Command, ExitCode};

use crate::steps::root;

pub(crate) fn report() -> ExitCode {
    let root = root();
    let built = Command::new(env!("CARGO"))
        .args(["build", "--profile", "agent", "--package", "pytheas-agent"])
        .current_dir(&root)
        .status()
        .is_ok_and(|status| status.success());
    let path = root.join("target/agent/pytheas-agent");
    match std::fs::metadata(&path) {
        Ok(metadata) if built => {
            println!("{}: {} bytes", path.display(), metadata.len());
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("error: the agent was not built");
            ExitCode::FAILURE
        }
    }
}
