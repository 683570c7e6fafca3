//! How much of a block that comes in pieces may wait for the checks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of pieces that may wait, per connection.
const FULL: usize = 8 << 20;

/// One connection's: its socket is not read while it is full.
#[derive(Debug, Default)]
pub(super) struct Gate(AtomicUsize);

/// Some bytes that wait; dropped, they wait no more.
#[derive(Debug)]
pub(super) struct Waiting {
    gate: Arc<Gate>,
    bytes: usize,
}

impl Gate {
    /// Notes that bytes wait.
    pub(super) fn enter(self: &Arc<Self>, bytes: usize) -> Waiting {
        self.0.fetch_add(bytes, Ordering::AcqRel);
        Waiting {
            gate: self.clone(),
            bytes,
        }
    }

    /// Whether the socket should not be read.
    pub(super) fn is_full(&self) -> bool {
        self.0.load(Ordering::Acquire) >= FULL
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.gate.0.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_wait_until_they_are_let_go() {
        let gate = Arc::new(Gate::default());
        let some = gate.enter(FULL - 1);
        assert!(!gate.is_full());
        let one = gate.enter(1);
        assert!(gate.is_full());
        drop(some);
        assert!(!gate.is_full());
        drop(one);
        assert_eq!(gate.0.load(Ordering::Acquire), 0);
    }
}
