//! The 60 transactions on top of regtest block 130, and the reorg to the heavier branch, as Bitcoin Core took them.

use std::collections::HashMap;

use bitcoin::Block;

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
    for raw in raws {
        pool.accept(raw, NOW, &chain, chain.tip()).unwrap();
    }
    pool.drain_changes();
    let mut abandoned = 0;
    while chain.tip().height > 124 {
        abandoned += chain.disconnect_both(&mut pool).len() - 1;
    }
    for block in branch {
        chain.connect_both(&mut pool, block.txdata);
    }
    assert_eq!(chain.tip().height, 132);
    pool.settle(NOW + 1, &chain, chain.tip()).unwrap();
    pool.verify();
    assert_eq!(pool.info(NOW).txs, 1_319);

    let changes = pool.drain_changes();
    assert!(changes.removed.is_empty(), "the 60 stayed");
    assert_eq!(changes.added.len(), 1_259);
    assert!(abandoned > 1_259, "some did not fit any more");
    assert!(
        changes
            .added
            .iter()
            .all(|(_, origin)| *origin == Origin::Returned)
    );

    // And back: the abandoned blocks again, which is heavier for no chain but for the pool.
    let returned: u64 = pool.snapshot().iter().map(|entry| entry.fee).sum();
    assert_eq!(pool.info(NOW).fees_sats, returned);
}

#[test]
fn back_on_the_first_branch_the_pool_is_as_it_was() {
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
    while data.chain.tip().height > 124 {
        data.chain.disconnect_both(&mut pool);
    }
    for txs in main.into_iter().rev() {
        data.chain.connect_both(&mut pool, txs);
    }
    pool.settle(NOW + 2, &data.chain, data.chain.tip()).unwrap();
    pool.verify();
    // The branch's own transactions are back too, where they fit on the first branch.
    for raw in &data.pool {
        let tx: bitcoin::Transaction = bitcoin::consensus::deserialize(raw).unwrap();
        let entry = pool.get(&tx.compute_txid()).expect("one of the 60");
        assert_eq!(entry.ancestors.count, 1);
    }
    for entry in pool.snapshot() {
        for outpoint in &entry.spends {
            let confirmed = data.chain.coins.contains_key(outpoint);
            assert!(
                confirmed != entry.depends.contains(&outpoint.txid),
                "{outpoint}"
            );
        }
    }
}
