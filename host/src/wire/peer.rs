//! One connection: handshake, keeping alive, and what the peer said about itself.
//!
//! Bytes and time go in; messages for the chain come out, and bytes to send collect in an outbox.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::p2p::ServiceFlags;
use bitcoin::p2p::message_blockdata::Inventory;
use bytes::Bytes;

use super::Moment;
use super::codec::{BlockPiece, HEADER_SIZE, LEGACY_PAYLOAD, RawMessage, WireError};
use super::message::{Message, PayloadError, Version};
use super::transport::{Opening, Transport, TransportError, TransportKind};

mod messages;

/// What holds for every connection.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// Magic of the network.
    pub magic: [u8; 4],
    /// What we call ourselves, BIP14.
    pub user_agent: String,
    /// Random; a peer that shows it to us is ourselves.
    pub nonce: u64,
    /// The oldest protocol version to talk to. 31,800 is the first with `getheaders`, as in Core.
    pub minimum_version: u32,
    /// Services that an outbound peer must all have, beside `NETWORK` or `NETWORK_LIMITED`.
    pub required_services: ServiceFlags,
    /// What we offer. Blocks and transactions are served to nobody, so all that can be in it is version 2 of the transport.
    pub services: ServiceFlags,
    /// From the connection to `verack`. 60 s, as in Core.
    pub handshake_timeout: Duration,
    /// Between two pings. 2 min, as in Core.
    pub ping_interval: Duration,
    /// From a ping to its pong, and the longest silence. 20 min, as in Core.
    pub pong_timeout: Duration,
    /// Whether we want transactions announced.
    pub relay: bool,
    /// See [`Transport::set_verify_blocks`].
    pub verify_block_checksums: bool,
    /// Whether the chain has segregated witness; else transactions are announced by txid alone.
    pub segwit: bool,
    /// Whether messages may have the extended header, with peers of protocol 70,016.
    pub extended_messages: bool,
    /// What `protoconf` says; none is sent without it.
    pub protoconf: Option<u32>,
    /// Bytes of the largest block of the chain.
    pub largest_block: u64,
    /// A block of more bytes comes in pieces.
    pub stream_above: usize,
}

impl PeerConfig {
    /// The defaults, for a network's magic and this process's nonce.
    pub fn new(magic: [u8; 4], nonce: u64) -> PeerConfig {
        PeerConfig {
            magic,
            user_agent: format!("/blockmill:{}/", env!("CARGO_PKG_VERSION")),
            nonce,
            minimum_version: 31_800,
            required_services: ServiceFlags::WITNESS,
            services: ServiceFlags::NONE,
            handshake_timeout: Duration::from_secs(60),
            ping_interval: Duration::from_secs(2 * 60),
            pong_timeout: Duration::from_secs(20 * 60),
            relay: true,
            verify_block_checksums: true,
            segwit: true,
            extended_messages: false,
            protoconf: None,
            largest_block: 0,
            stream_above: usize::MAX,
        }
    }
}

/// What a peer did wrong on its connection.
#[derive(Debug, thiserror::Error)]
pub enum Misbehaviour {
    /// The bytes are no messages.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The encrypted transport is broken, or did not come about.
    #[error(transparent)]
    Transport(TransportError),
    /// A payload cannot be read.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// The peer is this process.
    #[error("connected to ourselves")]
    SelfConnection,
    /// Its protocol is too old.
    #[error("protocol version {0} is too old")]
    OldVersion(u32),
    /// It does not offer what we need.
    #[error("services {0} are not enough")]
    MissingServices(ServiceFlags),
    /// A message that may not come now.
    #[error("{0} out of order")]
    OutOfOrder(&'static str),
    /// No `verack` in time.
    #[error("no handshake in time")]
    HandshakeTimeout,
    /// No `pong` in time.
    #[error("no pong in time")]
    PongTimeout,
    /// No byte in time.
    #[error("silent for too long")]
    Silence,
}

impl From<TransportError> for Misbehaviour {
    fn from(error: TransportError) -> Misbehaviour {
        match error {
            TransportError::Wire(error) => Misbehaviour::Wire(error),
            error => Misbehaviour::Transport(error),
        }
    }
}

/// What a message means to the chain.
#[derive(Debug)]
pub enum PeerStep {
    /// The handshake is done.
    Ready,
    /// A message that the connection itself does not answer.
    Message(Message),
    /// A piece of a block that is too long to be held.
    Piece(BlockPiece),
}

/// How far the handshake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handshake {
    AwaitingVersion,
    AwaitingVerack,
    Done,
}

