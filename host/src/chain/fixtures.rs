//! Blocks and headers for the tests: real ones from the data folder, and regtest ones mined here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::ops::Range;
use std::path::PathBuf;

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::script::Builder;
use bitcoin::transaction::Version as TxVersion;
use bitcoin::{
    Amount, Block, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode,
    TxOut, Witness,
};

use super::block_check::{BlockView, height_script, merkle_root};

/// A file of the data folder; `None`, and a line that says so, where it is not there.
pub(crate) fn path(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("BLOCKMILL_TEST_DATA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data")),
        PathBuf::from,
    );
    let path = folder.join(name);
    if path.exists() {
        return Some(path);
    }
    println!(
        "skipped: {} is not there (BLOCKMILL_TEST_DATA names the folder)",
        path.display()
    );
    None
}

pub(crate) fn bytes(name: &str) -> Option<Vec<u8>> {
    path(name).map(|path| std::fs::read(path).unwrap())
}

/// The headers of a file of 80-byte headers.
pub(crate) fn headers(name: &str) -> Option<Vec<Header>> {
    bytes(name).map(|bytes| {
        bytes
            .chunks_exact(80)
            .map(|header| deserialize(header).unwrap())
            .collect()
    })
}

/// The blocks of a file in `blk*.dat` framing.
pub(crate) fn blocks(name: &str) -> Option<Vec<Vec<u8>>> {
    let bytes = bytes(name)?;
    let mut rest = bytes.as_slice();
    let mut blocks = Vec::new();
    while rest.len() >= 8 {
        let length = u32::from_le_bytes(rest[4..8].try_into().unwrap()) as usize;
        blocks.push(rest[8..8 + length].to_vec());
        rest = &rest[8 + length..];
    }
    Some(blocks)
}

/// Regtest bits, which a hash meets every second time.
pub(crate) const REGTEST_BITS: u32 = 0x207f_ffff;

/// A header on top of `parent` that meets its target.
pub(crate) fn mine_header(parent: &Header, change: impl FnOnce(&mut Header)) -> Header {
    let mut header = Header {
        version: Version::from_consensus(0x2000_0000),
        prev_blockhash: parent.block_hash(),
        merkle_root: TxMerkleNode::all_zeros(),
        time: parent.time + 600,
        bits: CompactTarget::from_consensus(REGTEST_BITS),
        nonce: 0,
    };
    change(&mut header);
    mine(&mut header);
    header
}

/// Finds a nonce.
pub(crate) fn mine(header: &mut Header) {
    let target = header.target();
    while !target.is_met_by(header.block_hash()) {
        header.nonce += 1;
    }
}

/// A coinbase for `height`; `salt` makes it unlike others of that height.
pub(crate) fn coinbase(height: u32, salt: u32) -> Transaction {
    let script = [
        height_script(height),
        Builder::new()
            .push_int(i64::from(salt))
            .push_int(7)
            .into_bytes(),
    ]
    .concat();
    Transaction {
        version: TxVersion::ONE,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: ScriptBuf::from_bytes(script),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut {
            value: Amount::from_sat(50_0000_0000),
            script_pubkey: ScriptBuf::from_bytes(vec![0x51]),
        }],
    }
}

/// A transaction that spends output `n` of a txid that nobody has.
pub(crate) fn spend(n: u32) -> Transaction {
    Transaction {
        version: TxVersion::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint {
                txid: bitcoin::Txid::from_byte_array([7; 32]),
                vout: n,
            },
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut {
            value: Amount::from_sat(1_000),
            script_pubkey: ScriptBuf::from_bytes(vec![0x51; 30]),
        }],
    }
}

/// A regtest block of these transactions, with a right merkle root and proof of work.
pub(crate) fn block(parent: &Header, transactions: Vec<Transaction>) -> Block {
    let mut block = Block {
        header: mine_header(parent, |_| {}),
        txdata: transactions,
    };
    seal(&mut block);
    block
}

/// Puts the merkle root right and mines.
pub(crate) fn seal(block: &mut Block) {
    let leaves = block
        .txdata
        .iter()
        .map(|tx| tx.compute_txid().to_byte_array())
        .collect();
    block.header.merkle_root = TxMerkleNode::from_byte_array(merkle_root(leaves).root);
    mine(&mut block.header);
}

/// Puts a witness commitment into the coinbase, and seals.
pub(crate) fn commit(block: &mut Block) {
    block.txdata[0].input[0].witness = Witness::from_slice(&[[0u8; 32]]);
    let leaves = std::iter::once([0; 32])
        .chain(
            block.txdata[1..]
                .iter()
                .map(|tx| tx.compute_wtxid().to_byte_array()),
        )
        .collect();
    let root = merkle_root(leaves).root;
    let commitment = sha256d::Hash::hash(&[root, [0; 32]].concat()).to_byte_array();
    let script = [&[0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed][..], &commitment].concat();
    let output = TxOut {
        value: Amount::ZERO,
        script_pubkey: ScriptBuf::from_bytes(script),
    };
    block.txdata[0].output.push(output);
    seal(block);
}

