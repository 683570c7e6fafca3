//! An append-only log in segments, with an index that may lag behind it.
//!
//! The order of writing, and what each step may rely on:
//!
//! ```text
//! append   one vectored write of magic, length, payload      a reader sees it; a kill of the process does not lose it
//! sync     fsync of the segments, then index records, then fsync of the index
//! start    index, then a scan of what lies beyond it (see `recovery`)
//! prune    unlink the oldest segments, then rewrite the index without them
//! ```
//!
//! So an index record never speaks of bytes that a power cut could take, and every crash between
//! two steps leaves something that the start repairs.
//!
//! In memory a block costs one map slot: 32 bytes of hash, 20 of place, one of control, at a load
//! of 7/16 to 7/8, and about 14 for its height: 68 to 120 bytes. 900,000 blocks are about 68 MB.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{IoSlice, Seek as _, SeekFrom, Write as _};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use super::catalog::Catalog;
use super::error::{BlockLogError, io_error};
use super::frames::Frames;
use super::index_file::{IndexFile, Record};
use super::recovery;

/// Magic and length before each payload.
pub(super) const FRAME_HEADER_BYTES: u64 = 8;

/// Bitcoin Core's own segment size (`MAX_BLOCKFILE_SIZE`).
const DEFAULT_SEGMENT_BYTES: u64 = 128 * 1024 * 1024;

/// Segments kept open for reading. A pruned mainnet has about 5,000 segments; a process has 1,024
/// descriptors.
const OPEN_SEGMENTS: usize = 32;

/// `blk00012.dat`.
pub(super) fn segment_path(dir: &Path, prefix: &str, segment: u32) -> PathBuf {
    dir.join(format!("{prefix}{segment:05}.dat"))
}

/// How a log is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentLogOptions {
    /// A segment is closed before it would grow past this many bytes. A single larger frame gets a
    /// segment of its own. At most 4 GiB - 1.
    pub max_segment_bytes: u64,
}

impl Default for SegmentLogOptions {
    fn default() -> Self {
        Self {
            max_segment_bytes: DEFAULT_SEGMENT_BYTES,
        }
    }
}

/// What [`SegmentLog::prune`] removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Segments removed.
    pub segments: u32,
    /// Bytes freed.
    pub bytes: u64,
    /// Blocks removed.
    pub blocks: u64,
    /// The lowest height still held.
    pub lowest_height: Option<u32>,
}

/// The end of the log.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) segment: u32,
    pub(super) file: Arc<File>,
    pub(super) end: u64,
    /// Counts appends: a payload that comes in pieces ends when another one is appended.
    pub(super) appends: u64,
    /// The file may hold more than `end` bytes, or its cursor may be elsewhere: repair before the
    /// next write.
    pub(super) disturbed: bool,
    /// Closed segments that were not synced yet.
    unsynced: Vec<Arc<File>>,
    /// A file was created since the folder was synced.
    folder_changed: bool,
    /// Records of frames that were not synced yet, in the order of the frames.
    pub(super) pending: Vec<Record>,
    /// Bytes the disk still takes before it is full.
    #[cfg(test)]
    room: Option<usize>,
}

/// An append-only log of frames, found by hash. See the module's page for the order of writing.
///
/// One process may have a log open at a time; the caller's lock on the data folder sees to that.
#[derive(Debug)]
pub struct SegmentLog<F> {
    pub(super) dir: PathBuf,
    pub(super) magic: [u8; 4],
    pub(super) max_segment_bytes: u64,
    pub(super) catalog: RwLock<Catalog>,
    pub(super) writer: Mutex<Writer>,
    /// Taken before `writer` where both are.
    index: Mutex<IndexFile>,
    /// Segments open for reading, the most recently used last.
    readers: Mutex<VecDeque<(u32, Arc<File>)>>,
    frames: PhantomData<fn() -> F>,
}

