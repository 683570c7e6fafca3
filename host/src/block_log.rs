//! The block log: checked blocks, and what they spent, on disk.
//!
//! Two logs of the same make stand side by side in one folder:
//!
//! | files | frame payload | key |
//! |---|---|---|
//! | `blk00000.dat`, …, `blk.index` | the block as the network serializes it | hash of its header |
//! | `spent00000.dat`, …, `spent.index` | 40 bytes of envelope, then opaque bytes | block hash, in the envelope |
//!
//! A frame is what Bitcoin Core's own files hold: network magic (4 bytes), payload length (u32,
//! little endian), payload. Tools that read Core's `blk*.dat` read these files. What the bytes of
//! the index are, and in which order both are written, is said in [`segment_log`].
//!
//! # What a kill, or a power cut, can lose
//!
//! Nothing that [`sync`](SegmentLog::sync) has returned for. After a kill of the process nothing
//! that `append` has returned for either: the frame is in the system's cache, and opening the log
//! scans what lies beyond the index. A frame that was torn is cut, and the log goes on from there.
//!
//! # Blocks in another program's folder
//!
//! With a [`ForeignBlocks`] beside it the block log also holds blocks that lie in Bitcoin Core's own folder: nothing of them is
//! written but where they are. [`core_folder`] reads those files, `source` finds the blocks in them.
//!
//! Hashes here are in internal byte order, as in a block's bytes.

mod catalog;
pub mod core_folder;
mod error;
pub mod foreign;
mod frames;
mod index_file;
mod large;
mod recovery;
pub mod segment_log;

use std::path::Path;

use bitcoin::BlockHash;
use bitcoin::hashes::Hash as _;
use bytes::Bytes;

pub use error::BlockLogError;
pub use foreign::{ForeignBlocks, FrameAt};
pub use frames::{BlockFrames, Frames, SpentFrames};
pub use large::{LargeAppend, Pieces};
pub use segment_log::{Pruned, SegmentLog, SegmentLogOptions};

/// The blocks of the active branch and of recent side branches.
///
/// All methods take `&self`: share it in an `Arc`. Readers do not wait for a writer's disk.
#[derive(Debug)]
pub struct BlockLog {
    own: SegmentLog<BlockFrames>,
    foreign: Option<ForeignBlocks>,
}

/// What each block spent, kept by block hash; the bytes are the caller's own encoding.
///
/// Whoever answers for a block's coins must [`sync`](Self::sync) this log before it makes its own
/// progress durable: only then can a lane that follows count on finding the bytes after a power
/// cut.
#[derive(Debug)]
pub struct SpentLog(SegmentLog<SpentFrames>);

impl BlockLog {
    /// Opens the log in `dir`, creating both if they are missing, and repairs what a kill left
    /// half written.
    ///
    /// `magic` is the network's, in wire order.
    ///
    /// # Errors
    ///
    /// [`BlockLogError::WrongNetwork`] and [`BlockLogError::NewerFormat`] before anything
    /// is changed; [`BlockLogError::Io`] when the folder cannot be read or repaired.
    pub fn open(
        dir: impl AsRef<Path>,
        magic: [u8; 4],
        options: SegmentLogOptions,
    ) -> Result<Self, BlockLogError> {
        Ok(Self {
            own: SegmentLog::open(dir.as_ref(), magic, options)?,
            foreign: None,
        })
    }

