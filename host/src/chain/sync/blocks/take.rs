//! Blocks as they come: from whom, whether they were asked for, and what the checks say of them.

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bytes::Bytes;

use super::{Held, InFlight, MAX_UNREQUESTED};
use crate::chain::block_check::{BadBlock, BlockContext};
use crate::chain::header_tree::{Id, Status};
use crate::chain::sync::{DropReason, Output, PeerId, Sync};
use crate::wire::Moment;

impl Sync {
    pub(in crate::chain::sync) fn on_block(&mut self, peer: PeerId, raw: Bytes, now: Moment) {
        self.take_block(peer, raw, false, now);
    }

    /// A block, as a peer sent it or `assembled` from what it sent and the pool.
    pub(in crate::chain::sync) fn take_block(
        &mut self,
        peer: PeerId,
        raw: Bytes,
        assembled: bool,
        now: Moment,
    ) {
        let header = raw
            .get(..Header::SIZE)
            .and_then(|bytes| bitcoin::consensus::deserialize::<Header>(bytes).ok());
        let Some(header) = header else {
            self.drop_peer(peer, DropReason::MalformedBlock, now);
            return;
        };
        let hash = header.block_hash();
        let expected = self
            .tree
            .id(&hash)
            .and_then(|block| self.release(block).map(|asked| (block, asked)));
        let Some((block, asked)) = expected else {
            let again = self.tree.id(&hash);
            if !again.is_some_and(|block| self.on_block_again(peer, block, &raw, now)) {
                self.on_unrequested_block(peer, now);
            } else if let Some(session) = self.peers.get_mut(&peer) {
                session.life.gave_block(now);
            }
            return;
        };
        if let Some(session) = self.peers.get_mut(&peer) {
            session.life.gave_block(now);
        }
        if asked.peer != peer {
            // It came late, and yet before the other's.
            for (id, late) in [(peer, true), (asked.peer, false)] {
                if let Some(session) = self.peers.get_mut(&id) {
                    session.given_up = match late {
                        true => session.given_up.saturating_sub(1),
                        false => session.given_up.saturating_add(1),
                    };
                }
            }
        }
        self.adapt_to_speed(peer, &asked, now);

        let context = self.context_of(block);
        self.tree
            .status_mut(block, |status| status.set(Status::HELD));
        self.downloads.hold(
            block,
            Held {
                peer,
                bytes: raw.len(),
                assembled,
            },
        );
        self.downloads.usual_bytes = (self.downloads.usual_bytes * 7 + raw.len()) / 8;
        let announced_at = self.announced_at(&hash).unwrap_or(asked.asked);
        self.outputs.push_back(Output::Block {
            peer,
            hash,
            height: context.height,
            context,
            raw,
            announced_at,
        });
    }

    /// A peer that answers fast is asked for more at once, so that a short line is never idle.
    fn adapt_to_speed(&mut self, peer: PeerId, asked: &InFlight, now: Moment) {
        let Some(session) = self.peers.get_mut(&peer) else {
            return;
        };
        let took = now.since(session.last_block.max(asked.asked)).as_millis();
        let took = u64::try_from(took).unwrap_or(u64::MAX);
        session.pace = Some(match session.pace {
            Some(pace) => pace.saturating_mul(7).saturating_add(took) / 8,
            None => took,
        });
        session.last_block = now;
        session.stalling_since = None;
        let limit = session.in_flight_limit;
        session.in_flight_limit =
            if peer == asked.peer && now.since(asked.asked) <= self.config.fast_block {
                session.slow = 0;
                (limit + 1).min(self.config.blocks_per_fast_peer)
            } else if limit > self.config.blocks_per_peer {
                (limit / 2).max(self.config.blocks_per_peer)
            } else {
                // One that was slow shows first that it is not.
                (limit + 1).min(self.config.blocks_per_peer)
            };
    }

