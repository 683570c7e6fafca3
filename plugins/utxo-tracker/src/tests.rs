//! The coin set against Bitcoin Core's, and each way in which a block is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use bitcoin_hashes::sha256d;
use blockmill_sdk::testing::bitcoin::hashes::Hash;
use blockmill_sdk::testing::bitcoin::{Block, BlockHash, Transaction, Txid};
use blockmill_sdk::testing::{Harness, blocks, chain};
use blockmill_sdk::{BlockAnswer, BlockError, Json, QueryError, json};

use crate::UtxoTracker;
use crate::coin::{self, Coin};

const BTC: u64 = 100_000_000;

fn totals(harness: &Harness<UtxoTracker>) -> (u64, u64) {
    (
        harness.plugin().totals().txouts,
        harness.plugin().totals().total_sats,
    )
}

/// Core's `hash_serialized_3` over the coins in the state, as it is displayed.
fn hash_serialized(harness: &Harness<UtxoTracker>) -> String {
    let mut engine = sha256d::Hash::engine();
    let mut coins = 0;
    for (key, value) in harness
        .state()
        .iter()
        .filter(|(key, _)| key[0] == coin::PREFIX)
    {
        let mut vout = key[33..].to_vec();
        vout.reverse();
        let script = &value[12..];
        let mut bytes = [&key[1..33], vout.as_slice(), &value[..12]].concat();
        assert!(script.len() <= 10_000);
        match script.len() {
            short @ 0..=252 => bytes.push(short as u8),
            long => bytes.extend([&[253], (long as u16).to_le_bytes().as_slice()].concat()),
        }
        bytes.extend_from_slice(script);
        bitcoin_hashes::HashEngine::input(&mut engine, &bytes);
        coins += 1;
    }
    assert_eq!(coins, harness.plugin().totals().txouts);
    sha256d::Hash::from_engine(engine).to_string()
}

/// What `hash_serialized_3` shows is the hash as a number, which is displayed reversed, as `sha256d` does too.
#[test]
fn mainnet_to_4312_has_cores_coins() {
    let Some(data) = blocks::data() else { return };
    let mut harness = Harness::<UtxoTracker>::on("mainnet", json!({}));
    for (height, block) in blocks::read_framed(&data.join("blocks/mainnet-0-4312.dat"))
        .iter()
        .enumerate()
    {
        harness.block(block).unwrap();
        match height {
            170 => assert_eq!(totals(&harness), (171, 8_500 * BTC)),
            255 => {
                assert_eq!(totals(&harness), (260, 12_750 * BTC));
                assert_eq!(
                    hash_serialized(&harness),
                    "507108bd18e2319f0a7102cfa1c7ffea10c9b1a47ff061d8098bc51a92e40241"
                );
            }
            1_000 => assert_eq!(totals(&harness), (998, 50_000 * BTC)),
            _ => {}
        }
    }
    assert_eq!(
        (harness.height(), totals(&harness)),
        (Some(4_312), (4_149, 215_600 * BTC))
    );
    let totals = harness.plugin().totals();
    assert_eq!(
        (totals.unspendable_genesis_sats, totals.unclaimed_sats),
        (50 * BTC, 0)
    );
}

#[test]
fn regtest_and_its_reorg_have_cores_coins() {
    let Some(data) = blocks::data() else { return };
    let main = blocks::read_framed(&data.join("regtest/main.dat"));
    let branch = blocks::read_framed(&data.join("regtest/branch.dat"));
    for settings in [json!({}), json!({ "index": true })] {
        let mut harness = Harness::<UtxoTracker>::new(settings);
        for block in &main {
            harness.block(block).unwrap();
            match harness.height().unwrap() {
                101 => assert_eq!(totals(&harness), (400, 5_050 * BTC)),
                124 => assert_eq!(totals(&harness), (13_860, 6_200 * BTC)),
                _ => {}
            }
        }
        assert_eq!(totals(&harness), (17_470, 6_500 * BTC));
        assert_eq!(
            hash_serialized(&harness),
            "5698000273f33031dbef8e62c4dd942ff28045b8e7ca911424e4e9179b9cf052"
        );
        // What was not claimed went into no coin: the chain's fees are all claimed.
        assert_eq!(harness.plugin().totals().fees_sats, 25_899_628);

        harness.rollback(124);
        assert_eq!(totals(&harness), (13_860, 6_200 * BTC));
        assert_eq!(branch[0].header.prev_blockhash, main[124].block_hash());
        for block in &branch {
            harness.block(block).unwrap();
        }
        assert_eq!(
            (harness.height(), totals(&harness)),
            (Some(132), (16_377, 6_600 * BTC))
        );
        assert_eq!(
            hash_serialized(&harness),
            "10ee3deda43b5376c42476ad49cded34689ac2b91dfa6da7c1a76120c88f93a7"
        );
    }
}

