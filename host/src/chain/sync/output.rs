//! What the network machine wants done, and what it says about its peers.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use bitcoin::block::Header;
use bitcoin::p2p::ServiceFlags;
use bitcoin::{BlockHash, Txid, Wtxid};
use bytes::Bytes;

use super::ShortIds;
use super::life::ConnectionKind;
use crate::chain::block_check::{BadBlock, BlockContext};
use crate::chain::header_rules::HeaderError;
use crate::chain::header_tree::TipChange;
use crate::wire::codec::WireError;
use crate::wire::{Misbehaviour, Moment, TransportKind};

/// One connection; chosen by the shell, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u64);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What is known of a block whose pieces begin to come.
#[derive(Clone, Copy, Debug)]
pub struct StreamStart {
    /// Its height.
    pub height: u32,
    /// What its checks need.
    pub context: BlockContext,
    /// Its bytes, all pieces together.
    pub length: u64,
    /// When it was announced, or asked for.
    pub announced_at: Moment,
}

/// What the shell has to do, in this order.
#[derive(Debug)]
pub enum Output {
    /// A piece of a block that is too long to be held. When the last was checked, the shell reports back as for a
    /// [`Block`](Self::Block), or as for a [`BlockAgain`](Self::BlockAgain).
    BlockPiece {
        /// The peer that sends it.
        peer: PeerId,
        /// The hash of its header.
        hash: BlockHash,
        /// With the first piece.
        start: Option<StreamStart>,
        /// The bytes.
        bytes: Bytes,
        /// Nothing comes after it.
        last: bool,
        /// The block was asked for once more.
        again: bool,
    },
    /// The pieces of a block end before it is whole. What came of it is to be forgotten; there is nothing to report.
    StreamBroken {
        /// Its hash.
        hash: BlockHash,
    },
    /// Write these bytes to a peer.
    Send {
        /// To whom.
        peer: PeerId,
        /// One framed message.
        bytes: Bytes,
    },
    /// Close a connection. The machine has forgotten the peer already.
    Disconnect {
        /// Whose.
        peer: PeerId,
        /// Why.
        reason: DropReason,
    },
    /// Connect, then call `connected` or `connect_failed`.
    Connect {
        /// Where to.
        addr: SocketAddr,
        /// The name of a hidden service that `addr` stands for: only a proxy can connect to it.
        name: Option<String>,
    },
    /// Look up a DNS seed, then call `seeded`.
    Resolve {
        /// The seed.
        name: String,
        /// The port of its addresses.
        port: u16,
    },
    /// Headers that are new in the tree, parents first: append them to the headers file.
    Headers(Vec<Header>),
    /// A block that was asked for: check it in its context, then call `block_checked`.
    Block {
        /// From whom.
        peer: PeerId,
        /// Its hash, which its header has.
        hash: BlockHash,
        /// Its height.
        height: u32,
        /// What [`check_block`](crate::chain::check_block) needs.
        context: BlockContext,
        /// The block, serialised.
        raw: Bytes,
        /// When it was first heard of; when it was asked for, if that is long past.
        announced_at: Moment,
    },
    /// Transactions of a compact block: look for them in the pool, then call `compact_found`.
    Compact {
        /// From whom.
        peer: PeerId,
        /// The block's hash.
        hash: BlockHash,
        /// What to look for.
        wanted: ShortIds,
    },
    /// A block that the source has: read it, check it in its context, then call `block_checked`, or `source_lost` if it cannot
    /// be read.
    SourceBlock {
        /// Its hash.
        hash: BlockHash,
        /// Its height.
        height: u32,
        /// Its length in bytes.
        bytes: u32,
        /// What [`check_block`](crate::chain::check_block) needs.
        context: BlockContext,
    },
    /// A block of the active chain that was asked for once more: check it in its context, then call
    /// `block_again_checked`.
    BlockAgain {
        /// Its hash, which its header has.
        hash: BlockHash,
        /// Its height.
        height: u32,
        /// What [`check_block`](crate::chain::check_block) needs.
        context: BlockContext,
        /// The block, serialised.
        raw: Bytes,
    },
    /// The active chain has another tip.
    Tip(TipChange),
    /// A peer announced transactions, whether we want them or not: by txid or wtxid, internal byte order.
    Announced {
        /// The peer.
        peer: PeerId,
        /// At most 1,000 of one message.
        hashes: Vec<[u8; 32]>,
    },
    /// A transaction that was asked for; decoded once, not checked.
    Transaction {
        /// From whom.
        peer: PeerId,
        /// The transaction, serialised.
        raw: Bytes,
        /// Its txid.
        txid: Txid,
        /// Its wtxid.
        wtxid: Wtxid,
    },
    /// For the log and the CSV file.
    Event(PeerEvent),
}

