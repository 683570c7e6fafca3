//! Fee rates for a number of blocks, as Bitcoin Core estimates them.
//!
//! The [`estimator`] is Core's `CBlockPolicyEstimator`: it watches how long the pool's transactions wait for a block, by fee
//! rate, over three horizons. What it learnt is in the state; whom it waits for is in memory, and summed up in the
//! volatile space so that queries know it.
//!
//! ```text
//! state     'R' horizon(u8) bucket(u8) → the moving averages of a bucket (see `store`)
//!           'M'                        → height of the first block that told something, time of the last one
//!           'C'                        → how much of the blocks behind them was in the pool before (see `coverage`)
//! volatile  'U'                        → transactions waited for, by height and bucket
//!           'P', 'N'                   → the pool (see `pool`)
//!           'C', 'F'                   → coverage of the last blocks, the pool's floor
//! query     estimate?target=6[&mode=economical|conservative]        projection        recommended        status
//! values    fee_rate_2, fee_rate_6, fee_rate_24, fee_rate_144 (sat/vB, of the estimator alone), coverage_percent
//! ```
//!
//! The [`projection`] fills the next blocks from the pool. It is worth as much as the pool is complete: until enough blocks
//! were seen to consist of what the pool had, answers say what is missing instead. An economical estimate is lowered to
//! what the projection says and never raised by it.

pub mod buckets;
pub mod coverage;
pub mod estimator;
pub mod floor;
pub mod horizon;
pub mod pool;
pub mod projection;
pub mod query;
pub mod store;
pub mod unconfirmed;

use blockmill_sdk::prelude::*;
use blockmill_sdk::{Origin, Removal};

use coverage::{Coverage, Warmth};
use estimator::Estimator;
use floor::Floor;
use pool::Pool;
use store::Summary;

/// What was learnt is not used when no block told anything for so long, in seconds by the blocks' own times (Core's
/// `MAX_FILE_AGE`, 60 hours).
const MAX_AGE: u64 = 60 * 60 * 60;

/// Targets whose rates are published as gauges.
const PUBLISHED: [(u32, &str); 4] = [
    (2, "fee_rate_2"),
    (6, "fee_rate_6"),
    (24, "fee_rate_24"),
    (144, "fee_rate_144"),
];

/// The plugin.
#[derive(Debug)]
pub struct FeeEstimator {
    estimator: Estimator,
    /// Block time of the last block while the pool was followed, unix seconds.
    active: u64,
    /// True while the host follows the tip and its pool is not fresh.
    current: bool,
    /// Bucket and blocks waited of what left the pool unconfirmed since the last block: in the estimator already, in the
    /// state with the next block.
    failures: Vec<(usize, u32)>,
    pool: Pool,
    coverage: Coverage,
    floor: Floor,
    warmth: Warmth,
    /// The pool's floor by the settings, sat/kvB.
    min_fee: u64,
    /// This instance was told of the pool: what a block holds should have been in it.
    told: bool,
    open: Open,
}

/// What the parts of a block came to, so far.
#[derive(Debug, Default)]
struct Open {
    /// Transactions without the coinbase, and those of them that the pool had.
    txs: u32,
    seen: u32,
    /// The estimator knows the block already.
    counted: bool,
}

impl Processor for FeeEstimator {
    fn describe() -> Descriptor {
        Descriptor::new(
            "fee-estimator",
            env!("CARGO_PKG_VERSION"),
            "Fee rates as Bitcoin Core estimates them",
        )
        .wants_mempool()
    }

    fn start(info: &StartInfo) -> Result<Self, String> {
        let mut settings = info.settings()?;
        let warmth = Warmth {
            blocks: settings.number("warm_blocks", 3)?,
            percent: settings.number("warm_percent", 75)?,
        };
        let min_fee = settings.number("min_fee_sat_kvb", 100)?;
        settings.finish()?;
        if warmth.blocks > 12 || warmth.percent > 100 {
            return Err(
                "`warm_blocks` must be at most 12, and `warm_percent` at most 100".to_owned(),
            );
        }
        let mut estimator = Estimator::new(info.height.unwrap_or(0));
        let active = store::load(&mut estimator)?;
        Ok(FeeEstimator {
            estimator,
            active,
            current: false,
            failures: Vec::new(),
            pool: Pool::default(),
            coverage: Coverage::load()?,
            floor: Floor::default(),
            warmth,
            min_fee,
            told: false,
            open: Open::default(),
        })
    }

    fn on_block(&mut self, block: &Block) -> Result<BlockAnswer, BlockError> {
        self.on_part(block, &Part::whole(block))
    }

    const TAKES_PARTS: bool = true;

