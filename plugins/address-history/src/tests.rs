//! Histories against what the blocks and the pool themselves say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use blockmill_sdk::testing::bitcoin::consensus::encode::deserialize_hex;
use blockmill_sdk::testing::bitcoin::{Block, Transaction as Tx, Txid};
use blockmill_sdk::testing::{Harness, PoolTransaction, blocks, chain};
use blockmill_sdk::{Json, QueryError, ValueBytes, json};
use utxo_tracker::UtxoTracker;

use super::*;
use crate::entries::{Number, Sats};

/// A script's history: txid, received, sent, in the order of the chain.
type Histories = BTreeMap<Vec<u8>, Vec<(String, u64, u64)>>;

fn unspendable(script: &[u8]) -> bool {
    script.first() == Some(&0x6a)
}

/// What transactions do with each script.
#[derive(Clone, Default)]
struct Ledger {
    outputs: BTreeMap<(Txid, u32), (Vec<u8>, u64)>,
    histories: Histories,
}

impl Ledger {
    fn see(&mut self, tx: &Tx) {
        let txid = tx.compute_txid();
        let mut moved: BTreeMap<Vec<u8>, (u64, u64)> = BTreeMap::new();
        for input in &tx.input {
            let previous = (input.previous_output.txid, input.previous_output.vout);
            if let Some((script, value)) = self.outputs.get(&previous) {
                moved.entry(script.clone()).or_default().1 += value;
            }
        }
        for (vout, output) in (0..).zip(&tx.output) {
            let (script, value) = (output.script_pubkey.to_bytes(), output.value.to_sat());
            self.outputs.insert((txid, vout), (script.clone(), value));
            if !unspendable(&script) {
                moved.entry(script).or_default().0 += value;
            }
        }
        for (script, (received, sent)) in moved {
            let history = self.histories.entry(script).or_default();
            history.push((txid.to_string(), received, sent));
        }
    }

    fn of(blocks: &[Block]) -> Self {
        let mut ledger = Ledger::default();
        // The output of the genesis block is no coin.
        blocks[1..]
            .iter()
            .flat_map(|block| &block.txdata)
            .for_each(|tx| ledger.see(tx));
        ledger
    }
}

struct Both {
    coins: Harness<UtxoTracker>,
    history: Harness<AddressHistory>,
}

impl Both {
    fn new() -> Self {
        Both {
            coins: Harness::new(json!({ "index": true })),
            history: Harness::new(json!({})),
        }
    }

    fn follow(&mut self, blocks: &[Block]) {
        for block in blocks {
            let spent = self.coins.block(block).unwrap().spent;
            self.history.block_with(block, spent).unwrap();
        }
    }

    fn rollback(&mut self, height: u32) {
        self.coins.rollback(height);
        self.history.rollback(height);
    }

    /// Every script's balance and history are those of the ledger, and the balance that of utxo-tracker.
    fn check(&mut self, ledger: &Ledger) {
        for (script, expected) in &ledger.histories {
            let script = hex::encode(script);
            let params = [("script", script.as_str())];
            let balance = self.history.query("balance", &params).unwrap();
            let theirs = self.coins.query("balance", &params).unwrap();
            assert_eq!(balance["balance_sats"], theirs["balance_sats"], "{script}");
            assert_eq!(balance["transactions"], expected.len());
            let mut entries = Vec::new();
            let mut after: Option<String> = None;
            loop {
                let mut params = vec![("script", script.as_str()), ("limit", "37")];
                if let Some(after) = &after {
                    params.push(("after", after));
                }
                let page = self.history.query("history", &params).unwrap();
                let list = page["transactions"].as_array().unwrap();
                assert!(list.len() <= 37);
                entries.extend(list.iter().map(entry));
                match page["next"].as_u64() {
                    Some(next) => after = Some(next.to_string()),
                    None => break,
                }
            }
            entries.reverse();
            assert_eq!(&entries, expected, "{script}");
        }
    }
}

