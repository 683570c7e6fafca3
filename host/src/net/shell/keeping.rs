//! What the network keeps on the disk: headers and the peer book, on a disk that may be full.

use super::super::peers_file::PeersFile;
use super::Net;
use crate::wire::Moment;
use std::time::{Duration, Instant};

/// How often the disk is tried again when it did not take a block or a header.
const KEEP_AGAIN: Duration = Duration::from_secs(2);
/// New bans are on the disk within this.
const SAVE_BANS: Duration = Duration::from_secs(10);

impl Net {
    /// Writes the book when it was not written for long, and soon after a ban.
    pub(super) fn save_when_due(&mut self) {
        let (at, bans) = self.saved;
        let banned = bans != self.machine.bans().changes() && at.elapsed() >= SAVE_BANS;
        if banned || at.elapsed() >= self.config.save_interval {
            self.save_later();
        }
    }

    /// Writes the book, in the background.
    pub(super) fn save_later(&mut self) {
        self.saved = (Instant::now(), self.machine.bans().changes());
        self.writes += 1;
        let (file, number) = (self.file.clone(), self.writes);
        let bytes = self.machine.book_file();
        tokio::task::spawn_blocking(move || keep(&file, number, &bytes));
    }

    /// Asks again for blocks that could not be kept, and writes headers that could not be written.
    pub(super) fn keep_again(&mut self, now: Moment) {
        if self.kept_again.elapsed() < KEEP_AGAIN {
            return;
        }
        self.kept_again = Instant::now();
        for hash in std::mem::take(&mut self.unkept) {
            self.machine.block_lost(hash, now);
        }
        self.write_headers();
    }

    /// Writes the headers that wait for it. While they cannot be written they go on waiting: the header tree has them too,
    /// and a start without them asks peers for them again.
    pub(super) fn write_headers(&mut self) {
        if self.unwritten.is_empty() {
            return;
        }
        match self.headers.append(&self.unwritten) {
            Ok(()) => {
                self.unwritten.clear();
                if std::mem::take(&mut self.headers_wait) {
                    tracing::info!("headers can be kept again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.headers_wait, true) {
                    tracing::error!(
                        error = format!("{error:#}"),
                        "headers cannot be kept: they wait"
                    );
                }
            }
        }
    }
}

/// Writes the peer book. Without it everything goes on.
pub(super) fn keep(file: &PeersFile, number: u64, bytes: &[u8]) {
    if let Err(error) = file.write(number, bytes) {
        tracing::warn!(error = format!("{error:#}"), "the peer book cannot be kept");
    }
}
