//! The host's side of every function that a plugin may call, kept in memory.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::native::given;
use crate::bindings::exports::blockmill::plugin::processor::{Descriptor, Table};
use crate::{ColumnKind, TableKind, wire};

/// A value of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// No value.
    Null,
    /// Kinds integer, amount, time and boolean.
    Integer(i64),
    /// Kind real.
    Real(f64),
    /// Kind text.
    Text(String),
    /// Kind bytes.
    Bytes(Vec<u8>),
    /// Kind hash, internal order.
    Hash([u8; 32]),
}

/// A row: for anchored tables the first column is the height.
pub type Row = Vec<Cell>;

/// What the host is doing with the plugin: it decides what the plugin may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Idle,
    Start,
    Block(u32),
    Mempool,
    Query,
}

/// All that the host keeps for one plugin.
#[derive(Debug)]
pub(crate) struct Host {
    pub phase: Phase,
    pub network: String,
    pub descriptor: Descriptor,
    pub headers: BTreeMap<u32, wire::BlockHeader>,
    pub state: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What the block that is being handled changed: the key and what was there before.
    pub journal: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    pub rows: Vec<Vec<Row>>,
    pub volatile: BTreeMap<Vec<u8>, Vec<u8>>,
    pub values: BTreeMap<String, f64>,
    pub series: BTreeMap<String, Vec<(u32, f64)>>,
    pub log: Vec<String>,
    /// What a query of the host's owner changed in the settings; none where nobody may.
    pub changes: Option<Vec<(String, Option<String>)>>,
    /// Of the transactions that come into the pool with this call.
    pub sigop_costs: Vec<u32>,
}

thread_local! {
    static HOST: RefCell<Option<Host>> = const { RefCell::new(None) };
}

/// Makes `host` the one that the functions below talk to while `call` runs.
pub(crate) fn during<R>(host: &mut Option<Host>, phase: Phase, call: impl FnOnce() -> R) -> R {
    let mut inside = host.take().expect("the harness has its host");
    inside.phase = phase;
    HOST.with(|slot| *slot.borrow_mut() = Some(inside));
    let result = call();
    let mut inside = HOST
        .with(|slot| slot.borrow_mut().take())
        .expect("the host is still there");
    inside.phase = Phase::Idle;
    *host = Some(inside);
    result
}

fn with<R>(call: impl FnOnce(&mut Host) -> R) -> R {
    HOST.with(|slot| {
        let mut slot = slot.borrow_mut();
        call(
            slot.as_mut().expect(
                "trap: the host was called outside of start, on_block, on_mempool and query",
            ),
        )
    })
}

fn pieces(ends: &[u32], bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut start = 0;
    assert_eq!(
        ends.last().copied().unwrap_or(0) as usize,
        bytes.len(),
        "trap: the last end is not the length"
    );
    ends.iter()
        .map(|end| {
            assert!(start <= *end, "trap: ends fall");
            let piece = bytes[start as usize..*end as usize].to_vec();
            start = *end;
            piece
        })
        .collect()
}

/// `state`
pub mod state {
    use super::{Host, Phase, given, pieces, with};
    use crate::bindings::blockmill::plugin::state::{FoundValues, Keys, Page};
    use crate::wire::Pieces;

    impl Host {
        fn write(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) -> Option<Vec<u8>> {
            assert!(
                matches!(self.phase, Phase::Start | Phase::Block(_)),
                "trap: the state is written in {:?}",
                self.phase
            );
            assert!(
                (1..=255).contains(&key.len()),
                "trap: a key of {} bytes",
                key.len()
            );
            assert!(
                value.as_ref().is_none_or(|value| value.len() <= 16 << 20),
                "trap: a value over 16 MiB"
            );
            let before = match value {
                Some(value) => self.state.insert(key.clone(), value),
                None => self.state.remove(&key),
            };
            self.journal.push((key, before.clone()));
            before
        }
    }

    fn split(keys: &Keys) -> Vec<Vec<u8>> {
        if keys.width == 0 {
            return pieces(&keys.ends, &keys.bytes);
        }
        assert!(keys.ends.is_empty(), "trap: keys of fixed width with ends");
        assert_eq!(
            keys.bytes.len() % keys.width as usize,
            0,
            "trap: keys that are not a multiple of their width"
        );
        keys.bytes
            .chunks(keys.width as usize)
            .map(<[u8]>::to_vec)
            .collect()
    }

    fn found(answers: Vec<Option<Vec<u8>>>) -> FoundValues {
        let mut found = FoundValues {
            found: vec![],
            ends: vec![],
            bytes: vec![],
        };
        for answer in answers {
            found.found.push(u8::from(answer.is_some()));
            found.bytes.extend(answer.unwrap_or_default());
            found.ends.push(found.bytes.len() as u32);
        }
        found
    }

