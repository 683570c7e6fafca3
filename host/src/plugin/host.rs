//! The host as one instance of a plugin sees it: the imports of `wit/plugin.wit`.

mod wasi;

pub(super) use wasi::add_to_linker as add_wasi_to_linker;

use super::bindings::blockmill::plugin::{chain, log, rows, state, types, values, volatile};
use super::error::{HostFault, MemoryRefused, RuleBroken};
use super::gauges::Gauges;
use super::volatile::{MAX_VOLATILE, Volatile};
use crate::lane::{Feed, Position};
use crate::network::Params;
use crate::store::{
    Column, ColumnData, Keys, LaneState, RowBuffer, RowError, StateSnapshot, StoreError,
    ValueColumn, Values,
};
use bitcoin::hashes::Hash;
use std::sync::Arc;
use wasmtime::{Error, ResourceLimiter, Result};

/// Entries of one page of `state.scan`.
const MAX_SCAN_ENTRIES: u32 = 10_000;
/// Bytes of one page of `state.scan`.
const MAX_SCAN_BYTES: usize = 4 << 20;
/// Keys of one columnar call.
const MAX_KEYS: usize = 4_000_000;
/// Lines that one call may log.
const MAX_LOG_LINES: u32 = 100;
/// Bytes that one call may log.
const MAX_LOG_BYTES: usize = 64 << 10;

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

/// The stores that an instance sees.
pub(super) enum Space {
    /// `describe` sees none.
    None,
    Lane(Box<LaneSpace>),
    Snapshot(Box<StateSnapshot>),
}

/// What all instances of one plugin share.
pub struct Surroundings {
    /// The plugin's name in the configuration.
    pub name: String,
    pub params: &'static Params,
    pub feed: Arc<Feed>,
    pub volatile: Volatile,
    pub gauges: Gauges,
}

/// The data of a wasm store: one instance's view of the host.
pub struct Host {
    pub(super) surroundings: Option<Arc<Surroundings>>,
    pub(super) space: Space,
    pub(super) phase: Phase,
    /// The last block that this instance was given, or is being given.
    pub(super) position: Option<Position>,
    /// Bytes that the instance's memories may have together.
    pub(super) memory_limit: usize,
    memory: usize,
    /// What failed on the host's side during the call.
    pub(super) fault: Option<anyhow::Error>,
    log_lines: u32,
    log_bytes: usize,
    log_dropped: u32,
    wasi: wasi::Wasi,
}

impl Host {
    pub(super) fn new(
        surroundings: Option<Arc<Surroundings>>,
        space: Space,
        memory_limit: usize,
    ) -> Self {
        Self {
            surroundings,
            space,
            phase: Phase::Describe,
            position: None,
            memory_limit,
            memory: 0,
            fault: None,
            log_lines: 0,
            log_bytes: 0,
            log_dropped: 0,
            wasi: wasi::Wasi::default(),
        }
    }

    /// Bytes of memory that the instance has.
    pub(super) fn memory(&self) -> usize {
        self.memory
    }

    pub(super) fn begin_call(&mut self, phase: Phase) {
        self.phase = phase;
        self.fault = None;
        (self.log_lines, self.log_bytes) = (0, 0);
        self.log_dropped = 0;
        self.wasi.begin_call();
    }

    /// Says how many log lines of the call were dropped.
    pub(super) fn end_call(&mut self) {
        self.end_output();
        if self.log_dropped > 0 {
            tracing::warn!(
                plugin = self.name(),
                dropped = self.log_dropped,
                "log lines over the limit of a call"
            );
        }
    }

    fn name(&self) -> &str {
        self.surroundings.as_ref().map_or("?", |s| &s.name)
    }

    fn surroundings(&self) -> Result<&Surroundings> {
        self.surroundings.as_deref().ok_or_else(|| rule(NO_HOST))
    }

    fn store_error(&mut self, error: StoreError) -> Error {
        if error.is_callers_fault() {
            return rule(error.to_string());
        }
        self.fault = Some(error.into());
        Error::new(HostFault)
    }

