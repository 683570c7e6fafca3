//! Transactions: each one announced is asked of one peer at a time, and only once we follow the tip.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use bitcoin::hashes::{Hash, siphash24};
use bitcoin::p2p::ServiceFlags;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{Transaction, Txid, Wtxid};
use bytes::Bytes;

use super::{ConnectionKind, DropReason, Output, PeerId, Sync};
use crate::wire::Moment;
use crate::wire::message::Message;

/// Announcements of one peer that wait; what it announces beyond is passed over, as it would be children of what waits
/// (Core's `MAX_PEER_TX_ANNOUNCEMENTS`).
const MAX_ANNOUNCED: usize = 5_000;
/// The same where we asked for the peer's whole pool: one `inv` has no more (Core's `MAX_INV_SZ`).
const MAX_POOL_ANNOUNCED: usize = 50_000;
/// Transactions asked for at once, of all peers.
const MAX_WANTED: usize = 20_000;
/// Other peers remembered for one transaction.
const MAX_OTHERS: usize = 8;
/// Transactions remembered as seen, in each of two generations.
const MAX_SEEN: usize = 60_000;

#[derive(Debug)]
struct Wanted {
    asked: PeerId,
    at: Moment,
    others: Vec<(PeerId, Inventory)>,
}

/// What one peer announced and was not asked for yet, each once, in its order: parents come before children.
#[derive(Debug, Default)]
struct Announced {
    queue: VecDeque<Inventory>,
    waiting: HashSet<[u8; 32]>,
    /// It was asked for its whole pool.
    whole_pool: bool,
}

impl Announced {
    fn is_full(&self) -> bool {
        let limit = if self.whole_pool {
            MAX_POOL_ANNOUNCED
        } else {
            MAX_ANNOUNCED
        };
        self.queue.len() >= limit
    }

    fn push(&mut self, hash: [u8; 32], item: Inventory) {
        if !self.is_full() && self.waiting.insert(hash) {
            self.queue.push_back(item);
        }
    }

    /// It comes next; the latest makes room.
    fn push_first(&mut self, hash: [u8; 32], item: Inventory) {
        if !self.waiting.insert(hash) {
            return;
        }
        if self.is_full()
            && let Some(latest) = self.queue.pop_back().as_ref().and_then(hash_of)
        {
            self.waiting.remove(&latest);
        }
        self.queue.push_front(item);
    }

    fn pop(&mut self) -> Option<([u8; 32], Inventory)> {
        let item = self.queue.pop_front()?;
        let hash = hash_of(&item)?;
        self.waiting.remove(&hash);
        Some((hash, item))
    }
}

/// What was announced, what was asked for, what was seen.
#[derive(Debug)]
pub(super) struct TxRequests {
    announced: BTreeMap<PeerId, Announced>,
    wanted: HashMap<[u8; 32], Wanted>,
    /// Who was asked in vain for a transaction that others have announced: it is not asked again while there are such.
    failed: HashMap<[u8; 32], Vec<PeerId>>,
    in_flight: BTreeMap<PeerId, usize>,
    seen: Seen,
    /// What the pool refused since the last block: a block may change its mind.
    refused: Seen,
    per_peer: usize,
    timeout: Duration,
}

impl TxRequests {
    pub(super) fn new(seed: u64, per_peer: usize, timeout: Duration) -> TxRequests {
        TxRequests {
            announced: BTreeMap::new(),
            wanted: HashMap::new(),
            failed: HashMap::new(),
            in_flight: BTreeMap::new(),
            seen: Seen::new(seed),
            refused: Seen::new(seed),
            per_peer,
            timeout,
        }
    }

    /// The transaction need not be asked for.
    pub(super) fn know(&mut self, hash: [u8; 32]) {
        self.seen.insert(&hash);
    }

    /// The pool refused it: it is not asked for again before the next block. Another serialization of it may be.
    pub(super) fn refuse(&mut self, txid: [u8; 32], wtxid: [u8; 32]) {
        self.forget(txid, wtxid);
        self.refused.insert(&wtxid);
    }

