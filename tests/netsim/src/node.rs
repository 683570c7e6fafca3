//! A peer of the host: what it knows, how it answers, and what it does wrong.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bitcoin::block::Header;
use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::p2p::ServiceFlags;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{BlockHash, Transaction};
use blockmill::wire::message::{Locator, Message, PROTOCOL_VERSION, Version, unspecified};
use blockmill::wire::{Opening, Transport};
use bytes::Bytes;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::kind::Kind;
use crate::world::{Side, World};

mod compact;
mod lies;
mod transport;

/// The magic of the simulated network.
pub const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];
/// Where peers listen.
pub const PORT: u16 = 18_444;
/// Headers in one message.
const HEADERS: usize = 2_000;

/// What a peer does with its connection.
pub enum Act {
    /// Sends these bytes.
    Send(Bytes),
    /// Closes the connection once these bytes are through.
    SendAndClose(Bytes),
    /// Closes the connection.
    Close,
}

/// When a peer connects to the host. One that does is not connected to.
#[derive(Clone, Copy, Debug)]
pub struct Calls {
    /// The first time, from the beginning.
    pub first: Duration,
    /// How long it waits before it comes back, in milliseconds: at least, and less than.
    pub pause: (u64, u64),
    /// When it comes back no more, from the beginning.
    pub last: Duration,
}

/// A peer.
pub struct Node {
    /// Where it is.
    pub addr: SocketAddr,
    /// What it is.
    pub kind: Kind,
    /// When it connects to the host, if it is not the host that connects to it.
    pub calls: Option<Calls>,
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
    /// It sends blocks in their compact form.
    pub compact: bool,
    /// The block that it sent last in that form, and not whole.
    pub compact_sent: Option<BlockHash>,
    /// Compact blocks and handshakes that it spoiled.
    pub spoiled: u64,
    /// It speaks version 2 of the transport. Who does not closes the connection when it hears it.
    pub v2: bool,
    /// Its branch with little work.
    flood: Vec<(BlockHash, Header)>,
    transport: Transport,
    /// It made the connection.
    caller: bool,
    ready: bool,
    /// The host wants transactions on this connection.
    relay: bool,
    /// Messages sent on this connection.
    sent: u32,
}

