//! What the host's main thread does while everything runs: figures, progress, a line a block, pruning, the end.

use super::backend::NodeBackend;
use super::lanes::Lanes;
use super::manager::Board;
use super::open;
use crate::block_log::{BlockLog, SpentLog};
use crate::cli::RunOptions;
use crate::config::{Config, KeepBlocks, KeepSpent};
use crate::lane::{Feed, LaneStage, Position};
use crate::metrics::Metrics;
use crate::progress;
use anyhow::{Context, Result};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// How often it looks.
const LOOK: Duration = Duration::from_millis(50);
/// How often blocks are pruned.
const PRUNE: Duration = Duration::from_secs(10);
/// More blocks than this at once get no line each.
const MANY: u32 = 100;
/// Blocks that are remembered to find where a reorg began.
const REMEMBERED: usize = 1_000;
/// Blocks below the tip that are never pruned: what Bitcoin Core keeps for reorgs.
const MIN_KEPT: u32 = 288;

pub(super) struct Watch {
    keep_blocks: KeepBlocks,
    keep_spent: KeepSpent,
    undo_depth: u32,
    options: RunOptions,
    feed: Arc<Feed>,
    backend: Arc<NodeBackend>,
    metrics: Arc<Metrics>,
    blocks: Arc<BlockLog>,
    spent: Arc<SpentLog>,
    folder: PathBuf,
    lanes: Arc<Lanes>,
    board: Arc<Board>,
    pruned: Instant,
    /// The last pruning failed.
    not_pruned: bool,
    /// The last blocks that a line was written for, since the host was first at the tip.
    said: VecDeque<Position>,
    bytes: (u64, u64),
    synced: bool,
}

impl Watch {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn new(
        config: &Config,
        options: RunOptions,
        feed: Arc<Feed>,
        backend: Arc<NodeBackend>,
        metrics: Arc<Metrics>,
        blocks: Arc<BlockLog>,
        spent: Arc<SpentLog>,
        folder: PathBuf,
        lanes: Arc<Lanes>,
        board: Arc<Board>,
    ) -> Self {
        Self {
            keep_blocks: config.chain.keep_blocks,
            keep_spent: config.chain.keep_spent,
            undo_depth: config.chain.undo_depth,
            options,
            feed,
            backend,
            metrics,
            blocks,
            spent,
            folder,
            lanes,
            board,
            pruned: Instant::now(),
            not_pruned: false,
            said: VecDeque::new(),
            bytes: (0, 0),
            synced: false,
        }
    }

