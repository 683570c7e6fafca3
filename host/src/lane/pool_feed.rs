//! Changes of the memory pool on their way to the lanes.
//!
//! Each lane that wants them has a queue. A lane that was started afresh, or let its queue grow too long, gets the whole
//! pool once instead of the changes.

use crate::mempool::{Mempool, MempoolChanges, Origin};
use bitcoin::Txid;
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Changes that wait for one lane; a lane with more of them gets the whole pool instead.
const MAX_WAITING: usize = 100_000;

/// What a lane gives to its plugin in one call.
pub struct PoolBatch {
    pub changes: MempoolChanges,
    /// The changes are the whole pool.
    pub reset: bool,
    /// The height that the pool is at.
    pub height: u32,
    /// Whether the transactions came in at the tip, one by one.
    pub current: bool,
}

struct Queue {
    waiting: MempoolChanges,
    reset: bool,
}

impl Queue {
    /// Joins later changes to those that wait, so that the whole still says: take these out, then put those in.
    fn add(&mut self, later: &MempoolChanges) {
        if !later.removed.is_empty() && !self.waiting.added.is_empty() {
            let gone: HashSet<Txid> = later.removed.iter().map(|(txid, _)| *txid).collect();
            self.waiting
                .added
                .retain(|(entry, _)| !gone.contains(&entry.txid));
        }
        // What the lane has not been told of may be among them; taking out what is not there does no harm.
        self.waiting.removed.extend(later.removed.iter().cloned());
        self.waiting.added.extend(later.added.iter().cloned());
        if self.waiting.added.len() + self.waiting.removed.len() > MAX_WAITING {
            self.waiting = MempoolChanges::default();
            self.reset = true;
        }
    }
}

#[derive(Default)]
struct Queues {
    lanes: HashMap<String, Queue>,
    /// None until the host has reached the tip for the first time.
    height: Option<u32>,
}

impl Queues {
    fn add(&mut self, changes: &MempoolChanges) {
        for queue in self.lanes.values_mut().filter(|queue| !queue.reset) {
            queue.add(changes);
        }
    }
}

/// The pool and the queues of the lanes.
pub struct PoolFeed {
    pool: Mutex<Mempool>,
    queues: Mutex<Queues>,
}

impl PoolFeed {
    /// A feed from this pool.
    pub fn new(pool: Mempool) -> Self {
        Self {
            pool: Mutex::new(pool),
            queues: Mutex::default(),
        }
    }

    /// The pool. Locked before the queues, never after them.
    pub fn pool(&self) -> MutexGuard<'_, Mempool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lane starts afresh: it gets the whole pool next.
    pub fn subscribe(&self, lane: &str) {
        let queue = Queue {
            waiting: MempoolChanges::default(),
            reset: true,
        };
        self.queues().lanes.insert(lane.to_owned(), queue);
    }

    /// A lane has ended.
    pub fn unsubscribe(&self, lane: &str) {
        self.queues().lanes.remove(lane);
    }

    /// Takes what changed in the pool since the last call and queues it; `height` is the block that the pool is at.
    /// Says whether there was anything.
    pub fn publish(&self, pool: &mut Mempool, height: u32) -> bool {
        let changes = pool.drain_changes();
        let mut queues = self.queues();
        let moved = queues.height.replace(height) != Some(height);
        if changes.is_empty() {
            return moved;
        }
        queues.add(&changes);
        true
    }

    /// The next batch for a lane that is at `height`; none when nothing changed, or the pool is at another block.
    pub fn take(&self, lane: &str, height: u32) -> Option<PoolBatch> {
        let changes = {
            let mut queues = self.queues();
            if queues.height != Some(height) {
                return None;
            }
            let queue = queues.lanes.get_mut(lane)?;
            if queue.reset {
                drop(queues);
                return self.take_whole(lane, height);
            }
            std::mem::take(&mut queue.waiting)
        };
        (!changes.is_empty()).then_some(PoolBatch {
            changes,
            reset: false,
            height,
            current: true,
        })
    }

    /// The whole pool for a lane that starts afresh. Only this waits for the pool, which may be busy.
    fn take_whole(&self, lane: &str, height: u32) -> Option<PoolBatch> {
        let mut pool = self.pool();
        let mut queues = self.queues();
        if queues.height != Some(height) {
            return None;
        }
        // What has not been told yet is in the whole pool, and must not be told again.
        queues.add(&pool.drain_changes());
        let queue = queues.lanes.get_mut(lane)?;
        *queue = Queue {
            waiting: MempoolChanges::default(),
            reset: false,
        };
        let added = pool
            .snapshot()
            .into_iter()
            .map(|entry| (entry, Origin::New))
            .collect();
        Some(PoolBatch {
            changes: MempoolChanges {
                added,
                removed: Vec::new(),
            },
            reset: true,
            height,
            current: false,
        })
    }
}
