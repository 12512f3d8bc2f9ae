//! TLS for the hub: its authorities, its pinned keys, the device's own key, and clocks that are
//! wrong.
//!
//! A connector of `ureq` of our own, since its own neither pins nor takes a key that does not fit
//! its certificate as anything but a panic. One `ClientConfig` for the life of the agent keeps the
//! session tickets, so that a later connection is a third of the first one's bytes.
//!
//! A board without a battery wakes up in 1970, before every certificate. While the clock is
//! plainly wrong ([`crate::clock::EARLIEST`]), certificates are looked at as of the day from which
//! they are valid; whose they are is checked as ever. What comes over the line is signed besides.

mod kept;

use std::{
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use pytheas_release::Sha256;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore,
    SignatureScheme, StreamOwned,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    server::ParsedCertificate,
    sign::{CertifiedKey, SingleCertAndKey},
};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
    TransportAdapter,
};

pub(crate) use self::kept::PIN_VARIABLE;
use self::kept::{Keeper, KeptKey};
use super::CaError;
use crate::{
    clock,
    settings::{ClientKey, Tls},
};

/// Links of a chain of certificates whose first day a wrong clock is set to.
const MAX_CHAIN: usize = 8;

/// As whom the device shows itself.
enum Identity {
    /// With a key that is read from a file.
    Held(
        Vec<CertificateDer<'static>>,
        PrivateKeyDer<'static>,
        PathBuf,
    ),
    /// With one that somebody else keeps.
    Kept(Arc<SingleCertAndKey>),
}

/// What TLS needs to know, ready for use.
#[derive(Debug)]
pub(super) struct TlsConnector {
    /// Pins and the device's key are for this host alone, not for a proxy on the way.
    hub_host: String,
    hub: Arc<ClientConfig>,
    others: Arc<ClientConfig>,
}

impl TlsConnector {
    pub(super) fn new(hub_host: &str, tls: &Tls, answer: Duration) -> Result<Self, CaError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let roots = Arc::new(match &tls.ca {
            None => RootCertStore {
                roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
            },
            Some(path) => {
                let mut store = RootCertStore::empty();
                let found = certificates(path)?;
                let (added, _) = store.add_parsable_certificates(found);
                if added == 0 {
                    return Err(CaError::Empty { path: path.clone() });
                }
                store
            }
        });
        let identity = identity(tls, &provider, answer)?;
        let config = |pins: &[Sha256], identity: Option<Identity>| {
            let verifier = WebPkiServerVerifier::builder_with_provider(
                Arc::clone(&roots),
                Arc::clone(&provider),
            )
            .build()
            .map_err(|source| CaError::Roots { source })?;
            let verifier = Verifier {
                inner: verifier,
                pins: pins.to_vec(),
            };
            let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .map_err(|source| CaError::Tls { source })?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier));
            match identity {
                None => Ok(builder.with_no_client_auth()),
                Some(Identity::Held(chain, key, path)) => builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|source| CaError::Key { path, source }),
                Some(Identity::Kept(key)) => Ok(builder.with_client_cert_resolver(key)),
            }
        };
        Ok(Self {
            hub_host: hub_host.to_owned(),
            others: Arc::new(config(&[], None)?),
            hub: Arc::new(config(&tls.pins, identity)?),
        })
    }
}

