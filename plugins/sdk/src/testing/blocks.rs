//! Blocks to columns, with the `bitcoin` crate, and the files that hold test data.

use std::path::{Path, PathBuf};

use bitcoin::consensus::encode::deserialize;
use bitcoin::hashes::Hash;
use bitcoin::{Block, Transaction};

use crate::{Pieces, WantedColumns, wire};

/// The folder of test data: `BLOCKMILL_TEST_DATA`, or `../shared/data` beside the workspace. None, with one line that says
/// so, where it is missing: a test then returns.
pub fn data() -> Option<PathBuf> {
    let folder = match std::env::var_os("BLOCKMILL_TEST_DATA") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
    };
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: no test data at {}", folder.display());
    None
}

/// The blocks of a file in `blk*.dat` framing: magic, length (u32 LE), block.
pub fn read_framed(path: &Path) -> Vec<Block> {
    let bytes = std::fs::read(path).expect("the file can be read");
    let mut rest = bytes.as_slice();
    let mut blocks = Vec::new();
    while rest.len() > 8 {
        let length = u32::from_le_bytes(rest[4..8].try_into().unwrap()) as usize;
        blocks.push(deserialize(&rest[8..8 + length]).expect("a block"));
        rest = &rest[8 + length..];
    }
    blocks
}

/// The block in a file.
pub fn read_raw(path: &Path) -> Block {
    deserialize(&std::fs::read(path).expect("the file can be read")).expect("a block")
}

/// The columns of transactions, those that `wanted` names; `spent` is put in as it is.
pub fn columns(
    transactions: &[Transaction],
    wanted: WantedColumns,
    spent: Option<wire::Spent>,
) -> wire::Columns {
    let mut t = wire::Transactions {
        txids: vec![],
        versions: vec![],
        lock_times: vec![],
        sizes: vec![],
        weights: vec![],
        input_ends: vec![],
        output_ends: vec![],
    };
    let mut i = wire::Inputs {
        prev_txids: vec![],
        prev_vouts: vec![],
        sequences: vec![],
        script_ends: vec![],
        scripts: vec![],
    };
    let mut w = wire::Witnesses {
        item_ends: vec![],
        ends: vec![],
        items: vec![],
    };
    let mut o = wire::Outputs {
        values: vec![],
        script_ends: vec![],
        scripts: vec![],
    };
    for transaction in transactions {
        t.txids.extend(transaction.compute_txid().to_byte_array());
        t.versions.push(transaction.version.0 as u32);
        t.lock_times.push(transaction.lock_time.to_consensus_u32());
        t.sizes.push(transaction.total_size() as u32);
        t.weights.push(transaction.weight().to_wu() as u32);
        for input in &transaction.input {
            i.prev_txids
                .extend(input.previous_output.txid.to_byte_array());
            i.prev_vouts.push(input.previous_output.vout);
            i.sequences.push(input.sequence.0);
            i.scripts.extend(input.script_sig.as_bytes());
            i.script_ends.push(i.scripts.len() as u32);
            for item in &input.witness {
                w.items.extend(item);
                w.ends.push(w.items.len() as u32);
            }
            w.item_ends.push(w.ends.len() as u32);
        }
        for output in &transaction.output {
            o.values.push(output.value.to_sat());
            o.scripts.extend(output.script_pubkey.as_bytes());
            o.script_ends.push(o.scripts.len() as u32);
        }
        t.input_ends.push(i.prev_vouts.len() as u32);
        t.output_ends.push(o.values.len() as u32);
    }
    wire::Columns {
        transactions: t,
        inputs: wanted.contains(WantedColumns::INPUTS).then_some(i),
        witnesses: wanted.contains(WantedColumns::WITNESSES).then_some(w),
        outputs: wanted.contains(WantedColumns::OUTPUTS).then_some(o),
        spent: spent.filter(|_| wanted.contains(WantedColumns::SPENT)),
    }
}

/// The `spent` column out of single coins: value, script, height, coinbase.
pub fn spent(coins: &[(u64, Vec<u8>, u32, bool)]) -> wire::Spent {
    let scripts: Pieces = coins.iter().map(|coin| &coin.1).collect();
    wire::Spent {
        values: coins.iter().map(|coin| coin.0).collect(),
        script_ends: scripts.ends,
        scripts: scripts.bytes,
        heights: coins.iter().map(|coin| coin.2).collect(),
        coinbases: coins.iter().map(|coin| u8::from(coin.3)).collect(),
    }
}
