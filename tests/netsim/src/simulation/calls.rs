//! Connections that peers make to the host: who comes when, who stays, and that there are no more than may be.
//!
//! What has to hold of the machine's eviction with 32 places: up to [`HONEST`](crate::scenario::HONEST) peers, each in a
//! group of its own, that were there before anybody else are never driven out. Twenty places go by merits, in which an
//! attacker may beat them all. Of the twelve others, one at least is then the attacker's, and younger than they; the older
//! half is safe; and of the younger the youngest of the biggest group goes, which is his, or as small as theirs and younger.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use blockmill::chain::sync::{ConnectionKind, PeerId};
use rand::RngExt;

use super::{Connection, Event, Simulation};
use crate::host::End;
use crate::kind::Kind;
use crate::link::Link;
use crate::node::Node;
use crate::scenario::HONEST;
use crate::world::Side;

/// What became of the connections that peers made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Incoming {
    /// How many were made.
    pub calls: u64,
    /// How many were closed at once: too often, too many, no place.
    pub refused: u64,
    /// How many made room for another.
    pub evicted: u64,
    /// The most at once.
    pub most: usize,
    /// How many of them were honest: late ones, which came while others fought for the places.
    pub evicted_honest: u64,
    /// Honest peers that connect to the host, and how many of them were connected at the end.
    pub honest: (usize, usize),
    /// The most honest ones at once that were there before all others.
    pub early: usize,
}

impl Simulation {
    /// The first call of each peer that connects to the host.
    pub(super) fn expect_calls(&mut self) {
        for place in 0..self.scenario.nodes.len() {
            let calls = self.scenario.nodes.get(place).and_then(|node| node.calls);
            if let Some(calls) = calls {
                self.after(calls.first, Event::Call(place));
            }
        }
    }

    /// A peer whose connection is gone comes back, if it is one that connects.
    pub(super) fn call_again(&mut self, place: usize) {
        let Some(calls) = self.scenario.nodes.get(place).and_then(|node| node.calls) else {
            return;
        };
        let (least, most) = calls.pause;
        let pause = Duration::from_millis(self.chance().random_range(least..most));
        let at = self.asleep.unwrap_or(self.now).max(self.now) + pause;
        if at <= self.start + calls.last {
            self.at(at, Event::Call(place));
        }
    }

    /// A peer connects.
    pub(super) fn call(&mut self, place: usize) {
        if self.asleep.is_some() || self.is_cut_off(place) {
            self.call_again(place);
            return;
        }
        let (honest, early) = self.early();
        let is_early = early && honest < HONEST;
        let (now, secs) = (self.now, self.now.secs());
        let Some(node) = self.scenario.nodes.get_mut(place) else {
            return;
        };
        let is_early = is_early && node.kind.is_honest();
        let addr = node.addr;
        let acts = node.connected(true, secs, &mut self.scenario.chance);
        let mut link = Link::new(node.latency, node.bandwidth, node.loss);
        link.padding = self.scenario.padding;
        let peer = self.next_peer();
        let connection = Connection {
            node: place,
            up: link.clone(),
            down: link,
            incoming: true,
            early: is_early,
        };
        self.connections.insert(peer, connection);
        self.incoming.calls += 1;
        self.host
            .tell(|machine| machine.connected(peer, addr, false, now));
        self.perform(peer, acts);
        self.count_incoming();
    }

    /// How many incoming connections are of honest peers that were there before all others, and whether there are no
    /// others so far.
    fn early(&self) -> (usize, bool) {
        let incoming = || self.connections.values().filter(|c| c.incoming);
        let early = incoming().filter(|connection| connection.early).count();
        (early, incoming().count() == early)
    }

    /// Never more than may be, of all and of one address.
    fn count_incoming(&mut self) {
        let peers = self.host.machine().peers();
        let mut owners: BTreeMap<IpAddr, usize> = BTreeMap::new();
        let incoming = peers
            .iter()
            .filter(|peer| peer.kind == ConnectionKind::Incoming);
        for peer in incoming {
            *owners.entry(peer.addr.ip()).or_default() += 1;
        }
        let all: usize = owners.values().sum();
        self.incoming.most = self.incoming.most.max(all);
        self.incoming.early = self.incoming.early.max(self.early().0);
        let same = owners.values().max().copied().unwrap_or(0);
        let (most, most_same) = (self.limits.incoming, self.limits.of_one_address);
        if all > most || same > most_same {
            self.failures.push(format!(
                "{all} incoming peers, {same} of one address: no more than {most} and {most_same} may be"
            ));
        }
    }

    /// The host let go of an incoming connection: early ones only when they did something wrong.
    pub(super) fn let_go(&mut self, peer: PeerId, connection: &Connection, end: &End) {
        if !connection.incoming {
            return;
        }
        self.incoming.refused += u64::from(end.refused);
        if end.evicted {
            self.incoming.evicted += 1;
            let honest = self.kind(connection.node).is_some_and(Kind::is_honest);
            self.incoming.evicted_honest += u64::from(honest);
            if connection.early {
                self.failures.push(format!(
                    "an honest peer that was there before the flood made room (connection {})",
                    peer.0
                ));
            }
        }
        self.call_again(connection.node);
    }

    /// Who is there at the end.
    pub(super) fn count_honest_callers(&mut self) {
        let calls = |node: &&Node| node.calls.is_some() && node.kind.is_honest();
        let there = self.connections.values().filter(|c| c.incoming);
        let there = there.filter_map(|c| self.scenario.nodes.get(c.node));
        let all = self.scenario.nodes.iter().filter(calls).count();
        self.incoming.honest = (all, there.filter(calls).count());
    }

    /// Whether the network is split between the host and a peer.
    pub(super) fn is_cut_off(&self, node: usize) -> bool {
        let node = self.scenario.nodes.get(node);
        self.scenario.host_is_split && node.is_some_and(|n| n.side(&self.world) == Side::Other)
    }
}
