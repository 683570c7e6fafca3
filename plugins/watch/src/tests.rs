//! Collections over made-up blocks and pools.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use blockmill_sdk::testing::bitcoin::{Block, Transaction as Tx, Txid};
use blockmill_sdk::testing::{Cell, Harness, PoolTransaction, chain};
use blockmill_sdk::{Json, QueryError, json};
use utxo_tracker::UtxoTracker;

use super::*;
use crate::definition::BROADCAST;

const ALICE: &str = "00140101010101010101010101010101010101010101";
const BOB: &str = "00140202020202020202020202020202020202020202";
const CAROL: &str = "00140303030303030303030303030303030303030303";

struct Chain {
    coins: Harness<UtxoTracker>,
    watch: Harness<Watch>,
}

impl Chain {
    /// A chain whose first coinbase is ripe.
    fn new(settings: Json) -> Self {
        let mut chain = Chain {
            coins: Harness::new(json!({})),
            watch: Harness::new(settings),
        };
        for _ in 1..=101 {
            chain.block(vec![]);
        }
        chain
    }

    fn block(&mut self, transactions: Vec<Tx>) -> Block {
        let height = self.coins.height().map_or(1, |height| height + 1);
        let block = chain::block(chain::hash(1), height, 1_000, transactions);
        let spent = self.coins.block(&block).unwrap().spent;
        self.watch.block_with(&block, spent).unwrap();
        block
    }

    fn rollback(&mut self, height: u32) {
        self.coins.rollback(height);
        self.watch.rollback(height);
    }
}

/// A ripe coinbase's output.
fn ripe(height: u32) -> (Txid, u32) {
    (chain::coinbase(height, 1_000).compute_txid(), 0)
}

fn pay(inputs: &[(Txid, u32)], outputs: &[(u64, &str)]) -> Tx {
    let outputs: Vec<(u64, Vec<u8>)> = outputs
        .iter()
        .map(|(value, script)| (*value, hex::decode(script).unwrap()))
        .collect();
    let outputs: Vec<(u64, &[u8])> = outputs
        .iter()
        .map(|(value, script)| (*value, script.as_slice()))
        .collect();
    chain::transaction(inputs, &outputs)
}

fn pooled(transaction: &Tx) -> PoolTransaction {
    PoolTransaction {
        transaction: transaction.clone(),
        fee: 1,
        parents: vec![],
    }
}

/// Collection, direction, place and depth of every row.
fn rows(harness: &Harness<Watch>, table: &str) -> Vec<(String, String, i64, i64)> {
    let text = |cell: &Cell| match cell {
        Cell::Text(text) => text.clone(),
        other => panic!("{other:?}"),
    };
    let number = |cell: &Cell| match cell {
        Cell::Integer(number) => *number,
        other => panic!("{other:?}"),
    };
    let column = |name: &str| harness.column(table, name);
    let mut rows: Vec<_> = column("collection")
        .iter()
        .zip(&column("direction"))
        .zip(column("place").iter().zip(&column("depth")))
        .map(|((collection, direction), (place, depth))| {
            (
                text(collection),
                text(direction),
                number(place),
                number(depth),
            )
        })
        .collect();
    rows.sort();
    rows
}

fn row(collection: &str, direction: &str, place: i64, depth: i64) -> (String, String, i64, i64) {
    (collection.into(), direction.into(), place, depth)
}

