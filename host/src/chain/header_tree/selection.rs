//! Which branch is the active one: what changes it, and to what.

use super::{HeaderTree, Id, Status, TipChange};
use bitcoin::BlockHash;

impl HeaderTree {
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
        self.waiting
            .entry(self.node(id).parent)
            .and_modify(|children| children.retain(|child| *child != id));
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
    pub fn mark_invalid(
        &mut self,
        hash: &BlockHash,
        reason: impl Into<String>,
    ) -> Option<TipChange> {
        let id = self.id(hash).filter(|id| *id != Id::GENESIS)?;
        let before = self.tip_id();
        self.reasons.insert(id, reason.into());
        // A parent is always before its children, so one pass reaches every descendant.
        for index in id.index()..self.nodes.len() {
            let child = Id::new(index);
            if child == id
                || self
                    .node(self.node(child).parent)
                    .status
                    .has(Status::INVALID)
            {
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
            if self.node(id).status.has(Status::INVALID) {
                continue;
            }
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
        TipChange {
            fork_height,
            height,
            hash,
        }
    }

    fn tip_change_since(&self, before: Id) -> Option<TipChange> {
        (self.tip_id() != before)
            .then(|| self.change(self.node(self.fork_with(&self.active, before)).height))
    }

    pub(super) fn set_best(&mut self, id: Id) {
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
}
