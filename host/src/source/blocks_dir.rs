//! The thread that looks through Bitcoin Core's block folder, once at the start and then for what Core adds.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bitcoin::block::Header;
use tokio::sync::mpsc;

use super::SourceEvent;
use super::scan::{Step, next_block};
use crate::block_log::core_folder::{CoreFolder, Stamp};
use crate::block_log::{BlockLog, ForeignBlocks, FrameAt};

/// How often the newest files are looked at.
const POLL: Duration = Duration::from_secs(1);
/// How often all files are: every so many of the above. Core removes old files when it prunes.
const POLLS_TO_LIST: u32 = 15;
/// The newest files: Core writes to the last one, and to one more beside it while it loads a snapshot (assumeutxo).
const NEWEST: usize = 3;
/// How often a block that was not whole is looked at again in a file that does not change.
const TRIES: u32 = 5;
/// How many headers are told at once.
const BATCH: usize = 500;
/// How often the thread looks whether it should end.
const STEP: Duration = Duration::from_millis(50);

/// How far the search is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceProgress {
    /// Files in the folder, and how many of them were looked through.
    pub files: u64,
    /// See `files`.
    pub files_read: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Blocks found since the start, those that were known too.
    pub blocks: u64,
    /// The first file is `blk00000.dat` unless Core has pruned: how many before the first are missing.
    pub files_missing: u32,
    /// Whether all was looked through once.
    pub scanned: bool,
    /// Why the folder cannot be read at the moment.
    pub error: Option<String>,
}

/// The running thread.
#[derive(Debug)]
pub struct BlocksDir {
    thread: JoinHandle<()>,
    stop: Arc<AtomicBool>,
    progress: Arc<Mutex<SourceProgress>>,
}

#[derive(Debug, Default)]
struct FileState {
    /// As it was when it was read to `next`.
    stamp: Option<Stamp>,
    next: u64,
    /// Where a block was that was not whole.
    again: Option<u64>,
    tries: u32,
}

struct Worker {
    log: Arc<BlockLog>,
    folder: Arc<CoreFolder>,
    /// Frames that need not be read again, in order.
    known: Vec<FrameAt>,
    files: BTreeMap<u32, FileState>,
    events: mpsc::Sender<SourceEvent>,
    stop: Arc<AtomicBool>,
    progress: Arc<Mutex<SourceProgress>>,
}

/// The host ends.
struct Ended;

impl BlocksDir {
    /// Starts looking. `known` are frames whose blocks were checked and whose headers the tree has.
    ///
    /// # Errors
    ///
    /// When no thread can be started.
    pub fn start(
        log: Arc<BlockLog>,
        folder: Arc<CoreFolder>,
        known: Vec<FrameAt>,
        events: mpsc::Sender<SourceEvent>,
    ) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let progress = Arc::new(Mutex::default());
        let worker = Worker {
            log,
            folder,
            known,
            files: BTreeMap::new(),
            events,
            stop: stop.clone(),
            progress: progress.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("blocks-dir".into())
            .spawn(move || worker.run())?;
        Ok(Self {
            thread,
            stop,
            progress,
        })
    }

    /// How far it is, for others.
    pub fn progress(&self) -> Arc<Mutex<SourceProgress>> {
        self.progress.clone()
    }

    /// Ends the thread. The receiver of its events must be gone.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
    }
}

impl Worker {
    fn run(mut self) {
        let mut polls = 0;
        loop {
            let all = polls % POLLS_TO_LIST == 0;
            match self.look(all) {
                Ok(Err(Ended)) => return,
                Ok(Ok(())) => {
                    if self.scanned().is_err() {
                        return;
                    }
                    polls += 1;
                }
                Err(error) => {
                    let error = format!("{}: {error}", self.folder.path().display());
                    let first = self.note(|progress| {
                        let first = progress.error.is_none();
                        progress.error = Some(error.clone());
                        first
                    });
                    if first {
                        tracing::warn!(error, "the blocks' folder cannot be read");
                    }
                    // Then all of it again.
                    polls = 0;
                    self.folder.forget_readers();
                }
            }
            let mut waited = Duration::ZERO;
            while waited < POLL {
                if self.stop.load(Ordering::Relaxed) || self.events.is_closed() {
                    return;
                }
                std::thread::sleep(STEP);
                waited += STEP;
            }
        }
    }

    /// All files were seen: says so, and what is missing, the first time.
    fn scanned(&self) -> Result<(), Ended> {
        let progress = self.note(|progress| {
            progress.error = None;
            let before = progress.clone();
            progress.scanned = true;
            before
        });
        if progress.scanned {
            return Ok(());
        }
        tracing::info!(
            folder = %self.folder.path().display(),
            files = progress.files,
            blocks = progress.blocks,
            "the blocks' folder was looked through"
        );
        if let Some(last) = progress.files_missing.checked_sub(1) {
            tracing::warn!(
                missing = format!("blk00000.dat to blk{last:05}.dat"),
                "the folder was pruned: what is missing is asked of peers"
            );
        }
        self.send(SourceEvent::Scanned)
    }

