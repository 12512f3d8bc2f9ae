//! TLS by the hub itself: certificate and key from PEM files, read again when they change; and
//! certificates of devices.
//!
//! What is in use stays in use until a new pair is whole: a renewal that is seen half done, or that
//! went wrong, is logged and looked at again at the next change.

mod certificate;

use std::{
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use miette::Diagnostic;
use rustls::{
    RootCertStore, ServerConfig, crypto::CryptoProvider, server::WebPkiClientVerifier,
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use thiserror::Error;
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::Notify};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::Clock;

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(15);
/// How long a handshake may take; small boards compute for seconds.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// From when on the log warns of the end.
const WARNED: SignedDuration = SignedDuration::from_hours(14 * 24);

/// The files the hub speaks TLS with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and, behind it, what it was issued by (PEM).
    pub cert: PathBuf,
    /// Its private key (PEM: PKCS#8, SEC1 or PKCS#1).
    pub key: PathBuf,
    /// Authorities whose certificates name devices: the common name is the device's id. Such a
    /// device needs no token and is accepted at once.
    pub client_ca: Option<PathBuf>,
}

/// Files that TLS cannot be spoken with.
#[derive(Debug, Error, Diagnostic)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    #[diagnostic(
        code(pytheas::hub::tls::read),
        help("may the user the hub runs as read it, and the folders above it?")
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Others can read the private key.
    #[error("the private key `{}` can be read by everybody (mode {mode:04o})", path.display())]
    #[diagnostic(
        code(pytheas::hub::tls::refused::mode),
        help("`chmod o-rwx {}`; if somebody else may have read it, have a new certificate issued", path.display())
    )]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// No certificate in it.
    #[error("`{}` holds no certificate", path.display())]
    #[diagnostic(
        code(pytheas::hub::tls::certificate),
        help(
            "expected is PEM: `-----BEGIN CERTIFICATE-----`, the hub's own certificate first, then its issuers"
        )
    )]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// No private key in it.
    #[error("`{}` holds no private key that can be used", path.display())]
    #[diagnostic(
        code(pytheas::hub::tls::key),
        help(
            "expected is PEM without a passphrase: `-----BEGIN PRIVATE KEY-----`, ECDSA, RSA or Ed25519 (boards know ECDSA and RSA)"
        )
    )]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// They do not belong together.
    #[error("the key `{}` is not the one of the certificate `{}`", key.display(), cert.display())]
    #[diagnostic(
        code(pytheas::hub::tls::mismatch),
        help(
            "compare `openssl x509 -in CERT -noout -pubkey` with `openssl pkey -in KEY -pubout`; the hub's own certificate comes first in its file"
        )
    )]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// It is over.
    #[error("the certificate `{}` has expired on {not_after}", path.display())]
    #[diagnostic(
        code(pytheas::hub::tls::expired),
        help(
            "no device would connect; have it renewed. A running hub takes the new one up by itself"
        )
    )]
    Expired {
        /// The file.
        path: PathBuf,
        /// Its last moment.
        not_after: Timestamp,
    },
    /// rustls will not have it.
    #[error("the certificates in `{}` cannot be used", path.display())]
    #[diagnostic(code(pytheas::hub::tls::unusable))]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// TLS as the hub speaks it now.
pub(crate) struct Tls {
    files: TlsFiles,
    clock: Clock,
    now: RwLock<Arc<ServerConfig>>,
    again: Notify,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tls({})", self.files.cert.display())
    }
}

/// What a connection over TLS says besides its requests.
#[derive(Debug, Clone)]
pub(crate) struct OverTls {
    /// The device whose certificate was verified. A name that cannot be read is `?`: nobody.
    pub(crate) certified: Option<String>,
}

impl Tls {
    /// With the files as they are now.
    pub(crate) fn load(files: TlsFiles, clock: Clock) -> Result<Self, TlsError> {
        let now = read(&files, &clock)?;
        Ok(Self {
            files,
            clock,
            now: RwLock::new(Arc::new(now)),
            again: Notify::new(),
        })
    }

    /// Has the files read again soon.
    pub(crate) fn reload(&self) {
        self.again.notify_one();
    }

