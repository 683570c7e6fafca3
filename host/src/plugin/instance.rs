//! One running plugin: an instance in a wasm store of its own, and the calls into it.

use super::bindings::Plugin;
use super::bindings::blockmill::plugin::types as wit;
use super::bindings::exports::blockmill::plugin::processor;
use super::budget::{Budget, Limits};
use super::descriptor::{Descriptor, WantedColumns};
use super::engine::{Compiled, EPOCH, PluginEngine};
use super::error::{CallError, HostFault};
use super::host::{CapsuleSpace, Clock, Host, Interrupt, LaneSpace, Phase, Space, Surroundings};
use crate::frame::{Frame, Spent};
use crate::lane::Position;
use crate::mempool::MempoolChanges;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use wasmtime::Store;

mod columns;
mod failures;
mod parts;
mod query;

use columns::{columns, header, spent_of, witnesses_of};
use failures::classify;
pub use parts::Place;
pub use query::QueryError;

/// Time of `describe`, which has nothing to do but to answer.
const DESCRIBE_TIME: Duration = Duration::from_secs(2);

/// Bytes of memory that `describe` may use.
const DESCRIBE_MEMORY: usize = 64 << 20;

/// The interface that a plugin may export to take over the state of another version.
const MIGRATION: &str = "blockmill:plugin/migration@0.1.1";

/// A block and all that can be said of it; what a plugin did not ask for is not built.
pub struct BlockInput<'a> {
    pub position: Position,
    pub frame: &'a Frame,
    /// Unix seconds.
    pub median_time: u32,
    pub spent: Option<&'a Spent>,
}

/// Changes of the pool with the columns that a plugin asked for.
pub struct MempoolInput<'a> {
    pub changes: &'a MempoolChanges,
    pub reset: bool,
    /// Unix seconds.
    pub time: u64,
    pub height: u32,
    pub current: bool,
}

/// A plugin that runs.
pub struct Instance {
    store: Store<Host>,
    plugin: Plugin,
    raw: wasmtime::component::Instance,
}

impl Instance {
    fn new(
        engine: &PluginEngine,
        compiled: &Compiled,
        host: Host,
    ) -> Result<Self, (CallError, Box<Host>)> {
        const CALL: &str = "instantiate";
        host.note(&[(Budget::Instances, compiled.parts)]);
        let mut store = Store::new(engine.engine(), host);
        store.limiter(|host| host);
        let ending = engine.ending();
        store.epoch_deadline_callback(move |mut store| {
            let host = store.data_mut();
            if ending.load(Ordering::Relaxed) {
                host.fault = Some(anyhow::anyhow!("the host is ending"));
                return Err(wasmtime::Error::new(HostFault));
            }
            host.time_is_up()
        });
        store.set_epoch_deadline(ticks(store.data().clock.limit / 2));
        let made = compiled.pre.instance_pre().instantiate(&mut store);
        let made = made.and_then(|raw| Ok((Plugin::new(&mut store, &raw)?, raw)));
        match made {
            Ok((plugin, raw)) => Ok(Self { store, plugin, raw }),
            Err(error) => {
                let error = classify(CALL, error, store.data_mut());
                Err((error, Box::new(store.into_data())))
            }
        }
    }

    /// Asks a plugin what it is, in an instance of its own.
    ///
    /// # Errors
    ///
    /// When the call fails or the answer is not one that the host can use.
    pub fn describe(engine: &PluginEngine, compiled: &Compiled) -> Result<Descriptor, CallError> {
        let limits = Limits {
            memory: DESCRIBE_MEMORY,
            block_time: DESCRIBE_TIME,
            ..Limits::DEFAULT
        };
        let host = Host::new(None, Space::None, limits);
        let mut instance = Self::new(engine, compiled, host).map_err(|(error, _)| error)?;
        let answer = instance.call(
            "describe",
            Phase::Describe,
            Clock::new(DESCRIBE_TIME),
            |plugin, store| plugin.blockmill_plugin_processor().call_describe(store),
        )?;
        let mut descriptor = Descriptor::from_wit(answer).map_err(|e| CallError::Answer {
            call: "describe",
            reason: e.to_string(),
        })?;
        descriptor.parts = instance.takes_parts()?;
        Ok(descriptor)
    }

    /// Starts a plugin on no state at all, to see whether it takes its settings. What it writes is refused, so that only
    /// a complaint about the settings counts.
    ///
    /// # Errors
    ///
    /// What the plugin says of its settings.
    pub fn check(
        engine: &PluginEngine,
        compiled: &Compiled,
        settings: &str,
        limits: Limits,
    ) -> Result<(), CallError> {
        let host = Host::new(None, Space::None, limits);
        let mut instance = Self::new(engine, compiled, host).map_err(|(error, _)| error)?;
        match instance.start(settings, None, Clock::new(limits.block_time)) {
            Err(error @ CallError::Failed { .. }) => Err(error),
            _ => Ok(()),
        }
    }

