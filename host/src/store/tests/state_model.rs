//! Random lives of a lane's state against a map that keeps every block's copy.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;

use super::cursor;
use crate::store::{
    ArgumentError, Cursor, Keys, LaneState, MAX_KEY, MAX_VALUE, RewindError, StateStore,
    StoreError, ValueColumn,
};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Debug, Clone)]
enum Write {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    Take(Vec<u8>),
    Get(Vec<u8>),
    Prefetch(Vec<Vec<u8>>),
    Scan(Vec<u8>, Option<Vec<u8>>, usize),
}

#[derive(Debug, Clone)]
enum Step {
    Block { writes: Vec<Write>, journal: bool },
    Abort { writes: Vec<Write> },
    Flush,
    Rewind(u32),
    Discard,
    Reopen,
    Crash,
    Reset,
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    // Few keys, so that they meet again; some longer than the eight bytes that sorting looks at first.
    prop_oneof![
        4 => (0u8..24).prop_map(|n| vec![b'k', n]),
        2 => (0u8..6).prop_map(|n| [&b"a long common prefix "[..], &[n]].concat()),
        1 => (0u8..3).prop_map(|n| vec![0xFF; usize::from(n) + 1]),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => prop::collection::vec(any::<u8>(), 0..60),
        1 => (0usize..3000).prop_map(|len| vec![7; len]),
    ]
}

fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        6 => (key(), value()).prop_map(|(key, value)| Write::Put(key, value)),
        3 => key().prop_map(Write::Delete),
        4 => key().prop_map(Write::Take),
        2 => key().prop_map(Write::Get),
        1 => prop::collection::vec(key(), 0..100).prop_map(Write::Prefetch),
        1 => (prop_oneof![Just(vec![]), Just(vec![b'k']), Just(vec![0xFF]), Just(b"a long".to_vec())],
              prop::option::of(key()), 1usize..40).prop_map(|(prefix, after, limit)| Write::Scan(prefix, after, limit)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let writes = || prop::collection::vec(write(), 0..20);
    prop_oneof![
        12 => (writes(), prop::bool::weighted(0.8)).prop_map(|(writes, journal)| Step::Block { writes, journal }),
        3 => writes().prop_map(|writes| Step::Abort { writes }),
        4 => Just(Step::Flush),
        3 => (0u32..5).prop_map(Step::Rewind),
        1 => Just(Step::Discard),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
        1 => Just(Step::Reset),
    ]
}

fn apply(lane: &mut LaneState, map: &mut Map, writes: &[Write]) {
    for write in writes {
        match write {
            Write::Put(key, value) => {
                lane.put(key, value).unwrap();
                map.insert(key.clone(), value.clone());
            }
            Write::Delete(key) => {
                lane.delete(key).unwrap();
                map.remove(key);
            }
            Write::Take(key) => {
                let taken = lane.take(key).unwrap().map(|value| value.to_vec());
                assert_eq!(taken, map.remove(key), "take {key:?}");
            }
            Write::Get(key) => {
                let got = lane.get(key).unwrap().map(|value| value.to_vec());
                assert_eq!(got.as_ref(), map.get(key), "get {key:?}");
            }
            Write::Prefetch(keys) => {
                let ends: Vec<u32> = keys
                    .iter()
                    .scan(0, |end, key| {
                        *end += key.len() as u32;
                        Some(*end)
                    })
                    .collect();
                lane.prefetch(Keys::ends(&ends, &keys.concat())).unwrap();
            }
            Write::Scan(prefix, after, limit) => {
                let page = lane
                    .scan(prefix, after.as_deref(), *limit, usize::MAX)
                    .unwrap();
                let expected: Vec<_> = map
                    .iter()
                    .filter(|(key, _)| {
                        key.starts_with(prefix) && after.as_ref().is_none_or(|after| *key > after)
                    })
                    .map(|(key, value)| (key.as_slice(), value.as_slice()))
                    .collect();
                assert_eq!(page.more, expected.len() > *limit);
                assert_eq!(
                    page.iter().collect::<Vec<_>>(),
                    expected[..expected.len().min(*limit)]
                );
            }
        }
    }
}