    /// See the WIT.
    pub fn get(key: &[u8]) -> Option<Vec<u8>> {
        if let Some(answer) = given(|host| host.get(key)) {
            return answer;
        }
        with(|host| host.state.get(key).cloned())
    }
    /// See the WIT.
    pub fn put(key: &[u8], value: &[u8]) {
        if given(|host| host.put(key, value)).is_some() {
            return;
        }
        with(|host| host.write(key.to_vec(), Some(value.to_vec())));
    }
    /// See the WIT.
    pub fn delete(key: &[u8]) {
        if given(|host| host.delete(key)).is_some() {
            return;
        }
        with(|host| host.write(key.to_vec(), None));
    }
    /// See the WIT.
    pub fn take(key: &[u8]) -> Option<Vec<u8>> {
        if let Some(answer) = given(|host| host.take(key)) {
            return answer;
        }
        with(|host| host.write(key.to_vec(), None))
    }
    /// See the WIT.
    pub fn get_many(keys: &Keys) -> FoundValues {
        if let Some(answer) = given(|host| host.get_many(keys)) {
            return answer;
        }
        with(|host| {
            found(
                split(keys)
                    .iter()
                    .map(|key| host.state.get(key).cloned())
                    .collect(),
            )
        })
    }
    /// See the WIT.
    pub fn put_many(keys: &Keys, values: &Pieces) {
        if given(|host| host.put_many(keys, values)).is_some() {
            return;
        }
        let keys = split(keys);
        let values = pieces(&values.ends, &values.bytes);
        assert_eq!(
            keys.len(),
            values.len(),
            "trap: put-many with another number of keys than values"
        );
        with(|host| {
            for (key, value) in keys.into_iter().zip(values) {
                host.write(key, Some(value));
            }
        });
    }
    /// See the WIT.
    pub fn delete_many(keys: &Keys) {
        if given(|host| host.delete_many(keys)).is_some() {
            return;
        }
        take_many(keys);
    }
    /// See the WIT.
    pub fn take_many(keys: &Keys) -> FoundValues {
        if let Some(answer) = given(|host| host.take_many(keys)) {
            return answer;
        }
        with(|host| {
            found(
                split(keys)
                    .into_iter()
                    .map(|key| host.write(key, None))
                    .collect(),
            )
        })
    }
    /// See the WIT.
    pub fn scan(prefix: &[u8], after: Option<&[u8]>, limit: u32) -> Page {
        if let Some(answer) = given(|host| host.scan(prefix, after, limit)) {
            return answer;
        }
        with(|host| {
            let from = after.map_or(prefix.to_vec(), <[u8]>::to_vec);
            let mut entries = host
                .state
                .range(from.clone()..)
                .filter(|(key, _)| after.is_none() || **key != from)
                .take_while(|(key, _)| key.starts_with(prefix));
            let mut page = Page {
                keys: Pieces::new(),
                values: Pieces::new(),
                more: false,
            };
            for (key, value) in entries.by_ref().take(limit.min(10_000) as usize) {
                page.keys.push(key);
                page.values.push(value);
            }
            page.more = entries.next().is_some();
            page
        })
    }
}

/// `volatile`
pub mod volatile {
    use super::{Phase, given, with};

    /// See the WIT.
    pub fn get(key: &[u8]) -> Option<Vec<u8>> {
        if let Some(answer) = given(|host| host.volatile_get(key)) {
            return answer;
        }
        with(|host| host.volatile.get(key).cloned())
    }
    /// See the WIT.
    pub fn put(key: &[u8], value: &[u8]) {
        if given(|host| host.volatile_put(key, value)).is_some() {
            return;
        }
        with(|host| {
            assert!(
                host.phase != Phase::Query,
                "trap: the volatile space is written in a query"
            );
            host.volatile.insert(key.to_vec(), value.to_vec());
        });
    }
    /// See the WIT.
    pub fn delete(key: &[u8]) {
        if given(|host| host.volatile_delete(key)).is_some() {
            return;
        }
        with(|host| {
            assert!(
                host.phase != Phase::Query,
                "trap: the volatile space is written in a query"
            );
            host.volatile.remove(key);
        });
    }
}

/// `rows`
pub mod rows {
    use super::{Cell, ColumnKind, Host, Phase, Row, Table, TableKind, given, pieces, with};
    use crate::bindings::blockmill::plugin::rows::{Cells, Column};

