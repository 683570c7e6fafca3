//! Which of a plugin's two sets of state and rows is current, and what made them.
//!
//! The note is in the database, so that it changes in the transaction that renames the tables. Of the state, the note says
//! which of two lanes of the state store is meant.

use sqlx::{Connection, SqliteConnection};

use super::declared::{index_names, tables};
use super::{RowStore, execute, failed, forget};
use crate::store::row_buffer::RowBuffer;
use crate::store::row_error::RowError;
use crate::store::table_spec::{TableKind, TableSpec};

/// Before the name of a table of the set that is not current.
const OTHER: &str = "blockmill_other_";

/// One of the two sets of a plugin's data, by its place in the state store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Slot {
    /// Where a plugin begins.
    #[default]
    First,
    /// The second set.
    Second,
}

impl Slot {
    /// The one of the two that this is not.
    pub fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }

    /// The name of a plugin's state in the state store.
    pub fn lane(self, plugin: &str) -> String {
        match self {
            Self::First => plugin.to_owned(),
            // No plugin has a name with this sign.
            Self::Second => format!("{plugin}_second"),
        }
    }
}

/// The second set of a plugin's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OtherSet {
    /// The state version of the component that made it.
    pub state_version: u32,
    /// It is whole, and kept to go back to. Else it is being made.
    pub whole: bool,
}

/// What is noted of a plugin's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginNote {
    /// The current set.
    pub slot: Slot,
    /// The state version of the component that made it.
    pub state_version: u32,
    /// The component that made it last, hexadecimal.
    pub sha256: String,
    /// The component that ran before, if it is kept.
    pub previous_sha256: Option<String>,
    /// The second set, if there is one.
    pub other: Option<OtherSet>,
    /// A component that was taken back: it is not loaded again by itself.
    pub set_aside: Option<String>,
}

/// The name under which the rows of the set that is not current are noted.
pub fn other_rows(plugin: &str) -> String {
    format!("{plugin}_other")
}

/// The tables of the set that is not current.
fn other_specs(specs: &[TableSpec]) -> Vec<TableSpec> {
    let rename = |spec: &TableSpec| TableSpec {
        name: format!("{OTHER}{}", spec.name),
        ..spec.clone()
    };
    specs.iter().map(rename).collect()
}

impl RowStore {
    /// What is noted of a plugin's data; none when it has none.
    pub fn note(&self, plugin: &str) -> Result<Option<PluginNote>, RowError> {
        type Row = (
            i64,
            i64,
            String,
            Option<String>,
            Option<i64>,
            bool,
            Option<String>,
        );
        let sql = "SELECT slot, state_version, sha256, previous_sha256, other_state_version, other_whole, set_aside \
                   FROM blockmill_plugin WHERE plugin = ?";
        let mut writer = self.writer();
        let row: Option<Row> = self
            .block_on(
                sqlx::query_as(sql)
                    .bind(plugin)
                    .fetch_optional(&mut *writer),
            )
            .map_err(failed("read the note of a plugin"))?;
        let version = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
        Ok(row.map(
            |(slot, state_version, sha256, previous_sha256, other, whole, set_aside)| PluginNote {
                slot: if slot == 0 { Slot::First } else { Slot::Second },
                state_version: version(state_version),
                sha256,
                previous_sha256,
                other: other.map(|other| OtherSet {
                    state_version: version(other),
                    whole,
                }),
                set_aside,
            },
        ))
    }

    /// Notes something of a plugin's data.
    pub fn set_note(&self, plugin: &str, note: &PluginNote) -> Result<(), RowError> {
        let mut writer = self.writer();
        self.block_on(write_note(&mut writer, plugin, note))
    }

    /// Takes in the tables of the plugin's second set, as [`register`](Self::register) does those of the first.
    pub fn register_other(&self, plugin: &str, specs: &[TableSpec]) -> Result<RowBuffer, RowError> {
        specs.iter().try_for_each(TableSpec::check)?;
        self.register_checked(&other_rows(plugin), &other_specs(specs))
    }

    /// Copies the rows of blocks up to a height into the second set, whose tables must be the same.
    pub fn copy_to_other(&self, plugin: &str, height: u32) -> Result<(), RowError> {
        let mut writer = self.writer();
        self.block_on(async {
            let mut transaction = writer.begin().await.map_err(failed("begin to copy rows"))?;
            for table in tables(&mut transaction, plugin, Some(TableKind::Anchored)).await? {
                let sql = format!(
                    "INSERT INTO \"{OTHER}{0}\" SELECT * FROM \"{0}\" WHERE height <= ?",
                    table.name
                );
                let bind = |query: super::Query<'static>| query.bind(i64::from(height));
                execute(&mut transaction, sql, bind, "copy rows").await?;
            }
            transaction.commit().await.map_err(failed("copy rows"))
        })
    }

