//! What Prometheus reads: heights, lags, times by stage, the pool, peers, traps, and the gauges that plugins set.
//!
//! Every handle is cheap to clone and may be used from any thread.

mod peers;
mod plugins;
mod pool;
mod stages;

pub use peers::{PeerMetrics, PeerSample};
pub use plugins::{MAX_GAUGE_NAME, MAX_PLUGIN_GAUGES, PluginMetrics};
pub use pool::PoolMetrics;
pub use stages::{Stage, StageTimer};

use plugins::{BudgetLabels, GaugeLabels};
use stages::{StageBuckets, StageLabels};

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU64},
    },
    time::{Duration, Instant},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Registry, Unit},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PluginLabels {
    plugin: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueryLabels {
    plugin: String,
    outcome: &'static str,
}

/// Everything that is measured.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    /// Height of the best chain of headers.
    pub headers_height: Gauge,
    /// Height of the last stored and checked block of the active branch.
    pub blocks_height: Gauge,
    /// 1 when at the tip, 0 when not.
    pub synced: Gauge,
    /// Blocks that joined the active branch since the start.
    pub blocks: Counter,
    /// Pruned blocks that came from peers again for lanes that need them.
    pub blocks_again: Counter,
    /// Their transactions.
    pub transactions: Counter,
    /// Reorganisations since the start.
    pub reorgs: Counter,
    /// Transactions in the pool.
    pub mempool_txs: Gauge,
    /// Virtual bytes in the pool.
    pub mempool_vbytes: Gauge,
    /// Fees in the pool, sat.
    pub mempool_fees_sats: Gauge,
    /// What the pool knows of itself.
    pub pool: PoolMetrics,
    /// Peers that have finished their handshake.
    pub peers: Gauge,
    /// Peers that were dropped for what they did or did not do.
    pub peers_dropped: Counter,
    /// Blocks that came as the short ids of their transactions.
    pub compact_blocks: Counter,
    /// Transactions of those blocks that were not sent with the short ids.
    pub compact_transactions: Counter,
    /// Those of them that the pool had.
    pub compact_from_pool: Counter,
    /// Bytes received from peers.
    pub bytes_in: Counter,
    /// Bytes sent to peers.
    pub bytes_out: Counter,
    /// Bytes of blocks in the block log.
    pub block_log_bytes: Gauge,
    /// What is measured of each peer.
    pub each_peer: PeerMetrics,
    stages: Family<StageLabels, Histogram, StageBuckets>,
    plugin_height: Family<PluginLabels, Gauge>,
    plugin_lag: Family<PluginLabels, Gauge>,
    plugin_traps: Family<PluginLabels, Counter>,
    plugin_rows: Family<PluginLabels, Counter>,
    plugin_memory: Family<PluginLabels, Gauge>,
    plugin_log_dropped: Family<PluginLabels, Counter>,
    plugin_budget_used: Family<BudgetLabels, Gauge<f64, AtomicU64>>,
    plugin_budget_limit: Family<BudgetLabels, Gauge<f64, AtomicU64>>,
    plugin_quarantined: Family<PluginLabels, Gauge>,
    plugin_host_faults: Family<PluginLabels, Counter>,
    plugin_queries: Family<QueryLabels, Counter>,
    plugin_reloads: Family<QueryLabels, Counter>,
    reload_seconds: Histogram,
    gauges: Family<GaugeLabels, Gauge<f64, AtomicU64>>,
    gauge_names: Arc<Mutex<HashMap<String, HashSet<String>>>>,
}

/// Seconds since the start, read when asked for.
#[derive(Debug)]
struct Uptime(Instant);

impl Collector for Uptime {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let seconds = ConstGauge::new(self.0.elapsed().as_secs_f64());
        let metric = encoder.encode_descriptor(
            "uptime",
            "Time since the host started",
            Some(&Unit::Seconds),
            prometheus_client::metrics::MetricType::Gauge,
        )?;
        seconds.encode(metric)
    }
}

