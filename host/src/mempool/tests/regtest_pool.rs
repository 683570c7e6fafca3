//! The 60 transactions on top of regtest block 130, and the reorg to the heavier branch, as Bitcoin
//! Core took them.

use std::collections::{HashMap, HashSet};

use bitcoin::{Block, Transaction};

use super::*;
use crate::block_log::tests::regtest;

struct Data {
    chain: Chain,
    branch: Vec<Block>,
    pool: Vec<Bytes>,
    /// txid, fee, vsize, unconfirmed ancestors.
    expected: HashMap<Txid, (u64, u64, u64)>,
}

fn data() -> Option<Data> {
    let mut chain = Chain::default();
    for frame in regtest::frames(&regtest::file("main.dat")?) {
        let block = regtest::decode(frame);
        // The genesis block's output is no coin.
        if block.header.prev_blockhash != bitcoin::hashes::Hash::all_zeros() {
            chain.connect_block(block);
        }
    }
    assert_eq!(chain.tip().height, 130);
    let branch = regtest::frames(&regtest::file("branch.dat")?)
        .into_iter()
        .map(regtest::decode)
        .collect();
    let pool = String::from_utf8(regtest::file("mempool.hex")?).unwrap();
    let pool = pool.lines().map(|line| {
        let bytes: Vec<u8> = bitcoin::hex::FromHex::from_hex(line.trim()).unwrap();
        Bytes::from(bytes)
    });
    let expected = String::from_utf8(regtest::file("mempool.tsv")?).unwrap();
    let expected = expected.lines().skip(1).map(|line| {
        let fields: Vec<&str> = line.split('\t').collect();
        let number = |at: usize| fields[at].parse().unwrap();
        (
            fields[0].parse().unwrap(),
            (number(1), number(2), number(3)),
        )
    });
    Some(Data {
        chain,
        branch,
        pool: pool.collect(),
        expected: expected.collect(),
    })
}

#[test]
fn signature_operations_of_real_transactions_are_those_that_the_crate_counts() {
    let Some(data) = data() else { return };
    let mut pool = Mempool::new(MempoolConfig::default());
    let mut outputs = HashMap::new();
    for (outpoint, coin) in &data.chain.coins {
        let output = bitcoin::TxOut {
            value: bitcoin::Amount::from_sat(coin.value),
            script_pubkey: coin.script.clone(),
        };
        outputs.insert(*outpoint, output);
    }
    let mut kinds = HashSet::new();
    for raw in &data.pool {
        let tx: Transaction = bitcoin::consensus::deserialize(raw).unwrap();
        pool.accept(raw.clone(), NOW, &data.chain, data.chain.tip())
            .unwrap();
        let cost = tx.total_sigop_cost(|outpoint| outputs.get(outpoint).cloned());
        let entry = pool.get(&tx.compute_txid()).unwrap();
        assert_eq!(entry.sigop_cost, Some(cost as u32), "{}", entry.txid);
        kinds.insert(cost);
        for (output, vout) in tx.output.iter().zip(0..) {
            outputs.insert(OutPoint::new(entry.txid, vout), output.clone());
        }
    }
    assert!(kinds.len() > 3, "{kinds:?}");
}

fn assert_is_the_pool(pool: &Mempool, data: &Data) {
    pool.verify();
    let info = pool.info(NOW);
    assert_eq!(
        (info.txs, info.fees_sats, info.vbytes),
        (60, 108_003, 12_548)
    );
    for entry in pool.snapshot() {
        let (fee, vsize, ancestors) = data.expected[&entry.txid];
        assert_eq!(
            (entry.fee, entry.vsize, entry.ancestors.count - 1),
            (fee, vsize, ancestors),
            "{}",
            entry.txid
        );
    }
}

#[test]
fn the_60_transactions_enter_with_cores_fees_and_sizes() {
    let Some(data) = data() else { return };
    let mut pool = Mempool::new(MempoolConfig::default());
    for raw in &data.pool {
        let accepted = pool
            .accept(raw.clone(), NOW, &data.chain, data.chain.tip())
            .unwrap();
        assert!(matches!(accepted, Accepted::Entered { .. }));
    }
    assert_is_the_pool(&pool, &data);
    assert_eq!(pool.drain_changes().added.len(), 60);
}

