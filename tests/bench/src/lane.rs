//! A plugin with the host's real stores around it, without the host: blocks are given one at a time and timed.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use bitcoin::hashes::Hash;
use blockmill::block_log::{BlockLog, SegmentLogOptions, SpentLog};
use blockmill::config::Wasi;
use blockmill::frame::{Frame, Spent};
use blockmill::lane::{Feed, Position};
use blockmill::mempool::MempoolChanges;
use blockmill::metrics::Metrics;
use blockmill::network::{Network, Params};
use blockmill::plugin::{
    BlockInput, Compiled, Descriptor, Gauges, Instance, LaneSpace, Limits, MempoolInput,
    PluginEngine, Surroundings, Volatile, Watched,
};
use blockmill::store::{Cursor, RowBuffer, StateStore};

/// Bytes of the cache of state that was read: nothing is read in these measurements.
const BLOCK_CACHE: u64 = 16 << 20;

const LIMITS: Limits = Limits {
    memory: 1 << 30,
    block_time: Duration::from_secs(60),
    query_time: Duration::from_secs(60),
    ..Limits::DEFAULT
};

/// What the lanes of one measurement share.
pub struct Bench {
    pub engine: PluginEngine,
    params: &'static Params,
    store: StateStore,
    feed: Arc<Feed>,
    metrics: Metrics,
}

/// A wasm plugin and its stores.
pub struct WasmLane {
    pub instance: Instance,
    pub surroundings: Arc<Surroundings>,
    pub descriptor: Descriptor,
    compiled: Compiled,
    settings: String,
}

impl Bench {
    /// Stores in `folder`, which is emptied.
    pub fn new(folder: &Path, network: Network) -> Result<Self> {
        empty(folder)?;
        let params = Params::of(network);
        let magic = params.magic;
        let log = folder.join("blocks");
        let blocks = BlockLog::open(&log, magic, SegmentLogOptions::default())?;
        let spent = SpentLog::open(&log, magic, SegmentLogOptions::default())?;
        Ok(Self {
            engine: PluginEngine::new()?,
            params,
            store: StateStore::open(&folder.join("state"), BLOCK_CACHE)?,
            feed: Arc::new(Feed::new(Arc::new(blocks), Arc::new(spent), 1 << 20, false)),
            metrics: Metrics::new("bench", params.name),
        })
    }

    /// Stores of their own for the plugin `name`.
    pub fn space(&self, name: &str, descriptor: &Descriptor) -> Result<LaneSpace> {
        Ok(LaneSpace {
            state: self.store.lane(name)?,
            rows: RowBuffer::new(&descriptor.tables),
        })
    }

    /// What the plugin in `file` says of itself.
    pub fn describe(&self, file: &Path) -> Result<Descriptor> {
        let compiled = self.engine.load(file, Wasi::None)?;
        Ok(Instance::describe(&self.engine, &compiled)?)
    }

    /// A plugin from its file, started, with so much of everything that it breaks no budget.
    pub fn wasm(&self, file: &Path, settings: &str) -> Result<WasmLane> {
        let compiled = self.engine.load(file, Wasi::None)?;
        let name = Instance::describe(&self.engine, &compiled)?.name;
        self.start(
            &compiled,
            &format!("{name}{}", settings.len()),
            settings,
            LIMITS,
        )
    }

    /// A plugin, started, its stores under a name of their own.
    pub fn start(
        &self,
        compiled: &Compiled,
        name: &str,
        settings: &str,
        limits: Limits,
    ) -> Result<WasmLane> {
        let descriptor = Instance::describe(&self.engine, compiled)?;
        let name = name.to_owned();
        let surroundings = Arc::new(Surroundings {
            name: name.clone(),
            params: self.params,
            feed: self.feed.clone(),
            volatile: Volatile::default(),
            gauges: Gauges::new(self.metrics.plugin(&name)),
            watched: Watched::default(),
        });
        let space = Box::new(self.space(&name, &descriptor)?);
        let instance = Instance::for_lane(
            &self.engine,
            compiled,
            surroundings.clone(),
            space,
            settings,
            None,
            limits,
        )
        .map_err(|(error, _)| anyhow!(error))
        .with_context(|| format!("failed to start {}", descriptor.name))?;
        Ok(WasmLane {
            instance,
            surroundings,
            descriptor,
            compiled: compiled.clone(),
            settings: settings.to_owned(),
        })
    }
}

impl WasmLane {
    /// Gives a block: how long the call took, and what the block spends.
    pub fn block(
        &mut self,
        height: u32,
        frame: &Frame,
        spent: Option<&Spent>,
    ) -> Result<(Duration, Option<Spent>)> {
        let position = position(height, frame);
        let input = BlockInput {
            position,
            frame,
            median_time: frame.header.time,
            spent,
        };
        open_block(self.instance.space_mut());
        let start = Instant::now();
        let answer = self.instance.on_block(&input, self.descriptor.columns);
        let took = start.elapsed();
        let answer = answer?;
        close_block(self.instance.space_mut(), position)?;
        Ok((took, answer))
    }
}

impl WasmLane {
    /// Gives changes of the pool: how long the call took.
    pub fn pool(&mut self, changes: &MempoolChanges, reset: bool) -> Result<Duration> {
        let input = MempoolInput {
            changes,
            reset,
            time: 1_700_000_000,
            height: 0,
            current: true,
        };
        let start = Instant::now();
        self.instance.on_mempool(&input, self.descriptor.columns)?;
        Ok(start.elapsed())
    }

    /// Asks, as the host does it: how long it took from a fresh instance to the answer.
    pub fn query(&mut self, engine: &PluginEngine, path: &str) -> Result<(Duration, String)> {
        let snapshot = self.instance.space_mut().state.snapshot()?;
        let start = Instant::now();
        let answer = Instance::query(
            engine,
            &self.compiled,
            self.surroundings.clone(),
            snapshot,
            &self.settings,
            LIMITS,
            path,
            &[],
            None,
        );
        let took = start.elapsed();
        let answer = answer.map_err(|error| anyhow!("{path}: {error:?}"))?;
        Ok((took, answer))
    }
}

/// Where a block stands.
pub fn position(height: u32, frame: &Frame) -> Position {
    Position {
        height,
        hash: frame.hash,
    }
}

/// Opens a block in the stores.
pub fn open_block(space: &mut LaneSpace) {
    space.state.begin_block();
    space.rows.begin_block();
}

/// Keeps a block's state; its rows are dropped, for they would go to the disk.
pub fn close_block(space: &mut LaneSpace, position: Position) -> Result<()> {
    let cursor = Cursor {
        height: position.height,
        hash: position.hash.to_byte_array(),
    };
    space.state.commit_block(cursor, false)?;
    space.rows.clear();
    Ok(())
}

/// Makes `folder`, with nothing in it.
pub fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)
            .with_context(|| format!("failed to empty {}", folder.display()))?;
    }
    std::fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))
}
