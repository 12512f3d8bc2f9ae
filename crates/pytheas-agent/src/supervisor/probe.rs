//! One HTTP readiness check, in a thread of its own so that a hanging app holds nothing up.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    os::fd::OwnedFd,
    sync::{Arc, OnceLock},
    time::Duration,
};

const TIMEOUT: Duration = Duration::from_secs(2);

/// A check that was begun.
pub(super) struct Probe {
    answer: Arc<OnceLock<Result<u16, String>>>,
}

impl Probe {
    /// Asks `url`; `wake` is raised when the answer is there.
    pub(super) fn start(url: &str, wake: Arc<OwnedFd>) -> Self {
        let answer = Arc::new(OnceLock::new());
        let (cell, url) = (Arc::clone(&answer), url.to_owned());
        let thread = std::thread::Builder::new()
            .name("probe".into())
            .stack_size(256 << 10); // name resolution in glibc is generous with it
        let spawned = thread.spawn(move || {
            let _set_once = cell.set(ask(&url));
            super::raise(&wake);
        });
        if let Err(error) = spawned {
            let _set_once = answer.set(Err(error.to_string()));
        }
        Self { answer }
    }

    /// Whether the answer was 2xx; `None` while there is none.
    pub(super) fn result(&self) -> Option<bool> {
        self.answer
            .get()
            .map(|answer| matches!(answer, Ok(200..=299)))
    }

    /// The answer in words.
    pub(super) fn answer(&self) -> Option<String> {
        self.answer.get().map(|answer| match answer {
            Ok(status) => format!("status {status}"),
            Err(error) => error.clone(),
        })
    }
}

/// The status of a GET of `url`.
fn ask(url: &str) -> Result<u16, String> {
    let (address, host, path) = parse(url)?;
    let text = |error: io::Error| error.to_string();
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).map_err(text)?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(text)?;
    stream.set_write_timeout(Some(TIMEOUT)).map_err(text)?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: pytheas-agent\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).map_err(text)?;
    let mut head = Vec::new();
    let mut byte = [0; 1];
    while head.len() < 64 && byte != *b"\n" {
        stream.read_exact(&mut byte).map_err(text)?;
        head.extend(byte);
    }
    status(&head).ok_or_else(|| "it does not speak HTTP".into())
}

/// The status code in an HTTP status line.
fn status(line: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(line).ok()?.strip_prefix("HTTP/1.")?;
    line.split(' ').nth(1)?.trim().parse().ok()
}

/// Where to connect, the `Host` header and the path of `url`, which must be on this device.
fn parse(url: &str) -> Result<(SocketAddr, String, String), String> {
    let rest = url
        .strip_prefix("http://")
        .ok_or_else(|| format!("`{url}` is no `http://` address"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let with_port = if host.rsplit(']').next().is_some_and(|end| end.contains(':')) {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    with_port
        .to_socket_addrs()
        .map_err(|error| format!("`{host}`: {error}"))?
        .find(|address| address.ip().is_loopback())
        .map(|address| (address, host.to_owned(), format!("/{path}")))
        .ok_or_else(|| format!("`{host}` is not on this device"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn only_this_device_is_asked() {
        let (address, host, path) = parse("http://127.0.0.1:8080/healthz?x=1").unwrap();
        assert_eq!(
            (address.port(), host.as_str(), path.as_str()),
            (8080, "127.0.0.1:8080", "/healthz?x=1")
        );
        assert_eq!(parse("http://[::1]").unwrap().0.port(), 80);
        for wrong in [
            "https://127.0.0.1/",
            "127.0.0.1",
            "http://192.0.2.1/",
            "http://",
            "http://:x/",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_status_line_decides() {
        for (answer, expected) in [
            (&b"HTTP/1.1 204 No Content\r\n\r\n"[..], Ok(204)),
            (b"HTTP/1.0 503\r\n\r\n", Ok(503)),
            (b"220 mail.example ESMTP\r\n", Err(())),
            (b"", Err(())),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("http://{}/healthz", listener.local_addr().unwrap());
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let _read = stream.read(&mut [0; 1024]);
                stream.write_all(answer).unwrap();
            });
            assert_eq!(ask(&url).map_err(|_| ()), expected);
            server.join().unwrap();
        }
    }
}
