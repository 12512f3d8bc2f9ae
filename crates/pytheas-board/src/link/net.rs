//! Boards behind a TCP port: bytes as they are, or RFC 2217.

use std::{
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use super::{
    Address, LinkError, Wire,
    telnet::{self, Telnet},
    wire::readable,
};

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
const WRITE_LIMIT: Duration = Duration::from_secs(10);

struct Net {
    stream: TcpStream,
    /// Present when the port speaks RFC 2217.
    telnet: Option<Telnet>,
    ready: Vec<u8>,
}

/// Connects; with a rate, by RFC 2217.
pub(super) fn open(
    address: &Address,
    host: &str,
    baud: Option<u32>,
) -> Result<Box<dyn Wire>, LinkError> {
    let stream = connect(host).map_err(|source| LinkError::Unreachable {
        port: address.to_string(),
        source,
    })?;
    let mut net = Net {
        stream,
        telnet: baud.map(|_| Telnet::default()),
        ready: Vec::new(),
    };
    if let Some(baud) = baud {
        let agreed = net.agree(baud).map_err(|source| LinkError::Io {
            port: address.to_string(),
            source,
        })?;
        if !agreed {
            return Err(LinkError::NotRfc2217 {
                host: host.to_owned(),
            });
        }
    }
    Ok(Box::new(net))
}

fn connect(host: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in host.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_LIMIT) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_write_timeout(Some(WRITE_LIMIT))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl Net {
    /// Whether the server took our settings.
    fn agree(&mut self, baud: u32) -> io::Result<bool> {
        let until = Instant::now() + ANSWER_LIMIT;
        self.stream.write_all(&telnet::hello())?;
        let mut asked = false;
        while let Some(telnet) = &self.telnet {
            match (telnet.com_port, telnet.rate) {
                (Some(false), _) => return Ok(false),
                (Some(true), Some(_)) => return Ok(true),
                (Some(true), None) if !asked => {
                    asked = true;
                    self.stream.write_all(&telnet::settings(baud))?;
                }
                _ => {}
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            if readable(&self.stream, left)? {
                self.fill()?;
            }
        }
        Ok(false)
    }

    /// Takes what the socket has into `ready`.
    fn fill(&mut self) -> io::Result<()> {
        let mut buf = [0; 4096];
        let count = self.stream.read(&mut buf)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match &mut self.telnet {
            None => self.ready.extend(&buf[..count]),
            Some(telnet) => {
                let answer = telnet.receive(&buf[..count], &mut self.ready);
                self.stream.write_all(&answer)?;
            }
        }
        Ok(())
    }
}

impl Wire for Net {
    fn take(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.ready.is_empty() && readable(&self.stream, Duration::ZERO)? {
            self.fill()?;
        }
        let count = self.ready.len().min(buf.len());
        buf[..count].copy_from_slice(&self.ready[..count]);
        self.ready.drain(..count);
        Ok(count)
    }

    fn give(&mut self, bytes: &[u8]) -> io::Result<()> {
        let until = Instant::now() + WRITE_LIMIT;
        while self.telnet.as_ref().is_some_and(|telnet| telnet.suspended) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if readable(&self.stream, left)? {
                self.fill()?;
            }
        }
        match self.telnet {
            None => self.stream.write_all(bytes),
            Some(_) => self.stream.write_all(&telnet::escape(bytes)),
        }
    }

    fn lines(&mut self, dtr: bool, rts: bool) -> io::Result<()> {
        match self.telnet {
            None => Err(io::ErrorKind::Unsupported.into()),
            Some(_) => self.stream.write_all(&telnet::lines(dtr, rts)),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// What is behind the server is not known.
    fn holds_back(&self) -> bool {
        false
    }
}
