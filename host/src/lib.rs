//! The Blockmill host: peers, checks, block log, lanes and stores.

pub mod frame;
pub mod plugin;
//! host

pub mod chain;
pub mod network;
pub mod wire;
pub mod store;
pub mod block_log;
pub mod mempool;