    impl Host {
        fn declared(&self, table: u32, kind: TableKind) -> Table {
            let table = self
                .descriptor
                .tables
                .get(table as usize)
                .expect("trap: a table that is not declared");
            assert_eq!(
                table.kind, kind,
                "trap: the table `{}` is of the other kind",
                table.name
            );
            table.clone()
        }
    }

    /// Columns to rows; `declared` are the columns that they must be.
    fn turn(table: &Table, declared: &[usize], columns: &[Column]) -> Vec<Row> {
        assert_eq!(
            columns.len(),
            declared.len(),
            "trap: `{}` is given another number of columns",
            table.name
        );
        let mut rows: Vec<Row> = Vec::new();
        for (place, (column, declared)) in columns.iter().zip(declared).enumerate() {
            let declared = &table.columns[*declared];
            let name = format!("{}.{}", table.name, declared.name);
            let mut cells = cells(&column.cells, declared.kind, &name);
            if !column.nulls.is_empty() {
                assert_eq!(column.nulls.len(), cells.len(), "trap: nulls of `{name}`");
                for (cell, null) in cells.iter_mut().zip(&column.nulls) {
                    if *null != 0 {
                        assert!(declared.nullable, "trap: a null in `{name}`");
                        *cell = Cell::Null;
                    }
                }
            }
            if place == 0 {
                rows = cells.iter().map(|_| Row::new()).collect();
            }
            assert_eq!(rows.len(), cells.len(), "trap: `{name}` has another length");
            for (row, cell) in rows.iter_mut().zip(cells) {
                row.push(cell);
            }
        }
        rows
    }

    fn cells(cells: &Cells, kind: ColumnKind, name: &str) -> Vec<Cell> {
        match (cells, kind) {
            (
                Cells::Integers(values),
                ColumnKind::Integer | ColumnKind::Amount | ColumnKind::Time | ColumnKind::Boolean,
            ) => values
                .iter()
                .map(|value| {
                    assert!(
                        kind != ColumnKind::Boolean || (0..=1).contains(value),
                        "trap: boolean in `{name}`"
                    );
                    Cell::Integer(*value)
                })
                .collect(),
            (Cells::Reals(values), ColumnKind::Real) => {
                values.iter().map(|value| Cell::Real(*value)).collect()
            }
            (Cells::Texts(values), ColumnKind::Text) => pieces(&values.ends, &values.bytes)
                .into_iter()
                .map(|text| {
                    Cell::Text(String::from_utf8(text).expect("trap: text that is not UTF-8"))
                })
                .collect(),
            (Cells::Blobs(values), ColumnKind::Bytes) => pieces(&values.ends, &values.bytes)
                .into_iter()
                .map(Cell::Bytes)
                .collect(),
            (Cells::Hashes(values), ColumnKind::Hash) => {
                let (hashes, rest) = values.as_chunks::<32>();
                assert!(rest.is_empty(), "trap: hashes of `{name}`");
                hashes.iter().map(|hash| Cell::Hash(*hash)).collect()
            }
            (_, kind) => panic!("trap: `{name}` is {kind:?} and was given something else"),
        }
    }

    fn key_of(table: &Table) -> Vec<usize> {
        let place = |name: &String| table.columns.iter().position(|column| column.name == *name);
        table
            .key
            .iter()
            .map(|name| place(name).expect("trap: a key column that is not declared"))
            .collect()
    }

    /// See the WIT.
    pub fn append(table: u32, columns: &[Column]) {
        if given(|host| host.append(table, columns)).is_some() {
            return;
        }
        with(|host| {
            let Phase::Block(height) = host.phase else {
                panic!("trap: rows are appended outside of on_block")
            };
            let declared = host.declared(table, TableKind::Anchored);
            let all: Vec<usize> = (0..declared.columns.len()).collect();
            let key = key_of(&declared);
            for mut row in turn(&declared, &all, columns) {
                row.insert(0, Cell::Integer(i64::from(height)));
                let rows = &host.rows[table as usize];
                // Only the end of the table is compared: enough for a plugin that appends in the order of its key.
                let same = rows.last().is_some_and(|last| {
                    last[0] == row[0]
                        && key.iter().all(|column| last[column + 1] == row[column + 1])
                });
                assert!(
                    !same,
                    "trap: two rows of `{}` with the same key at {height}",
                    declared.name
                );
                host.rows[table as usize].push(row);
            }
        });
    }