#[test]
fn block_367891_spends_what_it_really_spent() {
    let Some(data) = blocks::data() else { return };
    let packed = data.join("blocks/mainnet-367891.spent.json.zst");
    let Ok(unpacked) = std::process::Command::new("zstd")
        .arg("-dc")
        .arg(&packed)
        .output()
    else {
        eprintln!("skipped: no zstd to unpack {}", packed.display());
        return;
    };
    let coins = Json::parse(std::str::from_utf8(&unpacked.stdout).unwrap()).unwrap();
    let coins = coins.as_array().unwrap();
    let block = blocks::read_raw(&data.join("blocks/mainnet-367891.raw"));
    let mut harness = Harness::<UtxoTracker>::on("mainnet", json!({}));
    let inputs = block.txdata[1..].iter().flat_map(|tx| &tx.input);
    let made: Vec<Txid> = block.txdata.iter().map(Transaction::compute_txid).collect();
    let mut expected = vec![(0, vec![], 0, false)];
    let mut state = Vec::new();
    for (input, coin) in inputs.zip(coins) {
        let script =
            blockmill_sdk::hex::decode(coin["txout"]["script_pubkey"].as_str().unwrap()).unwrap();
        let value = coin["txout"]["value"].as_u64().unwrap();
        let height = coin["creation_height"].as_u64().unwrap() as u32;
        let coinbase = coin["is_coinbase"].as_bool().unwrap();
        let previous = input.previous_output;
        if !made.contains(&previous.txid) {
            let value = [coin::head(height, coinbase, value).as_slice(), &script].concat();
            state.push((
                coin::key(&previous.txid.to_byte_array(), previous.vout),
                value,
            ));
        }
        expected.push((value, script, height, coinbase));
    }
    assert_eq!(expected.len(), 20_818);
    harness.put_state(
        state
            .iter()
            .map(|(key, value)| (key.as_slice(), value.as_slice())),
    );
    let answer = harness.block_at(367_891, &block, None).unwrap();
    assert_eq!(answer.spent, Some(blocks::spent(&expected)));
    let totals = harness.plugin().totals();
    assert_eq!((totals.fees_sats, totals.unclaimed_sats), (14_001_930, 0));
    assert!(
        state
            .iter()
            .all(|(key, _)| !harness.state().contains_key(key.as_slice()))
    );
}

#[test]
fn the_two_repeated_coinbases_overwrite_and_no_other_may() {
    let Some(data) = blocks::data() else { return };
    let first = blocks::read_raw(&data.join("blocks/mainnet-91722.raw"));
    // Its other transactions spend coins that are not here.
    let mut again = blocks::read_raw(&data.join("blocks/mainnet-91880.raw"));
    again.txdata.truncate(1);
    assert_eq!(
        first.txdata[0].compute_txid(),
        again.txdata[0].compute_txid()
    );
    let mut harness = Harness::<UtxoTracker>::on("mainnet", json!({ "index": true }));
    harness.block_at(91_722, &first, None).unwrap();
    assert_eq!(totals(&harness), (1, 50 * BTC));
    // The same coins at any other height are refused.
    let refused = invalid(harness.block_at(91_879, &first, None));
    assert!(refused.contains("bad-txns-BIP30"), "{refused}");

    harness.block_at(91_880, &again, None).unwrap();
    assert_eq!(totals(&harness), (1, 50 * BTC));
    assert_eq!(harness.plugin().totals().unspendable_bip30_sats, 50 * BTC);
    let coin = harness
        .state()
        .iter()
        .find(|(key, _)| key[0] == coin::PREFIX)
        .unwrap();
    assert_eq!(Coin::read(coin.1).unwrap().height, 91_880);
    harness.rollback(91_722);
    let coin = harness
        .state()
        .iter()
        .find(|(key, _)| key[0] == coin::PREFIX)
        .unwrap();
    assert_eq!(Coin::read(coin.1).unwrap().height, 91_722);
}

