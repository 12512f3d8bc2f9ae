//! Where a board is: a serial port or pseudo-terminal by its path, or a network address.

use std::{fmt, path::PathBuf, str::FromStr};

use miette::Diagnostic;

/// A port, as people write it: `/dev/ttyACM0`, `ttyACM0`, `tcp://host:port`,
/// `rfc2217://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A serial port or pseudo-terminal.
    Serial(PathBuf),
    /// A TCP port that carries the bytes as they are.
    Tcp(String),
    /// A TCP port that speaks RFC 2217 (telnet with the COM-PORT option).
    Rfc2217(String),
}

/// Text that names no port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Diagnostic)]
#[error("`{text}` is no port of a board: {why}")]
#[diagnostic(
    code(pytheas::board::address),
    help(
        "write a path (`/dev/ttyACM0`), `tcp://host:port` or `rfc2217://host:port`; `pytheas board list` shows the ports of this machine"
    )
)]
pub struct AddressError {
    text: String,
    why: &'static str,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = |why| AddressError {
            text: text.to_owned(),
            why,
        };
        let Some((scheme, rest)) = text.split_once("://") else {
            return match text {
                "" => Err(wrong("it is empty")),
                name if name.contains('/') => Ok(Self::Serial(name.into())),
                name => Ok(Self::Serial(PathBuf::from("/dev").join(name))),
            };
        };
        let rest = rest.trim_end_matches('/');
        let (host, port) = rest
            .rsplit_once(':')
            .ok_or_else(|| wrong("it has no port number"))?;
        if host.is_empty() || port.parse::<u16>().is_err() {
            return Err(wrong("it has no host or no port number"));
        }
        match scheme {
            "tcp" | "socket" => Ok(Self::Tcp(rest.to_owned())),
            "rfc2217" => Ok(Self::Rfc2217(rest.to_owned())),
            _ => Err(wrong("only `tcp` and `rfc2217` are known")),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serial(path) => write!(f, "{}", path.display()),
            Self::Tcp(host) => write!(f, "tcp://{host}"),
            Self::Rfc2217(host) => write!(f, "rfc2217://{host}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_paths_names_or_urls() {
        for (text, shown) in [
            ("/dev/pts/3", "/dev/pts/3"),
            ("ttyACM0", "/dev/ttyACM0"),
            ("./link", "./link"),
            ("tcp://localhost:2217", "tcp://localhost:2217"),
            ("socket://[::1]:23/", "tcp://[::1]:23"),
            ("rfc2217://10.0.0.2:4000", "rfc2217://10.0.0.2:4000"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown);
        }
        for text in ["", "tcp://host", "tcp://:1", "tcp://h:99999", "ws://h:80"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
