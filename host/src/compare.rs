//! What a plugin left for a block, and how that differs from what another run left.
//!
//! Two runs of the same code over the same blocks must leave the same; two versions of a plugin should, or one wants to
//! know where they do not. Compared is the effect: which keys hold something else than before the block, which rows were
//! written in which order, what the block is said to spend, and how the call failed. How a plugin came to it is not.

mod difference;

use std::fmt;

use crate::frame::Spent;
use crate::plugin::{CallError, LaneSpace};
use crate::store::{SqlValue, StateChanges, StoreError, TableWrites};

pub use difference::{
    Difference, ErrorDifference, KeyDifference, RowDifference, SpentDifference, StateDifference,
    TableDifference,
};

/// What one run of a plugin left for one block.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Keys that hold something else than before, and what; `None` for a key that was removed.
    pub state: StateChanges,
    /// Rows by table, in the order written.
    pub rows: Vec<TableWrites>,
    /// What the plugin with the role `coins` says that the block spends.
    pub spent: Option<Spent>,
    /// Why the call failed. What it left until then does not count, because it is rolled back.
    pub error: Option<String>,
}

impl Outcome {
    /// What the open block left in a lane's stores, and what its call answered. To be asked after `on_block` and before
    /// the block is committed or aborted. Of a call that failed only the error is kept.
    ///
    /// # Errors
    ///
    /// When the state cannot be read.
    pub fn of(
        space: &LaneSpace,
        answer: &Result<Option<Spent>, CallError>,
    ) -> Result<Self, StoreError> {
        Ok(match answer {
            Ok(spent) => Self {
                state: space.state.block_changes()?,
                rows: space.rows.block_rows(),
                spent: spent.clone(),
                error: None,
            },
            Err(error) => Self {
                error: Some(error.to_string()),
                ..Self::default()
            },
        })
    }

    /// How another run's outcome differs; `None` when they are the same. Real numbers are the same when their bits are.
    pub fn difference(&self, other: &Self) -> Option<Difference> {
        Difference::between(self, other)
    }
}

/// Values are the same when their bits are: NaN equals itself, and 0 is not -0.
fn same_value(a: &SqlValue, b: &SqlValue) -> bool {
    match (a, b) {
        (SqlValue::Real(a), SqlValue::Real(b)) => a.to_bits() == b.to_bits(),
        _ => a == b,
    }
}

/// A value of a row as people and canonical texts read it: blobs in hex, text quoted.
#[derive(Clone, Copy)]
pub struct ShownValue<'a>(pub &'a SqlValue);

impl fmt::Display for ShownValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use bitcoin::hex::DisplayHex;
        match self.0 {
            SqlValue::Null => f.write_str("null"),
            SqlValue::Integer(value) => write!(f, "{value}"),
            SqlValue::Real(value) => write!(f, "{value:?}"),
            SqlValue::Text(value) => write!(f, "{value:?}"),
            SqlValue::Blob(value) => write!(f, "{:x}", value.as_hex()),
        }
    }
}

#[cfg(test)]
mod tests;
