//! The lowest rate that the pool takes, as far as a plugin can know it: what was evicted last, which is forgotten by half in
//! twelve hours (Core's rolling minimum), and the setting `min_fee_sat_kvb`.

use blockmill_sdk::ValueBytes;
use blockmill_sdk::prelude::*;

const FLOOR: &[u8] = b"F";
/// Seconds.
const HALF_LIFE: u64 = 12 * 3_600;

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
    pub fn evicted(&mut self, fee: u64, weight: u64, time: u64) {
        let rate = fee as f64 * 4_000.0 / weight.max(1) as f64;
        if rate > self.at(time) {
            *self = Floor { rate, since: time };
        }
    }

    /// sat/kvB.
    pub fn at(&self, time: u64) -> f64 {
        self.rate * left(time.saturating_sub(self.since))
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

/// The part that is left after so many seconds. `f64::exp2` would be exact to the last bit, and is 4.6 kB of code and tables.
fn left(seconds: u64) -> f64 {
    let halvings = seconds / HALF_LIFE;
    if halvings >= 63 {
        return 0.0;
    }
    let rest = (seconds % HALF_LIFE) as f64 / HALF_LIFE as f64;
    let x = -rest * std::f64::consts::LN_2;
    // The series of e^x, from its small end: of -LN_2 and above, what follows is below 1e-17.
    let fraction = (1..=17)
        .rev()
        .fold(1.0, |sum, n| 1.0 + x / f64::from(n) * sum);
    fraction / (1u64 << halvings) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_is_left_after_twelve_hours_and_in_between_as_much_as_there_should_be() {
        assert_eq!(left(0), 1.0);
        assert_eq!(left(HALF_LIFE), 0.5);
        assert_eq!(left(10 * HALF_LIFE), 1.0 / 1_024.0);
        assert_eq!(left(u64::MAX), 0.0);
        for seconds in (0..40 * HALF_LIFE).step_by(997) {
            let exact = (-(seconds as f64) / HALF_LIFE as f64).exp2();
            assert!((left(seconds) / exact - 1.0).abs() < 1e-14, "{seconds}");
        }
    }
}
