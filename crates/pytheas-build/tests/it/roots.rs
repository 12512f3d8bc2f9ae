//! A web application in a bundle with its own C library, where there is next to nothing else: what
//! a program asks the machine for (names, users, certificates, time zones) is there or says so.

use std::{fs, path::Path, process::Command};

use pytheas_build::InterpreterChoice;

use crate::{
    platforms::{has_debian, program},
    support::{Workspace, built, can_unshare, shown, skipped, stdout, try_build},
};

/// Serves a request to itself and prints what it sees of the machine.
const MAIN: &str = r#"
import grp, json, locale, os, pwd, socket, ssl, sys, threading, time, urllib.request, zoneinfo
from datetime import datetime
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()

class Item(BaseModel):
    name: str
    price: float

@app.post("/items")
async def items(item: Item):
    return {"name": item.name.upper(), "price": item.price * 2}

def attempt(ask):
    try:
        return ask()
    except (OSError, KeyError) as error:
        return type(error).__name__

def ask(port):
    body = b'{"name": "tea", "price": 2.5}'
    request = urllib.request.Request(f"http://127.0.0.1:{port}/items", body, {"content-type": "application/json"})
    return json.loads(urllib.request.urlopen(request).read())

server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
thread = threading.Thread(target=server.run, daemon=True)
thread.start()
while not server.started:
    time.sleep(0.02)
