//! Crashes between the two halves of a flush, and stores that disagree.

use super::cursor;
use crate::store::{
    ColumnData, ColumnKind, ColumnSpec, Cursor, LaneState, Reconciled, Recovery, RowBuffer,
    RowStore, StateStore, TableKind, TableSpec, reconcile,
};

const PLUGIN: &str = "counter";

/// A plugin that counts: its state holds the sum of all heights, its table each sum.
struct Plugin {
    lane: LaneState,
    rows: RowStore,
    buffer: RowBuffer,
    _store: StateStore,
}

fn open(dir: &std::path::Path) -> Plugin {
    let store = StateStore::open(&dir.join("state"), 1 << 20).unwrap();
    let lane = store.lane(PLUGIN).unwrap();
    let rows = RowStore::open(&format!("sqlite:{}", dir.join("rows.db").display())).unwrap();
    let spec = TableSpec {
        name: "sum".to_owned(),
        kind: TableKind::Anchored,
        columns: vec![ColumnSpec {
            name: "total".to_owned(),
            kind: ColumnKind::Integer,
            nullable: false,
        }],
        key: vec![],
        indexes: vec![],
    };
    let buffer = rows.register(PLUGIN, &[spec]).unwrap();
    Plugin {
        lane,
        rows,
        buffer,
        _store: store,
    }
}

impl Plugin {
    fn block(&mut self, height: u32, branch: u8) {
        self.lane.begin_block();
        let before = self
            .lane
            .get(b"sum")
            .unwrap()
            .map_or(0, |sum| i64::from_le_bytes(sum[..].try_into().unwrap()));
        let sum = before + i64::from(height) + i64::from(branch) * 1_000;
        self.lane.put(b"sum", &sum.to_le_bytes()).unwrap();
        self.lane.put(&height.to_be_bytes(), &[branch]).unwrap();
        if let Some(old) = height.checked_sub(3) {
            self.lane.take(&old.to_be_bytes()).unwrap();
        }
        self.buffer
            .append(0, height, &[ColumnData::Integers(vec![sum]).into()])
            .unwrap();
        self.lane
            .commit_block(cursor(height, branch), true)
            .unwrap();
    }

    fn flush_rows(&mut self) {
        let cursor = self.lane.cursor();
        self.rows.flush(PLUGIN, &mut self.buffer, cursor).unwrap();
    }

    fn flush(&mut self) {
        self.flush_rows();
        self.lane.flush().unwrap();
    }

    /// Rows and state as text.
    fn contents(&mut self) -> String {
        let page = self.lane.scan(&[], None, usize::MAX, usize::MAX).unwrap();
        let rows = self
            .rows
            .query("SELECT * FROM sum ORDER BY height", &[])
            .unwrap();
        format!(
            "{:?} {rows:?} {:?}",
            page.iter().collect::<Vec<_>>(),
            self.rows.cursor(PLUGIN).unwrap()
        )
    }

    fn reconcile(&mut self) -> Reconciled {
        let result = reconcile(&mut self.lane, &self.rows, PLUGIN).unwrap();
        assert_eq!(self.lane.cursor(), result.cursor);
        assert_eq!(self.lane.flushed_cursor(), result.cursor);
        assert_eq!(self.rows.cursor(PLUGIN).unwrap(), result.cursor);
        result
    }
}

/// What a run without any trouble leaves at this height of branch 0.
fn undisturbed(to: u32) -> String {
    let dir = tempfile::tempdir().unwrap();
    let mut plugin = open(dir.path());
    (0..=to).for_each(|height| plugin.block(height, 0));
    plugin.flush();
    plugin.contents()
}

fn up_to(dir: &std::path::Path, to: u32) -> Plugin {
    let mut plugin = open(dir);
    (0..=to).for_each(|height| plugin.block(height, 0));
    plugin.flush();
    plugin
}

#[test]
fn a_crash_between_the_rows_and_the_state_loses_and_doubles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut plugin = up_to(dir.path(), 9);
    (10..15).for_each(|height| plugin.block(height, 0));
    plugin.flush_rows();
    drop(plugin);

    let mut plugin = open(dir.path());
    let result = plugin.reconcile();
    assert_eq!(
        result,
        Reconciled {
            cursor: Some(cursor(9, 0)),
            recovery: Recovery::RowsRewound {
                from: cursor(14, 0)
            }
        }
    );
    assert_eq!(plugin.contents(), undisturbed(9));
    (10..15).for_each(|height| plugin.block(height, 0));
    plugin.flush();
    assert_eq!(plugin.reconcile().recovery, Recovery::Agreed);
    assert_eq!(plugin.contents(), undisturbed(14));
}

