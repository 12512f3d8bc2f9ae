//! A hub for one device: serves a repository's folder and the few DDI answers the agent needs,
//! and can be away, slow, forgetful and dishonest.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use serde_json::{Value, json};

use super::until;

/// What the hub does and has seen.
#[derive(Default)]
pub(crate) struct Talk {
    /// Connections are closed without an answer.
    pub(crate) away: bool,
    /// The current action: number, target, whether it is to be cancelled.
    pub(crate) offer: Option<(String, String, bool)>,
    next_action: u32,
    /// Every feedback: action, `deploymentBase` or `cancelAction`, body.
    pub(crate) feedback: Vec<(String, String, Value)>,
    pub(crate) attributes: Vec<Value>,
    /// Every request line.
    pub(crate) requests: Vec<String>,
    /// Devices that asked are told to wait.
    pub(crate) pending: bool,
    pub(crate) enrolments: Vec<Value>,
    /// Token the device must show.
    pub(crate) token: String,
    /// Files whose path holds this text get the byte at this offset flipped.
    pub(crate) flip: Option<(String, usize)>,
    /// Answers with files break off after so many bytes, once for each entry.
    pub(crate) break_off: Vec<usize>,
    /// Pause before each 16 KiB of a file.
    pub(crate) slow: Duration,
    /// Pause before each answer.
    pub(crate) stall: Duration,
    /// `Retry-After` seconds of 503 answers to polls.
    pub(crate) busy: Option<u64>,
    /// Bytes of files sent.
    pub(crate) sent_bytes: usize,
    /// How often devices are to poll.
    pub(crate) sleep: String,
    /// There is no enrolment, as on other DDI servers.
    pub(crate) accepts_nobody: bool,
    /// The apps' settings and their revision, sent at every poll.
    pub(crate) settings: Option<(String, Value)>,
    /// Older releases may be offered.
    pub(crate) downgrade: bool,
    /// Closing reports get no answer, so often.
    pub(crate) lose_answers: u32,
    /// Files whose path holds this text nobody may read.
    pub(crate) forbidden: Option<String>,
    /// Files whose path holds this text never end.
    pub(crate) endless: Option<String>,
    /// Files whose path holds this text come a byte at a time, with a long pause between.
    pub(crate) drip: Option<String>,
    /// Reports that close nothing, and answers of people, are too many: 429 without a time.
    pub(crate) heard_enough: bool,
    /// What a device says of itself is too much: 429 without a time.
    pub(crate) too_many_attributes: bool,
    /// How many were refused for that.
    pub(crate) refused: usize,
    /// What is offered has to be confirmed first.
    pub(crate) confirm: bool,
    /// Files whose path holds the first text are answered with this instead.
    pub(crate) instead: Vec<(String, Vec<u8>)>,
}

pub(crate) struct TestHub {
    talk: Arc<Mutex<Talk>>,
    address: String,
}

