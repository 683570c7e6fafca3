//! The next blocks as a miner would fill them from the pool: greedy by ancestor score, as mempool.space projects them.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Blocks projected.
pub const BLOCKS: usize = 8;

/// What a block has room for: 4,000,000 weight units and signature operations that cost 80,000, of which mempool.space keeps 4,000
/// and 400 back for the header and the coinbase.
pub const ROOM: Room = Room {
    weight: 4_000_000 - RESERVED_WEIGHT,
    sigops: 80_000 - 400,
};

/// Weight units.
const RESERVED_WEIGHT: u64 = 4_000;

/// Weight units that a signature operation counts for at least (Core's `-bytespersigop` of 20 by default).
const WEIGHT_PER_SIGOP: u64 = 20;

/// What fits into a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Weight units.
    pub weight: u64,
    /// What signature operations cost, as consensus counts them.
    pub sigops: u64,
}

/// A block that is nearly full is closed when so many packages did not fit.
const MAX_FAILURES: usize = 1_000;

/// A transaction of the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tx {
    /// sat.
    pub fee: u64,
    /// Weight units.
    pub weight: u32,
    /// What its signature operations cost.
    pub sigops: u32,
    /// Places of the transactions it depends on directly; never its own.
    pub parents: Vec<u32>,
}

impl Tx {
    fn sums(&self) -> Sums {
        Sums {
            fee: self.fee,
            size: size(self.weight, self.sigops),
            sigops: u64::from(self.sigops),
        }
    }
}

/// Weight units by which a transaction is measured: more than it has, where its signature operations are many. Core and
/// mempool.space take this for its rate and for the room that it takes.
pub fn size(weight: u32, sigops: u32) -> u64 {
    u64::from(weight).max(u64::from(sigops) * WEIGHT_PER_SIGOP)
}

/// What transactions are together: sat, weight units of [`size`], signature operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    fee: u64,
    size: u64,
    sigops: u64,
}

impl Sums {
    fn and(self, more: Sums) -> Sums {
        Sums {
            fee: self.fee.saturating_add(more.fee),
            size: self.size + more.size,
            sigops: self.sigops + more.sigops,
        }
    }

    fn without(self, less: Sums) -> Sums {
        Sums {
            fee: self.fee.saturating_sub(less.fee),
            size: self.size.saturating_sub(less.size),
            sigops: self.sigops.saturating_sub(less.sigops),
        }
    }
}

/// A projected block.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Block {
    /// Places of its transactions in the order in which they go in, each with its effective rate in sat/vB: that of the
    /// package with which it goes in.
    pub txs: Vec<(u32, f64)>,
    /// Their weight units.
    pub weight: u64,
    /// Of those that they are measured by: never fewer.
    pub size: u64,
    /// What their signature operations cost.
    pub sigops: u64,
    /// Their fees, sat.
    pub fees: u64,
}

impl Block {
    /// The effective rates, lowest first.
    pub fn rates(&self) -> Vec<f64> {
        let mut rates: Vec<f64> = self.txs.iter().map(|(_, rate)| *rate).collect();
        blockmill_sdk::sort::by(&mut rates, |a, b| a.total_cmp(b));
        rates
    }

    /// Virtual bytes.
    pub fn vsize(&self) -> f64 {
        self.weight as f64 / 4.0
    }
}

/// The middle of sorted rates: of an even number the mean of the two in the middle. 0 for none.
pub fn median(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    let at = |place: usize| sorted.get(place).copied().unwrap_or(0.0);
    if sorted.is_empty() {
        0.0
    } else if sorted.len() % 2 == 1 {
        at(half)
    } else {
        (at(half - 1) + at(half)) / 2.0
    }
}

/// A package in the queue: what is left of a transaction and its ancestors when it was put there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Package {
    sums: Sums,
    place: u32,
}

impl Ord for Package {
    /// The better rate, and of equals the one that came first.
    fn cmp(&self, other: &Self) -> Ordering {
        let mine = u128::from(self.sums.fee) * u128::from(other.sums.size.max(1));
        let others = u128::from(other.sums.fee) * u128::from(self.sums.size.max(1));
        mine.cmp(&others).then(other.place.cmp(&self.place))
    }
}

