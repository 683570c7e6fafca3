//! Addresses that peers tell us, and what we tell those who ask.

use std::net::SocketAddr;
use std::time::Duration;

use bitcoin::p2p::ServiceFlags;
use bitcoin::p2p::address::{AddrV2Message, Address};

use super::book::{HEARSAY_PENALTY, NetAddress};
use super::connections::Answer;
use super::life::ConnectionKind;
use super::outgoing::shuffle;
use super::{DropReason, PeerId, Sync};
use crate::wire::Moment;
use crate::wire::message::Message;

/// Addresses a second that are taken of a peer (Core's `MAX_ADDR_RATE_PER_SECOND`), and how many may add up (Core's
/// `MAX_ADDR_PROCESSING_TOKEN_BUCKET`).
const ADDRESSES_PER_SECOND: f64 = 0.1;
const MAX_ADDRESSES_AT_ONCE: f64 = 1_000.0;
/// So many more are taken of a peer that was asked.
const ASKED: f64 = 1_000.0;
/// Whom a DNS seed's name leads to has so long to tell addresses (Core: ten times the mean time between its announcements).
const FETCH_TIME: Duration = Duration::from_secs(5 * 60);
/// A time before this, or after now, is none (as Core).
const FIRST_TIME: u64 = 100_000_000;
const CLOCKS_DIFFER: u64 = 10 * 60;
const AGE_OF_NO_TIME: u64 = 5 * 24 * 60 * 60;

impl Sync {
    /// Asks for addresses.
    pub(super) fn ask_for_addresses(&mut self, id: PeerId, now: Moment) {
        if let Some(session) = self.peers.get_mut(&id) {
            session.life.addresses_asked = Some(now);
            session.life.addresses.grant(ASKED);
            self.send(id, &Message::GetAddr);
        }
    }

    /// While there are fewer peers than wanted, those that are there are asked again now and then; and those that were
    /// connected to for their addresses alone go when they say nothing.
    pub(super) fn tick_addresses(&mut self, now: Moment) {
        let full = self
            .peers
            .values()
            .filter(|session| session.life.kind == ConnectionKind::Full && session.peer.is_ready());
        let short = full.count() < self.config.max_outbound;
        let again = self.config.addresses_again;
        let (mut ask, mut done) = (Vec::new(), Vec::new());
        for (id, session) in &self.peers {
            match session.life.kind {
                ConnectionKind::Full | ConnectionKind::Manual if short => {
                    let asked = session.life.addresses_asked;
                    if asked.is_some_and(|asked| now.since(asked) >= again) {
                        ask.push(*id);
                    }
                }
                ConnectionKind::AddressFetch if now.since(session.peer.since()) >= FETCH_TIME => {
                    done.push(*id);
                }
                _ => {}
            }
        }
        for id in ask {
            self.ask_for_addresses(id, now);
        }
        for id in done {
            self.drop_peer(id, DropReason::AddressFetchDone, now);
        }
    }

    /// `addr`
    pub(super) fn on_addresses(&mut self, id: PeerId, list: &[(u32, Address)], now: Moment) {
        let known = list.iter().map(|(time, address)| {
            let place = NetAddress::from_v1(address);
            (place, address.services, u64::from(*time))
        });
        self.take_addresses(id, known.collect(), now);
    }

    /// `addrv2`
    pub(super) fn on_addresses_v2(&mut self, id: PeerId, list: &[AddrV2Message], now: Moment) {
        let known = list.iter().map(|message| {
            let place = NetAddress::from_v2(message);
            (place, message.services, u64::from(message.time))
        });
        self.take_addresses(id, known.collect(), now);
    }

    fn take_addresses(
        &mut self,
        id: PeerId,
        mut list: Vec<(Option<NetAddress>, ServiceFlags, u64)>,
        now: Moment,
    ) {
        let Some(session) = self.peers.get_mut(&id) else {
            return;
        };
        let from: SocketAddr = session.peer.addr();
        if matches!(
            session.life.kind,
            ConnectionKind::BlockOnly | ConnectionKind::Feeler
        ) || self.config.only_named
            || !self.config.connect.is_empty()
        {
            return;
        }
        let life = &mut session.life;
        life.addresses
            .refill(ADDRESSES_PER_SECOND, MAX_ADDRESSES_AT_ONCE, now);
        // Which of too many are taken is not the peer's choice.
        shuffle(&mut list, &mut self.connections.chance);
        let fetched = life.kind == ConnectionKind::AddressFetch;
        let seed = self.connections.seeds.stand_ins.get(&from);
        let source = match (seed, self.connections.book.get(&from)) {
            (Some(seed), _) if fetched => *seed,
            (_, Some(record)) => record.address.group(),
            (_, None) => NetAddress::ip(from).group(),
        };
        // One address is most likely its own.
        let answer = list.len() > 1;
        let secs = now.secs();
        let mut taken = 0;
        for (address, services, time) in list {
            if !life.addresses.take(1.0) {
                life.addresses_over += 1;
                continue;
            }
            let Some(address) = address.filter(|address| address.is_usable(&self.config.reach))
            else {
                continue;
            };
            let serves =
                services.has(ServiceFlags::NETWORK) || services.has(ServiceFlags::NETWORK_LIMITED);
            let banned = || self.connections.bans.of(address.handle().ip(), secs);
            if !serves || banned().is_some() {
                continue;
            }
            let seen = if time <= FIRST_TIME || time > secs + CLOCKS_DIFFER {
                secs.saturating_sub(AGE_OF_NO_TIME)
            } else {
                time
            };
            let book = &mut self.connections.book;
            taken += usize::from(book.add(address, services, seen, source, HEARSAY_PENALTY, secs));
        }
        if taken > 0 {
            tracing::debug!(peer = %from, new = taken, book = self.connections.book.len(), "addresses");
        }
        if fetched && answer {
            self.drop_peer(id, DropReason::AddressFetchDone, now);
        }
    }

    /// A peer wants addresses. Only who connected to us is told, once: to others the answer would show whom we know.
    pub(super) fn on_get_addresses(&mut self, id: PeerId, now: Moment) {
        let Some(session) = self.peers.get_mut(&id) else {
            return;
        };
        if session.life.kind != ConnectionKind::Incoming || session.life.addresses_told {
            return;
        }
        session.life.addresses_told = true;
        let v2 = session.peer.wants_addr_v2();
        let connections = &mut self.connections;
        if connections
            .answer
            .as_ref()
            .is_none_or(|answer| now >= answer.until)
        {
            let records = connections.book.answer(&mut connections.chance, now.secs());
            let addresses = records.iter().map(|record| {
                let seen = u32::try_from(record.seen).unwrap_or(0);
                (seen, record.services, record.address)
            });
            connections.answer = Some(Answer {
                until: now + self.config.address_answer_life,
                addresses: addresses.collect(),
            });
        }
        let Some(answer) = &connections.answer else {
            return;
        };
        let message = if v2 {
            let list = answer.addresses.iter();
            Message::AddrV2(
                list.map(|(seen, services, address)| address.to_v2(*seen, *services))
                    .collect(),
            )
        } else {
            let list = answer.addresses.iter();
            Message::Addr(
                list.filter_map(|(seen, services, address)| {
                    Some((*seen, address.to_v1(*services)?))
                })
                .collect(),
            )
        };
        self.send(id, &message);
    }
}
