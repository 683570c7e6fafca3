//! The rows that plugins left in the database, as they are.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row, SqliteConnection, TypeInfo, ValueRef};

/// A value of a row, as text that tells values apart.
pub type Cell = String;

/// Every row of a table, in the order of all columns.
pub type Table = Vec<Vec<Cell>>;

/// The result of a query, a row a line, values as the database holds them: blobs in hexadecimal, `NULL` for nothing.
///
/// # Errors
///
/// When the database cannot be read.
pub fn query(database: &Path, sql: &str) -> Result<Table> {
    run(async {
        let mut connection = open(database).await?;
        let rows = select(&mut connection, sql).await?;
        connection
            .close()
            .await
            .context("failed to close a database")?;
        Ok(rows)
    })
}

/// The anchored tables of all plugins by name, with all their rows.
///
/// # Errors
///
/// When the database cannot be read, or has no such table.
pub fn anchored(database: &Path) -> Result<BTreeMap<String, Table>> {
    run(async {
        let mut connection = open(database).await?;
        let names = "SELECT name FROM blockmill_table WHERE kind = 'anchored' ORDER BY name";
        let mut tables = BTreeMap::new();
        for name in select(&mut connection, names).await?.into_iter().flatten() {
            let columns =
                select(&mut connection, &format!("PRAGMA table_info(\"{name}\")")).await?;
            let order: Vec<String> = (1..=columns.len())
                .map(|column| column.to_string())
                .collect();
            let sql = format!("SELECT * FROM \"{name}\" ORDER BY {}", order.join(", "));
            tables.insert(name, select(&mut connection, &sql).await?);
        }
        connection
            .close()
            .await
            .context("failed to close a database")?;
        ensure!(!tables.is_empty(), "no plugin has declared a table");
        Ok(tables)
    })
}

/// Says where two sets of tables differ first.
///
/// # Errors
///
/// When they differ.
pub fn same(ours: &BTreeMap<String, Table>, theirs: &BTreeMap<String, Table>) -> Result<()> {
    let names = |tables: &BTreeMap<String, Table>| tables.keys().cloned().collect::<Vec<_>>();
    ensure!(
        names(ours) == names(theirs),
        "tables {:?} and {:?}",
        names(ours),
        names(theirs)
    );
    for (name, rows) in ours {
        let Some(others) = theirs.get(name) else {
            continue;
        };
        if let Some((ours, theirs)) = rows.iter().zip(others).find(|(a, b)| a != b) {
            bail!("rows of {name} differ: {ours:?} and {theirs:?}");
        }
        ensure!(
            rows.len() == others.len(),
            "{name} has {} and {} rows",
            rows.len(),
            others.len()
        );
    }
    Ok(())
}

fn run<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start a runtime")?
        .block_on(future)
}

async fn open(database: &Path) -> Result<SqliteConnection> {
    SqliteConnectOptions::new()
        .filename(database)
        .read_only(true)
        .connect()
        .await
        .with_context(|| format!("failed to open {}", database.display()))
}

async fn select(connection: &mut SqliteConnection, sql: &str) -> Result<Table> {
    let rows = sqlx::query(AssertSqlSafe(sql.to_owned()))
        .fetch_all(connection)
        .await
        .with_context(|| format!("failed to run {sql}"))?;
    rows.iter()
        .map(|row| (0..row.len()).map(|column| cell(row, column)).collect())
        .collect()
}

fn cell(row: &SqliteRow, column: usize) -> Result<Cell> {
    let value = row.try_get_raw(column)?;
    if value.is_null() {
        return Ok("NULL".to_owned());
    }
    Ok(match value.type_info().name() {
        "INTEGER" => row.try_get_unchecked::<i64, _>(column)?.to_string(),
        "REAL" => row.try_get_unchecked::<f64, _>(column)?.to_string(),
        "TEXT" => row.try_get_unchecked::<String, _>(column)?,
        "BLOB" => {
            let bytes: Vec<u8> = row.try_get_unchecked(column)?;
            bytes.iter().map(|byte| format!("{byte:02x}")).collect()
        }
        other => bail!("column {column} is of the kind {other}"),
    })
}
