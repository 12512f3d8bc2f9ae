//! The checks and tests, one after the other, and the counts at the end.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Instant,
};

use crate::{cross, micropython, musl, setup};

pub(crate) struct Options {
    pub(crate) all: bool,
    pub(crate) install: bool,
    pub(crate) advisories: bool,
}

/// How a runner's closing line looks. Each has its own: nextest shows what a failed test printed,
/// and there stands a closing line as of `cargo test`, which would count the failure twice.
#[derive(Debug, Clone, Copy)]
enum Closing {
    Nextest,
    CargoTest,
    Pytest,
}

impl Closing {
    fn is(self, line: &str) -> bool {
        match self {
            Self::Nextest => line.starts_with("Summary ["),
            Self::CargoTest => line.starts_with("test result:"),
            Self::Pytest => {
                line.contains(" in ")
                    && line.ends_with('s')
                    && (line.contains(" passed") || line.contains(" failed"))
            }
        }
    }
}

/// How the run stands.
#[derive(Default)]
struct Tally {
    failed_steps: Vec<&'static str>,
    passed: u64,
    failed: u64,
    skipped: u64,
}

pub(crate) fn test(options: &Options) -> ExitCode {
    let root = root();
    let begun = Instant::now();
    setup::run(&root, options.install);
    micropython::make(&root, options.install);
    if options.all && options.install {
        musl::make(&root);
    }
    let arm_agents = options.all && options.install && cross::build(&root);

    let skip_log = root.join("target/skips.txt");
    let _none_yet = std::fs::remove_file(&skip_log);
    let faults_log = root.join("target/faults.txt");
    let _none_yet = std::fs::remove_file(&faults_log);
    let mut tally = Tally::default();
    let cargo = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO"));
        command
            .args(args)
            .current_dir(&root)
            .env("PYTHEAS_SKIP_LOG", &skip_log)
            .env("PYTHEAS_FAULTS_LOG", &faults_log);
        command.env(
            "PYTHEAS_TEST_PYTUF",
            setup::tools_dir(&root).join("bin/python"),
        );
        if options.all {
            command.env("PYTHEAS_TEST_ALL", "1");
        }
        if arm_agents {
            command.env("PYTHEAS_TEST_CROSS", cross::folder(&root));
        }
        command
    };

    tally.step("formatting", &mut cargo(&["fmt", "--all", "--check"]));
    tally.step(
        "clippy",
        &mut cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ]),
    );
    deny(&root, options, &mut tally);
    if setup::on_path("cargo-nextest") {
        tally.tests(
            "tests",
            Closing::Nextest,
            &mut cargo(&["nextest", "run", "--workspace", "--no-fail-fast"]),
        );
    } else {
        let args = [
            "test",
            "--workspace",
            "--lib",
            "--bins",
            "--tests",
            "--no-fail-fast",
        ];
        tally.tests("tests", Closing::CargoTest, &mut cargo(&args));
    }
    tally.tests(
        "examples in the documentation",
        Closing::CargoTest,
        &mut cargo(&["test", "--workspace", "--doc"]),
    );
    greenhouse(&root, options, &mut tally);

    let skips = std::fs::read_to_string(&skip_log).unwrap_or_default();
    for line in skips.lines() {
        println!("SKIPPED: {line}");
    }
    for line in std::fs::read_to_string(&faults_log)
        .unwrap_or_default()
        .lines()
    {
        println!("FAULTS: {line}");
    }
    tally.skipped += skips.lines().count() as u64;
    // A skipped test returned early and was counted as passed by its runner.
    tally.passed = tally.passed.saturating_sub(skips.lines().count() as u64);
    for step in &tally.failed_steps {
        println!("FAILED: {step}");
    }
    println!("took {} s", begun.elapsed().as_secs());
    let failed = tally.failed.max(tally.failed_steps.len() as u64);
    println!(
        "{} passed, {failed} failed, {} skipped",
        tally.passed, tally.skipped
    );
    if failed == 0 && tally.passed > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn deny(root: &Path, options: &Options, tally: &mut Tally) {
    let own = setup::tools_dir(root).join("bin/cargo-deny");
    let program = if own.exists() {
        own
    } else {
        PathBuf::from("cargo-deny")
    };
    if !program.is_absolute() && !setup::on_path("cargo-deny") {
        println!("SKIPPED: cargo deny is not installed");
        tally.skipped += 1;
        return;
    }
    let mut command = Command::new(program);
    command
        .current_dir(root)
        .args(["--log-level", "error", "check"]);
    command.args(if options.advisories {
        &["all"][..]
    } else {
        &["bans", "licenses", "sources"]
    });
    tally.step("cargo deny", &mut command);
}