    /// Watches until a signal, the height that was asked for, or the end of a part that the host cannot do without.
    pub(super) async fn run(
        &mut self,
        shutdown: impl Future<Output = ()>,
        net: &JoinHandle<Result<()>>,
    ) -> Result<()> {
        tokio::pin!(shutdown);
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut shutdown => return Ok(()),
                _ = looks.tick() => {}
            }
            if let Some(error) = self.lanes.failed() {
                return Err(error);
            }
            anyhow::ensure!(!net.is_finished(), "the network has ended");
            self.look()?;
            if self.options.stop_at_height.is_some()
                && let Some(stands) = self.quarantined()
            {
                anyhow::bail!(
                    "plugin {stands} is quarantined: the height to stop at is never reached"
                );
            }
            if self.arrived() {
                tracing::info!(
                    height = self.options.stop_at_height,
                    "reached the height to stop at"
                );
                return Ok(());
            }
        }
    }

    /// A plugin that stands still for good.
    fn quarantined(&self) -> Option<String> {
        let serving = self.lanes.serving();
        let mut lanes = serving.iter();
        let stands = lanes.find(|lane| lane.status().stage == LaneStage::Quarantined)?;
        Some(stands.name().to_owned())
    }

    /// Whether every lane has the height to stop at on disk.
    fn arrived(&self) -> bool {
        let Some(height) = self.options.stop_at_height else {
            return false;
        };
        self.board.notes().building == 0
            && self
                .lanes
                .serving()
                .iter()
                .all(|lane| lane.status().flushed.is_some_and(|at| at.height >= height))
            && self
                .feed
                .chain()
                .tip()
                .is_some_and(|tip| tip.height >= height)
    }

    fn look(&mut self) -> Result<()> {
        let net = self.backend.net();
        let Some(tip) = self.feed.chain().tip() else {
            return Ok(());
        };
        let mut slowest = tip.height;
        let mut flushed = Some(tip.height);
        for lane in self.lanes.serving() {
            let status = lane.status();
            let height = status.cursor.map_or(0, |at| at.height);
            let metrics = self.metrics.plugin(lane.name());
            metrics.height.set(height.into());
            metrics.lag.set(tip.height.saturating_sub(height).into());
            metrics.memory_bytes.set(status.memory as i64);
            slowest = slowest.min(height);
            let on_disk = status
                .flushed
                .filter(|&at| self.feed.chain().contains(at))
                .map(|at| at.height);
            // A lane that fails does not keep the others' blocks from being shown.
            if !matches!(
                status.stage,
                LaneStage::Retrying | LaneStage::Quarantined | LaneStage::WaitingForHost
            ) {
                flushed = flushed.min(on_disk);
            }
        }
        self.metrics.headers_height.set(net.best_header.into());
        self.metrics.synced.set(i64::from(net.synced));
        self.metrics.bytes_in.inc_by(net.bytes_in - self.bytes.0);
        self.metrics.bytes_out.inc_by(net.bytes_out - self.bytes.1);
        self.bytes = (net.bytes_in, net.bytes_out);
        self.metrics.block_log_bytes.set(self.blocks.bytes() as i64);
        self.show(net.best_header.max(tip.height), slowest, flushed);
        if self.pruned.elapsed() >= PRUNE {
            self.pruned = Instant::now();
            let pruned = self.prune(tip.height);
            self.say_pruned(pruned);
        }
        Ok(())
    }

    /// Says it when blocks cannot be pruned, as on a full disk, and when they can again. The host goes on meanwhile: it has more of
    /// them than it was told to keep.
    fn say_pruned(&mut self, pruned: Result<()>) {
        let before = std::mem::replace(&mut self.not_pruned, pruned.is_err());
        match pruned {
            Err(error) if !before => {
                let error = format!("{error:#}");
                tracing::error!(error, "blocks cannot be pruned: it is tried again");
            }
            Ok(()) if before => tracing::info!("blocks can be pruned again"),
            _ => {}
        }
    }

    /// The progress while behind the tip, and a line for each block at it.
    fn show(&mut self, target: u32, slowest: u32, flushed: Option<u32>) {
        let behind = !self.feed.synced() || target.saturating_sub(slowest) > 10;
        if behind {
            let transactions = self.metrics.transactions.get();
            self.options.progress.update(progress::Position {
                height: slowest,
                target,
                transactions,
            });
            self.synced = false;
            return;
        }
        self.options.progress.finish();
        if !self.synced {
            self.synced = true;
            tracing::info!(height = slowest, "at the tip");
            // What came in a long sync needs no line each.
            let tip = self.feed.chain().tip();
            let said = self.said.back().map(|said| said.height);
            if said.is_none_or(|said| tip.is_some_and(|tip| tip.height > said + MANY)) {
                self.said.clear();
                self.said.extend(tip);
            }
        }
        // A lane that has not yet left a branch behind has none of this chain's blocks on the disk.
        let Some(flushed) = flushed else {
            return;
        };
        let chain = self.feed.chain();
        let Some(hash) = chain.hash_at(flushed) else {
            return;
        };
        // After a reorg the lines go on above the fork.
        while self.said.back().is_some_and(|&said| !chain.contains(said)) {
            self.said.pop_back();
        }
        let from = match self.said.back() {
            Some(said) => said.height,
            None => flushed.saturating_sub(1),
        };
        drop(chain);
        // A lane that was taken back further than the others reads blocks again that have had their lines.
        if flushed <= from {
            return;
        }
        for height in from + 1..=flushed {
            self.backend.say_block(height);
        }
        self.said.push_back(Position {
            height: flushed,
            hash,
        });
        if self.said.len() > REMEMBERED {
            self.said.pop_front();
        }
    }

    /// Removes the oldest blocks when there are more than wanted, but none that a lane or a reorg may need.
    fn prune(&self, tip: u32) -> Result<()> {
        let KeepBlocks::Bytes(keep) = self.keep_blocks else {
            return Ok(());
        };
        let mut lowest = tip.saturating_sub(MIN_KEPT.max(self.undo_depth));
        let mut lowest_spent = lowest;
        for lane in self.lanes.all() {
            let flushed = lane.status().flushed.map_or(0, |at| at.height);
            if let Some(held) = held_back(&self.feed, flushed) {
                lowest = lowest.min(held);
            }
            // What blocks spend no peer has.
            if lane.program().descriptor.columns.spent {
                lowest_spent = lowest_spent.min(flushed);
            }
        }
        if self.blocks.bytes() <= keep || lowest == 0 {
            return self.prune_spent(tip, lowest_spent);
        }
        // First the note, then the blocks: what is gone must be known to have been checked.
        open::keep_pruned_below(&self.folder, lowest)?;
        let pruned = self
            .blocks
            .prune(keep, lowest)
            .context("failed to prune the block log")?;
        if pruned.segments > 0 {
            tracing::info!(below = lowest, bytes = pruned.bytes, "blocks pruned");
        }
        self.prune_spent(tip, lowest_spent)
    }

    /// What blocks spend is kept as long as they are, or for good; and as long as a lane has still to read it.
    fn prune_spent(&self, tip: u32, lowest: u32) -> Result<()> {
        if self.keep_spent == KeepSpent::All {
            return Ok(());
        }
        // Only where there is more of it than a segment, which is kept anyway.
        let Some(kept) = self.blocks.contiguous_from(tip) else {
            return Ok(());
        };
        let pruned = self
            .spent
            .prune(0, kept.min(lowest))
            .context("failed to prune the log of spent outputs")?;
        if pruned.segments > 0 {
            tracing::info!(bytes = pruned.bytes, "spent outputs pruned");
        }
        Ok(())
    }
}

