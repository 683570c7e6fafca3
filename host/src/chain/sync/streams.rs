//! Blocks that come in pieces, because they are too long to be held.

use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::p2p::ServiceFlags;

use super::blocks::Held;
use super::output::StreamStart;
use super::session::Session;
use super::{DropReason, Output, PeerId, Sync};
use crate::chain::header_tree::{Id, Status};
use crate::wire::codec::HEADER_SIZE;
use crate::wire::{BlockPiece, Moment};

/// The slowest line that a block is taken over, in bytes a second: over the time that the peer could have sent, our own
/// pauses not counted.
const SLOWEST: u64 = 32_000;
/// A peer is slow that sends at less than this part of what another showed.
const SHARE: u64 = 4;
/// For how long what a peer showed counts.
const LATELY: Duration = Duration::from_secs(60 * 60);

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
    /// It was asked for once more.
    again: bool,
    /// Where its speed is measured from: the time that the peer could have sent, and the bytes.
    measured: (Duration, u64),
}

impl Stream {
    /// How long the peer could have sent.
    fn time(&self, now: Moment) -> Duration {
        now.since(self.began).saturating_sub(self.held_back)
    }
}

/// How fast a peer sent a large block, bytes a second, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown {
    rate: u64,
    at: Moment,
}

/// Streams that need looking after.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// The block that was last taken from a slow peer, and how often.
    moved: Option<(Id, u32)>,
    /// Blocks that this host cannot take: they stay out of what is asked for, as if the shell had them.
    untakable: Vec<Id>,
}

fn rate(bytes: u64, time: Duration) -> u64 {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    bytes.saturating_mul(1_000) / millis.max(1_000)
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
            let known = self.tree.id(&hash);
            let mut again = false;
            if let (None, Some(known)) = (start, known) {
                start = self.begin_again(peer, known, total, now);
                again = start.is_some();
            }
            let block = start.and(known);
            if let Some(session) = self.peers.get_mut(&peer) {
                session.stream = Some(Stream {
                    hash,
                    block,
                    began: now,
                    last: now,
                    held_back: Duration::ZERO,
                    received: 0,
                    again,
                    measured: (Duration::ZERO, 0),
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
        let (hash, wanted, again) = (stream.hash, stream.block.is_some(), stream.again);
        if piece.last {
            session.shown = Some(Shown {
                rate: rate(stream.received, stream.time(now)),
                at: now,
            });
            session.stream = None;
        }
        if again {
            // What else it was asked for comes behind it.
            session.again.sends(now);
            session.last_block = now;
            session.stalling_since = None;
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
                again,
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
        let context = self.context_of(block);
        let height = context.height;
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

    /// Whether another peer sends the block by now: what the checks say of the pieces of this one, which is gone, is not about
    /// what the other sends.
    pub fn is_superseded(&self, hash: &BlockHash, peer: PeerId) -> bool {
        let Some(block) = self.tree.id(hash) else {
            return false;
        };
        let again = self.refetch.held_from(block);
        let held = self.downloads.held_from(block).or(again);
        held.is_some_and(|from| from != peer)
    }

    /// The peer is gone, or is forgotten: a block that it had not sent whole has to come from another.
    pub(super) fn break_stream(&mut self, session: &Session) {
        let Some((hash, block, again)) = session
            .stream
            .and_then(|stream| Some((stream.hash, stream.block?, stream.again)))
        else {
            return;
        };
        if again {
            self.again_broken(block);
        } else if self.downloads.let_go(block).is_some() {
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
            let time = stream.time(now);
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
        self.move_slow_streams(now);
    }

    /// Looks now and then how fast each large block comes. One that another peer would send much faster is broken off and
    /// asked of that one; with nobody else to ask, a slow one is better than none.
    fn move_slow_streams(&mut self, now: Moment) {
        let patience = self.config.stream_patience;
        let mut measured = Vec::new();
        for (id, session) in &mut self.peers {
            let Some(stream) = &mut session.stream else {
                continue;
            };
            let time = stream.time(now);
            let (since, bytes) = stream.measured;
            if time.saturating_sub(since) < patience {
                continue;
            }
            let speed = rate(
                stream.received.saturating_sub(bytes),
                time.saturating_sub(since),
            );
            stream.measured = (time, stream.received);
            session.shown = Some(Shown {
                rate: speed,
                at: now,
            });
            if let Some(block) = stream.block {
                measured.push((*id, block, speed));
            }
        }
        for (id, block, speed) in measured {
            if self.downloads.holds(block)
                && let Some(to) = self.faster(id, block, speed, now)
            {
                self.move_stream(id, block, speed, to, now);
            }
        }
    }

    /// Whom to ask for a block that `from` sends at this speed, if anybody.
    fn faster(&self, from: PeerId, block: Id, speed: u64, now: Moment) -> Option<PeerId> {
        let lately = |session: &Session| {
            session
                .shown
                .filter(|shown| now.since(shown.at) < LATELY)
                .map(|shown| shown.rate)
        };
        let others = self.peers.iter().filter(|(id, session)| {
            **id != from
                && session.peer.is_ready()
                && session.peer.services().has(ServiceFlags::NETWORK)
                && session
                    .peer
                    .services()
                    .has(self.config.required_services)
                && session
                    .best
                    .is_some_and(|best| self.tree.is_ancestor(block, best))
                // Between two that are slow there is nothing to gain.
                && lately(session).is_none_or(|rate| rate >= speed.saturating_mul(2))
        });
        let (to, session) = others.max_by_key(|(_, session)| {
            (lately(session), std::cmp::Reverse(session.in_flight.len()))
        })?;
        let expected = self
            .config
            .stream_floor
            .max(lately(session).unwrap_or(0) / SHARE);
        // With a slow line of ours everyone is slow: each time the next is expected to do half as much.
        let moves = match self.streams.moved {
            Some((moved, moves)) if moved == block => moves,
            _ => 0,
        };
        (speed < expected.checked_shr(moves).unwrap_or(0)).then_some(*to)
    }

    fn move_stream(&mut self, from: PeerId, block: Id, speed: u64, to: PeerId, now: Moment) {
        let moves = match self.streams.moved {
            Some((moved, moves)) if moved == block => moves.saturating_add(1),
            _ => 1,
        };
        self.streams.moved = Some((block, moves));
        // There is no other way to break off what it sends.
        self.drop_peer(from, DropReason::SlowStream(speed), now);
        let status = self.tree.node(block).status;
        if !status.has(Status::HELD) && !status.has(Status::IN_FLIGHT) {
            self.request(to, &[block], &[], now);
        }
    }

    /// A block that was given out cannot be taken by this host as it is set up. It is not asked for again, and the tip stays
    /// below it.
    pub fn block_untakable(&mut self, hash: BlockHash, now: Moment) {
        if let Some(block) = self.tree.id(&hash)
            && !self.tree.node(block).status.has(Status::CHECKED)
        {
            self.downloads.let_go(block);
            self.release(block);
            self.tree
                .status_mut(block, |status| status.set(Status::HELD));
            if !self.streams.untakable.contains(&block) {
                self.streams.untakable.push(block);
            }
        }
        self.pump(now);
    }

    /// The height of the lowest block of the best branch that this host cannot take.
    pub fn untakable(&self) -> Option<u32> {
        let heights = self.streams.untakable.iter().filter_map(|block| {
            let node = self.tree.node(*block);
            (self.tree.best_hash_at(node.height) == Some(node.hash)).then_some(node.height)
        });
        heights.min()
    }
}
