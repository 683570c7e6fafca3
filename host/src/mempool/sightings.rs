//! Who announced a transaction, and when.
//!
//! Kept for entries of the pool, and for a bounded number of announcements whose transaction has not come yet. A peer that
//! announces what never comes can make us forget others' early announcements; nothing depends on them.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use bitcoin::{Txid, Wtxid};

use super::recent::TxHash;

/// Peers remembered for one transaction: the first ones.
pub(super) const MAX_SIGHTINGS: usize = 8;

/// Announced transactions that have not come, in each of two generations.
const MAX_AHEAD: usize = 20_000;

/// Peers of which it is known when they last announced something.
const MAX_PEERS: usize = 1_000;

/// A peer that announced nothing for so many seconds is not listened to any more.
const SILENT: u64 = 600;

/// That a peer announced a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The peer.
    pub peer: Arc<SocketAddr>,
    /// Unix milliseconds.
    pub at: u64,
}

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

#[derive(Debug, Default)]
pub(super) struct Sightings {
    young: Map<TxHash, Vec<Sighting>>,
    old: Map<TxHash, Vec<Sighting>>,
    held: Map<Txid, Vec<Sighting>>,
    /// Each with the unix second of its last announcement.
    peers: BTreeMap<SocketAddr, (Arc<SocketAddr>, u64)>,
    /// Peers that were ever heard, as far as they are remembered one by one.
    heard: u64,
}

impl Sightings {
    fn peer(&mut self, addr: SocketAddr, at: u64) -> Arc<SocketAddr> {
        if let Some((peer, last)) = self.peers.get_mut(&addr) {
            *last = at / 1_000;
            return peer.clone();
        }
        if self.peers.len() >= MAX_PEERS {
            let oldest = self.peers.iter().min_by_key(|(_, (_, last))| *last);
            if let Some(oldest) = oldest.map(|(addr, _)| *addr) {
                self.peers.remove(&oldest);
            }
        }
        self.heard += 1;
        let peer = Arc::new(addr);
        self.peers.insert(addr, (peer.clone(), at / 1_000));
        peer
    }

    /// A peer announced a transaction; `entry` is its txid where the pool has it.
    pub(super) fn announced(
        &mut self,
        hash: TxHash,
        entry: Option<Txid>,
        addr: SocketAddr,
        at: u64,
    ) {
        let sighting = Sighting {
            peer: self.peer(addr, at),
            at,
        };
        let list = match entry {
            Some(txid) => self.held.entry(txid).or_default(),
            None => match self.old.get_mut(&hash) {
                Some(list) => list,
                None => {
                    if self.young.len() >= MAX_AHEAD && !self.young.contains_key(&hash) {
                        self.old = std::mem::take(&mut self.young);
                    }
                    self.young.entry(hash).or_default()
                }
            },
        };
        add(list, sighting);
    }

    /// A transaction is in the pool; `from` sent it.
    pub(super) fn entered(&mut self, txid: Txid, wtxid: Wtxid, from: Option<SocketAddr>, at: u64) {
        let mut list = Vec::new();
        for hash in [TxHash::from(wtxid), TxHash::from(txid)] {
            for sightings in [&mut self.young, &mut self.old] {
                list.extend(sightings.remove(&hash).into_iter().flatten());
            }
        }
        list.sort_by_key(|sighting: &Sighting| sighting.at);
        let mut first: Vec<Sighting> = Vec::new();
        for sighting in list {
            add(&mut first, sighting);
        }
        if let Some(addr) = from {
            let peer = self.peer(addr, at);
            add(&mut first, Sighting { peer, at });
        }
        if !first.is_empty() {
            first.shrink_to_fit();
            self.held.insert(txid, first);
        }
    }

    pub(super) fn left(&mut self, txid: &Txid) {
        self.held.remove(txid);
    }

    /// The first peers that announced an entry, in order.
    pub(super) fn of(&self, txid: &Txid) -> &[Sighting] {
        self.held.get(txid).map_or(&[], Vec::as_slice)
    }

    /// Announced transactions that have not come.
    #[cfg(test)]
    pub(super) fn ahead(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Peers that announced something lately.
    pub(super) fn peers_now(&self, now: u64) -> usize {
        self.peers
            .values()
            .filter(|(_, last)| now.saturating_sub(*last) <= SILENT)
            .count()
    }

    /// Peers that ever did.
    pub(super) fn peers_ever(&self) -> u64 {
        self.heard
    }
}

fn add(list: &mut Vec<Sighting>, sighting: Sighting) {
    if list.len() < MAX_SIGHTINGS && list.iter().all(|other| other.peer != sighting.peer) {
        list.push(sighting);
    }
}
