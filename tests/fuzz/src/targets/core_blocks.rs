//! Bitcoin Core's block files, XORed with a key or not.

use blockmill::block_log::core_folder::CoreFolder;
use blockmill::source::scan::{FoundBlock, Step, next_block};

use super::Verdict;
use crate::{Input, memory, shapes};

/// Eight bytes of key, then the file as it is without it.
pub fn run(data: &[u8]) -> Verdict {
    let mut input = Input::new(data);
    let key = input.take(8);
    let bytes = input.rest();
    // A megabyte is read at once in search of the next magic.
    memory::bounded((4 << 20) + 64 * data.len(), || {
        let Some(plain) = scan(bytes, None) else {
            return Verdict::Refused;
        };
        let mut end = 0;
        for block in &plain {
            let (offset, length) = (block.at.offset as usize, block.at.length as usize);
            assert!(offset >= end, "found twice, or out of order");
            end = offset + 1;
            let raw = &bytes[offset..offset + length];
            assert_eq!(bytes[offset - 8..offset - 4], shapes::MAGIC);
            assert!(raw.starts_with(&bitcoin::consensus::serialize(&block.header)));
            assert!(block.header.target().is_met_by(block.header.block_hash()));
        }
        if key.len() == 8 && !looks_blank(bytes, key) {
            assert_eq!(
                scan(bytes, Some(key)).as_ref(),
                Some(&plain),
                "through a key"
            );
        }
        Verdict::taken(!plain.is_empty())
    })
}

/// Whether bytes of the file are, through the key, those of room that was made on the disk: no block begins there.
fn looks_blank(bytes: &[u8], key: &[u8]) -> bool {
    bytes.windows(4).enumerate().any(|(at, window)| {
        let mask = key.iter().cycle().skip(at % 8);
        window.iter().eq(mask.take(4))
    })
}

/// The blocks of a file; none when the folder is not of this network.
fn scan(bytes: &[u8], key: Option<&[u8]>) -> Option<Vec<FoundBlock>> {
    let path = shapes::empty_folder("blocks");
    let mut file = bytes.to_vec();
    if let Some(key) = key {
        std::fs::write(path.join("xor.dat"), key).expect("a file");
        let mask = key.iter().cycle();
        file.iter_mut()
            .zip(mask)
            .for_each(|(byte, key)| *byte ^= key);
    }
    std::fs::write(path.join("blk00000.dat"), &file).expect("a file");
    let folder = CoreFolder::open(&path, shapes::MAGIC).ok()?;
    let (mut at, mut found) = (0, Vec::new());
    loop {
        match next_block(&folder, 0, at, bytes.len() as u64).expect("it can be read") {
            Step::Block(block, next) => {
                assert!(next > at && next <= bytes.len() as u64, "it gets on");
                found.push(block);
                at = next;
            }
            Step::End(end) => {
                assert!(end >= at || bytes.is_empty());
                return Some(found);
            }
        }
    }
}
