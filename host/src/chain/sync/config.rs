//! What the network machine may do, and when.

use std::net::SocketAddr;
use std::time::Duration;

use bitcoin::Work;
use bitcoin::p2p::ServiceFlags;

use super::bans::Ladder;
use super::book::Reach;
use super::transports::TransportPreference;
use crate::network::{Network, Params};
use crate::wire::Entropy;

/// Limits and timers. The defaults are Bitcoin Core's where Core has them.
#[derive(Clone, Debug)]
pub struct SyncConfig {
    /// The peers to connect to, and to connect to again. When there are any, only these.
    pub connect: Vec<SocketAddr>,
    /// Only named peers are connected to, also while none of their names has an address yet.
    pub only_named: bool,
    /// The most of them to be connected to at once, or else of the book's, for everything.
    pub max_outbound: usize,
    /// The most of the book's for blocks alone, beside those.
    pub max_block_only: usize,
    /// Names that have addresses of peers, asked when the book leads to too few. None: nobody is asked.
    pub dns_seeds: Vec<String>,
    /// The mean time between two connections that only test an address.
    pub feeler_interval: Duration,
    /// How long all who ask for addresses hear the same, so that asking again and again does not show the whole book.
    pub address_answer_life: Duration,
    /// While there are fewer full peers than wanted: how long after a question for addresses a peer is asked again.
    pub addresses_again: Duration,
    /// Which networks can be reached.
    pub reach: Reach,
    /// The most connections that others make.
    pub max_incoming: usize,
    /// The most of them of one address.
    pub max_incoming_per_address: usize,
    /// Bytes a second that each may send unasked, half a minute's worth at once.
    pub incoming_rate: u64,
    /// How long who misbehaves is banned.
    pub ban_ladder: Ladder,
    /// What we call ourselves, BIP14.
    pub user_agent: String,
    /// The oldest protocol version to talk to.
    pub minimum_version: u32,
    /// Services that an outbound peer must all have, beside `NETWORK` or `NETWORK_LIMITED`.
    pub required_services: ServiceFlags,
    /// A branch with less work is not downloaded.
    pub minimum_work: Work,
    /// Whether transactions are asked for.
    pub transactions: bool,
    /// Whether a new block is asked for in its compact form, to be filled from the pool (BIP152).
    pub compact_blocks: bool,
    /// Whether the checksums of `block` messages are compared: the merkle root and the witness commitment hash the
    /// same bytes again. Off saves a twelfth of a first sync's work, and a spoiled block is then a mutated one.
    pub verify_block_checksums: bool,
    /// Whether every message makes an [`Output::Event`](super::Output::Event), not only what changes a connection.
    pub message_events: bool,
    /// From the connection to `verack`.
    pub handshake_timeout: Duration,
    /// Between two pings.
    pub ping_interval: Duration,
    /// From a ping to its pong, and the longest silence.
    pub pong_timeout: Duration,
    /// For the answer to `getheaders` of a peer that says it has more than we.
    pub headers_timeout: Duration,
    /// The same for a peer that does not: some send nothing where they have nothing.
    pub headers_quiet: Duration,
    /// For all headers of the first peer that is asked for them, beside a millisecond for each that is expected.
    pub headers_sync_timeout: Duration,
    /// How long a peer that we chose may show less work than our tip has, before it is asked once more and dropped.
    pub lag_timeout: Duration,
    /// Before a peer that had too little work, or less than it claimed, is asked again.
    pub headers_retry: Duration,
    /// Without a new header for so long, all peers are asked again.
    pub stale_tip: Duration,
    /// A best header of this age, at most, means that its branch has no end elsewhere.
    pub recent_tip: Duration,
    /// How long a chain counts as the network's after something better was announced: fetching one block is no outage.
    pub synced_grace: Duration,
    /// How far above the active tip blocks are asked for.
    pub download_window: u32,
    /// How many blocks one peer is asked for at once, to begin with.
    pub blocks_per_peer: usize,
    /// The same for a peer that answers within [`fast_block`](Self::fast_block).
    pub blocks_per_fast_peer: usize,
    /// See [`blocks_per_fast_peer`](Self::blocks_per_fast_peer).
    pub fast_block: Duration,
    /// Bytes of blocks that may wait for [`block_checked`](super::Sync::block_checked), those on their way included.
    pub max_unchecked_bytes: usize,
    /// The same for blocks that are asked for once more: see [`set_refetch`](super::Sync::set_refetch).
    pub max_again_bytes: usize,
    /// A block of more bytes than this is taken in pieces, never held as a whole.
    pub stream_above: usize,
    /// Bytes a second: a block that comes in pieces and slower is taken from another peer, when there is one that has it.
    pub stream_floor: u64,
    /// How long it may be slower.
    pub stream_patience: Duration,
    /// How long a peer may hold up the window, to begin with; doubles with every peer that is dropped for it.
    pub stall_timeout: Duration,
    /// The end of that doubling.
    pub max_stall_timeout: Duration,
    /// How long a peer may deliver none of the blocks it was asked for.
    pub block_timeout: Duration,
    /// How long a transaction is waited for before another peer is asked.
    pub transaction_timeout: Duration,
    /// How many transactions one peer is asked for at once.
    pub transactions_per_peer: usize,
    /// Which transport to speak.
    pub transport: TransportPreference,
    /// Where the secrets of encrypted transports come from.
    pub entropy: Entropy,
    /// For a connection to come about.
    pub connect_timeout: Duration,
    /// Before a lost peer is connected to again, to begin with; doubles.
    pub reconnect_delay: Duration,
    /// The end of that doubling.
    pub max_reconnect_delay: Duration,
    /// A tick that comes so late means that the machine slept.
    pub late_tick: Duration,
}

