//! The entries, who spends whose outputs, and the sums over ancestors and descendants.

mod cluster;

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bitcoin::{OutPoint, Txid, Wtxid};

use super::coins::Tip;
use super::entry::{Entry, Figures};
use super::recent::TxHash;

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

#[derive(Debug)]
struct Node {
    entry: Arc<Entry>,
    children: Vec<Txid>,
    /// Order of arrival.
    sequence: u64,
    /// Blocks that took less and did not take it.
    passed_over: u16,
}

/// Who is evicted first: the lowest rate, and of equals the latest.
type EvictionKey = (u64, Reverse<u64>, Txid);

impl Node {
    /// An entry is worth keeping for its own fee or for what its descendants pay, whichever is the
    /// better rate.
    fn eviction_key(&self) -> EvictionKey {
        let rate = |figures: Figures| {
            let scaled = u128::from(figures.fees) * 1_000_000 / u128::from(figures.vsize.max(1));
            u64::try_from(scaled).unwrap_or(u64::MAX)
        };
        let best = rate(self.entry.own()).max(rate(self.entry.descendants));
        (best, Reverse(self.sequence), self.entry.txid)
    }
}

/// The entries and their relations.
#[derive(Debug, Default)]
pub(super) struct Graph {
    nodes: Map<Txid, Node>,
    by_wtxid: Map<Wtxid, Txid>,
    spenders: Map<OutPoint, Txid>,
    eviction: BTreeSet<EvictionKey>,
    totals: Figures,
    usage: usize,
    arrivals: u64,
}

impl Graph {
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub(super) fn totals(&self) -> Figures {
        self.totals
    }

    /// Memory, estimated, in bytes.
    pub(super) fn usage(&self) -> usize {
        self.usage
    }

    pub(super) fn contains(&self, txid: &Txid) -> bool {
        self.nodes.contains_key(txid)
    }

    pub(super) fn get(&self, txid: &Txid) -> Option<&Arc<Entry>> {
        self.nodes.get(txid).map(|node| &node.entry)
    }

    pub(super) fn txid_of(&self, wtxid: &Wtxid) -> Option<Txid> {
        self.by_wtxid.get(wtxid).copied()
    }

    /// The entry with this txid or wtxid.
    pub(super) fn find(&self, hash: &TxHash) -> Option<Txid> {
        let (txid, wtxid) = hash.as_ids();
        self.contains(&txid)
            .then_some(txid)
            .or_else(|| self.txid_of(&wtxid))
    }

    pub(super) fn spender(&self, outpoint: &OutPoint) -> Option<Txid> {
        self.spenders.get(outpoint).copied()
    }

    /// The value in sat of an output of an entry.
    pub(super) fn output_value(&self, outpoint: &OutPoint) -> Option<u64> {
        self.get(&outpoint.txid)?
            .output_values
            .get(outpoint.vout as usize)
            .copied()
    }

    /// The lowest in the eviction order, with the sums over it and its descendants.
    pub(super) fn cheapest(&self) -> Option<(Txid, Figures)> {
        let (_, _, txid) = self.eviction.first()?;
        self.get(txid).map(|entry| (*txid, entry.descendants))
    }

    /// Entries first seen at or before `time`.
    pub(super) fn seen_until(&self, time: u64) -> Vec<Txid> {
        self.entries()
            .filter(|entry| entry.first_seen <= time)
            .map(|entry| entry.txid)
            .collect()
    }

    /// Entries that the block after `tip` may not hold. Those with a relative lock are left out: where it counts from is to be
    /// looked up.
    pub(super) fn closed_at(&self, tip: Tip) -> Vec<Txid> {
        let closed = self
            .entries()
            .filter(|entry| !entry.locks.relative && !entry.locks.are_open(tip));
        closed.map(|entry| entry.txid).collect()
    }

    /// Entries with a relative lock.
    pub(super) fn with_relative_locks(&self) -> Vec<Txid> {
        self.entries()
            .filter(|entry| entry.locks.relative)
            .map(|entry| entry.txid)
            .collect()
    }

    /// Blocks that took less than this entry pays, and did not take it.
    pub(super) fn passed_over(&self, txid: &Txid) -> u16 {
        self.nodes.get(txid).map_or(0, |node| node.passed_over)
    }

    /// Entries that at least `blocks` blocks passed over.
    pub(super) fn suspicious(&self, blocks: u16) -> usize {
        self.nodes
            .values()
            .filter(|node| node.passed_over >= blocks)
            .count()
    }

    /// A block did not take entries for which this holds.
    pub(super) fn pass_over(&mut self, which: impl Fn(&Entry) -> bool) {
        for node in self.nodes.values_mut() {
            if which(&node.entry) {
                node.passed_over = node.passed_over.saturating_add(1);
            }
        }
    }

    /// Entries whose package pays less than `rate` sat/kvB to a miner: neither the entry with what it depends on nor,
    /// with what that depends on, anything that depends on it pays as much.
    pub(super) fn below(&self, rate: f64) -> usize {
        self.entries()
            .filter(|entry| self.mining_rate(entry) < rate)
            .count()
    }

