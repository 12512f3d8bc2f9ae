//! Repository chores: `cargo xtask test [--all] [--no-install]`,
//! `cargo xtask micropython`, `cargo xtask size`, `cargo xtask cross`, `cargo xtask fuzz`.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a chore talks to a person"
)]

mod cross;
mod fuzz;
mod launcher;
mod micropython;
mod musl;
mod setup;
mod size;
mod steps;

use std::process::ExitCode;

const HELP: &str = "\
Repository chores

Usage: cargo xtask <COMMAND>

Commands:
  test   Set up what the tests need, then run every check and test
  micropython   Make the MicroPython that tests run against in `target/tools/micropython`
  launcher   Compile the launcher for all CPUs into `launcher/machine/`
  size   Build the device agent as it is shipped and print its size
  fuzz   [--minutes N] [TARGET …]: the fuzz targets under libFuzzer, one minute each
  cross  Build it for aarch64 and armv7 too (needs root, minutes, 3 GB once)

Options of `test`:
  --all          also the heavy suites
  --no-install   install nothing; what is missing is skipped, visibly
  --advisories   also check security advisories (fetches their database)
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("fuzz", rest)) = args.split_first().map(|(verb, rest)| (verb.as_str(), rest)) {
        return fuzz::run(rest);
    }
    let flag = |name: &str| args.iter().any(|arg| arg == name);
    let known = ["--all", "--no-install", "--advisories"];
    if let Some(odd) = args
        .iter()
        .skip(1)
        .find(|arg| !known.contains(&arg.as_str()))
    {
        eprintln!("error: unknown option `{odd}`\n\n{HELP}");
        return ExitCode::from(2);
    }
    match args.first().map(String::as_str) {
        Some("test") => steps::test(&steps::Options {
            all: flag("--all"),
            install: !flag("--no-install"),
            advisories: flag("--advisories"),
        }),
        Some("launcher") => launcher::write(),
        Some("micropython") => {
            let root = steps::root();
            setup::run(&root, !flag("--no-install"));
            micropython::make(&root, !flag("--no-install"));
            ExitCode::SUCCESS
        }
        Some("size") => size::report(),
        Some("cross") => cross::report(),
        _ => {
            print!("{HELP}");
            ExitCode::from(2)
        }
    }
}
