//! Pruned blocks that are too large to be held: they come from peers once more in pieces, lie in files of their own as long as
//! a lane needs them, and are gone.

use super::super::again::Refused;
use super::{Feed, Position};
use crate::block_log::BlockLog;
use crate::frame::Spent;
use anyhow::{Context, Result};
use bitcoin::BlockHash;

/// Why a large block is not taken once more.
#[derive(Debug, thiserror::Error)]
pub enum NotAgain {
    /// So many lie there that others have to be gone past first.
    #[error("other large blocks lie here that lanes have to go past first")]
    NotYet,
    /// It cannot be written.
    #[error("{0:#}")]
    NotKept(#[from] anyhow::Error),
}

impl Feed {
    /// Names the log for large blocks that come once more.
    pub fn set_scratch(&self, scratch: BlockLog) {
        let _ = self.scratch.set(scratch);
    }

    /// That log.
    pub fn scratch(&self) -> Option<&BlockLog> {
        self.scratch.get()
    }

    /// The log that has a block: the one of all blocks, or the one of those that came once more.
    pub(in super::super) fn log_of(&self, hash: &BlockHash) -> Option<&BlockLog> {
        let own = Some(&*self.blocks).filter(|log| log.contains(hash));
        own.or_else(|| self.scratch().filter(|log| log.contains(hash)))
    }

    /// A large block begins to come once more: whether it is to be written.
    ///
    /// # Errors
    ///
    /// When it is not.
    pub fn admit_large(&self, position: Position, length: u64) -> Result<(), NotAgain> {
        let lying = self.scratch().map_or(0, BlockLog::bytes);
        self.again.know_large(position, length);
        if !self.again.admits(position.height, length, lying) {
            return Err(NotAgain::NotYet);
        }
        self.check_room(length).map_err(anyhow::Error::from)?;
        Ok(())
    }

    /// It lies there now.
    pub fn large_is_here(&self, position: Position, length: u64) {
        // Who needed it may have gone away meanwhile: then it is removed.
        self.again.know_large(position, length);
        self.wake();
    }

    /// It could not be written: it is asked for again when there is room.
    pub fn large_not_kept(&self, height: u32) {
        self.again
            .refuse(height, Refused::NotKept(std::time::Instant::now()));
        self.wake();
    }

    /// It has a transaction that is too long for this host as it is set up.
    pub fn large_untakable(&self, height: u32) {
        self.again.refuse(height, Refused::Untakable);
        self.wake();
    }

    /// A lane still needs a block that lies there.
    pub fn needs_still(&self, lane: &str, position: Position) {
        if !self.blocks.contains(&position.hash) {
            self.again.need(lane, position);
        }
    }

    /// Known large blocks that peers are not to be asked for now; and those that all lanes have gone past are removed.
    pub(in super::super) fn tidy_large(&self) -> Vec<BlockHash> {
        let Some(scratch) = self.scratch() else {
            return Vec::new();
        };
        for position in self.again.take_passed_large() {
            match scratch.remove(&position.hash) {
                Ok(true) => {
                    tracing::debug!(height = position.height, "a large block is gone past");
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(height = position.height, %error, "a large block that nobody needs is not removed");
                }
            }
        }
        let room = |length| self.check_room(length).is_ok();
        self.again.large_not_now(scratch.bytes(), room)
    }

    /// Makes again what a part of a pruned block spent, as [`give_spent_again`](Self::give_spent_again).
    ///
    /// # Errors
    ///
    /// When the log cannot be written.
    pub fn give_spent_of_part_again(
        &self,
        position: Position,
        first: u32,
        spent: &Spent,
    ) -> Result<()> {
        if self.spent_of_part(position, first)?.is_some() || !self.read_below(position.height, 0) {
            return Ok(());
        }
        self.keep_spent_of_part(position, first, spent)
            .with_context(|| format!("part {first}"))?;
        self.wake();
        Ok(())
    }
}
