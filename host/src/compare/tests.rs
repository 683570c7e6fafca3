#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use super::*;
use crate::store::{
    Column, ColumnData, ColumnKind, ColumnSpec, Cursor, RowAction, RowBuffer, RowWrite, StateStore,
    TableKind, TableSpec,
};

fn table(name: &str, kind: TableKind) -> TableSpec {
    let column = |name: &str, kind, nullable| ColumnSpec {
        name: name.to_owned(),
        kind,
        nullable,
    };
    TableSpec {
        name: name.to_owned(),
        kind,
        columns: vec![
            column("place", ColumnKind::Integer, false),
            column("word", ColumnKind::Text, true),
        ],
        key: vec!["place".to_owned()],
        indexes: vec![],
    }
}

fn rows(places: &[i64], word: &str) -> Vec<Column> {
    let ends = (1..=places.len())
        .map(|n| (n * word.len()) as u32)
        .collect();
    let words = ColumnData::Texts {
        ends,
        bytes: word.repeat(places.len()).into_bytes(),
    };
    vec![ColumnData::Integers(places.to_vec()).into(), words.into()]
}

fn space(folder: &std::path::Path) -> LaneSpace {
    let store = StateStore::open(&folder.join("state"), 1 << 20).unwrap();
    LaneSpace {
        state: store.lane("a").unwrap(),
        rows: RowBuffer::new(&[
            table("seen", TableKind::Anchored),
            table("now", TableKind::Volatile),
        ]),
    }
}

fn cursor(height: u32) -> Cursor {
    Cursor {
        height,
        hash: [height as u8; 32],
    }
}

#[test]
fn the_outcome_is_what_the_block_changed_whether_the_state_is_in_memory_or_on_disk() {
    for flush in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let mut space = space(folder.path());
        space.state.begin_block();
        for key in [b"kept", b"gone", b"back", b"same"] {
            space.state.put(key, b"1").unwrap();
        }
        space.state.commit_block(cursor(0), true).unwrap();
        space.rows.append(0, 0, &rows(&[9], "old")).unwrap();
        space.rows.commit_block();
        if flush {
            space.state.flush().unwrap();
        }

        space.state.begin_block();
        space.rows.begin_block();
        space.state.put(b"new", b"2").unwrap();
        space.state.put(b"kept", b"2").unwrap();
        space.state.put(b"kept", b"3").unwrap();
        space.state.delete(b"gone").unwrap();
        // None of these has an effect.
        space.state.delete(b"never").unwrap();
        space.state.take(b"back").unwrap();
        space.state.put(b"back", b"1").unwrap();
        space.state.put(b"same", b"1").unwrap();
        space.state.put(b"brief", b"1").unwrap();
        space.state.delete(b"brief").unwrap();
        space.rows.append(0, 1, &rows(&[1, 2], "x")).unwrap();
        space.rows.put(1, rows(&[3], "y")).unwrap();
        space
            .rows
            .delete(1, vec![ColumnData::Integers(vec![3]).into()])
            .unwrap();

        let outcome = Outcome::of(&space, &Ok(None)).unwrap();
        let expected: [(&[u8], Option<&[u8]>); 3] =
            [(b"gone", None), (b"kept", Some(b"3")), (b"new", Some(b"2"))];
        let found: Vec<(&[u8], Option<&[u8]>)> = outcome
            .state
            .iter()
            .map(|(key, value)| (key.as_slice(), value.as_deref()))
            .collect();
        assert_eq!(found, expected, "flushed: {flush}");
        assert_eq!(
            outcome.rows[0].writes.len(),
            2,
            "not those of the block before"
        );
        let place = |write: &RowWrite| write.values[0].clone();
        assert_eq!(place(&outcome.rows[0].writes[1]), SqlValue::Integer(2));
        let actions: Vec<RowAction> = outcome.rows[1].writes.iter().map(|w| w.action).collect();
        assert_eq!(actions, [RowAction::Put, RowAction::Delete]);

        let failed = CallError::Invalid("no".to_owned());
        let outcome = Outcome::of(&space, &Err(failed)).unwrap();
        assert!(outcome.state.is_empty() && outcome.rows.is_empty());
        assert_eq!(outcome.error.unwrap(), "the block is not valid: no");
    }
}

fn outcome(state: &[(&str, Option<&[u8]>)], places: &[i64], word: &str) -> Outcome {
    let mut buffer = RowBuffer::new(&[table("seen", TableKind::Anchored)]);
    buffer.begin_block();
    buffer.append(0, 1, &rows(places, word)).unwrap();
    Outcome {
        state: state
            .iter()
            .map(|(key, value)| (key.as_bytes().to_vec(), value.map(<[u8]>::to_vec)))
            .collect(),
        rows: buffer.block_rows(),
        spent: None,
        error: None,
    }
}

#[test]
fn what_is_the_same_has_no_difference() {
    let one = outcome(&[("a", Some(b"1")), ("b", None)], &[1, 2], "x");
    assert_eq!(one.difference(&one.clone()), None);
    let mut nan = one.clone();
    nan.rows[0].writes[0].values[1] = SqlValue::Real(f64::NAN);
    assert_eq!(nan.difference(&nan.clone()), None);
    let mut zero = nan.clone();
    zero.rows[0].writes[0].values[1] = SqlValue::Real(0.0);
    let mut minus = nan.clone();
    minus.rows[0].writes[0].values[1] = SqlValue::Real(-0.0);
    assert!(zero.difference(&minus).is_some());
}

