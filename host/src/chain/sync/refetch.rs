//! Blocks of the active chain that are asked for once more: their bytes were pruned here, and a lane needs them again.
//!
//! The shell says which, the most needed first, and takes them back as [`Output::BlockAgain`]. The tip comes first: what is
//! here is asked beside it, in small portions. A block that does not come in time is asked of another peer; the late one
//! is asked last from then on.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::p2p::ServiceFlags;
use bitcoin::p2p::message_blockdata::Inventory;
use bytes::Bytes;

use super::blocks::LIMITED_DEPTH;
use super::output::StreamStart;
use super::session::Session;
use super::{DropReason, Output, PeerId, Sync};
use crate::chain::block_check::BadBlock;
use crate::chain::header_tree::Id;
use crate::wire::Moment;
use crate::wire::message::Message;

/// The most blocks that can be wanted at a time.
const MAX_WANTED: usize = 1_024;
/// Bytes that one peer is asked for at once, by what blocks were like so far: what a new block at the tip may have to
/// wait for behind them.
const PORTION_BYTES: usize = 2 << 20;
/// The most blocks of one portion.
const PORTION_BLOCKS: usize = 32;
/// How long a peer that was late, or had not what it was asked for, is asked only where there is no other.
const PAUSE: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Asked {
    peer: PeerId,
    at: Moment,
    /// How often it was taken from a peer that was late; each time the next has twice as long.
    moves: u32,
}

/// What is wanted once more, and how far it is.
#[derive(Debug)]
pub(super) struct Refetch {
    /// The most needed first.
    wanted: Vec<Id>,
    /// So many of those, the first ones, may be asked for.
    room: usize,
    asked: HashMap<Id, Asked>,
    /// Given out, not yet reported as checked: from whom, and the bytes.
    held: HashMap<Id, (PeerId, usize)>,
    held_bytes: usize,
    usual_bytes: usize,
    /// The most needed block that no peer has.
    unavailable: Option<u32>,
}

/// What one peer was asked for once more.
#[derive(Debug, Default)]
pub(super) struct Portion {
    blocks: Vec<Id>,
    /// When it last sent one, or was first asked after a pause.
    last: Moment,
    /// Until then it is asked last.
    paused_until: Moment,
    /// It has no blocks up to this height, until then.
    lacks: Option<(u32, Moment)>,
}

impl Portion {
    /// How many blocks the peer is asked for.
    pub(super) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// The peer is at what it was asked for.
    pub(super) fn sends(&mut self, now: Moment) {
        self.last = now;
    }
}

impl Refetch {
    pub(super) fn new() -> Refetch {
        Refetch {
            wanted: Vec::new(),
            room: 0,
            asked: HashMap::new(),
            held: HashMap::new(),
            held_bytes: 0,
            usual_bytes: 1 << 20,
            unavailable: None,
        }
    }

    /// Who sent a block that is being checked.
    pub(super) fn held_from(&self, block: Id) -> Option<PeerId> {
        self.held.get(&block).map(|(peer, _)| *peer)
    }

    fn has_room(&self, max_bytes: usize) -> bool {
        let asked = (self.asked.len() + 1).saturating_mul(self.usual_bytes);
        self.held_bytes.saturating_add(asked) <= max_bytes
    }

    /// How many blocks a peer is asked for at once; beside what it sends for the tip, one by one.
    fn portion(&self, session: &Session) -> usize {
        match session.in_flight.is_empty() {
            true => (PORTION_BYTES / self.usual_bytes.max(1)).clamp(2, PORTION_BLOCKS),
            false => 1,
        }
    }
}

