//! What plugins leave behind: state in an embedded key-value store, rows in SQL, and the folder that holds them.
//!
//! The host owns the stores; a plugin never opens a file or a connection. A lane writes its block's changes into the
//! overlay of its [`LaneState`] and its rows into a [`RowBuffer`], and from time to time both are flushed:
//!
//! ```text
//! flush:   SQL transaction (rows + the lane's cursor), then one atomic state write (state + the same cursor)
//! start:   if the two cursors differ, rewind the one that is ahead to the other: rows by height, state by undo
//! reorg:   rewind both to the fork, then go on
//! ```
//!
//! [`reconcile`] is the start, [`DataDir`] the folder with its lock.

mod arena;
mod coins;
mod columns;
mod data_dir;
mod error;
mod lane_state;
mod muhash;
mod overlay;
mod recovery;
mod room;
mod row_buffer;
mod row_error;
mod rows;
mod snapshot;
mod state;
mod table_spec;
mod txoutset;
mod undo;

#[cfg(test)]
mod tests;

pub use coins::{
    COIN_KEY_LEN, COIN_PREFIX, Coin, CoinView, OutPointKey, coin_key, encode_coin, is_unspendable,
};
pub use columns::{Keys, ScanPage, ValueColumn, Values};
pub use data_dir::DataDir;
pub use error::{ArgumentError, RewindError, StoreError};
pub use lane_state::{LaneState, Loading, StateChanges, Value};
pub(crate) use lane_state::{check_key, check_value};
pub use recovery::{Reconciled, Recovery, RecoveryError, reconcile};
pub use room::{NoRoom, Room};
pub use row_buffer::{Column, ColumnData, RowAction, RowBuffer, RowWrite, TableWrites};
pub use row_error::RowError;
pub use rows::{OtherSet, PluginNote, RowStore, Slot, SqlValue, other_rows};
pub use snapshot::{SnapshotIter, StateSnapshot};
pub use state::{StateStore, UNDO_DEPTH};
pub use table_spec::{ColumnKind, ColumnSpec, TableKind, TableSpec};
pub use txoutset::{CoinHash, TxOutSet, TxOutSetProgress, txoutset};

/// The longest state key, in bytes.
pub const MAX_KEY: usize = 1024;
/// The longest state value, in bytes.
pub const MAX_VALUE: usize = 16 << 20;

/// The last block that a lane has taken in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Height of the block.
    pub height: u32,
    /// Hash of the block, in internal byte order.
    pub hash: [u8; 32],
}

/// Height and hash as an explorer shows them: cursors stand in log lines.
impl std::fmt::Debug for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ", self.height)?;
        self.hash
            .iter()
            .rev()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Cursor {
    /// Bytes of a cursor on disk: height u32 LE, hash in internal order.
    pub(crate) const LEN: usize = 36;

    pub(crate) fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let (height, hash) = bytes.split_at_mut(4);
        height.copy_from_slice(&self.height.to_le_bytes());
        hash.copy_from_slice(&self.hash);
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (height, hash) = bytes.split_first_chunk::<4>()?;
        Some(Self {
            height: u32::from_le_bytes(*height),
            hash: hash.try_into().ok()?,
        })
    }
}