/// As whom the device shows itself, if it has a certificate; a key that somebody else keeps may take
/// as long as an `answer`.
fn identity(
    tls: &Tls,
    provider: &CryptoProvider,
    answer: Duration,
) -> Result<Option<Identity>, CaError> {
    let (file, key) = match (&tls.certificate, &tls.key) {
        (Some(certificate), key) => (certificate, key.as_ref()),
        (None, Some(ClientKey::File(path))) => {
            return Err(CaError::KeyAlone { path: path.clone() });
        }
        (None, Some(_)) => return Err(CaError::TokenAlone),
        (None, None) => return Ok(None),
    };
    let chain = certificates(file)?;
    let held = |path: &PathBuf, chain| {
        let key = private_key(path)?;
        Ok(Some(Identity::Held(chain, key, path.clone())))
    };
    let keeper = match key {
        None => return held(file, chain),
        Some(ClientKey::File(path)) => return held(path, chain),
        Some(ClientKey::Token(token)) => Keeper::Token(token.clone()),
        Some(ClientKey::Command(command)) => Keeper::Command(command.clone()),
    };
    let first = chain
        .first()
        .ok_or_else(|| CaError::Empty { path: file.clone() })?;
    let key = KeptKey::new(keeper, first, provider, answer).map_err(|source| {
        let path = file.clone();
        CaError::Certificate { path, source }
    })?;
    let key = CertifiedKey::new(chain, Arc::new(key));
    Ok(Some(Identity::Kept(Arc::new(key.into()))))
}

fn read(path: &Path) -> Result<Vec<u8>, CaError> {
    std::fs::read(path).map_err(|source| CaError::Read {
        path: path.to_owned(),
        source,
    })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CaError> {
    let pem = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(CaError::Empty {
            path: path.to_owned(),
        }),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, CaError> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|_| CaError::NoKey {
        path: path.to_owned(),
    })
}

/// The usual checks; then the pins; and a first day for clocks that are plainly wrong.
#[derive(Debug)]
struct Verifier {
    inner: Arc<WebPkiServerVerifier>,
    pins: Vec<Sha256>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let earliest = Duration::from_secs(clock::EARLIEST.as_second().unsigned_abs());
        let earliest = UnixTime::since_unix_epoch(earliest);
        let clock_is_wrong = now.as_secs() < earliest.as_secs();
        let mut at = if clock_is_wrong { earliest } else { now };
        for _ in 0..MAX_CHAIN {
            let verified = self.inner.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                at,
            );
            match verified {
                Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext {
                    not_before,
                    ..
                })) if clock_is_wrong && not_before.as_secs() > at.as_secs() => at = not_before,
                Err(error) => return Err(error),
                Ok(verified) => {
                    self.check_pins(end_entity)?;
                    return Ok(verified);
                }
            }
        }
        Err(CertificateError::NotValidYet.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

impl Verifier {
    fn check_pins(&self, end_entity: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        if self.pins.is_empty() {
            return Ok(());
        }
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let found = Sha256::of(&certificate.subject_public_key_info());
        if self.pins.contains(&found) {
            return Ok(());
        }
        Err(rustls::Error::General(format!(
            "the server's key is not pinned: it is {found} (`pins` in `agent.toml`)"
        )))
    }
}

impl<In: Transport> Connector<In> for TlsConnector {
    type Out = Either<In, TlsTransport>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(transport) = chained else {
            return Err(ureq::Error::ConnectionFailed);
        };
        if !details.needs_tls() {
            return Ok(Some(Either::A(transport)));
        }
        // (Also inside the TLS of a proxy: whoever runs the proxy is not the hub.)
        let host = details.uri.host().unwrap_or_default();
        let config = match host == self.hub_host {
            true => &self.hub,
            false => &self.others,
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(bare.to_owned())
            .map_err(|_| ureq::Error::Tls("no name that a certificate could be for"))?;
        let mut connection = ClientConnection::new(Arc::clone(config), name)?;
        let mut socket = TransportAdapter::new(transport.boxed(), details.current_time.clone());
        socket.set_timeout(details.timeout);
        connection.complete_io(&mut socket)?;
        let buffers = LazyBuffers::new(
            details.config.input_buffer_size(),
            details.config.output_buffer_size(),
        );
        Ok(Some(Either::B(TlsTransport {
            buffers,
            stream: StreamOwned::new(connection, socket),
        })))
    }
}

/// A connection with TLS around it.
pub(super) struct TlsTransport {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl std::fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsTransport").finish_non_exhaustive()
    }
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        let output = self.buffers.output().get(..amount).unwrap_or_default();
        self.stream.write_all(output)?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.get_mut().get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}
