//! Headers first: from one peer until its branch ends, then from every peer.

use bitcoin::block::Header;
use bitcoin::hashes::siphash24;
use bitcoin::{BlockHash, Work};

use super::presync::{Advance, Presync, Refusal, Start};
use super::{DropReason, Output, PeerId, Sync};
use crate::chain::header_rules::HeaderError;
use crate::chain::header_tree::{Id, Inserted};
use crate::network::TARGET_SPACING;
use crate::wire::Moment;
use crate::wire::codec::MAX_HEADERS_RESULTS;
use crate::wire::message::{Locator, Message};

/// Messages of headers without a known parent before a peer is dropped (Core's `MAX_NUM_UNCONNECTING_HEADERS_MSGS`).
const MAX_UNCONNECTED: u32 = 10;
/// Headers beside the best branch that a peer may give us without giving a better one: about a year of mainnet's.
const MAX_SIDE_HEADERS: usize = 60_000;
/// A branch that has less work than ours had so many blocks ago is measured before it is kept (Core's
/// `GetAntiDoSWorkThreshold`).
const WORK_MARGIN: u64 = 144;

/// What became of a message of headers.
struct Taken {
    /// The last that is in the tree.
    last: Option<BlockHash>,
    /// The rest was passed over, being more than two hours ahead, or because there is no room.
    passed_over: bool,
}

