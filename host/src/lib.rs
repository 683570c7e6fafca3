//! The Blockmill host: hears blocks and transactions from peers, checks them, and feeds them to sandboxed plugins.
//!
//! The modules in the order of the data: [`wire`] and [`net`] speak to peers, [`chain`] decides what to believe,
//! [`frame`] decodes a block once, [`block_log`] keeps it, [`mempool`] holds what is unconfirmed, a [`lane`] runs one
//! [`plugin`], [`store`] keeps what plugins leave, and [`api`] shows it. [`node`] ties them together.

pub mod api;
pub mod block_log;
pub mod chain;
pub mod cli;
pub mod compare;
pub mod config;
pub mod frame;
pub mod headers_file;
pub mod lane;
pub mod logging;
pub mod mempool;
pub mod metrics;
pub mod net;
pub mod network;
pub mod node;
pub mod offline;
pub mod plugin;
pub mod progress;
pub mod signals;
pub mod snapshot;
pub mod source;
pub mod status;
pub mod store;
pub mod whole_file;
pub mod wire;
