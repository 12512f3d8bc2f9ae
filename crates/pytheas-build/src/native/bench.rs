//! `pytheas bench`: what compiling brings. The app is built as it is and with its modules
//! compiled; both are run in turns by the same interpreter, each run in a process of its own.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use miette::Diagnostic;
use pytheas_release::Platform;
use serde::Serialize;

use super::error::{Said, io_error};
use crate::{
    build::{BuildRequest, Built, build},
    bytecode::Runner,
    error::BuildError,
    event::Observer,
};

/// Calls what is measured, after its module was imported; the time goes into a file, since the
/// standard streams are the app's.
const SCRIPT: &str = r#"
import importlib, runpy, sys, time
answer, what = sys.argv[1:3]
sys.argv[:] = [what, *sys.argv[3:]]
module, _, name = what.partition(":")
if name:
    call = importlib.import_module(module)
    for part in name.split("."):
        call = getattr(call, part)
else:
    call = lambda: runpy.run_path(what, run_name="__main__")
start = time.perf_counter()
call()
seconds = time.perf_counter() - start
with open(answer, "w") as file:
    file.write(repr(seconds))
"#;

/// What is measured, and how often.
#[derive(Debug, Clone)]
pub struct BenchRequest {
    /// The build; its project says which modules are compiled.
    pub build: BuildRequest,
    /// `module:callable`, or a script of the app; else what the project says.
    pub what: Option<String>,
    /// Arguments for it (`sys.argv`).
    pub arguments: Vec<String>,
    /// Runs of each build.
    pub runs: u32,
}

/// The times of one build.
#[derive(Debug, Clone, Serialize)]
pub struct Times {
    /// Each run, in seconds, in their order.
    pub seconds: Vec<f64>,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation (of the sample).
    pub deviation: f64,
}

impl Times {
    fn of(seconds: Vec<f64>) -> Self {
        let count = f64::from(u32::try_from(seconds.len()).unwrap_or(u32::MAX)).max(1.0);
        let mean = seconds.iter().sum::<f64>() / count;
        let squares: f64 = seconds.iter().map(|time| (time - mean).powi(2)).sum();
        let deviation = if seconds.len() > 1 {
            (squares / (count - 1.0)).sqrt()
        } else {
            0.0
        };
        Self {
            seconds,
            mean,
            deviation,
        }
    }
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct BenchReport {
    /// What was called.
    pub what: String,
    /// `cython` or `mypyc`.
    pub with: String,
    /// The platform of both builds.
    pub platform: Platform,
    /// The interpreter's version.
    pub python: String,
    /// Whether it ran in an emulator: its times are not the device's, nor is their ratio.
    pub emulated: bool,
    /// The app as it is.
    pub plain: Times,
    /// With its modules compiled.
    pub compiled: Times,
    /// How many times faster the compiled one is, by the means.
    pub ratio: f64,
}

/// Nothing was measured.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum BenchError {
    /// Nothing is compiled.
    #[error("the project compiles no modules, so there is nothing to compare")]
    #[diagnostic(
        code(pytheas::bench::none),
        help("name modules: `[tool.pytheas.compile] modules = [\"package.module\"]`")
    )]
    None,
    /// Nobody says what to run.
    #[error("nothing says what to run")]
    #[diagnostic(
        code(pytheas::bench::what),
        help(
            "give `MODULE:CALLABLE` or a script of the app, or set `bench` in `[tool.pytheas.compile]`"
        )
    )]
    What,
    /// It does not run on this machine.
    #[error("bundles for `{platform}` cannot be run on this machine")]
    #[diagnostic(
        code(pytheas::bench::platform),
        help(
            "install qemu-user (`qemu-user-static`) and use `--interpreter debian`, or measure on the device"
        )
    )]
    Platform {
        /// The platform.
        platform: Platform,
    },
    /// It fails.
    #[error("`{what}` fails in the {build} build")]
    #[diagnostic(
        code(pytheas::bench::failed),
        help(
            "run it by itself first: `{python} -c …`, or correct `bench` in `[tool.pytheas.compile]`"
        )
    )]
    Failed {
        /// What was called.
        what: String,
        /// Which build.
        build: &'static str,
        /// The bundle's Python, as a hint.
        python: &'static str,
        /// What it says.
        source: Said,
    },
}

