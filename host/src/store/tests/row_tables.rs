//! Plugins' tables in SQLite.

use super::cursor;
use crate::store::{
    Column, ColumnData, ColumnKind, ColumnSpec, RowBuffer, RowError, RowStore, SqlValue, TableKind,
    TableSpec,
};

fn column(name: &str, kind: ColumnKind, nullable: bool) -> ColumnSpec {
    ColumnSpec {
        name: name.to_owned(),
        kind,
        nullable,
    }
}

fn tx() -> TableSpec {
    TableSpec {
        name: "tx".to_owned(),
        kind: TableKind::Anchored,
        columns: vec![
            column("position", ColumnKind::Integer, false),
            column("txid", ColumnKind::Hash, false),
            column("fee", ColumnKind::Amount, true),
            column("seen", ColumnKind::Time, false),
            column("rate", ColumnKind::Real, false),
            column("label", ColumnKind::Text, true),
            column("script", ColumnKind::Bytes, false),
            column("coinbase", ColumnKind::Boolean, false),
        ],
        key: vec!["position".to_owned()],
        indexes: vec![
            vec!["txid".to_owned()],
            vec!["label".to_owned(), "height".to_owned()],
        ],
    }
}

fn pool() -> TableSpec {
    TableSpec {
        name: "pool".to_owned(),
        kind: TableKind::Volatile,
        columns: vec![
            column("txid", ColumnKind::Hash, false),
            column("fee", ColumnKind::Amount, false),
        ],
        key: vec!["txid".to_owned()],
        indexes: vec![],
    }
}

fn texts(entries: &[&str]) -> ColumnData {
    let ends = entries
        .iter()
        .scan(0, |end, entry| {
            *end += entry.len() as u32;
            Some(*end)
        })
        .collect();
    ColumnData::Texts {
        ends,
        bytes: entries.concat().into_bytes(),
    }
}

/// `count` rows of a block.
fn rows(count: usize) -> Vec<Column> {
    let labels: Vec<String> = (0..count).map(|n| format!("é{n}")).collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let ints = |of: fn(usize) -> i64| ColumnData::Integers((0..count).map(of).collect());
    let nulls = Some((0..count).map(|n| u8::from(n % 2 == 1)).collect());
    vec![
        ints(|n| n as i64).into(),
        ColumnData::Hashes((0..count).flat_map(|n| [n as u8; 32]).collect()).into(),
        Column {
            data: ints(|n| 150_000_000 + n as i64),
            nulls,
        },
        ints(|_| 1_231_006_505).into(),
        ColumnData::Reals((0..count).map(|n| n as f64 / 2.0).collect()).into(),
        texts(&labels).into(),
        ColumnData::Blobs {
            ends: (1..=count as u32).map(|n| n * 2).collect(),
            bytes: vec![0xAB; count * 2],
        }
        .into(),
        ints(|n| i64::from(n == 0)).into(),
    ]
}

struct Database {
    _dir: tempfile::TempDir,
    url: String,
}

fn database() -> Database {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", dir.path().join("rows.db").display());
    Database { _dir: dir, url }
}

fn integer(value: i64) -> SqlValue {
    SqlValue::Integer(value)
}

#[test]
fn rows_read_back_as_they_were_given_and_the_view_is_for_people() {
    let database = database();
    let store = RowStore::open(&database.url).unwrap();
    let mut buffer = store.register("tx-writer", &[tx()]).unwrap();
    // More than one statement, the last one short.
    for height in 0..3 {
        buffer.append(0, height, &rows(1_500)).unwrap();
    }
    assert!(buffer.bytes() > 100_000 && buffer.rows() == 4_500);
    store
        .flush("tx-writer", &mut buffer, Some(cursor(2, 0)))
        .unwrap();
    assert!(buffer.is_empty());
    assert_eq!(store.count("tx").unwrap(), 4_500);
    assert_eq!(store.cursor("tx-writer").unwrap(), Some(cursor(2, 0)));
    let row = store
        .query("SELECT * FROM tx WHERE height = 2 AND position = 1", &[])
        .unwrap();
    assert_eq!(
        row,
        [vec![
            integer(2),
            integer(1),
            SqlValue::Blob(vec![1; 32]),
            SqlValue::Null,
            integer(1_231_006_505),
            SqlValue::Real(0.5),
            SqlValue::Text("é1".to_owned()),
            SqlValue::Blob(vec![0xAB; 2]),
            integer(0),
        ]]
    );
    let row = store
        .query("SELECT height, txid, fee, fee_btc, seen, script FROM tx_view WHERE height = ? AND position = ?", &[integer(1), integer(1_498)])
        .unwrap();
    let text = |text: &str| SqlValue::Text(text.to_owned());
    assert_eq!(
        row,
        [vec![
            integer(1),
            text(&"da".repeat(32)),
            integer(150_001_498),
            SqlValue::Real(1.50001498),
            text("2009-01-03 18:15:05"),
            text("abab"),
        ]]
    );
    // Height first in the key: a block's rows lie together, without an index of their own.
    let plan = format!(
        "{:?}",
        store
            .query("EXPLAIN QUERY PLAN DELETE FROM tx WHERE height > 1", &[])
            .unwrap()
    );
    assert!(plan.contains("PRIMARY KEY (height>?)"), "{plan}");
    drop(store);
    let store = RowStore::open(&database.url).unwrap();
    assert_eq!(store.count("tx").unwrap(), 4_500);
    assert!(matches!(store.count("nothing"), Err(RowError::NoTable(_))));
}

