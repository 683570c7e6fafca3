//! The host's network machine, with a shell that has no sockets and checks every block.

use bitcoin::{BlockHash, Txid};
use blockmill::chain::block_check::Mutation;
use blockmill::chain::sync::{DropReason, PeerEvent, PeerId, ShortIds};
use blockmill::chain::{BadBlock, BlockContext, HeaderTree, Output, Sync, SyncConfig, check_block};
use blockmill::frame::Frame;
use blockmill::network::Network;
use blockmill::wire::Moment;
use bytes::Bytes;
use std::net::SocketAddr;

use crate::ALLOCATOR;
use crate::node::PORT;

/// What the machine wants done, in copies: nothing of it counts as kept by the machine.
pub enum Wish {
    /// Send these bytes.
    Send(PeerId, Bytes),
    /// Close the connection.
    Disconnect(PeerId, End),
    /// Connect.
    Connect(SocketAddr),
    /// Look up this DNS seed.
    Resolve(String),
    /// Check this block of a peer.
    Check(PeerId, BlockHash, BlockContext, Bytes),
    /// Look for transactions.
    Fill(PeerId, BlockHash, ShortIds),
    /// A transaction came.
    Transaction(PeerId, Txid),
}

/// Why a connection is closed.
pub struct End {
    /// For people.
    pub reason: String,
    /// It is the peer's fault.
    pub fault: bool,
    /// And one to be banned for.
    pub offence: bool,
    /// It made room for another.
    pub evicted: bool,
    /// It was closed before anything came over it.
    pub refused: bool,
}

impl End {
    fn new(reason: &DropReason) -> End {
        End {
            reason: reason.to_string(),
            fault: reason.is_fault() && !matches!(reason, DropReason::Slept(_)),
            offence: reason.is_offence(),
            evicted: matches!(reason, DropReason::Evicted),
            refused: matches!(
                reason,
                DropReason::ConnectsTooOften
                    | DropReason::TooManyFromAddress
                    | DropReason::IncomingFull
            ),
        }
    }
}

/// The machine.
pub struct Host {
    machine: Sync,
    kept: i64,
    /// The most bytes that the machine kept at any time, beyond those that it began with.
    pub peak: i64,
    /// What came of version 2 of the transport.
    pub encrypted: Encrypted,
}

/// What came of version 2 of the transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Encrypted {
    /// Handshakes of the host with peers it connected to that ended well, version 2 agreed on.
    pub outgoing: u64,
    /// The same with peers that connected to it.
    pub incoming: u64,
    /// Peers that did not take it, and were come back to with version 1.
    pub fallbacks: u64,
}

impl Encrypted {
    fn count(&mut self, event: &PeerEvent) {
        match event.event {
            "fallback" => self.fallbacks += 1,
            "ready" if event.details.contains(" v2 version ") => match event.addr.port() {
                PORT => self.outgoing += 1,
                _ => self.incoming += 1,
            },
            _ => {}
        }
    }
}

impl Host {
    /// A machine that knows nothing but the genesis.
    pub fn new(config: SyncConfig, seed: u64, now: Moment) -> Host {
        let params = Network::Regtest.params();
        let machine = Sync::new(config, params, HeaderTree::new(params), seed, now);
        Host {
            machine,
            kept: 0,
            peak: 0,
            encrypted: Encrypted::default(),
        }
    }

    /// The machine, to look at.
    pub fn machine(&self) -> &Sync {
        &self.machine
    }

    /// Tells the machine something, and counts what it keeps of it.
    pub fn tell<T>(&mut self, what: impl FnOnce(&mut Sync) -> T) -> T {
        let before = ALLOCATOR.allocated() as i64;
        let answer = what(&mut self.machine);
        self.kept += ALLOCATOR.allocated() as i64 - before;
        self.peak = self.peak.max(self.kept);
        answer
    }

    /// The next thing that the machine wants done.
    pub fn wish(&mut self) -> Option<Wish> {
        loop {
            let output = self.tell(Sync::next_output)?;
            if let Output::Event(event) = &output {
                self.encrypted.count(event);
            }
            let wish = match &output {
                Output::Send { peer, bytes } => Some(Wish::Send(*peer, copy(bytes))),
                Output::Disconnect { peer, reason } => {
                    Some(Wish::Disconnect(*peer, End::new(reason)))
                }
                Output::Connect { addr, .. } => Some(Wish::Connect(*addr)),
                Output::Resolve { name, .. } => Some(Wish::Resolve(name.clone())),
                Output::Block {
                    peer,
                    hash,
                    context,
                    raw,
                    ..
                } => Some(Wish::Check(*peer, *hash, *context, copy(raw))),
                Output::Compact { peer, hash, wanted } => {
                    Some(Wish::Fill(*peer, *hash, wanted.clone()))
                }
                Output::Transaction { peer, txid, .. } => Some(Wish::Transaction(*peer, *txid)),
                // Nothing is lost here, there is no other source of blocks, and nobody asks who announced what.
                _ => None,
            };
            // What the machine gave away is its own until here.
            self.tell(|_| drop(output));
            if wish.is_some() {
                return wish;
            }
        }
    }
}

fn copy(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// The checks of a block that need no coins.
///
/// # Errors
///
/// What is wrong with it.
pub fn check(hash: BlockHash, context: &BlockContext, raw: Bytes) -> Result<(), BadBlock> {
    let frame = Frame::decode(raw).map_err(|_| BadBlock::Mutated(Mutation::Undecodable))?;
    if frame.hash != hash {
        return Err(BadBlock::Mutated(Mutation::Undecodable));
    }
    check_block(&frame, context)
}