    /// It is not here: it may be asked for at the next announcement.
    pub(super) fn forget(&mut self, txid: [u8; 32], wtxid: [u8; 32]) {
        self.seen.remove(&txid);
        self.seen.remove(&wtxid);
    }

    /// There is a new tip: what was refused may be taken now.
    pub(super) fn new_tip(&mut self) {
        self.refused.clear();
    }

    /// A peer sent a child of this transaction, so it has it: it is asked next, whatever became of the transaction before.
    pub(super) fn parent(&mut self, peer: PeerId, txid: Txid) {
        let hash = txid.to_byte_array();
        self.seen.remove(&hash);
        self.refused.remove(&hash);
        let announced = self.announced.entry(peer).or_default();
        announced.push_first(hash, Inventory::Transaction(txid));
    }

    /// The peer was asked for its whole pool, which is to find room.
    pub(super) fn asked_for_pool(&mut self, peer: PeerId) {
        self.announced.entry(peer).or_default().whole_pool = true;
    }

    fn done(&self, hash: &[u8; 32]) -> bool {
        self.seen.contains(hash) || self.refused.contains(hash)
    }

    pub(super) fn announced(&mut self, peer: PeerId, item: Inventory) {
        let Some(hash) = hash_of(&item).filter(|hash| !self.done(hash)) else {
            return;
        };
        let asked = self.wanted.get(&hash);
        let failed = self.failed.get(&hash);
        if asked.is_none_or(|wanted| wanted.asked != peer)
            && failed.is_none_or(|failed| !failed.contains(&peer))
        {
            self.announced.entry(peer).or_default().push(hash, item);
        }
    }

    /// What to ask of a peer now.
    pub(super) fn next_requests(&mut self, peer: PeerId, now: Moment) -> Vec<Inventory> {
        let mut requests = Vec::new();
        let Some(announced) = self.announced.get_mut(&peer) else {
            return requests;
        };
        let in_flight = self.in_flight.entry(peer).or_default();
        while *in_flight < self.per_peer && self.wanted.len() < MAX_WANTED {
            let Some((hash, item)) = announced.pop() else {
                break;
            };
            if self.seen.contains(&hash) || self.refused.contains(&hash) {
                self.failed.remove(&hash);
                continue;
            }
            if let Some(wanted) = self.wanted.get_mut(&hash) {
                let there = wanted.others.iter().any(|(other, _)| *other == peer);
                if wanted.asked != peer && !there && wanted.others.len() < MAX_OTHERS {
                    wanted.others.push((peer, item));
                }
                continue;
            }
            self.wanted.insert(
                hash,
                Wanted {
                    asked: peer,
                    at: now,
                    others: Vec::new(),
                },
            );
            *in_flight += 1;
            requests.push(item);
        }
        requests
    }

    /// A transaction came. Returns whether it was asked for, by either of its hashes.
    pub(super) fn arrived(&mut self, hashes: [[u8; 32]; 2]) -> bool {
        let mut asked = false;
        for hash in hashes {
            self.failed.remove(&hash);
            if let Some(wanted) = self.wanted.remove(&hash) {
                self.freed(wanted.asked);
                asked = true;
            }
        }
        if asked {
            for hash in hashes {
                self.seen.insert(&hash);
            }
        }
        asked
    }

    pub(super) fn not_found(&mut self, peer: PeerId, item: &Inventory) {
        if let Some(hash) = hash_of(item)
            && self
                .wanted
                .get(&hash)
                .is_some_and(|wanted| wanted.asked == peer)
        {
            self.ask_another(hash);
        }
    }

    pub(super) fn disconnected(&mut self, peer: PeerId) {
        self.announced.remove(&peer);
        let mut asked: Vec<_> = self
            .wanted
            .iter()
            .filter(|(_, wanted)| wanted.asked == peer)
            .map(|(hash, _)| *hash)
            .collect();
        // In an order that a run with the same seed repeats.
        asked.sort_unstable();
        for hash in asked {
            self.ask_another(hash);
        }
        self.in_flight.remove(&peer);
        // What nobody is left to be asked for.
        let (wanted, announced) = (&self.wanted, &self.announced);
        self.failed.retain(|hash, _| {
            wanted.contains_key(hash) || announced.values().any(|a| a.waiting.contains(hash))
        });
    }