#[test]
fn a_rewind_deletes_the_rows_above_and_an_aborted_block_leaves_none() {
    let database = database();
    let store = RowStore::open(&database.url).unwrap();
    let mut buffer = store.register("tx-writer", &[tx(), pool()]).unwrap();
    let heights = |store: &RowStore| {
        let rows = store
            .query(
                "SELECT height, count(*) FROM tx GROUP BY height ORDER BY height",
                &[],
            )
            .unwrap();
        rows.into_iter()
            .map(|row| format!("{:?} {:?}", row[0], row[1]))
            .collect::<Vec<_>>()
            .join(", ")
    };
    for height in 10..20 {
        buffer.begin_block();
        buffer.append(0, height, &rows(height as usize)).unwrap();
        if height == 15 {
            buffer.append(0, height, &rows(3)).unwrap();
            buffer
                .put(
                    1,
                    vec![
                        ColumnData::Hashes(vec![1; 32]).into(),
                        ColumnData::Integers(vec![5]).into(),
                    ],
                )
                .unwrap();
            buffer.truncate_block();
            buffer.append(0, height, &rows(15)).unwrap();
        }
        // A lane that goes back or ends drops its open block, and there is none.
        buffer.commit_block();
        buffer.truncate_block();
    }
    // 18 and 19 go before they are flushed, 16 and 17 after.
    buffer.truncate_above(Some(17));
    store
        .flush("tx-writer", &mut buffer, Some(cursor(17, 0)))
        .unwrap();
    assert_eq!(store.count("tx").unwrap(), (10..18).sum::<u64>());
    assert_eq!(store.count("pool").unwrap(), 0);
    store.rewind("tx-writer", Some(cursor(15, 0))).unwrap();
    assert_eq!(store.cursor("tx-writer").unwrap(), Some(cursor(15, 0)));
    assert_eq!(store.count("tx").unwrap(), (10..16).sum::<u64>());
    assert!(
        heights(&store).ends_with("Integer(15) Integer(15)"),
        "{}",
        heights(&store)
    );
    store.rewind("tx-writer", None).unwrap();
    assert_eq!(
        (
            store.cursor("tx-writer").unwrap(),
            store.count("tx").unwrap()
        ),
        (None, 0)
    );
}

#[test]
fn a_flush_that_fails_writes_nothing_and_keeps_the_buffer() {
    let database = database();
    let store = RowStore::open(&database.url).unwrap();
    let mut buffer = store.register("tx-writer", &[tx()]).unwrap();
    buffer.append(0, 1, &rows(2)).unwrap();
    store
        .flush("tx-writer", &mut buffer, Some(cursor(1, 0)))
        .unwrap();
    buffer.append(0, 0, &rows(1_200)).unwrap();
    // The same rows again: the key refuses them.
    buffer.append(0, 1, &rows(2)).unwrap();
    assert!(matches!(
        store.flush("tx-writer", &mut buffer, Some(cursor(2, 0))),
        Err(RowError::Database {
            what: "insert rows",
            ..
        })
    ));
    assert_eq!((store.count("tx").unwrap(), buffer.rows()), (2, 1_202));
    assert_eq!(store.cursor("tx-writer").unwrap(), Some(cursor(1, 0)));
    buffer.truncate_above(Some(0));
    store
        .flush("tx-writer", &mut buffer, Some(cursor(2, 0)))
        .unwrap();
    assert_eq!(store.count("tx").unwrap(), 1_202);
}