#[test]
fn bip30_is_looked_at_where_core_does() {
    use crate::rules::{Bip30, bip30};
    let header = |height| blockmill_sdk::Header {
        height,
        hash: [1; 32],
        previous: [0; 32],
        merkle_root: [0; 32],
        version: 1,
        time: 0,
        bits: 0,
        nonce: 0,
        median_time: 0,
        size: 0,
        weight: 0,
    };
    for (network, height, expected) in [
        ("mainnet", 1, Bip30::Check),
        // The height alone is not enough: another block there must keep the rule.
        ("mainnet", 91_842, Bip30::Check),
        ("mainnet", 227_931, Bip30::Check),
        ("mainnet", 227_932, Bip30::Impossible),
        ("mainnet", 1_983_701, Bip30::Impossible),
        ("mainnet", 1_983_702, Bip30::Check),
        ("testnet3", 21_111, Bip30::Check),
        ("testnet3", 21_112, Bip30::Impossible),
        ("regtest", 1, Bip30::Impossible),
    ] {
        assert_eq!(
            bip30(network, &header(height)),
            expected,
            "{network} {height}"
        );
    }
}

fn invalid(result: Result<BlockAnswer, BlockError>) -> String {
    match result {
        Err(BlockError::Invalid(reason)) => reason,
        other => panic!("not refused as invalid: {other:?}"),
    }
}

/// A regtest chain of made-up blocks.
struct Chain {
    harness: Harness<UtxoTracker>,
    tip: BlockHash,
    coinbases: Vec<Txid>,
}

impl Chain {
    /// 101 blocks, so that the coinbase of the first is mature.
    fn new(settings: Json) -> Self {
        let mut chain = Chain {
            harness: Harness::new(settings),
            tip: chain::hash(1),
            coinbases: vec![Txid::all_zeros()],
        };
        for _ in 0..101 {
            chain.add(vec![]).unwrap();
        }
        chain
    }

    fn height(&self) -> u32 {
        self.harness.height().unwrap_or(0) + 1
    }

    fn next(&self, value: u64, transactions: Vec<Transaction>) -> Block {
        chain::block(self.tip, self.height(), value, transactions)
    }

    fn add(&mut self, transactions: Vec<Transaction>) -> Result<BlockAnswer, BlockError> {
        let block = self.next(50 * BTC, transactions);
        let answer = self.harness.block(&block)?;
        self.tip = block.block_hash();
        self.coinbases.push(block.txdata[0].compute_txid());
        Ok(answer)
    }

    /// The block with these transactions is refused for this reason, and leaves nothing behind.
    fn refused(&mut self, reason: &str, transactions: Vec<Transaction>) {
        let (state, totals) = (
            self.harness.state().clone(),
            *self.harness.plugin().totals(),
        );
        let message = invalid(self.add(transactions));
        assert!(message.contains(reason), "{message}");
        assert_eq!(
            (self.harness.state(), self.harness.plugin().totals()),
            (&state, &totals)
        );
        // The chain goes on.
        self.add(vec![]).unwrap();
    }
}

/// Spends and pays to the script `51`.
fn pay(inputs: &[(Txid, u32)], outputs: &[u64]) -> Transaction {
    let outputs: Vec<(u64, &[u8])> = outputs
        .iter()
        .map(|value| (*value, [0x51].as_slice()))
        .collect();
    chain::transaction(inputs, &outputs)
}

#[test]
fn outputs_that_never_were_or_are_spent_are_refused() {
    let mut chain = Chain::new(json!({}));
    let coin = (chain.coinbases[1], 0);
    chain.refused(
        "missingorspent",
        vec![pay(&[(Txid::from_byte_array([7; 32]), 0)], &[1])],
    );
    chain.refused("missingorspent", vec![pay(&[(coin.0, 1)], &[1])]);
    // Twice in one transaction, twice in one block.
    chain.refused("missingorspent", vec![pay(&[coin, coin], &[1])]);
    chain.refused(
        "missingorspent",
        vec![pay(&[coin], &[1]), pay(&[coin], &[2])],
    );
    // An output of the same block: past its end, twice, and before it is made.
    let parent = pay(&[coin], &[5, 6]);
    let txid = parent.compute_txid();
    chain.refused(
        "missingorspent",
        vec![parent.clone(), pay(&[(txid, 2)], &[1])],
    );
    chain.refused(
        "missingorspent",
        vec![
            parent.clone(),
            pay(&[(txid, 0)], &[1]),
            pay(&[(txid, 0)], &[2]),
        ],
    );
    chain.refused(
        "missingorspent",
        vec![pay(&[(txid, 0)], &[1]), parent.clone()],
    );
    chain.add(vec![parent]).unwrap();
    chain.refused("missingorspent", vec![pay(&[coin], &[1])]);
    let reason = invalid(chain.add(vec![pay(&[coin], &[1])]));
    assert!(
        reason.contains(&format!("{}:0", coin.0)),
        "the outpoint is named: {reason}"
    );
}

