//! What others may know of the network, and ask of it.

use super::super::peer_changes::{Changes, NoAnswer};
use super::{Net, now};
use crate::chain::SourceView;
use crate::chain::sync::bans::{Ban, Subnet};
use crate::chain::sync::book::BookCounts;
use crate::chain::sync::{PeerChange, PeerChangeError, PeerInfo};
use crate::metrics::PeerSample;
use std::sync::{Arc, Mutex, PoisonError};

/// What others may know of the network.
#[derive(Debug, Clone, Default)]
pub struct NetView {
    pub peers: Vec<PeerInfo>,
    /// The bans that hold.
    pub bans: Arc<Vec<(Subnet, Ban)>>,
    /// How full the peer book is.
    pub book: BookCounts,
    pub best_header: u32,
    pub synced: bool,
    /// Why the tip cannot move on with the host as it is set up.
    pub held_up: Option<String>,
    pub reorgs: u64,
    pub source: SourceView,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub peers_dropped: u64,
}

/// The running network, from outside.
pub struct NetHandle {
    pub view: Arc<Mutex<NetView>>,
    pub(super) changes: Changes,
}

impl NetHandle {
    /// Of a network that is not there.
    #[cfg(test)]
    pub(crate) fn unconnected() -> Self {
        Self {
            view: Arc::default(),
            changes: Changes::new().0,
        }
    }

    /// Changes peers as the operator says. Waits for it: not to be called from a task.
    ///
    /// # Errors
    ///
    /// When there is no answer; and within, why nothing was changed.
    pub fn change(&self, change: PeerChange) -> Result<Result<String, PeerChangeError>, NoAnswer> {
        self.changes.ask(change)
    }

    /// What is known now.
    pub fn view(&self) -> NetView {
        self.view
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Net {
    /// The first block of the best branch that cannot be taken, why, and what helps.
    fn held_up(&self) -> Option<String> {
        let height = self.machine.untakable()?;
        let hash = self.machine.tree().best_hash_at(height)?;
        let why = self.untakable.get(&hash)?;
        Some(format!(
            "block {height} cannot be taken: {why}; set chain.longest_transaction higher and restart"
        ))
    }

    pub(super) fn show(&mut self, best_header: u32, synced: bool) {
        let peers: Vec<PeerInfo> = self
            .machine
            .peers()
            .into_iter()
            .filter(|peer| peer.ready)
            .map(|peer| PeerInfo {
                name: self.names.name(peer.addr).unwrap_or(peer.name),
                ..peer
            })
            .collect();
        self.metrics.peers.set(peers.len() as i64);
        let samples = peers.iter().map(sample).collect();
        let bans = self.machine.bans();
        let now = now().secs();
        let over = self.bans.1.iter().any(|(_, ban)| !ban.holds(now));
        if over || self.bans.0 != bans.changes() {
            let holding = bans
                .holding(now)
                .map(|(subnet, ban)| (*subnet, ban.clone()));
            self.bans = (bans.changes(), Arc::new(holding.collect()));
        }
        let book = self.machine.book().counts();
        let counts = [book.new as u64, book.tried as u64];
        let each = &self.metrics.each_peer;
        each.show(samples, self.bans.1.len() as u64, counts);
        let view = NetView {
            peers,
            bans: self.bans.1.clone(),
            book,
            best_header,
            synced,
            held_up: self.held_up(),
            reorgs: self.reorgs,
            source: self.machine.source_view(),
            bytes_in: self.gone.0,
            bytes_out: self.gone.1,
            peers_dropped: self.dropped,
        };
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = view;
    }
}

/// A peer for the metrics.
fn sample(peer: &PeerInfo) -> PeerSample {
    PeerSample {
        addr: peer.name.clone(),
        direction: if peer.outbound { "outbound" } else { "inbound" },
        kind: peer.kind.name(),
        transport: peer.transport.map_or("", |kind| kind.name()),
        latency: peer.latency.map(|latency| latency.as_secs_f64()),
        bytes_in: peer.bytes_in,
        bytes_out: peer.bytes_out,
        blocks: peer.blocks,
        in_flight: peer.inflight as u64,
        misbehaviour: peer.misbehaviour,
    }
}
