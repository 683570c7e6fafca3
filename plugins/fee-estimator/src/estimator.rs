//! Bitcoin Core's `CBlockPolicyEstimator`: watches how long transactions of each fee rate wait, and answers which rate was
//! enough for a number of blocks.

use crate::buckets::Buckets;
use crate::horizon::{Horizon, LONG, MEDIUM, Range, SHORT};
use crate::unconfirmed::{Unconfirmed, Waiting};

/// Share of transactions that must have confirmed within half the target (Core's `HALF_SUCCESS_PCT`).
const HALF_SUCCESS: f64 = 0.6;
/// Within the target (Core's `SUCCESS_PCT`).
const SUCCESS: f64 = 0.85;
/// Within twice the target (Core's `DOUBLE_SUCCESS_PCT`).
pub const DOUBLE_SUCCESS: f64 = 0.95;

/// The three horizons, the transactions that are waited for, and the chain's height.
#[derive(Debug)]
pub struct Estimator {
    buckets: Buckets,
    /// Forgets within hours.
    pub short: Horizon,
    /// Forgets within days.
    pub medium: Horizon,
    /// Forgets within weeks.
    pub long: Horizon,
    unconfirmed: Unconfirmed,
    /// Height of the last block (Core's `nBestSeenHeight`).
    height: u32,
    /// Height of the first block in which a transaction confirmed that was waited for; 0 before.
    pub first_recorded: u32,
}

/// Which of the questions an answer comes from: the highest of their answers is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// 60 % within half the target.
    Half,
    /// 85 % within the target.
    Full,
    /// 95 % within twice the target.
    Double,
    /// 95 % within twice the target over longer horizons.
    Conservative,
}

impl Basis {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Basis::Half => "60% within half the target",
            Basis::Full => "85% within the target",
            Basis::Double => "95% within twice the target",
            Basis::Conservative => "95% within twice the target, longer horizons",
        }
    }
}

/// One horizon's answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// sat/kvB.
    pub rate: f64,
    /// Name of the horizon.
    pub horizon: &'static str,
    /// The buckets behind it.
    pub range: Range,
}

/// The answer for a target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer {
    /// The target that is answered, blocks: less than the one that was asked for where too few blocks were seen, and 2 for 1.
    pub target: u32,
    /// None where there is too little to tell.
    pub found: Option<(Estimate, Basis)>,
}

impl Estimator {
    /// An estimator that has seen nothing, at a height.
    pub fn new(height: u32) -> Self {
        Estimator {
            buckets: Buckets::new(),
            short: Horizon::new(&SHORT),
            medium: Horizon::new(&MEDIUM),
            long: Horizon::new(&LONG),
            unconfirmed: Unconfirmed::default(),
            height,
            first_recorded: 0,
        }
    }

    /// Height of the last block.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The transactions that are waited for.
    pub fn unconfirmed(&self) -> &Unconfirmed {
        &self.unconfirmed
    }

    /// The same, to be restored or forgotten.
    pub fn unconfirmed_mut(&mut self) -> &mut Unconfirmed {
        &mut self.unconfirmed
    }

    /// A transaction came into the pool when the chain was at `height`. The caller leaves out those with unconfirmed parents,
    /// those that are back after a reorg, and all while the host is not at the tip (Core's `processTransaction`).
    pub fn arrived(&mut self, txid: &[u8; 32], fee: u64, vsize: u32, height: u32) {
        if height > self.height || vsize == 0 {
            return;
        }
        // fee * 1,000 / vsize, in parts that do not overflow: a division of 128 bits is a kilobyte of code.
        let size = u64::from(vsize);
        let rate = (fee / size)
            .saturating_mul(1_000)
            .saturating_add(fee % size * 1_000 / size);
        let bucket = self.buckets.of(rate as f64);
        self.unconfirmed.insert(
            txid,
            Waiting {
                height,
                bucket,
                rate,
            },
        );
    }

    /// A transaction left the pool without being in a block. Answers its bucket and the blocks it waited, if it was waited
    /// for (Core's `removeTx` with `inBlock` false).
    pub fn failed(&mut self, txid: &[u8; 32]) -> Option<(usize, u32)> {
        let waiting = self.unconfirmed.remove(txid)?;
        let blocks = self.height.saturating_sub(waiting.height);
        self.count_failure(waiting.bucket, blocks);
        Some((waiting.bucket, blocks))
    }

    /// Counts a transaction that left after `blocks`.
    pub fn count_failure(&mut self, bucket: usize, blocks: u32) {
        for horizon in [&mut self.short, &mut self.medium, &mut self.long] {
            horizon.fail(self.height, bucket, blocks);
        }
    }

