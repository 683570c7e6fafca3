//! A small regtest chain out of nothing, the same each time.
//!
//! The blocks keep the rules that the host and the plugin with the role `coins` check: proof of work, merkle root, witness
//! commitment, maturity, no inflation. Scripts and witnesses have the shapes of real ones and random content: nobody here
//! runs scripts, and signing would take longer than everything else.

use anyhow::{Context, Result};
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::script::{Builder, PushBytesBuf, ScriptBuf};
use bitcoin::{
    Amount, Block, CompactTarget, OutPoint, Sequence, Target, Transaction, TxIn, TxMerkleNode,
    TxOut, Witness, WitnessCommitment, WitnessMerkleNode, absolute, merkle_tree, transaction,
};

use crate::network::Params;

/// Blocks before a coinbase may be spent.
const MATURITY: u32 = 100;
/// Payments that a block holds, as far as there are coins.
const PAYMENTS: usize = 40;
/// Outputs of a coinbase.
const REWARDS: usize = 8;
/// Seconds between two blocks.
const SPACING: u32 = 600;
/// The most that a payment pays in fees, sat.
const MAX_FEE: u64 = 20_000;
/// Outputs below this are not made, sat.
const DUST: u64 = 1_000;
/// Before the commitment in the coinbase's output (BIP141): `OP_RETURN`, 36 bytes, `aa21a9ed`.
pub(super) const COMMITMENT_HEAD: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
/// The witness reserved value, which BIP141 leaves free.
const RESERVED: [u8; 32] = [0; 32];

/// Numbers that look random (splitmix64) and are the same each time.
pub(super) struct Numbers(pub u64);

impl Numbers {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend(self.next().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}

/// A kind of output, and of what spends it.
#[derive(Clone, Copy)]
enum Kind {
    Key,
    KeyHash,
    ScriptHash,
    WitnessKeyHash,
    WitnessScriptHash,
    Taproot,
}

struct Coin {
    outpoint: OutPoint,
    value: u64,
    kind: Kind,
    /// The first height at which it may be spent.
    ripe: u32,
}

struct Maker {
    params: &'static Params,
    numbers: Numbers,
    coins: Vec<Coin>,
}

/// The blocks from height 1 on: [`MATURITY`] with a coinbase alone, then `count` with payments.
pub(super) fn chain(params: &'static Params, count: u32) -> Result<Vec<Block>> {
    let mut maker = Maker {
        params,
        numbers: Numbers(7),
        coins: Vec::new(),
    };
    let mut parent = params.genesis_header;
    let last = MATURITY.saturating_add(count);
    let mut blocks = Vec::new();
    for height in 1..=last {
        let payments = if height > MATURITY { PAYMENTS } else { 0 };
        let block = maker.block(height, &parent, payments)?;
        parent = block.header;
        blocks.push(block);
    }
    Ok(blocks)
}

impl Maker {
    fn block(&mut self, height: u32, parent: &Header, payments: usize) -> Result<Block> {
        let mut transactions = Vec::new();
        let mut fees = 0;
        for _ in 0..payments {
            let Some((transaction, fee)) = self.payment(height) else {
                break;
            };
            fees += fee;
            transactions.push(transaction);
        }
        let reward = self.params.subsidy(height) + fees;
        let mut txdata = vec![self.coinbase(height, reward)];
        txdata.extend(transactions);
        let template = Header {
            version: Version::from_consensus(0x2000_0000),
            prev_blockhash: parent.block_hash(),
            merkle_root: TxMerkleNode::all_zeros(),
            time: parent.time + SPACING + self.numbers.below(60) as u32,
            bits: CompactTarget::from_consensus(self.params.pow_limit_bits),
            nonce: 0,
        };
        let mut block = seal(template, txdata)?;
        let target = Target::from_compact(block.header.bits);
        while !target.is_met_by(block.header.block_hash()) {
            block.header.nonce = block.header.nonce.wrapping_add(1);
        }
        if let Some(coinbase) = block.txdata.first() {
            // Its txid is known only now that it commits to the others' witnesses.
            let txid = coinbase.compute_txid();
            for coin in &mut self.coins {
                if coin.outpoint.txid == bitcoin::Txid::all_zeros() {
                    coin.outpoint.txid = txid;
                }
            }
        }
        Ok(block)
    }

