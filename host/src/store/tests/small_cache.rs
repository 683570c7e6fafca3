//! A cache far smaller than the state costs kilobytes a lookup and a change, not megabytes.
//!
//! With the engine's default layout each table's filter and index are one block each. Such a block did not fit into a shard
//! of a small cache, so that each lookup read both anew, and a sync with 16 MB took twenty times as long as with 256 MB.

use std::path::Path;
use std::process::Command;

use super::cursor;
use crate::store::{Keys, StateStore, ValueColumn};

const FOLDER: &str = "BLOCKMILL_TEST_SMALL_CACHE";
/// The cache of blocks read from disk: far below the keys' filter alone, and the more so its shards.
const CACHE: u64 = 256 << 10;
/// Keys that are there before.
const THERE: u64 = 250_000;
/// Blocks, and after how many of them there is a flush.
const BLOCKS: u32 = 40;
const FLUSH: u32 = 2;
/// Keys that a block takes of those before it, and keys that it adds.
const TAKES: u64 = 600;
const PUTS: u64 = 900;

/// Bytes read a key taken, compactions' reads included.
const MAX_READ: u64 = 32 << 10;
/// Bytes written a key changed, compactions included.
const MAX_WRITTEN: u64 = 1_600;

/// A key of 36 bytes that lies anywhere among the others.
fn key(number: u64) -> [u8; 36] {
    let mut key = [0; 36];
    let mut word = number;
    for bytes in key[..32].chunks_exact_mut(8) {
        // The finalizer of SplitMix64: every number has another image.
        word = word.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bytes.copy_from_slice(&(mixed ^ (mixed >> 31)).to_be_bytes());
    }
    key
}

/// Bytes that this process has asked the system to read and to write.
fn transferred() -> (u64, u64) {
    let io = std::fs::read_to_string("/proc/self/io").unwrap();
    let field = |name: &str| {
        let line = io.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().parse().unwrap()
    };
    (field("rchar:"), field("wchar:"))
}

/// The process that is watched: its reads and writes are its own. Without a folder in the environment this is no test.
#[test]
fn worker() {
    let Some(dir) = std::env::var_os(FOLDER) else {
        return;
    };
    let store = StateStore::open(Path::new(&dir), CACHE).unwrap();
    let mut lane = store.lane("coins").unwrap();
    // As in a long sync, where all flushes but the last few are large.
    lane.set_bulk_changes(0);
    lane.begin_block();
    for number in 0..THERE {
        lane.put(&key(number), &[7; 30]).unwrap();
    }
    lane.commit_block(cursor(0, 0), false).unwrap();
    lane.flush().unwrap();

    let before = transferred();
    let mut next = THERE;
    for height in 1..=BLOCKS {
        // Spread over all that was there: never the same twice.
        let first = u64::from(height - 1) * TAKES;
        let taken: Vec<u8> = (first..first + TAKES)
            .flat_map(|number| key(number * 10_007 % THERE))
            .collect();
        let taken = Keys::fixed(36, &taken);
        lane.prefetch(taken).unwrap();
        lane.begin_block();
        let mut values = ValueColumn::default();
        lane.take_many(taken, &mut values).unwrap();
        for number in next..next + PUTS {
            lane.put(&key(number), &[8; 30]).unwrap();
        }
        next += PUTS;
        lane.commit_block(cursor(height, 0), false).unwrap();
        if height.is_multiple_of(FLUSH) {
            lane.flush().unwrap();
        }
    }
    drop(lane);
    drop(store);
    let after = transferred();
    println!(
        "\ntransferred {} {}",
        after.0 - before.0,
        after.1 - before.1
    );

    let store = StateStore::open(Path::new(&dir), CACHE).unwrap();
    let entries = store.snapshot("coins").unwrap().unwrap();
    let (puts, takes) = (u64::from(BLOCKS) * PUTS, u64::from(BLOCKS) * TAKES);
    assert_eq!(
        entries.iter_prefix(&[], None).count() as u64,
        THERE + puts - takes
    );
}

#[test]
fn with_a_cache_far_smaller_than_the_state_a_lookup_reads_kilobytes_and_a_change_writes_little_more()
 {
    if !Path::new("/proc/self/io").exists() {
        println!("skipped: the system does not count what a process reads");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "store::tests::small_cache::worker",
            "--nocapture",
        ])
        .env(FOLDER, dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("transferred "));
    let (read, written) = line.unwrap().split_once(' ').unwrap();
    let (read, written): (u64, u64) = (read.parse().unwrap(), written.parse().unwrap());
    let lookups = u64::from(BLOCKS) * TAKES;
    let changes = u64::from(BLOCKS) * (TAKES + PUTS);
    println!(
        "{} bytes read a lookup, {} bytes written a change",
        read / lookups,
        written / changes
    );
    assert!(
        read / lookups <= MAX_READ,
        "{} bytes read a lookup",
        read / lookups
    );
    assert!(
        written / changes <= MAX_WRITTEN,
        "{} bytes written a change",
        written / changes
    );
}
