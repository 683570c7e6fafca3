//! Every decoder that bytes from outside reach, as a function of bytes: a *target*. And small inputs for each, its *corpus*.
//!
//! A target does more than not panic: what it reads it writes and reads again, what comes in pieces it also takes whole, and
//! what it takes up in memory it holds against the length of the input. It panics when something is wrong; that is how both
//! who runs it learn of it: the test of this crate, which runs every file of every corpus once, and libFuzzer, for which each
//! target is a program in the folder `fuzz` (`cargo xtask soak` runs those, a minute each).
//!
//! A file that made a target panic goes into its corpus, and stays there.
// A target ends by panicking, and no input but its own reaches it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

pub mod corpus;
mod input;
pub mod memory;
pub mod seeds;
mod shapes;
pub mod targets;

pub use input::Input;
pub use shapes::clean_up;
pub use targets::{TARGETS, Target, Verdict};

/// Runs the target of this name. For the programs of the folder `fuzz`.
pub fn run(name: &str, data: &[u8]) {
    let target = Target::find(name).expect("no such target");
    let _ = target.run(data);
}
