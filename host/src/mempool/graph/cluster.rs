//! Clusters: entries that hang together over parents and children. Since its version 31 Core limits these, and compares
//! what a replacement leaves of them with what was there.

use std::collections::{BTreeSet, HashMap, HashSet};

use bitcoin::Txid;

use super::super::checks::Refused;
use super::super::diagram::{Part, improves};
use super::super::entry::{Entry, Figures};
use super::Graph;

impl Graph {
    /// Everything that hangs together with `roots`, those included, but for what is in `without` and hangs only by that.
    fn connected(&self, roots: &[Txid], without: &HashSet<Txid>) -> BTreeSet<Txid> {
        let mut found = BTreeSet::new();
        let mut ahead = roots.to_vec();
        while let Some(txid) = ahead.pop() {
            if without.contains(&txid) {
                continue;
            }
            if let Some(node) = self.nodes.get(&txid)
                && found.insert(txid)
            {
                ahead.extend_from_slice(&node.children);
                ahead.extend_from_slice(&node.entry.depends);
            }
        }
        found
    }

    /// What in the pool the newcomers, which hang together, would hang together with.
    fn neighbours(&self, newcomers: &[&Entry]) -> Vec<Txid> {
        newcomers
            .iter()
            .flat_map(|entry| {
                let mut near = entry.depends.clone();
                near.extend(self.children_of(entry));
                near
            })
            .collect()
    }

    /// Refuses newcomers with which a cluster would grow too large: the cost of every later change grows with it.
    /// Those that `leave` for them do not count.
    pub(in super::super) fn check_cluster(
        &self,
        newcomers: &[&Entry],
        leave: &[Txid],
        max_entries: u64,
        max_vsize: u64,
    ) -> Result<(), Refused> {
        let without = leave.iter().copied().collect();
        let near = self.connected(&self.neighbours(newcomers), &without);
        // A single large transaction is no cluster.
        if near.is_empty() && newcomers.len() == 1 {
            return Ok(());
        }
        let mut figures = Figures::default();
        for entry in near.iter().filter_map(|txid| self.get(txid)) {
            figures.add(entry.own());
        }
        for entry in newcomers {
            figures.add(entry.own());
        }
        if figures.count > max_entries || figures.vsize > max_vsize {
            Err(Refused::LongChain)
        } else {
            Ok(())
        }
    }

    /// How many clusters these entries are in.
    pub(in super::super) fn clusters(&self, entries: &BTreeSet<Txid>) -> usize {
        let mut seen = BTreeSet::new();
        let none = HashSet::new();
        let mut count = 0;
        for txid in entries {
            if !seen.contains(txid) {
                count += 1;
                seen.extend(self.connected(&[*txid], &none));
            }
        }
        count
    }

    /// Whether a pool with the newcomers and without those that `leave` earns a miner more at some size and less at none
    /// (Core's `ImprovesFeerateDiagram`), as far as the clusters go that they touch.
    pub(in super::super) fn improved_by(&self, newcomers: &[&Entry], leave: &[Txid]) -> bool {
        let without: HashSet<Txid> = leave.iter().copied().collect();
        let mut touched = self.neighbours(newcomers);
        touched.extend_from_slice(leave);
        let before = self.connected(&touched, &HashSet::new());
        let old: Vec<&Entry> = before
            .iter()
            .filter_map(|txid| self.get(txid))
            .map(AsRef::as_ref)
            .collect();
        let mut new: Vec<&Entry> = old
            .iter()
            .copied()
            .filter(|entry| !without.contains(&entry.txid))
            .collect();
        new.extend_from_slice(newcomers);
        improves(&parts(&new), &parts(&old))
    }
}

/// Entries as the diagram sees them.
fn parts(entries: &[&Entry]) -> Vec<Part> {
    let places: HashMap<Txid, usize> = entries
        .iter()
        .enumerate()
        .map(|(place, entry)| (entry.txid, place))
        .collect();
    entries
        .iter()
        .map(|entry| Part {
            fee: entry.fee,
            size: entry.vsize.max(1),
            // From what it spends and not from its links: a newcomer's are not made yet.
            parents: entry
                .spends
                .iter()
                .filter_map(|outpoint| places.get(&outpoint.txid).copied())
                .collect(),
        })
        .collect()
}