    /// The lane's state for writing.
    fn writable(&mut self) -> Result<&mut LaneState> {
        match (&mut self.space, self.phase) {
            (Space::Lane(lane), Phase::Start | Phase::Block { .. }) => Ok(&mut lane.state),
            _ => Err(rule(
                "the state is written in start and on-block and nowhere else",
            )),
        }
    }

    fn write(
        &mut self,
        write: impl FnOnce(&mut LaneState) -> Result<(), StoreError>,
    ) -> Result<()> {
        let written = write(self.writable()?);
        written.map_err(|e| self.store_error(e))
    }

    /// The lane's rows for writing.
    fn rows(&mut self, anchored: bool) -> Result<(&mut RowBuffer, Option<u32>)> {
        match (&mut self.space, self.phase) {
            (Space::Lane(lane), Phase::Block { height, .. }) => Ok((&mut lane.rows, Some(height))),
            (Space::Lane(lane), Phase::Mempool) if !anchored => Ok((&mut lane.rows, None)),
            _ if anchored => Err(rule(
                "anchored rows are appended in on-block and nowhere else",
            )),
            _ => Err(rule(
                "volatile rows are written in on-block and on-mempool and nowhere else",
            )),
        }
    }
}

fn rule(text: impl Into<String>) -> Error {
    Error::new(RuleBroken(text.into()))
}

fn row_error(error: RowError) -> Error {
    rule(error.to_string())
}

fn keys(keys: &state::Keys) -> Result<Keys<'_>> {
    let columns = match keys.width {
        0 => Keys::ends(&keys.ends, &keys.bytes),
        width if keys.ends.is_empty() => Keys::fixed(width as usize, &keys.bytes),
        width => {
            return Err(rule(format!(
                "keys of the fixed width {width} have no `ends`"
            )));
        }
    };
    if columns.len() > MAX_KEYS {
        return Err(rule(format!(
            "{} keys in one call, at most {MAX_KEYS}",
            columns.len()
        )));
    }
    Ok(columns)
}

fn values(pieces: &types::Pieces) -> Values<'_> {
    Values::ends(&pieces.ends, &pieces.bytes)
}

fn found(column: ValueColumn) -> state::FoundValues {
    state::FoundValues {
        found: column.found,
        ends: column.ends,
        bytes: column.values,
    }
}

impl types::Host for Host {}

