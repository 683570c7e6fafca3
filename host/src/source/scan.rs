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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;
    use bitcoin::Network;
    use bitcoin::constants::genesis_block;

    const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];
    const KEY: [u8; 8] = [0xa1, 0, 0x17, 0xff, 5, 6, 7, 0x80];

    fn frame() -> Vec<u8> {
        let block = bitcoin::consensus::serialize(&genesis_block(Network::Regtest));
        let mut frame = MAGIC.to_vec();
        frame.extend_from_slice(&(block.len() as u32).to_le_bytes());
        frame.extend_from_slice(&block);
        frame
    }

    /// Where the blocks begin in a file of these bytes, kept under a key, and where it is looked at again.
    fn scan(bytes: &[u8], key: [u8; 8]) -> (Vec<u64>, u64) {
        let dir = tempfile::tempdir().unwrap();
        let masked: Vec<u8> = bytes
            .iter()
            .enumerate()
            .map(|(at, byte)| byte ^ key[at % 8])
            .collect();
        std::fs::write(dir.path().join("blk00000.dat"), masked).unwrap();
        std::fs::write(dir.path().join("xor.dat"), key).unwrap();
        let folder = CoreFolder::open(dir.path(), MAGIC).unwrap();
        let (mut at, mut found) = (0, Vec::new());
        loop {
            match next_block(&folder, 0, at, bytes.len() as u64).unwrap() {
                Step::Block(block, next) => {
                    assert!(next > at, "it gets on");
                    found.push(u64::from(block.at.offset) - 8);
                    at = next;
                }
                Step::End(end) => return (found, end),
            }
        }
    }

    #[test]
    fn frames_are_found_through_any_key_up_to_the_room_made_in_advance() {
        let frame = frame();
        let length = frame.len() as u64;
        let bytes = [frame.clone(), frame.clone(), vec![0; 5_000]].concat();
        for key in [[0; 8], KEY] {
            assert_eq!(scan(&bytes, key), (vec![0, length], 2 * length));
        }
    }

    #[test]
    fn a_file_that_ends_anywhere_has_the_blocks_that_are_whole() {
        let frame = frame();
        let length = frame.len();
        let bytes = [frame.clone(), frame].concat();
        for end in length..2 * length {
            assert_eq!(scan(&bytes[..end], KEY), (vec![0], length as u64), "{end}");
        }
    }

    #[test]
    fn what_follows_a_frame_that_was_cut_is_found() {
        let frame = frame();
        let cut = frame[..200].to_vec();
        let bytes = [frame.clone(), cut, frame.clone(), frame.clone()].concat();
        let first = frame.len() as u64;
        let (found, end) = scan(&bytes, KEY);
        // That of the cut one is tried and found spoiled by whoever reads it.
        assert_eq!(found, [0, first, first + 200, 2 * first + 200]);
        assert_eq!(end, bytes.len() as u64);
    }

    #[test]
    fn rubbish_between_frames_is_passed_over_and_looked_at_again() {
        let frame = frame();
        let length = frame.len() as u64;
        let mut rubbish = vec![0x55; 3_000];
        // A magic that begins nothing.
        rubbish[100..104].copy_from_slice(&MAGIC);
        let bytes = [frame.clone(), rubbish.clone(), frame, rubbish].concat();
        let (found, end) = scan(&bytes, [0; 8]);
        assert_eq!(found, [0, length + 3_000]);
        assert_eq!(end, 2 * length + 3_000);
    }
}
