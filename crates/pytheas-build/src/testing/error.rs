//! What keeps tests from being run. Tests that fail are a report, no error.

use std::{io, path::PathBuf};

use miette::Diagnostic;
use pytheas_release::Platform;

use crate::error::BuildError;

/// Tests that were not run, or whose result counts for nothing.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum TestError {
    /// The artifact cannot be built.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Build(#[from] BuildError),
    /// The given artifact is none.
    #[error("`{}` is nothing that was built by pytheas: {reason}", path.display())]
    #[diagnostic(
        code(pytheas::test::built),
        help("give the folder that `pytheas build` made, or the program that `--one-file` made")
    )]
    Built {
        /// The path.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// No emulator.
    #[error("the tests are for `{platform}`, and `{program}` is not on this machine")]
    #[diagnostic(
        code(pytheas::test::no_emulator),
        help(
            "install Debian's package `qemu-user-static` (`apt install qemu-user-static`), or run the tests on such a machine"
        )
    )]
    NoEmulator {
        /// What is to be run.
        platform: Platform,
        /// The emulator's program.
        program: String,
    },
    /// The kernel does not start the emulator.
    #[error("the kernel of this machine does not start programs for `{platform}`")]
    #[diagnostic(
        code(pytheas::test::no_binfmt),
        help("let it start `{}` for them: on Debian install `qemu-user-static` and `binfmt-support` (as root, `systemctl restart systemd-binfmt`); from Linux 6.7 on it works without, where user namespaces are allowed", emulator.display())
    )]
    NoBinfmt {
        /// What is to be run.
        platform: Platform,
        /// The emulator.
        emulator: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// The artifact's interpreter does not start.
    #[error("cannot start `{}`", program.display())]
    #[diagnostic(
        code(pytheas::test::start),
        help(
            "a bundle for `linux-*-musl` needs musl's loader on this machine (Debian package `musl`)"
        )
    )]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The environment of a wheelhouse or wheel cannot be made.
    #[error("cannot make the environment `{}` of the {form}", dir.display())]
    #[diagnostic(
        code(pytheas::test::environment),
        help("what its interpreter says is above")
    )]
    Environment {
        /// Its folder.
        dir: PathBuf,
        /// The form.
        form: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// The command cannot be used.
    #[error("`command` of `[tool.pytheas.test]` is `{text}`: {reason}")]
    #[diagnostic(
        code(pytheas::test::command),
        help("write e.g. `pytest -q`, `python -m unittest`, or `python tests/run.py`")
    )]
    Command {
        /// The command.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No report from this runner.
    #[error("`{command}` gives no JUnit report")]
    #[diagnostic(
        code(pytheas::test::junit),
        help(
            "pytest and unittest do; leave out `--junit`, or change `command` in `[tool.pytheas.test]`"
        )
    )]
    Junit {
        /// The command.
        command: String,
    },
    /// The tests wrote into the artifact.
    #[error("the tests changed `{}`: {paths}", dir.display())]
    #[diagnostic(
        code(pytheas::test::changed),
        help(
            "a release is read-only on a device: let the app write to `PYTHEAS_DATA_DIR`, and tests to a temporary folder; build again before you ship it"
        )
    )]
    Changed {
        /// The artifact.
        dir: PathBuf,
        /// What changed.
        paths: String,
    },
    /// A form that has nothing to run.
    #[error("the form `{form}` cannot be tested")]
    #[diagnostic(
        code(pytheas::test::form),
        help("`pytheas test` knows `bundle` (also as one file), `wheelhouse` and `wheel`")
    )]
    Form {
        /// The form.
        form: String,
    },
}
