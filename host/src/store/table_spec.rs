//! Tables as plugins declare them, and the SQL that they become.

mod keywords;

use serde::{Deserialize, Serialize};

use super::row_error::RowError;
use keywords::is_keyword;

/// The longest name of a table or column (PostgreSQL's limit), in bytes.
const MAX_NAME: usize = 63;
/// The most columns a table may have.
const MAX_COLUMNS: usize = 64;
/// The column that the host puts first in an anchored table.
pub(super) const HEIGHT: &str = "height";

/// When a table's rows go away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableKind {
    /// Append-only; every row belongs to a block, and goes when that block is disconnected.
    Anchored,
    /// What depends on the mempool: rows are put and deleted by key, and all go when the plugin starts.
    Volatile,
}

/// What a column means, from which its SQL type and its place in the view follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnKind {
    /// A 32-byte hash as a blob in display order; hex in the view.
    Hash,
    /// An amount in sat; also in BTC, as `NAME_btc`, in the view.
    Amount,
    /// Unix time in seconds; a date and time in UTC in the view.
    Time,
    /// A 64-bit integer.
    Integer,
    /// A 64-bit float.
    Real,
    /// UTF-8 text.
    Text,
    /// Bytes; hex in the view.
    Bytes,
    /// 0 or 1.
    Boolean,
}

