//! The imports of `wit/plugin.wit`.

use super::{Host, NO_HOST, Phase, Space, rule};
use crate::plugin::bindings::blockmill::plugin::{
    chain, log, pool, rows, settings, state, types, values, volatile,
};
use crate::plugin::capsule_state::CapsuleStateError;
use crate::plugin::error::NotOwner;
use crate::plugin::volatile::MAX_VOLATILE;
use crate::store::{Column, ColumnData, Keys, RowError, StoreError, ValueColumn, Values};
use bitcoin::hashes::Hash;
use wasmtime::{Error, Result};

/// Entries of one page of `state.scan`.
const MAX_SCAN_ENTRIES: u32 = 10_000;
/// Bytes of one page of `state.scan`.
const MAX_SCAN_BYTES: usize = 4 << 20;
/// Keys of one columnar call.
const MAX_KEYS: usize = 4_000_000;
/// Settings that one query may change.
const MAX_CHANGES: usize = 1_000;
/// Bytes that one call may log.
pub(super) const MAX_LOG_BYTES: usize = 64 << 10;

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

/// Runs a read of the state on whatever space there is.
macro_rules! read {
    ($host:expr, |$state:ident| $read:expr) => {
        match &mut $host.space {
            Space::Lane(lane) => {
                let $state = &mut lane.state;
                $read.map_err(StateFault::Store)
            }
            Space::Snapshot($state) => $read.map_err(StateFault::Store),
            Space::Capsule(capsule) => {
                let $state = &mut capsule.state;
                $read.map_err(StateFault::Capsule)
            }
            Space::None => return Err(rule(NO_HOST)),
        }
        .map_err(|fault| $host.state_fault(fault))
    };
}

/// Runs a write to the state where it may be written.
macro_rules! write {
    ($host:expr, |$state:ident| $write:expr) => {
        match (&mut $host.space, $host.phase) {
            (Space::Lane(lane), Phase::Start | Phase::Block { .. }) => {
                let $state = &mut lane.state;
                $write.map_err(StateFault::Store)
            }
            (Space::Capsule(capsule), Phase::Start | Phase::Block { .. }) if !$host.query => {
                let $state = &mut capsule.state;
                $write.map_err(StateFault::Capsule)
            }
            _ => {
                return Err(rule(
                    "the state is written in start and on-block and nowhere else",
                ));
            }
        }
        .map_err(|fault| $host.state_fault(fault))
    };
}

/// Why a state did not do what it was asked for.
enum StateFault {
    Store(StoreError),
    Capsule(CapsuleStateError),
}

impl Host {
    fn state_fault(&mut self, fault: StateFault) -> Error {
        match fault {
            StateFault::Store(error) => self.store_error(error),
            StateFault::Capsule(error) => self.capsule_error(error),
        }
    }
}

