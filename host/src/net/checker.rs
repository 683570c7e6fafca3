//! Decodes and checks blocks on a thread of its own, and appends the good ones to the block log.

use crate::block_log::BlockLog;
use crate::chain::block_check::Mutation;
use crate::chain::{BadBlock, BlockContext, check_block};
use crate::frame::Frame;
use crate::lane::Feed;
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
    /// What it is for.
    pub purpose: Purpose,
}

/// What a block was asked for.
pub enum Purpose {
    /// To be kept in the block log; when the peer announced it.
    New { announced: Instant },
    /// To go by the lanes that need it, since it was pruned from the log.
    Again,
}

/// What became of it.
pub struct Checked {
    pub hash: BlockHash,
    /// Whether it was asked for once more.
    pub again: bool,
    pub verdict: Verdict,
}

/// The outcome of a check.
pub enum Verdict {
    /// It is good and in the block log.
    Good,
    Bad(BadBlock),
    /// It could not be kept: the disk is full or broken. It has to be asked for again.
    NotKept,
}

/// The thread.
pub struct Checker {
    work: mpsc::Sender<ToCheck>,
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
        metrics: Arc<Metrics>,
        verdicts: UnboundedSender<Checked>,
    ) -> std::io::Result<Self> {
        let (work, queue) = mpsc::channel::<ToCheck>();
        let thread = std::thread::Builder::new()
            .name("checker".into())
            .spawn(move || {
                let worker = Worker { feed, log, metrics };
                for block in queue {
                    if worker.feed.stopping() {
                        break;
                    }
                    let checked = Checked {
                        hash: block.hash,
                        again: matches!(block.purpose, Purpose::Again),
                        verdict: worker.check(block),
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
        let _ = self.work.send(block);
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
    metrics: Arc<Metrics>,
}

impl Worker {
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
        let announced = match block.purpose {
            Purpose::New { announced } => announced,
            Purpose::Again => {
                self.metrics.blocks_again.inc();
                self.feed.give_again(block.height, frame);
                return Verdict::Good;
            }
        };
        let kept = time(Stage::Log).time(|| self.log.append(&frame.hash, block.height, &frame.raw));
        if let Err(error) = kept {
            tracing::error!(height = block.height, error = %error, "a block cannot be kept");
            return Verdict::NotKept;
        }
        self.metrics.blocks.inc();
        self.metrics.transactions.inc_by(frame.tx_count() as u64);
        self.feed.add_recent(frame, Some(announced));
        Verdict::Good
    }
}