#[test]
fn scripts_are_watched_by_address_by_themselves_and_by_pattern() {
    let address = address::from_script(&hex::decode(ALICE).unwrap(), "regtest").unwrap();
    let settings = json!({ "collections": {
        "by-address": { "addresses": [address.as_str()] },
        "by-script": { "scripts": [ALICE, BOB] },
        "by-pattern": { "patterns": ["^0014(01|03)+$"] },
        "by-pattern-of-address": { "patterns": [format!("^{}", &address[..12])] },
    }});
    let mut chain = Chain::new(settings);
    let first = pay(&[ripe(1)], &[(500, ALICE), (300, BOB), (200, CAROL)]);
    chain.block(vec![first.clone()]);
    let expected = [
        row("by-address", "in", 0, 0),
        row("by-pattern", "in", 0, 0),
        row("by-pattern", "in", 2, 0),
        row("by-pattern-of-address", "in", 0, 0),
        row("by-script", "in", 0, 0),
        row("by-script", "in", 1, 0),
    ];
    assert_eq!(rows(&chain.watch, "watch_match"), expected);
    let spend = pay(&[(first.compute_txid(), 1)], &[(300, "51")]);
    chain.block(vec![spend]);
    let mut expected = expected.to_vec();
    expected.push(row("by-script", "out", 0, 0));
    assert_eq!(
        rows(&chain.watch, "watch_match"),
        expected,
        "no descendants were asked for"
    );

    let page = chain
        .watch
        .query("matches", &[("collection", "by-script"), ("limit", "2")])
        .unwrap();
    assert_eq!(page["matches"][0]["direction"], "out");
    assert_eq!(page["matches"][0]["value_sats"], 300);
    assert_eq!(page["matches"][0]["height"], 103);
    assert_eq!(page["matches"][1]["place"], 1);
    let next = page["next"].as_u64().unwrap().to_string();
    let page = chain
        .watch
        .query("matches", &[("collection", "by-script"), ("after", &next)])
        .unwrap();
    assert_eq!(page["matches"].as_array().unwrap().len(), 1);
    assert_eq!(page["matches"][0]["address"], address.as_str());
    assert!(page["next"].is_null());

    chain.rollback(101);
    assert!(chain.watch.rows("watch_match").is_empty());
    let counted = chain
        .watch
        .query("collections", &[("collection", "by-script")])
        .unwrap();
    assert_eq!(counted["collections"][0]["matches"], 0);
    assert_eq!(chain.watch.state().len(), 0);
}

#[test]
fn descendants_are_followed_up_to_the_bounds() {
    let settings = json!({
        "max_depth": 2,
        "max_followed": 3,
        "collections": { "family": { "scripts": [ALICE], "descendants": true } },
    });
    let mut chain = Chain::new(settings);
    let first = pay(&[ripe(1)], &[(1_000, ALICE)]);
    let second = pay(&[(first.compute_txid(), 0)], &[(500, BOB), (500, CAROL)]);
    // All in one block: the outputs of the one before are followed at once.
    chain.block(vec![first.clone(), second.clone()]);
    let third = pay(&[(second.compute_txid(), 1)], &[(500, "51")]);
    chain.block(vec![third.clone()]);
    let fourth = pay(&[(third.compute_txid(), 0)], &[(500, "52")]);
    chain.block(vec![fourth]);
    let family = |direction, place, depth| row("family", direction, place, depth);
    let expected = [
        family("in", 0, 0),
        family("in", 0, 1),
        family("in", 0, 2),
        family("in", 1, 1),
        family("out", 0, 0),
        family("out", 0, 1),
        family("out", 0, 2),
    ];
    assert_eq!(
        rows(&chain.watch, "watch_match"),
        expected,
        "two transactions far and no further"
    );
    // BOB's is left.
    assert_eq!(
        chain
            .watch
            .state()
            .keys()
            .filter(|key| key[0] == b'F')
            .count(),
        1
    );

    // A fresh instance knows what was followed.
    chain.watch.restart();
    let many = pay(
        &[(second.compute_txid(), 0)],
        &[(100, "51"), (100, "52"), (100, "53"), (100, "54")],
    );
    chain.block(vec![many]);
    assert_eq!(
        chain
            .watch
            .state()
            .keys()
            .filter(|key| key[0] == b'F')
            .count(),
        3,
        "max_followed"
    );
    assert!(
        chain
            .watch
            .log()
            .iter()
            .any(|line| line.contains("one more is not followed"))
    );
    chain.rollback(103);
    assert_eq!(
        chain
            .watch
            .state()
            .keys()
            .filter(|key| key[0] == b'F')
            .count(),
        2
    );
}

