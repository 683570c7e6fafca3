//! Decodes and checks blocks on a thread of its own, and appends the good ones to the block log.

use crate::block_log::BlockLog;
use crate::chain::block_check::Mutation;
use crate::chain::sync::{PeerId, ShortIds};
use crate::chain::{BadBlock, BlockContext, check_block};
use crate::frame::Frame;
use crate::lane::{Feed, PoolFeed};
use crate::metrics::{Metrics, Stage};
use bitcoin::BlockHash;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::sync::mpsc::UnboundedSender;

/// A block that a peer sent.
pub struct ToCheck {
    pub hash: BlockHash,
    pub height: u32,
    pub context: BlockContext,
    pub raw: Bytes,
    /// When the peer announced it.
    pub announced: Instant,
}

/// A compact block, whose transactions are looked for in the pool.
pub struct ToFill {
    pub peer: PeerId,
    pub hash: BlockHash,
    pub wanted: ShortIds,
}

enum Work {
    Check(ToCheck),
    Fill(ToFill),
}

/// What became of it.
pub struct Checked {
    pub hash: BlockHash,
    pub verdict: Verdict,
}

/// The outcome of a check.
pub enum Verdict {
    /// It is good and in the block log.
    Good,
    Bad(BadBlock),
    /// What the pool has of a compact block of this peer, in the order of its short ids.
    Found {
        peer: PeerId,
        transactions: Vec<Option<Bytes>>,
    },
    /// It could not be kept: the disk is full or broken. It has to be asked for again.
    NotKept,
}

/// The thread.
pub struct Checker {
    work: mpsc::Sender<Work>,
    thread: JoinHandle<()>,
}

impl Checker {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// When no thread can be started.
    pub fn start(
        feed: Arc<Feed>,
        log: Arc<BlockLog>,
        pool: Option<Arc<PoolFeed>>,
        metrics: Arc<Metrics>,
        verdicts: UnboundedSender<Checked>,
    ) -> std::io::Result<Self> {
        let (work, queue) = mpsc::channel::<Work>();
        let thread = std::thread::Builder::new()
            .name("checker".into())
            .spawn(move || {
                let worker = Worker {
                    feed,
                    log,
                    pool,
                    metrics,
                };
                for work in queue {
                    if worker.feed.stopping() {
                        break;
                    }
                    let checked = match work {
                        Work::Check(block) => Checked {
                            hash: block.hash,
                            verdict: worker.check(block),
                        },
                        Work::Fill(block) => Checked {
                            hash: block.hash,
                            verdict: worker.fill(&block),
                        },
                    };
                    if verdicts.send(checked).is_err() {
                        break;
                    }
                }
            })?;
        Ok(Self { work, thread })
    }

    /// Queues a block. The machine bounds how many wait.
    pub fn check(&self, block: ToCheck) {
        let _ = self.work.send(Work::Check(block));
    }

    /// Queues a compact block to be filled.
    pub fn fill(&self, block: ToFill) {
        let _ = self.work.send(Work::Fill(block));
    }

    /// Ends the thread when it is through with the block at hand.
    pub fn stop(self) {
        drop(self.work);
        let _ = self.thread.join();
    }
}

struct Worker {
    feed: Arc<Feed>,
    log: Arc<BlockLog>,
    pool: Option<Arc<PoolFeed>>,
    metrics: Arc<Metrics>,
}

impl Worker {
    fn fill(&self, block: &ToFill) -> Verdict {
        let wanted = &block.wanted;
        let transactions = match &self.pool {
            Some(pool) => pool.pool().by_short_ids(wanted.keys, &wanted.ids),
            None => vec![None; wanted.ids.len()],
        };
        let found = transactions.iter().flatten().count();
        self.metrics.compact_blocks.inc();
        self.metrics
            .compact_transactions
            .inc_by(transactions.len() as u64);
        self.metrics.compact_from_pool.inc_by(found as u64);
        Verdict::Found {
            peer: block.peer,
            transactions,
        }
    }

    fn check(&self, block: ToCheck) -> Verdict {
        let time = |stage| self.metrics.stage(stage);
        let frame = match time(Stage::Decode).time(|| Frame::decode(block.raw)) {
            Ok(frame) => frame,
            Err(error) => {
                tracing::debug!(height = block.height, %error, "a block cannot be decoded");
                return Verdict::Bad(BadBlock::Mutated(Mutation::Undecodable));
            }
        };
        if frame.hash != block.hash {
            return Verdict::Bad(BadBlock::Mutated(Mutation::Undecodable));
        }
        if let Err(bad) = time(Stage::Check).time(|| check_block(&frame, &block.context)) {
            return Verdict::Bad(bad);
        }
        let kept = time(Stage::Log).time(|| self.log.append(&frame.hash, block.height, &frame.raw));
        if let Err(error) = kept {
            tracing::error!(height = block.height, error = %error, "a block cannot be kept");
            return Verdict::NotKept;
        }
        self.metrics.blocks.inc();
        self.metrics.transactions.inc_by(frame.tx_count() as u64);
        self.feed.add_recent(frame, Some(block.announced));
        Verdict::Good
    }
}
