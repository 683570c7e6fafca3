#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod large;
mod recovery;
pub(crate) mod regtest;
mod use_of_it;

use std::path::{Path, PathBuf};

use super::{SegmentLogOptions, SpentLog};
use bitcoin::BlockHash;
use bitcoin::hashes::Hash as _;

const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];

/// In memory where the system has such a folder: most of these tests do nothing but start, sync and
/// start again.
fn scratch_folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    folder.unwrap()
}

fn segments_of(max_segment_bytes: u64) -> SegmentLogOptions {
    SegmentLogOptions { max_segment_bytes }
}

/// The hash of the `number`th made-up block.
fn hash(number: u32) -> BlockHash {
    let mut bytes = [0xab; 32];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    BlockHash::from_byte_array(bytes)
}

/// What is kept for it: of a length, and with bytes, of its own.
fn body(number: u32) -> Vec<u8> {
    (0..5 + number % 17)
        .map(|at| (number * 31 + at * 7) as u8)
        .collect()
}

fn append(log: &SpentLog, number: u32) {
    assert!(log.append(&hash(number), number, &body(number)).unwrap());
}

fn assert_holds(log: &SpentLog, numbers: impl IntoIterator<Item = u32>) {
    for number in numbers {
        let found = log.get(&hash(number)).unwrap();
        assert_eq!(
            found.as_deref(),
            Some(body(number).as_slice()),
            "block {number}"
        );
        assert_eq!(log.height_of(&hash(number)), Some(number));
    }
}

/// The data files of a log in order.
fn segments(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with(prefix) && name.ends_with(".dat")
        })
        .collect();
    paths.sort();
    paths
}
