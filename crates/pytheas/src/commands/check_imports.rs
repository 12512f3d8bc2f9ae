//! `pytheas check --imports`: what the start of the built app spends on imports, module by module.

use std::{io, path::Path, process::ExitCode, time::Duration};

use pytheas_build::{ImportReport, ImportRequest, measure_imports};
use pytheas_project::{Environment, Project};
use serde::Serialize;

use crate::{
    context::Context,
    exit,
    output::{Paint, Show, bytes},
};

/// How imports are measured.
#[derive(Debug, clap::Args)]
pub(crate) struct ImportsArgs {
    /// Run the entry point's imports in the built bundle (or in a virtual environment: DIR, else
    /// the project's `.venv` when nothing is built) and tell how long each took
    #[arg(long, conflicts_with_all = ["target", "platform", "treemap"])]
    pub(super) imports: bool,
    /// How often they are run; the least time of each counts
    #[arg(long, requires = "imports", default_value_t = 5, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Seconds that one run may take
    #[arg(long, requires = "imports", default_value_t = 120, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    report: ImportReport,
    #[serde(skip)]
    top: usize,
}

impl Show for Shown {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        let report = &self.report;
        let rows: Vec<_> = report
            .modules
            .iter()
            .take(self.top)
            .map(|module| {
                [
                    module.module.clone(),
                    module.package.clone(),
                    ms(module.self_us),
                    ms(module.cumulative_us),
                    module.size_bytes.map_or_else(String::new, bytes),
                    module.by.clone().unwrap_or_else(|| report.entry.clone()),
                ]
            })
            .collect();
        out.table(
            [
                "MODULE",
                "PACKAGE",
                "SELF",
                "WITH ITS OWN",
                "SIZE",
                "IMPORTED BY",
            ],
            &rows,
        )?;
        let rows: Vec<_> = report
            .packages
            .iter()
            .take(self.top)
            .map(|package| {
                [
                    package.package.clone(),
                    ms(package.self_us),
                    package.modules.to_string(),
                    bytes(package.size_bytes),
                ]
            })
            .collect();
        out.table(["PACKAGE", "SELF", "MODULES", "SIZE"], &rows)?;
        for hint in &report.hints {
            out.line(format!(
                "slow         `{}`: {}, {}",
                hint.what,
                ms(hint.cost_us),
                hint.text
            ))?;
        }
        let count = report.modules.len();
        out.fact(
            "imports",
            format!(
                "{} for {count} modules of {}, {} read",
                ms(report.total_us),
                report.entry,
                bytes(report.size_bytes)
            ),
        )?;
        out.fact(
            "before",
            format!(
                "{} for {} modules of Python's own start",
                ms(report.python_us),
                report.python_modules
            ),
        )?;
        out.fact("runs", format!("{}, the least of each counts", report.runs))
    }
}

/// Microseconds as `12.3 ms`.
fn ms(us: u64) -> String {
    format!("{}.{} ms", us / 1000, us % 1000 / 100)
}

impl ImportsArgs {
    /// Measures; the exit code says whether an import failed.
    pub(super) fn run(
        &self,
        dir: Option<&Path>,
        project: Project,
        top: usize,
        context: &Context,
    ) -> miette::Result<ExitCode> {
        let built = project.dir.join("dist").join(project.name.as_str());
        let places = [built, project.dir.join(".venv")];
        let dir = match dir {
            Some(dir) => dir.to_owned(),
            None => places.into_iter().find(|dir| dir.is_dir()).ok_or_else(|| {
                miette::miette!(
                    help = "`pytheas build` makes a bundle, `pytheas sync` an environment",
                    "there is neither a built tree nor a virtual environment of `{}` to measure imports in",
                    project.name
                )
            })?,
        };
        let request = ImportRequest {
            project: Some(project),
            dir,
            runs: self.runs,
            timeout: Duration::from_secs(self.timeout),
            environment: Environment::current(),
        };
        let progress = context.progress();
        let report = measure_imports(&request, &|step| progress.step(step))?;
        drop(progress);
        let failed = report.failed.clone();
        context.show(&Shown { report, top })?;
        let Some(failed) = failed else {
            return Ok(ExitCode::SUCCESS);
        };
        context.warn(format!(
            "an import of the entry point failed, what came before it is measured: {failed}"
        ));
        Ok(ExitCode::from(exit::USER))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_told_in_milliseconds() {
        assert_eq!(super::ms(12_345), "12.3 ms");
        assert_eq!(super::ms(7), "0.0 ms");
    }
}
