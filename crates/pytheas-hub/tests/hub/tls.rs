//! TLS by the hub itself: OpenSSL makes the certificates, rustls verifies them.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use miette::Diagnostic;
use pytheas_hub::{Config, Hub, StartError, TlsFiles};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use serde_json::Value;

use crate::world::World;

/// A folder with an authority and what it issued.
struct Authority {
    dir: PathBuf,
}

impl Authority {
    /// None where there is no OpenSSL 3.
    fn new(dir: &Path) -> Option<Self> {
        std::fs::create_dir_all(dir).unwrap();
        let this = Self {
            dir: dir.to_owned(),
        };
        let made = this.openssl("ca", "/CN=our authority", &[]);
        made.then_some(this)
    }

    fn openssl(&self, name: &str, subject: &str, more: &[&str]) -> bool {
        let output = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "3650"])
            .args(["-pkeyopt", "ec_paramgen_curve:P-256", "-subj", subject])
            .args([
                "-keyout",
                &format!("{name}.key"),
                "-out",
                &format!("{name}.crt"),
            ])
            .args(more)
            .current_dir(&self.dir)
            .output();
        output.is_ok_and(|output| output.status.success())
    }

    fn issue(&self, name: &str, subject: &str) {
        let more = [
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ];
        assert!(self.openssl(name, subject, &more), "{name}");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn files(&self, name: &str) -> TlsFiles {
        TlsFiles {
            cert: self.path(&format!("{name}.crt")),
            key: self.path(&format!("{name}.key")),
            client_ca: None,
        }
    }

    /// What a client is told that trusts this authority; `as_` shows that certificate.
    fn ask(&self, to: SocketAddr, head: &str, as_: Option<&str>) -> std::io::Result<String> {
        self.send(to, head, "", as_)
    }

    fn send(
        &self,
        to: SocketAddr,
        head: &str,
        body: &str,
        as_: Option<&str>,
    ) -> std::io::Result<String> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(self.path("ca.crt")).unwrap();
        roots.add(ca).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match as_ {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let files = self.files(name);
                let chain = vec![CertificateDer::from_pem_file(&files.cert).unwrap()];
                let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let stream = TcpStream::connect(to).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        let length = body.len();
        let rest = format!("host: {to}\r\ncontent-length: {length}\r\nconnection: close");
        stream.write_all(format!("{head}\r\n{rest}\r\n\r\n{body}").as_bytes())?;
        let mut answer = String::new();
        match stream.read_to_string(&mut answer) {
            Err(error) if answer.is_empty() => Err(error),
            _ => Ok(answer),
        }
    }
}

fn world(authority: &Authority, client_ca: bool) -> World {
    let mut files = authority.files("hub");
    files.client_ca = client_ca.then(|| authority.path("ca.crt"));
    World::with(|config| config.tls = Some(files))
}

#[test]
fn the_hub_speaks_tls_and_its_links_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let Some(authority) = Authority::new(dir.path()) else {
        return testkit::skip("no OpenSSL 3");
    };
    authority.issue("hub", "/CN=hub");
    let world = world(&authority, false);
    let url = world.hub().url();
    assert!(url.starts_with("https://127.0.0.1:"), "{url}");
    let (at, admin) = (world.address(), &world.admin);
    let answer = authority.ask(at, "GET /healthz HTTP/1.1", None).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    let body = r#"{"device_id": "node-7", "platform": "micropython-armv7m"}"#;
    let head = format!(
        "POST /api/v1/devices HTTP/1.1\r\nauthorization: Bearer {admin}\r\ncontent-type: application/json",
    );
    let made = authority.send(at, &head, body, None).unwrap();
    let made: Value = serde_json::from_str(made.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    let token = made["token"].as_str().unwrap();
    let poll =
        format!("GET /default/controller/v1/node-7 HTTP/1.1\r\nauthorization: TargetToken {token}");
    let poll = authority.ask(at, &poll, None).unwrap();
    let link = format!("https://{at}/default/controller/v1/node-7/configData");
    assert!(poll.contains(&link), "{poll}");

    let mut plain = TcpStream::connect(at).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("write https:// instead"), "{answer}");
    let stranger = Authority::new(&dir.path().join("stranger")).unwrap();
    assert!(stranger.ask(at, "GET / HTTP/1.1", None).is_err());
}

#[test]
fn a_renewed_certificate_is_taken_up_and_half_of_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let Some(authority) = Authority::new(dir.path()) else {
        return testkit::skip("no OpenSSL 3");
    };
    authority.issue("hub", "/CN=hub");
    let world = world(&authority, false);
    let other = Authority::new(&dir.path().join("other")).unwrap();
    other.issue("hub", "/CN=hub");
    let copy = |name: &str| std::fs::copy(other.path(name), authority.path(name)).unwrap();
    let asks = |who: &Authority| {
        who.ask(world.address(), "GET /healthz HTTP/1.1", None)
            .is_ok()
    };
    let reload = world.hub().reloader().unwrap();
    assert!(asks(&authority) && !asks(&other));
    copy("hub.crt");
    reload();
    // The key is still the old one: nothing changes, whenever the hub has looked.
    std::thread::sleep(Duration::from_millis(300));
    assert!(asks(&authority) && !asks(&other));
    copy("hub.key");
    reload();
    world.wait_until("the new certificate", || asks(&other));
    assert!(!asks(&authority));
}

