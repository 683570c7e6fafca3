//! host

pub mod chain;
pub mod network;
pub mod wire;