#[test]
fn unspendable_outputs_are_not_kept() {
    let mut chain = Chain::new(json!({}));
    let long = vec![0x51; 10_001];
    let at_limit = vec![0x51; 10_000];
    let outputs: [(u64, &[u8]); 4] = [(3, &[0x6a, 1]), (4, &long), (5, &at_limit), (6, &[])];
    let tx = chain::transaction(&[(chain.coinbases[1], 0)], &outputs);
    let txid = tx.compute_txid();
    let before = totals(&chain.harness);
    chain.refused("missingorspent", vec![tx.clone(), pay(&[(txid, 0)], &[1])]);
    chain.add(vec![tx]).unwrap();
    let after = totals(&chain.harness);
    // One coin spent, two made, and two coinbases.
    assert_eq!((after.0, after.1), (before.0 + 3, before.1 + 50 * BTC + 11));
    assert_eq!(chain.harness.plugin().totals().unspendable_script_sats, 7);
    for vout in [0, 1] {
        chain.refused("missingorspent", vec![pay(&[(txid, vout)], &[1])]);
    }
    chain
        .add(vec![pay(&[(txid, 2), (txid, 3)], &[11])])
        .unwrap();
}

#[test]
fn a_coinbase_is_spent_after_100_blocks_and_not_before() {
    let mut chain = Chain::new(json!({}));
    // The next block has height 102: the coinbase of 2 is 100 blocks old, that of 3 is 99.
    assert_eq!(chain.height(), 102);
    let message = invalid(chain.add(vec![pay(&[(chain.coinbases[3], 0)], &[1])]));
    assert!(message.contains("premature-spend-of-coinbase"), "{message}");
    chain
        .add(vec![pay(&[(chain.coinbases[2], 0)], &[1])])
        .unwrap();
    // That of the block itself.
    let coinbase = chain::coinbase(chain.height(), 50 * BTC).compute_txid();
    chain.refused(
        "premature-spend-of-coinbase",
        vec![pay(&[(coinbase, 0)], &[1])],
    );
}

#[test]
fn nobody_makes_coins_out_of_nothing() {
    let mut chain = Chain::new(json!({}));
    let coin = (chain.coinbases[1], 0);
    chain.refused("in-belowout", vec![pay(&[coin], &[50 * BTC + 1])]);
    // Two outputs whose sum wraps round, and one over all coins.
    chain.refused("txouttotal-toolarge", vec![pay(&[coin], &[u64::MAX, 2])]);
    chain.refused(
        "txouttotal-toolarge",
        vec![pay(&[coin], &[21_000_000 * BTC + 1])],
    );

    // The coinbase takes the subsidy and the fees, not a sat more.
    let spend = || vec![pay(&[coin], &[50 * BTC - 9])];
    let message = invalid(chain.harness.block(&chain.next(50 * BTC + 10, spend())));
    assert!(message.contains("bad-cb-amount"), "{message}");
    chain
        .harness
        .block(&chain.next(50 * BTC + 9, spend()))
        .unwrap();
    assert_eq!(chain.harness.plugin().totals().fees_sats, 9);
    let block = chain.next(50 * BTC - 2, vec![]);
    chain.harness.block(&block).unwrap();
    assert_eq!(chain.harness.plugin().totals().unclaimed_sats, 2);
}

