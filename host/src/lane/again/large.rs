//! What is known of pruned blocks that are too large to be held.

use super::super::active_chain::Position;
use super::{Again, Inner, WINDOW};
use bitcoin::BlockHash;
use std::time::{Duration, Instant};

/// Bytes of large blocks that may lie there for lanes that are not at them yet.
const LYING: u64 = 4 << 30;
/// How long a block that could not be written is not asked for.
const PAUSE: Duration = Duration::from_secs(10);

/// Why one is not asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Refused {
    /// It could not be written, then.
    NotKept(Instant),
    /// It never can be taken with the host as it is set up.
    Untakable,
}

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct LargeBlock {
    hash: BlockHash,
    length: u64,
    refused: Option<Refused>,
}

impl Again {
    /// A block of so many bytes comes, or has come: it is known from now on.
    pub(in super::super) fn know_large(&self, position: Position, length: u64) {
        let known = LargeBlock {
            hash: position.hash,
            length,
            refused: None,
        };
        self.lock().large.insert(position.height, known);
    }

    /// Whether it is to be written, with so many bytes lying there: it is a lane's next one, or there is room for more.
    pub(in super::super) fn admits(&self, height: u32, length: u64, lying: u64) -> bool {
        self.lock().has_place(height, length, lying)
    }

    /// It is not asked for, at least for a while.
    pub(in super::super) fn refuse(&self, height: u32, why: Refused) {
        if let Some(large) = self.lock().large.get_mut(&height) {
            large.refused = Some(why);
        }
    }

    /// Why the block of a lane is not asked for.
    pub(in super::super) fn refused(&self, position: Position) -> Option<Refused> {
        let inner = self.lock();
        let large = inner.large.get(&position.height)?;
        large.refused.filter(|_| large.hash == position.hash)
    }

    /// The blocks that are not to be asked for, with so many bytes lying there. `room` says whether the disk takes so many.
    pub(in super::super) fn large_not_now(
        &self,
        lying: u64,
        room: impl Fn(u64) -> bool,
    ) -> Vec<BlockHash> {
        let inner = self.lock();
        let not_now = inner.large.iter().filter(|(height, large)| {
            let refused = match large.refused {
                None => false,
                Some(Refused::NotKept(at)) => at.elapsed() < PAUSE || !room(large.length),
                Some(Refused::Untakable) => true,
            };
            refused || !inner.has_place(**height, large.length, lying)
        });
        not_now.map(|(_, large)| large.hash).collect()
    }

    /// Those that no lane needs any more; they are forgotten.
    pub(in super::super) fn take_passed_large(&self) -> Vec<Position> {
        let mut inner = self.lock();
        inner.forget_passed();
        let Inner { large, needs, .. } = &mut *inner;
        let mut passed = Vec::new();
        large.retain(|&height, large| {
            let needed = needs
                .values()
                .any(|need| (need.height..need.height.saturating_add(WINDOW)).contains(&height));
            if !needed {
                let hash = large.hash;
                passed.push(Position { height, hash });
            }
            needed
        });
        passed
    }
}

impl Inner {
    fn has_place(&self, height: u32, length: u64, lying: u64) -> bool {
        let next = self.needs.values().any(|need| need.height == height);
        next || lying.saturating_add(length) <= LYING
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;
    use bitcoin::hashes::Hash as _;

    fn at(height: u32) -> Position {
        Position {
            height,
            hash: BlockHash::from_byte_array([height as u8; 32]),
        }
    }

    #[test]
    fn large_blocks_lie_there_up_to_a_bound_and_for_a_lane_that_is_at_them() {
        let again = Again::new(1 << 20);
        assert!(again.need("one", at(5)).is_none());
        for height in [5, 6, 7] {
            again.know_large(at(height), 3 << 30);
        }
        assert!(again.admits(6, 3 << 30, 1 << 30));
        assert!(!again.admits(6, 3 << 30, (1 << 30) + 1));
        assert!(again.admits(5, 3 << 30, 100 << 30), "the lane is at it");
        // What has no place is not asked for, until others are gone past.
        let not_now = |lying| again.large_not_now(lying, |_| true);
        assert_eq!(not_now(3 << 30), [at(6).hash, at(7).hash]);
        assert!(not_now(0).is_empty());
        // The lane goes on: what it has gone past is to be removed, once.
        assert!(again.need("one", at(7)).is_none());
        assert_eq!(again.take_passed_large(), [at(5), at(6)]);
        assert!(again.take_passed_large().is_empty());
        again.goes_on("one", 8);
        assert_eq!(again.take_passed_large(), [at(7)]);
    }

    #[test]
    fn one_that_cannot_be_written_waits_for_room_and_one_that_cannot_be_taken_for_ever() {
        let again = Again::new(1 << 20);
        again.need("one", at(5));
        again.know_large(at(5), 10);
        assert_eq!(again.refused(at(5)), None);
        let before = Instant::now().checked_sub(PAUSE);
        let before = before.expect("the machine runs for ten seconds");
        again.refuse(5, Refused::NotKept(Instant::now()));
        assert_eq!(again.large_not_now(0, |_| true), [at(5).hash]);
        again.refuse(5, Refused::NotKept(before));
        assert!(again.large_not_now(0, |bytes| bytes == 10).is_empty());
        assert_eq!(again.large_not_now(0, |bytes| bytes != 10), [at(5).hash]);
        let other = Position {
            hash: at(6).hash,
            ..at(5)
        };
        assert!(again.refused(at(5)).is_some() && again.refused(other).is_none());
        again.refuse(5, Refused::Untakable);
        assert_eq!(again.large_not_now(0, |_| true), [at(5).hash]);
        assert_eq!(again.refused(at(5)), Some(Refused::Untakable));
    }
}