    fn look(&mut self, all: bool) -> std::io::Result<Result<(), Ended>> {
        for at in self
            .foreign()
            .map_or_else(Vec::new, ForeignBlocks::take_suspects)
        {
            let frame = u64::from(at.offset).saturating_sub(8);
            let file = self.files.entry(at.file).or_default();
            file.again = Some(file.again.unwrap_or(frame).min(frame));
        }
        let listed = match all {
            true => self.list()?,
            false => self.newest()?,
        };
        for (number, stamp) in listed {
            let file = self.files.entry(number).or_default();
            let changed = file.stamp != Some(stamp);
            if changed {
                file.tries = 0;
            }
            if file.stamp.is_some_and(|before| before.replaced_by(&stamp))
                || stamp.bytes < file.next
            {
                file.next = 0;
                self.folder.forget_readers();
            }
            let again = file.again.filter(|_| changed || file.tries < TRIES);
            if !changed && again.is_none() {
                continue;
            }
            if let Some(again) = again {
                file.next = file.next.min(again);
                file.again = None;
                file.tries += 1;
            }
            let next = file.next;
            match self.read(number, next, stamp.bytes) {
                Ok(Ok(next)) => {
                    let file = self.files.entry(number).or_default();
                    (file.next, file.stamp) = (next, Some(stamp));
                }
                Ok(Err(ended)) => return Ok(Err(ended)),
                // Pruned, or cut, since it was listed: the next look sees it.
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::NotFound | std::io::ErrorKind::UnexpectedEof
                    ) => {}
                Err(error) => return Err(error),
            }
            self.note(|progress| {
                if !progress.scanned {
                    progress.files_read += 1;
                }
            });
        }
        Ok(Ok(()))
    }

    /// Every file, and forgets those that are gone.
    fn list(&mut self) -> std::io::Result<BTreeMap<u32, Stamp>> {
        let listed = self.folder.list()?;
        let gone: Vec<u32> = self
            .files
            .keys()
            .filter(|number| !listed.contains_key(number))
            .copied()
            .collect();
        for number in gone {
            tracing::info!(file = %self.folder.file_path(number).display(), "a block file was removed");
            self.files.remove(&number);
            self.folder.forget_readers();
            if let Some(foreign) = self.foreign() {
                foreign.file_gone(number);
            }
        }
        let first = listed.keys().next().copied().unwrap_or(0);
        let bytes = listed.values().map(|stamp| stamp.bytes).sum();
        self.note(|progress| {
            progress.files = listed.len() as u64;
            progress.bytes = bytes;
            progress.files_missing = first;
            if progress.scanned {
                progress.files_read = progress.files;
            }
        });
        Ok(listed)
    }

    /// The files that Core may have written to, those with a block to look at again, and the next one.
    fn newest(&self) -> std::io::Result<BTreeMap<u32, Stamp>> {
        let last = self.files.keys().next_back().copied().unwrap_or(0);
        let newest = self.files.keys().rev().take(NEWEST).copied();
        let suspect = self.files.iter().filter(|(_, file)| file.again.is_some());
        let numbers = newest
            .chain([last.saturating_add(1)])
            .chain(suspect.map(|(number, _)| *number));
        let mut listed = BTreeMap::new();
        for number in numbers {
            if let Some(stamp) = self.folder.stamp(number)? {
                listed.insert(number, stamp);
            }
        }
        Ok(listed)
    }

    /// Reads a file from a position on and tells what is in it; answers where to go on.
    fn read(&self, file: u32, from: u64, bytes: u64) -> std::io::Result<Result<u64, Ended>> {
        let mut at = from;
        let mut found = Vec::new();
        let mut skipped = 0;
        let end = loop {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(Err(Ended));
            }
            if let Some(known) = self.known_at(file, at, bytes) {
                at += 8 + u64::from(known.length);
                skipped += 1;
                continue;
            }
            match next_block(&self.folder, file, at, bytes)? {
                Step::Block(block, next) => {
                    at = next;
                    if self
                        .foreign()
                        .is_some_and(|foreign| foreign.found(&block.hash, block.at))
                    {
                        found.push((block.header, block.at.length));
                    }
                }
                Step::End(end) => break end,
            }
            if found.len() >= BATCH
                && let Err(ended) = self.tell(&mut found)
            {
                return Ok(Err(ended));
            }
        };
        self.note(|progress| progress.blocks += skipped);
        Ok(self.tell(&mut found).map(|()| end))
    }

    fn known_at(&self, file: u32, at: u64, bytes: u64) -> Option<FrameAt> {
        let offset = u32::try_from(at.checked_add(8)?).ok()?;
        let key = (file, offset);
        let index = self
            .known
            .binary_search_by_key(&key, |known| (known.file, known.offset))
            .ok()?;
        let known = self.known.get(index).copied()?;
        (u64::from(offset) + u64::from(known.length) <= bytes).then_some(known)
    }

    fn tell(&self, found: &mut Vec<(Header, u32)>) -> Result<(), Ended> {
        if found.is_empty() {
            return Ok(());
        }
        let blocks = std::mem::take(found);
        self.note(|progress| progress.blocks += blocks.len() as u64);
        self.send(SourceEvent::Found(blocks))
    }

    fn send(&self, event: SourceEvent) -> Result<(), Ended> {
        self.events.blocking_send(event).map_err(|_| Ended)
    }

    fn foreign(&self) -> Option<&ForeignBlocks> {
        self.log.foreign()
    }

    fn note<T>(&self, change: impl FnOnce(&mut SourceProgress) -> T) -> T {
        change(&mut self.progress.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether the folder is one of our own, which would be read and written at once.
pub fn is_own(path: &Path, own: &Path) -> bool {
    match (path.canonicalize(), own.canonicalize()) {
        (Ok(path), Ok(own)) => path == own,
        _ => path == own,
    }
}