    /// An instance that handles blocks, started. The space comes back when it cannot be made.
    ///
    /// # Errors
    ///
    /// When the instance cannot be made or its `start` fails.
    pub fn for_lane(
        engine: &PluginEngine,
        compiled: &Compiled,
        surroundings: Arc<Surroundings>,
        space: Box<LaneSpace>,
        settings: &str,
        position: Option<Position>,
        limits: Limits,
    ) -> Result<Self, (CallError, Box<LaneSpace>)> {
        let mut host = Host::new(Some(surroundings), Space::Lane(space), limits);
        host.position = position;
        let mut instance = Self::new(engine, compiled, host).map_err(|(error, host)| {
            let Space::Lane(space) = host.space else {
                unreachable!("a lane's host has a lane's space")
            };
            (error, space)
        })?;
        instance.space_mut().state.begin_block();
        match instance.start(settings, position, Clock::new(limits.block_time)) {
            Ok(()) => {
                instance.space_mut().state.commit_start();
                Ok(instance)
            }
            Err(error) => {
                let mut space = instance.into_space();
                space.state.abort_block();
                Err((error, space))
            }
        }
    }

    /// Lets a plugin make the state that its component of another state version left into one of its own. The changes are
    /// in the space's state when this says true, committed and not flushed; else there are none.
    ///
    /// # Errors
    ///
    /// When the call fails.
    pub fn migrate(
        engine: &PluginEngine,
        compiled: &Compiled,
        surroundings: Arc<Surroundings>,
        space: Box<LaneSpace>,
        from: u32,
        limits: Limits,
    ) -> Result<(bool, Box<LaneSpace>), CallError> {
        const CALL: &str = "migrate";
        let mut host = Host::new(Some(surroundings), Space::Lane(space), limits);
        host.position = match &host.space {
            Space::Lane(space) => space.state.cursor().map(Position::from),
            _ => None,
        };
        let mut instance = Self::new(engine, compiled, host).map_err(|(error, _)| error)?;
        let raw = instance.raw;
        let Some(migrate) = raw
            .get_export_index(&mut instance.store, None, MIGRATION)
            .and_then(|interface| {
                raw.get_export_index(&mut instance.store, Some(&interface), CALL)
            })
        else {
            return Ok((false, instance.into_space()));
        };
        instance.space_mut().state.begin_block();
        let answer = instance.call(
            CALL,
            Phase::Start,
            Clock::new(limits.block_time),
            |_, store| {
                let migrate =
                    raw.get_typed_func::<(u32,), (Result<bool, String>,)>(&mut *store, migrate)?;
                Ok(migrate.call(&mut *store, (from,))?.0)
            },
        )?;
        let mut space = instance.into_space();
        match answer {
            Ok(true) => space.state.commit_start(),
            _ => space.state.abort_block(),
        }
        answer
            .map(|done| (done, space))
            .map_err(|message| CallError::Failed {
                call: CALL,
                message,
            })
    }

    fn start(
        &mut self,
        settings: &str,
        position: Option<Position>,
        clock: Clock,
    ) -> Result<(), CallError> {
        let info = processor::StartInfo {
            settings,
            height: position.map(|p| p.height),
        };
        let started = self.call("start", Phase::Start, clock, |plugin, store| {
            plugin.blockmill_plugin_processor().call_start(store, info)
        })?;
        started.map_err(|message| CallError::Failed {
            call: "start",
            message,
        })
    }

    /// Gives a block. The caller opens and closes it in the state and the rows.
    ///
    /// # Errors
    ///
    /// When the call fails; the block's changes must then be dropped, and so must the instance.
    pub fn on_block(
        &mut self,
        input: &BlockInput<'_>,
        wanted: WantedColumns,
    ) -> Result<Option<Spent>, CallError> {
        const CALL: &str = "on-block";
        let frame = input.frame;
        let witnesses = witnesses_of(CALL, frame, wanted)?;
        let block = wit::Block {
            header: header(input),
            columns: columns(&frame.columns, wanted, witnesses.as_ref(), input.spent),
            raw: wanted.raw.then_some(&frame.raw[..]),
        };
        self.store.data_mut().position = Some(input.position);
        let phase = Phase::Block {
            height: input.position.height,
            time: frame.header.time,
        };
        let clock = Clock::new(self.store.data().limits.block_time);
        let answer = self.call(CALL, phase, clock, |plugin, store| {
            plugin
                .blockmill_plugin_processor()
                .call_on_block(store, block)
        })?;
        spent_of(CALL, answer, frame.columns.inputs.prev_vouts.len())
    }