impl TestHub {
    pub(crate) fn start(repo: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let talk = Arc::new(Mutex::new(Talk {
            token: "token-1".into(),
            sleep: "00:05:00".into(),
            ..Talk::default()
        }));
        let shared = Arc::clone(&talk);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (talk, repo) = (Arc::clone(&shared), repo.clone());
                std::thread::spawn(move || serve(stream, &talk, &repo));
            }
        });
        Self { talk, address }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn talk(&self) -> MutexGuard<'_, Talk> {
        self.talk.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Offers a target; the action's number.
    pub(crate) fn offer(&self, target: &str) -> String {
        let mut talk = self.talk();
        talk.next_action += 1;
        let action = talk.next_action.to_string();
        talk.offer = Some((action.clone(), target.to_owned(), false));
        action
    }

    pub(crate) fn cancel(&self) {
        if let Some(offer) = &mut self.talk().offer {
            offer.2 = true;
        }
    }

    /// Waits for the closing report on `action`; its lines when it is a failure.
    #[track_caller]
    pub(crate) fn closed(&self, action: &str) -> Result<(), Vec<String>> {
        until(&format!("action {action} is closed"), || {
            let talk = self.talk();
            let status = closing(&talk.feedback, action)?["status"].clone();
            Some(match status["result"]["finished"].as_str() {
                Some("success") => Ok(()),
                _ => Err(lines(&status)),
            })
        })
    }

    /// Waits for the failure of `action`; its lines.
    #[track_caller]
    pub(crate) fn failure(&self, action: &str) -> Vec<String> {
        self.closed(action)
            .expect_err("the action should have failed")
    }

    /// Codes of the progress reports on `action`, in order.
    pub(crate) fn codes(&self, action: &str) -> Vec<i64> {
        let talk = self.talk();
        talk.feedback
            .iter()
            .filter(|(of, _, _)| of == action)
            .filter_map(|(_, _, body)| body["status"]["code"].as_i64())
            .collect()
    }

    /// How often a request line with this text came in.
    pub(crate) fn asked(&self, text: &str) -> usize {
        self.talk()
            .requests
            .iter()
            .filter(|line| line.contains(text))
            .count()
    }

    /// Waits until `count` more polls came in.
    #[track_caller]
    pub(crate) fn polled(&self, count: usize) {
        let before = self.asked("controller/v1/dev1 ");
        until("polls", || {
            (self.asked("controller/v1/dev1 ") >= before + count).then_some(())
        });
    }
}

fn closing<'f>(feedback: &'f [(String, String, Value)], action: &str) -> Option<&'f Value> {
    feedback
        .iter()
        .find(|(of, kind, body)| {
            of == action && kind == "deploymentBase" && body["status"]["execution"] == "closed"
        })
        .map(|(_, _, body)| body)
}

pub(crate) fn lines(status: &Value) -> Vec<String> {
    let details = status["details"].as_array().cloned().unwrap_or_default();
    details
        .iter()
        .filter_map(|line| Some(line.as_str()?.to_owned()))
        .collect()
}

fn serve(stream: TcpStream, talk: &Mutex<Talk>, repo: &Path) {
    stream.set_nodelay(true).unwrap(); // head and body are written one after the other
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let (mut length, mut range, mut token) = (0_usize, None, String::new());
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header).unwrap_or(0) == 0 {
                return;
            }
            let Some((name, value)) = header.trim_end().split_once(':') else {
                break;
            };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().unwrap(),
                "range" => range = value.strip_prefix("bytes=").map(str::to_owned),
                "authorization" => token = value.trim_start_matches("TargetToken ").to_owned(),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let mut parts = line.split_whitespace();
        let (method, path) = (
            parts.next().unwrap_or(""),
            parts.next().unwrap_or("").to_owned(),
        );
        let stall = talk.lock().unwrap_or_else(|e| e.into_inner()).stall;
        std::thread::sleep(stall);
        let away = {
            let mut talk = talk.lock().unwrap_or_else(|e| e.into_inner());
            if !talk.away {
                talk.requests.push(line.trim_end().to_owned());
            }
            talk.away
        };
        if away {
            return;
        }
        let keep = if let Some(file) = path.strip_prefix("/repo/") {
            send_file(&mut stream, talk, &repo.join(file), file, range.as_deref())
        } else {
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            match answer(method, &path, &token, body, talk, &stream) {
                Some((status, extra, json)) => {
                    let text = if json.is_null() {
                        String::new()
                    } else {
                        json.to_string()
                    };
                    let head = format!(
                        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{extra}\r\n{text}",
                        text.len()
                    );
                    stream.write_all(head.as_bytes()).is_ok()
                }
                None => false,
            }
        };
        if !keep {
            return;
        }
    }
}

