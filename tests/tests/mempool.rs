//! What peers announce is what the status counts and what the table shows, with Core's fees and sizes, until it confirms.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bitcoin::{Block, Network, OutPoint, Transaction, consensus};
use blockmill_tests::data;
use blockmill_tests::host::{ALL_ROWS, Host, Installation};
use blockmill_tests::pool_cost::{self, PoolCost};
use blockmill_tests::rows;
use devnet::{Behaviour, Config, Devnet};

const LIMIT: Duration = Duration::from_secs(120);
const POOL: &str = "SELECT lower(hex(txid)), fee, vsize FROM mempool";

/// txid to fee in sat and virtual bytes.
type Pool = BTreeMap<String, (String, String)>;

/// What Core said of the 60 transactions.
fn oracle() -> Pool {
    let text = fs::read_to_string(data::regtest("mempool.tsv")).unwrap();
    text.lines()
        .skip(1)
        .map(|line| {
            let mut cells = line.split('\t').map(str::to_owned);
            let mut cell = || cells.next().unwrap();
            (cell(), (cell(), cell()))
        })
        .collect()
}

/// What the signature operations of the 60 transactions cost, as the `bitcoin` crate counts them.
fn sigops_of_the_60() -> u64 {
    let bytes = fs::read(data::regtest("main.dat")).unwrap();
    let mut rest = bytes.as_slice();
    let mut outputs = HashMap::new();
    let mut keep = |tx: &Transaction| {
        for (output, vout) in tx.output.iter().zip(0..) {
            outputs.insert(OutPoint::new(tx.compute_txid(), vout), output.clone());
        }
    };
    while let Some((head, more)) = rest.split_first_chunk::<8>() {
        let length = u32::from_le_bytes(head[4..].try_into().unwrap()) as usize;
        let block: Block = consensus::deserialize(&more[..length]).unwrap();
        block.txdata.iter().for_each(&mut keep);
        rest = &more[length..];
    }
    let pool = fs::read_to_string(data::regtest("mempool.hex")).unwrap();
    let pool: Vec<Transaction> = pool
        .lines()
        .map(|line| consensus::encode::deserialize_hex(line.trim()).unwrap())
        .collect();
    pool.iter().for_each(keep);
    let cost = |tx: &Transaction| tx.total_sigop_cost(|spent| outputs.get(spent).cloned()) as u64;
    pool.iter().map(cost).sum()
}

/// The rows of the table `mempool`.
fn table(installation: &Installation) -> Pool {
    rows::query(&installation.database(), POOL)
        .unwrap()
        .into_iter()
        .map(|row| (row[0].clone(), (row[1].clone(), row[2].clone())))
        .collect()
}

fn wait_for_pool(host: &mut Host, txs: usize) {
    host.wait_for(
        &format!("{txs} transactions in its pool"),
        LIMIT,
        |status| (status["mempool"]["txs"] == txs).then_some(()),
    )
    .unwrap();
}

/// Waits until the table has what it should, and says what it has when it does not come to that.
fn wait_for_table(host: &mut Host, wanted: &Pool) {
    let installation = host.installation().clone();
    let outcome = host.wait_for("the table of the pool", LIMIT, |_| {
        (table(&installation) == *wanted).then_some(())
    });
    if let Err(error) = outcome {
        assert_eq!(&table(&installation), wanted, "{error:#}");
    }
}

