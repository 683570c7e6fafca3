//! Starting every part, and ending them in order.

use super::backend::NodeBackend;
use super::lanes::{self, LaneStart};
use super::manager::{Asker, Board, Components, Manager};
use super::open::{self, OpenChain};
use super::watch::Watch;
use crate::api::{self, OwnerToken};
use crate::chain::SyncConfig;
use crate::chain::block_check::Challenge;
use crate::cli::RunOptions;
use crate::config::{Config, MinimumWork};
use crate::lane::{Feed, LaneKind, LaneStores, LargeBlocks, PoolFeed, PoolWorker};
use crate::mempool::{Mempool, MempoolConfig};
use crate::metrics::Metrics;
use crate::net::{self, Checker, EventLog, Net, NetConfig, NetParts, TransactionSink};
use crate::network::Params;
use crate::plugin::PluginEngine;
use crate::signals;
use crate::store::{RowStore, StateStore};
use anyhow::{Context, Result};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Raw blocks that may wait for the coins lane, in bytes.
const AHEAD: usize = 24 << 20;
/// Decoded blocks that are kept at hand, in bytes.
const RECENT: usize = 64 << 20;
/// How long requests that are being answered may take to end.
const RUNTIME_END: Duration = Duration::from_secs(1);
/// How long tasks may take to end by themselves.
const TASKS_END: Duration = Duration::from_secs(2);

/// Hands transactions to the pool; a full queue drops them.
struct PoolSink(SyncSender<Bytes>);

impl TransactionSink for PoolSink {
    fn transaction(&mut self, raw: Bytes) {
        if self.0.try_send(raw).is_err() {
            tracing::debug!("a transaction was dropped: too many wait");
        }
    }
}

pub(super) fn run(config: Config, options: RunOptions) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .thread_name("net")
        .build()
        .context("failed to start the async runtime")?;
    let shutdown = {
        let _inside = runtime.enter();
        signals::shutdown_signal().context("failed to listen for signals")?
    };
    // What can be refused is refused here, before anything on the disk is touched.
    let listener = match config.api.enabled {
        true => Some(runtime.block_on(api::bind(&config))?),
        false => None,
    };
    open::check_data_dir(&config)?;
    let params = Params::of(config.network);
    if let Some(challenge) = &params.signet_challenge
        && !Challenge::of(challenge).is_checked()
    {
        tracing::warn!(
            network = params.name,
            "the challenge of this signet is no key or multisignature: scripts are not run, so its blocks are taken by their work alone"
        );
    }
    let mut engine = PluginEngine::new()?;
    engine.set_cache(config.network_dir().join("compiled"));
    let engine = Arc::new(engine);
    let plugins = open::load_plugins(&config, &engine)?;

    let folder = open::data_dir(&config, params)?;
    for plugin in &plugins {
        engine.keep(&plugin.compiled);
    }
    let metrics = Arc::new(Metrics::new(
        env!("CARGO_PKG_VERSION"),
        config.network.name(),
    ));
    let OpenChain {
        tree,
        headers,
        blocks,
        spent,
    } = open::chain(&config, params, &folder)?;
    let state = StateStore::open(&folder.state(), config.database.block_cache)?;
    let rows = Arc::new(RowStore::open(&config.database_url())?);
    let keep_raw = plugins
        .iter()
        .any(|plugin| plugin.descriptor.columns.raw || plugin.descriptor.columns.witnesses);
    let feed = Arc::new(
        Feed::new(blocks.clone(), spent.clone(), RECENT, keep_raw).with_large(LargeBlocks {
            above: config.chain.large_block,
            whole: config.chain.whole_block_limit,
            changes: usize::try_from(config.chain.large_block_changes).unwrap_or(usize::MAX),
        }),
    );
    feed.set_last(options.stop_at_height);
    let chain = net::chain_of(&tree);
    feed.set_chain(
        None,
        chain
            .iter()
            .map(|(position, header)| (position.hash, header)),
    );
    tracing::info!(
        network = config.network.name(),
        height = tree.tip().0,
        headers = tree.best_header().0,
        plugins = plugins.len(),
        folder = %folder.path().display(),
        "blockmill {}", env!("CARGO_PKG_VERSION")
    );

    let coins = plugins
        .iter()
        .find(|plugin| plugin.descriptor.coins)
        .map(|plugin| plugin.settings.name.clone());
    if let Some(name) = &coins {
        open::keep_coins_lane(&folder, name)?;
    }
    let pool = (coins.is_some() && config.mempool.enabled).then(|| {
        Arc::new(PoolFeed::new(Mempool::new(MempoolConfig {
            max_bytes: usize::try_from(config.mempool.max_size).unwrap_or(usize::MAX),
            expiry_seconds: config.mempool.expiry.as_secs(),
            ..MempoolConfig::default()
        })))
    });
    let start = LaneStart::new(
        &config,
        params,
        engine.clone(),
        feed.clone(),
        pool.clone(),
        LaneStores { state, rows },
        metrics.clone(),
    );
    let components = Components::new(folder.path());
    for plugin in plugins {
        let plugin = open::before_change(plugin, &start.stores.rows, &components, &engine)?;
        let program = lanes::program(&plugin.settings, plugin.compiled, plugin.descriptor);
        start.start(LaneKind::Serving, program)?;
    }
    let lanes = start.lanes.clone();

    let mut sink: Option<Box<dyn TransactionSink>> = None;
    let mut pool_thread = None;
    if let (Some(pool), Some(lane)) = (&pool, lanes.coins()) {
        let file = config
            .mempool
            .persist
            .then(|| folder.path().join("mempool.dat"));
        let (worker, sender) = PoolWorker::new(
            feed.clone(),
            pool.clone(),
            lane,
            params,
            metrics.clone(),
            file,
        );
        sink = Some(Box::new(PoolSink(sender)));
        let thread = std::thread::Builder::new()
            .name("mempool".into())
            .spawn(move || worker.run());
        pool_thread = Some(thread.context("failed to start a thread")?);
    }

    let (verdict, verdicts) = mpsc::unbounded_channel();
    let checker = Checker::start(
        feed.clone(),
        blocks.clone(),
        metrics.clone(),
        verdict,
        usize::try_from(config.chain.longest_transaction).unwrap_or(usize::MAX),
    )
    .context("failed to start a thread")?;
    let events = config
        .event_log()
        .map(|path| EventLog::open(&path))
        .transpose()?;
    let net_config = NetConfig {
        params,
        sync: sync_config(&config, params, pool.is_some(), events.is_some()),
        connect: peer_names(&config, params),
        stop_at: options.stop_at_height,
        ahead_bytes: AHEAD,
        coins: coins.is_some(),
    };
    let parts = NetParts {
        tree,
        feed: feed.clone(),
        metrics: metrics.clone(),
        headers,
        events,
        sink,
        checker,
        verdicts,
    };
    let (net, handle) = Net::new(net_config, parts);
    let (stop, stopping) = watch::channel(false);
    let net = runtime.spawn(net.run(stopping.clone()));

    let board = Arc::new(Board::default());
    let (requests, asked) = std::sync::mpsc::channel();
    let backend = Arc::new(NodeBackend::new(
        &config,
        board.clone(),
        Asker::new(requests),
        feed.clone(),
        lanes.clone(),
        handle,
        pool,
        blocks.clone(),
        OwnerToken::create(folder.path())?,
    ));
    let server = listener.map(|listener| {
        let mut stopping = stopping.clone();
        let ended = async move {
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        let address = listener.local_addr().unwrap_or(config.api.listen);
        tracing::info!(%address, "api");
        let bounds = api::Bounds::from_config(&config);
        runtime.spawn(api::serve(
            listener,
            backend.clone(),
            Metrics::clone(&metrics),
            bounds,
            ended,
        ))
    });

    let manager = Manager::new(
        start,
        config.clone(),
        options.source.clone(),
        folder.path(),
        board.clone(),
        asked,
    );
    let manager = manager.spawn().context("failed to start a thread")?;

    let mut watch = Watch::new(
        &config,
        options,
        feed.clone(),
        backend,
        metrics,
        blocks,
        spent,
        folder.path().to_owned(),
        lanes.clone(),
        board,
    );
    let outcome = runtime.block_on(watch.run(shutdown, &net));

    // The order matters: nothing new comes in, lanes flush what they have, then the stores close.
    let began = Instant::now();
    let _ = stop.send(true);
    feed.stop();
    let net_ended = runtime.block_on(async { tokio::time::timeout(TASKS_END, net).await });
    let lanes_ended = lanes.end(&engine);
    let _ = manager.join();
    if let Some(thread) = pool_thread {
        let _ = thread.join();
    }
    if let Some(server) = server {
        let _ = runtime.block_on(async { tokio::time::timeout(TASKS_END, server).await });
    }
    let synced = feed.sync();
    // Queries that still run are cut short.
    engine.interrupt();
    runtime.shutdown_timeout(RUNTIME_END);
    tracing::info!(took = ?began.elapsed(), "stopped");
    outcome?;
    lanes_ended?;
    if let Ok(Ok(ended)) = net_ended {
        ended?;
    }
    synced
}

