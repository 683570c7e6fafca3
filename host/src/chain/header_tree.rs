//! The tree of all headers heard of, in memory: work, ancestors, which blocks are here, which branches are condemned.
//!
//! One node is 128 bytes and the index five bytes a slot, so mainnet's headers take about 130 MB.

use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Work};
use hashbrown::HashTable;

use super::header_rules::{Ancestry, HeaderError, MEDIAN_TIME_SPAN, check_header};
use crate::network::{Params, RETARGET_INTERVAL};

mod node;

pub(crate) use node::Id;
use node::Node;
pub use node::Status;

/// The most headers that the tree takes: a bound on what a flood of cheap ones can cost (testnet3 has some 5 million).
pub const MAX_HEADERS: usize = 12_000_000;
/// The most hashes in a locator (Core's `MAX_LOCATOR_SZ`).
pub const MAX_LOCATOR: usize = 101;

/// What became of a header that was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It is new.
    New,
    /// It was already there.
    Known,
}

/// The active chain has another tip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TipChange {
    /// Height of the last block that the old and the new active chain share.
    pub fork_height: u32,
    /// Height of the new tip.
    pub height: u32,
    /// Hash of the new tip.
    pub hash: BlockHash,
}

/// A header that could not be loaded.
#[derive(Debug, thiserror::Error)]
#[error("header {index} of the stored headers ({hash}) is refused: {error}")]
pub struct LoadError {
    /// Its position, from 0.
    pub index: usize,
    /// Its hash.
    pub hash: BlockHash,
    /// What is wrong with it.
    #[source]
    pub error: HeaderError,
}

/// All headers that were accepted, by hash and by height.
///
/// Two branches are kept as vectors, so that a height is found at once: the *best header* branch (most work, not
/// condemned) and the *active* chain (most work among the branches whose blocks are all here and checked).
#[derive(Debug, Clone)]
pub struct HeaderTree {
    params: &'static Params,
    nodes: Vec<Node>,
    index: HashTable<Id>,
    best: Vec<Id>,
    active: Vec<Id>,
    /// Checked blocks that wait for their parent's block: (parent, child).
    waiting: hashbrown::HashMap<Id, Vec<Id>, foldhash::fast::FixedState>,
    /// Why blocks were condemned; their descendants are only flagged.
    reasons: hashbrown::HashMap<Id, String, foldhash::fast::FixedState>,
}

impl HeaderTree {
    /// A tree that holds the genesis block, which needs no download.
    pub fn new(params: &'static Params) -> HeaderTree {
        let header = params.genesis_header;
        let mut root = Node::new(&header, params.genesis_hash, Id::GENESIS, 0, Id::GENESIS, header.work());
        root.status.set(Status::CHECKED | Status::COMPLETE);
        let mut tree = HeaderTree {
            params,
            nodes: vec![root],
            index: HashTable::new(),
            best: vec![Id::GENESIS],
            active: vec![Id::GENESIS],
            waiting: hashbrown::HashMap::default(),
            reasons: hashbrown::HashMap::default(),
        };
        tree.index.insert_unique(slot(&params.genesis_hash), Id::GENESIS, |_| slot(&params.genesis_hash));
        tree
    }

    /// A tree of the headers that were stored, parents first; the genesis header may be among them. Every rule is
    /// checked again except the two hours ahead: the clock may have been put right since.
    pub fn load(params: &'static Params, headers: impl IntoIterator<Item = Header>) -> Result<HeaderTree, LoadError> {
        let mut tree = HeaderTree::new(params);
        let headers = headers.into_iter();
        let expected = headers.size_hint().0.min(MAX_HEADERS);
        tree.nodes.reserve(expected);
        tree.best.reserve(expected);
        let nodes = &tree.nodes;
        tree.index.reserve(expected, |id| node_slot(nodes, *id));
        for (index, header) in headers.enumerate() {
            tree.insert(header, u64::MAX).map_err(|error| LoadError { index, hash: header.block_hash(), error })?;
        }
        Ok(tree)
    }

    /// Takes `header` if it keeps the rules; `now` is unix time in seconds.
    pub fn insert(&mut self, header: Header, now: u64) -> Result<Inserted, HeaderError> {
        self.insert_hashed(&header, header.block_hash(), now)
    }

