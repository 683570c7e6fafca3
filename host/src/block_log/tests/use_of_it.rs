//! A log that nothing bad happens to, and a full disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::super::{BlockLog, BlockLogError, SegmentLogOptions, SpentLog};
use super::*;

#[test]
fn the_segments_put_together_are_the_file_that_core_would_have_written() {
    let Some(dat) = regtest::file("main.dat") else {
        return;
    };
    let dir = scratch_folder();
    let log = BlockLog::open(dir.path(), MAGIC, segments_of(300_000)).unwrap();
    let frames = regtest::frames(&dat);
    for (at, raw) in frames.iter().enumerate() {
        let hash = regtest::decode(raw).block_hash();
        assert!(log.append(&hash, at as u32, raw).unwrap());
        assert_eq!(
            log.get(&hash).unwrap().as_deref(),
            Some(*raw),
            "seen at once"
        );
    }
    log.sync().unwrap();

    let paths = segments(dir.path(), "blk");
    assert!(paths.len() > 5, "several segments");
    let written: Vec<u8> = paths
        .iter()
        .flat_map(|path| std::fs::read(path).unwrap())
        .collect();
    assert!(written == dat);
    assert_eq!(log.bytes(), dat.len() as u64);
    assert_eq!(log.height_range(), Some((0, 130)));

    drop(log);
    let log = BlockLog::open(dir.path(), MAGIC, segments_of(300_000)).unwrap();
    assert_eq!(log.len(), 131);
    for (at, raw) in frames.iter().enumerate() {
        let hash = regtest::decode(raw).block_hash();
        assert_eq!(log.get(&hash).unwrap().as_deref(), Some(*raw));
        assert_eq!(log.height_of(&hash), Some(at as u32));
    }
}

#[test]
fn a_second_append_of_a_hash_writes_nothing() {
    let dir = scratch_folder();
    let log = SpentLog::open(dir.path(), MAGIC, SegmentLogOptions::default()).unwrap();
    append(&log, 1);
    let bytes = log.bytes();
    assert!(!log.append(&hash(1), 1, b"other bytes").unwrap());
    assert_eq!(log.bytes(), bytes);
    assert_holds(&log, [1]);
}

#[test]
fn a_file_that_was_moved_and_linked_to_is_as_long_as_it_is_there() {
    let (dir, other) = (scratch_folder(), scratch_folder());
    {
        let log = SpentLog::open(dir.path(), MAGIC, SegmentLogOptions::default()).unwrap();
        (0..40).for_each(|number| append(&log, number));
        log.sync().unwrap();
    }
    let path = segments(dir.path(), "spent").remove(0);
    let moved = other.path().join("moved");
    std::fs::copy(&path, &moved).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&moved, &path).unwrap();
    let log = SpentLog::open(dir.path(), MAGIC, SegmentLogOptions::default()).unwrap();
    assert_holds(&log, 0..40);
    append(&log, 40);
    assert_eq!(log.bytes(), moved.metadata().unwrap().len());
    drop(log);
    // The disk that it is on is not there: nothing is made in its place.
    std::fs::remove_file(&moved).unwrap();
    let refused = SpentLog::open(dir.path(), MAGIC, SegmentLogOptions::default()).unwrap_err();
    assert!(refused.to_string().contains("look at"), "{refused}");
    assert!(!moved.exists());
}

#[test]
fn a_body_may_be_empty_and_both_logs_share_a_folder() {
    let dir = scratch_folder();
    let spent = SpentLog::open(dir.path(), MAGIC, SegmentLogOptions::default()).unwrap();
    let blocks = BlockLog::open(dir.path(), MAGIC, SegmentLogOptions::default()).unwrap();
    assert!(spent.append(&hash(7), 7, b"").unwrap());
    assert_eq!(spent.get(&hash(7)).unwrap().unwrap().len(), 0);
    assert!(!blocks.contains(&hash(7)));
    assert_eq!(blocks.get(&hash(7)).unwrap(), None);
    drop(spent);
    let spent = SpentLog::open(dir.path(), MAGIC, SegmentLogOptions::default()).unwrap();
    assert_eq!(spent.get(&hash(7)).unwrap().unwrap().len(), 0);
    assert!(blocks.is_empty());
}

