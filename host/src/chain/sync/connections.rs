//! Whom we know and whom we are connected to: the state behind `outgoing`, `incoming`, `gossip` and `operator`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bitcoin::p2p::ServiceFlags;

use super::bans::{Bans, Subnet};
use super::book::{Book, BookFile, NetAddress, Place};
use super::chance::Chance;
use super::incoming::Knocks;
use super::life::ConnectionKind;
use super::outgoing::{Pending, Seeds, TipWatch};
use super::{DropReason, PeerId, Sync};
use crate::chain::header_tree::Id;
use crate::wire::Moment;

/// Peers that wait to be connected to again.
const MAX_AGAIN: usize = 16;

/// What is told to peers that ask for addresses, and until when it is the same.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) until: Moment,
    pub(super) addresses: Vec<(u32, ServiceFlags, NetAddress)>,
}

/// See the module's page.
#[derive(Debug)]
pub(super) struct Connections {
    pub(super) secret: u64,
    pub(super) chance: Chance,
    pub(super) book: Book,
    pub(super) bans: Bans,
    /// Connections to peers of the book that are being made.
    pub(super) pending: BTreeMap<SocketAddr, Pending>,
    /// Block-only peers of the last run that were not tried yet.
    pub(super) anchors: Vec<NetAddress>,
    /// Peers of the book that are connected to again at once: in version 1 of the transport, or after a sleep.
    pub(super) again: Vec<(SocketAddr, ConnectionKind)>,
    /// When the next connection to a peer of the book may be begun.
    pub(super) next_outgoing: Moment,
    pub(super) next_feeler: Moment,
    pub(super) tip: TipWatch,
    pub(super) seeds: Seeds,
    pub(super) answer: Option<Answer>,
    pub(super) knocks: Knocks,
    pub(super) next_tidying: Moment,
}

impl Connections {
    pub(super) fn new(seed: u64, best: Id, now: Moment) -> Connections {
        let mut chance = Chance::new(seed, b"connections");
        Connections {
            secret: chance.next(),
            book: Book::new([chance.next(), chance.next()]),
            bans: Bans::default(),
            pending: BTreeMap::new(),
            anchors: Vec::new(),
            again: Vec::new(),
            next_outgoing: now,
            next_feeler: now,
            tip: TipWatch::new(best, now),
            seeds: Seeds::default(),
            answer: None,
            knocks: Knocks::default(),
            next_tidying: now,
            chance,
        }
    }

    /// A peer of the book is connected to again at once, as what it was.
    pub(super) fn again(&mut self, addr: SocketAddr, kind: ConnectionKind) {
        let ours = matches!(kind, ConnectionKind::Full | ConnectionKind::BlockOnly);
        if ours && self.again.len() < MAX_AGAIN {
            self.again.push((addr, kind));
        }
    }
}

impl Sync {
    /// Takes over what was kept of the last run. To be called before anything else.
    pub fn restore_book(&mut self, file: BookFile) {
        self.connections.book = file.book;
        self.connections.bans = file.bans;
        self.connections.anchors = file.anchors;
        self.connections
            .anchors
            .truncate(self.config.max_block_only);
    }

    /// What is to be kept for the next run.
    pub fn book_file(&self) -> Vec<u8> {
        let network = self.params.name;
        let (book, bans) = (&self.connections.book, &self.connections.bans);
        BookFile::encode(network, book, bans, &self.anchors())
    }

    /// The peer book.
    pub fn book(&self) -> &Book {
        &self.connections.book
    }

    /// The bans.
    pub fn bans(&self) -> &Bans {
        &self.connections.bans
    }

    /// The block-only peers, to be connected to first after a restart; while there are none, those of the last run.
    fn anchors(&self) -> Vec<NetAddress> {
        let connected = self.peers.values().filter(|session| {
            session.life.kind == ConnectionKind::BlockOnly && session.peer.is_ready()
        });
        let mut anchors: Vec<NetAddress> = connected
            .filter_map(|session| self.connections.book.get(&session.peer.addr()))
            .map(|record| record.address)
            .collect();
        anchors.extend(&self.connections.anchors);
        anchors.truncate(self.config.max_block_only);
        anchors
    }

