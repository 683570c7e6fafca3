//! The harness keeps the host's rules.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Cell, Harness, PoolTransaction, chain};
use crate::prelude::{
    Block, BlockAnswer, BlockError, Descriptor, Map, MempoolChanges, Params, Processor, QueryError,
    Seen, Single, StartInfo, Transaction, hex, json, log, rows, state, values, volatile,
};
use crate::rows::{Amount, Boolean, Bytes, Column, Hash, Integer, Nullable, Real, Text, Time};
use crate::state::Keys;
use crate::{Json, Pieces, Removal, WantedColumns};

crate::table! {
    /// One row a transaction.
    pub table Seens of SeenRow: Anchored "seen" {
        position: Integer,
        txid: Hash,
        value: Amount,
        first: Boolean,
        fee: Nullable<Amount>,
        script: Nullable<Bytes>,
    }
    key [position];
    indexes [[txid], [value, position]];
}

crate::table! {
    /// One row a transaction of the pool.
    pub table Pool of PoolRow: Volatile "pool" {
        txid: Hash,
        rate: Real,
        seen: Time,
        name: Text,
    }
    key [txid];
    indexes [];
}

const COUNT: Single<u64> = Single::new(b"count");
const BY_HEIGHT: Map<u32, (u64, String)> = Map::new(b"h");

/// Does a bit of everything, and what `do` in its settings says.
struct Busy {
    seen: Seens,
    pool: Pool,
    deed: String,
    count: u64,
    gone: Vec<Removal>,
}

impl Processor for Busy {
    fn describe() -> Descriptor {
        Descriptor::new("busy", "1.2.3", "Does a bit of everything")
            .state_version(4)
            .wants(WantedColumns::OUTPUTS)
            .wants_mempool()
            .table::<Seens>()
            .table::<Pool>()
    }

    fn start(info: &StartInfo) -> Result<Self, String> {
        let mut settings = info.settings()?;
        let deed = settings.text("do", "")?;
        settings.number("number", 3)?;
        settings.numbers("numbers", &[1])?;
        settings.finish()?;
        let count = COUNT.get()?.unwrap_or(0);
        Ok(Busy {
            seen: Seens::of::<Self>(),
            pool: Pool::of::<Self>(),
            deed,
            count,
            gone: vec![],
        })
    }

    fn begin_block(&mut self, block: &Block) -> Result<(), BlockError> {
        assert!(
            block.input_columns().is_none() && block.raw().is_none(),
            "only what was asked for is given"
        );
        self.seen.clear();
        Ok(())
    }