    /// See the WIT.
    pub fn put(table: u32, columns: &[Column]) {
        if given(|host| host.put_rows(table, columns)).is_some() {
            return;
        }
        with(|host| {
            assert!(
                matches!(host.phase, Phase::Block(_) | Phase::Mempool),
                "trap: rows are put in {:?}",
                host.phase
            );
            let declared = host.declared(table, TableKind::Volatile);
            let all: Vec<usize> = (0..declared.columns.len()).collect();
            let key = key_of(&declared);
            for row in turn(&declared, &all, columns) {
                let rows = &mut host.rows[table as usize];
                rows.retain(|old| !key.iter().all(|column| old[*column] == row[*column]));
                rows.push(row);
            }
        });
    }

    /// See the WIT.
    pub fn delete(table: u32, columns: &[Column]) {
        if given(|host| host.delete_rows(table, columns)).is_some() {
            return;
        }
        with(|host| {
            assert!(
                matches!(host.phase, Phase::Block(_) | Phase::Mempool),
                "trap: rows go in {:?}",
                host.phase
            );
            let declared = host.declared(table, TableKind::Volatile);
            let key = key_of(&declared);
            for row in turn(&declared, &key, columns) {
                let rows = &mut host.rows[table as usize];
                rows.retain(|old| {
                    !key.iter()
                        .zip(&row)
                        .all(|(column, cell)| old[*column] == *cell)
                });
            }
        });
    }
}

/// `values`
pub mod values {
    use super::{Phase, given, with};

    fn name(name: &str) -> String {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        assert!(
            (1..=64).contains(&name.len()) && name.chars().all(fits),
            "trap: a value named `{name}`"
        );
        name.into()
    }

    /// See the WIT.
    pub fn set(key: &str, value: f64) {
        if given(|host| host.set_value(key, value)).is_some() {
            return;
        }
        with(|host| {
            host.values.insert(name(key), value);
            assert!(host.values.len() <= 1_000, "trap: more than 1,000 gauges");
        });
    }
    /// See the WIT.
    pub fn push(key: &str, value: f64) {
        if given(|host| host.push_value(key, value)).is_some() {
            return;
        }
        with(|host| {
            let Phase::Block(height) = host.phase else {
                panic!("trap: a point outside of on_block")
            };
            host.series
                .entry(name(key))
                .or_default()
                .push((height, value));
        });
    }
}

/// `log`
pub mod log {
    use super::given;
    use crate::bindings::blockmill::plugin::log::Level;

    /// See the WIT. Outside of a call (in a panic) the line is dropped.
    pub fn write(level: Level, message: &str) {
        if given(|host| host.log(level, message)).is_some() {
            return;
        }
        super::HOST.with(|slot| {
            if let Some(host) = slot.borrow_mut().as_mut() {
                host.log.push(format!("{level:?} {message}"));
            }
        });
    }
}

/// `settings`
pub mod settings {
    use super::{Phase, given, with};

    /// See the WIT.
    pub fn change(name: &str, value: Option<&str>) {
        if given(|host| host.change_setting(name, value)).is_some() {
            return;
        }
        with(|host| {
            assert_eq!(
                host.phase,
                Phase::Query,
                "trap: settings are changed in query and nowhere else"
            );
            let Some(changes) = host.changes.as_mut() else {
                panic!("trap: only the host's owner may change settings")
            };
            changes.push((name.into(), value.map(str::to_string)));
        });
    }
}

/// `pool`
pub mod pool {
    use super::{Phase, given, with};

    /// See the WIT.
    pub fn sigop_costs() -> Vec<u32> {
        if let Some(answer) = given(|host| host.sigop_costs()) {
            return answer;
        }
        with(|host| {
            assert_eq!(
                host.phase,
                Phase::Mempool,
                "trap: what came into the pool is asked about in on-mempool and nowhere else"
            );
            host.sigop_costs.clone()
        })
    }
}

/// `chain`
pub mod chain {
    use super::{given, with};
    use crate::wire::BlockHeader;

    /// See the WIT.
    pub fn network() -> String {
        if let Some(answer) = given(|host| host.network()) {
            return answer;
        }
        with(|host| host.network.clone())
    }
    /// See the WIT.
    pub fn subsidy(height: u32) -> u64 {
        if let Some(answer) = given(|host| host.subsidy(height)) {
            return answer;
        }
        let interval = if network() == "regtest" { 150 } else { 210_000 };
        5_000_000_000u64.checked_shr(height / interval).unwrap_or(0)
    }
    /// See the WIT.
    pub fn header(height: u32) -> Option<BlockHeader> {
        if let Some(answer) = given(|host| host.header(height)) {
            return answer;
        }
        with(|host| {
            host.headers.get(&height).map(|header| BlockHeader {
                size: 0,
                weight: 0,
                ..header.clone()
            })
        })
    }
}
