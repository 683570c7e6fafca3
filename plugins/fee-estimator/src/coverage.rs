//! How much of each block was in the pool before it: whether the pool that is heard is the one that miners have.

use std::collections::VecDeque;

use blockmill_sdk::prelude::*;
use blockmill_sdk::{Single, ValueBytes};

/// Blocks over which the share is taken.
const BLOCKS: usize = 12;

/// What a block keeps of the sums behind the statistics: those of 100 blocks ago count a third.
const DECAY: f64 = 0.99;

/// Where the recent blocks lie in the volatile space.
const RECENT: &[u8] = b"C";

/// Blocks, transactions and those seen before, falling with age: behind what is learnt.
const LEARNT: Single<(f64, f64, f64)> = Single::new(b"C");

/// From when on answers are given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Warmth {
    /// Blocks with transactions that must have been heard.
    pub blocks: u64,
    /// Share of their transactions that must have been in the pool, percent.
    pub percent: u64,
}

/// Transactions of blocks, and how many of them were in the pool before.
#[derive(Debug, Default)]
pub struct Coverage {
    recent: VecDeque<(u32, u32, u32)>,
    learnt: (f64, f64, f64),
    /// Unix seconds of the first word of the pool, by the host's clock.
    pub since: u64,
}

/// What is known of the pool's completeness, and what is missing.
#[derive(Debug, PartialEq)]
pub struct State {
    /// Blocks with transactions that were counted.
    pub blocks: u64,
    /// Share of their transactions that were in the pool before, percent.
    pub percent: Option<f64>,
    /// What is missing until answers are given; none when they are.
    pub missing: Option<String>,
}

impl Warmth {
    fn judge(self, blocks: f64, txs: f64, seen: f64) -> State {
        let percent = (txs > 0.0).then(|| seen * 100.0 / txs);
        let mut missing = Vec::new();
        if blocks < self.blocks as f64 {
            missing.push(format!(
                "{} of {} blocks with transactions were heard",
                blocks as u64, self.blocks
            ));
        }
        if let Some(percent) = percent.filter(|percent| *percent < self.percent as f64) {
            missing.push(format!(
                "{} % of their transactions were in the pool before, {} % are needed",
                percent.round() as u64,
                self.percent
            ));
        }
        State {
            blocks: blocks as u64,
            percent,
            missing: (!missing.is_empty()).then(|| missing.join("; ")),
        }
    }
}

impl Coverage {
    /// With what the state has.
    pub fn load() -> Result<Self, String> {
        Ok(Coverage {
            learnt: LEARNT.get()?.unwrap_or_default(),
            ..Coverage::default()
        })
    }

    /// A block came: so many transactions, so many of them in the pool before.
    pub fn block(&mut self, height: u32, txs: u32, seen: u32) {
        if txs == 0 {
            return;
        }
        self.recent.retain(|(other, ..)| *other < height);
        if self.recent.len() >= BLOCKS {
            self.recent.pop_front();
        }
        self.recent.push_back((height, txs, seen));
        let (blocks, all, before) = self.learnt;
        self.learnt = (
            blocks * DECAY + 1.0,
            all * DECAY + f64::from(txs),
            before * DECAY + f64::from(seen),
        );
    }

    /// Keeps what the statistics rest on.
    pub fn save(&self) {
        LEARNT.put(&self.learnt);
    }

    /// Whether the statistics rest on enough. The decayed count of three blocks is a little less than three.
    pub fn learnt(&self, warmth: Warmth) -> State {
        let (blocks, txs, seen) = self.learnt;
        warmth.judge((blocks + 0.1).round(), txs, seen)
    }

    /// Whether the pool is what miners have.
    pub fn now(&self, warmth: Warmth) -> State {
        let sum = |part: fn(&(u32, u32, u32)) -> u32| {
            self.recent.iter().map(|block| f64::from(part(block))).sum()
        };
        warmth.judge(
            self.recent.len() as f64,
            sum(|block| block.1),
            sum(|block| block.2),
        )
    }

    /// The last block: height, transactions, those seen before.
    pub fn last(&self) -> Option<(u32, u32, u32)> {
        self.recent.back().copied()
    }

    /// Leaves the recent blocks for queries.
    pub fn put(&self) {
        let mut bytes = Vec::new();
        ValueBytes::write(&self.since, &mut bytes);
        for block in &self.recent {
            block.write(&mut bytes);
        }
        volatile::put(RECENT, &bytes);
    }

    /// Reads the recent blocks into one that was loaded.
    pub fn with_recent(mut self) -> Self {
        let bytes = volatile::get(RECENT).unwrap_or_default();
        let mut from = bytes.as_slice();
        self.since = <u64 as ValueBytes>::read(&mut from).unwrap_or_default();
        while let Some(block) = ValueBytes::read(&mut from) {
            self.recent.push_back(block);
        }
        self
    }
}
