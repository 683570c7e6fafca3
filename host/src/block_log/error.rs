//! Why a log could not do what it was asked.

use std::path::{Path, PathBuf};

/// Why the log could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BlockLogError {
    /// The system refused.
    #[error("failed to {doing} {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The files belong to another network. Nothing was changed.
    #[error("{} holds another network's blocks (magic {found:02x?}, this network's is {wanted:02x?})", path.display())]
    WrongNetwork {
        /// The file.
        path: PathBuf,
        /// Magic found in it, in wire order.
        found: [u8; 4],
        /// This network's.
        wanted: [u8; 4],
    },
    /// A newer program wrote the index. Nothing was changed.
    #[error("{} is of version {found}, this program knows up to {known}", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest this program knows.
        known: u32,
    },
    /// A frame's length is a u32.
    #[error("{bytes} bytes do not fit into one frame")]
    TooLarge {
        /// What was to be appended.
        bytes: usize,
    },
    /// Something else was appended before all pieces of a payload had come, or not all came. Nothing of it is kept.
    #[error("a block that came in pieces was not written whole")]
    Interrupted,
    /// The disk gave back other bytes than were written. The log forgot the block: it can be
    /// appended again.
    #[error("block at height {height} is damaged in {} at byte {offset}", path.display())]
    Damaged {
        /// Height it was appended with.
        height: u32,
        /// The segment.
        path: PathBuf,
        /// Where its payload begins.
        offset: u64,
    },
}

/// Wraps a system error with what was being done.
pub(super) fn io_error<'a>(
    doing: &'static str,
    path: &'a Path,
) -> impl FnOnce(std::io::Error) -> BlockLogError + 'a {
    move |source| BlockLogError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}
