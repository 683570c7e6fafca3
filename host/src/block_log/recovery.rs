//! Opening a log: what the files hold, what is trusted, what is scanned again and what is cut.
//!
//! 1. Index records are read up to the first torn one.
//! 2. Records are dropped from the first one on that does not lie behind the one before it. One that points into a segment
//!    that is gone, or past its end, is dropped. The newest records are read back, and dropped as long as the data under
//!    them is damaged.
//! 3. What lies beyond the newest record is scanned, frame by frame. A frame whose bytes prove
//!    themselves is indexed. In the newest segment everything from the first bad frame on is cut;
//!    in an older one it is left as a hole, because what follows it in later segments is whole.
//!
//! Each step can be killed and done again.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use bitcoin::Network;
use bitcoin::p2p::Magic;

use super::catalog::Catalog;
use super::error::{BlockLogError, io_error};
use super::frames::Frames;
use super::index_file::Record;
use super::segment_log::{FRAME_HEADER_BYTES, segment_path};

/// The segments in `dir` by number, with their lengths in bytes.
pub(super) fn list_segments(dir: &Path, prefix: &str) -> Result<BTreeMap<u32, u64>, BlockLogError> {
    let mut segments = BTreeMap::new();
    for entry in std::fs::read_dir(dir).map_err(io_error("list the folder", dir))? {
        let entry = entry.map_err(io_error("list the folder", dir))?;
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix(prefix)?.strip_suffix(".dat"))
            .filter(|digits| {
                digits.len() >= 5 && digits.bytes().all(|digit| digit.is_ascii_digit())
            })
            .and_then(|digits| digits.parse().ok());
        if let Some(number) = number {
            // Of the file itself where this is a link to it: as long as the link it would be cut.
            let path = entry.path();
            let file = std::fs::metadata(&path).map_err(io_error("look at", &path))?;
            segments.insert(number, file.len());
        }
    }
    Ok(segments)
}

/// Refuses a log that begins with another network's magic: cutting it as torn would destroy it.
pub(super) fn check_network(
    dir: &Path,
    prefix: &str,
    segments: &BTreeMap<u32, u64>,
    magic: [u8; 4],
) -> Result<(), BlockLogError> {
    let Some((&oldest, _)) = segments
        .iter()
        .find(|(_, length)| **length >= FRAME_HEADER_BYTES)
    else {
        return Ok(());
    };
    let path = segment_path(dir, prefix, oldest);
    let file = File::open(&path).map_err(io_error("open", &path))?;
    let mut found = [0; 4];
    file.read_exact_at(&mut found, 0)
        .map_err(io_error("read", &path))?;
    if found != magic && Network::from_magic(Magic::from_bytes(found)).is_some() {
        return Err(BlockLogError::WrongNetwork {
            path,
            found,
            wanted: magic,
        });
    }
    Ok(())
}

/// Keeps the records whose data is there, and answers how many were dropped.
pub(super) fn drop_dangling(
    dir: &Path,
    prefix: &str,
    segments: &BTreeMap<u32, u64>,
    records: &mut Vec<Record>,
) -> Result<usize, BlockLogError> {
    let before = records.len();
    let in_order = records
        .array_windows()
        .take_while(|[one, next]| one.is_before(next))
        .count();
    // What follows is not ours: it is scanned for as if it had no records.
    records.truncate(in_order + 1);
    records.retain(|record| {
        record.offset >= FRAME_HEADER_BYTES
            && segments
                .get(&record.segment)
                .is_some_and(|length| record.end() <= *length)
    });
    while let Some(last) = records.last() {
        let path = segment_path(dir, prefix, last.segment);
        let file = File::open(&path).map_err(io_error("open", &path))?;
        let crc = checksum(&file, last.offset, last.length).map_err(io_error("read", &path))?;
        if crc == last.crc {
            break;
        }
        records.pop();
    }
    Ok(before - records.len())
}

/// Indexes the frames beyond the newest record, cuts the newest segment at its first bad frame, and
/// gives the records found.
pub(super) fn scan_tail<F: Frames>(
    dir: &Path,
    magic: [u8; 4],
    segments: &mut BTreeMap<u32, u64>,
    catalog: &mut Catalog,
    newest: Option<&Record>,
) -> Result<Vec<Record>, BlockLogError> {
    let (first, mut offset) = newest.map_or((0, 0), |record| (record.segment, record.end()));
    let Some(last) = segments.keys().next_back().copied() else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for (&segment, length) in segments.range_mut(first..) {
        if segment != first {
            offset = 0;
        }
        let path = segment_path(dir, F::PREFIX, segment);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(io_error("open", &path))?;
        while offset < *length {
            let frame =
                read_frame(&file, magic, offset, *length).map_err(io_error("scan", &path))?;
            let record = match frame {
                Frame::Whole(payload) => {
                    F::key(&payload, &|hash| catalog.height_of(hash)).map(|(hash, height)| Record {
                        hash,
                        height,
                        segment,
                        offset: offset + FRAME_HEADER_BYTES,
                        length: payload.len() as u32,
                        crc: crc32fast::hash(&payload),
                    })
                }
                Frame::Torn => None,
            };
            let Some(record) = record else { break };
            offset = record.end();
            catalog.insert(&record);
            found.push(record);
        }
        if offset < *length {
            let torn = *length - offset;
            if segment == last {
                file.set_len(offset).map_err(io_error("cut", &path))?;
                *length = offset;
                tracing::warn!(path = %path.display(), offset, cut = torn, "cut a torn tail");
            } else {
                tracing::warn!(path = %path.display(), offset, bytes = torn, "skipped damaged data");
            }
        }
    }
    Ok(found)
}

/// `length` bytes at `offset`.
pub(super) fn read_payload(file: &File, offset: u64, length: u32) -> std::io::Result<Vec<u8>> {
    let mut payload = vec![0; length as usize];
    file.read_exact_at(&mut payload, offset)?;
    Ok(payload)
}

/// The CRC-32 of `length` bytes at `offset`, read in pieces.
fn checksum(file: &File, offset: u64, length: u32) -> std::io::Result<u32> {
    let mut crc = crc32fast::Hasher::new();
    let mut buffer = vec![0; (length as usize).min(1 << 20)];
    let (mut at, mut left) = (offset, length as usize);
    while left > 0 {
        let count = left.min(buffer.len());
        let Some(piece) = buffer.get_mut(..count) else {
            break;
        };
        file.read_exact_at(piece, at)?;
        crc.update(piece);
        at += count as u64;
        left -= count;
    }
    Ok(crc.finalize())
}

/// A payload beyond this is indexed when it is written, and held by nobody: without a record it is torn.
const LONGEST_SCANNED: u32 = 256 << 20;

enum Frame {
    Whole(Vec<u8>),
    Torn,
}

/// Reads the frame at `offset` of a segment of `length` bytes.
fn read_frame(file: &File, magic: [u8; 4], offset: u64, length: u64) -> std::io::Result<Frame> {
    let room = length.saturating_sub(offset);
    if room < FRAME_HEADER_BYTES {
        return Ok(Frame::Torn);
    }
    let mut header = [0; FRAME_HEADER_BYTES as usize];
    file.read_exact_at(&mut header, offset)?;
    let [a, b, c, d, size @ ..] = header;
    if [a, b, c, d] != magic {
        return Ok(Frame::Torn);
    }
    let size = u32::from_le_bytes(size);
    if u64::from(size) > room - FRAME_HEADER_BYTES || size > LONGEST_SCANNED {
        return Ok(Frame::Torn);
    }
    read_payload(file, offset + FRAME_HEADER_BYTES, size).map(Frame::Whole)
}
