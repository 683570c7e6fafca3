//! Blocks that are too large to be held: read from the block log in parts, and what they spend kept in parts.

use super::active_chain::Position;
use super::feed::Feed;
use crate::block_log::{BlockFrames, Pieces};
use crate::chain::BlockView;
use crate::frame::{HEADER_LEN, Run, Runs, Spent, compact_size_len};
use anyhow::{Context, Result};
use bitcoin::BlockHash;
use bitcoin::hashes::{Hash, HashEngine, sha256d};
use std::sync::Arc;

/// Bytes of a part. What is kept of a part is found by where the part begins, so another number here makes what was kept before
/// unreadable.
pub const PART: usize = 4 << 20;
/// Bytes that are read at once.
const READ: usize = 1 << 20;

/// What holds for blocks that are large.
#[derive(Debug, Clone, Copy)]
pub struct LargeBlocks {
    /// A block of more bytes is large.
    pub above: u64,
    /// The largest block that a plugin is given whole.
    pub whole: u64,
    /// Bytes of state and rows that all parts of a block may leave, together.
    pub changes: usize,
}

impl Default for LargeBlocks {
    fn default() -> Self {
        Self {
            above: 32_000_000,
            whole: 256_000_000,
            changes: 512_000_000,
        }
    }
}

/// A part, and what is known of the whole block.
pub struct BlockPart {
    pub run: Run,
    /// Bytes of the whole block.
    pub size: u32,
    /// Weight units of the whole block, with the last part; 0 before.
    pub weight: u32,
}

/// A large block, part by part.
pub struct Parts<'f> {
    pieces: Pieces<'f, BlockFrames>,
    runs: Runs,
    height: u32,
    /// Bytes without witnesses, so far.
    stripped: u64,
    /// A part that waits to be given until the bytes after it are known to be whole.
    done: bool,
}

impl Parts<'_> {
    /// The next part.
    ///
    /// # Errors
    ///
    /// When the log cannot be read, or is damaged.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<BlockPart>> {
        if self.done {
            return Ok(None);
        }
        loop {
            let damaged = || format!("block {} in the block log is damaged", self.height);
            if let Some(run) = self.runs.next().with_context(damaged)? {
                return self.part(run).map(Some);
            }
            match self.pieces.next(READ).with_context(damaged)? {
                Some(bytes) => self.runs.push(&bytes).with_context(damaged)?,
                None => anyhow::bail!("block {} in the block log is damaged", self.height),
            }
        }
    }

    fn part(&mut self, run: Run) -> Result<BlockPart> {
        if self.stripped == 0 {
            self.stripped = (HEADER_LEN + compact_size_len(run.of as usize)) as u64;
        }
        for tx in 0..run.frame.tx_count() {
            self.stripped += run.frame.tx_stripped_size(tx) as u64;
        }
        let size = self.pieces.length();
        let mut weight = 0;
        if run.last {
            self.done = true;
            // The checksum of the whole: what was given before counts only with this.
            while self.pieces.next(READ)?.is_some() {}
            weight = u32::try_from(3 * self.stripped + size).unwrap_or(u32::MAX);
        }
        Ok(BlockPart {
            run,
            size: u32::try_from(size).unwrap_or(u32::MAX),
            weight,
        })
    }
}

impl Feed {
    /// Bytes of a block in the log, if that is a large one.
    pub fn large(&self, position: Position) -> Option<u64> {
        let length = self.log_of(&position.hash)?.length_of(&position.hash)?;
        (length > self.large_blocks().above).then_some(length)
    }

    /// Reads a block in parts.
    ///
    /// # Errors
    ///
    /// When the log does not have it.
    pub fn parts(&self, position: Position) -> Result<Parts<'_>> {
        let Position { height, hash } = position;
        let pieces = self
            .log_of(&hash)
            .map_or(Ok(None), |log| log.pieces(&hash))
            .with_context(|| format!("failed to read block {height} from the block log"))?
            .with_context(|| format!("block {height} ({hash}) is not in the block log any more"))?;
        Ok(Parts {
            runs: Runs::new(pieces.length(), PART, usize::MAX),
            pieces,
            height,
            stripped: 0,
            done: false,
        })
    }

    /// What the part that begins with a transaction spends, if the coins lane has been there.
    ///
    /// # Errors
    ///
    /// When the log cannot be read or is damaged.
    pub fn spent_of_part(&self, position: Position, first: u32) -> Result<Option<Arc<Spent>>> {
        let kept = self
            .spent_log()
            .get(&part_key(&position.hash, first))
            .with_context(|| format!("failed to read what block {} spends", position.height))?;
        kept.map(|bytes| Ok(Arc::new(Spent::decode(&bytes)?)))
            .transpose()
    }

    /// The coins lane hands over what a part spends. The others see it when the last part is done
    /// ([`set_coins`](Self::set_coins)).
    ///
    /// # Errors
    ///
    /// When the log cannot be written.
    pub fn keep_spent_of_part(&self, position: Position, first: u32, spent: &Spent) -> Result<()> {
        self.spent_log()
            .append(
                &part_key(&position.hash, first),
                position.height,
                &spent.encode(),
            )
            .with_context(|| format!("failed to keep what block {} spends", position.height))?;
        Ok(())
    }

    /// What a large block spends, put together from its parts for a plugin that takes it whole.
    ///
    /// # Errors
    ///
    /// When a log cannot be read.
    pub fn spent_of_parts(&self, position: Position) -> Result<Option<Arc<Spent>>> {
        let mut whole = Spent::default();
        let mut parts = self.parts(position)?;
        while let Some(part) = parts.next()? {
            let Some(spent) = self.spent_of_part(position, part.run.first)? else {
                return Ok(None);
            };
            whole.append(&spent);
        }
        Ok(Some(Arc::new(whole)))
    }
}

/// Under which name the spent log keeps what a part spends.
fn part_key(hash: &BlockHash, first: u32) -> BlockHash {
    let mut engine = sha256d::Hash::engine();
    engine.input(b"part");
    engine.input(hash.as_byte_array());
    engine.input(&first.to_le_bytes());
    BlockHash::from_raw_hash(sha256d::Hash::from_engine(engine))
}
