//! What a plugin says of itself, checked.

use super::bindings::exports::blockmill::plugin::processor as wit;
use crate::store::{ColumnKind, ColumnSpec, TableKind, TableSpec};
use anyhow::{Result, bail};

/// The role whose plugin keeps the coin set and tells what blocks spend.
pub const COINS: &str = "coins";

/// The answer to `describe`.
#[derive(Debug, Clone)]
pub struct Descriptor {
    pub name: String,
    pub version: String,
    pub description: String,
    pub state_version: u32,
    pub columns: WantedColumns,
    /// Whether it wants the changes of the memory pool.
    pub mempool: bool,
    pub tables: Vec<TableSpec>,
    /// Whether it has the role [`COINS`].
    pub coins: bool,
    /// Whether it takes blocks that are too large to be held in parts.
    pub parts: bool,
}

/// The columns that are built and copied for a plugin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WantedColumns {
    pub inputs: bool,
    pub witnesses: bool,
    pub outputs: bool,
    pub spent: bool,
    pub raw: bool,
}

impl Descriptor {
    pub(super) fn from_wit(wit: wit::Descriptor) -> Result<Self> {
        if !is_plugin_name(&wit.name) {
            bail!(
                "its name is {:?}; a name has 1 to 32 lower-case letters, digits and '-', and begins with a letter",
                wit.name
            );
        }
        for (field, text, limit) in [
            ("version", &wit.version, 64),
            ("description", &wit.description, 500),
        ] {
            if text.len() > limit || text.chars().any(char::is_control) {
                bail!("its {field} is longer than {limit} bytes or has control characters");
            }
        }
        let mut coins = false;
        for role in &wit.roles {
            match role.as_str() {
                COINS => coins = true,
                other => bail!("it has the unknown role {other:?}; this host knows \"{COINS}\""),
            }
        }
        let has = |flag| wit.columns.contains(flag);
        let columns = WantedColumns {
            inputs: has(wit::WantedColumns::INPUTS),
            witnesses: has(wit::WantedColumns::WITNESSES),
            outputs: has(wit::WantedColumns::OUTPUTS),
            spent: has(wit::WantedColumns::SPENT),
            raw: has(wit::WantedColumns::RAW),
        };
        if coins && columns.spent {
            bail!(
                "it has the role \"{COINS}\" and asks for the column `spent`, which it makes itself"
            );
        }
        Ok(Self {
            mempool: wit.events.contains(wit::WantedEvents::MEMPOOL),
            tables: wit.tables.into_iter().map(table).collect(),
            name: wit.name,
            version: wit.version,
            description: wit.description,
            state_version: wit.state_version,
            columns,
            coins,
            parts: false,
        })
    }
}

/// Whether a name can be a plugin's: 1 to 32 lower-case letters, digits and `-`, a letter first.
pub fn is_plugin_name(name: &str) -> bool {
    (1..=32).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
}

fn table(wit: wit::Table) -> TableSpec {
    TableSpec {
        name: wit.name,
        kind: match wit.kind {
            wit::TableKind::Anchored => TableKind::Anchored,
            wit::TableKind::Volatile => TableKind::Volatile,
        },
        columns: wit.columns.into_iter().map(column).collect(),
        key: wit.key,
        indexes: wit.indexes,
    }
}

fn column(wit: wit::TableColumn) -> ColumnSpec {
    ColumnSpec {
        name: wit.name,
        kind: match wit.kind {
            wit::ColumnKind::Integer => ColumnKind::Integer,
            wit::ColumnKind::Real => ColumnKind::Real,
            wit::ColumnKind::Text => ColumnKind::Text,
            wit::ColumnKind::Bytes => ColumnKind::Bytes,
            wit::ColumnKind::Hash => ColumnKind::Hash,
            wit::ColumnKind::Amount => ColumnKind::Amount,
            wit::ColumnKind::Time => ColumnKind::Time,
            wit::ColumnKind::Boolean => ColumnKind::Boolean,
        },
        nullable: wit.nullable,
    }
}

/// The columns by name, as `wit/plugin.wit` has them.
impl std::fmt::Display for WantedColumns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = [
            (self.inputs, "inputs"),
            (self.witnesses, "witnesses"),
            (self.outputs, "outputs"),
            (self.spent, "spent"),
            (self.raw, "raw"),
        ];
        let wanted: Vec<&str> = names
            .iter()
            .filter_map(|(wanted, name)| wanted.then_some(*name))
            .collect();
        match wanted.is_empty() {
            true => f.write_str("none"),
            false => f.write_str(&wanted.join(", ")),
        }
    }
}
