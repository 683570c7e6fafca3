//! After a start: the two stores of a plugin brought to the same block.
//!
//! A flush writes rows first and state second, so after a crash between the two the rows are one flush ahead. Whichever is
//! ahead is rewound: rows by their height, state by its undo records. Where that cannot be done, both start anew.

use super::Cursor;
use super::error::{RewindError, StoreError};
use super::lane_state::LaneState;
use super::row_error::RowError;
use super::rows::RowStore;

/// What it took to make the two stores agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// They agreed.
    Agreed,
    /// The rows were ahead, and were rewound.
    RowsRewound {
        /// Where the rows were.
        from: Cursor,
    },
    /// The state was ahead, and was rewound.
    StateRewound {
        /// Where the state was.
        from: Cursor,
    },
    /// They were on different branches, and both were rewound to a block that both had.
    BothRewound {
        /// Where the state was.
        state: Cursor,
        /// Where the rows were.
        rows: Cursor,
    },
    /// The state could not be rewound far enough: both were emptied, and the plugin starts with the first block.
    Reset {
        /// Where the state was.
        state: Option<Cursor>,
        /// Where the rows were.
        rows: Option<Cursor>,
    },
}

/// Two stores that agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reconciled {
    /// The last block in both; the lane goes on after it.
    pub cursor: Option<Cursor>,
    /// What was done. Worth a line in the log unless it is [`Recovery::Agreed`].
    pub recovery: Recovery,
}

/// Why two stores could not be made to agree.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The state store failed.
    #[error("recover the state")]
    State(#[from] StoreError),
    /// The row store failed.
    #[error("recover the rows")]
    Rows(#[from] RowError),
}

/// Brings a plugin's state and rows to the same block, durably. To be called with the plugin's tables registered and
/// before its lane starts.
pub fn reconcile(
    state: &mut LaneState,
    rows: &RowStore,
    plugin: &str,
) -> Result<Reconciled, RecoveryError> {
    let (at_state, at_rows) = (state.cursor(), rows.cursor(plugin)?);
    let done = |cursor, recovery| Ok(Reconciled { cursor, recovery });
    match (at_state, at_rows) {
        _ if at_state == at_rows => return done(at_state, Recovery::Agreed),
        (None, Some(from)) => {
            rows.empty(plugin)?;
            return done(None, Recovery::RowsRewound { from });
        }
        (Some(at), Some(from)) if from.height > at.height => {
            let known = rows
                .history(plugin)?
                .into_iter()
                .find(|cursor| cursor.height == at.height);
            if known.is_none_or(|known| known == at) {
                rows.rewind(plugin, Some(at))?;
                return done(Some(at), Recovery::RowsRewound { from });
            }
        }
        (Some(from), Some(at)) if from.height > at.height => {
            match rewound(state.rewind(at.height))? {
                Some(cursor) if cursor == at => {
                    return done(Some(at), Recovery::StateRewound { from });
                }
                _ => {}
            }
        }
        _ => {}
    }
    // Different branches: go down the blocks that the rows were at, until the state was at the same.
    if let (Some(from_state), Some(from_rows)) = (at_state, at_rows) {
        for common in rows.history(plugin)? {
            if state.cursor().is_none_or(|at| at.height < common.height) {
                continue;
            }
            match rewound(state.rewind(common.height))? {
                Some(cursor) if cursor == common => {
                    rows.rewind(plugin, Some(common))?;
                    return done(
                        Some(common),
                        Recovery::BothRewound {
                            state: from_state,
                            rows: from_rows,
                        },
                    );
                }
                Some(_) => {}
                None => break,
            }
        }
    }
    // The rows first: a state without a cursor tells the next start to go on with this.
    rows.empty(plugin)?;
    state.reset()?;
    done(
        None,
        Recovery::Reset {
            state: at_state,
            rows: at_rows,
        },
    )
}

/// The cursor after a rewind; `None` when the state could not be rewound so far, or has nothing left.
fn rewound(result: Result<Option<Cursor>, StoreError>) -> Result<Option<Cursor>, RecoveryError> {
    match result {
        Ok(cursor) => Ok(cursor),
        Err(StoreError::Rewind(RewindError::NoUndo { .. })) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
