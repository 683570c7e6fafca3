//! The thread that keeps the memory pool: takes in what peers send, follows the coins lane from block to block, and tells
//! the lanes what changed.

use super::active_chain::Position;
use super::feed::Feed;
use super::pool_feed::PoolFeed;
use super::status::LaneShared;
use crate::frame::Frame;
use crate::mempool::{self, Coin, CoinLookup, Mempool, Tip};
use crate::metrics::Metrics;
use crate::network::Params;
use crate::plugin::WantedColumns;
use crate::store::{CoinView, OutPointKey};
use anyhow::{Context, Result};
use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, Txid};
use bytes::Bytes;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Transactions from peers that may wait; more are dropped, and come again with the next announcement.
const MAX_WAITING: usize = 20_000;
/// How long changes gather before the lanes are told.
const PUBLISH: Duration = Duration::from_millis(200);
/// How long the pool is held at a time while transactions come in.
const TURN: Duration = Duration::from_millis(50);
/// How long a transaction that has to wait for the coins lane waits at a time.
const HELD: Duration = Duration::from_millis(5);
/// How often old transactions are looked for.
const EXPIRE: Duration = Duration::from_secs(60);
/// How often the pool is saved.
const SAVE: Duration = Duration::from_secs(5 * 60);
/// Blocks that are remembered to find the fork of a reorg.
const REMEMBERED: usize = 1_000;
/// A pool that is further behind the coins lane than this starts again at its block: what it holds is checked again.
const MAX_CATCH_UP: u32 = 1_000;

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
    queue: Receiver<Bytes>,
    /// A transaction that came while the coins lane was behind the tip.
    held: Option<Bytes>,
    /// The blocks that the pool has followed, the last one its own.
    followed: VecDeque<Position>,
    published: Instant,
    expired: Instant,
    saved: Instant,
}

/// The coins of a block, for the pool.
struct Lookup(CoinView);