    fn coinbase(&mut self, height: u32, reward: u64) -> Transaction {
        let share = reward / REWARDS as u64;
        let output = (0..REWARDS)
            .map(|vout| {
                let value = match vout {
                    0 => reward - share * (REWARDS as u64 - 1),
                    _ => share,
                };
                let (script_pubkey, kind) = self.script();
                self.coins.push(Coin {
                    outpoint: OutPoint::new(bitcoin::Txid::all_zeros(), vout as u32),
                    value,
                    kind,
                    ripe: height + MATURITY,
                });
                TxOut {
                    value: Amount::from_sat(value),
                    script_pubkey,
                }
            })
            .collect();
        Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::null(),
                // BIP34: the height comes first.
                script_sig: Builder::new()
                    .push_int(i64::from(height))
                    .push_slice(b"/blockmill/")
                    .into_script(),
                sequence: Sequence::MAX,
                witness: Witness::from_slice(&[RESERVED]),
            }],
            output,
        }
    }

    /// Spends one to three coins; also such as this block made.
    fn payment(&mut self, height: u32) -> Option<(Transaction, u64)> {
        let mut inputs = Vec::new();
        let mut value = 0;
        for _ in 0..=self.numbers.below(3) {
            let ripe: Vec<usize> = (0..self.coins.len())
                .filter(|&at| self.coins.get(at).is_some_and(|coin| coin.ripe <= height))
                .collect();
            let Some(&at) = ripe.get(self.numbers.below(ripe.len() as u64) as usize) else {
                break;
            };
            let coin = self.coins.swap_remove(at);
            value += coin.value;
            inputs.push(self.input(&coin));
        }
        if inputs.is_empty() {
            return None;
        }
        let fee = (200 + self.numbers.below(MAX_FEE)).min(value);
        let mut left = value - fee;
        let mut output = Vec::new();
        let mut kinds = Vec::new();
        if self.numbers.below(12) == 0 {
            let note = PushBytesBuf::try_from(self.numbers.bytes(20)).ok()?;
            output.push(TxOut {
                value: Amount::ZERO,
                script_pubkey: ScriptBuf::new_op_return(note),
            });
            kinds.push(None);
        }
        while left > 0 && output.len() < 4 {
            let part = match left > 3 * DUST && output.len() < 3 {
                true => DUST + self.numbers.below(left - DUST),
                false => left,
            };
            left -= part;
            let (script_pubkey, kind) = self.script();
            output.push(TxOut {
                value: Amount::from_sat(part),
                script_pubkey,
            });
            kinds.push(Some(kind));
        }
        let transaction = Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: inputs,
            output,
        };
        let txid = transaction.compute_txid();
        for ((vout, kind), output) in (0..).zip(kinds).zip(&transaction.output) {
            if let Some(kind) = kind {
                self.coins.push(Coin {
                    outpoint: OutPoint::new(txid, vout),
                    value: output.value.to_sat(),
                    kind,
                    ripe: height,
                });
            }
        }
        Some((transaction, fee))
    }

    fn input(&mut self, coin: &Coin) -> TxIn {
        let signature = self.numbers.bytes(71);
        let key = [&[2][..], &self.numbers.bytes(32)].concat();
        let push = |parts: &[&[u8]]| {
            let mut script = Vec::new();
            for part in parts {
                // All are shorter than the 76 bytes from which on a push needs more than its length.
                script.push(part.len() as u8);
                script.extend_from_slice(part);
            }
            ScriptBuf::from_bytes(script)
        };
        let (script_sig, witness) = match coin.kind {
            Kind::Key => (push(&[&signature]), vec![]),
            Kind::KeyHash => (push(&[&signature, &key]), vec![]),
            Kind::ScriptHash => {
                let program = [&[0, 20][..], &self.numbers.bytes(20)].concat();
                (push(&[&program]), vec![signature, key])
            }
            Kind::WitnessKeyHash => (ScriptBuf::new(), vec![signature, key]),
            Kind::WitnessScriptHash => {
                let script = [&[33][..], &key, &[0xac]].concat();
                (ScriptBuf::new(), vec![signature, script])
            }
            Kind::Taproot => (ScriptBuf::new(), vec![self.numbers.bytes(64)]),
        };
        TxIn {
            previous_output: coin.outpoint,
            script_sig,
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness: Witness::from_slice(&witness),
        }
    }

    fn script(&mut self) -> (ScriptBuf, Kind) {
        let (head, length, tail, kind): (&[u8], usize, &[u8], Kind) = match self.numbers.below(20) {
            0 => (&[33, 2], 32, &[0xac], Kind::Key),
            1..4 => (&[0x76, 0xa9, 20], 20, &[0x88, 0xac], Kind::KeyHash),
            4..7 => (&[0xa9, 20], 20, &[0x87], Kind::ScriptHash),
            7..14 => (&[0, 20], 20, &[], Kind::WitnessKeyHash),
            14..16 => (&[0, 32], 32, &[], Kind::WitnessScriptHash),
            _ => (&[0x51, 32], 32, &[], Kind::Taproot),
        };
        let script = [head, &self.numbers.bytes(length), tail].concat();
        (ScriptBuf::from_bytes(script), kind)
    }
}