impl Sync {
    /// Names the blocks of the active chain that are wanted once more, the most needed first. So many as there is `room` for
    /// are asked for; those that are not named any more are not waited for.
    pub fn set_refetch(&mut self, wanted: &[BlockHash], room: usize, now: Moment) {
        if wanted.is_empty() && self.refetch.wanted.is_empty() {
            return;
        }
        let tree = &self.tree;
        self.refetch.wanted = wanted
            .iter()
            .filter(|hash| tree.is_active(hash))
            .filter_map(|hash| tree.id(hash))
            .take(MAX_WANTED)
            .collect();
        self.refetch.room = room;
        let kept: HashSet<Id> = self.refetch.wanted.iter().copied().collect();
        let given_up: Vec<Id> = self.refetch.asked.keys().copied().collect();
        for block in given_up {
            if !kept.contains(&block) {
                self.give_up(block);
            }
        }
        self.pump(now);
    }

    /// The result of checking a block that was given out as [`Output::BlockAgain`]. It was good once: whatever is wrong
    /// with it now is its sender's doing, and the block is asked of another peer.
    pub fn block_again_checked(
        &mut self,
        hash: BlockHash,
        result: Result<(), BadBlock>,
        now: Moment,
    ) {
        let held = self
            .tree
            .id(&hash)
            .and_then(|block| self.refetch.held.remove(&block));
        let Some((peer, bytes)) = held else {
            return;
        };
        self.refetch.held_bytes = self.refetch.held_bytes.saturating_sub(bytes);
        match result {
            Ok(()) => {
                // Whoever wanted it has it.
                if let Some(block) = self.tree.id(&hash) {
                    self.refetch.wanted.retain(|wanted| *wanted != block);
                }
                if let Some(session) = self.peers.get_mut(&peer) {
                    session.useful = true;
                }
            }
            Err(error) => {
                tracing::warn!(%hash, %error, "a block that was asked for again refused");
                if let Some(session) = self.peers.get_mut(&peer) {
                    session.useful = false;
                }
                self.drop_peer(peer, DropReason::BadBlock { hash, error }, now);
            }
        }
        self.pump(now);
    }

    /// The height of the most needed block that is wanted once more and that no connected peer has.
    pub fn refetch_unavailable(&self) -> Option<u32> {
        self.refetch.unavailable
    }

    /// A block of so many bytes begins to come in pieces. What its checks need, if it was asked for once more.
    pub(super) fn begin_again(
        &mut self,
        peer: PeerId,
        block: Id,
        length: u64,
        now: Moment,
    ) -> Option<StreamStart> {
        if !self.take_again(peer, block) {
            return None;
        }
        // The shell holds some of its pieces at a time, and bounds how many.
        self.refetch.held.insert(block, (peer, 0));
        self.note_usual(usize::try_from(length).unwrap_or(usize::MAX));
        Some(StreamStart {
            height: self.tree.node(block).height,
            context: self.context_of(block),
            length,
            announced_at: now,
        })
    }

    /// Its pieces end before it is whole: it is asked of another.
    pub(super) fn again_broken(&mut self, block: Id) {
        self.refetch.held.remove(&block);
    }

    /// How large blocks are is guessed from those that came: as many are asked for as there may be room for.
    fn note_usual(&mut self, bytes: usize) {
        self.refetch.usual_bytes = (self.refetch.usual_bytes / 8).saturating_mul(7) + bytes / 8;
    }

    /// Asks peers with free slots for what is wanted.
    pub(super) fn ask_again(&mut self, now: Moment) {
        self.refetch.unavailable = None;
        if self.refetch.wanted.is_empty() {
            return;
        }
        let mut portions: BTreeMap<PeerId, Vec<Id>> = BTreeMap::new();
        let wanted = std::mem::take(&mut self.refetch.wanted);
        let mut first = true;
        for (index, &block) in wanted.iter().enumerate() {
            let refetch = &self.refetch;
            if refetch.asked.contains_key(&block) || refetch.held.contains_key(&block) {
                first = false;
                continue;
            }
            // The most needed block is always asked for: what came before it cannot move on without it.
            let room = index < refetch.room && refetch.has_room(self.config.max_again_bytes);
            if !first && !room {
                break;
            }
            let Some(peer) = self.server_of(block, None, now) else {
                if self.refetch.unavailable.is_none() && !self.somebody_has(block, now) {
                    self.refetch.unavailable = Some(self.tree.node(block).height);
                }
                continue;
            };
            first = false;
            self.note_asked(peer, block, 0, now);
            portions.entry(peer).or_default().push(block);
        }
        self.refetch.wanted = wanted;
        for (peer, blocks) in portions {
            self.send_again(peer, &blocks);
        }
    }

