//! How fast transactions of each fee rate confirmed, remembered over one stretch of time. Core's `TxConfirmStats`.

use crate::buckets::{Buckets, COUNT};
use crate::unconfirmed::Unconfirmed;

/// What tells the three horizons apart.
#[derive(Debug, PartialEq)]
pub struct Shape {
    /// For people.
    pub name: &'static str,
    /// Confirmation times are told apart up to this many periods.
    pub periods: usize,
    /// Blocks a period.
    pub scale: u32,
    /// What a block ago counts, compared with now.
    pub decay: f64,
    /// Transactions a block that a range of buckets must have on average for an answer.
    pub sufficient: f64,
}

/// Core's `shortStats`: 12 blocks, half forgotten after 18.
pub const SHORT: Shape = Shape {
    name: "short",
    periods: 12,
    scale: 1,
    decay: 0.962,
    sufficient: 0.5,
};
/// Core's `feeStats`: 48 blocks, half forgotten after a day.
pub const MEDIUM: Shape = Shape {
    name: "medium",
    periods: 24,
    scale: 2,
    decay: 0.9952,
    sufficient: 0.1,
};
/// Core's `longStats`: 1,008 blocks, half forgotten after a week.
pub const LONG: Shape = Shape {
    name: "long",
    periods: 42,
    scale: 24,
    decay: 0.99931,
    sufficient: 0.1,
};

impl Shape {
    /// Longest target that this horizon can answer, blocks.
    pub fn max_confirms(&self) -> u32 {
        self.scale * self.periods as u32
    }

    /// What remains of 1 after `blocks`. By squaring, so that it is the same number wherever it is computed.
    fn remains(&self, blocks: u32) -> f64 {
        let (mut result, mut power, mut left) = (1.0, self.decay, blocks);
        while left > 0 {
            if left & 1 == 1 {
                result *= power;
            }
            power *= power;
            left >>= 1;
        }
        result
    }
}

/// The moving averages of one bucket.
///
/// They fall with every block, so writing them down would mean to write everything at every block. Instead each row keeps
/// the height for which its numbers hold, and what is read later is multiplied by what remains.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The numbers hold right after the block of this height.
    pub height: u32,
    /// Transactions that confirmed.
    pub count: f64,
    /// Sum of their fee rates, sat/kvB.
    pub rates: f64,
    /// Per period: transactions that confirmed within so many periods.
    pub confirmed: Vec<f64>,
    /// Per period: transactions that left the pool unconfirmed after so many periods or more.
    pub failed: Vec<f64>,
}

impl Row {
    fn new(height: u32, periods: usize) -> Self {
        Row {
            height,
            count: 0.0,
            rates: 0.0,
            confirmed: vec![0.0; periods],
            failed: vec![0.0; periods],
        }
    }
}

/// One horizon: a row for each bucket that ever had a transaction.
#[derive(Debug)]
pub struct Horizon {
    shape: &'static Shape,
    rows: Vec<Option<Row>>,
    changed: Vec<bool>,
}

/// Where an estimate comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Range {
    /// Lower end of the range of buckets, sat/kvB.
    pub start: f64,
    /// Upper end, sat/kvB.
    pub end: f64,
    /// Transactions that confirmed within the target.
    pub within_target: f64,
    /// Transactions that confirmed at all.
    pub confirmed: f64,
    /// Transactions that wait in the pool for longer than the target.
    pub in_mempool: f64,
    /// Transactions that left the pool unconfirmed after the target.
    pub left_mempool: f64,
}

impl Horizon {
    /// A horizon that has seen nothing.
    pub fn new(shape: &'static Shape) -> Self {
        Horizon {
            shape,
            rows: vec![None; COUNT],
            changed: vec![false; COUNT],
        }
    }