    pub(super) fn tick(&mut self, now: Moment) {
        let timeout = self.timeout;
        let mut late: Vec<_> = self
            .wanted
            .iter()
            .filter(|(_, wanted)| now.since(wanted.at) >= timeout)
            .map(|(hash, _)| *hash)
            .collect();
        late.sort_unstable();
        for hash in late {
            self.ask_another(hash);
        }
    }

    /// Gives the transaction back to the next peer that announced it.
    fn ask_another(&mut self, hash: [u8; 32]) {
        let Some(wanted) = self.wanted.remove(&hash) else {
            return;
        };
        self.freed(wanted.asked);
        let mut more = false;
        for (peer, item) in wanted.others.into_iter().rev() {
            if let Some(announced) = self.announced.get_mut(&peer) {
                announced.push_first(hash, item);
                more = true;
            }
        }
        // Once all have failed it begins anew.
        if !more {
            self.failed.remove(&hash);
        } else if self.failed.len() < MAX_WANTED || self.failed.contains_key(&hash) {
            let failed = self.failed.entry(hash).or_default();
            if !failed.contains(&wanted.asked) {
                failed.push(wanted.asked);
            }
        }
    }

    /// How many transactions a peer was asked for and has not sent.
    pub(super) fn in_flight_of(&self, peer: PeerId) -> usize {
        self.in_flight.get(&peer).copied().unwrap_or(0)
    }

    fn freed(&mut self, peer: PeerId) {
        if let Some(in_flight) = self.in_flight.get_mut(&peer) {
            *in_flight = in_flight.saturating_sub(1);
        }
    }
}

/// The transactions seen lately, as keyed 64-bit hashes that nobody outside can make collide. Two generations: when
/// one is full the older is forgotten.
#[derive(Debug)]
struct Seen {
    seed: u64,
    fresh: HashSet<u64>,
    old: HashSet<u64>,
}

impl Seen {
    fn new(seed: u64) -> Seen {
        Seen {
            seed,
            fresh: HashSet::new(),
            old: HashSet::new(),
        }
    }

    fn remove(&mut self, hash: &[u8; 32]) {
        let key = self.key(hash);
        self.fresh.remove(&key);
        self.old.remove(&key);
    }

    fn clear(&mut self) {
        self.fresh.clear();
        self.old.clear();
    }

    fn key(&self, hash: &[u8; 32]) -> u64 {
        siphash24::Hash::hash_to_u64_with_keys(self.seed, 0, hash)
    }

    fn contains(&self, hash: &[u8; 32]) -> bool {
        let key = self.key(hash);
        self.fresh.contains(&key) || self.old.contains(&key)
    }

    fn insert(&mut self, hash: &[u8; 32]) {
        if self.fresh.len() >= MAX_SEEN {
            self.old = std::mem::take(&mut self.fresh);
        }
        self.fresh.insert(self.key(hash));
    }
}

/// What the pool says of a transaction that it was given.
#[derive(Debug, Clone)]
pub enum PoolVerdict {
    /// It came in.
    Taken {
        /// Who sent it.
        peer: PeerId,
    },
    /// It is refused, until the next block.
    Refused {
        /// Its txid.
        txid: Txid,
        /// Its wtxid.
        wtxid: Wtxid,
    },
    /// It was not looked at, or it was let go for want of room or of parents.
    NotTaken {
        /// Its txid.
        txid: Txid,
        /// Its wtxid.
        wtxid: Wtxid,
    },
    /// It depends on transactions that are not known: the peer that sent it should have them.
    Parents {
        /// The peer.
        peer: PeerId,
        /// The parents' txids.
        missing: Vec<Txid>,
    },
}

