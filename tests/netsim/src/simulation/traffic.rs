//! Connections, what goes over them, and what the machine wants done.

use std::net::SocketAddr;
use std::time::Duration;

use bitcoin::bip152::ShortId;
use bitcoin::consensus::serialize;
use bitcoin::{BlockHash, Transaction};
use blockmill::chain::sync::{PeerId, PoolVerdict};
use bytes::Bytes;
use rand::RngExt;
use rand::seq::SliceRandom;
use std::hash::Hash;

use super::{Connection, Dropped, Event, SECOND, SEEDED, Simulation};
use crate::host::Wish;
use crate::link::Link;
use crate::node::Act;

impl Simulation {
    /// Does what the machine wants.
    pub(super) fn settle(&mut self) {
        while let Some(wish) = self.host.wish() {
            match wish {
                Wish::Send(peer, bytes) => {
                    (self.now.0, peer.0, &bytes[..]).hash(&mut self.trace);
                    let now = self.now;
                    let Some(connection) = self.connections.get_mut(&peer) else {
                        continue;
                    };
                    let pieces = connection.up.send(&bytes, now, &mut self.scenario.chance);
                    for (at, piece) in pieces {
                        self.at(at, Event::ToNode(peer, piece));
                    }
                }
                Wish::Disconnect(peer, end) => {
                    (self.now.0, peer.0, "disconnect").hash(&mut self.trace);
                    let Some(connection) = self.connections.remove(&peer) else {
                        continue;
                    };
                    self.let_go(peer, &connection, &end);
                    if let Some(kind) = self.kind(connection.node)
                        && end.fault
                    {
                        self.dropped.push(Dropped {
                            kind,
                            reason: end.reason,
                            offence: end.offence,
                        });
                    }
                }
                Wish::Connect(addr) => self.connect(addr),
                Wish::Resolve(name) => self.resolve(&name),
                Wish::Check(peer, hash, context, raw) => {
                    let assembled = self.is_assembled(peer, &hash);
                    let takes = Duration::from_millis(self.chance().random_range(1..20));
                    self.after(takes, Event::Checked(hash, context, raw, assembled));
                }
                Wish::Fill(peer, hash, wanted) => {
                    let found = wanted.ids.iter();
                    let found = found.map(|id| self.payment_of(*id, wanted.keys));
                    let found: Vec<Option<Bytes>> = found.collect();
                    self.compact.filled += found.iter().flatten().count() as u64;
                    self.after(Duration::from_millis(2), Event::Filled(peer, hash, found));
                }
                Wish::Transaction(peer, txid) => {
                    let payment = |(_, payment): &(_, Transaction)| payment.compute_txid() == txid;
                    if self.arrived.insert(txid) && self.payments.iter().any(payment) {
                        let now = self.now;
                        let verdict = PoolVerdict::Taken { peer };
                        self.host.tell(|machine| machine.pool_verdict(verdict, now));
                    }
                }
            }
        }
    }

    /// A payment that came to the host.
    fn payment_of(&self, id: ShortId, keys: (u64, u64)) -> Option<Bytes> {
        let same = |payment: &&Transaction| {
            ShortId::with_siphash_keys(&payment.compute_wtxid(), keys) == id
                && self.arrived.contains(&payment.compute_txid())
        };
        let payments = self.payments.iter().map(|(_, payment)| payment);
        Some(serialize({ payments }.find(same)?).into())
    }

    /// Whether a block of a peer was put together: it did not send all of it.
    fn is_assembled(&self, peer: PeerId, hash: &BlockHash) -> bool {
        let connection = self.connections.get(&peer);
        let node = connection.and_then(|connection| self.scenario.nodes.get(connection.node));
        node.is_some_and(|node| node.compact_sent == Some(*hash))
    }

