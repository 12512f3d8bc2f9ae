//! `cargo xtask fuzz [--minutes N] [TARGET …]`: the targets of `fuzz/` under libFuzzer, one after the
//! other, with the stable compiler.
//!
//! No cargo-fuzz and no nightly: what they add for code without `unsafe` is the coverage pass, and
//! its flags are stable. Built with the versions of the repository's own `Cargo.lock`. All is kept in
//! `target/fuzz/`: `corpus/TARGET` (grows from run to run), `artifacts/TARGET` (inputs that crashed),
//! `TARGET.log`. Memory is limited, so that a hostile length that is believed is a crash.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use crate::steps::root;

/// What one process may hold, in MiB: 30 are the fuzzer's own, twice 20 the worst that a hostile
/// delta may ask for, the rest libFuzzer's corpus and tables.
const RSS_LIMIT_MB: u32 = 512;
/// The largest single allocation, in MiB.
const MALLOC_LIMIT_MB: u32 = 64;
/// One input may take this many seconds, on a machine with other work.
const TIMEOUT_S: u32 = 120;

/// Counters and comparisons for libFuzzer. `start-stop-gc` would throw the counters away.
const COVERAGE: [&str; 8] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Clink-arg=-Wl,-z,nostart-stop-gc",
    "-Ccodegen-units=1",
    "--cfg=fuzzing",
];

pub(crate) fn run(args: &[String]) -> ExitCode {
    let (minutes, mut targets) = match parse(args) {
        Ok(parsed) => parsed,
        Err(why) => {
            eprintln!("error: {why}\n\nUsage: cargo xtask fuzz [--minutes N] [TARGET …]");
            return ExitCode::from(2);
        }
    };
    let root = root();
    let all = match all_targets(&root) {
        Ok(all) => all,
        Err(error) => {
            eprintln!("error: cannot list `fuzz/fuzz_targets`: {error}");
            return ExitCode::FAILURE;
        }
    };
    if let Some(odd) = targets.iter().find(|target| !all.contains(target)) {
        eprintln!(
            "error: there is no fuzz target `{odd}`; there are {}",
            all.join(", ")
        );
        return ExitCode::from(2);
    }
    if targets.is_empty() {
        targets = all;
    }
    let Some(programs) = build(&root, &targets) else {
        eprintln!("error: the fuzz targets were not built");
        return ExitCode::FAILURE;
    };
    let time = Duration::from_secs_f64(minutes * 60.0);
    let crashed: Vec<&String> = targets
        .iter()
        .filter(|target| !fuzz(&root, &programs, target, time))
        .collect();
    if crashed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Minutes for each target, and the targets.
fn parse(args: &[String]) -> Result<(f64, Vec<String>), String> {
    let mut minutes = 1.0;
    let mut targets = Vec::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--minutes" => {
                let number = args.next().ok_or("`--minutes` needs a number")?;
                minutes = number
                    .parse()
                    .ok()
                    .filter(|minutes| (0.01..100_000.0).contains(minutes))
                    .ok_or_else(|| format!("`{number}` is no number of minutes"))?;
            }
            option if option.starts_with('-') => return Err(format!("unknown option `{option}`")),
            target => targets.push(target.to_owned()),
        }
    }
    Ok((minutes, targets))
}

fn all_targets(root: &Path) -> std::io::Result<Vec<String>> {
    let mut all: Vec<String> = fs::read_dir(root.join("fuzz/fuzz_targets"))?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter_map(|name| Some(name.strip_suffix(".rs")?.to_owned()))
        .collect();
    all.sort();
    Ok(all)
}

/// The folder with the programs.
fn build(root: &Path, targets: &[String]) -> Option<PathBuf> {
    // The very versions that are shipped; cargo adds libFuzzer's to them.
    if let Err(error) = fs::copy(root.join("Cargo.lock"), root.join("fuzz/Cargo.lock")) {
        eprintln!("error: cannot write `fuzz/Cargo.lock`: {error}");
        return None;
    }
    // With a target of its own name, or build scripts would get the flags as well.
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let folder = root.join("target/fuzz");
    let mut command = Command::new(env!("CARGO"));
    command
        .args(["build", "--release", "--target", &host])
        .arg("--manifest-path")
        .arg(root.join("fuzz/Cargo.toml"))
        .arg("--target-dir")
        .arg(&folder)
        .env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\x1f"));
    for target in targets {
        command.args(["--bin", target]);
    }
    let built = command.status().is_ok_and(|status| status.success());
    built.then(|| folder.join(host).join("release"))
}

