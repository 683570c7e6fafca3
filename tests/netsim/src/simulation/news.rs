//! Blocks and payments, and how the network hears of them.

use std::time::Duration;

use bitcoin::Transaction;
use blockmill::chain::sync::PeerId;
use rand::RngExt;

use super::{Event, Simulation};
use crate::kind::Kind;
use crate::mining;
use crate::world::Side;

/// Time between two payments.
const PAYMENTS: Duration = Duration::from_secs(30);
/// A payment that is so young is in no block yet.
const YOUNG: Duration = Duration::from_secs(10);

/// How many payments are in the blocks of a part: all up to one.
#[derive(Debug, Default)]
pub(super) struct Paid {
    main: usize,
    other: usize,
    /// Payments that nobody heard of before they were in a block.
    hidden: u64,
}

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
            let transactions = self.next_payments(side);
            self.world
                .mine(side, now, &transactions, &mut self.scenario.chance);
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

    /// What is in the next block of a part: what was paid since the last, and now and then what only its miner knew.
    fn next_payments(&mut self, side: Side) -> Vec<Transaction> {
        let now = self.now;
        let paid = match side {
            Side::Main => &mut self.paid.main,
            Side::Other => &mut self.paid.other,
        };
        let due = self.payments.iter().skip(*paid);
        let due = due.take_while(|(since, _)| now.since(*since) >= YOUNG);
        let mut payments: Vec<Transaction> = due.map(|(_, payment)| payment.clone()).collect();
        *paid += payments.len();
        for _ in 0..self.chance().random_range(0..4u32).saturating_sub(1) {
            self.paid.hidden += 1;
            let number = (self.scenario.seed << 32) + (1 << 31) + self.paid.hidden;
            payments.push(mining::payment(number));
        }
        payments
    }

    /// The last block of a part finds its way to each peer of that part.
    fn tell_everybody(&mut self, side: Side) {
        let height = self.world.height(side);
        for place in 0..self.scenario.nodes.len() {
            let hurries = self.kind(place).is_some_and(Kind::spoils_compact);
            let most = if hurries { 300 } else { 8_000 };
            let delay = Duration::from_millis(self.chance().random_range(50..most));
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
        let honest = node.kind.is_honest();
        let acts = node.learn(height, &self.world, &mut self.scenario.chance);
        if let Some(peer) = peer {
            if honest && !acts.is_empty() {
                self.awaited.entry(height).or_insert(self.now);
            }
            self.perform(peer, acts);
        }
    }

    /// How long the host took to the blocks that it has.
    pub(super) fn measure_awaited(&mut self) {
        let (tip, _) = self.host.machine().tip();
        while let Some(block) = self.awaited.first_entry()
            && *block.key() <= tip
        {
            self.slowest = self.slowest.max(self.now.since(block.remove()));
        }
    }

    pub(super) fn pay(&mut self) {
        if !self.trouble {
            return;
        }
        let number = self.payments.len() as u64;
        let seed = self.scenario.seed;
        let payment = mining::payment((seed << 32) + number);
        self.payments.push((self.now, payment));
        for place in 0..self.scenario.nodes.len() {
            let kind = self.kind(place);
            if kind == Some(Kind::Honest) || kind.is_some_and(Kind::spoils_compact) {
                let delay = Duration::from_millis(self.chance().random_range(50..5_000));
                self.after(delay, Event::LearnTransaction(place, number));
            }
        }
        self.after(PAYMENTS, Event::Pay);
    }

    pub(super) fn learn_transaction(&mut self, place: usize, number: u64) {
        let peer = self.peer_of(place);
        let Some((_, payment)) = self.payments.get(number as usize) else {
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
        self.paid.other = self.paid.main;
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
        if self.world.height(Side::Other) > self.world.height(Side::Main) {
            self.paid.main = self.paid.other;
        }
        self.world.heal();
        let height = self.world.height(Side::Main);
        for node in &mut self.scenario.nodes {
            node.height = node.height.min(height);
        }
        self.tell_everybody(Side::Main);
    }
}