    /// A DNS seed knows some of the peers, good and bad alike.
    fn resolve(&mut self, name: &str) {
        let listening = self.scenario.nodes.iter().filter(|n| n.calls.is_none());
        let mut addrs: Vec<SocketAddr> = listening.map(|node| node.addr).collect();
        addrs.shuffle(&mut self.scenario.chance);
        addrs.truncate(SEEDED);
        let now = self.now;
        self.host.tell(|machine| machine.seeded(name, &addrs, now));
    }

    /// A connection takes a round trip, or does not come about.
    /// A number for a new connection.
    pub(super) fn next_peer(&mut self) -> PeerId {
        self.next_peer += 1;
        PeerId(self.next_peer)
    }

    fn connect(&mut self, addr: SocketAddr) {
        let peer = self.next_peer();
        let node = self.addresses.get(&addr).copied();
        let latency = node
            .and_then(|node| self.scenario.nodes.get(node))
            .map_or(SECOND * 5, |node| node.latency * 2);
        self.after(latency, Event::Connected(peer, addr));
    }

    pub(super) fn connected(&mut self, peer: PeerId, addr: SocketAddr) {
        let now = self.now;
        let place = self
            .addresses
            .get(&addr)
            .copied()
            .filter(|place| self.is_reachable(*place) && self.asleep.is_none());
        let Some((place, node)) =
            place.and_then(|place| Some((place, self.scenario.nodes.get_mut(place)?)))
        else {
            self.host.tell(|machine| machine.connect_failed(addr, now));
            return;
        };
        let secs = now.secs();
        let acts = node.connected(false, secs, &mut self.scenario.chance);
        let mut link = Link::new(node.latency, node.bandwidth, node.loss);
        link.padding = self.scenario.padding;
        let connection = Connection {
            node: place,
            up: link.clone(),
            down: link,
            incoming: false,
            early: false,
        };
        self.connections.insert(peer, connection);
        self.host
            .tell(|machine| machine.connected(peer, addr, true, now));
        self.perform(peer, acts);
    }

    /// Whether the host can speak to a peer: not while they are in two parts, and not twice at a time.
    fn is_reachable(&self, node: usize) -> bool {
        !self.is_cut_off(node) && self.connections.values().all(|other| other.node != node)
    }

    pub(super) fn deliver(&mut self, peer: PeerId, bytes: &Bytes) {
        let Some(connection) = self.connections.get(&peer) else {
            return;
        };
        let now = self.now.secs();
        let Some(node) = self.scenario.nodes.get_mut(connection.node) else {
            return;
        };
        let acts = node.hear(bytes, &self.world, now, &mut self.scenario.chance);
        self.perform(peer, acts);
    }

    pub(super) fn perform(&mut self, peer: PeerId, acts: Vec<Act>) {
        for act in acts {
            let (bytes, closes) = match act {
                Act::Send(bytes) => (bytes, false),
                Act::SendAndClose(bytes) => (bytes, true),
                Act::Close => (Bytes::new(), true),
            };
            let now = self.now;
            let Some(connection) = self.connections.get_mut(&peer) else {
                return;
            };
            let pieces = connection.down.send(&bytes, now, &mut self.scenario.chance);
            let latency = connection.down.latency;
            let last = pieces.last().map_or(now + latency, |(at, _)| *at);
            for (at, piece) in pieces {
                self.at(at, Event::ToHost(peer, piece));
            }
            if closes {
                self.at(last, Event::Closed(peer));
                return;
            }
        }
    }

    pub(super) fn act(&mut self) {
        let now = self.now.secs();
        let connected: Vec<(PeerId, usize)> = self
            .connections
            .iter()
            .map(|(peer, connection)| (*peer, connection.node))
            .collect();
        for (peer, node) in connected {
            if let Some(node) = self.scenario.nodes.get_mut(node) {
                let acts = node.act(&self.world, now, &mut self.scenario.chance);
                self.perform(peer, acts);
            }
        }
        self.after(SECOND, Event::Act);
    }
}