impl ColumnKind {
    fn sql(self) -> &'static str {
        match self {
            Self::Hash | Self::Bytes => "BLOB",
            Self::Amount | Self::Time | Self::Integer | Self::Boolean => "INTEGER",
            Self::Real => "REAL",
            Self::Text => "TEXT",
        }
    }
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnSpec {
    /// Its name: lower-case letters, digits and `_`.
    pub name: String,
    /// What it means.
    pub kind: ColumnKind,
    /// Whether it may hold no value.
    pub nullable: bool,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSpec {
    /// Its name: lower-case letters, digits and `_`.
    pub name: String,
    /// When its rows go away.
    pub kind: TableKind,
    /// Its columns. An anchored table also gets `height`, first.
    pub columns: Vec<ColumnSpec>,
    /// The primary key; in an anchored table what follows the height in it.
    pub key: Vec<String>,
    /// Columns to be searched by: one index each, built after the first sync.
    pub indexes: Vec<Vec<String>>,
}

impl TableSpec {
    /// Checks names, keys and indexes.
    pub fn check(&self) -> Result<(), RowError> {
        let refuse = |why: String| {
            Err(RowError::Spec {
                table: self.name.clone(),
                why,
            })
        };
        if let Err(why) = check_name(&self.name) {
            return refuse(why);
        }
        if self.name.starts_with("blockmill_")
            || self.name.starts_with("sqlite_")
            || self.name.starts_with("_sqlx")
        {
            return refuse(
                "names that begin with blockmill_, sqlite_ or _sqlx are reserved".to_owned(),
            );
        }
        if self.name.ends_with("_view") {
            return refuse(
                "names that end with _view are kept for the views that the host makes".to_owned(),
            );
        }
        if self.columns.is_empty() || self.columns.len() > MAX_COLUMNS {
            return refuse(format!(
                "a table has 1 to {MAX_COLUMNS} columns, not {}",
                self.columns.len()
            ));
        }
        let mut seen: Vec<String> = Vec::new();
        for column in &self.columns {
            if let Err(why) = check_name(&column.name) {
                return refuse(format!("column {:?}: {why}", column.name));
            }
            if column.name == HEIGHT && self.kind == TableKind::Anchored {
                return refuse("the host adds the column height to an anchored table".to_owned());
            }
            let names = [
                Some(column.name.clone()),
                (column.kind == ColumnKind::Amount).then(|| btc(&column.name)),
            ];
            for name in names.into_iter().flatten() {
                if seen.contains(&name) {
                    return refuse(format!(
                        "two columns are called {name:?} in the table or its view"
                    ));
                }
                seen.push(name);
            }
        }
        if self.kind == TableKind::Volatile && self.key.is_empty() {
            return refuse("a volatile table needs a key".to_owned());
        }
        for (index, name) in self.key.iter().enumerate() {
            match self.columns.iter().find(|column| column.name == *name) {
                None => return refuse(format!("its key names a column {name:?} that it has not")),
                Some(column) if column.nullable => {
                    return refuse(format!("its key's column {name:?} is nullable"));
                }
                Some(_) if self.key.iter().take(index).any(|before| before == name) => {
                    return refuse(format!("its key names {name:?} twice"));
                }
                Some(_) => {}
            }
        }
        for index in &self.indexes {
            let known = |name: &String| {
                self.columns.iter().any(|column| column.name == *name)
                    || (name == HEIGHT && self.kind == TableKind::Anchored)
            };
            if index.is_empty() || !index.iter().all(known) {
                return refuse(format!("no index can be made on {index:?}"));
            }
        }
        Ok(())
    }

    /// What differs in shape between the existing table and this declaration; indexes are no part of the shape.
    pub(super) fn difference(&self, existing: &Self) -> Option<String> {
        if existing.kind != self.kind {
            return Some(
                format!("it was {:?} and is {:?}", existing.kind, self.kind).to_lowercase(),
            );
        }
        if existing.key != self.key {
            return Some(format!(
                "its key was {:?} and is {:?}",
                existing.key, self.key
            ));
        }
        for (was, is) in existing.columns.iter().zip(&self.columns) {
            if was != is {
                return Some(format!(
                    "column {} was {} and is {}",
                    was.name,
                    describe(was),
                    describe(is)
                ));
            }
        }
        match existing.columns.len().cmp(&self.columns.len()) {
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Less => {
                let added = self.columns.get(existing.columns.len())?;
                Some(format!("column {} was added", added.name))
            }
            std::cmp::Ordering::Greater => {
                let removed = existing.columns.get(self.columns.len())?;
                Some(format!("column {} was removed", removed.name))
            }
        }
    }

    /// Positions of the key's columns among the columns.
    pub(super) fn key_positions(&self) -> Vec<usize> {
        self.key
            .iter()
            .filter_map(|name| self.columns.iter().position(|column| column.name == *name))
            .collect()
    }

    /// Columns in SQL, the height included.
    pub(super) fn width(&self) -> usize {
        self.columns.len() + usize::from(self.kind == TableKind::Anchored)
    }

    pub(super) fn create_table(&self) -> String {
        let mut lines = Vec::new();
        let mut key: Vec<&str> = self.key.iter().map(String::as_str).collect();
        if self.kind == TableKind::Anchored {
            lines.push("\"height\" INTEGER NOT NULL".to_owned());
            key.insert(0, HEIGHT);
        }
        for column in &self.columns {
            let null = if column.nullable { "" } else { " NOT NULL" };
            lines.push(format!("\"{}\" {}{null}", column.name, column.kind.sql()));
        }
        lines.push(format!("PRIMARY KEY ({})", quoted(&key)));
        format!(
            "CREATE TABLE \"{}\" (\n    {}\n) WITHOUT ROWID",
            self.name,
            lines.join(",\n    ")
        )
    }

    /// The view for people: hashes as an explorer shows them, amounts in BTC too, times as text.
    pub(super) fn create_view(&self) -> String {
        let mut columns = Vec::new();
        if self.kind == TableKind::Anchored {
            columns.push("\"height\"".to_owned());
        }
        for ColumnSpec { name, kind, .. } in &self.columns {
            columns.push(match kind {
                ColumnKind::Hash | ColumnKind::Bytes => {
                    format!("lower(hex(\"{name}\")) AS \"{name}\"")
                }
                ColumnKind::Time => format!("datetime(\"{name}\", 'unixepoch') AS \"{name}\""),
                ColumnKind::Amount => {
                    format!("\"{name}\", \"{name}\" / 100000000.0 AS \"{}\"", btc(name))
                }
                _ => format!("\"{name}\""),
            });
        }
        format!(
            "CREATE VIEW \"{}\" AS SELECT {} FROM \"{}\"",
            self.view(),
            columns.join(", "),
            self.name
        )
    }

    pub(super) fn view(&self) -> String {
        format!("{}_view", self.name)
    }

    /// Names of the indexes, and the SQL that makes them.
    pub(super) fn create_indexes(&self) -> Vec<(String, String)> {
        let create = |columns: &Vec<String>| {
            let name = format!("{}_by_{}", self.name, columns.join("_"));
            let sql = format!(
                "CREATE INDEX IF NOT EXISTS \"{name}\" ON \"{}\" ({})",
                self.name,
                quoted(columns)
            );
            (name, sql)
        };
        self.indexes.iter().map(create).collect()
    }

    /// An insert of `rows` rows.
    pub(super) fn insert(&self, rows: usize) -> String {
        let verb = match self.kind {
            TableKind::Anchored => "INSERT",
            TableKind::Volatile => "INSERT OR REPLACE",
        };
        let row = format!("({})", vec!["?"; self.width()].join(","));
        format!(
            "{verb} INTO \"{}\" VALUES {}",
            self.name,
            vec![row.as_str(); rows].join(",")
        )
    }

    /// A delete of `rows` rows by their keys.
    pub(super) fn delete(&self, rows: usize) -> String {
        let row = format!("({})", vec!["?"; self.key.len()].join(","));
        let rows = vec![row.as_str(); rows].join(",");
        format!(
            "DELETE FROM \"{}\" WHERE ({}) IN (VALUES {rows})",
            self.name,
            quoted(&self.key)
        )
    }
}

fn btc(name: &str) -> String {
    format!("{name}_btc")
}

fn describe(column: &ColumnSpec) -> String {
    let null = if column.nullable { "nullable " } else { "" };
    format!("{} ({null}{:?})", column.name, column.kind).to_lowercase()
}

fn quoted<S: AsRef<str>>(names: &[S]) -> String {
    names
        .iter()
        .map(|name| format!("\"{}\"", name.as_ref()))
        .collect::<Vec<_>>()
        .join(", ")
}

fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(format!("a name has 1 to {MAX_NAME} characters"));
    }
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if !name.bytes().all(inner) || !name.starts_with(|first: char| first.is_ascii_lowercase()) {
        return Err("a name is made of a-z, 0-9 and _, a letter first".to_owned());
    }
    if is_keyword(name) {
        return Err("it is an SQL keyword".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    fn column(name: &str, kind: ColumnKind) -> ColumnSpec {
        ColumnSpec {
            name: name.to_owned(),
            kind,
            nullable: false,
        }
    }

    fn spec() -> TableSpec {
        TableSpec {
            name: "tx".to_owned(),
            kind: TableKind::Anchored,
            columns: vec![
                column("position", ColumnKind::Integer),
                column("fee", ColumnKind::Amount),
            ],
            key: vec!["position".to_owned()],
            indexes: vec![vec!["fee".to_owned()]],
        }
    }

    fn refused(change: impl FnOnce(&mut TableSpec)) -> String {
        let mut spec = spec();
        change(&mut spec);
        spec.check().unwrap_err().to_string()
    }

    #[test]
    fn declarations_that_cannot_be_tables_are_refused() {
        spec().check().unwrap();
        for name in [
            "",
            "Tx",
            "1tx",
            "tx-out",
            "select",
            "tx\"",
            "blockmill_x",
            "sqlite_x",
            "a_view",
            &"x".repeat(64),
        ] {
            refused(|spec| spec.name = name.to_owned());
        }
        assert!(refused(|spec| spec.columns[0].name = "order".to_owned()).contains("keyword"));
        assert!(refused(|spec| spec.columns[0].name = "height".to_owned()).contains("height"));
        assert!(refused(|spec| spec.columns[0].name = "fee_btc".to_owned()).contains("fee_btc"));
        assert!(refused(|spec| spec.columns.clear()).contains("columns"));
        assert!(
            refused(|spec| spec.key = vec!["nothing_here".to_owned()]).contains("nothing_here")
        );
        assert!(refused(|spec| spec.key = vec!["fee".to_owned(); 2]).contains("twice"));
        assert!(refused(|spec| spec.columns[0].nullable = true).contains("nullable"));
        assert!(refused(|spec| spec.indexes.push(vec![])).contains("index"));
        assert!(
            refused(|spec| {
                spec.kind = TableKind::Volatile;
                spec.key.clear();
            })
            .contains("key")
        );
    }

    #[test]
    fn a_changed_shape_is_named() {
        let existing = spec();
        let differs = |change: fn(&mut TableSpec)| {
            let mut spec = spec();
            change(&mut spec);
            spec.difference(&existing)
        };
        assert_eq!(differs(|_| {}), None);
        assert_eq!(differs(|spec| spec.indexes.clear()), None);
        assert_eq!(
            differs(|spec| spec.columns[1].kind = ColumnKind::Integer).unwrap(),
            "column fee was fee (amount) and is fee (integer)"
        );
        assert_eq!(
            differs(|spec| spec.kind = TableKind::Volatile).unwrap(),
            "it was anchored and is volatile"
        );
        assert!(
            differs(|spec| drop(spec.columns.pop()))
                .unwrap()
                .contains("fee was removed")
        );
        assert!(differs(|spec| spec.key.clear()).unwrap().contains("key"));
    }
}