fn entry(json: &Json) -> (String, u64, u64) {
    (
        json["txid"].as_str().unwrap().to_owned(),
        json["received_sats"].as_u64().unwrap(),
        json["sent_sats"].as_u64().unwrap(),
    )
}

#[test]
fn every_script_has_its_history_and_balance_before_and_after_a_reorg() {
    let Some(data) = blocks::data() else { return };
    let main = blocks::read_framed(&data.join("regtest/main.dat"));
    let branch = blocks::read_framed(&data.join("regtest/branch.dat"));
    let mut both = Both::new();
    both.follow(&main);
    both.check(&Ledger::of(&main));
    assert_eq!(
        both.history.query("status", &[]).unwrap()["transactions"],
        7_573
    );

    both.rollback(124);
    both.follow(&branch);
    let chain: Vec<Block> = main[..125].iter().chain(&branch).cloned().collect();
    both.check(&Ledger::of(&chain));
    let mut fresh = Both::new();
    fresh.follow(&chain);
    assert_eq!(fresh.history.state(), both.history.state());
}

#[test]
fn the_pool_is_added_to_histories_and_is_gone_when_it_confirms() {
    let Some(data) = blocks::data() else { return };
    let main = blocks::read_framed(&data.join("regtest/main.dat"));
    let pool: Vec<Tx> = std::fs::read_to_string(data.join("regtest/mempool.hex"))
        .unwrap()
        .lines()
        .map(|line| deserialize_hex(line.trim()).unwrap())
        .collect();
    assert_eq!(pool.len(), 60);
    let mut both = Both::new();
    both.follow(&main);
    let confirmed = Ledger::of(&main);
    let mut whole = confirmed.clone();
    pool.iter().for_each(|tx| whole.see(tx));
    let added: Vec<PoolTransaction> = pool
        .iter()
        .map(|tx| PoolTransaction {
            transaction: tx.clone(),
            fee: 0,
            parents: vec![],
        })
        .collect();
    let script = hex::encode(whole.histories.keys().next().unwrap());
    let before = both
        .history
        .query("balance", &[("script", &script)])
        .unwrap();
    assert!(
        before["unconfirmed"].is_null(),
        "nobody told of the pool yet"
    );
    // In two batches, so that children come after their parents were told.
    both.history.mempool(&[], &added[..30]).unwrap();
    both.history.mempool(&[], &added[30..]).unwrap();

    let check = |both: &mut Both, pool: &Ledger| {
        let mut touched = 0;
        for (script, history) in &pool.histories {
            let skip = confirmed.histories.get(script).map_or(0, Vec::len);
            let mut expected = history[skip..].to_vec();
            expected.sort();
            let script = hex::encode(script);
            let answer = both
                .history
                .query("unconfirmed", &[("script", &script)])
                .unwrap();
            let list = answer["transactions"].as_array().unwrap();
            let mut entries: Vec<_> = list.iter().map(entry).collect();
            entries.sort();
            assert_eq!(entries, expected, "{script}");
            let balance = both
                .history
                .query("balance", &[("script", &script)])
                .unwrap();
            let sum = |of: fn(&(String, u64, u64)) -> u64| expected.iter().map(of).sum::<u64>();
            assert_eq!(
                balance["unconfirmed"]["received_sats"],
                sum(|entry| entry.1)
            );
            assert_eq!(balance["unconfirmed"]["sent_sats"], sum(|entry| entry.2));
            assert_eq!(balance["unconfirmed"]["transactions"], expected.len());
            let first = both
                .history
                .query("history", &[("script", &script)])
                .unwrap();
            assert_eq!(
                first["unconfirmed"].as_array().unwrap().len(),
                expected.len().min(100)
            );
            touched += usize::from(!expected.is_empty());
        }
        touched
    };
    assert!(check(&mut both, &whole) > 60);

    // One leaves again.
    let last = pool.last().unwrap().compute_txid();
    both.history.mempool(&[(last, 2)], &[]).unwrap();
    let mut fewer = confirmed.clone();
    pool[..59].iter().for_each(|tx| fewer.see(tx));
    check(&mut both, &fewer);

    // The others confirm: not twice there, whether or not the pool has been told.
    let tip = main.last().unwrap().block_hash();
    let block = chain::block(tip, 131, 0, pool[..59].to_vec());
    both.follow(std::slice::from_ref(&block));
    let mut chain = main.clone();
    chain.push(block);
    let now = Ledger::of(&chain);
    both.check(&now);
    for script in now.histories.keys() {
        let answer = both
            .history
            .query("unconfirmed", &[("script", &hex::encode(script))])
            .unwrap();
        assert_eq!(answer["transactions"], json!([]));
    }
    let gone: Vec<_> = pool[..59].iter().map(|tx| (tx.compute_txid(), 0)).collect();
    both.history.mempool(&gone, &[]).unwrap();
    assert_eq!(
        both.history.volatile().len(),
        1,
        "only that the pool was heard of"
    );

    // A reorg brings them back.
    both.rollback(130);
    both.history.mempool(&[], &added).unwrap();
    check(&mut both, &whole);
}

