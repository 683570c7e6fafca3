//! The tables that plugins declared: made, remembered, compared.

use sqlx::SqliteConnection;

use super::{Query, execute, failed};
use crate::store::row_error::RowError;
use crate::store::table_spec::{TableKind, TableSpec};

/// The plugin's tables as they were declared.
pub(super) async fn tables(
    connection: &mut SqliteConnection,
    plugin: &str,
    kind: Option<TableKind>,
) -> Result<Vec<TableSpec>, RowError> {
    let rows: Vec<(String,)> =
        sqlx::query_as("SELECT spec FROM blockmill_table WHERE plugin = ? ORDER BY name")
            .bind(plugin)
            .fetch_all(connection)
            .await
            .map_err(failed("read the declared tables"))?;
    let mut specs = Vec::new();
    for (json,) in rows {
        let spec = decode_spec(&json)?;
        if kind.is_none_or(|kind| kind == spec.kind) {
            specs.push(spec);
        }
    }
    Ok(specs)
}

fn spec_json(spec: &TableSpec) -> Result<String, RowError> {
    serde_json::to_string(spec)
        .map_err(|error| failed("write a declared table")(sqlx::Error::Encode(Box::new(error))))
}

fn decode_spec(json: &str) -> Result<TableSpec, RowError> {
    serde_json::from_str(json)
        .map_err(|error| failed("read a declared table")(sqlx::Error::Decode(Box::new(error))))
}

pub(super) async fn index_names(
    connection: &mut SqliteConnection,
    table: &str,
) -> Result<Vec<String>, RowError> {
    let rows: Vec<(String,)> = sqlx::query_as(
        "SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL",
    )
    .bind(table)
    .fetch_all(connection)
    .await
    .map_err(failed("read the indexes"))?;
    Ok(rows.into_iter().map(|(name,)| name).collect())
}

pub(super) async fn register_table(
    connection: &mut SqliteConnection,
    plugin: &str,
    spec: &TableSpec,
) -> Result<(), RowError> {
    let existing: Option<(String, String)> =
        sqlx::query_as("SELECT plugin, spec FROM blockmill_table WHERE name = ?")
            .bind(spec.name.as_str())
            .fetch_optional(&mut *connection)
            .await
            .map_err(failed("read a declared table"))?;
    let taken = |owner: String| RowError::OtherOwner {
        table: spec.name.clone(),
        plugin: plugin.to_owned(),
        owner,
    };
    if let Some((owner, existing)) = existing {
        if owner != plugin {
            return Err(taken(format!("plugin {owner}")));
        }
        let existing = decode_spec(&existing)?;
        if let Some(difference) = spec.difference(&existing) {
            let (table, plugin) = (spec.name.clone(), plugin.to_owned());
            return Err(RowError::OtherShape {
                table,
                plugin,
                difference,
            });
        }
        if existing.indexes != spec.indexes {
            let wanted = spec.create_indexes();
            for name in index_names(connection, &spec.name).await? {
                if !wanted.iter().any(|(wanted, _)| *wanted == name) {
                    execute(
                        connection,
                        format!("DROP INDEX \"{name}\""),
                        |query| query,
                        "drop an index",
                    )
                    .await?;
                }
            }
            let json = spec_json(spec)?;
            let sql = "UPDATE blockmill_table SET spec = ? WHERE name = ?".to_owned();
            execute(
                connection,
                sql,
                |query| query.bind(json).bind(spec.name.as_str()),
                "update a table",
            )
            .await?;
        }
        return Ok(());
    }
    for name in [spec.name.clone(), spec.view()] {
        let strange: Option<(i64,)> = sqlx::query_as("SELECT 1 FROM sqlite_schema WHERE name = ?")
            .bind(name)
            .fetch_optional(&mut *connection)
            .await
            .map_err(failed("look for a table"))?;
        if strange.is_some() {
            return Err(taken(
                "nobody that the host knows: it was made by hand".to_owned(),
            ));
        }
    }
    execute(
        connection,
        spec.create_table(),
        |query| query,
        "create a table",
    )
    .await?;
    note_table(connection, plugin, spec).await
}

/// Makes the view of a table, and notes whose the table is.
pub(super) async fn note_table(
    connection: &mut SqliteConnection,
    plugin: &str,
    spec: &TableSpec,
) -> Result<(), RowError> {
    let json = spec_json(spec)?;
    execute(
        connection,
        spec.create_view(),
        |query| query,
        "create a view",
    )
    .await?;
    let kind = match spec.kind {
        TableKind::Anchored => "anchored",
        TableKind::Volatile => "volatile",
    };
    let sql =
        "INSERT INTO blockmill_table (name, plugin, kind, spec) VALUES (?, ?, ?, ?)".to_owned();
    let bind = |query: Query<'static>| {
        query
            .bind(spec.name.clone())
            .bind(plugin.to_owned())
            .bind(kind)
            .bind(json)
    };
    execute(connection, sql, bind, "note a declared table").await
}