#[test]
fn a_block_in_parts_is_connected_as_the_whole_one() {
    let wide: Vec<u64> = vec![2 * BTC; 20];
    let block_of = |chain: &Chain, value: u64| {
        let first = pay(&[(chain.coinbases[1], 0)], &wide);
        let id = first.compute_txid();
        let mut transactions = vec![first];
        let mut end = (id, 0);
        for n in 1..12 {
            // Each spends what the one before made, and one that an earlier part may have made.
            let next = pay(&[end, (id, n)], &[3 * BTC - u64::from(n)]);
            end = (next.compute_txid(), 0);
            transactions.push(next);
        }
        chain.next(value, transactions)
    };
    for size in [1, 2, 5, 13] {
        let mut whole = Chain::new(json!({}));
        let mut parts = Chain::new(json!({}));
        let value = 50 * BTC + 10 * BTC;
        let block = block_of(&whole, value);
        let spent = whole.harness.block(&block).unwrap().spent.unwrap();
        let answers = parts.harness.parts(&block, size, &[]).unwrap();
        assert_eq!(answers.len(), 13usize.div_ceil(size));
        let values: Vec<u64> = answers
            .iter()
            .flat_map(|answer| answer.spent.as_ref().unwrap().values.clone())
            .collect();
        assert_eq!(values, spent.values);
        assert_eq!(parts.harness.state(), whole.harness.state());
        assert_eq!(
            parts.harness.plugin().totals(),
            whole.harness.plugin().totals()
        );

        // The coinbase may take what all parts pay, and no more.
        let fees = whole.harness.plugin().totals().fees_sats;
        let mut greedy = Chain::new(json!({}));
        let block = block_of(&greedy, 50 * BTC + fees + 1);
        let message = invalid(
            greedy
                .harness
                .parts(&block, size, &[])
                .map(|mut all| all.remove(0)),
        );
        assert!(message.contains("bad-cb-amount"), "{message}");
        // What an earlier part spent is gone, and the block's own coinbase is not ripe in a later one.
        for second in [true, false] {
            let mut bad = Chain::new(json!({}));
            let mut block = block_of(&bad, value);
            let input = match second {
                true => (bad.coinbases[1], 0),
                false => (block.txdata[0].compute_txid(), 0),
            };
            block.txdata.push(pay(&[input], &[1]));
            let message = invalid(
                bad.harness
                    .parts(&block, size, &[])
                    .map(|mut all| all.remove(0)),
            );
            let reason = match second {
                true => "missingorspent",
                false => "premature-spend-of-coinbase",
            };
            assert!(message.contains(reason), "{message}");
        }
    }
}

#[test]
fn spent_columns_are_those_of_the_inputs_in_order() {
    let mut chain = Chain::new(json!({}));
    let parent = pay(&[(chain.coinbases[1], 0)], &[20, 30]);
    let child = pay(&[(parent.compute_txid(), 1), (chain.coinbases[2], 0)], &[7]);
    let answer = chain.add(vec![parent, child]).unwrap();
    let op_true = vec![0x51];
    let expected = [
        (0, vec![], 0, false),
        (50 * BTC, op_true.clone(), 1, true),
        (30, op_true.clone(), 102, false),
        (50 * BTC, op_true, 2, true),
    ];
    assert_eq!(answer.spent, Some(blocks::spent(&expected)));
}

#[test]
fn coins_and_balances_are_found_by_address_and_script() {
    let Some(data) = blocks::data() else { return };
    let mut harness = Harness::<UtxoTracker>::new(json!({ "index": true }));
    for block in &blocks::read_framed(&data.join("regtest/main.dat")) {
        harness.block(block).unwrap();
    }
    // What the index says of every script against the coins themselves.
    let mut scripts: std::collections::BTreeMap<Vec<u8>, (u64, u64)> = Default::default();
    for (_, value) in harness
        .state()
        .iter()
        .filter(|(key, _)| key[0] == coin::PREFIX)
    {
        let coin = Coin::read(value).unwrap();
        let entry = scripts.entry(coin.script.to_vec()).or_default();
        entry.0 += 1;
        entry.1 += coin.value;
    }
    assert_eq!(
        harness
            .state()
            .keys()
            .filter(|key| key[0] == crate::index::PREFIX)
            .count(),
        17_470
    );
    let mut addressed = 0;
    for (script, (coins, sats)) in scripts.iter().take(200) {
        let text = blockmill_sdk::hex::encode(script);
        let by_script = harness.query("balance", &[("script", &text)]).unwrap();
        assert_eq!(
            (
                by_script["coins"].as_u64(),
                by_script["balance_sats"].as_u64()
            ),
            (Some(*coins), Some(*sats))
        );
        if let Some(address) = by_script["address"].as_str() {
            addressed += 1;
            assert_eq!(
                harness.query("balance", &[("address", address)]),
                Ok(by_script.clone())
            );
        }
    }
    assert!(addressed > 100);

    // Page by page all coins of the script that has most.
    let (script, (coins, _)) = scripts.iter().max_by_key(|(_, (coins, _))| *coins).unwrap();
    let script = blockmill_sdk::hex::encode(script);
    let mut seen = std::collections::BTreeSet::new();
    let mut after = String::new();
    loop {
        let mut params = vec![("script", script.as_str()), ("limit", "7")];
        if !after.is_empty() {
            params.push(("after", &after));
        }
        let page = harness.query("coins", &params).unwrap();
        for coin in page["coins"].as_array().unwrap() {
            let outpoint = (
                coin["txid"].as_str().unwrap().to_string(),
                coin["vout"].as_u64().unwrap(),
            );
            let vout = outpoint.1.to_string();
            let single = harness
                .query("coin", &[("txid", &outpoint.0), ("vout", &vout)])
                .unwrap();
            assert_eq!(
                (&single["script"], &single["value_sats"]),
                (&json!(script.as_str()), &coin["value_sats"])
            );
            assert!(seen.insert(outpoint));
        }
        match page["next"].as_str() {
            Some(next) => after = next.to_string(),
            None => break,
        }
    }
    assert_eq!(seen.len() as u64, *coins);
}

