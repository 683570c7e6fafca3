//! Which transport to speak with which peer, and what each took before.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use bitcoin::p2p::ServiceFlags;

use super::book::Record;
use super::{DropReason, PeerId, Sync};
use crate::network::{Network, Params};
use crate::wire::{Moment, Opening, TransportKind};

/// Addresses that are remembered; past that, those heard of longest ago are forgotten.
const MAX_REMEMBERED: usize = 4_096;
/// How long a peer that offers version 2 and did not take it is spoken to in version 1.
const RETRY_V2: Duration = Duration::from_secs(24 * 60 * 60);

/// Which transport to speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TransportPreference {
    /// Like `PreferV2`, but on regtest version 1 with peers of whom nothing is known. There everybody is one's own, and
    /// some test nodes (bcoin) ban whoever opens with a key.
    #[default]
    Auto,
    /// Version 2 with all peers that are not known to lack it, as Core does, and version 1 with those that do not take it.
    PreferV2,
    /// Version 1.
    V1,
    /// Version 2, and no connection without it.
    V2,
}

impl TransportPreference {
    /// Whether version 2 is spoken on this chain, with those who connect to us too.
    fn speaks_v2(self, params: &Params) -> bool {
        match self {
            TransportPreference::V1 => false,
            TransportPreference::PreferV2 | TransportPreference::V2 => true,
            // It is of the chains with segregated witness alone: elsewhere the bit may mean anything.
            TransportPreference::Auto => params.segwit,
        }
    }

    /// What our `version` offers for it, whoever connects to whom and whether we listen or not: as Core with `-v2transport`.
    pub(super) fn services(self, params: &Params) -> ServiceFlags {
        match self.speaks_v2(params) {
            true => ServiceFlags::P2P_V2,
            false => ServiceFlags::NONE,
        }
    }
}

/// What is known of a peer's transports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KnownTransport {
    /// Whether its `version`, or whoever told us of it, said that it speaks version 2.
    pub offers_v2: Option<bool>,
    /// When it was last asked for version 2 and closed the connection, or said no.
    pub refused_v2: Option<Moment>,
}

impl KnownTransport {
    /// What a service field says.
    pub fn of_services(services: ServiceFlags) -> KnownTransport {
        KnownTransport {
            offers_v2: Some(services.has(ServiceFlags::P2P_V2)),
            refused_v2: None,
        }
    }

    /// What the peer book says.
    fn of_record(record: &Record) -> KnownTransport {
        let offers = record.services.has(ServiceFlags::P2P_V2);
        match record.transport {
            Some(TransportKind::V2) => KnownTransport {
                offers_v2: Some(true),
                refused_v2: None,
            },
            Some(TransportKind::V1) => KnownTransport {
                offers_v2: Some(offers),
                refused_v2: offers.then_some(Moment::from_secs(record.good)),
            },
            None if record.services == ServiceFlags::NONE => KnownTransport::default(),
            None => KnownTransport::of_services(record.services),
        }
    }

    /// Which transport to open with; `v2_unasked` is for peers of which nothing is known.
    fn choose(&self, v2_unasked: bool, now: Moment) -> TransportKind {
        let v2 = match (self.offers_v2, self.refused_v2) {
            (Some(true), None) => true,
            // It may have been the network that broke, or a proxy before it that has changed.
            (Some(true), Some(refused)) => now.since(refused) >= RETRY_V2,
            // Another try might be another ban. What it says in `version` will tell when it has learnt.
            (None, Some(_)) | (Some(false), _) => false,
            (None, None) => v2_unasked,
        };
        if v2 {
            TransportKind::V2
        } else {
            TransportKind::V1
        }
    }
}

/// What is known of peers' transports, in memory, by address.
#[derive(Debug, Default)]
pub(super) struct Transports {
    known: HashMap<SocketAddr, (KnownTransport, Moment)>,
}