    /// Makes the second set the current one, and the current one the second, with the note of that, in one transaction.
    pub fn exchange(&self, plugin: &str, note: &PluginNote) -> Result<(), RowError> {
        let other = other_rows(plugin);
        let mut writer = self.writer();
        self.block_on(async {
            let mut transaction = writer
                .begin()
                .await
                .map_err(failed("begin to exchange tables"))?;
            let current = tables(&mut transaction, plugin, None).await?;
            let next = tables(&mut transaction, &other, None).await?;
            // First both sets get out of the way, then each takes the other's place.
            let mut moves = Vec::new();
            for spec in current.into_iter().chain(next) {
                retire(&mut transaction, &spec).await?;
                let away = format!("blockmill_moving_{}", spec.name);
                rename(&mut transaction, &spec.name, &away).await?;
                moves.push((away, spec));
            }
            forget(&mut transaction, plugin, &["blockmill_table"]).await?;
            forget(&mut transaction, &other, &["blockmill_table"]).await?;
            for (away, mut spec) in moves {
                let owner = match spec.name.strip_prefix(OTHER) {
                    Some(name) => {
                        spec.name = name.to_owned();
                        plugin
                    }
                    None => {
                        spec.name = format!("{OTHER}{}", spec.name);
                        &other
                    }
                };
                rename(&mut transaction, &away, &spec.name).await?;
                super::declared::note_table(&mut transaction, owner, &spec).await?;
            }
            for table in ["blockmill_cursor", "blockmill_history"] {
                for (from, to) in [
                    (plugin, "?moving"),
                    (other.as_str(), plugin),
                    ("?moving", other.as_str()),
                ] {
                    let sql = format!("UPDATE {table} SET plugin = ? WHERE plugin = ?");
                    let bind = |query: super::Query<'static>| {
                        query.bind(to.to_owned()).bind(from.to_owned())
                    };
                    execute(&mut transaction, sql, bind, "exchange cursors").await?;
                }
            }
            write_note(&mut transaction, plugin, note).await?;
            transaction
                .commit()
                .await
                .map_err(failed("exchange tables"))
        })
    }

    /// Removes all that is here of a plugin, and gives the space back to the disk. Takes as long as writing the database anew.
    pub fn purge(&self, plugin: &str) -> Result<(), RowError> {
        self.reset(plugin)?;
        self.reset(&other_rows(plugin))?;
        let mut writer = self.writer();
        self.block_on(async {
            forget(&mut writer, plugin, &["blockmill_plugin"]).await?;
            for sql in ["VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"] {
                execute(
                    &mut writer,
                    sql.to_owned(),
                    |query| query,
                    "give space back",
                )
                .await?;
            }
            Ok(())
        })
    }
}

/// Takes away what is named after a table, so that it can be renamed: its view, and its indexes, which are built anew.
async fn retire(connection: &mut SqliteConnection, spec: &TableSpec) -> Result<(), RowError> {
    let mut statements = vec![format!("DROP VIEW IF EXISTS \"{}\"", spec.view())];
    for name in index_names(connection, &spec.name).await? {
        statements.push(format!("DROP INDEX \"{name}\""));
    }
    for sql in statements {
        execute(connection, sql, |query| query, "retire a table").await?;
    }
    Ok(())
}

async fn rename(connection: &mut SqliteConnection, from: &str, to: &str) -> Result<(), RowError> {
    let sql = format!("ALTER TABLE \"{from}\" RENAME TO \"{to}\"");
    execute(connection, sql, |query| query, "rename a table").await
}

async fn write_note(
    connection: &mut SqliteConnection,
    plugin: &str,
    note: &PluginNote,
) -> Result<(), RowError> {
    sqlx::query("INSERT OR REPLACE INTO blockmill_plugin VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
        .bind(plugin)
        .bind(i64::from(note.slot == Slot::Second))
        .bind(i64::from(note.state_version))
        .bind(note.sha256.as_str())
        .bind(note.previous_sha256.as_deref())
        .bind(note.other.map(|other| i64::from(other.state_version)))
        .bind(note.other.is_some_and(|other| other.whole))
        .bind(note.set_aside.as_deref())
        .execute(connection)
        .await
        .map_err(failed("write the note of a plugin"))?;
    Ok(())
}
