//! What `cargo xtask` does: builds plugins and the host, runs every test, and shows the whole at work.
//!
//! It is a library beside its program so that the integration tests start and stop processes, and find what was built, the
//! same way as the commands do.

pub mod bcoin;
pub mod bench;
pub mod componentize;
pub mod demo;
pub mod fuzz;
pub mod libtest;
pub mod plugins;
pub mod process;
pub mod programs;
pub mod soak;
pub mod test;
pub mod workspace;