impl state::Host for Host {
    fn get(&mut self, key: Vec<u8>) -> Result<Option<Vec<u8>>> {
        let read = match &mut self.space {
            Space::Lane(lane) => lane.state.get(&key).map(|value| value.map(|v| v.to_vec())),
            Space::Snapshot(snapshot) => snapshot.get(&key).map(|value| value.map(|v| v.to_vec())),
            Space::None => return Err(rule(NO_HOST)),
        };
        read.map_err(|e| self.store_error(e))
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<()> {
        self.write(|state| state.put(&key, &value))
    }

    fn delete(&mut self, key: Vec<u8>) -> Result<()> {
        self.write(|state| state.delete(&key))
    }

    fn take(&mut self, key: Vec<u8>) -> Result<Option<Vec<u8>>> {
        let mut out = None;
        self.write(|state| {
            state
                .take(&key)
                .map(|value| out = value.map(|v| v.to_vec()))
        })?;
        Ok(out)
    }

    fn get_many(&mut self, asked: state::Keys) -> Result<state::FoundValues> {
        let keys = keys(&asked)?;
        let mut out = ValueColumn::default();
        let read = match &mut self.space {
            Space::Lane(lane) => lane.state.get_many(keys, &mut out),
            Space::Snapshot(snapshot) => snapshot.get_many(keys, &mut out),
            Space::None => return Err(rule(NO_HOST)),
        };
        read.map_err(|e| self.store_error(e))?;
        Ok(found(out))
    }

    fn put_many(&mut self, asked: state::Keys, pieces: types::Pieces) -> Result<()> {
        let keys = keys(&asked)?;
        self.write(|state| state.put_many(keys, values(&pieces)))
    }

    fn delete_many(&mut self, asked: state::Keys) -> Result<()> {
        let keys = keys(&asked)?;
        self.write(|state| state.delete_many(keys))
    }

    fn take_many(&mut self, asked: state::Keys) -> Result<state::FoundValues> {
        let keys = keys(&asked)?;
        let mut out = ValueColumn::default();
        self.write(|state| state.take_many(keys, &mut out))?;
        Ok(found(out))
    }

    fn scan(&mut self, prefix: Vec<u8>, after: Option<Vec<u8>>, limit: u32) -> Result<state::Page> {
        let (after, limit) = (after.as_deref(), limit.min(MAX_SCAN_ENTRIES) as usize);
        let read = match &mut self.space {
            Space::Lane(lane) => lane.state.scan(&prefix, after, limit, MAX_SCAN_BYTES),
            Space::Snapshot(snapshot) => snapshot.scan(&prefix, after, limit, MAX_SCAN_BYTES),
            Space::None => return Err(rule(NO_HOST)),
        };
        let page = read.map_err(|e| self.store_error(e))?;
        Ok(state::Page {
            keys: types::Pieces {
                ends: page.key_ends,
                bytes: page.keys,
            },
            values: types::Pieces {
                ends: page.value_ends,
                bytes: page.values,
            },
            more: page.more,
        })
    }
}

impl volatile::Host for Host {
    fn get(&mut self, key: Vec<u8>) -> Result<Option<Vec<u8>>> {
        Ok(self
            .surroundings()?
            .volatile
            .get(&key)
            .map(|value| value.to_vec()))
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<()> {
        if !matches!(
            self.phase,
            Phase::Start | Phase::Block { .. } | Phase::Mempool
        ) {
            return Err(rule("the volatile space is not written in a query"));
        }
        if self.surroundings()?.volatile.put(key, &value) {
            return Ok(());
        }
        Err(rule(format!(
            "the volatile space would hold more than {MAX_VOLATILE} bytes"
        )))
    }

    fn delete(&mut self, key: Vec<u8>) -> Result<()> {
        if !matches!(
            self.phase,
            Phase::Start | Phase::Block { .. } | Phase::Mempool
        ) {
            return Err(rule("the volatile space is not written in a query"));
        }
        self.surroundings()?.volatile.delete(&key);
        Ok(())
    }
}

fn column(column: rows::Column) -> Column {
    let data = match column.cells {
        rows::Cells::Integers(values) => ColumnData::Integers(values),
        rows::Cells::Reals(values) => ColumnData::Reals(values),
        rows::Cells::Texts(pieces) => ColumnData::Texts {
            ends: pieces.ends,
            bytes: pieces.bytes,
        },
        rows::Cells::Blobs(pieces) => ColumnData::Blobs {
            ends: pieces.ends,
            bytes: pieces.bytes,
        },
        rows::Cells::Hashes(mut bytes) => {
            // Internal order comes in, display order is kept.
            for hash in bytes.as_chunks_mut::<32>().0 {
                hash.reverse();
            }
            ColumnData::Hashes(bytes)
        }
    };
    Column {
        data,
        nulls: (!column.nulls.is_empty()).then_some(column.nulls),
    }
}

impl rows::Host for Host {
    fn append(&mut self, table: u32, columns: Vec<rows::Column>) -> Result<()> {
        let (rows, height) = self.rows(true)?;
        let columns: Vec<Column> = columns.into_iter().map(column).collect();
        rows.append(table as usize, height.unwrap_or_default(), &columns)
            .map_err(row_error)
    }

    fn put(&mut self, table: u32, columns: Vec<rows::Column>) -> Result<()> {
        let (rows, _) = self.rows(false)?;
        let columns = columns.into_iter().map(column).collect();
        rows.put(table as usize, columns).map_err(row_error)
    }

