//! Small blocks made up for a test. They have no proof of work and no valid scripts: plugins see neither.

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn,
    TxMerkleNode, TxOut, Txid, Witness, transaction,
};

/// A block hash made of one byte.
pub fn hash(byte: u8) -> BlockHash {
    BlockHash::from_byte_array([byte; 32])
}

/// A transaction that spends `inputs` and pays `outputs` (sat, script).
pub fn transaction(inputs: &[(Txid, u32)], outputs: &[(u64, &[u8])]) -> Transaction {
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: inputs
            .iter()
            .map(|(txid, vout)| TxIn {
                previous_output: OutPoint {
                    txid: *txid,
                    vout: *vout,
                },
                script_sig: ScriptBuf::new(),
                sequence: Sequence::MAX,
                witness: Witness::new(),
            })
            .collect(),
        output: outputs
            .iter()
            .map(|(value, script)| TxOut {
                value: Amount::from_sat(*value),
                script_pubkey: ScriptBuf::from_bytes(script.to_vec()),
            })
            .collect(),
    }
}

/// A coinbase for a height that pays `value` sat to the script `51` (OP_TRUE).
pub fn coinbase(height: u32, value: u64) -> Transaction {
    let mut coinbase = transaction(&[(Txid::all_zeros(), u32::MAX)], &[(value, &[0x51])]);
    coinbase.input[0].script_sig =
        ScriptBuf::from_bytes([&[4], height.to_le_bytes().as_slice()].concat());
    coinbase
}

/// A block on top of `previous` with a coinbase of `height` and `value`, then `transactions`.
pub fn block(
    previous: BlockHash,
    height: u32,
    value: u64,
    transactions: Vec<Transaction>,
) -> Block {
    let mut txdata = vec![coinbase(height, value)];
    txdata.extend(transactions);
    block_of(previous, height, txdata)
}

/// A block on top of `previous` with exactly these transactions.
pub fn block_of(previous: BlockHash, height: u32, txdata: Vec<Transaction>) -> Block {
    Block {
        header: Header {
            version: Version::TWO,
            prev_blockhash: previous,
            merkle_root: TxMerkleNode::all_zeros(),
            time: 1_700_000_000 + height * 600,
            bits: CompactTarget::from_consensus(0x207f_ffff),
            nonce: height,
        },
        txdata,
    }
}
