//! From the network to the pool: transactions, and who announced which.

use crate::chain::sync::PeerId;
use crate::net::TransactionSink;
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Inputs that may wait; more transactions are dropped, and come again with the next announcement.
const MAX_WAITING: usize = 20_000;
/// Announced hashes that may wait; of more nobody is told.
const MAX_HASHES: usize = 50_000;

/// Something for the pool.
#[derive(Debug)]
pub(super) enum PoolInput {
    /// A transaction that a peer sent.
    Transaction {
        peer: PeerId,
        addr: SocketAddr,
        raw: Bytes,
    },
    /// A peer announced transactions, at `at` in unix milliseconds.
    Announced {
        addr: SocketAddr,
        hashes: Vec<[u8; 32]>,
        at: u64,
    },
}

/// The network's end. A full queue drops.
pub struct PoolQueue {
    inputs: SyncSender<PoolInput>,
    hashes: Arc<AtomicUsize>,
}

/// The pool's end.
pub(super) struct PoolInputs {
    inputs: Receiver<PoolInput>,
    hashes: Arc<AtomicUsize>,
}

pub(super) fn pool_queue() -> (PoolQueue, PoolInputs) {
    let (sender, receiver) = sync_channel(MAX_WAITING);
    let hashes = Arc::new(AtomicUsize::new(0));
    let queue = PoolQueue {
        inputs: sender,
        hashes: hashes.clone(),
    };
    let inputs = PoolInputs {
        inputs: receiver,
        hashes,
    };
    (queue, inputs)
}

impl PoolInputs {
    fn taken(&self, input: PoolInput) -> PoolInput {
        if let PoolInput::Announced { hashes, .. } = &input {
            self.hashes.fetch_sub(hashes.len(), Ordering::Relaxed);
        }
        input
    }

    pub(super) fn recv_timeout(&self, wait: Duration) -> Result<PoolInput, RecvTimeoutError> {
        self.inputs
            .recv_timeout(wait)
            .map(|input| self.taken(input))
    }

    pub(super) fn try_recv(&self) -> Option<PoolInput> {
        self.inputs.try_recv().ok().map(|input| self.taken(input))
    }
}

impl TransactionSink for PoolQueue {
    fn transaction(&mut self, peer: PeerId, addr: SocketAddr, raw: Bytes) -> bool {
        let sent = self
            .inputs
            .try_send(PoolInput::Transaction { peer, addr, raw })
            .is_ok();
        if !sent {
            tracing::debug!("a transaction was dropped: too many wait");
        }
        sent
    }

    fn announced(&mut self, addr: SocketAddr, hashes: Vec<[u8; 32]>) {
        let count = hashes.len();
        if self.hashes.load(Ordering::Relaxed) + count > MAX_HASHES {
            return;
        }
        let at = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |t| t.as_millis() as u64);
        self.hashes.fetch_add(count, Ordering::Relaxed);
        let input = PoolInput::Announced { addr, hashes, at };
        if self.inputs.try_send(input).is_err() {
            self.hashes.fetch_sub(count, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn what_waits_is_bounded_and_announcements_do_not_keep_transactions_out() {
        let (mut queue, inputs) = pool_queue();
        let addr = SocketAddr::from(([127, 0, 0, 1], 1));
        for _ in 0..1_000 {
            queue.announced(addr, vec![[0; 32]; 1_000]);
        }
        let mut taken = 0;
        assert!(queue.transaction(PeerId(1), addr, Bytes::new()));
        while let Some(input) = inputs.try_recv() {
            match input {
                PoolInput::Announced { hashes, .. } => taken += hashes.len(),
                PoolInput::Transaction { .. } => assert_eq!(taken, 50_000),
            }
        }
        assert_eq!(taken, 50_000);
        queue.announced(addr, vec![[0; 32]; 10]);
        assert!(inputs.try_recv().is_some(), "there is room again");
        let sent = (0..30_000).filter(|_| queue.transaction(PeerId(1), addr, Bytes::new()));
        assert_eq!(sent.count(), 20_000);
    }
}
