//! Headers first: from one peer until its branch ends, then from every peer.

use bitcoin::BlockHash;
use bitcoin::block::Header;

use super::{DropReason, Output, PeerId, Sync};
use crate::chain::header_rules::HeaderError;
use crate::chain::header_tree::{Id, Inserted};
use crate::wire::Moment;
use crate::wire::codec::MAX_HEADERS_RESULTS;
use crate::wire::message::{Locator, Message};

/// Messages of headers without a known parent before a peer is dropped (Core's `MAX_NUM_UNCONNECTING_HEADERS_MSGS`).
const MAX_UNCONNECTED: u32 = 10;
/// Headers beside the best branch that a peer may give us without giving a better one: about a year of mainnet's.
const MAX_SIDE_HEADERS: usize = 60_000;

impl Sync {
    /// Asks whoever should be asked next.
    pub(super) fn ask_for_headers(&mut self, now: Moment) {
        let askable: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(_, session)| {
                session.peer.is_ready()
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
            let best = askable
                .into_iter()
                .max_by_key(|id| (self.peers.get(id).map(|session| session.peer.start_height()), std::cmp::Reverse(*id)));
            if let Some(id) = best {
                self.header_peer = Some(id);
                self.ask_for_headers_below_best(id, now);
            }
        }
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
    pub(super) fn on_block_announced(&mut self, peer: PeerId, hash: BlockHash, now: Moment) -> bool {
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
        let Some(session) = self.peers.get_mut(&peer) else { return };
        session.exhausted = false;
        // While the first peer's branch has no end yet, the others would only send the same again.
        if self.caught_up && session.headers_asked.is_none() {
            self.ask_for_headers_below_best(peer, now);
        }
    }

    pub(super) fn on_headers(&mut self, peer: PeerId, headers: &[Header], now: Moment) {
        let Some(session) = self.peers.get_mut(&peer) else { return };
        session.headers_asked = None;
        let Some(first) = headers.first() else {
            self.headers_end(peer, now);
            return;
        };
        if !self.tree.contains(&first.prev_blockhash) {
            session.unconnected += 1;
            if session.unconnected > MAX_UNCONNECTED {
                self.drop_peer(peer, DropReason::UnconnectedHeaders, now);
            } else {
                // An announcement whose ancestors we miss.
                session.exhausted = false;
                self.ask_for_headers_below_best(peer, now);
            }
            return;
        }
        session.unconnected = 0;
        let full = headers.len() >= MAX_HEADERS_RESULTS;
        let Some(last) = self.take_headers(peer, headers, now) else { return };
        self.peer_has(peer, last);
        if full {
            self.ask_for_headers_from(peer, last, now);
        } else {
            self.headers_end(peer, now);
        }
    }

    /// Puts headers into the tree. Returns the last one, or nothing if the peer was dropped for one of them.
    fn take_headers(&mut self, peer: PeerId, headers: &[Header], now: Moment) -> Option<Id> {
        let work_before = self.tree.best_work();
        let mut new = Vec::new();
        let mut last = None;
        let mut fault = None;
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
            session.side_headers = if better { 0 } else { session.side_headers + added };
            if session.side_headers > MAX_SIDE_HEADERS {
                fault = fault.or(Some(DropReason::HeaderFlood));
            }
        }
        if let Some(fault) = fault {
            self.drop_peer(peer, fault, now);
            return None;
        }
        last.and_then(|hash| self.tree.id(&hash)).or(Some(Id::GENESIS))
    }

    /// The peer has no more headers than it showed.
    fn headers_end(&mut self, peer: PeerId, now: Moment) {
        let enough = self.tree.best_work() >= self.config.minimum_work;
        let (best_height, _) = self.tree.best_header();
        let Some(session) = self.peers.get_mut(&peer) else { return };
        session.exhausted = true;
        // Below its own minimum chain work a peer answers with nothing; that is not the tip, so it is asked again.
        if !enough || session.peer.start_height() > best_height {
            session.headers_retry = now + self.config.headers_retry;
        }
        if self.header_peer == Some(peer) {
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
        let mut late = Vec::new();
        let mut silent = Vec::new();
        for (id, session) in &mut self.peers {
            let claims_more = session.peer.start_height() > best_height;
            if let Some(asked) = session.headers_asked {
                if claims_more && now.since(asked) >= self.config.headers_timeout {
                    late.push(*id);
                } else if !claims_more && now.since(asked) >= self.config.headers_quiet {
                    silent.push(*id);
                }
            } else if session.exhausted && (stale || ((claims_more || !enough) && session.headers_retry <= now)) {
                session.exhausted = false;
            }
        }
        for id in late {
            self.drop_peer(id, DropReason::HeadersTimeout, now);
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
        self.caught_up
            && self.peers.values().filter(|session| session.peer.is_ready()).all(|session| {
                session.exhausted && (session.best.is_some() || session.peer.start_height() <= best_height)
            })
    }
}
