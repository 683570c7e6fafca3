//! The row store: tables in SQL for people to query, SQLite through sqlx.
//!
//! One connection writes, behind a mutex that the lanes share; a small pool reads. All functions block, and are called
//! from plain threads or from `spawn_blocking`, never from a task: the runtime that drives the connections is the store's
//! own.

mod book;
mod declared;
mod write;

pub use book::{OtherSet, PluginNote, Slot, other_rows};

use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row, SqliteConnection, TypeInfo, ValueRef};
use tokio::runtime::Runtime;

use super::Cursor;
use super::row_buffer::RowBuffer;
use super::row_error::RowError;
use super::table_spec::{TableKind, TableSpec};
use declared::{index_names, register_table, tables};
use write::{write_anchored, write_volatile};

/// Page cache of the writing connection, in KiB.
const CACHE_KIB: u32 = 16 << 10;
/// Bytes of a page of a new database: rows are appended in bulk, so larger pages than SQLite's 4 KiB cost less each.
const PAGE_BYTES: u32 = 8 << 10;
/// Connections that read.
const READERS: u32 = 4;
/// Cursors kept for finding where two stores agree.
const HISTORY: u32 = 200;

/// A value read from the database.
#[derive(Debug, Clone, PartialEq)]
pub enum SqlValue {
    /// No value.
    Null,
    /// An integer, also of the kinds amount, time and boolean.
    Integer(i64),
    /// A float.
    Real(f64),
    /// Text.
    Text(String),
    /// Bytes, also of the kind hash.
    Blob(Vec<u8>),
}

/// The rows of all plugins.
pub struct RowStore {
    /// `None` only while being dropped.
    runtime: Option<Runtime>,
    writer: Mutex<SqliteConnection>,
    readers: SqlitePool,
}

fn failed(what: &'static str) -> impl FnOnce(sqlx::Error) -> RowError {
    RowError::database(what)
}

impl RowStore {
    /// Opens the database at a URL like `sqlite:PATH`, makes it where it does not exist, and brings the host's own tables
    /// up to date.
    pub fn open(url: &str) -> Result<Self, RowError> {
        let options = options(url)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(RowError::Runtime)?;
        let (writer, readers) = runtime.block_on(async {
            let mut writer = options
                .connect()
                .await
                .map_err(failed("open the database"))?;
            sqlx::migrate!("../migrations").run(&mut writer).await?;
            let readers = SqlitePoolOptions::new()
                .max_connections(READERS)
                .connect_lazy_with(options.clone().read_only(true).create_if_missing(false));
            Ok::<_, RowError>((writer, readers))
        })?;
        Ok(Self {
            runtime: Some(runtime),
            writer: Mutex::new(writer),
            readers,
        })
    }

    fn block_on<F: Future>(&self, future: F) -> F::Output {
        match &self.runtime {
            Some(runtime) => runtime.block_on(future),
            // Nobody else has the store while it is dropped.
            None => unreachable!("the row store is being dropped"),
        }
    }

    fn writer(&self) -> MutexGuard<'_, SqliteConnection> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in the tables that a plugin declares: makes those that do not exist, and refuses what does not fit. Gives the
    /// buffer for its rows, in which the tables have the indexes of `specs`.
    pub fn register(&self, plugin: &str, specs: &[TableSpec]) -> Result<RowBuffer, RowError> {
        for (index, spec) in specs.iter().enumerate() {
            spec.check()?;
            if specs
                .iter()
                .take(index)
                .any(|before| before.name == spec.name)
            {
                return Err(RowError::Spec {
                    table: spec.name.clone(),
                    why: "it is declared twice".to_owned(),
                });
            }
        }
        self.register_checked(plugin, specs)
    }

    fn register_checked(&self, plugin: &str, specs: &[TableSpec]) -> Result<RowBuffer, RowError> {
        let mut writer = self.writer();
        self.block_on(async {
            let mut transaction = writer
                .begin()
                .await
                .map_err(failed("begin to register tables"))?;
            for spec in specs {
                register_table(&mut transaction, plugin, spec).await?;
            }
            transaction
                .commit()
                .await
                .map_err(failed("register tables"))
        })?;
        Ok(RowBuffer::new(specs))
    }

