//! Blocks and payments, and how the network hears of them.

use std::time::Duration;

use blockmill::chain::sync::PeerId;
use rand::RngExt;

use super::{Event, SECOND, Simulation};
use crate::kind::Kind;
use crate::mining;
use crate::world::Side;

impl Simulation {
    fn peer_of(&self, node: usize) -> Option<PeerId> {
        let connection = self
            .connections
            .iter()
            .find(|(_, other)| other.node == node);
        connection.map(|(peer, _)| *peer)
    }

    pub(super) fn mine(&mut self, side: Side) {
        if side == Side::Other && !self.world.is_split() {
            return;
        }
        if self.trouble {
            let now = self.now.secs();
            self.world.mine(side, now, &mut self.scenario.chance);
            self.tell_everybody(side);
            let mean = self.scenario.spacing.as_secs_f64();
            // Blocks come as they please: an exponential waiting time.
            let chance: f64 = self.chance().random_range(0.001..1.0);
            self.after(
                Duration::from_secs_f64(-mean * chance.ln()),
                Event::Mine(side),
            );
        }
    }

    /// The last block of a part finds its way to each peer of that part.
    fn tell_everybody(&mut self, side: Side) {
        let height = self.world.height(side);
        for place in 0..self.scenario.nodes.len() {
            let delay = Duration::from_millis(self.chance().random_range(50..8_000));
            if self
                .scenario
                .nodes
                .get(place)
                .is_some_and(|node| node.side(&self.world) == side)
            {
                self.after(delay, Event::Learn(place, height, side));
            }
        }
    }

    pub(super) fn learn(&mut self, place: usize, height: u32, side: Side) {
        let peer = self.peer_of(place);
        let Some(node) = self.scenario.nodes.get_mut(place) else {
            return;
        };
        // News of a part that is no more.
        if node.side(&self.world) != side
            || height < node.height
            || height > self.world.height(side)
        {
            return;
        }
        let acts = node.learn(height, &self.world, &mut self.scenario.chance);
        if let Some(peer) = peer {
            self.perform(peer, acts);
        }
    }

    pub(super) fn pay(&mut self) {
        if !self.trouble {
            return;
        }
        let number = self.payments.len() as u64;
        let seed = self.scenario.seed;
        self.payments.push(mining::payment((seed << 32) + number));
        for place in 0..self.scenario.nodes.len() {
            if self.kind(place) == Some(Kind::Honest) {
                let delay = Duration::from_millis(self.chance().random_range(50..5_000));
                self.after(delay, Event::LearnTransaction(place, number));
            }
        }
        self.after(SECOND * 60, Event::Pay);
    }

    pub(super) fn learn_transaction(&mut self, place: usize, number: u64) {
        let peer = self.peer_of(place);
        let Some(payment) = self.payments.get(number as usize) else {
            return;
        };
        let Some(node) = self.scenario.nodes.get_mut(place) else {
            return;
        };
        let acts = node.learn_transaction(payment, &mut self.scenario.chance);
        if let Some(peer) = peer {
            if !acts.is_empty() {
                self.announced.insert(payment.compute_txid());
            }
            self.perform(peer, acts);
        }
    }

    pub(super) fn split(&mut self) {
        self.world.split();
        self.after(self.scenario.spacing, Event::Mine(Side::Other));
        if self.scenario.host_is_split {
            let cut: Vec<PeerId> = self
                .connections
                .iter()
                .filter(|(_, connection)| {
                    self.scenario
                        .nodes
                        .get(connection.node)
                        .is_some_and(|node| node.half == Side::Other)
                })
                .map(|(peer, _)| *peer)
                .collect();
            for peer in cut {
                self.after(Duration::ZERO, Event::Closed(peer));
            }
        }
    }

    pub(super) fn heal(&mut self) {
        self.world.heal();
        let height = self.world.height(Side::Main);
        for node in &mut self.scenario.nodes {
            node.height = node.height.min(height);
        }
        self.tell_everybody(Side::Main);
    }
}
