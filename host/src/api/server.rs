//! The listener, and the connections it takes.

use std::{future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};

use super::{Backend, routes};
use crate::{
    config::{Config, ConfigError},
    metrics::Metrics,
};

/// Pause after an accept that failed: most often too many files are open, and it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a client may use up.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections at once; more wait in the system's queue.
    pub connections: usize,
    /// Bytes of a request's head.
    pub head: usize,
    /// Headers of a request.
    pub headers: usize,
    /// Time for the head of a request, the pause before it included.
    pub head_time: Duration,
    /// Bytes of a path.
    pub path: usize,
    /// Bytes of a query string.
    pub query_string: usize,
    /// Parameters of a query.
    pub params: usize,
    /// Short questions at once.
    pub short_calls: usize,
    /// Time for a short question.
    pub short_time: Duration,
    /// Plugin queries at once.
    pub queries: usize,
    /// Time for a plugin query. The host ends one by itself before; this is for when it cannot.
    pub query_time: Duration,
    /// Time for a change of a plugin.
    pub change_time: Duration,
    /// Time for the set of unspent outputs.
    pub txoutset_time: Duration,
    /// Time that a question waits for others to end.
    pub wait: Duration,
    /// Time that open requests have when the host ends.
    pub shutdown: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 256,
            head: 16 * 1024,
            headers: 64,
            head_time: Duration::from_secs(30),
            path: 2 * 1024,
            query_string: 8 * 1024,
            params: 64,
            short_calls: 16,
            short_time: Duration::from_secs(10),
            queries: 8,
            query_time: Duration::from_secs(12),
            change_time: Duration::from_secs(5 * 60),
            txoutset_time: Duration::from_secs(30 * 60),
            wait: Duration::from_secs(5),
            shutdown: Duration::from_secs(1),
        }
    }
}

impl Bounds {
    /// The bounds that the configuration asks for.
    pub fn from_config(config: &Config) -> Self {
        let longest = config
            .enabled_plugins()
            .iter()
            .map(|plugin| plugin.limits.query_time)
            .max();
        Self {
            queries: config.api.max_queries.into(),
            query_time: longest.unwrap_or(config.plugins.query_time_limit) + Duration::from_secs(2),
            ..Self::default()
        }
    }
}

/// Takes the address of the configuration, before anything else is touched.
///
/// # Errors
/// When it is in use or not ours: an error about `api.listen`.
pub async fn bind(config: &Config) -> Result<TcpListener, ConfigError> {
    let address: SocketAddr = config.api.listen;
    TcpListener::bind(address)
        .await
        .map_err(|why| match why.kind() {
            io::ErrorKind::AddrInUse => config.error(
                "api.listen",
                format!("{address} is in use by another program"),
                "end that program (another blockmill?) or give another port",
            ),
            _ => config.error(
                "api.listen",
                format!("cannot listen on {address} ({why})"),
                "give an address of this machine",
            ),
        })
}

/// Answers requests, until `shutdown` is ready, then lets open ones end for at most [`Bounds::shutdown`].
///
/// Calls into the backend that take longer than that go on in their threads. A runtime that is dropped waits for them, so
/// end it with `Runtime::shutdown_timeout`.
pub async fn serve<B: Backend>(
    listener: TcpListener,
    backend: Arc<B>,
    metrics: Metrics,
    bounds: Bounds,
    shutdown: impl Future<Output = ()>,
) {
    let router = routes::router(backend, metrics, bounds);
    let places = Arc::new(Semaphore::new(bounds.connections));
    let (closing, closed) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);

    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            // results are of no use, but must not pile up
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok((stream, place)) => {
                // only delays small answers if it fails
                let _ = stream.set_nodelay(true);
                let connection = connection(stream, router.clone(), bounds, closed.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(why) => {
                tracing::debug!(error = %why, "failed to take a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    drop((listener, closing));
    let end = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(bounds.shutdown, end).await.is_err() {
        connections.shutdown().await;
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

/// Answers on one connection, of whatever kind, until it ends.
pub async fn serve_stream<B: Backend>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    backend: Arc<B>,
    metrics: Metrics,
    bounds: Bounds,
) {
    let router = routes::router(backend, metrics, bounds);
    let (closing, closed) = watch::channel(());
    connection(stream, router, bounds, closed).await;
    drop(closing);
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    router: Router,
    bounds: Bounds,
    mut closed: watch::Receiver<()>,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head_time)
        .max_headers(bounds.headers)
        .max_buf_size(bounds.head)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    // the sender is never used: the channel closes when the server does
    let result = tokio::select! {
        result = &mut connection => result,
        _ = closed.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(why) = result {
        tracing::debug!(error = %why, "a connection broke off");
    }
}
