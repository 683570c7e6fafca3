//! host
pub mod store;
