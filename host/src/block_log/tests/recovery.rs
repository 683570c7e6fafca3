//! Kills: every place at which the files can end, and every byte that can be wrong.

use std::path::Path;

use super::super::{BlockLog, BlockLogError, SegmentLogOptions, SpentLog};
use super::*;
use proptest::prelude::*;

/// Bytes of the index: its header, and a record.
const INDEX_HEADER: usize = 16;
const INDEX_RECORD: usize = 64;

/// A folder's files as they were, to be put back.
struct Files(Vec<(PathBuf, Vec<u8>)>);

impl Files {
    fn of(dir: &Path) -> Self {
        let entries = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        Self(
            entries
                .map(|path| (path.clone(), std::fs::read(&path).unwrap()))
                .collect(),
        )
    }

    fn restore(&self, dir: &Path) {
        for entry in std::fs::read_dir(dir).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
        for (path, bytes) in &self.0 {
            std::fs::write(path, bytes).unwrap();
        }
    }
}

fn cut(path: &Path, length: usize) {
    std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(length as u64)
        .unwrap();
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x55;
    std::fs::write(path, bytes).unwrap();
}

/// Opens what is left, wants the first `whole` blocks, appends the rest again, and wants everything
/// after one more start.
fn assert_recovers(dir: &Path, whole: u32, all: u32, what: &str) {
    let log = SpentLog::open(dir, MAGIC, SegmentLogOptions::default()).unwrap();
    assert_holds(&log, 0..whole);
    assert_eq!(log.len(), whole as usize, "{what}");
    for number in whole..all + 1 {
        assert!(
            log.append(&hash(number), number, &body(number)).unwrap(),
            "{what}"
        );
    }
    log.sync().unwrap();
    drop(log);
    let log = SpentLog::open(dir, MAGIC, SegmentLogOptions::default()).unwrap();
    assert_holds(&log, 0..all + 1);
    assert_eq!(log.len(), all as usize + 1, "{what}");
    let bytes: u64 = (0..all + 1)
        .map(|number| 48 + body(number).len() as u64)
        .sum();
    assert_eq!(log.bytes(), bytes, "no waste: {what}");
}

/// A log of `count` blocks, all synced, and where each frame ends.
fn made_log(dir: &Path, count: u32) -> Vec<usize> {
    let log = SpentLog::open(dir, MAGIC, SegmentLogOptions::default()).unwrap();
    let mut ends = vec![0];
    for number in 0..count {
        append(&log, number);
        ends.push(log.bytes() as usize);
    }
    log.sync().unwrap();
    ends
}

/// How many whole frames there are in the first `length` bytes.
fn whole(ends: &[usize], length: usize) -> u32 {
    ends.iter().filter(|end| **end <= length).count() as u32 - 1
}

#[test]
fn data_cut_at_every_byte_loses_only_what_is_behind_the_cut() {
    let dir = scratch_folder();
    let ends = made_log(dir.path(), 8);
    let files = Files::of(dir.path());
    let data = dir.path().join("spent00000.dat");
    for length in 0..=ends[8] {
        files.restore(dir.path());
        cut(&data, length);
        assert_recovers(
            dir.path(),
            whole(&ends, length),
            8,
            &format!("data cut at {length}"),
        );
    }
}

#[test]
fn an_index_cut_at_every_byte_loses_nothing() {
    let dir = scratch_folder();
    made_log(dir.path(), 8);
    let files = Files::of(dir.path());
    let index = dir.path().join("spent.index");
    for length in 0..=INDEX_HEADER + 8 * INDEX_RECORD {
        files.restore(dir.path());
        cut(&index, length);
        assert_recovers(dir.path(), 8, 8, &format!("index cut at {length}"));
    }
    files.restore(dir.path());
    std::fs::remove_file(&index).unwrap();
    assert_recovers(dir.path(), 8, 8, "no index");
}

#[test]
fn both_cut_anywhere_leave_the_blocks_before_the_data_cut() {
    let dir = scratch_folder();
    let ends = made_log(dir.path(), 5);
    let files = Files::of(dir.path());
    for index_length in (0..=INDEX_HEADER + 5 * INDEX_RECORD).step_by(7) {
        for length in (ends[3]..=ends[5]).step_by(3) {
            files.restore(dir.path());
            cut(&dir.path().join("spent.index"), index_length);
            cut(&dir.path().join("spent00000.dat"), length);
            let what = format!("index cut at {index_length}, data at {length}");
            assert_recovers(dir.path(), whole(&ends, length), 5, &what);
        }
    }
}

#[test]
fn every_wrong_byte_of_an_index_loses_nothing() {
    let dir = scratch_folder();
    made_log(dir.path(), 4);
    let files = Files::of(dir.path());
    for at in 0..INDEX_HEADER + 4 * INDEX_RECORD {
        files.restore(dir.path());
        flip(&dir.path().join("spent.index"), at);
        assert_recovers(dir.path(), 4, 4, &format!("index wrong at {at}"));
    }
}