impl Transports {
    /// What this run has learnt of `addr`.
    pub(super) fn known(&self, addr: SocketAddr) -> Option<KnownTransport> {
        self.known.get(&addr).map(|(known, _)| *known)
    }

    fn update(&mut self, addr: SocketAddr, now: Moment, change: impl FnOnce(&mut KnownTransport)) {
        if self.known.len() >= MAX_REMEMBERED && !self.known.contains_key(&addr) {
            let oldest = self
                .known
                .iter()
                .min_by_key(|(addr, (_, at))| (*at, **addr));
            if let Some(oldest) = oldest.map(|(addr, _)| *addr) {
                self.known.remove(&oldest);
            }
        }
        let (known, at) = self.known.entry(addr).or_default();
        change(known);
        *at = now;
    }

    /// It was asked for version 2 and did not answer the handshake.
    pub(super) fn refused(&mut self, addr: SocketAddr, now: Moment) {
        self.update(addr, now, |known| known.refused_v2 = Some(now));
    }

    /// A connection came about, and its `version` offers this.
    pub(super) fn connected(
        &mut self,
        addr: SocketAddr,
        kind: TransportKind,
        services: ServiceFlags,
        now: Moment,
    ) {
        self.update(addr, now, |known| {
            known.offers_v2 = Some(kind == TransportKind::V2 || services.has(ServiceFlags::P2P_V2));
            if kind == TransportKind::V2 {
                known.refused_v2 = None;
            }
        });
    }
}

impl Sync {
    /// How the connection with `addr` begins.
    pub(super) fn opening(&mut self, addr: SocketAddr, outbound: bool, now: Moment) -> Opening {
        let preference = self.config.transport;
        if !preference.speaks_v2(self.params) {
            return Opening::V1;
        }
        let v2_unasked =
            preference != TransportPreference::Auto || self.params.base != Network::Regtest;
        let insist = preference == TransportPreference::V2;
        let known = self.known_transport(addr);
        if outbound && !insist && known.choose(v2_unasked, now) == TransportKind::V1 {
            return Opening::V1;
        }
        match (self.config.entropy.secret(), outbound, insist) {
            (Some(secret), true, _) => Opening::Initiator(secret),
            (Some(secret), false, true) => Opening::EncryptedResponder(secret),
            (Some(secret), false, false) => Opening::Responder(secret),
            (None, ..) => Opening::V1,
        }
    }

    /// What this run, or else the peer book, knows of a peer's transports.
    fn known_transport(&self, addr: SocketAddr) -> KnownTransport {
        self.transports.known(addr).unwrap_or_else(|| {
            let record = self.connections.book.get(&addr);
            record.map_or(KnownTransport::default(), KnownTransport::of_record)
        })
    }

    /// Remembers what transport a peer took. Version 1 goes into the book only where version 2 was refused: who was not asked for it
    /// is asked next time, if it offers it.
    pub(super) fn note_transport(&mut self, id: PeerId, now: Moment) {
        if let Some(session) = self.peers.get(&id)
            && session.peer.is_outbound()
            && let Some(kind) = session.peer.transport()
        {
            let (addr, services) = (session.peer.addr(), session.peer.services());
            let before = self.known_transport(addr);
            self.transports.update(addr, now, |known| *known = before);
            self.transports.connected(addr, kind, services, now);
            if kind == TransportKind::V2 || before.refused_v2.is_some() {
                self.connections.book.took(&addr, kind);
            }
        }
    }

    /// Whether a peer that is gone (`reason` is ours, if it was we who closed) is to be connected to again at once, with
    /// version 1: it did not take version 2.
    pub(super) fn falls_back(
        &mut self,
        addr: SocketAddr,
        lacked_v2: bool,
        reason: Option<&DropReason>,
        now: Moment,
    ) -> bool {
        let slept = matches!(reason, Some(DropReason::Slept(_)));
        if !lacked_v2 || slept || self.config.transport == TransportPreference::V2 {
            return false;
        }
        self.transports.refused(addr, now);
        true
    }
}

#[cfg(test)]
mod tests;
