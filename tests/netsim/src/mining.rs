//! Regtest blocks, whose proof of work takes two tries.

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::consensus::encode::{VarInt, serialize};
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::script::Builder;
use bitcoin::transaction::Version as TxVersion;
use bitcoin::{
    Amount, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut,
    Txid, Witness, merkle_tree,
};

/// Bits that every second hash meets.
const BITS: u32 = 0x207f_ffff;
/// Seconds from one block to the next, where nobody says another.
pub const SPACING: u32 = 600;

/// A header on top of `parent`, with its proof of work.
pub fn header(parent: &Header, time: u32, merkle_root: TxMerkleNode) -> Header {
    let mut header = Header {
        version: Version::from_consensus(0x2000_0000),
        prev_blockhash: parent.block_hash(),
        merkle_root,
        time,
        bits: CompactTarget::from_consensus(BITS),
        nonce: 0,
    };
    while !header.target().is_met_by(header.block_hash()) {
        header.nonce += 1;
    }
    header
}

/// `count` headers on top of `parent` that no block belongs to; `salt` makes them unlike others.
pub fn headers(parent: &Header, count: usize, salt: u64) -> Vec<Header> {
    let mut headers: Vec<Header> = Vec::with_capacity(count);
    let mut parent = *parent;
    let root =
        TxMerkleNode::from_byte_array(sha256d::Hash::hash(&salt.to_le_bytes()).to_byte_array());
    for _ in 0..count {
        let next = header(&parent, parent.time + SPACING, root);
        headers.push(next);
        parent = next;
    }
    headers
}

/// A block of a coinbase with `padding` bytes of data, and of these transactions: its header, and all of it serialised.
pub fn block(
    parent: &Header,
    height: u32,
    time: u32,
    salt: u64,
    padding: usize,
    transactions: &[Transaction],
) -> (Header, Vec<u8>) {
    let script = Builder::new()
        .push_int(i64::from(height))
        .push_slice(salt.to_le_bytes())
        .into_script();
    let mut output = vec![TxOut {
        value: Amount::from_sat(0),
        script_pubkey: ScriptBuf::from_bytes(vec![0x51]),
    }];
    output.extend((0..padding / 10_000).map(|_| TxOut {
        value: Amount::ZERO,
        script_pubkey: ScriptBuf::from_bytes(vec![0x6a; 10_000]),
    }));
    let coinbase = transaction(OutPoint::null(), script, output);
    let all = || std::iter::once(&coinbase).chain(transactions);
    let hashes = all().map(|transaction| transaction.compute_txid().to_raw_hash());
    let root = merkle_tree::calculate_root(hashes).map(TxMerkleNode::from_raw_hash);
    let header = header(parent, time, root.unwrap_or(TxMerkleNode::all_zeros()));
    let mut raw = serialize(&header);
    raw.extend(serialize(&VarInt::from(all().count())));
    all().for_each(|transaction| raw.extend(serialize(transaction)));
    (header, raw)
}

/// A transaction that spends an output of nobody.
pub fn payment(number: u64) -> Transaction {
    let txid = Txid::from_byte_array(sha256d::Hash::hash(&number.to_le_bytes()).to_byte_array());
    let output = TxOut {
        value: Amount::from_sat(1_000),
        script_pubkey: ScriptBuf::from_bytes(vec![0x51; 30]),
    };
    transaction(OutPoint::new(txid, 0), ScriptBuf::new(), vec![output])
}

fn transaction(spent: OutPoint, script: ScriptBuf, output: Vec<TxOut>) -> Transaction {
    Transaction {
        version: TxVersion::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: spent,
            script_sig: script,
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output,
    }
}