    /// As [`insert`](Self::insert), for a caller that has the hash already.
    pub(crate) fn insert_hashed(&mut self, header: &Header, hash: BlockHash, now: u64) -> Result<Inserted, HeaderError> {
        if let Some(id) = self.id(&hash) {
            if self.node(id).status.has(Status::INVALID) {
                return Err(HeaderError::InvalidBranch(hash));
            }
            return Ok(Inserted::Known);
        }
        let parent = self.id(&header.prev_blockhash).ok_or(HeaderError::UnknownParent(header.prev_blockhash))?;
        if self.node(parent).status.has(Status::INVALID) {
            return Err(HeaderError::InvalidBranch(header.prev_blockhash));
        }
        if self.nodes.len() >= MAX_HEADERS {
            return Err(HeaderError::TreeFull);
        }
        check_header(self.params, header, hash, &Branch { tree: self, parent }, now)?;

        let parent_node = self.node(parent);
        // The work of a target costs a 256-bit division, and a target mostly stays.
        let step = match self.nodes.get(parent_node.parent.index()) {
            Some(grandparent) if parent != Id::GENESIS && parent_node.bits == header.bits => {
                parent_node.work - grandparent.work
            }
            _ => header.work(),
        };
        let work = parent_node.work + step;
        let height = parent_node.height + 1;
        let skip = self.ancestor(parent, skip_height(height)).unwrap_or(Id::GENESIS);
        let id = Id::new(self.nodes.len());
        self.nodes.push(Node::new(header, hash, parent, height, skip, work));
        let nodes = &self.nodes;
        self.index.insert_unique(slot(&hash), id, |other| node_slot(nodes, *other));
        if work > self.node(self.best_id()).work {
            self.set_best(id);
        }
        Ok(Inserted::New)
    }

