//! The supervisor with real processes: small shell and Python scripts as apps.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::mpsc::Receiver,
    time::Instant,
};

use pytheas_release::{Ready, Sha256};

use super::*;

/// A device whose `current` is a folder with one script.
struct Bench {
    dir: tempfile::TempDir,
    state: StateDir,
    supervisor: Option<Supervisor>,
    events: Receiver<AppEvent>,
}

const PATIENCE: Duration = Duration::from_secs(20);

fn quick(ready: Ready) -> Health {
    Health {
        ready,
        deadline_ms: 5_000,
        stay_up_ms: 100,
    }
}

impl Bench {
    fn new() -> Self {
        Self::with(Settings::default())
    }

    fn with(settings: Settings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        fs::create_dir_all(state.current()).unwrap();
        let (sender, events) = channel();
        let supervisor = Supervisor::start(&state, settings, move |event| {
            let _test_ended = sender.send(event);
        });
        Self {
            dir,
            state,
            supervisor: Some(supervisor.unwrap()),
            events,
        }
    }

    fn supervisor(&self) -> &Supervisor {
        self.supervisor.as_ref().unwrap()
    }

    /// Starts `script` (with its `#!` line) as the app.
    fn launch(&self, script: &str, health: Health, trial: Option<u8>) -> TreeId {
        let path = self.state.current().join("app");
        let _none_yet = fs::remove_file(&path);
        pytheas_durable::replace_with(&path, 0o755, |file| {
            std::io::Write::write_all(file, script.as_bytes())
        })
        .unwrap();
        let tree = TreeId(Sha256::of(script.as_bytes()));
        self.supervisor().launch(Launch {
            tree,
            release: "app@1".parse().unwrap(),
            entry: "app".parse().unwrap(),
            health,
            env: vec![("FROM_CONFIG".into(), "yes".into())],
            options: std::collections::BTreeMap::new(),
            trial,
            hook: None,
        });
        tree
    }

    #[track_caller]
    fn event(&self) -> AppEvent {
        self.events
            .recv_timeout(PATIENCE)
            .expect("an event in time")
    }

    fn data(&self, name: &str) -> PathBuf {
        self.dir.path().join("data").join(name)
    }

    /// The content of a file the app writes, once it is there.
    #[track_caller]
    fn written(&self, name: &str) -> String {
        let path = self.data(name);
        until(|| {
            fs::read_to_string(&path)
                .ok()
                .filter(|text| text.ends_with('\n'))
        })
    }

    fn log(&self) -> String {
        fs::read_to_string(self.state.logs().join(log::FILE)).unwrap()
    }
}

#[track_caller]
fn until<T>(mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "did not happen in time");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[test]
fn an_app_that_stays_up_is_healthy_and_knows_where_it_is() {
    let bench = Bench::new();
    let script = "#!/bin/sh\n\
        echo \"$PYTHEAS_RELEASE $FROM_CONFIG $PYTHEAS_DATA_DIR $PWD ${PYTHEAS_FAULT-unset}\" > env.txt\n\
        exec sleep 1000\n";
    let tree = bench.launch(script, quick(Ready::StayUp), Some(2));
    assert_eq!(bench.event(), AppEvent::Healthy { tree });
    let data = bench.data("");
    let data = data.to_str().unwrap().trim_end_matches('/');
    assert_eq!(
        bench.written("env.txt"),
        format!("app@1 yes {data} {data} unset\n")
    );
    let status = bench.supervisor().status();
    assert!(status.ready && status.pid.is_some_and(alive), "{status:?}");
}

#[test]
fn ready_is_what_the_app_says_on_its_socket() {
    let bench = Bench::new();
    let script = r#"#!/usr/bin/env python3
import os, socket, time
name = os.environ["NOTIFY_SOCKET"]
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect("\0" + name[1:] if name.startswith("@") else name)
time.sleep(0.3)
s.send(b"READY=1\nSTATUS=42 plants")
time.sleep(1000)
"#;
    let began = Instant::now();
    let tree = bench.launch(script, quick(Ready::Notify), Some(0));
    assert_eq!(bench.event(), AppEvent::Healthy { tree });
    assert!(
        began.elapsed() >= Duration::from_millis(400),
        "ready and then up for a while"
    );
    assert_eq!(
        bench.supervisor().status().says.as_deref(),
        Some("42 plants")
    );
}

#[test]
fn ready_is_what_the_app_answers_over_http() {
    let bench = Bench::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    // Unavailable for a while, then fine.
    let script = format!(
        r#"#!/usr/bin/env python3
import http.server, time
began = time.time()
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if time.time() - began > 1 else 503)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", {port}), H).serve_forever()
"#
    );
    let url = format!("http://127.0.0.1:{port}/healthz");
    let health = Health {
        deadline_ms: 15_000,
        ..quick(Ready::Http { url })
    };
    let tree = bench.launch(&script, health, Some(0));
    assert_eq!(bench.event(), AppEvent::Healthy { tree });
    assert!(
        bench.log().contains("503") && bench.log().contains("200"),
        "{}",
        bench.log()
    );
}

