//! The thread that keeps the memory pool: takes in what peers send, follows the coins lane from block to block, and tells
//! the lanes what changed.

mod follow;

use super::active_chain::Position;
use super::feed::Feed;
use super::pool_feed::PoolFeed;
use super::pool_queue::{PoolInput, PoolInputs, PoolQueue, pool_queue};
use super::status::LaneShared;
use crate::chain::sync::PoolVerdict;
use crate::mempool::{
    self, Accepted, Coin, CoinLookup, Entry, Journal, LetGo, Mempool, Refused, Tip,
};
use crate::metrics::Metrics;
use crate::network::Params;
use crate::store::{CoinView, OutPointKey};
use anyhow::{Context, Result};
use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, ScriptBuf};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc::UnboundedSender;

/// How long changes gather before the lanes are told.
const PUBLISH: Duration = Duration::from_millis(200);
/// How long the pool is held at a time while transactions come in.
const TURN: Duration = Duration::from_millis(50);
/// How long a transaction that has to wait for the coins lane waits at a time.
const HELD: Duration = Duration::from_millis(5);
/// How often old transactions are looked for.
const EXPIRE: Duration = Duration::from_secs(60);
/// How often the pool is saved as a whole.
const SAVE: Duration = Duration::from_secs(5 * 60);
/// How often what came since is added to the journal: a kill loses no more.
const JOURNAL: Duration = Duration::from_secs(2);
/// How often the whole pool is tried to be saved while the journal cannot be written, as on a full disk.
const JOURNAL_AGAIN: Duration = Duration::from_secs(5);

/// The thread, not yet started.
pub struct PoolWorker {
    pub feed: Arc<Feed>,
    pub pool: Arc<PoolFeed>,
    /// The lane with the role `coins`.
    pub coins: Arc<LaneShared>,
    pub params: &'static Params,
    pub metrics: Arc<Metrics>,
    /// Where the pool is saved, if it is.
    pub file: Option<PathBuf>,
    queue: PoolInputs,
    verdicts: UnboundedSender<PoolVerdict>,
    /// What came while the coins lane was behind the tip.
    held: Option<PoolInput>,
    journal: Option<Journal>,
    /// Entries that came since the journal was written.
    unwritten: Vec<Arc<Entry>>,
    journaled: Instant,
    /// The pool of a run that was cut short was offered again, and is on the disk in two parts.
    save_soon: bool,
    /// The blocks that the pool has followed, the last one its own.
    followed: VecDeque<Position>,
    /// The pool has not settled on the last of them yet.
    unsettled: bool,
    /// The saved pool was offered again.
    reloaded: bool,
    /// The block that the coins were at before the pool has started, as long as the chain has it.
    before: Option<Position>,
    published: Instant,
    expired: Instant,
    saved: Instant,
}

/// The coins of a block, and the times below it, for the pool.
struct Lookup {
    coins: CoinView,
    feed: Arc<Feed>,
    at: Position,
}

impl CoinLookup for Lookup {
    fn coin(&self, outpoint: &OutPoint) -> Result<Option<Coin>> {
        let key = OutPointKey {
            txid: outpoint.txid.to_byte_array(),
            vout: outpoint.vout,
        };
        let coin = self.coins.coin(&key).context("failed to look up a coin")?;
        Ok(coin.map(|coin| Coin {
            value: coin.value,
            height: coin.height,
            coinbase: coin.coinbase,
            script: ScriptBuf::from_bytes(coin.script),
        }))
    }

    fn median_time_at(&self, height: u32) -> Result<u32> {
        let chain = self.feed.chain();
        anyhow::ensure!(chain.contains(self.at), "the chain has left the block");
        let (_, median_time) = chain
            .header_at(height)
            .with_context(|| format!("no header at {height}"))?;
        Ok(median_time)
    }
}

impl PoolWorker {
    /// A worker, and where peers' transactions go.
    pub fn new(
        feed: Arc<Feed>,
        pool: Arc<PoolFeed>,
        coins: Arc<LaneShared>,
        params: &'static Params,
        metrics: Arc<Metrics>,
        file: Option<PathBuf>,
        verdicts: UnboundedSender<PoolVerdict>,
    ) -> (Self, PoolQueue) {
        let (sender, queue) = pool_queue();
        let journal = file.as_ref().map(|file| Journal::new(file, params.magic));
        let now = Instant::now();
        let worker = Self {
            feed,
            pool,
            coins,
            params,
            metrics,
            file,
            queue,
            verdicts,
            held: None,
            journal,
            unwritten: Vec::new(),
            journaled: now,
            save_soon: false,
            followed: VecDeque::new(),
            unsettled: false,
            reloaded: false,
            before: None,
            published: now,
            expired: now,
            saved: now,
        };
        (worker, sender)
    }