    /// Writes the buffer and the cursor in one transaction, and empties the buffer. Without a cursor, which is for changes
    /// of the mempool, only the volatile tables are written: rows of blocks never get ahead of the cursor, behind which a
    /// restart would not look for them. When this fails nothing is written and the buffer is as before.
    pub fn flush(
        &self,
        plugin: &str,
        buffer: &mut RowBuffer,
        cursor: Option<Cursor>,
    ) -> Result<(), RowError> {
        let mut writer = self.writer();
        self.block_on(async {
            let mut transaction = writer
                .begin()
                .await
                .map_err(failed("begin to write rows"))?;
            if let Some(cursor) = cursor {
                write_anchored(&mut transaction, buffer).await?;
                set_cursor(&mut transaction, plugin, cursor).await?;
            }
            write_volatile(&mut transaction, buffer).await?;
            transaction.commit().await.map_err(failed("commit rows"))
        })?;
        match cursor {
            Some(_) => buffer.clear(),
            None => buffer.clear_volatile(),
        }
        Ok(())
    }

    /// Deletes the rows of blocks above a cursor from the plugin's anchored tables, and sets the cursor, in one
    /// transaction. `None` is before the first block.
    pub fn rewind(&self, plugin: &str, to: Option<Cursor>) -> Result<(), RowError> {
        let mut writer = self.writer();
        self.block_on(async {
            let mut transaction = writer
                .begin()
                .await
                .map_err(failed("begin to rewind rows"))?;
            let above = to.map_or(-1, |cursor| i64::from(cursor.height));
            for table in tables(&mut transaction, plugin, Some(TableKind::Anchored)).await? {
                let sql = format!("DELETE FROM \"{}\" WHERE height > ?", table.name);
                execute(
                    &mut transaction,
                    sql,
                    |query| query.bind(above),
                    "rewind rows",
                )
                .await?;
            }
            let sql = "DELETE FROM blockmill_history WHERE plugin = ? AND height > ?".to_owned();
            execute(
                &mut transaction,
                sql,
                |query| query.bind(plugin).bind(above),
                "rewind rows",
            )
            .await?;
            match to {
                Some(cursor) => set_cursor(&mut transaction, plugin, cursor).await?,
                None => {
                    let sql = "DELETE FROM blockmill_cursor WHERE plugin = ?".to_owned();
                    execute(
                        &mut transaction,
                        sql,
                        |query| query.bind(plugin),
                        "rewind rows",
                    )
                    .await?;
                }
            }
            transaction
                .commit()
                .await
                .map_err(failed("commit a rewind of rows"))
        })
    }

    /// Empties the plugin's volatile tables.
    pub fn clear_volatile(&self, plugin: &str) -> Result<(), RowError> {
        let mut writer = self.writer();
        self.block_on(async {
            let mut transaction = writer
                .begin()
                .await
                .map_err(failed("begin to clear volatile tables"))?;
            for table in tables(&mut transaction, plugin, Some(TableKind::Volatile)).await? {
                let sql = format!("DELETE FROM \"{}\"", table.name);
                execute(
                    &mut transaction,
                    sql,
                    |query| query,
                    "clear a volatile table",
                )
                .await?;
            }
            transaction
                .commit()
                .await
                .map_err(failed("clear volatile tables"))
        })
    }

    /// Removes the plugin's tables, views and cursor: it starts anew with [`register`](Self::register).
    pub fn reset(&self, plugin: &str) -> Result<(), RowError> {
        let mut writer = self.writer();
        self.block_on(async {
            let mut transaction = writer
                .begin()
                .await
                .map_err(failed("begin to reset rows"))?;
            for table in tables(&mut transaction, plugin, None).await? {
                for sql in [
                    format!("DROP VIEW IF EXISTS \"{}\"", table.view()),
                    format!("DROP TABLE IF EXISTS \"{}\"", table.name),
                ] {
                    execute(&mut transaction, sql, |query| query, "drop a table").await?;
                }
            }
            forget(
                &mut transaction,
                plugin,
                &["blockmill_table", "blockmill_cursor", "blockmill_history"],
            )
            .await?;
            transaction.commit().await.map_err(failed("reset rows"))
        })
    }

