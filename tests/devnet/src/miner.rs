//! Puts a block together and finds its proof of work.

use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::script::{Builder, ScriptBuf};
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, Sequence, Target, Transaction, TxIn,
    TxMerkleNode, TxOut, Witness, WitnessCommitment, WitnessMerkleNode, absolute, merkle_tree,
    transaction,
};

use crate::signet::Signet;

/// What the coinbase says of who mined it.
const TAG: &[u8; 8] = b"/devnet/";
/// Before the commitment in the coinbase output (BIP141): `OP_RETURN`, 36 bytes, `aa21a9ed`.
const COMMITMENT_HEAD: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
/// The witness reserved value that we use (BIP141 leaves it free).
const RESERVED: [u8; 32] = [0; 32];

/// Everything a block is made from.
#[derive(Debug)]
pub struct Template {
    /// Hash of the parent.
    pub parent: BlockHash,
    /// Its height.
    pub height: u32,
    /// Its time, unix seconds.
    pub time: u32,
    /// Its target.
    pub bits: CompactTarget,
    /// Where the reward goes.
    pub reward_script: ScriptBuf,
    /// Subsidy and fees, sat.
    pub reward: u64,
    /// Sets the coinbase apart from that of any other block at this height.
    pub extra_nonce: u64,
    /// Its other transactions, in order.
    pub transactions: Vec<Transaction>,
}

impl Template {
    /// The block with a nonce that meets the target, solved for a signet. `None` when no nonce does, which on regtest does not
    /// happen, and on a signet hardly ever.
    pub fn mine(self, signet: Option<&Signet>) -> Option<Block> {
        let target = Target::from_compact(self.bits);
        let mut txdata = vec![self.coinbase()];
        txdata.extend(self.transactions);
        commit_witnesses(&mut txdata);
        let root =
            merkle_tree::calculate_root(txdata.iter().map(|tx| tx.compute_txid().to_raw_hash()));
        let header = Header {
            version: Version::from_consensus(0x2000_0000),
            prev_blockhash: self.parent,
            merkle_root: TxMerkleNode::from_raw_hash(root?),
            time: self.time,
            bits: self.bits,
            nonce: 0,
        };
        let mut block = Block { header, txdata };
        if let Some(signet) = signet {
            signet.solve(&mut block)?;
        }
        while !target.is_met_by(block.header.block_hash()) {
            block.header.nonce = block.header.nonce.checked_add(1)?;
        }
        Some(block)
    }

    fn coinbase(&self) -> Transaction {
        // BIP34: the height comes first. The extra nonce keeps the script above the two bytes that are the minimum.
        let script_sig = Builder::new()
            .push_int(i64::from(self.height))
            .push_slice(self.extra_nonce.to_le_bytes())
            .push_slice(TAG)
            .into_script();
        let reward = TxOut {
            value: Amount::from_sat(self.reward),
            script_pubkey: self.reward_script.clone(),
        };
        Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::null(),
                script_sig,
                sequence: Sequence::MAX,
                witness: Witness::from_slice(&[RESERVED]),
            }],
            output: vec![reward],
        }
    }
}

/// Adds the output of the coinbase that commits to all witnesses (BIP141).
fn commit_witnesses(txdata: &mut [Transaction]) {
    // The coinbase counts as zero in the witness tree.
    let hashes = txdata.iter().enumerate().map(|(at, tx)| match at {
        0 => bitcoin::Wtxid::all_zeros().to_raw_hash(),
        _ => tx.compute_wtxid().to_raw_hash(),
    });
    let Some(root) = merkle_tree::calculate_root(hashes) else {
        return;
    };
    let root = WitnessMerkleNode::from_raw_hash(root);
    let commitment: WitnessCommitment = Block::compute_witness_commitment(&root, &RESERVED);
    let mut script = COMMITMENT_HEAD.to_vec();
    script.extend(commitment.to_byte_array());
    if let Some(coinbase) = txdata.first_mut() {
        let script_pubkey = ScriptBuf::from_bytes(script);
        coinbase.output.push(TxOut {
            value: Amount::ZERO,
            script_pubkey,
        });
    }
}

/// A block whose transactions end with a repeated run, so that its merkle root, and with it its header and hash, is that of
/// the true block (CVE-2012-2459). `None` when the count is a power of two: then no such run exists.
pub fn mutate(block: &Block) -> Option<Block> {
    let count = block.txdata.len();
    if count.is_power_of_two() {
        return None;
    }
    // Of 12 = 4·3 transactions the last 4 make a subtree that is last and odd on its level, and is paired with itself.
    let run = 1_usize.checked_shl(count.trailing_zeros())?;
    let mut mutated = block.clone();
    let tail = block.txdata.get(count.checked_sub(run)?..)?;
    mutated.txdata.extend_from_slice(tail);
    Some(mutated)
}

/// A header that differs in its nonce and misses its own target.
pub fn without_work(header: &Header) -> Header {
    let mut bad = *header;
    while bad.target().is_met_by(bad.block_hash()) {
        bad.nonce = bad.nonce.wrapping_add(1);
    }
    bad
}