#[test]
fn a_device_proves_itself_by_its_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let Some(authority) = Authority::new(dir.path()) else {
        return testkit::skip("no OpenSSL 3");
    };
    authority.issue("hub", "/CN=hub");
    authority.issue("node", "/O=Ltd/CN=node-7");
    let stranger = Authority::new(&dir.path().join("stranger")).unwrap();
    stranger.issue("node", "/CN=node-7");
    for name in ["node.crt", "node.key"] {
        std::fs::copy(
            stranger.path(name),
            authority.path(&format!("strange-{name}")),
        )
        .unwrap();
    }
    for (from, to) in [
        ("strange-node.crt", "strange.crt"),
        ("strange-node.key", "strange.key"),
    ] {
        std::fs::rename(authority.path(from), authority.path(to)).unwrap();
    }
    let world = world(&authority, true);
    let poll = |id: &str, more: &str, as_: Option<&str>| {
        let head = format!("GET /default/controller/v1/{id} HTTP/1.1{more}");
        let answer = authority.ask(world.address(), &head, as_);
        answer.map_or("refused".to_owned(), |answer| answer[9..12].to_owned())
    };
    assert_eq!(poll("node-7", "", Some("node")), "200");
    assert_eq!(poll("node-8", "", Some("node")), "401");
    assert_eq!(poll("node-7", "", None), "401");
    assert_eq!(poll("node-7", "", Some("strange")), "refused");
    // Nobody believes a header that a client writes itself.
    assert_eq!(poll("node-7", "\r\nx-controller-id: node-7", None), "401");
    assert_eq!(
        poll("node-8", "\r\nx-controller-id: node-8", Some("node")),
        "401"
    );
}

#[test]
fn what_hinders_tls_is_named_with_a_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let Some(authority) = Authority::new(dir.path()) else {
        return testkit::skip("no OpenSSL 3");
    };
    authority.issue("hub", "/CN=hub");
    authority.issue("other", "/CN=other");
    std::fs::write(authority.path("empty.pem"), "").unwrap();
    std::fs::set_permissions(
        authority.path("empty.pem"),
        std::fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    let start = |change: &dyn Fn(&mut Config)| {
        let mut config = Config::new(dir.path().join("data"));
        config.listen = "127.0.0.1:0".parse().unwrap();
        config.tls = Some(authority.files("hub"));
        change(&mut config);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let error: StartError = runtime.block_on(Hub::start(config)).unwrap_err();
        let help = error.help().map(|help| help.to_string());
        let text = format!("{error}\n  help: {}\n", help.unwrap_or_default());
        text.replace(dir.path().to_str().unwrap(), "")
    };
    let file = |config: &mut Config, cert: Option<&str>, key: Option<&str>| {
        let tls = config.tls.as_mut().unwrap();
        for (place, name) in [(&mut tls.cert, cert), (&mut tls.key, key)] {
            if let Some(name) = name {
                *place = authority.path(name);
            }
        }
    };
    let mut said = String::new();
    said += &start(&|config| file(config, None, Some("other.key")));
    said += &start(&|config| file(config, None, Some("gone.key")));
    said += &start(&|config| file(config, Some("hub.key"), None));
    said += &start(&|config| file(config, None, Some("empty.pem")));
    let clock = Arc::new(std::sync::atomic::AtomicI64::new(4_000_000_000_000));
    let late = start(&|config| config.clock = pytheas_hub::Clock::Manual(clock.clone()));
    let (before, after) = late.split_once(" on 20").unwrap();
    said += &format!("{before} on …{}", after.split_once('Z').unwrap().1);
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(authority.path("hub.key"), open).unwrap();
    said += &start(&|_| {});
    insta::assert_snapshot!(said, @"
    the key `/other.key` is not the one of the certificate `/hub.crt`
      help: compare `openssl x509 -in CERT -noout -pubkey` with `openssl pkey -in KEY -pubout`; the hub's own certificate comes first in its file
    cannot read `/gone.key`
      help: may the user the hub runs as read it, and the folders above it?
    `/hub.key` holds no certificate
      help: expected is PEM: `-----BEGIN CERTIFICATE-----`, the hub's own certificate first, then its issuers
    `/empty.pem` holds no private key that can be used
      help: expected is PEM without a passphrase: `-----BEGIN PRIVATE KEY-----`, ECDSA, RSA or Ed25519 (boards know ECDSA and RSA)
    the certificate `/hub.crt` has expired on …
      help: no device would connect; have it renewed. A running hub takes the new one up by itself
    the private key `/hub.key` can be read by everybody (mode 0644)
      help: `chmod o-rwx /hub.key`; if somebody else may have read it, have a new certificate issued
    ");
}
