//! Devices on the same network share what they have; one that lies costs a moment.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    path::PathBuf,
};

use crate::support::{App, Device, World, noise, until};

const BIG: usize = 1_500_000;

/// What the hub may send at most when the contents come from elsewhere: signed metadata.
const LITTLE: usize = 40_000;

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn write_settings(device: &Device, text: &str) {
    fs::create_dir_all(&device.state).unwrap();
    pytheas_durable::replace(&device.state.join("agent.toml"), text.as_bytes()).unwrap();
}

fn big(version: &str, seed: u64) -> App {
    App::good(version).file("lib/big", noise(seed, BIG))
}

/// A device on which this app runs, which shares it and then asks the hub for nothing more.
fn sharing(world: &World, app: &App, more: &str) -> (Device, String) {
    let published = world.publish(app);
    let mut device = world.device_with("sharing", &published);
    device.stop();
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let text = format!("[peers]\nshare = true\nlisten = \"0.0.0.0:{port}\"\n{more}");
    write_settings(&device, &text);
    device.args = vec!["--poll-interval".into(), "1h".into()];
    let polls = || world.hub.asked("controller/v1/dev1 ");
    let before = polls();
    device.start();
    until("it shares", || TcpStream::connect(&address).ok());
    until("it has polled", || (polls() > before).then_some(()));
    (device, format!("http://{address}"))
}

#[test]
fn the_second_device_takes_next_to_nothing_from_the_hub() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let mut other = world.device_with("other", &first);
    other.stop();
    let (sharing, address) = sharing(&world, &big("2.0.0", 3), "limit = \"50 MB/s\"\n");
    write_settings(&other, &format!("[peers]\nlist = [\"{address}\"]\n"));
    other.start();
    let second = sharing.current().unwrap();
    let before = world.hub.talk().sent_bytes;
    let target = format!(
        "app/2.0.0/{}/release.json",
        pytheas_release::Platform::host().unwrap()
    );
    let action = world.hub.offer(&target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    other.runs("2.0.0");
    assert_eq!(other.current(), Some(second));
    let sent = world.hub.talk().sent_bytes - before;
    assert!(sent < LITTLE, "{sent} bytes from the hub");
    assert!(
        other.log().contains("contents came from peers"),
        "{}",
        other.log()
    );
}

#[test]
fn only_contents_of_what_is_installed_are_given_and_only_by_their_hash() {
    let world = World::new();
    let (device, address) = sharing(&world, &App::good("1.0.0"), "");
    let ask = |request: &str| {
        let mut stream = TcpStream::connect(address.trim_start_matches("http://")).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    };
    // The connections before may not have been found closed yet.
    let ask = |request: &str| {
        let not_busy = |said: &String| said != "HTTP/1.1 503 Busy";
        until("a place is free", || Some(ask(request)).filter(not_busy))
    };
    let tree = device.current().unwrap();
    let secret =
        pytheas_release::Sha256::of(&fs::read(device.state.join("identity.json")).unwrap());
    for (request, status) in [
        (format!("GET /pytheas/v1/{tree} HTTP/1.1\r\n\r\n"), "200 OK"),
        (
            format!("GET /pytheas/v1/{secret} HTTP/1.1\r\n\r\n"),
            "404 Not Found",
        ),
        (
            "GET /pytheas/v1/ HTTP/1.1\r\n\r\n".into(),
            "400 Bad Request",
        ),
        (
            "GET /pytheas/v1/../../identity.json HTTP/1.1\r\n\r\n".into(),
            "400 Bad Request",
        ),
        ("GET / HTTP/1.1\r\n\r\n".into(), "400 Bad Request"),
        (
            format!("PUT /pytheas/v1/{tree} HTTP/1.1\r\n\r\n"),
            "400 Bad Request",
        ),
        (
            format!("GET {} HTTP/1.1\r\n\r\n", "x".repeat(3_000)),
            "400 Bad Request",
        ),
    ] {
        let said = ask(&request);
        assert_eq!(said, format!("HTTP/1.1 {status}"), "{request:.80}");
    }
    // Rotten since: not given as what it was.
    let script = device.state.join("current/lib/version");
    let hash = pytheas_release::Sha256::of(&fs::read(&script).unwrap());
    let request = format!("GET /pytheas/v1/{hash} HTTP/1.1\r\n\r\n");
    assert_eq!(ask(&request), "HTTP/1.1 200 OK");
    rot(&script);
    assert_eq!(ask(&request), "HTTP/1.1 404 Not Found");
    device.runs("1.0.0");
}

