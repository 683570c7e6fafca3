//! The first differences between two outcomes, bounded, for people and for machines.

use std::cmp::Ordering;
use std::fmt;

use bitcoin::hex::DisplayHex;
use serde::Serialize;

use super::{Outcome, ShownValue, same_value};
use crate::frame::Spent;
use crate::store::{RowAction, RowWrite, StateChanges, TableWrites};

/// Keys that are shown; all are counted.
const SHOWN_KEYS: usize = 5;
/// Rows that are shown of each table; all are counted.
const SHOWN_ROWS: usize = 3;
/// Bytes of a key or value that are shown.
const SHOWN_BYTES: usize = 64;
/// Bytes of what is the same in two long values that are shown before the first one that differs.
const SHOWN_BEFORE: usize = 8;
/// Characters of a cell that are shown.
const SHOWN_CELL: usize = 160;

/// How two outcomes differ. `Display` speaks of the first and the second; [`Difference::named`] gives them names.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// When not both calls ended in the same way. Nothing else is compared then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorDifference>,
    /// When the states differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<StateDifference>,
    /// The tables whose rows differ.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<TableDifference>,
    /// When they say that the block spends something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spent: Option<SpentDifference>,
}

/// How the calls ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErrorDifference {
    /// Why the first failed, if it did.
    pub first: Option<String>,
    /// Why the second failed, if it did.
    pub second: Option<String>,
}

/// Keys that the two runs left with something else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StateDifference {
    /// Keys that differ.
    pub keys: usize,
    /// Keys that the first run changed.
    pub first_changed: usize,
    /// Keys that the second run changed.
    pub second_changed: usize,
    /// The first of them, in the order of the keys.
    pub first_keys: Vec<KeyDifference>,
}

/// A key and what each run left there, in hex: cut, from the first byte that differs on, when it is long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyDifference {
    /// The key in hex.
    pub key: String,
    /// What the first run left: a value, "removed" or "not changed".
    pub first: String,
    /// What the second run left.
    pub second: String,
}

/// Rows of a table that the two runs did not write alike.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TableDifference {
    /// The table.
    pub table: String,
    /// Rows that the first run wrote; `None` when it has no such table.
    pub first_rows: Option<usize>,
    /// Rows that the second run wrote; `None` when it has no such table.
    pub second_rows: Option<usize>,
    /// Places, counted from the first row of the block, at which the two runs wrote something else.
    pub rows: usize,
    /// The first of them.
    pub first_differing: Vec<RowDifference>,
}

/// A row at the same place of both runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RowDifference {
    /// Its place in what the block wrote into the table, from 0.
    pub index: usize,
    /// The columns that differ and what they hold in the first run, or the whole row when the second has none.
    pub first: Option<String>,
    /// The same columns in the second run.
    pub second: Option<String>,
}

/// What the runs say that the block spends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SpentDifference {
    /// Entries of the first run; `None` when it says nothing.
    pub first_entries: Option<usize>,
    /// Entries of the second run.
    pub second_entries: Option<usize>,
    /// The first input at which they differ, counted over the block.
    pub input: usize,
    /// What the first run says of it.
    pub first: Option<String>,
    /// What the second run says of it.
    pub second: Option<String>,
}

impl Difference {
    pub(super) fn between(a: &Outcome, b: &Outcome) -> Option<Self> {
        let error = (a.error != b.error).then(|| ErrorDifference {
            first: a.error.clone(),
            second: b.error.clone(),
        });
        let compared = error.is_none();
        let difference = Self {
            state: compared.then(|| state(&a.state, &b.state)).flatten(),
            tables: match compared {
                true => tables(&a.rows, &b.rows),
                false => Vec::new(),
            },
            spent: compared.then(|| spent(&a.spent, &b.spent)).flatten(),
            error,
        };
        let none = difference.error.is_none()
            && difference.state.is_none()
            && difference.tables.is_empty()
            && difference.spent.is_none();
        (!none).then_some(difference)
    }

    /// The same text as `Display`, with names for the two runs, such as those of two files.
    pub fn named<'a>(&'a self, first: &'a str, second: &'a str) -> Named<'a> {
        Named {
            difference: self,
            first,
            second,
        }
    }
}

