//! The thread of a lane.

mod change;
mod failing;
mod flushing;
mod parts;
mod rewinding;
mod tip;

use super::active_chain::Position;
use super::feed::{Feed, Next, Refusal, Waiting};
use super::ladder::Ladder;
use super::pool_feed::PoolFeed;
use super::status::{LaneShared, LaneStage, Program};
use crate::frame::Frame;
use crate::metrics::{PluginMetrics, StageTimer};
use crate::plugin::{BlockInput, CallError, Given, Instance, LaneSpace, MempoolInput};
use crate::store::{
    COIN_KEY_LEN, Cursor, Keys, LaneState, OutPointKey, RowBuffer, RowStore, StateStore,
    StoreError, coin_key,
};
use anyhow::{Context, Result};
use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of rows that wait for a flush while the lane is behind.
const MAX_ROW_BYTES: usize = 16 << 20;
/// Blocks whose hashes a lane remembers, to find a fork without stepping back one by one.
const REMEMBERED: usize = 1_000;
/// A lane to which no block came for so long flushes what it has.
const QUIET: Duration = Duration::from_secs(1);
/// How long a lane that has nothing to do sleeps at most.
const IDLE: Duration = Duration::from_millis(500);

/// How a lane works.
#[derive(Debug, Clone, Copy)]
pub struct LaneSettings {
    /// Bytes of state changes that may gather before they are flushed while the lane is behind.
    pub state_cache: usize,
    /// How long changes may gather while the lane is behind.
    pub flush_interval: Duration,
    /// Blocks below the best header that can be taken back.
    pub undo_depth: u32,
    /// The pause after the first failure; it doubles with each further one.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// Failures of one cause on one block after which the plugin is quarantined.
    pub quarantine_after: u32,
}

/// Where lanes keep what their plugins leave.
#[derive(Clone)]
pub struct LaneStores {
    pub state: StateStore,
    pub rows: Arc<RowStore>,
}

/// Which of a plugin's two sets of data a lane works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneKind {
    /// The current one: its lane serves queries and feeds other lanes.
    Serving,
    /// The second one, being made while the current one serves.
    Building,
}

/// A lane, ready to run on a thread of its own.
pub struct Lane {
    pub kind: LaneKind,
    pub shared: Arc<LaneShared>,
    pub feed: Arc<Feed>,
    pub pool: Option<Arc<PoolFeed>>,
    pub stores: LaneStores,
    pub settings: LaneSettings,
    pub metrics: PluginMetrics,
    /// From a block's announcement to its commit in this lane.
    pub committed: StageTimer,
}

/// The instance, or the stores that wait for one.
enum Seat {
    Empty(Box<LaneSpace>),
    Taken(Instance),
    /// While one is made of the other.
    Moving,
}

/// What a step did.
enum Step {
    Moved,
    Idle(LaneStage),
}

struct Worker {
    lane: Lane,
    program: Arc<Program>,
    seat: Seat,
    recent: VecDeque<Position>,
    last_flush: Instant,
    last_block: Instant,
    /// When the block at the cursor was announced, if it came from a peer just now.
    announced: Option<Instant>,
    indexes_built: bool,
    /// Up to this height every block is flushed by itself, to find the one whose rows cannot be stored.
    careful_until: Option<u32>,
    /// The changes of the pool that the plugin failed on, until the capsule is written.
    given: Option<Given>,
    /// Which of the settings that change at run time the instance has.
    settings_version: u64,
    /// The block that was refused and that the chain is to leave.
    refused: Option<Position>,
}

impl From<Cursor> for Position {
    fn from(cursor: Cursor) -> Self {
        Self {
            height: cursor.height,
            hash: BlockHash::from_byte_array(cursor.hash),
        }
    }
}

impl From<Position> for Cursor {
    fn from(position: Position) -> Self {
        Self {
            height: position.height,
            hash: position.hash.to_byte_array(),
        }
    }
}

/// A lane whose stores are open and agree.
pub struct OpenLane(Worker);

impl Lane {
    /// Opens the stores and brings them to one block.
    ///
    /// # Errors
    ///
    /// When they cannot be opened.
    pub fn open(self) -> Result<OpenLane> {
        let program = self.shared.program();
        let space = self.first_stores(&program)?;
        let mut worker = Worker {
            program,
            seat: Seat::Empty(Box::new(space)),
            recent: VecDeque::new(),
            last_flush: Instant::now(),
            last_block: Instant::now(),
            announced: None,
            indexes_built: false,
            careful_until: None,
            given: None,
            settings_version: 0,
            refused: None,
            lane: self,
        };
        worker.publish()?;
        Ok(OpenLane(worker))
    }
}

impl OpenLane {
    /// Runs until the feed stops, then flushes.
    ///
    /// # Errors
    ///
    /// When the last flush fails. What a plugin does wrong is never an error here.
    pub fn run(self) -> Result<()> {
        let Self(mut worker) = self;
        worker.run();
        worker.vacate();
        let flushed = worker
            .flush()
            .with_context(|| format!("failed to flush plugin {}", worker.name()));
        worker.lane.shared.lock().stage = LaneStage::Stopped;
        worker.lane.shared.close_view();
        flushed
    }
}

