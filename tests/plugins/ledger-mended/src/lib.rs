//! The plugin `ledger` without its faults: another component of the same plugin.

#[path = "../../ledger/src/ledger.rs"]
pub mod ledger;

/// It fails never, whatever its settings say.
pub const FAULTY: bool = false;

blockmill_sdk::export_plugin!(ledger::Ledger);