#[test]
fn the_pool_is_watched_with_descendants_until_it_confirms_or_leaves() {
    let settings =
        json!({ "collections": { "family": { "scripts": [ALICE], "descendants": true } }});
    let mut chain = Chain::new(settings);
    let first = pay(&[ripe(1)], &[(1_000, ALICE)]);
    chain.block(vec![first.clone()]);
    let unheard = chain
        .watch
        .query("unconfirmed", &[("collection", "family")])
        .unwrap();
    assert!(unheard["count"].is_null());

    let second = pay(&[(first.compute_txid(), 0)], &[(1_000, BOB)]);
    let third = pay(&[(second.compute_txid(), 0)], &[(900, CAROL)]);
    let other = pay(&[ripe(2)], &[(7, BOB)]);
    chain
        .watch
        .mempool(&[], &[pooled(&second), pooled(&third), pooled(&other)])
        .unwrap();
    let family = |direction, place, depth| row("family", direction, place, depth);
    let both = [
        family("in", 0, 1),
        family("in", 0, 2),
        family("out", 0, 0),
        family("out", 0, 1),
    ];
    assert_eq!(rows(&chain.watch, "watch_pool"), both);
    let answer = chain
        .watch
        .query("unconfirmed", &[("collection", "family")])
        .unwrap();
    assert_eq!(answer["count"], 4);
    assert_eq!(answer["matches"].as_array().unwrap().len(), 4);

    // Told again, it is there once.
    chain.watch.mempool(&[], &[pooled(&third)]).unwrap();
    assert_eq!(rows(&chain.watch, "watch_pool"), both);
    // Replaced: gone, and so is what it led to.
    chain
        .watch
        .mempool(&[(third.compute_txid(), 2)], &[])
        .unwrap();
    assert_eq!(
        rows(&chain.watch, "watch_pool"),
        [family("in", 0, 1), family("out", 0, 0)]
    );

    chain.block(vec![second.clone()]);
    chain
        .watch
        .mempool(&[(second.compute_txid(), 0)], &[])
        .unwrap();
    assert!(chain.watch.rows("watch_pool").is_empty());
    assert_eq!(
        chain
            .watch
            .query("unconfirmed", &[("collection", "family")])
            .unwrap()["count"],
        0
    );
    let confirmed = [family("in", 0, 0), family("in", 0, 1), family("out", 0, 0)];
    assert_eq!(rows(&chain.watch, "watch_match"), confirmed);

    // After a reorg it is in the pool again.
    chain.rollback(102);
    chain.watch.mempool(&[], &[pooled(&second)]).unwrap();
    assert_eq!(rows(&chain.watch, "watch_match"), [family("in", 0, 0)]);
    assert_eq!(
        rows(&chain.watch, "watch_pool"),
        [family("in", 0, 1), family("out", 0, 0)]
    );
}

