//! A process that is killed at any moment, while it flushes or reorganises, leaves whole blocks in both stores.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::cursor;
use crate::store::{
    ColumnData, ColumnKind, ColumnSpec, Cursor, LaneState, RowBuffer, RowStore, StateStore,
    TableKind, TableSpec, reconcile,
};

const PLUGIN: &str = "victim";
const FOLDER: &str = "BLOCKMILL_TEST_VICTIM";
/// Keys that a block adds; it takes those of the block five below.
const KEYS: u32 = 400;
const KILLS: u32 = 12;
const SEED: u64 = 11;

struct Stores {
    lane: LaneState,
    rows: RowStore,
    buffer: RowBuffer,
    _state: StateStore,
}

fn open(dir: &Path) -> Stores {
    let state = StateStore::open(&dir.join("state"), 1 << 20).unwrap();
    let mut lane = state.lane(PLUGIN).unwrap();
    let rows = RowStore::open(&format!("sqlite:{}", dir.join("rows.db").display())).unwrap();
    let column = |name: &str| ColumnSpec {
        name: name.to_owned(),
        kind: ColumnKind::Integer,
        nullable: false,
    };
    let spec = TableSpec {
        name: "mark".to_owned(),
        kind: TableKind::Anchored,
        columns: vec![column("number"), column("branch")],
        key: vec!["number".to_owned()],
        indexes: vec![],
    };
    let buffer = rows.register(PLUGIN, &[spec]).unwrap();
    reconcile(&mut lane, &rows, PLUGIN).unwrap();
    Stores {
        lane,
        rows,
        buffer,
        _state: state,
    }
}

fn key(height: u32, number: u32) -> Vec<u8> {
    // Not in order, so that tables overlap.
    [
        number.wrapping_mul(0x9E37_79B9).to_be_bytes(),
        height.to_be_bytes(),
    ]
    .concat()
}

impl Stores {
    fn block(&mut self, branch: u8) {
        let height = self.lane.cursor().map_or(0, |cursor| cursor.height + 1);
        self.lane.begin_block();
        self.buffer.begin_block();
        for number in 0..KEYS {
            self.lane.put(&key(height, number), &[branch; 30]).unwrap();
            if let Some(old) = height.checked_sub(5) {
                assert!(self.lane.take(&key(old, number)).unwrap().is_some());
            }
        }
        self.lane
            .put(&[&b"branch"[..], &height.to_be_bytes()].concat(), &[branch])
            .unwrap();
        let numbers = ColumnData::Integers((0..5).collect());
        let branches = ColumnData::Integers(vec![i64::from(branch); 5]);
        self.buffer
            .append(0, height, &[numbers.into(), branches.into()])
            .unwrap();
        self.lane
            .commit_block(cursor(height, branch), true)
            .unwrap();
    }

    fn flush(&mut self) {
        let cursor = self.lane.cursor();
        self.rows.flush(PLUGIN, &mut self.buffer, cursor).unwrap();
        self.lane.flush().unwrap();
    }

    /// Both stores hold exactly the blocks up to their cursor.
    fn check(&mut self) -> Option<Cursor> {
        let cursor = self.lane.cursor();
        assert_eq!(cursor, self.rows.cursor(PLUGIN).unwrap());
        let top = cursor.map_or(0, |cursor| cursor.height + 1);
        let branch = |lane: &mut LaneState, height: u32| {
            let value = lane
                .get(&[&b"branch"[..], &height.to_be_bytes()].concat())
                .unwrap();
            value.map(|value| value[0])
        };
        for height in top.saturating_sub(5)..top {
            let branch = branch(&mut self.lane, height).unwrap();
            for number in 0..KEYS {
                let value = self.lane.get(&key(height, number)).unwrap();
                assert_eq!(
                    value.as_deref(),
                    Some(&[branch; 30][..]),
                    "key {number} of block {height}"
                );
            }
        }
        let entries = self.lane.snapshot().unwrap().iter_prefix(&[], None).count();
        assert_eq!(entries, (top.min(5) * KEYS + top) as usize);
        let rows = self.rows.query(
            "SELECT height, min(branch), max(branch), count(*) FROM mark GROUP BY height",
            &[],
        );
        let rows = rows.unwrap();
        assert_eq!(rows.len(), top as usize);
        for (height, row) in (0..).zip(rows) {
            let expected = i64::from(branch(&mut self.lane, height).unwrap());
            let expected =
                [i64::from(height), expected, expected, 5].map(crate::store::SqlValue::Integer);
            assert_eq!(row, expected);
        }
        cursor
    }
}

/// The process to be killed; without a folder in the environment this is no test.
#[test]
fn victim() {
    let Some(dir) = std::env::var_os(FOLDER) else {
        return;
    };
    let mut stores = open(Path::new(&dir));
    for round in 0u32.. {
        let branch = (round / 7) as u8;
        // Small flushes and bulk loads, one after the other.
        stores
            .lane
            .set_bulk_changes(if round % 2 == 0 { 0 } else { usize::MAX });
        (0..1 + round % 4).for_each(|_| stores.block(branch));
        stores.flush();
        if round % 7 == 6 {
            let at = stores.lane.cursor().unwrap();
            if let Ok(fork) = stores.lane.rewind(at.height.saturating_sub(round % 5)) {
                stores.buffer.truncate_above(fork.map(|fork| fork.height));
                stores.rows.rewind(PLUGIN, fork).unwrap();
            }
        }
    }
}

#[test]
fn a_process_killed_at_any_moment_leaves_whole_blocks_in_both_stores() {
    println!("seed {SEED}");
    let mut random = SEED;
    let mut pause = || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        Duration::from_millis(30 + (random >> 33) % 370)
    };
    let dir = tempfile::tempdir().unwrap();
    let mut highest = 0;
    for kill in 0..KILLS {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::kill::victim", "--nocapture"])
            .env(FOLDER, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(pause());
        let ended = victim.try_wait().unwrap();
        victim.kill().unwrap();
        let output = victim.wait_with_output().unwrap();
        assert!(
            ended.is_none(),
            "the victim died by itself: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let cursor = open(dir.path()).check();
        println!("kill {kill}: {:?}", cursor.map(|cursor| cursor.height));
        highest = highest.max(cursor.map_or(0, |cursor| cursor.height));
    }
    assert!(highest > 10, "the victim never got to work");
}
