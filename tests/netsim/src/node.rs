//! A peer of the host: what it knows, how it answers, and what it does wrong.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bitcoin::block::Header;
use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::p2p::ServiceFlags;
use bitcoin::p2p::address::Address;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{Transaction, Wtxid};
use blockmill::network::Network;
use blockmill::wire::message::{Locator, Message, PROTOCOL_VERSION, Version, unspecified};
use blockmill::wire::{Decoder, codec};
use bytes::Bytes;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::mining;
use crate::world::{Side, World};

/// The magic of the simulated network.
pub const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];
/// Headers in one message.
const HEADERS: usize = 2_000;

/// What a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Does what it should, on a good line.
    Honest,
    /// Does what it should, on a bad line.
    Slow,
    /// Answers no question for blocks.
    Staller,
    /// Sends two kilobytes a second.
    Crawler,
    /// Says that it has a million blocks more, and shows none.
    Boaster,
    /// Says that it has nothing, and shows all of it when asked.
    Understater,
    /// Sends long branches with little work, asked or not.
    Flooder,
    /// Sends blocks that are not what their header says.
    Mutator,
    /// Spoils the checksum of a message now and then.
    Spoiler,
    /// Sends messages with more entries than there may be.
    Oversizer,
    /// Sends addresses without end.
    Gossip,
    /// Announces transactions that do not exist, without end.
    Announcer,
    /// Closes the connection in the middle of a message.
    Vanisher,
    /// Answers every question with something else.
    Contrarian,
    /// Its clock is off by hours, and it shows headers of tomorrow.
    Skewed,
}

impl Kind {
    /// All that are not honest.
    pub const BAD: [Kind; 13] = [
        Kind::Staller,
        Kind::Crawler,
        Kind::Boaster,
        Kind::Flooder,
        Kind::Mutator,
        Kind::Spoiler,
        Kind::Oversizer,
        Kind::Gossip,
        Kind::Announcer,
        Kind::Vanisher,
        Kind::Contrarian,
        Kind::Skewed,
        Kind::Understater,
    ];

    /// Whether the host has no reason to drop it.
    pub fn is_honest(self) -> bool {
        matches!(self, Kind::Honest | Kind::Slow)
    }
}

/// What a peer does with its connection.
pub enum Act {
    /// Sends these bytes.
    Send(Bytes),
    /// Closes the connection once these bytes are through.
    SendAndClose(Bytes),
}

/// A peer.
pub struct Node {
    /// Where it is.
    pub addr: SocketAddr,
    /// What it is.
    pub kind: Kind,
    /// Where it is while the network is split.
    pub half: Side,
    /// Height of the block that it last heard of.
    pub height: u32,
    /// Of its line, either way.
    pub latency: Duration,
    /// Bytes a second.
    pub bandwidth: u64,
    /// One lost piece in so many.
    pub loss: u32,
    /// Transactions that it can send.
    pub pool: BTreeMap<[u8; 32], Transaction>,
    /// Its branch with little work.
    flood: Vec<Header>,
    decoder: Decoder,
    ready: bool,
    /// The host wants transactions on this connection.
    relay: bool,
    /// Messages sent on this connection.
    sent: u32,
}

