//! The tree of all headers heard of, in memory: work, ancestors, which blocks are here, which branches are condemned.
//!
//! One node is 128 bytes and the index five bytes a slot, so mainnet's headers take about 130 MB.

use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Work};
use hashbrown::HashTable;

use super::header_rules::{HeaderError, check_header};
use crate::network::Params;

mod ancestors;
mod node;
mod selection;

use ancestors::{Branch, skip_height};
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
    max_headers: usize,
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
        let mut root = Node::new(
            &header,
            params.genesis_hash,
            Id::GENESIS,
            0,
            Id::GENESIS,
            header.work(),
        );
        root.status.set(Status::CHECKED | Status::COMPLETE);
        let mut tree = HeaderTree {
            params,
            max_headers: MAX_HEADERS,
            nodes: vec![root],
            index: HashTable::new(),
            best: vec![Id::GENESIS],
            active: vec![Id::GENESIS],
            waiting: hashbrown::HashMap::default(),
            reasons: hashbrown::HashMap::default(),
        };
        tree.index
            .insert_unique(slot(&params.genesis_hash), Id::GENESIS, |_| {
                slot(&params.genesis_hash)
            });
        tree
    }

    /// A tree of the headers that were stored, parents first; the genesis header may be among them. Every rule is
    /// checked again except the two hours ahead: the clock may have been put right since.
    pub fn load(
        params: &'static Params,
        headers: impl IntoIterator<Item = Header>,
    ) -> Result<HeaderTree, LoadError> {
        let mut tree = HeaderTree::new(params);
        let headers = headers.into_iter();
        let expected = headers.size_hint().0.min(MAX_HEADERS);
        tree.nodes.reserve(expected);
        tree.best.reserve(expected);
        let nodes = &tree.nodes;
        tree.index.reserve(expected, |id| node_slot(nodes, *id));
        for (index, header) in headers.enumerate() {
            tree.insert(header, u64::MAX).map_err(|error| LoadError {
                index,
                hash: header.block_hash(),
                error,
            })?;
        }
        Ok(tree)
    }

    /// Takes `header` if it keeps the rules; `now` is unix time in seconds.
    pub fn insert(&mut self, header: Header, now: u64) -> Result<Inserted, HeaderError> {
        self.insert_hashed(&header, header.block_hash(), now)
    }

    /// As [`insert`](Self::insert), for a caller that has the hash already.
    pub(crate) fn insert_hashed(
        &mut self,
        header: &Header,
        hash: BlockHash,
        now: u64,
    ) -> Result<Inserted, HeaderError> {
        if let Some(id) = self.id(&hash) {
            if self.node(id).status.has(Status::INVALID) {
                return Err(HeaderError::InvalidBranch(hash));
            }
            return Ok(Inserted::Known);
        }
        let parent = self
            .id(&header.prev_blockhash)
            .ok_or(HeaderError::UnknownParent(header.prev_blockhash))?;
        if self.node(parent).status.has(Status::INVALID) {
            return Err(HeaderError::InvalidBranch(header.prev_blockhash));
        }
        if self.nodes.len() >= self.max_headers {
            return Err(HeaderError::TreeFull);
        }
        check_header(
            self.params,
            header,
            hash,
            &Branch { tree: self, parent },
            now,
        )?;

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
        let skip = self
            .ancestor(parent, skip_height(height))
            .unwrap_or(Id::GENESIS);
        let id = Id::new(self.nodes.len());
        self.nodes
            .push(Node::new(header, hash, parent, height, skip, work));
        let nodes = &self.nodes;
        self.index
            .insert_unique(slot(&hash), id, |other| node_slot(nodes, *other));
        if work > self.node(self.best_id()).work {
            self.set_best(id);
        }
        Ok(Inserted::New)
    }

    /// Bounds the number of headers, instead of [`MAX_HEADERS`].
    pub fn set_max_headers(&mut self, max_headers: usize) {
        self.max_headers = max_headers;
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
        self.active
            .get(height as usize)
            .map(|id| self.node(*id).hash)
    }

    /// The hash at `height` on the best header's branch.
    pub fn best_hash_at(&self, height: u32) -> Option<BlockHash> {
        self.best.get(height as usize).map(|id| self.node(*id).hash)
    }

    /// Whether the block is on the active chain.
    pub fn is_active(&self, hash: &BlockHash) -> bool {
        self.id(hash)
            .is_some_and(|id| on(&self.active, self.node(id).height, id))
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
        let start = hash
            .and_then(|hash| self.id(hash))
            .unwrap_or(self.best_id());
        self.locator_from(start)
    }

    pub(crate) fn id(&self, hash: &BlockHash) -> Option<Id> {
        self.index
            .find(slot(hash), |id| self.node(*id).hash == *hash)
            .copied()
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

    pub(crate) fn header_of(&self, id: Id) -> Header {
        let node = self.node(id);
        let prev_blockhash = if id == Id::GENESIS {
            BlockHash::all_zeros()
        } else {
            self.node(node.parent).hash
        };
        node.header(prev_blockhash)
    }
}

fn on(branch: &[Id], height: u32, id: Id) -> bool {
    branch.get(height as usize) == Some(&id)
}

/// Where a hash goes in the index: its low bytes, which proof of work leaves random. Whoever would crowd one slot has
/// to find headers that meet their target and share 64 bits.
fn slot(hash: &BlockHash) -> u64 {
    let bytes: &[u8; 32] = hash.as_ref();
    bytes
        .iter()
        .take(8)
        .fold(0, |value, byte| (value << 8) | u64::from(*byte))
}

fn node_slot(nodes: &[Node], id: Id) -> u64 {
    nodes.get(id.index()).map_or(0, |node| slot(&node.hash))
}

#[cfg(test)]
mod tests;
