//! Blocks that are on a disk of ours already: Bitcoin Core's own folder, say. They need no peer, and no peer is asked for them.
//!
//! The shell tells which blocks there are ([`source_found`](Sync::source_found)) in whatever order; here their headers go into
//! the tree as those of peers do, and the blocks are given out for checking in the order of the best branch. A block of the
//! source is marked as held in the tree until it was checked or turned out to be lost, so that it is not downloaded.

use std::collections::{HashMap, HashSet};

use bitcoin::BlockHash;
use bitcoin::block::Header;

use super::{Output, Sync};
use crate::chain::header_rules::HeaderError;
use crate::chain::header_tree::{Id, Inserted, MAX_HEADERS, Status};
use crate::wire::Moment;

/// How many blocks are given out before the first comes back checked: enough that the checker is never idle.
const GIVEN: usize = 64;

/// The blocks of the source that were not checked yet.
#[derive(Debug, Default)]
pub(super) struct SourceBlocks {
    /// There is a source, and its first scan goes on: what it has is not known yet.
    scanning: bool,
    /// There is a source, and everything in it was seen once.
    scanned: bool,
    /// Their lengths in bytes.
    waiting: HashMap<Id, u32>,
    given: HashSet<Id>,
    /// Headers without their parents, by the parents' hashes.
    orphans: HashMap<BlockHash, Vec<(Header, u32)>>,
    orphan_count: usize,
    /// Nodes of the tree below this index have their orphans.
    connected: usize,
    /// See [`Sync::set_source_limit`].
    limit: Option<u32>,
}

/// How far the source is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceView {
    /// Blocks whose headers are known and that wait to be checked.
    pub waiting: usize,
    /// Blocks whose parents nobody has shown yet.
    pub unconnected: usize,
}

impl Sync {
    /// There is a source of blocks: until [`source_scanned`](Self::source_scanned) no peer is asked for blocks, for the
    /// source may have them.
    pub fn expect_source(&mut self) {
        self.source.scanning = true;
    }

    /// The source has these blocks: their headers and lengths in bytes. Some may be known, or have no parent yet.
    pub fn source_found(&mut self, found: Vec<(Header, u32)>, now: Moment) {
        let mut new = Vec::new();
        self.connect_headers(found, &mut new, now);
        self.tell_headers(new, now);
        self.pump(now);
    }

    /// Everything that the source has now was reported.
    pub fn source_scanned(&mut self, now: Moment) {
        if !self.source.scanned {
            self.source.scanning = false;
            self.source.scanned = true;
            self.pump(now);
        }
    }

    /// A block that was given out as [`Output::SourceBlock`] cannot be read: a peer may have it.
    pub fn source_lost(&mut self, hash: BlockHash, now: Moment) {
        if let Some(id) = self.tree.id(&hash) {
            self.tree
                .status_mut(id, |status| status.clear(Status::HELD));
            self.source_done(id);
            self.pump(now);
        }
    }

    /// No block of the source above this height is given out.
    pub fn set_source_limit(&mut self, height: Option<u32>, now: Moment) {
        if self.source.limit != height {
            self.source.limit = height;
            self.pump(now);
        }
    }

    /// How far the source is.
    pub fn source_view(&self) -> SourceView {
        SourceView {
            waiting: self.source.waiting.len(),
            unconnected: self.source.orphan_count,
        }
    }

    /// While the first scan goes on nobody knows which blocks have to come from peers.
    pub(super) fn source_is_scanning(&self) -> bool {
        self.source.scanning
    }

    /// The source takes the place of a peer: everything in it was seen, and stands on something.
    pub(super) fn source_counts_as_peer(&self) -> bool {
        self.source.scanned && self.source.orphan_count == 0
    }

    /// The block was checked, or is lost.
    pub(super) fn source_done(&mut self, id: Id) {
        self.source.waiting.remove(&id);
        self.source.given.remove(&id);
    }

    /// The blocks up to this height are not needed.
    pub(super) fn forget_source_below(&mut self, height: u32) {
        let tree = &self.tree;
        self.source
            .waiting
            .retain(|id, _| tree.node(*id).height > height);
    }

    /// Headers of peers may be the parents of blocks that the source has.
    pub(super) fn connect_source(&mut self, now: Moment) {
        let mut new = Vec::new();
        while self.source.connected < self.tree.len() && !self.source.orphans.is_empty() {
            let hash = self.tree.node(Id::new(self.source.connected)).hash;
            self.source.connected += 1;
            if let Some(children) = self.source.orphans.remove(&hash) {
                self.source.orphan_count -= children.len();
                self.connect_headers(children, &mut new, now);
            }
        }
        self.source.connected = self.tree.len();
        self.tell_headers(new, now);
    }

    fn connect_headers(&mut self, found: Vec<(Header, u32)>, new: &mut Vec<Header>, now: Moment) {
        let mut ready = found;
        ready.reverse();
        while let Some((header, bytes)) = ready.pop() {
            let hash = header.block_hash();
            match self.tree.insert_hashed(&header, hash, now.secs()) {
                Ok(inserted) => {
                    if inserted == Inserted::New {
                        new.push(header);
                    }
                    self.have(hash, bytes);
                }
                Err(HeaderError::UnknownParent(parent)) => {
                    // As many as the tree takes: no folder has more.
                    if self.source.orphan_count < MAX_HEADERS {
                        let siblings = self.source.orphans.entry(parent).or_default();
                        if !siblings.contains(&(header, bytes)) {
                            siblings.push((header, bytes));
                            self.source.orphan_count += 1;
                        }
                    }
                    continue;
                }
                Err(error) => {
                    tracing::warn!(%hash, %error, "a header of the blocks' folder is refused");
                    continue;
                }
            }
            if let Some(children) = self.source.orphans.remove(&hash) {
                self.source.orphan_count -= children.len();
                ready.extend(children);
            }
        }
    }

    fn have(&mut self, hash: BlockHash, bytes: u32) {
        let Some(id) = self.tree.id(&hash) else {
            return;
        };
        let unwanted = Status::CHECKED | Status::INVALID | Status::HELD | Status::IN_FLIGHT;
        if !self.tree.node(id).status.has(unwanted) {
            self.tree.status_mut(id, |status| status.set(Status::HELD));
            self.source.waiting.insert(id, bytes);
        }
    }

    fn tell_headers(&mut self, new: Vec<Header>, now: Moment) {
        if !new.is_empty() {
            self.last_header = now;
            self.outputs.push_back(Output::Headers(new));
        }
    }

    /// Gives out the lowest blocks of the best branch that the source has.
    pub(super) fn give_source_blocks(&mut self) {
        if self.source.waiting.is_empty() {
            return;
        }
        let best = self.tree.best_id();
        let fork = self.tree.node(self.tree.fork_with_active(best)).height;
        let window = fork.saturating_add(self.config.download_window);
        let limit = self.source.limit.unwrap_or(u32::MAX);
        let end = self.tree.node(best).height.min(window).min(limit);
        for height in fork.saturating_add(1)..=end {
            if self.source.given.len() >= GIVEN {
                break;
            }
            let Some(id) = self.tree.ancestor(best, height) else {
                break;
            };
            let Some(&bytes) = self.source.waiting.get(&id) else {
                continue;
            };
            if self.tree.node(id).status.has(Status::INVALID) {
                break;
            }
            if !self.source.given.insert(id) {
                continue;
            }
            self.outputs.push_back(Output::SourceBlock {
                hash: self.tree.node(id).hash,
                height,
                bytes,
                context: self.context_of(id),
            });
        }
    }
}
