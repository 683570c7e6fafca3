//! Connections that others make: how many, from where, how often, and how much they may say unasked.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use bitcoin::hashes::siphash24;

use super::bans::Subnet;
use super::book::group_of_ip;
use super::eviction::{self, Candidate};
use super::life::{Allowance, ConnectionKind};
use super::{DropReason, PeerId, Sync};
use crate::wire::Moment;
use crate::wire::message::Message;

/// Connections that one address may make at once, and how many a second it may make after that.
const CONNECTIONS: f64 = 10.0;
const CONNECTIONS_PER_SECOND: f64 = 0.1;
/// Addresses whose connections are counted.
const MAX_COUNTED: usize = 4_096;
/// Seconds of the rate that a peer may use at once.
pub(super) const BURST: f64 = 30.0;
/// Small offences until a peer is dropped.
const MAX_MISBEHAVIOUR: u32 = 100;

/// How often addresses connect to us.
#[derive(Debug, Default)]
pub(super) struct Knocks(BTreeMap<Subnet, Allowance>);

impl Knocks {
    fn allowed(&mut self, ip: IpAddr, now: Moment) -> bool {
        if self.0.len() >= MAX_COUNTED {
            self.0.retain(|_, allowance| {
                allowance.refill(CONNECTIONS_PER_SECOND, CONNECTIONS, now);
                !allowance.is_full(CONNECTIONS)
            });
        }
        let owner = Subnet::of_owner(ip);
        // So many at once are an attack: those we know of may still come.
        if self.0.len() >= MAX_COUNTED && !self.0.contains_key(&owner) {
            return false;
        }
        let allowance = self
            .0
            .entry(owner)
            .or_insert_with(|| Allowance::new(CONNECTIONS, now));
        allowance.refill(CONNECTIONS_PER_SECOND, CONNECTIONS, now);
        allowance.take(1.0)
    }
}

impl Sync {
    /// Whether a peer that connected may stay; somebody else may have to go for it.
    pub(super) fn admit(&mut self, addr: SocketAddr, now: Moment) -> Result<(), DropReason> {
        let ip = addr.ip();
        if self.connections.bans.of(ip, now.secs()).is_some() {
            return Err(DropReason::Banned);
        }
        if !self.connections.knocks.allowed(ip, now) {
            return Err(DropReason::ConnectsTooOften);
        }
        let owner = Subnet::of_owner(ip);
        let incoming = self
            .peers
            .values()
            .filter(|session| session.life.kind == ConnectionKind::Incoming);
        let (mut all, mut same) = (0, 0);
        for session in incoming {
            all += 1;
            same += usize::from(owner.contains(session.peer.addr().ip()));
        }
        if same >= self.config.max_incoming_per_address {
            return Err(DropReason::TooManyFromAddress);
        }
        if all >= self.config.max_incoming {
            match eviction::choose(self.incoming_candidates()) {
                Some(id) => self.drop_peer(id, DropReason::Evicted, now),
                None => return Err(DropReason::IncomingFull),
            }
        }
        Ok(())
    }

    fn incoming_candidates(&self) -> Vec<Candidate> {
        let incoming = self
            .peers
            .iter()
            .filter(|(_, session)| session.life.kind == ConnectionKind::Incoming);
        incoming
            .map(|(id, session)| {
                let group = group_of_ip(session.peer.addr().ip());
                Candidate {
                    id: *id,
                    group,
                    keyed_group: siphash24::Hash::hash_to_u64_with_keys(
                        self.connections.secret,
                        1,
                        group.bytes(),
                    ),
                    since: session.peer.since(),
                    latency: session.peer.latency(),
                    last_transaction: session.life.last_transaction,
                    last_block: session.life.last_block,
                }
            })
            .collect()
    }

    /// Counts bytes of a peer that connected to us.
    pub(super) fn count_bytes(&mut self, id: PeerId, bytes: usize, now: Moment) {
        let rate = self.config.incoming_rate as f64;
        let Some(session) = self.peers.get_mut(&id) else {
            return;
        };
        // What we asked for may be as big as it is.
        if session.life.kind != ConnectionKind::Incoming || !session.in_flight.is_empty() {
            return;
        }
        session.life.bytes.refill(rate, rate * BURST, now);
        if !session.life.bytes.take(bytes as f64) {
            self.misbehaved(id, 1, now);
        }
    }

    /// Remembers what a peer is good for.
    pub(super) fn count_message(&mut self, id: PeerId, message: &Message, now: Moment) {
        let Some(session) = self.peers.get_mut(&id) else {
            return;
        };
        let life = &mut session.life;
        match message {
            Message::Block(_) => {
                life.blocks += 1;
                life.last_block = now;
            }
            Message::Tx(_) => life.last_transaction = now,
            _ => {}
        }
    }

    /// Adds up small offences.
    fn misbehaved(&mut self, id: PeerId, points: u32, now: Moment) {
        let Some(session) = self.peers.get_mut(&id) else {
            return;
        };
        session.life.misbehaviour = session.life.misbehaviour.saturating_add(points);
        if session.life.misbehaviour >= MAX_MISBEHAVIOUR {
            self.drop_peer(id, DropReason::Flooding, now);
        }
    }
}
