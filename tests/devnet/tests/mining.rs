//! Mined chains, judged by rules that are written down here a second time, and by the `bitcoin` crate.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, HashMap, HashSet};

use bitcoin::script::Builder;
use bitcoin::{Amount, Block, Network, OutPoint, TxOut, Txid};
use devnet::coins::COINBASE_MATURITY;
use devnet::{Clock, Config, Devnet, Mining};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn blocks(devnet: &Devnet) -> Vec<Block> {
    let state = devnet.node().state();
    let chain = state.chain();
    (1..=chain.height())
        .map(|h| chain.block_at(h).unwrap().decode().unwrap())
        .collect()
}

fn subsidy(height: usize) -> u64 {
    (50 * 100_000_000) >> (height / 150)
}

/// Checks every block of the chain and returns the counts of inputs by kind of what they spend.
fn check(blocks: &[Block]) -> BTreeMap<&'static str, usize> {
    let mut outputs: HashMap<OutPoint, (TxOut, usize, bool)> = HashMap::new();
    let mut kinds = BTreeMap::new();
    let mut parent = bitcoin::constants::genesis_block(Network::Regtest).header;
    let mut times = vec![parent.time];
    for (height, block) in (1..).zip(blocks) {
        assert_eq!(block.header.prev_blockhash, parent.block_hash());
        assert_eq!(block.header.bits, parent.bits);
        block.header.validate_pow(block.header.target()).unwrap();
        let mut last: Vec<u32> = times.iter().rev().take(11).copied().collect();
        last.sort_unstable();
        assert!(
            block.header.time > last[last.len() / 2],
            "median time past at {height}"
        );
        times.push(block.header.time);
        assert!(block.check_merkle_root() && block.check_witness_commitment());
        // `Block::bip34_block_height` does not know the one-byte numbers up to 16 that Core asks for.
        let script = block.txdata[0].input[0].script_sig.as_bytes();
        assert!(script.starts_with(Builder::new().push_int(height as i64).as_bytes()));
        assert!(block.weight().to_wu() <= 4_000_000);

        let mut fees = 0;
        for (at, tx) in block.txdata.iter().enumerate() {
            assert_eq!(tx.is_coinbase(), at == 0);
            let mut taken = 0;
            for input in tx.input.iter().filter(|_| at > 0) {
                let (output, made, coinbase) = outputs.remove(&input.previous_output).unwrap();
                assert!(!coinbase || height - made >= COINBASE_MATURITY as usize);
                taken += output.value.to_sat();
                let script = &output.script_pubkey;
                let kind = match () {
                    () if script.is_p2wpkh() => "p2wpkh",
                    () if script.is_p2tr() => "p2tr",
                    () if script.is_p2pkh() => "p2pkh",
                    () if script.is_p2sh() => "p2sh-p2wpkh",
                    () if script.is_p2wsh() => "p2wsh",
                    () => panic!("unknown script {script}"),
                };
                *kinds.entry(kind).or_default() += 1;
            }
            let paid = tx
                .output
                .iter()
                .map(|output| output.value.to_sat())
                .sum::<u64>();
            if at > 0 {
                let fee = taken.checked_sub(paid).unwrap();
                let rate = fee as f64 / tx.vsize() as f64;
                assert!((1.0..450.0).contains(&rate), "{rate} sat/vB");
                assert!(tx.output.iter().all(|o| {
                    o.script_pubkey.is_op_return() || o.value >= Amount::from_sat(1_000)
                }));
                let lock = tx.lock_time.to_consensus_u32();
                assert!((lock as usize) < height, "lock time {lock} at {height}");
                fees += fee;
            }
            let txid = tx.compute_txid();
            for (vout, output) in (0..).zip(&tx.output) {
                if !output.script_pubkey.is_op_return() {
                    outputs.insert(OutPoint { txid, vout }, (output.clone(), height, at == 0));
                }
            }
        }
        let claimed: Amount = block.txdata[0]
            .output
            .iter()
            .map(|output| output.value)
            .sum();
        assert_eq!(claimed.to_sat() - subsidy(height), fees, "fees at {height}");
        parent = block.header;
    }
    kinds
}

