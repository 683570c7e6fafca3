//! Peers, bans and the peer book.

use serde::{Deserialize, Serialize};

/// A peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its address and port.
    pub addr: String,
    /// What it calls itself (BIP14).
    pub user_agent: String,
    /// Its service bits, by their names in Bitcoin Core (`NETWORK`, `WITNESS`, …); unknown ones as `2^n`.
    pub services: Vec<String>,
    /// The highest block it is known to have.
    pub height: u32,
    /// The height that it said at the handshake.
    #[serde(default)]
    pub start_height: u32,
    /// When the connection came about.
    pub since: u64,
    /// `v1` or `v2`, the encrypted transport (BIP324).
    #[serde(default)]
    pub transport: String,
    /// The session id of an encrypted transport, hexadecimal: the same at both ends unless somebody sits between them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// Protocol version.
    #[serde(default)]
    pub version: u32,
    /// Bytes received from it.
    #[serde(default)]
    pub bytes_in: u64,
    /// Bytes sent to it.
    #[serde(default)]
    pub bytes_out: u64,
    /// Milliseconds that the last ping took, once one was answered.
    #[serde(default)]
    pub ping_ms: Option<u64>,
    /// The connection's number, for `peers drop`.
    #[serde(default)]
    pub id: u64,
    /// `outbound`, or `inbound` when the peer connected to us.
    #[serde(default)]
    pub direction: String,
    /// `manual` (named by the configuration or the operator), `full`, `block-only`, `feeler` or `incoming`.
    #[serde(default)]
    pub kind: String,
    /// Blocks that it sent.
    #[serde(default)]
    pub blocks: u64,
    /// Blocks that it was asked for and has not sent.
    #[serde(default)]
    pub in_flight: u64,
    /// Small offences, which have an end: see "Peers" in `docs/operations.md`. Whatever is worse ends the connection at once.
    #[serde(default)]
    pub misbehaviour: u32,
}

/// Peers, bans and the peer book. `GET /api/v1/peers`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peers {
    /// Those that have finished their handshake.
    pub peers: Vec<Peer>,
    /// The bans that hold.
    pub bans: Vec<Ban>,
    /// How full the peer book is.
    pub book: PeerBook,
}

/// A ban.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ban {
    /// An address, or a range such as `192.0.2.0/24`.
    pub subnet: String,
    /// Since when.
    pub since: u64,
    /// Until when; none is for good.
    pub until: Option<u64>,
    /// How often it misbehaved.
    pub offences: u32,
    /// `operator` or `host`.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// How many addresses of peers are known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerBook {
    /// Heard of.
    pub new: u64,
    /// Connected to before.
    pub tried: u64,
}
