//! What the pool knows of itself.

use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use prometheus_client::registry::Registry;

/// Figures of the pool beside its size.
#[derive(Clone, Debug, Default)]
pub struct PoolMetrics {
    /// Lowest fee rate taken now, sat/kvB.
    pub min_fee_rate: Gauge,
    /// Transactions that wait for their parents.
    pub orphans: Gauge,
    /// Transactions that blocks pass over though they pay more than those take.
    pub suspicious: Gauge,
    /// Transactions that pay less than the mining floor.
    pub secondary: Gauge,
    /// Peers that announced something in the last ten minutes.
    pub peers: Gauge,
    /// How long peers have been listened to.
    pub listening_seconds: Gauge,
    /// Share of the last block's transactions that were in the pool before, percent.
    pub coverage_last: Gauge,
    /// Share of their weight.
    pub coverage_last_weight: Gauge,
    /// Of the last 144 blocks together.
    pub coverage: Gauge,
    /// By weight.
    pub coverage_weight: Gauge,
    /// Bytes appended to the journal of the pool.
    pub journal_bytes: Counter,
}

impl PoolMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        for (name, help, gauge) in [
            (
                "min_fee_rate",
                "Lowest fee rate taken now, sat/kvB",
                &metrics.min_fee_rate,
            ),
            (
                "orphans",
                "Transactions that wait for their parents",
                &metrics.orphans,
            ),
            (
                "suspicious",
                "Transactions that blocks pass over though they pay more than those take",
                &metrics.suspicious,
            ),
            (
                "secondary",
                "Transactions that pay less than the mining floor",
                &metrics.secondary,
            ),
            (
                "peers",
                "Peers that announced something in the last ten minutes",
                &metrics.peers,
            ),
            (
                "listening_seconds",
                "How long peers have been listened to",
                &metrics.listening_seconds,
            ),
            (
                "coverage_last_block_percent",
                "Share of the last block's transactions that were in the pool before",
                &metrics.coverage_last,
            ),
            (
                "coverage_last_block_weight_percent",
                "Share of the last block's weight that was in the pool before",
                &metrics.coverage_last_weight,
            ),
            (
                "coverage_percent",
                "Share of the last 144 blocks' transactions that were in the pool before",
                &metrics.coverage,
            ),
            (
                "coverage_weight_percent",
                "Share of the last 144 blocks' weight that was in the pool before",
                &metrics.coverage_weight,
            ),
        ] {
            registry.register(format!("mempool_{name}"), help, gauge.clone());
        }
        registry.register(
            "mempool_journal_bytes",
            "Bytes appended to the journal of the pool",
            metrics.journal_bytes.clone(),
        );
        metrics
    }
}
