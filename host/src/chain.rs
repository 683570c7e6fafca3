//! The chain: which headers are valid, which branch has the most work, which blocks are missing, and whether a block
//! says what its header commits to. Nothing here does I/O; scripts are not run.

pub mod block_check;
pub mod block_stream;
pub mod header_rules;
pub mod header_tree;
pub mod sync;

#[cfg(test)]
pub(crate) mod fixtures;

pub use block_check::{BadBlock, BlockContext, BlockView, check_block};
pub use header_rules::HeaderError;
pub use header_tree::{HeaderTree, Inserted, TipChange};
pub use sync::{Output, SourceView, Sync, SyncConfig};
