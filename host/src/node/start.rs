//! Starting every part, and ending them in order.

use super::backend::NodeBackend;
use super::open::{self, LoadedPlugin, OpenChain};
use super::watch::Watch;
use crate::api::{self, OwnerToken};
use crate::chain::SyncConfig;
use crate::cli::RunOptions;
use crate::config::{Config, MinimumWork};
use crate::lane::{
    Feed, Lane, LaneSettings, LaneShared, LaneStores, PoolFeed, PoolWorker, StateVersions,
};
use crate::mempool::{Mempool, MempoolConfig};
use crate::metrics::{Metrics, Stage};
use crate::net::{self, Checker, EventLog, Net, NetConfig, NetParts, TransactionSink};
use crate::network::Params;
use crate::plugin::{Gauges, PluginEngine, RuntimeSettings, Surroundings, Volatile};
use crate::signals;
use crate::store::{RowStore, StateStore};
use anyhow::{Context, Result};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Raw blocks that may wait for the coins lane, in bytes.
const AHEAD: usize = 24 << 20;
/// Decoded blocks that are kept at hand, in bytes.
const RECENT: usize = 64 << 20;
/// How long requests that are being answered may take to end.
const RUNTIME_END: Duration = Duration::from_secs(1);
/// How long lanes may take to end by themselves; then calls into plugins are cut short.
const LANES_END: Duration = Duration::from_secs(2);

/// Hands transactions to the pool; a full queue drops them.
struct PoolSink(SyncSender<Bytes>);

impl TransactionSink for PoolSink {
    fn transaction(&mut self, raw: Bytes) {
        if self.0.try_send(raw).is_err() {
            tracing::debug!("a transaction was dropped: too many wait");
        }
    }
}

/// The lanes that run, and their threads.
pub(super) struct Lanes {
    pub shared: Vec<Arc<LaneShared>>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Lanes {
    /// The first lane that has ended with an error, if one has.
    pub(super) fn failed(&mut self) -> Option<anyhow::Error> {
        let ended = self.threads.iter().position(JoinHandle::is_finished)?;
        join(self.threads.swap_remove(ended)).err()
    }

    fn end(self, engine: &PluginEngine) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < LANES_END && !self.threads.iter().all(JoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(10));
        }
        if !self.threads.iter().all(JoinHandle::is_finished) {
            engine.interrupt();
        }
        // Every lane is waited for, whatever the others say.
        let ended: Vec<Result<()>> = self.threads.into_iter().map(join).collect();
        ended.into_iter().collect()
    }
}

fn join(thread: JoinHandle<Result<()>>) -> Result<()> {
    match thread.join() {
        Ok(result) => result,
        Err(_) => anyhow::bail!("a lane's thread panicked"),
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
    let feed = Arc::new(Feed::new(blocks.clone(), spent.clone(), RECENT, keep_raw));
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
    let stores = LaneStores {
        state,
        rows,
        versions: StateVersions::new(folder.path().join("state-versions.json")),
    };
    let start = LaneStart {
        config: &config,
        params,
        engine: &engine,
        feed: &feed,
        pool: pool.as_ref(),
        stores: &stores,
        metrics: &metrics,
    };
    let lanes = start.all(plugins)?;

    let mut sink: Option<Box<dyn TransactionSink>> = None;
    let mut pool_thread = None;
    let coins_lane = coins
        .as_ref()
        .and_then(|name| lanes.shared.iter().find(|lane| lane.name() == name));
    if let (Some(pool), Some(lane)) = (&pool, coins_lane) {
        let file = config
            .mempool
            .persist
            .then(|| folder.path().join("mempool.dat"));
        let (worker, sender) = PoolWorker::new(
            feed.clone(),
            pool.clone(),
            lane.clone(),
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
    let checker = Checker::start(feed.clone(), blocks.clone(), metrics.clone(), verdict)
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

    let backend = Arc::new(NodeBackend::new(
        &config,
        feed.clone(),
        lanes.shared.clone(),
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
        tracing::info!(address = %config.api.listen, "api");
        let bounds = api::Bounds::from_config(&config);
        runtime.spawn(api::serve(
            listener,
            backend.clone(),
            Metrics::clone(&metrics),
            bounds,
            ended,
        ))
    });

    let mut watch = Watch::new(
        &config,
        options,
        feed.clone(),
        backend,
        metrics,
        blocks,
        spent,
        folder.path().to_owned(),
        lanes,
    );
    let outcome = runtime.block_on(watch.run(shutdown, &net));

    // The order matters: nothing new comes in, lanes flush what they have, then the stores close.
    let began = Instant::now();
    let _ = stop.send(true);
    feed.stop();
    let net_ended = runtime.block_on(async { tokio::time::timeout(LANES_END, net).await });
    let lanes_ended = watch.into_lanes().end(&engine);
    if let Some(thread) = pool_thread {
        let _ = thread.join();
    }
    if let Some(server) = server {
        let _ = runtime.block_on(async { tokio::time::timeout(LANES_END, server).await });
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

/// What every lane is started with.
struct LaneStart<'a> {
    config: &'a Config,
    params: &'static Params,
    engine: &'a Arc<PluginEngine>,
    feed: &'a Arc<Feed>,
    pool: Option<&'a Arc<PoolFeed>>,
    stores: &'a LaneStores,
    metrics: &'a Metrics,
}

impl LaneStart<'_> {
    /// Opens and starts a lane for each plugin.
    fn all(&self, plugins: Vec<LoadedPlugin>) -> Result<Lanes> {
        let mut lanes = Lanes {
            shared: Vec::new(),
            threads: Vec::new(),
        };
        // All state that waits for the disk is in one bound; a plugin without the coins needs little of it.
        let cache = usize::try_from(self.config.database.state_cache).unwrap_or(usize::MAX);
        for plugin in plugins {
            let name = plugin.settings.name.clone();
            let share = if plugin.descriptor.coins {
                cache / 4 * 3
            } else {
                cache / 4
            };
            let surroundings = Arc::new(Surroundings {
                name: name.clone(),
                params: self.params,
                feed: self.feed.clone(),
                volatile: Volatile::default(),
                gauges: Gauges::new(self.metrics.plugin(&name)),
            });
            let limits = open::limits(&plugin.settings);
            let runtime = RuntimeSettings::open(
                self.config
                    .network_dir()
                    .join("runtime-settings")
                    .join(format!("{name}.json")),
            )?;
            let shared = Arc::new(LaneShared::new(
                self.engine.clone(),
                plugin.compiled,
                plugin.descriptor,
                surroundings,
                plugin.settings.settings,
                runtime,
                limits,
            ));
            let lane = Lane {
                shared: shared.clone(),
                feed: self.feed.clone(),
                pool: self.pool.cloned(),
                stores: self.stores.clone(),
                settings: LaneSettings {
                    state_cache: share,
                    flush_interval: self.config.database.flush_interval,
                    undo_depth: self.config.chain.undo_depth,
                    first_pause: self.config.plugins.retry_pause,
                    longest_pause: self.config.plugins.retry_pause_max,
                },
                metrics: self.metrics.plugin(&name),
                committed: self.metrics.stage(Stage::AnnouncedToCommitted),
            };
            let open = lane
                .open()
                .with_context(|| format!("failed to open the stores of plugin {name}"))?;
            let thread = std::thread::Builder::new()
                .name(name)
                .spawn(move || open.run())
                .context("failed to start a thread")?;
            lanes.shared.push(shared);
            lanes.threads.push(thread);
        }
        Ok(lanes)
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
