//! What the tests that cross crates share. The tests themselves are in `tests/tests/`, a file per fear.

pub mod bcoin;
pub mod miner;

use std::io::Write;

/// Says that a test was skipped and why, past the output capture of the test program: a test that did not run shall not look as
/// if it had.
pub fn skipped(reason: &str) {
    // A terminal that is gone is no reason to fail.
    let _ = writeln!(std::io::stderr(), "skipped: {reason}");
}
