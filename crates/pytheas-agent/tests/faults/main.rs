//! Faults injected into updates of the real agent, from a real repository over HTTP: killed at
//! every system call that changes the disk, power cuts, full and failing disks, a lying network, a
//! wrong clock. After each the device runs the old or the new release whole, and the next poll
//! completes the update. See `docs/guides/updates-faults.md`.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should stop"
)]

mod fleet;
mod inject;
mod model;
mod proxy;
mod random;
#[expect(
    dead_code,
    reason = "shared with the other tests of the agent, which use the rest"
)]
#[path = "../agent/support/mod.rs"]
mod support;
mod trace;

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use fleet::Fleet;
use inject::{Course, Fault, inject};
use model::{Kept, Record};
use proxy::Lie;
use random::Random;

/// Faults injected in every run of the tests, and in the nightly one.
const FEW: usize = 560;
const MANY: usize = 10_500;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Everything that may go wrong in one update, the most telling first.
fn faults(course: &Course, seed: u64, small_disks: bool) -> BTreeMap<&'static str, Vec<Fault>> {
    const YEARS: i64 = 365 * 86_400;
    let mut random = Random::new(seed);
    let mut by_kind = BTreeMap::<&str, Vec<Fault>>::new();
    let mut add = |fault: Fault| by_kind.entry(fault.kind()).or_default().push(fault);
    let changes = course.changes.len();
    for at in 0..changes {
        add(Fault::Kill(at));
        if inject::grows(course.changes[at]) {
            add(Fault::Full(at, false));
        }
        add(Fault::Full(at, true));
        add(Fault::WriteError(at, false));
        add(Fault::WriteError(at, true));
        if trace::writes(course.changes[at]) {
            add(Fault::Tear(at));
            add(Fault::Short(at));
        }
        add(Fault::Twice(at, random.below(changes)));
        add(Fault::RotThere(at, random.next()));
    }
    let mut cuts = |record: &Record, first: usize, fault: &dyn Fn(usize, Kept) -> Fault| {
        for moment in first..=record.calls.len() {
            if record.unsafe_changes(moment) == 0 {
                add(fault(moment, Kept::Everything));
                continue;
            }
            for kept in Kept::EXTREMES {
                add(fault(moment, *kept));
            }
            for _ in 0..8 {
                add(fault(moment, Kept::Some(random.next())));
            }
        }
    };
    cuts(&course.whole.record, 0, &Fault::Cut);
    for (run, recorded) in course.in_two.iter().enumerate() {
        cuts(&recorded.record, recorded.killed, &|moment, kept| {
            Fault::CutAgain(run, moment, kept)
        });
    }
    for (at, number) in course.reads.iter().enumerate() {
        add(Fault::ReadError(at));
        if inject::reads_content(*number) {
            add(Fault::ReadFlip(at, random.next()));
            add(Fault::ReadFlip(at, random.next()));
        }
    }
    for file in 0..course.files {
        for _ in 0..3 {
            add(Fault::Rot(file, random.next()));
        }
    }
    for at in 0..course.requests {
        for lie in Lie::ALL {
            add(Fault::Network(at, *lie, false, random.next()));
            add(Fault::Network(at, *lie, true, random.next() | 1));
        }
    }
    for at in 0..course.readings {
        add(Fault::Clock(at, -56 * YEARS));
        add(Fault::Clock(at, 50 * YEARS));
        add(Fault::Clock(at, -86_400));
    }
    if small_disks {
        // What an update needs is within the first few hundred; it wants 1 MiB left over.
        for free in (0..240).step_by(4).chain((240..2600).step_by(40)) {
            add(Fault::SmallDisk(free));
        }
    }
    by_kind
}