fn answer(
    method: &str,
    path: &str,
    token: &str,
    body: Value,
    talk: &Mutex<Talk>,
    stream: &TcpStream,
) -> Option<(u16, String, Value)> {
    let mut talk = talk.lock().unwrap_or_else(|e| e.into_inner());
    let base = format!(
        "http://{}/default/controller/v1/dev1",
        stream.local_addr().unwrap()
    );
    let ok = |json| Some((200, String::new(), json));
    if path == "/api/v1/enrolment" {
        talk.enrolments.push(body);
        return if talk.accepts_nobody {
            Some((404, String::new(), Value::Null))
        } else if talk.pending {
            Some((202, String::new(), json!({"state": "pending"})))
        } else {
            ok(json!({"state": "accepted", "token": talk.token, "tenant": "default"}))
        };
    }
    if token != talk.token {
        return Some((401, String::new(), Value::Null));
    }
    let rest = path.strip_prefix("/default/controller/v1/dev1")?;
    let rest = rest.split('?').next().unwrap_or(rest);
    let parts: Vec<&str> = rest.split('/').filter(|part| !part.is_empty()).collect();
    match (method, parts.as_slice()) {
        ("GET", []) => {
            if let Some(seconds) = talk.busy {
                return Some((503, format!("Retry-After: {seconds}\r\n"), Value::Null));
            }
            let mut links = serde_json::Map::new();
            if let Some((action, _, cancel)) = &talk.offer {
                let (rel, href) = if *cancel {
                    ("cancelAction", format!("{base}/cancelAction/{action}"))
                } else if talk.confirm {
                    let href = format!("{base}/confirmationBase/{action}");
                    ("confirmationBase", href)
                } else {
                    (
                        "deploymentBase",
                        format!("{base}/deploymentBase/{action}?c=-17"),
                    )
                };
                links.insert(rel.into(), json!({"href": href}));
            }
            let mut config = json!({"polling": {"sleep": talk.sleep}});
            if let Some((revision, settings)) = &talk.settings {
                config["revision"] = json!(revision);
                config["settings"] = settings.clone();
            }
            ok(json!({"config": config, "_links": links}))
        }
        ("PUT", ["configData"]) if talk.too_many_attributes => {
            talk.refused += 1;
            Some((429, String::new(), Value::Null))
        }
        ("PUT", ["configData"]) => {
            talk.attributes.push(body);
            ok(Value::Null)
        }
        ("GET", ["deploymentBase", action]) => match &talk.offer {
            // An action with plain artifacts only.
            Some((id, target, _)) if id == action && target == "firmware" => ok(json!({
                "id": id,
                "deployment": {"download": "forced", "update": "forced", "chunks": [{
                    "part": "os", "name": "firmware", "version": "7", "artifacts": [],
                }]},
            })),
            // Several targets, with blanks between them, are to run together.
            Some((id, targets, _)) if id == action => {
                let downgrade = talk.downgrade.to_string();
                let chunks: Vec<Value> = targets
                    .split(' ')
                    .map(|target| {
                        json!({
                            "part": "bApp", "name": target.split('/').next(), "version": "1",
                            "metadata": [
                                {"key": "pytheas.target", "value": target},
                                {"key": "pytheas.format", "value": "1"},
                                {"key": "pytheas.allow-downgrade", "value": downgrade},
                            ],
                            "artifacts": [],
                        })
                    })
                    .collect();
                ok(json!({
                    "id": id,
                    "deployment": {"download": "forced", "update": "forced", "chunks": chunks},
                }))
            }
            _ => Some((404, String::new(), Value::Null)),
        },
        ("GET", ["cancelAction", action]) => {
            ok(json!({"id": action, "cancelAction": {"stopId": action}}))
        }
        ("GET", ["confirmationBase", action]) => ok(json!({"id": action, "confirmation": {
            "download": "forced", "update": "forced",
            "chunks": [{"part": "bApp", "name": "app", "version": "9", "artifacts": []}],
        }})),
        ("POST", [kind, _, "feedback"])
            if talk.heard_enough
                && (*kind == "confirmationBase" || body["status"]["execution"] != "closed") =>
        {
            talk.refused += 1;
            Some((429, String::new(), Value::Null))
        }
        ("POST", [kind, action, "feedback"]) => {
            let execution = body["status"]["execution"]
                .as_str()
                .unwrap_or("")
                .to_owned();
            let closed = closing(&talk.feedback, action).is_some();
            talk.feedback.push(((*action).into(), (*kind).into(), body));
            let current = talk.offer.as_ref().is_some_and(|(id, ..)| id == action);
            if execution == "closed" && talk.lose_answers > 0 {
                talk.lose_answers -= 1;
                return None;
            }
            match (*kind, execution.as_str()) {
                (_, "closed") if current => talk.offer = None,
                ("cancelAction", "rejected") => {
                    if let Some(offer) = &mut talk.offer {
                        offer.2 = false;
                    }
                }
                _ if closed => return Some((410, String::new(), Value::Null)),
                _ => {}
            }
            ok(Value::Null)
        }
        _ => Some((404, String::new(), Value::Null)),
    }
}