#[test]
fn a_frame_larger_than_a_segment_gets_its_own() {
    let dir = scratch_folder();
    let log = SpentLog::open(dir.path(), MAGIC, segments_of(1_000)).unwrap();
    append(&log, 1);
    let large = vec![9; 5_000];
    log.append(&hash(2), 2, &large).unwrap();
    append(&log, 3);
    drop(log);
    let log = SpentLog::open(dir.path(), MAGIC, segments_of(1_000)).unwrap();
    assert_eq!(segments(dir.path(), "spent").len(), 3);
    assert_eq!(
        log.get(&hash(2)).unwrap().as_deref(),
        Some(large.as_slice())
    );
    assert_holds(&log, [1, 3]);
}

#[test]
fn a_full_disk_is_an_error_that_leaves_the_log_usable() {
    let dir = scratch_folder();
    let log = SpentLog::open(dir.path(), MAGIC, SegmentLogOptions::default()).unwrap();
    let mut expected = 0;
    let mut held = Vec::new();
    // Every length of a short write, up to a whole frame.
    for room in 0..120 {
        let number = 100 + room;
        log.0.limit_disk(Some(room as usize));
        match log.append(&hash(number), number, &body(number)) {
            Ok(wrote) => {
                assert!(wrote);
                held.push(number);
                expected += 48 + body(number).len() as u64;
            }
            Err(BlockLogError::Io { source, .. }) => {
                assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
                assert!(!log.contains(&hash(number)));
            }
            Err(other) => panic!("{other}"),
        }
        log.0.limit_disk(None);
        assert_eq!(log.bytes(), expected);
        append(&log, room);
        held.push(room);
        expected += 48 + body(room).len() as u64;
    }
    assert!(
        held.len() > 120 && held.len() < 240,
        "some failed, some did not"
    );
    assert_holds(&log, held.iter().copied());
    log.sync().unwrap();
    drop(log);
    let log = SpentLog::open(dir.path(), MAGIC, SegmentLogOptions::default()).unwrap();
    assert_eq!((log.len(), log.bytes()), (held.len(), expected));
    assert_holds(&log, held);
}

#[test]
fn pruning_takes_whole_oldest_segments_and_nothing_that_is_needed() {
    let dir = scratch_folder();
    let log = SpentLog::open(dir.path(), MAGIC, segments_of(300)).unwrap();
    for number in 0..60 {
        append(&log, number);
    }
    let before = log.bytes();
    assert_eq!(
        log.prune(before, 1_000).unwrap(),
        super::super::Pruned {
            lowest_height: Some(0),
            ..Default::default()
        }
    );

    // A lane still needs 10.
    let pruned = log.prune(0, 10).unwrap();
    let lowest = pruned.lowest_height.unwrap();
    assert!(
        pruned.segments > 0 && lowest > 0 && lowest <= 10,
        "{pruned:?}"
    );
    assert_eq!(pruned.blocks, u64::from(lowest));
    assert_eq!(before - log.bytes(), pruned.bytes);
    assert_holds(&log, lowest..60);
    for number in 0..lowest {
        assert_eq!(log.get(&hash(number)).unwrap(), None);
        assert!(!log.contains(&hash(number)));
    }
    assert_eq!(log.height_range(), Some((lowest, 59)));
    assert_eq!(log.contiguous_from(59), Some(lowest));
    assert_eq!(log.contiguous_from(60), None);

    // Nothing needs anything: as little as may be stays, down to the newest segment.
    let pruned = log.prune(1_000, u32::MAX).unwrap();
    assert!(log.bytes() <= 1_000 && log.bytes() > 700, "{}", log.bytes());
    let lowest = pruned.lowest_height.unwrap();
    let files = segments(dir.path(), "spent");
    let on_disk: u64 = files
        .iter()
        .map(|path| path.metadata().unwrap().len())
        .sum();
    assert_eq!(on_disk, log.bytes());
    log.prune(0, u32::MAX).unwrap();
    assert_eq!(segments(dir.path(), "spent").len(), 1);

    // Pruned blocks may come back, and the log goes on after a restart.
    append(&log, 3);
    drop(log);
    let log = SpentLog::open(dir.path(), MAGIC, segments_of(300)).unwrap();
    assert_holds(&log, [3, 59]);
    assert!(!log.contains(&hash(lowest - 1)));
    append(&log, 60);
    assert_holds(&log, [3, 59, 60]);
}