/// Whether `target` held out for `time`.
fn fuzz(root: &Path, programs: &Path, target: &str, time: Duration) -> bool {
    let folder = root.join("target/fuzz");
    let corpus = folder.join("corpus").join(target);
    let artifacts = folder.join("artifacts").join(target);
    let log_file = folder.join(format!("{target}.log"));
    let program = programs.join(target);
    let started = fs::create_dir_all(&corpus)
        .and_then(|()| fs::create_dir_all(&artifacts))
        .and_then(|()| fs::File::create(&log_file))
        .and_then(|log| {
            Command::new(&program)
                .arg(&corpus)
                .arg(format!("-max_total_time={}", time.as_secs().max(1)))
                .arg(format!("-rss_limit_mb={RSS_LIMIT_MB}"))
                .arg(format!("-malloc_limit_mb={MALLOC_LIMIT_MB}"))
                .arg(format!("-timeout={TIMEOUT_S}"))
                .arg(format!("-artifact_prefix={}/", artifacts.display()))
                .arg("-print_final_stats=1")
                .env("PYTHEAS_FUZZ_SEEDS", &corpus)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .status()
        });
    let log = fs::read(&log_file).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    match started {
        Ok(status) if status.success() => {
            println!("{}", summary(target, &log));
            true
        }
        Ok(_) => {
            let inputs = fs::read_dir(&artifacts);
            let newest = inputs
                .into_iter()
                .flatten()
                .flatten()
                .max_by_key(|entry| entry.metadata().and_then(|data| data.modified()).ok())
                .map(|entry| entry.path());
            let lines: Vec<&str> = log.lines().collect();
            for line in &lines[lines.len().saturating_sub(30)..] {
                eprintln!("{line}");
            }
            eprintln!(
                "error: `{target}` crashed; the log is `{}`",
                log_file.display()
            );
            if let Some(input) = newest {
                eprintln!("  again: {} {}", program.display(), input.display());
            }
            false
        }
        Err(error) => {
            eprintln!("error: cannot run `{}`: {error}", program.display());
            false
        }
    }
}

/// One line of what libFuzzer says at its end.
fn summary(target: &str, log: &str) -> String {
    let stat = |name: &str| {
        let from = |line: &'_ str| line.strip_prefix(name).map(|rest| rest.trim().to_owned());
        log.lines().find_map(from).unwrap_or_else(|| "?".into())
    };
    let mut words = log
        .lines()
        .rev()
        .find(|line| line.contains(" cov: "))
        .unwrap_or_default()
        .split_whitespace();
    let coverage = words.find(|word| *word == "cov:").and(words.next());
    format!(
        "{target}: {} runs, {} a second, {} edges, at most {} MiB, no crash",
        stat("stat::number_of_executed_units:"),
        stat("stat::average_exec_per_sec:"),
        coverage.unwrap_or("?"),
        stat("stat::peak_rss_mb:"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_and_targets_are_read_and_nonsense_is_refused() {
        let args = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let read = parse(&args("tree --minutes 2.5 delta"));
        assert_eq!(read, Ok((2.5, vec!["tree".into(), "delta".into()])));
        for wrong in ["--minutes", "--minutes -1", "--minutes x", "--hours 2"] {
            assert!(parse(&args(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_summary_has_what_libfuzzer_says_last() {
        let log = "#2\tINITED cov: 10 ft: 11 corp: 1/1b\n#9\tNEW    cov: 42 ft: 50 corp: 2/9b\n\
                   Done 9 runs in 1 second(s)\nstat::number_of_executed_units: 9\n\
                   stat::average_exec_per_sec:     7\nstat::peak_rss_mb:              31\n";
        let line = "tree: 9 runs, 7 a second, 42 edges, at most 31 MiB, no crash";
        assert_eq!(summary("tree", log), line);
    }
}
