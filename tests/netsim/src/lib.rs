//! A network in one process: the host's own network machine, hundreds of peers that are honest or not, and a clock that
//! nobody waits for. Everything that is left to chance comes from a seed, so a run that fails comes again.
//!
//! [`World`] is what honest peers agree on: blocks, and who knows of them. A [`Node`] is a peer and its
//! [`Kind`]: the host connects to most, and some connect to the host. A [`Link`] makes its bytes late. [`Host`] is the
//! machine and a shell around it that checks blocks, and that measures what the machine keeps. [`Simulation`] runs them
//! and says what came of it.

use std::alloc::System;

use cap::Cap;

pub mod host;
pub mod kind;
pub mod link;
pub mod mining;
pub mod node;
pub mod scenario;
pub mod simulation;
pub mod world;

pub use host::Host;
pub use kind::Kind;
pub use link::Link;
pub use node::Node;
pub use scenario::Scenario;
pub use simulation::{Outcome, Simulation};
pub use world::World;

/// Counts what is allocated, so that a simulation can tell what the machine keeps. One simulation runs at a time.
#[global_allocator]
pub(crate) static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);
