//! Write Blockmill plugins in Rust.
//!
//! A plugin is a type with the trait [`Processor`], made known by [`export_plugin!`]. Everything has a default but
//! `describe` and `start`, so a plugin that counts the outputs of every kind of script is this much:
//!
//! ```
//! use blockmill_sdk::prelude::*;
//!
//! struct Opreturns {
//!     count: u64,
//! }
//!
//! const COUNT: Single<u64> = Single::new(b"count");
//!
//! impl Processor for Opreturns {
//!     fn describe() -> Descriptor {
//!         Descriptor::new("opreturns", "0.1.0", "Counts OP_RETURN outputs").wants(WantedColumns::OUTPUTS)
//!     }
//!
//!     fn start(_info: &StartInfo) -> Result<Self, String> {
//!         Ok(Opreturns { count: COUNT.get()?.unwrap_or(0) })
//!     }
//!
//!     fn on_transaction(&mut self, tx: &Transaction<'_>, _seen: &Seen<'_>) -> Result<(), String> {
//!         self.count += tx.outputs().filter(|output| output.is_op_return()).count() as u64;
//!         Ok(())
//!     }
//!
//!     fn end_block(&mut self, _block: &Block) -> Result<(), BlockError> {
//!         COUNT.put(&self.count);
//!         Ok(())
//!     }
//!
//!     fn query(&self, _path: &str, _params: &Params) -> Result<Json, QueryError> {
//!         Ok(json!({ "op_returns": self.count }))
//!     }
//! }
//!
//! export_plugin!(Opreturns);
//! ```
//!
//! The state is the truth and the plugin's own memory a cache of it: the host may start a fresh instance between any two
//! calls (after a reorg, a failed block, a replaced plugin), and `start` reads back what it needs. Undo code is never
//! written: the host takes back what a block changed.
//!
//! Natively the same crate builds against an in-memory host, [`testing::Harness`], which keeps the real host's rules.

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)
)]

pub mod address;
pub mod bindings;
mod block;
pub mod chain;
mod columns;
pub mod date;
mod descriptor;
pub mod export;
mod hash_table;
pub mod hex;
pub mod json;
pub mod log;
mod map;
mod mempool;
mod params;
mod pieces;
mod processor;
pub mod rows;
pub mod runtime;
pub mod script;
mod settings;
pub mod sort;
pub mod state;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
mod transaction;
pub mod values;
pub mod volatile;

pub use bindings::blockmill::plugin::types as wire;
pub use bindings::exports::blockmill::plugin::processor::{
    BlockAnswer, BlockError, ColumnKind, Descriptor, QueryError, StartInfo, TableKind,
    WantedColumns, WantedEvents,
};
pub use block::{Block, Header};
pub use columns::{Columns, Malformed};
pub use hash_table::HashTable;
pub use json::{Json, Object};
pub use map::{KeyBytes, Map, Single, ValueBytes};
pub use mempool::{Entry, MempoolChanges, Origin, Removal};
pub use params::Params;
pub use processor::{Part, Processor, Seen};
pub use settings::Settings;
pub use transaction::{
    Coin, Input, Inputs, OutPoint, Output, Outputs, Transaction, Transactions, Witness,
};
pub use wire::Pieces;

/// Everything that a plugin's file usually names.
pub mod prelude {
    pub use crate::{
        Block, BlockAnswer, BlockError, Descriptor, Header, Input, Json, Map, MempoolChanges,
        OutPoint, Output, Params, Part, Processor, QueryError, Seen, Single, StartInfo,
        Transaction, WantedColumns, WantedEvents, address, chain, date, export_plugin, hex, json,
        log, rows, runtime, script, state, values, volatile,
    };
}
