#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
//! The chains and the values of `retargeting_test` and `cash_difficulty_test`, Bitcoin SV's own tests of these rules.
use super::*;
use crate::chain::header_rules::next_bits as rules;
use crate::network::Network;

/// A branch from height 0: times and bits, and the work up to each block.
#[derive(Default)]
struct Made {
    blocks: Vec<(u32, u32, Work)>,
}

impl Made {
    fn push(&mut self, interval: i64, bits: u32) {
        let step = Target::from_compact(CompactTarget::from_consensus(bits)).to_work();
        let next = match self.blocks.last() {
            Some((time, _, work)) => (
                u32::try_from(i64::from(*time) + interval).unwrap(),
                bits,
                *work + step,
            ),
            None => (1_269_211_443, bits, step),
        };
        self.blocks.push(next);
    }
}

impl Ancestry for Made {
    fn parent_height(&self) -> u32 {
        self.blocks.len() as u32 - 1
    }
    fn bits_at(&self, height: u32) -> u32 {
        self.blocks[height as usize].1
    }
    fn time_at(&self, height: u32) -> u32 {
        self.blocks[height as usize].0
    }
    fn last_real_bits(&self, _: u32) -> u32 {
        unreachable!("not on this chain")
    }
    fn median_time_past(&self) -> u32 {
        self.median_time_at(self.parent_height())
    }
    fn median_time_at(&self, height: u32) -> u32 {
        let height = height as usize;
        let mut times: Vec<_> = self.blocks[(height + 1).saturating_sub(11)..=height]
            .iter()
            .map(|block| block.0)
            .collect();
        times.sort_unstable();
        times[times.len() / 2]
    }
    fn work_at(&self, height: u32) -> Work {
        self.blocks[height as usize].2
    }
}

fn params(daa_height: u32) -> Params {
    Params {
        uahf_height: Some(0),
        daa_height: Some(daa_height),
        ..Network::Mainnet.params().clone()
    }
}

fn quarter_easier(bits: u32) -> u32 {
    let target = Target::from_compact(CompactTarget::from_consensus(bits));
    add(target, scale(target, 1, 4))
        .to_compact_lossy()
        .to_consensus()
}

#[test]
fn six_blocks_in_twelve_hours_make_the_next_one_easier() {
    let params = params(u32::MAX);
    let limit = params.pow_limit_bits;
    // Half of the limit.
    let initial = 0x1c7f_ffff;
    let mut chain = Made::default();
    chain.push(0, initial);
    for _ in 1..100 {
        chain.push(600, initial);
    }
    for _ in 100..110 {
        chain.push(7_200, initial);
        assert_eq!(rules(&params, 0, &chain), initial);
    }
    let mut bits = initial;
    for _ in 0..3 {
        chain.push(7_200, bits);
        let easier = quarter_easier(bits);
        assert_eq!(rules(&params, 0, &chain), easier);
        bits = easier;
    }
    assert_ne!(quarter_easier(bits), limit);
    for _ in 0..2 {
        chain.push(7_200, bits);
        assert_eq!(rules(&params, 0, &chain), limit);
        bits = limit;
    }
    // Before the fork the same blocks change nothing.
    let before = Params {
        uahf_height: None,
        ..params
    };
    chain.blocks.truncate(111);
    assert_eq!(rules(&before, 0, &chain), initial);
}

#[test]
fn the_target_follows_144_blocks() {
    let params = params(2_049);
    let limit = params.pow_limit_bits;
    // A sixteenth of the limit.
    let initial = 0x1c0f_ffff;
    let mut chain = Made::default();
    chain.push(0, initial);
    for _ in 1..2_050 {
        chain.push(600, initial);
    }
    let mut bits = rules(&params, 0, &chain);
    let mut step = |interval: i64, bits: u32| {
        chain.push(interval, bits);
        rules(&params, 0, &chain)
    };
    for _ in 0..10 {
        assert_eq!(step(600, bits), bits);
    }
    // A block far in the future, and then one with the expected time.
    assert_eq!(step(6_000, bits), bits);
    assert_eq!(step(2 * 600 - 6_000, bits), bits);
    for _ in 0..20 {
        assert_eq!(step(600, bits), bits);
    }
    assert_eq!(step(550, bits), bits);
    for (interval, count, end) in [
        (550, 10, 0x1c0f_e7b1),
        (10, 20, 0x1c0d_b19f),
        (6_000, 1, 0x1c0d_9222),
        (6_000, 93, 0x1c2f_13b9),
        (6_000, 1, 0x1c2e_e9bf),
        (6_000, 192, 0x1d00_ffff),
        (6_000, 5, limit),
    ] {
        for _ in 0..count {
            bits = step(interval, bits);
        }
        assert_eq!(bits, end, "{count} blocks of {interval} s");
    }
}

#[test]
fn test_networks_may_have_the_easiest_target_after_twenty_minutes() {
    let params = Params {
        allow_min_difficulty: true,
        ..params(2_049)
    };
    let mut chain = Made::default();
    for _ in 0..2_100 {
        chain.push(600, 0x1c0f_ffff);
    }
    let last = chain.blocks.last().unwrap().0;
    assert_eq!(rules(&params, last + 1_200, &chain), 0x1c0f_ffff);
    assert_eq!(rules(&params, last + 1_201, &chain), params.pow_limit_bits);
}

#[test]
fn of_three_blocks_the_one_with_the_middle_time_counts() {
    for (times, chosen) in [
        ([1u32, 2, 3], 1),
        ([3, 2, 1], 1),
        ([2, 1, 3], 0),
        ([1, 3, 2], 2),
        ([3, 1, 2], 2),
        ([2, 3, 1], 0),
    ] {
        let chain = Made {
            blocks: times
                .iter()
                .map(|time| (*time, 0, Target::MAX.to_work()))
                .collect(),
        };
        assert_eq!(suitable(&chain, 2), chosen, "{times:?}");
    }
}
