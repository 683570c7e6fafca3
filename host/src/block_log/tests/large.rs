//! Payloads that come in pieces.

use super::super::{BlockLog, BlockLogError};
use super::*;

fn read(log: &BlockLog, hash: &BlockHash) -> Option<Vec<u8>> {
    let mut pieces = log.pieces(hash).unwrap()?;
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.next(7_000).unwrap() {
        bytes.extend(piece);
    }
    Some(bytes)
}

#[test]
fn a_payload_in_pieces_is_found_when_it_is_whole() {
    let dir = scratch_folder();
    let options = segments_of(50_000);
    let log = BlockLog::open(dir.path(), MAGIC, options.clone()).unwrap();
    assert!(log.append(&hash(1), 1, &[1; 10_000]).unwrap());
    let body: Vec<u8> = (0..100_000u32).map(|n| (n * 7) as u8).collect();
    let mut append = log.append_large(&hash(2), 2, 100_000).unwrap().unwrap();
    for piece in body.chunks(33_333) {
        append.write(piece).unwrap();
        assert!(!log.contains(&hash(2)));
    }
    append.commit().unwrap();
    assert_eq!(log.length_of(&hash(2)), Some(100_000));
    assert_eq!(read(&log, &hash(2)), Some(body.clone()));
    assert_eq!(log.get(&hash(2)).unwrap().as_deref(), Some(body.as_slice()));
    assert!(log.append_large(&hash(2), 2, 100_000).unwrap().is_none());
    assert!(log.append(&hash(3), 3, &[3; 100]).unwrap());
    log.sync().unwrap();
    drop(log);
    let log = BlockLog::open(dir.path(), MAGIC, options).unwrap();
    assert_eq!(read(&log, &hash(2)), Some(body));
    assert_eq!(read(&log, &hash(3)), Some(vec![3; 100]));
    assert_eq!(log.len(), 3);
}

#[test]
fn a_payload_that_is_not_whole_is_cut_off_again() {
    let dir = scratch_folder();
    let log = BlockLog::open(dir.path(), MAGIC, segments_of(1 << 20)).unwrap();
    assert!(log.append(&hash(1), 1, &[1; 500]).unwrap());
    let length = || {
        let path = &segments(dir.path(), "blk")[0];
        std::fs::metadata(path).unwrap().len()
    };
    let before = length();
    let mut append = log.append_large(&hash(2), 2, 5_000).unwrap().unwrap();
    append.write(&[2; 4_000]).unwrap();
    assert!(length() > before);
    assert!(matches!(
        append.write(&[2; 1_001]),
        Err(BlockLogError::TooLarge { .. })
    ));
    drop(append);
    assert_eq!(length(), before);

    // Not all came.
    let append = log.append_large(&hash(2), 2, 5_000).unwrap().unwrap();
    assert!(matches!(append.commit(), Err(BlockLogError::Interrupted)));
    assert_eq!(length(), before);

    // Another append takes its place.
    let mut append = log.append_large(&hash(2), 2, 5_000).unwrap().unwrap();
    append.write(&[2; 4_000]).unwrap();
    assert!(log.append(&hash(3), 3, &[3; 100]).unwrap());
    assert!(matches!(
        append.write(&[2; 1_000]),
        Err(BlockLogError::Interrupted)
    ));
    drop(append);
    assert_eq!(read(&log, &hash(3)), Some(vec![3; 100]));
    assert_eq!(length(), before + 108);
    assert!(!log.contains(&hash(2)));
}

#[test]
fn what_a_kill_left_of_a_payload_is_cut_off_at_the_start() {
    let dir = scratch_folder();
    let log = BlockLog::open(dir.path(), MAGIC, segments_of(1 << 20)).unwrap();
    assert!(log.append(&hash(1), 1, &[1; 500]).unwrap());
    log.sync().unwrap();
    let mut append = log.append_large(&hash(2), 2, 5_000).unwrap().unwrap();
    append.write(&[2; 4_000]).unwrap();
    // As a kill does: nothing is cut.
    std::mem::forget(append);
    drop(log);
    let log = BlockLog::open(dir.path(), MAGIC, segments_of(1 << 20)).unwrap();
    assert_eq!(log.len(), 1);
    assert!(log.append(&hash(3), 3, &[3; 100]).unwrap());
    assert_eq!(read(&log, &hash(3)), Some(vec![3; 100]));
}

