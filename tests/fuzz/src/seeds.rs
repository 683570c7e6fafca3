//! Small inputs of the right shape, made of `tests/data/regtest`: where the search for others begins.

mod files;
mod net;

use std::path::Path;

use bitcoin::Block;
use bitcoin::consensus::{deserialize, encode::deserialize_hex};

/// A target, the name of the file in its corpus, and its bytes.
pub type Seed = (&'static str, String, Vec<u8>);

/// All that are made here; what fuzzing found is in the corpus only.
pub fn all() -> Vec<Seed> {
    let mut seeds = net::seeds();
    seeds.extend(files::seeds());
    seeds
}

fn seed(target: &'static str, name: impl Into<String>, parts: &[&[u8]]) -> Seed {
    (target, name.into(), parts.concat())
}

/// Bytes with their number before them, as [`Input::chunk`](crate::Input::chunk) reads them.
fn chunk(bytes: &[u8]) -> Vec<u8> {
    let mut chunk = (bytes.len() as u16).to_le_bytes().to_vec();
    chunk.extend_from_slice(bytes);
    chunk
}

fn regtest(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/regtest");
    std::fs::read(folder.join(name)).expect("it is kept with the source")
}

/// The blocks of `main.dat`, serialised, from height 0.
fn blocks() -> Vec<Vec<u8>> {
    let bytes = regtest("main.dat");
    let mut rest = bytes.as_slice();
    let mut blocks = Vec::new();
    while let Some((length, behind)) = rest.get(4..).and_then(<[u8]>::split_first_chunk::<4>) {
        let (block, behind) = behind.split_at(u32::from_le_bytes(*length) as usize);
        blocks.push(block.to_vec());
        rest = behind;
    }
    blocks
}

/// A block with the smallest payments of one of 141, and its height: its commitment, its root and its proof of work are right.
fn small_block() -> (u32, Vec<u8>) {
    const HEIGHT: usize = 107;
    let mut block: Block = deserialize(&blocks()[HEIGHT]).expect("a block");
    block.txdata[1..].sort_by_key(bitcoin::Transaction::total_size);
    block.txdata.truncate(6);
    let root = block.witness_root().expect("transactions");
    // The coinbase of this chain pays out to many.
    let outputs = std::mem::take(&mut block.txdata[0].output);
    let (commitments, payouts): (Vec<_>, Vec<_>) = outputs
        .into_iter()
        .partition(|output| output.script_pubkey.is_op_return());
    block.txdata[0].output = payouts.into_iter().take(2).chain(commitments).collect();
    let commitment = Block::compute_witness_commitment(&root, &[0; 32]);
    for output in &mut block.txdata[0].output {
        let script = output.script_pubkey.as_bytes();
        if script.starts_with(&[0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed]) {
            let script = [&script[..6], commitment.as_ref()].concat();
            output.script_pubkey = script.into();
        }
    }
    block.header.merkle_root = block.compute_merkle_root().expect("transactions");
    crate::shapes::mine(&mut block.header);
    (HEIGHT as u32, bitcoin::consensus::serialize(&block))
}

/// The transactions of `mempool.hex`, serialised, parents before children.
fn transactions() -> Vec<Vec<u8>> {
    let text = String::from_utf8(regtest("mempool.hex")).expect("hexadecimal");
    text.split_whitespace()
        .map(|hex| {
            let tx: bitcoin::Transaction = deserialize_hex(hex).expect("a transaction");
            bitcoin::consensus::serialize(&tx)
        })
        .collect()
}

/// A block in the frame of a block file.
fn framed(block: &[u8]) -> Vec<u8> {
    let length = (block.len() as u32).to_le_bytes();
    [&crate::shapes::MAGIC, &length[..], block].concat()
}
