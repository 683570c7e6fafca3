//! The minimum fee rate, which rises when the pool is full and falls again.

/// After a block, the minimum halves in this many seconds (Core's `ROLLING_FEE_HALFLIFE`).
const HALF_LIFE_SECONDS: f64 = 12.0 * 3600.0;

/// The rate is brought up to date after so many seconds (as Core).
const STEP_SECONDS: u64 = 10;

/// Bitcoin Core's rolling minimum.
#[derive(Debug, Default)]
pub(super) struct MinimumFee {
    /// In sat/kvB, as of `since`.
    rate: f64,
    /// When it was last raised or brought up to date, in unix seconds.
    since: u64,
    /// It does not fall before a block made room.
    falls: bool,
}

impl MinimumFee {
    /// The pool dropped something that paid a little less than `rate` sat/kvB.
    pub(super) fn raise(&mut self, rate: f64, now: u64) {
        if rate > self.rate {
            self.rate = rate;
            self.since = now;
            self.falls = false;
        }
    }

    pub(super) fn block_connected(&mut self) {
        self.falls = true;
    }

    /// Brings the rate up to date, so that it is what has become of it that the next one is compared with, and so that what it
    /// fell by in an emptier pool stays fallen.
    pub(super) fn advance(&mut self, now: u64, usage: usize, max_bytes: usize, incremental: f64) {
        if now.saturating_sub(self.since) >= STEP_SECONDS {
            self.rate = self.fallen(now, usage, max_bytes, incremental);
            self.since = now;
        }
    }

    /// The minimum in sat/kvB; 0 once it has fallen below half of the incremental fee.
    pub(super) fn rate(&self, now: u64, usage: usize, max_bytes: usize, incremental: f64) -> f64 {
        let rate = self.fallen(now, usage, max_bytes, incremental);
        if self.falls && rate > 0.0 {
            rate.max(incremental)
        } else {
            rate
        }
    }

    fn fallen(&self, now: u64, usage: usize, max_bytes: usize, incremental: f64) -> f64 {
        if !self.falls || self.rate == 0.0 {
            return self.rate;
        }
        // An emptier pool forgets faster.
        let half_life = if usage < max_bytes / 4 {
            HALF_LIFE_SECONDS / 4.0
        } else if usage < max_bytes / 2 {
            HALF_LIFE_SECONDS / 2.0
        } else {
            HALF_LIFE_SECONDS
        };
        let rate = self.rate * (-(now.saturating_sub(self.since) as f64) / half_life).exp2();
        if rate < incremental / 2.0 { 0.0 } else { rate }
    }
}
