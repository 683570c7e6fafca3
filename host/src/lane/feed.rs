//! What lanes read: the active chain, decoded blocks, and the outputs that they spend.
//!
//! Recent blocks wait here decoded, within a number of bytes. A lane that is further behind reads the block log and
//! decodes again; it never holds up the others.

use super::active_chain::{ActiveChain, Position};
use super::again::Again;
use super::parts::LargeBlocks;
use crate::block_log::{BlockLog, SpentLog};
use crate::frame::{Frame, Spent};
use crate::plugin::WantedColumns;
use crate::store::{NoRoom, Room};
use anyhow::{Context, Result};
use bitcoin::BlockHash;
use bitcoin::block::Header;
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

mod pruned;
mod scratch;

pub use pruned::Waiting;
pub use scratch::NotAgain;

/// Where a lane has to go from its cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The block after the cursor.
    Block(Position),
    /// The cursor's block is not in the chain: go back to this height or below.
    Rewind(Option<u32>),
    /// The cursor is at the tip.
    Tip,
}

/// Why a block was refused by the plugin that keeps the coins.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub position: Position,
    pub reason: String,
}

/// A decoded block and, once the coins lane has been there, what it spends.
#[derive(Clone)]
struct Recent {
    frame: Arc<Frame>,
    spent: Option<Arc<Spent>>,
    announced: Option<Instant>,
}

#[derive(Default)]
struct Recents {
    blocks: HashMap<BlockHash, Recent>,
    order: VecDeque<BlockHash>,
    bytes: usize,
}

#[derive(Default)]
struct Progress {
    /// Grows with everything that a waiting lane may want to know of.
    version: u64,
    /// Where the lane with the role `coins` is, by what it has given to the others.
    coins: Option<Position>,
    refusals: Vec<Refusal>,
    /// See [`Feed::set_base`].
    base: Option<u32>,
    /// Height of the best header.
    best: u32,
    /// The chain is at its end, as far as anybody knows.
    synced: bool,
    /// The last block of this run, if there is one.
    last: Option<u32>,
    stop: bool,
}

/// Shared between the chain, which fills it, and the lanes.
pub struct Feed {
    chain: RwLock<ActiveChain>,
    recents: Mutex<Recents>,
    recent_bytes: usize,
    /// Some plugin asks for more than the columns hold.
    keep_raw: AtomicBool,
    again: Again,
    blocks: Arc<BlockLog>,
    spent: Arc<SpentLog>,
    /// The disk that all of it is on; unknown in tests.
    room: OnceLock<Room>,
    /// Why blocks cannot be kept, while they cannot.
    not_kept: Mutex<Option<String>>,
    /// Large blocks that came once more.
    scratch: OnceLock<BlockLog>,
    progress: Mutex<Progress>,
    changed: Condvar,
    large: LargeBlocks,
}

impl Feed {
    /// A feed over two logs (blocks, and what they spend) that keeps up to `recent_bytes` of decoded blocks.
    pub fn new(
        blocks: Arc<BlockLog>,
        spent: Arc<SpentLog>,
        recent_bytes: usize,
        keep_raw: bool,
    ) -> Self {
        Self {
            chain: RwLock::default(),
            recents: Mutex::default(),
            recent_bytes,
            keep_raw: AtomicBool::new(keep_raw),
            again: Again::new(recent_bytes / 2),
            blocks,
            spent,
            room: OnceLock::new(),
            not_kept: Mutex::default(),
            scratch: OnceLock::new(),
            progress: Mutex::default(),
            changed: Condvar::new(),
            large: LargeBlocks::default(),
        }
    }

    /// The log of blocks.
    #[cfg(test)]
    pub(crate) fn log(&self) -> Arc<BlockLog> {
        self.blocks.clone()
    }

    /// Says what holds for blocks that are large.
    pub fn with_large(mut self, large: LargeBlocks) -> Self {
        self.large = large;
        self
    }

    /// What holds for blocks that are large.
    pub fn large_blocks(&self) -> &LargeBlocks {
        &self.large
    }