/// The coin set of a node that was given the surviving blocks and nothing else.
fn replay(devnet: &Devnet) -> devnet::UtxoSet {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("blk.dat");
    {
        let state = devnet.node().state();
        let chain = state.chain();
        let active = (1..=chain.height()).map(|height| chain.block_at(height).unwrap());
        devnet::blockfile::write(&path, Network::Regtest.magic(), active).unwrap();
    }
    Devnet::serve_file(path, Network::Regtest)
        .unwrap()
        .utxo_set()
        .unwrap()
}

#[test]
fn a_mined_chain_keeps_every_rule_and_holds_every_kind_of_input() {
    let devnet = Devnet::new(11).unwrap();
    devnet.mine(160).unwrap();
    let kinds = check(&blocks(&devnet));
    println!("{kinds:?}");
    assert_eq!(kinds.len(), 5);
    assert!(kinds.values().all(|count| *count > 20), "{kinds:?}");
    assert_eq!(replay(&devnet), devnet.utxo_set().unwrap());
}

#[test]
fn a_seed_decides_everything_but_what_it_does_not() {
    let run = |seed| {
        let devnet = Devnet::new(seed).unwrap();
        devnet.mine(125).unwrap();
        devnet.fill_mempool(30);
        devnet.reorg(4, 6).unwrap();
        devnet.replace(3);
        devnet.mine_block().unwrap();
        let pool = devnet.node().state().pool().in_order();
        (devnet.utxo_set().unwrap(), pool)
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1).0.bestblock, run(2).0.bestblock);
}

#[test]
fn the_pool_has_chains_and_a_block_takes_the_best_rates_with_their_parents() {
    let devnet = Devnet::start(Config {
        mining: Mining {
            max_weight: 60_000,
            ..Config::default().mining
        },
        ..Config::default()
    })
    .unwrap();
    devnet.mine(150).unwrap();
    let made = devnet.fill_mempool(300);
    assert_eq!(made.len(), 300);
    let rates: HashMap<Txid, u64> = {
        let state = devnet.node().state();
        let pool = state.pool();
        let is_chained = |id: &&Txid| {
            let tx = &pool.get(id).unwrap().tx;
            tx.input
                .iter()
                .any(|input| pool.get(&input.previous_output.txid).is_some())
        };
        let chained = made.iter().filter(is_chained).count();
        assert!(
            (15..150).contains(&chained),
            "{chained} on unconfirmed parents"
        );
        pool.in_order()
            .into_iter()
            .map(|id| (id, pool.get(&id).unwrap().fee_rate()))
            .collect()
    };
    devnet.mine_block().unwrap();
    let block = blocks(&devnet).pop().unwrap();
    assert!(block.weight().to_wu() <= 60_000);
    let taken: Vec<Txid> = block.txdata[1..]
        .iter()
        .map(|tx| tx.compute_txid())
        .collect();
    let left: HashSet<Txid> = devnet
        .node()
        .state()
        .pool()
        .in_order()
        .into_iter()
        .collect();
    assert_eq!(taken.len() + left.len(), rates.len());
    let mean = |ids: &mut dyn Iterator<Item = &Txid>| {
        let all: Vec<u64> = ids.map(|id| rates[id]).collect();
        all.iter().sum::<u64>() / all.len() as u64
    };
    assert!(mean(&mut taken.iter()) > 2 * mean(&mut left.iter()));
    check(&blocks(&devnet));
}

