//! Chain, coins, pool and wallet, and the steps that move them together.
//!
//! Nothing here knows of sockets. What clients should hear of is left in [`State::take_news`], in order.

mod mining;
mod payments;
mod reorg;

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result};
use bitcoin::block::Header;
use bitcoin::p2p::Magic;
use bitcoin::{Block, BlockHash, Network, OutPoint, Transaction, Txid, Wtxid};

use crate::blockfile;
use crate::chain::Chain;
use crate::coins::Coins;
use crate::pool::{Pool, Refused};
use crate::signet::Signet;
use crate::utxo::Snapshot;
use crate::wallet::Wallet;

pub use reorg::Reorg;

/// Where block times come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The first block after genesis has time `start` (unix seconds); each next one comes a random while later, `interval`
    /// seconds on average. Nothing depends on when it runs.
    Simulated {
        /// Unix seconds.
        start: u32,
        /// Seconds.
        interval: u32,
    },
    /// The next block has this time (unix seconds), or as much later as the median of the last ones asks.
    Fixed(u32),
    /// Blocks are stamped with the time at which they are made.
    Real,
}

/// How blocks are made.
#[derive(Clone, Debug)]
pub struct Mining {
    /// Where block times come from.
    pub clock: Clock,
    /// Payments that are written before each block of [`State::mine`].
    pub txs_per_block: usize,
    /// Weight units of a block at most.
    pub max_weight: u64,
}

/// Something that clients should be told.
#[derive(Clone, Debug)]
pub enum News {
    /// A transaction entered the pool.
    Transaction {
        /// Its txid.
        txid: Txid,
        /// Its hash with witnesses.
        wtxid: Wtxid,
        /// Sat per 1,000 virtual bytes.
        fee_rate: u64,
    },
    /// The active branch moved: the headers of what is new in it, lowest first.
    Blocks(Vec<Header>),
}

/// The whole node but its network.
#[derive(Debug)]
pub struct State {
    chain: Chain,
    /// `None` when told not to keep any.
    coins: Option<Coins>,
    pool: Pool,
    wallet: Wallet,
    mining: Mining,
    /// Who signs blocks, on a signet of one's own.
    signet: Option<Signet>,
    /// Blocks above this height are kept but not shown.
    max_height: Option<u32>,
    extra_nonce: u64,
    /// Coins that payments leave alone while a reorganisation holds their spenders back.
    held: HashSet<OutPoint>,
    news: Vec<News>,
}

impl State {
    /// A node at the genesis block of `network`.
    ///
    /// # Errors
    /// Never in practice.
    pub fn new(network: Network, seed: u64, keep_coins: bool, mining: Mining) -> Result<Self> {
        Ok(Self {
            chain: Chain::new(network)?,
            coins: keep_coins.then(|| Coins::new(network)),
            pool: Pool::default(),
            wallet: Wallet::new(seed),
            mining,
            signet: None,
            max_height: None,
            extra_nonce: seed,
            held: HashSet::new(),
            news: Vec::new(),
        })
    }

    /// Blocks are signed by this one from here on.
    pub fn sign_with(&mut self, signet: Option<Signet>) {
        self.signet = signet;
    }

    /// The block tree.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The coin set at the tip.
    pub fn coins(&self) -> Option<&Coins> {
        self.coins.as_ref()
    }

    /// The unconfirmed transactions.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// How blocks are made from now on.
    pub fn mining_mut(&mut self) -> &mut Mining {
        &mut self.mining
    }

    /// What clients have not been told yet.
    pub fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// Adds the blocks of a `blk*.dat` file and moves to the branch with the most work.
    ///
    /// # Errors
    /// When the file is unreadable, or a block on the way to the new tip does not fit the coin set.
    pub fn load(&mut self, path: &Path, magic: Magic) -> Result<()> {
        for block in blockfile::read(path, magic)? {
            self.chain.insert(block)?;
        }
        self.follow_best()
            .with_context(|| format!("blocks of {}", path.display()))
    }

    /// Shows blocks up to `height` only, or all.
    ///
    /// # Errors
    /// When a block on the way to the new tip does not fit the coin set.
    pub fn limit_height(&mut self, height: Option<u32>) -> Result<()> {
        self.max_height = height;
        self.follow_best()
    }

    fn follow_best(&mut self) -> Result<()> {
        let best = self.chain.best();
        let tip = self
            .max_height
            .map_or(best, |height| self.chain.ancestor(best, height));
        self.move_to(tip)
    }

