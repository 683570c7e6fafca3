//! The network machine, told by two peers whatever an input says: headers that meet their target, blocks, compact blocks and
//! what is missing in them, announcements, any message with any payload, and time that passes.

use std::net::SocketAddr;

use bitcoin::bip152::{BlockTransactions, HeaderAndShortIds};
use bitcoin::block::Header;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::p2p::ServiceFlags;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{Block, BlockHash, Transaction, Work};
use blockmill::chain::block_check::{BlockContext, Mutation};
use blockmill::chain::sync::book::BookFile;
use blockmill::chain::sync::{PeerId, TransportPreference};
use blockmill::chain::{BadBlock, HeaderTree, Output, Sync, SyncConfig, check_block};
use blockmill::frame::Frame;
use blockmill::wire::codec::MAX_HEADERS_RESULTS;
use blockmill::wire::message::{PROTOCOL_VERSION, unspecified};
use blockmill::wire::{Entropy, Message, Moment, RawMessage, Version};
use bytes::Bytes;

use super::{Verdict, payload};
use crate::{Input, memory, shapes};

/// Headers that one input may make.
const MOST_HEADERS: usize = 6_000;

/// The bit of an operation with which there are many headers.
const LARGE: u8 = 0x10;

/// One operation after another; see [`Play::step`].
pub fn run(data: &[u8]) -> Verdict {
    let mut input = Input::new(data);
    memory::bounded(2 * memory::THE_CRATE + 4_000 * data.len(), || {
        let mut play = Play::new(input.byte());
        while !input.is_empty() {
            play.step(&mut input);
        }
        play.end()
    })
}

struct Play {
    machine: Sync,
    now: Moment,
    /// The connections, and the number of the next one.
    peers: [Option<PeerId>; 2],
    next_peer: u64,
    /// Headers that were made, and their blocks.
    blocks: Vec<Block>,
    best_work: Work,
    condemned: bool,
}

impl Play {
    /// A machine with two peers, one that it chose and one that came. The flags say what minimum of work it wants.
    fn new(flags: u8) -> Play {
        let params = shapes::regtest();
        let now = Moment::from_secs(u64::from(params.genesis_header.time) + 86_400);
        let genesis_work = params.genesis_header.work();
        // More than one message of headers has, so that a branch is read twice.
        let minimum =
            (0..u32::from(flags & 3) * 1_200).fold(genesis_work, |sum, _| sum + genesis_work);
        let config = SyncConfig {
            connect: vec![SocketAddr::from(([127, 0, 0, 1], 18_444))],
            transport: TransportPreference::V1,
            entropy: Entropy::Seeded(1, 0),
            minimum_work: minimum,
            stream_above: if flags & 4 == 0 { usize::MAX } else { 300 },
            ..SyncConfig::new(params)
        };
        let mut play = Play {
            machine: Sync::new(config, params, HeaderTree::new(params), 7, now),
            now,
            peers: [None; 2],
            next_peer: 1,
            blocks: vec![bitcoin::constants::genesis_block(bitcoin::Network::Regtest)],
            best_work: genesis_work,
            condemned: false,
        };
        play.connect(0);
        play.connect(1);
        play
    }

    fn connect(&mut self, slot: usize) {
        let peer = PeerId(self.next_peer);
        self.next_peer += 1;
        let address = SocketAddr::from(([127, 0, 0, 1 + slot as u8], 18_444));
        self.peers[slot] = Some(peer);
        self.machine.connected(peer, address, slot == 0, self.now);
        self.answer(&mut Input::new(&[]));
        let services = ServiceFlags::NETWORK | ServiceFlags::WITNESS;
        self.greet(
            slot,
            Message::Version(Box::new(Version {
                version: PROTOCOL_VERSION,
                services,
                timestamp: self.now.secs() as i64,
                receiver: unspecified(ServiceFlags::NONE),
                sender: unspecified(services),
                nonce: self.next_peer,
                user_agent: b"/fuzz:0/".to_vec(),
                start_height: 100,
                relay: true,
            })),
        );
        self.greet(slot, Message::WtxidRelay);
        self.greet(slot, Message::Verack);
        self.greet(
            slot,
            Message::SendCmpct {
                announce: false,
                version: 2,
            },
        );
    }