impl Worker {
    fn name(&self) -> &str {
        self.lane.shared.name()
    }

    /// Whether other lanes wait for what this one says of the coins.
    fn gives_coins(&self) -> bool {
        self.program.descriptor.coins && self.lane.kind == LaneKind::Serving
    }

    /// Whether it goes once more through what blocks spend, while another lane says where the coins are.
    fn makes_coins_anew(&self) -> bool {
        self.program.descriptor.coins && self.lane.kind == LaneKind::Building
    }

    fn space(&mut self) -> Option<&mut LaneSpace> {
        match &mut self.seat {
            Seat::Empty(space) => Some(space),
            Seat::Taken(instance) => Some(instance.space_mut()),
            Seat::Moving => None,
        }
    }

    fn stores(&mut self) -> Result<(&mut LaneState, &mut RowBuffer)> {
        let LaneSpace { state, rows } = self.space().context("the lane has lost its stores")?;
        Ok((state, rows))
    }

    fn cursor(&mut self) -> Option<Position> {
        self.space()?.state.cursor().map(Position::from)
    }

    fn run(&mut self) {
        let settings = self.lane.settings;
        let mut ladder = Ladder::new(
            settings.quarantine_after,
            settings.first_pause,
            settings.longest_pause,
        );
        while !self.lane.feed.stopping() {
            let seen = self.lane.feed.version();
            if let Some((order, asker)) = self.lane.shared.orders.take() {
                ladder.reset();
                self.refused = None;
                if self.obey(order, &asker) {
                    return;
                }
            }
            match self.step() {
                Ok(Step::Moved) => {
                    ladder.reset();
                    self.lane.shared.surroundings.watched.recorder.disarm();
                    let mut status = self.lane.shared.lock();
                    (status.last_error, status.attempts) = (None, 0);
                    status.waiting = None;
                }
                Ok(Step::Idle(stage)) => {
                    self.lane.shared.lock().stage = stage;
                    self.lane.feed.wait(seen, IDLE);
                }
                Err(error) => self.failed(&error, &mut ladder),
            }
        }
    }

    fn step(&mut self) -> Result<Step> {
        if let Seat::Moving = self.seat {
            let space = self.lane.current_stores(&self.program)?;
            self.seat = Seat::Empty(Box::new(space));
        }
        // Changed settings reach the plugin as any others do: in a fresh instance.
        if self.settings_version != self.lane.shared.runtime.version() {
            self.vacate();
        }
        let cursor = self.cursor();
        match self.lane.feed.next(cursor) {
            Next::Rewind(height) => {
                self.rewind(height)?;
                Ok(Step::Moved)
            }
            Next::Block(position) if self.refused == Some(position) => {
                Ok(Step::Idle(LaneStage::Waiting))
            }
            Next::Block(position) => self.block(position),
            Next::Tip => self.at_tip(cursor),
        }
    }

    /// An instance, started; the one that is there or a fresh one.
    fn instance(&mut self) -> Result<&mut Instance> {
        if let Seat::Empty(_) = self.seat {
            let cursor = self.cursor();
            let Seat::Empty(space) = std::mem::replace(&mut self.seat, Seat::Moving) else {
                anyhow::bail!("the lane has lost its stores");
            };
            let shared = &self.lane.shared;
            self.settings_version = shared.runtime.version();
            let made = Instance::for_lane(
                &shared.engine,
                &self.program.compiled,
                shared.surroundings.clone(),
                space,
                &shared.runtime.merged(&self.program.settings),
                cursor,
                self.program.limits,
            );
            match made {
                Ok(instance) => self.seat = Seat::Taken(instance),
                Err((error, space)) => {
                    self.seat = Seat::Empty(space);
                    return Err(error.into());
                }
            }
            // What depends on the pool is built anew by each instance.
            if let Some(pool) = self
                .lane
                .pool
                .as_ref()
                .filter(|_| self.program.descriptor.mempool)
            {
                shared.surroundings.volatile.clear();
                self.lane.stores.rows.clear_volatile(shared.name())?;
                pool.subscribe(shared.name());
            }
        }
        match &mut self.seat {
            Seat::Taken(instance) => Ok(instance),
            _ => anyhow::bail!("the lane has lost its stores"),
        }
    }

    /// Ends the instance, if there is one, and drops what it had not finished.
    fn vacate(&mut self) {
        let mut space = match std::mem::replace(&mut self.seat, Seat::Moving) {
            Seat::Taken(instance) => instance.into_space(),
            Seat::Empty(space) => space,
            Seat::Moving => return,
        };
        space.state.abort_block();
        space.rows.truncate_block();
        self.seat = Seat::Empty(space);
    }

