//! Blocks at the tip as the short ids of their transactions (BIP152, low bandwidth): what the pool has is not sent again.
//!
//! A peer announces a block by its header; the one block that is then missing is asked for in its compact form. What the
//! pool does not have is asked for by its place, and whatever goes wrong ends in asking for the whole block. A short id has 48 bits, so
//! two transactions may share one, and only the merkle root tells: a block that was put together wrongly is no peer's fault.

use bitcoin::bip152::{BlockTransactions, BlockTransactionsRequest, HeaderAndShortIds, ShortId};
use bitcoin::block::Header;
use bitcoin::consensus::encode::{VarInt, serialize};
use bitcoin::{BlockHash, Transaction};
use bytes::Bytes;

use super::{DropReason, Output, PeerId, Sync};
use crate::chain::header_tree::Id;
use crate::wire::Moment;
use crate::wire::message::Message;

/// The version of compact blocks that hashes wtxids.
pub(crate) const COMPACT_VERSION: u64 = 2;
/// The most transactions that a block of 4,000,000 weight units can hold (Core's `MAX_BLOCK_WEIGHT / MIN_SERIALIZABLE_TRANSACTION_WEIGHT`).
const MAX_TRANSACTIONS: usize = 100_000;

/// The transactions of a block that the pool is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShortIds {
    /// The two halves of the SipHash-2-4 key, which header and nonce give.
    pub keys: (u64, u64),
    /// One for each transaction that the peer did not send, in the order of the block.
    pub ids: Vec<ShortId>,
}

/// A block that is being put together.
#[derive(Debug)]
pub(super) struct Partial {
    block: Id,
    header: Header,
    /// Each transaction serialised, as far as it is here.
    transactions: Vec<Option<Bytes>>,
    /// The pool was asked; the peer is asked next.
    filled: bool,
}

impl Partial {
    /// Reads the peer's message; nothing if it is no block.
    fn new(block: Id, compact: &HeaderAndShortIds) -> Option<Partial> {
        let count = compact.short_ids.len() + compact.prefilled_txs.len();
        if count == 0 || count > MAX_TRANSACTIONS {
            return None;
        }
        let mut transactions = vec![None; count];
        let mut next = 0usize;
        for prefilled in &compact.prefilled_txs {
            let place = next + usize::from(prefilled.idx);
            *transactions.get_mut(place)? = Some(Bytes::from(serialize(&prefilled.tx)));
            next = place + 1;
        }
        Some(Partial {
            block,
            header: compact.header,
            transactions,
            filled: false,
        })
    }

    pub(super) fn is_of(&self, block: Id) -> bool {
        self.block == block
    }

    /// Places of the transactions that are missing.
    fn missing(&self) -> Vec<u64> {
        let places = self.transactions.iter().zip(0u64..);
        let missing = places.filter(|(transaction, _)| transaction.is_none());
        missing.map(|(_, place)| place).collect()
    }

    /// Puts transactions into the free places, in their order. Returns whether there were as many as places.
    fn fill(&mut self, transactions: impl IntoIterator<Item = Option<Bytes>>) -> bool {
        let mut given = transactions.into_iter();
        for place in self.transactions.iter_mut().filter(|place| place.is_none()) {
            match given.next() {
                Some(transaction) => *place = transaction,
                None => return false,
            }
        }
        given.next().is_none()
    }

    /// The block, serialised, once nothing is missing.
    fn assemble(&self) -> Option<Bytes> {
        let mut raw = serialize(&self.header);
        raw.extend(serialize(&VarInt::from(self.transactions.len())));
        for transaction in &self.transactions {
            raw.extend_from_slice(transaction.as_ref()?);
        }
        Some(Bytes::from(raw))
    }
}

impl Sync {
    /// Whether compact blocks are of use here: there is a pool to fill them from, and wtxids to find what is in it.
    pub(super) fn takes_compact(&self) -> bool {
        self.config.compact_blocks && self.config.transactions && self.params.segwit
    }

    /// Whether `block` is asked of `peer` in its compact form: it is the next one, and the pool may have what is in it.
    pub(super) fn wants_compact(&self, peer: PeerId, blocks: &[Id]) -> bool {
        let [block] = blocks else { return false };
        self.takes_compact()
            && self.was_synced
            && self.tree.node(*block).parent == self.tree.tip_id()
            && !self.whole_only.contains(block)
            && self
                .peers
                .get(&peer)
                .is_some_and(|session| session.sends_compact)
    }