/// Builds twice and measures.
///
/// # Errors
/// [`BenchError`] in a [`BuildError`], or what a build says.
pub fn bench(request: &BenchRequest, observer: Observer<'_>) -> Result<BenchReport, BuildError> {
    let Some(spec) = request.build.project.settings.compile.clone() else {
        return Err(BenchError::None.into());
    };
    let what = request
        .what
        .clone()
        .or(spec.bench)
        .ok_or(BenchError::What)?;
    let scratch = tempfile::tempdir().map_err(crate::error::io_error(
        "make a folder in",
        &std::env::temp_dir(),
    ))?;
    let make = |name: &str, compiled: bool| -> Result<Built, BuildError> {
        let mut one = request.build.clone();
        one.form = Some("bundle".to_owned());
        one.out = Some(scratch.path().join(name));
        if !compiled {
            one.project.settings.compile = None;
        }
        build(&one, observer)
    };
    let builds = [
        ("plain", make("plain", false)?),
        ("compiled", make("compiled", true)?),
    ];
    let environment = &request.build.environment;
    let mut runners = Vec::new();
    for (name, built) in &builds {
        let runner = built
            .interpreter
            .runner_at(&built.dir.join("python"), environment);
        let Some(runner) = runner else {
            return Err(BenchError::Platform {
                platform: built.record.platform.clone(),
            }
            .into());
        };
        runners.push((*name, built, runner));
    }
    let answer = scratch.path().join("seconds");
    let mut seconds = [Vec::new(), Vec::new()];
    for _ in 0..request.runs.max(1) {
        for (index, (name, built, runner)) in runners.iter().enumerate() {
            seconds[index].push(one_run(request, &what, name, &built.dir, runner, &answer)?);
        }
    }
    let [plain, compiled] = seconds.map(Times::of);
    let (_, built) = &builds[1];
    Ok(BenchReport {
        what,
        with: spec.with.as_str().to_owned(),
        platform: built.record.platform.clone(),
        python: built.interpreter.version.clone(),
        emulated: !built.interpreter.runs_here(),
        ratio: plain.mean / compiled.mean.max(f64::MIN_POSITIVE),
        plain,
        compiled,
    })
}

fn one_run(
    request: &BenchRequest,
    what: &str,
    build: &'static str,
    dir: &Path,
    runner: &Runner,
    answer: &Path,
) -> Result<f64, BuildError> {
    let script: PathBuf = dir.join("app").join(what);
    let what_given = if what.contains(':') {
        what.to_owned()
    } else {
        script.display().to_string()
    };
    let output = request
        .build
        .environment
        .python(&runner.program)
        .args(&runner.arguments)
        .args(["-I", "-B", "-c", SCRIPT])
        .arg(answer)
        .arg(&what_given)
        .args(&request.arguments)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .map_err(io_error("start", &runner.program))?;
    let text = std::fs::read_to_string(answer).unwrap_or_default();
    let _ = std::fs::remove_file(answer);
    match text.trim().parse::<f64>() {
        Ok(seconds) if output.status.success() => Ok(seconds),
        _ => {
            let said = String::from_utf8_lossy(&output.stderr);
            let lines: Vec<&str> = said.lines().collect();
            let end = lines[lines.len().saturating_sub(12)..].join("\n");
            let said = if end.is_empty() {
                format!("it ended with {}", output.status)
            } else {
                end
            };
            Err(BenchError::Failed {
                what: what.to_owned(),
                build,
                python: "python/bin/python3",
                source: Said(said),
            }
            .into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_deviation_are_those_of_the_sample() {
        let times = Times::of(vec![1.0, 2.0, 3.0]);
        assert_eq!((times.mean, times.deviation), (2.0, 1.0));
        assert_eq!(Times::of(vec![4.0]).deviation, 0.0);
    }
}
