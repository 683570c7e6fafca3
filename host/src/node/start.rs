//! Starting every part, and ending them in order.

use super::backend::NodeBackend;
use super::lanes::{self, LaneStart};
use super::manager::{Asker, Board, Components, Manager};
use super::open::{self, OpenChain};
use super::watch::Watch;
use crate::api::{self, OwnerToken};
use crate::block_log::BlockLog;
use crate::chain::SyncConfig;
use crate::chain::block_check::Challenge;
use crate::chain::sync::bans::Ladder;
use crate::chain::sync::book::Reach;
use crate::cli::RunOptions;
use crate::config::{Config, MinimumWork};
use crate::lane::{Feed, LaneKind, LaneStores, LargeBlocks, PoolFeed, PoolWorker, Position};
use crate::mempool::{Mempool, MempoolConfig};
use crate::metrics::Metrics;
use crate::net::{
    self, Checker, EventLog, Net, NetConfig, NetParts, PeersFile, Proxy, TransactionSink,
};
use crate::network::Params;
use crate::plugin::PluginEngine;
use crate::signals;
use crate::source::BlocksDir;
use crate::store::{Room, RowStore, StateStore};
use anyhow::{Context, Result};
use bitcoin::BlockHash;
use bitcoin::hashes::Hash as _;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Raw blocks that may wait for the coins lane, in bytes.
const AHEAD: usize = 24 << 20;
/// Decoded blocks that are kept at hand, in bytes.
const RECENT: usize = 64 << 20;
/// Messages of the source that may wait for the network machine.
const SOURCE_EVENTS: usize = 16;
/// How long requests that are being answered may take to end.
const RUNTIME_END: Duration = Duration::from_secs(1);
/// How long tasks may take to end by themselves.
const TASKS_END: Duration = Duration::from_secs(2);

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
    let peer_listener = match config.peer_listen() {
        Some(address) => {
            let _inside = runtime.enter();
            let listener = net::bind(address)?;
            let address = listener.local_addr().unwrap_or(address);
            tracing::info!(%address, "listening for peers");
            Some(listener)
        }
        None => None,
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
    let source_folder = open::source_folder(&config, params)?;

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
        base,
    } = open::chain(&config, params, &folder, source_folder.clone())?;
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
    feed.set_room(Room::of(folder.path()));
    feed.set_scratch(BlockLog::scratch(
        folder.path().join("blocks/again"),
        params.magic,
    )?);
    feed.set_last(options.stop_at_height);
    feed.set_base(super::snapshot::base(folder.path())?.map(|base| base.height));
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
    let pool = (coins.is_some() && config.mempool.enabled)
        .then(|| Arc::new(PoolFeed::new(Mempool::new(mempool_config(&config, params)))));
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
    // Before its first block: the chain may be another one by now.
    let mut coins_at = None;
    for plugin in plugins {
        let plugin = open::before_change(plugin, &start.stores.rows, &components, &engine)?;
        let program = lanes::program(&plugin.settings, plugin.compiled, plugin.descriptor);
        let gives_coins = program.descriptor.coins;
        let lane = start.start(LaneKind::Serving, program)?;
        if gives_coins {
            coins_at = lane.view().and_then(|view| view.cursor());
        }
    }
    let lanes = start.lanes.clone();
    let state = start.stores.state.clone();
    let rows = start.stores.rows.clone();

    let mut sink: Option<Box<dyn TransactionSink>> = None;
    let mut pool_thread = None;
    let (pool_verdict, pool_verdicts) = mpsc::unbounded_channel();
    if let (Some(pool), Some(lane)) = (&pool, lanes.coins()) {
        let file = config
            .mempool
            .persist
            .then(|| folder.path().join("mempool.dat"));
        let (worker, queue) = PoolWorker::new(
            feed.clone(),
            pool.clone(),
            lane,
            params,
            metrics.clone(),
            file,
            pool_verdict,
        );
        let worker = worker.from_block(coins_at.map(Position::from));
        sink = Some(Box::new(queue));
        let thread = std::thread::Builder::new()
            .name("mempool".into())
            .spawn(move || worker.run());
        pool_thread = Some(thread.context("failed to start a thread")?);
    }

    let (verdict, verdicts) = mpsc::unbounded_channel();
    let checker = Checker::start(
        feed.clone(),
        blocks.clone(),
        pool.clone(),
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
        connect: config.peer_addresses(),
        add: config.added_peers(),
        save_interval: config.peers.save_interval,
        proxy: config.peers.proxy.map(|addr| Proxy { addr }),
        stop_at: options.stop_at_height,
        ahead_bytes: AHEAD,
        coins: coins.is_some(),
        base,
    };
    let (source, source_events) = match source_folder {
        Some(folder) => {
            let known = |hash: &[u8; 32]| tree.contains(&BlockHash::from_byte_array(*hash));
            let known = blocks
                .foreign()
                .map(|foreign| foreign.checked_frames(known));
            let (sender, events) = mpsc::channel(SOURCE_EVENTS);
            let source =
                BlocksDir::start(blocks.clone(), folder, known.unwrap_or_default(), sender)
                    .context("failed to start a thread")?;
            (Some(source), Some(events))
        }
        None => (None, None),
    };
    let parts = NetParts {
        source: source_events,
        tree,
        feed: feed.clone(),
        metrics: metrics.clone(),
        headers,
        events,
        sink,
        checker,
        verdicts,
        pool_verdicts,
        file: PeersFile::new(folder.path(), config.network.name()),
        listener: peer_listener,
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
        source.as_ref().map(BlocksDir::progress),
        OwnerToken::create(folder.path())?,
        LaneStores { state, rows },
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
    // Nobody hears its events any more.
    if let Some(source) = source {
        source.stop();
    }
    tracing::info!(took = ?began.elapsed(), "stopped");
    outcome?;
    lanes_ended?;
    if let Ok(Ok(ended)) = net_ended {
        ended?;
    }
    synced
}