#[test]
fn every_wrong_byte_in_the_last_frames_loses_only_from_there_on() {
    let dir = scratch_folder();
    let ends = made_log(dir.path(), 5);
    let files = Files::of(dir.path());
    let data = dir.path().join("spent00000.dat");
    for at in ends[3]..ends[5] {
        // With the index cut before the damage, the scan finds it. (Where the index knows a block,
        // `get` does.)
        files.restore(dir.path());
        cut(
            &dir.path().join("spent.index"),
            INDEX_HEADER + 3 * INDEX_RECORD,
        );
        flip(&data, at);
        assert_recovers(
            dir.path(),
            whole(&ends, at),
            5,
            &format!("data wrong at {at}, not indexed"),
        );

        // The payload of the last frame, indexed: read back at the start.
        if at >= ends[4] + 8 {
            files.restore(dir.path());
            flip(&data, at);
            assert_recovers(dir.path(), 4, 5, &format!("data wrong at {at}, indexed"));
        }
    }
}

#[test]
fn zeros_behind_the_last_frame_are_cut() {
    // A power cut on some file systems: the length was written, the bytes were not.
    let dir = scratch_folder();
    let ends = made_log(dir.path(), 4);
    let files = Files::of(dir.path());
    for zeros in [1, 7, 8, 9, 4096, 100_000] {
        files.restore(dir.path());
        cut(&dir.path().join("spent00000.dat"), ends[4] + zeros);
        assert_recovers(dir.path(), 4, 4, &format!("{zeros} zeros"));
    }
}

#[test]
fn a_block_damaged_on_disk_is_an_error_and_can_be_appended_again() {
    let dir = scratch_folder();
    let ends = made_log(dir.path(), 6);
    flip(&dir.path().join("spent00000.dat"), ends[3] - 1);
    let log = SpentLog::open(dir.path(), MAGIC, SegmentLogOptions::default()).unwrap();
    assert!(matches!(
        log.get(&hash(2)),
        Err(BlockLogError::Damaged { height: 2, .. })
    ));
    assert_eq!(log.get(&hash(2)).unwrap(), None);
    assert_eq!(log.contiguous_from(5), Some(3));
    append(&log, 2);
    assert_holds(&log, 0..6);
    drop(log);
    let log = SpentLog::open(dir.path(), MAGIC, SegmentLogOptions::default()).unwrap();
    assert_holds(&log, 0..6);
    assert_eq!(log.len(), 6);
}

#[test]
fn a_kill_between_unlinking_segments_and_rewriting_the_index_is_repaired() {
    let dir = scratch_folder();
    let log = SpentLog::open(dir.path(), MAGIC, segments_of(300)).unwrap();
    for number in 0..30 {
        append(&log, number);
    }
    log.sync().unwrap();
    drop(log);
    let first = &segments(dir.path(), "spent")[0];
    std::fs::remove_file(first).unwrap();
    let log = SpentLog::open(dir.path(), MAGIC, segments_of(300)).unwrap();
    let lowest = log.height_range().unwrap().0;
    assert!(lowest > 0);
    assert_holds(&log, lowest..30);
    assert_eq!(log.contiguous_from(29), Some(lowest));
}

#[test]
fn damage_in_an_older_segment_does_not_take_the_later_ones_with_it() {
    let dir = scratch_folder();
    let log = SpentLog::open(dir.path(), MAGIC, segments_of(300)).unwrap();
    for number in 0..30 {
        append(&log, number);
    }
    log.sync().unwrap();
    drop(log);
    std::fs::remove_file(dir.path().join("spent.index")).unwrap();
    let paths = segments(dir.path(), "spent");
    flip(&paths[1], 60);
    let log = SpentLog::open(dir.path(), MAGIC, segments_of(300)).unwrap();
    assert_eq!(segments(dir.path(), "spent"), paths);
    let lost: Vec<u32> = (0..30)
        .filter(|number| !log.contains(&hash(*number)))
        .collect();
    assert!(
        (1..=5).contains(&lost.len()),
        "only of the second segment: {lost:?}"
    );
    assert_holds(&log, (0..30).filter(|number| !lost.contains(number)));
    assert_eq!(log.contiguous_from(29), Some(lost[lost.len() - 1] + 1));
    for number in lost {
        append(&log, number);
    }
    assert_holds(&log, 0..30);
}

