//! Starting, serving, stopping.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Body, extract::Request};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use miette::Diagnostic;
use object_store::local::LocalFileSystem;
use pytheas_api::{Event, Role, TOKEN_PREFIX};
use pytheas_durable::{FileLock, LockError};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{Mutex, Semaphore, broadcast, watch},
    task::{JoinHandle, JoinSet},
};
use tower::ServiceExt;

use crate::{
    Config,
    app::{App, Shared, stopped},
    bus::Bus,
    delta_orders::DeltaOrders,
    engine::Engine,
    jobs,
    limits::Limit,
    origin::Peer,
    presence::Presence,
    releases::Releases,
    routes, secret,
    store::{Store, StoreError, audit, devices, tokens, traffic},
    tls::{OverTls, Tls, TlsError},
    traffic::Traffic,
};

/// Connections at one time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 10_000;
/// How long a request's head may take; also how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// How long open requests may take when the hub stops.
const GRACE: Duration = Duration::from_secs(5);

/// A hub that did not start.
#[derive(Debug, Error, Diagnostic)]
pub enum StartError {
    /// Somebody else listens there.
    #[error("`{address}` is in use")]
    #[diagnostic(
        code(pytheas::hub::port_in_use),
        help(
            "another hub? `ss -ltnp` names the program; choose another place with `--listen`, or `--listen 127.0.0.1:0` for a free port"
        )
    )]
    PortInUse {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The system does not let it.
    #[error("cannot listen on `{address}`")]
    #[diagnostic(
        code(pytheas::hub::listen),
        help("is it an address of this machine, and (below port 1024) may this user take it?")
    )]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The data directory cannot be used.
    #[error("cannot write to the data directory `{}`", path.display())]
    #[diagnostic(
        code(pytheas::hub::data_dir),
        help("is it yours, and is there room? Choose another one with `--data`")
    )]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another hub uses the data directory.
    #[error("another hub uses the data directory `{}`", path.display())]
    #[diagnostic(
        code(pytheas::hub::locked),
        help("stop it, or choose another one with `--data`")
    )]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Who.
        source: LockError,
    },
    /// The database cannot be used.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Database(#[from] StoreError),
    /// The database fails.
    #[error("cannot read the database")]
    #[diagnostic(code(pytheas::hub::database), help("is the disk full or damaged?"))]
    Query(#[from] sqlx::Error),
    /// The repository cannot be used.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Repository(#[from] pytheas_repo::store::StoreError),
    /// The trusted root cannot be read.
    #[error("cannot read the trusted root `{}`", path.display())]
    #[diagnostic(
        code(pytheas::hub::root),
        help("it is the `root.json` that `pytheas keys init` made")
    )]
    Root {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The online keys are no keys of this repository.
    #[error("cannot use the online keys in `{}`", path.display())]
    #[diagnostic(
        code(pytheas::hub::online_keys),
        help(
            "copy the `online` folder that `pytheas keys init` made; nothing else of the keys belongs on the hub"
        )
    )]
    OnlineKeys {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        source: Box<pytheas_repo::keys::KeyError>,
    },
    /// TLS cannot be spoken.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Tls(#[from] TlsError),
    /// The poll interval cannot be told to devices.
    #[error("a poll interval of {seconds} s cannot be told to devices")]
    #[diagnostic(code(pytheas::hub::poll_interval), help("choose 1 s to 23:59:59"))]
    PollInterval {
        /// The interval.
        seconds: u64,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random(#[from] getrandom::Error),
}

/// A running hub; dropped without [`Self::shutdown`] it stops at once.
#[derive(Debug)]
pub struct Hub {
    app: App,
    tls: Option<Arc<Tls>>,
    first_token: Option<String>,
    stop: Arc<watch::Sender<bool>>,
    server: JoinHandle<()>,
    jobs: JoinSet<()>,
    _lock: FileLock,
}

/// Stops a hub from elsewhere, e.g. from a signal handler.
#[derive(Debug, Clone)]
pub struct Stopper(Arc<watch::Sender<bool>>);

impl Stopper {
    /// Lets [`Hub::run`] return; once more does nothing.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Hub {
    /// Opens (or makes) what lies in the data directory and listens; answers requests when this
    /// returns.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn start(mut config: Config) -> Result<Self, StartError> {
        let seconds = config.poll_interval.as_secs();
        if !(1..86_400).contains(&seconds) {
            return Err(StartError::PollInterval { seconds });
        }
        for proxy in &mut config.trusted_proxies {
            *proxy = proxy.to_canonical();
        }
        let lock = prepare(&config)?;
        let root = match &config.root {
            Some(path) => Some(
                tokio::fs::read(path)
                    .await
                    .map_err(|source| StartError::Root {
                        path: path.clone(),
                        source,
                    })?,
            ),
            None => None,
        };
        if let Some(path) = &config.online_keys {
            pytheas_repo::keys::OnlineKeys::load(path).map_err(|source| {
                StartError::OnlineKeys {
                    path: path.clone(),
                    source: Box::new(source),
                }
            })?;
        }
        let files = config.tls.clone();
        let tls = files.map(|files| Tls::load(files, config.clock.clone()));
        let tls = tls.transpose()?.map(Arc::new);
        let releases = Releases::open(&config, root)?;
        if !releases.store.can_be_swept() {
            config.made_deltas = None; // they could not be removed again
        }
        let listener = listen(config.listen).await?;
        let address = listener.local_addr().map_err(|source| StartError::Listen {
            address: config.listen,
            source,
        })?;
        let store = Store::open(&config.database()).await?;
        let now_ms = config.clock.now_ms();
        let first_token = first_token(&store, now_ms).await?;
        let known = devices::last_seen(&store.read).await?;
        let artifacts = LocalFileSystem::new_with_prefix(config.artifacts()).map_err(|error| {
            StartError::DataDir {
                path: config.artifacts(),
                source: io::Error::other(error),
            }
        })?;

        let bus = Arc::new(Bus::new(config.clock.clone()));
        let (stop, stopping) = watch::channel(false);
        let app: App = Arc::new(Shared {
            address,
            gateway: Shared::gateway_hash(&config),
            artifacts: Arc::new(artifacts),
            releases,
            engine: Engine::new(store.clone(), bus.clone(), config.clock.clone()),
            presence: Presence::new(config.online_ms(), known, now_ms),
            traffic: Traffic::new(traffic::all(&store.read).await?),
            enrolments: Limit::new(60, 1000),
            logins: Limit::new(10, 6000),
            gateways: Limit::new(10, 6000),
            publishing: Mutex::new(()),
            delta_orders: DeltaOrders::default(),
            stopping: stopping.clone(),
            bus,
            store,
            config,
        });
        let mut jobs = JoinSet::new();
        jobs::start(&app, &mut jobs);
        if let Some(tls) = tls.clone() {
            let mut stopping = stopping.clone();
            jobs.spawn(async move {
                tokio::select! {
                    () = stopped(&mut stopping) => {}
                    () = tls.watch() => {}
                }
            });
        }
        let router = routes::router(app.clone());
        let server = tokio::spawn(serve(listener, tls.clone(), router, stopping));
        tracing::info!(%address, "the hub listens on {address}");
        Ok(Self {
            app,
            tls,
            first_token,
            stop: Arc::new(stop),
            server,
            jobs,
            _lock: lock,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.app.address
    }

    /// Its address for browsers and agents: the external URL, or `http://127.0.0.1:8470`.
    pub fn url(&self) -> String {
        match &self.app.config.external_url {
            Some(url) => url.as_str().trim_end_matches('/').to_owned(),
            None => {
                let mut address = self.app.address;
                if address.ip().is_unspecified() {
                    address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
                }
                let scheme = if self.tls.is_some() { "https" } else { "http" };
                format!("{scheme}://{address}")
            }
        }
    }

    /// The administrator's token that was made at the first start, and only then; it is stored
    /// nowhere in clear.
    pub fn first_token(&self) -> Option<&str> {
        self.first_token.as_deref()
    }

    /// What happens from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.app.bus.subscribe()
    }

    /// Something that stops it.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.stop.clone())
    }

    /// Something that has the certificate read again; none when the hub speaks no TLS. It looks at
    /// the files by itself, too, but not at once.
    pub fn reloader(&self) -> Option<impl Fn() + Send + 'static> {
        let tls = self.tls.clone()?;
        Some(move || tls.reload())
    }

    /// Runs until somebody stops it, then ends as [`Self::shutdown`].
    pub async fn run(self) {
        let mut stopping = self.app.stopping.clone();
        stopped(&mut stopping).await;
        self.shutdown().await;
    }

    /// Takes no more requests, lets those that are open end (at most 5 s), writes everything down.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        if let Err(error) = self.server.await {
            tracing::error!(%error, "the server ended badly");
        }
        while self.jobs.join_next().await.is_some() {}
        jobs::write_back::run(&self.app).await;
        self.app.store.close().await;
        tracing::info!("the hub has stopped");
    }
}

