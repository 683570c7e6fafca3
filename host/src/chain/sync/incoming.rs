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

/// What of our questions a message may answer, and how many bytes it has.
#[derive(Clone, Copy, Debug)]
pub(super) enum Question {
    None,
    Asked(usize),
    Block {
        bytes: usize,
        /// Blocks that nobody asked for, before.
        unrequested: u32,
    },
    Transaction {
        bytes: usize,
        /// Transactions that the peer was asked for, before.
        in_flight: usize,
    },
    Headers {
        bytes: usize,
        /// When the peer was asked.
        asked: Option<Moment>,
    },
}

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

    /// Counts what came of a peer that connected to us and answers nothing. The message that is still coming waits until
    /// it shows what it is.
    pub(super) fn count_unasked(&mut self, id: PeerId, now: Moment) {
        let rate = self.config.incoming_rate as f64;
        let Some(session) = self.peers.get_mut(&id) else {
            return;
        };
        let waits = session.life.unasked.min(session.peer.buffered());
        let bytes = session.life.unasked - waits;
        session.life.unasked = waits;
        if session.life.kind != ConnectionKind::Incoming {
            return;
        }
        session.life.bytes.refill(rate, rate * BURST, now);
        if !session.life.bytes.take(bytes as f64) {
            // A long one counts for as many as the seconds in which it may have been said.
            let points = (bytes as f64 / rate).clamp(1.0, f64::from(MAX_MISBEHAVIOUR));
            self.misbehaved(id, points as u32, now);
        }
    }

    /// What of our questions `message` may answer, before it is taken.
    pub(super) fn question_of(&self, id: PeerId, message: &Message) -> Question {
        let Some(session) = self.peers.get(&id) else {
            return Question::None;
        };
        let bytes = session.peer.message_length();
        let if_asked = |asked| match asked {
            true => Question::Asked(bytes),
            false => Question::None,
        };
        match message {
            // Only what is there to be taken shows whether it was asked for.
            Message::Block(_) => Question::Block {
                bytes,
                unrequested: session.unrequested_blocks,
            },
            Message::Tx(_) => Question::Transaction {
                bytes,
                in_flight: self.transactions.in_flight_of(id),
            },
            Message::Headers(_) => Question::Headers {
                bytes,
                asked: session.headers_asked,
            },
            Message::CmpctBlock(compact) => {
                let block = self.tree.id(&compact.header.block_hash());
                if_asked(block.is_some_and(|block| session.in_flight.contains(&block)))
            }
            Message::BlockTxn(answer) => {
                let block = self.tree.id(&answer.block_hash);
                let partial = session.partial.as_ref();
                if_asked(
                    block.is_some_and(|block| partial.is_some_and(|partial| partial.is_of(block))),
                )
            }
            _ => Question::None,
        }
    }

    /// The message was taken: if it was asked for, it is not counted.
    pub(super) fn count_answer(&mut self, id: PeerId, question: Question) {
        let in_flight_now = self.transactions.in_flight_of(id);
        let Some(session) = self.peers.get_mut(&id) else {
            return;
        };
        let answered = match question {
            Question::None => return,
            Question::Asked(bytes) => Some(bytes),
            Question::Block { bytes, unrequested } => {
                (session.unrequested_blocks == unrequested).then_some(bytes)
            }
            Question::Transaction { bytes, in_flight } => {
                (in_flight_now < in_flight).then_some(bytes)
            }
            // Where the question still stands, this was something else in between.
            Question::Headers { bytes, asked } => {
                (asked.is_some() && session.headers_asked != asked).then_some(bytes)
            }
        };
        session.life.answered(answered.unwrap_or(0));
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
