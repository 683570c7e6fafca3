//! Blocks of our own.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use bitcoin::block::Header;
use bitcoin::{Block, BlockHash, Network};
use rand::RngExt;

use super::{Clock, News, State};
use crate::blockfile::RawBlock;
use crate::miner::Template;

/// Weight units kept back for header and coinbase.
const RESERVED_WEIGHT: u64 = 4_000;

impl State {
    /// Mines `count` blocks, each after writing the configured number of payments. Returns their hashes.
    ///
    /// # Errors
    /// As [`State::mine_block`].
    pub fn mine(&mut self, count: u32) -> Result<Vec<BlockHash>> {
        (0..count)
            .map(|_| {
                self.fill(self.mining.txs_per_block);
                self.mine_block()
            })
            .collect()
    }

    /// Mines one block from the pool as it is.
    ///
    /// # Errors
    /// Off regtest and signets of one's own, where blocks cost work, and where no coins are kept.
    pub fn mine_block(&mut self) -> Result<BlockHash> {
        let block = self.extend()?;
        let hash = block.block_hash();
        self.news.push(News::Blocks(vec![block.header]));
        Ok(hash)
    }

    /// Makes the next block from the pool and connects it, unannounced.
    pub(super) fn extend(&mut self) -> Result<Block> {
        self.ensure_mining()?;
        let coins = self.coins.as_ref().context("mining needs a coin set")?;
        let height = self.chain.height().saturating_add(1);
        let max_weight = self.mining.max_weight.saturating_sub(RESERVED_WEIGHT);
        let chosen = self.pool.select(height, max_weight);
        let fees: u64 = chosen.iter().map(|(_, fee)| fee).sum();
        let parent = *self.chain.block_at(height - 1).context("no tip")?.header();
        self.extra_nonce = self.extra_nonce.wrapping_add(1);
        let reward = coins.subsidy(height).saturating_add(fees);
        let template = Template {
            parent: parent.block_hash(),
            height,
            time: self.next_time(&parent),
            bits: parent.bits,
            reward_script: self.wallet.reward_script(),
            reward,
            extra_nonce: self.extra_nonce,
            transactions: chosen.into_iter().map(|(tx, _)| tx).collect(),
        };
        let block = template
            .mine(self.signet.as_ref())
            .context("no nonce gives enough work")?;
        self.chain.insert(RawBlock::from_block(&block)?)?;
        let paid = self
            .connect(&block)
            .context("our own block does not fit the coin set")?;
        ensure!(
            paid == fees,
            "our own block pays {paid} sat in fees, {fees} were expected"
        );
        Ok(block)
    }

    /// Whether blocks can be made at all.
    pub(super) fn ensure_mining(&self) -> Result<()> {
        let signed = self.chain.network() == Network::Signet && self.signet.is_some();
        ensure!(
            signed || self.chain.network() == Network::Regtest,
            "blocks are mined on regtest and on a signet of one's own only"
        );
        Ok(())
    }

    fn next_time(&mut self, parent: &Header) -> u32 {
        let height = self.chain.height();
        let earliest = self.chain.median_time(height).saturating_add(1);
        let time = match self.mining.clock {
            Clock::Simulated { start, .. } if height == 0 => start,
            Clock::Simulated { interval, .. } => {
                // Times between blocks are distributed exponentially.
                let wait = -(1.0 - self.wallet.rng().random_range(0.0..1.0_f64)).ln();
                parent
                    .time
                    .saturating_add((wait * f64::from(interval)) as u32)
            }
            Clock::Fixed(time) => time,
            Clock::Real => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .ok()
                .and_then(|since| u32::try_from(since.as_secs()).ok())
                .unwrap_or(earliest),
        };
        time.max(earliest)
    }
}