/// The lowest block that a lane which is on the disk up to `flushed` keeps from being pruned. A start looks for that block in the
/// log, to know that those below it were checked: it must be there.
fn held_back(feed: &Feed, flushed: u32) -> Option<u32> {
    let next = flushed.saturating_add(1);
    // Who is below the log already gets its blocks from peers, the next ones too.
    feed.keeps(next).then(|| match feed.keeps(flushed) {
        true => flushed,
        false => next,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::super::manager::Asker;
    use super::*;
    use crate::api::OwnerToken;
    use crate::lane::{LaneStores, kept_blocks};
    use crate::net::NetHandle;
    use crate::store::{RowStore, StateStore};

    #[test]
    fn the_host_goes_on_when_blocks_cannot_be_pruned() {
        let folder = tempfile::tempdir().unwrap();
        let feed = Arc::new(kept_blocks(&folder.path().join("blocks"), 1_000, 0));
        let blocks = feed.log();
        let mut config = Config::default();
        config.chain.keep_blocks = KeepBlocks::Bytes(1);
        let (asker, _asked) = std::sync::mpsc::channel();
        let (board, lanes) = (Arc::new(Board::default()), Arc::new(Lanes::default()));
        let rows = format!("sqlite:{}", folder.path().join("rows.sqlite").display());
        let backend = Arc::new(NodeBackend::new(
            &config,
            board.clone(),
            Asker::new(asker),
            feed.clone(),
            lanes.clone(),
            NetHandle::unconnected(),
            None,
            blocks.clone(),
            None,
            OwnerToken::create(folder.path()).unwrap(),
            LaneStores {
                state: StateStore::open(&folder.path().join("state"), 1 << 20).unwrap(),
                rows: Arc::new(RowStore::open(&rows).unwrap()),
            },
        ));
        let options = RunOptions {
            source: Arc::new(|| Ok(Config::default())),
            stop_at_height: None,
            progress: progress::Progress::with_bar(false),
        };
        let spent = crate::block_log::SpentLog::open(
            folder.path().join("blocks"),
            [0xfa, 0xbf, 0xb5, 0xda],
            crate::block_log::SegmentLogOptions::default(),
        );
        let data = folder.path().join("data");
        let mut watch = Watch::new(
            &config,
            options,
            feed,
            backend,
            Arc::new(Metrics::new("0", "regtest")),
            blocks,
            Arc::new(spent.unwrap()),
            data.clone(),
            lanes,
            board,
        );
        let mut look = || {
            watch.pruned = Instant::now().checked_sub(PRUNE).unwrap();
            watch.look().map(|()| watch.not_pruned)
        };
        // What was pruned cannot be noted.
        assert!(look().unwrap());
        std::fs::create_dir(&data).unwrap();
        assert!(!look().unwrap());
        assert!(data.join("pruned-below").is_file());
    }

    #[test]
    fn what_a_lane_holds_back_is_a_block_of_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let feed = kept_blocks(folder.path(), 10, 5);
        assert_eq!(held_back(&feed, 3), None, "it gets its blocks from peers");
        // It came from below, and its next block is the first of the log.
        assert_eq!(held_back(&feed, 4), Some(5));
        assert_eq!(held_back(&feed, 5), Some(5));
        assert_eq!(held_back(&feed, 9), Some(9));
    }
}
