//! What can be seen of a lane from other threads, and the queries it answers.

use super::active_chain::Position;
use super::feed::Waiting;
use super::orders::{Order, Orders};
use crate::api::QueryFailure;
use crate::plugin::{
    CallError, Compiled, Descriptor, Given, Instance, Limits, PluginEngine, QueryError,
    RuntimeSettings, Surroundings, Watched,
};
use crate::status::BudgetUse;
use crate::store::StateSnapshot;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
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
    /// It waits for the coins lane, or for blocks that peers are asked for again.
    Waiting,
    /// Its plugin failed; it pauses and tries again.
    Retrying,
    /// Its plugin failed on one block for one cause again and again; it stands still until another try is asked for.
    Quarantined,
    /// The host's disk or database failed; it tries again by itself.
    WaitingForHost,
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
            Self::Quarantined => "quarantined",
            Self::WaitingForHost => "waiting-for-host",
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
    /// What it waits for, while it does.
    pub waiting: Option<Waiting>,
    /// The last thing that went wrong, with the height of the block, if that has not been overcome since.
    pub last_error: Option<String>,
    /// Failed calls since the start.
    pub failures: u64,
    /// Failures of one cause on one block, one after the other.
    pub attempts: u32,
    /// The capsule of the last failure.
    pub capsule: Option<PathBuf>,
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

impl LaneStatus {
    fn starting() -> Self {
        Self {
            stage: LaneStage::Starting,
            cursor: None,
            flushed: None,
            waiting: None,
            last_error: None,
            failures: 0,
            attempts: 0,
            capsule: None,
            memory: 0,
            dirty: 0,
            flushed_at: None,
            call_time: Duration::ZERO,
            flush_time: Duration::ZERO,
        }
    }

    /// The lane's step has failed: what it waited for before is not what it stands at now.
    pub(super) fn failed(&mut self, stage: LaneStage, attempts: u32, error: String) {
        (self.stage, self.attempts) = (stage, attempts);
        self.last_error = Some(error);
        self.waiting = None;
    }
}

/// What a lane runs: a component, and what it is told and may use. Replaced only as a whole.
pub struct Program {
    pub compiled: Compiled,
    pub descriptor: Descriptor,
    /// The plugin's settings as JSON.
    pub settings: String,
    pub limits: Limits,
}

/// What queries see: a program, and the state that it or one of the same state version left at the last flush.
#[derive(Clone)]
struct Serving {
    program: Arc<Program>,
    view: Option<StateSnapshot>,
}

/// Shared between a lane's thread and everybody who asks about it.
pub struct LaneShared {
    pub surroundings: Arc<Surroundings>,
    pub(crate) engine: Arc<PluginEngine>,
    pub(super) orders: Orders,
    /// What queries have changed in the plugin's settings.
    pub(super) runtime: Arc<RuntimeSettings>,
    status: Mutex<LaneStatus>,
    serving: RwLock<Serving>,
    /// Somebody asks for another try.
    retry: AtomicBool,
    /// What was asked when a query failed last: the next such query is recorded.
    recorded_query: Mutex<Option<String>>,
}

impl LaneShared {
    pub(crate) fn new(
        engine: Arc<PluginEngine>,
        program: Arc<Program>,
        surroundings: Arc<Surroundings>,
        runtime: Arc<RuntimeSettings>,
    ) -> Self {
        Self {
            surroundings,
            engine,
            orders: Orders::default(),
            runtime,
            status: Mutex::new(LaneStatus::starting()),
            serving: RwLock::new(Serving {
                program,
                view: None,
            }),
            retry: AtomicBool::new(false),
            recorded_query: Mutex::default(),
        }
    }

    /// The plugin's name in the configuration.
    pub fn name(&self) -> &str {
        &self.surroundings.name
    }

