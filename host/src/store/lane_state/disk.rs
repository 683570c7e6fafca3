//! What a lane's state reads below its overlay: the lane's own keyspaces, or a view of them that stands still.

use std::collections::BTreeSet;
use std::ops::RangeBounds;

use fjall::{Readable, Slice, Snapshot};

use crate::store::error::StoreError;
use crate::store::state::LaneKeyspaces;

pub(super) enum Disk {
    /// The lane's own, which a flush writes.
    Lane(LaneKeyspaces),
    /// A view for a fork; the keyspaces are only named by it.
    Fork(Snapshot, LaneKeyspaces),
}

impl Disk {
    pub(super) fn is_fork(&self) -> bool {
        matches!(self, Self::Fork(..))
    }

    pub(super) fn keyspaces(&self) -> &LaneKeyspaces {
        match self {
            Self::Lane(keyspaces) | Self::Fork(_, keyspaces) => keyspaces,
        }
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Slice>, StoreError> {
        Ok(match self {
            Self::Lane(lane) => lane.state.get(key)?,
            Self::Fork(view, lane) => view.get(&lane.state, key)?,
        })
    }

    pub(super) fn contains_key(&self, key: &[u8]) -> Result<bool, StoreError> {
        Ok(match self {
            Self::Lane(lane) => lane.state.contains_key(key)?,
            Self::Fork(view, lane) => view.contains_key(&lane.state, key)?,
        })
    }

    pub(super) fn range(&self, keys: impl RangeBounds<Vec<u8>>) -> fjall::Iter {
        match self {
            Self::Lane(lane) => lane.state.range(keys),
            Self::Fork(view, lane) => view.range(&lane.state, keys),
        }
    }

    /// The undo record of the block at a height.
    pub(super) fn undo(&self, height: u32) -> Result<Option<Slice>, StoreError> {
        let key = height.to_be_bytes();
        Ok(match self {
            Self::Lane(lane) => lane.undo.get(key)?,
            Self::Fork(view, lane) => view.get(&lane.undo, key)?,
        })
    }

    /// Heights whose undo records are there.
    pub(super) fn undo_heights(&self, name: &str) -> Result<BTreeSet<u32>, StoreError> {
        let entries = match self {
            Self::Lane(lane) => lane.undo.iter(),
            Self::Fork(view, lane) => view.iter(&lane.undo),
        };
        entries
            .map(|entry| {
                let key = entry.key()?;
                let height = key.first_chunk::<4>().map(|key| u32::from_be_bytes(*key));
                height.ok_or_else(|| StoreError::Corrupt {
                    lane: name.to_owned(),
                    what: "an undo record's height",
                })
            })
            .collect()
    }
}