impl Metrics {
    /// Metrics with nothing measured yet. `version` and `network` are shown as labels of `blockmill_build_info`.
    pub fn new(version: &str, network: &str) -> Self {
        let mut registry = Registry::with_prefix("blockmill");
        let pool = PoolMetrics::new(&mut registry);
        let registry_mut = &mut registry;
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::<i64, AtomicI64>::default();
            registry_mut.register(name, help, gauge.clone());
            gauge
        };
        let headers_height = gauge("headers_height", "Height of the best chain of headers");
        let blocks_height = gauge(
            "blocks_height",
            "Height of the last checked block of the active branch",
        );
        let synced = gauge("synced", "1 when at the tip, 0 when not");
        let mempool_txs = gauge("mempool_transactions", "Unconfirmed transactions");
        let mempool_vbytes = gauge(
            "mempool_vbytes",
            "Virtual bytes of the unconfirmed transactions",
        );
        let mempool_fees_sats = gauge(
            "mempool_fees_sats",
            "Fees of the unconfirmed transactions in sat",
        );
        let peers = gauge("peers", "Peers that have finished their handshake");
        let block_log_bytes = gauge("block_log_bytes", "Bytes of blocks that are kept");

        // counters are shown with `_total` behind their names
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::<u64, AtomicU64>::default();
            registry_mut.register(name, help, counter.clone());
            counter
        };
        let blocks = counter("blocks", "Blocks that joined the active branch");
        let blocks_again = counter(
            "blocks_again",
            "Pruned blocks that peers were asked for again and that were checked",
        );
        let transactions = counter(
            "transactions",
            "Transactions of the blocks that joined the active branch",
        );
        let reorgs = counter("reorgs", "Reorganisations");
        let peers_dropped = counter(
            "peers_dropped",
            "Peers that were dropped for what they did or did not do",
        );
        let compact_blocks = counter(
            "compact_blocks",
            "Blocks that came as the short ids of their transactions",
        );
        let compact_transactions = counter(
            "compact_transactions",
            "Transactions of compact blocks that were not sent with the short ids",
        );
        let compact_from_pool = counter(
            "compact_transactions_from_pool",
            "Transactions of compact blocks that the pool had",
        );
        let bytes_in = counter("peer_bytes_in", "Bytes received from peers");
        let bytes_out = counter("peer_bytes_out", "Bytes sent to peers");

        let stages = Family::<_, _, StageBuckets>::new_with_constructor(StageBuckets);
        registry.register_with_unit(
            "block_stage",
            "Time of a block in a stage, by plugin where the stage is a plugin's",
            Unit::Seconds,
            stages.clone(),
        );
        let plugin_height = Family::<PluginLabels, Gauge>::default();
        registry.register(
            "plugin_height",
            "Height of the last block that the plugin was given",
            plugin_height.clone(),
        );
        let plugin_lag = Family::<PluginLabels, Gauge>::default();
        registry.register(
            "plugin_lag_blocks",
            "Blocks between the plugin and the tip",
            plugin_lag.clone(),
        );
        let plugin_traps = Family::<PluginLabels, Counter>::default();
        registry.register(
            "plugin_traps",
            "Calls into the plugin that failed",
            plugin_traps.clone(),
        );
        let plugin_rows = Family::<PluginLabels, Counter>::default();
        registry.register(
            "plugin_rows",
            "Rows of blocks that were written, those that a reorg took back later too",
            plugin_rows.clone(),
        );
        let plugin_memory = Family::<PluginLabels, Gauge>::default();
        registry.register(
            "plugin_memory_bytes",
            "Memory of the plugin's instance",
            plugin_memory.clone(),
        );
        let plugin_log_dropped = Family::<PluginLabels, Counter>::default();
        registry.register(
            "plugin_log_lines_dropped",
            "Log lines of the plugin over its bound",
            plugin_log_dropped.clone(),
        );
        let plugin_budget_used = Family::<BudgetLabels, Gauge<f64, AtomicU64>>::default();
        registry.register(
            "plugin_budget_used_max",
            "The most that one call has used of a budget since the start: seconds, bytes or a number",
            plugin_budget_used.clone(),
        );
        let plugin_budget_limit = Family::<BudgetLabels, Gauge<f64, AtomicU64>>::default();
        registry.register(
            "plugin_budget_limit",
            "The limit of a budget, in the same unit",
            plugin_budget_limit.clone(),
        );
        let plugin_quarantined = Family::<PluginLabels, Gauge>::default();
        registry.register(
            "plugin_quarantined",
            "1 while the plugin is quarantined: it failed on one block again and again",
            plugin_quarantined.clone(),
        );
        let plugin_host_faults = Family::<PluginLabels, Counter>::default();
        registry.register(
            "plugin_host_faults",
            "Steps of the plugin's lane that failed because of the host, its disk or its database",
            plugin_host_faults.clone(),
        );
        let plugin_queries = Family::<QueryLabels, Counter>::default();
        registry.register(
            "plugin_queries",
            "Queries to the plugin, by outcome",
            plugin_queries.clone(),
        );
        let plugin_reloads = Family::<QueryLabels, Counter>::default();
        registry.register(
            "plugin_reloads",
            "Changes of the running plugin, by outcome",
            plugin_reloads.clone(),
        );
        let reload_seconds = Histogram::new(exponential_buckets(10e-3, 2.0, 16));
        registry.register(
            "plugin_reload_seconds",
            "From a changed file to the first moment that the new component runs",
            reload_seconds.clone(),
        );
        let gauges = Family::<GaugeLabels, Gauge<f64, AtomicU64>>::default();
        registry.register(
            "plugin_value",
            "What the plugin set, by name",
            gauges.clone(),
        );
        registry.register(
            "build",
            "Version of the host and the network it follows",
            Info::new(vec![
                ("version".to_owned(), version.to_owned()),
                ("network".to_owned(), network.to_owned()),
            ]),
        );
        registry.register_collector(Box::new(Uptime(Instant::now())));
        let each_peer = PeerMetrics::default();
        registry.register_collector(Box::new(each_peer.clone()));

        Self {
            registry: Arc::new(registry),
            headers_height,
            blocks_height,
            synced,
            blocks,
            blocks_again,
            transactions,
            reorgs,
            mempool_txs,
            mempool_vbytes,
            mempool_fees_sats,
            pool,
            peers,
            peers_dropped,
            compact_blocks,
            compact_transactions,
            compact_from_pool,
            bytes_in,
            bytes_out,
            block_log_bytes,
            each_peer,
            stages,
            plugin_height,
            plugin_lag,
            plugin_traps,
            plugin_rows,
            plugin_memory,
            plugin_log_dropped,
            plugin_budget_used,
            plugin_budget_limit,
            plugin_quarantined,
            plugin_host_faults,
            plugin_queries,
            plugin_reloads,
            reload_seconds,
            gauges,
            gauge_names: Arc::default(),
        }
    }

    /// The clock of a stage that belongs to no plugin. Keep the handle: making it takes a lock.
    pub fn stage(&self, stage: Stage) -> StageTimer {
        self.timer(stage, "")
    }

    /// What is measured of one plugin. Keep the handle: making it takes locks.
    pub fn plugin(&self, name: &str) -> PluginMetrics {
        let labels = PluginLabels {
            plugin: name.to_owned(),
        };
        PluginMetrics {
            height: self.plugin_height.get_or_create_owned(&labels),
            lag: self.plugin_lag.get_or_create_owned(&labels),
            traps: self.plugin_traps.get_or_create_owned(&labels),
            rows: self.plugin_rows.get_or_create_owned(&labels),
            memory_bytes: self.plugin_memory.get_or_create_owned(&labels),
            log_lines_dropped: self.plugin_log_dropped.get_or_create_owned(&labels),
            quarantined: self.plugin_quarantined.get_or_create_owned(&labels),
            host_faults: self.plugin_host_faults.get_or_create_owned(&labels),
            prefetch: self.timer(Stage::Prefetch, name),
            call: self.timer(Stage::Call, name),
            state_flush: self.timer(Stage::StateFlush, name),
            rows_flush: self.timer(Stage::RowsFlush, name),
            name: name.to_owned(),
            metrics: self.clone(),
        }
    }

    /// Counts the change of a running plugin: `swapped`, `reverted` or `refused`.
    pub(crate) fn count_reload(&self, plugin: &str, outcome: &'static str, took: Duration) {
        let labels = QueryLabels {
            plugin: plugin.to_owned(),
            outcome,
        };
        self.plugin_reloads.get_or_create_owned(&labels).inc();
        if outcome == "swapped" {
            self.reload_seconds.observe(took.as_secs_f64());
        }
    }

    /// Counts a query to a plugin. `outcome` is `ok` or the code of the error.
    pub(crate) fn count_query(&self, plugin: &str, outcome: &'static str) {
        let labels = QueryLabels {
            plugin: plugin.to_owned(),
            outcome,
        };
        self.plugin_queries.get_or_create_owned(&labels).inc();
    }

    /// All of it, as text for Prometheus (OpenMetrics).
    pub fn text(&self) -> String {
        let mut text = String::new();
        // writing to a string does not fail
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }

    fn timer(&self, stage: Stage, plugin: &str) -> StageTimer {
        let labels = StageLabels {
            stage,
            plugin: plugin.to_owned(),
        };
        StageTimer(self.stages.get_or_create_owned(&labels))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn what_was_set_is_in_the_text() {
        let metrics = Metrics::new("0.1.0", "regtest");
        metrics.headers_height.set(140);
        metrics.blocks_height.set(132);
        metrics.mempool_txs.set(60);
        metrics.pool.coverage_last.set(97);
        metrics.bytes_in.inc_by(1_000);
        metrics
            .stage(Stage::Decode)
            .observe(Duration::from_millis(3));
        let plugin = metrics.plugin("tx-writer");
        plugin.height.set(131);
        plugin.lag.set(1);
        plugin.traps.inc();
        plugin.rows.inc_by(12);
        plugin.rows_flush.time(|| ());
        assert!(plugin.set_value("fee_rate", 2.5));

        let text = metrics.text();
        for line in [
            "blockmill_headers_height 140",
            "blockmill_blocks_height 132",
            "blockmill_mempool_transactions 60",
            "blockmill_mempool_coverage_last_block_percent 97",
            "blockmill_peer_bytes_in_total 1000",
            "blockmill_block_stage_seconds_count{stage=\"decode\",plugin=\"\"} 1",
            "blockmill_block_stage_seconds_sum{stage=\"decode\",plugin=\"\"} 0.003",
            "blockmill_block_stage_seconds_count{stage=\"rows_flush\",plugin=\"tx-writer\"} 1",
            "blockmill_plugin_height{plugin=\"tx-writer\"} 131",
            "blockmill_plugin_lag_blocks{plugin=\"tx-writer\"} 1",
            "blockmill_plugin_traps_total{plugin=\"tx-writer\"} 1",
            "blockmill_plugin_rows_total{plugin=\"tx-writer\"} 12",
            "blockmill_plugin_value{plugin=\"tx-writer\",name=\"fee_rate\"} 2.5",
            "blockmill_build_info{version=\"0.1.0\",network=\"regtest\"} 1",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in\n{text}"
            );
        }
        assert!(
            text.lines()
                .any(|line| line.starts_with("blockmill_uptime_seconds ")),
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn a_plugin_sets_a_bounded_number_of_gauges_with_harmless_names() {
        let metrics = Metrics::new("0.1.0", "regtest");
        let (one, other) = (metrics.plugin("one"), metrics.plugin("other"));
        for name in [
            "",
            "UPPER",
            "a-b",
            "a\"} 1\nevil 2",
            &"x".repeat(MAX_GAUGE_NAME + 1),
        ] {
            assert!(!one.set_value(name, 1.0), "{name}");
        }
        for number in 0..MAX_PLUGIN_GAUGES {
            assert!(one.set_value(&format!("g{number}"), 1.0));
        }
        assert!(!one.set_value("one_more", 1.0));
        assert!(
            one.set_value("g0", 2.0),
            "one that is there can still be set"
        );
        assert!(
            other.set_value("one_more", 1.0),
            "another plugin is not concerned"
        );

        one.clear_values();
        let text = metrics.text();
        assert_eq!(
            text.lines()
                .filter(|line| line.starts_with("blockmill_plugin_value{"))
                .count(),
            1
        );
        assert!(one.set_value("one_more", 1.0));
    }

    #[test]
    fn handles_of_one_plugin_share_their_numbers_across_threads() {
        let metrics = Metrics::new("0.1.0", "regtest");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let plugin = metrics.plugin("one");
                scope.spawn(move || {
                    for _ in 0..1_000 {
                        plugin.traps.inc();
                    }
                });
            }
        });
        assert_eq!(metrics.plugin("one").traps.get(), 4_000);
    }
}
