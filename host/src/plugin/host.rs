//! The host as one instance of a plugin sees it: what it may do, what it has used, and where its state is.
//!
//! The imports of `wit/plugin.wit` themselves are in [`imports`].

mod imports;
mod wasi;

pub(super) use wasi::add_to_linker as add_wasi_to_linker;

use super::budget::{self, Budget, Limits, Usage};
use super::capsule_state::{CapsuleState, CapsuleStateError};
use super::capsules::Capsules;
use super::error::{BudgetBroken, HostFault, RuleBroken};
use super::gauges::Gauges;
use super::recorder::{HeaderSource, Recorder};
use super::runtime_settings::Change;
use super::volatile::Volatile;
use crate::lane::Position;
use crate::network::Params;
use crate::store::{LaneState, RowBuffer, StateSnapshot, StoreError};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use wasmtime::{Error, ResourceLimiter, Result, UpdateDeadline};

/// How often a plugin's slow calls are said at most.
const WARN_EVERY: Duration = Duration::from_secs(60);

const NO_HOST: &str = "describe may not call the host";

/// The call that is going on, which decides what the plugin may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Describe,
    Start,
    Block { height: u32, time: u32 },
    Mempool,
    Query,
}

/// What belongs to a lane and is lent to its instance.
pub struct LaneSpace {
    pub state: LaneState,
    pub rows: RowBuffer,
}

/// What a call that is run again from a capsule has instead.
pub(super) struct CapsuleSpace {
    pub state: CapsuleState,
    /// The keys of the volatile space of which is known what they held; none when all of them are.
    pub volatile: Option<HashSet<Vec<u8>>>,
    pub rows: RowBuffer,
}

/// The stores that an instance sees.
pub(super) enum Space {
    /// `describe` sees none.
    None,
    Lane(Box<LaneSpace>),
    Snapshot(Box<StateSnapshot>),
    Capsule(Box<CapsuleSpace>),
}

/// What is kept of a plugin's failures and of its use of its budgets.
#[derive(Default)]
pub struct Watched {
    /// What calls have used.
    pub usage: Usage,
    /// Records what a failed call reads when it is tried again.
    pub recorder: Recorder,
    /// Where capsules are written; nowhere in tests and offline.
    pub capsules: Option<Arc<Capsules>>,
    /// When a slow call was said last, and how many were not said since.
    slow: Mutex<(Option<Instant>, u64)>,
}

impl Watched {
    /// Nothing yet; failures are written as capsules there.
    pub fn new(capsules: Option<Arc<Capsules>>) -> Self {
        Self {
            capsules,
            ..Self::default()
        }
    }
}

/// What all instances of one plugin share.
pub struct Surroundings {
    /// The plugin's name in the configuration.
    pub name: String,
    pub params: &'static Params,
    /// The chain as the plugin may see it.
    pub feed: Arc<dyn HeaderSource>,
    pub volatile: Volatile,
    pub gauges: Gauges,
    pub watched: Watched,
}

/// How long a call may take, and since when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    pub began: Instant,
    pub limit: Duration,
    /// It has been said that half of it is over.
    warned: bool,
}

impl Clock {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            began: Instant::now(),
            limit,
            warned: false,
        }
    }

    pub(super) fn left(&self) -> Duration {
        self.limit.saturating_sub(self.began.elapsed())
    }
}

/// What a call has used so far.
#[derive(Debug, Clone, Copy, Default)]
struct Meter {
    keys: u64,
    state: u64,
    rows: u64,
    row_bytes: u64,
    log_lines: u64,
    log_bytes: usize,
    log_dropped: u64,
}

/// Counts how often a call looks at the clock (at the begin of each function and each turn of a loop), and ends it there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Interrupt {
    pub after: u64,
    pub looks: u64,
}

impl Interrupt {
    /// Whether the call ends at this look.
    fn look(&mut self) -> bool {
        self.looks += 1;
        self.looks > self.after
    }
}

/// The data of a wasm store: one instance's view of the host.
pub struct Host {
    pub(super) surroundings: Option<Arc<Surroundings>>,
    pub(super) space: Space,
    pub(super) phase: Phase,
    /// The instance answers a query.
    pub(super) query: bool,
    call: &'static str,
    /// The last block that this instance was given, or is being given.
    pub(super) position: Option<Position>,
    pub(super) limits: Limits,
    pub(super) clock: Clock,
    /// The call is ended on purpose, see [`Instance::interrupt_after`](super::Instance::interrupt_after).
    pub(super) interrupt: Option<Interrupt>,
    memory: usize,
    /// A growth of a memory was allowed and has not ended.
    growing: bool,
    table_entries: usize,
    meter: Meter,
    /// What failed on the host's side during the call.
    pub(super) fault: Option<anyhow::Error>,
    /// What a query of the host's owner wants to change in the settings; none where nobody may.
    pub(super) changes: Option<Vec<Change>>,
    /// Of the transactions that came into the pool with this call; none where a capsule does not say.
    pub(super) sigop_costs: Option<Vec<u32>>,
    wasi: wasi::Wasi,
}