    /// The lane's figures now.
    pub fn status(&self) -> LaneStatus {
        self.lock().clone()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, LaneStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a quarantine, or a pause between two tries: the lane tries its block again within half a second, and counts
    /// failures anew. False when it was in neither.
    pub fn retry(&self) -> bool {
        let stage = self.lock().stage;
        let stands = matches!(
            stage,
            LaneStage::Quarantined | LaneStage::Retrying | LaneStage::WaitingForHost
        );
        if stands {
            self.retry.store(true, Ordering::Relaxed);
        }
        stands
    }

    fn recorded_query(&self) -> MutexGuard<'_, Option<String>> {
        self.recorded_query
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What the instance of a query sees; with a recorder of its own when the last such query failed.
    fn query_surroundings(&self, path: &str) -> Arc<Surroundings> {
        let all = &self.surroundings;
        let Some(capsules) = &all.watched.capsules else {
            return all.clone();
        };
        if self
            .recorded_query()
            .take_if(|failed| failed == path)
            .is_none()
        {
            return all.clone();
        }
        let watched = Watched::new(Some(capsules.clone()));
        watched.recorder.arm(capsules.max_bytes());
        Arc::new(Surroundings {
            name: all.name.clone(),
            params: all.params,
            feed: all.feed.clone(),
            volatile: all.volatile.clone(),
            gauges: all.gauges.clone(),
            watched,
        })
    }

    /// Whether another try was asked for since the last call.
    pub(super) fn take_retry(&self) -> bool {
        self.retry.swap(false, Ordering::Relaxed)
    }

    /// What the plugin has used of its budgets, by key.
    pub fn budgets(&self) -> BTreeMap<String, BudgetUse> {
        self.surroundings
            .watched
            .usage
            .report(&self.program().limits)
    }

    fn serving(&self) -> Serving {
        self.serving
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Tells the lane what to do between two blocks. Wake its feed after.
    pub fn order(&self, order: Order) -> Receiver<anyhow::Result<()>> {
        self.orders.give(order)
    }

    /// Gives an order, `wake`s the lane, and waits until it is carried out.
    ///
    /// # Errors
    ///
    /// When it could not be carried out; or the lane has not begun with it within `limit`, or before it was `given_up`. Then it
    /// never will.
    pub fn carry_out(
        &self,
        order: Order,
        wake: impl FnOnce(),
        limit: Duration,
        given_up: impl Fn() -> bool,
    ) -> anyhow::Result<()> {
        self.orders.carry_out(order, wake, limit, given_up)
    }

    /// What the lane runs now.
    pub fn program(&self) -> Arc<Program> {
        self.serving().program
    }

    /// Shows queries the state as `program` and its like left it, in one step.
    pub(super) fn publish(&self, program: Arc<Program>, view: StateSnapshot) {
        let view = Some(view);
        *self.serving.write().unwrap_or_else(PoisonError::into_inner) = Serving { program, view };
    }

    /// The state as the last flush left it.
    pub fn view(&self) -> Option<StateSnapshot> {
        self.serving().view
    }

    pub(super) fn close_view(&self) {
        let mut serving = self.serving.write().unwrap_or_else(PoisonError::into_inner);
        serving.view = None;
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
        let program = self.program();
        let mut changes = Vec::new();
        let answer = self.ask(path, params, Some(&mut changes))?;
        if changes.is_empty() {
            return Ok(answer);
        }
        let (changed, settings) = self
            .runtime
            .changed(&program.settings, changes)
            .map_err(|error| QueryFailure::BadRequest(format!("{error:#}")))?;
        let tried = Instance::try_settings(
            &self.engine,
            &program.compiled,
            self.surroundings.clone(),
            self.open_view()?,
            &settings,
            program.limits,
        );
        tried.map_err(|error| match error {
            CallError::Failed { message, .. } => QueryFailure::BadRequest(message),
            error => QueryFailure::Failed(format!("plugin {}: {error}", self.name())),
        })?;
        self.runtime
            .keep(changed)
            .map_err(|error| QueryFailure::Failed(format!("{error:#}")))?;
        tracing::info!(plugin = self.name(), path, "settings changed by a query");
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
        let Serving {
            program,
            view: Some(view),
        } = self.serving()
        else {
            return Err(QueryFailure::Busy(format!(
                "the plugin {} is starting",
                self.name()
            )));
        };
        let position = view.cursor().map(Position::from);
        let surroundings = self.query_surroundings(path);
        let answer = Instance::query(
            &self.engine,
            &program.compiled,
            surroundings.clone(),
            view,
            &self.runtime.merged(&program.settings),
            program.limits,
            path,
            params,
            changes,
        );
        if let Err(QueryError::Call(error)) = &answer
            && !error.is_hosts_fault()
            && !matches!(error, CallError::NotOwner)
        {
            let recording = match Arc::ptr_eq(&surroundings, &self.surroundings) {
                true => None,
                false => surroundings.watched.recorder.take(),
            };
            let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            let given = Given::Query {
                path: path.to_owned(),
                params: params.iter().map(own).collect(),
            };
            // The next question of the kind is recorded, as the next try of a block is.
            if recording.is_none() {
                *self.recorded_query() = Some(path.to_owned());
            }
            let capsule = self.capsule_of(error, position, given, recording);
            let capsule = capsule.map(|path| path.display().to_string());
            tracing::warn!(plugin = self.name(), path, %error, capsule, "a query failed");
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_that_fails_waits_for_nothing() {
        let mut status = LaneStatus::starting();
        status.waiting = Some(Waiting::Spent { height: 5 });
        // What it waited for has come, and its plugin fails on it.
        status.failed(LaneStage::Retrying, 1, "trap".to_owned());
        assert_eq!(status.waiting, None);
        assert_eq!((status.stage, status.attempts), (LaneStage::Retrying, 1));
        assert_eq!(status.last_error.as_deref(), Some("trap"));
    }
}