#[test]
fn changes_of_the_pool_do_not_write_rows_of_blocks_that_a_crash_would_take_back() {
    let database = database();
    let store = RowStore::open(&database.url).unwrap();
    let mut buffer = store.register("tx-writer", &[tx(), pool()]).unwrap();
    buffer.append(0, 1, &rows(2)).unwrap();
    let fees = ColumnData::Integers(vec![5]).into();
    let row = vec![ColumnData::Hashes(vec![7; 32]).into(), fees];
    buffer.put(1, row).unwrap();
    store.flush("tx-writer", &mut buffer, None).unwrap();
    let counts = || (store.count("tx").unwrap(), store.count("pool").unwrap());
    assert_eq!(counts(), (0, 1));
    assert_eq!(buffer.anchored_rows(), 2);
    store
        .flush("tx-writer", &mut buffer, Some(cursor(1, 1)))
        .unwrap();
    assert_eq!(counts(), (2, 1));
}

#[test]
fn volatile_rows_are_put_and_deleted_by_key_and_cleared() {
    let database = database();
    let store = RowStore::open(&database.url).unwrap();
    let mut buffer = store.register("tx-writer", &[tx(), pool()]).unwrap();
    let put = |buffer: &mut RowBuffer, ids: &[u8], fee: i64| {
        let hashes = ids.iter().flat_map(|id| [*id; 32]).collect();
        buffer
            .put(
                1,
                vec![
                    ColumnData::Hashes(hashes).into(),
                    ColumnData::Integers(vec![fee; ids.len()]).into(),
                ],
            )
            .unwrap();
    };
    let ids: Vec<u8> = (0..=255).collect();
    put(&mut buffer, &ids, 1);
    put(&mut buffer, &[7, 8], 2);
    buffer
        .delete(
            1,
            vec![ColumnData::Hashes([[8u8; 32], [9; 32]].concat()).into()],
        )
        .unwrap();
    store.flush("tx-writer", &mut buffer, None).unwrap();
    assert_eq!(store.cursor("tx-writer").unwrap(), None);
    assert_eq!(store.count("pool").unwrap(), 254);
    assert_eq!(
        store
            .query("SELECT lower(hex(txid)), fee FROM pool WHERE fee = 2", &[])
            .unwrap()
            .len(),
        1
    );
    buffer.clear_table(1).unwrap();
    put(&mut buffer, &[3], 3);
    store
        .flush("tx-writer", &mut buffer, Some(cursor(0, 0)))
        .unwrap();
    assert_eq!(store.count("pool").unwrap(), 1);
    store.clear_volatile("tx-writer").unwrap();
    assert_eq!(store.count("pool").unwrap(), 0);
}

#[test]
fn tables_of_others_and_changed_tables_are_refused_by_name() {
    let database = database();
    let store = RowStore::open(&database.url).unwrap();
    store.register("tx-writer", &[tx(), pool()]).unwrap();
    store.register("tx-writer", &[tx(), pool()]).unwrap();
    let other = store.register("other", &[pool()]).unwrap_err();
    assert!(
        matches!(&other, RowError::OtherOwner { owner, .. } if owner == "plugin tx-writer"),
        "{other}"
    );
    assert!(other.is_callers_fault());
    let mut changed = tx();
    changed.columns[2].nullable = false;
    let changed = store.register("tx-writer", &[changed]).unwrap_err();
    assert!(
        matches!(&changed, RowError::OtherShape { difference, .. } if difference == "column fee was fee (nullable amount) and is fee (amount)"),
        "{changed}"
    );
    assert!(matches!(
        store.register("tx-writer", &[pool(), pool()]),
        Err(RowError::Spec { .. })
    ));
    let mut bad = pool();
    bad.name = "blockmill_cursor".to_owned();
    assert!(matches!(
        store.register("tx-writer", &[bad]),
        Err(RowError::Spec { .. })
    ));
    // A refused declaration leaves nothing behind.
    let mut new = pool();
    new.name = "fresh".to_owned();
    assert!(store.register("other", &[new, pool()]).is_err());
    assert!(matches!(store.count("fresh"), Err(RowError::NoTable(_))));
    store.reset("tx-writer").unwrap();
    store.register("other", &[pool()]).unwrap();
}