    /// What tells it from the others.
    pub fn shape(&self) -> &'static Shape {
        self.shape
    }

    /// Brings a bucket's row to `height` for a change.
    fn row(&mut self, bucket: usize, height: u32) -> Option<&mut Row> {
        let shape = self.shape;
        *self.changed.get_mut(bucket)? = true;
        let row = self
            .rows
            .get_mut(bucket)?
            .get_or_insert_with(|| Row::new(height, shape.periods));
        let remains = shape.remains(height.saturating_sub(row.height));
        if remains != 1.0 {
            row.count *= remains;
            row.rates *= remains;
            row.confirmed
                .iter_mut()
                .chain(&mut row.failed)
                .for_each(|number| *number *= remains);
        }
        row.height = height;
        Some(row)
    }

    /// A transaction of `bucket` confirmed in the block at `height`, `blocks` (1 and more) after it came.
    pub fn record(&mut self, height: u32, bucket: usize, blocks: u32, rate: f64) {
        let period = blocks.max(1).div_ceil(self.shape.scale) as usize;
        let Some(row) = self.row(bucket, height) else {
            return;
        };
        row.count += 1.0;
        row.rates += rate;
        row.confirmed
            .iter_mut()
            .skip(period - 1)
            .for_each(|confirmed| *confirmed += 1.0);
    }

    /// A transaction of `bucket` left the pool unconfirmed, `blocks` after it came. It counts as failed for the periods
    /// that it waited through.
    pub fn fail(&mut self, height: u32, bucket: usize, blocks: u32) {
        let periods = (blocks / self.shape.scale) as usize;
        if periods == 0 {
            return;
        }
        let Some(row) = self.row(bucket, height) else {
            return;
        };
        row.failed
            .iter_mut()
            .take(periods)
            .for_each(|failed| *failed += 1.0);
    }

    /// The rows that changed since the last call, with their buckets.
    pub fn take_changed(&mut self) -> Vec<(usize, &Row)> {
        let rows = self.rows.iter().zip(&mut self.changed).enumerate();
        rows.filter_map(|(bucket, (row, changed))| {
            std::mem::take(changed).then_some(())?;
            Some((bucket, row.as_ref()?))
        })
        .collect()
    }

    /// Puts a row that was written down back.
    pub fn restore(&mut self, bucket: usize, row: Row) {
        if let Some(place) = self.rows.get_mut(bucket) {
            *place = Some(row);
        }
    }

    /// The fee rate in sat/kvB at which `target` blocks or fewer were enough for a share of `success` of the transactions.
    /// None where there is too little to tell. Core's `EstimateMedianVal`, with its order of additions.
    pub fn estimate(
        &self,
        buckets: &Buckets,
        unconfirmed: &Unconfirmed,
        target: u32,
        success: f64,
        height: u32,
    ) -> Option<(f64, Range)> {
        let period = target.div_ceil(self.shape.scale).checked_sub(1)? as usize;
        if period >= self.shape.periods {
            return None;
        }
        let waiting = unconfirmed.waiting(height, target);
        let enough = self.shape.sufficient / (1.0 - self.shape.decay);

        // The current range, from the highest rate down.
        let (mut confirmed_in_time, mut confirmed, mut failed, mut in_mempool) =
            (0.0, 0.0, 0.0, 0.0);
        let mut confirmed_since_check = 0.0;
        let mut near = COUNT - 1;
        let mut new_range = true;
        // The last range that passed.
        let mut best: Option<(usize, usize, Range)> = None;

        for bucket in (0..COUNT).rev() {
            if new_range {
                near = bucket;
                new_range = false;
            }
            if let Some(row) = self.rows.get(bucket).and_then(Option::as_ref) {
                let remains = self.shape.remains(height.saturating_sub(row.height));
                confirmed_in_time += row.confirmed.get(period).copied().unwrap_or(0.0) * remains;
                confirmed_since_check += row.count * remains;
                confirmed += row.count * remains;
                failed += row.failed.get(period).copied().unwrap_or(0.0) * remains;
            }
            in_mempool += f64::from(waiting.get(bucket).copied().unwrap_or(0));
            if confirmed_since_check < enough {
                continue;
            }
            confirmed_since_check = 0.0;
            if confirmed_in_time / (confirmed + failed + in_mempool) < success {
                continue;
            }
            let range = Range {
                start: buckets.lower(bucket),
                end: buckets.upper(near),
                within_target: confirmed_in_time,
                confirmed,
                in_mempool,
                left_mempool: failed,
            };
            best = Some((bucket, near, range));
            (confirmed_in_time, confirmed, failed, in_mempool) = (0.0, 0.0, 0.0, 0.0);
            new_range = true;
        }

        let (low, high, range) = best?;
        self.mean_of_median_bucket(low, high, height)
            .map(|rate| (rate, range))
    }

    /// The bucket in which the median transaction of the range is, and the mean rate there: the median itself is not known,
    /// because single transactions are not kept.
    fn mean_of_median_bucket(&self, low: usize, high: usize, height: u32) -> Option<f64> {
        let rows = || {
            let rows = self
                .rows
                .get(low..=high)
                .unwrap_or_default()
                .iter()
                .flatten();
            rows.map(|row| {
                (
                    row,
                    row.count * self.shape.remains(height.saturating_sub(row.height)),
                )
            })
        };
        let total: f64 = rows().map(|(_, count)| count).sum();
        if total == 0.0 {
            return None;
        }
        let mut left = total / 2.0;
        for (row, count) in rows() {
            if count < left {
                left -= count;
            } else {
                return Some(row.rates / row.count);
            }
        }
        None
    }
}
