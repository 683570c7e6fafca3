//! A snapshot of a plugin's state, from elsewhere.

use blockmill::snapshot::SnapshotError;
use blockmill::snapshot::format::{ChunkWriter, HEADER_BYTES, Header, SnapshotReader};
use sha2::{Digest as _, Sha256};

use super::Verdict;
use crate::{memory, shapes};

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// The first byte says whether checksums are put right, the rest is the file.
pub fn run(data: &[u8]) -> Verdict {
    let Some((flags, file)) = data.split_first() else {
        return Verdict::Refused;
    };
    let mut file = file.to_vec();
    if flags & 1 == 0 {
        put_hashes_right(&mut file);
    }
    // A chunk that is written is begun with room for a megabyte.
    memory::bounded((2 << 20) + 100 * data.len(), || match read(&file) {
        Ok((header, entries)) => {
            written_again(&header, &entries);
            for end in [file.len() - 1, file.len() - 32, HEADER_BYTES, 0] {
                assert!(read(&file[..end]).is_err(), "cut at {end}");
            }
            Verdict::Taken
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            Verdict::Refused
        }
    })
}

fn read(file: &[u8]) -> Result<(Header, Entries), SnapshotError> {
    let reader = SnapshotReader::open(file)?;
    let header = reader.header().clone();
    let mut entries = Vec::new();
    reader.entries(|key, value| {
        entries.push((key.to_vec(), value.to_vec()));
        Ok(())
    })?;
    assert_eq!(entries.len() as u64, header.entries);
    Ok((header, entries))
}

/// A file with the same header and entries, in chunks of our own, is read the same.
fn written_again(header: &Header, entries: &Entries) {
    let mut chunks = ChunkWriter::new(Vec::new());
    for (key, value) in entries {
        chunks.put(key, value).expect("written to memory");
    }
    let (body, count, state_hash) = chunks.finish().expect("written to memory");
    assert_eq!((count, state_hash), (header.entries, header.state_hash));
    let mut file = header.encode().to_vec();
    file.extend_from_slice(&body);
    file.extend_from_slice(&Sha256::digest(&file));
    let (header_again, entries_again) = read(&file).expect("it was written by us");
    assert_eq!((&header_again, &entries_again), (header, entries));
}

/// Counts and hashes what is in the chunks, and writes that where it is claimed: the CRC-32 of each chunk and of the header, the
/// state hash and number of entries, the trailer.
fn put_hashes_right(file: &mut [u8]) {
    let mut at = HEADER_BYTES;
    let mut state = Sha256::new();
    let mut count = 0u64;
    while let Some(chunk) = file.get_mut(at..).filter(|rest| rest.len() >= 12) {
        let length = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]) as usize;
        if chunk[..12] == [0; 12] {
            break;
        }
        let entries = u32::from_le_bytes([chunk[4], chunk[5], chunk[6], chunk[7]]);
        let Some(body) = chunk.get(12..).and_then(|rest| rest.get(..length)) else {
            return;
        };
        let crc = crc32fast::hash(body);
        state.update(body);
        count = count.wrapping_add(entries.into());
        chunk[8..12].copy_from_slice(&crc.to_le_bytes());
        at += 12 + length;
    }
    let Some(header) = file.get_mut(..HEADER_BYTES) else {
        return;
    };
    // Behind tag, version, magic, name, state version, component and cursor.
    let claims = 8 + 4 + 4 + 65 + 4 + 32 + 36;
    header[claims..claims + 8].copy_from_slice(&count.to_le_bytes());
    header[claims + 8..claims + 40].copy_from_slice(&state.finalize());
    shapes::put_crc_right(header);
    let end = at + 12;
    if file.len() >= end + 32 {
        let sum = Sha256::digest(&file[..end]);
        file[end..end + 32].copy_from_slice(&sum);
    }
}
