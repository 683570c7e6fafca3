//! The lanes that run, and what it takes to start one.

use super::open;
use crate::config::{Config, EnabledPlugin};
use crate::lane::{
    Feed, Lane, LaneKind, LaneSettings, LaneShared, LaneStores, Order, PoolFeed, Program,
};
use crate::metrics::{Metrics, Stage};
use crate::network::Params;
use crate::plugin::{
    Capsules, Compiled, Descriptor, Gauges, PluginEngine, RuntimeSettings, Surroundings, Volatile,
    Watched,
};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long lanes may take to end by themselves; then calls into plugins are cut short.
const LANES_END: Duration = Duration::from_secs(2);

struct Running {
    kind: LaneKind,
    shared: Arc<LaneShared>,
    thread: JoinHandle<Result<()>>,
}

/// The lanes that run, and their threads. Shared by all who look at them.
#[derive(Default)]
pub(super) struct Lanes(Mutex<Vec<Running>>);

impl Lanes {
    fn running(&self) -> MutexGuard<'_, Vec<Running>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lanes that serve, in the order in which they were started.
    pub(super) fn serving(&self) -> Vec<Arc<LaneShared>> {
        let running = self.running();
        let serving = running.iter().filter(|lane| lane.kind == LaneKind::Serving);
        serving.map(|lane| lane.shared.clone()).collect()
    }

    /// Every lane, those too that make a plugin's data anew.
    pub(super) fn all(&self) -> Vec<Arc<LaneShared>> {
        let running = self.running();
        running.iter().map(|lane| lane.shared.clone()).collect()
    }

    /// The lane that serves a plugin.
    pub(super) fn find(&self, name: &str) -> Option<Arc<LaneShared>> {
        self.serving().into_iter().find(|lane| lane.name() == name)
    }

    /// The lane with the role `coins`.
    pub(super) fn coins(&self) -> Option<Arc<LaneShared>> {
        let serving = self.serving();
        serving
            .into_iter()
            .find(|lane| lane.program().descriptor.coins)
    }

    /// The first lane that has ended with an error, if one has.
    pub(super) fn failed(&self) -> Option<anyhow::Error> {
        let mut running = self.running();
        let ended = running
            .iter()
            .position(|lane| lane.thread.is_finished() && lane.kind == LaneKind::Serving)?;
        let lane = running.swap_remove(ended);
        drop(running);
        join(lane.thread).err()
    }

    /// Ends one lane with everything flushed, and waits for that.
    pub(super) fn end_one(&self, name: &str, kind: LaneKind, feed: &Feed) -> Result<()> {
        let mut running = self.running();
        let at = running
            .iter()
            .position(|lane| lane.shared.name() == name && lane.kind == kind);
        let Some(at) = at else {
            return Ok(());
        };
        // Out of the list first: whoever looks for it must not find it ended.
        let lane = running.remove(at);
        drop(running);
        let _ = lane.shared.order(Order::End);
        feed.wake();
        join(lane.thread)
    }

    /// Ends all lanes. The feed has been stopped before.
    pub(super) fn end(&self, engine: &PluginEngine) -> Result<()> {
        let running = std::mem::take(&mut *self.running());
        let began = Instant::now();
        let ended = |running: &[Running]| running.iter().all(|lane| lane.thread.is_finished());
        while began.elapsed() < LANES_END && !ended(&running) {
            std::thread::sleep(Duration::from_millis(10));
        }
        if !ended(&running) {
            engine.interrupt();
        }
        // Every lane is waited for, whatever the others say.
        let results: Vec<Result<()>> = running.into_iter().map(|lane| join(lane.thread)).collect();
        results.into_iter().collect()
    }
}

fn join(thread: JoinHandle<Result<()>>) -> Result<()> {
    match thread.join() {
        Ok(result) => result,
        Err(_) => anyhow::bail!("a lane's thread panicked"),
    }
}