    /// Takes new files up, for ever.
    pub(crate) async fn watch(&self) {
        let mut known = stamps(&self.files);
        loop {
            let asked = tokio::select! {
                () = self.again.notified() => true,
                () = tokio::time::sleep(EVERY) => false,
            };
            let stamps = stamps(&self.files);
            if stamps == known && !asked {
                continue;
            }
            known = stamps;
            match read(&self.files, &self.clock) {
                Ok(config) => {
                    *self.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
                    tracing::info!("took up the certificate `{}`", self.files.cert.display());
                }
                Err(error) => {
                    let why = std::error::Error::source(&error);
                    tracing::error!(
                        why = why.map(tracing::field::display),
                        "{error}; the one before stays in use"
                    );
                }
            }
        }
    }

    /// The handshake. None when it failed; the reason is in the log.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
    ) -> Option<(TlsStream<TcpStream>, OverTls)> {
        let config = self
            .now
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let shaken = async {
            let mut first = [0];
            if stream.peek(&mut first).await? == 1 && first[0].is_ascii_alphabetic() {
                return plain(stream).await;
            }
            TlsAcceptor::from(config).accept(stream).await
        };
        let stream = match tokio::time::timeout(HANDSHAKE, shaken).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a TLS handshake failed");
                return None;
            }
            Err(_) => {
                tracing::debug!("a TLS handshake took too long");
                return None;
            }
        };
        let shown = stream.get_ref().1.peer_certificates();
        let certified = shown.and_then(|chain| chain.first()).map(|first| {
            let name = certificate::read(first).and_then(|read| read.common_name);
            name.unwrap_or_else(|| "?".to_owned())
        });
        Some((stream, OverTls { certified }))
    }
}

/// Tells somebody who does not speak TLS to do so.
async fn plain(mut stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let text = "this hub speaks TLS here: write https:// instead of http://\n";
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
        text.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    // What is unread when a socket is closed would take the answer with it.
    let mut rest = [0; 4096];
    stream.shutdown().await?;
    while tokio::io::AsyncReadExt::read(&mut stream, &mut rest).await? > 0 {}
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "it was plain HTTP",
    ))
}

/// What changes when somebody replaces the files.
fn stamps(files: &TlsFiles) -> Vec<Option<(u64, i64, i64, u64)>> {
    let all = [
        Some(&files.cert),
        Some(&files.key),
        files.client_ca.as_ref(),
    ];
    all.into_iter()
        .flatten()
        .map(|path| {
            let meta = std::fs::metadata(path).ok()?;
            Some((meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()))
        })
        .collect()
}

fn read(files: &TlsFiles, clock: &Clock) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let unusable = |source: Box<dyn std::error::Error + Send + Sync>| TlsError::Unusable {
        path: files.cert.clone(),
        source,
    };
    let chain = certificates(&files.cert)?;
    let own = chain.first().and_then(|first| certificate::read(first));
    let own = own.ok_or_else(|| TlsError::NoCertificate {
        path: files.cert.clone(),
    })?;
    let now = Timestamp::from_millisecond(clock.now_ms()).unwrap_or_default();
    if own.not_after <= now {
        return Err(TlsError::Expired {
            path: files.cert.clone(),
            not_after: own.not_after,
        });
    }
    if own.not_after.duration_since(now) < WARNED {
        let (path, until) = (files.cert.display(), own.not_after);
        tracing::warn!("the certificate `{path}` is good until {until} only");
    }
    let key = private_key(&files.key)?;
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|_| TlsError::NoKey {
            path: files.key.clone(),
        })?;
    let pair = CertifiedKey::new(chain, key);
    match pair.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
        Err(rustls::Error::InconsistentKeys(_)) => {
            return Err(TlsError::Mismatch {
                cert: files.cert.clone(),
                key: files.key.clone(),
            });
        }
        Err(error) => return Err(unusable(error.into())),
    }
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(error.into()))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => builder.with_client_cert_verifier(clients(path, &provider)?),
    };
    let mut config =
        builder.with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(pair)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Who verifies the certificates of devices; showing none is allowed, tokens are there, too.
fn clients(
    path: &Path,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let unusable = |source: Box<dyn std::error::Error + Send + Sync>| TlsError::Unusable {
        path: path.to_owned(),
        source,
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| unusable(error.into()))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| unusable(error.into()))
}

fn content(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&content(path)?).collect();
    read.ok()
        .filter(|chain| !chain.is_empty())
        .ok_or_else(|| TlsError::NoCertificate {
            path: path.to_owned(),
        })
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = content(path)?;
    let meta = std::fs::metadata(path).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })?;
    let mode = meta.permissions().mode() & 0o7777;
    if mode & 0o007 != 0 {
        let path = path.to_owned();
        return Err(TlsError::Mode { path, mode });
    }
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| TlsError::NoKey {
        path: path.to_owned(),
    })
}