    /// Runs until the feed stops, then saves the pool.
    pub fn run(mut self) {
        while !self.feed.stopping() {
            let first = match self.held.take() {
                Some(input) => {
                    std::thread::sleep(HELD);
                    Some(input)
                }
                None => match self.queue.recv_timeout(PUBLISH) {
                    Ok(input) => Some(input),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => break,
                },
            };
            if let Err(error) = self.turn(first) {
                tracing::error!(
                    error = format!("{error:#}"),
                    "the memory pool cannot follow"
                );
                std::thread::sleep(PUBLISH);
            }
        }
        self.save();
    }

    /// Follows the coins, takes in what waits, and tells the lanes.
    fn turn(&mut self, first: Option<PoolInput>) -> Result<()> {
        // What came waits until the pool is at a block.
        self.held = first;
        let Some(view) = self.coins.view() else {
            return Ok(());
        };
        let Some(position) = view.cursor().map(Position::from) else {
            return Ok(());
        };
        if self.followed.is_empty() && !self.reloaded {
            self.watch(position);
        }
        if !self.feed.synced() {
            return Ok(());
        }
        let median_time = {
            let chain = self.feed.chain();
            // Transactions wait until the coins are those of the tip. A peer that has the block sends what only the
            // block makes final; and what a reorg returns is judged by the new tip, not by the fork (Core:
            // `MaybeUpdateMempoolForReorg`).
            let behind = chain.tip().is_some_and(|tip| position.height < tip.height);
            (chain.contains(position) && !behind)
                .then(|| chain.header_at(position.height))
                .flatten()
                .map(|(_, median_time)| median_time)
        };
        let Some(median_time) = median_time else {
            return Ok(());
        };
        let coins = Lookup {
            coins: CoinView::new(view),
            feed: self.feed.clone(),
            at: position,
        };
        let tip = Tip {
            height: position.height,
            median_time,
        };
        let now = unix_time();
        let feed = self.pool.clone();
        let mut pool = feed.pool();
        if self.unsettled || self.followed.back() != Some(&position) {
            let outcome = self.follow(&mut pool, position, &coins, tip);
            // Times below the block cannot be looked up once the chain has left it: another one is to be followed then.
            if outcome.is_err() && !self.feed.chain().contains(position) {
                return Ok(());
            }
            outcome?;
        }
        let until = Instant::now() + TURN;
        let mut next = self.held.take();
        pool.listens(now);
        while let Some(input) = next {
            self.take_in(&mut pool, input, now, &coins, tip);
            next = if Instant::now() < until {
                self.queue.try_recv()
            } else {
                None
            };
        }
        if self.expired.elapsed() >= EXPIRE {
            self.expired = Instant::now();
            pool.expire(now);
        }
        if self.published.elapsed() >= PUBLISH {
            self.published = Instant::now();
            if feed.publish(&mut pool, position.height) {
                self.feed.wake();
            }
            self.show(&pool, now);
        }
        let txs = pool.len() as u64;
        let let_go = pool.drain_let_go();
        drop(pool);
        self.tell(let_go);
        let unjournaled = self.file.is_some() && self.journal.is_none();
        if std::mem::take(&mut self.save_soon)
            || (unjournaled && self.journaled.elapsed() >= JOURNAL_AGAIN)
            || self.saved.elapsed() >= SAVE
            || self.journal.as_ref().is_some_and(Journal::is_long)
        {
            self.save();
        } else if !unjournaled && self.journaled.elapsed() >= JOURNAL {
            self.write_journal(txs);
        }
        Ok(())
    }

    /// Offers a transaction to the pool, or tells it who announced some, and tells the network what became of it.
    fn take_in(
        &mut self,
        pool: &mut Mempool,
        input: PoolInput,
        now: u64,
        coins: &Lookup,
        tip: Tip,
    ) {
        let (peer, addr, raw) = match input {
            PoolInput::Announced { addr, hashes, at } => {
                for hash in hashes {
                    pool.announced(hash, addr, at);
                }
                return;
            }
            PoolInput::Transaction { peer, addr, raw } => (peer, addr, raw),
        };
        match pool.accept_from(raw.clone(), Some(addr), now, coins, tip) {
            Ok(Accepted::Entered { entry, adopted, .. }) => {
                tracing::trace!(txid = %entry.txid, "transaction");
                let _ = self.verdicts.send(PoolVerdict::Taken { peer });
                if self.journal.is_some() {
                    self.unwritten.push(entry);
                    let adopted = adopted.iter().filter_map(|txid| pool.get(txid));
                    self.unwritten.extend(adopted);
                }
            }
            Ok(Accepted::Orphan { missing, .. }) => {
                let _ = self.verdicts.send(PoolVerdict::Parents { peer, missing });
            }
            Err(Refused::Known) => {}
            Err(refused) => {
                tracing::debug!(%refused, "transaction refused");
                if let Ok(tx) = bitcoin::consensus::deserialize::<bitcoin::Transaction>(&raw) {
                    let (txid, wtxid) = (tx.compute_txid(), tx.compute_wtxid());
                    let _ = self.verdicts.send(match refused {
                        Refused::Coins(_) => PoolVerdict::NotTaken { txid, wtxid },
                        _ => PoolVerdict::Refused { txid, wtxid },
                    });
                }
            }
        }
    }

