//! Decodes and checks blocks on a thread of its own, and appends the good ones to the block log.

use super::large::{Large, Piece};
use crate::block_log::BlockLog;
use crate::chain::block_check::Mutation;
use crate::chain::{BadBlock, BlockContext, check_block};
use crate::frame::Frame;
use crate::lane::Feed;
use crate::metrics::{Metrics, Stage};
use bitcoin::BlockHash;
use bytes::Bytes;
use std::collections::VecDeque;
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
    /// It could not be kept: the disk is full or broken. It has to be asked for again.
    NotKept,
}

/// What the thread is given.
enum Work {
    Block(ToCheck),
    Piece(Piece),
    Broken(BlockHash),
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
        metrics: Arc<Metrics>,
        verdicts: UnboundedSender<Checked>,
        longest_transaction: usize,
    ) -> std::io::Result<Self> {
        let (work, queue) = mpsc::channel::<Work>();
        let thread = std::thread::Builder::new()
            .name("checker".into())
            .spawn(move || {
                let worker = Worker { feed, log, metrics };
                let mut large = Large::new(&worker.log, &worker.metrics, longest_transaction);
                // Whole blocks that came while another was written in pieces: the log takes one at a time.
                let mut later: VecDeque<ToCheck> = VecDeque::new();
                for work in queue {
                    if worker.feed.stopping() {
                        break;
                    }
                    let mut checked = Vec::new();
                    match work {
                        Work::Block(block) => later.push_back(block),
                        Work::Piece(piece) => {
                            checked.extend(large.take(piece));
                        }
                        Work::Broken(hash) => checked.extend(large.broken(&hash)),
                    }
                    while !large.is_busy()
                        && let Some(block) = later.pop_front()
                    {
                        let hash = block.hash;
                        checked.push((hash, worker.check(block)));
                    }
                    if checked
                        .into_iter()
                        .any(|(hash, verdict)| verdicts.send(Checked { hash, verdict }).is_err())
                    {
                        break;
                    }
                }
            })?;
        Ok(Self { work, thread })
    }

    /// Queues a block. The machine bounds how many wait.
    pub fn check(&self, block: ToCheck) {
        let _ = self.work.send(Work::Block(block));
    }

    /// Queues a piece of a block. The connection it came from bounds how many wait.
    pub fn piece(&self, piece: Piece) {
        let _ = self.work.send(Work::Piece(piece));
    }

    /// The pieces of a block end.
    pub fn broken(&self, hash: BlockHash) {
        let _ = self.work.send(Work::Broken(hash));
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