    /// An empty log in `dir`, each block in a file of its own: [`remove`](Self::remove) gives its room back. Whatever is in the
    /// folder is of an earlier run, and is removed.
    ///
    /// # Errors
    ///
    /// When the folder cannot be emptied or made.
    pub fn scratch(dir: impl AsRef<Path>, magic: [u8; 4]) -> Result<Self, BlockLogError> {
        let dir = dir.as_ref();
        match std::fs::remove_dir_all(dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error::io_error("empty", dir)(error));
            }
            _ => {}
        }
        let options = SegmentLogOptions {
            max_segment_bytes: 1,
        };
        Self::open(dir, magic, options)
    }

    /// Removes a block of a [`scratch`](Self::scratch) log, and says whether it was there. Whoever reads it may go on.
    ///
    /// # Errors
    ///
    /// When its file cannot be removed.
    pub fn remove(&self, hash: &BlockHash) -> Result<bool, BlockLogError> {
        self.own.remove_segment_of(&hash.to_byte_array())
    }

    /// With the blocks of another folder, as if they were here.
    #[must_use]
    pub fn with_foreign(self, foreign: ForeignBlocks) -> Self {
        Self {
            foreign: Some(foreign),
            ..self
        }
    }

    /// The blocks of another folder.
    pub fn foreign(&self) -> Option<&ForeignBlocks> {
        self.foreign.as_ref()
    }

    /// Appends a checked block. A reader sees it at once; [`sync`](Self::sync) makes it durable.
    ///
    /// Answers `false`, having written nothing, when the log, or the other folder, already holds
    /// this hash.
    ///
    /// # Errors
    ///
    /// A full disk or a failed write: the half-written frame is cut again and the log stays
    /// usable.
    pub fn append(&self, hash: &BlockHash, height: u32, raw: &[u8]) -> Result<bool, BlockLogError> {
        let key = hash.to_byte_array();
        if self.in_foreign(|foreign| foreign.contains(&key)) {
            return Ok(false);
        }
        self.own.append(&key, height, raw)
    }

    /// The bytes of a block, or `None` when the log does not hold it: it never did, it was pruned,
    /// or whoever keeps the other folder has removed it.
    ///
    /// # Errors
    ///
    /// [`BlockLogError::Damaged`] when the disk gives back other bytes than were written: the log
    /// then forgets the block, so that it can be appended again. [`BlockLogError::Io`] when it
    /// cannot be read.
    pub fn get(&self, hash: &BlockHash) -> Result<Option<Bytes>, BlockLogError> {
        let key = hash.to_byte_array();
        match self.own.get(&key)? {
            Some(raw) => Ok(Some(raw)),
            None if self.in_foreign(|foreign| foreign.contains(&key)) => {
                Ok(self.foreign.as_ref().and_then(|foreign| foreign.read(&key)))
            }
            None => Ok(None),
        }
    }

    /// Whether the log holds this block.
    pub fn contains(&self, hash: &BlockHash) -> bool {
        let key = hash.to_byte_array();
        self.own.contains(&key) || self.in_foreign(|foreign| foreign.contains(&key))
    }

    /// Whether the log holds this block, or it was checked in another folder that has lost it
    /// since.
    pub fn was_checked(&self, hash: &BlockHash) -> bool {
        let key = hash.to_byte_array();
        self.own.contains(&key) || self.in_foreign(|foreign| foreign.was_checked(&key))
    }

    /// The height a block was appended with.
    pub fn height_of(&self, hash: &BlockHash) -> Option<u32> {
        let key = hash.to_byte_array();
        let foreign = || self.foreign.as_ref()?.height_of(&key);
        self.own.height_of(&key).or_else(foreign)
    }

    /// The lowest and the highest height held, with whatever gaps between; `None` when the
    /// log is empty.
    pub fn height_range(&self) -> Option<(u32, u32)> {
        let foreign = self.foreign.as_ref().and_then(ForeignBlocks::height_range);
        match (self.own.height_range(), foreign) {
            (Some(own), Some(foreign)) => Some((own.0.min(foreign.0), own.1.max(foreign.1))),
            (own, foreign) => own.or(foreign),
        }
    }

    /// The lowest height from which every height up to and including `top` is held (on some
    /// branch); `None` when `top` itself is not.
    pub fn contiguous_from(&self, top: u32) -> Option<u32> {
        let held = |height: u32| self.in_foreign(|foreign| foreign.has_height(height));
        let mut lowest = None;
        let mut next = Some(top);
        while let Some(height) = next {
            if let Some(from) = self.own.contiguous_from(height) {
                lowest = Some(from);
            } else if held(height) {
                lowest = Some(height);
            } else {
                break;
            }
            next = lowest.and_then(|lowest| lowest.checked_sub(1));
        }
        lowest
    }

    /// How many blocks are held, those of the other folder too.
    pub fn len(&self) -> usize {
        self.own.len() + self.foreign.as_ref().map_or(0, ForeignBlocks::len)
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size of our own data files in bytes, the index not counted.
    pub fn bytes(&self) -> u64 {
        self.own.bytes()
    }

    /// Makes everything appended so far durable: the data first, then the index records
    /// that speak of it.
    ///
    /// # Errors
    ///
    /// [`BlockLogError::Io`]. What a failed sync leaves on the disk is not known: treat it
    /// as fatal.
    pub fn sync(&self) -> Result<(), BlockLogError> {
        self.own.sync()?;
        self.foreign.as_ref().map_or(Ok(()), ForeignBlocks::sync)
    }

    /// Removes whole oldest segments of our own while the log is larger than `keep_bytes`; see
    /// [`SegmentLog::prune`].
    ///
    /// # Errors
    ///
    /// [`BlockLogError::Io`]; what was removed until then is gone, and the log is whole.
    pub fn prune(&self, keep_bytes: u64, keep_from_height: u32) -> Result<Pruned, BlockLogError> {
        self.own.prune(keep_bytes, keep_from_height)
    }

    fn in_foreign(&self, ask: impl FnOnce(&ForeignBlocks) -> bool) -> bool {
        self.foreign.as_ref().is_some_and(ask)
    }
}