    /// The best rate in sat/kvB at which an entry can come into a block: its own with its ancestors, or a descendant's.
    pub(super) fn mining_rate(&self, entry: &Entry) -> f64 {
        let own = entry.ancestors.rate();
        if entry.descendants.count <= 1 {
            return own;
        }
        let Some(node) = self.nodes.get(&entry.txid) else {
            return own;
        };
        self.descendants_of(&node.children)
            .iter()
            .filter_map(|txid| self.get(txid))
            .map(|descendant| descendant.ancestors.rate())
            .fold(own, f64::max)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.nodes.values().map(|node| &node.entry)
    }

    /// Every entry, parents before children: an ancestor always has fewer ancestors.
    pub(super) fn topological(&self) -> Vec<Arc<Entry>> {
        let mut nodes: Vec<&Node> = self.nodes.values().collect();
        nodes.sort_unstable_by_key(|node| (node.entry.ancestors.count, node.sequence));
        nodes
            .into_iter()
            .map(|node| Arc::clone(&node.entry))
            .collect()
    }

    /// Entries that spend one of the first `outputs` outputs of `txid`, which may be in the pool or
    /// not.
    pub(super) fn spenders_of(&self, txid: Txid, outputs: u32) -> Vec<Txid> {
        let mut found = Vec::new();
        for vout in 0..outputs {
            if let Some(spender) = self.spender(&OutPoint::new(txid, vout))
                && !found.contains(&spender)
            {
                found.push(spender);
            }
        }
        found
    }

    /// These entries and all their descendants, each once, descendants first.
    pub(super) fn with_descendants(&self, roots: impl IntoIterator<Item = Txid>) -> Vec<Txid> {
        let roots: Vec<Txid> = roots
            .into_iter()
            .filter(|txid| self.contains(txid))
            .collect();
        let mut found = self.reach(&roots, |node| &node.children);
        found.sort_unstable_by_key(|txid| {
            Reverse(self.get(txid).map(|entry| (entry.ancestors.count, *txid)))
        });
        found
    }

    /// Everything that can be reached from `roots`, those included, each once.
    fn reach(&self, roots: &[Txid], next: impl Fn(&Node) -> &Vec<Txid>) -> Vec<Txid> {
        let mut found: Vec<Txid> = Vec::with_capacity(roots.len());
        let mut seen: HashSet<Txid, foldhash::fast::RandomState> = HashSet::default();
        let mut ahead = roots.to_vec();
        while let Some(txid) = ahead.pop() {
            if let Some(node) = self.nodes.get(&txid)
                && seen.insert(txid)
            {
                found.push(txid);
                ahead.extend_from_slice(next(node));
            }
        }
        found
    }

    fn sum(&self, txids: &[Txid]) -> Figures {
        let mut sum = Figures::default();
        for entry in txids.iter().filter_map(|txid| self.get(txid)) {
            sum.add(entry.own());
        }
        sum
    }

    fn ancestors_of(&self, depends: &[Txid]) -> Vec<Txid> {
        if depends.is_empty() {
            Vec::new()
        } else {
            self.reach(depends, |node| &node.entry.depends)
        }
    }

    fn descendants_of(&self, children: &[Txid]) -> Vec<Txid> {
        if children.is_empty() {
            Vec::new()
        } else {
            self.reach(children, |node| &node.children)
        }
    }

    /// Entries that already spend outputs of one that is about to come back.
    fn children_of(&self, entry: &Entry) -> Vec<Txid> {
        self.spenders_of(entry.txid, entry.output_values.len() as u32)
    }

    /// Takes an entry in and links it with its parents and with children that were there before it.
    pub(super) fn insert(&mut self, mut entry: Entry) {
        let txid = entry.txid;
        let children = self.children_of(&entry);
        let ancestors = self.ancestors_of(&entry.depends);
        let own = entry.own();
        entry.ancestors = self.sum(&ancestors);
        entry.ancestors.add(own);
        entry.descendants = own;

        for parent in &entry.depends {
            if let Some(node) = self.nodes.get_mut(parent) {
                node.children.push(txid);
            }
        }
        for outpoint in &entry.spends {
            self.spenders.insert(*outpoint, txid);
        }
        self.by_wtxid.insert(entry.wtxid, txid);
        self.totals.add(own);
        self.usage += entry.usage();
        self.arrivals += 1;
        for child in &children {
            if let Some(node) = self.nodes.get_mut(child) {
                Arc::make_mut(&mut node.entry).depends.push(txid);
            }
        }
        let has_children = !children.is_empty();
        let node = Node {
            entry: Arc::new(entry),
            children,
            sequence: self.arrivals,
            passed_over: 0,
        };
        self.eviction.insert(node.eviction_key());
        self.nodes.insert(txid, node);

        if has_children {
            self.sum_again(&ancestors, txid);
        } else {
            for ancestor in &ancestors {
                self.change(ancestor, |entry| entry.descendants.add(own));
            }
        }
    }

