//! Decodes and checks blocks on a thread of its own, and appends the good ones to the block log.

use super::large::{Large, Outcome, Piece};
use crate::block_log::BlockLog;
use crate::chain::block_check::Mutation;
use crate::chain::sync::{PeerId, ShortIds};
use crate::chain::{BadBlock, BlockContext, check_block};
use crate::frame::Frame;
use crate::lane::{Feed, PoolFeed};
use crate::metrics::{Metrics, Stage};
use bitcoin::BlockHash;
use bitcoin::hashes::Hash as _;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::sync::mpsc::UnboundedSender;

/// A block that a peer sent, or that the source has.
pub struct ToCheck {
    pub hash: BlockHash,
    pub height: u32,
    pub context: BlockContext,
    pub from: BlockFrom,
    /// When the peer announced it; none for one of the source.
    pub announced: Option<Instant>,
}

/// Where a block's bytes are.
pub enum BlockFrom {
    /// A peer sent them.
    Peer(Bytes),
    /// In the folder that is the source: they are read here, and stay there.
    Source,
    /// A peer sent them once more, since they were pruned: they go by the lanes that need them, and are not kept.
    Again(Bytes),
}

/// A compact block, whose transactions are looked for in the pool.
pub struct ToFill {
    pub peer: PeerId,
    pub hash: BlockHash,
    pub wanted: ShortIds,
}

/// What became of it.
pub struct Checked {
    pub hash: BlockHash,
    /// Who sent it, if it came in pieces.
    pub in_pieces_of: Option<PeerId>,
    /// Whether it was asked for once more.
    pub again: bool,
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
    /// It may be good, but not for this host as it is set up: why. Asked for again it would be the same.
    Untakable(String),
    /// The source does not have it any more.
    Lost,
}

/// What the thread is given.
enum Work {
    Check(ToCheck),
    Fill(ToFill),
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
        pool: Option<Arc<PoolFeed>>,
        metrics: Arc<Metrics>,
        verdicts: UnboundedSender<Checked>,
        longest_transaction: usize,
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
                let mut large = Large::new(
                    &worker.feed,
                    &worker.log,
                    &worker.metrics,
                    longest_transaction,
                    false,
                );
                let mut again = worker.feed.scratch().map(|scratch| {
                    Large::new(
                        &worker.feed,
                        scratch,
                        &worker.metrics,
                        longest_transaction,
                        true,
                    )
                });
                // Whole blocks that came while another was written in pieces: the log takes one at a time.
                let mut later: VecDeque<ToCheck> = VecDeque::new();
                for work in queue {
                    if worker.feed.stopping() {
                        break;
                    }
                    let mut checked = match work {
                        Work::Check(block) => {
                            later.push_back(block);
                            Vec::new()
                        }
                        Work::Fill(block) => vec![Checked {
                            hash: block.hash,
                            in_pieces_of: None,
                            again: false,
                            verdict: worker.fill(&block),
                        }],
                        Work::Piece(piece) if piece.again => {
                            let outcomes = match &mut again {
                                Some(again) => again.take(piece),
                                None => vec![(piece.hash, piece.peer, Verdict::NotKept)],
                            };
                            came_in_pieces(outcomes, true)
                        }
                        Work::Piece(piece) => came_in_pieces(large.take(piece), false),
                        Work::Broken(hash) => {
                            let mut checked = came_in_pieces(large.broken(&hash), false);
                            if let Some(again) = &mut again {
                                checked.extend(came_in_pieces(again.broken(&hash), true));
                            }
                            checked
                        }
                    };
                    while !large.is_busy()
                        && let Some(block) = later.pop_front()
                    {
                        checked.push(Checked {
                            hash: block.hash,
                            in_pieces_of: None,
                            again: matches!(block.from, BlockFrom::Again(_)),
                            verdict: worker.check(block),
                        });
                    }
                    if checked
                        .into_iter()
                        .any(|checked| verdicts.send(checked).is_err())
                    {
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

fn came_in_pieces(outcomes: Vec<Outcome>, again: bool) -> Vec<Checked> {
    let checked = outcomes.into_iter().map(|(hash, peer, verdict)| Checked {
        hash,
        in_pieces_of: Some(peer),
        again,
        verdict,
    });
    checked.collect()
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
        let again = matches!(block.from, BlockFrom::Again(_));
        let (raw, source) = match block.from {
            BlockFrom::Peer(raw) | BlockFrom::Again(raw) => (raw, None),
            BlockFrom::Source => {
                let source = self.log.foreign();
                let read = || source?.read(block.hash.as_byte_array());
                match time(Stage::Log).time(read) {
                    Some(raw) => (raw, source),
                    None => return Verdict::Lost,
                }
            }
        };
        let checked = time(Stage::Decode)
            .time(|| Frame::decode(raw))
            .map_err(|error| {
                tracing::debug!(height = block.height, %error, "a block cannot be decoded");
                BadBlock::Mutated(Mutation::Undecodable)
            })
            .and_then(|frame| match frame.hash == block.hash {
                true => Ok(frame),
                false => Err(BadBlock::Mutated(Mutation::Undecodable)),
            })
            .and_then(|frame| {
                time(Stage::Check).time(|| check_block(&frame, &block.context))?;
                Ok(frame)
            });
        let frame = match (checked, source) {
            (Ok(frame), _) => frame,
            // Half written, or spoiled by the disk: another has it whole.
            (Err(bad), Some(source)) if !bad.condemns() => {
                tracing::debug!(height = block.height, %bad, "a block of the folder is not whole");
                source.forget(block.hash.as_byte_array());
                return Verdict::Lost;
            }
            (Err(bad), _) => return Verdict::Bad(bad),
        };
        if again {
            self.metrics.blocks_again.inc();
            self.feed.give_again(block.height, frame);
            return Verdict::Good;
        }
        let kept = time(Stage::Log).time(|| match source {
            Some(source) => {
                let crc = crc32fast::hash(&frame.raw);
                source.checked(block.hash.as_byte_array(), block.height, crc);
                Ok(true)
            }
            None => {
                self.feed.check_room(frame.raw.len() as u64)?;
                self.log
                    .append(&frame.hash, block.height, &frame.raw)
                    .map_err(anyhow::Error::from)
            }
        });
        if let Err(error) = kept {
            let why = format!("{error:#}");
            if self.feed.set_not_kept(Some(why.clone())) {
                tracing::error!(
                    height = block.height,
                    error = why,
                    "blocks cannot be kept: they wait, and are asked for again"
                );
            }
            return Verdict::NotKept;
        }
        if self.feed.set_not_kept(None) {
            tracing::info!(height = block.height, "blocks can be kept again");
        }
        self.metrics.blocks.inc();
        self.metrics.transactions.inc_by(frame.tx_count() as u64);
        self.feed.add_recent(frame, block.announced);
        Verdict::Good
    }
}