impl Node {
    /// Peer number `number`; each in a network of its own.
    pub fn new(number: u16, kind: Kind, chance: &mut ChaCha8Rng) -> Node {
        let [high, low] = number.to_be_bytes();
        let slow = kind == Kind::Slow;
        let half = match chance.random_range(0..2) {
            0 => Side::Main,
            _ => Side::Other,
        };
        Node {
            addr: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(60 + high, low, 7, 9)), 18_444),
            kind,
            half,
            height: 0,
            latency: Duration::from_millis(chance.random_range(10..if slow { 900 } else { 200 })),
            bandwidth: match kind {
                Kind::Crawler => 2_000,
                Kind::Slow => chance.random_range(60_000..200_000),
                _ => chance.random_range(1_000_000..20_000_000),
            },
            loss: if slow { 20 } else { 400 },
            pool: BTreeMap::new(),
            flood: Vec::new(),
            decoder: Decoder::new(MAGIC),
            ready: false,
            relay: false,
            sent: 0,
        }
    }

    /// The part of the network that it is in.
    pub fn side(&self, world: &World) -> Side {
        match world.is_split() {
            true => self.half,
            false => Side::Main,
        }
    }

    /// A connection begins; the host speaks first.
    pub fn connected(&mut self) {
        self.decoder = Decoder::new(MAGIC);
        self.ready = false;
        self.relay = false;
        self.sent = 0;
    }

    /// Bytes from the host.
    pub fn hear(
        &mut self,
        bytes: &[u8],
        world: &World,
        now: u64,
        chance: &mut ChaCha8Rng,
    ) -> Vec<Act> {
        self.decoder.feed(bytes);
        let mut answers = Vec::new();
        while let Ok(Some(raw)) = self.decoder.next() {
            if let Ok(message) = Message::read(raw) {
                self.answer(&message, world, now, chance, &mut answers);
            }
        }
        let answers: Vec<Bytes> = answers.iter().map(|answer| answer.encode(MAGIC)).collect();
        answers
            .into_iter()
            .map(|bytes| self.put(bytes, chance))
            .collect()
    }

    /// It heard of a new block.
    pub fn learn(&mut self, height: u32, world: &World, chance: &mut ChaCha8Rng) -> Vec<Act> {
        self.height = height;
        let tip = world.at(self.side(world), height);
        let quiet = matches!(self.kind, Kind::Boaster | Kind::Contrarian);
        match tip {
            Some(tip) if self.ready && !quiet => {
                let announcement = Message::Headers(vec![tip.header]).encode(MAGIC);
                vec![self.put(announcement, chance)]
            }
            _ => Vec::new(),
        }
    }

    /// It heard of a transaction.
    pub fn learn_transaction(
        &mut self,
        transaction: &Transaction,
        chance: &mut ChaCha8Rng,
    ) -> Vec<Act> {
        let wtxid = transaction.compute_wtxid();
        self.pool.insert(wtxid.to_byte_array(), transaction.clone());
        if !self.ready || !self.relay {
            return Vec::new();
        }
        vec![self.put(
            Message::Inv(vec![Inventory::WTx(wtxid)]).encode(MAGIC),
            chance,
        )]
    }

    /// Whether the handshake is done.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// What it does unasked, once a second.
    pub fn act(&mut self, world: &World, now: u64, chance: &mut ChaCha8Rng) -> Vec<Act> {
        if !self.ready {
            return Vec::new();
        }
        let message = match self.kind {
            Kind::Flooder if chance.random_range(0..5) == 0 => self.flooding(world, chance),
            Kind::Oversizer if chance.random_range(0..20) == 0 => {
                return vec![self.put(oversized(chance), chance)];
            }
            Kind::Gossip => Message::Addr((0..1_000).map(|_| address(now, chance)).collect()),
            Kind::Announcer => Message::Inv(
                (0..20_000)
                    .map(|_| Inventory::WTx(Wtxid::from_byte_array(chance.random())))
                    .collect(),
            ),
            Kind::Skewed if chance.random_range(0..10) == 0 => {
                let Some(tip) = world.at(self.side(world), self.height) else {
                    return Vec::new();
                };
                let tomorrow = u32::try_from(now + 86_400).unwrap_or(u32::MAX);
                let root = tip.header.merkle_root;
                Message::Headers(vec![mining::header(&tip.header, tomorrow, root)])
            }
            _ => return Vec::new(),
        };
        let bytes = message.encode(MAGIC);
        vec![self.put(bytes, chance)]
    }

    /// The bytes as this peer sends them.
    fn put(&mut self, bytes: Bytes, chance: &mut ChaCha8Rng) -> Act {
        self.sent += 1;
        match self.kind {
            Kind::Vanisher if self.sent > 4 && chance.random_range(0..6) == 0 => {
                let length = chance.random_range(0..bytes.len());
                Act::SendAndClose(bytes.slice(..length))
            }
            Kind::Spoiler if self.sent > 4 && chance.random_range(0..6) == 0 => {
                let mut spoiled = bytes.to_vec();
                if let Some(byte) = spoiled.get_mut(20) {
                    *byte ^= 1;
                }
                Act::Send(spoiled.into())
            }
            _ => Act::Send(bytes),
        }
    }

    fn answer(
        &mut self,
        message: &Message,
        world: &World,
        now: u64,
        chance: &mut ChaCha8Rng,
        answers: &mut Vec<Message>,
    ) {
        match message {
            Message::Version(version) => {
                self.relay = version.relay;
                answers.push(self.version(now, chance));
                answers.push(Message::WtxidRelay);
                answers.push(Message::SendAddrV2);
                answers.push(Message::Verack);
            }
            Message::Verack => self.ready = true,
            question if self.kind == Kind::Contrarian => {
                answers.extend(contrary(question, world));
            }
            Message::Ping(nonce) => answers.push(Message::Pong(*nonce)),
            Message::GetHeaders(locator) => {
                answers.push(Message::Headers(self.headers(locator, world)))
            }
            Message::GetData(items) if self.kind != Kind::Staller => {
                let mut missing = Vec::new();
                for item in items {
                    match self.item(item, world) {
                        Some(found) => answers.push(found),
                        None => missing.push(*item),
                    }
                }
                if !missing.is_empty() {
                    answers.push(Message::NotFound(missing));
                }
            }
            Message::GetAddr => answers.push(Message::Addr(
                (0..10).map(|_| address(now, chance)).collect(),
            )),
            _ => {}
        }
    }

    fn version(&self, now: u64, chance: &mut ChaCha8Rng) -> Message {
        let skew = match self.kind {
            Kind::Skewed => chance.random_range(-20_000..20_000),
            _ => chance.random_range(-30..30),
        };
        let boast = match self.kind {
            Kind::Boaster => 1_000_000,
            Kind::Flooder => 500,
            _ => 0,
        };
        Message::Version(Box::new(Version {
            version: PROTOCOL_VERSION,
            services: ServiceFlags::NETWORK | ServiceFlags::WITNESS,
            timestamp: now as i64 + skew,
            receiver: unspecified(ServiceFlags::NONE),
            sender: unspecified(ServiceFlags::NONE),
            nonce: chance.random(),
            user_agent: format!("/{:?}/", self.kind).into_bytes(),
            start_height: match self.kind {
                // Some say so with a number that is none.
                Kind::Understater => chance.random_range(-1..2),
                _ => (self.height + boast) as i32,
            },
            relay: true,
        }))
    }

    fn headers(&mut self, locator: &Locator, world: &World) -> Vec<Header> {
        match self.kind {
            Kind::Boaster => Vec::new(),
            Kind::Flooder => {
                self.grow_flood(world, 0);
                let known = locator.hashes.iter().find_map(|hash| {
                    self.flood
                        .iter()
                        .position(|header| header.block_hash() == *hash)
                });
                let start = known.map_or(0, |place| place + 1);
                self.flood
                    .iter()
                    .skip(start)
                    .take(HEADERS)
                    .copied()
                    .collect()
            }
            _ => {
                let side = self.side(world);
                let known = locator
                    .hashes
                    .iter()
                    .find_map(|hash| world.find(side, self.height, hash));
                let start = known.map_or(1, |block| block.height + 1);
                (start..=self.height)
                    .take(HEADERS)
                    .filter_map(|height| Some(world.at(side, height)?.header))
                    .collect()
            }
        }
    }

    fn item(&self, item: &Inventory, world: &World) -> Option<Message> {
        match item {
            Inventory::WitnessBlock(hash) | Inventory::Block(hash) => {
                let block = world.find(self.side(world), self.height, hash)?;
                let mut raw = block.raw.clone();
                if self.kind == Kind::Mutator && block.height % 7 == 3 {
                    let mut mutated = raw.to_vec();
                    if let Some(byte) = mutated.last_mut() {
                        *byte ^= 1;
                    }
                    raw = mutated.into();
                }
                Some(Message::Block(raw))
            }
            Inventory::WTx(wtxid) => {
                let transaction = self.pool.get(&wtxid.to_byte_array())?;
                Some(Message::Tx(serialize(transaction).into()))
            }
            _ => None,
        }
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
            self.flood = mining::headers(&genesis, count, 1 + number + (salt << 16));
        }
    }

    fn flooding(&mut self, world: &World, chance: &mut ChaCha8Rng) -> Message {
        self.grow_flood(world, 1 + chance.random::<u64>() % 1_000);
        Message::Headers(self.flood.iter().take(HEADERS).copied().collect())
    }
}

/// Something that was not asked for.
fn contrary(question: &Message, world: &World) -> Option<Message> {
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

/// A message that announces more than it may.
fn oversized(chance: &mut ChaCha8Rng) -> Bytes {
    // A list of 2^32 - 1 entries in five bytes, or a payload that is longer than any may be.
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
    let frame = codec::encode_frame(MAGIC, command, &[0xfe, 0xff, 0xff, 0xff, 0xff]);
    if chance.random_range(0..2) == 0 {
        return frame;
    }
    let mut frame = frame.to_vec();
    if let Some(length) = frame.get_mut(16..20) {
        length.copy_from_slice(&u32::MAX.to_le_bytes());
    }
    frame.into()
}

fn address(now: u64, chance: &mut ChaCha8Rng) -> (u32, Address) {
    let ip = Ipv4Addr::from(chance.random::<u32>());
    let addr = SocketAddr::new(IpAddr::V4(ip), 18_444);
    let address = Address::new(&addr, ServiceFlags::NETWORK | ServiceFlags::WITNESS);
    (u32::try_from(now).unwrap_or(u32::MAX), address)
}