impl<F: Frames> SegmentLog<F> {
    /// Opens the log in `dir`; see [`BlockLog::open`](super::BlockLog::open).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn open(
        dir: &Path,
        magic: [u8; 4],
        options: SegmentLogOptions,
    ) -> Result<Self, BlockLogError> {
        std::fs::create_dir_all(dir).map_err(io_error("create", dir))?;
        let mut segments = recovery::list_segments(dir, F::PREFIX)?;
        recovery::check_network(dir, F::PREFIX, &segments, magic)?;
        let index_path = dir.join(format!("{}.index", F::PREFIX));
        let (mut index, mut records) = IndexFile::open(index_path, magic)?;
        let dropped = recovery::drop_dangling(dir, F::PREFIX, &segments, &mut records)?;
        if dropped > 0 {
            tracing::warn!(dir = %dir.display(), log = F::PREFIX, dropped, "dropped index records without their data");
            index.rewrite(&records)?;
        }

        let mut catalog = Catalog::default();
        catalog.places.reserve(records.len());
        for record in &records {
            catalog.insert(record);
        }
        let pending =
            recovery::scan_tail::<F>(dir, magic, &mut segments, &mut catalog, records.last())?;
        for (&segment, &length) in &segments {
            catalog.grow(segment, length);
        }

        let segment = segments.keys().next_back().copied().unwrap_or(0);
        let path = segment_path(dir, F::PREFIX, segment);
        let file = open_segment(&path)?;
        // Scanned frames may lie in segments before the newest, and none of them is known to be
        // durable.
        let mut unsynced = Vec::new();
        let mut seen = None;
        for record in &pending {
            if record.segment != segment && seen.replace(record.segment) != Some(record.segment) {
                unsynced.push(Arc::new(open_segment(&segment_path(
                    dir,
                    F::PREFIX,
                    record.segment,
                ))?));
            }
        }
        let log = Self {
            dir: dir.to_owned(),
            magic,
            max_segment_bytes: options.max_segment_bytes.min(u64::from(u32::MAX)),
            writer: Mutex::new(Writer {
                segment,
                file: Arc::new(file),
                end: segments.get(&segment).copied().unwrap_or(0),
                appends: 0,
                disturbed: true,
                unsynced,
                folder_changed: true,
                pending,
                #[cfg(test)]
                room: None,
            }),
            catalog: RwLock::new(catalog),
            index: Mutex::new(index),
            readers: Mutex::new(VecDeque::new()),
            frames: PhantomData,
        };
        log.sync()?;
        Ok(log)
    }

    /// Appends a payload; see [`BlockLog::append`](super::BlockLog::append).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn append(&self, hash: &[u8; 32], height: u32, body: &[u8]) -> Result<bool, BlockLogError> {
        let mut writer = lock(&self.writer);
        if self.contains(hash) {
            return Ok(false);
        }
        let envelope = F::envelope(hash, height, body);
        let too_large = || BlockLogError::TooLarge { bytes: body.len() };
        let length = u32::try_from(envelope.len() + body.len()).map_err(|_| too_large())?;
        let frame_bytes = FRAME_HEADER_BYTES + u64::from(length);
        if writer.end > 0 && writer.end.saturating_add(frame_bytes) > self.max_segment_bytes {
            self.roll(&mut writer)?;
        }

        let mut crc = crc32fast::Hasher::new();
        crc.update(&envelope);
        crc.update(body);
        let record = Record {
            hash: *hash,
            height,
            segment: writer.segment,
            offset: writer.end + FRAME_HEADER_BYTES,
            length,
            crc: crc.finalize(),
        };
        let path = || segment_path(&self.dir, F::PREFIX, record.segment);
        writer
            .write(&[&self.magic, &length.to_le_bytes(), &envelope, body])
            .map_err(|error| io_error("append to", &path())(error))?;
        writer.pending.push(record);

        let mut catalog = write(&self.catalog);
        catalog.insert(&record);
        catalog.grow(record.segment, frame_bytes);
        Ok(true)
    }

    /// Begins the next segment.
    pub(super) fn roll(&self, writer: &mut Writer) -> Result<(), BlockLogError> {
        let segment = writer.segment + 1;
        let path = segment_path(&self.dir, F::PREFIX, segment);
        let file = Arc::new(open_segment(&path)?);
        writer
            .unsynced
            .push(std::mem::replace(&mut writer.file, file));
        writer.segment = segment;
        writer.end = 0;
        writer.disturbed = true;
        writer.folder_changed = true;
        Ok(())
    }

    /// The payload of a hash; see [`BlockLog::get`](super::BlockLog::get).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn get(&self, hash: &[u8; 32]) -> Result<Option<Bytes>, BlockLogError> {
        let Some(place) = read(&self.catalog).places.get(hash).copied() else {
            return Ok(None);
        };
        let path = segment_path(&self.dir, F::PREFIX, place.segment);
        let file = match self.reader(place.segment, &path) {
            Ok(file) => file,
            // Pruned between the look and the opening.
            Err(_) if !self.contains(hash) => return Ok(None),
            Err(error) => return Err(io_error("open", &path)(error)),
        };
        let offset = u64::from(place.offset);
        let payload = recovery::read_payload(&file, offset, place.length);
        match payload {
            Ok(payload) if crc32fast::hash(&payload) == place.crc => {
                let mut payload = Bytes::from(payload);
                Ok(Some(
                    payload.split_off(F::ENVELOPE_BYTES.min(payload.len())),
                ))
            }
            Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
                Err(io_error("read", &path)(error))
            }
            _ => {
                let mut catalog = write(&self.catalog);
                if catalog.places.get(hash) == Some(&place) {
                    catalog.forget(hash);
                }
                Err(BlockLogError::Damaged {
                    height: place.height,
                    path,
                    offset,
                })
            }
        }
    }

    /// The segment, open for reading.
    pub(super) fn reader(&self, segment: u32, path: &Path) -> std::io::Result<Arc<File>> {
        let mut readers = lock(&self.readers);
        let known = readers
            .iter()
            .position(|(number, _)| *number == segment)
            .and_then(|at| readers.remove(at));
        let file = match known {
            Some((_, file)) => file,
            None => Arc::new(File::open(path)?),
        };
        if readers.len() >= OPEN_SEGMENTS {
            readers.pop_front();
        }
        readers.push_back((segment, Arc::clone(&file)));
        Ok(file)
    }

    /// Whether the log holds this hash.
    pub fn contains(&self, hash: &[u8; 32]) -> bool {
        read(&self.catalog).places.contains_key(hash)
    }

    /// The height a hash was appended with.
    pub fn height_of(&self, hash: &[u8; 32]) -> Option<u32> {
        read(&self.catalog).height_of(hash)
    }

    /// The lowest and highest height held.
    pub fn height_range(&self) -> Option<(u32, u32)> {
        let catalog = read(&self.catalog);
        let lowest = catalog.heights.first_key_value()?;
        let highest = catalog.heights.last_key_value()?;
        Some((*lowest.0, *highest.0))
    }

    /// The lowest height from which every height up to `top` is held.
    pub fn contiguous_from(&self, top: u32) -> Option<u32> {
        read(&self.catalog).contiguous_from(top)
    }

    /// How many hashes are held.
    pub fn len(&self) -> usize {
        read(&self.catalog).places.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size of the data files in bytes.
    pub fn bytes(&self) -> u64 {
        read(&self.catalog).bytes
    }

    /// Makes everything appended so far durable; appends and reads go on meanwhile.
    ///
    /// Call it now and then while much is appended: after a kill the start scans what was appended
    /// since, and decodes it.
    ///
    /// # Errors
    ///
    /// [`BlockLogError::Io`]; what is not durable yet is tried again by the next call.
    pub fn sync(&self) -> Result<(), BlockLogError> {
        self.sync_into(&mut lock(&self.index))
    }

    fn sync_into(&self, index: &mut IndexFile) -> Result<(), BlockLogError> {
        let (closed, current, records, folder_changed) = {
            let writer = lock(&self.writer);
            (
                writer.unsynced.clone(),
                Arc::clone(&writer.file),
                writer.pending.clone(),
                writer.folder_changed,
            )
        };
        if records.is_empty() && !folder_changed {
            return Ok(());
        }
        for file in closed.iter().chain([&current]) {
            file.sync_data()
                .map_err(io_error("sync a segment in", &self.dir))?;
        }
        if folder_changed {
            sync_folder(&self.dir)?;
        }
        index.append(&records)?;

        let mut writer = lock(&self.writer);
        // What was removed meanwhile is not among them any more.
        let done = records.last().map(|record| (record.segment, record.offset));
        writer
            .pending
            .retain(|record| Some((record.segment, record.offset)) > done);
        writer
            .unsynced
            .retain(|file| !closed.iter().any(|closed| Arc::ptr_eq(closed, file)));
        // A segment begun meanwhile is for the next sync.
        if Arc::ptr_eq(&writer.file, &current) {
            writer.folder_changed = false;
        }
        Ok(())
    }

    /// Removes whole oldest segments while the data is larger than `keep_bytes`.
    ///
    /// A segment that holds a block at or above `keep_from_height` stays (a lane has still to read
    /// it, or a reorg may need it), and so do all after it. The newest segment always stays.
    ///
    /// # Errors
    ///
    /// [`BlockLogError::Io`]; what was removed until then is gone, and the log is whole.
    pub fn prune(&self, keep_bytes: u64, keep_from_height: u32) -> Result<Pruned, BlockLogError> {
        let mut index = lock(&self.index);
        let newest = lock(&self.writer).segment;
        let doomed: Vec<(u32, u64)> = {
            let catalog = read(&self.catalog);
            let mut left = catalog.bytes;
            catalog
                .segments
                .range(..newest)
                .take_while(|(_, segment)| {
                    let stays = left <= keep_bytes
                        || segment
                            .max_height
                            .is_some_and(|height| height >= keep_from_height);
                    left = left.saturating_sub(segment.bytes);
                    !stays
                })
                .map(|(number, segment)| (*number, segment.bytes))
                .collect()
        };
        let mut pruned = Pruned::default();
        if let Some(&(last, _)) = doomed.last() {
            self.sync_into(&mut index)?;
            pruned.segments = doomed.len() as u32;
            pruned.bytes = doomed.iter().map(|(_, bytes)| bytes).sum();
            pruned.blocks = self.forget_until(last);
            for (segment, _) in doomed {
                let path = segment_path(&self.dir, F::PREFIX, segment);
                match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(io_error("remove", &path)(error));
                    }
                    _ => {}
                }
            }
            let mut records = index.records()?;
            records.retain(|record| record.segment > last);
            index.rewrite(&records)?;
            sync_folder(&self.dir)?;
        }
        pruned.lowest_height = self.height_range().map(|(lowest, _)| lowest);
        Ok(pruned)
    }

    /// Removes the whole segment that a hash's payload is in, and says whether there was one. Whoever reads it may go on. For a
    /// log that no start opens again: its index is left as it is.
    ///
    /// # Errors
    ///
    /// When the file cannot be removed.
    pub fn remove_segment_of(&self, hash: &[u8; 32]) -> Result<bool, BlockLogError> {
        let segment = {
            let mut writer = lock(&self.writer);
            let Some(place) = read(&self.catalog).places.get(hash).copied() else {
                return Ok(false);
            };
            if writer.segment == place.segment {
                self.roll(&mut writer)?;
                // Open, it would take its room as before.
                writer.unsynced.pop();
                writer
                    .pending
                    .retain(|record| record.segment != place.segment);
            }
            place.segment
        };
        lock(&self.readers).retain(|(number, _)| *number != segment);
        write(&self.catalog).forget_segment(segment);
        let path = segment_path(&self.dir, F::PREFIX, segment);
        std::fs::remove_file(&path).map_err(io_error("remove", &path))?;
        Ok(true)
    }

    /// Forgets every segment up to `last`, and answers how many blocks were in them.
    fn forget_until(&self, last: u32) -> u64 {
        lock(&self.readers).retain(|(segment, _)| *segment > last);
        write(&self.catalog).forget_segments_until(last)
    }

    /// The disk takes this many bytes more and is full then.
    #[cfg(test)]
    pub(super) fn limit_disk(&self, room: Option<usize>) {
        lock(&self.writer).room = room;
    }
}

