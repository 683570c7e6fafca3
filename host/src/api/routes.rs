//! Which address answers what.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Path, Query, Request, State, rejection::PathRejection, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::json;
use tokio::sync::Semaphore;

use super::{
    Backend, BlockId, Bounds, PluginAction, QueryFailure,
    answer::{Refusal, json, json_text},
    peers,
};
use crate::{metrics::Metrics, status::Health};

/// What Prometheus asks for by default (OpenMetrics 1.0).
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) struct Shared<B> {
    backend: Arc<B>,
    metrics: Metrics,
    bounds: Bounds,
    /// Changes are made one after the other.
    changes: Arc<Semaphore>,
    /// Short questions to the host itself.
    short: Arc<Semaphore>,
    queries: Arc<Semaphore>,
    /// The set of unspent outputs is walked by one at a time: it keeps the disk busy.
    txoutset: Arc<Semaphore>,
}

pub(super) type Host<B> = State<Arc<Shared<B>>>;

pub(super) fn router<B: Backend>(backend: Arc<B>, metrics: Metrics, bounds: Bounds) -> Router {
    let shared = Arc::new(Shared {
        backend,
        metrics,
        changes: Arc::new(Semaphore::new(1)),
        short: Arc::new(Semaphore::new(bounds.short_calls)),
        queries: Arc::new(Semaphore::new(bounds.queries)),
        txoutset: Arc::new(Semaphore::new(1)),
        bounds,
    });
    Router::new()
        .route("/health", get(health::<B>))
        .route("/metrics", get(metrics_text::<B>))
        .route("/api/v1/status", get(status::<B>))
        .route("/api/v1/tip", get(tip::<B>))
        .route("/api/v1/blocks/{id}", get(block::<B>))
        .route("/api/v1/mempool/tx/{txid}", get(pool_transaction::<B>))
        .route("/api/v1/plugins", get(plugins::<B>))
        .route("/api/v1/plugins/{name}/values", get(values::<B>))
        .route(
            "/api/v1/plugins/{name}/query/{*path}",
            get(query::<B>).post(change::<B>),
        )
        .route("/api/v1/txoutset", get(txoutset::<B>))
        .route("/api/v1/plugins/{name}/snapshot", post(snapshot::<B>))
        .route("/api/v1/plugins/{name}/{action}", post(manage::<B>))
        .route("/api/v1/peers", get(peers::peers::<B>))
        .route("/api/v1/peers/{order}", post(peers::change_peers::<B>))
        .route("/api/v1/config/reload", post(reload_config::<B>))
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
        .layer(middleware::from_fn_with_state(bounds, bounded))
        .with_state(shared)
}

/// Refuses what is bigger than any real request.
async fn bounded(State(bounds): State<Bounds>, request: Request, next: Next) -> Response {
    let uri = request.uri();
    if uri.path().len() > bounds.path
        || uri
            .query()
            .is_some_and(|query| query.len() > bounds.query_string)
    {
        let message = format!(
            "at most {} bytes of path and {} of parameters",
            bounds.path, bounds.query_string
        );
        return Refusal::new(StatusCode::URI_TOO_LONG, "uri_too_long", message).into_response();
    }
    // nothing here reads a body
    let body = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .is_some_and(|length| length.as_bytes() != b"0");
    if body || request.headers().contains_key(header::TRANSFER_ENCODING) {
        return Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_not_allowed",
            "requests have no body here",
        )
        .into_response();
    }
    next.run(request).await
}

async fn unknown(request: Request) -> Refusal {
    Refusal::not_found(format!("there is nothing at {}", request.uri().path()))
}

async fn not_allowed(request: Request) -> Response {
    let message = format!("{} is not possible here, only GET", request.method());
    let mut response = Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        message,
    )
    .into_response();
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

