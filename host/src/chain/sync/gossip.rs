//! Addresses that peers tell us, and what we tell those who ask.

use std::net::SocketAddr;
use std::time::Duration;

use bitcoin::p2p::ServiceFlags;
use bitcoin::p2p::address::{AddrV2Message, Address};

use super::book::{HEARSAY_PENALTY, NetAddress};
use super::connections::Answer;
use super::life::ConnectionKind;
use super::outgoing::shuffle;
use super::{PeerId, Sync};
use crate::wire::Moment;
use crate::wire::message::Message;

/// Addresses a second that are taken of a peer (Core's `MAX_ADDR_RATE_PER_SECOND`), and how many may add up (Core's
/// `MAX_ADDR_PROCESSING_TOKEN_BUCKET`).
const ADDRESSES_PER_SECOND: f64 = 0.1;
const MAX_ADDRESSES_AT_ONCE: f64 = 1_000.0;
/// So many more are taken of a peer that was asked.
const ASKED: f64 = 1_000.0;
/// All who ask within this hear the same, so that asking again and again does not show the whole book (as Core).
const ANSWER_HOLDS: Duration = Duration::from_secs(24 * 60 * 60);
/// A time before this, or after now, is none (as Core).
const FIRST_TIME: u64 = 100_000_000;
const CLOCKS_DIFFER: u64 = 10 * 60;
const AGE_OF_NO_TIME: u64 = 5 * 24 * 60 * 60;

impl Sync {
    /// Asks for addresses, once.
    pub(super) fn ask_for_addresses(&mut self, id: PeerId) {
        if let Some(session) = self.peers.get_mut(&id) {
            session.life.addresses.grant(ASKED);
            self.send(id, &Message::GetAddr);
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
        let source = match self.connections.book.get(&from) {
            Some(record) => record.address.group(),
            None => NetAddress::ip(from).group(),
        };
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
                until: now + ANSWER_HOLDS,
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