#[test]
fn side_branches_share_heights() {
    let dir = scratch_folder();
    let log = SpentLog::open(dir.path(), MAGIC, segments_of(150)).unwrap();
    for number in 0..10 {
        log.append(&hash(number), number, b"main").unwrap();
    }
    for number in 5..12 {
        log.append(&hash(100 + number), number, b"side").unwrap();
    }
    assert_eq!(log.contiguous_from(11), Some(0));
    log.append(&hash(200), 13, b"gap").unwrap();
    assert_eq!(log.contiguous_from(13), Some(13));
    assert_eq!(log.contiguous_from(12), None);
    assert_eq!(log.height_range(), Some((0, 13)));
    // The main branch's 5 goes, the side branch's stays.
    log.prune(48 * 9, 0).unwrap();
    assert!(log.contains(&hash(0)), "never at or above what is needed");
    log.prune(48 * 9, 12).unwrap();
    assert!(!log.contains(&hash(5)));
    assert!(log.contains(&hash(105)));
    assert_eq!(log.contiguous_from(11), Some(5));
}

#[test]
fn readers_read_while_blocks_are_appended_synced_and_pruned() {
    let dir = scratch_folder();
    let log = Arc::new(SpentLog::open(dir.path(), MAGIC, segments_of(2_000)).unwrap());
    let appended = Arc::new(AtomicU32::new(0));
    std::thread::scope(|scope| {
        for seed in 0..3u32 {
            let (log, appended) = (Arc::clone(&log), Arc::clone(&appended));
            scope.spawn(move || {
                let mut at = seed;
                let mut read = 0;
                loop {
                    let count = appended.load(Ordering::Acquire);
                    if count > 0 {
                        at = at.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        let number = (at >> 8) % count;
                        // Pruned, or whole: never an error, never other bytes.
                        match log.get(&hash(number)).unwrap() {
                            Some(found) => assert_eq!(found, body(number)),
                            None => assert!(number < log.height_range().unwrap().0),
                        }
                        read += 1;
                    }
                    if count == 3_000 && read > 1_000 {
                        return;
                    }
                }
            });
        }
        for number in 0..3_000 {
            append(&log, number);
            appended.store(number + 1, Ordering::Release);
            if number % 100 == 99 {
                log.sync().unwrap();
            }
            if number % 500 == 499 {
                log.prune(60_000, number - 200).unwrap();
            }
        }
    });
    drop(log);
    let log = SpentLog::open(dir.path(), MAGIC, segments_of(2_000)).unwrap();
    assert_holds(&log, 2_800..3_000);
}

/// Prints what the figures in the documentation come from: `cargo test --release -- --ignored
/// --nocapture appending`.
#[test]
#[ignore = "a measurement"]
fn appending_364_mb_in_half_megabyte_blocks() {
    let dir = scratch_folder();
    let log = SpentLog::open(dir.path(), MAGIC, SegmentLogOptions::default()).unwrap();
    let block: Vec<u8> = (0..520_000u32)
        .map(|at| ((at.wrapping_mul(2_654_435_761)) >> 13) as u8)
        .collect();
    let cpu = || {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) as f64 / 100.0
    };
    let (start, before) = (std::time::Instant::now(), cpu());
    for number in 0..700 {
        log.append(&hash(number), number, &block).unwrap();
    }
    println!("append: {:?}, {:.2} s CPU", start.elapsed(), cpu() - before);
    let (start, before) = (std::time::Instant::now(), cpu());
    log.sync().unwrap();
    println!("sync: {:?}, {:.2} s CPU", start.elapsed(), cpu() - before);
    let (start, before) = (std::time::Instant::now(), cpu());
    for number in 0..700 {
        assert_eq!(log.get(&hash(number)).unwrap().unwrap().len(), block.len());
    }
    println!("read: {:?}, {:.2} s CPU", start.elapsed(), cpu() - before);
}

/// `cargo test --release -- --ignored --nocapture index_of`.
#[test]
#[ignore = "a measurement"]
fn the_index_of_900_000_blocks_in_memory() {
    let resident = || {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm
            .split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<usize>()
            .unwrap()
            * 4096
    };
    let dir = scratch_folder();
    let log = SpentLog::open(dir.path(), MAGIC, SegmentLogOptions::default()).unwrap();
    for number in 0..900_000 {
        append(&log, number);
    }
    log.sync().unwrap();
    drop(log);
    let before = resident();
    let start = std::time::Instant::now();
    let log = SpentLog::open(dir.path(), MAGIC, SegmentLogOptions::default()).unwrap();
    println!(
        "open: {:?}, {} blocks, resident +{} bytes",
        start.elapsed(),
        log.len(),
        resident().saturating_sub(before)
    );
}