    fn delete(&mut self, table: u32, key: Vec<rows::Column>) -> Result<()> {
        let (rows, _) = self.rows(false)?;
        let key = key.into_iter().map(column).collect();
        rows.delete(table as usize, key).map_err(row_error)
    }
}

impl values::Host for Host {
    fn set(&mut self, name: String, value: f64) -> Result<()> {
        let surroundings = self.surroundings()?;
        if self.phase == Phase::Query {
            return Err(rule("values are not set in a query"));
        }
        surroundings.gauges.set(&name, value).map_err(rule)
    }

    fn push(&mut self, name: String, value: f64) -> Result<()> {
        let Phase::Block { height, time } = self.phase else {
            return Err(rule("a series grows in on-block and nowhere else"));
        };
        self.surroundings()?
            .gauges
            .push(&name, height, time, value)
            .map_err(rule)
    }
}

impl log::Host for Host {
    fn write(&mut self, level: log::Level, message: String) -> Result<()> {
        self.surroundings()?;
        self.write_log(level, &message);
        Ok(())
    }
}

impl Host {
    /// Writes a line of the plugin's, unless the call has written too many.
    fn write_log(&mut self, level: log::Level, message: &str) {
        self.log_lines += 1;
        self.log_bytes += message.len();
        if self.log_lines > MAX_LOG_LINES || self.log_bytes > MAX_LOG_BYTES {
            self.log_dropped += 1;
            return;
        }
        let plugin = self.name();
        // A log line of a plugin is one line, whatever it holds.
        let message = message.replace(|c: char| c.is_control(), " ");
        match level {
            log::Level::Error => tracing::error!(target: "plugin", plugin, "{message}"),
            log::Level::Warn => tracing::warn!(target: "plugin", plugin, "{message}"),
            log::Level::Info => tracing::info!(target: "plugin", plugin, "{message}"),
            log::Level::Debug => tracing::debug!(target: "plugin", plugin, "{message}"),
            log::Level::Trace => tracing::trace!(target: "plugin", plugin, "{message}"),
        }
    }
}

impl chain::Host for Host {
    fn network(&mut self) -> Result<String> {
        Ok(self.surroundings()?.params.network.to_string())
    }

    fn subsidy(&mut self, height: u32) -> Result<u64> {
        Ok(self.surroundings()?.params.subsidy(height))
    }

    fn header(&mut self, height: u32) -> Result<Option<types::BlockHeaderResult>> {
        if self.position.is_none_or(|at| height > at.height) {
            return Ok(None);
        }
        let chain = self.surroundings()?.feed.chain();
        // A lane that has not yet followed a reorg must not see the other branch.
        if !self.position.is_some_and(|at| chain.contains(at)) {
            return Ok(None);
        }
        let (Some(hash), Some((header, median_time))) =
            (chain.hash_at(height), chain.header_at(height))
        else {
            return Ok(None);
        };
        Ok(Some(types::BlockHeaderResult {
            height,
            hash: hash.to_byte_array().to_vec(),
            previous: header.prev_blockhash.to_byte_array().to_vec(),
            merkle_root: header.merkle_root.to_byte_array().to_vec(),
            version: header.version.to_consensus(),
            time: header.time,
            bits: header.bits.to_consensus(),
            nonce: header.nonce,
            median_time,
            size: 0,
            weight: 0,
        }))
    }
}

impl ResourceLimiter for Host {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> Result<bool> {
        let wanted = self.memory - current.min(self.memory) + desired;
        if wanted > self.memory_limit {
            // Refusing alone would let a plugin give another answer on a smaller machine.
            return Err(Error::new(MemoryRefused { wanted }));
        }
        self.memory = wanted;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: Error) -> Result<()> {
        Err(error)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> Result<bool> {
        if desired > 100_000 {
            return Err(rule(format!(
                "a table of {desired} entries, at most 100000"
            )));
        }
        Ok(true)
    }
}