/// The data directory with what has to be in it, locked.
fn prepare(config: &Config) -> Result<FileLock, StartError> {
    let path = &config.data_dir;
    let failed = |source| StartError::DataDir {
        path: path.clone(),
        source,
    };
    pytheas_durable::create_dir_all(path).map_err(failed)?;
    private(path).map_err(failed)?;
    let lock = FileLock::acquire(&path.join("hub.lock")).map_err(|error| match error {
        LockError::Io { source, .. } => failed(source),
        held @ LockError::Held { .. } => StartError::Locked {
            path: path.clone(),
            source: held,
        },
    })?;
    // Uploads that were cut off when the last hub stopped.
    pytheas_durable::remove_tree(&config.incoming()).map_err(failed)?;
    if let Some(repo) = config.repo_folder() {
        pytheas_durable::remove_tree(&repo.join(".incoming")).map_err(failed)?;
    }
    for folder in [config.artifacts(), config.incoming()] {
        pytheas_durable::create_dir_all(&folder).map_err(failed)?;
    }
    Ok(lock)
}

/// The database holds hashes of secrets and what devices say: nobody else's business. A directory
/// that somebody made with other permissions is theirs to decide on.
fn private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if path.join("hub.db").exists() || std::fs::read_dir(path)?.next().is_some() {
        return Ok(());
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => StartError::PortInUse { address, source },
            _ => StartError::Listen { address, source },
        })
}