#[test]
fn rows_that_do_not_fit_their_table_are_refused() {
    let database = database();
    let store = RowStore::open(&database.url).unwrap();
    let mut buffer = store.register("tx-writer", &[tx(), pool()]).unwrap();
    buffer.append(0, 5, &rows(1)).unwrap();
    let mut refused = |table: usize, height: u32, change: &dyn Fn(&mut Vec<Column>)| {
        let mut columns = rows(2);
        change(&mut columns);
        match buffer.append(table, height, &columns) {
            Err(error @ RowError::Rows { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        }
    };
    assert!(refused(9, 5, &|_| {}).contains("no such table"));
    assert!(refused(1, 5, &|_| {}).contains("volatile"));
    assert!(refused(0, 4, &|_| {}).contains("earlier"));
    assert!(refused(0, 5, &|columns| drop(columns.pop())).contains("7 columns where there are 8"));
    assert!(
        refused(0, 5, &|columns| columns[0] =
            ColumnData::Reals(vec![0.0; 2]).into())
        .contains("position")
    );
    assert!(
        refused(0, 5, &|columns| columns[0] =
            ColumnData::Integers(vec![0; 3]).into())
        .contains("rows")
    );
    assert!(
        refused(0, 5, &|columns| columns[1] =
            ColumnData::Hashes(vec![0; 63]).into())
        .contains("txid")
    );
    assert!(
        refused(0, 5, &|columns| columns[0].nulls = Some(vec![0, 1])).contains("must have a value")
    );
    assert!(refused(0, 5, &|columns| columns[2].nulls = Some(vec![0])).contains("null marks"));
    assert!(
        refused(0, 5, &|columns| columns[7] =
            ColumnData::Integers(vec![0, 2]).into())
        .contains("boolean")
    );
    assert!(
        refused(0, 5, &|columns| columns[4] =
            ColumnData::Reals(vec![0.0, f64::NAN]).into())
        .contains("number")
    );
    let cut = ColumnData::Texts {
        ends: vec![1, 2],
        bytes: "é".into(),
    };
    assert!(refused(0, 5, &|columns| columns[5] = cut.clone().into()).contains("cuts"));
    let bad = ColumnData::Texts {
        ends: vec![1, 2],
        bytes: vec![0xFF; 2],
    };
    assert!(refused(0, 5, &|columns| columns[5] = bad.clone().into()).contains("UTF-8"));
    let short = ColumnData::Blobs {
        ends: vec![1, 2],
        bytes: vec![0; 3],
    };
    assert!(refused(0, 5, &|columns| columns[6] = short.clone().into()).contains("script"));
    assert!(matches!(buffer.put(0, rows(1)), Err(RowError::Rows { .. })));
    assert!(matches!(
        buffer.delete(1, vec![]),
        Err(RowError::Rows { .. })
    ));
    assert!(matches!(buffer.clear_table(0), Err(RowError::Rows { .. })));
    assert_eq!(buffer.rows(), 1);
    store
        .flush("tx-writer", &mut buffer, Some(cursor(5, 0)))
        .unwrap();
    assert_eq!(store.count("tx").unwrap(), 1);
}

#[test]
fn indexes_are_built_when_asked_for_and_follow_the_declaration() {
    let database = database();
    let store = RowStore::open(&database.url).unwrap();
    let mut buffer = store.register("tx-writer", &[tx()]).unwrap();
    buffer.append(0, 0, &rows(10)).unwrap();
    store
        .flush("tx-writer", &mut buffer, Some(cursor(0, 0)))
        .unwrap();
    assert!(!store.indexes_built("tx-writer").unwrap());
    store.build_indexes("tx-writer").unwrap();
    assert!(store.indexes_built("tx-writer").unwrap());
    let plan = store
        .query(
            "EXPLAIN QUERY PLAN SELECT * FROM tx WHERE txid = ?",
            &[SqlValue::Blob(vec![1; 32])],
        )
        .unwrap();
    assert!(format!("{plan:?}").contains("tx_by_txid"), "{plan:?}");
    let mut fewer = tx();
    fewer.indexes = vec![vec!["fee".to_owned()]];
    store.register("tx-writer", &[fewer]).unwrap();
    assert!(!store.indexes_built("tx-writer").unwrap());
    let left = store
        .query(
            "SELECT name FROM sqlite_schema WHERE name LIKE 'tx_by_%'",
            &[],
        )
        .unwrap();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn urls_that_are_not_a_file_of_sqlite_are_refused() {
    for url in [
        "postgres://localhost/x",
        "rows.db",
        "sqlite:",
        "sqlite::memory:",
        "sqlite://",
    ] {
        assert!(
            matches!(RowStore::open(url), Err(RowError::Url { .. })),
            "{url}"
        );
    }
    assert!(matches!(
        RowStore::open("sqlite:/nowhere/at/all/rows.db"),
        Err(RowError::Database { .. })
    ));
}

#[test]
fn a_store_can_be_dropped_inside_of_a_task() {
    let database = database();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let url = database.url.clone();
        let store = tokio::task::spawn_blocking(move || RowStore::open(&url).unwrap())
            .await
            .unwrap();
        drop(store);
    });
}