    pub(super) fn spent_log(&self) -> &SpentLog {
        &self.spent
    }

    /// The active chain, for as long as the guard lives: do not keep it.
    pub fn chain(&self) -> RwLockReadGuard<'_, ActiveChain> {
        self.chain.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The active chain changed: `blocks` now follow the block at `fork`.
    pub fn set_chain<'a>(
        &self,
        fork: Option<u32>,
        blocks: impl IntoIterator<Item = (BlockHash, &'a Header)>,
    ) {
        let mut chain = self.chain.write().unwrap_or_else(PoisonError::into_inner);
        chain.truncate(fork);
        for (hash, header) in blocks {
            chain.push(hash, header);
        }
        drop(chain);
        self.wake();
    }

    /// Keeps whole blocks at hand from now on: a plugin asks for more than the columns hold.
    pub fn set_keep_raw(&self) {
        self.keep_raw.store(true, Ordering::Relaxed);
    }

    /// Keeps a checked block at hand, and forgets the oldest ones that are too many.
    pub fn add_recent(&self, mut frame: Frame, announced: Option<Instant>) {
        if !self.keep_raw.load(Ordering::Relaxed) {
            frame.forget_raw();
        }
        let frame = Arc::new(frame);
        let mut recents = lock(&self.recents);
        let (hash, bytes) = (frame.hash, frame.footprint());
        if recents
            .blocks
            .insert(
                hash,
                Recent {
                    frame,
                    spent: None,
                    announced,
                },
            )
            .is_none()
        {
            recents.order.push_back(hash);
            recents.bytes += bytes;
        }
        while recents.bytes > self.recent_bytes && recents.order.len() > 1 {
            let Some(oldest) = recents.order.pop_front() else {
                break;
            };
            if let Some(gone) = recents.blocks.remove(&oldest) {
                recents.bytes -= gone.frame.footprint();
            }
        }
    }

    /// Bytes of decoded blocks at hand, and how many may be.
    pub fn recent_bytes(&self) -> (usize, usize) {
        (lock(&self.recents).bytes, self.recent_bytes)
    }

    /// What follows a lane's cursor; `None` is a lane that has seen nothing.
    pub fn next(&self, cursor: Option<Position>) -> Next {
        let chain = self.chain();
        let height = match cursor {
            None => 0,
            Some(cursor) if chain.contains(cursor) => cursor.height + 1,
            // Blocks that a lane has seen are gone from the log: they come again from peers.
            Some(cursor) if chain.tip().is_none_or(|tip| tip.height < cursor.height) => {
                return Next::Tip;
            }
            Some(cursor) => return Next::Rewind(cursor.height.checked_sub(1)),
        };
        match chain.hash_at(height) {
            Some(hash) => Next::Block(Position { height, hash }),
            None => Next::Tip,
        }
    }

    /// A decoded block and when it was announced, if it came from a peer a moment ago.
    ///
    /// # Errors
    ///
    /// When the block is not at hand and the log does not have it or cannot be read.
    pub fn frame(
        &self,
        position: Position,
        wanted: WantedColumns,
    ) -> Result<(Arc<Frame>, Option<Instant>)> {
        if let Some(recent) = self.recent_with(&position.hash, wanted) {
            return Ok(recent);
        }
        let raw = self.raw(position)?;
        let frame = Frame::decode(raw)
            .with_context(|| format!("block {} in the block log is damaged", position.height))?;
        Ok((Arc::new(frame), None))
    }

    /// A decoded block if it is at hand.
    pub fn recent(&self, hash: &BlockHash) -> Option<(Arc<Frame>, Option<Instant>)> {
        let recents = lock(&self.recents);
        let recent = recents.blocks.get(hash)?;
        Some((recent.frame.clone(), recent.announced))
    }

    /// The same if it has what is wanted: its bytes may have been forgotten.
    fn recent_with(
        &self,
        hash: &BlockHash,
        wanted: WantedColumns,
    ) -> Option<(Arc<Frame>, Option<Instant>)> {
        let whole = wanted.raw || wanted.witnesses;
        self.recent(hash)
            .filter(|(frame, _)| !(whole && frame.raw.is_empty()))
    }