    fn on_transaction(&mut self, tx: &Transaction<'_>, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Block(block) => {
                self.count += 1;
                state::put(
                    &[b"t".as_slice(), tx.txid()].concat(),
                    &block.height().to_le_bytes(),
                );
                self.seen.push(SeenRow {
                    position: tx.position() as i64,
                    txid: tx.txid(),
                    value: tx.output_value(),
                    first: tx.is_coinbase(),
                    fee: tx.fee(),
                    script: tx.outputs().next().map(|output| output.script()),
                });
            }
            Seen::Pool(entry) => self.pool.push(PoolRow {
                txid: tx.txid(),
                rate: entry.fee() as f64 / f64::from(entry.vsize()),
                seen: entry.first_seen(),
                name: &format!("{} parents", entry.parents().len()),
            }),
        }
        Ok(())
    }

    fn end_block(&mut self, block: &Block) -> Result<(), BlockError> {
        self.seen.flush();
        COUNT.put(&self.count);
        BY_HEIGHT.put(
            &block.height(),
            &(self.count, format!("block {}", block.height())),
        );
        values::set("count", self.count as f64);
        values::push("counts", self.count as f64);
        log::info("a block");
        match self.deed.as_str() {
            "fail" if block.height() == 3 => return Err("told to".into()),
            "wide key" => state::put(&[7; 256], b""),
            "no key" => state::put(&[], b""),
            "undeclared" => rows::append(7, &[]),
            "wrong kind" => rows::append(1, &[]),
            "columns" => rows::append(0, &[Column::integers(vec![1])]),
            "lengths" => state::put_many(&Keys::any(), &[b"x"].iter().collect()),
            "name" => values::set("Über", 1.0),
            _ => {}
        }
        Ok(())
    }

    fn on_removed(&mut self, txid: &[u8; 32], reason: Removal) -> Result<(), String> {
        self.gone.push(reason);
        self.pool.delete(&[Column::hashes(txid.to_vec())]);
        Ok(())
    }

    fn on_mempool(&mut self, changes: &MempoolChanges) -> Result<(), String> {
        if self.deed == "write in mempool" {
            state::put(b"x", b"");
        }
        for (txid, reason) in changes.removed() {
            self.on_removed(txid, reason)?;
        }
        for entry in changes.added() {
            self.on_transaction(entry.transaction(), &Seen::Pool(&entry))?;
        }
        self.pool.flush();
        volatile::put(b"time", &changes.time().to_le_bytes());
        Ok(())
    }

    fn query(&self, path: &str, params: &Params) -> Result<Json, QueryError> {
        match path {
            "count" => Ok(
                json!({ "count": self.count, "after": params.number::<u64>("plus")?.unwrap_or(0) + self.count }),
            ),
            "write" => {
                state::put(b"x", b"");
                Ok(Json::Null)
            }
            "heights" => {
                let mut heights = Vec::new();
                BY_HEIGHT.each(|height, (count, _)| {
                    heights.push(json!([height, count]));
                    true
                })?;
                Ok(heights.into())
            }
            "tx" => Ok(json!(hex::display(&params.hash("txid")?))),
            _ => Err(QueryError::NotFound("no such thing".into())),
        }
    }
}

/// Blocks 1 to `count` with two transactions each.
fn feed(harness: &mut Harness<Busy>, count: u32) {
    let from = harness.height().unwrap_or(0) + 1;
    for height in from..from + count {
        let payment = chain::transaction(&[], &[(u64::from(height), &[0x51])]);
        harness
            .block(&chain::block(
                chain::hash(height as u8),
                height,
                50,
                vec![payment],
            ))
            .unwrap();
    }
}

#[test]
fn a_block_leaves_state_rows_and_values() {
    let mut harness = Harness::<Busy>::new(json!({}));
    feed(&mut harness, 2);
    assert_eq!(harness.height(), Some(2));
    assert_eq!(harness.rows("seen").len(), 4);
    assert_eq!(
        harness.column("seen", "height"),
        [1, 1, 2, 2].map(Cell::Integer)
    );
    assert_eq!(
        harness.column("seen", "value"),
        [50, 1, 50, 2].map(Cell::Integer)
    );
    assert_eq!(
        harness.column("seen", "first"),
        [1, 0, 1, 0].map(Cell::Integer)
    );
    assert!(
        harness
            .column("seen", "fee")
            .iter()
            .all(|fee| *fee == Cell::Null)
    );
    assert_eq!(harness.column("seen", "script")[1], Cell::Bytes(vec![0x51]));
    assert_eq!(harness.value("count"), Some(4.0));
    assert_eq!(harness.series("counts"), [(1, 2.0), (2, 4.0)]);
    assert_eq!(
        harness.log(),
        ["Level::Info a block", "Level::Info a block"]
    );
    assert_eq!(
        harness.query("count", &[("plus", "5")]),
        Ok(json!({ "count": 4, "after": 9 }))
    );
    assert_eq!(harness.query("heights", &[]), Ok(json!([[1, 2], [2, 4]])));
}

#[test]
fn a_rollback_leaves_what_a_fresh_run_to_there_leaves() {
    let mut harness = Harness::<Busy>::new(json!({}));
    feed(&mut harness, 5);
    harness.rollback(2);
    assert_eq!(harness.plugin().count, 4);
    let mut fresh = Harness::<Busy>::new(json!({}));
    feed(&mut fresh, 2);
    assert_eq!(harness.state(), fresh.state());
    assert_eq!(harness.rows("seen"), fresh.rows("seen"));
    feed(&mut harness, 3);
    feed(&mut fresh, 3);
    assert_eq!(harness.state(), fresh.state());
    assert_eq!(harness.rows("seen"), fresh.rows("seen"));
}