#[test]
fn damage_shows_at_the_end_and_the_payload_is_forgotten() {
    let dir = scratch_folder();
    let log = BlockLog::open(dir.path(), MAGIC, segments_of(1 << 20)).unwrap();
    let mut append = log.append_large(&hash(2), 2, 20_000).unwrap().unwrap();
    append.write(&[2; 20_000]).unwrap();
    append.commit().unwrap();
    let path = &segments(dir.path(), "blk")[0];
    let mut bytes = std::fs::read(path).unwrap();
    bytes[15_000] ^= 1;
    std::fs::write(path, bytes).unwrap();
    let mut pieces = log.pieces(&hash(2)).unwrap().unwrap();
    let error = loop {
        match pieces.next(7_000) {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the damage was not seen"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, BlockLogError::Damaged { .. }), "{error}");
    assert!(!log.contains(&hash(2)));
}

#[test]
fn a_block_of_a_scratch_log_may_be_removed_while_it_is_made_durable() {
    let dir = tempfile::tempdir().unwrap();
    let log = BlockLog::scratch(dir.path().join("again"), MAGIC).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in 1..=30 {
                let mut large = log.append_large(&hash(number), number, 100).unwrap();
                large.as_mut().unwrap().write(&[1; 100]).unwrap();
                large.unwrap().commit().unwrap();
            }
        });
        // Each as soon as it is found, which is before it is durable.
        for number in 1..=30 {
            while !log.remove(&hash(number)).unwrap() {
                assert!(
                    !writer.is_finished() || log.contains(&hash(number)),
                    "block {number} is never written"
                );
            }
        }
    });
    assert!(log.is_empty());
    log.sync().unwrap();
}

#[test]
fn a_scratch_log_gives_the_room_of_each_block_back_and_begins_empty() {
    let dir = scratch_folder();
    let folder = dir.path().join("again");
    let on_disk = || -> u64 {
        let paths = segments(&folder, "blk").into_iter();
        paths.map(|path| path.metadata().unwrap().len()).sum()
    };
    let log = BlockLog::scratch(&folder, MAGIC).unwrap();
    let write = |number: u32, length: usize| {
        let mut large = log
            .append_large(&hash(number), number, length as u64)
            .unwrap()
            .unwrap();
        large.write(&vec![number as u8; length]).unwrap();
        large.commit().unwrap();
    };
    for number in 1..=3 {
        write(number, 10_000);
    }
    let all = on_disk();
    assert_eq!((log.len(), log.bytes()), (3, all));
    // One in the middle, which somebody reads; the last, and one after it.
    let mut reading = log.pieces(&hash(2)).unwrap().unwrap();
    assert!(log.remove(&hash(2)).unwrap());
    assert!(log.remove(&hash(3)).unwrap());
    assert!(!log.remove(&hash(3)).unwrap());
    assert_eq!(on_disk(), all / 3);
    assert_eq!((log.len(), log.bytes()), (1, all / 3));
    let mut read = 0;
    while let Some(bytes) = reading.next(3_000).unwrap() {
        assert!(bytes.iter().all(|byte| *byte == 2));
        read += bytes.len();
    }
    assert_eq!(read, 10_000);
    assert!(log.pieces(&hash(2)).unwrap().is_none());
    write(4, 10_000);
    assert_eq!(log.get(&hash(4)).unwrap().unwrap(), vec![4; 10_000]);
    assert_eq!(log.get(&hash(1)).unwrap().unwrap(), vec![1; 10_000]);
    log.sync().unwrap();
    assert_eq!(log.height_range(), Some((1, 4)));
    drop(log);

    let log = BlockLog::scratch(&folder, MAGIC).unwrap();
    assert!(log.is_empty() && on_disk() == 0);
}
