//! What a lane is to the host, around one plugin alone: its instance, its state, its rows.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use tempfile::TempDir;

use super::pool::Pool;
use crate::block_log::{BlockLog, SegmentLogOptions, SpentLog};
use crate::compare::Outcome;
use crate::config::Wasi;
use crate::config::{Config, EnabledPlugin, Plugin};
use crate::frame::{Frame, Spent};
use crate::lane::{Feed, Position};
use crate::metrics::Metrics;
use crate::network::Params;
use crate::node;
use crate::plugin::{
    BlockInput, Compiled, Descriptor, Gauges, Instance, LaneSpace, Limits, MempoolInput,
    PluginEngine, QueryError, Surroundings, Volatile, Watched,
};
use crate::store::{Cursor, RowStore, StateChanges, StateStore, UNDO_DEPTH, reconcile};

/// Cache of state that was read back from the disk, bytes.
const STATE_CACHE: u64 = 64 << 20;
/// Changes that gather before they are flushed, as in a lane that is far behind, bytes.
const MAX_DIRTY: usize = 256 << 20;
/// Rows that gather before they are flushed, bytes.
const MAX_ROW_BYTES: usize = 16 << 20;
/// Entries of the state that are read at once.
const PAGE: usize = 10_000;
/// Bytes of the state that are read at once.
const PAGE_BYTES: usize = 4 << 20;

/// A plugin that can be given blocks.
pub struct Subject {
    /// The name of its file, for people.
    pub file: String,
    /// Its code.
    pub compiled: Compiled,
    /// What it says of itself.
    pub descriptor: Descriptor,
    /// Its settings, as JSON.
    pub settings: String,
    /// What it may use: what the host gives a plugin whose configuration says nothing of it.
    pub limits: Limits,
}

impl Subject {
    /// Loads a plugin file as the host does.
    ///
    /// # Errors
    ///
    /// When the host would refuse it.
    pub fn load(
        engine: &PluginEngine,
        path: &Path,
        settings: serde_json::Map<String, serde_json::Value>,
    ) -> Result<Self> {
        let compiled = engine.load(path, Wasi::Inert)?;
        let name = path.file_name().unwrap_or(path.as_os_str());
        let descriptor = Instance::describe(engine, &compiled)
            .with_context(|| format!("the plugin {} cannot be used", path.display()))?;
        let enabled = default_budgets(&descriptor.name, settings)?;
        Ok(Self {
            file: name.display().to_string(),
            compiled,
            limits: node::limits(&enabled),
            settings: enabled.settings,
            descriptor,
        })
    }
}

/// The plugin as the configuration would have it that says nothing but its settings.
fn default_budgets(
    name: &str,
    settings: serde_json::Map<String, serde_json::Value>,
) -> Result<EnabledPlugin> {
    let mut config = Config::default();
    let plugin = Plugin {
        settings,
        ..Plugin::default()
    };
    config.plugin.insert(name.to_owned(), plugin);
    let mut enabled = config.enabled_plugins();
    enabled
        .pop()
        .context("a plugin is enabled when nothing else is said")
}

/// A block, and all that a plugin may ask of it.
#[derive(Clone)]
pub(super) struct Given {
    pub position: Position,
    pub frame: Arc<Frame>,
    pub spent: Option<Arc<Spent>>,
    /// Unix seconds.
    pub median_time: u32,
}

/// Where a call is made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// It is not.
    Nowhere,
    /// After so many writes of the state.
    State(u64),
    /// With its first rows.
    Rows,
    /// Once the code has looked at the clock so many times, as if its time were up then.
    Time(u64),
}

/// What a plugin answers to a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Json(String),
    /// It says that there is no such thing, or that the question is wrong.
    Refused(String),
    /// It says that it failed, or the call failed.
    Failed(String),
}

impl Answer {
    /// The answer in a line for people.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Json(json) => json.clone(),
            Self::Refused(why) => format!("refused: {why}"),
            Self::Failed(why) => format!("fails: {why}"),
        }
    }
}

enum Seat {
    Vacant(Box<LaneSpace>),
    Taken(Box<Instance>),
    Moving,
}

