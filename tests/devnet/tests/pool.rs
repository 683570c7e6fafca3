//! What the pool takes and what it refuses. Scripts are not run, so transactions can be bent into any shape.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use devnet::pool::{CHAIN_LIMIT, Refused};
use devnet::{Config, Devnet, Mining};

/// A chain of 110 blocks with nothing but coinbases, of which ten can be spent, and their outpoints by height.
fn bare() -> (Devnet, Vec<OutPoint>) {
    let mining = Mining {
        txs_per_block: 0,
        ..Config::default().mining
    };
    let devnet = Devnet::start(Config {
        mining,
        ..Config::default()
    })
    .unwrap();
    devnet.mine(110).unwrap();
    let state = devnet.node().state();
    let coinbase = |height| {
        state
            .chain()
            .block_at(height)
            .unwrap()
            .decode()
            .unwrap()
            .txdata[0]
            .compute_txid()
    };
    let outpoints = (0..=110)
        .map(|height| OutPoint {
            txid: coinbase(height),
            vout: 0,
        })
        .collect();
    drop(state);
    (devnet, outpoints)
}

/// Spends whole coinbases (50 BTC each) but for `fee` sat.
fn pay(inputs: &[OutPoint], total: u64, fee: u64) -> Transaction {
    let input = |previous_output: &OutPoint| TxIn {
        previous_output: *previous_output,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: Witness::new(),
    };
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: inputs.iter().map(input).collect(),
        output: vec![TxOut {
            value: Amount::from_sat(total - fee),
            script_pubkey: ScriptBuf::from_bytes(vec![0x51]),
        }],
    }
}

const BTC_50: u64 = 5_000_000_000;

fn first(txid: Txid) -> OutPoint {
    OutPoint { txid, vout: 0 }
}

fn refusal(devnet: &Devnet, tx: Transaction) -> Refused {
    devnet.submit(tx).unwrap_err().downcast().unwrap()
}

#[test]
fn each_refusal_has_its_reason() {
    let (devnet, coinbases) = bare();
    let good = pay(&[coinbases[1]], BTC_50, 1_000);
    devnet.submit(good.clone()).unwrap();
    assert_eq!(refusal(&devnet, good.clone()), Refused::Known);

    let nowhere = OutPoint {
        txid: good.compute_txid(),
        vout: 9,
    };
    assert_eq!(
        refusal(&devnet, pay(&[nowhere], BTC_50, 1_000)),
        Refused::Missing(nowhere)
    );
    let genesis = coinbases[0];
    assert_eq!(
        refusal(&devnet, pay(&[genesis], BTC_50, 1_000)),
        Refused::Missing(genesis)
    );
    // Height 11 has 100 blocks on top of it in the next block, height 12 has not.
    devnet.submit(pay(&[coinbases[11]], BTC_50, 1_000)).unwrap();
    let young = coinbases[12];
    assert_eq!(
        refusal(&devnet, pay(&[young], BTC_50, 1_000)),
        Refused::Immature(young)
    );

    let twice = [coinbases[2], coinbases[2]];
    assert_eq!(
        refusal(&devnet, pay(&twice, BTC_50, 1_000)),
        Refused::Invalid
    );
    assert_eq!(
        refusal(&devnet, pay(&[coinbases[2]], BTC_50 + 1, 0)),
        Refused::Invalid
    );
    assert_eq!(
        refusal(&devnet, pay(&[OutPoint::null()], BTC_50, 1_000)),
        Refused::Invalid
    );
    assert_eq!(refusal(&devnet, pay(&[], BTC_50, 1_000)), Refused::Invalid);

    let mut early = pay(&[coinbases[2]], BTC_50, 1_000);
    early.lock_time = LockTime::from_height(111).unwrap();
    assert_eq!(refusal(&devnet, early.clone()), Refused::NotFinal);
    early.lock_time = LockTime::from_height(110).unwrap();
    devnet.submit(early).unwrap();

    let cheap = pay(&[coinbases[3]], BTC_50, 0);
    let vsize = cheap.vsize() as u64;
    assert_eq!(refusal(&devnet, cheap), Refused::Fee(0));
    let short = vsize - 1;
    assert_eq!(
        refusal(&devnet, pay(&[coinbases[3]], BTC_50, short)),
        Refused::Fee(short)
    );
    devnet.submit(pay(&[coinbases[3]], BTC_50, vsize)).unwrap();
    assert_eq!(devnet.status().mempool, 4);
}

