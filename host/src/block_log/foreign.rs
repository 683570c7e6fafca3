//! Blocks that lie in another program's folder: where, and which of them were checked.
//!
//! A scan says where blocks lie ([`found`](ForeignBlocks::found)); once one is checked it counts as held
//! ([`checked`](ForeignBlocks::checked)), and the record of it goes to an index file of the log's own make, `foreign.index`. The
//! bytes stay where they are. Whoever keeps that folder may remove them at any time: a block whose file is gone, or whose bytes
//! are not those that were checked, is not held any more and says so by not being there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bitcoin::block::Header;
use bitcoin::hashes::Hash as _;
use bytes::Bytes;

use super::core_folder::CoreFolder;
use super::error::BlockLogError;
use super::index_file::{IndexFile, Record};

/// The largest block that is read: what the network's messages can carry.
const MAX_BLOCK: u32 = 4_000_000;

/// Where a block lies, and what is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    file: u32,
    /// Of the block itself, behind magic and length.
    offset: u32,
    length: u32,
    /// Set once it was checked.
    height: u32,
    crc: u32,
    checked: bool,
    gone: bool,
}

impl Place {
    fn record(&self, hash: &[u8; 32]) -> Record {
        Record {
            hash: *hash,
            height: self.height,
            segment: self.file,
            offset: self.offset.into(),
            length: self.length,
            crc: self.crc,
        }
    }
}

/// A frame of a block file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FrameAt {
    /// Number of the file.
    pub file: u32,
    /// Where the block begins in it, in bytes.
    pub offset: u32,
    /// How long the block is, in bytes.
    pub length: u32,
}

/// What lies in the other folder.
#[derive(Debug)]
pub struct ForeignBlocks {
    /// None when the host does not read that folder any more: what was checked then counts as pruned.
    folder: Option<Arc<CoreFolder>>,
    places: RwLock<Places>,
    index: Mutex<IndexFile>,
    pending: Mutex<Vec<Record>>,
    /// Frames whose bytes were wrong: they may have been read while they were written.
    suspects: Mutex<Vec<FrameAt>>,
}

#[derive(Debug, Default)]
struct Places {
    by_hash: HashMap<[u8; 32], Place, foldhash::fast::RandomState>,
    /// How many blocks of each height are held.
    heights: BTreeMap<u32, u32>,
    held: usize,
}

impl Places {
    fn count(&mut self, place: &Place, more: bool) {
        if !place.checked || place.gone {
            return;
        }
        let count = self.heights.entry(place.height).or_default();
        if more {
            *count += 1;
            self.held += 1;
        } else {
            *count -= 1;
            self.held -= 1;
            if *count == 0 {
                self.heights.remove(&place.height);
            }
        }
    }

    fn change(&mut self, hash: &[u8; 32], change: impl FnOnce(&mut Place)) {
        let Some(mut place) = self.by_hash.get(hash).copied() else {
            return;
        };
        self.count(&place, false);
        change(&mut place);
        self.count(&place, true);
        self.by_hash.insert(*hash, place);
    }
}

impl ForeignBlocks {
    /// Opens the index beside our own files. Without `folder` everything that it knows is gone.
    ///
    /// # Errors
    ///
    /// When the index is of another network or cannot be read.
    pub fn open(
        index: PathBuf,
        magic: [u8; 4],
        folder: Option<Arc<CoreFolder>>,
    ) -> Result<Self, BlockLogError> {
        let (index, records) = IndexFile::open(index, magic)?;
        let present: BTreeSet<u32> = folder
            .as_ref()
            .and_then(|folder| folder.list().ok())
            .map(|files| files.into_keys().collect())
            .unwrap_or_default();
        let mut places = Places::default();
        places.by_hash.reserve(records.len());
        for record in records {
            let Ok(offset) = u32::try_from(record.offset) else {
                continue;
            };
            let place = Place {
                file: record.segment,
                offset,
                length: record.length,
                height: record.height,
                crc: record.crc,
                checked: true,
                gone: !present.contains(&record.segment),
            };
            if let Some(before) = places.by_hash.insert(record.hash, place) {
                places.count(&before, false);
            }
            places.count(&place, true);
        }
        Ok(Self {
            folder,
            places: RwLock::new(places),
            index: Mutex::new(index),
            pending: Mutex::default(),
            suspects: Mutex::default(),
        })
    }

    /// The folder, while it is read.
    pub fn folder(&self) -> Option<&Arc<CoreFolder>> {
        self.folder.as_ref()
    }

    /// A scan came across a block, behind a header with this hash. Answers whether that place is used: `false` when the
    /// block lies elsewhere too.
    pub fn found(&self, hash: &[u8; 32], at: FrameAt) -> bool {
        let mut places = self.write();
        let before = places.by_hash.get(hash).copied();
        if let Some(place) = before.filter(|place| !place.gone) {
            return (place.file, place.offset) == (at.file, at.offset);
        }
        places.by_hash.insert(
            *hash,
            Place {
                file: at.file,
                offset: at.offset,
                length: at.length,
                height: before.map_or(0, |place| place.height),
                crc: before.map_or(0, |place| place.crc),
                checked: before.is_some_and(|place| place.checked && place.length == at.length),
                gone: false,
            },
        );
        let Some(place) = places.by_hash.get(hash).copied() else {
            return true;
        };
        places.count(&place, true);
        drop(places);
        if place.checked {
            lock(&self.pending).push(place.record(hash));
        }
        true
    }

