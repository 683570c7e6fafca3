//! Our own block log, and the log of what blocks spend, after whatever became of their files.

use std::path::Path;

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use blockmill::block_log::{
    BlockFrames, BlockLogError, Frames, SegmentLog, SegmentLogOptions, SpentFrames,
};

use super::Verdict;
use crate::{Input, memory, shapes};

/// Flags, the index and two segments, each with its length before it but the last.
pub fn run(data: &[u8]) -> Verdict {
    let mut input = Input::new(data);
    let flags = input.byte();
    let mut index = input.chunk().to_vec();
    let older = input.chunk();
    let newest = input.rest();
    if flags & 2 == 0 {
        put_records_right(&mut index);
    }
    let folder = shapes::empty_folder("log");
    let files = [
        (".index", index.as_slice()),
        ("00000.dat", older),
        ("00001.dat", newest),
    ];
    memory::bounded(memory::THE_CRATE + 64 * data.len(), || match flags & 1 {
        0 => recover::<BlockFrames>(&folder, &files),
        _ => recover::<SpentFrames>(&folder, &files),
    })
}

fn recover<F: Frames>(folder: &Path, files: &[(&str, &[u8])]) -> Verdict {
    for (name, bytes) in files.iter().filter(|(_, bytes)| !bytes.is_empty()) {
        let path = folder.join(format!("{}{name}", F::PREFIX));
        std::fs::write(path, bytes).expect("a file");
    }
    let open = || SegmentLog::<F>::open(folder, shapes::MAGIC, SegmentLogOptions::default());
    let log = match open() {
        Ok(log) => log,
        Err(BlockLogError::Io { .. }) => panic!("the files cannot be read"),
        Err(_) => return Verdict::Refused,
    };
    let (held, bytes, range) = (log.len(), log.bytes(), log.height_range());
    // A hash that no frame of an input has by chance.
    let hash = BlockHash::from_byte_array([0xb1; 32]).to_byte_array();
    let body = b"appended after the recovery";
    let known = log.contains(&hash);
    let appended = log.append(&hash, 77, body).expect("it stays usable");
    assert_eq!(appended, !known);
    if appended {
        assert_eq!(
            log.get(&hash).expect("readable").as_deref(),
            Some(&body[..])
        );
        assert_eq!(log.height_of(&hash), Some(77));
        assert!(log.bytes() > bytes);
    }
    log.sync().expect("room for it");
    drop(log);

    let again = open().expect("it was repaired");
    assert_eq!(again.len(), held + usize::from(appended), "{range:?}");
    if appended {
        assert_eq!(
            again.get(&hash).expect("readable").as_deref(),
            Some(&body[..])
        );
    }
    Verdict::taken(held > 0)
}

/// Puts the CRC-32 of the header and of each record right.
fn put_records_right(index: &mut [u8]) {
    let Some((header, records)) = index.split_at_mut_checked(16) else {
        return;
    };
    shapes::put_crc_right(header);
    for record in records.chunks_exact_mut(64) {
        shapes::put_crc_right(record);
    }
}