    /// What a peer says in its handshake.
    fn greet(&mut self, slot: usize, message: Message) {
        self.send(slot, message, &mut Input::new(&[]));
    }

    fn send(&mut self, slot: usize, message: Message, input: &mut Input<'_>) {
        if let Some(peer) = self.peers[slot] {
            let bytes = message.encode(shapes::MAGIC);
            self.machine.received(peer, &bytes, self.now);
        }
        self.answer(input);
    }

    /// The low half of the operation's byte says what, its highest bit which peer.
    fn step(&mut self, input: &mut Input<'_>) {
        let operation = input.byte();
        let slot = usize::from(operation >> 7);
        match operation & 15 {
            0 => {
                let command = payload::command(input.byte());
                let payload = Bytes::copy_from_slice(input.chunk());
                if let Some(peer) = self.peers[slot] {
                    let raw = RawMessage { command, payload };
                    self.machine.received_raw(peer, raw, self.now);
                }
                self.answer(input);
            }
            1 => {
                let bytes = input.chunk();
                if let Some(peer) = self.peers[slot] {
                    self.machine.received(peer, bytes, self.now);
                }
                self.answer(input);
            }
            2 | 3 => self.make_headers(slot, operation, input),
            4 => self.headers_again(slot, operation, input),
            5 => {
                let raw = serialize(self.block(input));
                self.send(slot, Message::Block(raw.into()), input);
            }
            6 => {
                let mut raw = serialize(self.block(input));
                let at = usize::from(input.u16()) % raw.len();
                raw[at] ^= input.byte();
                self.send(slot, Message::Block(raw.into()), input);
            }
            7 => {
                let nonce = input.u32().into();
                let block = self.block(input);
                if let Ok(compact) = HeaderAndShortIds::from_block(block, nonce, 2, &[]) {
                    self.send(slot, Message::CmpctBlock(Box::new(compact)), input);
                }
            }
            8 => {
                let block = self.block(input);
                let (skip, count) = (usize::from(input.byte()), usize::from(input.byte()));
                let answer = BlockTransactions {
                    block_hash: block.block_hash(),
                    transactions: block
                        .txdata
                        .iter()
                        .skip(skip)
                        .take(count)
                        .cloned()
                        .collect(),
                };
                self.send(slot, Message::BlockTxn(Box::new(answer)), input);
            }
            9 => {
                let block = self.block(input);
                let hash = block.block_hash();
                let txid = block.txdata.last().map(Transaction::compute_wtxid);
                let list = match (input.byte() & 1, txid) {
                    (1, Some(wtxid)) => vec![Inventory::WTx(wtxid)],
                    _ => vec![Inventory::Block(hash)],
                };
                self.send(slot, Message::Inv(list), input);
            }
            10 => {
                if let Some(tx) = self.block(input).txdata.last() {
                    let raw = serialize(tx);
                    self.send(slot, Message::Tx(raw.into()), input);
                }
            }
            11 => {
                if let Some(peer) = self.peers[slot].take() {
                    self.machine.disconnected(peer, self.now);
                }
                self.answer(input);
                self.connect(slot);
            }
            _ => {
                let seconds = u64::from(input.byte());
                for _ in 0..=seconds / 20 {
                    self.now = Moment(self.now.0 + 1_000 * (seconds % 20) + 100);
                    self.machine.tick(self.now);
                    self.answer(input);
                }
            }
        }
    }

    fn block(&self, input: &mut Input<'_>) -> &Block {
        let back = usize::from(input.byte());
        &self.blocks[(self.blocks.len() - 1).saturating_sub(back)]
    }

    /// How many headers: up to 255, or as many as a message has.
    fn count(operation: u8, input: &mut Input<'_>) -> usize {
        let count = usize::from(input.byte());
        match operation & LARGE {
            0 => count,
            _ => (count * 8).min(MAX_HEADERS_RESULTS),
        }
    }

    /// Headers on top of one that was made, with their blocks, which may have payments; told as `headers`.
    fn make_headers(&mut self, slot: usize, operation: u8, input: &mut Input<'_>) {
        let mut parent = self.block(input).header;
        let mut height = self.machine.height_of(&parent.block_hash()).unwrap_or(0);
        let count = Self::count(operation, input);
        let seconds = u32::from(input.byte());
        let payments = match operation & 1 {
            0 => 0,
            _ => seconds as usize % 8 + 1,
        };
        let mut made = Vec::new();
        for _ in 0..count.min(MOST_HEADERS.saturating_sub(self.blocks.len())) {
            height += 1;
            let salt = self.blocks.len() as u32;
            let block = shapes::block(&parent, height, salt, payments, seconds);
            parent = block.header;
            made.push(parent);
            self.blocks.push(block);
        }
        self.send(slot, Message::Headers(made), input);
    }

