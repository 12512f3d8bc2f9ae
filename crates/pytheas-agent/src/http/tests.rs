//! TLS with an authority of one's own, and answers that are not what they should be.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::Instant,
};

use super::*;

/// Answers one request with `answer`; its address.
fn answers(answer: &str) -> String {
    let answer = answer.to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        while reader.read_line(&mut line).unwrap() > 2 {
            line.clear();
        }
        stream.write_all(answer.as_bytes()).unwrap();
    });
    format!("http://{address}")
}

/// Trusts the authorities in this file alone.
fn trust(ca: &Path) -> Network {
    let mut network = Network::default();
    network.tls.ca = Some(ca.to_owned());
    network
}

fn get(answer: &str) -> Result<serde_json::Value, HttpError> {
    Http::new(&answers(answer), &Network::default())
        .unwrap()
        .get("/x", None)
}

#[test]
fn answers_are_told_apart() {
    let value = get("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"a\":1}").unwrap();
    assert_eq!(value["a"], 1);
    assert!(matches!(
        get("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>"),
        Err(HttpError::Parse { .. })
    ));
    assert!(matches!(
        get("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}"),
        Err(HttpError::Read { .. })
    ));
    assert!(matches!(
        get("HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n"),
        Err(HttpError::Unauthorised { status: 401, .. })
    ));
    let busy = get("HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n").unwrap_err();
    assert_eq!(busy.retry_after(), Some(Duration::from_secs(7)));
    let body = r#"{"error": {"code": "internal", "message": "disk full"}}"#;
    let failed = format!(
        "HTTP/1.1 500 No\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let error = get(&failed).unwrap_err().to_string();
    assert!(
        error.ends_with("/x` answers with status 500: disk full"),
        "{error}"
    );
    assert!(matches!(get(""), Err(HttpError::Unreachable { .. })));
}

#[test]
fn an_answer_without_end_is_not_read() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _head = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n[");
        while stream.write_all(&[b'1'; 65536]).is_ok() {}
    });
    let error = Http::new(&base, &Network::default())
        .unwrap()
        .get::<serde_json::Value>("/x", None)
        .unwrap_err();
    assert!(matches!(error, HttpError::Read { .. }), "{error:?}");
}

#[test]
fn ranges_say_where_they_begin() {
    let device: DeviceId = "dev1".parse().unwrap();
    let ask = |answer| {
        let http = Http::new(&answers(answer), &Network::default()).unwrap();
        let request = Request {
            path: "blobs/x",
            range: Some(5..9),
            max_bytes: 9,
        };
        http.repository(&device, Some("t")).fetch(&request)
    };
    let part = "HTTP/1.1 206 P\r\nContent-Range: bytes 5-8/20\r\nContent-Length: 4\r\n\r\nabcd";
    let mut body = ask(part).unwrap().unwrap();
    let mut text = String::new();
    body.reader.read_to_string(&mut text).unwrap();
    assert_eq!((body.start, text.as_str()), (5, "abcd"));
    assert_eq!(
        ask("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd")
            .unwrap()
            .unwrap()
            .start,
        0
    );
    assert!(ask("HTTP/1.1 206 P\r\nContent-Length: 4\r\n\r\nabcd").is_err());
    assert!(
        ask("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")
            .unwrap()
            .is_none()
    );
    assert!(ask("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n").is_err());
}

/// `openssl s_server`, which serves the files of a folder over TLS.
struct TlsServer(Child);

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[test]
fn an_authority_of_ones_own_is_trusted_when_it_is_given_and_only_then() {
    let dir = tempfile::tempdir().unwrap();
    let openssl = |arguments: &str| {
        Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .output()
            .is_ok_and(|output| output.status.success())
    };
    let made = openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out ca.pem \
         -days 2 -subj /CN=localhost -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=IP:127.0.0.1,DNS:localhost"
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .as_str(),
    );
    if !made {
        testkit::skip("no usable `openssl` command");
        return;
    }
    pytheas_durable::replace(&dir.path().join("hello"), b"hello over TLS").unwrap();
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let server = Command::new("openssl")
        .args([
            "s_server", "-quiet", "-WWW", "-cert", "ca.pem", "-key", "key.pem", "-accept",
        ])
        .arg(format!("127.0.0.1:{port}"))
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _server = TlsServer(server);
    let base = format!("https://127.0.0.1:{port}");
    let deadline = Instant::now() + Duration::from_secs(10);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(20));
    }
    let ca = dir.path().join("ca.pem");
    let trusting = Http::new(&base, &trust(&ca)).unwrap();
    assert_eq!(trusting.bytes("/hello", 100).unwrap(), b"hello over TLS");
    let error = Http::new(&base, &Network::default())
        .unwrap()
        .bytes("/hello", 100)
        .unwrap_err();
    assert!(error.line().contains("certificate"), "{}", error.line());

    let empty = dir.path().join("hello");
    assert!(matches!(
        Http::new(&base, &trust(&empty)),
        Err(CaError::Empty { .. })
    ));
    assert!(matches!(
        Http::new(&base, &trust(&dir.path().join("no"))),
        Err(CaError::Read { .. })
    ));
}

#[test]
fn what_a_hub_says_about_an_error_is_one_line() {
    let said = one_line(&format!(
        "no\n2026 WARN all is lost \u{1b}[2J{}",
        "x".repeat(9000)
    ));
    assert!(said.starts_with("no 2026 WARN all is lost  [2Jx"), "{said}");
    assert_eq!(said.chars().count(), MAX_SAID_CHARS);
}
