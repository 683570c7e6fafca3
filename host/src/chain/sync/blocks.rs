//! Blocks: asked of every peer that has them, inside a window above the active tip.

use std::collections::HashMap;
use std::time::Duration;

use bitcoin::p2p::ServiceFlags;
use bitcoin::p2p::message_blockdata::Inventory;

use super::session::Session;
use super::{DropReason, PeerId, Sync, SyncConfig};
use crate::chain::header_tree::{Id, Status};
use crate::wire::Moment;
use crate::wire::message::Message;

mod take;

/// Blocks that nobody asked for before a peer is dropped. Some come late, after another peer was asked.
const MAX_UNREQUESTED: u32 = 256;
/// How deep below its tip a peer with `NETWORK_LIMITED` serves blocks, less a margin for a race (BIP159, and Core's
/// `NETWORK_LIMITED_ALLOW_CONN_BLOCKS`).
pub(super) const LIMITED_DEPTH: u32 = 288 - 2;

/// The block that all others wait for is taken over by an idle peer after so many times what that one takes for a block.
const TAKE_OVER: u32 = 4;
/// And not before: a peer with a busy moment is not slow.
const LEAST_TAKE_OVER: Duration = Duration::from_millis(250);
/// How long a peer that blocks were taken over from is left alone, to begin with; doubles.
const SLOW_PAUSE: Duration = Duration::from_secs(5);
/// The end of that doubling: 5 s times 2 to the sixth, 320 s.
const MAX_SLOW: u32 = 6;
/// What a peer that has sent no block yet is reckoned to take for one, in ms.
const UNKNOWN_PACE: u64 = 1_000;

/// A block that was asked for.
#[derive(Debug)]
pub(super) struct InFlight {
    peer: PeerId,
    asked: Moment,
    /// Who was late with it and it was taken from, one after the other; each time the next has twice as long.
    late: Vec<PeerId>,
}

impl InFlight {
    /// How many times as long as the first this peer has.
    fn patience(&self) -> u32 {
        1 << self.late.len().min(10)
    }

    /// Those that were late, if this peer is too.
    fn late_now(&self) -> Vec<PeerId> {
        let mut late = self.late.clone();
        late.push(self.peer);
        late
    }

    pub(super) fn asked_at(&self) -> Moment {
        self.asked
    }
}

#[derive(Debug)]
pub(super) struct Held {
    pub(super) peer: PeerId,
    pub(super) bytes: usize,
    /// Put together from a compact block: if it is wrong, two transactions shared a short id.
    pub(super) assembled: bool,
}

/// The blocks on their way and in the shell's hands.
#[derive(Debug)]
pub(super) struct Downloads {
    in_flight: HashMap<Id, InFlight>,
    /// Given out, not yet reported as checked.
    held: HashMap<Id, Held>,
    held_bytes: usize,
    /// What a block takes, on a moving average: what those on their way are reckoned at.
    usual_bytes: usize,
    stall_timeout: Duration,
    /// See [`Sync::set_download_limit`].
    pub(super) limit: Option<u32>,
    /// When the active tip last moved.
    tip_moved: Moment,
}

impl Downloads {
    pub(super) fn new(stall_timeout: Duration) -> Downloads {
        Downloads {
            in_flight: HashMap::new(),
            held: HashMap::new(),
            held_bytes: 0,
            usual_bytes: 1 << 20,
            stall_timeout,
            limit: None,
            tip_moved: Moment(0),
        }
    }

    /// Progress: the patience that a staller used up comes back by and by, as in Core.
    pub(super) fn tip_moved(&mut self, config: &SyncConfig, now: Moment) {
        self.tip_moved = now;
        self.stall_timeout = self.stall_timeout.mul_f64(0.85).max(config.stall_timeout);
    }

    /// The block is in the shell's hands.
    pub(super) fn hold(&mut self, block: Id, held: Held) {
        self.held_bytes += held.bytes;
        self.held.insert(block, held);
    }