/// The state of one connection.
#[derive(Debug)]
pub struct Peer {
    config: Arc<PeerConfig>,
    addr: SocketAddr,
    outbound: bool,
    transport: Transport,
    /// We asked for version 2 of the transport.
    asked_for_v2: bool,
    handshake: Handshake,
    /// Our height, said in `version`.
    our_height: u32,
    since: Moment,
    last_received: Moment,
    version: Option<Version>,
    user_agent: String,
    time_offset: i64,
    wtxid_relay: bool,
    send_headers: bool,
    wants_addr_v2: bool,
    fee_filter: u64,
    /// The longest message that the peer takes, where it says so.
    longest_payload: u32,
    early_messages: u32,
    /// The ping under way: its nonce and when it was sent.
    ping: Option<(u64, Moment)>,
    last_ping: Moment,
    pings: u64,
    latency: Option<Duration>,
    bytes_in: u64,
    bytes_out: u64,
    /// Bytes of the last message.
    message_length: usize,
}

impl Peer {
    /// A connection that was just made, with version 1 of the transport; an outbound one begins with our `version`.
    pub fn new(
        config: Arc<PeerConfig>,
        addr: SocketAddr,
        outbound: bool,
        our_height: u32,
        now: Moment,
    ) -> Peer {
        Peer::with_transport(config, addr, outbound, our_height, Opening::V1, now)
    }

    /// The same with a transport that begins so: an outbound connection is version 1 or an initiator.
    pub fn with_transport(
        config: Arc<PeerConfig>,
        addr: SocketAddr,
        outbound: bool,
        our_height: u32,
        opening: Opening,
        now: Moment,
    ) -> Peer {
        let mut peer = Peer {
            transport: Transport::new(config.magic, opening),
            asked_for_v2: matches!(opening, Opening::Initiator(_)),
            config,
            addr,
            outbound,
            handshake: Handshake::AwaitingVersion,
            our_height,
            since: now,
            last_received: now,
            version: None,
            user_agent: String::new(),
            time_offset: 0,
            wtxid_relay: false,
            send_headers: false,
            wants_addr_v2: false,
            fee_filter: 0,
            longest_payload: LEGACY_PAYLOAD,
            early_messages: 0,
            ping: None,
            last_ping: now,
            pings: 0,
            latency: None,
            bytes_in: 0,
            bytes_out: 0,
            message_length: 0,
        };
        peer.transport
            .set_verify_blocks(peer.config.verify_block_checksums);
        peer.transport
            .set_blocks(peer.config.largest_block, peer.config.stream_above);
        if outbound {
            peer.send_version(now);
        }
        peer
    }

    /// Takes bytes as they came from the socket. Then call [`next`](Self::next) until it has nothing.
    pub fn feed(&mut self, bytes: &[u8], now: Moment) {
        self.transport.feed(bytes);
        self.bytes_in = self.bytes_in.saturating_add(bytes.len() as u64);
        self.last_received = now;
    }

