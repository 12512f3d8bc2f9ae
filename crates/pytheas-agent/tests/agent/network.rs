//! Networks as they are: proxies, TLS that wants to know the device, lines that are cut; and
//! updates that wait for their time.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::support::{App, Device, World, until};

fn settings(device: &mut Device, text: &str) {
    let path = device.state.with_extension("toml");
    pytheas_durable::replace(&path, text.as_bytes()).unwrap();
    device
        .args
        .extend(["--config".into(), path.display().to_string()]);
}

fn waits_for(device: &Device, text: &str) {
    until(text, || {
        let status = device.status();
        status["held"].as_str()?.contains(text).then_some(())
    });
}

#[test]
fn a_held_update_is_staged_and_switched_to_when_it_is_released() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let device = world.device_with("device", &first);
    let second = world.publish(&App::good("2.0.0"));

    assert!(device.output("hold", &[]).status.success());
    let action = world.hub.offer(&second.target);
    waits_for(&device, "updates are held");
    assert_eq!(device.state_name(), "verifying");
    device.runs("1.0.0");
    world.hub.polled(3); // it still listens to its hub
    let told = until("the hub is told", || {
        let talk = world.hub.talk();
        let scheduled = talk
            .feedback
            .iter()
            .find(|(_, _, body)| body["status"]["execution"] == "scheduled")?;
        Some(scheduled.2["status"]["details"][0].to_string())
    });
    assert!(told.contains("updates are held"), "{told}");

    let released = device.output("release", &[]);
    let said = String::from_utf8(released.stdout).unwrap();
    assert_eq!(said, "the update to `app@2.0.0` goes on\n");
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.runs("2.0.0");
    let again = device.output("release", &[]);
    assert_eq!(again.stdout, b"no update waits\n");
}

#[test]
fn each_update_waits_for_consent_also_over_a_restart_and_can_be_cancelled_meanwhile() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let mut device = world.device("device");
    settings(&mut device, "[install]\nconsent = true\n");
    device.start();
    // The first one disturbs nothing.
    let action = world.hub.offer(&first.target);
    assert_eq!(world.hub.closed(&action), Ok(()));

    let second = world.publish(&App::good("2.0.0"));
    world.hub.offer(&second.target);
    waits_for(&device, "`app@2.0.0` waits for consent");
    world.hub.cancel();
    device.is_idle();
    device.runs("1.0.0");
    until("nothing waits any more", || {
        device.status()["held"].is_null().then_some(())
    });

    let action = world.hub.offer(&second.target);
    waits_for(&device, "waits for consent");
    device.stop();
    device.start();
    waits_for(&device, "waits for consent");
    device.runs("1.0.0");
    assert!(device.output("release", &[]).status.success());
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.runs("2.0.0");
    device.is_idle();

    // Consent to one release is none to the next.
    let third = world.publish(&App::good("3.0.0"));
    world.hub.offer(&third.target);
    waits_for(&device, "`app@3.0.0` waits for consent");
}

/// A window that is closed now, in UTC: an hour, six hours away.
fn window_elsewhere() -> String {
    let hour = jiff::Timestamp::now()
        .to_zoned(jiff::tz::TimeZone::UTC)
        .hour();
    let opens = (hour + 6) % 24;
    format!("[\"{opens:02}:00-{:02}:00\"]", (opens + 1) % 24)
}

#[test]
fn downloads_and_switches_keep_to_their_windows() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let mut device = world.device_with("device", &first);
    let second = world.publish(&App::good("2.0.0"));
    let windows = window_elsewhere();
    device.stop();
    let path = device.state.join("agent.toml"); // where it is looked for unasked
    let write = |text: &str| pytheas_durable::replace(&path, text.as_bytes()).unwrap();

    write(&format!("[download]\nwindows = {windows}\n"));
    device.start();
    let action = world.hub.offer(&second.target);
    waits_for(&device, "the download window opens");
    world.hub.polled(3);
    assert_eq!(device.state_name(), "fetching");
    device.stop();

    write(&format!("[install]\nwindows = {windows}\n"));
    device.start();
    waits_for(&device, "the install window opens");
    assert_eq!(device.state_name(), "verifying");
    device.runs("1.0.0");
    device.stop();

    // One poll, and not a night's wait.
    device.args.push("--once".into());
    device.start();
    let ended = until("it ends", || device.ended());
    assert!(ended.success());
    device.args.pop();

    write("[install]\nwindows = [\"00:00-24:00\"]\n");
    device.start();
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.runs("2.0.0");
}