#[test]
fn sixty_transactions_have_the_fees_and_sizes_of_core_and_are_there_again_after_a_restart() {
    let oracle = oracle();
    assert_eq!(oracle.len(), 60);
    let devnet = Devnet::start(Config {
        network: Network::Regtest,
        files: vec![data::regtest("main.dat")],
        announce_pool: false,
        ..Config::default()
    })
    .unwrap();
    let installation = Installation::new("regtest", &[devnet.p2p_addr()])
        .unwrap()
        .plugins(&format!(
            "{ALL_ROWS}\n[plugins.fee-estimator.settings]\nwarm_blocks = 0\nwarm_percent = 0\n"
        ));
    let mut host = installation.start().unwrap();
    host.wait_for("the tip", LIMIT, |status| {
        (status["synced"] == true).then_some(())
    })
    .unwrap();
    devnet.submit_file(data::regtest("mempool.hex")).unwrap();
    wait_for_pool(&mut host, 60);
    wait_for_table(&mut host, &oracle);
    // Plugins are told what the signatures cost, with the scripts that are spent.
    let sigops = sigops_of_the_60();
    assert!(sigops > 60, "{sigops}");
    until(&host, "projection", |next| {
        next["blocks"][0]["sigops"] == sigops
    });
    let costs = oracle.keys().map(|txid| {
        let one = host.get(&format!("mempool/tx/{txid}")).unwrap();
        one["sigop_cost"].as_u64().unwrap()
    });
    assert_eq!(costs.sum::<u64>(), sigops);
    let status = host.get("status").unwrap();
    assert_eq!(status["mempool"]["fees_sats"], 108_003);
    assert_eq!(status["mempool"]["vbytes"], 12_548);
    let seen = "SELECT count(*) FROM mempool WHERE abs(first_seen - unixepoch()) < 600 \
                AND abs(fee_rate - 1.0 * fee / vsize) < 1e-9";
    assert_eq!(
        rows::query(&installation.database(), seen).unwrap(),
        [["60"]]
    );
    let first_seen = "SELECT lower(hex(txid)), first_seen FROM mempool ORDER BY txid";
    let before = rows::query(&installation.database(), first_seen).unwrap();
    host.stop().unwrap();

    // Nobody announces them again: they come from our own disk.
    let mut host = installation.start().unwrap();
    wait_for_pool(&mut host, 60);
    wait_for_table(&mut host, &oracle);
    let after = rows::query(&installation.database(), first_seen).unwrap();
    assert_eq!(before, after, "first seen before the restart");

    host.wait_for("the tip", LIMIT, |status| {
        (status["synced"] == true).then_some(())
    })
    .unwrap();
    // Once confirmed they are gone from the pool and are rows of the chain.
    let block = devnet.mine_block().unwrap();
    host.wait_for_tip(&block.to_string(), LIMIT).unwrap();
    wait_for_pool(&mut host, 0);
    wait_for_table(&mut host, &Pool::new());
    // The block came as the short ids of what was here already.
    let (_, metrics) = host.get_text("/metrics").unwrap();
    for line in [
        "blockmill_compact_blocks_total 1",
        "blockmill_compact_transactions_total 60",
        "blockmill_compact_transactions_from_pool_total 60",
    ] {
        assert!(
            metrics.lines().any(|other| other == line),
            "{line} is not in\n{metrics}"
        );
    }
    host.stop().unwrap();
    let confirmed = "SELECT lower(hex(txid)), fee, (weight + 3) / 4 FROM tx WHERE height = 131 AND position > 0";
    let confirmed: Pool = rows::query(&installation.database(), confirmed)
        .unwrap()
        .into_iter()
        .map(|row| (row[0].clone(), (row[1].clone(), row[2].clone())))
        .collect();
    assert_eq!(confirmed, oracle);
}