    fn block(&mut self, position: Position) -> Result<Step> {
        if let Some(step) = self.large_block(position)? {
            return Ok(step);
        }
        let wanted = self.program.descriptor.columns;
        if wanted.spent {
            self.lane.feed.need_spent(&self.lane.rows_name(), position);
        }
        let spent = match wanted.spent {
            true => match self.lane.feed.fetch_spent(position)? {
                Ok(spent) => Some(spent),
                Err(waiting) => return self.wait(waiting),
            },
            false => None,
        };
        if self.makes_coins_anew()
            && let Some(waiting) = self.lane.feed.spent_ahead(position)
        {
            return self.wait(Some(waiting));
        }
        let fetched = self
            .lane
            .feed
            .fetch(&self.lane.rows_name(), position, wanted);
        let (frame, announced) = match fetched? {
            Ok(fetched) => fetched,
            Err(waiting) => return self.wait(Some(waiting)),
        };
        let Some((_, median_time)) = self.lane.feed.chain().header_at(position.height) else {
            return Ok(Step::Moved);
        };
        let journal =
            position.height + self.lane.settings.undo_depth >= self.lane.feed.best_height();

        let input = BlockInput {
            position,
            frame: &frame,
            median_time,
            spent: spent.as_deref(),
        };
        let coins = self.program.descriptor.coins;
        let prefetch = self.lane.metrics.prefetch.clone();
        let instance = self.instance()?;
        let LaneSpace { state, rows } = instance.space_mut();
        if coins {
            // The guest asks for the coins one column later; two threads fetch them from the disk meanwhile.
            let began = Instant::now();
            state.prefetch(Keys::fixed(COIN_KEY_LEN, &spent_keys(&frame)))?;
            prefetch.observe(began.elapsed());
        }
        state.begin_block();
        rows.begin_block();
        let began = Instant::now();
        let answer = instance.on_block(&input, wanted);
        let took = began.elapsed();
        let memory = instance.memory();
        self.lane.metrics.call.observe(took);
        match answer {
            Ok(spent) => self.give_spent(position, spent)?,
            Err(CallError::Invalid(reason)) if self.gives_coins() => {
                self.refuse(position, reason);
                return Ok(Step::Idle(LaneStage::Waiting));
            }
            Err(error) => return Err(error.into()),
        }
        self.block_done(position, journal, announced, took, memory)
    }

    /// The plugin is through with a block: what it left is committed.
    fn block_done(
        &mut self,
        position: Position,
        journal: bool,
        announced: Option<Instant>,
        took: Duration,
        memory: usize,
    ) -> Result<Step> {
        let (state, rows) = self.stores()?;
        state.commit_block(position.into(), journal)?;
        rows.commit_block();
        let dirty = state.dirty_bytes();
        self.announced = announced;
        self.last_block = Instant::now();
        self.remember(position);
        {
            let mut status = self.lane.shared.lock();
            status.cursor = Some(position);
            status.stage = LaneStage::Syncing;
            (status.memory, status.dirty) = (memory, dirty);
            status.call_time += took;
        }
        let careful = self
            .careful_until
            .is_some_and(|until| position.height <= until);
        let tip = self.lane.feed.settled(position.height)
            && self.lane.feed.next(Some(position)) == Next::Tip;
        self.flush_if_due(tip || careful)?;
        if !careful {
            self.careful_until = None;
        }
        Ok(Step::Moved)
    }

    /// The coins lane's answer goes to the others.
    fn give_spent(&mut self, position: Position, spent: Option<crate::frame::Spent>) -> Result<()> {
        if self.makes_coins_anew() {
            let spent = spent.ok_or_else(CallError::no_spent)?;
            return self.lane.feed.give_spent_again(position, &spent);
        }
        if !self.gives_coins() {
            return Ok(());
        }
        let spent = spent.ok_or_else(CallError::no_spent)?;
        self.lane.feed.give_spent(position, spent)
    }

    /// Waits for what the next block needs, and says for what.
    fn wait(&mut self, waiting: Option<Waiting>) -> Result<Step> {
        self.flush_if_due(false)?;
        let mut status = self.lane.shared.lock();
        if status.waiting != waiting {
            status.waiting = waiting;
            if let Some(waiting) = waiting {
                tracing::info!(plugin = self.name(), "{waiting}");
            }
        }
        drop(status);
        Ok(Step::Idle(LaneStage::Waiting))
    }
}

/// The state keys of the coins that a block spends, side by side.
fn spent_keys(frame: &Frame) -> Vec<u8> {
    // The coinbase's input spends nothing.
    coin_keys(frame, 1)
}

/// The state keys of the coins that the inputs after the first so many spend.
fn coin_keys(frame: &Frame, skip: usize) -> Vec<u8> {
    let inputs = &frame.columns.inputs;
    let mut keys = Vec::with_capacity(COIN_KEY_LEN * inputs.prev_vouts.len());
    let spends = inputs
        .prev_txids
        .as_chunks()
        .0
        .iter()
        .zip(&inputs.prev_vouts)
        .skip(skip);
    for (&txid, &vout) in spends {
        keys.extend_from_slice(&coin_key(&OutPointKey { txid, vout }));
    }
    keys
}
