//! What can be seen of a lane from other threads, and the queries it answers.

use super::active_chain::Position;
use crate::api::QueryFailure;
use crate::plugin::{
    CallError, Compiled, Descriptor, Instance, Limits, PluginEngine, QueryError, RuntimeSettings,
    Surroundings,
};
use crate::store::StateSnapshot;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// What a lane is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneStage {
    /// It has not yet seen a block in this run.
    Starting,
    /// It is behind the tip and takes in blocks.
    Syncing,
    /// It is at the tip.
    Following,
    /// It waits for the coins lane.
    Waiting,
    /// Its plugin failed; it pauses and tries again.
    Retrying,
    /// It has ended.
    Stopped,
}

impl LaneStage {
    /// The name that the API shows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Syncing => "syncing",
            Self::Following => "following",
            Self::Waiting => "waiting",
            Self::Retrying => "retrying",
            Self::Stopped => "stopped",
        }
    }
}

/// The figures of a lane.
#[derive(Debug, Clone)]
pub struct LaneStatus {
    pub stage: LaneStage,
    /// The last block whose changes are committed, in memory or on disk.
    pub cursor: Option<Position>,
    /// The last block whose changes are on disk.
    pub flushed: Option<Position>,
    /// The last thing that went wrong, with the height of the block, if that has not been overcome since.
    pub last_error: Option<String>,
    /// Failed calls since the start.
    pub failures: u64,
    /// Bytes of memory that the instance has.
    pub memory: usize,
    /// Bytes of changes that are not on disk yet.
    pub dirty: usize,
    /// When the last flush ended.
    pub flushed_at: Option<Instant>,
    /// Time spent in the plugin's `on-block`.
    pub call_time: Duration,
    /// Time spent waiting for durable storage.
    pub flush_time: Duration,
}

/// Shared between a lane's thread and everybody who asks about it.
pub struct LaneShared {
    pub descriptor: Descriptor,
    pub compiled: Compiled,
    pub surroundings: Arc<Surroundings>,
    pub(super) engine: Arc<PluginEngine>,
    /// The plugin's settings of the configuration as JSON.
    configured: String,
    /// What was changed in them since.
    pub(super) runtime: RuntimeSettings,
    pub(super) limits: Limits,
    status: Mutex<LaneStatus>,
    /// The state as the last flush left it, which queries see.
    view: RwLock<Option<StateSnapshot>>,
}

impl LaneShared {
    pub(crate) fn new(
        engine: Arc<PluginEngine>,
        compiled: Compiled,
        descriptor: Descriptor,
        surroundings: Arc<Surroundings>,
        configured: String,
        runtime: RuntimeSettings,
        limits: Limits,
    ) -> Self {
        let status = LaneStatus {
            stage: LaneStage::Starting,
            cursor: None,
            flushed: None,
            last_error: None,
            failures: 0,
            memory: 0,
            dirty: 0,
            flushed_at: None,
            call_time: Duration::ZERO,
            flush_time: Duration::ZERO,
        };
        Self {
            descriptor,
            compiled,
            surroundings,
            engine,
            configured,
            runtime,
            limits,
            status: Mutex::new(status),
            view: RwLock::default(),
        }
    }

    /// The plugin's name in the configuration.
    pub fn name(&self) -> &str {
        &self.surroundings.name
    }

    /// What the plugin is started with.
    pub(super) fn settings(&self) -> String {
        self.runtime.merged(&self.configured)
    }

    /// The lane's figures now.
    pub fn status(&self) -> LaneStatus {
        self.lock().clone()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, LaneStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn publish(&self, view: StateSnapshot) {
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = Some(view);
    }

    /// The state as the last flush left it.
    pub fn view(&self) -> Option<StateSnapshot> {
        self.view
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn close_view(&self) {
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Asks the plugin, on an instance of its own. The lane goes on meanwhile.
    ///
    /// # Errors
    ///
    /// When the plugin refuses or fails, or the lane is not open yet.
    pub fn query(&self, path: &str, params: &[(&str, &str)]) -> Result<String, QueryFailure> {
        self.ask(path, params, None)
    }

    /// Asks the plugin as the host's owner. What it changes in its settings is kept, and the lane goes on with a fresh instance
    /// that has them.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query), and when the plugin does not take the changed settings. Nothing has changed then.
    pub fn change(&self, path: &str, params: &[(&str, &str)]) -> Result<String, QueryFailure> {
        let _alone = self.runtime.lock();
        let mut changes = Vec::new();
        let answer = self.ask(path, params, Some(&mut changes))?;
        if changes.is_empty() {
            return Ok(answer);
        }
        let (changed, settings) = self
            .runtime
            .changed(&self.configured, changes)
            .map_err(|error| QueryFailure::BadRequest(format!("{error:#}")))?;
        let tried = Instance::try_settings(
            &self.engine,
            &self.compiled,
            self.surroundings.clone(),
            self.open_view()?,
            &settings,
            self.limits,
        );
        tried.map_err(|error| match error {
            CallError::Failed { message, .. } => QueryFailure::BadRequest(message),
            error => QueryFailure::Failed(format!("plugin {}: {error}", self.name())),
        })?;
        self.runtime
            .keep(changed)
            .map_err(|error| QueryFailure::Failed(format!("{error:#}")))?;
        tracing::info!(plugin = self.name(), path, "settings changed by a query");
        self.surroundings.feed.wake();
        Ok(answer)
    }

    fn open_view(&self) -> Result<StateSnapshot, QueryFailure> {
        self.view()
            .ok_or_else(|| QueryFailure::Busy(format!("the plugin {} is starting", self.name())))
    }

    fn ask(
        &self,
        path: &str,
        params: &[(&str, &str)],
        changes: Option<&mut Vec<(String, Option<String>)>>,
    ) -> Result<String, QueryFailure> {
        let answer = Instance::query(
            &self.engine,
            &self.compiled,
            self.surroundings.clone(),
            self.open_view()?,
            &self.settings(),
            self.limits,
            path,
            params,
            changes,
        );
        answer.map_err(|error| match error {
            QueryError::Call(error @ CallError::NotOwner) => {
                QueryFailure::Forbidden(error.to_string())
            }
            QueryError::NotFound(message) => QueryFailure::NotFound(message),
            QueryError::BadRequest(message) => QueryFailure::BadRequest(message),
            QueryError::Failed(message) => QueryFailure::Failed(message),
            QueryError::Call(CallError::Host { call, source }) => {
                QueryFailure::Failed(format!("the host failed in {call}: {source:#}"))
            }
            QueryError::Call(error) => {
                QueryFailure::Failed(format!("plugin {}: {error}", self.name()))
            }
        })
    }
}