    /// Empties the plugin's tables and removes its cursor; the tables stay.
    pub fn empty(&self, plugin: &str) -> Result<(), RowError> {
        let mut writer = self.writer();
        self.block_on(async {
            let mut transaction = writer
                .begin()
                .await
                .map_err(failed("begin to empty tables"))?;
            for table in tables(&mut transaction, plugin, None).await? {
                let sql = format!("DELETE FROM \"{}\"", table.name);
                execute(&mut transaction, sql, |query| query, "empty a table").await?;
            }
            forget(
                &mut transaction,
                plugin,
                &["blockmill_cursor", "blockmill_history"],
            )
            .await?;
            transaction.commit().await.map_err(failed("empty tables"))
        })
    }

    /// The last block of the plugin whose rows are in the database.
    pub fn cursor(&self, plugin: &str) -> Result<Option<Cursor>, RowError> {
        let sql = "SELECT height, hash FROM blockmill_cursor WHERE plugin = ?";
        let mut cursors = self.cursors(sql, plugin)?;
        Ok(cursors.pop())
    }

    /// Cursors that the plugin's rows were at lately, highest first.
    pub fn history(&self, plugin: &str) -> Result<Vec<Cursor>, RowError> {
        self.cursors(
            "SELECT height, hash FROM blockmill_history WHERE plugin = ? ORDER BY height DESC",
            plugin,
        )
    }

    fn cursors(&self, sql: &'static str, plugin: &str) -> Result<Vec<Cursor>, RowError> {
        // Through the writer: what was just written must be seen, in whichever order locks were taken.
        let mut writer = self.writer();
        let rows: Vec<(i64, Vec<u8>)> = self
            .block_on(sqlx::query_as(sql).bind(plugin).fetch_all(&mut *writer))
            .map_err(failed("read a cursor"))?;
        Ok(rows
            .into_iter()
            .filter_map(|(height, hash)| {
                let mut hash: [u8; 32] = hash.try_into().ok()?;
                hash.reverse();
                Some(Cursor {
                    height: u32::try_from(height).ok()?,
                    hash,
                })
            })
            .collect())
    }

    /// Makes the indexes that the plugin declared and that do not exist yet. To be called once the first sync is done:
    /// keeping an index on random hashes up while loading costs several times the load.
    pub fn build_indexes(&self, plugin: &str) -> Result<(), RowError> {
        let mut writer = self.writer();
        self.block_on(async {
            for table in tables(&mut writer, plugin, None).await? {
                for (_, sql) in table.create_indexes() {
                    execute(&mut writer, sql, |query| query, "build an index").await?;
                }
            }
            Ok(())
        })
    }