    /// Headers that were made: many in their order from one on, or a few in any order.
    fn headers_again(&mut self, slot: usize, operation: u8, input: &mut Input<'_>) {
        let header = |block: &Block| block.header;
        let headers: Vec<Header> = match operation & LARGE {
            0 => {
                let count = usize::from(input.byte() & 31);
                (0..count).map(|_| self.block(input).header).collect()
            }
            _ => {
                let from = usize::from(input.u16()).min(self.blocks.len());
                let count = Self::count(operation, input);
                self.blocks[from..].iter().take(count).map(header).collect()
            }
        };
        self.send(slot, Message::Headers(headers), input);
    }

    /// Does what the machine wants done. The input says which transactions of a compact block the pool has.
    fn answer(&mut self, input: &mut Input<'_>) {
        let mut done = 0;
        while let Some(output) = self.machine.next_output() {
            done += 1;
            assert!(done < 100_000, "no end of wishes");
            match output {
                Output::Block {
                    hash, context, raw, ..
                } => {
                    let verdict = check(hash, &context, raw);
                    self.condemned |= verdict.as_ref().is_err_and(BadBlock::condemns);
                    self.machine.block_checked(hash, verdict, self.now);
                }
                Output::BlockPiece {
                    hash,
                    last: true,
                    again: false,
                    ..
                } => {
                    let good = input.byte() & 1 == 0;
                    let verdict = match good {
                        true => Ok(()),
                        false => Err(BadBlock::Mutated(Mutation::MerkleRoot)),
                    };
                    self.machine.block_checked(hash, verdict, self.now);
                }
                Output::Compact { peer, hash, wanted } => {
                    let known = self.blocks.iter().find(|block| block.block_hash() == hash);
                    // The coinbase comes with the message. Of the others the pool has the right one, none, or another.
                    let found = (1..=wanted.ids.len())
                        .map(|place| {
                            let place = match input.byte() & 3 {
                                0 | 1 => place,
                                2 => place - 1,
                                _ => return None,
                            };
                            Some(Bytes::from(serialize(known?.txdata.get(place)?)))
                        })
                        .collect();
                    self.machine.compact_found(peer, hash, found, self.now);
                }
                Output::Headers(headers) => {
                    assert!(!headers.is_empty());
                    for header in headers {
                        assert!(header.target().is_met_by(header.block_hash()));
                    }
                }
                Output::Disconnect { peer, reason } => {
                    assert!(!reason.to_string().is_empty());
                    for slot in &mut self.peers {
                        slot.take_if(|known| *known == peer);
                    }
                }
                Output::Send { bytes, .. } => assert!(bytes.starts_with(&shapes::MAGIC)),
                Output::Transaction {
                    raw, txid, wtxid, ..
                } => {
                    let tx: Transaction = deserialize(&raw).expect("decoded once");
                    assert_eq!((tx.compute_txid(), tx.compute_wtxid()), (txid, wtxid));
                }
                _ => {}
            }
        }
        let tree = self.machine.tree();
        assert!(tree.best_work() >= self.best_work || self.condemned);
        self.best_work = tree.best_work();
        let (height, hash) = self.machine.tip();
        assert_eq!(self.machine.hash_at(height), Some(hash));
        assert!(tree.is_active(&hash));
    }

    fn end(self) -> Verdict {
        let file = self.machine.book_file();
        BookFile::decode(shapes::regtest().name, &file).expect("it was written by us");
        Verdict::taken(self.machine.best_header().0 > 0)
    }
}

/// The checks of a block that need no coins.
fn check(hash: BlockHash, context: &BlockContext, raw: Bytes) -> Result<(), BadBlock> {
    let frame = Frame::decode(raw).map_err(|_| BadBlock::Mutated(Mutation::Undecodable))?;
    assert_eq!(
        frame.hash.to_byte_array(),
        hash.to_byte_array(),
        "it is the one that was asked for"
    );
    check_block(&frame, context)
}
