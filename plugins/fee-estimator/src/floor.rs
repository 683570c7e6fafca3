//! The lowest rate that the pool takes, as far as a plugin can know it: what was evicted last, which is forgotten by half in
//! twelve hours (Core's rolling minimum), and the setting `min_fee_sat_kvb`.

use blockmill_sdk::ValueBytes;
use blockmill_sdk::prelude::*;

const FLOOR: &[u8] = b"F";
const HALF_LIFE: f64 = 12.0 * 3_600.0;

/// The rising part.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Floor {
    /// sat/kvB.
    rate: f64,
    /// Unix seconds.
    since: u64,
}

impl Floor {
    /// The pool was full and dropped a transaction.
    pub fn evicted(&mut self, fee: u64, weight: u32, time: u64) {
        let rate = fee as f64 * 4_000.0 / f64::from(weight.max(1));
        if rate > self.at(time) {
            *self = Floor { rate, since: time };
        }
    }

    /// sat/kvB.
    pub fn at(&self, time: u64) -> f64 {
        self.rate * (-(time.saturating_sub(self.since) as f64) / HALF_LIFE).exp2()
    }

    /// Leaves it for queries.
    pub fn put(&self) {
        let mut bytes = Vec::new();
        (self.rate, self.since).write(&mut bytes);
        volatile::put(FLOOR, &bytes);
    }

    /// What was left.
    pub fn get() -> Self {
        let bytes = volatile::get(FLOOR).unwrap_or_default();
        let found: Option<(f64, u64)> = ValueBytes::read(&mut bytes.as_slice());
        found.map_or_else(Self::default, |(rate, since)| Floor { rate, since })
    }
}
