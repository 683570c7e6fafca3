//! Which share of each block's transactions the pool held when the block came: what the pool knows of the real one.

use std::collections::VecDeque;

/// Blocks over which the average goes: a day of them.
const BLOCKS: usize = 144;

/// How much of one block, or of several, the pool held before. Coinbases do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Coverage {
    /// Blocks.
    pub blocks: u64,
    /// Their transactions.
    pub txs: u64,
    /// Those that the pool held, or knew while their parents were missing.
    pub seen: u64,
    /// Weight units of all.
    pub weight: u64,
    /// Of those that were seen.
    pub seen_weight: u64,
}

impl Coverage {
    fn add(&mut self, other: Self) {
        self.blocks += other.blocks;
        self.txs += other.txs;
        self.seen += other.seen;
        self.weight += other.weight;
        self.seen_weight += other.seen_weight;
    }

    /// Share of the transactions that were seen; none where there were none.
    pub fn share(&self) -> Option<f64> {
        (self.txs > 0).then(|| self.seen as f64 / self.txs as f64)
    }

    /// Share of their weight.
    pub fn weight_share(&self) -> Option<f64> {
        (self.weight > 0).then(|| self.seen_weight as f64 / self.weight as f64)
    }
}

/// The last blocks.
#[derive(Debug, Default)]
pub(super) struct Coverages {
    blocks: VecDeque<(u32, Coverage)>,
    /// When the pool began to listen, in unix seconds.
    pub(super) since: Option<u64>,
}

impl Coverages {
    pub(super) fn block(&mut self, height: u32, coverage: Coverage) {
        if self.blocks.len() >= BLOCKS {
            self.blocks.pop_front();
        }
        self.blocks.push_back((height, coverage));
    }

    /// Height and coverage of the last block.
    pub(super) fn last(&self) -> Option<(u32, Coverage)> {
        self.blocks.back().copied()
    }

    pub(super) fn sum(&self) -> Coverage {
        let mut sum = Coverage::default();
        for (_, coverage) in &self.blocks {
            sum.add(*coverage);
        }
        sum
    }
}

/// What the pool can say of itself: how long and to how many it has listened, and what it missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Heard {
    /// Since when it listens, in unix seconds.
    pub since: Option<u64>,
    /// Peers that announced or sent something in the last ten minutes.
    pub peers: usize,
    /// Peers that ever did since the start.
    pub peers_ever: u64,
    /// Height and coverage of the last block.
    pub last: Option<(u32, Coverage)>,
    /// Of the last 144 blocks together.
    pub recent: Coverage,
}
