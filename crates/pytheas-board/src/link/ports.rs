//! The serial ports of this machine, with what USB says about them, read from `/sys`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{Holder, holders};

/// A serial port that may have a board.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Port {
    /// Its path, such as `/dev/ttyACM0`.
    pub path: PathBuf,
    /// The name that stays when it is plugged in elsewhere, under `/dev/serial/by-id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_id: Option<PathBuf>,
    /// USB vendor and product, such as `2e8a:0005`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usb: Option<String>,
    /// What the device calls itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    /// Its USB serial number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Who has it open.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub used_by: Vec<Holder>,
}

/// The ports whose hardware is on USB or is a UART that is really there, sorted by path.
pub fn list() -> Vec<Port> {
    list_in(Path::new("/sys"), Path::new("/dev"))
}

fn list_in(sys: &Path, dev: &Path) -> Vec<Port> {
    let names = fs::read_dir(sys.join("class/tty")).into_iter();
    let mut ports: Vec<_> = names
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let device = entry.path().join("device").canonicalize().ok()?;
            // The classic PC's four UARTs are listed whether or not there are chips behind them.
            let phantom = name.starts_with("ttyS")
                && fs::read_to_string(entry.path().join("type"))
                    .is_ok_and(|kind| kind.trim() == "0");
            if phantom {
                return None;
            }
            let path = dev.join(&name);
            let usb = usb_device(&device);
            let fact = |file: &str| {
                let text = fs::read_to_string(usb.as_ref()?.join(file)).ok()?;
                Some(text.trim().to_owned()).filter(|text| !text.is_empty())
            };
            let vendor = fact("idVendor").zip(fact("idProduct"));
            Some(Port {
                by_id: by_id(dev, &path),
                usb: vendor.map(|(vendor, product)| format!("{vendor}:{product}")),
                product: fact("product"),
                serial: fact("serial"),
                used_by: holders(&path),
                path,
            })
        })
        .filter(|port| port.path.exists())
        .collect();
    ports.sort_by(|a, b| a.path.cmp(&b.path));
    ports
}

/// The folder of the USB device that `device`, one of its interfaces or its ports, belongs to.
fn usb_device(device: &Path) -> Option<PathBuf> {
    device
        .ancestors()
        .take(4)
        .find(|dir| dir.join("idVendor").exists())
        .map(Path::to_owned)
}

fn by_id(dev: &Path, path: &Path) -> Option<PathBuf> {
    let links = fs::read_dir(dev.join("serial/by-id")).ok()?;
    let real = path.canonicalize().ok()?;
    let same = |link: &PathBuf| link.canonicalize().is_ok_and(|target| target == real);
    links.flatten().map(|entry| entry.path()).find(same)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn usb_ports_have_their_names_and_phantoms_are_left_out() {
        let root = tempfile::tempdir().unwrap();
        let (sys, dev) = (root.path().join("sys"), root.path().join("dev"));
        let usb = sys.join("devices/usb1/1-1");
        let put = |path: PathBuf, text: &str| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            #[expect(clippy::disallowed_methods, reason = "a test's own folder")]
            fs::write(path, text).unwrap();
        };
        put(usb.join("idVendor"), "2e8a\n");
        put(usb.join("idProduct"), "0005\n");
        put(usb.join("product"), "Board in FS mode\n");
        put(usb.join("serial"), "e66\n");
        fs::create_dir_all(usb.join("1-1:1.0/tty/ttyACM0")).unwrap();
        fs::create_dir_all(sys.join("class/tty/ttyACM0")).unwrap();
        symlink(usb.join("1-1:1.0"), sys.join("class/tty/ttyACM0/device")).unwrap();
        put(sys.join("class/tty/ttyS0/type"), "0\n");
        put(sys.join("devices/platform/serial8250/x"), "");
        symlink(
            sys.join("devices/platform/serial8250"),
            sys.join("class/tty/ttyS0/device"),
        )
        .unwrap();
        put(dev.join("ttyACM0"), "");
        put(dev.join("ttyS0"), "");
        fs::create_dir_all(dev.join("serial/by-id")).unwrap();
        symlink(dev.join("ttyACM0"), dev.join("serial/by-id/usb-Board")).unwrap();
        let ports = list_in(&sys, &dev);
        assert_eq!(ports.len(), 1);
        assert_eq!(ports[0].usb.as_deref(), Some("2e8a:0005"));
        assert_eq!(ports[0].product.as_deref(), Some("Board in FS mode"));
        assert_eq!(ports[0].by_id, Some(dev.join("serial/by-id/usb-Board")));
    }
}