    /// A peer that has the block and a free slot: one that was not late lately, then the one that is asked for least.
    /// Not the one that is late with it: then another may be asked for twice as much.
    fn server_of(&self, block: Id, late: Option<PeerId>, now: Moment) -> Option<PeerId> {
        let times = if late.is_some() { 2 } else { 1 };
        self.peers
            .iter()
            .filter(|(id, session)| {
                Some(**id) != late
                    && session.again.blocks.len() < times * self.refetch.portion(session)
                    && self.has_again(session, block, now)
            })
            .min_by_key(|(_, session)| {
                (
                    session.again.paused_until > now,
                    !session.in_flight.is_empty(),
                    session.again.blocks.len(),
                )
            })
            .map(|(id, _)| *id)
    }

    fn somebody_has(&self, block: Id, now: Moment) -> bool {
        self.peers
            .values()
            .any(|session| self.has_again(session, block, now))
    }

    /// Whether a peer is to be asked for an old block: it says that it has all of them, or the block is not old.
    fn has_again(&self, session: &Session, block: Id, now: Moment) -> bool {
        let services = session.peer.services();
        let height = self.tree.node(block).height;
        let Some(best) = session.best else {
            return false;
        };
        let deep = self.tree.node(best).height.saturating_sub(height) >= LIMITED_DEPTH;
        let kept = services.has(ServiceFlags::NETWORK)
            || (services.has(ServiceFlags::NETWORK_LIMITED) && !deep);
        let lacks = session
            .again
            .lacks
            .is_some_and(|(up_to, until)| height <= up_to && now < until);
        session.peer.is_ready()
            && kept
            && !lacks
            && services.has(self.config.required_services)
            && self.tree.is_ancestor(block, best)
    }

    fn note_asked(&mut self, peer: PeerId, block: Id, moves: u32, now: Moment) {
        if let Some(session) = self.peers.get_mut(&peer) {
            if session.again.blocks.is_empty() {
                session.again.last = now;
            }
            session.again.blocks.push(block);
            let asked = Asked {
                peer,
                at: now,
                moves,
            };
            self.refetch.asked.insert(block, asked);
        }
    }

    fn send_again(&mut self, peer: PeerId, blocks: &[Id]) {
        let witness = self.has_service(peer, ServiceFlags::WITNESS);
        let inventory = blocks
            .iter()
            .map(|block| {
                let hash = self.tree.node(*block).hash;
                match witness {
                    true => Inventory::WitnessBlock(hash),
                    false => Inventory::Block(hash),
                }
            })
            .collect();
        self.send(peer, &Message::GetData(inventory));
    }

    /// The block is not waited for any more; its peer may still send it.
    fn give_up(&mut self, block: Id) -> Option<Asked> {
        let asked = self.refetch.asked.remove(&block)?;
        if let Some(session) = self.peers.get_mut(&asked.peer) {
            session.again.blocks.retain(|other| *other != block);
            session.given_up = session.given_up.saturating_add(1);
        }
        Some(asked)
    }

    /// What a peer that goes away was asked for is asked of others.
    pub(super) fn forget_again(&mut self, session: &Session) {
        for block in &session.again.blocks {
            self.refetch.asked.remove(block);
        }
    }

    /// Takes a block that is wanted once more. False when this one is not.
    pub(super) fn on_block_again(
        &mut self,
        peer: PeerId,
        block: Id,
        raw: &Bytes,
        now: Moment,
    ) -> bool {
        if !self.take_again(peer, block) {
            return false;
        }
        if let Some(session) = self.peers.get_mut(&peer) {
            session.again.last = now;
        }
        let node = self.tree.node(block);
        let (hash, height) = (node.hash, node.height);
        let context = self.context_of(block);
        self.refetch.held.insert(block, (peer, raw.len()));
        self.refetch.held_bytes += raw.len();
        self.note_usual(raw.len());
        self.outputs.push_back(Output::BlockAgain {
            hash,
            height,
            context,
            raw: raw.clone(),
        });
        true
    }

