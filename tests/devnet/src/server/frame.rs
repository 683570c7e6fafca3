//! Messages in and out of version 1 framing: magic, command (12 bytes), length (u32 LE), checksum, payload.

use std::io::Read;

use anyhow::{Context, Result, bail, ensure};
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::p2p::Magic;
use bitcoin::p2p::message::{NetworkMessage, RawNetworkMessage};

use crate::blockfile::RawBlock;

/// Bytes before the payload.
pub const HEAD_LEN: usize = 24;
/// Longest payload that is taken from a client (Core: `MAX_PROTOCOL_MESSAGE_LENGTH`).
pub const MAX_PAYLOAD: usize = 4_000_000;

/// A whole message.
pub fn encode(magic: Magic, message: NetworkMessage) -> Vec<u8> {
    serialize(&RawNetworkMessage::new(magic, message))
}

/// What goes before the bytes of a block.
pub fn block_head(magic: Magic, block: &RawBlock) -> [u8; HEAD_LEN] {
    let [m0, m1, m2, m3] = magic.to_bytes();
    // A block that does not fit u32 was refused when it was read: its length there is a u32.
    let len = u32::try_from(block.bytes().len()).unwrap_or(u32::MAX);
    let [l0, l1, l2, l3] = len.to_le_bytes();
    let [c0, c1, c2, c3] = block.checksum();
    let [b, l, o, c, k] = *b"block";
    [
        m0, m1, m2, m3, b, l, o, c, k, 0, 0, 0, 0, 0, 0, 0, l0, l1, l2, l3, c0, c1, c2, c3,
    ]
}

/// What the last four bytes of a head are to be.
pub fn checksum(payload: &[u8]) -> [u8; 4] {
    let [a, b, c, d, ..] = sha256d::Hash::hash(payload).to_byte_array();
    [a, b, c, d]
}

/// Reads one message. `None` when the client has gone.
///
/// # Errors
/// When the bytes are not a message of this network.
pub fn read(from: &mut impl Read, magic: Magic) -> Result<Option<NetworkMessage>> {
    let mut message = vec![0_u8; HEAD_LEN];
    if from.read_exact(&mut message).is_err() {
        return Ok(None);
    }
    let Some(([m0, m1, m2, m3], rest)) = message.split_first_chunk::<4>() else {
        bail!("short head")
    };
    ensure!([*m0, *m1, *m2, *m3] == magic.to_bytes(), "wrong magic");
    let length = rest
        .get(12..16)
        .and_then(|bytes| bytes.first_chunk::<4>())
        .context("short head")?;
    let length = usize::try_from(u32::from_le_bytes(*length))?;
    ensure!(length <= MAX_PAYLOAD, "message of {length} bytes");
    message.resize(HEAD_LEN + length, 0);
    let payload = message.get_mut(HEAD_LEN..).context("short message")?;
    if from.read_exact(payload).is_err() {
        return Ok(None);
    }
    let message: RawNetworkMessage = deserialize(&message).context("cannot decode message")?;
    Ok(Some(message.into_payload()))
}
