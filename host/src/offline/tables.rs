//! The rows of two runs as they lie in their databases.

use anyhow::Result;

use super::golden::Digest;
use crate::compare::Outcome;
use crate::store::{RowAction, RowStore, RowWrite, SqlValue, TableKind, TableSpec, TableWrites};

/// The tables of a kind.
pub(super) fn of_kind(tables: &[TableSpec], kind: TableKind) -> impl Iterator<Item = &TableSpec> {
    tables.iter().filter(move |table| table.kind == kind)
}

/// The rows of an anchored table for the heights `from..to`, sorted: a database does not keep the order in which they were
/// written.
pub(super) fn anchored_rows(
    store: &RowStore,
    table: &TableSpec,
    from: u32,
    to: u32,
) -> Result<Outcome> {
    let key = std::iter::once("height".to_owned()).chain(table.key.clone());
    let columns = std::iter::once("height".to_owned())
        .chain(table.columns.iter().map(|column| column.name.clone()));
    let heights = [from, to].map(|height| SqlValue::Integer(i64::from(height)));
    let range = "WHERE height >= ? AND height < ? ";
    rows(
        store,
        table,
        columns.collect(),
        key.collect(),
        range,
        &heights,
    )
}

/// The rows of a volatile table, sorted.
pub(super) fn volatile_rows(store: &RowStore, table: &TableSpec) -> Result<Outcome> {
    let columns = table.columns.iter().map(|column| column.name.clone());
    rows(store, table, columns.collect(), table.key.clone(), "", &[])
}

fn rows(
    store: &RowStore,
    table: &TableSpec,
    columns: Vec<String>,
    key: Vec<String>,
    range: &str,
    bounds: &[SqlValue],
) -> Result<Outcome> {
    let order: Vec<String> = (1..=columns.len()).map(|n| n.to_string()).collect();
    let sql = format!(
        "SELECT * FROM \"{}\" {range}ORDER BY {}",
        table.name,
        order.join(",")
    );
    let rows = store.query(&sql, bounds)?;
    let writes = rows.into_iter().map(|values| RowWrite {
        action: RowAction::Append,
        values,
    });
    Ok(Outcome {
        rows: vec![TableWrites {
            table: table.name.clone(),
            key,
            columns,
            writes: writes.collect(),
        }],
        ..Outcome::default()
    })
}

/// How many rows a table has, and their hash.
pub(super) fn sum(table: &TableWrites) -> (u64, String) {
    let mut digest = Digest::new();
    table.writes.iter().for_each(|row| digest.row(row));
    (table.writes.len() as u64, digest.finish())
}