    /// What a new connection is for. An error is why it is closed at once.
    pub(super) fn kind_of(
        &mut self,
        addr: SocketAddr,
        outbound: bool,
        now: Moment,
    ) -> Result<ConnectionKind, DropReason> {
        if !outbound {
            self.admit(addr, now)?;
            return Ok(ConnectionKind::Incoming);
        }
        let pending = self.connections.pending.remove(&addr);
        let twice = self
            .peers
            .values()
            .any(|session| session.peer.is_outbound() && session.peer.addr() == addr);
        if twice {
            return Err(DropReason::Duplicate);
        }
        if self.addresses.connected(addr) {
            return Ok(ConnectionKind::Manual);
        }
        match pending {
            Some(pending) => Ok(pending.kind),
            // It came about after we had given it up.
            None => Err(DropReason::NotNeeded),
        }
    }

    /// A connection to an address could not be made.
    pub(super) fn note_failed(&mut self, addr: SocketAddr, now: Moment) {
        self.connections.pending.remove(&addr);
        self.connections
            .book
            .ended(&addr, "no connection", now.secs());
    }

    /// A handshake is done.
    pub(super) fn note_ready(&mut self, id: PeerId, now: Moment) {
        let Some(session) = self.peers.get(&id) else {
            return;
        };
        let (kind, addr) = (session.life.kind, session.peer.addr());
        if kind == ConnectionKind::Incoming {
            return;
        }
        let services = session.peer.services();
        self.connections.book.good(&addr, services, now.secs());
        match kind {
            ConnectionKind::Feeler => self.drop_peer(id, DropReason::FeelerDone, now),
            ConnectionKind::Full | ConnectionKind::AddressFetch => self.ask_for_addresses(id, now),
            ConnectionKind::Manual if !self.only_named() => self.ask_for_addresses(id, now),
            _ => {}
        }
    }

    /// A connection ends, for this reason: the book and the bans hear of it. Before the peer is forgotten.
    pub(super) fn note_ended(&mut self, id: PeerId, reason: Option<&DropReason>, now: Moment) {
        let Some(session) = self.peers.get(&id) else {
            return;
        };
        let (kind, addr) = (session.life.kind, session.peer.addr());
        if kind != ConnectionKind::Incoming {
            let book = &mut self.connections.book;
            if session.peer.is_ready() {
                book.was_there(&addr, now.secs());
            }
            match reason {
                Some(reason) => book.ended(&addr, &reason.to_string(), now.secs()),
                None => book.ended(&addr, "closed by the peer", now.secs()),
            }
            match reason.and_then(DropReason::services) {
                Some(services) => book.offers(&addr, services),
                None if reason.is_some_and(DropReason::is_ourselves) => book.forget(&addr),
                None => {}
            }
        }
        let Some(reason) = reason.filter(|reason| reason.is_offence()) else {
            return;
        };
        // As Core: who was named stays welcome, and behind loopback anybody may be (a Tor service of ours).
        let hidden = self
            .connections
            .book
            .get(&addr)
            .is_some_and(|record| record.address.host_name().is_some());
        // The name of a seed leads to somebody else the next time.
        let spared = matches!(kind, ConnectionKind::Manual | ConnectionKind::AddressFetch)
            || hidden
            || (super::book::is_local(addr.ip()) && !self.config.reach.local);
        if spared {
            return;
        }
        let ladder = self.config.ban_ladder;
        let text = reason.to_string();
        let ban = self
            .connections
            .bans
            .offence(addr.ip(), &text, &ladder, now.secs());
        let until = match ban.until {
            Some(until) => format!("for {} s", until.saturating_sub(now.secs())),
            None => "for good".to_owned(),
        };
        tracing::info!(ip = %addr.ip(), offences = ban.offences, reason = text, until, "banned");
        self.event(addr, "banned", format!("{until}: {text}"));
        let owner = Subnet::of_owner(addr.ip());
        let others: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(other, session)| {
                **other != id
                    && session.life.kind == ConnectionKind::Incoming
                    && owner.contains(session.peer.addr().ip())
            })
            .map(|(other, _)| *other)
            .collect();
        for other in others {
            self.drop_peer(other, DropReason::Banned, now);
        }
    }

    /// The address as people write it: a hidden service by its name.
    pub(super) fn shown(&self, addr: SocketAddr) -> String {
        let record = self.connections.book.get(&addr);
        record.map_or_else(|| addr.to_string(), |record| record.address.to_string())
    }

    /// Whether only named peers are connected to.
    pub(super) fn only_named(&self) -> bool {
        self.config.only_named || !self.config.connect.is_empty()
    }

    /// The addresses of the book that are pinned, for those who ask what became of them.
    pub fn pinned(&self) -> impl Iterator<Item = &super::book::Record> {
        let records = self.connections.book.records();
        records.filter(|record| record.place == Place::Pinned)
    }
}