impl state::Host for Host {
    fn get(&mut self, key: Vec<u8>) -> Result<Option<Vec<u8>>> {
        let value = read!(self, |state| state
            .get(&key)
            .map(|value| value.map(|v| v.to_vec())))?;
        if let Some(recorder) = self.recorder() {
            recorder.read(&key, value.as_deref());
        }
        Ok(value)
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<()> {
        self.meter_state(1, key.len() + value.len())?;
        write!(self, |state| state.put(&key, &value))?;
        if let Some(recorder) = self.recorder() {
            recorder.wrote(&key);
        }
        Ok(())
    }

    fn delete(&mut self, key: Vec<u8>) -> Result<()> {
        self.meter_state(1, key.len())?;
        write!(self, |state| state.delete(&key))?;
        if let Some(recorder) = self.recorder() {
            recorder.wrote(&key);
        }
        Ok(())
    }

    fn take(&mut self, key: Vec<u8>) -> Result<Option<Vec<u8>>> {
        self.meter_state(1, key.len())?;
        let value = write!(self, |state| state
            .take(&key)
            .map(|value| value.map(|v| v.to_vec())))?;
        if let Some(recorder) = self.recorder() {
            recorder.read(&key, value.as_deref());
            recorder.wrote(&key);
        }
        Ok(value)
    }

    fn get_many(&mut self, asked: state::Keys) -> Result<state::FoundValues> {
        let keys = keys(&asked)?;
        let mut out = ValueColumn::default();
        read!(self, |state| state.get_many(keys, &mut out))?;
        if let Some(recorder) = self.recorder() {
            recorder.read_many(keys, &out);
        }
        Ok(found(out))
    }

    fn put_many(&mut self, asked: state::Keys, pieces: types::Pieces) -> Result<()> {
        let keys = keys(&asked)?;
        self.meter_state(keys.len(), asked.bytes.len() + pieces.bytes.len())?;
        write!(self, |state| state.put_many(keys, values(&pieces)))?;
        if let Some(recorder) = self.recorder() {
            recorder.wrote_many(keys);
        }
        Ok(())
    }

    fn delete_many(&mut self, asked: state::Keys) -> Result<()> {
        let keys = keys(&asked)?;
        self.meter_state(keys.len(), asked.bytes.len())?;
        write!(self, |state| state.delete_many(keys))?;
        if let Some(recorder) = self.recorder() {
            recorder.wrote_many(keys);
        }
        Ok(())
    }

    fn take_many(&mut self, asked: state::Keys) -> Result<state::FoundValues> {
        let keys = keys(&asked)?;
        self.meter_state(keys.len(), asked.bytes.len())?;
        let mut out = ValueColumn::default();
        write!(self, |state| state.take_many(keys, &mut out))?;
        if let Some(recorder) = self.recorder() {
            recorder.took_many(keys, &out);
        }
        Ok(found(out))
    }

    fn scan(&mut self, prefix: Vec<u8>, after: Option<Vec<u8>>, limit: u32) -> Result<state::Page> {
        let (after, limit) = (after.as_deref(), limit.min(MAX_SCAN_ENTRIES) as usize);
        let page = read!(self, |state| state.scan(
            &prefix,
            after,
            limit,
            MAX_SCAN_BYTES
        ))?;
        if let Some(recorder) = self.recorder() {
            recorder.scanned(&prefix, after, &page);
        }
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

impl Host {
    /// In a replay: what the call itself has written is known.
    fn know_volatile(&mut self, key: &[u8]) {
        if let Space::Capsule(capsule) = &mut self.space
            && let Some(known) = &mut capsule.volatile
        {
            known.insert(key.to_vec());
        }
    }
}

impl volatile::Host for Host {
    fn get(&mut self, key: Vec<u8>) -> Result<Option<Vec<u8>>> {
        let value = self.surroundings()?.volatile.get(&key);
        if let Space::Capsule(capsule) = &self.space
            && value.is_none()
            && capsule
                .volatile
                .as_ref()
                .is_some_and(|known| !known.contains(&key))
        {
            let what = format!("the volatile key {}", key.escape_ascii());
            return Err(self.capsule_error(CapsuleStateError::Missing(what)));
        }
        if let Some(recorder) = self.recorder() {
            recorder.read_volatile(&key, value.as_deref());
        }
        Ok(value.map(|value| value.to_vec()))
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<()> {
        if !matches!(
            self.phase,
            Phase::Start | Phase::Block { .. } | Phase::Mempool
        ) {
            return Err(rule("the volatile space is not written in a query"));
        }
        if let Some(recorder) = self.recorder() {
            recorder.wrote_volatile(&key);
        }
        self.know_volatile(&key);
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
        if let Some(recorder) = self.recorder() {
            recorder.wrote_volatile(&key);
        }
        self.know_volatile(&key);
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

/// Rows of columns, as far as the first of them says, and their bytes.
fn rows_of(columns: &[rows::Column]) -> (usize, usize) {
    let pieces = |pieces: &types::Pieces| (pieces.ends.len(), pieces.bytes.len());
    let size = |column: &rows::Column| match &column.cells {
        rows::Cells::Integers(values) => (values.len(), values.len() * 8),
        rows::Cells::Reals(values) => (values.len(), values.len() * 8),
        rows::Cells::Texts(texts) => pieces(texts),
        rows::Cells::Blobs(blobs) => pieces(blobs),
        rows::Cells::Hashes(bytes) => (bytes.len() / 32, bytes.len()),
    };
    let rows = columns.first().map_or(0, |column| size(column).0);
    (rows, columns.iter().map(|column| size(column).1).sum())
}

impl rows::Host for Host {
    fn append(&mut self, table: u32, columns: Vec<rows::Column>) -> Result<()> {
        let (count, bytes) = rows_of(&columns);
        self.meter_rows(count, bytes)?;
        let (rows, height) = self.rows(true)?;
        let columns: Vec<Column> = columns.into_iter().map(column).collect();
        rows.append(table as usize, height.unwrap_or_default(), &columns)
            .map_err(row_error)
    }

    fn put(&mut self, table: u32, columns: Vec<rows::Column>) -> Result<()> {
        let (count, bytes) = rows_of(&columns);
        self.meter_rows(count, bytes)?;
        let (rows, _) = self.rows(false)?;
        let columns = columns.into_iter().map(column).collect();
        rows.put(table as usize, columns).map_err(row_error)
    }

    fn delete(&mut self, table: u32, key: Vec<rows::Column>) -> Result<()> {
        let (count, bytes) = rows_of(&key);
        self.meter_rows(count, bytes)?;
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
    pub(super) fn write_log(&mut self, level: log::Level, message: &str) {
        self.meter.log_lines += 1;
        self.meter.log_bytes += message.len();
        if self.meter.log_lines > self.limits.block_log || self.meter.log_bytes > MAX_LOG_BYTES {
            self.meter.log_dropped += 1;
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
        Ok(self.surroundings()?.params.name.to_owned())
    }

    fn subsidy(&mut self, height: u32) -> Result<u64> {
        Ok(self.surroundings()?.params.subsidy(height))
    }

    fn header(&mut self, height: u32) -> Result<Option<types::BlockHeaderResult>> {
        let Some(tip) = self.position else {
            return Ok(None);
        };
        let feed = &self.surroundings()?.feed;
        let known = feed.header(tip, height);
        if known.is_none() && height <= tip.height && !feed.tells(height) {
            let what = format!("the header at height {height}");
            return Err(self.capsule_error(CapsuleStateError::Missing(what)));
        }
        if let Some(recorder) = self.recorder() {
            recorder.header(height, known);
        }
        Ok(known.map(|known| types::BlockHeaderResult {
            height,
            hash: known.hash.to_byte_array().to_vec(),
            previous: known.header.prev_blockhash.to_byte_array().to_vec(),
            merkle_root: known.header.merkle_root.to_byte_array().to_vec(),
            version: known.header.version.to_consensus(),
            time: known.header.time,
            bits: known.header.bits.to_consensus(),
            nonce: known.header.nonce,
            median_time: known.median_time,
            size: 0,
            weight: 0,
        }))
    }
}

impl settings::Host for Host {
    fn change(&mut self, name: String, value: Option<String>) -> Result<()> {
        if self.phase != Phase::Query {
            return Err(rule("settings are changed in query and nowhere else"));
        }
        let changes = self.changes.as_mut().ok_or_else(|| Error::new(NotOwner))?;
        if changes.len() >= MAX_CHANGES {
            return Err(rule(format!(
                "more than {MAX_CHANGES} settings changed by one query"
            )));
        }
        changes.push((name, value));
        Ok(())
    }
}

impl pool::Host for Host {
    fn sigop_costs(&mut self) -> Result<Vec<u32>> {
        if self.phase != Phase::Mempool {
            return Err(rule(
                "what came into the pool is asked about in on-mempool and nowhere else",
            ));
        }
        match &self.sigop_costs {
            Some(costs) => Ok(costs.clone()),
            None => {
                let what = "the signature operations of the pool's transactions".to_owned();
                Err(self.capsule_error(CapsuleStateError::Missing(what)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;
    use crate::plugin::Limits;
    use pool::Host as _;

    #[test]
    fn signature_operations_are_told_in_on_mempool_and_nowhere_else() {
        let mut host = Host::new(
            None,
            Space::None,
            Limits::from_keys(&std::collections::BTreeMap::new()),
        );
        host.sigop_costs = Some(vec![4, 0, 16_000]);
        let block = Phase::Block { height: 1, time: 1 };
        for phase in [Phase::Describe, Phase::Start, block, Phase::Query] {
            host.phase = phase;
            let refused = host.sigop_costs().unwrap_err();
            assert!(
                refused.to_string().contains("nowhere else"),
                "{phase:?}: {refused}"
            );
            assert!(host.fault.is_none(), "it is the plugin's");
        }
        host.phase = Phase::Mempool;
        for _ in 0..2 {
            assert_eq!(host.sigop_costs().unwrap(), [4, 0, 16_000]);
        }
        // What a capsule does not say is not guessed.
        host.sigop_costs = None;
        host.sigop_costs().unwrap_err();
        let fault = host.fault.take().unwrap();
        let missing = fault.downcast_ref::<CapsuleStateError>();
        assert!(matches!(missing, Some(CapsuleStateError::Missing(_))));
    }
}