fn sync_config(
    config: &Config,
    params: &'static Params,
    transactions: bool,
    events: bool,
) -> SyncConfig {
    let peers = &config.peers;
    let defaults = SyncConfig::new(params);
    let comment = &peers.user_agent_comment;
    SyncConfig {
        max_outbound: peers.max_outbound.into(),
        user_agent: match comment.is_empty() {
            true => defaults.user_agent.clone(),
            false => format!("/blockmill:{}({comment})/", env!("CARGO_PKG_VERSION")),
        },
        minimum_work: match config.chain.minimum_work {
            MinimumWork::Default => defaults.minimum_work,
            MinimumWork::Work(work) => bitcoin::Work::from_be_bytes(work),
        },
        transactions,
        max_unchecked_bytes: AHEAD,
        stream_above: usize::try_from(config.chain.large_block).unwrap_or(usize::MAX),
        message_events: events,
        // Every block is hashed by the checker, against its header; its checksum says nothing more.
        verify_block_checksums: false,
        connect_timeout: peers.connect_timeout,
        handshake_timeout: peers.handshake_timeout,
        ping_interval: peers.ping_interval,
        pong_timeout: peers.silence_timeout,
        stall_timeout: peers.stall_timeout,
        max_stall_timeout: peers.stall_timeout_max,
        stale_tip: peers.stale_tip_timeout,
        late_tick: peers.late_tick,
        reconnect_delay: peers.reconnect_pause,
        max_reconnect_delay: peers.reconnect_pause_max,
        download_window: config.chain.download_window,
        blocks_per_peer: config.chain.blocks_per_peer.into(),
        ..defaults
    }
}

/// Where to connect to: what the configuration names, and nothing else; without that the network's DNS seeds.
fn peer_names(config: &Config, params: &Params) -> Vec<(String, u16)> {
    let named = config.peer_addresses();
    if !named.is_empty() {
        return named;
    }
    params
        .dns_seeds
        .iter()
        .map(|seed| ((*seed).to_owned(), params.default_port))
        .collect()
}