#[test]
fn settings_that_cannot_be_used_stop_the_agent_before_anything_else() {
    let world = World::new();
    let mut device = world.device("device");
    settings(&mut device, "[install]\nwindow = [\"mon 01:00-02:00\"]\n");
    device.start();
    let ended = until("it ends", || device.ended());
    assert_eq!(ended.code(), Some(1));
    let log = device.log();
    assert!(
        log.contains("device.toml:2:1: there is no setting `install.window`"),
        "{log}"
    );
    assert!(log.contains("did you mean `install.windows`?"), "{log}");
}

/// A proxy that knows CONNECT and one password; what it was asked.
fn connect_proxy(credentials: &'static str) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let asked = Arc::clone(&shared);
            std::thread::spawn(move || proxied(stream, &asked, credentials));
        }
    });
    (address, asked)
}

fn proxied(client: TcpStream, asked: &Mutex<Vec<String>>, credentials: &str) -> Option<()> {
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let mut client = client;
    let (mut first, mut allowed) = (String::new(), false);
    reader.read_line(&mut first).ok()?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        allowed |= line.trim_end() == format!("Proxy-Authorization: Basic {credentials}");
        if line.trim_end().is_empty() {
            break;
        }
    }
    asked.lock().unwrap().push(first.trim_end().to_owned());
    if !allowed {
        let refusal = b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n";
        return client.write_all(refusal).ok();
    }
    let target = first.strip_prefix("CONNECT ")?.split(' ').next()?;
    let server = TcpStream::connect(target).ok()?;
    client.write_all(b"HTTP/1.1 200 Go\r\n\r\n").ok()?;
    relay(client, server, &Arc::default(), None);
    Some(())
}

/// Moves bytes both ways, counting them; all is cut after `limit` of them.
fn relay(client: TcpStream, server: TcpStream, count: &Arc<AtomicUsize>, limit: Option<usize>) {
    let begun = count.load(Ordering::Relaxed);
    for (mut from, mut to) in [
        (client.try_clone().unwrap(), server.try_clone().unwrap()),
        (server, client),
    ] {
        let count = Arc::clone(count);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = from.read(&mut buffer) {
                let so_far = count.fetch_add(read, Ordering::Relaxed) + read - begun;
                if to.write_all(&buffer[..read]).is_err() || limit.is_some_and(|l| so_far > l) {
                    break;
                }
            }
            let _gone_already = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        });
    }
}

/// Something between a device and its hub: its address, and the bytes that went through it.
fn between(target: String, limit: Option<usize>) -> (String, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (bytes, connections) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, connected) = (Arc::clone(&bytes), Arc::clone(&connections));
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            connected.fetch_add(1, Ordering::Relaxed);
            if let Ok(server) = TcpStream::connect(&target) {
                relay(client, server, &counted, limit);
            }
        }
    });
    (address, bytes, connections)
}

#[test]
fn the_hub_is_reached_over_a_proxy_and_its_password_is_in_no_log() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    // base64 of `me:p@ss-word`
    let (proxy, asked) = connect_proxy("bWU6cEBzcy13b3Jk");
    let mut device = world.device("device");
    settings(
        &mut device,
        &format!("[proxy]\nurl = \"http://me:p%40ss-word@{proxy}\"\n"),
    );
    device.start();
    let action = world.hub.offer(&first.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.runs("1.0.0");
    let hub = world.hub.url();
    let hub = hub.trim_start_matches("http://");
    assert!(
        asked
            .lock()
            .unwrap()
            .contains(&format!("CONNECT {hub} HTTP/1.1"))
    );
    device.stop();

    let mut other = world.device("other");
    other.args.extend([
        "--proxy".into(),
        format!("http://me:wrong-word@{proxy}"),
        "--once".into(),
    ]);
    other.start();
    let ended = until("it ends", || other.ended());
    assert_eq!(ended.code(), Some(3));
    assert!(
        other.log().contains("127.0.0.1"),
        "says what was not reached"
    );
    for device in [&device, &other] {
        let log = device.log() + &device.status().to_string();
        assert!(
            !log.contains("ss-word") && !log.contains("wrong-word"),
            "{log}"
        );
    }

    // Named as one to be reached directly.
    let mut direct = world.device("direct");
    settings(
        &mut direct,
        &format!("[proxy]\nurl = \"http://nobody@{proxy}\"\nno-proxy = [\"127.0.0.1\"]\n"),
    );
    direct.args.push("--once".into());
    let before = asked.lock().unwrap().len();
    direct.start();
    assert!(until("it ends", || direct.ended()).success());
    assert_eq!(asked.lock().unwrap().len(), before);
}