impl SyncConfig {
    /// The defaults for a network.
    pub fn new(params: &Params) -> SyncConfig {
        SyncConfig {
            connect: Vec::new(),
            only_named: false,
            max_outbound: 8,
            max_block_only: 2,
            dns_seeds: Vec::new(),
            feeler_interval: Duration::from_secs(2 * 60),
            address_answer_life: Duration::from_secs(24 * 60 * 60),
            addresses_again: Duration::from_secs(30 * 60),
            reach: Reach {
                local: params.base == Network::Regtest,
                ..Reach::INTERNET
            },
            max_incoming: 32,
            max_incoming_per_address: 3,
            incoming_rate: 256_000,
            ban_ladder: Ladder {
                first: Duration::from_secs(10 * 60),
                second: Duration::from_secs(24 * 60 * 60),
            },
            user_agent: format!("/blockmill:{}/", env!("CARGO_PKG_VERSION")),
            minimum_version: 31_800,
            required_services: match params.segwit {
                true => ServiceFlags::WITNESS,
                false => ServiceFlags::NONE,
            },
            minimum_work: params.minimum_chain_work,
            transactions: true,
            compact_blocks: true,
            verify_block_checksums: true,
            message_events: false,
            handshake_timeout: Duration::from_secs(60),
            ping_interval: Duration::from_secs(2 * 60),
            pong_timeout: Duration::from_secs(20 * 60),
            headers_timeout: Duration::from_secs(60),
            headers_quiet: Duration::from_secs(5),
            headers_sync_timeout: Duration::from_secs(15 * 60),
            lag_timeout: Duration::from_secs(20 * 60),
            headers_retry: Duration::from_secs(60),
            stale_tip: Duration::from_secs(20 * 60),
            recent_tip: Duration::from_secs(24 * 60 * 60),
            synced_grace: Duration::from_secs(30),
            download_window: 1024,
            blocks_per_peer: 16,
            blocks_per_fast_peer: 128,
            fast_block: Duration::from_millis(500),
            max_unchecked_bytes: 128 << 20,
            max_again_bytes: 16 << 20,
            stream_above: 32_000_000,
            stream_floor: 100_000,
            stream_patience: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(2),
            max_stall_timeout: Duration::from_secs(64),
            block_timeout: Duration::from_secs(120),
            transaction_timeout: Duration::from_secs(60),
            transactions_per_peer: 100,
            transport: TransportPreference::Auto,
            entropy: Entropy::System,
            connect_timeout: Duration::from_secs(30),
            reconnect_delay: Duration::from_secs(1),
            max_reconnect_delay: Duration::from_secs(5 * 60),
            late_tick: Duration::from_secs(30),
        }
    }
}