#[test]
fn replaced_transactions_leave_and_those_of_abandoned_blocks_come_back() {
    let devnet = Devnet::start(Config {
        seed: 21,
        behaviour: Behaviour::default(),
        ..Config::default()
    })
    .unwrap();
    devnet.mine(115).unwrap();
    let installation = Installation::new("regtest", &[devnet.p2p_addr()])
        .unwrap()
        .plugins(ALL_ROWS);
    let mut host = installation.start().unwrap();
    host.wait_for("the tip", LIMIT, |status| {
        (status["synced"] == true).then_some(())
    })
    .unwrap();
    devnet.fill_mempool(30);
    let pool = devnet.status().mempool;
    assert!(pool >= 20, "{pool} transactions");
    wait_for_pool(&mut host, pool);

    let replaced = devnet.replace(5);
    assert!(!replaced.is_empty());
    host.wait_for("the replacements", LIMIT, |_| {
        let ours = table(&installation);
        let right = |(old, new): &(bitcoin::Txid, bitcoin::Txid)| {
            !ours.contains_key(&old.to_string()) && ours.contains_key(&new.to_string())
        };
        replaced.iter().all(right).then_some(())
    })
    .unwrap();

    let reorg = devnet.reorg(2, 3).unwrap();
    let tip = devnet.status().tip.to_string();
    host.wait_for_tip(&tip, LIMIT).unwrap();
    assert!(!reorg.returned.is_empty());
    host.wait_for("what the abandoned blocks gave back", LIMIT, |_| {
        let ours = table(&installation);
        let back = |txid: &bitcoin::Txid| ours.contains_key(&txid.to_string());
        let gone = |(old, _): &(bitcoin::Txid, bitcoin::Txid)| !ours.contains_key(&old.to_string());
        (reorg.returned.iter().all(back) && reorg.replaced.iter().all(gone)).then_some(())
    })
    .unwrap();
    host.stop().unwrap();
}

#[test]
fn what_a_reorg_gives_back_before_the_pool_has_started_comes_into_it() {
    // Nobody announces anything: what is in the pool comes from blocks.
    let devnet = Devnet::start(Config {
        seed: 29,
        announce_pool: false,
        ..Config::default()
    })
    .unwrap();
    devnet.mine(115).unwrap();
    devnet.fill_mempool(30);
    devnet.mine(2).unwrap();
    let installation = Installation::new("regtest", &[devnet.p2p_addr()])
        .unwrap()
        .plugins(ALL_ROWS);
    let mut host = installation.start().unwrap();
    let tip = devnet.status().tip.to_string();
    host.wait_for_tip(&tip, LIMIT).unwrap();
    host.coins_at(&tip, LIMIT).unwrap();
    wait_for_pool(&mut host, 0);
    host.stop().unwrap();

    // The chain is left while the host is away: it begins at a block that is not in it any more.
    let reorg = devnet.reorg(3, 4).unwrap();
    assert!(reorg.returned.len() >= 10, "{reorg:?}");
    let mut host = installation.start().unwrap();
    let tip = devnet.status().tip.to_string();
    host.wait_for_tip(&tip, LIMIT).unwrap();
    host.wait_for("what the abandoned blocks gave back", LIMIT, |_| {
        let ours = table(&installation);
        let back = |txid: &bitcoin::Txid| ours.contains_key(&txid.to_string());
        let gone = |(old, _): &(bitcoin::Txid, bitcoin::Txid)| !ours.contains_key(&old.to_string());
        (reorg.returned.iter().all(back) && reorg.replaced.iter().all(gone)).then_some(())
    })
    .unwrap();
    // They are a pool like any other: journaled, and there again after a kill.
    let pool = table(&installation);
    let journal = installation.data().join("mempool.journal");
    host.wait_for("the journal", LIMIT, |_| {
        let bytes = fs::metadata(&journal).map_or(0, |file| file.len());
        (bytes > 100 * pool.len() as u64).then_some(())
    })
    .unwrap();
    host.kill9().unwrap();
    let mut host = installation.start().unwrap();
    wait_for_pool(&mut host, pool.len());
    host.stop().unwrap();
}