    /// Tells the network what is here no longer, so that it is asked for again when somebody announces it.
    fn tell(&self, let_go: Vec<LetGo>) {
        for LetGo {
            txid,
            wtxid,
            refused,
        } in let_go
        {
            let _ = self.verdicts.send(match refused {
                true => PoolVerdict::Refused { txid, wtxid },
                false => PoolVerdict::NotTaken { txid, wtxid },
            });
        }
    }

    fn show(&self, pool: &Mempool, now: u64) {
        let info = pool.info(now);
        let metrics = &self.metrics;
        metrics.mempool_txs.set(info.txs as i64);
        metrics.mempool_vbytes.set(info.vbytes as i64);
        metrics.mempool_fees_sats.set(info.fees_sats as i64);
        let heard = pool.heard(now);
        let pool = &metrics.pool;
        pool.min_fee_rate.set(info.min_fee_rate.ceil() as i64);
        pool.orphans.set(info.orphans as i64);
        pool.suspicious.set(info.suspicious as i64);
        pool.secondary.set(info.secondary as i64);
        pool.peers.set(heard.peers as i64);
        let since = heard.since.map_or(0, |since| now.saturating_sub(since));
        pool.listening_seconds.set(since as i64);
        let percent = |share: Option<f64>| (share.unwrap_or(0.0) * 100.0).round() as i64;
        let last = heard.last.map(|(_, last)| last).unwrap_or_default();
        pool.coverage_last.set(percent(last.share()));
        pool.coverage_last_weight.set(percent(last.weight_share()));
        pool.coverage.set(percent(heard.recent.share()));
        pool.coverage_weight
            .set(percent(heard.recent.weight_share()));
    }

    fn write_journal(&mut self, txs: u64) {
        self.journaled = Instant::now();
        let Some(journal) = self.journal.as_mut().filter(|_| !self.unwritten.is_empty()) else {
            return;
        };
        let at = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |t| t.as_millis() as u64);
        let entries = std::mem::take(&mut self.unwritten);
        match journal.append(&entries, txs, at) {
            Ok(bytes) => {
                self.metrics.pool.journal_bytes.inc_by(bytes);
            }
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::from(error));
                tracing::warn!(%error, "what comes into the memory pool is not journaled: a kill would lose it");
                self.journal = None;
            }
        }
    }

    /// Offers the saved pool again.
    fn reload(&mut self, pool: &mut Mempool, coins: &Lookup, tip: Tip) {
        let Some(path) = &self.file else {
            return;
        };
        let restored = match mempool::restore(path, self.params.magic) {
            Ok(restored) => restored,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the saved memory pool is left aside");
                return;
            }
        };
        let now = unix_time();
        let offered = restored.entries.len();
        let taken = pool.reload_all(restored.entries, now, coins, tip);
        match restored.killed {
            None if offered == 0 => {}
            None => tracing::info!(offered, restored = taken, "memory pool of the last run"),
            Some(killed) => {
                let window = JOURNAL.as_millis() as u64;
                tracing::warn!(
                    offered,
                    restored = taken,
                    held = killed.txs,
                    seconds_since = now.saturating_sub(killed.saved / 1_000),
                    lost_at_most_seconds = JOURNAL.as_secs(),
                    lost_about = killed.rate(window),
                    "memory pool of the last run, which was cut short: {taken} transactions restored of the {} that it had \
                     when it wrote last; what came in the {} seconds after that is lost, about {} transactions at the rate before",
                    killed.txs,
                    JOURNAL.as_secs(),
                    killed.rate(window)
                );
                // The journal is about to begin anew.
                self.save_soon = true;
            }
        }
    }

    fn save(&mut self) {
        self.saved = Instant::now();
        // A pool that has not started says nothing about the one that was saved.
        let Some(path) = self.file.as_ref().filter(|_| !self.followed.is_empty()) else {
            return;
        };
        let entries = self.pool.pool().snapshot();
        let unjournaled = self.journal.is_none();
        if let Err(error) = mempool::save(path, self.params.magic, &entries) {
            // Of the first failure was told when the journal failed.
            if !unjournaled {
                let error = format!("{:#}", anyhow::Error::from(error));
                tracing::warn!(path = %path.display(), %error, "the memory pool was not saved");
            }
            self.journaled = Instant::now();
            return;
        }
        if unjournaled {
            tracing::info!("the memory pool is saved and journaled again");
        }
        self.unwritten.clear();
        let journal = self
            .journal
            .get_or_insert_with(|| Journal::new(path, self.params.magic));
        if let Err(error) = journal.clear() {
            tracing::warn!(%error, "the journal of the memory pool stays");
        }
    }
}

fn unix_time() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |t| t.as_secs())
}