#[test]
fn another_network_and_a_newer_version_are_refused_and_left_alone() {
    let mainnet = [0xf9, 0xbe, 0xb4, 0xd9];
    let dir = scratch_folder();
    made_log(dir.path(), 3);
    let files = Files::of(dir.path());
    let open = |magic| SpentLog::open(dir.path(), magic, SegmentLogOptions::default());
    assert!(matches!(
        open(mainnet),
        Err(BlockLogError::WrongNetwork { found: MAGIC, .. })
    ));
    std::fs::remove_file(dir.path().join("spent.index")).unwrap();
    assert!(matches!(
        open(mainnet),
        Err(BlockLogError::WrongNetwork { found: MAGIC, .. })
    ));
    assert!(!dir.path().join("spent.index").exists(), "nothing was made");

    files.restore(dir.path());
    let index = dir.path().join("spent.index");
    let mut bytes = std::fs::read(&index).unwrap();
    bytes[4] = 2;
    let crc = crc32fast::hash(&bytes[..12]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&index, &bytes).unwrap();
    assert!(matches!(
        open(MAGIC),
        Err(BlockLogError::NewerFormat {
            found: 2,
            known: 1,
            ..
        })
    ));
    assert_eq!(std::fs::read(&index).unwrap(), bytes);
    files.restore(dir.path());
    assert_recovers(dir.path(), 3, 3, "as it was");
}

/// Blocks prove themselves: with no index at all, hashes and heights are found again.
#[test]
fn blocks_without_an_index_are_found_with_their_heights() {
    let Some(dat) = regtest::file("main.dat") else {
        return;
    };
    let Some(branch) = regtest::file("branch.dat") else {
        return;
    };
    let dir = scratch_folder();
    let mut both = dat.clone();
    both.extend_from_slice(&branch);
    std::fs::write(dir.path().join("blk00000.dat"), &both).unwrap();
    let log = BlockLog::open(dir.path(), MAGIC, SegmentLogOptions::default()).unwrap();
    for (at, raw) in regtest::frames(&dat).iter().enumerate() {
        assert_eq!(
            log.height_of(&regtest::decode(raw).block_hash()),
            Some(at as u32)
        );
    }
    for (at, raw) in regtest::frames(&branch).iter().enumerate() {
        assert_eq!(
            log.height_of(&regtest::decode(raw).block_hash()),
            Some(at as u32 + 125)
        );
    }
    assert_eq!(log.contiguous_from(132), Some(0));
    drop(log);

    // The branch alone: heights come from the coinbases.
    let dir = scratch_folder();
    std::fs::write(dir.path().join("blk00000.dat"), &branch).unwrap();
    let log = BlockLog::open(dir.path(), MAGIC, SegmentLogOptions::default()).unwrap();
    assert_eq!(log.height_range(), Some((125, 132)));
}

#[test]
fn a_block_torn_or_wrong_at_any_byte_is_cut() {
    let Some(dat) = regtest::file("main.dat") else {
        return;
    };
    let frames = regtest::frames(&dat);
    // The shortest block with more than a coinbase.
    let (at, raw) = frames
        .iter()
        .enumerate()
        .filter(|(_, raw)| regtest::decode(raw).txdata.len() > 1)
        .min_by_key(|(_, raw)| raw.len())
        .unwrap();
    let start: usize = frames[..at].iter().map(|frame| frame.len() + 8).sum();
    let end = start + raw.len() + 8;
    let dir = scratch_folder();
    std::fs::write(dir.path().join("blk00000.dat"), &dat[..start]).unwrap();
    drop(BlockLog::open(dir.path(), MAGIC, SegmentLogOptions::default()).unwrap());
    let data = dir.path().join("blk00000.dat");
    let index = std::fs::read(dir.path().join("blk.index")).unwrap();

    let step = (raw.len() / 400).max(1);
    let places = (start..start + 100)
        .chain((start + 100..end).step_by(step))
        .chain(end - 100..end);
    for place in places {
        for torn in [true, false] {
            let mut bytes = dat[..end].to_vec();
            if torn {
                bytes.truncate(place);
            } else {
                bytes[place] ^= 0x40;
            }
            std::fs::write(&data, &bytes).unwrap();
            std::fs::write(dir.path().join("blk.index"), &index).unwrap();
            let log = BlockLog::open(dir.path(), MAGIC, SegmentLogOptions::default()).unwrap();
            // A changed header makes another block of the same height: one that proves itself, with
            // a work that the chain checks.
            let header = (start + 8..start + 88).contains(&place);
            let root_or_parent = (start + 12..start + 76).contains(&place);
            if torn || !header || root_or_parent && log.len() == at {
                assert_eq!(
                    (log.len(), log.bytes()),
                    (at, start as u64),
                    "at {place}, torn: {torn}"
                );
            }
            assert!(!log.contains(&regtest::decode(raw).block_hash()));
        }
    }
    std::fs::write(&data, &dat[..end]).unwrap();
    let log = BlockLog::open(dir.path(), MAGIC, SegmentLogOptions::default()).unwrap();
    assert_eq!(log.len(), at + 1);
}