/// Something that happened with a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerEvent {
    /// The peer's address.
    pub addr: SocketAddr,
    /// What: `connected`, `ready`, `disconnected`, `dropped`, `received`, `sent`, …
    pub event: &'static str,
    /// The particulars, printable.
    pub details: String,
}

/// Why a connection was closed by us.
#[derive(Debug, thiserror::Error)]
pub enum DropReason {
    /// It broke the rules of the connection, or ran out of its time.
    #[error(transparent)]
    Misbehaviour(#[from] Misbehaviour),
    /// A header breaks a rule.
    #[error("header {hash}: {error}")]
    BadHeader {
        /// Which.
        hash: BlockHash,
        /// How.
        error: HeaderError,
    },
    /// Headers of one message that do not follow one another.
    #[error("headers that do not follow one another")]
    BrokenHeaders,
    /// Again and again headers whose parents nobody knows.
    #[error("too many headers without a known parent")]
    UnconnectedHeaders,
    /// The second reading of a branch with little work went wrong, or the first did.
    #[error("a branch that was being measured: {0}")]
    Presync(#[from] super::Refusal),
    /// Its headers did not end in the time that all of them may take, and others are there to be asked.
    #[error("its headers did not come to an end in {0:?}")]
    HeadersSyncTimeout(Duration),
    /// It never showed as much work as our tip has, which others did.
    #[error("less work than our chain for {0:?}")]
    Lagging(Duration),
    /// Too many headers that are no part of the best branch.
    #[error("too many headers beside the best branch")]
    HeaderFlood,
    /// It says that it has more, and does not send it.
    #[error("no headers in time")]
    HeadersTimeout,
    /// A bad block.
    #[error("block {hash}: {error}")]
    BadBlock {
        /// Which.
        hash: BlockHash,
        /// How.
        error: BadBlock,
    },
    /// A block message that holds no block header.
    #[error("malformed block")]
    MalformedBlock,
    /// A compact block that is none, or an answer with another number of transactions than was asked for.
    #[error("malformed compact block")]
    MalformedCompactBlock,
    /// A transaction message that holds none.
    #[error("malformed transaction")]
    MalformedTransaction,
    /// Too many blocks that nobody asked for.
    #[error("too many blocks that were not asked for")]
    UnrequestedBlocks,
    /// It held up the download.
    #[error("held up the download for {0:?}")]
    Stalled(Duration),
    /// It sends a large block much slower than another peer would.
    #[error("a large block at {0} bytes a second, where others are faster")]
    SlowStream(u64),
    /// It sent none of the blocks it was asked for.
    #[error("no block in time")]
    BlockTimeout,
    /// It told or asked more than it may.
    #[error("too much that was not asked for")]
    Flooding,
    /// It asks and does not read the answers.
    #[error("does not read what it asks for")]
    DoesNotRead,
    /// It may not connect.
    #[error("banned")]
    Banned,
    /// Its address connects again and again.
    #[error("connects too often")]
    ConnectsTooOften,
    /// There are enough of its address.
    #[error("too many connections of one address")]
    TooManyFromAddress,
    /// All places are taken by better ones.
    #[error("no place for another incoming connection")]
    IncomingFull,
    /// It made room for another that connected.
    #[error("made room for another incoming connection")]
    Evicted,
    /// There is a connection to it.
    #[error("connected to it already")]
    Duplicate,
    /// The connection came about too late, or for something else.
    #[error("no longer needed")]
    NotNeeded,
    /// Somebody is there: that is all that was to be found out.
    #[error("tested")]
    FeelerDone,
    /// It told addresses, or had none, and was connected to for nothing else.
    #[error("asked for addresses")]
    AddressFetchDone,
    /// Its news were the oldest when a peer more was tried.
    #[error("one peer too many, and its news the oldest")]
    TooManyPeers,
    /// The operator said so.
    #[error("by the operator")]
    ByOperator,
    /// The machine slept: nobody knows what the connection is worth.
    #[error("the machine slept for {0:?}")]
    Slept(Duration),
}

impl DropReason {
    /// Whether the peer is to blame, so that it is not connected to again at once.
    pub fn is_fault(&self) -> bool {
        !matches!(
            self,
            DropReason::Slept(_)
                | DropReason::Banned
                | DropReason::ConnectsTooOften
                | DropReason::TooManyFromAddress
                | DropReason::IncomingFull
                | DropReason::Evicted
                | DropReason::Duplicate
                | DropReason::NotNeeded
                | DropReason::FeelerDone
                | DropReason::AddressFetchDone
                | DropReason::TooManyPeers
                | DropReason::ByOperator
        )
    }

    /// Whether it sent a block of 4 GiB or more, which may be a good one.
    pub(super) fn is_huge_block(&self) -> bool {
        matches!(self, DropReason::Misbehaviour(Misbehaviour::Wire(error)) if error.is_huge_block())
    }

    /// Whether no honest peer does so, so that it is banned.
    pub fn is_offence(&self) -> bool {
        match self {
            // Core passes over a message with a wrong checksum, and one that it cannot read: the line may have spoiled
            // the one, and the other may be of a later protocol.
            DropReason::Misbehaviour(Misbehaviour::Wire(WireError::Checksum(_))) => false,
            // Longer than we take: only an extended header can say so, and the block may be good.
            DropReason::Misbehaviour(Misbehaviour::Wire(error)) => !error.is_huge_block(),
            DropReason::Misbehaviour(Misbehaviour::OutOfOrder(_))
            | DropReason::BadHeader { .. }
            | DropReason::BrokenHeaders
            | DropReason::UnconnectedHeaders
            | DropReason::HeaderFlood
            | DropReason::BadBlock { .. }
            | DropReason::MalformedBlock
            | DropReason::MalformedCompactBlock
            | DropReason::UnrequestedBlocks
            | DropReason::Flooding => true,
            // Between two readings of its headers an honest peer may have left a branch.
            DropReason::Presync(refusal) => *refusal != super::Refusal::Changed,
            // Slow, old or full is no crime.
            _ => false,
        }
    }

    /// What the peer offers, where that is not enough.
    pub(super) fn services(&self) -> Option<ServiceFlags> {
        match self {
            DropReason::Misbehaviour(Misbehaviour::MissingServices(services)) => Some(*services),
            _ => None,
        }
    }

    /// Whether the peer is this process.
    pub(super) fn is_ourselves(&self) -> bool {
        matches!(self, DropReason::Misbehaviour(Misbehaviour::SelfConnection))
    }
}

/// A peer, for `status`.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Which connection.
    pub id: PeerId,
    /// Its address.
    pub addr: SocketAddr,
    /// Its address as people write it.
    pub name: String,
    /// What the connection is for.
    pub kind: ConnectionKind,
    /// Whether we connected to it.
    pub outbound: bool,
    /// Whether its handshake is done.
    pub ready: bool,
    /// The software it says it is; printable.
    pub user_agent: String,
    /// Which transport it speaks; nothing while it is being agreed on.
    pub transport: Option<TransportKind>,
    /// The session id of an encrypted transport, as Core shows it.
    pub session_id: Option<[u8; 32]>,
    /// Its protocol version.
    pub version: u32,
    /// What it offers.
    pub services: ServiceFlags,
    /// The height it said at the handshake.
    pub start_height: u32,
    /// The height that it is known to have: of the best header it showed, or else the one it said.
    pub height: u32,
    /// When the connection was made.
    pub since: Moment,
    /// What its last pong took.
    pub latency: Option<Duration>,
    /// Its clock less ours, seconds.
    pub time_offset: i64,
    /// Lowest fee rate that it wants announced, sat/kvB.
    pub fee_filter: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Blocks that it was asked for and has not sent.
    pub inflight: usize,
    /// Blocks that it sent.
    pub blocks: u64,
    /// What is held against it and was not enough to be dropped for: how often it sent more than it may unasked, where it
    /// connected to us (at 100 it is dropped); blocks that nobody asked it for (at 257); messages of headers without a known
    /// parent, one after the other (at 11). Whatever is worse ends the connection at once.
    pub misbehaviour: u32,
    /// Addresses of other peers that were passed over, being too many at once.
    pub addresses_over: u64,
}