#[test]
fn a_replacement_pays_for_all_that_it_removes() {
    let (devnet, coinbases) = bare();
    let parent = devnet.submit(pay(&[coinbases[1]], BTC_50, 1_000)).unwrap();
    let child = devnet
        .submit(pay(&[first(parent)], BTC_50 - 1_000, 5_000))
        .unwrap();
    let rival = pay(&[coinbases[1]], BTC_50, 5_900);
    assert_eq!(refusal(&devnet, rival), Refused::Fee(5_900));
    // What is removed costs 6,000 sat, its own relay 1 sat/vB.
    let rival = pay(&[coinbases[1]], BTC_50, 6_000);
    let owed = 6_000 + rival.vsize() as u64;
    assert_eq!(refusal(&devnet, rival), Refused::Fee(6_000));
    let both = pay(&[coinbases[1], first(child)], 2 * BTC_50 - 6_000, 50_000);
    assert_eq!(refusal(&devnet, both), Refused::Invalid);
    let rival = devnet.submit(pay(&[coinbases[1]], BTC_50, owed)).unwrap();
    assert_eq!(devnet.node().state().pool().in_order(), [rival]);
}

#[test]
fn chains_end_at_the_limit() {
    let (devnet, coinbases) = bare();
    let mut tip = devnet.submit(pay(&[coinbases[1]], BTC_50, 200)).unwrap();
    let mut left = BTC_50 - 200;
    for _ in 1..CHAIN_LIMIT {
        tip = devnet.submit(pay(&[first(tip)], left, 200)).unwrap();
        left -= 200;
    }
    assert_eq!(
        refusal(&devnet, pay(&[first(tip)], left, 200)),
        Refused::Chain
    );
    // A block takes the whole chain, parents first, and then it may go on.
    devnet.mine_block().unwrap();
    assert_eq!(devnet.status().mempool, 0);
    devnet.submit(pay(&[first(tip)], left, 200)).unwrap();
}

/// As Core 31 sees it: however they hang together, parents and children of parents alike.
#[test]
fn clusters_end_at_the_limit() {
    let (devnet, coinbases) = bare();
    // A payment to many and its children, which no chain limit forbids.
    let fan = |coinbase: usize, children: u32| {
        let mut root = pay(&[coinbases[coinbase]], BTC_50, 10_000);
        root.output[0].value /= 22;
        let share = root.output[0].value.to_sat();
        root.output = vec![root.output[0].clone(); 22];
        let root = devnet.submit(root).unwrap();
        let child = |vout| {
            let child = pay(&[OutPoint { txid: root, vout }], share, 500);
            first(devnet.submit(child).unwrap())
        };
        ((0..children).map(child).collect::<Vec<_>>(), share - 500)
    };
    let (a, value) = fan(1, 21);
    let (b, _) = fan(2, 21);
    let (c, _) = fan(3, 18);
    let (d, _) = fan(4, 17);
    let join = |a: OutPoint, b: OutPoint| pay(&[a, b], 2 * value, 500);
    devnet.submit(join(a[0], b[0])).unwrap();
    // 22 + 22 + 1, and 19 + 1 or 18 + 1.
    assert_eq!(refusal(&devnet, join(b[1], c[0])), Refused::Cluster);
    devnet.submit(join(b[1], d[0])).unwrap();
    let one_more = pay(&[d[1]], value, 500);
    assert_eq!(refusal(&devnet, one_more.clone()), Refused::Cluster);
    devnet.mine_block().unwrap();
    devnet.submit(one_more).unwrap();
}

#[test]
fn a_block_removes_what_it_conflicts_with_and_all_that_stands_on_it() {
    let (devnet, coinbases) = bare();
    let twin = bare().0;
    let parent = devnet.submit(pay(&[coinbases[1]], BTC_50, 200)).unwrap();
    devnet
        .submit(pay(&[first(parent)], BTC_50 - 200, 200))
        .unwrap();
    let other = devnet.submit(pay(&[coinbases[2]], BTC_50, 200)).unwrap();
    twin.submit(pay(&[coinbases[1]], BTC_50, 300)).unwrap();
    twin.mine_block().unwrap();

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("blk.dat");
    {
        let state = twin.node().state();
        let blocks = [state.chain().block_at(111).unwrap()];
        devnet::blockfile::write(&path, bitcoin::Network::Regtest.magic(), blocks).unwrap();
    }
    devnet.load(&path).unwrap();
    assert_eq!(devnet.status().height, 111);
    assert_eq!(devnet.node().state().pool().in_order(), [other]);
}

#[test]
fn without_coins_there_is_no_pool() {
    let devnet = Devnet::start(Config {
        keep_coins: false,
        ..Config::default()
    })
    .unwrap();
    let tx = pay(
        &[OutPoint {
            txid: bare().1[1].txid,
            vout: 0,
        }],
        BTC_50,
        200,
    );
    assert_eq!(refusal(&devnet, tx), Refused::NoCoins);
    assert!(devnet.mine(1).is_err() && devnet.utxo_set().is_err() && devnet.reorg(1, 2).is_err());
}
