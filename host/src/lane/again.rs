//! Blocks that lanes need and that were pruned: they come from peers once more, go by the lanes that need them, and are gone.
//!
//! Each lane has a window above its cursor, and all windows share one number of bytes. Lanes at the same height share the
//! blocks. What a lane needs is forgotten when it has not asked for a while: it has ended, or its plugin stands still.

mod large;

use self::large::LargeBlock;
pub(super) use self::large::Refused;
use super::active_chain::Position;
use crate::frame::Frame;
use bitcoin::BlockHash;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How far above a lane's next block others are asked for.
const WINDOW: u32 = 256;
/// How long a need lasts that is not renewed.
const LASTS: Duration = Duration::from_secs(30);
/// What a decoded block takes, before any has come.
const FIRST_GUESS: usize = 2 << 20;

/// The blocks that lanes wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedAgain {
    /// The most needed first.
    pub blocks: Vec<BlockHash>,
    /// So many of them, the first ones, are to be asked for; the others are taken if they are under way.
    pub room: usize,
}

#[derive(Debug, Clone, Copy)]
struct Need {
    height: u32,
    renewed: Instant,
}

#[derive(Debug, Default)]
struct Inner {
    blocks: BTreeMap<u32, Arc<Frame>>,
    bytes: usize,
    /// What a block takes, on a moving average.
    usual_bytes: Option<usize>,
    /// The next block of each lane that reads here.
    needs: HashMap<String, Need>,
    /// The next block of each lane that reads what blocks spend.
    spent_needs: HashMap<String, Need>,
    unavailable: Option<u32>,
    /// Blocks that are too large to be held, by their height.
    large: BTreeMap<u32, LargeBlock>,
}

/// See the module's page.
#[derive(Debug)]
pub(super) struct Again {
    inner: Mutex<Inner>,
    max_bytes: usize,
}

impl Again {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            inner: Mutex::default(),
            max_bytes,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lane's next block is this one, which is not in the log: gives it if it is here.
    pub(super) fn need(&self, lane: &str, position: Position) -> Option<Arc<Frame>> {
        let mut inner = self.lock();
        note(&mut inner.needs, lane, position.height);
        inner.forget_passed();
        let frame = inner.blocks.get(&position.height)?;
        (frame.hash == position.hash).then(|| frame.clone())
    }

    /// A lane's next block is in the log. Behind it others may be missing: a lane that needed one needs them still, and is
    /// not asked for twice what is under way.
    pub(super) fn goes_on(&self, lane: &str, height: u32) {
        let mut inner = self.lock();
        if inner.needs.contains_key(lane) {
            note(&mut inner.needs, lane, height);
            inner.forget_passed();
        }
    }

    /// A lane's next block is this one, and it asks for what it spends.
    pub(super) fn need_spent(&self, lane: &str, height: u32) {
        note(&mut self.lock().spent_needs, lane, height);
    }

    /// The heights at which lanes are that ask for what blocks spend.
    pub(super) fn spent_needs(&self) -> Vec<u32> {
        let mut inner = self.lock();
        drop_old(&mut inner.spent_needs);
        inner.spent_needs.values().map(|need| need.height).collect()
    }

    /// The block at a height, if it is here.
    pub(super) fn at_hand(&self, position: Position) -> Option<Arc<Frame>> {
        let inner = self.lock();
        let frame = inner.blocks.get(&position.height)?;
        (frame.hash == position.hash).then(|| frame.clone())
    }