/// Everything that the lane sees, and that its snapshot sees.
fn check(lane: &mut LaneState, now: &Map, flushed: &Map) {
    let all = |map: &Map| {
        map.iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect::<Vec<_>>()
    };
    let page = lane.scan(&[], None, usize::MAX, usize::MAX).unwrap();
    let seen: Vec<_> = page
        .iter()
        .map(|(key, value)| (key.to_vec(), value.to_vec()))
        .collect();
    assert_eq!(seen, all(now));
    let snapshot = lane.snapshot().unwrap();
    assert_eq!(snapshot.cursor(), lane.flushed_cursor());
    let page = snapshot.scan(&[], None, usize::MAX, usize::MAX).unwrap();
    let seen: Vec<_> = page
        .iter()
        .map(|(key, value)| (key.to_vec(), value.to_vec()))
        .collect();
    assert_eq!(seen, all(flushed));
}

struct Model {
    /// The cursor and contents after each block of the chain, the empty state first.
    blocks: Vec<(Option<Cursor>, Map)>,
    /// How many of them are flushed.
    flushed: usize,
    /// Whether each block was journaled.
    journaled: Vec<bool>,
    /// The most blocks there ever were: undo records reach back from there.
    most: usize,
}

impl Model {
    fn new() -> Self {
        Self {
            blocks: vec![(None, Map::new())],
            flushed: 0,
            journaled: vec![true],
            most: 0,
        }
    }

    fn truncate(&mut self, blocks: usize) {
        self.blocks.truncate(blocks + 1);
        self.journaled.truncate(blocks + 1);
    }
}

fn open(path: &Path, bulk: usize) -> (StateStore, LaneState) {
    let store = StateStore::open(path, 1 << 20).unwrap();
    let mut lane = store.lane("model").unwrap();
    lane.set_bulk_changes(bulk);
    lane.set_undo_depth(6);
    (store, lane)
}

fn live(steps: &[Step], bulk: usize) {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, mut lane) = open(dir.path(), bulk);
    let mut model = Model::new();
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Block { writes, journal } => {
                let (_, mut map) = model.blocks.last().unwrap().clone();
                lane.begin_block();
                apply(&mut lane, &mut map, writes);
                let at = cursor(model.blocks.len() as u32 - 1, number as u8);
                lane.commit_block(at, *journal).unwrap();
                model.blocks.push((Some(at), map));
                model.journaled.push(*journal);
                model.most = model.most.max(model.blocks.len() - 1);
            }
            Step::Abort { writes } => {
                let (_, mut map) = model.blocks.last().unwrap().clone();
                lane.begin_block();
                apply(&mut lane, &mut map, writes);
                lane.abort_block();
            }
            Step::Flush => {
                lane.flush().unwrap();
                assert_eq!(lane.flushed_cursor(), lane.cursor());
                model.flushed = model.blocks.len() - 1;
            }
            Step::Rewind(blocks) => {
                let top = model.blocks.len() - 1;
                let to = top.saturating_sub(*blocks as usize);
                // Block `n` of the chain has height `n - 1`.
                let Some(height) = to.checked_sub(1) else {
                    continue;
                };
                let undoable = model.journaled[to + 1..].iter().all(|journaled| *journaled);
                match lane.rewind(height as u32) {
                    Ok(at) => {
                        assert!(undoable, "rewound a block without a journal");
                        assert_eq!(at, model.blocks[to].0);
                        model.truncate(to);
                        if to < top {
                            model.flushed = to;
                        }
                    }
                    Err(StoreError::Rewind(RewindError::NoUndo { .. })) => {
                        assert!(
                            !undoable || to + 6 < model.most,
                            "blocks {to} to {top} can be undone"
                        );
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            Step::Discard => {
                lane.discard_unflushed();
                model.truncate(model.flushed);
            }
            Step::Reopen => {
                lane.flush().unwrap();
                drop(lane);
                drop(store);
                (store, lane) = open(dir.path(), bulk);
                model.flushed = model.blocks.len() - 1;
            }
            Step::Crash => {
                drop(lane);
                drop(store);
                (store, lane) = open(dir.path(), bulk);
                model.truncate(model.flushed);
            }
            Step::Reset => {
                lane.reset().unwrap();
                model = Model::new();
            }
        }
        assert_eq!(lane.cursor(), model.blocks.last().unwrap().0);
        check(
            &mut lane,
            &model.blocks.last().unwrap().1,
            &model.blocks[model.flushed].1,
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_life_of_a_lane_matches_the_model(steps in prop::collection::vec(step(), 1..40), bulk in prop_oneof![Just(0usize), Just(5), Just(usize::MAX)]) {
        live(&steps, bulk);
    }
}

/// Found by the test above: the state of before the second reset was there again.
#[test]
fn a_lane_that_is_reset_before_and_after_a_restart_stays_empty() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, mut lane) = open(dir.path(), 5);
    for _ in 0..3 {
        lane.reset().unwrap();
        drop(lane);
        drop(store);
        (store, lane) = open(dir.path(), 5);
        assert_eq!(lane.cursor(), None);
        lane.begin_block();
        lane.put(b"before", b"the reset").unwrap();
        lane.commit_block(cursor(0, 0), false).unwrap();
        lane.flush().unwrap();
        lane.reset().unwrap();
        lane.begin_block();
        lane.commit_block(cursor(0, 1), false).unwrap();
        lane.flush().unwrap();
        drop(lane);
        drop(store);
        (store, lane) = open(dir.path(), 5);
        assert_eq!(lane.cursor(), Some(cursor(0, 1)));
        assert_eq!(lane.get(b"before").unwrap().as_deref(), None);
    }
}

