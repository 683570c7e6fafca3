//! What a lane does when a step has failed: [`Ladder`] decides, this does it.

use super::Worker;
use crate::lane::active_chain::Position;
use crate::lane::feed::Next;
use crate::lane::ladder::{Fault, Ladder, Verdict};
use crate::lane::status::LaneStage;
use crate::lane::worker::IDLE;
use crate::plugin::{CallError, Given};
use crate::store::RowError;
use std::path::PathBuf;
use std::time::{Duration, Instant};

impl Worker {
    /// Drops the instance and what it did not finish, says what happened, and does what the ladder says.
    pub(super) fn failed(&mut self, error: &anyhow::Error, ladder: &mut Ladder) {
        self.vacate();
        if self.lane.feed.stopping() {
            // The call was cut short because the host ends.
            tracing::debug!(
                plugin = self.name(),
                error = format!("{error:#}"),
                "a call ended with the host"
            );
            return;
        }
        let fault = Fault::of(error);
        let plugins = fault != Fault::Host;
        let given = self.given.take();
        let mut failed = error
            .chain()
            .find_map(|cause| cause.downcast_ref::<CallError>());
        let refused = error
            .chain()
            .find_map(|cause| cause.downcast_ref::<RowError>());
        let rows;
        if plugins && let Some(refused) = refused {
            // What was gathered cannot be stored: it is made again, and flushed block by block to find the bad one.
            let blocks = self.drop_unflushed();
            rows = match given {
                Some(_) => Some(CallError::rows("on-mempool", refused)),
                None => (blocks == 1).then(|| CallError::rows("on-block", refused)),
            };
            failed = rows.as_ref();
        }
        let cursor = self.cursor();
        let next = cursor.map_or(0, |cursor| cursor.height + 1);
        let block = match self.lane.feed.next(cursor) {
            Next::Block(position) => Some(position),
            _ => cursor,
        };
        let verdict = ladder.failed(block, fault);
        let capsule = match failed {
            Some(failed) if plugins => self.capsule(failed, given, cursor, block),
            _ => None,
        };
        let shared = self.lane.shared.clone();
        let reason = format!("{error:#}");
        let path = capsule.as_ref().map(|path| path.display().to_string());
        let said = format!("at block {next}: {reason}");
        let (stage, pause) = match verdict {
            Verdict::Retry { pause, attempts } => {
                tracing::error!(plugin = shared.name(), block = next, error = reason, attempts, retry_in = ?pause, capsule = path, "plugin failed");
                (LaneStage::Retrying, Some(pause))
            }
            Verdict::Quarantine { attempts } => {
                tracing::error!(
                    plugin = shared.name(),
                    block = next,
                    error = reason,
                    attempts,
                    capsule = path,
                    "plugin quarantined: it stands still until it is retried or changed"
                );
                (LaneStage::Quarantined, None)
            }
            Verdict::WaitForHost { pause } => {
                tracing::error!(plugin = shared.name(), block = next, error = reason, retry_in = ?pause, "the host failed, not the plugin: its lane waits");
                (LaneStage::WaitingForHost, Some(pause))
            }
        };
        // What was asked before is done with this try.
        shared.take_retry();
        {
            let mut status = shared.lock();
            status.failed(stage, ladder.attempts(), said);
            if plugins {
                status.failures += 1;
                status.capsule = capsule;
            }
        }
        let metrics = &self.lane.metrics;
        match plugins {
            true => metrics.traps.inc(),
            false => metrics.host_faults.inc(),
        };
        // The next try is recorded, so that it can be run again elsewhere.
        if let Some(capsules) = shared
            .surroundings
            .watched
            .capsules
            .as_ref()
            .filter(|_| plugins)
        {
            shared
                .surroundings
                .watched
                .recorder
                .arm(capsules.max_bytes());
        }
        match pause {
            Some(pause) => {
                if self.sleep(pause) {
                    ladder.reset();
                }
            }
            None => {
                metrics.quarantined.set(1);
                self.stand_still(block.filter(|_| block != cursor));
                self.lane.metrics.quarantined.set(0);
                ladder.reset();
            }
        }
    }

    /// Waits in quarantine until another try is asked for, the host ends, or the block that failed is in the chain no more.
    fn stand_still(&mut self, block: Option<Position>) {
        // What the blocks before left should not wait for the disk as long.
        let mut flushed = false;
        while !self.lane.feed.stopping()
            && self.lane.shared.orders.is_empty()
            && !self.lane.shared.take_retry()
        {
            if !flushed {
                flushed = match self.flush_if_due(true) {
                    Ok(()) => true,
                    Err(error) => {
                        tracing::warn!(
                            plugin = self.name(),
                            error = format!("{error:#}"),
                            "a quarantined plugin's blocks wait for the disk"
                        );
                        false
                    }
                };
                self.lane.shared.lock().stage = LaneStage::Quarantined;
            }
            if block.is_some_and(|block| !self.lane.feed.chain().contains(block)) {
                tracing::info!(
                    plugin = self.name(),
                    "the block that failed was left: the plugin goes on"
                );
                return;
            }
            self.lane.feed.wait(self.lane.feed.version(), IDLE);
        }
    }

    /// Goes back to what is on the disk, and says by how many blocks. Up to where it was every block is flushed by itself
    /// then.
    fn drop_unflushed(&mut self) -> u32 {
        let next = |cursor: Option<Position>| cursor.map_or(0, |cursor| cursor.height + 1);
        let was = self.cursor();
        self.careful_until = was.map(|cursor| cursor.height);
        if let Ok((state, rows)) = self.stores() {
            state.discard_unflushed();
            rows.clear();
        }
        let blocks = next(was).saturating_sub(next(self.cursor()));
        if let Err(error) = self.publish() {
            tracing::warn!(
                plugin = self.name(),
                error = format!("{error:#}"),
                "the state could not be shown"
            );
        }
        blocks
    }

    /// Writes a capsule of a failure at `cursor`, with the changes of the pool or else of the block after it if there is one;
    /// says where.
    fn capsule(
        &mut self,
        failed: &CallError,
        given: Option<Given>,
        cursor: Option<Position>,
        block: Option<Position>,
    ) -> Option<PathBuf> {
        if block.is_some_and(|block| self.lane.feed.large(block).is_some()) && given.is_none() {
            // A capsule would hold the block.
            self.lane.shared.surroundings.watched.recorder.take();
            return None;
        }
        let shared = &self.lane.shared;
        let recording = shared.surroundings.watched.recorder.take();
        let given = given.unwrap_or_else(|| {
            let feed = &self.lane.feed;
            let position = block.filter(|_| block != cursor);
            let raw = position.and_then(|position| Some((position, feed.raw(position).ok()?)));
            let Some((position, raw)) = raw else {
                return Given::Start;
            };
            let wanted = self.program.descriptor.columns.spent;
            Given::Block {
                position,
                median_time: feed
                    .chain()
                    .header_at(position.height)
                    .map_or(0, |(_, time)| time),
                raw,
                spent: feed.spent(position).ok().flatten().filter(|_| wanted),
            }
        });
        shared.capsule_of(failed, cursor, given, recording)
    }

    /// Sleeps in short pieces, so that a stop is not kept waiting. True when another try was asked for meanwhile.
    fn sleep(&self, pause: Duration) -> bool {
        let end = Instant::now() + pause;
        while !self.lane.feed.stopping() && self.lane.shared.orders.is_empty() {
            if self.lane.shared.take_retry() {
                return true;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.lane
                .feed
                .wait(self.lane.feed.version(), left.min(IDLE));
        }
        false
    }
}
