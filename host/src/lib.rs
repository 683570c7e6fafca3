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
//! The Blockmill host: what hears blocks from peers, checks them and feeds them to plugins.

pub mod api;
pub mod cli;
pub mod config;
pub mod logging;
pub mod metrics;
pub mod progress;
pub mod signals;
pub mod status;