    /// The blocks that lanes wait for, the most needed first: of each lane's window in turn, so that none waits for another's.
    /// `missing` names a block that the log has not.
    pub(super) fn wanted(&self, missing: impl Fn(u32) -> Option<BlockHash>) -> WantedAgain {
        let mut inner = self.lock();
        inner.forget_passed();
        let heights: BTreeSet<u32> = inner.needs.values().map(|need| need.height).collect();
        let usual = inner.usual_bytes.unwrap_or(FIRST_GUESS).max(1);
        let mut wanted = WantedAgain {
            blocks: Vec::new(),
            room: self.max_bytes.saturating_sub(inner.bytes) / usual,
        };
        let mut seen = BTreeSet::new();
        for offset in 0..WINDOW {
            for &height in &heights {
                let Some(height) = height.checked_add(offset) else {
                    continue;
                };
                if !seen.insert(height) {
                    continue;
                }
                let Some(hash) = missing(height) else {
                    continue;
                };
                if inner
                    .blocks
                    .get(&height)
                    .is_none_or(|frame| frame.hash != hash)
                {
                    wanted.blocks.push(hash);
                }
            }
            if offset == 0 {
                // The next block of each lane is wanted whatever room there is: others wait for it to go.
                wanted.room = wanted.room.max(wanted.blocks.len());
            }
        }
        // Lanes that go on in the log have no need here, until one is at a block that is missing.
        if wanted.blocks.is_empty() && inner.blocks.is_empty() && inner.large.is_empty() {
            inner.needs.clear();
        }
        wanted
    }

    /// A block that came and was checked. It is not kept when nobody needs it, or there is no room and nobody needs it next.
    pub(super) fn give(&self, height: u32, frame: Frame) {
        let bytes = frame.footprint();
        let mut inner = self.lock();
        inner.usual_bytes = Some((inner.usual_bytes.unwrap_or(bytes) * 7 + bytes) / 8);
        let next = inner.needs.values().any(|need| need.height == height);
        let needed = inner
            .needs
            .values()
            .any(|need| (need.height..need.height.saturating_add(WINDOW)).contains(&height));
        if !next && (!needed || inner.bytes + bytes > self.max_bytes) {
            return;
        }
        if let Some(old) = inner.blocks.insert(height, Arc::new(frame)) {
            inner.bytes -= old.footprint();
        }
        inner.bytes += bytes;
    }

    /// The most needed block that no peer has, if there is one.
    pub(super) fn unavailable(&self) -> Option<u32> {
        self.lock().unavailable
    }

    /// Says which that is; whether it is news.
    pub(super) fn set_unavailable(&self, height: Option<u32>) -> bool {
        let mut inner = self.lock();
        std::mem::replace(&mut inner.unavailable, height) != height
    }

    /// Bytes of blocks at hand, and how many may be.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> (usize, usize) {
        (self.lock().bytes, self.max_bytes)
    }
}

impl Inner {
    /// Forgets the needs of who has not asked for long, and the blocks that all lanes have gone past.
    fn forget_passed(&mut self) {
        drop_old(&mut self.needs);
        let needs = &self.needs;
        let bytes = &mut self.bytes;
        self.blocks.retain(|&height, frame| {
            let keep = needs
                .values()
                .any(|need| (need.height..need.height.saturating_add(WINDOW)).contains(&height));
            if !keep {
                *bytes -= frame.footprint();
            }
            keep
        });
    }
}

fn note(needs: &mut HashMap<String, Need>, lane: &str, height: u32) {
    let need = Need {
        height,
        renewed: Instant::now(),
    };
    match needs.get_mut(lane) {
        Some(old) => *old = need,
        None => drop(needs.insert(lane.to_owned(), need)),
    }
}

