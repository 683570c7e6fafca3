//! Plugins without a running host: the real engine and the real stores around one plugin, and blocks from a file.
//!
//! A [`Bed`] is what a lane is to the host: an instance, its state and its rows, in a temporary folder. [`BlockList`] says
//! which blocks are given, [`test()`] gives them twice over, once undisturbed and once with restarts, crashes, cut calls
//! and reorgs between them, and [`diff()`] gives them to two plugins side by side.

mod bed;
mod blocks;
mod diff;
mod disturb;
mod feeder;
mod golden;
mod maker;
mod pool;
mod query;
mod report;
mod spent;
mod tables;
mod test;
mod twin;

pub use bed::{Bed, Subject};
pub use blocks::BlockList;
pub use diff::{DiffReport, FirstDifference, diff};
pub use disturb::Disturbances;
pub use golden::{Golden, golden_difference};
pub use pool::PoolFigures;
pub use query::{AskedQuery, Question};
pub use report::{Failure, TableFigures, TestReport};
pub use test::{TestOptions, test};