#[test]
fn an_app_on_trial_that_ends_is_not_started_again() {
    let bench = Bench::new();
    let script = "#!/bin/sh\necho run >> runs.txt\necho 'Traceback: boom' >&2\nexit 3\n";
    let tree = bench.launch(script, quick(Ready::Notify), Some(1));
    let AppEvent::Died {
        tree: of,
        tries_left,
        because,
    } = bench.event()
    else {
        panic!()
    };
    assert_eq!((of, tries_left), (tree, 1));
    assert_eq!(because.message(), "`app@1` ended: exit status 3");
    assert_eq!(because.log(), ["Traceback: boom"]);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(bench.written("runs.txt"), "run\n");
}

#[test]
fn an_app_that_is_never_ready_is_stopped_at_the_deadline() {
    let bench = Bench::new();
    let health = Health {
        deadline_ms: 400,
        ..quick(Ready::Notify)
    };
    bench.launch(
        "#!/bin/sh\necho $$ > pid.txt\nexec sleep 1000\n",
        health,
        Some(2),
    );
    let AppEvent::NotReady { because, .. } = bench.event() else {
        panic!()
    };
    assert_eq!(
        because.message(),
        "`app@1` did not say `READY=1` within 0.4 s"
    );
    assert!(!alive(bench.written("pid.txt").trim().parse().unwrap()));

    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = format!("http://127.0.0.1:{port}/healthz");
    let health = Health {
        deadline_ms: 600,
        ..quick(Ready::Http { url })
    };
    bench.launch("#!/bin/sh\nexec sleep 1000\n", health, Some(2));
    let AppEvent::NotReady { because, .. } = bench.event() else {
        panic!()
    };
    assert!(
        because
            .message()
            .contains("did not answer 2xx within 0.6 s; last: Connection refused"),
        "{}",
        because.message()
    );
}

#[test]
fn what_cannot_be_started_counts_as_dead() {
    let bench = Bench::new();
    bench.launch("#!/no/such/interpreter\n", quick(Ready::StayUp), Some(2));
    let AppEvent::Died { because, .. } = bench.event() else {
        panic!()
    };
    assert!(
        because.message().contains("cannot start `"),
        "{}",
        because.message()
    );
    assert!(
        because.message().contains("that its first line names"),
        "{}",
        because.message()
    );
}