impl CoinLookup for Lookup {
    fn coin(&self, outpoint: &OutPoint) -> Result<Option<Coin>> {
        let key = OutPointKey {
            txid: outpoint.txid.to_byte_array(),
            vout: outpoint.vout,
        };
        let coin = self.0.coin(&key).context("failed to look up a coin")?;
        Ok(coin.map(|coin| Coin {
            value: coin.value,
            height: coin.height,
            coinbase: coin.coinbase,
        }))
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
    ) -> (Self, SyncSender<Bytes>) {
        let (sender, queue) = sync_channel(MAX_WAITING);
        let now = Instant::now();
        let worker = Self {
            feed,
            pool,
            coins,
            params,
            metrics,
            file,
            queue,
            held: None,
            followed: VecDeque::new(),
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
                Some(raw) => {
                    std::thread::sleep(HELD);
                    Some(raw)
                }
                None => match self.queue.recv_timeout(PUBLISH) {
                    Ok(raw) => Some(raw),
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
    fn turn(&mut self, first: Option<Bytes>) -> Result<()> {
        // What came waits until the pool is at a block.
        self.held = first;
        if !self.feed.synced() {
            return Ok(());
        }
        let Some(view) = self.coins.view() else {
            return Ok(());
        };
        let Some(position) = view.cursor().map(Position::from) else {
            return Ok(());
        };
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
        let coins = Lookup(CoinView::new(view));
        let tip = Tip {
            height: position.height,
            median_time,
        };
        let now = unix_time();
        let feed = self.pool.clone();
        let mut pool = feed.pool();
        if self.followed.back() != Some(&position) {
            self.follow(&mut pool, position, &coins, tip)?;
        }
        let until = Instant::now() + TURN;
        let mut next = self.held.take();
        while let Some(raw) = next {
            match pool.accept(raw, now, &coins, tip) {
                Ok(accepted) => tracing::trace!(?accepted, "transaction"),
                Err(refused) => tracing::debug!(%refused, "transaction refused"),
            }
            next = if Instant::now() < until {
                self.queue.try_recv().ok()
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
            let info = pool.info(now);
            self.metrics.mempool_txs.set(info.txs as i64);
            self.metrics.mempool_vbytes.set(info.vbytes as i64);
            self.metrics.mempool_fees_sats.set(info.fees_sats as i64);
        }
        drop(pool);
        if self.saved.elapsed() >= SAVE {
            self.save();
        }
        Ok(())
    }

    /// Brings the pool from the block it is at to the block that the coins are at.
    fn follow(&mut self, pool: &mut Mempool, to: Position, coins: &Lookup, tip: Tip) -> Result<()> {
        if self.followed.is_empty() {
            self.followed.push_back(to);
            self.reload(pool, coins, tip);
            return Ok(());
        }
        while let Some(&last) = self.followed.back() {
            if self.feed.chain().contains(last) && last.height <= to.height {
                break;
            }
            if self.feed.large(last).is_some() {
                // Its transactions are too many to come back: the pool begins anew with what peers announce.
                self.followed.clear();
                self.followed.push_back(to);
                self.reload(pool, coins, tip);
                return Ok(());
            }
            let frame = Frame::decode_without_txids(self.feed.raw(last)?)
                .context("a block in the block log is damaged")?;
            let raws = frame
                .columns
                .layouts()
                .iter()
                .map(|layout| frame.raw.slice(layout.whole()));
            pool.disconnect_block(raws);
            self.followed.pop_back();
            // The pool began above the fork: the block names the one below it.
            if let (true, Some(height)) = (self.followed.is_empty(), last.height.checked_sub(1)) {
                let hash = frame.header.prev_blockhash;
                self.followed.push_back(Position { height, hash });
            }
        }
        let from = self
            .followed
            .back()
            .map_or(to.height, |last| last.height + 1);
        if to.height.saturating_sub(from) > MAX_CATCH_UP {
            self.followed.clear();
        } else {
            for height in from..=to.height {
                let Some(hash) = self.feed.chain().hash_at(height) else {
                    break;
                };
                let position = Position { height, hash };
                if self.feed.large(position).is_some() {
                    let mut parts = self.feed.parts(position)?;
                    while let Some(part) = parts.next()? {
                        connect(pool, height, &part.run.frame);
                    }
                } else {
                    let (frame, _) = self.feed.frame(position, WantedColumns::default())?;
                    connect(pool, height, &frame);
                }
                self.followed.push_back(position);
            }
        }
        if self.followed.back() != Some(&to) {
            self.followed.clear();
            self.followed.push_back(to);
        }
        while self.followed.len() > REMEMBERED {
            self.followed.pop_front();
        }
        pool.settle(unix_time(), coins, tip)
    }

    /// Offers the saved pool again.
    fn reload(&self, pool: &mut Mempool, coins: &Lookup, tip: Tip) {
        let Some(path) = self.file.as_ref().filter(|path| path.exists()) else {
            return;
        };
        let saved = match mempool::load(path, self.params.magic) {
            Ok(saved) => saved,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the saved memory pool is left aside");
                return;
            }
        };
        let now = unix_time();
        let offered = saved.len();
        let taken = saved
            .into_iter()
            .filter(|(raw, first_seen)| {
                pool.reload(raw.clone(), *first_seen, now, coins, tip)
                    .is_ok()
            })
            .count();
        tracing::info!(offered, taken, "memory pool of the last run");
    }

    fn save(&mut self) {
        self.saved = Instant::now();
        // A pool that has not started says nothing about the one that was saved.
        let Some(path) = self.file.as_ref().filter(|_| !self.followed.is_empty()) else {
            return;
        };
        let entries = self.pool.pool().snapshot();
        if let Err(error) = mempool::save(path, self.params.magic, &entries) {
            tracing::warn!(path = %path.display(), %error, "the memory pool was not saved");
        }
    }
}

fn unix_time() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |t| t.as_secs())
}

/// Tells the pool of a block's transactions, or of those of a part of one.
fn connect(pool: &mut Mempool, height: u32, frame: &Frame) {
    let columns = &frame.columns;
    let mut start = 0;
    let outpoints: Vec<OutPoint> = columns
        .inputs
        .prev_txids
        .as_chunks()
        .0
        .iter()
        .zip(&columns.inputs.prev_vouts)
        .map(|(txid, &vout)| OutPoint {
            txid: Txid::from_byte_array(*txid),
            vout,
        })
        .collect();
    let transactions = columns
        .txids()
        .zip(&columns.transactions.input_ends)
        .map(|(txid, &end)| {
            let spends = outpoints.get(start..end as usize).unwrap_or_default();
            start = end as usize;
            (Txid::from_byte_array(*txid), spends.iter().copied())
        });
    pool.connect_block(height, transactions);
}