    /// Takes an entry out; what depends on it stays and is one parent poorer.
    pub(super) fn remove(&mut self, txid: &Txid) -> Option<Arc<Entry>> {
        let node = self.nodes.remove(txid)?;
        let entry = node.entry.clone();
        self.eviction.remove(&node.eviction_key());
        self.by_wtxid.remove(&entry.wtxid);
        for outpoint in &entry.spends {
            self.spenders.remove(outpoint);
        }
        let own = entry.own();
        self.totals.subtract(own);
        self.usage = self.usage.saturating_sub(entry.usage());

        for parent in &entry.depends {
            if let Some(parent) = self.nodes.get_mut(parent) {
                parent.children.retain(|child| child != txid);
            }
        }
        for child in &node.children {
            if let Some(child) = self.nodes.get_mut(child) {
                Arc::make_mut(&mut child.entry)
                    .depends
                    .retain(|parent| parent != txid);
            }
        }
        let ancestors = self.ancestors_of(&entry.depends);
        let descendants = self.descendants_of(&node.children);
        if ancestors.is_empty() {
            for descendant in &descendants {
                self.change(descendant, |entry| entry.ancestors.subtract(own));
            }
        } else if descendants.is_empty() {
            for ancestor in &ancestors {
                self.change(ancestor, |entry| entry.descendants.subtract(own));
            }
        } else {
            // Taken out of the middle: what was joined through it may be joined otherwise too.
            self.sum_up(&ancestors, &descendants);
        }
        Some(entry)
    }

    /// Computes afresh what joining `txid` between its ancestors and its descendants changed.
    fn sum_again(&mut self, ancestors: &[Txid], txid: Txid) {
        let mut above = ancestors.to_vec();
        above.push(txid);
        let below = self.reach(&[txid], |node| &node.children);
        self.sum_up(&above, &below);
    }

    /// Computes the descendants' sums of `above` and the ancestors' sums of `below`.
    fn sum_up(&mut self, above: &[Txid], below: &[Txid]) {
        for txid in above {
            let descendants = self.sum(&self.reach(&[*txid], |node| &node.children));
            self.change(txid, |entry| entry.descendants = descendants);
        }
        for txid in below {
            let ancestors = self.sum(&self.reach(&[*txid], |node| &node.entry.depends));
            self.change(txid, |entry| entry.ancestors = ancestors);
        }
    }

    /// Changes an entry's sums and keeps the eviction order in step.
    fn change(&mut self, txid: &Txid, change: impl FnOnce(&mut Entry)) {
        if let Some(node) = self.nodes.get_mut(txid) {
            let before = node.eviction_key();
            change(Arc::make_mut(&mut node.entry));
            let after = node.eviction_key();
            if before != after {
                self.eviction.remove(&before);
                self.eviction.insert(after);
            }
        }
    }

    /// Panics unless every sum equals what is computed from nothing, and no output is spent twice.
    #[cfg(test)]
    pub(super) fn verify(&self) {
        let mut spent = HashSet::new();
        let mut totals = Figures::default();
        let mut usage = 0;
        for (txid, node) in &self.nodes {
            let entry = &node.entry;
            assert_eq!(*txid, entry.txid);
            let parents: HashSet<Txid> = entry
                .spends
                .iter()
                .map(|outpoint| outpoint.txid)
                .filter(|parent| self.contains(parent))
                .collect();
            assert_eq!(
                parents,
                entry.depends.iter().copied().collect(),
                "parents of {txid}"
            );
            assert_eq!(
                parents.len(),
                entry.depends.len(),
                "a parent of {txid} twice"
            );
            let children: HashSet<Txid> = self
                .nodes
                .values()
                .filter(|other| {
                    other
                        .entry
                        .spends
                        .iter()
                        .any(|outpoint| outpoint.txid == *txid)
                })
                .map(|other| other.entry.txid)
                .collect();
            assert_eq!(
                children,
                node.children.iter().copied().collect(),
                "children of {txid}"
            );
            assert_eq!(
                entry.ancestors,
                self.sum(&self.reach(&[*txid], |node| &node.entry.depends)),
                "ancestors of {txid}"
            );
            assert_eq!(
                entry.descendants,
                self.sum(&self.reach(&[*txid], |node| &node.children)),
                "descendants of {txid}"
            );
            for outpoint in &entry.spends {
                assert!(spent.insert(*outpoint), "{outpoint} is spent twice");
                assert_eq!(self.spender(outpoint), Some(*txid));
            }
            assert_eq!(self.txid_of(&entry.wtxid), Some(*txid));
            assert!(self.eviction.contains(&node.eviction_key()));
            totals.add(entry.own());
            usage += entry.usage();
        }
        assert_eq!(self.spenders.len(), spent.len());
        assert_eq!(self.by_wtxid.len(), self.nodes.len());
        assert_eq!(self.eviction.len(), self.nodes.len());
        assert_eq!((self.totals, self.usage), (totals, usage));
    }
}
