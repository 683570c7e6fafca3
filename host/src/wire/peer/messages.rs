//! What each message means to its connection: the handshake in its order, and what is answered at once.

use std::net::SocketAddr;

use bitcoin::p2p::ServiceFlags;

use super::{Handshake, Misbehaviour, Peer, PeerStep};
use crate::wire::Moment;
use crate::wire::codec::{HEADER_SIZE, RawMessage};
use crate::wire::message::{Message, PROTOCOL_VERSION, Version, unspecified};

/// Messages that may come before the handshake is done and are passed over; more than this is no handshake.
pub(super) const MAX_EARLY_MESSAGES: u32 = 64;
/// First protocol version that knows `wtxidrelay` (BIP339).
const WTXID_RELAY_VERSION: u32 = 70_016;
/// First protocol version with the extended header (Bitcoin SV's `EXTENDED_PAYLOAD_VERSION`).
const EXTENDED_VERSION: u32 = 70_016;
/// First protocol version that knows `sendheaders` (BIP130).
const SEND_HEADERS_VERSION: u32 = 70_012;

impl Peer {
    pub(super) fn handle(
        &mut self,
        raw: RawMessage,
        now: Moment,
    ) -> Result<Option<PeerStep>, Misbehaviour> {
        self.message_length = HEADER_SIZE + raw.payload.len();
        // A second one is passed over unread, as Core does.
        if self.version.is_some() && raw.command.as_str() == "version" {
            return Ok(None);
        }
        let message = Message::read(raw)?;
        match self.handshake {
            Handshake::AwaitingVersion => self.handle_version(message, now),
            Handshake::AwaitingVerack => self.handle_negotiation(message, now),
            Handshake::Done => self.handle_ready(message, now),
        }
    }

    fn handle_version(
        &mut self,
        message: Message,
        now: Moment,
    ) -> Result<Option<PeerStep>, Misbehaviour> {
        let Message::Version(version) = message else {
            self.count_early("a message before version")?;
            return Ok(None);
        };
        if version.nonce == self.config.nonce {
            return Err(Misbehaviour::SelfConnection);
        }
        if version.version < self.config.minimum_version {
            return Err(Misbehaviour::OldVersion(version.version));
        }
        let serves_blocks = version.services.has(ServiceFlags::NETWORK)
            || version.services.has(ServiceFlags::NETWORK_LIMITED);
        if self.outbound && !(serves_blocks && version.services.has(self.config.required_services))
        {
            return Err(Misbehaviour::MissingServices(version.services));
        }
        if !self.outbound {
            self.send_version(now);
        }
        self.user_agent = sanitise(&version.user_agent);
        self.time_offset = version
            .timestamp
            .saturating_sub(i64::try_from(now.secs()).unwrap_or(i64::MAX));
        // Both only between version and verack: later they get us disconnected.
        if self.config.segwit && version.version >= WTXID_RELAY_VERSION {
            self.send(&Message::WtxidRelay);
            self.send(&Message::SendAddrV2);
        }
        self.send(&Message::Verack);
        if let Some(length) = self.config.protoconf {
            self.send(&Message::Protoconf(length));
        }
        self.transport
            .set_extended(self.config.extended_messages && version.version >= EXTENDED_VERSION);
        self.version = Some(*version);
        self.handshake = Handshake::AwaitingVerack;
        Ok(None)
    }

    fn handle_negotiation(
        &mut self,
        message: Message,
        now: Moment,
    ) -> Result<Option<PeerStep>, Misbehaviour> {
        match message {
            Message::Verack => {
                self.handshake = Handshake::Done;
                if self.protocol_version() >= SEND_HEADERS_VERSION {
                    self.send(&Message::SendHeaders);
                }
                self.send_ping(now);
                return Ok(Some(PeerStep::Ready));
            }
            Message::WtxidRelay => {
                self.wtxid_relay = self.protocol_version() >= WTXID_RELAY_VERSION
            }
            Message::SendAddrV2 => self.wants_addr_v2 = true,
            Message::SendHeaders => self.send_headers = true,
            Message::FeeFilter(rate) => self.fee_filter = rate,
            Message::Protoconf(length) => self.longest_payload = length,
            Message::Ping(nonce) => self.send(&Message::Pong(nonce)),
            // Some say it before verack, and it counts, as with Core.
            message @ Message::SendCmpct { .. } => return Ok(Some(PeerStep::Message(message))),
            _ => self.count_early("a message before verack")?,
        }
        Ok(None)
    }

    fn handle_ready(
        &mut self,
        message: Message,
        now: Moment,
    ) -> Result<Option<PeerStep>, Misbehaviour> {
        match message {
            Message::WtxidRelay => return Err(Misbehaviour::OutOfOrder("wtxidrelay after verack")),
            Message::SendAddrV2 => return Err(Misbehaviour::OutOfOrder("sendaddrv2 after verack")),
            Message::Verack => {}
            Message::SendHeaders => self.send_headers = true,
            Message::FeeFilter(rate) => self.fee_filter = rate,
            Message::Protoconf(length) => self.longest_payload = length,
            Message::Ping(nonce) => self.send(&Message::Pong(nonce)),
            Message::Pong(nonce) => {
                // A pong with another nonce answers an older ping, or nothing: the one under way still counts.
                if let Some((expected, sent)) = self.ping
                    && expected == nonce
                {
                    self.ping = None;
                    self.latency = Some(now.since(sent));
                }
            }
            other => return Ok(Some(PeerStep::Message(other))),
        }
        Ok(None)
    }

    fn count_early(&mut self, what: &'static str) -> Result<(), Misbehaviour> {
        self.early_messages += 1;
        if self.early_messages > MAX_EARLY_MESSAGES {
            Err(Misbehaviour::OutOfOrder(what))
        } else {
            Ok(())
        }
    }

    pub(super) fn send_version(&mut self, now: Moment) {
        let version = Version {
            version: PROTOCOL_VERSION,
            services: self.config.services,
            timestamp: i64::try_from(now.secs()).unwrap_or(i64::MAX),
            receiver: receiver(self.addr),
            sender: unspecified(self.config.services),
            nonce: self.config.nonce,
            user_agent: self.config.user_agent.clone().into_bytes(),
            start_height: i32::try_from(self.our_height).unwrap_or(i32::MAX),
            relay: self.config.relay,
        };
        self.send(&Message::Version(Box::new(version)));
    }

    pub(super) fn send_ping(&mut self, now: Moment) {
        self.pings += 1;
        let nonce = self.config.nonce.wrapping_add(self.pings);
        self.ping = Some((nonce, now));
        self.last_ping = now;
        self.send(&Message::Ping(nonce));
    }
}

/// The peer's address for a `version` message. One that only stands for a name is nobody's business.
fn receiver(addr: SocketAddr) -> bitcoin::p2p::Address {
    match addr {
        SocketAddr::V6(v6) if v6.ip().is_unique_local() => unspecified(ServiceFlags::NONE),
        _ => bitcoin::p2p::Address::new(&addr, ServiceFlags::NONE),
    }
}

/// What of a user agent may be shown: it goes to logs, terminals and JSON.
fn sanitise(user_agent: &[u8]) -> String {
    user_agent
        .iter()
        .map(|byte| char::from(*byte))
        .filter(|c| c.is_ascii_alphanumeric() || " .,;-_/:?@()+~".contains(*c))
        .collect()
}
