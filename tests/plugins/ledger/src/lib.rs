//! A plugin that keeps a little of everything, and fails in the way that its settings name at the height that they name:
//! `fault` is `trap`, `keys`, `state`, `rows`, `twice` (two rows with one key), `pool` (when the pool brings a transaction, at
//! any height) or nothing.

pub mod ledger;

/// Whether it does what its settings say.
pub const FAULTY: bool = true;

blockmill_sdk::export_plugin!(ledger::Ledger);
