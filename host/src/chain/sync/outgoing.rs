//! Connections that we make to peers of the book: which, for what, and when.
//!
//! As Core: first the anchors, then full peers, then block-only ones, each in a group of its own; then every two minutes
//! or so a feeler, which only sees whether somebody is there. When no block comes for too long, one full peer more is
//! tried, and the one whose news are oldest goes. DNS seeds are asked while the book does not lead to enough peers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use bitcoin::p2p::ServiceFlags;

use super::book::{Group, NetAddress, is_local};
use super::chance::Chance;
use super::connections::Connections;
use super::life::ConnectionKind;
use super::{DropReason, Output, PeerId, Sync};
use crate::chain::header_tree::Id;
use crate::wire::Moment;

/// Between two connections that are begun (Core's loop sleeps as long).
const PACE: Duration = Duration::from_millis(500);
/// Draws from the book for one connection.
const DRAWS: u32 = 100;
/// An address that was tried within this is passed over, for the first draws.
const TRIED_LATELY: u64 = 10 * 60;
/// Those draws.
const PATIENT_DRAWS: u32 = 30;
/// How often it is looked whether the tip is stale (Core's `STALE_CHECK_INTERVAL`).
const STALE_CHECK: Duration = Duration::from_secs(10 * 60);
/// How often it is looked whether there is a peer too many (Core's `EXTRA_PEER_CHECK_INTERVAL`).
const EXTRA_CHECK: Duration = Duration::from_secs(45);
/// A peer has so long to show what it is worth (Core's `MINIMUM_CONNECT_TIME`).
const PROBATION: Duration = Duration::from_secs(30);
/// A block that is news to several peers is so new at most.
const NEWS: Duration = Duration::from_secs(60);
/// Full peers that make DNS seeds needless.
const ENOUGH_PEERS: usize = 2;
/// Seeds that are asked at once.
const SEEDS_AT_ONCE: usize = 3;
/// Before seeds are asked although the book has addresses; with many addresses; after all seeds were asked (as Core).
const SEEDS_WAIT: Duration = Duration::from_secs(11);
const SEEDS_LONG_WAIT: Duration = Duration::from_secs(5 * 60);
const SEEDS_AGAIN: Duration = Duration::from_secs(30 * 60);
/// So many addresses are many.
const MANY_ADDRESSES: usize = 1_000;
/// Seeds say nothing of when they saw an address: some days ago.
const SEEDED_AGE: (u64, usize) = (3 * 24 * 60 * 60, 4 * 24 * 60 * 60);
/// The most addresses that are taken of one seed.
const MAX_SEEDED: usize = 256;

/// A connection that is being made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) kind: ConnectionKind,
    pub(super) since: Moment,
}

/// Since when the tip is the same, and what is done about it.
#[derive(Debug)]
pub(super) struct TipWatch {
    best: Id,
    pub(super) moved: Moment,
    next_check: Moment,
    next_extra_check: Moment,
    /// One full peer more may be connected to.
    extra: bool,
}

impl TipWatch {
    pub(super) fn new(best: Id, now: Moment) -> TipWatch {
        TipWatch {
            best,
            moved: now,
            next_check: now + STALE_CHECK,
            next_extra_check: now + EXTRA_CHECK,
            extra: false,
        }
    }
}

/// Which DNS seeds are still to be asked, and when.
#[derive(Debug, Default)]
pub(super) struct Seeds {
    /// Nothing before the first look.
    due: Option<Moment>,
    left: Vec<String>,
    /// The addresses that stand for names of seeds which only a proxy looks up, and whence what is told there comes.
    pub(super) stand_ins: BTreeMap<SocketAddr, Group>,
}

impl Sync {
    /// A DNS seed had these addresses.
    pub fn seeded(&mut self, name: &str, addrs: &[SocketAddr], now: Moment) {
        let source = Group::of_name(name);
        let services = self.config.required_services | ServiceFlags::NETWORK;
        let (mut taken, now) = (0, now.secs());
        for addr in addrs.iter().take(MAX_SEEDED) {
            let address = NetAddress::ip(*addr);
            if address.is_usable(&self.config.reach) {
                let (least, spread) = SEEDED_AGE;
                let age = least + self.connections.chance.below(spread) as u64;
                let book = &mut self.connections.book;
                taken += usize::from(book.add(
                    address,
                    services,
                    now.saturating_sub(age),
                    source,
                    0,
                    now,
                ));
            }
        }
        tracing::info!(
            seed = name,
            addresses = addrs.len(),
            new = taken,
            "dns seed"
        );
    }

    /// A DNS seed that only a proxy can look up: whoever it connects to under that name is asked for addresses, once, and
    /// let go (Core's address-fetch connections). `addr` stands for the name.
    pub fn ask_seed_by_proxy(&mut self, name: &str, addr: SocketAddr, now: Moment) {
        let there = self.connections.pending.contains_key(&addr)
            || self.addresses.contains(&addr)
            || self.peers.values().any(|s| s.peer.addr() == addr);
        if there || self.only_named() {
            return;
        }
        let (kind, group) = (ConnectionKind::AddressFetch, Group::of_name(name));
        self.connections.seeds.stand_ins.insert(addr, group);
        let pending = Pending { kind, since: now };
        self.connections.pending.insert(addr, pending);
        self.connect(addr);
    }

