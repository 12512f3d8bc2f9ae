//! A hub behind something that limits how often it may be asked: commands wait as it says, or say why
//! they do not.

use std::{
    collections::VecDeque,
    io::{self, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use crate::common::{GOOD, Hub, json, script_tree, shown};

/// Stands before a hub: as many connections are told off as there are answers left.
struct Front {
    url: String,
    told_off: Arc<Mutex<VecDeque<String>>>,
}

impl Front {
    fn of(hub: &Hub) -> Self {
        let behind = hub.url.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let told_off: Arc<Mutex<VecDeque<String>>> = Arc::default();
        let answers = Arc::clone(&told_off);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let answer = answers.lock().unwrap().pop_front();
                let behind = behind.clone();
                std::thread::spawn(move || match answer {
                    Some(answer) => tell_off(stream, &answer),
                    None => hand_on(&stream, &TcpStream::connect(behind).unwrap()),
                });
            }
        });
        Self { url, told_off }
    }

    /// The next connections get these headers and no work.
    fn busy(&self, headers: &[&str]) {
        let answer = |headers: &&str| format!("HTTP/1.1 {headers}Connection: close\r\n\r\n");
        *self.told_off.lock().unwrap() = headers.iter().map(answer).collect();
    }

    /// The next connection gets this.
    fn says(&self, head: &str, body: &str) {
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        self.told_off.lock().unwrap().push_back(answer);
    }

    fn is_through(&self) -> bool {
        self.told_off.lock().unwrap().is_empty()
    }
}

fn tell_off(mut stream: TcpStream, answer: &str) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        head.push(byte[0]);
    }
    let _gone = stream.write_all(answer.as_bytes());
    let _gone = stream.shutdown(Shutdown::Write);
    // What is still being sent is taken, or the answer would be lost in a reset.
    let _all = io::copy(&mut stream, &mut io::sink());
}

fn hand_on(here: &TcpStream, there: &TcpStream) {
    std::thread::scope(|both| {
        for (mut from, mut to) in [(here, there), (there, here)] {
            both.spawn(move || {
                let _until_one_ends = io::copy(&mut from, &mut to);
                let _gone = to.shutdown(Shutdown::Write);
            });
        }
    });
}

const FULL: &str = "429 Too Many Requests\r\nContent-Length: 0\r\n";
const SOON: &str = "503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n";

#[test]
fn commands_and_publishing_wait_for_a_busy_hub() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(home.path());
    let front = Front::of(&hub);
    front.busy(&[FULL, SOON]);
    let mut command = hub.pytheas(&["device", "list", "--hub", &front.url, "--json"]);
    let output = command.output().unwrap();
    let said = shown(&output);
    assert!(output.status.success() && front.is_through(), "{said}");
    assert!(
        said.contains("is busy (status 429); asking again in"),
        "{said}"
    );
    assert!(
        said.contains("is busy (status 503); asking again in 2 s"),
        "{said}"
    );

    // Five in a row are more than what uploads tried before, in what they took for it.
    front.busy(&[FULL, FULL, SOON, SOON, FULL]);
    let dir = home.path().join("tree");
    script_tree(&dir, "1.0.0", GOOD);
    let mut publish = hub.pytheas(&["publish", "--repo"]);
    publish.arg(format!("{}/repo", front.url)).arg(&dir);
    let published = json(publish.arg("--keys").arg(&hub.keys));
    assert_eq!(published["visible"], true);
    assert!(front.is_through());
}

#[test]
fn a_hub_that_asks_for_an_hour_is_not_waited_for() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(home.path());
    let front = Front::of(&hub);
    front.busy(&["429 Too Many Requests\r\nRetry-After: 3600\r\nContent-Length: 0\r\n"]);
    let mut command = hub.pytheas(&["rollout", "start", "app@1.0.0", "--hub", &front.url]);
    let said = shown(&command.output().unwrap()).replace(&front.url, "[FRONT]");
    insta::assert_snapshot!(said, @"
    exit 3
    --- stdout
    --- stderr
    error: the hub at `[FRONT]/` is busy (status 429) and asks to be asked again in 3600 s
      help: nothing was done; run the command again later
    ");
}

#[test]
fn what_may_have_been_done_is_not_done_again() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(home.path());
    let front = Front::of(&hub);
    let tokens = || {
        json(&mut hub.pytheas(&["token", "list"]))
            .as_array()
            .unwrap()
            .len()
    };
    let before = tokens();
    let create = || {
        let args = [
            "token", "create", "ci", "--role", "viewer", "--hub", &front.url,
        ];
        hub.pytheas(&args).output().unwrap()
    };
    // A proxy that has handed the request on, perhaps.
    front.says("503 Service Unavailable", "<h1>upstream connect error</h1>");
    let output = create();
    let said = shown(&output);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("answered 503 in its place"), "{said}");
    assert!(
        said.contains("whether the hub did what it was asked for"),
        "{said}"
    );
    assert!(front.is_through());
    assert_eq!(tokens(), before, "it was not asked again");

    // The hub itself, and anybody's 429, say that nothing was begun.
    let own = r#"{"error": {"code": "starting", "message": "the hub is starting"}}"#;
    front.says("503 Service Unavailable\r\nRetry-After: 1", own);
    front.says("429 Too Many Requests", "");
    let output = create();
    assert!(
        output.status.success() && front.is_through(),
        "{}",
        shown(&output)
    );
    assert_eq!(tokens(), before + 1);
}

#[test]
fn an_answer_that_is_too_long_is_called_so() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(home.path());
    let front = Front::of(&hub);
    front.says("200 OK", &" ".repeat((64 << 20) + 1));
    let mut command = hub.pytheas(&["device", "show", "a", "--hub", &front.url]);
    let output = command.output().unwrap();
    let said = shown(&output);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("is longer than 67 MB"), "{said}");
    assert!(
        said.contains("/api/v1/devices/a` is what was asked for"),
        "{said}"
    );
}