/// Announcements of one message of which others are told.
const MAX_TOLD: usize = 1_000;

/// Parents of one transaction that are asked for.
const MAX_PARENTS: usize = 24;

fn hash_of(item: &Inventory) -> Option<[u8; 32]> {
    match item {
        Inventory::Transaction(txid) | Inventory::WitnessTransaction(txid) => {
            Some(txid.to_byte_array())
        }
        Inventory::WTx(wtxid) => Some(wtxid.to_byte_array()),
        _ => None,
    }
}

impl Sync {
    /// The pool looked at a transaction.
    pub fn pool_verdict(&mut self, verdict: PoolVerdict, now: Moment) {
        match verdict {
            PoolVerdict::Taken { peer } => {
                if let Some(session) = self.peers.get_mut(&peer) {
                    session.life.last_transaction = now;
                }
            }
            PoolVerdict::Refused { txid, wtxid } => self
                .transactions
                .refuse(txid.to_byte_array(), wtxid.to_byte_array()),
            PoolVerdict::NotTaken { txid, wtxid } => self
                .transactions
                .forget(txid.to_byte_array(), wtxid.to_byte_array()),
            PoolVerdict::Parents { peer, missing } => {
                if self.peers.contains_key(&peer) {
                    for txid in missing.into_iter().take(MAX_PARENTS) {
                        self.transactions.parent(peer, txid);
                    }
                    self.pump(now);
                }
            }
        }
    }

    /// Tells who announced what, once we follow the tip.
    pub(super) fn tell_announced(&mut self, peer: PeerId, inventory: &[Inventory]) {
        if !self.config.transactions || !self.was_synced {
            return;
        }
        let hashes: Vec<[u8; 32]> = inventory
            .iter()
            .filter_map(hash_of)
            .take(MAX_TOLD)
            .collect();
        if !hashes.is_empty() {
            self.outputs.push_back(Output::Announced { peer, hashes });
        }
    }

    pub(super) fn on_transaction(&mut self, peer: PeerId, raw: Bytes, now: Moment) {
        let Ok(transaction) = bitcoin::consensus::deserialize::<Transaction>(&raw) else {
            self.drop_peer(peer, DropReason::MalformedTransaction, now);
            return;
        };
        let (txid, wtxid) = (transaction.compute_txid(), transaction.compute_wtxid());
        if self
            .transactions
            .arrived([wtxid.to_byte_array(), txid.to_byte_array()])
        {
            // A copy: the pool would otherwise keep the whole buffer that these few bytes came in.
            let raw = Bytes::copy_from_slice(&raw);
            self.outputs.push_back(Output::Transaction {
                peer,
                raw,
                txid,
                wtxid,
            });
        }
    }

    pub(super) fn ask_for_transactions(&mut self, now: Moment) {
        let ids: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(_, session)| session.peer.is_ready())
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.ask_for_pool(id);
            let mut items = self.transactions.next_requests(id, now);
            if items.is_empty() {
                continue;
            }
            if self.params.segwit && self.has_service(id, ServiceFlags::WITNESS) {
                for item in &mut items {
                    // Announced by txid, but wanted with its witnesses.
                    if let Inventory::Transaction(txid) = *item {
                        *item = Inventory::WitnessTransaction(txid);
                    }
                }
            }
            self.send(id, &Message::GetData(items));
        }
    }

    /// A peer with `NODE_BLOOM` tells its whole pool when asked (BIP35); any other would disconnect us.
    fn ask_for_pool(&mut self, id: PeerId) {
        if let Some(session) = self.peers.get_mut(&id)
            && !session.pool_asked
            && !matches!(
                session.life.kind,
                ConnectionKind::BlockOnly | ConnectionKind::AddressFetch
            )
            && session.peer.services().has(ServiceFlags::BLOOM)
        {
            session.pool_asked = true;
            if session.life.kind != ConnectionKind::Incoming {
                self.transactions.asked_for_pool(id);
            }
            self.send(id, &Message::MemPool);
        }
    }
}
