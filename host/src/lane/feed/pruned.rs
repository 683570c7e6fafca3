//! Blocks that were pruned, and what they spend: asked for again, waited for, and not kept.

use super::super::again::{Refused, WantedAgain};
use super::{Feed, Position};
use crate::frame::{Frame, Spent};
use crate::plugin::WantedColumns;
use anyhow::{Context, Result};
use std::sync::Arc;
use std::time::Instant;

/// Blocks that the making of what they spend may be ahead of the lanes that read it.
const SPENT_AHEAD: u32 = 1_000;

/// A decoded block, and when it was announced.
type Fetched = (Arc<Frame>, Option<Instant>);

/// What a lane waits for before it can take its next block; its text is for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// The block was pruned: peers are asked for it again. Whether none of those that are connected has it.
    Block { height: u32, nobody: bool },
    /// The block was pruned, and is so large that it would come in pieces. Whether the disk has no room for it; else it has too
    /// long a transaction.
    LargeBlock { height: u32, room: bool },
    /// What the block spends was pruned.
    Spent { height: u32 },
    /// Other lanes, which read what this one gives, are so far behind.
    Readers { height: u32 },
}

impl std::fmt::Display for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Block { height, nobody } => {
                write!(f, "waiting for peers: block {height} was pruned here")?;
                match nobody {
                    true => f.write_str(", and no connected peer has it"),
                    false => Ok(()),
                }
            }
            Self::LargeBlock { height, room: true } => write!(
                f,
                "waiting for room: block {height} was pruned here, and cannot be written once more; it is asked for again when there is room"
            ),
            Self::LargeBlock {
                height,
                room: false,
            } => write!(
                f,
                "waiting: block {height} was pruned here, and has a transaction that is too long to be taken once more; set \
                 chain.longest_transaction higher and restart"
            ),
            Self::Spent { height } => write!(
                f,
                "waiting for what block {height} spends: it was pruned with the block (chain.keep_spent), and no peer has it; the \
                 plugin with the role \"coins\" goes through the chain once more to make it"
            ),
            Self::Readers { height } => {
                write!(
                    f,
                    "waiting for the plugins that read what block {height} spends"
                )
            }
        }
    }
}

