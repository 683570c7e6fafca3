//! host

pub mod block_log;
pub mod mempool;
