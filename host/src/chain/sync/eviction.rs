//! Which incoming connection makes room for another: the least useful, and none that an attacker could aim at.
//!
//! As Core's `SelectNodeToEvict`: those that are hard to beat in something are safe, so that whoever wants all our places
//! would have to be better than the honest in everything at once.

use std::collections::BTreeMap;
use std::time::Duration;

use super::PeerId;
use super::book::Group;
use crate::wire::Moment;

/// How many are safe for each merit.
const SAFE_GROUPS: usize = 4;
const SAFE_QUICK: usize = 8;
const SAFE_TRANSACTIONS: usize = 4;
const SAFE_BLOCKS: usize = 4;

/// An incoming connection.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) id: PeerId,
    pub(super) group: Group,
    /// The group by a secret: nobody outside knows whose is high.
    pub(super) keyed_group: u64,
    pub(super) since: Moment,
    pub(super) latency: Option<Duration>,
    pub(super) last_transaction: Moment,
    pub(super) last_block: Moment,
}

/// The one that goes. None when all are safe.
pub(super) fn choose(mut candidates: Vec<Candidate>) -> Option<PeerId> {
    protect(&mut candidates, SAFE_GROUPS, |c| c.keyed_group);
    protect(&mut candidates, SAFE_QUICK, |c| {
        std::cmp::Reverse(c.latency.unwrap_or(Duration::MAX))
    });
    protect(&mut candidates, SAFE_TRANSACTIONS, |c| c.last_transaction);
    protect(&mut candidates, SAFE_BLOCKS, |c| c.last_block);
    // Half of the rest, those that are here longest.
    let half = candidates.len() / 2;
    protect(&mut candidates, half, |c| std::cmp::Reverse(c.since));

    // Of the group with most connections, and of equals the one whose last came last, the last that came.
    let mut groups: BTreeMap<Group, Vec<&Candidate>> = BTreeMap::new();
    for candidate in &candidates {
        groups.entry(candidate.group).or_default().push(candidate);
    }
    let biggest = groups.values().max_by_key(|group| {
        let youngest = group.iter().map(|c| (c.since, c.id)).max();
        (group.len(), youngest)
    })?;
    biggest
        .iter()
        .max_by_key(|c| (c.since, c.id))
        .map(|candidate| candidate.id)
}

/// Takes the `count` that have most of a merit out of the candidates. Who has none of it has the least.
fn protect<M: Ord>(candidates: &mut Vec<Candidate>, count: usize, merit: impl Fn(&Candidate) -> M) {
    candidates.sort_by_key(|candidate| (merit(candidate), std::cmp::Reverse(candidate.id)));
    candidates.truncate(candidates.len().saturating_sub(count));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;
    use crate::chain::sync::book::group_of_ip;

    fn candidate(id: u64, group: u8) -> Candidate {
        Candidate {
            id: PeerId(id),
            group: group_of_ip([group, group, 1, 1].into()),
            keyed_group: u64::from(group) * 77 % 251,
            since: Moment(id * 1_000),
            latency: Some(Duration::from_millis(100)),
            last_transaction: Moment(0),
            last_block: Moment(0),
        }
    }

    #[test]
    fn the_youngest_of_the_biggest_group_goes() {
        let mut candidates: Vec<_> = (0..40).map(|n| candidate(n, n as u8 + 1)).collect();
        candidates.extend((40..60).map(|n| candidate(n, 200)));
        assert_eq!(choose(candidates), Some(PeerId(59)));
    }

    #[test]
    fn who_is_good_at_something_stays_however_many_come() {
        let mut candidates: Vec<_> = (100..200).map(|n| candidate(n, 200)).collect();
        let mut quick = candidate(1_000, 200);
        quick.latency = Some(Duration::from_millis(1));
        let mut blocks = candidate(1_001, 200);
        blocks.last_block = Moment(5);
        let mut transactions = candidate(1_002, 200);
        transactions.last_transaction = Moment(5);
        let old = candidate(1, 200);
        candidates.extend([quick, blocks, transactions, old]);
        let mut gone = Vec::new();
        while let Some(id) = choose(candidates.clone()) {
            candidates.retain(|candidate| candidate.id != id);
            gone.push(id.0);
        }
        assert!(gone.len() > 70);
        for safe in [1_000, 1_001, 1_002, 1] {
            assert!(!gone.contains(&safe), "{safe}");
        }
    }

    #[test]
    fn few_are_all_safe() {
        assert_eq!(choose((0..20).map(|n| candidate(n, 9)).collect()), None);
    }
}
