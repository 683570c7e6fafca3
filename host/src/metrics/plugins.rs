//! What is measured of each plugin, its own gauges among it.

use super::{Metrics, StageTimer};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use std::sync::PoisonError;

/// How many gauges a plugin may set. What it sets beyond is dropped: each is a time series that a Prometheus keeps for ever.
pub const MAX_PLUGIN_GAUGES: usize = 1_000;

/// The longest name of a plugin's gauge.
pub const MAX_GAUGE_NAME: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct GaugeLabels {
    pub(super) plugin: String,
    pub(super) name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct BudgetLabels {
    pub(super) plugin: String,
    pub(super) budget: &'static str,
}

/// What is measured of one plugin.
#[derive(Clone, Debug)]
pub struct PluginMetrics {
    /// Height of the last block it was given.
    pub height: Gauge,
    /// Blocks between that one and the tip.
    pub lag: Gauge,
    /// Calls that failed.
    pub traps: Counter,
    /// Rows of anchored tables that reached the disk. Those that a reorg takes back stay counted.
    pub rows: Counter,
    /// Memory of its instance in bytes.
    pub memory_bytes: Gauge,
    /// Log lines over its bound.
    pub log_lines_dropped: Counter,
    /// 1 while it is quarantined.
    pub quarantined: Gauge,
    /// Failures of the host, its disk or its database in the plugin's lane.
    pub host_faults: Counter,
    /// Fetching a block's coins ahead of the call.
    pub prefetch: StageTimer,
    /// The call with a block.
    pub call: StageTimer,
    /// State to the disk.
    pub state_flush: StageTimer,
    /// Rows to the disk.
    pub rows_flush: StageTimer,
    pub(super) name: String,
    pub(super) metrics: Metrics,
}

impl PluginMetrics {
    /// Sets one of the plugin's own gauges. False when it was dropped: the name is not allowed (lower-case letters, digits and
    /// `_`, at most [`MAX_GAUGE_NAME`]) or there are [`MAX_PLUGIN_GAUGES`] others.
    pub fn set_value(&self, name: &str, value: f64) -> bool {
        let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_';
        if name.is_empty() || name.len() > MAX_GAUGE_NAME || !name.bytes().all(allowed) {
            return false;
        }
        let mut names = self
            .metrics
            .gauge_names
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mine = names.entry(self.name.clone()).or_default();
        if !mine.contains(name) {
            if mine.len() >= MAX_PLUGIN_GAUGES {
                return false;
            }
            mine.insert(name.to_owned());
        }
        // under the lock, so that clear_values leaves nothing behind
        self.metrics
            .gauges
            .get_or_create_owned(&self.labels(name))
            .set(value);
        true
    }

    /// Shows a budget by its key: the most that was used and the limit, in seconds, bytes or a number.
    pub fn set_budget(&self, budget: &'static str, used: f64, limit: f64) {
        let labels = BudgetLabels {
            plugin: self.name.clone(),
            budget,
        };
        let metrics = &self.metrics;
        metrics
            .plugin_budget_used
            .get_or_create_owned(&labels)
            .set(used);
        metrics
            .plugin_budget_limit
            .get_or_create_owned(&labels)
            .set(limit);
    }

    /// Removes the plugin's own gauges, as when it is replaced.
    pub fn clear_values(&self) {
        let mut names = self
            .metrics
            .gauge_names
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for name in names.remove(&self.name).unwrap_or_default() {
            self.metrics.gauges.remove(&self.labels(&name));
        }
    }

    fn labels(&self, name: &str) -> GaugeLabels {
        GaugeLabels {
            plugin: self.name.clone(),
            name: name.to_owned(),
        }
    }
}
