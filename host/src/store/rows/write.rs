//! Rows into their tables, by the thousand a statement.

use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments, AssertSqlSafe, SqliteConnection};

use super::{execute, failed};
use crate::store::row_buffer::{Cell, Column, RowBuffer, VolatileChange};
use crate::store::row_error::RowError;

/// Rows of one statement, where the table is narrow enough.
const ROWS_PER_STATEMENT: usize = 1_000;
/// Variables that one statement may have (SQLite: `SQLITE_MAX_VARIABLE_NUMBER`).
const MAX_VARIABLES: usize = 32_766;

fn bind_cell(arguments: &mut SqliteArguments, cell: Cell<'_>) -> Result<(), RowError> {
    match cell {
        Cell::Null => arguments.add(None::<i64>),
        Cell::Integer(value) => arguments.add(value),
        Cell::Real(value) => arguments.add(value),
        Cell::Text(value) => arguments.add(value),
        Cell::Blob(value) => arguments.add(value),
    }
    .map_err(|error| failed("bind a value")(sqlx::Error::Encode(error)))
}

/// Runs a statement for all rows, by the thousand; the statement for full chunks is prepared once a connection.
async fn write_rows(
    connection: &mut SqliteConnection,
    heights: Option<&mut dyn Iterator<Item = u32>>,
    columns: &[Column],
    rows: usize,
    sql: impl Fn(usize) -> String,
    what: &'static str,
) -> Result<(), RowError> {
    let mut heights = heights;
    let width = (columns.len() + usize::from(heights.is_some())).max(1);
    let chunk = (MAX_VARIABLES / width).clamp(1, ROWS_PER_STATEMENT);
    let full = sqlx::SqlSafeStr::into_sql_str(AssertSqlSafe(sql(chunk.min(rows))));
    let mut start = 0;
    while start < rows {
        let end = rows.min(start + chunk);
        let mut arguments = SqliteArguments::default();
        arguments.reserve((end - start) * width, 0);
        for row in start..end {
            if let Some(heights) = heights.as_mut() {
                bind_cell(
                    &mut arguments,
                    Cell::Integer(heights.next().map_or(0, i64::from)),
                )?;
            }
            for column in columns {
                bind_cell(&mut arguments, column.cell(row))?;
            }
        }
        let query = if end - start == chunk {
            sqlx::query_with(full.clone(), arguments)
        } else {
            sqlx::query_with(AssertSqlSafe(sql(end - start)), arguments).persistent(false)
        };
        query
            .execute(&mut *connection)
            .await
            .map_err(failed(what))?;
        start = end;
    }
    Ok(())
}

pub(super) async fn write_anchored(
    connection: &mut SqliteConnection,
    buffer: &RowBuffer,
) -> Result<(), RowError> {
    for (spec, table) in buffer
        .specs
        .iter()
        .zip(&buffer.tables)
        .filter(|(_, table)| table.rows > 0)
    {
        let mut heights = table.heights();
        let sql = |rows| spec.insert(rows);
        write_rows(
            connection,
            Some(&mut heights),
            &table.columns,
            table.rows,
            sql,
            "insert rows",
        )
        .await?;
    }
    Ok(())
}

pub(super) async fn write_volatile(
    connection: &mut SqliteConnection,
    buffer: &RowBuffer,
) -> Result<(), RowError> {
    for change in &buffer.volatile {
        let (VolatileChange::Put { table, .. }
        | VolatileChange::Delete { table, .. }
        | VolatileChange::Clear { table }) = change;
        let Some(spec) = buffer.specs.get(*table) else {
            continue;
        };
        match change {
            VolatileChange::Put { columns, rows, .. } => {
                write_rows(
                    connection,
                    None,
                    columns,
                    *rows,
                    |rows| spec.insert(rows),
                    "put rows",
                )
                .await?;
            }
            VolatileChange::Delete { keys, rows, .. } => {
                write_rows(
                    connection,
                    None,
                    keys,
                    *rows,
                    |rows| spec.delete(rows),
                    "delete rows",
                )
                .await?;
            }
            VolatileChange::Clear { .. } => {
                let sql = format!("DELETE FROM \"{}\"", spec.name);
                execute(connection, sql, |query| query, "clear a table").await?;
            }
        }
    }
    Ok(())
}
