//! The chain that is measured on: a block file, or one that the devnet mines.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use bitcoin::p2p::Magic;
use blockmill::frame::Frame;
use bytes::Bytes;
use devnet::blockfile::{self, RawBlock};
use devnet::{Config, Devnet, Mining};

/// Blocks that are mined where there is no file, and payments in each.
const MINED: (u32, usize) = (160, 400);
/// The hashes that Bitcoin Core printed for the chain of `make_chain.py OUT 700 1700 20000`: height, tip, muhash.
const KNOWN: (u32, &str, &str) = (
    700,
    "7692675898d2bc9bde3b83856737700ecf4fcacf894a7f28277e37401a047f07",
    "2075b5f7f47cc6776f9430ef54d53022fce2d7a4049497f90594e14f61078f16",
);

/// A regtest chain from height 1 on.
pub struct Chain {
    pub path: PathBuf,
    pub blocks: Vec<Bytes>,
    pub transactions: usize,
    pub inputs: usize,
    pub outputs: usize,
    /// Bytes of all blocks.
    pub bytes: usize,
    /// Whether we mined it.
    pub mined: bool,
    /// What the coin set after the last block must hash to, where somebody else has computed it.
    pub muhash: Option<String>,
    /// Transactions up to each height, the coinbases too.
    pub until: Vec<usize>,
}

impl Chain {
    /// Reads `file`, or mines a chain into `folder`.
    pub fn find(file: Option<&Path>, folder: &Path) -> Result<Self> {
        match file {
            Some(path) => Self::read(path.to_owned(), None),
            None => {
                let path = folder.join("mined.dat");
                let muhash = mine(&path)?;
                Self::read(path, Some(muhash))
            }
        }
    }

    fn read(path: PathBuf, mined: Option<String>) -> Result<Self> {
        let raw = blockfile::read(&path, Magic::REGTEST)?;
        let mut chain = Self {
            blocks: raw
                .iter()
                .map(|block| Bytes::copy_from_slice(block.bytes()))
                .collect(),
            path,
            transactions: 0,
            inputs: 0,
            outputs: 0,
            bytes: 0,
            mined: mined.is_some(),
            muhash: mined,
            until: vec![0],
        };
        let first = chain.blocks.first().cloned();
        let first = first.map(Frame::decode_without_txids).transpose()?;
        if first.is_some_and(|frame| frame.header.prev_blockhash == BlockHash::all_zeros()) {
            // The host has the genesis block without anybody's help.
            chain.blocks.remove(0);
            chain.transactions = 1;
            chain.until = vec![1];
        }
        let mut tip = String::new();
        for (height, block) in (1..).zip(&chain.blocks) {
            let frame = Frame::decode_without_txids(block.clone())
                .with_context(|| format!("block {height} cannot be read"))?;
            chain.transactions += frame.tx_count();
            chain.inputs += frame.columns.inputs.prev_vouts.len();
            chain.outputs += frame.columns.outputs.values.len();
            chain.bytes += block.len();
            chain.until.push(chain.transactions);
            tip = frame.hash.to_string();
        }
        ensure!(
            !chain.blocks.is_empty(),
            "{} has no blocks",
            chain.path.display()
        );
        let (height, hash, muhash) = KNOWN;
        if chain.height() == height && tip == hash {
            chain.muhash = Some(muhash.to_owned());
        }
        Ok(chain)
    }

    /// Height of the last block.
    pub fn height(&self) -> u32 {
        self.blocks.len() as u32
    }
}

/// The file of a block of mainnet, where there are test data: in the folder `BLOCKMILL_TEST_DATA`, or beside the workspace.
pub fn real(target: &Path, height: u32) -> Option<PathBuf> {
    let folder = match std::env::var_os("BLOCKMILL_TEST_DATA") {
        Some(folder) => PathBuf::from(folder),
        None => target.parent()?.parent()?.join("shared/data"),
    };
    let path = folder.join(format!("blocks/mainnet-{height}.raw"));
    path.exists().then_some(path)
}

/// Mines a chain into `path`; returns its muhash as the devnet computes it.
fn mine(path: &Path) -> Result<String> {
    let (blocks, txs_per_block) = MINED;
    println!("no chain given: the devnet mines {blocks} blocks");
    let defaults = Config::default();
    let devnet = Devnet::start(Config {
        seed: 700,
        mining: Mining {
            txs_per_block,
            ..defaults.mining.clone()
        },
        ..defaults
    })?;
    devnet.mine(blocks)?;
    let muhash = devnet.utxo_set()?.muhash;
    let state = devnet.node().state();
    let made: Vec<RawBlock> = (1..=blocks)
        .filter_map(|height| state.chain().block_at(height).cloned())
        .collect();
    drop(state);
    blockfile::write(path, Magic::REGTEST, &made)?;
    devnet.stop();
    Ok(muhash)
}