#[test]
fn a_reorg_leaves_the_coins_of_the_surviving_chain_and_accounts_for_every_transaction() {
    let devnet = Devnet::new(21).unwrap();
    devnet.mine(140).unwrap();
    let mut totals = [0; 3];
    for round in 0..6 {
        devnet.fill_mempool(25);
        let before = blocks(&devnet);
        let pooled = devnet.node().state().pool().in_order();
        let depth = 1 + round % 5;
        let reorg = devnet.reorg(depth, depth + 1 + round % 2).unwrap();

        let after = blocks(&devnet);
        check(&after);
        assert_eq!(replay(&devnet), devnet.utxo_set().unwrap());
        let fork = reorg.fork_height as usize;
        assert_eq!(before[..fork], after[..fork]);
        assert_eq!(
            reorg.abandoned,
            before[fork..]
                .iter()
                .map(Block::block_hash)
                .collect::<Vec<_>>()
        );
        assert_eq!(
            reorg.added,
            after[fork..]
                .iter()
                .map(Block::block_hash)
                .collect::<Vec<_>>()
        );
        assert_ne!(before[fork].txdata[1..], after[fork].txdata[1..]);

        let txids = |blocks: &[Block]| -> HashSet<Txid> {
            blocks
                .iter()
                .flat_map(|b| &b.txdata[1..])
                .map(|tx| tx.compute_txid())
                .collect()
        };
        let (old, new) = (txids(&before[fork..]), txids(&after[fork..]));
        let pool: HashSet<Txid> = devnet
            .node()
            .state()
            .pool()
            .in_order()
            .into_iter()
            .collect();
        for txid in &reorg.confirmed_again {
            assert!(new.contains(txid) && old.contains(txid));
        }
        for txid in &reorg.returned {
            assert!(pool.contains(txid) && !new.contains(txid));
        }
        for (was, rival) in &reorg.replaced {
            assert!(!new.contains(was) && !pool.contains(was) && new.contains(rival));
        }
        let known = reorg
            .confirmed_again
            .iter()
            .chain(&reorg.returned)
            .chain(&reorg.dropped);
        let known = known.chain(reorg.replaced.iter().map(|(was, _)| was));
        assert_eq!(known.copied().collect::<HashSet<_>>(), old);
        // What was pooled and does not stand on something that went is pooled still, or confirmed.
        let lost = pooled
            .iter()
            .filter(|id| !pool.contains(*id) && !new.contains(*id))
            .count();
        assert!(
            lost < pooled.len() / 2,
            "{lost} of {} pooled transactions lost",
            pooled.len()
        );

        totals[0] += reorg.confirmed_again.len();
        totals[1] += reorg.returned.len();
        totals[2] += reorg.replaced.len();
    }
    println!("confirmed again, returned, replaced: {totals:?}");
    assert!(totals.iter().all(|total| *total > 10), "{totals:?}");
    // Everything in the pool can still be mined.
    while devnet.status().mempool > 0 {
        devnet.mine_block().unwrap();
    }
    check(&blocks(&devnet));
    assert_eq!(replay(&devnet), devnet.utxo_set().unwrap());
}

#[test]
fn any_walk_ends_in_the_coins_of_the_surviving_chain() {
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let devnet = Devnet::new(seed).unwrap();
    devnet.mine(115).unwrap();
    for _ in 0..40 {
        let height = devnet.status().height;
        match rng.random_range(0..10) {
            0..3 => drop(devnet.fill_mempool(rng.random_range(1..60))),
            3..5 => drop(devnet.replace(rng.random_range(1..6))),
            5 => drop(devnet.mine_block().unwrap()),
            6 => drop(devnet.mine(rng.random_range(1..4)).unwrap()),
            7 => {
                // Down and up again, with the pool following as well as it can.
                devnet
                    .limit_height(Some(height - rng.random_range(1..8)))
                    .unwrap();
                devnet.limit_height(None).unwrap();
                assert_eq!(devnet.status().height, height);
            }
            _ => {
                let depth = rng.random_range(1..8);
                devnet.reorg(depth, depth + rng.random_range(1..3)).unwrap();
            }
        }
    }
    check(&blocks(&devnet));
    assert_eq!(replay(&devnet), devnet.utxo_set().unwrap());
    while devnet.status().mempool > 0 {
        devnet.mine_block().unwrap();
    }
    check(&blocks(&devnet));
    assert_eq!(replay(&devnet), devnet.utxo_set().unwrap());
}

