//! State that is made after other state was removed, and after a restart in between, is there at the restart after that.
//!
//! fjall 3.1 gave the new keyspace the number of the removed one, and hid it behind the removal at the next start: a plugin whose
//! second set was dropped, and made again in a later run, lost its state.

use super::cursor;
use crate::store::{StateStore, StoreError};

#[test]
fn state_made_after_a_removal_survives_restarts() {
    for bulk in [1, usize::MAX] {
        let folder = tempfile::tempdir().unwrap();
        let open = || StateStore::open(folder.path(), 1 << 20).unwrap();
        let write = |store: &StateStore, value: u8| {
            let mut lane = store.lane("a").unwrap();
            lane.set_bulk_changes(bulk);
            lane.begin_block();
            lane.put(b"key", &[value]).unwrap();
            lane.commit_block(cursor(0, value), true).unwrap();
            lane.flush().unwrap();
        };
        for value in 0..4 {
            write(&open(), value);
            {
                let view = open().snapshot("a").unwrap().expect("it is there");
                assert_eq!(view.get(b"key").unwrap().as_deref(), Some(&[value][..]));
                assert_eq!(view.cursor(), Some(cursor(0, value)));
            }
            let store = open();
            assert_eq!(store.names(), ["a"]);
            store.remove("a").unwrap();
            assert!(store.names().is_empty(), "{:?}", store.names());
        }
    }
}

#[test]
fn a_state_is_loaded_as_a_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let open = || StateStore::open(folder.path(), 1 << 20).unwrap();
    {
        let store = open();
        let mut lane = store.lane("a").unwrap();
        let failed: Result<(), StoreError> = lane.load(cursor(9, 1), |loading| {
            loading.put(b"a", b"1")?;
            loading.put(b"b", b"2")?;
            // Not in order.
            loading.put(b"ab", b"3")
        });
        assert!(failed.is_err());
        assert_eq!(lane.cursor(), None);
        assert!(lane.get(b"a").unwrap().is_none());
    }
    {
        let store = open();
        let mut lane = store.lane("a").unwrap();
        assert_eq!(lane.cursor(), None);
        lane.load(cursor(9, 1), |loading| -> Result<(), StoreError> {
            loading.put(b"a", b"1")?;
            loading.put(b"b", b"2")?;
            assert_eq!(loading.count(), 2);
            Ok(())
        })
        .unwrap();
        assert_eq!(lane.get(b"b").unwrap().as_deref(), Some(&b"2"[..]));
    }
    let store = open();
    let mut lane = store.lane("a").unwrap();
    assert_eq!(lane.cursor(), Some(cursor(9, 1)));
    assert_eq!(lane.get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
    // What was loaded cannot be taken back, what came after can.
    lane.begin_block();
    lane.put(b"a", b"4").unwrap();
    lane.commit_block(cursor(10, 1), true).unwrap();
    assert_eq!(lane.rewind(9).unwrap(), Some(cursor(9, 1)));
    assert_eq!(lane.get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
    assert!(lane.rewind(8).is_err());
}