/// The flow goes on while the host is killed. What it had written 2 seconds before is there again; what was lost is said.
#[test]
fn a_kill_loses_the_last_seconds_of_the_pool_and_the_next_start_says_how_many() {
    let devnet = Devnet::start(Config {
        seed: 22,
        announce_pool: false,
        ..Config::default()
    })
    .unwrap();
    devnet.mine(160).unwrap();
    let installation = Installation::new("regtest", &[devnet.p2p_addr()])
        .unwrap()
        .plugins(ALL_ROWS);
    let mut host = installation.start().unwrap();
    host.wait_for("the tip", LIMIT, |status| {
        (status["synced"] == true).then_some(())
    })
    .unwrap();
    let first = devnet.fill_mempool(40);
    wait_for_pool(&mut host, first.len());
    // More than the journal's two seconds, however slow the machine is: it is there once the file has it.
    let journal = installation.data().join("mempool.journal");
    host.wait_for("the journal", LIMIT, |_| {
        let bytes = fs::metadata(&journal).map_or(0, |file| file.len());
        (bytes > 40 * 100).then_some(())
    })
    .unwrap();
    let more = devnet.fill_mempool(5);
    wait_for_pool(&mut host, first.len() + more.len());
    let before = table(&installation);
    host.kill9().unwrap();

    let mut host = installation.start().unwrap();
    let line = host
        .wait_for_log("the restored pool", LIMIT, |line| {
            line.contains("which was cut short")
        })
        .unwrap();
    assert!(line.contains("transactions restored of the"), "{line}");
    assert!(
        line.contains("in the 2 seconds after that is lost, about"),
        "{line}"
    );
    host.wait_for("the restored pool", LIMIT, |status| {
        (status["mempool"]["txs"].as_u64() >= Some(first.len() as u64)).then_some(())
    })
    .unwrap();
    let restored = table(&installation);
    host.wait_for("their rows", LIMIT, |_| {
        let ours = table(&installation);
        let there = |txid: &bitcoin::Txid| ours.contains_key(&txid.to_string());
        first.iter().all(there).then_some(())
    })
    .unwrap();
    assert!(restored.keys().all(|txid| before.contains_key(txid)));
    host.stop().unwrap();
    assert!(!journal.exists(), "the whole pool was saved");
}