    pub(super) fn tick_connections(&mut self, now: Moment) {
        for addr in self.addresses.due(self.config.max_outbound, now) {
            self.connections.book.tried(&addr, now.secs());
            self.connect(addr);
        }
        if now >= self.connections.next_tidying {
            self.connections.next_tidying = now + STALE_CHECK;
            self.connections.bans.tidy(now.secs());
        }
        if self.only_named() {
            return;
        }
        let most = self.config.connect_timeout * 2;
        let given_up = |since| now.since(since) >= most;
        self.connections
            .pending
            .retain(|_, pending| !given_up(pending.since));
        self.watch_tip(now);
        self.tick_addresses(now);
        self.ask_seeds(now);
        if now >= self.connections.next_outgoing
            && let Some((address, kind)) = self.next_connection(now)
        {
            self.connections.next_outgoing = now + PACE;
            let handle = address.handle();
            let pending = Pending { kind, since: now };
            self.connections.pending.insert(handle, pending);
            self.connections.book.tried(&handle, now.secs());
            self.connect(handle);
        }
    }

    fn connect(&mut self, addr: SocketAddr) {
        let record = self.connections.book.get(&addr);
        let name = record.and_then(|record| record.address.host_name());
        self.outputs.push_back(Output::Connect { addr, name });
    }

    fn next_connection(&mut self, now: Moment) -> Option<(NetAddress, ConnectionKind)> {
        while let Some((addr, kind)) = self.connections.again.pop() {
            let record = self.connections.book.get(&addr);
            if let Some(address) = record.map(|record| record.address)
                && self.may_connect(&address, now)
            {
                return Some((address, kind));
            }
        }
        let full = self.count(ConnectionKind::Full);
        let block_only = self.count(ConnectionKind::BlockOnly);
        if block_only < self.config.max_block_only {
            while let Some(anchor) = self.connections.anchors.pop() {
                if self.may_connect(&anchor, now) {
                    return Some((anchor, ConnectionKind::BlockOnly));
                }
            }
        }
        let most = self.config.max_outbound + usize::from(self.connections.tip.extra);
        if full < most
            && let Some(address) = self.choose(now)
        {
            return Some((address, ConnectionKind::Full));
        }
        if full >= self.config.max_outbound
            && block_only < self.config.max_block_only
            && let Some(address) = self.choose(now)
        {
            return Some((address, ConnectionKind::BlockOnly));
        }
        if now < self.connections.next_feeler || self.count(ConnectionKind::Feeler) > 0 {
            return None;
        }
        let wait = self.connections.chance.wait(self.config.feeler_interval);
        self.connections.next_feeler = now + wait;
        let address = self.choose_feeler(now)?;
        Some((address, ConnectionKind::Feeler))
    }

    /// Connections of a kind, those that are being made too.
    fn count(&self, kind: ConnectionKind) -> usize {
        let made = self.peers.values().filter(|s| s.life.kind == kind).count();
        let pending = self.connections.pending.values();
        made + pending.filter(|pending| pending.kind == kind).count()
    }

    fn choose(&mut self, now: Moment) -> Option<NetAddress> {
        let taken = self.taken_groups();
        for draw in 0..DRAWS {
            let connections = &mut self.connections;
            let record = connections
                .book
                .select(false, &mut connections.chance, now.secs())?;
            let (address, services) = (record.address, record.services);
            if draw < PATIENT_DRAWS && now.secs().saturating_sub(record.tried) < TRIED_LATELY {
                continue;
            }
            if (!address.is_local() && taken.contains(&address.group()))
                || !self.serves(services)
                || !self.may_connect(&address, now)
            {
                continue;
            }
            return Some(address);
        }
        None
    }

    fn choose_feeler(&mut self, now: Moment) -> Option<NetAddress> {
        for _ in 0..DRAWS {
            let Connections { book, chance, .. } = &mut self.connections;
            let (address, services) = match book.next_test(chance, now.secs()) {
                Some(address) => (address, None),
                None => {
                    let record = book.select(true, chance, now.secs())?;
                    (record.address, Some(record.services))
                }
            };
            // What is of no use to us need not be tested.
            let useful = services.is_none_or(|services| self.serves(services));
            if useful && self.may_connect(&address, now) {
                return Some(address);
            }
        }
        None
    }

    /// Whether nothing speaks against a connection to an address.
    fn may_connect(&self, address: &NetAddress, now: Moment) -> bool {
        let handle = address.handle();
        address.is_usable(&self.config.reach)
            && self.connections.bans.of(handle.ip(), now.secs()).is_none()
            && !self.connections.pending.contains_key(&handle)
            && !self.addresses.contains(&handle)
            && self.peers.values().all(|s| s.peer.addr() != handle)
    }