/// A block of these transactions, committed to by its header and its coinbase; its proof of work is not looked for.
pub(super) fn seal(template: Header, mut txdata: Vec<Transaction>) -> Result<Block> {
    let hashes = txdata.iter().enumerate().map(|(at, tx)| match at {
        // The coinbase counts as zero in the witness tree.
        0 => bitcoin::Wtxid::all_zeros().to_raw_hash(),
        _ => tx.compute_wtxid().to_raw_hash(),
    });
    let root = merkle_tree::calculate_root(hashes).context("a block has a coinbase")?;
    if let Some(coinbase) = txdata.first_mut() {
        let reserved = coinbase
            .input
            .first()
            .and_then(|input| input.witness.nth(0));
        if let Some(Ok(reserved)) = reserved.map(<[u8; 32]>::try_from) {
            let root = WitnessMerkleNode::from_raw_hash(root);
            let commitment: WitnessCommitment = Block::compute_witness_commitment(&root, &reserved);
            let mut script = COMMITMENT_HEAD.to_vec();
            script.extend(commitment.to_byte_array());
            coinbase.output.retain(|output| {
                !output
                    .script_pubkey
                    .as_bytes()
                    .starts_with(&COMMITMENT_HEAD)
            });
            coinbase.output.push(TxOut {
                value: Amount::ZERO,
                script_pubkey: ScriptBuf::from_bytes(script),
            });
        }
    }
    let root = merkle_tree::calculate_root(txdata.iter().map(|tx| tx.compute_txid().to_raw_hash()));
    let header = Header {
        merkle_root: TxMerkleNode::from_raw_hash(root.context("a block has a coinbase")?),
        ..template
    };
    Ok(Block { header, txdata })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;
    use crate::network::Network;

    #[test]
    fn the_chain_is_the_same_each_time_and_its_blocks_keep_the_rules() {
        let params = Params::of(Network::Regtest);
        let blocks = chain(params, 12).unwrap();
        assert_eq!(blocks, chain(params, 12).unwrap());
        assert_eq!(blocks.len(), 112);
        let mut parent = params.genesis_hash;
        for block in &blocks {
            assert_eq!(block.header.prev_blockhash, parent);
            block.header.validate_pow(block.header.target()).unwrap();
            assert!(block.check_merkle_root());
            assert!(block.check_witness_commitment());
            parent = block.block_hash();
        }
        let payments: usize = blocks[100..]
            .iter()
            .map(|block| block.txdata.len() - 1)
            .sum();
        assert!(payments > 200, "{payments}");
        assert!(blocks[..100].iter().all(|block| block.txdata.len() == 1));
    }
}
