//! `pytheas test`: the project's own tests inside what is shipped.

use std::{
    io,
    path::PathBuf,
    process::{ExitCode, Stdio},
};

use miette::{Context as _, IntoDiagnostic};
use pytheas_build::{BuildRequest, LockMode, Place, TestOutcome, TestReport, TestRequest};
use pytheas_release::Platform;
use serde::Serialize;

use crate::{
    commands::{
        build::{self, ToolArgs},
        input::InputArgs,
        test_on,
    },
    context::Context,
    output::{Paint, Show, duration},
};

/// Run the project's own tests inside what is shipped
///
/// Builds the target and runs the tests with its interpreter, its packages
/// and its copy of the app; under qemu-user for another CPU. The test tools
/// lie outside of it, and what it lacks stays missing for the app even if a
/// test tool brings the same. What is needed is a dependency group, an extra
/// or a requirements file called `test` or `dev`; `[tool.pytheas.test]` says
/// otherwise. Exit code 1 when a test fails.
///
/// Examples: `pytheas test --target gateway`,
/// `pytheas test --built dist/app.run --junit report.xml -- -k storage`
#[derive(Debug, clap::Args)]
pub(crate) struct TestArgs {
    #[command(flatten)]
    input: InputArgs,
    /// A target of `[tool.pytheas.target.NAME]`
    #[arg(long, short, value_name = "NAME")]
    pub(crate) target: Option<String>,
    /// Run the `unittest` tests there, again for several or with commas: `cpython`, `unix` or `unix:PROGRAM`
    /// (MicroPython), `wasm`, `qemu`, a serial port, `tcp://HOST:PORT`
    /// [default: inside what is shipped; for a `micropython` target unix]
    #[arg(long, value_name = "MACHINE", value_delimiter = ',', conflicts_with_all = ["built", "platform", "one_file"])]
    pub(crate) on: Vec<Place>,
    /// Seconds that a test may take there
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) timeout: u32,
    /// Test this instead of building: a bundle's or wheelhouse's folder, or a one-file bundle
    #[arg(long, value_name = "PATH", conflicts_with_all = ["form", "platform", "one_file"])]
    built: Option<PathBuf>,
    /// The form: bundle, wheelhouse or wheel
    #[arg(long, value_name = "FORM")]
    pub(crate) form: Option<String>,
    /// The platform, e.g. linux-aarch64 [default: the target's, else this machine's]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// Test the bundle as its one file unpacks it
    #[arg(long)]
    one_file: bool,
    /// Write a JUnit report
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// Fail when the lock file is missing or stale instead of writing it
    #[arg(long, conflicts_with = "frozen")]
    locked: bool,
    /// Use the lock file as it is, stale or not
    #[arg(long)]
    frozen: bool,
    #[command(flatten)]
    pub(crate) tools: ToolArgs,
    /// Arguments for the test runner
    #[arg(last = true, value_name = "ARG")]
    pub(crate) arguments: Vec<String>,
}

#[derive(Serialize)]
struct Shown<'a> {
    passed_tests: usize,
    failed_tests: usize,
    errors: usize,
    skipped_tests: usize,
    #[serde(flatten)]
    report: &'a TestReport,
}

impl Show for Shown<'_> {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        let report = self.report;
        out.fact(
            "tested",
            format!(
                "{} {}, {} for {}",
                report.name, report.version, report.form, report.platform
            ),
        )?;
        out.fact(
            "with",
            format!("CPython {}, {}", report.python, report.command),
        )?;
        if let Some(emulator) = &report.emulator {
            out.fact("under", emulator.display())?;
        }
        if let Some(id) = &report.tree_id {
            out.fact("tree", id)?;
        }
        if !report.tests.is_empty() {
            let mut parts = vec![format!("{} passed", self.passed_tests)];
            for (number, word) in [
                (self.failed_tests, "failed"),
                (self.errors, "errors"),
                (self.skipped_tests, "skipped"),
            ] {
                if number > 0 {
                    parts.push(format!("{number} {word}"));
                }
            }
            out.fact("tests", parts.join(", "))?;
        }
        out.fact(
            "took",
            duration(std::time::Duration::from_secs_f64(report.seconds)),
        )
    }
}

/// Runs the tests.
pub(crate) fn run(args: &TestArgs, context: &Context) -> miette::Result<ExitCode> {
    let project = args.input.load(context)?;
    if let Some(places) = test_on::places(args, &project)? {
        return test_on::run(args, project, &places, context);
    }
    let request = TestRequest {
        build: BuildRequest {
            target: args.target.clone(),
            form: args.form.clone(),
            platform: args.platform.clone(),
            lock: match (args.locked, args.frozen) {
                (true, _) => LockMode::Locked,
                (_, true) => LockMode::Frozen,
                _ => LockMode::Update,
            },
            ..build::with_tools(project, &args.tools)
        },
        built: args.built.clone(),
        one_file: args.one_file,
        junit: args.junit.clone(),
        arguments: args.arguments.clone(),
    };
    let progress = context.progress();
    let prepared = pytheas_build::prepare_tests(&request, &|event| {
        build::show(&event, &progress, context);
    })?;
    drop(progress);
    let stdout = if context.json {
        // Standard output is the report's alone.
        use std::os::fd::AsFd;
        let copy = io::stderr()
            .as_fd()
            .try_clone_to_owned()
            .into_diagnostic()
            .wrap_err("cannot hand on standard error")?;
        Stdio::from(copy)
    } else {
        Stdio::inherit()
    };
    let report = prepared.run(stdout)?;
    context.show(&Shown {
        passed_tests: report.count(&TestOutcome::Passed),
        failed_tests: report.count(&TestOutcome::Failed),
        errors: report.count(&TestOutcome::Error),
        skipped_tests: report.count(&TestOutcome::Skipped),
        report: &report,
    })?;
    if report.passed {
        return Ok(ExitCode::SUCCESS);
    }
    say_why(&report, context);
    Ok(ExitCode::from(crate::exit::USER))
}

/// What a reader of the runner's own output would not know.
fn say_why(report: &TestReport, context: &Context) {
    if report.exit_code == Some(5) && report.tests.is_empty() {
        context.warn("no tests were found: name their folder after `--`, or set `command` in `[tool.pytheas.test]`");
    }
    match report.exit_code {
        None => context.warn("a signal ended the test runner"),
        Some(code) if !report.is_whole => context.warn(format!(
            "the test runner was ended in the middle of the tests, with exit code {code} (`os._exit`?): how they went is not known"
        )),
        Some(_) => {}
    }
    if !report.cut.is_empty() {
        let names: Vec<String> = report
            .cut
            .iter()
            .map(|name| format!("\"{name}\""))
            .collect();
        let list: Vec<String> = report.cut.iter().map(|name| format!("`{name}`")).collect();
        context.warn(format!(
            "`slim` cut out {}; if the app needs it, say `keep = [{}]` in the target",
            list.join(", "),
            names.join(", ")
        ));
    }
    for name in report
        .missing
        .iter()
        .filter(|name| !report.cut.contains(name))
    {
        context.warn(format!(
            "`{name}` is not in what is shipped: add it to the app's dependencies if the app imports it, to the test group if only tests do"
        ));
    }
}