#[test]
fn replacements_pay_more_and_spend_the_same() {
    let devnet = Devnet::new(31).unwrap();
    devnet.mine(130).unwrap();
    devnet.fill_mempool(60);
    let before: HashMap<Txid, (u64, Vec<OutPoint>)> = {
        let state = devnet.node().state();
        let pool = state.pool();
        let entry = |id: &Txid| pool.get(id).unwrap().clone();
        let inputs = |id: &Txid| {
            entry(id)
                .tx
                .input
                .iter()
                .map(|i| i.previous_output)
                .collect()
        };
        pool.in_order()
            .iter()
            .map(|id| (*id, (entry(id).fee, inputs(id))))
            .collect()
    };
    let pairs = devnet.replace(10);
    assert_eq!(pairs.len(), 10);
    let state = devnet.node().state();
    for (old, new) in pairs {
        let Some(entry) = state.pool().get(&new) else {
            continue;
        };
        assert!(state.pool().get(&old).is_none());
        let (fee, inputs) = &before[&old];
        assert!(entry.fee > *fee);
        assert!(
            entry
                .tx
                .input
                .iter()
                .any(|input| inputs.contains(&input.previous_output))
        );
    }
}

#[test]
fn a_reorg_that_cannot_be_is_refused_and_changes_nothing() {
    let devnet = Devnet::new(41).unwrap();
    devnet.mine(5).unwrap();
    let before = devnet.status();
    assert!(devnet.reorg(0, 1).is_err());
    assert!(devnet.reorg(2, 2).is_err());
    assert!(devnet.reorg(6, 7).is_err());
    assert_eq!(devnet.status(), before);
    // Back to genesis is far enough, and is allowed.
    devnet.reorg(5, 6).unwrap();
    assert_eq!(devnet.status().height, 6);
    assert_eq!(replay(&devnet), devnet.utxo_set().unwrap());
}

#[test]
fn mining_goes_on_where_a_file_ends_and_in_real_time_when_told_to() {
    let main = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/regtest/main.dat");
    let devnet = Devnet::serve_file(main, Network::Regtest).unwrap();
    devnet.mine(3).unwrap();
    assert_eq!(devnet.status().height, 133);
    check_times(&devnet);

    let now = || {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        u32::try_from(since.as_secs()).unwrap()
    };
    let devnet = Devnet::new(51).unwrap();
    let start = now();
    devnet.mine_up_to_now(120, 600).unwrap();
    let first = blocks(&devnet)[0].header.time;
    assert!(start - first >= 119 * 600);
    assert!(devnet.status().time <= now());
    devnet.mine(20).unwrap();
    // Twenty blocks in a second push the median, but not far.
    assert!(devnet.status().time < now() + 60);
    check(&blocks(&devnet));

    let mainnet = Devnet::start(Config {
        network: Network::Bitcoin,
        ..Config::default()
    })
    .unwrap();
    assert!(mainnet.mine(1).is_err());
    let fixed = Mining {
        clock: Clock::Fixed(1_600_000_000),
        ..Config::default().mining
    };
    let devnet = Devnet::start(Config {
        mining: fixed,
        ..Config::default()
    })
    .unwrap();
    devnet.mine(1).unwrap();
    assert_eq!(devnet.status().time, 1_600_000_000);
}

fn check_times(devnet: &Devnet) {
    let state = devnet.node().state();
    let chain = state.chain();
    for height in 1..=chain.height() {
        let time = chain.block_at(height).unwrap().header().time;
        assert!(time > chain.median_time(height - 1));
    }
}