    /// Whether it has all that a plugin may want.
    fn is_recent(&self, hash: &BlockHash) -> bool {
        let raw = self.keep_raw.load(Ordering::Relaxed);
        let wanted = WantedColumns {
            raw,
            ..WantedColumns::default()
        };
        self.recent_with(hash, wanted).is_some()
    }

    /// The bytes of a block, from the log.
    ///
    /// # Errors
    ///
    /// When the log does not have it or cannot be read.
    pub fn raw(&self, position: Position) -> Result<Bytes> {
        let Position { height, hash } = position;
        if let Some(frame) = self.again.at_hand(position) {
            return Ok(frame.raw.clone());
        }
        self.log_of(&hash)
            .map_or(Ok(None), |log| log.get(&hash))
            .with_context(|| format!("failed to read block {height} from the block log"))?
            .with_context(|| format!("block {height} ({hash}) is not in the block log any more"))
    }

    /// What a block spends, if the coins lane has been there.
    ///
    /// # Errors
    ///
    /// When the log cannot be read or is damaged.
    pub fn spent(&self, position: Position) -> Result<Option<Arc<Spent>>> {
        if let Some(recent) = lock(&self.recents).blocks.get(&position.hash)
            && recent.spent.is_some()
        {
            return Ok(recent.spent.clone());
        }
        let kept = self
            .spent
            .get(&position.hash)
            .with_context(|| format!("failed to read what block {} spends", position.height))?;
        kept.map(|bytes| Ok(Arc::new(Spent::decode(&bytes)?)))
            .transpose()
    }

    /// The coins lane hands over what a block spends: it is kept in the log, and at hand while the block is.
    ///
    /// # Errors
    ///
    /// When the log cannot be written.
    pub fn give_spent(&self, position: Position, spent: Spent) -> Result<()> {
        self.spent
            .append(&position.hash, position.height, &spent.encode())
            .with_context(|| format!("failed to keep what block {} spends", position.height))?;
        if let Some(recent) = lock(&self.recents).blocks.get_mut(&position.hash) {
            recent.spent = Some(Arc::new(spent));
        }
        self.set_coins(Some(position));
        Ok(())
    }

    /// Says where the coins lane is.
    pub fn set_coins(&self, position: Option<Position>) {
        lock(&self.progress).coins = position;
        self.wake();
    }

    /// Where the coins lane is.
    pub fn coins(&self) -> Option<Position> {
        lock(&self.progress).coins
    }

    /// The coins lane refuses a block: the chain will leave its branch.
    pub fn refuse(&self, refusal: Refusal) {
        lock(&self.progress).refusals.push(refusal);
        self.wake();
    }

    /// Blocks refused since the last call.
    pub fn take_refusals(&self) -> Vec<Refusal> {
        std::mem::take(&mut lock(&self.progress).refusals)
    }

    /// Says how far the best chain of headers goes, and whether the blocks have reached its end.
    pub fn set_best(&self, best: u32, synced: bool) {
        let mut progress = lock(&self.progress);
        if (progress.best, progress.synced) != (best, synced) {
            (progress.best, progress.synced) = (best, synced);
            drop(progress);
            self.wake();
        }
    }

    /// Height of the best header; never below the tip.
    pub fn best_height(&self) -> u32 {
        let tip = self.chain().tip().map_or(0, |tip| tip.height);
        lock(&self.progress).best.max(tip)
    }

    /// Whether the blocks have reached the end of the best chain of headers.
    pub fn synced(&self) -> bool {
        lock(&self.progress).synced
    }

    /// Plugins began at this height, from snapshots: there are no blocks at and below it, so that none can begin anew.
    pub fn set_base(&self, height: Option<u32>) {
        lock(&self.progress).base = height;
    }

    /// See [`Feed::set_base`].
    pub fn base(&self) -> Option<u32> {
        lock(&self.progress).base
    }

    /// Names the last block of this run.
    pub fn set_last(&self, height: Option<u32>) {
        lock(&self.progress).last = height;
    }