    /// Whether it is.
    pub(super) fn holds(&self, block: Id) -> bool {
        self.held.contains_key(&block)
    }

    /// Who sent it.
    pub(super) fn held_from(&self, block: Id) -> Option<PeerId> {
        self.held.get(&block).map(|held| held.peer)
    }

    /// It is no more; it was, if there is an answer.
    pub(super) fn let_go(&mut self, block: Id) -> Option<Held> {
        let held = self.held.remove(&block)?;
        self.held_bytes = self.held_bytes.saturating_sub(held.bytes);
        Some(held)
    }

    fn has_room(&self, max_bytes: usize) -> bool {
        self.held_bytes + self.in_flight.len() * self.usual_bytes < max_bytes
    }
}

/// What there is to ask of a peer.
#[derive(Default)]
struct Wanted {
    blocks: Vec<Id>,
    /// The block just above the tip, if it is on its way and the window ends before the peer's branch does.
    held_up_by: Option<Id>,
    /// The block just above the tip, if it is on its way and there is nothing else to ask for.
    waited_for: Option<Id>,
}

impl Sync {
    /// Asks every peer with free slots for what is missing.
    pub(super) fn ask_for_blocks(&mut self, now: Moment) {
        let mut ids: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(_, session)| {
                // In batches: one message for several blocks, and the window is not walked for each.
                session.peer.is_ready()
                    && session.in_flight.len() * 4 <= session.in_flight_limit * 3
            })
            .map(|(id, _)| *id)
            .collect();
        // A block at the tip does not queue behind old ones that a peer sends.
        ids.sort_by_key(|id| {
            let session = self.peers.get(id);
            session.map_or(0, |session| session.again.len())
        });
        let slow = |session: &Session| session.slow_until > now;
        let sharers = self
            .peers
            .values()
            .filter(|session| session.peer.is_ready() && session.best.is_some() && !slow(session))
            .count();
        for id in ids {
            if sharers > 0 && self.peers.get(&id).is_some_and(slow) {
                continue;
            }
            let wanted = self.wanted_of(id, sharers);
            if !wanted.blocks.is_empty() {
                self.request(id, &wanted.blocks, &[], now);
            } else if let Some(staller) = wanted
                .held_up_by
                .and_then(|block| self.downloads.in_flight.get(&block))
                && staller.peer != id
                && let Some(session) = self.peers.get_mut(&staller.peer)
            {
                session.stalling_since.get_or_insert(now);
            }
            if let Some(block) = wanted.waited_for {
                self.take_over(id, block, now);
            }
        }
    }

    /// With the block that all others wait for on its way from a slow peer, one that has nothing to do is asked for it, and
    /// the slow one is left alone for a while. What it still sends is taken if it comes first.
    fn take_over(&mut self, id: PeerId, block: Id, now: Moment) {
        let (Some(session), Some(in_flight)) =
            (self.peers.get(&id), self.downloads.in_flight.get(&block))
        else {
            return;
        };
        let pace = Duration::from_millis(session.pace.unwrap_or(u64::MAX / 1_000));
        let patience = pace.saturating_mul(TAKE_OVER).max(LEAST_TAKE_OVER);
        let (from, late) = (in_flight.peer, in_flight.late_now());
        let waits = now.since(in_flight.asked);
        // Each time the next has twice as long: with a slow line of ours everyone is slow.
        if from == id
            || !session.in_flight.is_empty()
            || waits < patience.saturating_mul(in_flight.patience())
        {
            return;
        }
        let own_pace = session.pace;
        let Some(slow) = self.peers.get_mut(&from) else {
            return;
        };
        // One that is as fast, and has more to send before it, is not slow.
        let slower = slow
            .pace
            .zip(own_pace)
            .is_some_and(|(theirs, own)| theirs > own.saturating_mul(3));
        if !slower && now.since(slow.last_block) < patience {
            return;
        }
        slow.slow_until = now + SLOW_PAUSE.saturating_mul(1 << slow.slow.min(MAX_SLOW));
        slow.slow = slow.slow.saturating_add(1);
        slow.in_flight_limit = 1;
        let given_up = slow.in_flight.clone();
        for other in given_up {
            self.give_over(other);
        }
        self.request(id, &[block], &late, now);
    }

    /// Takes a block from its peer, which may still send it.
    fn give_over(&mut self, block: Id) {
        if let Some(in_flight) = self.release(block)
            && let Some(session) = self.peers.get_mut(&in_flight.peer)
        {
            session.given_up = session.given_up.saturating_add(1);
        }
    }

    /// With so many peers to share the window.
    fn wanted_of(&self, id: PeerId, sharers: usize) -> Wanted {
        let mut wanted = Wanted::default();
        let Some(session) = self.peers.get(&id) else {
            return wanted;
        };
        let Some(best) = session.best else {
            return wanted;
        };
        let (tree, downloads) = (&self.tree, &self.downloads);
        let target = tree.node(best);
        if target.work < self.config.minimum_work || target.work <= tree.node(tree.tip_id()).work {
            return wanted;
        }
        let services = session.peer.services();
        let limited = !services.has(ServiceFlags::NETWORK);
        // Peers that connected to us may serve nothing, or blocks without their witnesses.
        let serves = !limited || services.has(ServiceFlags::NETWORK_LIMITED);
        if !serves || !services.has(self.config.required_services) {
            return wanted;
        }
        let fork = tree.node(tree.fork_with_active(best)).height;
        let window = fork.saturating_add(self.config.download_window);
        let end = target
            .height
            .min(window)
            .min(downloads.limit.unwrap_or(u32::MAX));
        // A share of what may be asked for at all: nobody takes the whole of it because it was looked at first.
        let share = (end.saturating_sub(fork) as usize).div_ceil(sharers.max(1));
        let room = session
            .in_flight_limit
            .min(share)
            .saturating_sub(session.in_flight.len());
        let mut first_missing = true;
        let mut waited_for = None;
        for height in fork.saturating_add(1)..=end {
            let Some(block) = tree.ancestor(best, height) else {
                break;
            };
            let status = tree.node(block).status;
            if status.has(Status::INVALID) {
                return wanted;
            }
            if status.has(Status::CHECKED) {
                continue;
            }
            if status.has(Status::HELD) {
                first_missing = false;
                continue;
            }
            if status.has(Status::IN_FLIGHT) {
                // With a block below it in the shell's hands, the window waits for us and not for a peer.
                if first_missing {
                    waited_for = Some(block);
                }
                first_missing = false;
                continue;
            }
            if limited && target.height - height >= LIMITED_DEPTH {
                return wanted;
            }
            // The lowest missing block is always asked for: without it nothing that is held can move on.
            let reckoned = wanted.blocks.len() * downloads.usual_bytes;
            let full =
                !downloads.has_room(self.config.max_unchecked_bytes.saturating_sub(reckoned));
            if wanted.blocks.len() >= room || (full && !first_missing) {
                return wanted;
            }
            first_missing = false;
            wanted.blocks.push(block);
        }
        if end == window && target.height > window {
            wanted.held_up_by = waited_for;
        }
        if wanted.blocks.is_empty() {
            wanted.waited_for = waited_for;
        }
        wanted
    }

    /// Asks a peer for blocks, of which others were `late`.
    pub(super) fn request(&mut self, id: PeerId, blocks: &[Id], late: &[PeerId], now: Moment) {
        let witness = self.params.segwit && self.has_service(id, ServiceFlags::WITNESS);
        // Somebody may have hidden what the compact form lacks: whoever is asked next need not be another of those.
        let compact = late.is_empty() && self.wants_compact(id, blocks);
        let Some(session) = self.peers.get_mut(&id) else {
            return;
        };
        if session.in_flight.is_empty() {
            session.last_block = now;
        }
        let mut inventory = Vec::with_capacity(blocks.len());
        for block in blocks {
            let hash = self.tree.node(*block).hash;
            inventory.push(if compact {
                Inventory::CompactBlock(hash)
            } else if witness {
                Inventory::WitnessBlock(hash)
            } else {
                Inventory::Block(hash)
            });
            session.in_flight.push(*block);
            self.downloads.in_flight.insert(
                *block,
                InFlight {
                    peer: id,
                    asked: now,
                    late: late.to_vec(),
                },
            );
            self.tree
                .status_mut(*block, |status| status.set(Status::IN_FLIGHT));
        }
        self.send(id, &Message::GetData(inventory));
    }

    /// The block is no longer expected of anyone.
    pub(super) fn release(&mut self, block: Id) -> Option<InFlight> {
        let in_flight = self.downloads.in_flight.remove(&block)?;
        self.tree
            .status_mut(block, |status| status.clear(Status::IN_FLIGHT));
        if let Some(session) = self.peers.get_mut(&in_flight.peer) {
            session.in_flight.retain(|other| *other != block);
            if session
                .partial
                .as_ref()
                .is_some_and(|partial| partial.is_of(block))
            {
                session.partial = None;
            }
        }
        Some(in_flight)
    }

    pub(super) fn tick_blocks(&mut self, now: Moment) {
        let mut dropped = Vec::new();
        for (id, session) in &self.peers {
            if session
                .stalling_since
                .is_some_and(|since| now.since(since) >= self.downloads.stall_timeout)
            {
                dropped.push((*id, DropReason::Stalled(self.downloads.stall_timeout)));
            } else if !session.in_flight.is_empty()
                && now.since(session.last_block) >= self.config.block_timeout
            {
                dropped.push((*id, DropReason::BlockTimeout));
            }
        }
        for (id, reason) in dropped {
            if matches!(reason, DropReason::Stalled(_)) {
                // A slow line of ours would make a staller of everyone: be more patient with the next.
                self.downloads.stall_timeout = self
                    .downloads
                    .stall_timeout
                    .saturating_mul(2)
                    .min(self.config.max_stall_timeout);
            }
            self.drop_peer(id, reason, now);
        }
        self.move_late_blocks(now);
    }

    /// Where the window does not end, nobody stalls it, but a block may still be late: an idle peer is asked for it.
    fn move_late_blocks(&mut self, now: Moment) {
        let patience = self.downloads.stall_timeout;
        let mut late: Vec<(u32, Id, Vec<PeerId>)> = self
            .downloads
            .in_flight
            .iter()
            .filter(|(_, in_flight)| {
                let patience = patience.saturating_mul(in_flight.patience());
                now.since(in_flight.asked) >= patience
                    && self
                        .peers
                        .get(&in_flight.peer)
                        .is_some_and(|peer| now.since(peer.last_block) >= patience)
            })
            .map(|(block, in_flight)| (self.tree.node(*block).height, *block, in_flight.late_now()))
            .collect();
        late.sort_unstable();
        for (height, block, late) in late {
            if self.tree.best_hash_at(height) != Some(self.tree.node(block).hash) {
                // Of a branch that was left meanwhile: the peer may not have it any more, and we need it no more.
                self.release(block);
                continue;
            }
            let idle = self.peers.iter().filter(|(_, session)| {
                session.peer.is_ready()
                    && session.in_flight.is_empty()
                    && session.peer.services().has(ServiceFlags::NETWORK)
                    && session
                        .best
                        .is_some_and(|best| self.tree.is_ancestor(block, best))
            });
            // Nobody twice while there are others, and the quickest first: two that hide it would be asked by turns.
            let best = idle.min_by_key(|(id, session)| {
                let pace = session.pace.unwrap_or(UNKNOWN_PACE);
                (late.contains(id), session.slow, pace)
            });
            let Some((&idle, _)) = best else { return };
            self.give_over(block);
            self.request(idle, &[block], &late, now);
        }
    }
}