/// A plugin with the host's real stores around it, in a folder that is removed with it.
pub struct Bed {
    engine: Arc<PluginEngine>,
    subject: Arc<Subject>,
    surroundings: Arc<Surroundings>,
    feed: Arc<Feed>,
    /// Whether the blocks begin with the first, so that the plugin may ask for headers.
    whole_chain: bool,
    seat: Seat,
    /// The instance has not been told of the pool.
    untold: bool,
    /// `None` while they are opened again.
    rows: Option<Arc<RowStore>>,
    folder: TempDir,
}

impl Bed {
    /// An empty bed. `whole_chain` says that the blocks will begin with the genesis block.
    ///
    /// # Errors
    ///
    /// When the stores cannot be made, or the plugin's tables cannot be.
    pub fn new(
        engine: Arc<PluginEngine>,
        subject: Arc<Subject>,
        params: &'static Params,
        whole_chain: bool,
    ) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("blockmill-plugin-")
            .tempdir()
            .context("failed to make a folder for the plugin's stores")?;
        let log = folder.path().join("blocks");
        let blocks = BlockLog::open(&log, params.magic, SegmentLogOptions::default())?;
        let spent = SpentLog::open(&log, params.magic, SegmentLogOptions::default())?;
        let name = subject.descriptor.name.clone();
        let metrics = Metrics::new(env!("CARGO_PKG_VERSION"), params.name);
        let feed = Arc::new(Feed::new(Arc::new(blocks), Arc::new(spent), 0, true));
        let surroundings = Arc::new(Surroundings {
            gauges: Gauges::new(metrics.plugin(&name)),
            feed: feed.clone(),
            watched: Watched::new(None),
            volatile: Volatile::default(),
            name,
            params,
        });
        let mut bed = Self {
            engine,
            subject,
            surroundings,
            feed,
            whole_chain,
            seat: Seat::Moving,
            untold: true,
            rows: None,
            folder,
        };
        bed.open()?;
        Ok(bed)
    }

    /// Its plugin.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    fn open(&mut self) -> Result<()> {
        let state = StateStore::open(&self.folder.path().join("state"), STATE_CACHE)?;
        let database = self.folder.path().join("rows.sqlite");
        let rows = Arc::new(RowStore::open(&format!("sqlite:{}", database.display()))?);
        let Descriptor { name, tables, .. } = &self.subject.descriptor;
        let mut lane = state.lane(name)?;
        lane.set_undo_depth(UNDO_DEPTH);
        let buffer = rows.register(name, tables)?;
        reconcile(&mut lane, &rows, name)?;
        rows.clear_volatile(name)?;
        self.surroundings.volatile.clear();
        self.seat = Seat::Vacant(Box::new(LaneSpace {
            state: lane,
            rows: buffer,
        }));
        self.rows = Some(rows);
        Ok(())
    }

    pub(super) fn rows(&self) -> Result<Arc<RowStore>> {
        self.rows.clone().context("the stores are closed")
    }

    pub(super) fn space(&mut self) -> Result<&mut LaneSpace> {
        match &mut self.seat {
            Seat::Vacant(space) => Ok(space),
            Seat::Taken(instance) => Ok(instance.space_mut()),
            Seat::Moving => Err(anyhow!("the stores are closed")),
        }
    }

    /// The last block that the plugin was given and that was kept.
    pub fn cursor(&mut self) -> Result<Option<Cursor>> {
        Ok(self.space()?.state.cursor())
    }

    /// The plugin's instance: the one that is there, or a fresh one.
    ///
    /// # Errors
    ///
    /// When the plugin does not start.
    pub(super) fn instance(&mut self) -> Result<&mut Instance> {
        if let Seat::Vacant(_) = self.seat {
            let cursor = self.cursor()?.map(Position::from);
            let Seat::Vacant(space) = std::mem::replace(&mut self.seat, Seat::Moving) else {
                return Err(anyhow!("the stores are closed"));
            };
            let made = Instance::for_lane(
                &self.engine,
                &self.subject.compiled,
                self.surroundings.clone(),
                space,
                &self.subject.settings,
                cursor,
                self.subject.limits,
            );
            match made {
                Ok(instance) => {
                    self.seat = Seat::Taken(Box::new(instance));
                    self.untold = true;
                }
                Err((error, space)) => {
                    self.seat = Seat::Vacant(space);
                    return Err(error).context("the plugin does not start");
                }
            }
        }
        match &mut self.seat {
            Seat::Taken(instance) => Ok(instance),
            _ => Err(anyhow!("the stores are closed")),
        }
    }

    /// Ends the instance, and drops what a block left open.
    pub(super) fn vacate(&mut self) {
        let mut space = match std::mem::replace(&mut self.seat, Seat::Moving) {
            Seat::Taken(instance) => instance.into_space(),
            Seat::Vacant(space) => space,
            Seat::Moving => return,
        };
        space.state.abort_block();
        space.rows.truncate_block();
        self.seat = Seat::Vacant(space);
    }

    fn call(&mut self, given: &Given, cut: Cut) -> Result<(Outcome, Duration)> {
        let Given {
            position,
            ref frame,
            ref spent,
            median_time,
        } = *given;
        if self.whole_chain {
            self.feed.set_chain(
                position.height.checked_sub(1),
                [(position.hash, &frame.header)],
            );
        }
        let wanted = self.subject.descriptor.columns;
        let instance = self.instance()?;
        let space = instance.space_mut();
        space.state.begin_block();
        space.rows.begin_block();
        match cut {
            Cut::Nowhere => {}
            Cut::State(writes) => space.state.cut_after(writes),
            Cut::Rows => space.rows.cut(),
            Cut::Time(looks) => instance.interrupt_after(looks),
        }
        let input = BlockInput {
            position,
            frame,
            median_time,
            spent: spent.as_deref().filter(|_| wanted.spent),
        };
        let began = Instant::now();
        let answer = instance.on_block(&input, wanted);
        let took = began.elapsed();
        Ok((Outcome::of(instance.space_mut(), &answer)?, took))
    }

    /// Gives the block after the cursor. What it left is kept, unless the call failed: then the instance ends with it.
    ///
    /// # Errors
    ///
    /// When the plugin does not start or a store fails; a failed call is an outcome.
    pub(super) fn give(&mut self, given: &Given, journal: bool) -> Result<(Outcome, Duration)> {
        let (outcome, took) = self.call(given, Cut::Nowhere)?;
        if outcome.error.is_some() {
            self.vacate();
            return Ok((outcome, took));
        }
        let space = self.space()?;
        space.state.commit_block(given.position.into(), journal)?;
        space.rows.commit_block();
        if space.state.dirty_bytes() >= MAX_DIRTY || space.rows.bytes() >= MAX_ROW_BYTES {
            self.flush()?;
        }
        Ok((outcome, took))
    }

    /// Gives the block after the cursor and drops what it left, as after a trap: at its end, or where `cut` makes it fail.
    /// Says whether it failed.
    ///
    /// # Errors
    ///
    /// As [`Bed::give`].
    pub(super) fn cut(&mut self, given: &Given, cut: Cut) -> Result<bool> {
        let (outcome, _) = self.call(given, cut)?;
        self.vacate();
        Ok(outcome.error.is_some())
    }

    /// How often the code looks at the clock while it handles the block after the cursor. What it left is dropped.
    ///
    /// # Errors
    ///
    /// As [`Bed::give`].
    pub(super) fn looks(&mut self, given: &Given) -> Result<u64> {
        self.call(given, Cut::Time(u64::MAX))?;
        let looks = self.instance()?.looks();
        self.vacate();
        Ok(looks)
    }

    /// Tells the plugin what changed in the pool since it was told last: all of it, when its instance is a fresh one.
    /// Nothing while the pool is at another block than the plugin. Why the call failed, if it did.
    ///
    /// # Errors
    ///
    /// When the plugin does not start or a store fails.
    pub(super) fn tell(&mut self, pool: &Pool, lane: &str) -> Result<Option<String>> {
        self.instance()?;
        let (rows, name) = (self.rows()?, self.subject.descriptor.name.clone());
        if std::mem::take(&mut self.untold) {
            // As a lane does it: what depends on the pool is built anew by each instance.
            self.surroundings.volatile.clear();
            rows.clear_volatile(&name)?;
            pool.feed.subscribe(lane);
        }
        let Some(cursor) = self.cursor()? else {
            return Ok(None);
        };
        let Some(batch) = pool.feed.take(lane, cursor.height) else {
            return Ok(None);
        };
        let wanted = self.subject.descriptor.columns;
        let input = MempoolInput {
            changes: &batch.changes,
            reset: batch.reset,
            time: pool.time(),
            height: batch.height,
            current: batch.current,
        };
        let instance = self.instance()?;
        instance.space_mut().rows.begin_block();
        if let Err(error) = instance.on_mempool(&input, wanted) {
            self.vacate();
            return Ok(Some(error.to_string()));
        }
        rows.flush(&name, &mut self.space()?.rows, None)?;
        Ok(None)
    }

    /// The answer to a query, as the host would give it.
    ///
    /// # Errors
    ///
    /// When a store fails; that a query is refused or fails is an answer.
    pub(super) fn ask(&mut self, path: &str, params: &[(String, String)]) -> Result<Answer> {
        self.flush()?;
        let snapshot = self.space()?.state.snapshot()?;
        let params: Vec<(&str, &str)> = params
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let answer = Instance::query(
            &self.engine,
            &self.subject.compiled,
            self.surroundings.clone(),
            snapshot,
            &self.subject.settings,
            self.subject.limits,
            path,
            &params,
            None,
        );
        Ok(match answer {
            Ok(json) => Answer::Json(json),
            Err(QueryError::NotFound(why)) => Answer::Refused(format!("not found: {why}")),
            Err(QueryError::BadRequest(why)) => Answer::Refused(format!("bad request: {why}")),
            Err(QueryError::Failed(why)) => Answer::Failed(why),
            Err(QueryError::Call(error)) => Answer::Failed(error.to_string()),
        })
    }

    /// Makes everything that is committed durable.
    ///
    /// # Errors
    ///
    /// When a store fails.
    pub(super) fn flush(&mut self) -> Result<()> {
        let (rows, name) = (self.rows()?, self.subject.descriptor.name.clone());
        let space = self.space()?;
        if let Some(cursor) = space.state.cursor() {
            rows.flush(&name, &mut space.rows, Some(cursor))?;
            space.state.flush()?;
        }
        Ok(())
    }

    /// Ends everything and opens the stores again, as after the host has ended in order; without `flush`, as after it was
    /// killed.
    ///
    /// # Errors
    ///
    /// When a store fails.
    pub(super) fn restart(&mut self, flush: bool) -> Result<()> {
        self.vacate();
        if flush {
            self.flush()?;
        }
        self.seat = Seat::Moving;
        self.rows = None;
        self.open()
    }

    /// Takes every block above a height back, as for a reorg.
    ///
    /// # Errors
    ///
    /// When a store fails or does not remember so far.
    pub(super) fn rewind(&mut self, height: u32) -> Result<()> {
        self.vacate();
        self.flush()?;
        let (rows, name) = (self.rows()?, self.subject.descriptor.name.clone());
        let cursor = self.space()?.state.rewind(height)?;
        ensure!(cursor.is_some(), "there is no block at or below {height}");
        rows.rewind(&name, cursor)?;
        Ok(())
    }

    /// Everything in the state, key by key, in order.
    ///
    /// # Errors
    ///
    /// When the state cannot be read.
    pub(super) fn each_entry(&mut self, mut each: impl FnMut(&[u8], &[u8])) -> Result<()> {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let state = &mut self.space()?.state;
            let page = state.scan(&[], after.as_deref(), PAGE, PAGE_BYTES)?;
            page.iter().for_each(|(key, value)| each(key, value));
            after = page.last_key().map(<[u8]>::to_vec);
            if !page.more || after.is_none() {
                return Ok(());
            }
        }
    }

    /// The whole state in memory, to be compared.
    pub(super) fn whole_state(&mut self) -> Result<StateChanges> {
        let mut all = StateChanges::new();
        self.each_entry(|key, value| {
            all.insert(key.to_vec(), Some(value.to_vec()));
        })?;
        Ok(all)
    }

    /// Bytes of memory that the instance has.
    pub(super) fn memory(&mut self) -> Result<usize> {
        Ok(self.instance()?.memory())
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        // The stores before the folder that they lie in.
        self.seat = Seat::Moving;
        self.rows = None;
    }
}