/// What of `txs` (parents first) can be in a block on top of these coins, found the plain way.
fn that_still_fit(chain: &Chain, txs: &[Transaction]) -> HashSet<Txid> {
    let mut unspent: HashSet<OutPoint> = chain.coins.keys().copied().collect();
    let mut fit = HashSet::new();
    for tx in txs {
        let inputs: Vec<OutPoint> = tx.input.iter().map(|input| input.previous_output).collect();
        if inputs.iter().all(|outpoint| unspent.contains(outpoint)) {
            inputs.iter().for_each(|outpoint| {
                unspent.remove(outpoint);
            });
            let txid = tx.compute_txid();
            unspent.extend((0..tx.output.len() as u32).map(|vout| OutPoint::new(txid, vout)));
            fit.insert(txid);
        }
    }
    fit
}

fn txids(pool: &Mempool) -> HashSet<Txid> {
    pool.snapshot().iter().map(|entry| entry.txid).collect()
}

/// Of the 60, 13 spend what the branch spends otherwise, or depend on a transaction of the
/// abandoned blocks that does.
#[test]
fn after_the_reorg_the_pool_holds_what_cores_holds() {
    let Some(Data {
        mut chain,
        branch,
        pool: raws,
        ..
    }) = data()
    else {
        return;
    };
    let mut pool = Mempool::new(MempoolConfig::default());
    for raw in &raws {
        pool.accept(raw.clone(), NOW, &chain, chain.tip()).unwrap();
    }
    pool.drain_changes();
    let mut candidates: Vec<Transaction> = raws
        .iter()
        .map(|raw| bitcoin::consensus::deserialize(raw).unwrap())
        .collect();
    while chain.tip().height > 124 {
        let txs = chain.disconnect_both(&mut pool);
        candidates.splice(0..0, txs.into_iter().skip(1));
    }
    for block in branch {
        chain.connect_both(&mut pool, block.txdata);
    }
    assert_eq!(chain.tip().height, 132);
    pool.settle(NOW + 1, &chain, chain.tip()).unwrap();
    pool.verify();
    // Core's figure.
    assert_eq!(pool.info(NOW).txs, 1_319);
    assert_eq!(txids(&pool), that_still_fit(&chain, &candidates));

    let changes = pool.drain_changes();
    assert_eq!(
        (changes.added.len(), changes.removed.len()),
        (1_319 - 47, 13)
    );
    assert!(
        changes
            .added
            .iter()
            .all(|(_, origin)| *origin == Origin::Returned)
    );
    let conflicted = |reason: &RemoveReason| matches!(reason, RemoveReason::Conflicted { .. });
    let count = changes
        .removed
        .iter()
        .filter(|(_, reason)| conflicted(reason))
        .count();
    assert_eq!(
        count, 1,
        "the others became invalid with what they depend on"
    );
    let rest = changes
        .removed
        .iter()
        .filter(|(_, reason)| !conflicted(reason));
    assert!(
        rest.into_iter()
            .all(|(_, reason)| *reason == RemoveReason::Reorg)
    );
}

#[test]
fn back_on_the_first_branch_what_had_stayed_is_still_there() {
    let Some(mut data) = data() else { return };
    let mut pool = Mempool::new(MempoolConfig::default());
    for raw in &data.pool {
        pool.accept(raw.clone(), NOW, &data.chain, data.chain.tip())
            .unwrap();
    }
    let mut main = Vec::new();
    while data.chain.tip().height > 124 {
        main.push(data.chain.disconnect_both(&mut pool));
    }
    for block in data.branch.clone() {
        data.chain.connect_both(&mut pool, block.txdata);
    }
    pool.settle(NOW + 1, &data.chain, data.chain.tip()).unwrap();
    let stayed: Vec<Txid> = data
        .expected
        .keys()
        .filter(|txid| pool.contains(txid))
        .copied()
        .collect();
    assert_eq!(stayed.len(), 47);
    let before = txids(&pool);

    let mut branch = HashSet::new();
    while data.chain.tip().height > 124 {
        let txs = data.chain.disconnect_both(&mut pool);
        branch.extend(txs.iter().map(Transaction::compute_txid));
    }
    let mut confirmed = HashSet::new();
    for txs in main.into_iter().rev() {
        confirmed.extend(txs.iter().map(Transaction::compute_txid));
        data.chain.connect_both(&mut pool, txs);
    }
    pool.settle(NOW + 2, &data.chain, data.chain.tip()).unwrap();
    pool.verify();
    for txid in stayed {
        assert_eq!(pool.get(&txid).expect("one of the 47").ancestors.count, 1);
    }
    for entry in pool.snapshot() {
        assert!(before.contains(&entry.txid) || branch.contains(&entry.txid));
        assert!(!confirmed.contains(&entry.txid));
        for outpoint in &entry.spends {
            let is_coin = data.chain.coins.contains_key(outpoint);
            assert_ne!(
                is_coin,
                entry.depends.contains(&outpoint.txid),
                "{outpoint}"
            );
        }
    }
}