    /// Whether a lane at this height has nothing to expect soon: what it holds should go to the disk.
    pub fn settled(&self, height: u32) -> bool {
        let progress = lock(&self.progress);
        progress.synced || progress.last == Some(height)
    }

    /// Makes both logs durable, so that no lane's cursor ever names a block that is lost.
    ///
    /// # Errors
    ///
    /// When a file cannot be synced.
    pub fn sync(&self) -> Result<()> {
        self.blocks.sync().context("failed to sync the block log")?;
        self.spent
            .sync()
            .context("failed to sync the log of spent outputs")?;
        Ok(())
    }

    /// Names the disk that blocks and states are on.
    pub fn set_room(&self, room: Room) {
        let _ = self.room.set(room);
    }

    /// Looks whether the disk has room for so many bytes.
    ///
    /// # Errors
    ///
    /// When it has not.
    pub fn check_room(&self, bytes: u64) -> Result<(), NoRoom> {
        self.room.get().map_or(Ok(()), |room| room.check(bytes))
    }

    /// Says why blocks or headers cannot be kept, or that they can again. True when that is news.
    pub fn set_not_kept(&self, why: Option<String>) -> bool {
        let mut not_kept = lock(&self.not_kept);
        let news = not_kept.is_some() != why.is_some();
        *not_kept = why;
        news
    }

    /// Why blocks cannot be kept now.
    pub fn not_kept(&self) -> Option<String> {
        lock(&self.not_kept).clone()
    }

    /// Ends all waiting, for good.
    pub fn stop(&self) {
        lock(&self.progress).stop = true;
        self.wake();
    }

    /// Whether the lanes should end.
    pub fn stopping(&self) -> bool {
        lock(&self.progress).stop
    }

    /// A number that changes with everything that [`Feed::wait`] waits for.
    pub fn version(&self) -> u64 {
        lock(&self.progress).version
    }

    /// Waits until something happened after `seen`, at most `timeout`.
    pub fn wait(&self, seen: u64, timeout: Duration) {
        let progress = lock(&self.progress);
        let waited = self
            .changed
            .wait_timeout_while(progress, timeout, |progress| {
                progress.version == seen && !progress.stop
            });
        drop(waited);
    }

