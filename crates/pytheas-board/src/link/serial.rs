//! Serial ports and pseudo-terminals: raw mode, two kinds of locks, and whom to blame.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
    termios::{OptionalActions, SpecialCodeIndex, ioctl_tiocexcl, tcgetattr, tcsetattr},
};
use serial2::SerialPort;

use super::{LinkError, Wire, busy, wire::readable};

/// A board that takes no byte for so long is stuck.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

struct Serial {
    port: SerialPort,
    holds_back: bool,
}

/// Opens and locks it: `flock` as pyserial does (which mpremote, esptool and ampy use), and
/// `TIOCEXCL` for everybody else.
pub(super) fn open(path: &Path, baud: u32) -> Result<Box<dyn Wire>, LinkError> {
    let port = path.display().to_string();
    if let Some(holder) = busy::lock_file(path) {
        return Err(LinkError::Busy {
            port,
            by: vec![holder],
        });
    }
    let mut serial = SerialPort::open(path, baud).map_err(|error| failed(path, error))?;
    if let Err(error) = flock(serial.as_fd(), FlockOperation::NonBlockingLockExclusive) {
        return Err(match error {
            Errno::WOULDBLOCK => LinkError::Busy {
                port,
                by: busy::holders(path),
            },
            error => LinkError::Io {
                port,
                source: error.into(),
            },
        });
    }
    let io_error = |source: io::Error| LinkError::Io {
        port: path.display().to_string(),
        source,
    };
    // A pseudo-terminal may not know it; `flock` holds all the same.
    let _no_tty = ioctl_tiocexcl(serial.as_fd());
    // Reads are polled, never waited for in `read`.
    if let Ok(mut settings) = tcgetattr(serial.as_fd()) {
        settings.special_codes[SpecialCodeIndex::VMIN] = 0;
        settings.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(serial.as_fd(), OptionalActions::Now, &settings)
            .map_err(|error| io_error(error.into()))?;
    }
    serial.set_write_timeout(WRITE_LIMIT).map_err(io_error)?;
    Ok(Box::new(Serial {
        port: serial,
        holds_back: holds_back(path),
    }))
}

/// Chips between USB and a board's UART that speak USB's own serial class: ST-Link, DAPLink, WCH's,
/// EDBG, J-Link. What the board has no room for is lost behind them.
const BRIDGES: [&str; 5] = ["0483:37", "0d28:", "1a86:", "03eb:", "1366:"];

/// A board's own USB and pseudo-terminals hold bytes back; a UART does not.
fn holds_back(path: &Path) -> bool {
    let real: PathBuf = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if real.starts_with("/dev/pts") {
        return true;
    }
    let Some(name) = real.file_name().and_then(|name| name.to_str()) else {
        return false;
    };
    let interface = Path::new("/sys/class/tty").join(name).join("device");
    let Some(device) = interface.canonicalize().ok().and_then(|own| {
        let device = own.parent()?;
        let read = |fact: &str| std::fs::read_to_string(device.join(fact)).ok();
        Some(format!(
            "{}:{}",
            read("idVendor")?.trim(),
            read("idProduct")?.trim()
        ))
    }) else {
        return false;
    };
    name.starts_with("ttyACM") && is_own_usb(&device)
}

/// Whether this vendor and product is a board itself, not a chip before its UART.
fn is_own_usb(device: &str) -> bool {
    !BRIDGES.iter().any(|bridge| device.starts_with(bridge))
}

fn failed(path: &Path, error: io::Error) -> LinkError {
    let port = path.display().to_string();
    match error.kind() {
        io::ErrorKind::NotFound => LinkError::NoPort { port },
        io::ErrorKind::PermissionDenied => LinkError::Permission {
            group: busy::group_of(path),
            port,
        },
        _ if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => LinkError::Busy {
            by: busy::holders(path),
            port,
        },
        _ if error.raw_os_error() == Some(Errno::NOTTY.raw_os_error())
            || error.raw_os_error() == Some(Errno::ISDIR.raw_os_error()) =>
        {
            LinkError::NotSerial { port }
        }
        _ => LinkError::Io {
            port,
            source: error,
        },
    }
}

impl Wire for Serial {
    fn take(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if !readable(self.port.as_fd(), Duration::ZERO)? {
            return Ok(0);
        }
        match rustix::io::read(self.port.as_fd(), buf) {
            // Readable, and nothing to read: the other end is gone.
            Ok(0) | Err(Errno::IO | Errno::NODEV | Errno::NXIO) => {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            Ok(count) => Ok(count),
            Err(Errno::INTR | Errno::WOULDBLOCK) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    fn give(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.port.write_all(bytes)
    }

    fn lines(&mut self, dtr: bool, rts: bool) -> io::Result<()> {
        let unsupported = |error: io::Error| match error.raw_os_error() {
            Some(code)
                if [Errno::NOTTY, Errno::INVAL]
                    .iter()
                    .any(|e| e.raw_os_error() == code) =>
            {
                io::ErrorKind::Unsupported.into()
            }
            _ => error,
        };
        self.port.set_dtr(dtr).map_err(unsupported)?;
        self.port.set_rts(rts).map_err(unsupported)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.port.as_fd()
    }

    fn holds_back(&self) -> bool {
        self.holds_back
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chip_before_a_uart_holds_nothing_back() {
        for (device, own) in [
            ("2e8a:0005", true),
            ("f055:9800", true),
            ("303a:1001", true),
            ("0483:5740", true),
            ("0483:374b", false),
            ("0d28:0204", false),
            ("1a86:55d4", false),
        ] {
            assert_eq!(is_own_usb(device), own, "{device}");
        }
    }
}