impl PartialOrd for Package {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Fills up to `blocks` blocks. Answers also how many transactions are left over.
pub fn project(txs: &[Tx], blocks: usize, room: Room) -> (Vec<Block>, usize) {
    let ancestors = ancestors(txs);
    let mut children: Vec<Vec<u32>> = vec![Vec::new(); txs.len()];
    // Descendants, where there are any.
    for (place, above) in ancestors.iter().enumerate() {
        for ancestor in above {
            if let Some(below) = children.get_mut(*ancestor as usize) {
                below.push(place as u32);
            }
        }
    }
    let part = |place: u32| {
        let tx = txs.get(place as usize);
        tx.map_or_else(Sums::default, Tx::sums)
    };
    // What is left of each package; none once it is in a block.
    let mut left: Vec<Option<Sums>> = ancestors
        .iter()
        .enumerate()
        .map(|(place, above)| {
            let own = part(place as u32);
            let sums = above
                .iter()
                .fold(own, |sum, ancestor| sum.and(part(*ancestor)));
            Some(sums)
        })
        .collect();
    let package = |place: u32, left: &[Option<Sums>]| {
        let sums = left.get(place as usize).copied().flatten()?;
        Some(Package { sums, place })
    };
    let mut queue: BinaryHeap<Package> = (0..txs.len() as u32)
        .filter_map(|place| package(place, &left))
        .collect();
    let mut made: Vec<Block> = Vec::new();
    let mut waiting = txs.len();
    while made.len() < blocks && waiting > 0 {
        let mut block = Block::default();
        let mut overflow = Vec::new();
        while let Some(best) = queue.pop() {
            // Out of date, or in a block already.
            if package(best.place, &left) != Some(best) {
                continue;
            }
            if block.size + best.sums.size > room.weight
                || block.sigops + best.sums.sigops > room.sigops
            {
                overflow.push(best);
                if overflow.len() > MAX_FAILURES && block.size + RESERVED_WEIGHT > room.weight {
                    break;
                }
                continue;
            }
            let rate = best.sums.fee as f64 * 4.0 / best.sums.size.max(1) as f64;
            let above = ancestors.get(best.place as usize).into_iter().flatten();
            let taken: Vec<u32> = above
                .copied()
                .chain([best.place])
                .filter(|place| left.get(*place as usize).is_some_and(Option::is_some))
                .collect();
            for place in &taken {
                let own = part(*place);
                block.txs.push((*place, rate));
                block.weight += txs
                    .get(*place as usize)
                    .map_or(0, |tx| u64::from(tx.weight));
                block.size += own.size;
                block.sigops += own.sigops;
                block.fees = block.fees.saturating_add(own.fee);
                if let Some(left) = left.get_mut(*place as usize) {
                    *left = None;
                }
                waiting -= 1;
            }
            for place in &taken {
                let own = part(*place);
                for below in children.get(*place as usize).into_iter().flatten() {
                    if let Some(Some(sum)) = left.get_mut(*below as usize) {
                        *sum = sum.without(own);
                        queue.extend(package(*below, &left));
                    }
                }
            }
        }
        queue.extend(overflow);
        if block.txs.is_empty() {
            // Nothing that is left fits into an empty block.
            break;
        }
        made.push(block);
    }
    (made, waiting)
}

/// For each transaction what it depends on, directly or not, each before what depends on it.
fn ancestors(txs: &[Tx]) -> Vec<Vec<u32>> {
    let mut found: Vec<Option<Vec<u32>>> = vec![None; txs.len()];
    // Those whose parents are being looked at.
    let mut open = vec![false; txs.len()];
    for start in 0..txs.len() as u32 {
        let mut ahead = vec![(start, false)];
        while let Some((place, ready)) = ahead.pop() {
            let (Some(tx), Some(slot)) = (txs.get(place as usize), found.get(place as usize))
            else {
                continue;
            };
            if slot.is_some() {
                continue;
            }
            if !ready && !tx.parents.is_empty() {
                let Some(open) = open.get_mut(place as usize).filter(|open| !**open) else {
                    // Only a circle comes here, which no pool holds.
                    continue;
                };
                *open = true;
                ahead.push((place, true));
                ahead.extend(tx.parents.iter().map(|parent| (*parent, false)));
                continue;
            }
            let mut above: Vec<u32> = Vec::new();
            for parent in &tx.parents {
                let grand = found.get(*parent as usize).and_then(Option::as_ref);
                for ancestor in grand.into_iter().flatten().chain([parent]) {
                    if !above.contains(ancestor) {
                        above.push(*ancestor);
                    }
                }
            }
            if let Some(slot) = found.get_mut(place as usize) {
                *slot = Some(above);
            }
        }
    }
    found.into_iter().map(Option::unwrap_or_default).collect()
}

/// Rates for people in a hurry and people who wait, sat/vB.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recommended {
    /// For the next block.
    pub fastest: f64,
    /// For one of the next three.
    pub half_hour: f64,
    /// For one of the next six.
    pub hour: f64,
    /// Some time, if the pool empties.
    pub economy: f64,
    /// What the pool takes at all.
    pub minimum: f64,
}

/// As mempool.space recommends: medians of the first three blocks, each mixed with the one before it, and less where a
/// block is not full (its `fee-api.ts`). `minimum` is the pool's own floor, `default` what is paid where there is room for all,
/// sat/vB.
pub fn recommend(blocks: &[Block], minimum: f64, default: f64) -> Recommended {
    let minimum = minimum.ceil();
    let default_minimum = minimum.max(default);
    if blocks.is_empty() {
        return Recommended {
            fastest: default_minimum,
            half_hour: default_minimum,
            hour: default_minimum,
            economy: minimum,
            minimum,
        };
    }
    let rate = |place: usize, previous: Option<f64>| {
        let Some(block) = blocks.get(place) else {
            return default;
        };
        let median = median(&block.rates());
        let used = previous.map_or(median, |previous| (median + previous) / 2.0);
        let vsize = block.vsize();
        if vsize <= 500_000.0 {
            default
        } else if vsize <= 950_000.0 && blocks.get(place + 1).is_none() {
            (used * (vsize - 500_000.0) / 500_000.0)
                .round()
                .max(default)
        } else {
            used.ceil()
        }
    };
    let first = rate(0, None);
    let second = rate(1, Some(first));
    let third = rate(2, Some(second));
    let (fastest, half_hour, hour) = (first.max(minimum), second.max(minimum), third.max(minimum));
    let economy = minimum.max(third.min(2.0 * minimum));
    // Who is in more of a hurry never pays less.
    Recommended {
        fastest: fastest.max(half_hour).max(hour).max(economy),
        half_hour: half_hour.max(hour).max(economy),
        hour: hour.max(economy),
        economy,
        minimum,
    }
}

#[cfg(test)]
mod tests;