#[test]
fn a_failed_block_leaves_nothing_behind() {
    let mut harness = Harness::<Busy>::new(json!({ "do": "fail" }));
    feed(&mut harness, 2);
    let (state, rows) = (harness.state().clone(), harness.rows("seen").to_vec());
    let error = harness
        .block(&chain::block(chain::hash(3), 3, 50, vec![]))
        .unwrap_err();
    assert_eq!(error, BlockError::Failed("told to".into()));
    assert_eq!(
        (harness.state(), harness.rows("seen")),
        (&state, rows.as_slice())
    );
    assert_eq!((harness.height(), harness.plugin().count), (Some(2), 4));
}

#[test]
fn the_pool_is_given_and_forgotten() {
    let mut harness = Harness::<Busy>::new(json!({}));
    feed(&mut harness, 1);
    harness.time = 77;
    let first = chain::transaction(&[], &[(9, &[])]);
    let second = chain::transaction(&[(first.compute_txid(), 0)], &[(8, &[])]);
    let entry = |transaction: &bitcoin::Transaction, parents| PoolTransaction {
        transaction: transaction.clone(),
        fee: 1_000,
        parents,
    };
    harness
        .mempool(
            &[],
            &[
                entry(&first, vec![]),
                entry(&second, vec![first.compute_txid()]),
            ],
        )
        .unwrap();
    assert_eq!(
        harness.column("pool", "name"),
        ["0 parents", "1 parents"].map(|text| Cell::Text(text.into()))
    );
    assert_eq!(harness.column("pool", "seen"), [77, 77].map(Cell::Integer));
    assert_eq!(harness.volatile().len(), 1);
    harness
        .mempool(&[(first.compute_txid(), 2)], &[entry(&second, vec![])])
        .unwrap();
    assert_eq!(
        harness.column("pool", "name"),
        [Cell::Text("0 parents".into())]
    );
    assert_eq!(harness.plugin().gone, [Removal::Replaced]);
    harness.restart();
    harness.mempool(&[], &[]).unwrap();
    assert!(
        harness.rows("pool").is_empty(),
        "a reset empties volatile tables"
    );
}

#[test]
fn what_the_host_forbids_stops_the_plugin() {
    let stopped = |deed: &str, call: fn(&mut Harness<Busy>)| {
        let mut harness = Harness::<Busy>::new(json!({ "do": deed }));
        let panic = catch_unwind(AssertUnwindSafe(|| call(&mut harness))).unwrap_err();
        let message = match panic.downcast::<String>() {
            Ok(message) => *message,
            Err(panic) => panic.downcast::<&str>().unwrap().to_string(),
        };
        assert!(message.contains("trap"), "{deed}: {message}");
    };
    for deed in [
        "wide key",
        "no key",
        "undeclared",
        "wrong kind",
        "columns",
        "lengths",
        "name",
    ] {
        stopped(deed, |harness| feed(harness, 1));
    }
    stopped("write in mempool", |harness| {
        harness.mempool(&[], &[]).unwrap()
    });
    stopped("", |harness| drop(harness.query("write", &[])));
}

#[test]
fn settings_with_a_slip_of_the_pen_are_refused() {
    let refused = |settings: Json| {
        Harness::<Busy>::try_on("regtest", settings)
            .map(|_| ())
            .unwrap_err()
    };
    assert_eq!(
        refused(json!({ "di": "x" })),
        "unknown setting `di`: there are do, number, numbers"
    );
    assert_eq!(
        refused(json!({ "do": 1 })),
        "the setting `do` must be a text, and is 1"
    );
    assert!(refused(json!({ "number": -1 })).contains("a whole number"));
    assert!(refused(json!({ "numbers": [1, "x"] })).contains("a list of whole numbers"));
    assert_eq!(refused(json!([])), "the settings are not a table");
}

