//! Which transport to speak with which peer, and what each took before.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use bitcoin::p2p::ServiceFlags;

use super::book::Record;
use super::{DropReason, PeerId, Sync};
use crate::network::Network;
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
        let v2_unasked = match self.config.transport {
            TransportPreference::V1 => return Opening::V1,
            TransportPreference::V2 => true,
            TransportPreference::PreferV2 => true,
            // Version 2 is of the chains with segregated witness alone.
            TransportPreference::Auto => self.params.segwit && self.params.base != Network::Regtest,
        };
        let insist = self.config.transport == TransportPreference::V2;
        let known = self.transports.known(addr).unwrap_or_else(|| {
            let record = self.connections.book.get(&addr);
            record.map_or(KnownTransport::default(), KnownTransport::of_record)
        });
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

    /// Remembers what transport a peer took.
    pub(super) fn note_transport(&mut self, id: PeerId, now: Moment) {
        if let Some(session) = self.peers.get(&id)
            && session.peer.is_outbound()
            && let Some(kind) = session.peer.transport()
        {
            let (addr, services) = (session.peer.addr(), session.peer.services());
            self.transports.connected(addr, kind, services, now);
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
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    const ADDR: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8333);
    const START: Moment = Moment::from_secs(1_700_000_000);
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    #[test]
    fn a_peer_that_refused_and_never_offered_is_not_asked_for_version_2_again() {
        let mut transports = Transports::default();
        let choose = |transports: &Transports, now| {
            transports.known(ADDR).unwrap_or_default().choose(true, now)
        };
        assert_eq!(choose(&transports, START), TransportKind::V2);
        transports.refused(ADDR, START);
        assert_eq!(choose(&transports, START), TransportKind::V1);
        let late = START + DAY * 30;
        assert_eq!(choose(&transports, late), TransportKind::V1);
        // A node that lacks it says so in its version.
        transports.connected(ADDR, TransportKind::V1, ServiceFlags::NETWORK, late);
        assert_eq!(choose(&transports, late + DAY * 30), TransportKind::V1);
        // It was upgraded: its refusal was long ago, and it offers it now.
        transports.connected(ADDR, TransportKind::V1, ServiceFlags::P2P_V2, late);
        assert_eq!(choose(&transports, late), TransportKind::V2);
    }

    #[test]
    fn a_peer_that_refused_what_it_offers_is_asked_again_after_a_day() {
        let mut transports = Transports::default();
        transports.connected(ADDR, TransportKind::V1, ServiceFlags::P2P_V2, START);
        let choose = |transports: &Transports, now| {
            transports
                .known(ADDR)
                .unwrap_or_default()
                .choose(false, now)
        };
        assert_eq!(choose(&transports, START), TransportKind::V2);
        transports.refused(ADDR, START);
        assert_eq!(choose(&transports, START), TransportKind::V1);
        let before = START + (DAY - Duration::from_millis(1));
        assert_eq!(choose(&transports, before), TransportKind::V1);
        assert_eq!(choose(&transports, START + DAY), TransportKind::V2);
        // It took it: the refusal is forgotten.
        transports.connected(ADDR, TransportKind::V2, ServiceFlags::NONE, START);
        assert_eq!(choose(&transports, START), TransportKind::V2);
    }

    #[test]
    fn the_table_forgets_what_it_heard_of_longest_ago() {
        let mut transports = Transports::default();
        let addr = |n: usize| SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 8333));
        for n in 0..=MAX_REMEMBERED {
            transports.refused(addr(n), Moment(n as u64));
        }
        assert_eq!(transports.known.len(), MAX_REMEMBERED);
        assert_eq!(transports.known(addr(0)), None);
        assert!(
            transports
                .known(addr(1))
                .is_some_and(|known| known.refused_v2.is_some())
        );
    }

    fn machine(transport: TransportPreference, network: Network) -> Sync {
        let params = network.params();
        let config = crate::chain::SyncConfig {
            connect: vec![ADDR],
            transport,
            entropy: crate::wire::Entropy::Seeded(1, 0),
            handshake_timeout: Duration::from_secs(60),
            ..crate::chain::SyncConfig::new(params)
        };
        let tree = crate::chain::HeaderTree::new(params);
        Sync::new(config, params, tree, 7, START)
    }

    /// Ticks, and connects if the machine wants to; whether it then opened with version 1 or 2.
    fn dial(sync: &mut Sync, id: u64, now: Moment) -> Option<TransportKind> {
        use super::super::Output;
        sync.tick(now);
        let wants = sync
            .drain()
            .any(|output| matches!(output, Output::Connect { .. }));
        if !wants {
            return None;
        }
        sync.connected(PeerId(id), ADDR, true, now);
        let first = sync.drain().find_map(|output| match output {
            Output::Send { bytes, .. } => Some(bytes),
            _ => None,
        });
        let v1 = first.unwrap().starts_with(&sync.params.magic);
        Some(if v1 {
            TransportKind::V1
        } else {
            TransportKind::V2
        })
    }

    #[test]
    fn a_peer_that_closes_on_a_key_is_connected_to_with_version_1_at_the_next_tick() {
        for network in [Network::Mainnet, Network::Regtest] {
            let mut sync = machine(TransportPreference::PreferV2, network);
            assert_eq!(dial(&mut sync, 1, START), Some(TransportKind::V2));
            sync.disconnected(PeerId(1), START);
            let soon = START + Duration::from_millis(100);
            assert_eq!(dial(&mut sync, 2, soon), Some(TransportKind::V1));
            // Lost again, it is an ordinary peer that waits for its turn.
            sync.disconnected(PeerId(2), soon);
            assert_eq!(dial(&mut sync, 3, soon + Duration::from_millis(100)), None);
            let later = soon + Duration::from_secs(1);
            assert_eq!(dial(&mut sync, 3, later), Some(TransportKind::V1));
        }
    }

    #[test]
    fn a_handshake_that_stops_half_way_is_given_up_in_time_and_tried_in_version_1() {
        let mut sync = machine(TransportPreference::PreferV2, Network::Mainnet);
        assert_eq!(dial(&mut sync, 1, START), Some(TransportKind::V2));
        sync.received(PeerId(1), &[9; 70], START);
        let almost = START + Duration::from_millis(59_999);
        let mut now = START;
        // In steps, so that the machine does not believe that it slept.
        while now < almost {
            now = (now + Duration::from_secs(1)).min(almost);
            sync.tick(now);
        }
        assert!(
            sync.drain()
                .all(|output| !matches!(output, super::super::Output::Disconnect { .. }))
        );
        let end = START + Duration::from_secs(60);
        // The tick that gives it up comes before the one that connects.
        let kind = dial(&mut sync, 2, end).or_else(|| dial(&mut sync, 2, end));
        assert_eq!(kind, Some(TransportKind::V1));
    }

    #[test]
    fn what_is_tried_first_is_as_configured() {
        use TransportPreference::{Auto, PreferV2, V1, V2};
        for (transport, network, first, second) in [
            (Auto, Network::Mainnet, TransportKind::V2, TransportKind::V1),
            (Auto, Network::Regtest, TransportKind::V1, TransportKind::V1),
            (
                PreferV2,
                Network::Regtest,
                TransportKind::V2,
                TransportKind::V1,
            ),
            (V1, Network::Mainnet, TransportKind::V1, TransportKind::V1),
            (V2, Network::Mainnet, TransportKind::V2, TransportKind::V2),
            (V2, Network::Regtest, TransportKind::V2, TransportKind::V2),
        ] {
            let mut sync = machine(transport, network);
            assert_eq!(dial(&mut sync, 1, START), Some(first), "{transport:?}");
            sync.disconnected(PeerId(1), START);
            let later = START + Duration::from_secs(2);
            assert_eq!(dial(&mut sync, 2, later), Some(second), "{transport:?}");
        }
    }

    #[test]
    fn a_sleep_in_the_middle_of_a_handshake_says_nothing_about_the_peer() {
        let mut sync = machine(TransportPreference::PreferV2, Network::Mainnet);
        assert_eq!(dial(&mut sync, 1, START), Some(TransportKind::V2));
        let morning = START + DAY;
        let kind = dial(&mut sync, 2, morning).or_else(|| dial(&mut sync, 2, morning));
        assert_eq!(kind, Some(TransportKind::V2));
    }

    #[test]
    fn who_connects_to_us_chooses_the_version_unless_we_insist() {
        use crate::wire::Transport;
        use crate::wire::message::{Message, PROTOCOL_VERSION, Version, unspecified};
        let version = Message::Version(Box::new(Version {
            version: PROTOCOL_VERSION,
            services: ServiceFlags::NETWORK | ServiceFlags::WITNESS,
            timestamp: 1_700_000_000,
            receiver: unspecified(ServiceFlags::NONE),
            sender: unspecified(ServiceFlags::NONE),
            nonce: 1,
            user_agent: b"/knocker/".to_vec(),
            start_height: 0,
            relay: true,
        }));
        for (preference, v2, taken) in [
            (TransportPreference::Auto, true, true),
            (TransportPreference::Auto, false, true),
            (TransportPreference::V1, true, false),
            (TransportPreference::V1, false, true),
            (TransportPreference::V2, true, true),
            (TransportPreference::V2, false, false),
        ] {
            let mut sync = machine(preference, Network::Regtest);
            let opening = match v2 {
                true => Opening::Initiator(crate::wire::Entropy::Seeded(2, 0).secret().unwrap()),
                false => Opening::V1,
            };
            let mut theirs = Transport::new(sync.params.magic, opening);
            theirs.send("version", version.payload());
            theirs.send("verack", Vec::new());
            sync.connected(PeerId(1), ADDR, false, START);
            for _ in 0..4 {
                while let Some(bytes) = theirs.pop() {
                    sync.received(PeerId(1), &bytes, START);
                }
                for output in sync.drain() {
                    if let super::super::Output::Send { bytes, .. } = output {
                        theirs.feed(&bytes);
                    }
                }
                while let Ok(Some(_)) = theirs.next() {}
            }
            let ready = sync.peers().iter().any(|peer| peer.ready);
            assert_eq!(ready, taken, "{preference:?} {v2}");
            if ready {
                let kind = if v2 {
                    TransportKind::V2
                } else {
                    TransportKind::V1
                };
                assert_eq!(sync.peers()[0].transport, Some(kind));
                assert_eq!(sync.peers()[0].session_id, theirs.session_id());
            }
        }
    }
}