#[test]
fn a_line_that_is_cut_again_and_again_brings_every_byte_once() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let big = App::good("2.0.0").file("lib/big", crate::support::noise(7, 1_500_000));
    let mut device = world.device_with("device", &first);
    let second = world.publish(&big);
    device.stop();
    // Each connection breaks after 200 kB, in the middle of whatever it carries.
    let hub = world.hub.url().trim_start_matches("http://").to_owned();
    let (cut, bytes, _) = between(hub, Some(200_000));
    let identity = device.state.join("identity.json");
    let text = fs::read_to_string(&identity).unwrap();
    // Without its check it is taken as it is, and the copy knows the old address.
    let text: String = text
        .lines()
        .filter(|line| !line.contains("\"check\""))
        .collect();
    let text = text.replace(&world.hub.url(), &format!("http://{cut}"));
    pytheas_durable::replace_private(&identity, text.as_bytes()).unwrap();
    pytheas_durable::replace_private(&identity.with_extension("copy"), text.as_bytes()).unwrap();
    device.goes_to(&format!("http://{cut}"));
    device.start();
    let action = world.hub.offer(&second.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.runs("2.0.0");
    assert_eq!(device.current(), Some(second.tree));
    let bytes = bytes.load(Ordering::Relaxed);
    assert!((1_500_000..2_200_000).contains(&bytes), "{bytes}");
}

