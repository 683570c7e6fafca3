//! What the tests that cross crates share. The tests themselves are in `tests/tests/`, a file per fear.

pub mod bcoin;
pub mod data;
pub mod host;
pub mod miner;
pub mod pool_cost;
pub mod rows;
pub mod socks;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Context, Result};

/// Says that a test was skipped and why, past the output capture of the test program: a test that did not run shall not look as
/// if it had.
pub fn skipped(reason: &str) {
    // A terminal that is gone is no reason to fail.
    let _ = writeln!(std::io::stderr(), "skipped: {reason}");
}

/// A loopback address that nobody listens on now.
///
/// # Errors
///
/// When there is none.
pub fn free_address() -> Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .context("failed to find a free port")
}
