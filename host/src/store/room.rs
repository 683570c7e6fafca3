//! Room on the disk of the data folder.
//!
//! The state's engine cannot be written any more, until it is opened anew, once a write of its journal has failed. So a disk
//! is taken for full before it is: what would be written then waits, and goes on by itself when there is room.

use std::path::{Path, PathBuf};
use thiserror::Error;

/// Bytes that are left free, for what is written beside a flush: the engine's merges, SQLite's log, the log file.
const RESERVE: u64 = 64 << 20;

/// The disk is full, or so nearly full that nothing is written on it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "the disk of {} is full: {free} bytes are free, and {needed} are needed for the next write and for what comes with it",
    folder.display()
)]
pub struct NoRoom {
    folder: PathBuf,
    free: u64,
    needed: u64,
}

/// The disk that a folder is on.
#[derive(Debug)]
pub struct Room {
    folder: PathBuf,
}

impl Room {
    /// That of the data folder.
    pub fn of(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    /// Looks whether so many bytes can be written.
    ///
    /// # Errors
    ///
    /// When they would not leave enough free. A disk that does not say how much is free has room.
    pub fn check(&self, bytes: u64) -> Result<(), NoRoom> {
        match rustix::fs::statvfs(&self.folder) {
            Ok(disk) => self.judge(disk.f_bavail.saturating_mul(disk.f_frsize), bytes),
            Err(_) => Ok(()),
        }
    }

    fn judge(&self, free: u64, bytes: u64) -> Result<(), NoRoom> {
        let needed = bytes.saturating_add(RESERVE);
        match free < needed {
            true => Err(NoRoom {
                folder: self.folder.clone(),
                free,
                needed,
            }),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn a_disk_is_full_while_something_is_left_for_what_comes_with_a_write() {
        let room = Room::of(Path::new("/data"));
        assert_eq!(room.judge(RESERVE + 7, 7), Ok(()));
        let full = room.judge(RESERVE + 6, 7).unwrap_err();
        assert_eq!((full.free, full.needed), (RESERVE + 6, RESERVE + 7));
        assert!(full.to_string().contains("the disk of /data is full"));
        assert!(room.judge(u64::MAX, u64::MAX).is_ok());
        // A real one answers.
        let folder = tempfile::tempdir().unwrap();
        assert!(Room::of(folder.path()).check(u64::MAX - RESERVE).is_err());
    }
}
