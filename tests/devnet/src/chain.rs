//! The block tree and the branch of it that is active.
//!
//! Everything is in memory. Whoever adds blocks decides when the active branch moves ([`Chain::activate`]), so that coins
//! and pool can move with it.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use bitcoin::block::Header;
use bitcoin::constants::genesis_block;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Network, Work};

use crate::blockfile::RawBlock;

/// Headers in one `headers` message (Core: `MAX_HEADERS_RESULTS`).
pub const MAX_HEADERS: usize = 2_000;

/// How many blocks the median time is taken over.
const MEDIAN_TIME_SPAN: u32 = 11;

#[derive(Debug)]
struct Node {
    block: RawBlock,
    height: u32,
    work: Work,
}

/// Blocks by hash, and the active branch by height.
#[derive(Debug)]
pub struct Chain {
    network: Network,
    nodes: HashMap<BlockHash, Node>,
    /// Blocks whose parent has not come yet, by the parent they wait for.
    orphans: HashMap<BlockHash, Vec<RawBlock>>,
    /// Block hashes by height, genesis first.
    active: Vec<BlockHash>,
    /// The block with the most work; the first seen of equals.
    best: BlockHash,
}

impl Chain {
    /// A chain that holds the network's genesis block.
    ///
    /// # Errors
    /// Never in practice: the genesis blocks are constants.
    pub fn new(network: Network) -> Result<Self> {
        let genesis = RawBlock::from_block(&genesis_block(network))?;
        let hash = genesis.hash();
        let work = genesis.header().work();
        let node = Node {
            block: genesis,
            height: 0,
            work,
        };
        Ok(Self {
            network,
            nodes: HashMap::from([(hash, node)]),
            orphans: HashMap::new(),
            active: vec![hash],
            best: hash,
        })
    }

    /// The network whose genesis block this chain starts at.
    pub fn network(&self) -> Network {
        self.network
    }

    /// Adds a block and every waiting orphan that it connects. A known block is passed over.
    ///
    /// # Errors
    /// When a header's proof of work does not meet the target it claims.
    pub fn insert(&mut self, block: RawBlock) -> Result<()> {
        let mut ready = vec![block];
        while let Some(block) = ready.pop() {
            let hash = block.hash();
            if self.nodes.contains_key(&hash) {
                continue;
            }
            let header = *block.header();
            header
                .validate_pow(header.target())
                .with_context(|| format!("block {hash} lacks work"))?;
            let parent = header.prev_blockhash;
            let Some(node) = self.nodes.get(&parent) else {
                self.orphans.entry(parent).or_default().push(block);
                continue;
            };
            let node = Node {
                block,
                height: node.height + 1,
                work: node.work + header.work(),
            };
            if self
                .nodes
                .get(&self.best)
                .is_none_or(|best| node.work > best.work)
            {
                self.best = hash;
            }
            self.nodes.insert(hash, node);
            ready.extend(self.orphans.remove(&hash).unwrap_or_default());
        }
        Ok(())
    }

    /// Blocks that wait for a parent.
    pub fn orphans(&self) -> usize {
        self.orphans.values().map(Vec::len).sum()
    }

    /// The block with the most work, which is not the active tip until [`Chain::activate`] says so.
    pub fn best(&self) -> BlockHash {
        self.best
    }

    /// The ancestor of `hash` at `height`, or `hash` itself when it lies at or below.
    pub fn ancestor(&self, hash: BlockHash, height: u32) -> BlockHash {
        let mut at = hash;
        while let Some(node) = self.nodes.get(&at) {
            if node.height <= height {
                break;
            }
            at = node.block.header().prev_blockhash;
        }
        at
    }

    /// The way from the active branch to `tip`: the height they part at, and the blocks above it, lowest first.
    ///
    /// # Errors
    /// When `tip` is not in the tree.
    pub fn branch_to(&self, tip: BlockHash) -> Result<(u32, Vec<BlockHash>)> {
        let mut above = Vec::new();
        let mut at = tip;
        loop {
            let node = self
                .nodes
                .get(&at)
                .with_context(|| format!("no block {at}"))?;
            if self.hash_at(node.height) == Some(at) {
                above.reverse();
                return Ok((node.height, above));
            }
            above.push(at);
            at = node.block.header().prev_blockhash;
        }
    }

    /// Makes the branch that ends at `tip` the active one.
    ///
    /// # Errors
    /// When `tip` is not in the tree.
    pub fn activate(&mut self, tip: BlockHash) -> Result<()> {
        let (fork, above) = self.branch_to(tip)?;
        self.active
            .truncate(usize::try_from(fork)?.saturating_add(1));
        self.active.extend(above);
        Ok(())
    }

    /// Takes blocks above `height` off the active branch; they stay in the tree.
    ///
    /// # Errors
    /// When the active branch does not reach `height`.
    pub fn rewind(&mut self, height: u32) -> Result<()> {
        ensure!(
            height <= self.height(),
            "cannot rewind to {height}, tip is {}",
            self.height()
        );
        self.active
            .truncate(usize::try_from(height)?.saturating_add(1));
        Ok(())
    }

    /// Height of the active tip.
    pub fn height(&self) -> u32 {
        u32::try_from(self.active.len().saturating_sub(1)).unwrap_or(u32::MAX)
    }

    /// Hash of the active tip.
    pub fn tip(&self) -> BlockHash {
        self.active
            .last()
            .copied()
            .unwrap_or_else(BlockHash::all_zeros)
    }

    /// Hash of the active block at `height`.
    pub fn hash_at(&self, height: u32) -> Option<BlockHash> {
        self.active.get(usize::try_from(height).ok()?).copied()
    }

    /// A block of the tree, on whatever branch.
    pub fn block(&self, hash: BlockHash) -> Option<&RawBlock> {
        self.nodes.get(&hash).map(|node| &node.block)
    }

    /// The active block at `height`.
    pub fn block_at(&self, height: u32) -> Option<&RawBlock> {
        self.block(self.hash_at(height)?)
    }

    /// Median of the times of the eleven active blocks that end at `height`, unix seconds.
    pub fn median_time(&self, height: u32) -> u32 {
        let from = height.saturating_sub(MEDIAN_TIME_SPAN - 1);
        let mut times: Vec<u32> = (from..=height)
            .filter_map(|h| Some(self.block_at(h)?.header().time))
            .collect();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    }

    /// Answers `getheaders`: the active headers after the first locator hash that is active, or after genesis when none
    /// is, up to `stop` and to [`MAX_HEADERS`]. With an empty locator, the header of `stop` alone.
    pub fn headers_after(&self, locator: &[BlockHash], stop: BlockHash) -> Vec<Header> {
        if locator.is_empty() {
            return self
                .block(stop)
                .map(|block| *block.header())
                .into_iter()
                .collect();
        }
        let known = locator.iter().find_map(|hash| {
            let height = self.nodes.get(hash)?.height;
            (self.hash_at(height) == Some(*hash)).then_some(height)
        });
        let mut headers = Vec::new();
        let mut height = known.unwrap_or(0);
        while headers.len() < MAX_HEADERS {
            height = height.saturating_add(1);
            let Some(block) = self.block_at(height) else {
                break;
            };
            headers.push(*block.header());
            if block.hash() == stop {
                break;
            }
        }
        headers
    }
}