    fn on_part(&mut self, block: &Block, place: &Part) -> Result<BlockAnswer, BlockError> {
        let time = u64::from(block.header().time);
        if place.is_first() {
            if !self.current && self.estimator.first_recorded != 0 && time > self.active + MAX_AGE {
                log::info(
                    "the last block that told something about fees is more than 60 hours old: starting afresh",
                );
                store::forget();
                self.estimator = Estimator::new(self.estimator.height());
                self.coverage = Coverage::default();
            }
            self.open = Open {
                counted: !self.estimator.begin_block(block.height()),
                ..Open::default()
            };
        }
        if self.told {
            // The coinbase is first.
            let coinbase = usize::from(place.is_first());
            for txid in block.txids().iter().skip(coinbase) {
                self.open.txs += 1;
                self.open.seen += u32::from(self.pool.remove(txid).is_some());
            }
        }
        if !self.open.counted {
            self.estimator.confirm(block.txids());
        }
        if !place.last {
            return Ok(BlockAnswer::none());
        }
        if self.told {
            self.pool.put();
            self.coverage
                .block(block.height(), self.open.txs, self.open.seen);
            self.coverage.put();
            if let Some((_, txs, seen)) = self.coverage.last() {
                let percent = f64::from(seen) * 100.0 / f64::from(txs.max(1));
                values::set("coverage_percent", percent.round());
            }
        }
        if self.current {
            self.active = time;
        }
        if self.estimator.first_recorded != 0 {
            store::save(&mut self.estimator, self.active);
            if self.told {
                self.coverage.save();
            }
        }
        self.failures.clear();
        if self.current {
            self.summarize(time);
            for (target, name) in PUBLISHED {
                if let Some((estimate, _)) = self.estimator.estimate(target, false).found {
                    values::set(name, estimate.rate.round() / 1_000.0);
                }
            }
            values::set("waited_for", self.estimator.unconfirmed().len() as f64);
        }
        Ok(BlockAnswer::none())
    }

    fn on_mempool(&mut self, changes: &MempoolChanges) -> Result<(), String> {
        self.current = changes.current();
        if !self.told {
            self.told = true;
            self.coverage.since = changes.time();
        }
        if changes.reset() {
            self.estimator.unconfirmed_mut().clear();
            self.pool.clear();
        } else {
            for (txid, reason) in changes.removed() {
                if let Some((fee, weight)) = self.pool.remove(txid)
                    && reason == Removal::Evicted
                {
                    self.floor.evicted(fee, weight, changes.time());
                }
                // What a block confirms is counted when the block is given.
                if reason != Removal::Confirmed
                    && let Some(failure) = self.estimator.failed(txid)
                {
                    self.failures.push(failure);
                }
            }
        }
        for (entry, sigops) in changes.added().zip(changes.sigop_costs()) {
            let (fee, weight) = (entry.fee(), entry.weight());
            self.pool
                .insert(entry.txid(), fee, weight, sigops, entry.parents());
        }
        self.pool.put();
        self.coverage.put();
        self.floor.put();
        if changes.current() {
            let mut arrival = Arrival::new(self.estimator.height());
            for entry in changes.added() {
                if !entry.parents().is_empty() {
                    continue;
                }
                let height = match entry.origin() {
                    // It came in without the limits that the pool sets to others.
                    Origin::Reorg => continue,
                    Origin::Peer if !changes.reset() => self.estimator.height(),
                    Origin::Peer | Origin::Saved => match arrival.height(entry.first_seen()) {
                        Some(height) => height,
                        None => continue,
                    },
                };
                self.estimator
                    .arrived(entry.txid(), entry.fee(), entry.vsize(), height);
            }
        }
        self.summarize(changes.time());
        Ok(())
    }

    fn query(&self, path: &str, params: &Params) -> Result<Json, QueryError> {
        query::answer(self, path, params)
    }
}

impl FeeEstimator {
    /// Leaves behind for queries what is only in memory.
    fn summarize(&self, time: u64) {
        Summary {
            height: self.estimator.height(),
            time,
            current: self.current,
            waiting: self.estimator.unconfirmed().counts().collect(),
            failures: self.failures.clone(),
        }
        .put();
    }
}

/// Tells how high the chain was when a transaction of the saved pool came, from the times of the last blocks.
struct Arrival {
    tip: u32,
    /// Times of the last blocks, the tip's first; as many as were needed so far.
    times: Vec<u64>,
}

impl Arrival {
    /// No estimate tells apart how long a transaction waits beyond this many blocks, so it is not looked for further back.
    const DEEPEST: usize = 1_008;

    fn new(tip: u32) -> Self {
        Arrival {
            tip,
            times: Vec::new(),
        }
    }

    /// Height of the last block before `first_seen` (unix seconds); none when that is too long ago to tell.
    fn height(&mut self, first_seen: u64) -> Option<u32> {
        for back in 0..=Self::DEEPEST {
            let height = self.tip.checked_sub(back as u32)?;
            let time = match self.times.get(back) {
                Some(time) => *time,
                None => {
                    let time = u64::from(chain::header(height)?.time);
                    self.times.push(time);
                    time
                }
            };
            if time <= first_seen {
                return Some(height);
            }
        }
        None
    }
}

export_plugin!(FeeEstimator);

#[cfg(test)]
mod tests;