#[test]
fn a_crash_before_anything_was_flushed_starts_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut plugin = open(dir.path());
    assert_eq!(
        plugin.reconcile(),
        Reconciled {
            cursor: None,
            recovery: Recovery::Agreed
        }
    );
    (0..3).for_each(|height| plugin.block(height, 0));
    plugin.flush_rows();
    drop(plugin);
    let mut plugin = open(dir.path());
    assert_eq!(
        plugin.reconcile().recovery,
        Recovery::RowsRewound { from: cursor(2, 0) }
    );
    assert_eq!(plugin.rows.count("sum").unwrap(), 0);
    (0..3).for_each(|height| plugin.block(height, 0));
    plugin.flush();
    assert_eq!(plugin.contents(), undisturbed(2));
}

#[test]
fn a_crash_in_the_middle_of_a_reorg_rewinds_whichever_is_ahead() {
    let dir = tempfile::tempdir().unwrap();
    // The rows went back first.
    let plugin = up_to(dir.path(), 12);
    plugin.rows.rewind(PLUGIN, Some(cursor(7, 0))).unwrap();
    drop(plugin);
    let mut plugin = open(dir.path());
    assert_eq!(
        plugin.reconcile().recovery,
        Recovery::StateRewound {
            from: cursor(12, 0)
        }
    );
    assert_eq!(plugin.contents(), undisturbed(7));
    // The state went back first.
    (8..13).for_each(|height| plugin.block(height, 0));
    plugin.flush();
    plugin.lane.rewind(7).unwrap();
    assert_eq!(
        plugin.reconcile().recovery,
        Recovery::RowsRewound {
            from: cursor(12, 0)
        }
    );
    assert_eq!(plugin.contents(), undisturbed(7));
}

#[test]
fn stores_on_different_branches_go_back_to_where_they_agreed() {
    for (rows_to, state_to) in [(9, 9), (9, 11), (11, 9)] {
        let dir = tempfile::tempdir().unwrap();
        let mut plugin = up_to(dir.path(), 5);
        (6..8).for_each(|height| plugin.block(height, 0));
        plugin.flush();
        // The rows go on with branch 1, the state with branch 2.
        plugin.rows.rewind(PLUGIN, Some(cursor(7, 0))).unwrap();
        (8..=rows_to).for_each(|height| {
            plugin
                .buffer
                .append(0, height, &[ColumnData::Integers(vec![1]).into()])
                .unwrap();
            plugin
                .rows
                .flush(PLUGIN, &mut plugin.buffer, Some(cursor(height, 1)))
                .unwrap();
        });
        (8..=state_to).for_each(|height| plugin.block(height, 2));
        plugin.buffer.clear();
        plugin.lane.flush().unwrap();
        let result = plugin.reconcile();
        let recovery = Recovery::BothRewound {
            state: cursor(state_to, 2),
            rows: cursor(rows_to, 1),
        };
        assert_eq!(
            result,
            Reconciled {
                cursor: Some(cursor(7, 0)),
                recovery
            },
            "rows {rows_to} state {state_to}"
        );
        assert_eq!(plugin.contents(), undisturbed(7));
    }
}

#[test]
fn what_cannot_be_rewound_starts_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut plugin = up_to(dir.path(), 3);
    // Blocks without undo records.
    for height in 4..6u32 {
        plugin.lane.begin_block();
        plugin.lane.put(b"x", b"y").unwrap();
        plugin.lane.commit_block(cursor(height, 0), false).unwrap();
    }
    plugin.lane.flush().unwrap();
    let reset = Recovery::Reset {
        state: Some(cursor(5, 0)),
        rows: Some(cursor(3, 0)),
    };
    assert_eq!(
        plugin.reconcile(),
        Reconciled {
            cursor: None,
            recovery: reset
        }
    );
    (0..4).for_each(|height| plugin.block(height, 0));
    plugin.flush();
    assert_eq!(plugin.contents(), undisturbed(3));
    // The database was deleted.
    let rows: Option<Cursor> = None;
    plugin.rows.reset(PLUGIN).unwrap();
    let recovery = Recovery::Reset {
        state: Some(cursor(3, 0)),
        rows,
    };
    let result = reconcile(&mut plugin.lane, &plugin.rows, PLUGIN).unwrap();
    assert_eq!(
        result,
        Reconciled {
            cursor: None,
            recovery
        }
    );
}
