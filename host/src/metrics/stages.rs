//! Times of what is done with blocks.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::family::MetricConstructor;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use std::time::{Duration, Instant};

/// What is done with a block, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// From bytes to a block, with its hashes.
    Decode,
    /// The rules of consensus that need no coins.
    Check,
    /// Into the block log.
    Log,
    /// The columns that plugins see.
    Columns,
    /// Fetching a block's coins ahead of the call.
    Prefetch,
    /// The call into the plugin.
    Call,
    /// State to the disk.
    StateFlush,
    /// Rows to the disk.
    RowsFlush,
    /// From a block's announcement to its commit in every lane, near the tip.
    AnnouncedToCommitted,
}

impl Stage {
    /// The value of the label `stage`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Check => "check",
            Self::Log => "log",
            Self::Columns => "columns",
            Self::Prefetch => "prefetch",
            Self::Call => "call",
            Self::StateFlush => "state_flush",
            Self::RowsFlush => "rows_flush",
            Self::AnnouncedToCommitted => "announced_to_committed",
        }
    }
}

impl EncodeLabelValue for Stage {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        self.name().encode(encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct StageLabels {
    pub(super) stage: Stage,
    pub(super) plugin: String,
}

/// 10 µs to 84 s, four times each: from a nearly empty block's check to a flush of everything.
#[derive(Clone, Copy, Debug)]
pub(super) struct StageBuckets;

impl MetricConstructor<Histogram> for StageBuckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(exponential_buckets(10e-6, 2.0, 24))
    }
}

/// The times of one stage.
#[derive(Clone, Debug)]
pub struct StageTimer(pub(super) Histogram);

impl StageTimer {
    /// Adds one time.
    pub fn observe(&self, time: Duration) {
        self.0.observe(time.as_secs_f64());
    }

    /// Runs `work` and adds the time that it took.
    pub fn time<T>(&self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.observe(start.elapsed());
        result
    }
}
