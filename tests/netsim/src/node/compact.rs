//! Blocks as the short ids of their transactions (BIP152, version 2, low bandwidth), given and spoiled.

use bitcoin::bip152::{
    BlockTransactions, BlockTransactionsRequest, HeaderAndShortIds, PrefilledTransaction, ShortId,
};
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::{Block, BlockHash, Transaction};
use blockmill::wire::message::Message;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{Node, lies};
use crate::kind::Kind;
use crate::world::{Mined, World};

/// Deeper blocks are sent whole, as Core does (`MAX_CMPCTBLOCK_DEPTH`).
const DEPTH: u32 = 5;

impl Node {
    /// What it says after the handshake: that it sends compact blocks when it is asked for them.
    pub(super) fn offer_compact(&mut self) {
        if self.compact {
            let (announce, version) = (false, 2);
            self.say(&Message::SendCmpct { announce, version });
        }
    }

    /// Answers a question for a block in its compact form; false when it does not have it.
    pub(super) fn give_compact(
        &mut self,
        hash: &BlockHash,
        world: &World,
        chance: &mut ChaCha8Rng,
    ) -> bool {
        let Some(mined) = world.find(self.side(world), self.height, hash) else {
            return false;
        };
        if mined.height + DEPTH < self.height {
            self.say(&Message::Block(mined.raw.clone()));
            return true;
        }
        let Some(mut compact) = compact(mined, chance.random()) else {
            return false;
        };
        self.spoiled += u64::from(self.kind.spoils_compact());
        match self.kind {
            Kind::Scrambler => self.scramble(&mut compact, chance),
            // So that something is missing.
            Kind::Swapper | Kind::Withholder => hide_coinbase(&mut compact),
            Kind::Miscounter if !miscount(&mut compact, chance) => {
                let mut payload = serialize(&compact.header);
                payload.extend(compact.nonce.to_le_bytes());
                payload.extend(lies::ENDLESS);
                self.transport.send("cmpctblock", payload);
                return true;
            }
            _ => {}
        }
        self.compact_sent = Some(*hash);
        self.say(&Message::CmpctBlock(Box::new(compact)));
        true
    }

    /// Answers a question for transactions of a compact block.
    pub(super) fn give_transactions(
        &mut self,
        request: &BlockTransactionsRequest,
        world: &World,
        chance: &mut ChaCha8Rng,
    ) {
        let side = self.side(world);
        let block = world.find(side, self.height, &request.block_hash);
        let Some(block) = block.and_then(|mined| deserialize::<Block>(&mined.raw).ok()) else {
            return;
        };
        let asked = request.indexes.iter().filter_map(|place| {
            let place = usize::try_from(*place).ok()?;
            block.txdata.get(place).cloned()
        });
        let mut transactions: Vec<Transaction> = asked.collect();
        match self.kind {
            Kind::Withholder => return,
            Kind::Swapper if chance.random_range(0..3) == 0 => {
                transactions.pop();
            }
            Kind::Swapper if chance.random_range(0..2) == 0 => {
                transactions.extend(block.txdata.first().cloned());
            }
            Kind::Swapper | Kind::Scrambler => {
                for transaction in &mut transactions {
                    if let Some(other) = self.any_payment(chance) {
                        *transaction = other;
                    }
                }
            }
            _ => {}
        }
        self.say(&Message::BlockTxn(Box::new(BlockTransactions {
            block_hash: request.block_hash,
            transactions,
        })));
    }

    /// Puts short ids of other transactions, which the host most likely has, in the place of the block's.
    fn scramble(&self, compact: &mut HeaderAndShortIds, chance: &mut ChaCha8Rng) {
        let keys = ShortId::calculate_siphash_keys(&compact.header, compact.nonce);
        let count = compact.short_ids.len().max(1);
        let others = (0..count).map(|_| match self.any_payment(chance) {
            Some(payment) => ShortId::with_siphash_keys(&payment.compute_wtxid(), keys),
            None => ShortId::from(chance.random::<[u8; 6]>()),
        });
        compact.short_ids = others.collect();
    }

    fn any_payment(&self, chance: &mut ChaCha8Rng) -> Option<Transaction> {
        if self.pool.is_empty() {
            return None;
        }
        let place = chance.random_range(0..self.pool.len());
        self.pool.values().nth(place).cloned()
    }
}

fn compact(mined: &Mined, nonce: u64) -> Option<HeaderAndShortIds> {
    let block: Block = deserialize(&mined.raw).ok()?;
    HeaderAndShortIds::from_block(&block, nonce, 2, &[]).ok()
}

/// The coinbase as a short id, which no pool has.
fn hide_coinbase(compact: &mut HeaderAndShortIds) {
    let keys = ShortId::calculate_siphash_keys(&compact.header, compact.nonce);
    let hidden = std::mem::take(&mut compact.prefilled_txs);
    let ids = hidden
        .iter()
        .map(|prefilled| ShortId::with_siphash_keys(&prefilled.tx.compute_wtxid(), keys));
    compact.short_ids = ids.chain(std::mem::take(&mut compact.short_ids)).collect();
}

/// More or fewer than there are; false where the list of short ids is to be one without end.
fn miscount(compact: &mut HeaderAndShortIds, chance: &mut ChaCha8Rng) -> bool {
    match chance.random_range(0..4) {
        0 => {
            let beyond = compact.short_ids.len() + compact.prefilled_txs.len();
            if let Some(prefilled) = compact.prefilled_txs.first_mut() {
                prefilled.idx = u16::try_from(beyond).unwrap_or(u16::MAX);
            }
        }
        // One more, as far behind as can be said.
        1 => {
            let again = compact.prefilled_txs.first().map(|prefilled| {
                let tx = prefilled.tx.clone();
                PrefilledTransaction { idx: u16::MAX, tx }
            });
            compact.prefilled_txs.extend(again);
        }
        2 => {
            compact.short_ids.clear();
            compact.prefilled_txs.clear();
        }
        _ => return false,
    }
    true
}