/// A difference with names for the two runs; see [`Difference::named`].
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    difference: &'a Difference,
    first: &'a str,
    second: &'a str,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.named("first", "second").fmt(f)
    }
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.first.chars().count().max(self.second.chars().count());
        let pair = |f: &mut fmt::Formatter<'_>, first: &str, second: &str| {
            writeln!(f, "    {:<width$}  {first}", self.first)?;
            writeln!(f, "    {:<width$}  {second}", self.second)
        };
        let Difference {
            error,
            state,
            tables,
            spent,
        } = self.difference;
        if let Some(error) = error {
            let ended = |error: &Option<String>| match error {
                Some(error) => format!("failed: {error}"),
                None => "did not fail".to_owned(),
            };
            writeln!(f, "the calls ended differently")?;
            pair(f, &ended(&error.first), &ended(&error.second))?;
        }
        if let Some(state) = state {
            writeln!(
                f,
                "state: {} ({} and {} changed)",
                differ(state.keys, "key"),
                state.first_changed,
                state.second_changed
            )?;
            for key in &state.first_keys {
                writeln!(f, "  key {}", key.key)?;
                pair(f, &key.first, &key.second)?;
            }
            more(f, state.keys, state.first_keys.len(), "key")?;
        }
        for table in tables {
            let rows = |rows: Option<usize>| match rows {
                Some(rows) => counted(rows, "row"),
                None => "no such table".to_owned(),
            };
            writeln!(f, "table {}: {}", table.table, differ(table.rows, "row"))?;
            pair(f, &rows(table.first_rows), &rows(table.second_rows))?;
            for row in &table.first_differing {
                let shown = |row: &Option<String>| row.clone().unwrap_or_else(|| "no row".into());
                writeln!(f, "  row {}", row.index)?;
                pair(f, &shown(&row.first), &shown(&row.second))?;
            }
            more(f, table.rows, table.first_differing.len(), "row")?;
        }
        if let Some(spent) = spent {
            let entries = |entries: Option<usize>| match entries {
                Some(entries) => counted(entries, "entry").replace("entrys", "entries"),
                None => "nothing".to_owned(),
            };
            let entry = |entry: &Option<String>| entry.clone().unwrap_or_else(|| "nothing".into());
            writeln!(f, "spent outputs differ, first of input {}", spent.input)?;
            pair(
                f,
                &entries(spent.first_entries),
                &entries(spent.second_entries),
            )?;
            pair(f, &entry(&spent.first), &entry(&spent.second))?;
        }
        Ok(())
    }
}

