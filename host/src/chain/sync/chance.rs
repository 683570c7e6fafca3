//! Chance, from a secret that is handed in: the same choices from the same secret, and none that a peer can foresee.

use std::time::Duration;

use bitcoin::hashes::siphash24;

/// A source of numbers.
#[derive(Clone, Debug)]
pub struct Chance {
    secret: u64,
    drawn: u64,
}

impl Chance {
    /// A source of its own for each `use_of_it`.
    pub fn new(secret: u64, use_of_it: &[u8]) -> Chance {
        Chance {
            secret: siphash24::Hash::hash_to_u64_with_keys(secret, 0x626c_6f63, use_of_it),
            drawn: 0,
        }
    }

    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.drawn = self.drawn.wrapping_add(1);
        siphash24::Hash::hash_to_u64_with_keys(self.secret, self.drawn, b"chance")
    }

    /// A number below `end`; 0 where there is none.
    pub fn below(&mut self, end: usize) -> usize {
        let end = end.max(1) as u64;
        usize::try_from(self.next() % end).unwrap_or(0)
    }

    /// Whether something of this probability happens.
    pub fn happens(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// The time until the next event of those that come at this mean distance, whenever the last was.
    pub fn wait(&mut self, mean: Duration) -> Duration {
        let waits = -(1.0 - self.unit()).ln();
        // One in three million waits longer.
        mean.mul_f64(waits.clamp(0.0, 15.0))
    }

    /// From 0 to below 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_is_fair_enough_and_repeats_from_the_same_secret() {
        let mut chance = Chance::new(1, b"test");
        let (mut counts, mut waited) = ([0_u32; 8], Duration::ZERO);
        for _ in 0..8_000 {
            if let Some(count) = counts.get_mut(chance.below(8)) {
                *count += 1;
            }
            waited += chance.wait(Duration::from_secs(1));
        }
        assert!(
            counts.iter().all(|count| (850..1_150).contains(count)),
            "{counts:?}"
        );
        assert!((7_500..8_500).contains(&waited.as_secs()), "{waited:?}");
        let (mut one, mut two) = (Chance::new(7, b"a"), Chance::new(7, b"a"));
        assert!((0..9).all(|_| one.next() == two.next()));
        assert_ne!(Chance::new(7, b"b").next(), Chance::new(7, b"a").next());
    }
}
