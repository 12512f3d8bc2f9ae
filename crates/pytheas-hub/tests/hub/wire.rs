//! HTTP/1.1 as it goes over the wire, so that tests see every header.

use std::{
    fmt::Write as _,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

/// A request in the making.
#[must_use]
pub(crate) struct Call {
    address: SocketAddr,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Call {
    pub(crate) fn new(address: SocketAddr, method: &str, path: &str) -> Self {
        let (method, path) = (method.to_owned(), path.to_owned());
        Self {
            address,
            method,
            path,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json")
            .body(body.to_string())
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends the head and the body; the answer can then be read as it comes.
    pub(crate) fn open(self) -> TcpStream {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        if !self.headers.iter().any(|(name, _)| name == "host") {
            let _infallible = write!(head, "host: hub.test:8470\r\n");
        }
        for (name, value) in &self.headers {
            let _infallible = write!(head, "{name}: {value}\r\n");
        }
        if !self.body.is_empty() || self.method != "GET" {
            let _infallible = write!(head, "content-length: {}\r\n", self.body.len());
        }
        head.push_str("connection: close\r\n\r\n");
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        // A hub that refuses early may close before it has read everything.
        let _refused_early = stream.write_all(&self.body);
        stream
    }

    pub(crate) fn send(self) -> Reply {
        let is_head = self.method == "HEAD";
        let mut raw = Vec::new();
        let mut stream = self.open();
        if let Err(error) = stream.read_to_end(&mut raw) {
            assert!(!raw.is_empty(), "no answer: {error}");
        }
        Reply::parse(&raw, is_head)
    }
}

impl Reply {
    fn parse(raw: &[u8], is_head: bool) -> Self {
        let end = raw
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .expect("a whole head");
        let head = std::str::from_utf8(&raw[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .unwrap()
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let reply = Self {
            status,
            headers,
            body: raw[end + 4..].to_vec(),
        };
        assert_eq!(reply.header("transfer-encoding"), None, "never chunked");
        if !is_head && !matches!(status, 204 | 304) {
            let length = reply.header("content-length").expect("a length is told");
            assert_eq!(
                length,
                reply.body.len().to_string(),
                "the body has the length told"
            );
        }
        reply
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.text()))
    }

    /// Asserts the status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    /// The whole answer for a snapshot; dates are left out.
    pub(crate) fn shown(&self) -> String {
        let mut shown = format!("{}\n", self.status);
        for (name, value) in &self.headers {
            if !matches!(name.as_str(), "date" | "connection") {
                let value = if name == "last-modified" {
                    "[DATE]"
                } else {
                    value
                };
                let _infallible = writeln!(shown, "{name}: {value}");
            }
        }
        shown.push('\n');
        match serde_json::from_slice::<Value>(&self.body) {
            Ok(json) => shown.push_str(&serde_json::to_string_pretty(&json).unwrap()),
            Err(_) => shown.push_str(&self.text()),
        }
        shown
    }
}
