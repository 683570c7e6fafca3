//! What a test found.

use std::fmt;

use serde::Serialize;

use super::disturb::Disturbances;
use super::pool::PoolFigures;
use super::query::AskedQuery;
use crate::compare::Difference;

/// What a test found.
#[derive(Debug, Serialize)]
pub struct TestReport {
    /// The plugin's name.
    pub plugin: String,
    /// Its version.
    pub version: String,
    /// Hash of its file.
    pub sha256: String,
    /// Bytes of its file.
    pub size: u64,
    /// Where the blocks come from.
    pub blocks: String,
    /// Their network.
    pub network: String,
    /// Height of the first.
    pub first: u32,
    /// Height of the last that was given.
    pub last: u32,
    /// Keys in the state.
    pub state_keys: u64,
    /// Bytes of keys and values in the state.
    pub state_bytes: u64,
    /// Hash of the state: of each key and value with their lengths before them, in the order of the keys.
    pub state_sha256: String,
    /// What the tables hold that belong to blocks.
    pub tables: Vec<TableFigures>,
    /// Median time of a call, µs.
    pub block_time_median: u64,
    /// Longest call, µs.
    pub block_time_max: u64,
    /// The block of the longest call.
    pub block_time_max_height: u32,
    /// The most time that a call may take, µs.
    pub block_time_limit: u64,
    /// All calls together, µs.
    pub time: u64,
    /// The most memory that the instance had, bytes.
    pub memory: u64,
    /// The most memory that it may have, bytes.
    pub memory_limit: u64,
    /// What was told of the pool; none to a plugin that does not ask for it, or when it was not wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolFigures>,
    /// Why a plugin that asks for the pool was told nothing of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_pool: Option<&'static str>,
    /// Longest call with changes of the pool, µs.
    pub pool_time_max: u64,
    /// What the tables hold that depend on the pool, at the end.
    pub volatile: Vec<TableFigures>,
    /// The queries that were asked in the end.
    pub queries: Vec<AskedQuery>,
    /// What was done to the disturbed one.
    pub disturbances: Disturbances,
    /// Where the disturbed one did not leave the same. The run ends there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// A table at the end.
#[derive(Debug, Serialize)]
pub struct TableFigures {
    /// Its name.
    pub table: String,
    /// Its rows.
    pub rows: u64,
    /// Hash of its rows, in the order written.
    pub sha256: String,
}

/// What was found wrong.
#[derive(Debug, Serialize)]
pub struct Failure {
    /// Height of the block at which it showed.
    pub height: u32,
    /// What was done to the plugin last, and when.
    pub after: String,
    /// How the disturbed one differs from the undisturbed one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<Difference>,
    /// Why the disturbed one could not go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "at block {}, after {}:", self.height, self.after)?;
        if let Some(difference) = &self.difference {
            write!(f, "{}", difference.named("undisturbed", "disturbed"))?;
        }
        if let Some(error) = &self.error {
            writeln!(f, "{error}")?;
        }
        Ok(())
    }
}

/// Why the test failed.
pub(super) fn failed(
    height: u32,
    after: &str,
    difference: Option<Difference>,
    error: Option<String>,
) -> Failure {
    Failure {
        height,
        after: after.to_owned(),
        difference,
        error,
    }
}
