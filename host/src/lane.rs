//! A lane is one plugin at work: one thread, one wasm instance, one cursor.
//!
//! Lanes do not wait for each other, but for what the coins lane says of a block when they ask for it. A lane reads the
//! next block after its cursor from the [`Feed`], gives it to its plugin, and flushes what the plugin left: after every
//! block at the tip, in larger pieces far behind it. Everything that goes wrong is one operation: drop what is not
//! committed, start a fresh instance, go on from the cursor.

mod active_chain;
mod again;
mod failures;
mod feed;
mod ladder;
mod orders;
mod parts;
mod pool_feed;
mod pool_queue;
mod pool_worker;
mod status;
mod worker;

pub use active_chain::{ActiveChain, Position};
pub use again::WantedAgain;
#[cfg(test)]
pub(crate) use feed::kept_blocks;
pub use feed::{Feed, Next, NotAgain, Refusal, Waiting};
pub use ladder::{Fault, Ladder, Verdict};
pub use orders::Order;
pub use parts::{BlockPart, LargeBlocks, PART, Parts};
pub use pool_feed::{PoolBatch, PoolFeed};
pub use pool_worker::PoolWorker;
pub use status::{LaneShared, LaneStage, LaneStatus, Program};
pub use worker::{Lane, LaneKind, LaneSettings, LaneStores, OpenLane};