fn rot(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all(b"9").unwrap();
}

/// A peer that answers each request by `say`; its address.
fn peer(say: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let say = std::sync::Arc::new(say);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let say = std::sync::Arc::clone(&say);
            std::thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                while let Some(Ok(line)) = lines.next() {
                    for rest in lines.by_ref() {
                        if rest.is_ok_and(|rest| rest.is_empty()) {
                            break;
                        }
                    }
                    match say(&line) {
                        Some(answer) if stream.write_all(&answer).is_ok() => {}
                        Some(_) => return,
                        None => loop {
                            std::thread::park(); // silent for ever
                        },
                    }
                }
            });
        }
    });
    format!("http://{address}")
}

fn whole(body: &[u8]) -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    answer.push_str("");
    [answer.as_bytes(), body].concat()
}

#[test]
fn peers_that_lie_or_say_nothing_are_left_alone_by_name_and_the_hub_gives_the_rest() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let second = world.publish(&big("2.0.0", 5));
    let mut device = world.device_with("device", &first);
    device.stop();
    // The tree's document as it is known to those who have it.
    let knowing = world.device_with("knowing", &second);
    let document: PathBuf = knowing.state.join(format!("slots/{}.tree", second.tree));
    let document = fs::read(document).unwrap();
    drop(knowing);

    let tree = second.tree.to_string();
    let (doc, id) = (document.clone(), tree.clone());
    let liar = peer(move |line| {
        Some(match line.contains(&id) {
            true => whole(&doc),
            false => whole(&noise(9, 1000)),
        })
    });
    let (doc, id) = (document, tree);
    let silent_later = peer(move |line| line.contains(&id).then(|| whole(&doc)));
    let silent = peer(|_| None);
    let elsewhere = peer(|_| {
        let text =
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
        Some(text.as_bytes().to_vec())
    });
    let endless = peer(|_| Some(whole(&vec![b'x'; 3_000_000])));
    let dead = format!("http://127.0.0.1:{}", free_port());
    let all = [&liar, &silent_later, &silent, &elsewhere, &endless, &dead];
    write_settings(&device, &format!("[peers]\nlist = {all:?}\n"));
    device.start();
    let action = world.hub.offer(&second.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.runs("2.0.0");
    assert_eq!(device.current(), Some(second.tree));
    let log = fs::read_to_string(device.state.with_extension("log")).unwrap();
    for peer in all {
        let said = format!("the peer `{peer}` ");
        assert!(log.contains(&said), "{peer}: {log}");
    }
    for peer in [&liar, &endless] {
        assert!(
            log.contains(&format!("the peer `{peer}` lies: what it gives as ")),
            "{log}"
        );
    }
}

#[test]
fn a_device_finds_its_peers_by_itself() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let mut other = world.device_with("other", &first);
    other.stop();
    let (sharing, address) = sharing(&world, &big("2.0.0", 7), "discover = true\n");
    write_settings(&other, "[peers]\ndiscover = true\n");
    other.start();
    let log = |device: &Device| fs::read_to_string(device.state.with_extension("log")).unwrap();
    let before = world.hub.talk().sent_bytes;
    let target = format!(
        "app/2.0.0/{}/release.json",
        pytheas_release::Platform::host().unwrap()
    );
    let action = world.hub.offer(&target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    other.runs("2.0.0");
    let sent = world.hub.talk().sent_bytes - before;
    let no_multicast = log(&sharing).contains("peers cannot find this device")
        || log(&other).contains("cannot ask the network for peers");
    if no_multicast {
        return testkit::skip("no multicast on this machine");
    }
    assert!(
        sent < LITTLE,
        "{sent} bytes from the hub, {address}: {}",
        log(&other)
    );
}