/// A plugin's program as the configuration wants it.
pub(super) fn program(
    settings: &EnabledPlugin,
    compiled: Compiled,
    descriptor: Descriptor,
) -> Arc<Program> {
    Arc::new(Program {
        compiled,
        descriptor,
        settings: settings.settings.clone(),
        limits: open::limits(settings),
    })
}

/// What every lane is started with.
pub(super) struct LaneStart {
    pub params: &'static Params,
    pub engine: Arc<PluginEngine>,
    pub feed: Arc<Feed>,
    pub pool: Option<Arc<PoolFeed>>,
    pub stores: LaneStores,
    pub metrics: Arc<Metrics>,
    pub lanes: Arc<Lanes>,
    settings: LaneSettings,
    capsules: Option<Arc<Capsules>>,
    /// The network's data folder.
    folder: PathBuf,
}

impl LaneStart {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn new(
        config: &Config,
        params: &'static Params,
        engine: Arc<PluginEngine>,
        feed: Arc<Feed>,
        pool: Option<Arc<PoolFeed>>,
        stores: LaneStores,
        metrics: Arc<Metrics>,
    ) -> Self {
        let settings = LaneSettings {
            state_cache: usize::try_from(config.database.state_cache).unwrap_or(usize::MAX),
            flush_interval: config.database.flush_interval,
            undo_depth: config.chain.undo_depth,
            first_pause: config.plugins.retry_pause,
            longest_pause: config.plugins.retry_pause_max,
            quarantine_after: config.plugins.quarantine_after,
        };
        Self {
            params,
            engine,
            feed,
            pool,
            stores,
            metrics,
            lanes: Arc::default(),
            settings,
            capsules: Capsules::of(config),
            folder: config.network_dir(),
        }
    }

    /// How many blocks can be taken back at least.
    pub(super) fn undo_depth(&self) -> u32 {
        self.settings.undo_depth
    }

    /// What instances of a plugin share, for a lane of its own or for one that others do not see.
    pub(super) fn surroundings(&self, name: &str, metrics: &str) -> Arc<Surroundings> {
        Arc::new(Surroundings {
            name: name.to_owned(),
            params: self.params,
            feed: self.feed.clone(),
            volatile: Volatile::default(),
            gauges: Gauges::new(self.metrics.plugin(metrics)),
            watched: Watched::new(self.capsules.clone()),
        })
    }

    /// Opens and starts a lane.
    ///
    /// # Errors
    ///
    /// When its stores cannot be opened.
    pub(super) fn start(&self, kind: LaneKind, program: Arc<Program>) -> Result<Arc<LaneShared>> {
        let name = program.descriptor.name.clone();
        let metrics = match kind {
            LaneKind::Serving => name.clone(),
            LaneKind::Building => format!("{name}-building"),
        };
        // All state that waits for the disk is in one bound; a plugin without the coins needs little of it.
        let cache = self.settings.state_cache;
        let state_cache = match program.descriptor.coins {
            true => cache / 4 * 3,
            false => cache / 4,
        };
        let surroundings = self.surroundings(&name, &metrics);
        let runtime = RuntimeSettings::open(
            self.folder
                .join("runtime-settings")
                .join(format!("{name}.json")),
        )?;
        let shared = Arc::new(LaneShared::new(
            self.engine.clone(),
            program,
            surroundings,
            runtime,
        ));
        let lane = Lane {
            kind,
            shared: shared.clone(),
            feed: self.feed.clone(),
            pool: self.pool.clone().filter(|_| kind == LaneKind::Serving),
            stores: self.stores.clone(),
            settings: LaneSettings {
                state_cache,
                ..self.settings
            },
            metrics: self.metrics.plugin(&metrics),
            committed: self.metrics.stage(Stage::AnnouncedToCommitted),
        };
        let open = lane
            .open()
            .with_context(|| format!("failed to open the stores of plugin {name}"))?;
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || open.run())
            .context("failed to start a thread")?;
        self.lanes.running().push(Running {
            kind,
            shared: shared.clone(),
            thread,
        });
        Ok(shared)
    }
}