    /// Whether every index that the plugin declared exists.
    pub fn indexes_built(&self, plugin: &str) -> Result<bool, RowError> {
        let mut writer = self.writer();
        self.block_on(async {
            for table in tables(&mut writer, plugin, None).await? {
                let existing = index_names(&mut writer, &table.name).await?;
                if !table
                    .create_indexes()
                    .iter()
                    .all(|(name, _)| existing.contains(name))
                {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    /// Number of rows of a plugin's table.
    pub fn count(&self, table: &str) -> Result<u64, RowError> {
        let known = self.query(
            "SELECT 1 FROM blockmill_table WHERE name = ?",
            &[SqlValue::Text(table.to_owned())],
        )?;
        if known.is_empty() {
            return Err(RowError::NoTable(table.to_owned()));
        }
        let rows = self.query(&format!("SELECT count(*) FROM \"{table}\""), &[])?;
        match rows.first().and_then(|row| row.first()) {
            Some(SqlValue::Integer(count)) => Ok(count.unsigned_abs()),
            _ => Ok(0),
        }
    }

    /// Runs a query of the caller's own making on a reading connection. Values are given as parameters, `?`.
    pub fn query(
        &self,
        sql: &str,
        parameters: &[SqlValue],
    ) -> Result<Vec<Vec<SqlValue>>, RowError> {
        let mut query = sqlx::query(AssertSqlSafe(sql.to_owned()));
        for parameter in parameters {
            query = match parameter {
                SqlValue::Null => query.bind(None::<i64>),
                SqlValue::Integer(value) => query.bind(*value),
                SqlValue::Real(value) => query.bind(*value),
                SqlValue::Text(value) => query.bind(value.clone()),
                SqlValue::Blob(value) => query.bind(value.clone()),
            };
        }
        let rows = self
            .block_on(query.fetch_all(&self.readers))
            .map_err(failed("query the database"))?;
        rows.iter()
            .map(|row| {
                (0..row.len())
                    .map(|column| read_value(row, column))
                    .collect::<Result<_, _>>()
            })
            .collect::<Result<_, _>>()
            .map_err(failed("read a row"))
    }
}

impl Drop for RowStore {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Not waited for: the store may be dropped from a task, where waiting is not allowed. The connections' own
            // threads finish what they were given.
            runtime.shutdown_background();
        }
    }
}

fn options(url: &str) -> Result<SqliteConnectOptions, RowError> {
    let refuse = |why| RowError::Url {
        url: url.to_owned(),
        why,
    };
    let Some(path) = url.strip_prefix("sqlite:") else {
        return Err(refuse("only SQLite is supported, as sqlite:PATH"));
    };
    if path.trim_start_matches('/').is_empty()
        || path.contains(":memory:")
        || path.contains("mode=memory")
    {
        return Err(refuse("rows are kept in a file, as sqlite:PATH"));
    }
    let options =
        SqliteConnectOptions::from_str(url).map_err(|_| refuse("it should be sqlite:PATH"))?;
    Ok(options
        .create_if_missing(true)
        .page_size(PAGE_BYTES)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("cache_size", format!("-{CACHE_KIB}"))
        .disable_statement_logging())
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, SqliteArguments>;

async fn execute<'q>(
    connection: &mut SqliteConnection,
    sql: String,
    bind: impl FnOnce(Query<'q>) -> Query<'q>,
    what: &'static str,
) -> Result<(), RowError> {
    bind(sqlx::query(AssertSqlSafe(sql)))
        .execute(connection)
        .await
        .map_err(failed(what))?;
    Ok(())
}

async fn forget(
    connection: &mut SqliteConnection,
    plugin: &str,
    tables: &[&str],
) -> Result<(), RowError> {
    for table in tables {
        let sql = format!("DELETE FROM {table} WHERE plugin = ?");
        execute(
            connection,
            sql,
            |query| query.bind(plugin.to_owned()),
            "forget a plugin",
        )
        .await?;
    }
    Ok(())
}

async fn set_cursor(
    connection: &mut SqliteConnection,
    plugin: &str,
    cursor: Cursor,
) -> Result<(), RowError> {
    let mut hash = cursor.hash;
    hash.reverse();
    let height = i64::from(cursor.height);
    for sql in [
        "INSERT OR REPLACE INTO blockmill_cursor (plugin, height, hash) VALUES (?, ?, ?)",
        "INSERT OR REPLACE INTO blockmill_history (plugin, height, hash) VALUES (?, ?, ?)",
    ] {
        sqlx::query(sql)
            .bind(plugin)
            .bind(height)
            .bind(hash.to_vec())
            .execute(&mut *connection)
            .await
            .map_err(failed("set the cursor"))?;
    }
    sqlx::query(
        "DELETE FROM blockmill_history WHERE plugin = ?1 AND height <= \
         (SELECT height FROM blockmill_history WHERE plugin = ?1 ORDER BY height DESC LIMIT 1 OFFSET ?2)",
    )
    .bind(plugin)
    .bind(HISTORY)
    .execute(&mut *connection)
    .await
    .map_err(failed("prune old cursors"))?;
    Ok(())
}

fn read_value(row: &sqlx::sqlite::SqliteRow, column: usize) -> Result<SqlValue, sqlx::Error> {
    let value = row.try_get_raw(column)?;
    if value.is_null() {
        return Ok(SqlValue::Null);
    }
    // The type of this very value: a column of a view has none of its own.
    match value.type_info().name() {
        "INTEGER" | "BOOLEAN" => row.try_get_unchecked(column).map(SqlValue::Integer),
        "REAL" => row.try_get_unchecked(column).map(SqlValue::Real),
        "BLOB" => row.try_get_unchecked(column).map(SqlValue::Blob),
        _ => row.try_get_unchecked(column).map(SqlValue::Text),
    }
}