#[test]
fn parameters_with_a_slip_of_the_pen_are_bad_requests() {
    let mut harness = Harness::<Busy>::new(json!({}));
    feed(&mut harness, 1);
    let mut bad = |path: &str, params: &[(&str, &str)]| match harness.query(path, params) {
        Err(QueryError::BadRequest(message)) => message,
        other => panic!("{other:?}"),
    };
    assert!(bad("count", &[("plus", "-1")]).contains("`plus`"));
    assert!(bad("tx", &[]).contains("`txid` is missing"));
    assert!(bad("tx", &[("txid", "abc")]).contains("64 hexadecimal digits"));
    assert_eq!(
        Params::new(vec![("a".into(), "1".into())]).only(&["a", "b"]),
        Ok(())
    );
    assert!(
        Params::new(vec![("c".into(), "1".into())])
            .only(&["a", "b"])
            .is_err()
    );
}

struct Bare;

impl Processor for Bare {
    fn describe() -> Descriptor {
        Descriptor::new("bare", "0.1.0", "Nothing but a state")
    }
    fn start(_info: &StartInfo) -> Result<Self, String> {
        Ok(Bare)
    }
    fn on_block(&mut self, _block: &Block) -> Result<BlockAnswer, BlockError> {
        let mut keys = Keys::fixed(2);
        let mut values = Pieces::new();
        for n in 0..=255u8 {
            keys.push(&[b'k', n]);
            values.push(&vec![n; usize::from(n % 5)]);
        }
        state::put_many(&keys, &values);
        assert_eq!(keys.len(), 256);
        let found = state::get_many(&keys);
        assert!(
            found
                .iter()
                .enumerate()
                .all(|(n, value)| value == Some(&*vec![n as u8; n % 5]))
        );

        let mut some = Keys::any();
        for key in [b"k\x01".as_slice(), b"k\x01", b"other", b"k\x02"] {
            some.push(key);
        }
        let taken = state::take_many(&some);
        assert_eq!(
            taken.iter().collect::<Vec<_>>(),
            [Some(&[1u8][..]), None, None, Some(&[2, 2])]
        );
        assert_eq!(
            (taken.get(0), taken.get(1), taken.get(4)),
            (Some(&[1u8][..]), None, None)
        );

        let page = state::scan(b"k", Some(b"k\x03"), 2);
        assert_eq!(
            page.iter().map(|(key, _)| key[1]).collect::<Vec<_>>(),
            [4, 5]
        );
        assert!(page.more);
        let mut count = 0;
        state::scan_all(b"k", |_, _| {
            count += 1;
            true
        });
        assert_eq!(count, 254);

        assert_eq!(state::take(b"k\x00"), Some(vec![]));
        assert_eq!(state::get(b"k\x00"), None);
        state::delete(b"k\x04");
        state::delete_many(&some);

        const PAIRS: Map<(u8, [u8; 2]), (bool, i64)> = Map::new(b"p");
        PAIRS.put(&(1, [2, 3]), &(true, -4));
        assert_eq!(PAIRS.get(&(1, [2, 3])), Ok(Some((true, -4))));
        assert_eq!(PAIRS.take(&(1, [2, 3])), Ok(Some((true, -4))));
        assert_eq!(PAIRS.get(&(1, [2, 3])), Ok(None));
        const OTHER: Single<u32> = Single::new(b"p");
        state::put(b"p", b"four!");
        assert!(OTHER.get().unwrap_err().contains("another shape"));
        state::delete(b"p");

        assert_eq!(crate::chain::network(), "regtest");
        Ok(BlockAnswer::none())
    }
}

#[test]
fn the_state_answers_single_and_many_keys() {
    let mut harness = Harness::<Bare>::new(json!({}));
    harness
        .block(&chain::block(chain::hash(1), 1, 50, vec![]))
        .unwrap();
    assert_eq!(harness.state().len(), 252);
    assert_eq!(
        harness.query("x", &[]),
        Err(QueryError::NotFound(
            "this plugin answers no query at `x`".into()
        ))
    );
    harness.rollback(0);
    assert!(harness.state().is_empty());
}