impl Sync {
    /// Asks whoever should be asked next.
    pub(super) fn ask_for_headers(&mut self, now: Moment) {
        let askable: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(_, session)| {
                session.is_for_blocks()
                    && !session.exhausted
                    && session.headers_asked.is_none()
                    && session.headers_retry <= now
            })
            .map(|(id, _)| *id)
            .collect();
        if self.caught_up {
            for id in askable {
                self.ask_for_headers_below_best(id, now);
            }
        } else if self.header_peer.is_none() {
            // The one that says it has most; the rest is asked once its branch ends.
            let best = askable.into_iter().max_by_key(|id| {
                (
                    self.peers.get(id).map(|session| session.claimed_height()),
                    std::cmp::Reverse(*id),
                )
            });
            if let Some(id) = best {
                self.header_peer = Some((id, self.headers_deadline(now)));
                self.ask_for_headers_below_best(id, now);
            }
        }
    }

    /// From the parent of our tip: a peer that has the tip answers with it.
    pub(super) fn ask_for_headers_below_tip(&mut self, peer: PeerId, now: Moment) {
        let parent = self.tree.node(self.tree.tip_id()).parent;
        self.ask_for_headers_from(peer, parent, now);
    }

    /// From the parent of our best header, so that a peer with the same tip answers with it, and is known to have it.
    fn ask_for_headers_below_best(&mut self, peer: PeerId, now: Moment) {
        let best = self.tree.best_id();
        let parent = self.tree.node(best).parent;
        self.ask_for_headers_from(peer, parent, now);
    }

    fn ask_for_headers_from(&mut self, peer: PeerId, from: Id, now: Moment) {
        let locator = Locator::from_hashes(self.tree.locator_from(from));
        if let Some(session) = self.peers.get_mut(&peer) {
            session.headers_asked = Some(now);
        }
        self.send(peer, &Message::GetHeaders(locator));
    }

    /// A block that a peer announced by hash. Returns whether its header is unknown.
    pub(super) fn on_block_announced(
        &mut self,
        peer: PeerId,
        hash: BlockHash,
        now: Moment,
    ) -> bool {
        match self.tree.id(&hash) {
            Some(id) => {
                self.peer_has(peer, id);
                false
            }
            None => {
                self.announce(hash, now);
                true
            }
        }
    }

    /// A peer announced a block that we have no header of.
    pub(super) fn ask_for_announced(&mut self, peer: PeerId, now: Moment) {
        let Some(session) = self.peers.get_mut(&peer) else {
            return;
        };
        session.exhausted = false;
        // While the first peer's branch has no end yet, the others would only send the same again.
        if self.caught_up && session.headers_asked.is_none() {
            self.ask_for_headers_below_best(peer, now);
        }
    }

    pub(super) fn on_headers(&mut self, peer: PeerId, headers: &[Header], now: Moment) {
        let Some(session) = self.peers.get_mut(&peer) else {
            return;
        };
        let asked = session.headers_asked.take();
        let Some(first) = headers.first() else {
            self.on_no_headers(peer, now);
            return;
        };
        if let Some(presync) = &session.presync
            && presync.last() == first.prev_blockhash
        {
            self.read_on(peer, headers, now);
            return;
        }
        if !self.tree.contains(&first.prev_blockhash) {
            session.unconnected += 1;
            if session.unconnected > MAX_UNCONNECTED {
                self.drop_peer(peer, DropReason::UnconnectedHeaders, now);
            } else if asked.is_some() {
                // A new block, announced while its ancestors are on their way.
                session.headers_asked = asked;
            } else {
                // An announcement whose ancestors we miss.
                session.exhausted = false;
                self.ask_for_headers_below_best(peer, now);
            }
            return;
        }
        session.unconnected = 0;
        let measured = session.presync.is_some();
        if measured {
            // Something else in between; the answer is still to come.
            session.headers_asked = asked;
        }
        if self.has_little_work(headers) {
            match (headers.len() >= MAX_HEADERS_RESULTS, measured) {
                (true, false) => self.measure(peer, headers, now),
                (true, true) => self.drop_peer(peer, Refusal::Changed.into(), now),
                (false, false) => {
                    tracing::debug!(%peer, headers = headers.len(), "a branch with little work is passed over");
                    self.headers_end(peer, now);
                }
                (false, true) => {}
            }
            return;
        }
        let Some(taken) = self.take_headers(peer, headers, now) else {
            return;
        };
        let last = taken.last.and_then(|hash| self.tree.id(&hash));
        if let Some(last) = last {
            self.peer_has(peer, last);
        }
        match last {
            Some(last) if headers.len() >= MAX_HEADERS_RESULTS && !taken.passed_over => {
                self.ask_for_headers_from(peer, last, now);
            }
            _ if self.is_measured(peer) => {}
            _ => self.headers_end(peer, now),
        }
    }

    fn is_measured(&self, peer: PeerId) -> bool {
        self.peers
            .get(&peer)
            .is_some_and(|session| session.presync.is_some())
    }

    /// The work that a branch must have before its headers are kept.
    fn required_work(&self) -> Work {
        let best = self.tree.best_id();
        let step = self.tree.header_of(best).work();
        let margin = (0..WORK_MARGIN).fold(Work::from_le_bytes([0; 32]), |sum, _| sum + step);
        let work = self.tree.best_work();
        let near = if work > margin {
            work - margin
        } else {
            Work::from_le_bytes([0; 32])
        };
        near.max(self.config.minimum_work)
    }

    /// Whether these headers, whose parent is known, end a branch that we would not keep. Their proof of work is looked at
    /// later, by the tree or by the presync.
    fn has_little_work(&self, headers: &[Header]) -> bool {
        let (Some(first), Some(last)) = (headers.first(), headers.last()) else {
            return false;
        };
        // What we have costs no memory.
        if self.tree.contains(&last.block_hash()) {
            return false;
        }
        let Some(mut work) = self.tree.chain_work(&first.prev_blockhash) else {
            return false;
        };
        let required = self.required_work();
        for header in headers {
            if work >= required {
                return false;
            }
            // Bits that claim more than they may are found out where the header is checked.
            work = work + header.work().min(required);
        }
        work < required
    }

    /// Begins to measure a branch.
    fn measure(&mut self, peer: PeerId, headers: &[Header], now: Moment) {
        let start = headers
            .first()
            .and_then(|first| self.tree.id(&first.prev_blockhash));
        let Some(start) = start else { return };
        let node = self.tree.node(start);
        let start = Start {
            hash: node.hash,
            height: node.height,
            bits: node.bits.to_consensus(),
            work: node.work,
            median_time: self.tree.median_time_of(start),
        };
        let key = siphash24::Hash::hash_to_u64_with_keys(self.seed, now.0, &peer.0.to_le_bytes());
        let presync = Presync::new(self.params, start, self.required_work(), key, now.secs());
        tracing::debug!(%peer, from = start.height, "a branch is measured before its headers are kept");
        if let Some(session) = self.peers.get_mut(&peer) {
            session.presync = Some(Box::new(presync));
        }
        self.read_on(peer, headers, now);
    }

    /// The next headers of a branch that is being measured.
    fn read_on(&mut self, peer: PeerId, headers: &[Header], now: Moment) {
        let Some(session) = self.peers.get_mut(&peer) else {
            return;
        };
        let Some(presync) = &mut session.presync else {
            return;
        };
        let more = headers.len() >= MAX_HEADERS_RESULTS;
        match presync.read(headers, more) {
            Advance::Ask => self.ask_on(peer, now),
            Advance::Take(good) => match self.take_headers(peer, &good, now) {
                Some(taken) if taken.passed_over => self.headers_end(peer, now),
                Some(_) => self.ask_on(peer, now),
                None => {}
            },
            Advance::Done(good) => {
                session.presync = None;
                self.take_measured(peer, &good, more, now);
            }
            Advance::TooLittle => {
                tracing::debug!(%peer, height = presync.height(), "a branch with too little work");
                session.presync = None;
                self.headers_end(peer, now);
            }
            Advance::Refused(refusal) => self.drop_peer(peer, refusal.into(), now),
        }
    }

    /// Headers of a branch that turned out to have enough work; from here on it is read as any other.
    fn take_measured(&mut self, peer: PeerId, headers: &[Header], more: bool, now: Moment) {
        let Some(taken) = self.take_headers(peer, headers, now) else {
            return;
        };
        let last = taken.last.and_then(|hash| self.tree.id(&hash));
        if let Some(last) = last {
            self.peer_has(peer, last);
        }
        match last {
            Some(last) if more && !taken.passed_over => self.ask_for_headers_from(peer, last, now),
            _ => self.headers_end(peer, now),
        }
    }

    /// Asks for what comes after the last header that was measured.
    fn ask_on(&mut self, peer: PeerId, now: Moment) {
        let Some(session) = self.peers.get_mut(&peer) else {
            return;
        };
        let Some(presync) = &session.presync else {
            return;
        };
        let (last, start) = (presync.last(), presync.start());
        session.headers_asked = Some(now);
        let mut hashes = self.tree.locator(Some(&start));
        if last != start {
            hashes.insert(0, last);
            hashes.truncate(crate::chain::header_tree::MAX_LOCATOR);
        }
        self.send(peer, &Message::GetHeaders(Locator::from_hashes(hashes)));
    }

    /// When all headers have to be here.
    fn headers_deadline(&self, now: Moment) -> Moment {
        let best = self.tree.node(self.tree.best_id()).time;
        let expected = now.secs().saturating_sub(u64::from(best)) / u64::from(TARGET_SPACING);
        now + self.config.headers_sync_timeout + std::time::Duration::from_millis(expected)
    }

    /// The peer has nothing above our locator. It may be behind us on the same branch and still have blocks that we
    /// miss: ask once from below the height that it claims, to see what it has.
    fn on_no_headers(&mut self, peer: PeerId, now: Moment) {
        let Some(session) = self.peers.get_mut(&peer) else {
            return;
        };
        let height = session.peer.start_height();
        if session.best.is_none() && !session.probed && height > 0 {
            session.probed = true;
            if let Some(from) = self.tree.ancestor(self.tree.best_id(), height - 1) {
                self.ask_for_headers_from(peer, from, now);
                return;
            }
        }
        self.headers_end(peer, now);
    }

    /// Puts headers into the tree. Nothing is returned if the peer was dropped for one of them.
    fn take_headers(&mut self, peer: PeerId, headers: &[Header], now: Moment) -> Option<Taken> {
        let work_before = self.tree.best_work();
        let mut new = Vec::new();
        let mut last = None;
        let mut fault = None;
        let mut passed_over = false;
        for header in headers {
            if last.is_some_and(|last: BlockHash| last != header.prev_blockhash) {
                fault = Some(DropReason::BrokenHeaders);
                break;
            }
            let hash = header.block_hash();
            match self.tree.insert_hashed(header, hash, now.secs()) {
                Ok(Inserted::New) => {
                    // A few at once are announcements; more are history.
                    if headers.len() <= 8 {
                        self.announce(hash, now);
                    }
                    new.push(*header);
                }
                Ok(Inserted::Known) => {}
                // Not the peer's fault, perhaps ours: our clock may be slow.
                Err(HeaderError::TooNew { time, .. }) => {
                    tracing::warn!(%hash, time, "a header more than two hours ahead is passed over");
                    passed_over = true;
                    break;
                }
                // Nobody's fault. What we have stays, and the chain goes on in it.
                Err(HeaderError::TreeFull) => {
                    if !std::mem::replace(&mut self.said.tree_full, true) {
                        tracing::warn!(
                            headers = self.tree.len(),
                            "no room for more headers: they are passed over"
                        );
                    }
                    passed_over = true;
                    break;
                }
                Err(error) => {
                    fault = Some(DropReason::BadHeader { hash, error });
                    break;
                }
            }
            last = Some(hash);
        }
        let added = new.len();
        if added > 0 {
            self.last_header = now;
            self.outputs.push_back(Output::Headers(new));
        }
        let better = self.tree.best_work() > work_before;
        if let Some(session) = self.peers.get_mut(&peer) {
            session.useful |= better;
            session.side_headers = if better {
                0
            } else {
                session.side_headers + added
            };
            if session.side_headers > MAX_SIDE_HEADERS {
                fault = fault.or(Some(DropReason::HeaderFlood));
            }
        }
        if let Some(fault) = fault {
            self.drop_peer(peer, fault, now);
            return None;
        }
        Some(Taken { last, passed_over })
    }

    /// The peer has no more headers than it showed.
    fn headers_end(&mut self, peer: PeerId, now: Moment) {
        let enough = self.tree.best_work() >= self.config.minimum_work;
        let (best_height, _) = self.tree.best_header();
        let Some(session) = self.peers.get_mut(&peer) else {
            return;
        };
        session.exhausted = true;
        session.presync = None;
        // Below its own minimum chain work a peer answers with nothing; that is not the tip, so it is asked again.
        if session.peer.start_height() > best_height {
            session.keeping_up.claim_was_empty();
        }
        if !enough || session.peer.start_height() > best_height {
            session.headers_retry = now + self.config.headers_retry;
        }
        if self.header_peer.is_some_and(|(id, _)| id == peer) {
            self.header_peer = None;
        }
        self.caught_up |= enough;
    }

    pub(super) fn tick_headers(&mut self, now: Moment) {
        let (best_height, _) = self.tree.best_header();
        let enough = self.tree.best_work() >= self.config.minimum_work;
        let stale = now.since(self.last_header) >= self.config.stale_tip;
        if stale {
            self.last_header = now;
        }
        let incomplete = self.tree.tip_id() != self.tree.best_id();
        let mut late = Vec::new();
        let mut silent = Vec::new();
        for (id, session) in &mut self.peers {
            let claims_more = session.claimed_height() > best_height;
            // It has more, or not enough, or blocks that we miss and that it has not shown to have.
            let unsure = claims_more || !enough || (incomplete && session.best.is_none());
            if let Some(asked) = session.headers_asked {
                if claims_more && now.since(asked) >= self.config.headers_timeout {
                    late.push(*id);
                } else if !claims_more && now.since(asked) >= self.config.headers_quiet {
                    silent.push(*id);
                }
            } else if session.exhausted && (stale || (unsure && session.headers_retry <= now)) {
                session.exhausted = false;
            }
        }
        for id in late {
            self.drop_peer(id, DropReason::HeadersTimeout, now);
        }
        // A peer that sends headers without end, or slowly, is not waited for when there are others.
        if let Some((id, deadline)) = self.header_peer
            && now >= deadline
        {
            if self
                .peers
                .values()
                .filter(|session| session.is_for_blocks())
                .count()
                > 1
            {
                let reason = DropReason::HeadersSyncTimeout(self.config.headers_sync_timeout);
                self.drop_peer(id, reason, now);
            } else {
                self.header_peer = Some((id, self.headers_deadline(now)));
            }
        }
        for id in silent {
            if let Some(session) = self.peers.get_mut(&id) {
                session.headers_asked = None;
            }
            self.headers_end(id, now);
        }
    }

    /// Whether every peer that could have more has shown that it has not.
    pub(super) fn nobody_has_more(&self) -> bool {
        let (best_height, _) = self.tree.best_header();
        self.peers
            .values()
            .filter(|session| session.is_for_blocks())
            .all(|session| {
                session.exhausted
                    && (session.best.is_some() || session.claimed_height() <= best_height)
            })
    }
}
