//! Tests of the stores together: against a model, against Bitcoin Core's coin sets, and across crashes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod coin_sets;
mod crash;
mod kill;
mod removed;
mod row_tables;
mod small_cache;
mod state_model;

use super::Cursor;

/// A made-up block of a branch.
fn cursor(height: u32, branch: u8) -> Cursor {
    let mut hash = [branch; 32];
    hash[..4].copy_from_slice(&height.to_le_bytes());
    Cursor { height, hash }
}
