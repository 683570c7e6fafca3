//! What a miner earns with the first so many bytes: the fee rate diagram by which Core compares pools since its version 31.
//!
//! Transactions are put in order by the best ancestor package first, and joined to chunks of falling fee rate. Core
//! searches for the best order of all; this one is as good for clusters of a few, and what it misses in others can only
//! refuse or allow a replacement that Core would judge by a hair's breadth otherwise.

use std::cmp::Ordering;

/// A transaction of the clusters compared.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// In sat.
    pub(super) fee: u64,
    /// In virtual bytes.
    pub(super) size: u64,
    /// Places of those it depends on.
    pub(super) parents: Vec<usize>,
}

/// Fee in sat and size in virtual bytes of transactions that go into a block together.
type Chunk = (u64, u64);

fn by_rate(a: Chunk, b: Chunk) -> Ordering {
    (u128::from(a.0) * u128::from(b.1)).cmp(&(u128::from(b.0) * u128::from(a.1)))
}

/// Each place with all that it depends on, itself included, sorted.
fn ancestors(parts: &[Part]) -> Vec<Vec<usize>> {
    (0..parts.len())
        .map(|place| {
            let mut found = std::collections::BTreeSet::new();
            let mut ahead = vec![place];
            while let Some(next) = ahead.pop() {
                if found.insert(next)
                    && let Some(part) = parts.get(next)
                {
                    ahead.extend_from_slice(&part.parents);
                }
            }
            found.into_iter().collect()
        })
        .collect()
}

/// The chunks, the best rate first.
fn chunks(parts: &[Part]) -> Vec<Chunk> {
    let ancestors = ancestors(parts);
    let mut done = vec![false; parts.len()];
    let mut packages: Vec<Option<Chunk>> = vec![None; parts.len()];
    // Who must be summed up again once a part is taken.
    let mut descendants: Vec<Vec<usize>> = vec![Vec::new(); parts.len()];
    for (place, above) in ancestors.iter().enumerate() {
        for ancestor in above {
            if let Some(below) = descendants.get_mut(*ancestor) {
                below.push(place);
            }
        }
    }
    let sum = |place: usize, done: &[bool]| -> Chunk {
        let above = ancestors.get(place).into_iter().flatten();
        above
            .filter(|ancestor| done.get(**ancestor) == Some(&false))
            .filter_map(|ancestor| parts.get(*ancestor))
            .fold((0, 0), |sum, part| (sum.0 + part.fee, sum.1 + part.size))
    };
    for (place, package) in packages.iter_mut().enumerate() {
        *package = Some(sum(place, &done));
    }
    let mut chunks: Vec<Chunk> = Vec::new();
    loop {
        let best = packages
            .iter()
            .enumerate()
            .filter_map(|(place, package)| package.map(|package| (place, package)))
            .max_by(|(_, a), (_, b)| by_rate(*a, *b).then(b.1.cmp(&a.1)));
        let Some((best, package)) = best else {
            break;
        };
        let taken: Vec<usize> = ancestors
            .get(best)
            .into_iter()
            .flatten()
            .copied()
            .filter(|place| done.get(*place) == Some(&false))
            .collect();
        for place in &taken {
            if let (Some(done), Some(package)) = (done.get_mut(*place), packages.get_mut(*place)) {
                *done = true;
                *package = None;
            }
        }
        let mut changed: Vec<usize> = taken
            .iter()
            .filter_map(|place| descendants.get(*place))
            .flatten()
            .copied()
            .collect();
        changed.sort_unstable();
        changed.dedup();
        for place in changed {
            if done.get(place) == Some(&false)
                && let Some(package) = packages.get_mut(place)
            {
                *package = Some(sum(place, &done));
            }
        }
        let mut chunk = package;
        while let Some(last) = chunks.last().copied()
            && by_rate(chunk, last) == Ordering::Greater
        {
            chunks.pop();
            chunk = (chunk.0 + last.0, chunk.1 + last.1);
        }
        chunks.push(chunk);
    }
    chunks
}

/// The corners of the diagram: size and fee of the first so many chunks.
fn corners(chunks: &[Chunk]) -> Vec<(u64, u64)> {
    let mut at = (0, 0);
    let mut corners = vec![at];
    for (fee, size) in chunks {
        at = (at.0 + size, at.1 + fee);
        corners.push(at);
    }
    corners
}

/// Compares a corner with the height of a diagram at its size; behind its end the diagram is flat.
fn against(corner: (u64, u64), diagram: &[(u64, u64)]) -> Ordering {
    let (size, fee) = corner;
    let next = diagram.partition_point(|(at, _)| *at < size);
    let Some(&(right, top)) = diagram.get(next) else {
        let end = diagram.last().map_or(0, |(_, fee)| *fee);
        return fee.cmp(&end);
    };
    let Some(&(left, bottom)) = next.checked_sub(1).and_then(|place| diagram.get(place)) else {
        return fee.cmp(&top);
    };
    let (width, along) = (u128::from(right - left), u128::from(size - left));
    let height = u128::from(bottom) * width + u128::from(top - bottom) * along;
    (u128::from(fee) * width).cmp(&height)
}

/// Whether `new` is above `old` at some size and below it at none.
pub(super) fn improves(new: &[Part], old: &[Part]) -> bool {
    let (new, old) = (corners(&chunks(new)), corners(&chunks(old)));
    let mut above = false;
    for corner in &new {
        match against(*corner, &old) {
            Ordering::Less => return false,
            order => above |= order == Ordering::Greater,
        }
    }
    for corner in &old {
        match against(*corner, &new) {
            Ordering::Greater => return false,
            order => above |= order == Ordering::Less,
        }
    }
    above
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(fee: u64, size: u64, parents: &[usize]) -> Part {
        Part {
            fee,
            size,
            parents: parents.to_vec(),
        }
    }

    #[test]
    fn a_child_that_pays_makes_one_chunk_with_its_parent() {
        let parts = [part(0, 100, &[]), part(900, 100, &[0]), part(300, 100, &[])];
        assert_eq!(chunks(&parts), [(900, 200), (300, 100)]);
        // A cheap child stays behind.
        let parts = [part(500, 100, &[]), part(100, 100, &[0])];
        assert_eq!(chunks(&parts), [(500, 100), (100, 100)]);
    }

    #[test]
    fn more_in_all_is_not_enough_when_a_block_earns_less_at_first() {
        let old = [part(1_000, 100, &[])];
        assert!(improves(&[part(1_001, 100, &[])], &old));
        assert!(!improves(&[part(1_000, 100, &[])], &old));
        // Twice the fee for four times the size: less for the first 100.
        assert!(!improves(&[part(2_000, 400, &[])], &old));
        // A better rate for less in all: less at the end.
        assert!(!improves(&[part(900, 50, &[])], &old));
        assert!(improves(&[part(1_000, 50, &[])], &old));
        assert!(improves(&old, &[]) && !improves(&[], &old));
    }

    #[test]
    fn what_a_replacement_leaves_of_a_family_counts() {
        // A parent with a rich child and a poor one: replacing the rich one by one that pays a little more.
        let old = [
            part(100, 100, &[]),
            part(5_000, 100, &[0]),
            part(100, 100, &[0]),
        ];
        let new = [
            part(100, 100, &[]),
            part(5_100, 100, &[0]),
            part(100, 100, &[0]),
        ];
        assert!(improves(&new, &old));
        // By a rich stranger that leaves the parent without who paid for it: the sum is the same, the order better.
        let new = [
            part(100, 100, &[]),
            part(5_000, 100, &[]),
            part(100, 100, &[0]),
        ];
        assert!(improves(&new, &old));
    }
}
