//! What peers send that no honest peer would.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bitcoin::Wtxid;
use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use bitcoin::p2p::ServiceFlags;
use bitcoin::p2p::address::Address;
use bitcoin::p2p::message_blockdata::Inventory;
use blockmill::network::Network;
use blockmill::wire::codec;
use blockmill::wire::message::{Locator, Message};
use bytes::Bytes;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{HEADERS, MAGIC, Node, PORT};
use crate::mining;
use crate::world::{Side, World};

impl Node {
    /// The part of its branch with little work that follows what the host says it knows.
    pub(super) fn flood_after(&mut self, locator: &Locator, world: &World) -> Vec<Header> {
        self.grow_flood(world, 0);
        let known = locator
            .hashes
            .iter()
            .find_map(|hash| self.flood.iter().position(|(known, _)| known == hash));
        let start = known.map_or(0, |place| place + 1);
        let rest = self.flood.iter().skip(start);
        rest.take(HEADERS).map(|(_, header)| *header).collect()
    }

    /// Headers that nobody asked for.
    pub(super) fn flooding(&mut self, world: &World, chance: &mut ChaCha8Rng) -> Message {
        self.grow_flood(world, 1 + chance.random::<u64>() % 1_000);
        let first = self.flood.iter().take(HEADERS);
        Message::Headers(first.map(|(_, header)| *header).collect())
    }

    /// Headers from the genesis: many, and yet with less work than the chain.
    fn grow_flood(&mut self, world: &World, salt: u64) {
        if self.flood.is_empty() {
            let genesis = Network::Regtest.params().genesis_header;
            let count = world.height(Side::Main).saturating_sub(200) as usize;
            let number = u64::from(u16::from_be_bytes(match self.addr.ip() {
                IpAddr::V4(ip) => [ip.octets()[0], ip.octets()[1]],
                IpAddr::V6(_) => [0, 0],
            }));
            let headers = mining::headers(&genesis, count, 1 + number + (salt << 16));
            let hashed = headers.into_iter().map(|h| (h.block_hash(), h));
            self.flood = hashed.collect();
        }
    }

    /// A header of tomorrow on top of what it has.
    pub(super) fn tomorrow(&self, world: &World, now: u64) -> Option<Message> {
        let tip = world.at(self.side(world), self.height)?;
        let tomorrow = u32::try_from(now + 86_400).unwrap_or(u32::MAX);
        let root = tip.header.merkle_root;
        Some(Message::Headers(vec![mining::header(
            &tip.header,
            tomorrow,
            root,
        )]))
    }
}

/// Something that was not asked for.
pub(super) fn contrary(question: &Message, world: &World) -> Option<Message> {
    let tip = world.tip(Side::Main)?;
    Some(match question {
        Message::Ping(nonce) => Message::Ping(nonce.wrapping_add(1)),
        Message::GetHeaders(_) => Message::Inv(vec![Inventory::Block(tip.header.block_hash())]),
        Message::GetData(items) => Message::GetData(items.clone()),
        Message::GetAddr => Message::Headers(vec![tip.header]),
        Message::SendHeaders => Message::Block(tip.raw.clone()),
        _ => return None,
    })
}

/// Transactions that do not exist: more than one peer may have waiting.
pub(super) fn phantoms(chance: &mut ChaCha8Rng) -> Message {
    let mut hash: [u8; 32] = chance.random();
    let phantom = |number: u32| {
        if let Some(part) = hash.first_chunk_mut() {
            *part = number.to_le_bytes();
        }
        Inventory::WTx(Wtxid::from_byte_array(hash))
    };
    Message::Inv((0..8_000).map(phantom).collect())
}

/// A list of 2^32 - 1 entries in five bytes.
pub(super) const ENDLESS: [u8; 5] = [0xfe, 0xff, 0xff, 0xff, 0xff];

/// A message that announces more than it may, in version 1 of the transport.
pub(super) fn oversized(chance: &mut ChaCha8Rng) -> Bytes {
    // A list that is too long, or a payload that is longer than any may be.
    let commands = [
        "inv",
        "headers",
        "addr",
        "addrv2",
        "getdata",
        "notfound",
        "cmpctblock",
        "blocktxn",
    ];
    let command = commands
        .get(chance.random_range(0..commands.len()))
        .copied()
        .unwrap_or("inv");
    let frame = codec::encode_frame(MAGIC, command, &ENDLESS);
    if chance.random_range(0..2) == 0 {
        return frame;
    }
    let mut frame = frame.to_vec();
    if let Some(length) = frame.get_mut(16..20) {
        length.copy_from_slice(&u32::MAX.to_le_bytes());
    }
    frame.into()
}

/// An address of nobody.
pub(super) fn address(now: u64, chance: &mut ChaCha8Rng) -> (u32, Address) {
    let ip = Ipv4Addr::from(chance.random::<u32>());
    let addr = SocketAddr::new(IpAddr::V4(ip), PORT);
    let address = Address::new(&addr, ServiceFlags::NETWORK | ServiceFlags::WITNESS);
    (u32::try_from(now).unwrap_or(u32::MAX), address)
}