    fn serves(&self, services: ServiceFlags) -> bool {
        let blocks =
            services.has(ServiceFlags::NETWORK) || services.has(ServiceFlags::NETWORK_LIMITED);
        blocks && services.has(self.config.required_services)
    }

    /// The groups of our outgoing connections. Incoming ones do not count: who makes them chooses where from.
    fn taken_groups(&self) -> BTreeSet<Group> {
        let counts = |kind: ConnectionKind| {
            !matches!(
                kind,
                ConnectionKind::Incoming | ConnectionKind::Feeler | ConnectionKind::AddressFetch
            )
        };
        let made = self
            .peers
            .values()
            .filter(|session| counts(session.life.kind))
            .map(|session| session.peer.addr());
        let pending = self
            .connections
            .pending
            .iter()
            .filter(|(_, pending)| counts(pending.kind))
            .map(|(addr, _)| *addr);
        made.chain(pending)
            .filter(|addr| !is_local(addr.ip()))
            .map(|addr| match self.connections.book.get(&addr) {
                Some(record) => record.address.group(),
                None => NetAddress::ip(addr).group(),
            })
            .collect()
    }

    /// A peer showed a header with the most work that we know of, or a better one than we knew.
    pub(super) fn note_news(&mut self, peer: PeerId, better: bool, now: Moment) {
        let fresh = better || now.since(self.connections.tip.moved) <= NEWS;
        if fresh && let Some(session) = self.peers.get_mut(&peer) {
            session.life.last_news = now;
        }
    }

    fn watch_tip(&mut self, now: Moment) {
        let best = self.tree.best_id();
        let watch = &mut self.connections.tip;
        if watch.best != best {
            watch.best = best;
            watch.moved = now;
            watch.extra = false;
        }
        if now >= watch.next_check {
            watch.next_check = now + STALE_CHECK.min(self.config.stale_tip);
            let stale = now.since(watch.moved) >= self.config.stale_tip
                && self.peers.values().all(|s| s.in_flight.is_empty());
            if stale && !watch.extra {
                tracing::info!(
                    minutes = now.since(watch.moved).as_secs() / 60,
                    "no new block for long: another peer is tried"
                );
            }
            watch.extra = stale;
        }
        if now >= watch.next_extra_check {
            watch.next_extra_check = now + EXTRA_CHECK;
            self.drop_extra_peer(now);
        }
    }

    /// Where there is a full peer too many, the one whose news are oldest goes.
    fn drop_extra_peer(&mut self, now: Moment) {
        let full = self
            .peers
            .iter()
            .filter(|(_, s)| s.life.kind == ConnectionKind::Full && s.peer.is_ready());
        if full.clone().count() <= self.config.max_outbound {
            return;
        }
        let worst = full.min_by_key(|(id, s)| (s.life.last_news, std::cmp::Reverse(**id)));
        if let Some((id, session)) = worst
            && now.since(session.peer.since()) >= PROBATION
            && session.in_flight.is_empty()
        {
            let id = *id;
            self.connections.tip.extra = false;
            self.drop_peer(id, DropReason::TooManyPeers, now);
        }
    }

    fn ask_seeds(&mut self, now: Moment) {
        if self.config.dns_seeds.is_empty() {
            return;
        }
        let addresses = self.connections.book.len();
        let full = self
            .peers
            .values()
            .filter(|s| s.life.kind == ConnectionKind::Full && s.peer.is_ready())
            .count();
        let port = self.params.default_port;
        let seeds = &mut self.connections.seeds;
        let due = *seeds.due.get_or_insert(match addresses {
            0 => now,
            MANY_ADDRESSES.. => now + SEEDS_LONG_WAIT,
            _ => now + SEEDS_WAIT,
        });
        if now < due {
            return;
        }
        if full >= ENOUGH_PEERS {
            seeds.due = Some(now + SEEDS_AGAIN);
            return;
        }
        if seeds.left.is_empty() {
            seeds.left = self.config.dns_seeds.clone();
            shuffle(&mut seeds.left, &mut self.connections.chance);
        }
        for _ in 0..SEEDS_AT_ONCE {
            if let Some(name) = seeds.left.pop() {
                self.outputs.push_back(Output::Resolve { name, port });
            }
        }
        let wait = if seeds.left.is_empty() {
            SEEDS_AGAIN
        } else {
            SEEDS_WAIT
        };
        seeds.due = Some(now + wait);
    }

    /// After a sleep: connections that were being made are forgotten, and nothing is late.
    pub(super) fn reset_outgoing(&mut self, now: Moment) {
        let best = self.tree.best_id();
        let connections = &mut self.connections;
        connections.pending.clear();
        connections.next_outgoing = now;
        connections.next_feeler = now + self.config.feeler_interval;
        connections.tip = TipWatch::new(best, now);
        connections.seeds.due = None;
    }
}

pub(super) fn shuffle<T>(items: &mut [T], chance: &mut Chance) {
    for at in (1..items.len()).rev() {
        items.swap(at, chance.below(at + 1));
    }
}
