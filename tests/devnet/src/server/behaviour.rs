//! What a server can be told to do wrong.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Faults of a server, all off by default. Those that concern blocks begin after `honest_blocks` blocks to each client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Behaviour {
    /// Blocks that each client is served faithfully before the faults below begin.
    pub honest_blocks: u64,
    /// `block` messages carry a wrong checksum.
    pub wrong_checksum: bool,
    /// `block` messages begin with another network's magic.
    pub wrong_magic: bool,
    /// `getdata` for blocks is never answered.
    pub stall: bool,
    /// Blocks have their last transactions twice, under the same merkle root (CVE-2012-2459). Blocks whose count of
    /// transactions is a power of two have no such twin and are served as they are.
    pub mutated_block: bool,
    /// `block` messages claim this many bytes, and the connection stays open.
    pub oversized_length: Option<u32>,
    /// The connection is closed in the middle of a block.
    pub disconnect_mid_block: bool,
    /// The last header of a `headers` message misses its target.
    pub bad_pow_header: bool,
    /// `getheaders` is answered with no headers.
    pub empty_headers: bool,
    /// Whoever begins with a key (BIP324) is dropped, and version 2 of the transport is not offered: a node of old.
    pub no_v2: bool,
    /// With `no_v2`: offers it all the same.
    pub claims_v2: bool,
    /// Whoever begins with version 1 is dropped.
    pub only_v2: bool,
    /// A key is answered with half of one and nothing more.
    pub half_handshake: bool,
    /// A key is answered with a key and garbage, as long as the client takes it.
    pub endless_garbage: bool,
    /// Milliseconds that every message is held back. Messages wait side by side, so this takes nothing from the throughput.
    pub latency_ms: u64,
    /// Bytes that are written to each client in a second at most.
    pub bytes_per_second: Option<u32>,
}

impl Behaviour {
    /// [`Behaviour::latency_ms`] as a duration.
    pub fn latency(&self) -> Duration {
        Duration::from_millis(self.latency_ms)
    }

    /// Whether blocks are to be touched after `served` blocks to this client.
    pub fn spoils_blocks(&self, served: u64) -> bool {
        let faulty = self.wrong_checksum
            || self.wrong_magic
            || self.stall
            || self.mutated_block
            || self.oversized_length.is_some()
            || self.disconnect_mid_block;
        faulty && served >= self.honest_blocks
    }
}
