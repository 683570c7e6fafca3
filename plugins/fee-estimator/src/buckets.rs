//! Fee rates fall into buckets, each 5 % wider than the one below.

/// Number of buckets; the last one has no upper bound.
pub const COUNT: usize = 237;

/// Upper bound of the lowest bucket, sat/kvB (Core's `MIN_BUCKET_FEERATE`).
const MIN: f64 = 100.0;

/// No bucket but the last has an upper bound over this, sat/kvB (Core's `MAX_BUCKET_FEERATE`).
const MAX: f64 = 1e7;

/// Each upper bound over the one below (Core's `FEE_SPACING`).
const SPACING: f64 = 1.05;

/// Upper bound of the last bucket (Core's `INF_FEERATE`).
const INFINITE: f64 = 1e99;

/// The upper bounds of the buckets.
#[derive(Debug)]
pub struct Buckets {
    bounds: Vec<f64>,
}

impl Buckets {
    /// The buckets of Bitcoin Core.
    pub fn new() -> Self {
        let mut bounds = Vec::with_capacity(COUNT);
        let mut bound = MIN;
        while bound <= MAX {
            bounds.push(bound);
            bound *= SPACING;
        }
        bounds.push(INFINITE);
        Buckets { bounds }
    }

    /// The bucket of a fee rate in sat/kvB: the first whose upper bound is not below it.
    pub fn of(&self, rate: f64) -> usize {
        self.bounds
            .partition_point(|bound| *bound < rate)
            .min(self.bounds.len() - 1)
    }

    /// Upper bound of a bucket, sat/kvB.
    pub fn upper(&self, bucket: usize) -> f64 {
        self.bounds.get(bucket).copied().unwrap_or(INFINITE)
    }

    /// Lower bound of a bucket, sat/kvB.
    pub fn lower(&self, bucket: usize) -> f64 {
        match bucket.checked_sub(1) {
            Some(below) => self.upper(below),
            None => 0.0,
        }
    }
}

impl Default for Buckets {
    fn default() -> Self {
        Buckets::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_falls_into_the_first_bucket_that_reaches_it() {
        let buckets = Buckets::new();
        assert_eq!(buckets.bounds.len(), COUNT);
        assert_eq!(buckets.of(0.0), 0);
        assert_eq!(buckets.of(100.0), 0);
        assert_eq!(buckets.of(100.1), 1);
        assert_eq!(buckets.of(105.0), 1);
        assert_eq!(buckets.of(1e8), COUNT - 1);
        assert_eq!(buckets.of(f64::MAX), COUNT - 1);
        // 100 * 1.05^235 is the last bound below 1e7.
        assert!(buckets.upper(COUNT - 2) <= 1e7 && buckets.upper(COUNT - 2) * 1.05 > 1e7);
    }
}