print(json.dumps({
    "reply": ask(server.servers[0].sockets[0].getsockname()[1]),
    "certificates": len(ssl.create_default_context().get_ca_certs()) > 50,
    "hosts": attempt(lambda: socket.gethostbyname("gateway.internal")),
    "dns": attempt(lambda: socket.gethostbyname("somewhere.example")),
    "service": attempt(lambda: socket.getservbyname("https")),
    "zone": str(datetime(2026, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")).utcoffset()),
    "tz": time.strftime("%Z", time.localtime(1782864000)),
    "locale": locale.setlocale(locale.LC_ALL, ""),
    "encoding": [sys.getfilesystemencoding(), locale.getpreferredencoding()],
    "user": attempt(lambda: pwd.getpwuid(os.getuid()).pw_name),
    "group": attempt(lambda: grp.getgrgid(0).gr_name),
}))
server.should_exit = True
thread.join(5)
"#;

/// Answers every question about an address with 10.1.2.3.
const NAME_SERVER: &str = r#"
import socket, struct
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); sock.bind(("127.0.0.1", 53))
while True:
    data, peer = sock.recvfrom(512)
    end = 12
    while data[end]: end += data[end] + 1
    found = struct.unpack(">H", data[end + 1:end + 3])[0] == 1
    answer = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x0a\1\2\3" if found else b""
    sock.sendto(data[:2] + b"\x81\x80\0\1" + struct.pack(">H", found) + b"\0\0\0\0" + data[12:end + 5] + answer, peer)
"#;

/// The network of its own has a loopback device and the name server, and nothing else.
const SCRIPT: &str = r#"
set -e
root=$1 server=$2; shift 2
python3 -c 'import fcntl, socket, struct; fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh", b"lo", 73))'
python3 -c "$server" & trap "kill $!" EXIT
mkdir -p "$root/proc" "$root/dev"
mount --rbind /dev "$root/dev"
mount -t proc none "$root/proc"
sleep 0.3
env -i PATH=/bin TZ=Europe/Berlin /usr/sbin/chroot "$root" "$@"
"#;

fn seen_in(root: &Path, arguments: &[&str]) -> serde_json::Value {
    let output = Command::new("unshare")
        .args(["-mn", "--propagation", "private", "sh", "-c", SCRIPT, "sh"])
        .arg(root)
        .arg(NAME_SERVER)
        .args(arguments)
        .output()
        .unwrap();
    serde_json::from_str(&stdout(&output)).unwrap()
}

#[test]
fn a_web_application_works_in_an_empty_root_and_on_a_machine_like_alpine() {
    if !has_debian() || !can_unshare() || std::env::consts::ARCH != "x86_64" {
        return;
    }
    let workspace = Workspace::new(&[
        ("main.py", MAIN),
        (
            "pyproject.toml",
            "[project]\nname = \"web\"\nversion = \"1\"\nrequires-python = \">=3.11\"\n\
             dependencies = [\"fastapi\", \"uvicorn\"]\n[tool.pytheas]\nentry = \"main.py\"\n",
        ),
    ]);
    let mut request = workspace.request();
    request.platform = Some("linux-x86_64".parse().unwrap());
    request.interpreter = InterpreterChoice::Debian;
    let built = built(&request);
    let root = workspace.root().join("root");
    fs::create_dir(&root).unwrap();
    pytheas_durable::move_dir(&built.dir, &root.join("app")).unwrap();

    let mut expected = serde_json::json!({
        "reply": {"name": "TEA", "price": 5.0},
        "certificates": true,
        // Without `/etc/hosts` and `/etc/resolv.conf`: the name server of this machine, which knows
        // every name.
        "hosts": "10.1.2.3",
        "dns": "10.1.2.3",
        "service": "OSError",
        "zone": "2:00:00",
        "tz": "CEST",
        "locale": "C",
        "encoding": ["utf-8", "utf-8"],
        "user": "KeyError",
        "group": "KeyError",
    });
    assert_eq!(seen_in(&root, &["/app/bin/web"]), expected);

    let (busybox, musl) = (program("busybox"), Path::new("/lib/ld-musl-x86_64.so.1"));
    let (Some(busybox), true) = (busybox, musl.exists()) else {
        skipped("there is no `busybox` (busybox-static) or no musl (musl)");
        return;
    };
    for dir in ["bin", "lib", "etc"] {
        fs::create_dir(root.join(dir)).unwrap();
    }
    fs::copy(busybox, root.join("bin/busybox")).unwrap();
    std::os::unix::fs::symlink("busybox", root.join("bin/sh")).unwrap();
    fs::copy(musl, root.join("lib/ld-musl-x86_64.so.1")).unwrap();
    for (name, text) in [
        ("hosts", "127.0.0.1 localhost\n10.9.8.7 gateway.internal\n"),
        ("resolv.conf", "nameserver 127.0.0.1\n"),
        ("passwd", "operator:x:0:0:operator:/root:/bin/sh\n"),
        ("group", "wheel:x:0:\n"),
        ("services", "https 443/tcp\n"),
    ] {
        pytheas_durable::replace(&root.join("etc").join(name), text.as_bytes()).unwrap();
    }
    for (key, value) in [
        ("hosts", "10.9.8.7"),
        ("user", "operator"),
        ("group", "wheel"),
    ] {
        expected[key] = value.into();
    }
    expected["service"] = 443.into();
    let script = "cd /; exec app/bin/web";
    assert_eq!(seen_in(&root, &["/bin/sh", "-c", script]), expected);
}

/// What a build for `platform` with Python 3.12 says.
fn refused(platform: &str) -> String {
    let workspace = Workspace::new(&[
        ("main.py", "print('x')\n"),
        (
            "pyproject.toml",
            "[project]\nname = \"gate\"\nversion = \"1\"\nrequires-python = \">=3.11\"\n[tool.pytheas]\nentry = \"main.py\"\n",
        ),
    ]);
    let mut request = workspace.request();
    request.platform = Some(platform.parse().unwrap());
    request.python = Some("3.12".parse().unwrap());
    shown(&try_build(&request).unwrap_err())
}

#[test]
fn pythons_that_cannot_be_had_for_a_platform_are_named_with_what_can() {
    for (platform, expected) in [
        (
            "linux-armv7-musl",
            "only python-build-standalone has Pythons for musl",
        ),
        (
            "linux-aarch64-musl",
            "a bundle for `linux-aarch64` by `--interpreter debian` works as well",
        ),
    ] {
        let text = refused(platform);
        assert!(text.starts_with("error: no Python 3.12"), "{text}");
        assert!(text.contains(expected), "{text}");
    }
    if has_debian() {
        let text = refused("linux-armv7");
        assert!(text.starts_with("error: no Python 3.12"), "{text}");
        assert!(
            text.contains("help: Debian's ") && text.contains(" has Python 3."),
            "{text}"
        );
        assert!(text.contains("Debian 13 (`trixie`) 3.13"), "{text}");
    }
}
