//! A block that comes in pieces: checked as they come, and written to the block log as they come.

use super::checker::Verdict;
use super::gate::Waiting;
use crate::block_log::{BlockFrames, BlockLog, LargeAppend};
use crate::chain::block_stream::{BlockStream, StreamError};
use crate::chain::sync::{PeerId, StreamStart};
use crate::lane::{Feed, NotAgain, Position};
use crate::metrics::{Metrics, Stage};
use bitcoin::BlockHash;
use bytes::Bytes;
use std::collections::VecDeque;

/// What becomes of a block that came in pieces of this peer.
pub(super) type Outcome = (BlockHash, PeerId, Verdict);

/// A piece of a block.
pub struct Piece {
    /// Who sent it.
    pub peer: PeerId,
    pub hash: BlockHash,
    /// With the first piece.
    pub start: Option<StreamStart>,
    pub bytes: Bytes,
    pub last: bool,
    /// The block was asked for once more: it lies there as long as lanes need it.
    pub again: bool,
    /// Dropped when the piece is.
    pub(super) _waiting: Option<Waiting>,
}

/// The blocks whose pieces come now: as many as there are peers that send one.
pub(super) struct Large<'l> {
    feed: &'l Feed,
    log: &'l BlockLog,
    metrics: &'l Metrics,
    /// Bytes of the longest transaction that is held.
    longest: usize,
    /// These are blocks that were asked for once more.
    again: bool,
    /// The one that is written. Two at once would be woven into one another, so another waits for its turn.
    current: Option<(
        BlockHash,
        StreamStart,
        BlockStream,
        Option<LargeAppend<'l, BlockFrames>>,
    )>,
    /// Pieces of other ones. Each connection bounds how many, and is not read meanwhile.
    waiting: VecDeque<Piece>,
}

impl<'l> Large<'l> {
    pub(super) fn new(
        feed: &'l Feed,
        log: &'l BlockLog,
        metrics: &'l Metrics,
        longest: usize,
        again: bool,
    ) -> Self {
        Self {
            feed,
            log,
            metrics,
            longest,
            again,
            current: None,
            waiting: VecDeque::new(),
        }
    }

    /// Takes a piece; says what became of blocks where that is known.
    pub(super) fn take(&mut self, piece: Piece) -> Vec<Outcome> {
        self.waiting.push_back(piece);
        self.resume()
    }

    fn resume(&mut self) -> Vec<Outcome> {
        let mut verdicts = Vec::new();
        loop {
            let next = match &self.current {
                Some((hash, ..)) => self.waiting.iter().position(|piece| piece.hash == *hash),
                None => (!self.waiting.is_empty()).then_some(0),
            };
            let Some(piece) = next.and_then(|at| self.waiting.remove(at)) else {
                return verdicts;
            };
            let (hash, peer) = (piece.hash, piece.peer);
            if let Some(verdict) = self.piece(piece) {
                self.current = None;
                verdicts.push((hash, peer, verdict));
            }
        }
    }

    fn piece(&mut self, piece: Piece) -> Option<Verdict> {
        let time = |stage| self.metrics.stage(stage);
        if let Some(start) = piece.start {
            let position = Position {
                height: start.height,
                hash: piece.hash,
            };
            let admitted = match self.again {
                true => self.feed.admit_large(position, start.length),
                false => Ok(()),
            };
            if let Err(error) = admitted {
                if let NotAgain::NotYet = error {
                    tracing::debug!(height = start.height, %error, "a large block is passed over");
                    return Some(Verdict::NotKept);
                }
                return Some(self.not_kept(start.height, &error));
            }
            let append = match self
                .log
                .append_large(&piece.hash, start.height, start.length)
            {
                Ok(append) => append,
                Err(error) => {
                    return Some(self.not_kept(start.height, &error));
                }
            };
            tracing::info!(
                height = start.height,
                bytes = start.length,
                again = self.again,
                "a large block comes in pieces"
            );
            let stream = BlockStream::new(start.context, start.length, self.longest);
            self.current = Some((piece.hash, start, stream, append));
        }
        // Without one, the piece is of a block that has been refused: it is passed over.
        let (_, start, stream, append) = self.current.as_mut()?;
        let height = start.height;
        let pushed = time(Stage::Check).time(|| stream.push(&piece.bytes));
        let written = match append {
            Some(append) => time(Stage::Log).time(|| append.write(&piece.bytes)),
            None => Ok(()),
        };
        match pushed {
            Ok(()) => {}
            Err(StreamError::Bad(bad)) => return Some(Verdict::Bad(bad)),
            Err(error) => {
                if self.again {
                    self.feed.large_untakable(height);
                }
                tracing::error!(height, %error, "a block cannot be taken: chain.longest_transaction is too small for it");
                return Some(Verdict::Untakable(error.to_string()));
            }
        }
        if let Err(error) = written {
            return Some(self.not_kept(height, &error));
        }
        if !piece.last {
            return None;
        }
        let length = start.length;
        let (hash, _, stream, append) = self.current.take()?;
        let passed = match time(Stage::Check).time(|| stream.finish()) {
            Ok(passed) => passed,
            // What was written is cut off again.
            Err(bad) => return Some(Verdict::Bad(bad)),
        };
        if let Some(append) = append
            && let Err(error) = time(Stage::Log).time(|| append.commit())
        {
            return Some(self.not_kept(height, &error));
        }
        if self.again {
            self.metrics.blocks_again.inc();
            self.feed.large_is_here(Position { height, hash }, length);
            return Some(Verdict::Good);
        }
        if self.feed.set_not_kept(None) {
            tracing::info!(height, "blocks can be kept again");
        }
        self.metrics.blocks.inc();
        self.metrics.transactions.inc_by(passed.transactions);
        Some(Verdict::Good)
    }

    fn not_kept(&self, height: u32, error: &dyn std::fmt::Display) -> Verdict {
        let why = error.to_string();
        if self.again {
            self.feed.large_not_kept(height);
            tracing::warn!(
                height,
                error = why,
                "a pruned block cannot be written once more: it is asked for again when there is room"
            );
            return Verdict::NotKept;
        }
        if self.feed.set_not_kept(Some(why.clone())) {
            tracing::error!(
                height,
                error = why,
                "blocks cannot be kept: they wait, and are asked for again"
            );
        }
        Verdict::NotKept
    }

    /// The pieces of a block end here: the peer is gone.
    pub(super) fn broken(&mut self, hash: &BlockHash) -> Vec<Outcome> {
        self.waiting.retain(|piece| piece.hash != *hash);
        self.current.take_if(|(current, ..)| current == hash);
        self.resume()
    }

    /// Whether a block is under way: what else is appended meanwhile would end it.
    pub(super) fn is_busy(&self) -> bool {
        self.current.is_some()
    }
}