/// The example app's own tests, in an environment of their own.
fn greenhouse(root: &Path, options: &Options, tally: &mut Tally) {
    let example = root.join("examples/greenhouse");
    let venv = root.join("target/greenhouse-venv");
    let python = venv.join("bin/python");
    if !python.exists() {
        if !options.install {
            println!("SKIPPED: greenhouse's pytest (no environment, --no-install)");
            tally.skipped += 1;
            return;
        }
        tally.step(
            "environment for greenhouse",
            Command::new("python3").args(["-m", "venv"]).arg(&venv),
        );
        tally.step(
            "greenhouse and its dependencies",
            Command::new(&python)
                .args(["-m", "pip", "install", "-q", "-e"])
                .arg(&example)
                .arg("pytest>=8"),
        );
    }
    let mut command = Command::new(&python);
    command
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"])
        .current_dir(&example)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    tally.tests("greenhouse's pytest", Closing::Pytest, &mut command);
}

impl Tally {
    /// A check: good or not.
    fn step(&mut self, name: &'static str, command: &mut Command) {
        println!("== {name}");
        let begun = Instant::now();
        let good = match command.status() {
            Ok(status) => status.success(),
            Err(error) => {
                println!("{command:?} cannot be started: {error}");
                false
            }
        };
        println!(
            "== {name}: {} ({} s)",
            if good { "ok" } else { "FAILED" },
            begun.elapsed().as_secs()
        );
        if !good {
            self.failed_steps.push(name);
        }
    }

    /// A test runner, whose closing line is counted.
    fn tests(&mut self, name: &'static str, closing: Closing, command: &mut Command) {
        use std::io::{BufRead, BufReader};
        println!("== {name}");
        let begun = Instant::now();
        // Runners count on different streams; a shell joins them without loss of order.
        let mut joined = Command::new("sh");
        joined
            .args(["-c", "exec \"$0\" \"$@\" 2>&1"])
            .arg(command.get_program());
        joined.args(command.get_args());
        if let Some(dir) = command.get_current_dir() {
            joined.current_dir(dir);
        }
        for (key, value) in command.get_envs() {
            if let Some(value) = value {
                joined.env(key, value);
            }
        }
        let Ok(mut child) = joined.stdout(std::process::Stdio::piped()).spawn() else {
            self.failed_steps.push(name);
            return;
        };
        if let Some(stdout) = child.stdout.take() {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                println!("{line}");
                self.count(closing, &line);
            }
        }
        let good = child.wait().is_ok_and(|status| status.success());
        println!(
            "== {name}: {} ({} s)",
            if good { "ok" } else { "FAILED" },
            begun.elapsed().as_secs()
        );
        if !good {
            self.failed_steps.push(name);
        }
    }

    /// Adds a line of a runner's, if it is the closing one.
    fn count(&mut self, closing: Closing, line: &str) {
        let plain = line.trim();
        if !closing.is(plain) {
            return;
        }
        let words: Vec<&str> = plain
            .split(|c: char| !c.is_alphanumeric())
            .filter(|w| !w.is_empty())
            .collect();
        for pair in words.windows(2) {
            let Ok(number) = pair[0].parse::<u64>() else {
                continue;
            };
            match pair[1] {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }
}

/// The repository's root: where the workspace's `Cargo.toml` is.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_counts_once_though_the_test_says_it_too() {
        let mut tally = Tally::default();
        for line in [
            "        FAIL [   0.004s] (1/3) xtask it::fails",
            "  stdout ───",
            "    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 9 filtered out; finished in 0.00s",
            "     Summary [   1.204s] 3 tests run: 2 passed (1 slow), 1 failed, 4 skipped",
        ] {
            tally.count(Closing::Nextest, line);
        }
        assert_eq!((tally.passed, tally.failed), (2, 1));
        tally.count(
            Closing::CargoTest,
            "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
        );
        tally.count(Closing::Pytest, "1 failed, 7 passed in 0.12s");
        tally.count(Closing::Pytest, "2 failed in 0.12s");
        assert_eq!((tally.passed, tally.failed, tally.skipped), (14, 4, 1));
    }
}
