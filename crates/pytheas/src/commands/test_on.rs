//! `pytheas test --on …`: the project's `unittest` tests on other machines, one report over all.

use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use pytheas_build::{OnReport, OnRequest, Place, TestOutcome};
use pytheas_project::{Environment, Project};
use serde::Serialize;

use crate::{
    commands::test::TestArgs,
    context::Context,
    output::{Paint, Show, duration},
};

#[derive(Serialize)]
struct Shown<'a> {
    passed: bool,
    runs: Vec<ShownRun<'a>>,
}

#[derive(Serialize)]
struct ShownRun<'a> {
    passed_tests: usize,
    failed_tests: usize,
    errors: usize,
    skipped_tests: usize,
    #[serde(flatten)]
    report: &'a OnReport,
}

impl Show for Shown<'_> {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        for run in &self.runs {
            for test in &run.report.tests {
                let word = match test.outcome {
                    TestOutcome::Failed => "FAILED",
                    TestOutcome::Error => "ERROR",
                    TestOutcome::Passed | TestOutcome::Skipped => continue,
                };
                out.line(format_args!("{word} {} on {}", test.name, run.report.on))?;
                for line in test.text.trim_end().lines() {
                    out.line(format_args!("    {line}"))?;
                }
            }
        }
        for run in &self.runs {
            let mut parts = vec![format!("{} passed", run.passed_tests)];
            for (number, word) in [
                (run.failed_tests, "failed"),
                (run.errors, "errors"),
                (run.skipped_tests, "skipped"),
            ] {
                if number > 0 {
                    parts.push(format!("{number} {word}"));
                }
            }
            let time = duration(Duration::from_secs_f64(run.report.seconds));
            let parts = parts.join(", ");
            out.fact(
                &run.report.on,
                format!("{parts} in {time} ({})", run.report.machine),
            )?;
        }
        Ok(())
    }
}

/// The machines, where the tests are not for what is shipped for Linux.
pub(crate) fn places(args: &TestArgs, project: &Project) -> miette::Result<Option<Vec<Place>>> {
    let target = project.target(args.target.as_deref())?;
    let form = args.form.as_deref().or(target.form.as_deref());
    let is_board = form == Some("micropython");
    Ok(match args.on.as_slice() {
        [] if is_board => Some(vec![Place::Unix(None)]),
        [] => None,
        [Place::CPython] if !is_board => None,
        places => Some(places.to_vec()),
    })
}

/// Runs them on each.
pub(crate) fn run(
    args: &TestArgs,
    project: Project,
    places: &[Place],
    context: &Context,
) -> miette::Result<ExitCode> {
    let request = OnRequest {
        project,
        target: args.target.clone(),
        timeout: Duration::from_secs(args.timeout.into()),
        patterns: patterns(&args.arguments)?,
        connectivity: args.tools.connectivity(),
        environment: Environment::current(),
    };
    let mut reports = Vec::new();
    let mut broken = None;
    for place in places {
        let progress = context.progress();
        progress.step(format!("testing on {place}"));
        let report = pytheas_build::test_on(&request, place, &mut |text| {
            progress.suspend(|| {
                let text = crate::output::harmless(text, false);
                // Standard output is the report's alone when it is JSON.
                let _closed_pipe = if context.json {
                    io::stderr().write_all(text.as_bytes())
                } else {
                    io::stdout().write_all(text.as_bytes())
                };
            });
        });
        drop(progress);
        // One machine that is missing keeps the tests from no other.
        reports.push(match report {
            Ok(report) => report,
            Err(error) if error.is_of_project() => return Err(error.into()),
            Err(error) => {
                let why = crate::report::render(&error, false);
                broken = Some(error);
                OnReport::not_run(place, why)
            }
        });
    }
    if let Some(file) = &args.junit {
        pytheas_build::write_junit(&reports, file)?;
    }
    if let (Some(error), [_]) = (broken, places) {
        return Err(error.into());
    }
    let passed = reports.iter().all(|report| report.passed);
    context.show(&Shown {
        passed,
        runs: reports
            .iter()
            .map(|report| ShownRun {
                passed_tests: report.count(&TestOutcome::Passed),
                failed_tests: report.count(&TestOutcome::Failed),
                errors: report.count(&TestOutcome::Error),
                skipped_tests: report.count(&TestOutcome::Skipped),
                report,
            })
            .collect(),
    })?;
    for note in reports.iter().flat_map(|report| &report.notes) {
        context.warn(note);
    }
    for report in reports.iter().filter(|report| report.tests.is_empty()) {
        context.warn(format!("no test was run on `{}`", report.on));
    }
    Ok(if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(crate::exit::USER)
    })
}

/// `-k PATTERN …`.
fn patterns(arguments: &[String]) -> miette::Result<Vec<String>> {
    let mut patterns = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let pattern = match argument.strip_prefix("-k") {
            Some("") => rest.next().cloned(),
            Some(joined) => Some(joined.to_owned()),
            None => None,
        };
        patterns.push(pattern.ok_or_else(|| {
            miette::miette!(
                code = "pytheas::test::argument",
                help =
                    "with `--on`, write `-- -k PATTERN`; a test is run when its name contains one",
                "`{argument}` is no choice of tests"
            )
        })?);
    }
    Ok(patterns)
}
