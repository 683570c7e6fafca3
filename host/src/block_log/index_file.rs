//! The index: where each frame lies, in the order in which the frames were written.
//!
//! ```text
//! header   16 bytes  "BMLI"  version u32  network magic (4)  CRC-32 of these
//! record   64 bytes  hash (32)  height u32  segment u32  offset u64  length u32  payload CRC-32 u32  flags u32  CRC-32 of these
//! ```
//!
//! Numbers are little endian; offset and length are those of the frame's payload; flags are 0. A
//! record is written only when the bytes it speaks of are durable.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::error::{BlockLogError, io_error};
use super::segment_log::FRAME_HEADER_BYTES;

const TAG: [u8; 4] = *b"BMLI";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 16;
const RECORD_BYTES: usize = 64;

/// One frame of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) hash: [u8; 32],
    pub(super) height: u32,
    pub(super) segment: u32,
    pub(super) offset: u64,
    pub(super) length: u32,
    pub(super) crc: u32,
}

impl Record {
    /// Where the frame ends in its segment.
    pub(super) fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.length))
    }

    /// Whether another frame lies behind it, as all do that were written later.
    pub(super) fn is_before(&self, later: &Self) -> bool {
        let beyond = self.end().saturating_add(FRAME_HEADER_BYTES);
        later.segment > self.segment || later.segment == self.segment && later.offset >= beyond
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.hash);
        out.extend_from_slice(&self.height.to_le_bytes());
        out.extend_from_slice(&self.segment.to_le_bytes());
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.length.to_le_bytes());
        out.extend_from_slice(&self.crc.to_le_bytes());
        out.extend_from_slice(&0u32.to_le_bytes());
        let crc = crc32fast::hash(out.get(start..).unwrap_or_default());
        out.extend_from_slice(&crc.to_le_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return None;
        }
        let (hash, rest) = body.split_first_chunk::<32>()?;
        let (height, rest) = rest.split_first_chunk::<4>()?;
        let (segment, rest) = rest.split_first_chunk::<4>()?;
        let (offset, rest) = rest.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (crc, _flags) = rest.split_first_chunk::<4>()?;
        Some(Self {
            hash: *hash,
            height: u32::from_le_bytes(*height),
            segment: u32::from_le_bytes(*segment),
            offset: u64::from_le_bytes(*offset),
            length: u32::from_le_bytes(*length),
            crc: u32::from_le_bytes(*crc),
        })
    }
}

/// The open index and how much of it is good.
#[derive(Debug)]
pub(super) struct IndexFile {
    path: PathBuf,
    file: File,
    magic: [u8; 4],
    len: u64,
}

impl IndexFile {
    /// Opens the index, cuts a torn record, and gives the records in order. A missing or torn
    /// header is an empty index.
    pub(super) fn open(
        path: PathBuf,
        magic: [u8; 4],
    ) -> Result<(Self, Vec<Record>), BlockLogError> {
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(io_error("read the index", &path)(error)),
        };
        let header_is_whole = check_header(&path, &bytes, magic)?;
        let mut records = Vec::with_capacity(bytes.len() / RECORD_BYTES);
        if header_is_whole {
            let body = bytes.get(HEADER_BYTES..).unwrap_or_default();
            records.extend(body.chunks_exact(RECORD_BYTES).map_while(Record::decode));
        }
        let good = HEADER_BYTES as u64 + (records.len() * RECORD_BYTES) as u64;
        if header_is_whole && bytes.len() as u64 > good {
            tracing::warn!(path = %path.display(), cut = bytes.len() as u64 - good, "cut a torn index");
        }

        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io_error("open the index", &path))?;
        let index = Self {
            path,
            file,
            magic,
            len: good,
        };
        if header_is_whole {
            index.cut()?;
        } else {
            index
                .file
                .set_len(0)
                .map_err(io_error("empty the index", &index.path))?;
            index.write_at(&header(magic), 0)?;
        }
        Ok((index, records))
    }

    /// Appends records and makes them durable. On failure the index is as it was.
    pub(super) fn append(&mut self, records: &[Record]) -> Result<(), BlockLogError> {
        if !records.is_empty() {
            let mut bytes = Vec::with_capacity(records.len() * RECORD_BYTES);
            for record in records {
                record.encode(&mut bytes);
            }
            if let Err(error) = self.write_at(&bytes, self.len) {
                // A record that stays half written would be cut at the next start anyway.
                let _ = self.cut();
                return Err(error);
            }
            self.len += bytes.len() as u64;
        }
        self.file
            .sync_data()
            .map_err(io_error("sync the index", &self.path))
    }

    /// Replaces the whole index with `records`, through a temporary file.
    pub(super) fn rewrite(&mut self, records: &[Record]) -> Result<(), BlockLogError> {
        let temporary = self.path.with_extension("index.new");
        let mut bytes = header(self.magic).to_vec();
        bytes.reserve(records.len() * RECORD_BYTES);
        for record in records {
            record.encode(&mut bytes);
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&temporary)
            .map_err(io_error("create the new index", &temporary))?;
        file.write_all(&bytes)
            .map_err(io_error("write the new index", &temporary))?;
        file.sync_data()
            .map_err(io_error("sync the new index", &temporary))?;
        std::fs::rename(&temporary, &self.path)
            .map_err(io_error("rename the new index", &self.path))?;
        self.file = file;
        self.len = bytes.len() as u64;
        Ok(())
    }

    /// Every record as the file holds it now.
    pub(super) fn records(&self) -> Result<Vec<Record>, BlockLogError> {
        let bytes = std::fs::read(&self.path).map_err(io_error("read the index", &self.path))?;
        let body = bytes.get(HEADER_BYTES..).unwrap_or_default();
        Ok(body
            .chunks_exact(RECORD_BYTES)
            .map_while(Record::decode)
            .collect())
    }

    fn cut(&self) -> Result<(), BlockLogError> {
        self.file
            .set_len(self.len)
            .map_err(io_error("cut the index", &self.path))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), BlockLogError> {
        self.file
            .write_all_at(bytes, offset)
            .map_err(io_error("write the index", &self.path))
    }
}

fn header(magic: [u8; 4]) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    let mut fields = Vec::with_capacity(HEADER_BYTES);
    fields.extend_from_slice(&TAG);
    fields.extend_from_slice(&VERSION.to_le_bytes());
    fields.extend_from_slice(&magic);
    fields.extend_from_slice(&crc32fast::hash(&fields).to_le_bytes());
    for (to, from) in header.iter_mut().zip(fields) {
        *to = from;
    }
    header
}

/// Whether the header is whole; an error when it is whole and belongs to something else.
fn check_header(path: &Path, bytes: &[u8], magic: [u8; 4]) -> Result<bool, BlockLogError> {
    let Some((header, _)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(false);
    };
    let (fields, crc) = header.split_at(12);
    if crc32fast::hash(fields).to_le_bytes() != crc || !fields.starts_with(&TAG) {
        tracing::warn!(path = %path.display(), "the index is damaged and is built again from the data");
        return Ok(false);
    }
    let word = |at: usize| {
        <[u8; 4]>::try_from(fields.get(at..at + 4).unwrap_or_default()).unwrap_or_default()
    };
    let version = u32::from_le_bytes(word(4));
    if version > VERSION {
        return Err(BlockLogError::NewerFormat {
            path: path.to_owned(),
            found: version,
            known: VERSION,
        });
    }
    if word(8) != magic {
        return Err(BlockLogError::WrongNetwork {
            path: path.to_owned(),
            found: word(8),
            wanted: magic,
        });
    }
    Ok(true)
}