/// The administrator's token, when there is none at all yet.
async fn first_token(store: &Store, now_ms: i64) -> Result<Option<String>, StartError> {
    let mut tx = store.begin().await?;
    if tokens::any(&mut tx).await? {
        return Ok(None);
    }
    let token = secret::new(TOKEN_PREFIX)?;
    let info = tokens::add(&mut tx, "first", Role::Admin, secret::hash(&token), now_ms).await?;
    let subject = info.id.to_string();
    audit::note(
        &mut tx,
        now_ms,
        "hub",
        "token.create",
        &subject,
        "`first`, admin",
    )
    .await?;
    tx.commit().await?;
    Ok(Some(token))
}

async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    router: Router,
    mut stopping: watch::Receiver<bool>,
) {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stopped(&mut stopping) => break,
            Some(_) = connections.join_next() => continue,
            accepted = async {
                let place = places.clone().acquire_owned().await;
                (place, listener.accept().await)
            } => accepted,
        };
        let (stream, peer, place) = match accepted {
            (Ok(place), Ok((stream, peer))) => (stream, peer, place),
            (_, Err(error)) => {
                // Out of file descriptors, most likely: others end meanwhile.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
            (Err(_), _) => break,
        };
        let (router, watcher) = (router.clone(), graceful.watcher());
        let (tls, mut stopping) = (tls.clone(), stopping.clone());
        connections.spawn(async move {
            let _slower_then = stream.set_nodelay(true);
            match tls {
                None => connection(stream, peer, None, router, watcher).await,
                Some(tls) => tokio::select! {
                    biased;
                    shaken = tls.accept(stream) => if let Some((stream, over)) = shaken {
                        connection(stream, peer, Some(over), router, watcher).await;
                    },
                    () = stopped(&mut stopping) => {}
                },
            }
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(GRACE, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!(
            "requests that took longer than {} s were cut off",
            GRACE.as_secs()
        );
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    peer: SocketAddr,
    tls: Option<OverTls>,
    router: Router,
    watcher: hyper_util::server::graceful::Watcher,
) {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Peer {
            address: peer,
            tls: tls.clone(),
        });
        router.clone().oneshot(request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(64)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%peer, %error, "a connection broke off");
    }
}