impl Node {
    /// Peer number `number` that the host may connect to; each in a network of its own.
    pub fn new(number: u16, kind: Kind, chance: &mut ChaCha8Rng) -> Node {
        let [high, low] = number.to_be_bytes();
        let addr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(60 + high, low, 7, 9)), PORT);
        Node::at(addr, kind, chance)
    }

    /// A peer at an address.
    pub fn at(addr: SocketAddr, kind: Kind, chance: &mut ChaCha8Rng) -> Node {
        let slow = kind == Kind::Slow;
        let half = match chance.random_range(0..2) {
            0 => Side::Main,
            _ => Side::Other,
        };
        Node {
            addr,
            kind,
            calls: None,
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
            compact: kind.spoils_compact() || chance.random_range(0..5) > 0,
            compact_sent: None,
            spoiled: 0,
            v2: kind.spoils_handshake() || chance.random_range(0..2) == 0,
            flood: Vec::new(),
            transport: Transport::new(MAGIC, Opening::V1),
            caller: false,
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

    /// A connection begins, made by the peer (`caller`) or by the host; whoever made it speaks first.
    pub fn connected(&mut self, caller: bool, now: u64, chance: &mut ChaCha8Rng) -> Vec<Act> {
        self.caller = caller;
        self.transport = self.opening(chance);
        self.compact_sent = None;
        self.ready = false;
        self.relay = false;
        self.sent = 0;
        if caller {
            let version = self.version(now, chance);
            self.say(&version);
        }
        self.speak(chance)
    }

    /// Bytes from the host.
    pub fn hear(
        &mut self,
        bytes: &[u8],
        world: &World,
        now: u64,
        chance: &mut ChaCha8Rng,
    ) -> Vec<Act> {
        self.transport.feed(bytes);
        let broken = loop {
            match self.transport.next() {
                Ok(Some(raw)) => {
                    if let Ok(message) = Message::read(raw) {
                        self.answer(&message, world, now, chance);
                    }
                }
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        let mut acts = self.speak(chance);
        if broken {
            acts.push(Act::Close);
        }
        acts
    }

    /// It heard of a new block.
    pub fn learn(&mut self, height: u32, world: &World, chance: &mut ChaCha8Rng) -> Vec<Act> {
        self.height = height;
        let tip = world.at(self.side(world), height);
        let quiet = matches!(self.kind, Kind::Boaster | Kind::Contrarian | Kind::Idler);
        if let Some(tip) = tip
            && self.ready
            && !quiet
        {
            self.say(&Message::Headers(vec![tip.header]));
        }
        self.speak(chance)
    }

    /// It heard of a transaction.
    pub fn learn_transaction(
        &mut self,
        transaction: &Transaction,
        chance: &mut ChaCha8Rng,
    ) -> Vec<Act> {
        let wtxid = transaction.compute_wtxid();
        self.pool.insert(wtxid.to_byte_array(), transaction.clone());
        if self.ready && self.relay {
            self.say(&Message::Inv(vec![Inventory::WTx(wtxid)]));
        }
        self.speak(chance)
    }

    /// What it does unasked, once a second.
    pub fn act(&mut self, world: &World, now: u64, chance: &mut ChaCha8Rng) -> Vec<Act> {
        if self.kind == Kind::Babbler && self.sent > 0 {
            return vec![Act::Send(transport::babble(chance))];
        }
        if !self.ready {
            return Vec::new();
        }
        let message = match self.kind {
            Kind::Flooder if chance.random_range(0..5) == 0 => self.flooding(world, chance),
            Kind::Oversizer if chance.random_range(0..20) == 0 => {
                return self.put(lies::oversized(chance), chance);
            }
            Kind::Gossip => Message::Addr((0..1_000).map(|_| lies::address(now, chance)).collect()),
            Kind::Announcer if chance.random_range(0..5) == 0 => lies::phantoms(chance),
            Kind::Skewed if chance.random_range(0..10) == 0 => match self.tomorrow(world, now) {
                Some(header) => header,
                None => return Vec::new(),
            },
            _ => return Vec::new(),
        };
        self.say(&message);
        self.speak(chance)
    }

    /// A message for the host, which [`speak`](Self::speak) sends.
    fn say(&mut self, message: &Message) {
        self.transport.send(message.command(), message.payload());
    }

    /// Sends what was said.
    fn speak(&mut self, chance: &mut ChaCha8Rng) -> Vec<Act> {
        let mut acts = Vec::new();
        while let Some(bytes) = self.transport.pop() {
            acts.extend(self.put(bytes, chance));
        }
        acts
    }

    /// The bytes as this peer sends them.
    fn put(&mut self, bytes: Bytes, chance: &mut ChaCha8Rng) -> Vec<Act> {
        self.sent += 1;
        let act = match self.kind {
            Kind::Mute => return Vec::new(),
            kind if kind.spoils_handshake() => {
                self.spoiled += u64::from(self.sent == 1);
                return self.put_handshake(bytes, chance).into_iter().collect();
            }
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
        };
        vec![act]
    }

    fn answer(&mut self, message: &Message, world: &World, now: u64, chance: &mut ChaCha8Rng) {
        match message {
            Message::Version(version) => {
                self.relay = version.relay;
                if !self.caller {
                    let version = self.version(now, chance);
                    self.say(&version);
                }
                self.say(&Message::WtxidRelay);
                self.say(&Message::SendAddrV2);
                self.say(&Message::Verack);
            }
            Message::Verack => {
                self.ready = true;
                self.offer_compact();
            }
            question if self.kind == Kind::Contrarian => {
                if let Some(answer) = lies::contrary(question, world) {
                    self.say(&answer);
                }
            }
            Message::Ping(nonce) => self.say(&Message::Pong(*nonce)),
            _ if self.kind == Kind::Idler => {}
            Message::GetHeaders(locator) => {
                let headers = self.headers(locator, world);
                self.say(&Message::Headers(headers));
            }
            Message::GetData(items) if self.kind != Kind::Staller => {
                let mut missing = Vec::new();
                for item in items {
                    if !self.give(item, world, chance) {
                        missing.push(*item);
                    }
                }
                if !missing.is_empty() {
                    self.say(&Message::NotFound(missing));
                }
            }
            Message::GetBlockTxn(request) => self.give_transactions(request, world, chance),
            Message::GetAddr => {
                let mut addresses: Vec<_> = (0..10).map(|_| lies::address(now, chance)).collect();
                addresses.extend(world.listeners(now, chance));
                self.say(&Message::Addr(addresses));
            }
            _ => {}
        }
    }

    /// What it offers.
    pub fn services(&self) -> ServiceFlags {
        let v2 = match self.v2 {
            true => ServiceFlags::P2P_V2,
            false => ServiceFlags::NONE,
        };
        ServiceFlags::NETWORK | ServiceFlags::WITNESS | v2
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
            services: self.services(),
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
            Kind::Flooder => self.flood_after(locator, world),
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

    /// Sends what was asked for; false when it does not have it.
    fn give(&mut self, item: &Inventory, world: &World, chance: &mut ChaCha8Rng) -> bool {
        match item {
            Inventory::CompactBlock(hash) if self.compact => self.give_compact(hash, world, chance),
            Inventory::WitnessBlock(hash) | Inventory::Block(hash) => {
                let Some(block) = world.find(self.side(world), self.height, hash) else {
                    return false;
                };
                let mut raw = block.raw.clone();
                if self.kind == Kind::Mutator && block.height % 7 == 3 {
                    let mut mutated = raw.to_vec();
                    if let Some(byte) = mutated.last_mut() {
                        *byte ^= 1;
                    }
                    raw = mutated.into();
                }
                self.compact_sent.take_if(|sent| sent == hash);
                self.say(&Message::Block(raw));
                true
            }
            Inventory::WTx(wtxid) => {
                let Some(transaction) = self.pool.get(&wtxid.to_byte_array()) else {
                    return false;
                };
                let raw = serialize(transaction);
                self.say(&Message::Tx(raw.into()));
                true
            }
            _ => false,
        }
    }
}