/// nginx in front of the hub: TLS for it, and only for devices that show a certificate of ours.
struct Front {
    child: Child,
    port: u16,
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn openssl(dir: &Path, arguments: &str) -> bool {
    Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(dir)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// An authority, the hub's certificate and a device's; nothing without `openssl`.
fn certificates(dir: &Path) -> bool {
    let new_key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
    let ca = "-CA ca.pem -CAkey ca-key.pem";
    openssl(
        dir,
        &format!(
            "req -x509 {new_key} -keyout ca-key.pem -out ca.pem -subj /CN=ca -addext basicConstraints=critical,CA:TRUE"
        ),
    ) && openssl(
        dir,
        &format!(
            "req -x509 {new_key} {ca} -keyout hub-key.pem -out hub.pem -subj /CN=hub -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=IP:127.0.0.1"
        ),
    ) && openssl(
        dir,
        &format!(
            "req -x509 {new_key} {ca} -keyout dev1-key.pem -out dev1.pem -subj /CN=dev1 -addext basicConstraints=critical,CA:FALSE"
        ),
    ) && openssl(dir, "x509 -in hub.pem -pubkey -noout -out hub-pub.pem")
        && openssl(
            dir,
            "pkey -pubin -in hub-pub.pem -outform DER -out hub-pub.der",
        )
}

fn front(dir: &Path, hub: &str) -> Option<Front> {
    let nginx = ["nginx", "/usr/sbin/nginx"]
        .into_iter()
        .find(|nginx| Command::new(nginx).arg("-v").output().is_ok())?;
    let port = TcpListener::bind("127.0.0.1:0")
        .ok()?
        .local_addr()
        .ok()?
        .port();
    let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {}/tmp-{kind};\n", dir.display()))
        .concat();
    let text = format!(
        "daemon off; master_process off; pid {dir}/nginx.pid; error_log {dir}/error.log;\n\
         events {{}}\nhttp {{\naccess_log off;\n{temp}\
         server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {dir}/hub.pem;\n\
         ssl_certificate_key {dir}/hub-key.pem; ssl_protocols TLSv1.2 TLSv1.3;\n\
         ssl_session_cache builtin:100;\n\
         ssl_client_certificate {dir}/ca.pem; ssl_verify_client on;\n\
         location / {{ proxy_pass {hub}; proxy_http_version 1.1; proxy_set_header Host $http_host; }} }} }}\n",
        dir = dir.display(),
    );
    let config = dir.join("nginx.conf");
    pytheas_durable::replace(&config, text.as_bytes()).unwrap();
    let child = Command::new(nginx)
        .arg("-c")
        .arg(&config)
        .arg("-e")
        .arg(dir.join("error.log"))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let front = Front { child, port };
    until("nginx listens", || {
        TcpStream::connect(("127.0.0.1", port)).ok()
    });
    Some(front)
}

#[test]
fn a_hub_that_wants_to_see_a_certificate_knows_the_device_and_a_poll_stays_small() {
    let world = World::new();
    let dir: PathBuf = world.path("tls");
    fs::create_dir(&dir).unwrap();
    let Some(front) = certificates(&dir)
        .then(|| front(&dir, &world.hub.url()))
        .flatten()
    else {
        testkit::skip("no usable `openssl` and `nginx`");
        return;
    };
    let pin = pytheas_release::Sha256::of(&fs::read(dir.join("hub-pub.der")).unwrap());
    let (address, bytes, connections) = between(format!("127.0.0.1:{}", front.port), None);
    let first = world.publish(&App::good("1.0.0"));

    let once = |name: &str, tls: &str| {
        let mut device = world.device(name);
        settings(&mut device, &format!("[tls]\nca = \"tls/ca.pem\"\n{tls}"));
        device.goes_to(&format!("https://{address}"));
        device.args.push("--once".into());
        device.start();
        let code = until("it ends", || device.ended()).code();
        (code, device.log())
    };
    let mine = "certificate = \"tls/dev1.pem\"\nkey = \"tls/dev1-key.pem\"\n";

    let (code, log) = once("nameless", "");
    assert_eq!(code, Some(3), "{log}");
    assert_eq!(
        world.hub.talk().requests.len(),
        0,
        "nothing reaches the hub"
    );
    let (code, log) = once(
        "mispinned",
        &format!("{mine}pins = [\"{}\"]\n", "0".repeat(64)),
    );
    assert_eq!(code, Some(3), "{log}");
    assert!(
        log.contains(&format!("the server's key is not pinned: it is {pin}")),
        "{log}"
    );
    assert_eq!(
        world.hub.talk().requests.len(),
        0,
        "nothing reaches the hub"
    );
    let (code, log) = once(
        "mismatched",
        "certificate = \"tls/dev1.pem\"\nkey = \"tls/hub-key.pem\"\n",
    );
    assert_eq!(code, Some(1), "{log}");
    assert!(
        log.contains("the private key") && log.contains("cannot be used"),
        "{log}"
    );

    let mut device = world.device("device");
    settings(
        &mut device,
        &format!("[tls]\nca = \"tls/ca.pem\"\n{mine}pins = [\"{pin}\"]\n"),
    );
    device.goes_to(&format!("https://{address}"));
    device.args = device
        .args
        .iter()
        .map(|arg| arg.replace("100ms", "600ms"))
        .collect();
    device.start();
    let action = world.hub.offer(&first.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.runs("1.0.0");
    device.is_idle();

    // What polls cost that find nothing new, on the connection that is there.
    world.hub.polled(1);
    let polls = || world.hub.asked("controller/v1/dev1 ");
    let (before, bytes_before) = (polls(), bytes.load(Ordering::Relaxed));
    let connections_before = connections.load(Ordering::Relaxed);
    world.hub.polled(4);
    let each = (bytes.load(Ordering::Relaxed) - bytes_before) / (polls() - before);
    assert_eq!(connections.load(Ordering::Relaxed), connections_before);
    assert!(each <= 1500, "{each} bytes for each poll");
}

#[test]
fn a_way_back_waits_for_nothing_and_a_new_component_lets_the_old_one_not_slip_through() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let mut device = world.device("device");
    settings(&mut device, "[install]\nconsent = true\n");
    device.start();
    let action = world.hub.offer(&first.target);
    assert_eq!(world.hub.closed(&action), Ok(()));

    // A new component first, then the one that runs: it would be disturbed all the same.
    let broker = world.publish(&App::good("1.0.0").named("broker"));
    let second = world.publish(&App::good("2.0.0"));
    let action = world.offer_together(&[&broker, &second]);
    waits_for(&device, "waits for consent");
    device.runs("1.0.0");
    assert!(device.output("release", &[]).status.success());
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.is_idle();

    assert!(device.output("hold", &[]).status.success());
    assert!(device.output("rollback", &[]).status.success());
    device.runs("1.0.0");
    device.is_idle();
    assert_eq!(device.current(), Some(first.tree));
}