#[test]
fn questions_that_make_no_sense_are_answered_with_the_reason() {
    let mut chain = Chain::new(json!({}));
    let bad = |chain: &mut Chain, path: &str, params: &[(&str, &str)]| match chain
        .harness
        .query(path, params)
    {
        Err(QueryError::BadRequest(message)) => message,
        other => panic!("{other:?}"),
    };
    assert!(bad(&mut chain, "coins", &[("script", "51")]).contains("`index = true`"));
    assert!(bad(&mut chain, "coin", &[("txid", "00")]).contains("`txid`"));
    let txid = "00".repeat(32);
    assert!(bad(&mut chain, "coin", &[("txid", &txid)]).contains("`vout`"));
    assert!(bad(&mut chain, "totals", &[("x", "1")]).contains("unknown parameter `x`"));
    assert!(matches!(
        chain
            .harness
            .query("coin", &[("txid", &txid), ("vout", "0")]),
        Err(QueryError::NotFound(_))
    ));
    assert!(matches!(
        chain.harness.query("nothing", &[]),
        Err(QueryError::NotFound(_))
    ));
    assert_eq!(chain.harness.query("", &[]).unwrap()["txouts"], json!(101));

    let mut chain = Chain::new(json!({ "index": true }));
    assert!(bad(&mut chain, "coins", &[]).contains("either `address` or `script`"));
    assert!(
        bad(
            &mut chain,
            "balance",
            &[("address", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4")]
        )
        .contains("regtest")
    );
    assert!(bad(&mut chain, "coins", &[("script", "5")]).contains("hexadecimal"));
    assert!(bad(&mut chain, "coins", &[("script", "51"), ("limit", "0")]).contains("`limit`"));
    assert!(bad(&mut chain, "coins", &[("script", "51"), ("after", "x")]).contains("`after`"));
    let balance = chain.harness.query("balance", &[("script", "51")]).unwrap();
    // 101 coinbases; those of 1 and 2 may be spent in block 102.
    assert_eq!(balance["balance_sats"], json!(101 * 50 * BTC));
    assert_eq!(balance["immature_sats"], json!(99 * 50 * BTC));
}

#[test]
fn the_index_is_not_switched_on_or_off_over_a_state_built_otherwise() {
    let error = Harness::<UtxoTracker>::try_on("regtest", json!({ "index": 1 }))
        .map(|_| ())
        .unwrap_err();
    assert!(error.contains("`index`"));
    let mut chain = Chain::new(json!({ "index": true }));
    chain.harness.restart();
    let error = chain
        .harness
        .try_restart(json!({ "index": false }))
        .unwrap_err();
    assert!(error.contains("rebuild"), "{error}");
}

#[test]
fn a_fresh_instance_goes_on_where_the_last_one_was() {
    let Some(data) = blocks::data() else { return };
    let blocks = blocks::read_framed(&data.join("regtest/main.dat"));
    let (mut steady, mut restarted) = (
        Harness::<UtxoTracker>::new(json!({})),
        Harness::<UtxoTracker>::new(json!({})),
    );
    for block in &blocks[..115] {
        let answer = steady.block(block).unwrap();
        restarted.restart();
        assert_eq!(restarted.block(block).unwrap(), answer);
    }
    assert_eq!(steady.state(), restarted.state());
}