impl<B: Backend> Shared<B> {
    /// Runs a call that may block, a bounded number of its kind at once, and waits for it for a bounded time. A call that
    /// takes longer goes on and keeps its place among the bounded number.
    async fn call<T: Send + 'static>(
        &self,
        places: &Arc<Semaphore>,
        limit: Duration,
        call: impl FnOnce(&B) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let place =
            tokio::time::timeout(self.bounds.wait, Arc::clone(places).acquire_owned()).await;
        let Ok(Ok(place)) = place else {
            return Err(Refusal::busy("too many questions at once"));
        };
        let backend = Arc::clone(&self.backend);
        let task = tokio::task::spawn_blocking(move || {
            let answer = call(&backend);
            drop(place);
            answer
        });
        match tokio::time::timeout(limit, task).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(Refusal::failed("the host failed to answer")),
            Err(_) => Err(Refusal::timeout(format!(
                "no answer within {} s",
                limit.as_secs_f64()
            ))),
        }
    }

    pub(super) async fn short<T: Send + 'static>(
        &self,
        call: impl FnOnce(&B) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        self.call(&self.short, self.bounds.short_time, call).await
    }
}

async fn health<B: Backend>(State(host): Host<B>) -> Result<Response, Refusal> {
    Ok(match host.short(B::health).await? {
        Health::Following => json(StatusCode::OK, &json!({ "status": "following" })),
        Health::Degraded(quarantined) => json(
            StatusCode::OK,
            &json!({ "status": "degraded", "quarantined": quarantined }),
        ),
        Health::NotFollowing(reason) => {
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "not_following", reason).into_response()
        }
    })
}

async fn metrics_text<B: Backend>(State(host): Host<B>) -> Response {
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static(METRICS_TYPE))];
    (headers, host.metrics.text()).into_response()
}

async fn status<B: Backend>(State(host): Host<B>) -> Result<Response, Refusal> {
    Ok(json(StatusCode::OK, &host.short(B::status).await?))
}

async fn tip<B: Backend>(State(host): Host<B>) -> Result<Response, Refusal> {
    Ok(json(StatusCode::OK, &host.short(B::tip).await?))
}

async fn plugins<B: Backend>(State(host): Host<B>) -> Result<Response, Refusal> {
    Ok(json(StatusCode::OK, &host.short(B::plugins).await?))
}

async fn values<B: Backend>(
    State(host): Host<B>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    let Path(name) = name.map_err(|why| Refusal::bad_request(why.body_text()))?;
    let values = host.short(move |backend| backend.values(&name)).await??;
    Ok(json(StatusCode::OK, &values))
}

async fn block<B: Backend>(
    State(host): Host<B>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    let Path(text) = id.map_err(|why| Refusal::bad_request(why.body_text()))?;
    let id = BlockId::parse(&text).ok_or_else(|| {
        Refusal::bad_request(format!("\"{text}\" is neither a height nor a block hash"))
    })?;
    match host.short(move |backend| backend.block(id)).await? {
        Ok(Some(block)) => Ok(json(StatusCode::OK, &block)),
        Ok(None) => Err(Refusal::not_found(format!("no block {text} is known"))),
        Err(why) => Err(Refusal::failed(format!("{why:#}"))),
    }
}

async fn pool_transaction<B: Backend>(
    State(host): Host<B>,
    txid: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    let Path(text) = txid.map_err(|why| Refusal::bad_request(why.body_text()))?;
    let txid = text
        .parse()
        .map_err(|_| Refusal::bad_request(format!("\"{text}\" is no txid")))?;
    match host
        .short(move |backend| backend.pool_transaction(txid))
        .await?
    {
        Some(found) => Ok(json(StatusCode::OK, &found)),
        None => Err(Refusal::not_found(format!("{txid} is not in the mempool"))),
    }
}