    /// Gives changes of the memory pool.
    ///
    /// # Errors
    ///
    /// When the call fails; the instance must then be dropped.
    pub fn on_mempool(
        &mut self,
        input: &MempoolInput<'_>,
        wanted: WantedColumns,
    ) -> Result<(), CallError> {
        const CALL: &str = "on-mempool";
        let mut own = super::pool_columns::PoolColumns::new(input.changes, wanted)
            .map_err(|source| CallError::Host { call: CALL, source })?;
        self.store.data_mut().sigop_costs = own.sigop_costs.take();
        let changes = wit::MempoolChanges {
            reset: input.reset,
            time: input.time,
            height: input.height,
            current: input.current,
            removed: &own.removed,
            removed_reasons: &own.removed_reasons,
            added: columns(&own.columns, wanted, own.witnesses.as_ref(), None),
            fees: &own.fees,
            vsizes: &own.vsizes,
            first_seen: &own.first_seen,
            origins: &own.origins,
            parent_ends: &own.parent_ends,
            parents: &own.parents,
        };
        let answer = self.call(
            CALL,
            Phase::Mempool,
            Clock::new(self.store.data().limits.block_time),
            |plugin, store| {
                plugin
                    .blockmill_plugin_processor()
                    .call_on_mempool(store, changes)
            },
        )?;
        answer.map_err(|message| CallError::Failed {
            call: CALL,
            message,
        })
    }

    /// An instance whose state is what a capsule holds, started.
    pub(super) fn for_capsule(
        engine: &PluginEngine,
        compiled: &Compiled,
        surroundings: Arc<Surroundings>,
        space: CapsuleSpace,
        settings: &str,
        position: Option<Position>,
        limits: Limits,
    ) -> Result<Self, CallError> {
        let mut host = Host::new(Some(surroundings), Space::Capsule(Box::new(space)), limits);
        host.position = position;
        let mut instance = Self::new(engine, compiled, host).map_err(|(error, _)| error)?;
        instance.start(settings, position, Clock::new(limits.block_time))?;
        Ok(instance)
    }

    /// What an instance of [`Instance::for_capsule`] has left behind.
    pub(super) fn capsule_space_mut(&mut self) -> Option<&mut CapsuleSpace> {
        match &mut self.store.data_mut().space {
            Space::Capsule(space) => Some(space),
            _ => None,
        }
    }

    /// The lane's stores.
    pub fn space_mut(&mut self) -> &mut LaneSpace {
        match &mut self.store.data_mut().space {
            Space::Lane(space) => space,
            _ => unreachable!("only an instance for a lane is asked for its stores"),
        }
    }

    /// Ends the instance and gives the lane's stores back.
    pub fn into_space(self) -> Box<LaneSpace> {
        match self.store.into_data().space {
            Space::Lane(space) => space,
            _ => unreachable!("only an instance for a lane is asked for its stores"),
        }
    }

    /// Ends the calls from now on as if their time were up, once the code has looked at the clock so many times: at the same
    /// place each time, unlike time itself. For tests of what a plugin makes of a call that ends in its middle.
    pub fn interrupt_after(&mut self, looks: u64) {
        self.store.data_mut().interrupt = Some(Interrupt {
            after: looks,
            looks: 0,
        });
    }

    /// How often the calls have looked at the clock since [`Instance::interrupt_after`].
    pub fn looks(&self) -> u64 {
        let interrupt = self.store.data().interrupt;
        interrupt.map_or(0, |interrupt| interrupt.looks)
    }

    /// Bytes of memory that the instance has.
    pub fn memory(&self) -> usize {
        self.store.data().memory()
    }

    fn call<T>(
        &mut self,
        call: &'static str,
        phase: Phase,
        clock: Clock,
        run: impl FnOnce(&Plugin, &mut Store<Host>) -> wasmtime::Result<T>,
    ) -> Result<T, CallError> {
        self.store.data_mut().begin_call(call, phase, clock);
        // The first half; at its end the host says so and gives what is left.
        let half = (clock.limit / 2).min(clock.left());
        let counted = self.store.data().interrupt.is_some();
        self.store
            .set_epoch_deadline(if counted { 0 } else { ticks(half) });
        let answer = run(&self.plugin, &mut self.store);
        self.store.data_mut().end_call();
        answer.map_err(|error| classify(call, error, self.store.data_mut()))
    }
}

/// Epochs that make up a time; one more because the first is already running.
pub(super) fn ticks(limit: Duration) -> u64 {
    (limit.as_millis() / EPOCH.as_millis()) as u64 + 1
}