fn mempool_config(config: &Config, params: &Params) -> MempoolConfig {
    MempoolConfig {
        max_bytes: usize::try_from(config.mempool.max_size).unwrap_or(usize::MAX),
        expiry_seconds: config.mempool.expiry.as_secs(),
        min_relay_fee: config.mempool.min_relay_fee,
        mining_floor: config.mempool.mining_floor,
        // Who has no segregated witness is of Bitcoin SV's family, which gave both up (its Genesis upgrade, 2020).
        relative_locks: params.segwit,
        sigops: params.segwit,
        ..MempoolConfig::default()
    }
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
        only_named: !peers.connect.is_empty(),
        reach: Reach {
            tor: peers.proxy.is_some(),
            ..defaults.reach
        },
        max_outbound: peers.max_outbound.into(),
        max_block_only: peers.max_block_only.into(),
        dns_seeds: match peers.dns_seeds {
            true => params.dns_seeds.iter().map(|s| (*s).to_string()).collect(),
            false => Vec::new(),
        },
        feeler_interval: peers.feeler_interval,
        address_answer_life: peers.address_answer_life,
        addresses_again: peers.addresses_again,
        max_incoming: peers.max_incoming.into(),
        max_incoming_per_address: peers.max_incoming_per_address.into(),
        incoming_rate: peers.incoming_rate,
        ban_ladder: Ladder {
            first: peers.ban_first,
            second: peers.ban_second,
        },
        headers_timeout: peers.headers_timeout,
        headers_sync_timeout: peers.headers_sync_timeout,
        lag_timeout: peers.lag_timeout,
        compact_blocks: peers.compact_blocks,
        block_timeout: peers.block_timeout,
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
        transport: peers.transport,
        connect_timeout: match peers.proxy {
            Some(_) => peers.proxy_timeout,
            None => peers.connect_timeout,
        },
        handshake_timeout: peers.handshake_timeout,
        ping_interval: peers.ping_interval,
        pong_timeout: peers.silence_timeout,
        stall_timeout: peers.stall_timeout,
        max_stall_timeout: peers.stall_timeout_max,
        stale_tip: peers.stale_tip_timeout,
        stream_floor: peers.stream_floor,
        stream_patience: peers.stream_patience,
        late_tick: peers.late_tick,
        reconnect_delay: peers.reconnect_pause,
        max_reconnect_delay: peers.reconnect_pause_max,
        download_window: config.chain.download_window,
        blocks_per_peer: config.chain.blocks_per_peer.into(),
        ..defaults
    }
}

#[cfg(test)]
mod tests;