    /// How many headers are here, the genesis included.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never: the genesis is always there.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The parameters of its network.
    pub fn params(&self) -> &'static Params {
        self.params
    }

    /// Whether the header is here.
    pub fn contains(&self, hash: &BlockHash) -> bool {
        self.id(hash).is_some()
    }

    /// The header with this hash.
    pub fn header(&self, hash: &BlockHash) -> Option<Header> {
        self.id(hash).map(|id| self.header_of(id))
    }

    /// The height of the header with this hash, on whatever branch.
    pub fn height_of(&self, hash: &BlockHash) -> Option<u32> {
        self.id(hash).map(|id| self.node(id).height)
    }

    /// The work of the branch that ends with this header.
    pub fn chain_work(&self, hash: &BlockHash) -> Option<Work> {
        self.id(hash).map(|id| self.node(id).work)
    }

    /// The median time past of the header and the ten before it, unix seconds (BIP113).
    pub fn median_time(&self, hash: &BlockHash) -> Option<u32> {
        self.id(hash).map(|id| self.median_time_of(id))
    }

    /// Height and hash of the last header of the branch with the most work.
    pub fn best_header(&self) -> (u32, BlockHash) {
        let node = self.node(self.best_id());
        (node.height, node.hash)
    }

    /// The work of the best header's branch.
    pub fn best_work(&self) -> Work {
        self.node(self.best_id()).work
    }

    /// Height and hash of the active chain's last block.
    pub fn tip(&self) -> (u32, BlockHash) {
        let node = self.node(self.tip_id());
        (node.height, node.hash)
    }

    /// The hash at `height` on the active chain.
    pub fn hash_at(&self, height: u32) -> Option<BlockHash> {
        self.active.get(height as usize).map(|id| self.node(*id).hash)
    }

    /// The hash at `height` on the best header's branch.
    pub fn best_hash_at(&self, height: u32) -> Option<BlockHash> {
        self.best.get(height as usize).map(|id| self.node(*id).hash)
    }

    /// Whether the block is on the active chain.
    pub fn is_active(&self, hash: &BlockHash) -> bool {
        self.id(hash).is_some_and(|id| on(&self.active, self.node(id).height, id))
    }

    /// Height and hash of the last block that `hash`'s branch shares with the active chain.
    pub fn fork_point(&self, hash: &BlockHash) -> Option<(u32, BlockHash)> {
        let id = self.id(hash)?;
        let node = self.node(self.fork_with(&self.active, id));
        Some((node.height, node.hash))
    }

    /// Why the block was condemned; a descendant of a condemned block names that one.
    pub fn invalid_reason(&self, hash: &BlockHash) -> Option<String> {
        let mut id = self.id(hash)?;
        if !self.node(id).status.has(Status::INVALID) {
            return None;
        }
        loop {
            if let Some(reason) = self.reasons.get(&id) {
                return Some(reason.clone());
            }
            if id == Id::GENESIS {
                return None;
            }
            id = self.node(id).parent;
        }
    }

    /// Hashes that tell a peer what we have, from `hash` (or the best header) back: ten by one, then in doubling
    /// steps to the genesis. At most 101.
    pub fn locator(&self, hash: Option<&BlockHash>) -> Vec<BlockHash> {
        let start = hash.and_then(|hash| self.id(hash)).unwrap_or(self.best_id());
        self.locator_from(start)
    }

    /// Records that the block is here and passed its checks. Returns the change of the active chain, if any. A block
    /// whose header is unknown or condemned changes nothing.
    pub fn mark_checked(&mut self, hash: &BlockHash) -> Option<TipChange> {
        let id = self.id(hash)?;
        if self.node(id).status.has(Status::INVALID) {
            return None;
        }
        self.status_mut(id, |status| status.set(Status::CHECKED));
        let parent = self.node(id).parent;
        if self.node(parent).status.has(Status::COMPLETE) {
            self.complete(id)
        } else {
            let waiting = self.waiting.entry(parent).or_default();
            if !waiting.contains(&id) {
                waiting.push(id);
            }
            None
        }
    }

    /// Records that the block and every block below it were checked once, at start or after pruning.
    pub fn mark_checked_through(&mut self, hash: &BlockHash) -> Option<TipChange> {
        let mut id = self.id(hash)?;
        let mut path = Vec::new();
        while !self.node(id).status.has(Status::COMPLETE) {
            path.push(id);
            id = self.node(id).parent;
        }
        let before = self.tip_id();
        for id in path.into_iter().rev() {
            let hash = self.node(id).hash;
            self.mark_checked(&hash);
        }
        self.tip_change_since(before)
    }

    /// Records that the block's content is gone (a torn log): it and what stands on it must be had again.
    pub fn mark_missing(&mut self, hash: &BlockHash) -> Option<TipChange> {
        let id = self.id(hash).filter(|id| *id != Id::GENESIS)?;
        let before = self.tip_id();
        self.waiting.entry(self.node(id).parent).and_modify(|children| children.retain(|child| *child != id));
        self.status_mut(id, |status| status.clear(Status::CHECKED));
        for index in id.index()..self.nodes.len() {
            let node = self.node(Id::new(index));
            let parent = node.parent;
            if node.status.has(Status::COMPLETE)
                && (index == id.index() || !self.node(parent).status.has(Status::COMPLETE))
            {
                let child = Id::new(index);
                self.status_mut(child, |status| status.clear(Status::COMPLETE));
                if self.node(child).status.has(Status::CHECKED) {
                    self.waiting.entry(parent).or_default().push(child);
                }
            }
        }
        self.choose_again(before)
    }

    /// Condemns the block and everything on top of it, and chooses the best of what is left. Returns the change of
    /// the active chain, if any. The genesis cannot be condemned.
    pub fn mark_invalid(&mut self, hash: &BlockHash, reason: impl Into<String>) -> Option<TipChange> {
        let id = self.id(hash).filter(|id| *id != Id::GENESIS)?;
        let before = self.tip_id();
        self.reasons.insert(id, reason.into());
        // A parent is always before its children, so one pass reaches every descendant.
        for index in id.index()..self.nodes.len() {
            let child = Id::new(index);
            if child == id || self.node(self.node(child).parent).status.has(Status::INVALID) {
                self.status_mut(child, |status| {
                    status.set(Status::INVALID);
                    status.clear(Status::COMPLETE | Status::IN_FLIGHT | Status::HELD);
                });
                self.waiting.remove(&child);
            }
        }
        self.choose_again(before)
    }

    fn choose_again(&mut self, before: Id) -> Option<TipChange> {
        let (mut best, mut tip) = (Id::GENESIS, Id::GENESIS);
        for (index, node) in self.nodes.iter().enumerate() {
            if node.status.has(Status::INVALID) {
                continue;
            }
            // Strictly more, so that of two equals the one heard of first stays.
            if node.work > self.node(best).work {
                best = Id::new(index);
            }
            if node.status.has(Status::COMPLETE) && node.work > self.node(tip).work {
                tip = Id::new(index);
            }
        }
        // An equal that is in place stays in place.
        let current = self.node(before);
        if current.status.has(Status::COMPLETE) && current.work == self.node(tip).work {
            tip = before;
        }
        let current = self.node(self.best_id());
        if current.status.has(Status::INVALID) || current.work < self.node(best).work {
            self.set_best(best);
        }
        let fork = self.set_active(tip);
        (tip != before).then(|| self.change(fork))
    }

    /// The block's ancestors are all here and checked: so is it, and so are the checked blocks that waited for it.
    fn complete(&mut self, id: Id) -> Option<TipChange> {
        let before = self.tip_id();
        let mut best = before;
        let mut ready = vec![id];
        while let Some(id) = ready.pop() {
            self.status_mut(id, |status| status.set(Status::COMPLETE));
            if self.node(id).work > self.node(best).work {
                best = id;
            }
            ready.extend(self.waiting.remove(&id).unwrap_or_default());
        }
        if best == before {
            return None;
        }
        let fork = self.set_active(best);
        Some(self.change(fork))
    }

    fn change(&self, fork_height: u32) -> TipChange {
        let (height, hash) = self.tip();
        TipChange { fork_height, height, hash }
    }

    fn tip_change_since(&self, before: Id) -> Option<TipChange> {
        (self.tip_id() != before).then(|| self.change(self.node(self.fork_with(&self.active, before)).height))
    }

    fn set_best(&mut self, id: Id) {
        let mut best = std::mem::take(&mut self.best);
        self.rewrite(&mut best, id);
        self.best = best;
    }

    /// Makes `id` the active tip; returns the height of the fork with the old one.
    fn set_active(&mut self, id: Id) -> u32 {
        let mut active = std::mem::take(&mut self.active);
        let fork = self.rewrite(&mut active, id);
        self.active = active;
        fork
    }

    /// Rewrites the part of a branch that differs, and returns the height of the last node that stayed.
    fn rewrite(&self, branch: &mut Vec<Id>, tip: Id) -> u32 {
        let fork = self.node(self.fork_with(branch, tip)).height;
        branch.truncate(fork as usize + 1);
        let start = branch.len();
        let mut id = tip;
        while self.node(id).height > fork {
            branch.push(id);
            id = self.node(id).parent;
        }
        if let Some(added) = branch.get_mut(start..) {
            added.reverse();
        }
        fork
    }

    /// The last node of `id`'s branch that is also in `branch`.
    fn fork_with(&self, branch: &[Id], id: Id) -> Id {
        let top = u32::try_from(branch.len()).unwrap_or(u32::MAX).saturating_sub(1);
        let mut id = self.ancestor(id, top.min(self.node(id).height)).unwrap_or(Id::GENESIS);
        while !on(branch, self.node(id).height, id) && id != Id::GENESIS {
            let node = self.node(id);
            // A skip that is still off the branch is safe to take.
            let skipped = self.node(node.skip);
            id = if on(branch, skipped.height, node.skip) { node.parent } else { node.skip };
        }
        id
    }

    pub(crate) fn id(&self, hash: &BlockHash) -> Option<Id> {
        self.index.find(slot(hash), |id| self.node(*id).hash == *hash).copied()
    }

    pub(crate) fn best_id(&self) -> Id {
        self.best.last().copied().unwrap_or(Id::GENESIS)
    }

    pub(crate) fn tip_id(&self) -> Id {
        self.active.last().copied().unwrap_or(Id::GENESIS)
    }

    /// An id is only ever made by this tree, for a node that exists; nodes are never removed.
    #[allow(clippy::indexing_slicing)]
    pub(crate) fn node(&self, id: Id) -> &Node {
        &self.nodes[id.index()]
    }

    pub(crate) fn status_mut(&mut self, id: Id, change: impl FnOnce(&mut Status)) {
        if let Some(node) = self.nodes.get_mut(id.index()) {
            change(&mut node.status);
        }
    }

    /// The ancestor of `id` at `height`, `id` itself included.
    pub(crate) fn ancestor(&self, mut id: Id, height: u32) -> Option<Id> {
        if height > self.node(id).height {
            return None;
        }
        loop {
            let node = self.node(id);
            if node.height == height {
                return Some(id);
            }
            if on(&self.best, node.height, id) {
                return self.best.get(height as usize).copied();
            }
            // Core's skip list: jump unless the parent's own jump would land closer (CBlockIndex::GetAncestor).
            let before = skip_height(node.height.saturating_sub(1));
            let skip = skip_height(node.height);
            let jump = skip == height || (skip > height && !(before + 2 < skip && before >= height));
            id = if jump { node.skip } else { node.parent };
        }
    }

    pub(crate) fn is_ancestor(&self, ancestor: Id, id: Id) -> bool {
        self.ancestor(id, self.node(ancestor).height) == Some(ancestor)
    }

    /// The last common node of `id`'s branch and the active chain.
    pub(crate) fn fork_with_active(&self, id: Id) -> Id {
        self.fork_with(&self.active, id)
    }

    pub(crate) fn locator_from(&self, start: Id) -> Vec<BlockHash> {
        let mut hashes = Vec::with_capacity(32);
        let mut id = start;
        let mut step = 1;
        while hashes.len() < MAX_LOCATOR {
            let node = self.node(id);
            hashes.push(node.hash);
            if node.height == 0 {
                break;
            }
            if hashes.len() >= 10 {
                step *= 2;
            }
            id = self.ancestor(id, node.height.saturating_sub(step)).unwrap_or(Id::GENESIS);
        }
        hashes
    }

    pub(crate) fn header_of(&self, id: Id) -> Header {
        let node = self.node(id);
        let prev_blockhash =
            if id == Id::GENESIS { BlockHash::all_zeros() } else { self.node(node.parent).hash };
        node.header(prev_blockhash)
    }

    pub(crate) fn median_time_of(&self, id: Id) -> u32 {
        let mut times = [0u32; MEDIAN_TIME_SPAN];
        let mut count = 0;
        let mut id = id;
        for time in &mut times {
            let node = self.node(id);
            *time = node.time;
            count += 1;
            if node.height == 0 {
                break;
            }
            id = node.parent;
        }
        let (times, _) = times.split_at_mut(count);
        times.sort_unstable();
        times.get(count / 2).copied().unwrap_or_default()
    }
}