/// Asks fee-estimator until the answer is as wanted.
fn until(
    host: &Host,
    question: &str,
    wanted: impl Fn(&serde_json::Value) -> bool,
) -> serde_json::Value {
    let deadline = Instant::now() + LIMIT;
    loop {
        let answer = host
            .get(&format!("plugins/fee-estimator/query/{question}"))
            .unwrap();
        if wanted(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "{answer}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_host_says_how_much_of_each_block_it_had_seen_and_from_whom() {
    let devnet = Devnet::start(Config {
        seed: 23,
        ..Config::default()
    })
    .unwrap();
    devnet.mine(115).unwrap();
    let installation = Installation::new("regtest", &[devnet.p2p_addr()])
        .unwrap()
        .plugins(&format!("{ALL_ROWS}\n[plugins.fee-estimator]\n"));
    let mut host = installation.start().unwrap();
    host.wait_for("the tip", LIMIT, |status| {
        (status["synced"] == true).then_some(())
    })
    .unwrap();
    let cold = host.get("plugins/fee-estimator/query/recommended").unwrap();
    assert_eq!(cold["warming_up"], true, "{cold}");
    assert!(cold["fastest_sat_vb"].is_null());
    let mut blocks = 0;
    for _ in 0..4 {
        let txids = devnet.fill_mempool(12);
        assert!(!txids.is_empty());
        wait_for_pool(&mut host, txids.len());
        let one = host.get(&format!("mempool/tx/{}", txids[0])).unwrap();
        assert_eq!(one["seen_from"][0]["peer"], devnet.p2p_addr().to_string());
        assert_eq!(
            (&one["class"], &one["passed_over"]),
            (&"primary".into(), &0.into())
        );
        let told = "SELECT count(*) FROM mempool";
        let database = installation.database();
        host.wait_for("plugins to hear of them", LIMIT, |_| {
            let rows = rows::query(&database, told).ok()?;
            (rows == [[txids.len().to_string()]]).then_some(())
        })
        .unwrap();
        until(&host, "status", |status| status["pool"] == txids.len());
        let block = devnet.mine_block().unwrap();
        host.wait_for_tip(&block.to_string(), LIMIT).unwrap();
        wait_for_pool(&mut host, 0);
        blocks += 1;
        let status = host.get("status").unwrap();
        let last = &status["mempool"]["last_block"];
        assert_eq!(last["txs"], last["seen"], "{status}");
        assert_eq!(last["txs"], txids.len());
        assert_eq!(status["mempool"]["coverage"]["blocks"], blocks);
        let gone = host.get(&format!("mempool/tx/{}", txids[0])).unwrap();
        assert_eq!(gone["error"]["code"], "not_found");
    }
    let warm = until(&host, "recommended", |warm| warm["warming_up"] == false);
    assert_eq!(warm["coverage"]["blocks"], 4, "{warm}");
    assert_eq!(warm["fastest_sat_vb"], 1.0);
    host.stop().unwrap();
}

/// A chain and a pool of at least `wanted` transactions.
fn devnet_with_pool(seed: u64, wanted: usize) -> Devnet {
    let devnet = Devnet::start(Config {
        seed,
        announce_pool: false,
        ..Config::default()
    })
    .unwrap();
    devnet.mine(400).unwrap();
    for _ in 0..100 {
        devnet.fill_mempool(wanted.saturating_sub(devnet.status().mempool));
        if devnet.status().mempool >= wanted {
            return devnet;
        }
        devnet.mine_block().unwrap();
    }
    panic!("{:?}", devnet.status());
}

/// A host that listens to one peer, with the plugins that the pool is for.
fn listener(peer: SocketAddr) -> Host {
    let installation = Installation::new("regtest", &[peer])
        .unwrap()
        .plugins("\n[plugins.utxo-tracker]\n\n[plugins.fee-estimator]\n")
        .plugins("\n[plugins.fee-estimator.settings]\nwarm_blocks = 0\nwarm_percent = 0\n");
    let mut host = installation.start().unwrap();
    host.wait_for("the tip", LIMIT, |status| {
        (status["synced"] == true).then_some(())
    })
    .unwrap();
    host
}

/// More than are remembered of a peer's announcements: the rest comes when it announces them again, whatever waited for
/// parents meanwhile.
#[test]
fn more_transactions_than_a_peer_may_announce_at_once_all_come() {
    let devnet = devnet_with_pool(24, 5_300);
    let pool = devnet.status().mempool;
    let mut host = listener(devnet.p2p_addr());
    devnet.announce_pool();
    pool_cost::wait_for_pool(&mut host, pool, || devnet.announce_pool()).unwrap();
    host.stop().unwrap();
}

/// What docs/performance.md says of the pool: `cargo test --release -- --ignored --nocapture twenty_thousand`.
#[test]
#[ignore = "a measurement"]
fn twenty_thousand_transactions_from_one_peer() {
    let start = Instant::now();
    let devnet = devnet_with_pool(24, 20_000);
    let pool = devnet.status().mempool;
    println!("{pool} transactions made in {:?}", start.elapsed());
    let mut host = listener(devnet.p2p_addr());
    let cost = PoolCost::begin(&mut host).unwrap();
    devnet.announce_pool();
    pool_cost::wait_for_pool(&mut host, pool, || devnet.announce_pool()).unwrap();
    let took = cost.elapsed();
    until(&host, "status", |status| status["pool"] == pool);
    println!("plugins had them after {:?}", cost.elapsed());
    cost.print(&mut host, pool, took).unwrap();
    for question in ["recommended", "projection"] {
        let start = Instant::now();
        let answer = host
            .get(&format!("plugins/fee-estimator/query/{question}"))
            .unwrap();
        assert_eq!(answer["warming_up"], false, "{answer}");
        println!("{question} in {:?}", start.elapsed());
    }
    host.stop().unwrap();
}