fn send_file(
    stream: &mut TcpStream,
    talk: &Mutex<Talk>,
    path: &Path,
    name: &str,
    range: Option<&str>,
) -> bool {
    let (endless, drip, instead) = {
        let talk = talk.lock().unwrap_or_else(|e| e.into_inner());
        let is = |text: &Option<String>| text.as_ref().is_some_and(|text| name.contains(text));
        let instead = talk.instead.iter().find(|(text, _)| name.contains(text));
        (is(&talk.endless), is(&talk.drip), instead.cloned())
    };
    let is_forbidden = {
        let talk = talk.lock().unwrap_or_else(|e| e.into_inner());
        talk.forbidden.as_ref().is_some_and(|t| name.contains(t))
    };
    if is_forbidden {
        let answer = b"HTTP/1.1 403 X\r\nContent-Length: 0\r\n\r\n";
        return stream.write_all(answer).is_ok();
    }
    if endless {
        let _begun = stream.write_all(b"HTTP/1.1 200 X\r\nConnection: close\r\n\r\n");
        let noise = [b' '; 64 << 10];
        while stream.write_all(&noise).is_ok() {
            talk.lock().unwrap_or_else(|e| e.into_inner()).sent_bytes += noise.len();
        }
        return false;
    }
    let bytes = instead.map_or_else(|| fs::read(path), |(_, bytes)| Ok(bytes));
    let Ok(mut bytes) = bytes else {
        return stream
            .write_all(b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n")
            .is_ok();
    };
    let (break_off, slow) = {
        let mut talk = talk.lock().unwrap_or_else(|e| e.into_inner());
        if let Some((text, offset)) = &talk.flip
            && name.contains(text.as_str())
        {
            let at = *offset % bytes.len();
            bytes[at] ^= 1;
        }
        // Metadata is small: what breaks off is content.
        let break_off = if name.starts_with("blobs/") {
            talk.break_off.pop()
        } else {
            None
        };
        (break_off, talk.slow)
    };
    let total = bytes.len();
    let (status, extra) = match range {
        Some(range) => {
            let (from, to) = range.split_once('-').unwrap();
            let from: usize = from.parse().unwrap();
            let to = to.parse::<usize>().map_or(total, |to| (to + 1).min(total));
            bytes = bytes[from..to].to_vec();
            (
                206,
                format!("Content-Range: bytes {from}-{}/{total}\r\n", to - 1),
            )
        }
        None => (200, String::new()),
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{extra}\r\n",
        bytes.len()
    );
    if stream.write_all(head.as_bytes()).is_err() {
        return false;
    }
    if drip {
        for byte in &bytes {
            let drips = talk
                .lock()
                .unwrap_or_else(|e| e.into_inner())
                .drip
                .is_some();
            if drips {
                std::thread::sleep(Duration::from_millis(200));
            }
            if stream.write_all(&[*byte]).is_err() {
                return false;
            }
        }
        return true;
    }
    let end = break_off.unwrap_or(bytes.len()).min(bytes.len());
    for piece in bytes[..end].chunks(16 << 10) {
        if !slow.is_zero() {
            std::thread::sleep(slow);
        }
        if stream.write_all(piece).is_err() {
            return false;
        }
        talk.lock().unwrap_or_else(|e| e.into_inner()).sent_bytes += piece.len();
    }
    end == bytes.len()
}
