//! The parts of `cargo xtask bench`, for its program and for a test.

pub mod blocks;
pub mod budgets;
pub mod lane;
mod native;
pub mod peers;
pub mod plugins;
pub mod pool;
mod process;
pub mod report;
pub mod source;
pub mod sync;
pub mod walk;