    /// Wakes all who wait.
    pub fn wake(&self) {
        lock(&self.progress).version += 1;
        self.changed.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A feed of a chain of `length` made-up blocks, of which the log has those from `lowest` on.
#[cfg(test)]
pub(crate) fn kept_blocks(folder: &std::path::Path, length: u32, lowest: u32) -> Feed {
    #![allow(clippy::unwrap_used)]
    use super::active_chain::tests::block;
    let options = crate::block_log::SegmentLogOptions::default;
    let magic = [0xfa, 0xbf, 0xb5, 0xda];
    let log = BlockLog::open(folder, magic, options()).unwrap();
    let spent = SpentLog::open(folder, magic, options()).unwrap();
    let blocks: Vec<_> = (0..length).map(|height| block(height, 0, height)).collect();
    for (height, (hash, _)) in (0..).zip(&blocks).skip(lowest as usize) {
        log.append(hash, height, b"block").unwrap();
    }
    let feed = Feed::new(Arc::new(log), Arc::new(spent), 1 << 20, false);
    feed.set_chain(None, blocks.iter().map(|(hash, header)| (*hash, header)));
    feed
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::super::active_chain::tests::block;
    use super::*;
    use crate::block_log::SegmentLogOptions;
    use bitcoin::Network;
    use bitcoin::consensus;
    use bitcoin::constants::genesis_block;

    const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];

    fn feed(folder: &std::path::Path, recent_bytes: usize) -> Feed {
        let options = SegmentLogOptions::default;
        let blocks = BlockLog::open(folder, MAGIC, options()).unwrap();
        let spent = SpentLog::open(folder, MAGIC, options()).unwrap();
        Feed::new(Arc::new(blocks), Arc::new(spent), recent_bytes, false)
    }

    fn set(feed: &Feed, fork: Option<u32>, branch: u8, heights: std::ops::Range<u32>) {
        let blocks: Vec<_> = heights
            .map(|height| block(height, branch, height))
            .collect();
        feed.set_chain(fork, blocks.iter().map(|(hash, header)| (*hash, header)));
    }

    fn at(height: u32, branch: u8) -> Position {
        Position {
            height,
            hash: block(height, branch, 0).0,
        }
    }

    #[test]
    fn a_lane_is_led_along_the_chain_and_back_from_a_branch_that_was_left() {
        let folder = tempfile::tempdir().unwrap();
        let feed = feed(folder.path(), 1 << 20);
        assert_eq!(feed.next(None), Next::Tip);
        set(&feed, None, 0, 0..4);
        assert_eq!(feed.next(None), Next::Block(at(0, 0)));
        assert_eq!(feed.next(Some(at(2, 0))), Next::Block(at(3, 0)));
        assert_eq!(feed.next(Some(at(3, 0))), Next::Tip);
        set(&feed, Some(1), 1, 2..6);
        assert_eq!(feed.next(Some(at(3, 0))), Next::Rewind(Some(2)));
        assert_eq!(feed.next(Some(at(1, 0))), Next::Block(at(2, 1)));
    }

    #[test]
    fn a_lane_waits_for_blocks_that_the_log_has_lost() {
        let folder = tempfile::tempdir().unwrap();
        let feed = feed(folder.path(), 1 << 20);
        set(&feed, None, 0, 0..3);
        assert_eq!(feed.next(Some(at(5, 0))), Next::Tip);
        set(&feed, Some(2), 0, 3..8);
        assert_eq!(feed.next(Some(at(5, 0))), Next::Block(at(6, 0)));
    }

    #[test]
    fn a_block_that_is_not_at_hand_any_more_is_read_from_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let feed = feed(folder.path(), 1);
        let mut first = genesis_block(Network::Regtest);
        first.header.nonce = 1;
        let mut second = first.clone();
        second.header.nonce = 2;
        for block in [&first, &second] {
            let raw = consensus::serialize(block);
            feed.blocks.append(&block.block_hash(), 0, &raw).unwrap();
            feed.add_recent(Frame::decode(raw.into()).unwrap(), None);
        }
        assert!(
            feed.recent(&first.block_hash()).is_none(),
            "it had to make room"
        );
        let (recent, _) = feed.recent(&second.block_hash()).unwrap();
        assert!(recent.raw.is_empty(), "nobody asked for the bytes");
        let position = Position {
            height: 0,
            hash: first.block_hash(),
        };
        let (frame, _) = feed.frame(position, WantedColumns::default()).unwrap();
        assert_eq!(frame.header, first.header);
        let missing = at(7, 7);
        assert!(
            feed.frame(missing, WantedColumns::default())
                .unwrap_err()
                .to_string()
                .contains("block 7")
        );
    }

    #[test]
    fn what_a_block_spends_is_found_at_hand_and_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let spent = Spent {
            values: vec![5],
            script_ends: vec![2],
            scripts: vec![1, 2],
            heights: vec![3],
            coinbases: vec![0],
        };
        {
            let feed = feed(folder.path(), 1 << 20);
            assert!(feed.spent(at(1, 0)).unwrap().is_none());
            feed.give_spent(at(1, 0), spent.clone()).unwrap();
            assert_eq!(feed.coins(), Some(at(1, 0)));
            feed.sync().unwrap();
        }
        let feed = feed(folder.path(), 1 << 20);
        assert_eq!(*feed.spent(at(1, 0)).unwrap().unwrap(), spent);
    }

    #[test]
    fn a_wait_ends_when_something_happens_and_when_the_host_stops() {
        let folder = tempfile::tempdir().unwrap();
        let feed = feed(folder.path(), 1 << 20);
        let seen = feed.version();
        feed.set_best(3, true);
        feed.wait(seen, Duration::from_secs(60));
        feed.stop();
        feed.wait(feed.version(), Duration::from_secs(60));
        assert!(feed.stopping());
    }
}
