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
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
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
    /// What queries have changed in settings, by plugin, while it has a lane.
    runtime: Mutex<HashMap<String, Weak<RuntimeSettings>>>,
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
            runtime: Mutex::default(),
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

    /// What queries have changed in a plugin's settings, the same for all its lanes: a second set of data is made with what is
    /// changed meanwhile.
    fn runtime_settings(&self, name: &str) -> Result<Arc<RuntimeSettings>> {
        let mut open = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(settings) = open.get(name).and_then(Weak::upgrade) {
            return Ok(settings);
        }
        let file = format!("{name}.json");
        let settings = RuntimeSettings::open(self.folder.join("runtime-settings").join(file))?;
        let settings = Arc::new(settings);
        open.insert(name.to_owned(), Arc::downgrade(&settings));
        Ok(settings)
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
        let runtime = self.runtime_settings(&name)?;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;
    use crate::lane::kept_blocks;
    use crate::store::{RowStore, StateStore};

    #[test]
    fn all_lanes_of_a_plugin_have_what_was_changed_at_run_time() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.data_dir = folder.path().to_owned();
        let rows = format!("sqlite:{}", folder.path().join("rows.sqlite").display());
        let start = LaneStart::new(
            &config,
            config.network.params(),
            Arc::new(PluginEngine::new().unwrap()),
            Arc::new(kept_blocks(&folder.path().join("blocks"), 1, 0)),
            None,
            LaneStores {
                state: StateStore::open(&folder.path().join("state"), 1 << 20).unwrap(),
                rows: Arc::new(RowStore::open(&rows).unwrap()),
            },
            Arc::new(Metrics::new("0", "regtest")),
        );
        let serving = start.runtime_settings("watch").unwrap();
        let building = start.runtime_settings("watch").unwrap();
        let other = start.runtime_settings("other").unwrap();
        let change = vec![("script".to_owned(), Some("1".to_owned()))];
        let (changed, _) = serving.changed("{}", change).unwrap();
        serving.keep(changed).unwrap();
        assert!(building.merged("{}").contains("script"));
        assert_eq!(building.version(), serving.version());
        assert!(!other.merged("{}").contains("script"));
        // Without a lane it is the file that counts.
        drop((serving, building));
        let path = config.network_dir().join("runtime-settings/watch.json");
        std::fs::write(path, "{}").unwrap();
        let later = start.runtime_settings("watch").unwrap();
        assert!(!later.merged("{}").contains("script"));
    }
}