impl SpentLog {
    /// Opens the log in `dir`, creating both if they are missing, and repairs what a kill
    /// left half written.
    ///
    /// `magic` is the network's, in wire order.
    ///
    /// # Errors
    ///
    /// [`BlockLogError::WrongNetwork`] and [`BlockLogError::NewerFormat`] before anything
    /// is changed; [`BlockLogError::Io`] when the folder cannot be read or repaired.
    pub fn open(
        dir: impl AsRef<Path>,
        magic: [u8; 4],
        options: SegmentLogOptions,
    ) -> Result<Self, BlockLogError> {
        SegmentLog::<SpentFrames>::open(dir.as_ref(), magic, options).map(Self)
    }

    /// Appends the bytes kept for a block. A reader sees them at once; [`sync`](Self::sync)
    /// makes them durable.
    ///
    /// Answers `false`, having written nothing, when the log already holds this hash.
    ///
    /// # Errors
    ///
    /// A full disk or a failed write: the half-written frame is cut again and the log stays
    /// usable.
    pub fn append(&self, hash: &BlockHash, height: u32, raw: &[u8]) -> Result<bool, BlockLogError> {
        self.0.append(&hash.to_byte_array(), height, raw)
    }

    /// The bytes kept for a block, or `None` when the log does not hold it (never did, or
    /// pruned).
    ///
    /// # Errors
    ///
    /// [`BlockLogError::Damaged`] when the disk gives back other bytes than were written:
    /// the log then forgets the block, so that it can be appended again.
    /// [`BlockLogError::Io`] when it cannot be read.
    pub fn get(&self, hash: &BlockHash) -> Result<Option<Bytes>, BlockLogError> {
        self.0.get(&hash.to_byte_array())
    }

    /// Whether the log holds this block.
    pub fn contains(&self, hash: &BlockHash) -> bool {
        self.0.contains(&hash.to_byte_array())
    }

    /// The height a block was appended with.
    pub fn height_of(&self, hash: &BlockHash) -> Option<u32> {
        self.0.height_of(&hash.to_byte_array())
    }

    /// The lowest and the highest height held, with whatever gaps between; `None` when the
    /// log is empty.
    pub fn height_range(&self) -> Option<(u32, u32)> {
        self.0.height_range()
    }

    /// The lowest height from which every height up to and including `top` is held (on some
    /// branch); `None` when `top` itself is not.
    pub fn contiguous_from(&self, top: u32) -> Option<u32> {
        self.0.contiguous_from(top)
    }

    /// How many blocks are held.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Size of the data files in bytes, the index not counted.
    pub fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    /// Makes everything appended so far durable: the data first, then the index records
    /// that speak of it.
    ///
    /// # Errors
    ///
    /// [`BlockLogError::Io`]. What a failed sync leaves on the disk is not known: treat it
    /// as fatal.
    pub fn sync(&self) -> Result<(), BlockLogError> {
        self.0.sync()
    }

    /// Removes whole oldest segments while the log is larger than `keep_bytes`; see
    /// [`SegmentLog::prune`].
    ///
    /// # Errors
    ///
    /// [`BlockLogError::Io`]; what was removed until then is gone, and the log is whole.
    pub fn prune(&self, keep_bytes: u64, keep_from_height: u32) -> Result<Pruned, BlockLogError> {
        self.0.prune(keep_bytes, keep_from_height)
    }
}

impl BlockLog {
    /// Begins a block of `length` bytes that come in pieces; none when the log already holds it.
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append).
    pub fn append_large(
        &self,
        hash: &BlockHash,
        height: u32,
        length: u64,
    ) -> Result<Option<LargeAppend<'_, BlockFrames>>, BlockLogError> {
        let key = hash.to_byte_array();
        if self.in_foreign(|foreign| foreign.contains(&key)) {
            return Ok(None);
        }
        self.own.append_large(&key, height, length)
    }

    /// Bytes of a block.
    pub fn length_of(&self, hash: &BlockHash) -> Option<u64> {
        self.own.length_of(&hash.to_byte_array())
    }

    /// Reads a block in pieces.
    ///
    /// # Errors
    ///
    /// When its file cannot be opened.
    pub fn pieces(
        &self,
        hash: &BlockHash,
    ) -> Result<Option<Pieces<'_, BlockFrames>>, BlockLogError> {
        self.own.pieces(&hash.to_byte_array())
    }
}

#[cfg(test)]
pub(crate) mod tests;