#[test]
fn coins_created_and_spent_between_two_flushes_never_reach_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut lane) = open(dir.path(), usize::MAX);
    for height in 0..100u32 {
        lane.begin_block();
        for n in 0..1_000u32 {
            lane.put(
                &[&b"coin"[..], &height.to_be_bytes(), &n.to_be_bytes()].concat(),
                &[1; 40],
            )
            .unwrap();
            if let Some(before) = height.checked_sub(1) {
                let spent = lane
                    .take(&[&b"coin"[..], &before.to_be_bytes(), &n.to_be_bytes()].concat())
                    .unwrap();
                assert_eq!(spent.as_deref(), Some(&[1u8; 40][..]));
            }
        }
        lane.commit_block(cursor(height, 0), false).unwrap();
        if height == 10 {
            lane.flush().unwrap();
        }
        // The memory of spent coins is used again.
        assert!(
            lane.dirty_bytes() < 5_000_000,
            "{} bytes",
            lane.dirty_bytes()
        );
    }
    let before = store.disk_bytes().unwrap();
    lane.flush().unwrap();
    // 1,000 coins and 1,000 removals; not the 88,000 that came and went.
    let written = store.disk_bytes().unwrap() - before;
    assert!(written < 400_000, "{written} bytes");
    assert_eq!(
        lane.snapshot().unwrap().iter_prefix(b"coin", None).count(),
        1_000
    );
}

#[test]
fn undo_records_are_kept_for_the_depth_asked_and_no_deeper() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, mut lane) = open(dir.path(), usize::MAX);
    for height in 0..20 {
        lane.begin_block();
        lane.put(b"height", &[height as u8]).unwrap();
        lane.commit_block(cursor(height, 0), true).unwrap();
        if height % 3 == 0 {
            lane.flush().unwrap();
        }
    }
    lane.flush().unwrap();
    let refused = lane.rewind(12).unwrap_err();
    assert!(
        matches!(
            refused,
            StoreError::Rewind(RewindError::NoUndo {
                from: 19,
                to: 12,
                missing: 13,
                ..
            })
        ),
        "{refused}"
    );
    assert_eq!(lane.cursor(), Some(cursor(19, 0)));
    assert_eq!(lane.rewind(13).unwrap(), Some(cursor(13, 0)));
    assert_eq!(lane.get(b"height").unwrap().as_deref(), Some(&[13u8][..]));
}

