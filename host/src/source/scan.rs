//! One block file, from a position on: where the blocks are in it.
//!
//! A frame is magic (4 bytes), length (u32, little endian), block. Only the header of each block is read. Core makes room for
//! 16 MiB at a time, so the end of a file may hold zeros; after an unclean end it may also hold pieces of frames, behind which
//! whole ones follow.

use bitcoin::block::Header;
use bitcoin::hashes::Hash as _;

use crate::block_log::FrameAt;
use crate::block_log::core_folder::CoreFolder;
use crate::block_log::foreign::plausible;

const FRAME_HEADER: u64 = 8;
const HEAD: usize = FRAME_HEADER as usize + Header::SIZE;
/// How much is read at once in search of the next magic.
const SEARCH: usize = 1 << 20;

/// A block that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundBlock {
    /// Its hash, in internal byte order.
    pub hash: [u8; 32],
    /// Its header.
    pub header: Header,
    /// Where it lies.
    pub at: FrameAt,
}

/// How far a file was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A block, and where the next frame begins.
    Block(FoundBlock, u64),
    /// Nothing but what is not a frame: look again from here once the file has changed.
    End(u64),
}

/// The next block of a file of `bytes` bytes at or behind `from`.
///
/// # Errors
///
/// When the file cannot be read.
pub fn next_block(folder: &CoreFolder, file: u32, from: u64, bytes: u64) -> std::io::Result<Step> {
    let mut at = from;
    // The first place that is no frame: something may still be written there.
    let mut unclear = None;
    loop {
        if at + HEAD as u64 > bytes {
            return Ok(Step::End(unclear.unwrap_or(at)));
        }
        let mut head = [0; HEAD];
        folder.read_exact(file, at, &mut head)?;
        let (magic, rest) = head.split_first_chunk::<4>().unwrap_or((&[0; 4], &[]));
        let (length, header) = rest.split_first_chunk::<4>().unwrap_or((&[0; 4], &[]));
        let length = u32::from_le_bytes(*length);
        if *magic == folder.magic() && plausible(length) {
            let end = at + FRAME_HEADER + u64::from(length);
            let offset = u32::try_from(at + FRAME_HEADER);
            if let Ok(header_read) = bitcoin::consensus::deserialize::<Header>(header)
                && let Ok(offset) = offset
                && end <= bytes
                && claims_its_target(&header_read)
            {
                let found = FoundBlock {
                    hash: bitcoin::BlockHash::hash(header).to_byte_array(),
                    header: header_read,
                    at: FrameAt {
                        file,
                        offset,
                        length,
                    },
                };
                // Behind a frame that was cut, the next one begins too early: look for it inside.
                let next = match follows(folder, file, end, bytes)? {
                    true => end,
                    false => {
                        next_magic(folder, file, at + 1, bytes)?.map_or(end, |next| next.min(end))
                    }
                };
                return Ok(Step::Block(found, next));
            }
        }
        unclear = unclear.or(Some(at));
        match next_magic(folder, file, at + 1, bytes)? {
            Some(next) => at = next,
            None => return Ok(Step::End(unclear.unwrap_or(at))),
        }
    }
}

/// Whether what stands behind a frame may stand there: another one, room made in advance, or the end.
fn follows(folder: &CoreFolder, file: u32, end: u64, bytes: u64) -> std::io::Result<bool> {
    if end + 4 > bytes {
        return Ok(true);
    }
    let mut next = [0; 4];
    folder.read_exact(file, end, &mut next)?;
    Ok(next == folder.magic() || folder.is_blank(next, end))
}

/// Whether the header meets the target that it names: what only looks like a frame does not.
fn claims_its_target(header: &Header) -> bool {
    header.validate_pow(header.target()).is_ok()
}

/// Where the network's magic comes next.
fn next_magic(
    folder: &CoreFolder,
    file: u32,
    from: u64,
    bytes: u64,
) -> std::io::Result<Option<u64>> {
    let magic = folder.magic();
    let mut at = from;
    let mut buffer = vec![0; SEARCH];
    while at + HEAD as u64 <= bytes {
        let length = usize::try_from(bytes - at).map_or(SEARCH, |left| left.min(SEARCH));
        let Some(piece) = buffer.get_mut(..length) else {
            return Ok(None);
        };
        folder.read_exact(file, at, piece)?;
        if let Some(found) = piece.windows(4).position(|window| window == magic) {
            return Ok(Some(at + found as u64));
        }
        // The magic may lie across two pieces.
        at += length.saturating_sub(3).max(1) as u64;
    }
    Ok(None)
}