    /// A block comes from a peer. Whether it is one that is wanted once more and that nobody else has sent: then it is not
    /// waited for any more.
    fn take_again(&mut self, peer: PeerId, block: Id) -> bool {
        let asked_of = self.refetch.asked.get(&block).map(|asked| asked.peer);
        let Some(session) = self.peers.get_mut(&peer) else {
            return false;
        };
        // Late ones are as good, as long as nobody else was faster.
        let late = session.given_up > 0 && self.refetch.wanted.contains(&block);
        if asked_of != Some(peer) && !late || self.refetch.held.contains_key(&block) {
            return false;
        }
        match asked_of {
            Some(of) if of == peer => {
                self.refetch.asked.remove(&block);
                session.again.blocks.retain(|other| *other != block);
            }
            _ => {
                session.given_up -= 1;
                self.give_up(block);
            }
        }
        true
    }

    /// The peer has pruned the block itself. False when it was not asked for it once more.
    pub(super) fn again_not_found(&mut self, peer: PeerId, block: Id, now: Moment) -> bool {
        if self
            .refetch
            .asked
            .get(&block)
            .is_none_or(|asked| asked.peer != peer)
        {
            return false;
        }
        self.refetch.asked.remove(&block);
        let height = self.tree.node(block).height;
        if let Some(session) = self.peers.get_mut(&peer) {
            session.again.blocks.retain(|other| *other != block);
            let before = session.again.lacks.map_or(0, |(up_to, _)| up_to);
            session.again.lacks = Some((height.max(before), now + PAUSE));
            session.again.paused_until = now + PAUSE;
        }
        true
    }

    pub(super) fn tick_again(&mut self, now: Moment) {
        if self.refetch.asked.is_empty() {
            return;
        }
        let dropped: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(_, session)| {
                !session.again.blocks.is_empty()
                    && now.since(session.again.last) >= self.config.block_timeout
            })
            .map(|(id, _)| *id)
            .collect();
        for id in dropped {
            self.drop_peer(id, DropReason::BlockTimeout, now);
        }
        self.move_late(now);
    }

    fn move_late(&mut self, now: Moment) {
        let patience = self.config.stall_timeout;
        let first = self.refetch.wanted.first();
        let mut late: Vec<(u32, Id, PeerId, u32, bool)> = self
            .refetch
            .asked
            .iter()
            .filter(|(block, asked)| {
                let patience = patience.saturating_mul(1 << asked.moves.min(10));
                // In the middle of a portion a peer that sends is not late, but for the block that all wait for.
                let idle = || {
                    let session = self.peers.get(&asked.peer);
                    session.is_some_and(|session| now.since(session.again.last) >= patience)
                };
                now.since(asked.at) >= patience && (first == Some(*block) || idle())
            })
            .map(|(block, asked)| {
                let height = self.tree.node(*block).height;
                let very = now.since(asked.at) >= patience.saturating_mul(4 << asked.moves.min(10));
                (height, *block, asked.peer, asked.moves, very)
            })
            .collect();
        late.sort_unstable();
        for (_, block, from, moves, very) in late {
            let Some(to) = self.server_of(block, Some(from), now) else {
                continue;
            };
            // From one late peer to another is seldom a gain.
            let late_too = self
                .peers
                .get(&to)
                .is_some_and(|session| session.again.paused_until > now);
            if late_too && !very {
                continue;
            }
            self.give_up(block);
            if let Some(session) = self.peers.get_mut(&from) {
                session.again.paused_until = now + PAUSE;
            }
            self.note_asked(to, block, moves + 1, now);
            self.send_again(to, &[block]);
        }
    }
}