#[test]
fn a_committed_app_is_started_again_each_time_later() {
    let bench = Bench::new();
    bench.launch(
        "#!/bin/sh\necho run >> runs.txt\nexit 1\n",
        quick(Ready::StayUp),
        None,
    );
    let began = Instant::now();
    for _ in 0..3 {
        assert!(matches!(bench.event(), AppEvent::Crashed { .. }));
    }
    // 1 s and 2 s between the three.
    assert!(
        began.elapsed() >= Duration::from_millis(2900),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(bench.written("runs.txt"), "run\nrun\nrun\n");
    until(|| (bench.supervisor().status().restarts >= 3).then_some(()));
}

#[test]
fn a_release_that_was_healthy_once_is_started_again() {
    let bench = Bench::new();
    let tree = bench.launch(
        "#!/bin/sh\nsleep 0.5\nexit 7\n",
        quick(Ready::StayUp),
        Some(2),
    );
    assert_eq!(bench.event(), AppEvent::Healthy { tree });
    assert!(matches!(bench.event(), AppEvent::Crashed { .. }));
}

#[test]
fn stopping_ends_the_whole_group_even_when_it_will_not() {
    let bench = Bench::new();
    let script = "#!/bin/sh\ntrap '' TERM\n(trap '' TERM; sleep 1000) &\necho $$ $! > pids.txt\n\
        while :; do sleep 1000; done\n";
    bench.launch(script, quick(Ready::StayUp), None);
    let pids: Vec<u32> = bench
        .written("pids.txt")
        .split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect();
    let began = Instant::now();
    bench.supervisor().stop();
    assert!(began.elapsed() >= STOP_TIMEOUT && began.elapsed() < STOP_TIMEOUT * 2);
    until(|| pids.iter().all(|pid| !alive(*pid)).then_some(()));
    assert!(!bench.state.app_pid().exists());
}

#[test]
fn a_well_behaved_app_ends_at_once_and_may_say_goodbye() {
    let bench = Bench::new();
    let script = "#!/bin/sh\ntrap 'echo bye; exit 0' TERM\necho up > up.txt\n\
        while :; do sleep 0.05; done\n";
    bench.launch(script, quick(Ready::StayUp), None);
    bench.written("up.txt");
    let began = Instant::now();
    bench.supervisor().stop();
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(
        bench
            .log()
            .contains("bye\n--- pytheas: stopped: exit status 0"),
        "{}",
        bench.log()
    );
}

#[test]
fn children_do_not_outlive_their_app() {
    let bench = Bench::new();
    let script = "#!/bin/sh\nsleep 1000 &\necho $! > child.txt\nexit 0\n";
    bench.launch(script, quick(Ready::Notify), Some(0));
    let child = bench.written("child.txt").trim().parse().unwrap();
    assert!(matches!(bench.event(), AppEvent::Died { .. }));
    until(|| (!alive(child)).then_some(()));
}

#[test]
fn daemons_end_with_the_app_that_started_them() {
    let bench = Bench::new();
    let script = "#!/bin/sh\nsetsid sh -c 'echo $$ > daemon.txt; exec sleep 1000' &\n\
        exec sleep 1000\n";
    bench.launch(script, quick(Ready::StayUp), None);
    let daemon = bench.written("daemon.txt").trim().parse().unwrap();
    bench.supervisor().stop();
    assert!(!alive(daemon));
}

#[test]
fn an_app_whose_process_cannot_be_noted_runs_once_and_is_supervised() {
    let bench = Bench::new();
    // As on a full disk: the file cannot be replaced.
    fs::create_dir_all(bench.state.app_pid().join("in-the-way")).unwrap();
    let script = "#!/bin/sh\necho $$ >> starts.txt\nexec sleep 1000\n";
    let tree = bench.launch(script, quick(Ready::StayUp), Some(0));
    assert_eq!(bench.event(), AppEvent::Healthy { tree });
    let pid = bench.written("starts.txt").trim().parse().unwrap();
    bench.supervisor().stop();
    assert!(!alive(pid));
}

#[test]
fn an_app_that_crashes_now_and_then_is_started_again_soon_each_time() {
    let bench = Bench::with(Settings {
        recovered_after: Duration::from_millis(200),
        ..Settings::default()
    });
    bench.launch("#!/bin/sh\nsleep 0.4\n", quick(Ready::StayUp), None);
    bench.event();
    let began = Instant::now();
    for _ in 0..4 {
        assert!(matches!(bench.event(), AppEvent::Crashed { .. }));
    }
    // 4 × (0.4 s up + at most 1 s pause); with growing pauses at least 1.6 s + 7.5 s.
    assert!(
        began.elapsed() < Duration::from_secs(9),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn a_silent_app_is_taken_for_dead_when_a_watchdog_is_wanted() {
    let bench = Bench::with(Settings {
        watchdog: Some(Duration::from_millis(300)),
        ..Settings::default()
    });
    let script = "#!/bin/sh\necho $WATCHDOG_USEC > usec.txt\nexec sleep 1000\n";
    bench.launch(script, quick(Ready::StayUp), None);
    let AppEvent::Crashed { because } = bench.event() else {
        panic!()
    };
    assert_eq!(
        because.message(),
        "`app@1` ended: no `WATCHDOG=1` for 300 ms"
    );
    assert_eq!(bench.written("usec.txt"), "300000\n");
}

#[test]
fn a_talkative_app_is_not_held_up_and_its_log_stays_small() {
    let bench = Bench::new();
    let script = "#!/bin/sh\ni=0\nwhile [ $i -lt 6000 ]; do\n\
        printf '%01000d\\n' $i\ni=$((i+1))\ndone\necho done > done.txt\nexec sleep 1000\n";
    bench.launch(script, quick(Ready::StayUp), None);
    bench.written("done.txt");
    let total: u64 = fs::read_dir(bench.state.logs())
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!((2 << 20..=3 << 20).contains(&total), "{total}");
}

#[test]
fn an_app_left_over_by_a_killed_agent_is_ended_first() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::new(dir.path());
    // The kernel ends the app with the agent; here it is told not to, as an app that forked is not.
    let mut stray = std::process::Command::new("sleep")
        .arg("1000")
        .env(leftover::MARK, state.app_pid())
        .spawn()
        .unwrap();
    leftover::note(&state.app_pid(), stray.id()).unwrap();
    let supervisor = Supervisor::start(&state, Settings::default(), |_| {}).unwrap();
    assert_eq!(stray.wait().unwrap().code(), None);
    drop(supervisor);
}

#[test]
fn slots_need_no_write_permission_to_run() {
    let bench = Bench::new();
    let tree = bench.launch(
        "#!/bin/sh\nexec sleep 1000\n",
        quick(Ready::StayUp),
        Some(0),
    );
    let path: &Path = &bench.state.current().join("app");
    fs::set_permissions(path, fs::Permissions::from_mode(0o555)).unwrap();
    assert_eq!(bench.event(), AppEvent::Healthy { tree });
}

#[test]
fn an_app_whose_supervisor_has_ended_is_not_waited_for() {
    let mut bench = Bench::new();
    let handle = bench.supervisor().stop_handle();
    bench.supervisor = None;
    let (done, ended) = channel();
    std::thread::spawn(move || {
        handle.stop();
        handle.stop_and_wait(Duration::from_secs(3600));
        let _test_gave_up = done.send(());
    });
    assert_eq!(ended.recv_timeout(PATIENCE), Ok(()));
}