impl Host {
    pub(super) fn new(
        surroundings: Option<Arc<Surroundings>>,
        space: Space,
        limits: Limits,
    ) -> Self {
        Self {
            surroundings,
            space,
            phase: Phase::Describe,
            query: false,
            call: "instantiate",
            position: None,
            clock: Clock::new(limits.block_time),
            limits,
            interrupt: None,
            memory: 0,
            growing: false,
            table_entries: 0,
            meter: Meter::default(),
            fault: None,
            changes: None,
            sigop_costs: None,
            wasi: wasi::Wasi::default(),
        }
    }

    /// Bytes of memory that the instance has.
    pub(super) fn memory(&self) -> usize {
        self.memory
    }

    fn memory_budget(&self) -> (Budget, usize) {
        match self.query {
            true => (Budget::QueryMemory, self.limits.query_memory),
            false => (Budget::Memory, self.limits.memory),
        }
    }

    pub(super) fn begin_call(&mut self, call: &'static str, phase: Phase, clock: Clock) {
        self.call = call;
        self.phase = phase;
        self.clock = clock;
        self.fault = None;
        self.meter = Meter::default();
        self.wasi.begin_call();
    }

    /// Notes what the call has used, and says how many of its log lines were dropped.
    pub(super) fn end_call(&mut self) {
        self.end_output();
        let Meter {
            keys,
            state,
            rows,
            row_bytes,
            log_lines,
            log_dropped,
            ..
        } = self.meter;
        if log_dropped > 0 {
            tracing::warn!(
                plugin = self.name(),
                dropped = log_dropped,
                limit = self.limits.block_log,
                "log lines over block_log_limit"
            );
        }
        let took = u64::try_from(self.clock.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let memory = self.memory as u64;
        let tables = self.table_entries as u64;
        if self.query {
            self.note(&[(Budget::QueryTime, took), (Budget::QueryMemory, memory)]);
        } else {
            self.note(&[
                (Budget::Memory, memory),
                (Budget::Tables, tables),
                (Budget::BlockTime, took),
                (Budget::BlockKeys, keys),
                (Budget::BlockState, state),
                (Budget::BlockRows, rows),
                (Budget::BlockRowBytes, row_bytes),
                (Budget::BlockLog, log_lines),
            ]);
        }
        if let Some(surroundings) = &self.surroundings {
            surroundings
                .gauges
                .metrics()
                .log_lines_dropped
                .inc_by(log_dropped);
        }
    }

    /// Notes what was used of budgets; the metrics show it when it is more than before.
    pub(super) fn note(&self, used: &[(Budget, u64)]) {
        let Some(surroundings) = &self.surroundings else {
            return;
        };
        let (usage, metrics) = (&surroundings.watched.usage, surroundings.gauges.metrics());
        if usage.first() {
            for budget in Budget::ALL {
                let limit = budget::in_metrics(budget, self.limits.of(budget));
                metrics.set_budget(budget.key(), 0.0, limit);
            }
        }
        for &(budget, amount) in used {
            if usage.note(budget, amount) {
                let used = budget::in_metrics(budget, amount);
                let limit = budget::in_metrics(budget, self.limits.of(budget));
                metrics.set_budget(budget.key(), used, limit);
            }
        }
    }

    /// Called at the end of each half of a call's time: says that half is over, or ends the call.
    pub(super) fn time_is_up(&mut self) -> Result<UpdateDeadline> {
        let left = self.clock.left();
        let (elapsed, limit) = (self.clock.began.elapsed(), self.clock.limit);
        let cut = self.interrupt.as_mut().map(Interrupt::look);
        if let (Some(false), false) = (cut, left.is_zero()) {
            // The next look is the next one that the code takes.
            return Ok(UpdateDeadline::Continue(0));
        }
        if left.is_zero() || cut == Some(true) {
            let budget = if self.query {
                Budget::QueryTime
            } else {
                Budget::BlockTime
            };
            let wanted = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
            return Err(Error::new(BudgetBroken { budget, wanted }));
        }
        if !self.clock.warned && elapsed * 2 >= limit {
            self.clock.warned = true;
            self.say_slow(self.call, elapsed, limit);
        }
        Ok(UpdateDeadline::Continue(super::instance::ticks(left)))
    }

    /// One line a minute and plugin at most.
    fn say_slow(&self, call: &'static str, elapsed: Duration, limit: Duration) {
        let Some(surroundings) = &self.surroundings else {
            return;
        };
        let mut slow = surroundings
            .watched
            .slow
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (last, unsaid) = &mut *slow;
        if last.is_some_and(|last| last.elapsed() < WARN_EVERY) {
            *unsaid += 1;
            return;
        }
        tracing::warn!(
            plugin = surroundings.name,
            call,
            block = self.position.map(|at| at.height),
            elapsed_ms = elapsed.as_millis() as u64,
            limit_ms = limit.as_millis() as u64,
            unsaid = *unsaid,
            "a call has used half of its time"
        );
        (*last, *unsaid) = (Some(Instant::now()), 0);
    }

    fn name(&self) -> &str {
        self.surroundings.as_ref().map_or("?", |s| &s.name)
    }

    fn surroundings(&self) -> Result<&Surroundings> {
        self.surroundings.as_deref().ok_or_else(|| rule(NO_HOST))
    }

    fn recorder(&self) -> Option<&Recorder> {
        let recorder = &self.surroundings.as_ref()?.watched.recorder;
        recorder.is_armed().then_some(recorder)
    }

    fn host_fault(&mut self, fault: impl Into<anyhow::Error>) -> Error {
        self.fault = Some(fault.into());
        Error::new(HostFault)
    }

    fn store_error(&mut self, error: StoreError) -> Error {
        if error.is_callers_fault() {
            return rule(error.to_string());
        }
        self.host_fault(error)
    }

    fn capsule_error(&mut self, error: CapsuleStateError) -> Error {
        match error {
            CapsuleStateError::Argument(error) => rule(error.to_string()),
            missing => self.host_fault(missing),
        }
    }

    /// Counts what is about to be written to the state; an error when that is more than the call may write.
    fn meter_state(&mut self, keys: usize, bytes: usize) -> Result<()> {
        self.meter.keys += keys as u64;
        self.meter.state += bytes as u64;
        within(Budget::BlockKeys, self.meter.keys, &self.limits)?;
        within(Budget::BlockState, self.meter.state, &self.limits)
    }

    /// As [`Host::meter_state`], for rows.
    fn meter_rows(&mut self, rows: usize, bytes: usize) -> Result<()> {
        self.meter.rows += rows as u64;
        self.meter.row_bytes += bytes as u64;
        within(Budget::BlockRows, self.meter.rows, &self.limits)?;
        within(Budget::BlockRowBytes, self.meter.row_bytes, &self.limits)
    }

    /// The lane's rows for writing.
    fn rows(&mut self, anchored: bool) -> Result<(&mut RowBuffer, Option<u32>)> {
        let rows = match &mut self.space {
            Space::Lane(lane) => Some(&mut lane.rows),
            Space::Capsule(capsule) => Some(&mut capsule.rows),
            _ => None,
        };
        match (rows, self.phase) {
            (Some(rows), Phase::Block { height, .. }) => Ok((rows, Some(height))),
            (Some(rows), Phase::Mempool) if !anchored => Ok((rows, None)),
            _ if anchored => Err(rule(
                "anchored rows are appended in on-block and nowhere else",
            )),
            _ => Err(rule(
                "volatile rows are written in on-block and on-mempool and nowhere else",
            )),
        }
    }
}

fn within(budget: Budget, wanted: u64, limits: &Limits) -> Result<()> {
    if wanted > limits.of(budget) {
        return Err(Error::new(BudgetBroken { budget, wanted }));
    }
    Ok(())
}

fn rule(text: impl Into<String>) -> Error {
    Error::new(RuleBroken(text.into()))
}

impl ResourceLimiter for Host {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool> {
        let wanted = self.memory - current.min(self.memory) + desired;
        let (budget, limit) = self.memory_budget();
        if wanted > limit {
            // Refusing alone would let a plugin give another answer on a smaller machine.
            return Err(Error::new(BudgetBroken {
                budget,
                wanted: wanted as u64,
            }));
        }
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Err(rule(
                "a memory grows beyond the most that the module itself declares",
            ));
        }
        self.memory = wanted;
        self.growing = true;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: Error) -> Result<()> {
        if std::mem::take(&mut self.growing) {
            // It was allowed: the machine has none left.
            let fault = anyhow::anyhow!("the machine gave no memory to the plugin: {error:#}");
            return Err(self.host_fault(fault));
        }
        Err(rule(format!("a memory cannot grow so far: {error:#}")))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> Result<bool> {
        let wanted = self.table_entries - current.min(self.table_entries) + desired;
        within(Budget::Tables, wanted as u64, &self.limits)?;
        self.table_entries = wanted;
        Ok(true)
    }

    fn table_grow_failed(&mut self, error: Error) -> Result<()> {
        Err(rule(format!("a table cannot grow so far: {error:#}")))
    }

    fn instances(&self) -> usize {
        self.limits.instances
    }

    // How many tables, where `limits.tables` is how many entries.
    #[allow(clippy::misnamed_getters)]
    fn tables(&self) -> usize {
        self.limits.instances
    }

    fn memories(&self) -> usize {
        self.limits.instances
    }
}