async fn query<B: Backend>(
    host: Host<B>,
    path: Result<Path<(String, String)>, PathRejection>,
    params: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, Refusal> {
    ask(host, path, params, B::query).await
}

/// As `query`, from the host's owner.
async fn change<B: Backend>(
    host: Host<B>,
    headers: HeaderMap,
    path: Result<Path<(String, String)>, PathRejection>,
    params: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, Refusal> {
    owner_only(&host, &headers)?;
    ask(host, path, params, B::change).await
}

/// A question to a plugin: its name, the path, the parameters.
type Question<B> = fn(&B, &str, &str, Vec<(String, String)>) -> Result<String, QueryFailure>;

async fn ask<B: Backend>(
    State(host): Host<B>,
    path: Result<Path<(String, String)>, PathRejection>,
    params: Result<Query<Vec<(String, String)>>, QueryRejection>,
    asked: Question<B>,
) -> Result<Response, Refusal> {
    let Path((name, path)) = path.map_err(|why| Refusal::bad_request(why.body_text()))?;
    let Query(params) = params.map_err(|why| Refusal::bad_request(why.body_text()))?;
    if params.len() > host.bounds.params {
        return Err(Refusal::bad_request(format!(
            "at most {} parameters",
            host.bounds.params
        )));
    }
    let plugin = name.clone();
    let answer = host
        .call(&host.queries, host.bounds.query_time, move |backend| {
            asked(backend, &plugin, &path, params)
        })
        .await
        .and_then(|answer| answer.map_err(Refusal::from));
    match &answer {
        // names that no plugin has would make a series each
        Err(why) if why.code() == "no_such_plugin" => {}
        Err(why) => host.metrics.count_query(&name, why.code()),
        Ok(_) => host.metrics.count_query(&name, "ok"),
    }
    answer.map(|text| json_text(StatusCode::OK, text))
}

/// Refuses whoever does not show the owner's token.
pub(super) fn owner_only<B: Backend>(host: &Shared<B>, headers: &HeaderMap) -> Result<(), Refusal> {
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    if token.is_some_and(|token| host.backend.is_owner(token)) {
        return Ok(());
    }
    Err(Refusal::forbidden(
        "POST takes the owner's token, `Authorization: Bearer …`: it is in the file owner-token of the data folder",
    ))
}

impl<B: Backend> Shared<B> {
    /// Makes a change, after those that are being made.
    pub(super) async fn changed(
        &self,
        change: impl FnOnce(&B) -> Result<String, QueryFailure> + Send + 'static,
    ) -> Result<String, Refusal> {
        let time = self.bounds.change_time;
        Ok(self.call(&self.changes, time, change).await??)
    }

    /// Changes plugins, for the owner.
    async fn manage(
        &self,
        headers: &HeaderMap,
        plugin: Option<(String, PluginAction)>,
    ) -> Result<Response, Refusal> {
        owner_only(self, headers)?;
        let time = self.bounds.change_time;
        let done = self
            .call(&self.changes, time, move |backend| backend.manage(plugin))
            .await??;
        Ok(json(StatusCode::OK, &json!({ "done": done })))
    }
}

async fn manage<B: Backend>(
    State(host): Host<B>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let Path((name, action)) = path.map_err(|why| Refusal::bad_request(why.body_text()))?;
    let Some(action) = PluginAction::parse(&action) else {
        let message = format!("nobody can {action} a plugin");
        return Err(Refusal::not_found(message));
    };
    host.manage(&headers, Some((name, action))).await
}

/// Writes a plugin's state into a file that the owner names.
async fn snapshot<B: Backend>(
    State(host): Host<B>,
    name: Result<Path<String>, PathRejection>,
    params: Result<Query<Vec<(String, String)>>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    owner_only(&host, &headers)?;
    let Path(name) = name.map_err(|why| Refusal::bad_request(why.body_text()))?;
    let Query(params) = params.map_err(|why| Refusal::bad_request(why.body_text()))?;
    let param = |key: &str| params.iter().find(|(name, _)| name == key).map(|(_, v)| v);
    let file = param("file")
        .map(std::path::PathBuf::from)
        .filter(|file| file.is_absolute())
        .ok_or_else(|| Refusal::bad_request("`file` must be an absolute path on this machine"))?;
    let at = param("at")
        .map(|at| at.parse::<u32>())
        .transpose()
        .map_err(|_| Refusal::bad_request("`at` must be a height"))?;
    let exported = host
        .call(&host.txoutset, host.bounds.txoutset_time, move |backend| {
            backend.export_snapshot(&name, &file, at)
        })
        .await??;
    Ok(json(StatusCode::OK, &exported))
}

async fn reload_config<B: Backend>(
    State(host): Host<B>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    host.manage(&headers, None).await
}

async fn txoutset<B: Backend>(State(host): Host<B>) -> Result<Response, Refusal> {
    let set = host
        .call(&host.txoutset, host.bounds.txoutset_time, B::txoutset)
        .await??;
    Ok(json(StatusCode::OK, &set))
}