#[test]
fn without_the_pool_there_are_no_coins_and_the_setting_stays() {
    let mut history = Harness::<AddressHistory>::new(json!({ "unconfirmed": false }));
    let block = chain::block(chain::hash(1), 1, 50, vec![]);
    history
        .block_with(&block, Some(blocks::spent(&[(0, vec![], 0, false)])))
        .unwrap();
    assert!(history.state().keys().all(|key| key[0] != b'C'));
    history.mempool(&[], &[]).unwrap();
    let balance = history.query("balance", &[("script", "51")]).unwrap();
    assert_eq!(balance["balance_sats"], 50);
    assert!(balance["unconfirmed"].is_null());
    let error = history.try_restart(json!({})).unwrap_err();
    assert!(error.contains("rebuild"), "{error}");
    let error = Harness::<AddressHistory>::try_on("regtest", json!({ "pool": 1 }))
        .err()
        .unwrap();
    assert!(error.contains("`pool`"), "{error}");
}

#[test]
fn a_script_in_ten_thousand_unconfirmed_transactions_has_a_bounded_answer() {
    let mut history = Harness::<AddressHistory>::new(json!({}));
    let from = chain::coinbase(7, 7).compute_txid();
    let added: Vec<PoolTransaction> = (0..10_000)
        .map(|vout| PoolTransaction {
            transaction: chain::transaction(&[(from, vout)], &[(1, &[0x51])]),
            fee: 0,
            parents: vec![],
        })
        .collect();
    history.mempool(&[], &added).unwrap();
    let answer = history.query("unconfirmed", &[("script", "51")]).unwrap();
    assert_eq!(answer["unconfirmed"]["transactions"], 10_000);
    assert_eq!(answer["unconfirmed"]["received_sats"], 10_000);
    assert_eq!(answer["transactions"].as_array().unwrap().len(), 500);
    let bytes: usize = history
        .volatile()
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    assert!(bytes < 12 << 20, "{bytes}");
}