/// A chain of regtest blocks on top of `parent`, each with a coinbase and a spend.
pub(crate) fn chain(parent: &Header, parent_height: u32, count: u32, salt: u32) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for n in 0..count {
        let parent = blocks.last().map_or(*parent, |block| block.header);
        let height = parent_height + 1 + n;
        blocks.push(block(&parent, vec![coinbase(height, salt), spend(height)]));
    }
    blocks
}

/// A `bitcoin::Block` as the checks read it.
pub(crate) struct View {
    block: Block,
    inputs: Vec<(usize, usize)>,
    outputs: Vec<(usize, usize)>,
    prev_txids: Vec<[u8; 32]>,
}

impl View {
    pub(crate) fn new(block: Block) -> View {
        let (mut inputs, mut outputs, mut prev_txids) = (Vec::new(), Vec::new(), Vec::new());
        for (n, tx) in block.txdata.iter().enumerate() {
            inputs.extend((0..tx.input.len()).map(|input| (n, input)));
            outputs.extend((0..tx.output.len()).map(|output| (n, output)));
            prev_txids.extend(
                tx.input
                    .iter()
                    .map(|input| input.previous_output.txid.to_byte_array()),
            );
        }
        View {
            block,
            inputs,
            outputs,
            prev_txids,
        }
    }

    pub(crate) fn decode(raw: &[u8]) -> View {
        View::new(deserialize(raw).unwrap())
    }

    fn input(&self, n: usize) -> &TxIn {
        let (tx, input) = self.inputs[n];
        &self.block.txdata[tx].input[input]
    }

    fn output(&self, n: usize) -> &TxOut {
        let (tx, output) = self.outputs[n];
        &self.block.txdata[tx].output[output]
    }
}

impl BlockView for View {
    fn header(&self) -> &Header {
        &self.block.header
    }
    fn tx_count(&self) -> usize {
        self.block.txdata.len()
    }
    fn txid(&self, tx: usize) -> [u8; 32] {
        self.block.txdata[tx].compute_txid().to_byte_array()
    }
    fn wtxid(&self, tx: usize) -> [u8; 32] {
        self.block.txdata[tx].compute_wtxid().to_byte_array()
    }
    fn tx_has_witness(&self, tx: usize) -> bool {
        self.block.txdata[tx]
            .input
            .iter()
            .any(|input| !input.witness.is_empty())
    }
    fn tx_total_size(&self, tx: usize) -> usize {
        self.block.txdata[tx].total_size()
    }
    fn tx_stripped_size(&self, tx: usize) -> usize {
        self.block.txdata[tx].base_size()
    }
    fn version(&self, tx: usize) -> u32 {
        self.block.txdata[tx].version.0.cast_unsigned()
    }
    fn lock_time(&self, tx: usize) -> u32 {
        self.block.txdata[tx].lock_time.to_consensus_u32()
    }
    fn inputs(&self, tx: usize) -> Range<usize> {
        let start = self.inputs.partition_point(|(at, _)| *at < tx);
        start..start + self.block.txdata[tx].input.len()
    }
    fn prev_txid(&self, input: usize) -> &[u8; 32] {
        &self.prev_txids[input]
    }
    fn prev_vout(&self, input: usize) -> u32 {
        self.input(input).previous_output.vout
    }
    fn sequence(&self, input: usize) -> u32 {
        self.input(input).sequence.0
    }
    fn script_sig(&self, input: usize) -> &[u8] {
        self.input(input).script_sig.as_bytes()
    }
    fn outputs(&self, tx: usize) -> Range<usize> {
        let start = self.outputs.partition_point(|(at, _)| *at < tx);
        start..start + self.block.txdata[tx].output.len()
    }
    fn value(&self, output: usize) -> u64 {
        self.output(output).value.to_sat()
    }
    fn script_pubkey(&self, output: usize) -> &[u8] {
        self.output(output).script_pubkey.as_bytes()
    }
    fn coinbase_witness_reserved(&self) -> Option<&[u8]> {
        let witness = &self.block.txdata[0].input[0].witness;
        if witness.len() == 1 {
            witness.nth(0)
        } else {
            None
        }
    }
    fn size(&self) -> usize {
        self.block.total_size()
    }
}

pub(crate) fn raw(block: &Block) -> Vec<u8> {
    serialize(block)
}