impl Feed {
    /// The next block of a lane, which names itself; where it was pruned, peers are asked for it and for those after it,
    /// and the lane has to wait.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    pub fn fetch(
        &self,
        lane: &str,
        position: Position,
        wanted: WantedColumns,
    ) -> Result<Result<Fetched, Waiting>> {
        if self.recent_with(&position.hash, wanted).is_some()
            || self.blocks.contains(&position.hash)
        {
            self.again.goes_on(lane, position.height);
            return self.frame(position, wanted).map(Ok);
        }
        let at_hand = self.again.need(lane, position);
        if at_hand.is_none() && self.log_of(&position.hash).is_some() {
            return self.frame(position, wanted).map(Ok);
        }
        let height = position.height;
        Ok(match (at_hand, self.again.refused(position)) {
            (Some(frame), _) => Ok((frame, None)),
            (None, Some(refused)) => Err(Waiting::LargeBlock {
                height,
                room: refused != Refused::Untakable,
            }),
            (None, None) => Err(Waiting::Block {
                height: position.height,
                nobody: self
                    .again
                    .unavailable()
                    .is_some_and(|at| at <= position.height),
            }),
        })
    }

    /// Whether the log has a block of the active chain; above the tip there is none that it could lack.
    pub fn keeps(&self, height: u32) -> bool {
        let hash = self.chain().hash_at(height);
        hash.is_none_or(|hash| self.blocks.contains(&hash))
    }

    /// Whether the log has a block, of whatever branch.
    pub fn has_block(&self, hash: &bitcoin::BlockHash) -> bool {
        self.blocks.contains(hash)
    }

    /// The blocks to ask peers for.
    pub fn wanted_again(&self) -> WantedAgain {
        let not_now = self.tidy_large();
        let chain = self.chain();
        self.again.wanted(|height| {
            let hash = chain.hash_at(height)?;
            let here = self.log_of(&hash).is_some() || self.is_recent(&hash);
            (!here && !not_now.contains(&hash)).then_some(hash)
        })
    }

    /// A block that was asked for again has come, and was checked.
    pub fn give_again(&self, height: u32, frame: Frame) {
        self.again.give(height, frame);
        self.wake();
    }

    /// Says which of the blocks that are asked for again no peer has.
    pub fn set_unavailable(&self, height: Option<u32>) {
        if self.again.set_unavailable(height) {
            self.wake();
        }
    }

    /// Whether the coins lane has been at a block, and the chain has not left it.
    pub fn coins_are_past(&self, position: Position) -> bool {
        self.coins().is_some_and(|coins| {
            let chain = self.chain();
            coins.height >= position.height && chain.contains(coins) && chain.contains(position)
        })
    }

    /// What a block spends; else what a lane that asks for it waits for, when that is more than the coins lane.
    ///
    /// # Errors
    ///
    /// When a log cannot be read.
    pub fn fetch_spent(&self, position: Position) -> Result<Result<Arc<Spent>, Option<Waiting>>> {
        // Before it is looked for: the coins lane may give it at this moment, and only what it gave before was pruned.
        let given = self.coins_are_past(position);
        let kept = match self.spent(position)? {
            None if given && self.large(position).is_some() => self.spent_of_parts(position)?,
            other => other,
        };
        let height = position.height;
        Ok(kept.ok_or(given.then_some(Waiting::Spent { height })))
    }

    /// A lane that asks for what blocks spend is at this one.
    pub fn need_spent(&self, lane: &str, position: Position) {
        self.again.need_spent(lane, position.height);
    }

    /// Makes again what a pruned block spent, for the lanes that read it. It is kept while one does, and not far ahead of
    /// them: then whoever makes it waits.
    ///
    /// # Errors
    ///
    /// When the log cannot be written.
    pub fn give_spent_again(&self, position: Position, spent: &Spent) -> Result<()> {
        if self.spent.contains(&position.hash) || !self.read_below(position.height, 0) {
            return Ok(());
        }
        self.spent
            .append(&position.hash, position.height, &spent.encode())
            .with_context(|| format!("failed to keep what block {} spends", position.height))?;
        self.wake();
        Ok(())
    }

    /// Whether what this block spends must not be made again yet: who reads it is far behind.
    pub fn spent_ahead(&self, position: Position) -> Option<Waiting> {
        self.read_below(position.height, SPENT_AHEAD)
            .then_some(Waiting::Readers {
                height: position.height.saturating_sub(SPENT_AHEAD),
            })
    }

    /// Whether a lane that can go on with what blocks spend is at `height - ahead` or below, or waits for `height` itself.
    pub(super) fn read_below(&self, height: u32, ahead: u32) -> bool {
        let needs = self.again.spent_needs();
        let chain = self.chain();
        needs.into_iter().any(|at| {
            let goes_on = || {
                chain
                    .hash_at(at)
                    .is_some_and(|hash| self.spent.contains(&hash))
            };
            at.saturating_add(ahead) <= height && (at == height || goes_on())
        })
    }

    /// The first block at or above a lane's next one whose spent outputs are not kept though the coins lane has been there.
    pub fn lacks_spent(&self, next: u32) -> Option<Waiting> {
        let hash = self.chain().hash_at(next)?;
        let passed = self.coins().is_some_and(|coins| coins.height >= next);
        (passed && !self.spent.contains(&hash)).then_some(Waiting::Spent { height: next })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::super::SpentLog;
    use super::*;
    use crate::block_log::{BlockLog, SegmentLogOptions};
    use crate::chain::fixtures;
    use crate::network::Network;
    use bitcoin::Block;
    use bitcoin::consensus;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A feed of a chain of which the log has no block.
    fn feed(folder: &std::path::Path) -> (Feed, Vec<Block>) {
        let genesis = Network::Regtest.params().genesis_header;
        let blocks = fixtures::chain(&genesis, 0, 10, 0);
        let options = SegmentLogOptions::default;
        let magic = [0xfa, 0xbf, 0xb5, 0xda];
        let log = BlockLog::open(folder, magic, options()).unwrap();
        let spent = SpentLog::open(folder, magic, options()).unwrap();
        let feed = Feed::new(Arc::new(log), Arc::new(spent), 64 << 20, false);
        let headers = blocks.iter().map(|block| &block.header);
        let all = std::iter::once(&genesis).chain(headers);
        feed.set_chain(None, all.map(|header| (header.block_hash(), header)));
        (feed, blocks)
    }

    fn frame(block: &Block) -> Frame {
        Frame::decode(consensus::serialize(block).into()).unwrap()
    }

    fn at(feed: &Feed, height: u32) -> Position {
        let hash = feed.chain().hash_at(height).unwrap();
        Position { height, hash }
    }

    #[test]
    fn blocks_at_hand_are_not_asked_for_and_those_behind_them_stay_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let (feed, blocks) = feed(folder.path());
        for block in &blocks[..4] {
            feed.add_recent(frame(block), None);
        }
        let fetch = |height| {
            feed.fetch("lane", at(&feed, height), WantedColumns::default())
                .unwrap()
                .is_ok()
        };
        assert!(!fetch(0));
        let wanted = feed.wanted_again();
        let missing =
            |from: u32| -> Vec<_> { (from..=10).map(|at_| at(&feed, at_).hash).collect() };
        assert_eq!(wanted.blocks[0], at(&feed, 0).hash);
        assert_eq!(wanted.blocks[1..], missing(5));
        feed.give_again(0, Frame::decode(genesis_bytes().into()).unwrap());
        assert!(fetch(0));
        // It goes on with what is here: what is under way is waited for.
        for height in 1..=4 {
            assert!(fetch(height));
            assert_eq!(feed.wanted_again().blocks, missing(5), "at {height}");
        }
        for height in 5..=10 {
            assert!(!fetch(height));
            feed.give_again(height, frame(&blocks[height as usize - 1]));
            assert!(fetch(height));
        }
        assert!(feed.wanted_again().blocks.is_empty());
    }

    #[test]
    fn what_is_given_at_this_moment_is_not_taken_for_pruned() {
        let folder = tempfile::tempdir().unwrap();
        let (feed, _) = feed(folder.path());
        const BLOCKS: u32 = 100;
        let headers: Vec<_> = (0..BLOCKS)
            .map(|height| super::super::super::active_chain::tests::block(height, 0, height))
            .collect();
        feed.set_chain(None, headers.iter().map(|(hash, header)| (*hash, header)));
        let reads = AtomicU32::new(0);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                for height in 0..BLOCKS {
                    let position = at(&feed, height);
                    reads.store(height + 1, Ordering::Release);
                    loop {
                        match feed.fetch_spent(position).unwrap() {
                            Ok(_) => break,
                            Err(waiting) => assert_eq!(waiting, None),
                        }
                    }
                }
            });
            for height in 0..BLOCKS {
                let position = at(&feed, height);
                while reads.load(Ordering::Acquire) <= height {
                    if reader.is_finished() {
                        return;
                    }
                    std::hint::spin_loop();
                }
                feed.give_spent(position, Spent::default()).unwrap();
            }
        });
    }

    #[test]
    fn a_block_that_the_chain_has_left_waits_for_no_pruned_coins() {
        let folder = tempfile::tempdir().unwrap();
        let (feed, _) = feed(folder.path());
        let block = super::super::super::active_chain::tests::block;
        let left = at(&feed, 5);
        let other: Vec<_> = (5..8).map(|height| block(height, 1, height)).collect();
        feed.set_chain(Some(4), other.iter().map(|(hash, header)| (*hash, header)));
        feed.set_coins(Some(at(&feed, 7)));
        assert_eq!(feed.fetch_spent(left).unwrap(), Err(None));
        let pruned = Some(Waiting::Spent { height: 5 });
        assert_eq!(feed.fetch_spent(at(&feed, 5)).unwrap(), Err(pruned));
    }

    fn genesis_bytes() -> Vec<u8> {
        consensus::serialize(&bitcoin::constants::genesis_block(
            bitcoin::Network::Regtest,
        ))
    }

    #[test]
    fn a_block_at_hand_without_its_bytes_is_asked_for_when_a_plugin_wants_them() {
        let folder = tempfile::tempdir().unwrap();
        let (feed, blocks) = feed(folder.path());
        feed.add_recent(frame(&blocks[0]), None);
        feed.set_keep_raw();
        let whole = WantedColumns {
            raw: true,
            ..WantedColumns::default()
        };
        let first = at(&feed, 1);
        let waits = feed.fetch("lane", first, whole).unwrap().unwrap_err();
        assert!(matches!(waits, Waiting::Block { height: 1, .. }), "{waits}");
        assert_eq!(feed.wanted_again().blocks[0], first.hash);
        feed.give_again(1, frame(&blocks[0]));
        let (given, _) = feed.fetch("lane", first, whole).unwrap().unwrap();
        assert!(!given.raw.is_empty());
    }
}