#[derive(Debug, Clone)]
enum Step {
    Append(u32),
    Sync,
    Prune {
        keep: u64,
        from: u32,
    },
    Restart,
    /// A kill after which the data ends this many bytes early, at most back to what was synced.
    Tear(usize),
    FullDisk {
        number: u32,
        room: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..200u32).prop_map(Step::Append),
        2 => Just(Step::Sync),
        1 => (0..3_000u64, 0..200u32).prop_map(|(keep, from)| Step::Prune { keep, from }),
        1 => Just(Step::Restart),
        2 => (0..200usize).prop_map(Step::Tear),
        1 => (200..300u32, 0..60usize).prop_map(|(number, room)| Step::FullDisk { number, room }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Against a model: what was appended is there, unless it was pruned, or torn off before it was
    /// synced.
    #[test]
    fn any_sequence_of_appends_kills_and_prunes_keeps_what_it_should(steps in prop::collection::vec(step(), 1..120)) {
        let dir = scratch_folder();
        let open = || SpentLog::open(dir.path(), MAGIC, segments_of(600)).unwrap();
        let mut log = open();
        let mut held: std::collections::BTreeSet<u32> = Default::default();
        // Appended since the last sync, with the segment and the place where the frame begins.
        let mut unsynced: Vec<(u32, PathBuf, u64)> = Vec::new();
        for step in steps {
            match step {
                Step::Append(number) => {
                    let wrote = log.append(&hash(number), number, &body(number)).unwrap();
                    prop_assert_eq!(wrote, held.insert(number));
                    if wrote {
                        let path = segments(dir.path(), "spent").pop().unwrap();
                        let start = path.metadata().unwrap().len() - 48 - body(number).len() as u64;
                        unsynced.push((number, path, start));
                    }
                }
                Step::Sync => {
                    log.sync().unwrap();
                    unsynced.clear();
                }
                Step::Prune { keep, from } => {
                    let pruned = log.prune(keep, from).unwrap();
                    if pruned.segments > 0 {
                        unsynced.clear();
                    }
                    let gone: Vec<u32> = held.iter().copied().filter(|number| !log.contains(&hash(*number))).collect();
                    prop_assert!(gone.iter().all(|height| *height < from), "pruned what was needed");
                    prop_assert_eq!(gone.len() as u64, pruned.blocks);
                    held.retain(|number| !gone.contains(number));
                }
                Step::Restart => {
                    drop(log);
                    log = open();
                    unsynced.clear();
                }
                Step::Tear(bytes) => {
                    drop(log);
                    let path = segments(dir.path(), "spent").pop().unwrap();
                    let length = path.metadata().unwrap().len();
                    let synced = unsynced.iter().filter(|(_, at, _)| *at == path).map(|(_, _, start)| *start).min();
                    let left = length.saturating_sub(bytes as u64).max(synced.unwrap_or(length));
                    cut(&path, left as usize);
                    for (number, at, start) in unsynced.drain(..) {
                        if at == path && start + 48 + body(number).len() as u64 > left {
                            held.remove(&number);
                        }
                    }
                    log = open();
                }
                Step::FullDisk { number, room } => {
                    log.0.limit_disk(Some(room));
                    let outcome = log.append(&hash(number), number, &body(number));
                    log.0.limit_disk(None);
                    match outcome {
                        Ok(wrote) => {
                            prop_assert_eq!(wrote, held.insert(number));
                            log.sync().unwrap();
                            unsynced.clear();
                        }
                        Err(_) => prop_assert!(!log.contains(&hash(number))),
                    }
                }
            }
            prop_assert_eq!(log.len(), held.len());
            assert_holds(&log, held.iter().copied());
        }
    }

    /// Whatever bytes lie in the folder: an error, or a log that works.
    #[test]
    fn any_bytes_open_or_are_refused(
        data in prop::collection::vec(any::<u8>(), 0..300),
        index in prop::collection::vec(any::<u8>(), 0..300),
        framed in any::<bool>(),
    ) {
        let dir = scratch_folder();
        let mut bytes = Vec::new();
        if framed {
            bytes.extend_from_slice(&MAGIC);
            bytes.extend_from_slice(&(data.len() as u32).to_le_bytes());
        }
        bytes.extend_from_slice(&data);
        for (data_name, index_name) in [("blk00000.dat", "blk.index"), ("spent00000.dat", "spent.index")] {
            std::fs::write(dir.path().join(data_name), &bytes).unwrap();
            std::fs::write(dir.path().join(index_name), &index).unwrap();
        }
        drop(BlockLog::open(dir.path(), MAGIC, SegmentLogOptions::default()));
        if let Ok(log) = SpentLog::open(dir.path(), MAGIC, SegmentLogOptions::default()) {
            append(&log, 1);
            assert_holds(&log, [1]);
        }
    }
}
