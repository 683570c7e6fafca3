//! A host in memory, to test a plugin natively.
//!
//! [`Harness`] runs a plugin as the host does and keeps the host's rules: a failed block leaves nothing behind, a rollback
//! rewinds state and rows and starts a fresh instance, columns that do not fit their table, keys over their bound and
//! writes in the wrong place stop the test. Only the columns that the plugin's descriptor asks for are given.
//!
//! ```
//! # use blockmill_sdk::prelude::*;
//! # struct Quiet;
//! # impl Processor for Quiet {
//! #     fn describe() -> Descriptor { Descriptor::new("quiet", "0.1.0", "Does nothing") }
//! #     fn start(_: &StartInfo) -> Result<Self, String> { Ok(Quiet) }
//! # }
//! use blockmill_sdk::testing::{Harness, chain};
//!
//! let mut harness = Harness::<Quiet>::new(json!({}));
//! let block = chain::block(chain::hash(1), 1, 0, vec![]);
//! harness.block(&block).unwrap();
//! assert_eq!(harness.height(), Some(1));
//! harness.rollback(0);
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

pub mod blocks;
pub mod chain;
pub mod harness;
pub mod host;
pub mod native;

pub use bitcoin;
pub use harness::{Harness, PoolTransaction};
pub use host::{Cell, Row};

#[cfg(test)]
mod tests;