    /// The block's bytes, checked or not, if they are behind the header of that hash, and what was checked. A block that is
    /// not what it was, or whose file is gone, is forgotten.
    pub fn read(&self, hash: &[u8; 32]) -> Option<Bytes> {
        let folder = self.folder.as_ref()?;
        let place = self.place(hash).filter(|place| !place.gone)?;
        let mut bytes = vec![0; place.length as usize];
        let read = folder.read_exact(place.file, u64::from(place.offset), &mut bytes);
        let good = read.is_ok()
            && bytes
                .get(..Header::SIZE)
                .is_some_and(|header| bitcoin::BlockHash::hash(header).as_byte_array() == hash)
            && (!place.checked || crc32fast::hash(&bytes) == place.crc);
        if good {
            return Some(bytes.into());
        }
        tracing::debug!(
            file = %folder.file_path(place.file).display(),
            offset = place.offset,
            error = read.err().map(tracing::field::display),
            "a block of the folder is gone"
        );
        self.forget(hash);
        None
    }

    /// The block is good: from now on it is held, at this height. `crc` is the CRC-32 of its bytes.
    pub fn checked(&self, hash: &[u8; 32], height: u32, crc: u32) {
        let mut record = None;
        self.write().change(hash, |place| {
            (place.checked, place.height, place.crc) = (true, height, crc);
            record = Some(place.record(hash));
        });
        lock(&self.pending).extend(record);
    }

    /// The block's bytes are wrong: another place, or a peer, may have it. The scan looks at the place again.
    pub fn forget(&self, hash: &[u8; 32]) {
        let mut suspect = None;
        self.write().change(hash, |place| {
            place.gone = true;
            suspect = Some(FrameAt {
                file: place.file,
                offset: place.offset,
                length: place.length,
            });
        });
        lock(&self.suspects).extend(suspect);
    }

    /// What was forgotten since the last call.
    pub fn take_suspects(&self) -> Vec<FrameAt> {
        std::mem::take(&mut lock(&self.suspects))
    }

    /// A file is not there any more.
    pub fn file_gone(&self, file: u32) {
        let mut places = self.write();
        let gone: Vec<[u8; 32]> = places
            .by_hash
            .iter()
            .filter(|(_, place)| place.file == file && !place.gone)
            .map(|(hash, _)| *hash)
            .collect();
        for hash in gone {
            places.change(&hash, |place| place.gone = true);
        }
    }

    /// Whether the block is held: checked, and still there as far as is known.
    pub fn contains(&self, hash: &[u8; 32]) -> bool {
        self.place(hash)
            .is_some_and(|place| place.checked && !place.gone)
    }

    /// Whether the block was ever checked, there or not.
    pub fn was_checked(&self, hash: &[u8; 32]) -> bool {
        self.place(hash).is_some_and(|place| place.checked)
    }

    /// The height of a block that was checked.
    pub fn height_of(&self, hash: &[u8; 32]) -> Option<u32> {
        let place = self.place(hash).filter(|place| place.checked)?;
        Some(place.height)
    }

    /// How many blocks are held.
    pub fn len(&self) -> usize {
        self.read_places().held
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The lowest and the highest height held.
    pub fn height_range(&self) -> Option<(u32, u32)> {
        let places = self.read_places();
        let lowest = places.heights.first_key_value()?;
        let highest = places.heights.last_key_value()?;
        Some((*lowest.0, *highest.0))
    }

    /// Whether a block of this height is held.
    pub fn has_height(&self, height: u32) -> bool {
        self.read_places().heights.contains_key(&height)
    }

    /// The frames of the blocks that were checked and are `known`, in the order of the files: a scan need not read them again.
    pub fn checked_frames(&self, known: impl Fn(&[u8; 32]) -> bool) -> Vec<FrameAt> {
        let places = self.read_places();
        let checked = places
            .by_hash
            .iter()
            .filter(|(hash, place)| place.checked && !place.gone && known(hash));
        let mut frames: Vec<FrameAt> = checked
            .map(|(_, place)| FrameAt {
                file: place.file,
                offset: place.offset,
                length: place.length,
            })
            .collect();
        frames.sort_unstable();
        frames
    }

    /// Makes it durable which blocks were checked.
    ///
    /// # Errors
    ///
    /// When the index cannot be written; the next call tries again.
    pub fn sync(&self) -> Result<(), BlockLogError> {
        let mut index = lock(&self.index);
        let records = lock(&self.pending).clone();
        if records.is_empty() {
            return Ok(());
        }
        index.append(&records)?;
        lock(&self.pending).drain(..records.len());
        Ok(())
    }

    fn place(&self, hash: &[u8; 32]) -> Option<Place> {
        self.read_places().by_hash.get(hash).copied()
    }

    fn read_places(&self) -> RwLockReadGuard<'_, Places> {
        self.places.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Places> {
        self.places.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a frame may be so long: a header and a transaction at least, and no more than a block can have.
pub fn plausible(length: u32) -> bool {
    (81..=MAX_BLOCK).contains(&length)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