fn drop_old(needs: &mut HashMap<String, Need>) {
    needs.retain(|_, need| need.renewed.elapsed() < LASTS);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;
    use crate::chain::fixtures;
    use crate::network::Network;
    use bytes::Bytes;

    fn frames(count: u32) -> Vec<Frame> {
        let genesis = Network::Regtest.params().genesis_header;
        fixtures::chain(&genesis, 0, count, 0)
            .iter()
            .map(|block| Frame::decode(Bytes::from(fixtures::raw(block))).unwrap())
            .collect()
    }

    fn at(frames: &[Frame], height: u32) -> Position {
        Position {
            height,
            hash: frames[height as usize - 1].hash,
        }
    }

    fn missing(frames: &[Frame]) -> impl Fn(u32) -> Option<BlockHash> {
        |height| {
            let index = (height as usize).checked_sub(1)?;
            frames.get(index).map(|frame| frame.hash)
        }
    }

    #[test]
    fn lanes_share_what_they_both_need_and_it_goes_when_the_last_has_gone_past() {
        let frames = frames(20);
        let again = Again::new(1 << 30);
        assert!(again.need("slow", at(&frames, 3)).is_none());
        assert!(again.need("fast", at(&frames, 3)).is_none());
        let wanted = again.wanted(missing(&frames));
        assert_eq!(wanted.blocks.len(), 18, "each once");
        assert_eq!(wanted.blocks[0], frames[2].hash);
        assert!(wanted.room >= 18);
        for height in 3..=20 {
            again.give(height, frames[height as usize - 1].clone());
        }
        assert!(again.wanted(missing(&frames)).blocks.is_empty());
        for height in 3..=20 {
            let frame = again.need("fast", at(&frames, height)).unwrap();
            assert_eq!(frame.hash, frames[height as usize - 1].hash);
        }
        assert!(again.at_hand(at(&frames, 3)).is_some());
        assert!(again.need("slow", at(&frames, 15)).is_some());
        assert!(again.at_hand(at(&frames, 14)).is_none());
        again.goes_on("slow", 21);
        again.goes_on("fast", 21);
        assert_eq!(again.bytes().0, 0);
        assert!(again.wanted(missing(&frames)).blocks.is_empty());
    }

    #[test]
    fn each_lane_has_a_window_of_its_own_and_all_have_one_bound_of_bytes() {
        let frames = frames(200);
        let size = frames[100].footprint();
        let again = Again::new(10 * size);
        // What a block takes is learnt from those that come.
        again.need("one", at(&frames, 1));
        again.give(1, frames[0].clone());
        again.need("one", at(&frames, 10));
        again.need("other", at(&frames, 150));
        let wanted = again.wanted(missing(&frames));
        assert!((8..=12).contains(&wanted.room), "{}", wanted.room);
        for pair in wanted.blocks[..wanted.room].chunks_exact(2).enumerate() {
            let (n, pair) = pair;
            assert_eq!(pair, [frames[9 + n].hash, frames[149 + n].hash]);
        }
        // Everything that can be sent is sent, and more: the next block of each lane is taken, of the rest what there is room for.
        for height in (1..=200).rev() {
            again.give(height, frames[height as usize - 1].clone());
        }
        let (bytes, most) = again.bytes();
        assert!(bytes <= most + 2 * size, "{bytes} of {most}");
        assert!(again.need("one", at(&frames, 10)).is_some());
        assert!(again.need("other", at(&frames, 150)).is_some());
    }

    #[test]
    fn what_was_asked_for_stays_wanted_when_there_is_less_room_than_was_thought() {
        let frames = frames(50);
        let size = frames[20].footprint();
        let again = Again::new(10 * size);
        again.need("one", at(&frames, 1));
        again.need("other", at(&frames, 20));
        // Small ones came first.
        again.lock().usual_bytes = Some(size / 2);
        let before = again.wanted(missing(&frames));
        assert_eq!(before.room, 20);
        again.lock().usual_bytes = Some(2 * size);
        let after = again.wanted(missing(&frames));
        assert_eq!((after.room, after.blocks), (5, before.blocks));
        // However little there is, each lane's next is asked for.
        again.lock().usual_bytes = Some(20 * size);
        assert_eq!(again.wanted(missing(&frames)).room, 2);
    }

    #[test]
    fn a_block_of_a_branch_that_was_left_is_not_given() {
        let frames = frames(20);
        let again = Again::new(1 << 30);
        again.need("lane", at(&frames, 5));
        again.give(5, frames[5].clone());
        assert!(again.need("lane", at(&frames, 5)).is_none());
        let wanted = again.wanted(missing(&frames));
        assert_eq!(
            wanted.blocks[0], frames[4].hash,
            "the right one is asked for"
        );
        again.give(5, frames[4].clone());
        assert!(again.need("lane", at(&frames, 5)).is_some());
        // And counted instead of the other.
        again.goes_on("lane", 6);
        again.need("none", at(&frames, 20));
        assert_eq!(again.bytes().0, 0);
    }
}