#[test]
fn questions_that_make_no_sense_are_refused() {
    let mut history = Harness::<AddressHistory>::new(json!({}));
    let mut refused = |path: &str, params: &[(&str, &str)]| match history.query(path, params) {
        Err(QueryError::NotFound(_)) => 404,
        Err(QueryError::BadRequest(_)) => 400,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused("history", &[]), 400);
    assert_eq!(refused("history", &[("script", "5")]), 400);
    assert_eq!(
        refused("history", &[("script", "51"), ("address", "x")]),
        400
    );
    assert_eq!(
        refused(
            "balance",
            &[("address", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa")]
        ),
        400
    );
    assert_eq!(refused("balance", &[("scripthash", "12")]), 400);
    assert_eq!(
        refused("history", &[("script", "51"), ("limit", "1001")]),
        400
    );
    assert_eq!(refused("history", &[("script", "51"), ("limit", "0")]), 400);
    assert_eq!(
        refused("history", &[("script", "51"), ("after", "-1")]),
        400
    );
    assert_eq!(refused("balance", &[("script", "51"), ("limit", "1")]), 400);
    assert_eq!(refused("nothing", &[]), 404);
    let empty = history.query("history", &[("script", "51")]).unwrap();
    assert_eq!(empty["transactions"], json!([]));
}

#[test]
fn a_script_hash_is_electrums() {
    // The protocol's own example: the script of the genesis coinbase's key hash.
    let script = hex::decode("76a91462e907b15cbf27d5425399ebf6f0fb50ebb88f1888ac").unwrap();
    let electrum = "8b01df4e368ea28f8dc0423bcf7a4923e3a12d307c875e47a0cfbf90b5c39161";
    let whole = hex::parse_hash(electrum).unwrap();
    assert_eq!(entries::hash(&script), entries::shorten(&whole));
}

#[test]
fn numbers_are_written_and_read_back() {
    use blockmill_sdk::KeyBytes;
    let mut before = Vec::new();
    for number in [0, 1, 255, 256, 1 << 32, (1 << 40) - 1] {
        let mut bytes = Vec::new();
        KeyBytes::write(&Number(number), &mut bytes);
        assert_eq!(
            <Number as KeyBytes>::read(&mut bytes.as_slice()),
            Some(Number(number))
        );
        assert!(before.is_empty() || bytes < before, "newest first");
        before = bytes;
    }
    for sats in [0, 1, 127, 128, 21_000_000 * 100_000_000, u64::MAX] {
        let mut bytes = Vec::new();
        Sats(sats).write(&mut bytes);
        let mut rest = bytes.as_slice();
        assert_eq!(Sats::read(&mut rest), Some(Sats(sats)));
        assert!(rest.is_empty());
    }
    assert_eq!(Sats::read(&mut [0x80u8; 3].as_slice()), None);
}

#[test]
fn blocks_in_parts_leave_the_same_histories_as_whole_ones() {
    let Some(data) = blocks::data() else { return };
    let main = blocks::read_framed(&data.join("regtest/main.dat"));
    let pool: Vec<Tx> = std::fs::read_to_string(data.join("regtest/mempool.hex"))
        .unwrap()
        .lines()
        .map(|line| deserialize_hex(line.trim()).unwrap())
        .collect();
    let added: Vec<PoolTransaction> = pool
        .iter()
        .map(|tx| PoolTransaction {
            transaction: tx.clone(),
            fee: 0,
            parents: vec![],
        })
        .collect();
    for size in [3, 50] {
        let (mut whole, mut parts) = (Both::new(), Both::new());
        let mut in_several = 0;
        let mut give = |whole: &mut Both, parts: &mut Both, block: &Block| {
            whole.follow(std::slice::from_ref(block));
            let spent = parts.coins.parts(block, size, &[]).unwrap();
            let spent: Vec<_> = spent.into_iter().map(|part| part.spent.unwrap()).collect();
            in_several += usize::from(spent.len() > 1);
            parts.history.parts(block, size, &spent).unwrap();
        };
        // The harness takes a chain without its genesis block to begin at height 1.
        for both in [&mut whole, &mut parts] {
            both.follow(&main[..1]);
        }
        for block in &main[1..] {
            give(&mut whole, &mut parts, block);
        }
        assert!(parts.history.state() == whole.history.state(), "{size}");
        // Most of the pool is confirmed in parts; the rest stays.
        for both in [&mut whole, &mut parts] {
            both.history.mempool(&[], &added).unwrap();
        }
        let next = chain::block(
            chain::hash(1),
            main.len() as u32,
            1_000,
            pool[..40].to_vec(),
        );
        give(&mut whole, &mut parts, &next);
        assert!(in_several > 5, "{in_several} blocks had more than one part");
        assert!(parts.history.state() == whole.history.state(), "{size}");
        assert!(
            parts.history.volatile() == whole.history.volatile(),
            "{size}"
        );
        assert_eq!(
            parts.history.query("status", &[]).unwrap(),
            whole.history.query("status", &[]).unwrap()
        );
    }
}