    /// A block came: `txids` are its transactions (Core's `processBlock`). Answers how many of them were waited for.
    pub fn block<'a>(
        &mut self,
        height: u32,
        txids: impl IntoIterator<Item = &'a [u8; 32]>,
    ) -> usize {
        if !self.begin_block(height) {
            return 0;
        }
        self.confirm(txids)
    }

    /// A block comes, in parts perhaps. False for one that was counted before.
    pub fn begin_block(&mut self, height: u32) -> bool {
        let next = height > self.height;
        if next {
            self.height = height;
        }
        next
    }

    /// Transactions of the block that was begun last. Answers how many of them were waited for.
    pub fn confirm<'a>(&mut self, txids: impl IntoIterator<Item = &'a [u8; 32]>) -> usize {
        if self.unconfirmed.is_empty() {
            return 0;
        }
        let height = self.height;
        let mut counted = 0;
        for txid in txids {
            let Some(waiting) = self.unconfirmed.remove(txid) else {
                continue;
            };
            let blocks = height.saturating_sub(waiting.height);
            if blocks == 0 {
                continue;
            }
            for horizon in [&mut self.medium, &mut self.short, &mut self.long] {
                horizon.record(height, waiting.bucket, blocks, waiting.rate as f64);
            }
            counted += 1;
        }
        if self.first_recorded == 0 && counted > 0 {
            self.first_recorded = height;
        }
        counted
    }

    /// Blocks since the first that told something.
    pub fn block_span(&self) -> u32 {
        match self.first_recorded {
            0 => 0,
            first => self.height.saturating_sub(first),
        }
    }

    /// Longest target for which enough blocks were seen: half of them (Core's `MaxUsableEstimate`).
    pub fn max_usable_target(&self) -> u32 {
        LONG.max_confirms().min(self.block_span() / 2)
    }

    /// The rate for a target of 1 to 1,008 blocks. A target of 1 is answered as 2, because a transaction that comes while a
    /// block is being mined is late for it however much it pays; one for which too few blocks were seen as the longest
    /// possible (Core's `estimateSmartFee`).
    pub fn estimate(&self, target: u32, conservative: bool) -> Answer {
        let target = target.max(2).min(self.max_usable_target());
        if target <= 1 {
            return Answer {
                target,
                found: None,
            };
        }
        let mut found: Option<(Estimate, Basis)> = None;
        let mut higher = |estimate: Option<Estimate>, basis| {
            if let Some(estimate) = estimate
                && found.is_none_or(|(found, _)| estimate.rate > found.rate)
            {
                found = Some((estimate, basis));
            }
            found.is_some()
        };
        higher(self.combined(target / 2, HALF_SUCCESS, true), Basis::Half);
        higher(self.combined(target, SUCCESS, true), Basis::Full);
        // Where the highest of all horizons is taken anyway, a lower one of a shorter horizon is not looked for.
        let any = higher(
            self.combined(2 * target, DOUBLE_SUCCESS, !conservative),
            Basis::Double,
        );
        if conservative || !any {
            higher(self.conservative(2 * target), Basis::Conservative);
        }
        Answer { target, found }
    }

    /// One horizon's own answer (what Core's `estimateRawFee` looks up).
    pub fn on(&self, horizon: &Horizon, target: u32, success: f64) -> Option<Estimate> {
        let (rate, range) = horizon.estimate(
            &self.buckets,
            &self.unconfirmed,
            target,
            success,
            self.height,
        )?;
        Some(Estimate {
            rate,
            horizon: horizon.shape().name,
            range,
        })
    }

    /// The shortest horizon that reaches the target; optionally the lowest of it and of the longest targets of the shorter
    /// ones (Core's `estimateCombinedFee`).
    fn combined(&self, target: u32, success: f64, check_shorter: bool) -> Option<Estimate> {
        let (short_max, medium_max) = (SHORT.max_confirms(), MEDIUM.max_confirms());
        if !(1..=LONG.max_confirms()).contains(&target) {
            return None;
        }
        let horizon = match target {
            target if target <= short_max => &self.short,
            target if target <= medium_max => &self.medium,
            _ => &self.long,
        };
        let mut estimate = self.on(horizon, target, success);
        if check_shorter {
            let mut lower = |other: Option<Estimate>| {
                if let Some(other) = other
                    && other.rate > 0.0
                    && estimate.is_none_or(|estimate| other.rate < estimate.rate)
                {
                    estimate = Some(other);
                }
            };
            if target > medium_max {
                lower(self.on(&self.medium, medium_max, success));
            }
            if target > short_max {
                lower(self.on(&self.short, short_max, success));
            }
        }
        estimate
    }

    /// The highest of the longer horizons at twice the target (Core's `estimateConservativeFee`).
    fn conservative(&self, double_target: u32) -> Option<Estimate> {
        let mut estimate = None;
        if double_target <= SHORT.max_confirms() {
            estimate = self.on(&self.medium, double_target, DOUBLE_SUCCESS);
        }
        if double_target <= MEDIUM.max_confirms() {
            let long = self.on(&self.long, double_target, DOUBLE_SUCCESS);
            if let Some(long) = long
                && estimate.is_none_or(|estimate| long.rate > estimate.rate)
            {
                estimate = Some(long);
            }
        }
        estimate
    }
}

#[cfg(test)]
mod tests;
