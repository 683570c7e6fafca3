//! What the open block wrote into its tables, row by row.

use super::{Cell, Column, RowBuffer, VolatileChange};
use crate::store::SqlValue;

/// What was done with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowAction {
    /// Appended to an anchored table.
    Append,
    /// Put into a volatile table.
    Put,
    /// Deleted from a volatile table; the values are those of the key.
    Delete,
    /// All rows of a volatile table were deleted; there are no values.
    Clear,
}

/// One write of a row.
#[derive(Debug, Clone)]
pub struct RowWrite {
    /// What was done.
    pub action: RowAction,
    /// One value a column, or a column of the key. Hashes are in display order.
    pub values: Vec<SqlValue>,
}

/// What was written into one table, in order.
#[derive(Debug, Clone)]
pub struct TableWrites {
    /// The table.
    pub table: String,
    /// Its columns, without the height that the host adds.
    pub columns: Vec<String>,
    /// Those of them that make the key, in the key's order.
    pub key: Vec<String>,
    /// The writes.
    pub writes: Vec<RowWrite>,
}

impl From<Cell<'_>> for SqlValue {
    fn from(cell: Cell<'_>) -> Self {
        match cell {
            Cell::Null => Self::Null,
            Cell::Integer(value) => Self::Integer(value),
            Cell::Real(value) => Self::Real(value),
            Cell::Text(value) => Self::Text(value.to_owned()),
            Cell::Blob(value) => Self::Blob(value.to_owned()),
        }
    }
}

impl RowBuffer {
    /// What was written since [`begin_block`](Self::begin_block), a table at a time, in the order in which the tables were
    /// declared. To be asked before the block is committed.
    pub fn block_rows(&self) -> Vec<TableWrites> {
        let (marks, volatile, _) = &self.mark;
        let tables = self.specs.iter().zip(&self.tables).zip(marks);
        let mut all: Vec<TableWrites> = tables
            .map(|((spec, rows), mark)| TableWrites {
                table: spec.name.clone(),
                columns: spec.columns.iter().map(|c| c.name.clone()).collect(),
                key: spec.key.clone(),
                writes: writes(RowAction::Append, &rows.columns, *mark..rows.rows),
            })
            .collect();
        for change in self.volatile.iter().skip(*volatile) {
            let (table, new) = match change {
                VolatileChange::Put {
                    table,
                    columns,
                    rows,
                } => (*table, writes(RowAction::Put, columns, 0..*rows)),
                VolatileChange::Delete { table, keys, rows } => {
                    (*table, writes(RowAction::Delete, keys, 0..*rows))
                }
                VolatileChange::Clear { table } => {
                    let cleared = RowWrite {
                        action: RowAction::Clear,
                        values: Vec::new(),
                    };
                    (*table, vec![cleared])
                }
            };
            if let Some(table) = all.get_mut(table) {
                table.writes.extend(new);
            }
        }
        all
    }
}

fn writes(action: RowAction, columns: &[Column], rows: std::ops::Range<usize>) -> Vec<RowWrite> {
    rows.map(|row| RowWrite {
        action,
        values: columns.iter().map(|c| c.cell(row).into()).collect(),
    })
    .collect()
}
