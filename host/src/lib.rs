//! The Blockmill host: what hears blocks from peers, checks them and feeds them to plugins.

pub mod api;
pub mod cli;
pub mod config;
pub mod logging;
pub mod metrics;
pub mod progress;
pub mod signals;
pub mod status;
