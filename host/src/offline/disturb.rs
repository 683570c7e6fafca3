//! What may happen to a plugin between two blocks, and when it does.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::blocks::BlockList;
use super::maker::Numbers;

/// How often each kind of disturbance comes in a run that is long enough.
const EACH: usize = 8;
/// The deepest reorg.
pub(super) const MAX_DEPTH: usize = 6;
/// The block before which one of each kind comes first, where next to nothing is stored yet.
const EARLY: usize = 2;

/// A disturbance before a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disturbance {
    /// The host ends in order and starts again.
    Restart,
    /// The host is killed and starts again: what was not flushed comes again.
    Crash,
    /// The call with this block fails after so many percent of what it writes, or is given up at its end.
    Cut(Option<u64>),
    /// The call with this block runs out of time after so many percent of the times that it looks at the clock.
    Interrupt(u64),
    /// So many blocks are taken back, others come in their place, and they are taken back too.
    Reorg(usize),
}

impl fmt::Display for Disturbance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Restart => f.write_str("a restart"),
            Self::Crash => f.write_str("a crash"),
            Self::Cut(_) => f.write_str("a call that was cut"),
            Self::Interrupt(_) => f.write_str("a call that was interrupted"),
            Self::Reorg(1) => f.write_str("a reorg of 1 block"),
            Self::Reorg(depth) => write!(f, "a reorg of {depth} blocks"),
        }
    }
}

/// How often a plugin was disturbed, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Disturbances {
    /// The host ended in order and started again.
    pub restarts: u32,
    /// The host was killed and started again.
    pub crashes: u32,
    /// Calls that were given up and made again.
    pub cut_calls: u32,
    /// Those of them that failed in their middle, with a write.
    pub cut_in_the_middle: u32,
    /// Calls that were ended in their middle as if their time were up, and made again.
    pub interrupted_calls: u32,
    /// Branches that came and went.
    pub reorgs: u32,
}

impl fmt::Display for Disturbances {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} restarts, {} crashes, {} cut calls ({} in the middle), {} interrupted calls, {} reorgs",
            self.restarts,
            self.crashes,
            self.cut_calls,
            self.cut_in_the_middle,
            self.interrupted_calls,
            self.reorgs
        )
    }
}

/// The disturbances before each block, by its index: the same for the same blocks, most where most happens in the blocks.
pub(super) fn schedule(list: &BlockList, reorgs: bool) -> BTreeMap<usize, Vec<Disturbance>> {
    let mut until = 0;
    let bytes: Vec<u64> = (0..list.len())
        .map(|index| {
            until += list.size(index) as u64;
            until
        })
        .collect();
    let mut numbers = Numbers(11);
    let mut schedule: BTreeMap<usize, Vec<Disturbance>> = BTreeMap::new();
    for kind in 0..5 {
        for round in 0..=EACH {
            let place = numbers.below(until / EACH as u64) + until / EACH as u64 * round as u64;
            let index = match round {
                EACH => EARLY.min(list.len().saturating_sub(1)),
                _ => bytes.partition_point(|until| *until <= place),
            };
            let depth = 1 + numbers.below(MAX_DEPTH as u64) as usize;
            let disturbance = match kind {
                0 => Disturbance::Restart,
                1 => Disturbance::Crash,
                2 if round % 3 == 2 => Disturbance::Cut(None),
                2 => Disturbance::Cut(Some(numbers.below(100))),
                3 => Disturbance::Interrupt(numbers.below(100)),
                // The first block stays.
                _ if reorgs && index >= 2 => Disturbance::Reorg(depth.min(index - 1)),
                _ => continue,
            };
            let there = schedule.entry(index).or_default();
            // Two of a kind at once are one.
            if index < list.len() && !there.iter().any(|other| same_kind(*other, disturbance)) {
                there.push(disturbance);
            }
        }
    }
    schedule
}

fn same_kind(a: Disturbance, b: Disturbance) -> bool {
    std::mem::discriminant(&a) == std::mem::discriminant(&b)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn each_kind_comes_early_and_where_the_blocks_are_full() {
        let list = BlockList::devnet(40).unwrap();
        let all = schedule(&list, true);
        assert_eq!(all, schedule(&list, true));
        assert!(all.keys().all(|index| *index < list.len()));
        assert_eq!(all[&EARLY].len(), 5);
        let late: Vec<Disturbance> = all.range(100..).flat_map(|(_, all)| all.clone()).collect();
        for kind in [
            Disturbance::Restart,
            Disturbance::Crash,
            Disturbance::Cut(None),
            Disturbance::Interrupt(0),
            Disturbance::Reorg(1),
        ] {
            let count = late.iter().filter(|other| same_kind(**other, kind)).count();
            assert!(count >= 4, "{kind}: {count}");
        }
        let without = schedule(&list, false);
        assert!(
            !without
                .values()
                .flatten()
                .any(|d| matches!(d, Disturbance::Reorg(_)))
        );
    }

    #[test]
    fn a_short_run_is_disturbed_too() {
        let list = BlockList::devnet(0).unwrap();
        assert!(!schedule(&list, true).is_empty());
    }
}