    pub(in crate::chain::sync) fn on_unrequested_block(&mut self, peer: PeerId, now: Moment) {
        let Some(session) = self.peers.get_mut(&peer) else {
            return;
        };
        if session.given_up > 0 {
            session.given_up -= 1;
            session.stalling_since = None;
            return;
        }
        session.unrequested_blocks += 1;
        if session.unrequested_blocks > MAX_UNREQUESTED {
            self.drop_peer(peer, DropReason::UnrequestedBlocks, now);
        }
    }

    /// The peer has not got what it was asked for: it has pruned it, or left the branch.
    pub(in crate::chain::sync) fn block_not_found(
        &mut self,
        peer: PeerId,
        hash: &BlockHash,
        now: Moment,
    ) {
        let Some(block) = self.tree.id(hash) else {
            return;
        };
        if self.again_not_found(peer, block, now) {
            return;
        }
        if self
            .downloads
            .in_flight
            .get(&block)
            .is_some_and(|in_flight| in_flight.peer == peer)
        {
            self.release(block);
            if let Some(session) = self.peers.get_mut(&peer) {
                session.best = None;
                session.exhausted = true;
                session.headers_retry = now + self.config.headers_retry;
            }
        }
    }

    /// The block is not in the shell's hands any more; it was, if there is an answer.
    fn let_go(&mut self, block: Id) -> Option<Held> {
        self.tree
            .status_mut(block, |status| status.clear(Status::HELD));
        self.downloads.let_go(block)
    }

    /// What the checks of a block need.
    pub(in crate::chain::sync) fn context_of(&self, block: Id) -> BlockContext {
        let node = self.tree.node(block);
        BlockContext {
            params: self.params,
            height: node.height,
            median_time_past: self.tree.median_time_of(node.parent),
        }
    }

    pub(in crate::chain::sync) fn on_block_lost(&mut self, hash: BlockHash, now: Moment) {
        if let Some(block) = self.tree.id(&hash) {
            self.let_go(block);
        }
        let change = self.tree.mark_missing(&hash);
        self.tip_changed(change, now);
    }

    pub(in crate::chain::sync) fn on_block_checked(
        &mut self,
        hash: BlockHash,
        result: Result<(), BadBlock>,
        now: Moment,
    ) {
        let Some(block) = self.tree.id(&hash) else {
            return;
        };
        let held = self.let_go(block);
        match result {
            Ok(()) => {
                if let Some(session) = held.and_then(|held| self.peers.get_mut(&held.peer)) {
                    session.useful = true;
                }
                let change = self.tree.mark_checked(&hash);
                self.tip_changed(change, now);
            }
            Err(error) if !error.condemns() && held.as_ref().is_some_and(|held| held.assembled) => {
                tracing::debug!(%hash, %error, "a compact block was put together wrongly; the whole one is asked for");
            }
            Err(error) => {
                tracing::warn!(%hash, %error, "block refused");
                if error.condemns() {
                    self.condemn(hash, error.to_string(), now);
                }
                if let Some(held) = held {
                    // Its headers may have been good, its block was not: the next connection waits longer.
                    if let Some(session) = self.peers.get_mut(&held.peer) {
                        session.useful = false;
                    }
                    self.drop_peer(held.peer, DropReason::BadBlock { hash, error }, now);
                }
            }
        }
    }

    pub(in crate::chain::sync) fn condemn(&mut self, hash: BlockHash, reason: String, now: Moment) {
        let change = self.tree.mark_invalid(&hash, reason);
        let condemned: Vec<Id> = self
            .downloads
            .in_flight
            .keys()
            .filter(|block| self.tree.node(**block).status.has(Status::INVALID))
            .copied()
            .collect();
        for block in condemned {
            self.release(block);
        }
        // Whoever is on that branch may have another one to offer.
        for session in self.peers.values_mut() {
            if session
                .best
                .is_some_and(|best| self.tree.node(best).status.has(Status::INVALID))
            {
                session.best = None;
                session.exhausted = false;
            }
        }
        self.tip_changed(change, now);
    }
}