impl Writer {
    /// Writes one frame at the end of the log, or nothing.
    fn write(&mut self, parts: &[&[u8]]) -> std::io::Result<()> {
        self.appends += 1;
        if self.disturbed {
            self.file.set_len(self.end)?;
            (&*self.file).seek(SeekFrom::Start(self.end))?;
            self.disturbed = false;
        }
        self.disturbed = true;
        match self.write_all(parts) {
            Ok(bytes) => {
                self.end += bytes;
                self.disturbed = false;
                Ok(())
            }
            Err(error) => {
                // Where even this fails, the next write repairs it first.
                let _ = self.file.set_len(self.end);
                Err(error)
            }
        }
    }

    fn write_all(&mut self, parts: &[&[u8]]) -> std::io::Result<u64> {
        let total = parts.iter().map(|part| part.len() as u64).sum();
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut left = slices.as_mut_slice();
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match self.write_some(left) {
                Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut left, written),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(total)
    }

    #[cfg(not(test))]
    fn write_some(&mut self, slices: &[IoSlice<'_>]) -> std::io::Result<usize> {
        (&*self.file).write_vectored(slices)
    }

    /// As above, on a disk that may be about to be full: a short write first, then an error.
    #[cfg(test)]
    fn write_some(&mut self, slices: &[IoSlice<'_>]) -> std::io::Result<usize> {
        let Some(room) = &mut self.room else {
            return (&*self.file).write_vectored(slices);
        };
        if *room == 0 {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        let bytes: Vec<u8> = slices
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .take(*room)
            .collect();
        let written = (&*self.file).write(&bytes)?;
        *room -= written;
        Ok(written)
    }
}

fn open_segment(path: &Path) -> Result<File, BlockLogError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(io_error("open", path))
}

fn sync_folder(dir: &Path) -> Result<(), BlockLogError> {
    File::open(dir)
        .and_then(|folder| folder.sync_all())
        .map_err(io_error("sync the folder", dir))
}

// A panic while a lock was held leaves no half-made state behind that a reader could trip over: go
// on.

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