    /// A peer told which compact blocks it sends.
    pub(super) fn on_send_compact(&mut self, peer: PeerId, version: u64) {
        if let Some(session) = self.peers.get_mut(&peer)
            && version == COMPACT_VERSION
        {
            session.sends_compact = true;
        }
    }

    /// A compact block: one that was asked for, or an announcement.
    pub(super) fn on_compact_block(
        &mut self,
        peer: PeerId,
        compact: &HeaderAndShortIds,
        now: Moment,
    ) {
        let hash = compact.header.block_hash();
        let expected = self.tree.id(&hash).filter(|block| {
            // Put together wrongly once, it is waited for whole: else who answers with short ids again is never blamed.
            !self.whole_only.contains(block)
                && self
                    .peers
                    .get(&peer)
                    .is_some_and(|session| session.in_flight.contains(block))
        });
        let Some(block) = expected else {
            // Of a peer that sends them unasked; its header is as good as any.
            self.on_headers(peer, &[compact.header], now);
            return;
        };
        let session = self.peers.get(&peer);
        let begun = session.and_then(|session| session.partial.as_ref());
        if begun.is_some_and(|partial| partial.is_of(block)) {
            // Said again it is no progress, and must not count as any.
            return;
        }
        let Some(partial) = Partial::new(block, compact) else {
            self.drop_peer(peer, DropReason::MalformedCompactBlock, now);
            return;
        };
        if let Some(session) = self.peers.get_mut(&peer) {
            session.last_block = now;
            session.partial = Some(Box::new(partial));
        }
        self.outputs.push_back(Output::Compact {
            peer,
            hash,
            wanted: ShortIds {
                keys: ShortId::calculate_siphash_keys(&compact.header, compact.nonce),
                ids: compact.short_ids.clone(),
            },
        });
    }

    /// What the pool has of a compact block: for each short id, in their order, the serialised transaction or nothing.
    /// Two transactions with the same short id count as nothing.
    pub fn compact_found(
        &mut self,
        peer: PeerId,
        hash: BlockHash,
        found: Vec<Option<Bytes>>,
        now: Moment,
    ) {
        self.on_compact_found(peer, hash, found, now);
        self.pump(now);
    }

    fn on_compact_found(
        &mut self,
        peer: PeerId,
        hash: BlockHash,
        found: Vec<Option<Bytes>>,
        now: Moment,
    ) {
        let block = self.tree.id(&hash);
        let Some(session) = self.peers.get_mut(&peer) else {
            return;
        };
        let Some(partial) = &mut session.partial else {
            return;
        };
        if Some(partial.block) != block || partial.filled {
            return;
        }
        let count = found.len();
        let had = found.iter().flatten().count();
        partial.filled = true;
        partial.fill(found);
        let missing = partial.missing();
        let addr = session.peer.addr();
        self.event(
            addr,
            "compact-block",
            format!("{hash} {had} of {count} from the pool"),
        );
        if missing.is_empty() {
            self.assemble(peer, now);
        } else {
            self.send(
                peer,
                &Message::GetBlockTxn(Box::new(BlockTransactionsRequest {
                    block_hash: hash,
                    indexes: missing,
                })),
            );
        }
    }

    /// The transactions of a compact block that the pool did not have.
    pub(super) fn on_block_transactions(
        &mut self,
        peer: PeerId,
        answer: &BlockTransactions,
        now: Moment,
    ) {
        let block = self.tree.id(&answer.block_hash);
        let Some(session) = self.peers.get_mut(&peer) else {
            return;
        };
        // Late: the block came from another.
        let Some(partial) = &mut session.partial else {
            return;
        };
        if Some(partial.block) != block || !partial.filled {
            return;
        }
        let transactions = answer.transactions.iter();
        let raw = |transaction: &Transaction| Some(Bytes::from(serialize(transaction)));
        if partial.fill(transactions.map(raw)) {
            self.assemble(peer, now);
        } else {
            self.drop_peer(peer, DropReason::MalformedCompactBlock, now);
        }
    }

    fn assemble(&mut self, peer: PeerId, now: Moment) {
        let Some(partial) = self
            .peers
            .get_mut(&peer)
            .and_then(|session| session.partial.take())
        else {
            return;
        };
        let Some(raw) = partial.assemble() else {
            return;
        };
        // Once only: if this one turns out to be wrong, it was a collision, and the whole block settles it.
        const REMEMBERED: usize = 32;
        if self.whole_only.len() >= REMEMBERED {
            self.whole_only.pop_front();
        }
        self.whole_only.push_back(partial.block);
        self.take_block(peer, raw, true, now);
    }
}