    /// The next thing that the bytes say. An error ends the connection.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self, now: Moment) -> Result<Option<PeerStep>, Misbehaviour> {
        loop {
            if self.transport.is_streaming() {
                if self.handshake != Handshake::Done {
                    return Err(Misbehaviour::OutOfOrder("a block before verack"));
                }
                return Ok(self.transport.next_piece().map(PeerStep::Piece));
            }
            let Some(raw) = self.transport.next()? else {
                if self.transport.is_streaming() {
                    continue;
                }
                return Ok(None);
            };
            if let Some(step) = self.handle(raw, now)? {
                return Ok(Some(step));
            }
        }
    }

    /// Nothing is read from the peer because we do not keep up with it: its silence is ours.
    pub fn held_back(&mut self, now: Moment) {
        self.last_received = now;
    }

    /// Takes a message that the caller framed itself, instead of [`feed`](Self::feed) and [`next`](Self::next).
    pub fn receive(
        &mut self,
        raw: RawMessage,
        now: Moment,
    ) -> Result<Option<PeerStep>, Misbehaviour> {
        self.bytes_in = self
            .bytes_in
            .saturating_add((HEADER_SIZE + raw.payload.len()) as u64);
        self.last_received = now;
        self.handle(raw, now)
    }

    /// Sends what is due and says whether the peer is out of time.
    pub fn tick(&mut self, now: Moment) -> Result<(), Misbehaviour> {
        if self.handshake != Handshake::Done {
            return if now.since(self.since) >= self.config.handshake_timeout {
                Err(Misbehaviour::HandshakeTimeout)
            } else {
                Ok(())
            };
        }
        if self.transport.is_streaming() {
            // The pong waits behind the block.
            if let Some((_, sent)) = &mut self.ping {
                *sent = self.last_received;
            }
        }
        if let Some((_, sent)) = self.ping {
            if now.since(sent) >= self.config.pong_timeout {
                return Err(Misbehaviour::PongTimeout);
            }
        } else if now.since(self.last_ping) >= self.config.ping_interval {
            self.send_ping(now);
        }
        if now.since(self.last_received) >= self.config.pong_timeout {
            return Err(Misbehaviour::Silence);
        }
        Ok(())
    }

    /// Puts a message into the outbox.
    pub fn send(&mut self, message: &Message) {
        if self.config.protoconf.is_some() {
            // Such a peer drops whoever sends more than it takes.
            let most = (self.longest_payload as usize).saturating_sub(9) / 36;
            let parts = |list: &[Inventory], of: fn(Vec<Inventory>) -> Message| {
                (list.len() > most && most > 0)
                    .then(|| list.chunks(most).map(|part| of(part.to_vec())).collect())
            };
            let parts: Option<Vec<Message>> = match message {
                Message::GetData(list) => parts(list, Message::GetData),
                Message::NotFound(list) => parts(list, Message::NotFound),
                _ => None,
            };
            if let Some(parts) = parts {
                parts.iter().for_each(|part| self.send(part));
                return;
            }
        }
        self.transport.send(message.command(), message.payload());
    }

    /// Takes the oldest bytes that wait to be sent.
    pub fn pop_outbox(&mut self) -> Option<Bytes> {
        let bytes = self.transport.pop()?;
        self.bytes_out = self.bytes_out.saturating_add(bytes.len() as u64);
        Some(bytes)
    }

    /// Where the peer is.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Whether we connected to it.
    pub fn is_outbound(&self) -> bool {
        self.outbound
    }

    /// The transport; nothing while it is being agreed on.
    pub fn transport(&self) -> Option<TransportKind> {
        self.transport.kind()
    }

    /// The session id of a version 2 transport.
    pub fn session_id(&self) -> Option<[u8; 32]> {
        self.transport.session_id()
    }

    /// Whether we asked for version 2 of the transport and did not get it so far. When such a connection ends, the
    /// peer may be one that knows version 1 only.
    pub fn lacks_v2(&self) -> bool {
        self.asked_for_v2 && self.transport.kind().is_none()
    }

    /// Whether the handshake is done.
    pub fn is_ready(&self) -> bool {
        self.handshake == Handshake::Done
    }

    /// What the peer offers; nothing before its `version`.
    pub fn services(&self) -> ServiceFlags {
        self.version
            .as_ref()
            .map_or(ServiceFlags::NONE, |version| version.services)
    }

    /// Its protocol version; 0 before its `version`.
    pub fn protocol_version(&self) -> u32 {
        self.version.as_ref().map_or(0, |version| version.version)
    }

    /// The software it says it is, printable ASCII only.
    pub fn user_agent(&self) -> &str {
        &self.user_agent
    }

    /// The height it gave in `version`.
    pub fn start_height(&self) -> u32 {
        self.version.as_ref().map_or(0, |version| {
            u32::try_from(version.start_height).unwrap_or(0)
        })
    }

    /// Its clock less ours at the handshake, seconds.
    pub fn time_offset(&self) -> i64 {
        self.time_offset
    }

    /// Whether it announces and serves transactions by wtxid (BIP339).
    pub fn uses_wtxid(&self) -> bool {
        self.wtxid_relay
    }

    /// Whether it asked for new blocks as headers (BIP130).
    pub fn wants_headers(&self) -> bool {
        self.send_headers
    }

    /// Whether it takes addresses of version 2 (BIP155).
    pub fn wants_addr_v2(&self) -> bool {
        self.wants_addr_v2
    }

    /// The lowest fee rate that it wants announced, sat/kvB (BIP133).
    pub fn fee_filter(&self) -> u64 {
        self.fee_filter
    }

    /// The time that its last pong took.
    pub fn latency(&self) -> Option<Duration> {
        self.latency
    }

    /// When the connection was made.
    pub fn since(&self) -> Moment {
        self.since
    }

    /// Bytes received.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in
    }

    /// Bytes that came and are no whole message yet.
    pub fn buffered(&self) -> usize {
        self.transport.buffered()
    }

    /// Bytes of the last message that came, with the header that version 1 of the transport gives it.
    pub fn message_length(&self) -> usize {
        self.message_length
    }

    /// Bytes sent.
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out
    }
}

#[cfg(test)]
mod tests;