fn counted(count: usize, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

fn differ(count: usize, noun: &str) -> String {
    let verb = if count == 1 { "differs" } else { "differ" };
    format!("{} {verb}", counted(count, noun))
}

fn more(f: &mut fmt::Formatter<'_>, all: usize, shown: usize, noun: &str) -> fmt::Result {
    match all - shown.min(all) {
        0 => Ok(()),
        left => writeln!(f, "  and {} more", counted(left, noun)),
    }
}

fn state(a: &StateChanges, b: &StateChanges) -> Option<StateDifference> {
    let mut difference = StateDifference {
        keys: 0,
        first_changed: a.len(),
        second_changed: b.len(),
        first_keys: Vec::new(),
    };
    let (mut left, mut right) = (a.iter().peekable(), b.iter().peekable());
    loop {
        let order = match (left.peek(), right.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let first = if order.is_le() { left.next() } else { None };
        let second = if order.is_ge() { right.next() } else { None };
        let (first_value, second_value) = (first.map(|(_, v)| v), second.map(|(_, v)| v));
        if first_value == second_value {
            continue;
        }
        difference.keys += 1;
        if let Some((key, _)) = first.or(second)
            && difference.first_keys.len() < SHOWN_KEYS
        {
            let from = first_differing(first_value, second_value);
            difference.first_keys.push(KeyDifference {
                key: hex(key, 0),
                first: held(first_value, from),
                second: held(second_value, from),
            });
        }
    }
    (difference.keys > 0).then_some(difference)
}

/// From where on two values are shown: near the first byte that differs when that is beyond what is shown from the start.
fn first_differing(a: Option<&Option<Vec<u8>>>, b: Option<&Option<Vec<u8>>>) -> usize {
    let (Some(Some(a)), Some(Some(b))) = (a, b) else {
        return 0;
    };
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    match same < SHOWN_BYTES {
        true => 0,
        false => same - SHOWN_BEFORE,
    }
}

fn held(value: Option<&Option<Vec<u8>>>, from: usize) -> String {
    match value {
        None => "not changed".to_owned(),
        Some(None) => "removed".to_owned(),
        Some(Some(value)) if value.is_empty() => "an empty value".to_owned(),
        Some(Some(value)) => hex(value, from),
    }
}

/// Bytes in hex, from a place on, cut to [`SHOWN_BYTES`].
fn hex(bytes: &[u8], from: usize) -> String {
    let rest = bytes.get(from..).unwrap_or_default();
    let shown = rest.get(..SHOWN_BYTES).unwrap_or(rest);
    let mut text = shown.to_lower_hex_string();
    if from > 0 {
        text.insert(0, '…');
    }
    if shown.len() < rest.len() {
        text.push('…');
    }
    if from > 0 || shown.len() < rest.len() {
        text.push_str(&format!(" ({} bytes", bytes.len()));
        if from > 0 {
            text.push_str(&format!(", from byte {from} on"));
        }
        text.push(')');
    }
    text
}

fn tables(a: &[TableWrites], b: &[TableWrites]) -> Vec<TableDifference> {
    let find =
        |tables: &'_ [TableWrites], name: &str| tables.iter().position(|table| table.table == name);
    let of_a = a.iter().map(|table| {
        let other = find(b, &table.table).and_then(|index| b.get(index));
        table_difference(&table.table, Some(table), other)
    });
    let only_b = b
        .iter()
        .filter(|table| find(a, &table.table).is_none())
        .map(|table| table_difference(&table.table, None, Some(table)));
    of_a.chain(only_b).flatten().collect()
}

fn table_difference(
    name: &str,
    a: Option<&TableWrites>,
    b: Option<&TableWrites>,
) -> Option<TableDifference> {
    let rows = |table: Option<&TableWrites>| table.map_or(0, |table| table.writes.len());
    let columns_differ = match (a, b) {
        (Some(a), Some(b)) => a.columns != b.columns,
        _ => false,
    };
    let mut difference = TableDifference {
        table: name.to_owned(),
        first_rows: a.map(|table| table.writes.len()),
        second_rows: b.map(|table| table.writes.len()),
        rows: 0,
        first_differing: Vec::new(),
    };
    for index in 0..rows(a).max(rows(b)) {
        let row = |table: Option<&'_ TableWrites>| table.and_then(|t| t.writes.get(index).cloned());
        let (first, second) = (row(a), row(b));
        if !columns_differ && same_row(first.as_ref(), second.as_ref()) {
            continue;
        }
        difference.rows += 1;
        if difference.first_differing.len() < SHOWN_ROWS {
            let shown = |table: Option<&TableWrites>, row: &Option<RowWrite>, other| {
                shown_row(
                    table?,
                    row.as_ref()?,
                    if columns_differ { None } else { other },
                )
            };
            difference.first_differing.push(RowDifference {
                index,
                first: shown(a, &first, second.as_ref()),
                second: shown(b, &second, first.as_ref()),
            });
        }
    }
    (difference.rows > 0).then_some(difference)
}

fn same_row(a: Option<&RowWrite>, b: Option<&RowWrite>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => {
            a.action == b.action
                && a.values.len() == b.values.len()
                && a.values
                    .iter()
                    .zip(&b.values)
                    .all(|(a, b)| same_value(a, b))
        }
        _ => false,
    }
}

/// A row as `column=value`: its key and what differs from `other`, or all of it when there is nothing to compare with.
fn shown_row(table: &TableWrites, row: &RowWrite, other: Option<&RowWrite>) -> Option<String> {
    let names = match row.action {
        RowAction::Delete => &table.key,
        _ => &table.columns,
    };
    let alike = other.filter(|other| other.action == row.action);
    let mut parts = match row.action {
        RowAction::Append | RowAction::Put => Vec::new(),
        RowAction::Delete => vec!["deleted".to_owned()],
        RowAction::Clear => vec!["all rows deleted".to_owned()],
    };
    for (index, (name, value)) in names.iter().zip(&row.values).enumerate() {
        let differs = alike
            .and_then(|other| other.values.get(index))
            .is_none_or(|other| !same_value(value, other));
        if differs || table.key.contains(name) {
            parts.push(format!("{name}={}", cut(&ShownValue(value).to_string())));
        }
    }
    Some(parts.join(" "))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CELL) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or(text)),
        None => text.to_owned(),
    }
}

fn spent(a: &Option<Spent>, b: &Option<Spent>) -> Option<SpentDifference> {
    if a == b {
        return None;
    }
    let entries = |spent: &Option<Spent>| spent.as_ref().map(Spent::len);
    let all = entries(a).max(entries(b)).unwrap_or(0);
    let of = |spent: &Option<Spent>, index| spent.as_ref().and_then(|spent| entry(spent, index));
    let input = (0..all).find(|&index| of(a, index) != of(b, index));
    let input = input.unwrap_or(0);
    Some(SpentDifference {
        first_entries: entries(a),
        second_entries: entries(b),
        input,
        first: of(a, input),
        second: of(b, input),
    })
}

fn entry(spent: &Spent, index: usize) -> Option<String> {
    let end = *spent.script_ends.get(index)? as usize;
    let start = match index.checked_sub(1) {
        Some(before) => *spent.script_ends.get(before)? as usize,
        None => 0,
    };
    let coinbase = match spent.coinbases.get(index)? {
        0 => "",
        _ => " of a coinbase",
    };
    Some(format!(
        "{} sat{coinbase} of block {}, script {}",
        spent.values.get(index)?,
        spent.heights.get(index)?,
        spent.scripts.get(start..end)?.to_lower_hex_string()
    ))
}
