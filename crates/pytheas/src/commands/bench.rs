//! `pytheas bench`: what compiling the app's modules brings, measured.

use std::{io, path::PathBuf};

use pytheas_build::{BenchReport, BenchRequest, BuildRequest, Times, bench};
use pytheas_project::Project;
use pytheas_release::Platform;

use crate::{
    commands::build::{self, ToolArgs},
    context::Context,
    output::{Paint, Show},
};

/// Measure the app with and without its compiled modules
///
/// Builds the project twice, as it is and with `[tool.pytheas.compile]`, and
/// calls MODULE:CALLABLE (or a script of the app) in both by the same
/// interpreter, in turns, each in a process of its own. Imports are not
/// counted.
///
/// Examples: `pytheas bench greenhouse.bench:main`, `pytheas bench -n 20`
#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    /// What to run [default: `bench` in `[tool.pytheas.compile]`]
    #[arg(value_name = "MODULE:CALLABLE|SCRIPT")]
    what: Option<String>,
    /// Arguments for it
    #[arg(last = true, value_name = "ARGUMENT")]
    arguments: Vec<String>,
    /// The project
    #[arg(long, short = 'C', value_name = "PATH", default_value = ".")]
    project: PathBuf,
    /// Runs of each build
    #[arg(long, short = 'n', value_name = "NUMBER", default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    runs: u32,
    /// A target of `[tool.pytheas.target.NAME]`
    #[arg(long, short, value_name = "NAME")]
    target: Option<String>,
    /// The platform; others than this machine's run in an emulator
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    #[command(flatten)]
    tools: ToolArgs,
}

#[derive(serde::Serialize)]
#[serde(transparent)]
struct Shown(BenchReport);

impl Show for Shown {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        let report = &self.0;
        let row = |name: &str, times: &Times, ratio: String| {
            [
                name.to_owned(),
                format!("{} ± {}", shown(times.mean), shown(times.deviation)),
                shown(times.seconds.iter().copied().fold(f64::INFINITY, f64::min)),
                ratio,
            ]
        };
        out.fact("measured", &report.what)?;
        out.fact(
            "python",
            format!("CPython {} for {}", report.python, report.platform),
        )?;
        out.fact(
            "runs",
            format!("{} of each, in turns", report.plain.seconds.len()),
        )?;
        out.table(
            ["build", "mean ± sd", "best", "faster"],
            &[
                row("plain", &report.plain, "1.00×".to_owned()),
                row(
                    &report.with,
                    &report.compiled,
                    format!("{:.2}×", report.ratio),
                ),
            ],
        )
    }
}

/// Seconds for people: `1.234 s`, `12.34 ms`, `56.7 µs`.
fn shown(seconds: f64) -> String {
    if seconds >= 1.0 {
        format!("{seconds:.3} s")
    } else if seconds >= 1e-3 {
        format!("{:.2} ms", seconds * 1e3)
    } else {
        format!("{:.1} µs", seconds * 1e6)
    }
}

/// Measures.
pub(crate) fn run(args: &BenchArgs, context: &Context) -> miette::Result<()> {
    let project = Project::load(&args.project)?;
    let request = BenchRequest {
        build: BuildRequest {
            target: args.target.clone(),
            platform: args.platform.clone(),
            ..build::with_tools(project, &args.tools)
        },
        what: args.what.clone(),
        arguments: args.arguments.clone(),
        runs: args.runs,
    };
    let progress = context.progress();
    let report = bench(&request, &|event| build::show(&event, &progress, context))?;
    drop(progress);
    if report.emulated {
        context.warn(
            "this ran in an emulator: the times are not the device's, and their ratio may not be either",
        );
    }
    context.show(&Shown(report))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_unit_that_fits() {
        assert_eq!(shown(1.5), "1.500 s");
        assert_eq!(shown(0.0123), "12.30 ms");
        assert_eq!(shown(0.000_04), "40.0 µs");
    }
}