/// The branch that ends at a parent, for the rules.
struct Branch<'t> {
    tree: &'t HeaderTree,
    parent: Id,
}

impl Branch<'_> {
    fn at(&self, height: u32) -> &Node {
        self.tree.node(self.tree.ancestor(self.parent, height).unwrap_or(self.parent))
    }
}

impl Ancestry for Branch<'_> {
    fn parent_height(&self) -> u32 {
        self.tree.node(self.parent).height
    }

    fn bits_at(&self, height: u32) -> u32 {
        self.at(height).bits.to_consensus()
    }

    fn time_at(&self, height: u32) -> u32 {
        self.at(height).time
    }

    fn last_real_bits(&self, limit: u32) -> u32 {
        let mut node = self.tree.node(self.parent);
        while node.height != 0
            && !node.height.is_multiple_of(RETARGET_INTERVAL)
            && node.bits.to_consensus() == limit
        {
            node = self.tree.node(node.parent);
        }
        node.bits.to_consensus()
    }

    fn median_time_past(&self) -> u32 {
        self.tree.median_time_of(self.parent)
    }
}

fn on(branch: &[Id], height: u32, id: Id) -> bool {
    branch.get(height as usize) == Some(&id)
}

/// Where a hash goes in the index: its low bytes, which proof of work leaves random. Whoever would crowd one slot has
/// to find headers that meet their target and share 64 bits.
fn slot(hash: &BlockHash) -> u64 {
    let bytes: &[u8; 32] = hash.as_ref();
    bytes.iter().take(8).fold(0, |value, byte| (value << 8) | u64::from(*byte))
}

fn node_slot(nodes: &[Node], id: Id) -> u64 {
    nodes.get(id.index()).map_or(0, |node| slot(&node.hash))
}

/// The height that a node's skip pointer jumps to (Core's `GetSkipHeight`).
fn skip_height(height: u32) -> u32 {
    let invert_lowest_one = |n: u32| n & n.wrapping_sub(1);
    match height {
        0 | 1 => 0,
        height if height & 1 == 1 => invert_lowest_one(invert_lowest_one(height - 1)) + 1,
        height => invert_lowest_one(height),
    }
}

#[cfg(test)]
mod tests;