#[test]
fn the_first_differences_are_shown_and_all_are_counted() {
    let keys: Vec<String> = (0..9).map(|n| format!("key{n}")).collect();
    let set: Vec<(&str, Option<&[u8]>)> = keys
        .iter()
        .map(|key| (key.as_str(), Some(&b"1"[..])))
        .collect();
    let a = outcome(&set, &[1, 2, 3, 4, 5, 6], "x");
    let mut b = outcome(&set[1..], &[1, 2, 9], "y");
    b.state.insert(b"key3".to_vec(), None);
    b.state.insert(b"key4".to_vec(), Some(b"2".to_vec()));
    b.state.insert(b"key9".to_vec(), Some(vec![]));
    let difference = a.difference(&b).unwrap();
    let state = difference.state.clone().unwrap();
    assert_eq!(
        (state.keys, state.first_changed, state.second_changed),
        (4, 9, 9)
    );
    let shown: Vec<(&str, &str)> = state
        .first_keys
        .iter()
        .map(|key| (key.first.as_str(), key.second.as_str()))
        .collect();
    let expected = [
        ("31", "not changed"),
        ("31", "removed"),
        ("31", "32"),
        ("not changed", "an empty value"),
    ];
    assert_eq!(shown, expected);
    let table = &difference.tables[0];
    assert_eq!(
        (table.first_rows, table.second_rows, table.rows),
        (Some(6), Some(3), 6)
    );
    assert_eq!(table.first_differing.len(), 3);
    let text = difference.named("old.wasm", "new.wasm").to_string();
    for line in [
        "state: 4 keys differ (9 and 9 changed)\n",
        "  key 6b657933\n    old.wasm  31\n    new.wasm  removed\n",
        "table seen: 6 rows differ\n    old.wasm  6 rows\n    new.wasm  3 rows\n",
        "  row 0\n    old.wasm  place=1 word=\"x\"\n    new.wasm  place=1 word=\"y\"\n",
        "  and 3 rows more\n",
    ] {
        assert!(text.contains(line), "{line:?} in\n{text}");
    }
    let json = serde_json::to_value(&difference).unwrap();
    assert_eq!(json["state"]["first_keys"][1]["second"], "removed");
    assert_eq!(json["tables"][0]["rows"], 6);
    assert!(json.get("spent").is_none());
}

#[test]
fn long_values_are_shown_where_they_differ() {
    let mut long = vec![0; 1000];
    let a = outcome(&[("k", Some(&long))], &[], "");
    long[700] = 1;
    let b = outcome(&[("k", Some(&long))], &[], "");
    let shown = a
        .difference(&b)
        .unwrap()
        .state
        .unwrap()
        .first_keys
        .remove(0);
    assert!(
        shown.second.starts_with("…000000000000000001"),
        "{}",
        shown.second
    );
    assert!(
        shown.second.ends_with("… (1000 bytes, from byte 692 on)"),
        "{}",
        shown.second
    );
}

#[test]
fn a_missing_table_and_other_columns_are_differences_once_they_have_rows() {
    let a = outcome(&[], &[1], "x");
    let none = Outcome::default();
    let shown = a.difference(&none).unwrap().to_string();
    assert!(shown.contains("second  no such table"), "{shown}");
    assert!(none.difference(&a).is_some());
    assert_eq!(outcome(&[], &[], "x").difference(&none), None);
    let mut renamed = a.clone();
    renamed.rows[0].columns[1] = "term".to_owned();
    let shown = a.difference(&renamed).unwrap().to_string();
    assert!(shown.contains("place=1 term=\"x\""), "{shown}");
}

#[test]
fn a_failed_call_is_compared_by_its_error_alone() {
    let a = outcome(&[("a", None)], &[1], "x");
    let failed = Outcome {
        error: Some("it trapped".to_owned()),
        ..Outcome::default()
    };
    let difference = a.difference(&failed).unwrap();
    assert!(difference.state.is_none() && difference.tables.is_empty());
    let shown = difference.to_string();
    assert!(shown.contains("second  failed: it trapped"), "{shown}");
    assert_eq!(failed.difference(&failed.clone()), None);
}

#[test]
fn the_first_input_with_another_spent_output_is_named() {
    let spent = |value| Spent {
        values: vec![0, 7, value],
        script_ends: vec![0, 1, 2],
        scripts: vec![0x51, 0x52],
        heights: vec![0, 3, 4],
        coinbases: vec![0, 1, 0],
    };
    let with = |spent| Outcome {
        spent,
        ..Outcome::default()
    };
    let (a, b) = (with(Some(spent(5))), with(Some(spent(6))));
    let difference = a.difference(&b).unwrap().spent.unwrap();
    assert_eq!(difference.input, 2);
    assert_eq!(difference.first.unwrap(), "5 sat of block 4, script 52");
    let difference = a.difference(&with(None)).unwrap();
    assert!(
        difference.to_string().contains("second  nothing"),
        "{difference}"
    );
}