    /// Makes `tip` the active tip, with coins and pool.
    fn move_to(&mut self, tip: BlockHash) -> Result<()> {
        let (fork, above) = self.chain.branch_to(tip)?;
        if fork == self.chain.height() && above.is_empty() {
            return Ok(());
        }
        let headers = above
            .iter()
            .filter_map(|hash| self.chain.block(*hash).map(|block| *block.header()))
            .collect();
        if self.coins.is_none() {
            self.chain.activate(tip)?;
        } else {
            let abandoned = self.disconnect_to(fork)?;
            for hash in above {
                let block = self.chain.block(hash).context("block vanished")?.decode()?;
                self.connect(&block)
                    .with_context(|| format!("cannot connect block {hash}"))?;
            }
            if !abandoned.is_empty() {
                let pooled = self.pool.drain();
                self.wallet_recount();
                let _ = self.offer_all(payments(&abandoned).cloned().collect(), true);
                let _ = self.offer_all(pooled, false);
            }
        }
        self.news.push(News::Blocks(headers));
        Ok(())
    }

    /// Takes active blocks above `height` back and returns them, lowest first. The pool is left as it was.
    fn disconnect_to(&mut self, height: u32) -> Result<Vec<Block>> {
        let coins = self.coins.as_mut().context("no coin set is kept")?;
        let mut blocks = Vec::new();
        for above in height.saturating_add(1)..=self.chain.height() {
            blocks.push(
                self.chain
                    .block_at(above)
                    .context("block vanished")?
                    .decode()?,
            );
            coins.disconnect()?;
        }
        self.chain.rewind(height)?;
        Ok(blocks)
    }

    /// Connects a block of the tree on top of the active tip. Returns its fees in sat.
    fn connect(&mut self, block: &Block) -> Result<u64> {
        let coins = self.coins.as_mut().context("no coin set is kept")?;
        let fees = coins.connect(block)?;
        self.chain.activate(block.block_hash())?;
        for tx in &block.txdata {
            self.wallet.forget_inputs(tx);
            self.wallet.take_notice(tx);
        }
        for tx in self.pool.confirm(block) {
            self.lost(&tx);
        }
        Ok(fees)
    }

    /// Gives the wallet back what a transaction that will not confirm had spent.
    fn lost(&mut self, tx: &Transaction) {
        let Some(coins) = &self.coins else { return };
        self.wallet.forget_outputs(tx);
        for input in &tx.input {
            if let Some(coin) = coins.get(&input.previous_output) {
                self.wallet
                    .notice_output(input.previous_output, &coin.output);
            }
        }
    }

    /// Shows the wallet the whole coin set.
    fn wallet_recount(&mut self) {
        let Some(coins) = &self.coins else { return };
        for (outpoint, coin) in coins.sorted() {
            self.wallet.notice_output(outpoint, &coin.output);
        }
    }

    /// Offers a transaction to the pool. Returns what it replaced.
    ///
    /// # Errors
    /// Every [`Refused`].
    pub fn submit(&mut self, tx: Transaction) -> Result<Vec<Transaction>, Refused> {
        self.offer(tx, true)
    }

    fn offer(&mut self, tx: Transaction, announce: bool) -> Result<Vec<Transaction>, Refused> {
        let coins = self.coins.as_ref().ok_or(Refused::NoCoins)?;
        let txid = tx.compute_txid();
        let replaced = self.pool.add(tx, coins)?;
        for tx in &replaced {
            self.lost(tx);
        }
        if let Some(entry) = self.pool.get(&txid) {
            self.wallet.forget_inputs(&entry.tx);
            self.wallet.take_notice(&entry.tx);
            if announce {
                let (wtxid, fee_rate) = (entry.wtxid, entry.fee_rate());
                self.news.push(News::Transaction {
                    txid,
                    wtxid,
                    fee_rate,
                });
            }
        }
        Ok(replaced)
    }

    /// Offers transactions in order and returns those that were refused.
    fn offer_all(&mut self, txs: Vec<Transaction>, announce: bool) -> Vec<Transaction> {
        txs.into_iter()
            .filter_map(|tx| {
                let kept = tx.clone();
                match self.offer(tx, announce) {
                    Ok(_) | Err(Refused::Known) => None,
                    Err(_) => {
                        self.lost(&kept);
                        Some(kept)
                    }
                }
            })
            .collect()
    }

    /// The whole pool as news, parents first.
    pub fn pool_news(&self) -> Vec<News> {
        self.pool
            .in_order()
            .into_iter()
            .filter_map(|txid| {
                let entry = self.pool.get(&txid)?;
                let (wtxid, fee_rate) = (entry.wtxid, entry.fee_rate());
                Some(News::Transaction {
                    txid,
                    wtxid,
                    fee_rate,
                })
            })
            .collect()
    }

    /// Announces the whole pool again.
    pub fn announce_pool(&mut self) {
        let news = self.pool_news();
        self.news.extend(news);
    }

    /// A copy of the coin set.
    ///
    /// # Errors
    /// When no coins are kept.
    pub fn snapshot(&self) -> Result<Snapshot> {
        let coins = self.coins.as_ref().context("no coin set is kept")?.sorted();
        Ok(Snapshot {
            height: self.chain.height(),
            bestblock: self.chain.tip(),
            coins,
        })
    }
}

/// All transactions of blocks but the coinbases.
fn payments(blocks: &[Block]) -> impl Iterator<Item = &Transaction> {
    blocks.iter().flat_map(|block| block.txdata.iter().skip(1))
}
