//! Tests of what indexes answer, against a server that says just that.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
};

use pytheas_project::{Environment, http::Http};

use super::{Distribution, Sending, Target, UploadError, Uploaded};

/// A server that says 404 to questions and `answer` to uploads, and to those after the first what
/// stands behind `|`, if something does.
fn index(answer: &str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = answer.to_owned();
    std::thread::spawn(move || {
        let mut answers = answer.split('|');
        let mut now = answers.next().unwrap_or_default();
        for stream in listener.incoming().take(5).flatten() {
            if serve(stream, now) {
                now = answers.next().unwrap_or(now);
            }
        }
    });
    port
}

/// Takes one request whole, then answers; whether it was an upload.
fn serve(mut stream: TcpStream, answer: &str) -> bool {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut line, mut length) = (String::new(), 0);
    let mut is_upload = false;
    while reader.read_line(&mut line).is_ok_and(|count| count > 2) {
        is_upload |= line.starts_with("POST");
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let _sender_may_be_gone = reader.read_exact(&mut vec![0; length]);
    let answer = if is_upload {
        answer
    } else {
        "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    };
    let _reader_may_be_gone = stream.write_all(answer.as_bytes());
    is_upload
}

fn wheel(dir: &Path) -> Distribution {
    let path = dir.join("demo-1-py3-none-any.whl");
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    zip.start_file("demo-1.dist-info/METADATA", options)
        .unwrap();
    zip.write_all(b"Metadata-Version: 2.1\nName: demo\nVersion: 1\n")
        .unwrap();
    pytheas_durable::replace(&path, &zip.finish().unwrap().into_inner()).unwrap();
    Distribution::read(&path).unwrap()
}

fn answered(answer: &str) -> (u16, Result<Uploaded, UploadError>) {
    let dir = tempfile::tempdir().unwrap();
    let file = wheel(dir.path());
    let port = index(answer);
    let url = format!("http://127.0.0.1:{port}/").parse().unwrap();
    let http = Http::new(&Environment::default());
    let target = Target {
        url: &url,
        check: None,
        credentials: None,
        http: &http,
        pauses: &[std::time::Duration::ZERO; 2],
    };
    (port, target.upload(&file, Sending::Real))
}

#[track_caller]
fn check(head: &str, body: &str, expected: &str) {
    let length = body.len();
    let answer =
        format!("HTTP/1.1 {head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    let (port, result) = answered(&answer);
    let said = match result {
        Ok(outcome) => format!("{outcome:?}"),
        Err(error) => error.to_string().replace(&port.to_string(), "PORT"),
    };
    assert_eq!(said, expected, "{head}");
}

#[test]
fn each_answer_is_understood() {
    check("200 OK", "", "New");
    check("204 No Content", "", "New");
    check("409 Conflict", "", "Before");
    check(
        "503 Busy",
        "try later",
        "the index `http://127.0.0.1:PORT/` cannot take `demo-1-py3-none-any.whl` now: status 503, try later",
    );
    check(
        "401 Unauthorized",
        "who?",
        "the index `http://127.0.0.1:PORT/` refuses `demo-1-py3-none-any.whl`: status 401, who?",
    );
    check(
        "200 OK",
        "<!DOCTYPE html><h1>Log in</h1>",
        "what answers at `http://127.0.0.1:PORT/` is no package index: a web page came for `demo-1-py3-none-any.whl`: status 200, Log in",
    );
    for status in ["301 Moved", "307 Temporary Redirect"] {
        check(
            &format!("{status}\r\nLocation: https://me:pw@other.example/legacy/"),
            "",
            "the index `http://127.0.0.1:PORT/` sends `demo-1-py3-none-any.whl` on to `https://other.example/legacy/`",
        );
    }
    check(
        "301 Moved\r\nLocation: /legacy",
        "",
        "the index `http://127.0.0.1:PORT/` sends `demo-1-py3-none-any.whl` on to `http://127.0.0.1:PORT/legacy`",
    );
    let busy = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let taken = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let (_, result) = answered(&format!("{busy}|{busy}|{taken}"));
    assert_eq!(result.unwrap(), Uploaded::New);
    // Without an answer nobody knows.
    let (_, result) = answered("");
    assert!(
        matches!(result, Err(UploadError::Network { .. })),
        "{result:?}"
    );
}