#[test]
fn the_owner_changes_collections_while_it_runs_and_nobody_else_does() {
    let mut chain = Chain::new(json!({ "collections": { "fixed": { "scripts": [BOB] } } }));
    let add = [
        ("collection", "mine"),
        ("script", ALICE),
        ("descendants", "true"),
    ];
    let stranger = catch_unwind(AssertUnwindSafe(|| {
        Chain::new(json!({})).watch.query("add", &add)
    }));
    assert!(stranger.is_err(), "a stranger's query ends there");

    let answer = chain.watch.change("add", &add).unwrap();
    assert_eq!(answer["collection"], "mine");
    let first = pay(&[ripe(1)], &[(500, ALICE), (500, BOB)]);
    chain.block(vec![first.clone()]);
    assert_eq!(
        rows(&chain.watch, "watch_match"),
        [row("fixed", "in", 1, 0), row("mine", "in", 0, 0)]
    );
    // A reorg does not take the collection back.
    chain.rollback(101);
    chain.block(vec![first]);
    assert_eq!(rows(&chain.watch, "watch_match").len(), 2);

    // What the plugin does not take changes nothing.
    let bad = [
        vec![("collection", "mine"), ("script", "5")],
        vec![
            ("collection", "mine"),
            ("address", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"),
        ],
        vec![("collection", "mine"), ("pattern", "(")],
        vec![("collection", "mine"), ("txid", "12")],
        vec![("collection", "Mine"), ("script", "51")],
        vec![("collection", "mine")],
        vec![("collection", "mine"), ("scrypt", "51")],
        vec![("collection", "mine"), ("descendants", "maybe")],
    ];
    let before = chain
        .watch
        .query("collections", &[("collection", "mine")])
        .unwrap();
    for params in bad {
        let refused = chain.watch.change("add", &params);
        assert!(
            matches!(refused, Err(QueryError::BadRequest(_))),
            "{params:?}: {refused:?}"
        );
    }
    assert_eq!(
        chain
            .watch
            .query("collections", &[("collection", "mine")])
            .unwrap(),
        before
    );

    // A transaction, in the collection that is always there.
    let sent = pay(&[ripe(2)], &[(900, CAROL)]);
    let txid = sent.compute_txid().to_string();
    chain
        .watch
        .change("add", &[("collection", BROADCAST), ("txid", &txid)])
        .unwrap();
    chain.watch.mempool(&[], &[pooled(&sent)]).unwrap();
    assert_eq!(
        rows(&chain.watch, "watch_pool"),
        [row(BROADCAST, "tx", 0, 0)]
    );

    let fixed = chain
        .watch
        .change("remove", &[("collection", "fixed"), ("script", BOB)]);
    assert!(
        matches!(fixed, Err(QueryError::BadRequest(_))),
        "what the configuration names stays: {fixed:?}"
    );
    chain
        .watch
        .change("remove", &[("collection", "mine"), ("script", ALICE)])
        .unwrap();
    let gone = chain.watch.query("matches", &[("collection", "mine")]);
    assert!(matches!(gone, Err(QueryError::NotFound(_))));
    chain
        .watch
        .change("remove", &[("collection", BROADCAST)])
        .unwrap();
    let left = chain.watch.query("collections", &[]).unwrap();
    assert_eq!(left["collections"].as_array().unwrap().len(), 2);
}

#[test]
fn only_the_last_matches_are_kept_for_queries() {
    let mut chain =
        Chain::new(json!({ "keep_matches": 3, "collections": { "all": { "patterns": ["^51$"] } }}));
    for _ in 0..4 {
        chain.block(vec![]);
    }
    assert_eq!(
        chain
            .watch
            .state()
            .keys()
            .filter(|key| key[0] == b'M')
            .count(),
        3
    );
    let page = chain
        .watch
        .query("matches", &[("collection", "all")])
        .unwrap();
    assert_eq!(page["matches"].as_array().unwrap().len(), 3);
    assert_eq!(page["matches"][0]["height"], 105);
    // Blocks that left the ring are still rows.
    assert_eq!(chain.watch.rows("watch_match").len(), 105);
}

#[test]
fn the_pool_has_a_bound() {
    let mut watch =
        Harness::<Watch>::new(json!({ "collections": { "all": { "patterns": ["^51$"] } }}));
    let (from, _) = ripe(1);
    let added: Vec<PoolTransaction> = (0..6_000)
        .map(|vout| pooled(&pay(&[(from, vout)], &[(1, "51")])))
        .collect();
    watch.mempool(&[], &added).unwrap();
    assert_eq!(watch.rows("watch_pool").len(), MAX_POOL_MATCHES);
    let answer = watch
        .query("unconfirmed", &[("collection", "all")])
        .unwrap();
    assert_eq!(answer["count"], MAX_POOL_MATCHES);
    assert_eq!(answer["left_out"], 1_000);
    assert_eq!(answer["matches"].as_array().unwrap().len(), MAX_LISTED);
}

#[test]
fn wrong_settings_are_named() {
    let wrong = [
        (json!({ "collections": [] }), "table"),
        (json!({ "collections": { "A": {} } }), "`A`"),
        (json!({ "collections": { "a": [] } }), "`a`"),
        (
            json!({ "collections": { "a": { "address": [] } } }),
            "`address`",
        ),
        (
            json!({ "collections": { "a": { "scripts": "51" } } }),
            "`scripts`",
        ),
        (
            json!({ "collections": { "a": { "scripts": [51] } } }),
            "`scripts`",
        ),
        (
            json!({ "collections": { "a": { "scripts": ["5x"] } } }),
            "`5x`",
        ),
        (
            json!({ "collections": { "a": { "patterns": ["["] } } }),
            "`[`",
        ),
        (
            json!({ "collections": { "a": { "patterns": ["(a{99}){99}"] } } }),
            "too large",
        ),
        (
            json!({ "collections": { "a": { "patterns": ["a".repeat(257)] } } }),
            "256",
        ),
        (
            json!({ "collections": { "a": { "descendants": 1 } } }),
            "descendants",
        ),
        (json!({ "max_depth": 256 }), "max_depth"),
        (json!({ "max_followed": 100_001 }), "max_followed"),
        (json!({ "keep": 1 }), "`keep`"),
        (json!({ "runtime": 1 }), "runtime"),
    ];
    for (settings, named) in wrong {
        let text = settings.to_string();
        let error = Harness::<Watch>::try_on("regtest", settings).err();
        assert!(
            error.as_ref().is_some_and(|error| error.contains(named)),
            "{text}: {error:?}"
        );
    }
}

#[test]
fn every_query_is_bounded() {
    let mut watch = Harness::<Watch>::new(json!({}));
    let mut refused = |path: &str, params: &[(&str, &str)]| match watch.query(path, params) {
        Err(QueryError::NotFound(_)) => 404,
        Err(QueryError::BadRequest(_)) => 400,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused("matches", &[]), 400);
    assert_eq!(refused("matches", &[("collection", "x")]), 404);
    assert_eq!(
        refused("matches", &[("collection", BROADCAST), ("limit", "1001")]),
        400
    );
    assert_eq!(
        refused("matches", &[("collection", BROADCAST), ("limit", "0")]),
        400
    );
    assert_eq!(
        refused("unconfirmed", &[("collection", BROADCAST), ("limit", "1")]),
        400
    );
    assert_eq!(refused("nothing", &[]), 404);
    let page = watch
        .query("matches", &[("collection", BROADCAST)])
        .unwrap();
    assert_eq!(page["matches"], json!([]));
}

#[test]
fn blocks_in_parts_leave_the_same_matches_as_whole_ones() {
    let settings = json!({ "max_depth": 3, "keep_matches": 4, "collections": {
        "alice": { "scripts": [ALICE], "descendants": true },
        "short": { "patterns": ["^51$"] },
    }});
    for size in [1, 2, 3, 20] {
        let mut whole = Chain::new(settings.clone());
        let mut parts = Chain::new(settings.clone());
        for n in 0..4 {
            let first = pay(&[ripe(1 + n)], &[(500, ALICE), (300, BOB), (200, CAROL)]);
            let mut transactions = vec![first.clone()];
            let mut end = (first.compute_txid(), 0);
            // What a part follows, a later one spends.
            for n in 0..5 {
                let next = pay(&[end], &[(400 - 60 * n, BOB), (50, "51")]);
                end = (next.compute_txid(), 0);
                transactions.push(next);
            }
            transactions.push(pay(&[(first.compute_txid(), 2)], &[(100, "51")]));
            let block = whole.block(transactions);
            let spent = parts.coins.parts(&block, size, &[]).unwrap();
            let spent: Vec<_> = spent.into_iter().map(|part| part.spent.unwrap()).collect();
            parts.watch.parts(&block, size, &spent).unwrap();
            // A fresh instance goes on from the state.
            if n == 2 {
                parts.watch.restart();
                whole.watch.restart();
            }
        }
        assert_eq!(parts.watch.state(), whole.watch.state(), "{size}");
        let found = whole.watch.rows("watch_match");
        assert_eq!(parts.watch.rows("watch_match"), found, "{size}");
        assert!(found.len() > 60, "{}", found.len());
        assert_eq!(
            parts.watch.value("followed_outputs"),
            whole.watch.value("followed_outputs")
        );
        let params = [("collection", "short")];
        assert_eq!(
            parts.watch.query("matches", &params).unwrap(),
            whole.watch.query("matches", &params).unwrap()
        );
        parts.rollback(102);
        whole.rollback(102);
        assert_eq!(parts.watch.state(), whole.watch.state(), "{size}");
    }
}