/// `budget` of all faults: of each kind and update its share, spread over the course.
fn choose(
    all: Vec<(usize, BTreeMap<&'static str, Vec<Fault>>)>,
    budget: usize,
    seed: u64,
) -> Vec<(usize, Fault)> {
    let mut random = Random::new(seed);
    let mut chosen = Vec::new();
    let mut rest: Vec<(usize, Vec<Fault>)> = Vec::new();
    for (scenario, by_kind) in all {
        for (kind, faults) in by_kind {
            if scenario == 0 && kind == "killed" {
                // In turn, and not at random only.
                chosen.extend(faults.into_iter().map(|fault| (scenario, fault)));
            } else {
                rest.push((scenario, faults));
            }
        }
    }
    // A share of each, more of those that have more.
    let weight = |faults: &[Fault]| (faults.len() as f64).sqrt();
    let mut left = budget.saturating_sub(chosen.len());
    rest.sort_by_key(|(_, faults)| faults.len());
    for at in 0..rest.len() {
        let weights: f64 = rest[at..].iter().map(|(_, faults)| weight(faults)).sum();
        let (scenario, faults) = &mut rest[at];
        let share = (left as f64 * weight(faults) / weights).round() as usize;
        let share = share.min(faults.len());
        left -= share.min(left);
        // One of each stretch.
        let len = faults.len();
        for part in 0..share {
            let (from, to) = (part * len / share, (part + 1) * len / share);
            chosen.push((*scenario, faults[from + random.below(to - from)]));
        }
    }
    chosen
}

#[test]
fn a_device_survives_every_fault() {
    if let Err(why) = trace::is_possible() {
        return testkit::skip(&format!("ptrace is not possible here: {why}"));
    }
    let begun = Instant::now();
    let nightly = std::env::var_os("PYTHEAS_TEST_ALL").is_some();
    let seed = number("PYTHEAS_FAULTS_SEED").unwrap_or(1);
    let budget = number("PYTHEAS_FAULTS").map_or(if nightly { MANY } else { FEW }, |n| n as usize);
    let only = std::env::var("PYTHEAS_FAULTS_ONLY").ok();
    println!("seed {seed}; replay with PYTHEAS_FAULTS_SEED={seed}");

    let fleet = Fleet::new();
    let kills: Vec<f64> = if nightly {
        (1..8).map(|part| f64::from(part) / 8.0).collect()
    } else {
        vec![0.5]
    };
    let courses: Vec<Course> = {
        let mut bench = fleet.bench(1000);
        fleet
            .scenarios
            .iter()
            .map(|scenario| Course::of(&mut bench, scenario, &kills))
            .collect()
    };
    for (scenario, course) in fleet.scenarios.iter().zip(&courses) {
        println!(
            "{}: {} calls that change the disk, {} that read it, {} requests, {} readings of the clock",
            scenario.name,
            course.changes.len(),
            course.reads.len(),
            course.requests,
            course.readings
        );
    }
    let small_disks = match inject::small_disks_are_possible() {
        Ok(()) => true,
        Err(why) => {
            testkit::skip(&format!(
                "small disks, as no file system can be mounted: {why}"
            ));
            false
        }
    };
    let all: Vec<_> = courses
        .iter()
        .enumerate()
        .map(|(number, course)| (number, faults(course, seed ^ number as u64, small_disks)))
        .collect();
    let name =
        |(scenario, fault): &(usize, Fault)| format!("{}/{fault}", fleet.scenarios[*scenario].name);
    let cases = match &only {
        Some(only) => all
            .into_iter()
            .flat_map(|(scenario, by_kind)| {
                by_kind
                    .into_values()
                    .flatten()
                    .map(move |fault| (scenario, fault))
            })
            .filter(|case| name(case).starts_with(only.as_str()))
            .collect(),
        None => choose(all, budget, seed),
    };

    let next = AtomicUsize::new(0);
    let tally = Mutex::new((
        BTreeMap::<&str, usize>::new(),
        0_usize,
        Vec::<String>::new(),
    ));
    let threads = std::thread::available_parallelism().map_or(2, usize::from) * 2;
    std::thread::scope(|scope| {
        for worker in 0..threads {
            let (fleet, courses, cases, next, tally, name) =
                (&fleet, &courses, &cases, &next, &tally, &name);
            scope.spawn(move || {
                let mut bench = fleet.bench(worker);
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    bench.take_log();
                    let (scenario, fault) = (&fleet.scenarios[case.0], case.1);
                    let result = inject(&mut bench, scenario, &courses[case.0], fault);
                    let mut tally = tally.lock().unwrap();
                    let done = tally.0.values().sum::<usize>() + tally.1 + 1;
                    if done % 500 == 0 {
                        let seconds = begun.elapsed().as_secs();
                        println!("{done} of {} after {seconds} s", cases.len());
                    }
                    match result {
                        Ok(Some(_)) => *tally.0.entry(fault.kind()).or_default() += 1,
                        Ok(None) => tally.1 += 1,
                        Err(why) => {
                            *tally.0.entry(fault.kind()).or_default() += 1;
                            let name = name(case);
                            let log = bench.take_log();
                            let failure = format!(
                                "{name}: {why}\n  replay: PYTHEAS_FAULTS_SEED={seed} PYTHEAS_FAULTS_ONLY={name} \
                                 cargo test -p pytheas-agent --test faults -- --nocapture\n{log}"
                            );
                            println!("FAILED {failure}");
                            tally.2.push(failure);
                        }
                    }
                }
            });
        }
    });

    let (counts, missed, failures) = tally.into_inner().unwrap();
    let total: usize = counts.values().sum();
    let counts: Vec<String> = counts
        .iter()
        .map(|(kind, count)| format!("{kind} {count}"))
        .collect();
    let line = format!(
        "{total} faults injected with seed {seed} ({}), {missed} not met, {} bricks or silent corruptions, {} s",
        counts.join(", "),
        failures.len(),
        begun.elapsed().as_secs()
    );
    testkit::faults(&line);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(
        only.is_some() || total >= budget.min(500),
        "too few: {line}"
    );
}