#[test]
fn what_does_not_fit_is_a_typed_error_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut lane) = open(dir.path(), usize::MAX);
    assert!(matches!(store.lane("model"), Err(StoreError::LaneTaken(_))));
    for name in ["", "Model", "a/b", "model.undo", &"x".repeat(65)] {
        assert!(
            matches!(store.lane(name), Err(StoreError::BadName(_))),
            "{name}"
        );
        assert!(
            matches!(store.snapshot(name), Err(StoreError::BadName(_))),
            "{name}"
        );
    }
    assert!(store.snapshot("nobody").unwrap().is_none());

    let argument = |result: Result<(), StoreError>| match result {
        Err(error @ StoreError::Argument(_)) => {
            assert!(error.is_callers_fault());
            let StoreError::Argument(argument) = error else {
                unreachable!()
            };
            argument
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(argument(lane.put(b"a", b"b")), ArgumentError::NoOpenBlock);
    lane.begin_block();
    assert_eq!(
        argument(lane.put(b"", b"b")),
        ArgumentError::Key {
            len: 0,
            max: MAX_KEY
        }
    );
    assert_eq!(
        argument(lane.delete(&[1; MAX_KEY + 1])),
        ArgumentError::Key {
            len: MAX_KEY + 1,
            max: MAX_KEY
        }
    );
    assert!(matches!(
        argument(lane.put(b"a", &vec![0; MAX_VALUE + 1])),
        ArgumentError::Value { .. }
    ));
    assert!(matches!(
        argument(lane.put_many(Keys::fixed(1, b"ab"), Keys::fixed(1, b"abc"))),
        ArgumentError::Counts { keys: 2, values: 3 }
    ));
    assert!(matches!(
        argument(lane.delete_many(Keys::fixed(2, b"abc"))),
        ArgumentError::Width { .. }
    ));
    let mut out = ValueColumn::default();
    assert!(matches!(
        argument(lane.get_many(Keys::ends(&[2], b"a"), &mut out)),
        ArgumentError::Ends { .. }
    ));
    lane.put(&[9; MAX_KEY], b"longest").unwrap();
    lane.commit_block(cursor(5, 0), true).unwrap();
    lane.begin_block();
    assert!(matches!(
        lane.commit_block(cursor(7, 0), true),
        Err(StoreError::OutOfOrder { last: 5, next: 7 })
    ));
    lane.flush().unwrap();
    assert_eq!(
        lane.get(&[9; MAX_KEY]).unwrap().as_deref(),
        Some(&b"longest"[..])
    );
    assert_eq!(store.names(), ["model"]);
    drop(lane);
    store.remove("model").unwrap();
    assert!(store.names().is_empty());
    assert!(store.snapshot("model").unwrap().is_none());
}

#[test]
fn a_reset_that_was_interrupted_is_finished_by_the_next_opening() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut lane) = open(dir.path(), usize::MAX);
    lane.begin_block();
    lane.put(b"a", b"b").unwrap();
    lane.commit_block(cursor(0, 0), true).unwrap();
    lane.flush().unwrap();
    lane.remove_cursor().unwrap();
    drop(lane);
    drop(store);
    let (_store, mut lane) = open(dir.path(), usize::MAX);
    assert_eq!(lane.cursor(), None);
    assert!(lane.get(b"a").unwrap().is_none());
    lane.begin_block();
    lane.put(b"c", b"d").unwrap();
    lane.commit_block(cursor(0, 1), true).unwrap();
    lane.flush().unwrap();
    check(
        &mut lane,
        &Map::from([(b"c".to_vec(), b"d".to_vec())]),
        &Map::from([(b"c".to_vec(), b"d".to_vec())]),
    );
}

#[test]
fn a_snapshot_does_not_see_what_is_flushed_after_it() {
    let dir = tempfile::tempdir().unwrap();
    for (number, bulk) in [0, usize::MAX].into_iter().enumerate() {
        let (store, mut lane) = open(&dir.path().join(number.to_string()), bulk);
        let write = |lane: &mut LaneState, height: u32| {
            lane.begin_block();
            lane.put(b"key", &height.to_le_bytes()).unwrap();
            lane.commit_block(cursor(height, 0), true).unwrap();
        };
        write(&mut lane, 0);
        lane.flush().unwrap();
        let before = store.snapshot("model").unwrap().unwrap();
        write(&mut lane, 1);
        assert_eq!(
            store.snapshot("model").unwrap().unwrap().cursor(),
            Some(cursor(0, 0))
        );
        lane.flush().unwrap();
        let after = std::thread::spawn({
            let snapshot = store.snapshot("model").unwrap().unwrap();
            move || {
                (
                    snapshot.cursor(),
                    snapshot.get(b"key").unwrap().unwrap().to_vec(),
                )
            }
        });
        assert_eq!(
            after.join().unwrap(),
            (Some(cursor(1, 0)), 1u32.to_le_bytes().to_vec())
        );
        lane.reset().unwrap();
        assert_eq!(before.cursor(), Some(cursor(0, 0)));
        assert_eq!(
            before.get(b"key").unwrap().as_deref(),
            Some(&0u32.to_le_bytes()[..])
        );
        let mut out = ValueColumn::default();
        before
            .get_many(Keys::ends(&[3, 6], b"keynil"), &mut out)
            .unwrap();
        assert_eq!(
            (out.get(0), out.get(1)),
            (Some(&0u32.to_le_bytes()[..]), None)
        );
    }
}
