//! Blocks that come in pieces, because they are too long to be held.

use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::block::Header;

use super::blocks::Held;
use super::output::StreamStart;
use super::session::Session;
use super::{DropReason, Output, PeerId, Sync};
use crate::chain::block_check::BlockContext;
use crate::chain::header_tree::{Id, Status};
use crate::wire::codec::HEADER_SIZE;
use crate::wire::{BlockPiece, Moment};

/// The slowest line that a block is taken over, in bytes a second: over the time that the peer could have sent, our own
/// pauses not counted.
const SLOWEST: u64 = 32_000;

/// A block on its way in pieces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    hash: BlockHash,
    /// None when nobody wants it: its bytes are passed over.
    block: Option<Id>,
    began: Moment,
    /// When the last piece came, or nothing was read because of us.
    last: Moment,
    /// How long we did not read.
    held_back: Duration,
    received: u64,
}

impl Sync {
    pub(super) fn on_piece(&mut self, peer: PeerId, piece: BlockPiece, now: Moment) {
        let length = piece.bytes.len() as u64;
        let mut start = None;
        if let Some(total) = piece.total {
            let Some(header) = piece
                .bytes
                .get(..Header::SIZE)
                .and_then(|bytes| bitcoin::consensus::deserialize::<Header>(bytes).ok())
            else {
                self.drop_peer(peer, DropReason::MalformedBlock, now);
                return;
            };
            let hash = header.block_hash();
            start = self.begin_stream(peer, hash, total, now);
            let block = start.and_then(|_| self.tree.id(&hash));
            if let Some(session) = self.peers.get_mut(&peer) {
                session.stream = Some(Stream {
                    hash,
                    block,
                    began: now,
                    last: now,
                    held_back: Duration::ZERO,
                    received: 0,
                });
            }
            if block.is_none() {
                self.on_unrequested_block(peer, now);
            }
        }
        let Some(session) = self.peers.get_mut(&peer) else {
            return;
        };
        let Some(stream) = &mut session.stream else {
            return;
        };
        stream.last = now;
        stream.received += length;
        let (hash, wanted) = (stream.hash, stream.block.is_some());
        if piece.last {
            session.stream = None;
        }
        if wanted {
            session.last_block = now;
            session.stalling_since = None;
            let header = start.as_ref().map_or(0, |_| HEADER_SIZE);
            session.life.answered(header + piece.bytes.len());
            if piece.last {
                session.life.gave_block(now);
            }
            self.outputs.push_back(Output::BlockPiece {
                peer,
                hash,
                start,
                bytes: piece.bytes,
                last: piece.last,
            });
        }
    }

    /// Whether the block is one that was asked for, and what its checks need.
    fn begin_stream(
        &mut self,
        peer: PeerId,
        hash: BlockHash,
        length: u64,
        now: Moment,
    ) -> Option<StreamStart> {
        let block = self.tree.id(&hash)?;
        let asked = self.release(block)?;
        let node = self.tree.node(block);
        let (height, parent) = (node.height, node.parent);
        let context = BlockContext {
            params: self.params,
            height,
            median_time_past: self.tree.median_time_of(parent),
        };
        self.tree
            .status_mut(block, |status| status.set(Status::HELD));
        // The shell holds some of its pieces at a time, and bounds how many.
        self.downloads.hold(
            block,
            Held {
                peer,
                bytes: 0,
                assembled: false,
            },
        );
        Some(StreamStart {
            height,
            context,
            length,
            announced_at: self.announced_at(&hash).unwrap_or(asked.asked_at()),
        })
        .inspect(|_| {
            tracing::debug!(%hash, height, length, after = ?now.since(asked.asked_at()), "a block comes in pieces")
        })
    }

    /// The peer is gone, or is forgotten: a block that it had not sent whole has to come from another.
    pub(super) fn break_stream(&mut self, session: &Session) {
        let Some((hash, block)) = session
            .stream
            .and_then(|stream| Some((stream.hash, stream.block?)))
        else {
            return;
        };
        if self.downloads.let_go(block) {
            self.tree
                .status_mut(block, |status| status.clear(Status::HELD));
        }
        self.outputs.push_back(Output::StreamBroken { hash });
    }

    /// Nothing was read from this peer for some time, since its pieces wait to be checked.
    pub fn held_back(&mut self, peer: PeerId, time: Duration, now: Moment) {
        let Some(session) = self.peers.get_mut(&peer) else {
            return;
        };
        session.peer.held_back(now);
        session.last_block = now;
        if let Some(stream) = &mut session.stream {
            stream.last = now;
            stream.held_back += time;
        }
    }

    pub(super) fn tick_streams(&mut self, now: Moment) {
        let timeout = self.config.block_timeout;
        let late = |stream: &Stream| {
            let time = now.since(stream.began).saturating_sub(stream.held_back);
            let due = timeout.as_secs() + stream.received / SLOWEST;
            now.since(stream.last) >= timeout || time.as_secs() > due
        };
        let late: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(_, session)| session.stream.as_ref().is_some_and(late))
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            self.drop_peer(id, DropReason::BlockTimeout, now);
        }
    }
}
