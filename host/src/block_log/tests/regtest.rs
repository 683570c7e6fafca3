//! The regtest chain of the test data.

use std::path::PathBuf;

use bitcoin::Block;

/// A file of the regtest test data, or `None`, said in one line, where the data is missing.
pub(crate) fn file(name: &str) -> Option<Vec<u8>> {
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut folders = vec![workspace.join("tests/data/regtest")];
    match std::env::var_os("BLOCKMILL_TEST_DATA") {
        Some(data) => folders.push(PathBuf::from(data).join("regtest")),
        None => folders.push(workspace.join("../shared/data/regtest")),
    }
    let found = folders
        .iter()
        .find_map(|folder| std::fs::read(folder.join(name)).ok());
    if found.is_none() {
        println!("skipped: no test data regtest/{name} (BLOCKMILL_TEST_DATA names its folder)");
    }
    found
}

/// The raw blocks of a file in `blk*.dat` framing.
pub(crate) fn frames(mut dat: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    while !dat.is_empty() {
        let (header, rest) = dat.split_at(8);
        let length = u32::from_le_bytes(header[4..].try_into().unwrap()) as usize;
        let (frame, rest) = rest.split_at(length);
        frames.push(frame);
        dat = rest;
    }
    frames
}

pub(crate) fn decode(raw: &[u8]) -> Block {
    bitcoin::consensus::deserialize(raw).unwrap()
}
