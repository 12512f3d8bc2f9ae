//! The socket on which the app reports (`sd_notify(3)`): READY, STATUS, WATCHDOG.
//!
//! A Unix datagram socket in the state directory; where there can be none (a path longer than the
//! 107 bytes that `sun_path` holds, a full or read-only disk) one with a random name in the abstract
//! namespace, which no other program can guess.

use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    path::{Path, PathBuf},
};

/// Longest path of a Unix socket on Linux, without the final zero.
const MAX_PATH_BYTES: usize = 107;

/// What one datagram says; fields we do not know are not looked at.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) ready: bool,
    pub(super) watchdog: bool,
    pub(super) status: Option<String>,
}

pub(super) struct NotifySocket {
    socket: UnixDatagram,
    address: String,
    path: Option<PathBuf>,
}

impl NotifySocket {
    /// The socket at `path`, or with an abstract name when there can be none.
    pub(super) fn bind(path: &Path) -> io::Result<Self> {
        let text = path.to_str().filter(|text| text.len() <= MAX_PATH_BYTES);
        let at_path = text.and_then(|text| {
            let _none_from_before = std::fs::remove_file(path);
            Some((UnixDatagram::bind(path).ok()?, text.to_owned()))
        });
        let (socket, address, path) = match at_path {
            Some((socket, address)) => (socket, address, Some(path.to_owned())),
            None => {
                let mut random = [0; 16];
                getrandom::fill(&mut random).map_err(io::Error::other)?;
                let name = format!("pytheas-{}", hex::encode(random));
                let address = SocketAddr::from_abstract_name(&name)?;
                (UnixDatagram::bind_addr(&address)?, format!("@{name}"), None)
            }
        };
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            address,
            path,
        })
    }

    /// The value of `NOTIFY_SOCKET`.
    pub(super) fn address(&self) -> String {
        self.address.clone()
    }

    /// All messages that have come in.
    pub(super) fn drain(&self) -> Vec<Message> {
        let mut messages = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(len) = self.socket.recv(&mut buffer) {
            messages.push(parse(&buffer[..len]));
            if messages.len() == 1000 {
                break; // an app that floods us gets its turn again after the rest was done
            }
        }
        messages
    }
}

impl AsFd for NotifySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _replaced_at_the_next_start = std::fs::remove_file(path);
        }
    }
}

fn parse(datagram: &[u8]) -> Message {
    let mut message = Message::default();
    for line in String::from_utf8_lossy(datagram).lines() {
        match line.split_once('=') {
            Some(("READY", "1")) => message.ready = true,
            Some(("WATCHDOG", "1")) => message.watchdog = true,
            Some(("STATUS", text)) => message.status = Some(text.chars().take(200).collect()),
            _ => {}
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_have_a_field_a_line() {
        assert_eq!(
            parse(b"READY=1\nSTATUS=42 plants\nMAINPID=7\n"),
            Message {
                ready: true,
                watchdog: false,
                status: Some("42 plants".into()),
            }
        );
        assert_eq!(
            parse(b"READY=0\nWATCHDOG=1"),
            Message {
                watchdog: true,
                ..Message::default()
            }
        );
        for odd in [&b""[..], b"READY", b"\xff\xfe=1", b"READY=1 ", b"=\n=\n"] {
            assert!(!parse(odd).ready, "{odd:?}");
        }
    }

    #[test]
    fn a_path_that_no_socket_holds_gets_an_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("d".repeat(120)).join("notify.sock");
        let socket = NotifySocket::bind(&long).unwrap();
        let name = socket.address().strip_prefix('@').unwrap().to_owned();
        let app = UnixDatagram::unbound().unwrap();
        app.connect_addr(&SocketAddr::from_abstract_name(&name).unwrap())
            .unwrap();
        app.send(b"READY=1").unwrap();
        assert!(socket.drain()[0].ready);

        let short = dir.path().join("notify.sock");
        let first = NotifySocket::bind(&short).unwrap();
        std::mem::forget(first); // killed: its file stays
        let socket = NotifySocket::bind(&short).unwrap();
        app.send_to(b"STATUS=here", socket.address()).unwrap();
        assert_eq!(socket.drain()[0].status.as_deref(), Some("here"));

        let taken = dir.path().join("taken");
        std::fs::create_dir(&taken).unwrap();
        let socket = NotifySocket::bind(&taken).unwrap();
        assert!(socket.address().starts_with("@pytheas-"));
    }

    proptest::proptest! {
        #[test]
        fn only_the_exact_word_makes_an_app_ready(text in "(READY|ready|READY )?=?[01\n]{0,3}") {
            let expected = text.lines().any(|line| line == "READY=1");
            proptest::prop_assert_eq!(parse(text.as_bytes()).ready, expected);
        }
    }
}
