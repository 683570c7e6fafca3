//! Bitcoin Core's block folder: its `blk*.dat`, read in place and never written.
//!
//! Core 28 and later keep the files XORed with eight bytes from `xor.dat`, the byte at offset *n* of a file with byte *n* mod 8
//! of the key (Core's `InitBlocksdirXorKey`). A folder without that file is plain.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Files kept open for reading.
const OPEN_FILES: usize = 16;
/// The name of the key's file.
const KEY_FILE: &str = "xor.dat";
const KEY_BYTES: usize = 8;

/// Why a folder cannot be a source of blocks.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Nothing is there.
    #[error("{} does not exist", .0.display())]
    Missing(PathBuf),
    /// It is a file.
    #[error("{} is not a folder", .0.display())]
    NotAFolder(PathBuf),
    /// Its blocks are one folder further in.
    #[error("{} has no blk*.dat, but its folder {} has", path.display(), inside.display())]
    OneFurther {
        /// What was given.
        path: PathBuf,
        /// What was meant.
        inside: PathBuf,
    },
    /// No block file is there.
    #[error("{} has no blk*.dat: it is not a block folder of Bitcoin Core", .0.display())]
    NoBlocks(PathBuf),
    /// The key has another length than 8 bytes.
    #[error("{} holds {bytes} bytes and not the 8 of a key", path.display())]
    BadKey {
        /// The key's file.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// The first block is not of this network.
    #[error("{} begins with {found:02x?} and not with this network's magic {wanted:02x?}{}", path.display(), of(found))]
    OtherNetwork {
        /// The file.
        path: PathBuf,
        /// Its first four bytes, in wire order.
        found: [u8; 4],
        /// This network's.
        wanted: [u8; 4],
    },
    /// The system refused.
    #[error("failed to read {}: {source}", path.display())]
    Io {
        /// What was to be read.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Says whose magic it is, if it is one of the known networks'.
fn of(magic: &[u8; 4]) -> String {
    crate::network::Network::ALL
        .into_iter()
        .find(|network| network.params().magic == *magic)
        .map_or_else(String::new, |network| {
            format!(": these are blocks of {network}")
        })
}

/// What tells whether a file is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Length in bytes; Core makes room in advance, so that the end may hold zeros.
    pub bytes: u64,
    modified: (i64, i64),
    inode: u64,
}

impl Stamp {
    /// Whether `later` is another file under the same name.
    pub fn replaced_by(&self, later: &Self) -> bool {
        self.inode != later.inode || later.bytes < self.bytes
    }
}

/// The folder.
#[derive(Debug)]
pub struct CoreFolder {
    path: PathBuf,
    magic: [u8; 4],
    key: [u8; KEY_BYTES],
    readers: Mutex<VecDeque<(u32, Arc<File>)>>,
}

impl CoreFolder {
    /// Looks at the folder: it must hold block files, and the first of them blocks of the network with this magic (wire
    /// order). Nothing is read beyond that.
    ///
    /// # Errors
    ///
    /// Whatever makes it useless as a source.
    pub fn open(path: &Path, magic: [u8; 4]) -> Result<Self, FolderError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| FolderError::Io { path, source }
        };
        let found = match std::fs::metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(FolderError::Missing(path.to_owned()));
            }
            found => found.map_err(io(path))?,
        };
        if !found.is_dir() {
            return Err(FolderError::NotAFolder(path.to_owned()));
        }
        let mut folder = Self {
            path: path.to_owned(),
            magic,
            key: [0; KEY_BYTES],
            readers: Mutex::default(),
        };
        let files = folder.list().map_err(io(path))?;
        if files.is_empty() {
            let inside = path.join("blocks");
            folder.path.clone_from(&inside);
            return Err(match folder.list() {
                Ok(files) if !files.is_empty() => FolderError::OneFurther {
                    path: path.to_owned(),
                    inside,
                },
                _ => FolderError::NoBlocks(path.to_owned()),
            });
        }
        let key = path.join(KEY_FILE);
        match std::fs::read(&key) {
            Ok(bytes) => {
                folder.key = <[u8; KEY_BYTES]>::try_from(bytes.as_slice()).map_err(|_| {
                    FolderError::BadKey {
                        path: key,
                        bytes: bytes.len(),
                    }
                })?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(FolderError::Io { path: key, source }),
        }
        // A file may be empty still; the first that is not says whose blocks these are.
        for number in files.keys() {
            let mut first = [0; 4];
            let file = folder.file_path(*number);
            match folder.read_exact(*number, 0, &mut first) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => continue,
                Err(source) => return Err(FolderError::Io { path: file, source }),
            }
            if first == magic {
                break;
            }
            if !folder.is_blank(first, 0) {
                return Err(FolderError::OtherNetwork {
                    path: file,
                    found: first,
                    wanted: magic,
                });
            }
        }
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The network's magic, in wire order.
    pub fn magic(&self) -> [u8; 4] {
        self.magic
    }

    /// `blk00012.dat` in it.
    pub fn file_path(&self, number: u32) -> PathBuf {
        self.path.join(format!("blk{number:05}.dat"))
    }

    /// Every block file, by number.
    ///
    /// # Errors
    ///
    /// When the folder cannot be listed. A file that vanishes meanwhile is none.
    pub fn list(&self) -> std::io::Result<BTreeMap<u32, Stamp>> {
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let number = name
                .to_str()
                .and_then(|name| name.strip_prefix("blk")?.strip_suffix(".dat"))
                .filter(|digits| digits.len() >= 5 && digits.bytes().all(|d| d.is_ascii_digit()))
                .and_then(|digits| digits.parse().ok());
            if let Some(number) = number
                && let Some(stamp) = self.stamp(number)?
            {
                files.insert(number, stamp);
            }
        }
        Ok(files)
    }

    /// How one file is now; `None` when it is not there.
    ///
    /// # Errors
    ///
    /// When the system does not say.
    pub fn stamp(&self, number: u32) -> std::io::Result<Option<Stamp>> {
        match std::fs::metadata(self.file_path(number)) {
            Ok(found) => Ok(found.is_file().then(|| Stamp {
                bytes: found.len(),
                modified: (found.mtime(), found.mtime_nsec()),
                inode: found.ino(),
            })),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fills `bytes` from a file and an offset, without the key's mask.
    ///
    /// # Errors
    ///
    /// As [`FileExt::read_exact_at`], and when the file cannot be opened.
    pub fn read_exact(&self, number: u32, offset: u64, bytes: &mut [u8]) -> std::io::Result<()> {
        self.reader(number)?.read_exact_at(bytes, offset)?;
        self.unmask(bytes, offset);
        Ok(())
    }

    /// Whether these four bytes of a file, as read, are what room made in advance reads as: zeros on the disk, or zeros
    /// written through the key.
    pub fn is_blank(&self, bytes: [u8; 4], offset: u64) -> bool {
        let mut mask = [0; 4];
        self.unmask(&mut mask, offset);
        bytes == [0; 4] || bytes == mask
    }

    /// Closes what is open: a file may have been replaced or removed.
    pub fn forget_readers(&self) {
        self.lock().clear();
    }

    fn unmask(&self, bytes: &mut [u8], offset: u64) {
        if self.key == [0; KEY_BYTES] {
            return;
        }
        let mut key = self.key;
        key.rotate_left((offset % KEY_BYTES as u64) as usize);
        let mask = u64::from_ne_bytes(key);
        let (words, rest) = bytes.as_chunks_mut::<KEY_BYTES>();
        for word in words {
            *word = (u64::from_ne_bytes(*word) ^ mask).to_ne_bytes();
        }
        for (byte, mask) in rest.iter_mut().zip(key) {
            *byte ^= mask;
        }
    }

    fn reader(&self, number: u32) -> std::io::Result<Arc<File>> {
        let mut readers = self.lock();
        let known = readers
            .iter()
            .position(|(other, _)| *other == number)
            .and_then(|at| readers.remove(at));
        let file = match known {
            Some((_, file)) => file,
            None => Arc::new(File::open(self.file_path(number))?),
        };
        if readers.len() >= OPEN_FILES {
            readers.pop_front();
        }
        readers.push_back((number, Arc::clone(&file)));
        Ok(file)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<(u32, Arc<File>)>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
